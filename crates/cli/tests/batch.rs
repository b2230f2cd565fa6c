//! Many sessions at once, as typed: `apply --file` and `destroy --name-prefix` against a real Consul and the dev agent.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::tempdir;
use test_support::agent::Api;
use test_support::consul::{Consul, Kind, NODE};
use test_support::program::{self, Ran, file, input, run};
use test_support::trial::{Test, run_tests};
use test_support::{TOKEN, unused_address};

fn main() -> ExitCode {
    let without_consul: [(&str, Test); 5] = [
        ("each mistake in a file is told with its line, and nothing is sent", mistakes),
        ("what is typed wrong beside the commands", typed_wrong),
        ("the embedded dev agent", dev),
        ("an agent that is not there is told once", unreachable),
        ("a host in the file needs a rule, which is found out before anything is changed", denied),
    ];
    let with_consul: [(&str, Test); 14] = [
        ("what is printed", screens),
        ("a thousand sessions, again, and none left", thousand),
        ("YAML, JSON and standard input do the same", same_in_json),
        ("every kind of record in one file, as each would be alone", mixed),
        ("a failed record does not stop the others", failed_record),
        ("four at once make one session of each name, and agree upon it", at_once),
        ("callers of single sessions meanwhile", beside_single_callers),
        ("SIGINT half-way, and again to the end", || interrupted(Signal::INT)),
        ("SIGTERM half-way, and again to the end", || interrupted(Signal::TERM)),
        ("SIGINT twice ends at once, and again to the end", interrupted_twice),
        ("a destruction that is interrupted", destruction_interrupted),
        ("a prefix destroys what it names, on the node that is named", prefix),
        ("on a terminal: a question, and a bar", terminal),
        ("ACLs: what a token may, and that it is never shown", acls),
    ];
    run_tests(without_consul, with_consul)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");

/// The program with these words, and the agent in its environment.
fn command(agent: &Consul, words: &[&str]) -> Result<Command> {
    program::host_at(PROGRAM, agent, words)
}

fn host(words: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    program::host(PROGRAM, words, environment)
}

fn at(agent: &Consul, words: &[&str]) -> Result<Ran> {
    run(&mut command(agent, words)?)
}

/// So many records, each of one line.
fn many(count: usize) -> String {
    (0..count).map(|at| format!("- {{name: job-{at:05}, delay: 20s}}\n")).collect()
}

/// The names of all sessions, and how often each is there.
fn names(api: &Api) -> Result<HashMap<String, usize>> {
    let mut names = HashMap::new();
    for session in api.sessions()? {
        *names.entry(session["Name"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(names)
}

/// Fails unless there is one session of each of so many names.
fn one_of_each(api: &Api, count: usize) -> Result<()> {
    let names = names(api)?;
    ensure!(names.len() == count, "{} names", names.len());
    let twice: Vec<_> = names.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(twice.is_empty(), "more than once: {twice:?}");
    Ok(())
}

/// The last line on standard error, without the time that it took.
fn summary(ran: &Ran) -> String {
    let line = ran.stderr.lines().rfind(|line| line.contains(" in ")).unwrap_or_default();
    untimed(line)
}

/// A text with each time as `T s`.
fn untimed(text: &str) -> String {
    let mut untimed = String::new();
    for (at, part) in text.split(" in ").enumerate() {
        match part.split_once(" s") {
            Some((time, rest)) if at > 0 && time.parse::<f64>().is_ok() => untimed += &format!(" in T s{rest}"),
            _ if at > 0 => untimed += &format!(" in {part}"),
            _ => untimed += part,
        }
    }
    untimed
}

/// A screen with its ids as in the README, each by its place, and without times.
fn screen(ran: &Ran) -> String {
    let mut text = untimed(&format!("{}{}", ran.stdout, ran.stderr));
    let ids: Vec<String> =
        text.split_whitespace().filter(|word| word.len() == 36 && word.matches('-').count() == 4).map(String::from).collect();
    for (at, id) in ids.iter().enumerate() {
        text = text.replace(id, &format!("{at:08}-0000-4000-8000-000000000000"));
    }
    text
}

fn id(at: usize) -> String {
    format!("{at:08}-0000-4000-8000-000000000000")
}

/// What a program prints, as text in a failure.
fn expect(text: &str, expected: &str) -> Result<()> {
    ensure!(text == expected, "\n{text}expected:\n{expected}");
    let wide = text
        .lines()
        .filter(|line| !line.starts_with("error") && !line.contains("note:"))
        .find(|line| line.chars().count() > 80);
    ensure!(wide.is_none(), "wider than 80 columns: {wide:?}");
    Ok(())
}

fn mistakes() -> Result<()> {
    let folder = tempdir()?;
    // Whatever is sent would be an error of another kind: nobody listens there.
    let port = format!("port={}", unused_address()?.port());
    let text = format!(
        "- name: web\n  dealy: 20s\n- {{name: db, delay: 61, token: {{a: {TOKEN}}}}}\n- {{name: db, ttl: 5, tokn: {TOKEN}}}\n- {{name: cache, token: \"{TOKEN} x\"}}\n"
    );
    let path = file(&folder, "sessions.yaml", &text)?;
    let told = [
        (2, "dealy", "unknown option `dealy`: did you mean `delay`?"),
        (
            3,
            "delay",
            "invalid value `61` for `delay`: out of range (expected seconds or a duration: 20, 20s or 1m30s, 0s to 60s)",
        ),
        (3, "token", "invalid value for `token`: an object (expected a string)"),
        (
            4,
            "ttl",
            "invalid value `5` for `ttl`: out of range (expected seconds or a duration: 20, 20s or 1m30s, 10s to 86400s, or 0 for none)",
        ),
        (4, "tokn", "unknown option `tokn`: did you mean `token`?"),
        (5, "token", "invalid value for `token`: a space or another character that a header cannot hold (expected a string)"),
    ];
    let lines: String = told.iter().map(|(line, _, text)| format!("error (invalid-option): {path}:{line}: {text}\n")).collect();
    let ran = run(&mut host(&["apply", "--file", &path, &port], &[])?)?;
    ensure!(
        (ran.status, ran.stdout.as_str()) == (1, "") && ran.stderr == lines.clone() + "nothing was sent\n",
        "{}{lines}",
        ran.stderr
    );
    let ran = run(&mut host(&["apply", "--file", &path, &port, "--format", "json"], &[])?)?;
    let mistakes: Vec<Value> =
        told.iter().map(|(line, option, msg)| json!({"line": line, "option": option, "msg": msg})).collect();
    let expected = json!({
        "changed": false, "failed": true, "error": "invalid-option", "file": path,
        "msg": format!("{path}:2: {}", told[0].2), "mistakes": mistakes
    });
    ensure!(ran.status == 1 && ran.stderr.is_empty() && ran.json()? == expected, "{}", ran.stdout);
    // No more than a screen of them.
    let path = file(&folder, "sessions.yaml", "- {nmae: a}\n".repeat(50))?;
    let ran = run(&mut host(&["apply", "--file", &path, &port], &[])?)?;
    ensure!(
        ran.stderr.lines().count() == 22
            && ran.stderr.ends_with("\nand 30 more errors; --format json has them all\nnothing was sent\n"),
        "{}",
        ran.stderr
    );
    Ok(())
}

fn typed_wrong() -> Result<()> {
    let folder = tempdir()?;
    let good = file(&folder, "good.yaml", "- name: web\n")?;
    let latin = file(&folder, "latin.yaml", b"- name: \xe9\n")?;
    let cases: [(&[&str], &str, String); 12] = [
        (&["apply"], "file", "`apply` needs --file FILE, a list of records; `-` for standard input".into()),
        (
            &["apply", "--file", "/missing"],
            "file",
            "--file: /missing cannot be read: No such file or directory (os error 2)".into(),
        ),
        (&["apply", "--file", &latin], "file", format!("--file: {latin} cannot be read: it is not UTF-8")),
        (
            &["apply", "--file", &good, "--concurrency", "0"],
            "concurrency",
            "invalid value `0` for --concurrency: out of range (expected 1 to 100)".into(),
        ),
        (
            &["apply", "--file", &good, "--concurrency", "101"],
            "concurrency",
            "invalid value `101` for --concurrency: out of range (expected 1 to 100)".into(),
        ),
        (
            &["apply", "--file", &good, "delay=x"],
            "delay",
            "invalid value `x` for `delay`: not a duration (expected seconds or a duration: 20, 20s or 1m30s, 0s to 60s)"
                .into(),
        ),
        (&["apply", "--flie", &good], "flie", "unknown option `flie`: did you mean `--file`?".into()),
        (&["destroy"], "name-prefix", "`destroy` needs --name-prefix PREFIX: how the names begin".into()),
        (
            &["destroy", "--name-prefix", ""],
            "name-prefix",
            "--name-prefix is empty, which would mean every session: say how the names begin".into(),
        ),
        (
            &["destroy", "--name-prefix", "a", "--name-prefix", "b"],
            "name-prefix",
            "--name-prefix is given twice: give one".into(),
        ),
        (
            &["destroy", "--name-prefix", "a", "name=abc"],
            "name",
            "`destroy` takes no option `name`: it goes by --name-prefix, and by `node` and `datacenter`".into(),
        ),
        (
            &["destroy", "--name-prefix", "a", "--concurrency", "x"],
            "concurrency",
            "invalid value `x` for --concurrency: out of range (expected 1 to 100)".into(),
        ),
    ];
    for (words, option, message) in cases {
        let ran = run(&mut host(words, &[])?)?;
        let expected = format!("error (invalid-option): {message}\n");
        ensure!(
            (ran.status, ran.stdout.as_str(), &ran.stderr) == (1, "", &expected),
            "{words:?}: {}{}",
            ran.stdout,
            ran.stderr
        );
        let ran = run(&mut host(&[words, &["--format", "json"]].concat(), &[])?)?;
        let expected = json!({"changed": false, "failed": true, "error": "invalid-option", "option": option, "msg": message});
        ensure!(ran.status == 1 && ran.json()? == expected, "{words:?}: {}", ran.stdout);
    }
    Ok(())
}

fn dev() -> Result<()> {
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(300))?;
    let ran = run(&mut host(&["--dev", "apply", "--file", &path], &[])?)?;
    ensure!(ran.status == 0 && ran.stdout.lines().count() == 301, "{}", ran.stderr);
    expect(&ran.stderr.replace(char::is_numeric, "").replace(". s", ""), " sessions:  created in \n")?;
    let ran = run(&mut host(&["--dev", "apply", "--file", &path, "--dry-run"], &[])?)?;
    expect(&untimed(&ran.stderr), "300 sessions: 300 to create in T s\n")?;
    let ran = run(&mut host(&["--dev", "destroy", "--name-prefix", "job-"], &[])?)?;
    ensure!(
        (ran.status, ran.stdout.as_str(), ran.stderr.as_str()) == (0, "", "no session's name begins with \"job-\"\n"),
        "{}",
        ran.stderr
    );
    let empty = file(&folder, "empty.yaml", "[]")?;
    let ran = run(&mut host(&["--dev", "apply", "--file", &empty], &[])?)?;
    ensure!(ran.status == 0 && ran.stdout == "LINE  RESULT  NAME  NODE  ID\n", "{}", ran.stdout);
    Ok(())
}

fn unreachable() -> Result<()> {
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(3))?;
    let port = unused_address()?.port();
    let ran = run(&mut host(&["apply", "--file", &path, "host=127.0.0.1", &format!("port={port}")], &[])?)?;
    ensure!(ran.status == 1 && ran.stderr.starts_with(&format!("error (unreachable): {path}:1: ")), "{}", ran.stderr);
    ensure!(summary(&ran) == "3 sessions: 1 failed, 2 not tried in T s" && ran.stderr.lines().count() == 2, "{}", ran.stderr);
    let ran = run(&mut host(&["destroy", "--name-prefix", "a", "--yes", "host=127.0.0.1", &format!("port={port}")], &[])?)?;
    ensure!(ran.status == 1 && ran.stderr.starts_with("error (unreachable): ") && ran.stdout.is_empty(), "{}", ran.stderr);
    Ok(())
}

fn denied() -> Result<()> {
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", "- name: web\n- {name: db, host: db.example}\n- {name: db, port: 1}\n")?;
    // The first record's agent is there, and is not written to.
    let ran = run(&mut host(&["--dev", "apply", "--file", &path, "--format", "json"], &[])?)?;
    let answer = ran.json()?;
    ensure!(ran.status == 1 && answer["changed"] == false && answer["counts"]["created"] == Value::Null, "{answer}");
    ensure!(answer["records"][0] == json!({"line": 1, "result": "not tried", "name": "web"}), "{answer}");
    ensure!(answer["records"][1]["error"] == "denied-by-host" && answer["records"][1]["line"] == 2, "{answer}");
    let message = answer["records"][1]["msg"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("the host's policy does not allow db.example:") && message.contains("`--allow db.example:"),
        "{message}"
    );
    Ok(())
}

fn screens() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    file(
        &folder,
        "sessions.yaml",
        "- name: web\n  delay: 20s\n- {name: batch, ttl: 10m, behavior: delete}\n- {name: old, state: absent}\n",
    )?;
    let typed = |words: &[&str]| run(command(&agent, words)?.current_dir(folder.path()));
    let ran = typed(&["apply", "--file", "sessions.yaml"])?;
    expect(
        &screen(&ran),
        &format!(
            "LINE  RESULT     NAME   NODE        ID\n1     created    web    agent-node  {}\n3     created    batch  agent-node  {}\n4     unchanged  old    -           -\n3 sessions: 2 created, 1 unchanged in T s\n",
            id(0),
            id(1)
        ),
    )?;
    ensure!(ran.status == 0);
    let ran = typed(&["apply", "--file", "sessions.yaml", "delay=5", "state=absent", "--dry-run"])?;
    expect(
        &screen(&ran),
        &format!(
            "LINE  RESULT      NAME   NODE        ID\n1     to destroy  web    agent-node  {}\n3     to destroy  batch  agent-node  {}\n4     unchanged   old    -           -\n3 sessions: 2 to destroy, 1 unchanged in T s\n",
            id(0),
            id(1)
        ),
    )?;
    ensure!(ran.status == 0 && agent.api().sessions()?.len() == 2);
    let ran = typed(&["destroy", "--name-prefix", "web"])?;
    expect(
        &screen(&ran),
        "error (invalid-option): 1 session whose name begins with \"web\": nobody can be asked, since standard input is not a terminal: give --yes to destroy, --dry-run to see them\n",
    )?;
    ensure!(ran.status == 1 && agent.api().sessions()?.len() == 2);
    let ran = typed(&["destroy", "--name-prefix", "web", "--dry-run"])?;
    expect(
        &screen(&ran),
        &format!("RESULT      NAME  NODE        ID\nto destroy  web   agent-node  {}\n1 session: 1 to destroy in T s\n", id(0)),
    )?;
    ensure!(ran.status == 0 && agent.api().sessions()?.len() == 2);
    let ran = typed(&["destroy", "--name-prefix", "web", "--yes"])?;
    expect(
        &screen(&ran),
        &format!(
            "RESULT     NAME  NODE        ID\ndestroyed  web   agent-node  {}\n1 session: 1 destroyed in T s; 0 left\n",
            id(0)
        ),
    )?;
    ensure!(ran.status == 0 && names(&agent.api())?.keys().collect::<Vec<_>>() == ["batch"]);
    Ok(())
}

fn thousand() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(1000))?;
    at(&agent, &["name=other"])?.succeeded()?;
    let log = agent.log_length();
    let first = at(&agent, &["apply", "--file", &path])?;
    ensure!(first.status == 0 && summary(&first) == "1000 sessions: 1000 created in T s", "{}", first.stderr);
    // In the file's order.
    let in_order =
        first.stdout.lines().skip(1).enumerate().all(|(at, line)| line.contains(&format!(" created  job-{at:05}  {NODE} ")));
    ensure!(in_order && first.stdout.lines().count() == 1001, "{}", first.stdout);
    let text = agent.log_since(log);
    let (lists, creations) = (text.matches("url=/v1/session/list").count(), text.matches("url=/v1/session/create").count());
    ensure!((lists, creations) == (2, 1000), "{lists} readings, {creations} creations");
    one_of_each(&agent.api(), 1001)?;
    let before = agent.api().sessions()?;
    let again = at(&agent, &["apply", "--file", &path])?;
    ensure!(again.status == 0 && summary(&again) == "1000 sessions: 1000 unchanged in T s", "{}", again.stderr);
    ensure!(
        again
            .stdout
            .replace("unchanged", "created")
            .replace("RESULT   ", "RESULT ")
            .split_whitespace()
            .eq(first.stdout.split_whitespace())
    );
    ensure!(agent.api().sessions()? == before);
    let gone = at(&agent, &["destroy", "--name-prefix", "job-", "--yes"])?;
    ensure!(gone.status == 0 && summary(&gone) == "1000 sessions: 1000 destroyed in T s; 0 left", "{}", gone.stderr);
    ensure!(names(&agent.api())?.keys().collect::<Vec<_>>() == ["other"]);
    Ok(())
}

