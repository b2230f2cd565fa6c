//! Each command as typed, against a real Consul: the program, and the command component where it
//! has the command too. `watch`, `lock`, `hold` and files of many sessions have tests of their own.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;
use test_support::consul::{Consul, Kind, NODE};
use test_support::program::{self, Output, file, run};
use test_support::screen::masked;
use test_support::unused_address;

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
/// An id that no session has.
const NO_ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

/// Starts a program with these arguments and variables.
type Program = fn(args: &[&str], environment: &[(&str, &str)]) -> Result<Command>;

fn consul_session(args: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    program::consul_session(PROGRAM, args, environment)
}

fn component(args: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    program::component(args, environment)
}

/// Runs a line, whose spaces separate the arguments, at an agent.
fn typed(program: Program, agent: &Consul, line: &str) -> Result<Output> {
    let args: Vec<&str> = line.split_whitespace().collect();
    run(&mut program(&args, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())])?)
}

#[test]
fn commands_do_what_they_say() -> Result<()> {
    do_what_they_say(consul_session)
}

#[test]
fn commands_of_the_component_do_what_they_say() -> Result<()> {
    do_what_they_say(component)
}

fn do_what_they_say(program: Program) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let id_of = |output: &Output| output.stdout.trim().to_owned();
    let run = |line: &str| typed(program, &agent, line);
    let prints = |line: &str, expected: &str| {
        let stdout = run(line)?.succeeded().with_context(|| line.to_owned())?.stdout;
        ensure!(stdout.starts_with(expected), "{line}: {stdout}");
        anyhow::Ok(stdout)
    };
    prints("list", "no session\n")?;

    // `create` always creates, `present` and `ensure` find.
    let first = id_of(&run("create --name web --ttl 30s -o ids")?.succeeded()?);
    let second = id_of(&run("create --name web -o ids")?.succeeded()?);
    let nameless = id_of(&run("create -o ids")?.succeeded()?);
    ensure!(first != second && api.sessions()?.len() == 3);
    ensure!(id_of(&run("present web -o ids")?) == first, "the oldest of the name");
    prints("present db --delay 20s", "changed: created a session\n")?;
    prints("ensure db --delay 20s", "unchanged: the session is as wanted\n")?;
    let differs = run("present db --delay 30s")?;
    ensure!(differs.status == 1 && differs.stderr.starts_with("error (mismatch): "), "{differs:?}");
    prints("present db --delay 30s --on-mismatch replace", "changed: created a session and destroyed 1 session\n")?;
    let planned = prints("present new -n", "changed: would create a session\n")?;
    ensure!(planned.contains("+ name      new\n") && api.sessions()?.len() == 4, "{planned}");
    let planned = prints("create --dry-run --ttl 30s", "changed: would create a session\n")?;
    ensure!(planned.contains("+ ttl       30s\n") && api.sessions()?.len() == 4, "{planned}");

    // Reads.
    let list = prints("list", "4 sessions\n")?;
    ensure!(list.lines().count() == 6 && list.contains(&first) && list.contains(&nameless), "{list}");
    prints("list --name web", "2 sessions\n")?;
    prints("list --node nowhere", "no session\n")?;
    prints(&format!("node {NODE}"), "4 sessions\n")?;
    prints(&format!("node {NODE} --name db"), "1 session\n")?;
    ensure!(prints(&format!("info {first}"), "1 session\n")?.contains(&first));
    let none = run(&format!("info {NO_ID}"))?;
    ensure!((none.status, none.stdout.as_str()) == (1, "no session\n"), "{none:?}");
    let answer = run(&format!("info {NO_ID} -o json"))?;
    ensure!(answer.status == 1 && answer.json()?["sessions"] == json!([]), "{answer:?}");
    // In the words of the options it is a read, as the module has it.
    prints(&format!("state=info id={NO_ID}"), "no session\n")?;

    // `renew`.
    let renewed = prints(&format!("renew {first}"), "1 session\n")?;
    ensure!(renewed.contains("note: its TTL of 30s runs anew: "), "{renewed}");
    ensure!(prints(&format!("renew {second}"), "1 session\n")?.contains("note: it has no TTL"));
    let missing = run(&format!("renew {NO_ID}"))?;
    ensure!(missing.status == 1 && missing.stderr.starts_with("error (not-found): "), "{missing:?}");

    // `destroy`.
    prints(&format!("destroy {first} -n"), "changed: would destroy 1 session\n")?;
    ensure!(api.sessions()?.len() == 4);
    let several = prints(&format!("destroy {first} {NO_ID} {nameless}"), "changed: destroyed 2 sessions\n")?;
    ensure!(several.ends_with(&format!("note: there is no session {NO_ID}\n")), "{several}");
    let wrong = run(&format!("destroy {second} x"))?;
    ensure!(wrong.status >= 1 && wrong.stderr.contains("invalid value `x` for `id`"), "{wrong:?}");
    ensure!(api.sessions()?.len() == 2, "nothing is destroyed where one id is wrong");
    prints("destroy --name web", "changed: destroyed 1 session\n")?;
    prints("destroy --name web", "unchanged: there is no such session\n")?;
    prints(&format!("destroy {second}"), "unchanged: there is no such session\n")?;

    // JSON and help.
    let json = run("list -o json")?.json()?;
    ensure!(json["sessions"][0]["Name"] == "db" && json["changed"] == false, "{json}");
    prints("help", "Makes, finds, reads and destroys Consul sessions")?;
    prints("help list", "List the sessions\n")?;
    prints("help delay", "delay\n")?;
    prints("list -h", "List the sessions\n")?;
    Ok(())
}

