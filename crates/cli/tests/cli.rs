//! The command line as a person types it: the program against a real Consul and the dev agent, the plugin under `wasmtime run`, and
//! what the README says of both.

use anyhow::{Context, Result, ensure};
use consul_session_host::{Host, Limits};
use serde_json::json;
use std::path::Path;
use std::process::{Command, ExitCode};
use test_support::consul::{Consul, Kind, NODE, ROOT_TOKEN};
use test_support::program::{self, Ran, input, run};
use test_support::trial::{Test, run_tests};
use test_support::{plugin, tools};

fn main() -> ExitCode {
    let without_consul: [(&str, Test); 12] = [
        ("help lists every option and exits with 0", help),
        ("the version is the crate's", version),
        ("the demo runs the page's five examples", demo),
        ("a slip exits with 1 and names the nearest option", slip),
        ("an error in JSON is one object on standard output", json_error),
        ("options from standard input", from_input),
        ("a demo without --dev, and --dev with a host, are refused", dev_needs),
        ("a component that is missing or broken is named", no_component),
        ("the README's table of options is the program's", readme_options),
        ("the README's table of errors has every case", readme_errors),
        ("the README's table of limits is the host's", readme_limits),
        ("the README's configuration file can be used", readme_config),
    ];
    let with_consul: [(&str, Test); 9] = [
        ("the page's examples as typed", || page_examples(host)),
        ("the page's examples as typed, with the command component", || page_examples(component)),
        ("the command component answers, fails and exits as the program does", same_answers),
        ("JSON has the page's keys", json_answer),
        ("both spellings of an option", both_spellings),
        ("the environment is read as Consul's tools read it", environment),
        ("a token is never shown", token),
        ("what a session is named cannot steer the terminal", odd_name),
        ("wasmtime run --invoke", invoke),
    ];
    run_tests(without_consul, with_consul)
}

/// One of the two programs that take the same words.
type Program = fn(words: &[&str], environment: &[(&str, &str)]) -> Result<Ran>;

/// `consul-session`.
fn host(words: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
    run(&mut program::host(env!("CARGO_BIN_EXE_consul-session"), words, environment)?)
}

/// `consul-session`, at whose standard input a text is read.
fn host_reading(words: &[&str], text: &str) -> Result<Ran> {
    run(program::host(env!("CARGO_BIN_EXE_consul-session"), words, &[])?.stdin(input(text)?))
}

/// `wasmtime run` on the command component.
fn component(words: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
    run(&mut program::component(words, environment)?)
}

/// The program, with a plain agent's address in its environment.
fn at(agent: &Consul, words: &[&str]) -> Result<Ran> {
    host(words, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())])
}

fn help() -> Result<()> {
    let help = host(&["--help"], &[])?.succeeded()?.stdout;
    for info in consul_session::options::TABLE {
        ensure!(help.contains(&format!("\n  {} ", info.name)), "{} is missing: {help}", info.name);
    }
    ensure!(help == host(&["-h"], &[])?.succeeded()?.stdout);
    Ok(())
}

fn version() -> Result<()> {
    let version = host(&["--version"], &[])?.succeeded()?.stdout;
    ensure!(version == concat!("consul-session ", env!("CARGO_PKG_VERSION"), "\n"), "{version}");
    Ok(())
}

fn demo() -> Result<()> {
    // An agent in the environment is not touched: there is none.
    let shown = host(&["--dev", "demo"], &[("CONSUL_HTTP_ADDR", "127.0.0.1:1")])?.succeeded()?.stdout;
    for part in [
        "$ consul-session name=session1\nchanged: created a session\n",
        "$ consul-session name=session_with_check checks=existing_check_name\nchanged: created a session\n",
        "$ consul-session name=session_with_delay delay=20s\nchanged: created a session\n",
        " state=info\n1 session\n",
        "$ consul-session state=list\n3 sessions\n",
        "serfHealth,existing_check_name",
    ] {
        ensure!(shown.contains(part), "{part} is not in {shown}");
    }
    Ok(())
}

fn slip() -> Result<()> {
    let ran = host(&["--dev", "dealy=20s"], &[])?;
    let expected = "error (invalid-option): unknown option `dealy`: did you mean `delay`?\n";
    ensure!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()) == (1, "", expected), "{}", ran.stderr);
    Ok(())
}

