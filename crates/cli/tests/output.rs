//! The output of the program: formats, terminals, requests, completions, and the manual page.

use anyhow::{Context, Result, bail, ensure};
use consul_session::options::TABLE;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};
use test_support::consul::{Consul, Kind, NODE, ROOT_TOKEN};
use test_support::program::{self, CommandLine, Output, file, run};
use test_support::screen::masked;
use test_support::scripted::{Reply, Scripted};
use test_support::terminal::Terminal;
use test_support::{TOKEN, unused_address};

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");

/// Returns the command that runs the program against the agent.
fn command(agent: &Consul, args: &[&str]) -> Result<Command> {
    program::consul_session_at(PROGRAM, agent, args)
}

/// Runs the program against the agent.
fn run_at(agent: &Consul, args: &[&str]) -> Result<Output> {
    run(&mut command(agent, args)?)
}

/// Returns the ids of the agent's sessions with this name, one on each line, the oldest first.
fn ids_of(agent: &Consul, name: &str) -> Result<String> {
    let mut sessions = agent.api().sessions()?;
    sessions.retain(|session| session["Name"] == name);
    sessions.sort_by_key(|session| session["CreateIndex"].as_u64());
    Ok(sessions.iter().map(|session| format!("{}\n", session["ID"].as_str().unwrap_or_default())).collect())
}

#[test]
fn ids_format_prints_only_ids() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let ids = |args: &[&str]| -> Result<String> {
        let args = [args, &["--format", "ids"]].concat();
        let output = run_at(&agent, &args)?.succeeded()?;
        // The command component takes the same arguments, and prints the same.
        if args.contains(&"state=list") {
            let mut component = program::component(&args, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())])?;
            ensure!(run(&mut component)?.succeeded()?.stdout == output.stdout);
        }
        Ok(output.stdout)
    };
    ensure!(ids(&["name=web", "--dry-run"])?.is_empty());
    let created = ids(&["name=web"])?;
    ensure!(created == ids_of(&agent, "web")? && created.len() == 37, "{created}");
    ensure!(ids(&["name=web"])? == created);
    agent.api().put("/v1/session/create", Some(&json!({"Name": "web"})))?;
    let both = ids_of(&agent, "web")?;
    ensure!(ids(&["state=list"])? == both && both.starts_with(&created) && both.lines().count() == 2, "{both}");
    ensure!(ids(&["state=info", &format!("id={}", created.trim())])? == created);
    ensure!(ids(&["state=node", &format!("node={NODE}")])? == both);
    ensure!(ids(&["state=list", "name=other"])?.is_empty());
    for destroyed in [ids(&["state=absent", "name=web", "--dry-run"])?, ids(&["state=absent", "name=web"])?] {
        let mut lines: Vec<&str> = destroyed.lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<&str> = both.lines().collect();
        expected.sort_unstable();
        ensure!(lines == expected, "{destroyed}");
    }
    ensure!(ids(&["state=absent", "name=web"])?.is_empty());
    let error = run_at(&agent, &["state=info", "--format", "ids"])?;
    ensure!(error.status == 2 && error.stdout.is_empty() && error.stderr.starts_with("error (invalid-option): "), "{error:?}");
    // Notes go to standard error.
    let hidden = Consul::start(Kind::Acl)?;
    let output = run_at(&hidden, &["state=list", "--format", "ids"])?;
    ensure!(output.status == 0 && output.stdout.is_empty() && output.stderr.starts_with("note: "), "{output:?}");
    Ok(())
}

