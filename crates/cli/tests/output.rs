//! What the program prints: formats, terminals, requests, completions, the manual page, and every screen of the README.

use anyhow::{Context, Result, bail, ensure};
use consul_session::options::TABLE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode, Stdio};
use tempfile::{TempDir, tempdir};
use test_support::consul::{Consul, Kind, NODE, ROOT_TOKEN};
use test_support::program::{self, Ran, Typed, file, run};
use test_support::terminal::Terminal;
use test_support::tools::{self, root};
use test_support::trial::{Test, run_tests};
use test_support::{TOKEN, unused_address};

fn main() -> ExitCode {
    let without_consul: [(&str, Test); 5] = [
        ("requests that get no answer are told of too", requests_without_answer),
        ("formats that a command cannot print", formats),
        ("bash completes options, their values, and commands", bash),
        ("every shell's script has every option and command", shells),
        ("the manual page has every option, command and variable", man),
    ];
    let with_consul: [(&str, Test); 7] = [
        ("ids and nothing else", ids),
        ("ids of many at once", batch_ids),
        ("each request, and never a token", requests),
        ("blocking queries are told of", blocking),
        ("terminals of 100, of 80 and of 40 columns", widths),
        ("colours only where they are wanted", colors),
        ("the screens of the README", readme),
    ];
    run_tests(without_consul, with_consul)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");

/// The program, to be typed at a plain agent.
fn command(agent: &Consul, words: &[&str]) -> Result<Command> {
    program::host_at(PROGRAM, agent, words)
}

fn at(agent: &Consul, words: &[&str]) -> Result<Ran> {
    run(&mut command(agent, words)?)
}

/// The ids of the agent's sessions of this name, the oldest first.
fn ids_of(agent: &Consul, name: &str) -> Result<String> {
    let mut sessions = agent.api().sessions()?;
    sessions.retain(|session| session["Name"] == name);
    sessions.sort_by_key(|session| session["CreateIndex"].as_u64());
    Ok(sessions.iter().map(|session| format!("{}\n", session["ID"].as_str().unwrap_or_default())).collect())
}

fn ids() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let ids = |words: &[&str]| -> Result<String> {
        let words = [words, &["--format", "ids"]].concat();
        let ran = at(&agent, &words)?.succeeded()?;
        // The command component has the same command line.
        let (read, other) =
            (words.contains(&"state=list"), program::component(&words, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())]));
        ensure!(!read || run(&mut other?)?.succeeded()?.stdout == ran.stdout);
        Ok(ran.stdout)
    };
    ensure!(ids(&["name=web", "--dry-run"])?.is_empty());
    let made = ids(&["name=web"])?;
    ensure!(made == ids_of(&agent, "web")? && made.len() == 37, "{made}");
    ensure!(ids(&["name=web"])? == made);
    agent.api().put("/v1/session/create", Some(&json!({"Name": "web"})))?;
    let both = ids_of(&agent, "web")?;
    ensure!(ids(&["state=list"])? == both && both.starts_with(&made) && both.lines().count() == 2, "{both}");
    ensure!(ids(&["state=info", &format!("id={}", made.trim())])? == made);
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
    let error = at(&agent, &["state=info", "--format", "ids"])?;
    ensure!(error.status == 1 && error.stdout.is_empty() && error.stderr.starts_with("error (invalid-option): "), "{error:?}");
    // What a person should know stands elsewhere.
    let hidden = Consul::start(Kind::Acl)?;
    let ran = at(&hidden, &["state=list", "--format", "ids"])?;
    ensure!(ran.status == 0 && ran.stdout.is_empty() && ran.stderr.starts_with("note: "), "{ran:?}");
    Ok(())
}