#[test]
fn component_names_the_commands_that_need_the_program() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for (line, what) in [
        ("watch", "watch"),
        ("apply sessions.yaml", "apply"),
        ("lock a/b -- true", "lock"),
        ("hold a", "hold"),
        ("demo", "demo"),
        ("dev", "dev"),
        ("completions bash", "completions"),
        ("man", "man"),
        ("destroy --name-prefix a --yes", "destroy --name-prefix"),
        ("list --verbose", "--verbose"),
        ("list --allow a:1", "--allow"),
    ] {
        let output = typed(component, &agent, line)?;
        let expected = format!("error (invalid-option): `{what}` needs the program consul-session: ");
        ensure!(output.status == 1 && output.stderr.starts_with(&expected), "{line}: {output:?}");
    }
    Ok(())
}

#[test]
fn files_are_applied_all_of_them() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempfile::tempdir()?;
    let [a, b, c] = ["a", "b", "c"].map(|name| file(&folder, &format!("{name}.yaml"), format!("- name: {name}\n")));
    let (a, b, c) = (a?, b?, c?);
    let output = typed(consul_session, &agent, &format!("apply {a} {b} -f {c}"))?;
    ensure!(output.status == 0 && agent.api().sessions()?.len() == 3, "{output:?}");
    ensure!(output.stdout.contains(&format!("{b}:1  created  b ")), "{output:?}");
    let again = typed(consul_session, &agent, &format!("apply -f {a} -f {a}"))?;
    ensure!(again.status == 2 && again.stderr.contains("is also in line 1 of "), "{again:?}");
    Ok(())
}

#[test]
fn unknown_node_and_check_of_a_dry_run_are_said_to_be_unchecked() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for line in ["present x -n --node nowhere", "create -n --checks missing", "name=x dry_run=yes service_checks=missing"] {
        let output = typed(consul_session, &agent, line)?.succeeded()?;
        let said = output.stdout.contains("\nnote: a dry run does not check whether ");
        ensure!(said && agent.api().sessions()?.is_empty(), "{line}: {output:?}");
    }
    let plain = typed(consul_session, &agent, "present x -n")?.succeeded()?.stdout;
    ensure!(!plain.contains("note:"), "{plain}");
    Ok(())
}

