//! The command line: the program against a real Consul and the dev agent, the command component and
//! the plugin under `wasmtime run`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::process::Command;
use test_support::consul::{Consul, Kind, NODE, ROOT_TOKEN};
use test_support::program::{self, Output, input, run};
use test_support::{TOKEN, plugin, tools};

/// One of the two programs that take the same arguments.
type Program = fn(args: &[&str], environment: &[(&str, &str)]) -> Result<Output>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");

/// Runs `consul-session`.
fn consul_session(args: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    run(&mut program::consul_session(PROGRAM, args, environment)?)
}

/// Runs `consul-session` with this text on standard input.
fn consul_session_reading(args: &[&str], text: &str) -> Result<Output> {
    run(program::consul_session(PROGRAM, args, &[])?.stdin(input(text)?))
}

/// Runs the command component under `wasmtime run`.
fn component(args: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    run(&mut program::component(args, environment)?)
}

/// Runs `consul-session` with the agent's address in its environment.
fn run_at(agent: &Consul, args: &[&str]) -> Result<Output> {
    consul_session(args, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())])
}

#[test]
fn help_lists_every_option() -> Result<()> {
    let help = consul_session(&["--help"], &[])?.succeeded()?.stdout;
    for info in consul_session::options::TABLE {
        let flag = format!("--{}", info.name.replace('_', "-"));
        ensure!(help.lines().any(|line| line.trim_start().split([' ', '[']).any(|word| word == flag)), "{flag}: {help}");
    }
    Ok(())
}

#[test]
fn nothing_typed_does_nothing() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for args in [&[][..], &["--verbose"], &["delay=5"], &["--delay", "5"], &["-o", "json"]] {
        let output = run_at(&agent, args)?;
        ensure!(output.status == 2 && agent.api().sessions()?.is_empty(), "{args:?}: {output:?}");
    }
    let usage = run_at(&agent, &[])?;
    ensure!(usage.stdout.is_empty() && usage.stderr.contains("Usage: consul-session COMMAND"), "{usage:?}");
    // Said with a word, a session without a name is made.
    for args in [&["create"][..], &["state=present"]] {
        run_at(&agent, args)?.succeeded()?;
    }
    ensure!(agent.api().sessions()?.len() == 2);
    Ok(())
}

#[test]
fn version_is_that_of_the_crate() -> Result<()> {
    let version = consul_session(&["--version"], &[])?.succeeded()?.stdout;
    ensure!(version == concat!("consul-session ", env!("CARGO_PKG_VERSION"), "\n"), "{version}");
    Ok(())
}

#[test]
fn demo_runs_the_five_examples() -> Result<()> {
    // Nothing listens at the address in the environment, which the demo does not use.
    let stdout = consul_session(&["--dev", "demo"], &[("CONSUL_HTTP_ADDR", "127.0.0.1:1")])?.succeeded()?.stdout;
    for part in [
        "$ consul-session name=session1\nchanged: created a session\n",
        "$ consul-session name=session_with_check checks=existing_check_name\nchanged: created a session\n",
        "$ consul-session name=session_with_delay delay=20s\nchanged: created a session\n",
        " state=info\n1 session\n",
        "$ consul-session state=list\n3 sessions\n",
        "serfHealth,existing_check_name",
    ] {
        ensure!(stdout.contains(part), "{part} is not in {stdout}");
    }
    Ok(())
}

#[test]
fn misspelled_option_suggests_the_nearest() -> Result<()> {
    let output = consul_session(&["--dev", "dealy=20s"], &[])?;
    let expected = "error (invalid-option): unknown option `dealy`: did you mean `delay`?\n";
    ensure!((output.status, output.stdout.as_str(), output.stderr.as_str()) == (2, "", expected), "{}", output.stderr);
    Ok(())
}

#[test]
fn json_error_is_one_object_on_stdout() -> Result<()> {
    for args in [&["--format", "json", "--dev", "delay=61"][..], &["--dev", "delay=61", "--format=json"]] {
        let output = consul_session(args, &[])?;
        let error = output.json()?;
        ensure!(output.status == 2 && output.stderr.is_empty());
        ensure!(error["changed"] == false && error["failed"] == true && error["error"] == "invalid-option", "{error}");
        let message = error["msg"].as_str().unwrap_or_default();
        ensure!(error["option"] == "delay" && message.contains("61") && message.contains("60s"), "{error}");
    }
    Ok(())
}