fn json_error() -> Result<()> {
    for words in [&["--format", "json", "--dev", "delay=61"][..], &["--dev", "delay=61", "--format=json"]] {
        let ran = host(words, &[])?;
        let error = ran.json()?;
        ensure!(ran.status == 1 && ran.stderr.is_empty());
        ensure!(error["changed"] == false && error["failed"] == true && error["error"] == "invalid-option", "{error}");
        let message = error["msg"].as_str().unwrap_or_default();
        ensure!(error["option"] == "delay" && message.contains("61") && message.contains("60s"), "{error}");
    }
    Ok(())
}

fn from_input() -> Result<()> {
    let made = host_reading(&["--dev", "-", "--format", "json"], r#"{"name": "s", "delay": 0.5, "checks": []}"#)?
        .succeeded()?
        .json()?;
    ensure!(made["name"] == "s" && made["delay"] == 0.5 && made["checks"] == json!([]), "{made}");
    let typed =
        host_reading(&["--dev", "-", "delay=1", "--format", "json"], r#"{"name": "s", "delay": 0.5}"#)?.succeeded()?.json()?;
    ensure!(typed["delay"] == 1, "{typed}");
    for (text, part) in
        [("[1]", "not a JSON object"), ("{", "not JSON"), (r#"{"dealy": 1}"#, "`delay`"), ("\u{fe}", "not JSON")]
    {
        let ran = host_reading(&["--dev", "-"], text)?;
        ensure!(
            ran.status == 1 && ran.stderr.contains("error (invalid-option)") && ran.stderr.contains(part),
            "{text}: {}",
            ran.stderr
        );
    }
    Ok(())
}

fn dev_needs() -> Result<()> {
    let ran = host(&["demo"], &[])?;
    ensure!(ran.status == 1 && ran.stderr.contains("needs --dev"), "{}", ran.stderr);
    let ran = host(&["--dev", "host=localhost"], &[])?;
    ensure!(ran.status == 1 && ran.stderr.contains("`host` cannot be combined with --dev"), "{}", ran.stderr);
    Ok(())
}

fn no_component() -> Result<()> {
    let empty = tempfile::NamedTempFile::new()?;
    std::fs::write(&empty, b"\0asm\x0d\0\x01\0")?;
    let empty = empty.path().to_str().context("no UTF-8")?;
    let no_interface = "it exports no interface consul-session:plugin/";
    let cases = [("/nonexistent.wasm", "/nonexistent.wasm"), (file!(), "cannot load the plugin"), (empty, no_interface)];
    for (path, part) in cases {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?.join(path);
        let ran = host(&["--dev"], &[("CONSUL_SESSION_PLUGIN", path.to_str().context("no UTF-8")?)])?;
        ensure!(ran.status == 1 && ran.stderr.contains(part) && ran.stdout.is_empty(), "{}", ran.stderr);
    }
    Ok(())
}

fn readme() -> Result<String> {
    Ok(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md"))?)
}

fn readme_options() -> Result<()> {
    let readme = readme()?;
    shows(&readme, "src/options.rs", "options", &consul_session_args::options_markdown())
}

fn readme_limits() -> Result<()> {
    let readme = readme()?;
    let mut expected = "| limit | default | on what |\n|---|---|---|\n".to_owned();
    for (name, default, help) in Limits::table() {
        expected += &format!("| `{name}` | {default} | {help} |\n");
    }
    shows(&readme, "crates/host/src/limits.rs", "limits", &expected)
}

/// Whether the README has just this table between the comments that say what it is made from.
fn shows(readme: &str, source: &str, name: &str, expected: &str) -> Result<()> {
    let begin = format!("<!-- {name}: made from {source}, checked by crates/cli/tests/cli.rs -->\n");
    let (_, rest) = readme.split_once(&begin).context("no beginning")?;
    let (table, _) = rest.split_once(&format!("<!-- /{name} -->")).context("no end")?;
    ensure!(table == expected, "put this between the two comments of the README:\n{expected}");
    Ok(())
}

fn readme_config() -> Result<()> {
    let readme = readme()?;
    let (_, rest) = readme.split_once("```toml\n").context("no beginning")?;
    let (text, _) = rest.split_once("```").context("no end")?;
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n")?;
    let file = folder.path().join("host.toml");
    std::fs::write(&file, text.replace("/run/secrets/consul-token", &token.display().to_string()))?;
    let _ = Host::builder().config_file(&file)?;
    Ok(())
}

fn readme_errors() -> Result<()> {
    let (readme, wit) =
        (readme()?, std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/sessions.wit"))?);
    let (_, variant) = wit.split_once("variant error {").context("no variant")?;
    let (variant, _) = variant.split_once("    }").context("no end")?;
    let cases: Vec<&str> =
        variant.lines().filter_map(|line| Some(line.trim().split_once('(')?.0)).filter(|case| !case.starts_with('/')).collect();
    ensure!(cases.len() > 15, "{cases:?}");
    for case in cases {
        ensure!(readme.contains(&format!("\n| `{case}` |")), "{case} is not in the README");
    }
    Ok(())
}

/// Both print the same, to the letter.
fn same_answers() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (port, address) = (format!("port={}", agent.http().port()), agent.http().to_string());
    let by_environment = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN", "any")];
    host(&["name=s1", &port], &[])?.succeeded()?;
    for words in [
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
        let (one, other) = (host(words, &[])?, component(words, &[])?);
        let other_text = other.stdout;
        ensure!(
            (&one.stdout, &one.stderr, one.status) == (&other_text, &other.stderr, other.status),
            "{words:?}: {other_text}{}",
            other.stderr
        );
    }
    ensure!(component(&["state=list"], &by_environment)?.succeeded()?.stdout == host(&["state=list"], &by_environment)?.stdout);
    Ok(())
}

fn page_examples(program: Program) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let address = agent.http().to_string();
    let at = |_: &Consul, words: &[&str]| program(words, &[("CONSUL_HTTP_ADDR", &address)]);
    let created = at(&agent, &["name=session1"])?.succeeded()?.stdout;
    ensure!(
        created.starts_with("changed: created a session\nID") && created.contains("session1") && created.contains(NODE),
        "{created}"
    );
    let again = at(&agent, &["name=session1"])?.succeeded()?.stdout;
    ensure!(again == created.replace("changed: created a session", "unchanged: the session is as wanted"), "{again}");
    at(&agent, &["name=session_with_check", "checks=passing-check"])?.succeeded()?;
    let delayed = at(&agent, &["name=session_with_delay", "delay=20s"])?.succeeded()?.stdout;
    ensure!(delayed.contains(" 20s "), "{delayed}");
    let sessions = agent.api().sessions()?;
    let id = sessions.iter().find(|session| session["Name"] == "session1").and_then(|session| session["ID"].as_str());
    let id = id.context("no session1")?;
    let info = at(&agent, &[&format!("id={id}"), "state=info"])?.succeeded()?.stdout;
    ensure!(info.starts_with("1 session\n") && info.contains(id), "{info}");
    let list = at(&agent, &["state=list"])?.succeeded()?.stdout;
    ensure!(list.starts_with("3 sessions\n") && list.lines().count() == 5, "{list}");
    let dry = at(&agent, &["state=absent", "name=session1", "--dry-run"])?.succeeded()?.stdout;
    ensure!(dry.starts_with("changed: would destroy 1 session\n- id        ") && agent.api().sessions()?.len() == 3, "{dry}");
    let absent = at(&agent, &["state=absent", "name=session1"])?.succeeded()?.stdout;
    ensure!(absent.starts_with("changed: destroyed 1 session\n") && agent.api().sessions()?.len() == 2, "{absent}");
    ensure!(at(&agent, &["state=absent", "name=session1"])?.succeeded()?.stdout == "unchanged: there is no such session\n");
    Ok(())
}

fn json_answer() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let answer = at(&agent, &["name=s", "delay=0.5", "ttl=1m30s", "--format", "json"])?.succeeded()?.json()?;
    let expected = json!({"changed": true, "name": "s", "node": NODE, "behavior": "release", "delay": 0.5, "ttl": 90, "checks": ["serfHealth"], "destroyed": [], "filtered": false});
    for (key, value) in expected.as_object().into_iter().flatten() {
        ensure!(answer[key] == *value, "{key}: {answer}");
    }
    ensure!(answer["sessions"][0]["ID"] == answer["session_id"], "{answer}");
    ensure!(answer["session_id"] == agent.api().sessions()?[0]["ID"], "{answer}");
    Ok(())
}

fn both_spellings() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    at(&agent, &["--name", "a", "--node-checks", "passing-check", "--service-checks=service:web", "on_mismatch=fail"])?
        .succeeded()?;
    let again = at(&agent, &["name=a", "node_checks=passing-check", "service-checks=service:web"])?.succeeded()?.stdout;
    ensure!(again.starts_with("unchanged"), "{again}");
    let repeated =
        at(&agent, &["name=b", "checks=passing-check", "--checks", "service:web", "--format", "json"])?.succeeded()?.json()?;
    ensure!(repeated["checks"] == json!(["serfHealth", "passing-check", "service:web"]), "{repeated}");
    Ok(())
}

fn environment() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let address = format!("http://{}/", agent.http());
    let port = agent.http().port().to_string();
    let with = |words: &[&str], token: &str| host(words, &[("CONSUL_HTTP_ADDR", &address), ("CONSUL_HTTP_TOKEN", token)]);
    with(&["name=s"], ROOT_TOKEN)?.succeeded()?;
    let denied = with(&["name=s"], "")?;
    ensure!(denied.status == 1 && denied.stderr.starts_with("error (access-denied)"), "{}", denied.stderr);
    // What is typed counts for more, each by itself.
    let typed = host(
        &["host=127.0.0.1", &format!("port={port}"), &format!("token={ROOT_TOKEN}"), "name=s"],
        &[("CONSUL_HTTP_ADDR", "127.0.0.9:1"), ("CONSUL_HTTP_TOKEN", "nonsense")],
    )?;
    ensure!(typed.succeeded()?.stdout.starts_with("unchanged"));
    let tls = host(&["state=list"], &[("CONSUL_HTTP_ADDR", &agent.http().to_string()), ("CONSUL_HTTP_SSL", "true")])?;
    ensure!(tls.stderr.starts_with("error (tls)"), "{}", tls.stderr);
    Ok(())
}

fn token() -> Result<()> {
    const SECRET: &str = "5ec2e700-0000-4000-8000-cafecafecafe";
    let agent = Consul::start(Kind::Acl)?;
    let port = format!("port={}", agent.http().port());
    let token = format!("token={SECRET}");
    for words in [
        &[port.as_str(), &token, "name=s"][..],
        &[&port, "--token", SECRET, "state=info"],
        &[&port, "--tokn", SECRET],
        &["token", SECRET],
        &[SECRET],
        &["port=1", &token],
        &[&port, &token, &token],
        &[&port, &format!("token={SECRET} x"), "name=s"],
    ] {
        for format in ["table", "json"] {
            let ran = host(&[words, &["--format", format]].concat(), &[])?;
            ensure!(
                ran.status == 1 && !ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET),
                "{words:?}: {}{}",
                ran.stdout,
                ran.stderr
            );
        }
    }
    Ok(())
}