#[test]
fn dev_agent_serves_until_it_is_interrupted() -> Result<()> {
    let port = unused_address()?.port().to_string();
    let mut command = program::consul_session(PROGRAM, &["dev", "--port", &port], &[])?;
    let mut agent = command.stdout(Stdio::piped()).spawn()?;
    let mut first = String::new();
    let stdout = agent.stdout.take().context("no output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut first)?;
    ensure!(first.starts_with(&format!("dev agent at http://127.0.0.1:{port}, ")), "{first}");
    let at = format!("127.0.0.1:{port}");
    let created = run(&mut consul_session(&["present", "x"], &[("CONSUL_HTTP_ADDR", &at)])?)?.succeeded()?;
    ensure!(created.stdout.starts_with("changed: created a session\n"), "{created:?}");
    // The port is taken now.
    let second = run(&mut consul_session(&["dev", "--port", &port], &[])?)?;
    ensure!(second.status == 1 && second.stderr.contains("give another --port"), "{second:?}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&agent), rustix::process::Signal::INT)?;
    let start = std::time::Instant::now();
    let status = agent.wait()?;
    ensure!(status.success() && start.elapsed() < Duration::from_secs(10), "{status}");
    Ok(())
}

#[test]
fn host_on_standard_input_that_the_operator_named_is_allowed() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (address, port) = (agent.http().to_string(), agent.http().port());
    let named = format!(r#"{{"state": "list", "host": "127.0.0.1", "port": {port}}}"#);
    let other = format!(r#"{{"state": "list", "host": "localhost", "port": {port}}}"#);
    for (text, environment, status) in [
        (&named, &[("CONSUL_HTTP_ADDR", address.as_str())][..], 0),
        (&other, &[("CONSUL_HTTP_ADDR", address.as_str())], 1),
        (&named, &[], 1),
    ] {
        let output = run(consul_session(&["-"], environment)?.stdin(program::input(text)?))?;
        ensure!(output.status == status, "{text}: {output:?}");
        ensure!(status == 0 || output.stderr.starts_with("error (denied-by-host): "), "{text}: {output:?}");
    }
    Ok(())
}

#[test]
fn namespace_and_partition_come_from_the_environment() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let address = agent.http().to_string();
    for (variable, option) in [("CONSUL_NAMESPACE", "namespace"), ("CONSUL_PARTITION", "partition")] {
        // Community Edition has neither, and says so.
        let environment = [("CONSUL_HTTP_ADDR", address.as_str()), (variable, "team")];
        let output = run(&mut consul_session(&["list"], &environment)?)?;
        ensure!(output.status == 1 && output.stderr.starts_with("error (unsupported): "), "{output:?}");
        let typed = run(&mut consul_session(&["list", &format!("--{option}"), "team"], &environment[..1])?)?;
        ensure!(typed.stderr == output.stderr, "{typed:?}");
        let component = run(&mut component(&["list"], &environment)?)?;
        ensure!(component.stderr == output.stderr, "{component:?}");
    }
    Ok(())
}

#[test]
fn password_of_the_environment_is_sent_by_the_host() -> Result<()> {
    use test_support::scripted::{Reply, Scripted};
    let server = Scripted::start(|_| Reply::json("[]"))?;
    let address = server.address().to_string();
    let environment = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_AUTH", "ops:secret:word")];
    run(&mut consul_session(&["list"], &environment)?)?.succeeded()?;
    let requests = server.requests();
    // ops:secret:word in base64.
    ensure!(requests[0].header("Authorization") == ["Basic b3BzOnNlY3JldDp3b3Jk"], "{}", requests[0].text());
    let component = run(&mut component(&["list"], &environment)?)?;
    ensure!(component.status == 1 && component.stderr.contains("CONSUL_HTTP_AUTH is not supported here"), "{component:?}");
    Ok(())
}

#[test]
fn exit_status_of_the_table_is_the_true_one() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for (line, status) in [
        ("list", 0),
        ("present x", 0),
        ("present x --ttl 30s", 1),
        ("list --datacenter nowhere", 1),
        ("", 2),
        ("lst", 2),
        ("list --nmae x", 2),
        ("present x --delay 61", 2),
        ("state=info", 2),
        ("state=list id=adf4238a-882b-9ddc-4a9d-5b6758e4159e", 2),
        ("list --config /missing", 2),
    ] {
        let output = typed(consul_session, &agent, line)?;
        ensure!(output.status == status, "{line}: {output:?}");
        // Without colours or cursor movements, in a file or a pipe.
        ensure!(!masked(&output.stdout, false).contains('\u{1b}'), "{line}");
    }
    Ok(())
}