fn batch_ids() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    at(&agent, &["name=old"])?.succeeded()?;
    let old = ids_of(&agent, "old")?;
    let path = file(&folder, "s.yaml", "[{name: web}, {name: old, state: absent}, {name: none, state: absent}, {name: db}]")?;
    let apply = |more: &[&str]| at(&agent, &[&["apply", "--file", &path, "--format", "ids"], more].concat());
    ensure!(apply(&["--dry-run"])?.stdout == old);
    let made = apply(&[])?;
    let (web, db) = (ids_of(&agent, "web")?, ids_of(&agent, "db")?);
    ensure!(made.status == 0 && made.stdout == format!("{web}{old}{db}"), "{made:?}");
    ensure!(apply(&[])?.stdout == format!("{web}{db}"));
    let destroy = |more: &[&str]| at(&agent, &[&["destroy", "--name-prefix", "we", "--format", "ids"], more].concat());
    ensure!(destroy(&["--dry-run"])?.stdout == web);
    ensure!(destroy(&["--yes"])?.stdout == web && ids_of(&agent, "web")?.is_empty());
    ensure!(destroy(&["--yes"])?.stdout.is_empty());
    Ok(())
}

fn formats() -> Result<()> {
    for (line, command, accepted) in [
        ("watch --format ids", "watch", "table, json"),
        ("--dev demo --format=ids", "demo", "table, json"),
        ("man --format=ids", "man", "table"),
        ("completions bash --format ids", "completions", "table"),
    ] {
        let ran = Typed::new(PROGRAM, line).run(&[])?;
        let expected = format!(
            "error (invalid-option): invalid value `ids` for `format`: `{command}` cannot print it (expected {accepted})\n"
        );
        ensure!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()) == (1, "", expected.as_str()), "{line}: {ran:?}");
    }
    Ok(())
}

fn requests() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let address = agent.http().to_string();
    let told = |words: &[&str], token: &str| -> Result<(i32, String)> {
        let environment = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN", token)];
        let ran = run(&mut program::host(PROGRAM, &[words, &["--verbose"]].concat(), &environment)?)?;
        ensure!(!ran.stderr.contains(token) || token == ROOT_TOKEN, "{}", ran.stderr);
        Ok((ran.status, masked(&ran.stderr.replace(&address, "AGENT"), false)))
    };
    let (status, text) = told(&["name=a b", "datacenter=dc1"], ROOT_TOKEN)?;
    let expected = "\
GET http://AGENT/v1/session/list?dc=dc1: 200, # B, # ms
PUT http://AGENT/v1/session/create?dc=dc1: 200, # B, # ms
GET http://AGENT/v1/session/list?consistent&dc=dc1: 200, # B, # ms
";
    ensure!((status, text.as_str()) == (0, expected), "{text}");
    // As they were sent.
    let (_, text) = told(&["state=node", "node=ä b"], ROOT_TOKEN)?;
    ensure!(text == "GET http://AGENT/v1/session/node/%C3%A4%20b: 200, # B, # ms\n", "{text}");
    // With a token that the host holds, and with one that the component holds.
    for words in [&["name=x"][..], &["name=x", &format!("token={TOKEN}")]] {
        let (status, text) = told(words, TOKEN)?;
        ensure!(
            status == 1 && text.starts_with("GET http://AGENT/v1/session/list: 403, # B, # ms\nerror (access-denied): "),
            "{text}"
        );
    }
    // Nothing else changes.
    let quiet = at(&agent, &["state=list", &format!("token={ROOT_TOKEN}")])?.succeeded()?;
    let verbose = at(&agent, &["state=list", &format!("token={ROOT_TOKEN}"), "--verbose"])?;
    ensure!(quiet.stdout == verbose.stdout && verbose.stderr.lines().count() == 1, "{verbose:?}");
    Ok(())
}

fn requests_without_answer() -> Result<()> {
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
        let ran = Typed::new(PROGRAM, line).reading(stdin).run(&["--verbose"])?;
        // What is given up is dropped in its own time, perhaps after the error was printed.
        let told: Vec<&str> = ran.stderr.lines().filter(|line| !line.starts_with("error (")).collect();
        let [request] = told[..] else { bail!("{}", ran.stderr) };
        ensure!(ran.status == 1 && request.starts_with(&expected) && request.ends_with(" ms"), "{}", ran.stderr);
        ensure!(ran.stderr.lines().count() == 2, "{}", ran.stderr);
    }
    Ok(())
}