#[test]
fn stdin_options_are_read_and_arguments_override_them() -> Result<()> {
    let created = consul_session_reading(&["--dev", "-", "--format", "json"], r#"{"name": "s", "delay": 0.5, "checks": []}"#)?
        .succeeded()?
        .json()?;
    ensure!(created["name"] == "s" && created["delay"] == 0.5 && created["checks"] == json!([]), "{created}");
    let overridden = consul_session_reading(&["--dev", "-", "delay=1", "--format", "json"], r#"{"name": "s", "delay": 0.5}"#)?
        .succeeded()?
        .json()?;
    ensure!(overridden["delay"] == 1, "{overridden}");
    for (text, part) in
        [("[1]", "not a JSON object"), ("{", "not JSON"), (r#"{"dealy": 1}"#, "`delay`"), ("\u{fe}", "not JSON")]
    {
        let output = consul_session_reading(&["--dev", "-"], text)?;
        ensure!(
            output.status == 2 && output.stderr.contains("error (invalid-option)") && output.stderr.contains(part),
            "{text}: {}",
            output.stderr
        );
    }
    Ok(())
}

#[test]
fn demo_without_dev_and_dev_with_host_are_rejected() -> Result<()> {
    let output = consul_session(&["demo"], &[])?;
    ensure!(output.status == 2 && output.stderr.contains("needs --dev"), "{}", output.stderr);
    let output = consul_session(&["--dev", "state=list", "host=localhost"], &[])?;
    ensure!(output.status == 2 && output.stderr.contains("`host` cannot be combined with --dev"), "{}", output.stderr);
    Ok(())
}

#[test]
fn missing_or_broken_plugin_is_reported() -> Result<()> {
    let empty_component = tempfile::NamedTempFile::new()?;
    std::fs::write(&empty_component, b"\0asm\x0d\0\x01\0")?;
    let empty_component = empty_component.path().to_str().context("no UTF-8")?;
    let no_interface = "it exports no interface consul-session:plugin/";
    let cases =
        [("/nonexistent.wasm", "/nonexistent.wasm"), (file!(), "cannot load the plugin"), (empty_component, no_interface)];
    for (path, part) in cases {
        let path = tools::root().join(path);
        let output = consul_session(&["--dev", "list"], &[("CONSUL_SESSION_PLUGIN", path.to_str().context("no UTF-8")?)])?;
        ensure!(output.status == 1 && output.stderr.contains(part) && output.stdout.is_empty(), "{}", output.stderr);
    }
    Ok(())
}

#[test]
fn command_component_prints_the_same_as_the_program() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (port, address) = (format!("port={}", agent.http().port()), agent.http().to_string());
    let environment = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN", "any")];
    consul_session(&["name=s1", &port], &[])?.succeeded()?;
    for args in [
        &["state=list", &port][..],
        &["name=s1", &port, "--format", "json"],
        &["name=s1", &port, "delay=1s"],
        &["name=s1", &port, "delay=1s", "--format", "json"],
        &["name=s2", &port, "node=nowhere"],
        &["name=s2", &port, "--dry-run", "--format", "json"],
        &["dealy=1"],
        &["state=info"],
        &["--version"],
        &["help", "checks"],
    ] {
        let (program, component) = (consul_session(args, &[])?, component(args, &[])?);
        ensure!(
            // A runtime of WASI 0.2 tells success from failure, and no more.
            (&program.stdout, &program.stderr, program.status.min(1))
                == (&component.stdout, &component.stderr, component.status),
            "{args:?}: {}{}",
            component.stdout,
            component.stderr
        );
    }
    ensure!(
        component(&["state=list"], &environment)?.succeeded()?.stdout == consul_session(&["state=list"], &environment)?.stdout
    );
    Ok(())
}

#[test]
fn examples_work_as_typed() -> Result<()> {
    run_examples(consul_session)
}

#[test]
fn examples_work_with_the_command_component() -> Result<()> {
    run_examples(component)
}

/// Runs the five examples of the options and a few more calls, and checks what each one prints.
fn run_examples(program: Program) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let address = agent.http().to_string();
    let run_at = |args: &[&str]| program(args, &[("CONSUL_HTTP_ADDR", &address)]);
    let created = run_at(&["name=session1"])?.succeeded()?.stdout;
    ensure!(
        created.starts_with("changed: created a session\nID") && created.contains("session1") && created.contains(NODE),
        "{created}"
    );
    let again = run_at(&["name=session1"])?.succeeded()?.stdout;
    ensure!(again == created.replace("changed: created a session", "unchanged: the session is as wanted"), "{again}");
    run_at(&["name=session_with_check", "checks=passing-check"])?.succeeded()?;
    let delayed = run_at(&["name=session_with_delay", "delay=20s"])?.succeeded()?.stdout;
    ensure!(delayed.contains(" 20s "), "{delayed}");
    let sessions = agent.api().sessions()?;
    let id = sessions.iter().find(|session| session["Name"] == "session1").and_then(|session| session["ID"].as_str());
    let id = id.context("no session1")?;
    let info = run_at(&[&format!("id={id}"), "state=info"])?.succeeded()?.stdout;
    ensure!(info.starts_with("1 session\n") && info.contains(id), "{info}");
    let list = run_at(&["state=list"])?.succeeded()?.stdout;
    ensure!(list.starts_with("3 sessions\n") && list.lines().count() == 5, "{list}");
    let dry = run_at(&["state=absent", "name=session1", "--dry-run"])?.succeeded()?.stdout;
    ensure!(dry.starts_with("changed: would destroy 1 session\n- id        ") && agent.api().sessions()?.len() == 3, "{dry}");
    let absent = run_at(&["state=absent", "name=session1"])?.succeeded()?.stdout;
    ensure!(absent.starts_with("changed: destroyed 1 session\n") && agent.api().sessions()?.len() == 2, "{absent}");
    ensure!(run_at(&["state=absent", "name=session1"])?.succeeded()?.stdout == "unchanged: there is no such session\n");
    Ok(())
}

#[test]
fn json_answer_has_the_documented_keys() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let answer = run_at(&agent, &["name=s", "delay=0.5", "ttl=1m30s", "--format", "json"])?.succeeded()?.json()?;
    let expected = json!({"changed": true, "name": "s", "node": NODE, "behavior": "release", "delay": 0.5, "ttl": 90, "checks": ["serfHealth"], "destroyed": [], "filtered": false});
    for (key, value) in expected.as_object().into_iter().flatten() {
        ensure!(answer[key] == *value, "{key}: {answer}");
    }
    ensure!(answer["sessions"][0]["ID"] == answer["session_id"], "{answer}");
    ensure!(answer["session_id"] == agent.api().sessions()?[0]["ID"], "{answer}");
    Ok(())
}

#[test]
fn option_spellings_are_equivalent() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    run_at(&agent, &["--name", "a", "--node-checks", "passing-check", "--service-checks=service:web", "on_mismatch=fail"])?
        .succeeded()?;
    let again = run_at(&agent, &["name=a", "node_checks=passing-check", "service-checks=service:web"])?.succeeded()?.stdout;
    ensure!(again.starts_with("unchanged"), "{again}");
    let repeated =
        run_at(&agent, &["name=b", "checks=passing-check", "checks=service:web", "--format", "json"])?.succeeded()?.json()?;
    ensure!(repeated["checks"] == json!(["serfHealth", "passing-check", "service:web"]), "{repeated}");
    Ok(())
}