#[test]
fn table_says_first_that_sessions_may_be_hidden() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let api = agent.api();
    let session = api.put("/v1/session/create", None)?;
    let id = format!("id={}", session["ID"].as_str().context("no id")?);
    let node = format!("node={NODE}");
    let token = api.put("/v1/acl/token", Some(&json!({"Policies": []})))?;
    let token = format!("token={}", token["SecretID"].as_str().context("no token")?);
    for args in [&["state=info", &id][..], &["state=list"], &["state=node", &node]] {
        for token in [Some(&token), None] {
            let mut args = args.to_vec();
            args.extend(token.map(String::as_str));
            let output = run_at(&agent, &args)?.succeeded()?;
            let first = output.stdout.lines().next();
            ensure!(first == Some("no session is visible: ACLs hide sessions, or may"), "{args:?}: {output:?}");
        }
    }
    api.put(&format!("/v1/session/destroy/{}", id.trim_start_matches("id=")), None)?;
    let root = format!("token={ROOT_TOKEN}");
    for args in [["state=info", &id], ["state=list", "name=x"], ["state=node", &node]] {
        let output = run_at(&agent, &[&args[..], &[&root]].concat())?.succeeded()?;
        ensure!(output.stdout == "no session\n", "{args:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn ids_format_of_batch_commands_prints_only_ids() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    run_at(&agent, &["name=old"])?.succeeded()?;
    let old = ids_of(&agent, "old")?;
    let path = file(&folder, "s.yaml", "[{name: web}, {name: old, state: absent}, {name: none, state: absent}, {name: db}]")?;
    let apply = |more: &[&str]| run_at(&agent, &[&["apply", "--file", &path, "--format", "ids"], more].concat());
    ensure!(apply(&["--dry-run"])?.stdout == old);
    let applied = apply(&[])?;
    let (web, db) = (ids_of(&agent, "web")?, ids_of(&agent, "db")?);
    ensure!(applied.status == 0 && applied.stdout == format!("{web}{old}{db}"), "{applied:?}");
    ensure!(apply(&[])?.stdout == format!("{web}{db}"));
    let destroy = |more: &[&str]| run_at(&agent, &[&["destroy", "--name-prefix", "we", "--format", "ids"], more].concat());
    ensure!(destroy(&["--dry-run"])?.stdout == web);
    ensure!(destroy(&["--yes"])?.stdout == web && ids_of(&agent, "web")?.is_empty());
    ensure!(destroy(&["--yes"])?.stdout.is_empty());
    Ok(())
}

#[test]
fn unsupported_formats_are_rejected() -> Result<()> {
    for (line, command, accepted) in [
        ("watch --format ids", "watch", "table, json"),
        ("--dev demo --format=ids", "demo", "table, json"),
        ("man --format=ids", "man", "table"),
        ("completions bash --format ids", "completions", "table"),
    ] {
        let output = CommandLine::new(PROGRAM, line).run(&[])?;
        let expected = format!(
            "error (invalid-option): invalid value `ids` for `--output`: `{command}` cannot print it (expected {accepted})\n"
        );
        ensure!(
            (output.status, output.stdout.as_str(), output.stderr.as_str()) == (2, "", expected.as_str()),
            "{line}: {output:?}"
        );
    }
    Ok(())
}

#[test]
fn verbose_reports_each_request_and_redacts_the_token() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let address = agent.http().to_string();
    let requests = |args: &[&str], token: &str| -> Result<(i32, String)> {
        let environment = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN", token)];
        let output = run(&mut program::consul_session(PROGRAM, &[args, &["--verbose"]].concat(), &environment)?)?;
        ensure!(!output.stderr.contains(token) || token == ROOT_TOKEN, "{}", output.stderr);
        Ok((output.status, masked(&output.stderr.replace(&address, "AGENT"), false)))
    };
    let (status, text) = requests(&["name=a b", "datacenter=dc1"], ROOT_TOKEN)?;
    let expected = "\
GET http://AGENT/v1/session/list?consistent&dc=dc1: 200, # B, # ms
PUT http://AGENT/v1/session/create?dc=dc1: 200, # B, # ms
GET http://AGENT/v1/session/list?consistent&dc=dc1: 200, # B, # ms
";
    ensure!((status, text.as_str()) == (0, expected), "{text}");
    // Paths are reported as sent, with their percent-encoding.
    let (_, text) = requests(&["state=node", "node=ä b"], ROOT_TOKEN)?;
    ensure!(text == "GET http://AGENT/v1/session/node/%C3%A4%20b: 200, # B, # ms\n", "{text}");
    // The token is the host's the first time, and the component's the second time.
    for args in [&["name=x"][..], &["name=x", &format!("token={TOKEN}")]] {
        let (status, text) = requests(args, TOKEN)?;
        ensure!(
            status == 1
                && text.starts_with("GET http://AGENT/v1/session/list?consistent: 403, # B, # ms\nerror (access-denied): "),
            "{text}"
        );
    }
    // `--verbose` changes nothing else.
    let quiet = run_at(&agent, &["state=list", &format!("token={ROOT_TOKEN}")])?.succeeded()?;
    let verbose = run_at(&agent, &["state=list", &format!("token={ROOT_TOKEN}"), "--verbose"])?;
    ensure!(quiet.stdout == verbose.stdout && verbose.stderr.lines().count() == 1, "{verbose:?}");
    Ok(())
}