fn blocking() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut program = command(&agent, &["watch", "--verbose"])?;
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
    let result = (|| {
        let first = lines.next().context("it has ended")??;
        ensure!(first.contains("/v1/session/list?consistent: 200, "), "{first}");
        // Ends the call that waits.
        agent.api().put("/v1/session/create", None)?;
        let second = lines.next().context("it has ended")??;
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

/// The text on a terminal on which the program has run, no line of which is longer than the terminal is wide.
fn on_terminal(program: &mut Command, columns: u16) -> Result<String> {
    let (terminal, _) = Terminal::run_to_end(program, columns)?;
    let text = terminal.text();
    let rows = text.lines().count().try_into()?;
    ensure!(!terminal.with(|screen| (0..rows).any(|row| screen.row_wrapped(row))), "a line is too long:\n{text}");
    Ok(text)
}

fn widths() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    file(&folder, "s.yaml", "[{name: session1, delay: 30, ttl: 600, on_mismatch: replace}, {name: db}]")?;
    at(&agent, &["name=session1", "delay=20s", "ttl=90"])?.succeeded()?;
    let first = ids_of(&agent, "session1")?;
    let first = first.trim();
    at(&agent, &["name=session2", "checks=passing-check,service:web"])?.succeeded()?;
    let second = ids_of(&agent, "session2")?;
    let second = second.trim();
    let shown = |words: &[&str], columns| on_terminal(&mut command(&agent, words)?, columns);
    let expect = |words: &[&str], columns, expected: String| {
        let text = shown(words, columns)?;
        ensure!(
            masked(&text, false) == masked(&expected, false),
            "{words:?} in {columns} columns:\n{text}expected:\n{expected}"
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
    ensure!(at(&agent, &["state=list"])?.succeeded()?.stdout == table);
    let blocks = |first: &str, second: &str, checks: &str| {
        format!(
            "2 sessions\nid{first}\nname      session1\nnode      agent-node\nbehavior  release\ndelay     20s\nttl       1m30s\nchecks    serfHealth\n
id{second}\nname      session2\nnode      agent-node\nbehavior  release\ndelay     15s\nttl       -\nchecks{checks}\n"
        )
    };
    let beside = |id: &str| format!("        {id}");
    let below = |id: &str| format!("\n  {id}");
    let checks = "serfHealth,passing-check,service:web";
    expect(&["state=list"], 80, blocks(&beside(first), &beside(second), &beside(checks).replacen("        ", "    ", 1)))?;
    expect(&["state=list"], 40, blocks(&below(first), &below(second), &below(checks)))?;
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
    let narrow = shown(&["destroy", "--name-prefix", "session", "--dry-run"], 40)?;
    let block = |name: &str, id: &str| format!("result  to destroy\nname    {name}\nnode    agent-node\nid\n  {id}\n");
    for (name, id) in [("session1", first), ("session2", second)] {
        ensure!(narrow.contains(&block(name, id)), "{narrow}");
    }
    let error = shown(&["delay=61"], 40)?;
    ensure!(error.lines().count() > 2 && error.lines().skip(1).all(|line| line.starts_with("  ")), "{error}");
    // Destroyed is shown as it was.
    expect(
        &["name=session1", "state=absent"],
        100,
        format!("changed: destroyed 1 session\ndestroyed:\n{}\n", table.lines().skip(1).take(2).collect::<Vec<_>>().join("\n")),
    )
}

fn colors() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let colors = |words: &[&str], (variable, value): (&str, &str)| -> Result<Vec<(String, vt100::Color, bool)>> {
        let mut program = command(&agent, words)?;
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
    let shades =
        |rows: Vec<(String, vt100::Color, bool)>| rows.into_iter().map(|(_, color, dim)| (color, dim)).collect::<Vec<_>>();
    for (words, expected) in [
        (&["port=1", "id=x"][..], vec![(red, false)]),
        (&["name=s", "--dry-run"], [vec![(yellow, false)], vec![(green, false); 5]].concat()),
        (&["name=s"], vec![(yellow, false), (plain, true), (green, false)]),
        (&["name=s"], vec![(plain, true), (plain, true), (plain, false)]),
        (&["state=list", "--verbose"], vec![(plain, true), (plain, false), (plain, true), (plain, false)]),
        (&["destroy", "--name-prefix", "s", "--dry-run"], vec![(plain, true), (red, false), (plain, false)]),
    ] {
        let same = colors(words, ("NO_COLOR", ""))?;
        for switched_off in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            if words == ["name=s"] && expected.contains(&(green, false)) {
                continue;
            }
            let rows = colors(words, switched_off)?;
            ensure!(rows.iter().all(|(_, color, dim)| (*color, *dim) == (plain, false)), "{words:?}: {rows:?}");
        }
        ensure!(shades(same.clone()) == expected, "{words:?}: {same:?}");
    }
    Ok(())
}

/// Asks bash to complete a line.
fn completed(folder: &TempDir, line: &str) -> Result<Vec<String>> {
    const ASK: &str = r#"
source "$1"
function="$(complete -p consul-session)"
function="${function#*-F }"
function="${function%% *}"
# As readline splits words.
read -ra COMP_WORDS <<< "${2//=/ = }"
[[ "$2" == *[\ =] ]] && COMP_WORDS+=("")
COMP_LINE="$2" COMP_POINT="${#2}" COMP_CWORD="$(( ${#COMP_WORDS[@]} - 1 ))"
"$function" consul-session "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
"#;
    let script = folder.path().join("completions");
    if !script.exists() {
        std::fs::write(&script, Typed::new(PROGRAM, "completions bash").run(&[])?.succeeded()?.stdout)?;
    }
    let ran = run(Command::new("bash").args(["--norc", "-c", ASK, "ask"]).arg(script).arg(line))?.succeeded()?;
    Ok(ran.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn bash() -> Result<()> {
    let folder = tempdir()?;
    let ask = |line: &str| completed(&folder, &format!("consul-session {line}"));
    for (line, expected) in [
        ("state=pr", &["present"][..]),
        ("name=x state=", &["present", "absent", "info", "node", "list"]),
        ("--on-mismatch=", &["fail", "replace"]),
        ("--on-mismatch ", &["fail", "replace"]),
        ("watch --scheme ", &["http", "https"]),
        ("--format i", &["ids"]),
        ("wat", &["watch"]),
        ("nam", &["name=", "namespace="]),
        ("name=x beha", &["behavior=release", "behavior=delete", "behavior="]),
        ("destroy --name-p", &["--name-prefix"]),
        ("completions b", &["bash"]),
        ("help del", &["delay"]),
    ] {
        let reply = ask(line)?;
        ensure!(reply == expected, "{line}: {reply:?}");
    }
    let (flags, words) = (ask("--")?, ask("")?);
    for info in TABLE {
        let (flag, word) = (format!("--{}", info.name.replace('_', "-")), format!("{}=", info.name));
        ensure!(flags.contains(&flag) && words.contains(&word), "{} is missing", info.name);
        for line in ["--", "watch --"] {
            ensure!(ask(line)?.contains(&flag), "{line} lacks {flag}");
        }
    }
    for command in commands()? {
        ensure!(words.contains(&command), "{command} is missing");
    }
    Ok(())
}

/// The program's commands, as its help has them.
fn commands() -> Result<Vec<String>> {
    let help = Typed::new(PROGRAM, "--help").run(&[])?.succeeded()?.stdout;
    let (_, list) = help.split_once("\nCommands:\n").context("no commands")?;
    let (list, _) = list.split_once("\n\n").context("no end")?;
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let names: Vec<String> = names.map(str::to_owned).collect();
    ensure!(names.len() > 3 && names.contains(&"watch".into()), "{names:?}");
    Ok(names)
}

fn shells() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Typed::new(PROGRAM, format!("completions {shell}")).run(&[])?.succeeded()?.stdout;
        for info in TABLE {
            let name = info.name.replace('_', "-");
            ensure!(script.contains(&name), "{shell}: {name} is missing");
        }
        for command in commands()? {
            ensure!(script.contains(&command), "{shell}: {command} is missing");
        }
    }
    // What clap does not put there.
    for (shell, words) in [("zsh", "compadd -- state=present "), ("fish", " -f -a 'state= id= ")] {
        let script = Typed::new(PROGRAM, format!("completions {shell}")).run(&[])?.succeeded()?.stdout;
        ensure!(script.contains(words), "{shell}: {words} is missing");
    }
    let ran = Typed::new(PROGRAM, "completions tcsh").run(&[])?;
    let expected =
        "error (invalid-option): invalid value `tcsh` for <SHELL>: unknown (expected bash, elvish, fish, powershell, zsh)\n";
    ensure!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()) == (1, "", expected), "{ran:?}");
    Ok(())
}