#[test]
fn consul_environment_variables_are_honored() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let address = format!("http://{}/", agent.http());
    let port = agent.http().port().to_string();
    let run_with =
        |args: &[&str], token: &str| consul_session(args, &[("CONSUL_HTTP_ADDR", &address), ("CONSUL_HTTP_TOKEN", token)]);
    run_with(&["name=s"], ROOT_TOKEN)?.succeeded()?;
    let denied = run_with(&["name=s"], "")?;
    ensure!(denied.status == 1 && denied.stderr.starts_with("error (access-denied)"), "{}", denied.stderr);
    // Each argument takes precedence over its variable.
    let overridden = consul_session(
        &["host=127.0.0.1", &format!("port={port}"), &format!("token={ROOT_TOKEN}"), "name=s"],
        &[("CONSUL_HTTP_ADDR", "127.0.0.9:1"), ("CONSUL_HTTP_TOKEN", "nonsense")],
    )?;
    ensure!(overridden.succeeded()?.stdout.starts_with("unchanged"));
    let tls = consul_session(&["state=list"], &[("CONSUL_HTTP_ADDR", &agent.http().to_string()), ("CONSUL_HTTP_SSL", "true")])?;
    ensure!(tls.stderr.starts_with("error (tls)"), "{}", tls.stderr);
    Ok(())
}