#[test]
fn verbose_reports_requests_without_an_answer() -> Result<()> {
    let free = unused_address()?.port();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = silent.local_addr()?.port();
    for (line, stdin, expected) in [
        (
            "-".to_owned(),
            r#"{"state": "list", "host": "db.example"}"#,
            "GET http://db.example:8500/v1/session/list: the host's policy does not allow db.example:8500: add `--allow"
                .to_owned(),
        ),
        (
            format!("state=list port={free}"),
            "",
            format!("GET http://localhost:{free}/v1/session/list: nothing listens at localhost:{free}: check"),
        ),
        (
            format!("state=list host=127.0.0.1 port={port} timeout=0.3"),
            "",
            format!("GET http://127.0.0.1:{port}/v1/session/list: no answer: the component gave up, "),
        ),
    ] {
        let output = CommandLine::new(PROGRAM, line).reading(stdin).run(&["--verbose"])?;
        // A request that the component gives up ends asynchronously, so its line may follow the
        // error.
        let requests: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("error (")).collect();
        let [request] = requests[..] else { bail!("{}", output.stderr) };
        ensure!(output.status == 1 && request.starts_with(&expected) && request.ends_with(" ms"), "{}", output.stderr);
        ensure!(output.stderr.lines().count() == 2, "{}", output.stderr);
    }
    Ok(())
}