fn man() -> Result<()> {
    let page = Typed::new(PROGRAM, "man").run(&[])?.succeeded()?.stdout;
    ensure!(page.contains("\n.TH consul-session 1 ") || page.starts_with(".TH consul-session 1 "), "{page}");
    // As a person reads it, where there is something that renders it.
    let folder = tempdir()?;
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
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES"] {
        ensure!(text.contains(section), "{section} is missing");
    }
    for info in TABLE {
        ensure!(text.contains(&format!("--{}", info.name.replace('_', "-"))), "{} is missing", info.name);
    }
    for flag in ["--verbose", "--format", "--allow", "--limit", "--name-prefix", "--file", "CONSUL_HTTP_ADDR", "CONSUL_CACERT"]
    {
        ensure!(text.contains(flag), "{flag} is missing");
    }
    for command in commands()? {
        ensure!(text.contains(&format!("consul-session {command} ")), "{command} is missing");
    }
    Ok(())
}

/// A text without what differs from run to run: ids by their order, times, sizes and indexes, and ages where there are some.
fn masked(text: &str, ages: bool) -> String {
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut masked = String::new();
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        for (at, word) in words.iter().enumerate() {
            let next = words.get(at + 1).map(|word| word.trim_end_matches([',', ';']));
            let seconds = word.strip_suffix('s').is_some_and(is_number);
            let inner = word.trim_matches(|c: char| !c.is_ascii_hexdigit());
            if at > 0 {
                masked.push(' ');
            }
            if inner.len() == 36 && inner.matches('-').count() == 4 {
                let known = ids.len();
                let id = *ids.entry(inner.to_owned()).or_insert(known);
                masked += &word.replace(inner, &format!("{id:036}"));
            } else if is_number(word) && next.is_some_and(|next| ["s", "ms", "B"].contains(&next)) || ages && seconds {
                masked.push('#');
            } else if at > 0 && words[at - 1].ends_with("index:") {
                masked += "#,";
            } else {
                masked += word;
            }
        }
        masked.push('\n');
    }
    masked
}