#[test]
fn tokens_are_redacted() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let port = format!("port={}", agent.http().port());
    let token = format!("token={TOKEN}");
    for args in [
        &[port.as_str(), &token, "name=s"][..],
        &[&port, "--token", TOKEN, "state=info"],
        &[&port, "--tokn", TOKEN],
        &["token", TOKEN],
        &[TOKEN],
        &["port=1", "state=list", &token],
        &[&port, &token, &token],
        &[&port, &format!("token={TOKEN} x"), "name=s"],
    ] {
        for format in ["table", "json"] {
            let output = consul_session(&[args, &["--format", format]].concat(), &[])?;
            ensure!(
                output.status != 0 && !output.stdout.contains(TOKEN) && !output.stderr.contains(TOKEN),
                "{args:?}: {}{}",
                output.stdout,
                output.stderr
            );
        }
    }
    Ok(())
}

#[test]
fn invisible_characters_in_names_are_escaped() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "x\u{1b}[2Jy\u{7}\u{202e}z"})))?;
    let stdout = run_at(&agent, &["state=list"])?.succeeded()?.stdout;
    ensure!(stdout.contains(r"x\u{1b}[2Jy\u{7}\u{202e}z"), "{stdout:?}");
    ensure!(!stdout.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{stdout:?}");
    // JSON is for programs, which get the name as it is.
    let json = run_at(&agent, &["state=list", "--format", "json"])?.succeeded()?;
    ensure!(json.json()?["sessions"][0]["Name"] == "x\u{1b}[2Jy\u{7}\u{202e}z", "{json:?}");
    Ok(())
}

#[test]
fn plugin_in_the_current_folder_is_not_loaded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("dist"))?;
    std::fs::write(folder.path().join("dist/consul-session-plugin.wasm"), "another component")?;
    let mut command = program::consul_session(PROGRAM, &["state=list", "host=127.0.0.1", "port=1"], &[])?;
    let output = run(command.env_remove("CONSUL_SESSION_PLUGIN").current_dir(folder.path()))?;
    ensure!(output.status == 1 && output.stderr.starts_with("error (unreachable): "), "{output:?}");
    Ok(())
}

#[test]
fn wasmtime_invoke_calls_the_plugin() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let port = agent.http().port();
    let wasmtime = tools::wasmtime()?;
    let invoke = |call: String| {
        let output = run(Command::new(&wasmtime).args(["run", "-S", "http", "--invoke", &call]).arg(plugin()?))?;
        output.succeeded().map(|output| output.stdout)
    };
    let none = invoke(format!("list-sessions(none, {{port: {port}}})"))?;
    ensure!(none.starts_with("ok({sessions: [], "), "{none}");
    let created = invoke(format!("apply({{name: \"session1\", delay: 20, port: {port}}})"))?;
    ensure!(created.starts_with("ok({changed: true, ") && created.contains("lock-delay: 20000000000"), "{created}");
    let again = invoke(format!("apply({{name: \"session1\", delay: 20, port: {port}}})"))?;
    ensure!(again.starts_with("ok({changed: false, "), "{again}");
    let json = invoke(format!("apply-json(\"{{\\\"state\\\": \\\"list\\\", \\\"port\\\": {port}}}\")"))?;
    ensure!(json.contains("session1"), "{json}");
    // The call of the README, without a port, goes to the default agent, which might not be there.
    let from_readme = invoke("list-sessions(none)".into())?;
    ensure!(from_readme.starts_with("ok({sessions: ") || from_readme.starts_with("err(unreachable("), "{from_readme}");
    let refused = invoke("apply({name: \"x\", delay: 0.0001})".into())?;
    ensure!(refused.starts_with("err(invalid-option("), "{refused}");
    Ok(())
}