#[test]
fn verbose_reports_blocking_queries() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut program = command(&agent, &["watch", "--verbose"])?;
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
    let result = (|| {
        let first = lines.next().context("the program has ended")??;
        ensure!(first.contains("/v1/session/list?consistent: 200, "), "{first}");
        // A new session ends the blocking query.
        agent.api().put("/v1/session/create", None)?;
        let second = lines.next().context("the program has ended")??;
        ensure!(
            second.contains("/v1/session/list?")
                && second.contains("&index=")
                && second.contains("wait=60s")
                && second.contains(": 200, "),
            "{second}"
        );
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    result
}

/// Runs the program on a terminal and returns the text there.
///
/// # Errors
///
/// Fails if a line is wider than the terminal.
fn on_terminal(program: &mut Command, columns: u16) -> Result<String> {
    let (terminal, _) = Terminal::run_to_end(program, columns)?;
    let text = terminal.text();
    let rows = text.lines().count().try_into()?;
    ensure!(!terminal.with(|screen| (0..rows).any(|row| screen.row_wrapped(row))), "a line is too long:\n{text}");
    Ok(text)
}

#[test]
fn output_fits_the_width_of_the_terminal() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    file(&folder, "s.yaml", "[{name: session1, delay: 30, ttl: 600, on_mismatch: replace}, {name: db}]")?;
    run_at(&agent, &["name=session1", "delay=20s", "ttl=90"])?.succeeded()?;
    let first = ids_of(&agent, "session1")?;
    let first = first.trim();
    run_at(&agent, &["name=session2", "checks=passing-check,service:web"])?.succeeded()?;
    let second = ids_of(&agent, "session2")?;
    let second = second.trim();
    let screen = |args: &[&str], columns| on_terminal(&mut command(&agent, args)?, columns);
    let expect = |args: &[&str], columns, expected: String| {
        let text = screen(args, columns)?;
        ensure!(
            masked(&text, false) == masked(&expected, false),
            "{args:?} in {columns} columns:\n{text}expected:\n{expected}"
        );
        Ok(())
    };
    let table = format!(
        "2 sessions
ID                                    NAME      NODE        BEHAVIOR  DELAY  TTL    CHECKS
{first}  session1  agent-node  release   20s    1m30s  serfHealth
{second}  session2  agent-node  release   15s    -      serfHealth,passing-check,service:web
"
    );
    expect(&["state=list"], 121, table.clone())?;
    ensure!(run_at(&agent, &["state=list"])?.succeeded()?.stdout == table);
    // `wide` is the same table at any width: the terminal wraps its lines.
    let (wrapped, _) = Terminal::run_to_end(&mut command(&agent, &["state=list", "--format", "wide"])?, 40)?;
    ensure!(wrapped.text() == table, "{}", wrapped.text());
    let beside = |id: &str| format!("        {id}");
    let without_checks = |rows: String| format!("2 sessions\n{rows}not shown: CHECKS (`-o wide` shows all)\n");
    let rows = format!(
        "ID                                    NAME      NODE        DELAY  TTL
{first}  session1  agent-node  20s    1m30s
{second}  session2  agent-node  15s    -
"
    );
    expect(&["state=list"], 80, without_checks(rows))?;
    let rows = format!(
        "NAME      NODE        DELAY  TTL
session1  agent-node  20s    1m30s
  {first}
session2  agent-node  15s    -
  {second}
"
    );
    expect(&["state=list"], 40, without_checks(rows))?;
    let replace = ["name=session1", "delay=30", "ttl=600", "on_mismatch=replace", "--dry-run"];
    let difference = |sum: &str, id: &str| {
        format!(
            "{sum}\n- id{id}\n  name      session1\n  node      agent-node\n  behavior  release\n- delay     20s\n+ delay     30s\n- ttl       1m30s\n+ ttl       10m\n  checks    serfHealth\n"
        )
    };
    let sum = "changed: would create a session and would destroy 1 session";
    let note = format!("note: replaces {first}: locks held there are\n  freed under its lock delay (20s)\n");
    expect(&replace, 80, difference(sum, &beside(first)) + &note)?;
    let sum = "changed: would create a session and\n  would destroy 1 session";
    let note = format!("note: replaces\n  {first}:\n  locks held there are freed under its\n  lock delay (20s)\n");
    expect(&replace, 40, difference(sum, &format!("\n-   {first}")) + &note)?;
    let mut apply = command(&agent, &["apply", "--file", "s.yaml", "--dry-run"])?;
    apply.current_dir(folder.path());
    let planned = "LINE  RESULT      NAME      NODE        ID\n1     to replace  session1  agent-node  -\n1     to create   db        agent-node  -\n";
    let text = on_terminal(&mut apply, 80)?;
    let expected = format!(
        "{planned}{}s.yaml:1: note: replaces {first}: locks held\n  there are freed under its lock delay (20s)\n2 sessions: 1 to create, 1 to replace in 0.0 s\n",
        difference("\ns.yaml:1:", &beside(first))
    );
    ensure!(masked(&text, false) == masked(&expected, false), "{text}expected:\n{expected}");
    let narrow = screen(&["destroy", "--name-prefix", "session", "--dry-run"], 40)?;
    ensure!(narrow.starts_with("RESULT      NAME      NODE\n"), "{narrow}");
    for (name, id) in [("session1", first), ("session2", second)] {
        ensure!(narrow.contains(&format!("to destroy  {name}  agent-node\n  {id}\n")), "{narrow}");
    }
    let error = screen(&["delay=61"], 40)?;
    ensure!(error.lines().count() > 2 && error.lines().skip(1).all(|line| line.starts_with("  ")), "{error}");
    // A destroyed session is shown as it was.
    expect(
        &["name=session1", "state=absent"],
        100,
        format!("changed: destroyed 1 session\ndestroyed:\n{}\n", table.lines().skip(1).take(2).collect::<Vec<_>>().join("\n")),
    )
}