fn same_in_json() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let yaml = file(
        &folder,
        "s.yaml",
        "- &base {name: no, delay: 1.5, checks: [passing-check]}\n- <<: *base\n  name: 007\n  behavior: delete\n- {name: \"ü x\", ttl: 10m, checks: , node_checks: []}\n",
    )?;
    let json = r#"[{"name": "no", "delay": 1.5, "checks": ["passing-check"]},
 {"name": "007", "delay": "1500ms", "checks": "passing-check", "behavior": "delete"},
 {"name": "\u00fc x", "ttl": 600, "node_checks": []}]"#;
    let made = at(&agent, &["apply", "--file", &yaml])?;
    ensure!(made.status == 0 && summary(&made) == "3 sessions: 3 created in T s", "{}", made.stderr);
    let mut read = command(&agent, &["apply", "--file", "-"])?;
    let same = run(read.stdin(input(json)?))?;
    ensure!(same.status == 0 && summary(&same) == "3 sessions: 3 unchanged in T s", "{}", same.stderr);
    // What was made is what one record alone makes.
    for session in agent.api().sessions()? {
        let (name, text) = (session["Name"].as_str().unwrap_or_default(), session.to_string());
        let expected = match name {
            "no" => ["1500000000", "release", r#""TTL":"""#, r#"["serfHealth","passing-check"]"#],
            "007" => ["1500000000", "delete", r#""TTL":"""#, r#"["serfHealth","passing-check"]"#],
            "ü x" => ["15000000000", "release", r#""TTL":"600s""#, r#""NodeChecks":[]"#],
            _ => ["no such name"; 4],
        };
        ensure!(expected.iter().all(|part| text.contains(part)), "{text}");
    }
    Ok(())
}

fn mixed() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let create = |session: Value| -> Result<String> {
        Ok(api.put("/v1/session/create", Some(&session))?["ID"].as_str().context("no id")?.to_owned())
    };
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.1"})))?;
    let differs = create(json!({"Name": "replace", "LockDelay": "1s"}))?;
    let elsewhere = create(json!({"Name": "replace", "Node": "n2", "NodeChecks": []}))?;
    let first = create(json!({"Name": "absent"}))?;
    let second = create(json!({"Name": "absent"}))?;
    let by_id = create(json!({"Name": "by-id", "LockDelay": "2s"}))?;
    let gone = create(json!({"Name": "gone"}))?;
    let here = create(json!({"Name": "two"}))?;
    let there = create(json!({"Name": "two", "Node": "n2", "NodeChecks": []}))?;
    let missing = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
    let text = format!(
        "- {{name: replace, delay: 2, on_mismatch: replace}}\n- {{name: replace, node: N2, checks: '', delay: 15}}\n- {{name: absent, state: absent}}\n- {{name: never, state: absent}}\n- {{id: {by_id}, delay: 2}}\n- {{id: {gone}, state: absent}}\n- {{id: {missing}}}\n- {{name: new, node: n2, node_checks: []}}\n- {{name: new, node: {NODE}}}\n- {{name: two, node: n2, state: absent}}\n"
    );
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", text)?;
    let sessions = api.sessions()?;
    let dry = at(&agent, &["apply", "--file", &path, "--dry-run", "--format", "json"])?.json()?;
    ensure!(
        (
            dry["counts"]["to_create"].as_i64(),
            dry["counts"]["to_replace"].as_i64(),
            dry["counts"]["to_destroy"].as_i64(),
            dry["counts"]["unchanged"].as_i64()
        ) == (Some(2), Some(1), Some(3), Some(3)),
        "{dry}"
    );
    ensure!(api.sessions()? == sessions);
    let log = agent.log_length();
    let ran = at(&agent, &["apply", "--file", &path, "--format", "json"])?;
    // The second one when all is created, also what had to wait for the agent's own node.
    let lists = agent.log_since(log).matches("url=/v1/session/list").count();
    ensure!(lists == 2, "{lists} readings");
    let answer = ran.json()?;
    let results: Vec<_> = answer["records"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| record["result"].as_str().unwrap_or_default())
        .collect();
    ensure!(
        results
            == [
                "replaced",
                "unchanged",
                "destroyed",
                "unchanged",
                "unchanged",
                "destroyed",
                "failed",
                "created",
                "created",
                "destroyed"
            ],
        "{answer}"
    );
    ensure!(
        ran.status == 1 && answer["changed"] == true && answer["failed"] == true && answer["interrupted"] == false,
        "{answer}"
    );
    let record = |at: usize| &answer["records"][at];
    ensure!(record(0)["destroyed"] == json!([differs]) && record(1)["session_id"] == elsewhere.as_str(), "{answer}");
    ensure!(record(2)["destroyed"] == json!([first, second]) && record(4)["session_id"] == by_id.as_str(), "{answer}");
    ensure!(record(2)["name"] == "absent" && answer["counts"]["failed"] == 1, "{answer}");
    ensure!(record(6)["error"] == "not-found" && record(6)["line"] == 7, "{answer}");
    ensure!(record(7)["node"] == "n2" && record(8)["node"] == NODE, "{answer}");
    ensure!(record(9)["destroyed"] == json!([there]) && api.sessions()?.len() == 6, "{answer}");
    ensure!(api.sessions()?.iter().any(|session| session["ID"] == *here));
    // Again: nothing more to do.
    let again = at(&agent, &["apply", "--file", &path])?;
    ensure!(summary(&again) == "10 sessions: 9 unchanged, 1 failed in T s", "{}", again.stderr);
    Ok(())
}

fn failed_record() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "other", "LockDelay": "1s"})))?;
    let folder = tempdir()?;
    let path = file(
        &folder,
        "s.yaml",
        "- name: a\n- {name: b, checks: [critical-check]}\n- {name: c, node: nowhere}\n- {name: other, delay: 2}\n- name: d\n",
    )?;
    let ran = at(&agent, &["apply", "--file", &path])?;
    ensure!(ran.status == 1 && summary(&ran) == "5 sessions: 2 created, 3 failed in T s", "{}", ran.stderr);
    for (line, part) in ran.stderr.lines().zip([
        format!("error (critical-check): {path}:2: a check is critical"),
        format!("error (unknown-node): {path}:3: no node of this name"),
        format!("error (mismatch): {path}:4: session "),
    ]) {
        ensure!(line.starts_with(&part), "{line}");
    }
    ensure!(agent.api().sessions()?.len() == 3);
    Ok(())
}