fn odd_name() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "x\u{1b}[2Jy\u{7}"})))?;
    let shown = at(&agent, &["state=list"])?.succeeded()?.stdout;
    ensure!(shown.contains("x\u{fffd}[2Jy\u{fffd}") && !shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    Ok(())
}

fn invoke() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let port = agent.http().port();
    let wasmtime = tools::wasmtime()?;
    let invoke = |call: String| {
        let ran = run(Command::new(&wasmtime).args(["run", "-S", "http", "--invoke", &call]).arg(plugin()?))?;
        ran.succeeded().map(|ran| ran.stdout)
    };
    let none = invoke(format!("list-sessions(none, {{port: {port}}})"))?;
    ensure!(none.starts_with("ok({sessions: [], "), "{none}");
    let created = invoke(format!("apply({{name: \"session1\", delay: 20, port: {port}}})"))?;
    ensure!(created.starts_with("ok({changed: true, ") && created.contains("lock-delay: 20000000000"), "{created}");
    let again = invoke(format!("apply({{name: \"session1\", delay: 20, port: {port}}})"))?;
    ensure!(again.starts_with("ok({changed: false, "), "{again}");
    let json = invoke(format!("apply-json(\"{{\\\"state\\\": \\\"list\\\", \\\"port\\\": {port}}}\")"))?;
    ensure!(json.contains("session1"), "{json}");
    // As the README types it: without a port, to the default agent, which may or may not be there.
    let typed = invoke("list-sessions(none)".into())?;
    ensure!(typed.starts_with("ok({sessions: ") || typed.starts_with("err(unreachable("), "{typed}");
    let refused = invoke("apply({name: \"x\", delay: 0.0001})".into())?;
    ensure!(refused.starts_with("err(invalid-option("), "{refused}");
    Ok(())
}