#[test]
fn old_and_new_session_are_in_the_same_columns() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    run_at(&agent, &["name=web"])?.succeeded()?;
    let old = ids_of(&agent, "web")?;
    let screen = on_terminal(&mut command(&agent, &["name=web", "delay=30", "on_mismatch=replace"])?, 80)?;
    let new = ids_of(&agent, "web")?;
    // The old session has the usual delay, which differs from that of the new one.
    let header = format!("{:<38}NAME  NODE        BEHAVIOR  DELAY  TTL", "ID");
    let row = |id: &str, delay: &str| format!("{}  web   agent-node  release   {delay:<5}  -", id.trim());
    let expected = [
        "changed: created a session and destroyed 1 session",
        &header,
        &row(&new, "30s"),
        "destroyed:",
        &header,
        &row(&old, "15s"),
    ];
    ensure!(screen.lines().take(6).eq(expected), "{screen}");
    Ok(())
}

/// Returns Consul's answer with this number of sessions.
fn many_sessions(count: usize) -> String {
    let session = |number: usize| {
        json!({
            "ID": format!("{number:08x}-0000-4000-8000-000000000000"), "Name": format!("session-{number}"),
            "Node": NODE, "LockDelay": 15_000_000_000_u64, "Behavior": "release", "NodeChecks": ["serfHealth"],
            "CreateIndex": number + 1, "ModifyIndex": number + 1,
        })
    };
    json!((0..count).map(session).collect::<Vec<_>>()).to_string()
}

#[test]
fn lists_of_any_length_have_a_line_for_each_session() -> Result<()> {
    for (count, sum) in [(0, "no session"), (1, "1 session"), (300, "300 sessions"), (20_000, "20000 sessions")] {
        let sessions = many_sessions(count);
        let server = Scripted::start(move |_| Reply::http(200, "X-Consul-Index: 7\r\n", &sessions))?;
        let address = server.address().to_string();
        let mut list = program::consul_session(PROGRAM, &["state=list"], &[("CONSUL_HTTP_ADDR", &address)])?;
        let start = Instant::now();
        let (terminal, status) = Terminal::run_to_end(&mut list, 80)?;
        // Seconds, unless the table takes time that is quadratic in its rows.
        ensure!(status.success() && start.elapsed() < Duration::from_secs(60), "{status} {:?}", start.elapsed());
        let output = terminal.output();
        let lines: Vec<&str> = output.lines().collect();
        let [first, rest @ ..] = &lines[..] else { bail!("no output") };
        ensure!(*first == sum && rest.len() == if count == 0 { 0 } else { count + 1 }, "{count}: {} lines", rest.len());
        ensure!(lines.iter().all(|line| line.chars().count() <= 90), "{count}: too long");
        ensure!(count == 0 || rest[1..].iter().all(|line| line.contains("-0000-4000-8000-000000000000  session-")));
    }
    Ok(())
}

#[test]
fn progress_bar_appears_after_a_second() -> Result<()> {
    for is_slow in [false, true] {
        let (release, released) = channel();
        let (released, sessions) = (Mutex::new(released), many_sessions(3));
        let server = Scripted::start(move |request| {
            if request.line().starts_with("GET ") {
                return Reply::http(200, "X-Consul-Index: 7\r\n", &sessions);
            }
            // The sender is gone after the wait for the bar, or from the beginning.
            let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Reply::json("true")
        })?;
        let address = server.address().to_string();
        let args = ["destroy", "--name-prefix", "session", "--yes"];
        let mut destroy = program::consul_session("setsid", &[&["--ctty", PROGRAM], &args[..]].concat(), &[])?;
        destroy.env("CONSUL_HTTP_ADDR", address).env("TERM", "xterm");
        let (terminal, mut child) = Terminal::control(&mut destroy, 80)?;
        let shown = match is_slow {
            true => terminal.wait_for(|text| text.contains("sessions [")).map(|_| ()),
            false => Ok(()),
        };
        drop::<Sender<()>>(release);
        child.wait()?;
        shown?;
        let text = terminal.wait_for(|text| text.contains("3 sessions: 3 destroyed in "))?;
        // The bar does not stay.
        ensure!(!text.contains("sessions [") && terminal.output().contains("sessions [") == is_slow, "{}", terminal.output());
    }
    Ok(())
}