/// Ends of several processes, which run at the same time.
fn together(commands: Vec<Command>) -> Result<Vec<Ran>> {
    std::thread::scope(|scope| {
        let started: Vec<_> = commands.into_iter().map(|mut command| scope.spawn(move || run(&mut command))).collect();
        started.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("panicked"))?).collect()
    })
}

fn at_once() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(200))?;
    let commands = (0..4).map(|_| command(&agent, &["apply", "--file", &path, "--format", "json"])).collect::<Result<_>>()?;
    let answers = together(commands)?.iter().map(Ran::json).collect::<Result<Vec<_>>>()?;
    one_of_each(&agent.api(), 200)?;
    let ids = |answer: &Value| -> Vec<Value> {
        answer["records"].as_array().into_iter().flatten().map(|record| record["session_id"].clone()).collect()
    };
    ensure!(
        answers.iter().all(|answer| answer["failed"] == false && ids(answer).len() == 200 && ids(answer) == ids(&answers[0]))
    );
    let created: i64 = answers.iter().filter_map(|answer| answer["counts"]["created"].as_i64()).sum();
    ensure!(created == 200, "{created} created");
    // That they met at all is why this is tried.
    ensure!(answers.iter().any(|answer| answer.to_string().contains("at the same moment")), "they did not meet");
    Ok(())
}