/// The columns in which the README's screens are shown.
const COLUMNS: u16 = 100;

/// Every `console` block of the README is what the commands in it print, in this order, on a terminal: run in a folder with what they
/// name, with one agent, which the README has at the default port, and none of whose sessions outlives its block.
fn readme() -> Result<()> {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path)?;
    let folder = tempdir()?;
    let bin = folder.path().join("bin");
    let release = folder.path().join("target/release");
    for folder in [&bin, &release] {
        std::fs::create_dir_all(folder)?;
        symlink(PROGRAM, folder.join("consul-session"))?;
    }
    symlink(tools::wasmtime()?, bin.join("wasmtime"))?;
    symlink(root().join("dist"), folder.path().join("dist"))?;
    let agent = Consul::start(Kind::Plain)?;
    let mut written = String::new();
    let mut screens = 0;
    for (at, part) in readme.split("```").enumerate() {
        if at > 0 {
            written += "```";
        }
        match part.strip_prefix("console\n") {
            Some(screen) if at % 2 == 1 => {
                let shown = capture(screen, &agent, &folder, &bin).with_context(|| screen.to_owned())?;
                let ages = screen.lines().any(is_watch);
                // What is as good stays, so that only what has changed is rewritten.
                let same = masked(screen, ages) == masked(&shown, ages);
                written += &format!("console\n{}", if same { screen } else { &shown });
                screens += 1;
                agent.api().clean()?;
            }
            _ => {
                if let Some(file) = part.strip_prefix("yaml\n").filter(|_| at % 2 == 1) {
                    std::fs::write(folder.path().join("sessions.yaml"), file)?;
                }
                written += part;
            }
        }
    }
    ensure!(screens > 5, "only {screens} screens");
    if std::env::var("UPDATE_README").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &written)?;
        return Ok(());
    }
    let differ = readme.lines().zip(written.lines()).find(|(old, new)| old != new);
    ensure!(
        readme == written,
        "README.md has `{}`, the program prints `{}`; UPDATE_README=1 on the same command writes it",
        differ.map_or("no end", |(old, _)| old),
        differ.map_or("an end", |(_, new)| new)
    );
    Ok(())
}