#[test]
fn colors_are_used_only_where_enabled() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let colors = |args: &[&str], (variable, value): (&str, &str)| -> Result<Vec<(String, vt100::Color, bool)>> {
        let mut program = command(&agent, args)?;
        program.env("TERM", "xterm").env_remove("NO_COLOR").env(variable, value);
        let (terminal, _) = Terminal::run_to_end(&mut program, 120)?;
        let text = terminal.text();
        let cell = |row| terminal.with(|screen| screen.cell(row, 0).map(|cell| (cell.fgcolor(), cell.dim())));
        (0..)
            .zip(text.lines())
            .map(|(row, line)| cell(row).map(|(color, dim)| (line.to_owned(), color, dim)).context("no cell"))
            .collect()
    };
    let (red, green, yellow, plain) = (vt100::Color::Idx(1), vt100::Color::Idx(2), vt100::Color::Idx(3), vt100::Color::Default);
    let styles =
        |rows: Vec<(String, vt100::Color, bool)>| rows.into_iter().map(|(_, color, dim)| (color, dim)).collect::<Vec<_>>();
    for (args, expected) in [
        (&["port=1", "id=x"][..], vec![(red, false), (plain, false)]),
        (&["name=s", "--dry-run"], [vec![(yellow, false)], vec![(green, false); 5]].concat()),
        (&["name=s"], vec![(yellow, false), (plain, true), (green, false)]),
        (&["name=s"], vec![(plain, true), (plain, true), (plain, false)]),
        (&["state=list", "--verbose"], vec![(plain, true), (plain, false), (plain, true), (plain, false)]),
        (&["destroy", "--name-prefix", "s", "--dry-run"], vec![(plain, true), (red, false), (plain, false)]),
    ] {
        let rows = colors(args, ("NO_COLOR", ""))?;
        for switched_off in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            // The call that creates the session works only once.
            if args == ["name=s"] && expected.contains(&(green, false)) {
                continue;
            }
            let plain_rows = colors(args, switched_off)?;
            ensure!(plain_rows.iter().all(|(_, color, dim)| (*color, *dim) == (plain, false)), "{args:?}: {plain_rows:?}");
        }
        ensure!(styles(rows.clone()) == expected, "{args:?}: {rows:?}");
    }
    Ok(())
}