fn beside_single_callers() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(20))?;
    let mut commands = vec![command(&agent, &["apply", "--file", &path, "--format", "json", "--concurrency", "1"])?];
    for name in ["job-00000", "job-00010", "job-00019"] {
        for _ in 0..3 {
            commands.push(command(&agent, &[&format!("name={name}"), "delay=20s", "--format", "json"])?);
        }
    }
    let answers = together(commands)?.iter().map(Ran::json).collect::<Result<Vec<_>>>()?;
    one_of_each(&agent.api(), 20)?;
    for answer in &answers[1..] {
        let record = answers[0]["records"].as_array().into_iter().flatten().find(|record| record["name"] == answer["name"]);
        ensure!(record.is_some_and(|record| record["session_id"] == answer["session_id"]), "{answer}");
    }
    Ok(())
}

/// A program that was started, whose output is read to its end.
struct Started(Child);

impl Started {
    fn new(mut command: Command) -> Result<Started> {
        Ok(Started(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    fn ended(self) -> Result<Ran> {
        let output = self.0.wait_with_output()?;
        Ok(Ran {
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
            status: output.status.code().context("ended by a signal")?,
        })
    }
}

/// Waits until something holds of how many sessions there are.
fn wait_until(api: &Api, holds: impl Fn(usize) -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds(api.sessions()?.len()) {
        ensure!(start.elapsed() < Duration::from_secs(60), "it did not come to that");
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

const COUNT: usize = 3000;

fn interrupted(signal: Signal) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(COUNT))?;
    let started = Started::new(command(&agent, &["apply", "--file", &path])?)?;
    wait_until(&agent.api(), |count| count >= 50)?;
    started.signal(signal)?;
    let ran = started.ended()?;
    let made = agent.api().sessions()?.len();
    ensure!(ran.status == 130 && (50..COUNT).contains(&made), "{}: {made}: {}", ran.status, ran.stderr);
    let said = format!(
        "interrupted: what was begun is finished; once more ends at once\ninterrupted; {COUNT} sessions: {made} created, {} not tried in T s\nthe same command again does the rest\n",
        COUNT - made
    );
    expect(&untimed(&ran.stderr), &said)?;
    ensure!(ran.stdout.lines().filter(|line| line.contains(" created ")).count() == made);
    let again = at(&agent, &["apply", "--file", &path])?;
    ensure!(
        again.status == 0 && summary(&again) == format!("{COUNT} sessions: {} created, {made} unchanged in T s", COUNT - made),
        "{}",
        again.stderr
    );
    one_of_each(&agent.api(), COUNT)
}

fn interrupted_twice() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(COUNT))?;
    let started = Started::new(command(&agent, &["apply", "--file", &path])?)?;
    wait_until(&agent.api(), |count| count >= 50)?;
    // What is under way does not end by itself.
    agent.pause()?;
    started.signal(Signal::INT)?;
    sleep(Duration::from_millis(300));
    let start = Instant::now();
    started.signal(Signal::INT)?;
    let ran = started.ended()?;
    agent.resume()?;
    ensure!(
        start.elapsed() < Duration::from_secs(3) && ran.status == 130 && ran.stdout.is_empty(),
        "{}: {}",
        ran.status,
        ran.stderr
    );
    ensure!(
        ran.stderr
            == "interrupted: what was begun is finished; once more ends at once\nended at once: what was under way may have happened\n",
        "{}",
        ran.stderr
    );
    let again = at(&agent, &["apply", "--file", &path])?;
    ensure!(again.status == 0, "{}", again.stderr);
    one_of_each(&agent.api(), COUNT)
}

fn destruction_interrupted() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(COUNT))?;
    ensure!(at(&agent, &["apply", "--file", &path])?.status == 0);
    let started = Started::new(command(&agent, &["destroy", "--name-prefix", "job-", "--yes"])?)?;
    wait_until(&agent.api(), |count| count < COUNT - 50)?;
    started.signal(Signal::INT)?;
    let ran = started.ended()?;
    let left = agent.api().sessions()?.len();
    ensure!(ran.status == 130 && (1..COUNT - 50).contains(&left), "{left}: {}", ran.stderr);
    let said = format!("interrupted; {COUNT} sessions: {} destroyed, {left} not tried in T s; {left} left", COUNT - left);
    ensure!(summary(&ran) == said, "{}", ran.stderr);
    let again = at(&agent, &["destroy", "--name-prefix", "job-", "--yes"])?;
    ensure!(
        again.status == 0 && summary(&again) == format!("{left} sessions: {left} destroyed in T s; 0 left"),
        "{}",
        again.stderr
    );
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