/// Whether a command goes on until it is stopped.
fn is_watch(typed: &str) -> bool {
    typed.ends_with(" watch")
}

/// The commands of a block, each with what it prints now.
fn capture(screen: &str, agent: &Consul, folder: &TempDir, bin: &std::path::Path) -> Result<String> {
    let port = agent.http().port();
    let (ours, theirs) = (format!("localhost:{port}"), "localhost:8500");
    let mut shown = String::new();
    // What `$?` is for the next command.
    let mut status = 0;
    for typed in screen.lines().filter_map(|line| line.strip_prefix("$ ")) {
        // In the shell's place, so that a signal reaches it.
        let line = match is_watch(typed) {
            true => format!("exec {typed}"),
            false => format!("(exit {status}); {}", typed.replace("port: 8500", &format!("port: {port}"))),
        };
        let mut shell = program::host("sh", &["-c", &line], &[("CONSUL_HTTP_ADDR", &ours)])?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = [bin.to_owned()].into_iter().chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(paths)?).env("NO_COLOR", "1").env("TERM", "xterm").current_dir(folder.path());
        let text = match is_watch(typed) {
            true => watched(&mut shell, agent)?,
            false => {
                let (terminal, ended) = Terminal::run_to_end(&mut shell, COLUMNS)?;
                status = ended.code().with_context(|| format!("{typed}: {ended}"))?;
                terminal.text()
            }
        };
        shown += &format!("$ {typed}\n{}", text.replace(&ours, theirs));
    }
    Ok(shown)
}

/// The screen of `watch` when one session has come and another gone.
fn watched(shell: &mut Command, agent: &Consul) -> Result<String> {
    let api = agent.api();
    let first = api.put("/v1/session/create", Some(&json!({"Name": "first"})))?;
    let (terminal, mut child) = Terminal::run(shell, COLUMNS)?;
    let result = (|| {
        terminal.wait_for(|text| text.contains("first"))?;
        api.put("/v1/session/create", Some(&json!({"Name": "second"})))?;
        terminal.wait_for(|text| text.contains("\n+ "))?;
        let Some(id) = first["ID"].as_str() else { bail!("no id: {first}") };
        api.put(&format!("/v1/session/destroy/{id}"), None)?;
        terminal.wait_for(|text| text.contains("\n+ ") && text.contains("\n- "))
    })();
    kill_process(Pid::from_child(&child), Signal::INT)?;
    child.wait()?;
    result
}