/// Returns bash's completions of a line.
fn completions(folder: &TempDir, line: &str) -> Result<Vec<String>> {
    const ASK: &str = r#"
source "$1"
function="$(complete -p consul-session)"
function="${function#*-F }"
function="${function%% *}"
# readline splits words like this.
read -ra COMP_WORDS <<< "${2//=/ = }"
[[ "$2" == *[\ =] ]] && COMP_WORDS+=("")
COMP_LINE="$2" COMP_POINT="${#2}" COMP_CWORD="$(( ${#COMP_WORDS[@]} - 1 ))"
"$function" consul-session "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
"#;
    let script = folder.path().join("completions");
    if !script.exists() {
        std::fs::write(&script, CommandLine::new(PROGRAM, "completions bash").run(&[])?.succeeded()?.stdout)?;
    }
    let output = run(Command::new("bash").args(["--norc", "-c", ASK, "ask"]).arg(script).arg(line))?.succeeded()?;
    Ok(output.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[test]
fn bash_completes_options_values_and_commands() -> Result<()> {
    let folder = tempdir()?;
    let complete = |line: &str| completions(&folder, &format!("consul-session {line}"));
    for (line, expected) in [
        ("--on-mismatch ", &["fail", "replace"][..]),
        ("watch --scheme ", &["http", "https"]),
        ("--output i", &["ids"]),
        ("list -o ", &["table", "wide", "json", "ids"]),
        ("wat", &["watch"]),
        ("present x --beha", &["--behavior"]),
        ("present x --behavior ", &["release", "delete"]),
        ("destroy --name-p", &["--name-prefix"]),
        ("completions b", &["bash"]),
    ] {
        let candidates = complete(line)?;
        ensure!(candidates == expected, "{line}: {candidates:?}");
    }
    let (flags, first) = (complete("--")?, complete("")?);
    for info in TABLE {
        let flag = format!("--{}", info.name.replace('_', "-"));
        ensure!(flags.contains(&flag), "{} is missing", info.name);
    }
    for flag in ["--name", "--host", "--token-file", "--verbose"] {
        ensure!(complete("watch --")?.contains(&flag.to_owned()), "watch lacks {flag}");
    }
    for command in commands()? {
        ensure!(first.contains(&command), "{command} is missing");
    }
    Ok(())
}

/// Returns the names of the program's commands, from its help.
fn commands() -> Result<Vec<String>> {
    let help = CommandLine::new(PROGRAM, "--help").run(&[])?.succeeded()?.stdout;
    let (_, list) = help.split_once("\nCommands:\n").context("no commands")?;
    let (list, _) = list.split_once("\n\n").context("no end")?;
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let names: Vec<String> = names.map(str::to_owned).collect();
    ensure!(names.len() > 3 && names.contains(&"watch".into()), "{names:?}");
    Ok(names)
}

#[test]
fn completions_cover_every_option_and_command() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = CommandLine::new(PROGRAM, format!("completions {shell}")).run(&[])?.succeeded()?.stdout;
        for info in TABLE {
            let name = info.name.replace('_', "-");
            ensure!(script.contains(&name), "{shell}: {name} is missing");
        }
        for command in commands()? {
            ensure!(script.contains(&command), "{shell}: {command} is missing");
        }
    }
    let output = CommandLine::new(PROGRAM, "completions tcsh").run(&[])?;
    let expected =
        "error (invalid-option): invalid value `tcsh` for `<SHELL>`: unknown (expected bash, elvish, fish, powershell, zsh)\n";
    ensure!((output.status, output.stdout.as_str(), output.stderr.as_str()) == (2, "", expected), "{output:?}");
    Ok(())
}

#[test]
fn manual_page_covers_every_option_command_and_variable() -> Result<()> {
    let page = CommandLine::new(PROGRAM, "man").run(&[])?.succeeded()?.stdout;
    ensure!(page.contains("\n.TH consul-session 1 ") || page.starts_with(".TH consul-session 1 "), "{page}");
    // The rendered page is checked where groff is installed, the source elsewhere.
    let folder = tempdir()?;
    let pages = folder.path().join("man");
    CommandLine::new(PROGRAM, format!("man --to {}", pages.display())).prints("")?;
    let path = file(&folder, "consul-session.1", &page)?;
    let rendered = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-cbou", "-rHY=0", &path]).output();
    let text = match rendered {
        Ok(output) => {
            let errors = String::from_utf8(output.stderr)?;
            ensure!(output.status.success() && errors.is_empty(), "{errors}");
            String::from_utf8(output.stdout)?.replace('\u{2010}', "-")
        }
        Err(_) => page.replace("\\-", "-").replace("\\fR", "").replace("\\fB", ""),
    };
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS", "Environment", "Exit status", "Examples"] {
        ensure!(text.contains(section), "{section} is missing");
    }
    for info in TABLE {
        ensure!(text.contains(&format!("--{}", info.name.replace('_', "-"))), "{} is missing", info.name);
    }
    for flag in ["--verbose", "--output", "--allow", "--limit", "CONSUL_HTTP_ADDR", "CONSUL_CACERT"] {
        ensure!(text.contains(flag), "{flag} is missing");
    }
    for command in commands()? {
        ensure!(text.contains(&format!("consul-session-{command}(1)")), "{command} is missing");
        let page = std::fs::read_to_string(pages.join(format!("consul-session-{command}.1")))?;
        ensure!(page.contains(".TH consul-session-"), "{page}");
    }
    Ok(())
}