fn prefix() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.1"})))?;
    for name in ["web-1", "web-2", "web", "Web-3", "aweb-4", "we", ""] {
        api.put("/v1/session/create", Some(&json!({"Name": name})))?;
    }
    api.put("/v1/session/create", Some(&json!({"Name": "web-1", "Node": "n2", "NodeChecks": []})))?;
    let left = || -> Result<Vec<String>> {
        let mut left: Vec<String> = api
            .sessions()?
            .iter()
            .map(|session| {
                format!("{}@{}", session["Name"].as_str().unwrap_or_default(), session["Node"].as_str().unwrap_or_default())
            })
            .collect();
        left.sort();
        Ok(left)
    };
    let ran = at(&agent, &["destroy", "--name-prefix", "web-", &format!("node={NODE}"), "--yes", "--format", "json"])?;
    let answer = ran.json()?;
    ensure!(
        ran.status == 0
            && answer["counts"]["destroyed"] == 2
            && answer["left"] == 0
            && answer["changed"] == true
            && answer["failed"] == false,
        "{answer}"
    );
    ensure!(answer["sessions"][0]["result"] == "destroyed" && answer["sessions"][0]["name"] == "web-1", "{answer}");
    ensure!(
        left()? == ["@agent-node", "Web-3@agent-node", "aweb-4@agent-node", "we@agent-node", "web-1@n2", "web@agent-node"],
        "{:?}",
        left()?
    );
    ensure!(at(&agent, &["destroy", "--name-prefix", "web", "--yes"])?.status == 0);
    ensure!(left()? == ["@agent-node", "Web-3@agent-node", "aweb-4@agent-node", "we@agent-node"], "{:?}", left()?);
    Ok(())
}

/// Runs a program at a terminal of its own, on which this is typed; what it shows, and its status.
fn at_terminal(mut command: Command, typed: &str) -> Result<(String, i32)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str()?)?;
    command.stdin(terminal.try_clone()?).stderr(terminal).stdout(Stdio::null());
    let mut child = command.spawn()?;
    // The child alone has the other end now, so that reading ends with it.
    drop(command);
    let mut master = std::fs::File::from(master);
    master.write_all(typed.as_bytes())?;
    let mut shown = Vec::new();
    let mut part = [0; 4096];
    // Linux answers with an error where nobody has the other end any more.
    while let Ok(length @ 1..) = master.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
    }
    Ok((String::from_utf8_lossy(&shown).into_owned(), child.wait()?.code().context("ended by a signal")?))
}

fn terminal() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", many(COUNT))?;
    let (shown, status) = at_terminal(command(&agent, &["apply", "--file", &path])?, "")?;
    ensure!(
        status == 0 && shown.contains(&format!("/{COUNT}, ")) && shown.contains("sessions [") && shown.contains("created in"),
        "{shown}"
    );
    for answer in ["\n", "n\n", "maybe\n"] {
        let (shown, status) = at_terminal(command(&agent, &["destroy", "--name-prefix", "job-"])?, answer)?;
        let question = format!(
            "job-00000, job-00001, job-00002, job-00003, job-00004, …\r\nDestroy {COUNT} sessions whose name begins with \"job-\"? [y/N] "
        );
        // In the order in which they were made, which is about that of the file.
        let question = question.split_once('…').map(|(_, question)| question).unwrap_or_default();
        ensure!(status == 1 && shown.contains(question) && shown.ends_with("nothing was destroyed\r\n"), "{shown}");
        ensure!(agent.api().sessions()?.len() == COUNT);
    }
    let (shown, status) = at_terminal(command(&agent, &["destroy", "--name-prefix", "job-"])?, "y\n")?;
    ensure!(status == 0 && shown.contains("? [y/N] ") && shown.contains(&format!("{COUNT} destroyed in ")), "{shown}");
    ensure!(agent.api().sessions()?.is_empty());
    // Neither a bar nor a question for programs, or where nobody style.
    let (shown, _) = at_terminal(command(&agent, &["apply", "--file", &path, "--format", "json"])?, "")?;
    ensure!(shown.is_empty(), "{shown}");
    Ok(())
}

fn acls() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let api = agent.api();
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.1"})))?;
    api.put("/v1/session/create", Some(&json!({"Name": "hidden", "Node": "n2", "NodeChecks": []})))?;
    let rules = format!("session \"{NODE}\" {{ policy = \"write\" }}");
    api.put("/v1/acl/policy", Some(&json!({"Name": "one", "Rules": rules})))?;
    api.put("/v1/acl/token", Some(&json!({"SecretID": TOKEN, "Policies": [{"Name": "one"}]})))?;
    let folder = tempdir()?;
    let path = file(
        &folder,
        "s.yaml",
        format!(
            "- name: a\n- {{name: b, token: {TOKEN}}}\n- {{name: c, node: n2, checks: '', token: {TOKEN}}}\n- {{name: a, node: {NODE}, state: absent, token: {TOKEN}}}\n- {{name: hidden, node: n2, state: absent, token: {TOKEN}}}\n"
        ),
    )?;
    let ran = at(&agent, &["apply", "--file", &path])?;
    ensure!(!format!("{}{}", ran.stdout, ran.stderr).contains(&TOKEN[..8]), "{}", ran.stderr);
    ensure!(summary(&ran) == "5 sessions: 1 created, 1 unchanged, 3 failed in T s", "{}", ran.stderr);
    for (line, part) in ran.stderr.lines().zip([
        format!("error (access-denied): {path}:1: "),
        format!("error (access-denied): {path}:3: "),
        format!("error (hidden): {path}:5: no session named `hidden` can be seen on node `n2`, but there may be one"),
    ]) {
        ensure!(line.starts_with(&part), "{}", ran.stderr);
    }
    // The agent may not be asked for its node, and the session is found all the same.
    let again = file(&folder, "again.yaml", format!("- {{name: b, token: {TOKEN}}}\n"))?;
    let ran = at(&agent, &["apply", "--file", &again])?;
    ensure!(summary(&ran) == "1 session: 1 unchanged in T s", "{}", ran.stderr);
    let ran = at(&agent, &["destroy", "--name-prefix", "hid", "--yes", &format!("token={TOKEN}")])?;
    ensure!(
        ran.status == 0
            && ran.stderr == "note: ACLs hid sessions, or may have: there may be more\nno session's name begins with \"hid\"\n",
        "{}",
        ran.stderr
    );
    Ok(())
}
