//! Many sessions at once: `apply` and `destroy --name-prefix` against a real Consul and the
//! dev agent.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::tempdir;
use test_support::api::Api;
use test_support::consul::{Consul, Kind, NODE};
use test_support::program::{self, Output, file, input, run};
use test_support::{TOKEN, unused_address};

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");

/// Returns the command that runs the program against the agent.
fn command(agent: &Consul, args: &[&str]) -> Result<Command> {
    program::consul_session_at(PROGRAM, agent, args)
}

/// Returns the command that runs the program without an agent in its environment.
fn consul_session(args: &[&str]) -> Result<Command> {
    program::consul_session(PROGRAM, args, &[])
}

/// Runs the program against the agent.
fn run_at(agent: &Consul, args: &[&str]) -> Result<Output> {
    run(&mut command(agent, args)?)
}

/// Returns a file with this many records, one on each line.
fn records(count: usize) -> String {
    (0..count).map(|index| format!("- {{name: job-{index:05}, delay: 20s}}\n")).collect()
}

/// Returns the names of all sessions, each with the number of its sessions.
fn names(api: &Api) -> Result<HashMap<String, usize>> {
    let mut names = HashMap::new();
    for session in api.sessions()? {
        *names.entry(session["Name"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(names)
}

/// Fails unless there are `count` names with one session each.
fn ensure_one_of_each(api: &Api, count: usize) -> Result<()> {
    let names = names(api)?;
    ensure!(names.len() == count, "{} names", names.len());
    let duplicates: Vec<_> = names.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(duplicates.is_empty(), "more than once: {duplicates:?}");
    Ok(())
}

/// Returns the last line with a time on standard error, which is the summary, and masks the time.
fn summary(output: &Output) -> String {
    let line = output.stderr.lines().rfind(|line| line.contains(" in ")).unwrap_or_default();
    untimed(line)
}

/// Replaces each time by `T s`.
fn untimed(text: &str) -> String {
    let mut untimed = String::new();
    for (index, part) in text.split(" in ").enumerate() {
        match part.split_once(" s") {
            Some((time, rest)) if index > 0 && time.parse::<f64>().is_ok() => untimed += &format!(" in T s{rest}"),
            _ if index > 0 => untimed += &format!(" in {part}"),
            _ => untimed += part,
        }
    }
    untimed
}

/// Returns all output with times masked, and with each id replaced by the [`id`] of its place.
fn screen(output: &Output) -> String {
    let mut text = untimed(&format!("{}{}", output.stdout, output.stderr));
    let ids: Vec<String> =
        text.split_whitespace().filter(|part| part.len() == 36 && part.matches('-').count() == 4).map(String::from).collect();
    for (place, found) in ids.iter().enumerate() {
        text = text.replace(found, &id(place));
    }
    text
}

/// Returns the id that stands for the id at this place of a screen.
fn id(place: usize) -> String {
    format!("{place:08}-0000-4000-8000-000000000000")
}

/// Fails unless the text is the expected one. Only errors and notes can be wider than 80 columns.
fn expect(text: &str, expected: &str) -> Result<()> {
    ensure!(text == expected, "\n{text}expected:\n{expected}");
    let wide = text
        .lines()
        .filter(|line| !line.starts_with("error") && !line.contains("note:"))
        .find(|line| line.chars().count() > 80);
    ensure!(wide.is_none(), "wider than 80 columns: {wide:?}");
    Ok(())
}

#[test]
fn invalid_file_is_reported_by_line_and_nothing_is_sent() -> Result<()> {
    let folder = tempdir()?;
    // Nothing listens there, so a request would fail with another error.
    let port = format!("--port={}", unused_address()?.port());
    let text = format!(
        "- name: web\n  dealy: 20s\n- {{name: db, delay: 61, token: {{a: {TOKEN}}}}}\n- {{name: db, ttl: 5, tokn: {TOKEN}}}\n- {{name: cache, token: \"{TOKEN} x\"}}\n"
    );
    let path = file(&folder, "sessions.yaml", &text)?;
    let expected_mistakes = [
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
    let lines: String =
        expected_mistakes.iter().map(|(line, _, text)| format!("error (invalid-option): {path}:{line}: {text}\n")).collect();
    let output = run(&mut consul_session(&["apply", "--file", &path, &port])?)?;
    ensure!(
        (output.status, output.stdout.as_str()) == (2, "") && output.stderr == lines.clone() + "nothing was sent\n",
        "{}{lines}",
        output.stderr
    );
    let output = run(&mut consul_session(&["apply", "--file", &path, &port, "--format", "json"])?)?;
    let mistakes: Vec<Value> = expected_mistakes
        .iter()
        .map(|(line, option, msg)| json!({"file": path, "line": line, "option": option, "msg": msg}))
        .collect();
    let expected = json!({
        "changed": false, "failed": true, "error": "invalid-option",
        "msg": format!("{path}:2: {}", expected_mistakes[0].2), "mistakes": mistakes
    });
    ensure!(output.status == 2 && output.stderr.is_empty() && output.json()? == expected, "{}", output.stdout);
    // The program prints at most 20 of them.
    let path = file(&folder, "sessions.yaml", "- {nmae: a}\n".repeat(50))?;
    let output = run(&mut consul_session(&["apply", "--file", &path, &port])?)?;
    ensure!(
        output.stderr.lines().count() == 22
            && output.stderr.ends_with("\nand 30 more errors; -o json has them all\nnothing was sent\n"),
        "{}",
        output.stderr
    );
    Ok(())
}

#[test]
fn invalid_arguments_are_rejected() -> Result<()> {
    let folder = tempdir()?;
    let good = file(&folder, "good.yaml", "- name: web\n")?;
    let latin = file(&folder, "latin.yaml", b"- name: \xe9\n")?;
    let cases: [(&[&str], &str, String); 13] = [
        (&["apply"], "arguments", "`apply` needs a FILE, a list of records; `-` for standard input".into()),
        (&["apply", "/missing"], "file", "/missing cannot be read: No such file or directory (os error 2)".into()),
        (&["apply", &good, "-f", "/missing"], "file", "/missing cannot be read: No such file or directory (os error 2)".into()),
        (&["apply", &latin], "file", format!("{latin} cannot be read: it is not UTF-8")),
        (&["apply", "-", "-f", "-"], "file", "`-` is given twice: standard input can be read once".into()),
        (
            &["apply", &good, "--concurrency", "0"],
            "concurrency",
            "invalid value `0` for `--concurrency`: 0 is not in 1..=100".into(),
        ),
        (
            &["apply", &good, "--concurrency", "101"],
            "concurrency",
            "invalid value `101` for `--concurrency`: 101 is not in 1..=100".into(),
        ),
        (
            &["apply", &good, "--delay=x"],
            "delay",
            "invalid value `x` for `delay`: not a duration (expected seconds or a duration: 20, 20s or 1m30s, 0s to 60s)"
                .into(),
        ),
        (&["apply", "--flie", &good], "flie", "unknown flag `--flie` (argument 2): did you mean `--file`?".into()),
        (&["destroy"], "arguments", "`destroy` needs one of: ids, --name NAME, --name-prefix TEXT".into()),
        (
            &["destroy", "--name-prefix", ""],
            "name_prefix",
            "--name-prefix is empty, which would mean every session: say how the names begin".into(),
        ),
        (&["destroy", "--name-prefix", "a", "--name-prefix", "b"], "name_prefix", "`--name-prefix` is given twice".into()),
        (
            &["destroy", "--name-prefix", "a", "--name=abc"],
            "arguments",
            "`destroy` needs one of: ids, --name NAME, --name-prefix TEXT".into(),
        ),
    ];
    for (args, option, message) in cases {
        let output = run(&mut consul_session(args)?)?;
        let expected = format!("error (invalid-option): {message}\n");
        ensure!(
            (output.status, output.stdout.as_str(), &output.stderr) == (2, "", &expected),
            "{args:?}: {}{}",
            output.stdout,
            output.stderr
        );
        let output = run(&mut consul_session(&[args, &["--format", "json"]].concat())?)?;
        let expected = json!({"changed": false, "failed": true, "error": "invalid-option", "option": option, "msg": message});
        ensure!(output.status == 2 && output.json()? == expected, "{args:?}: {}", output.stdout);
    }
    Ok(())
}

#[test]
fn dev_agent_serves_batch_commands() -> Result<()> {
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(300))?;
    let output = run(&mut consul_session(&["--dev", "apply", "--file", &path])?)?;
    ensure!(output.status == 0 && output.stdout.lines().count() == 301, "{}", output.stderr);
    expect(&output.stderr.replace(char::is_numeric, "").replace(". s", ""), " sessions:  created in \n")?;
    let output = run(&mut consul_session(&["--dev", "apply", "--file", &path, "--dry-run"])?)?;
    expect(&untimed(&output.stderr), "300 sessions: 300 to create in T s\n")?;
    let output = run(&mut consul_session(&["--dev", "destroy", "--name-prefix", "job-"])?)?;
    ensure!(
        (output.status, output.stdout.as_str(), output.stderr.as_str()) == (0, "", "no session's name begins with \"job-\"\n"),
        "{}",
        output.stderr
    );
    let empty = file(&folder, "empty.yaml", "[]")?;
    let output = run(&mut consul_session(&["--dev", "apply", "--file", &empty])?)?;
    ensure!(output.status == 0 && output.stdout == "LINE  RESULT  NAME  NODE  ID\n", "{}", output.stdout);
    Ok(())
}

#[test]
fn unreachable_agent_is_reported_once() -> Result<()> {
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(3))?;
    let port = unused_address()?.port();
    let output = run(&mut consul_session(&["apply", "--file", &path, "--host=127.0.0.1", &format!("--port={port}")])?)?;
    ensure!(output.status == 1 && output.stderr.starts_with(&format!("error (unreachable): {path}:1: ")), "{}", output.stderr);
    ensure!(
        summary(&output) == "3 sessions: 1 failed, 2 not tried in T s" && output.stderr.lines().count() == 2,
        "{}",
        output.stderr
    );
    let output =
        run(&mut consul_session(&["destroy", "--name-prefix", "a", "--yes", "--host=127.0.0.1", &format!("--port={port}")])?)?;
    ensure!(
        output.status == 1 && output.stderr.starts_with("error (unreachable): ") && output.stdout.is_empty(),
        "{}",
        output.stderr
    );
    Ok(())
}

#[test]
fn denied_host_in_a_file_changes_nothing() -> Result<()> {
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", "- name: web\n- {name: db, host: db.example}\n- {name: db, port: 1}\n")?;
    // The agent of the first record is there, and gets no write.
    let output = run(&mut consul_session(&["--dev", "apply", "--file", &path, "--format", "json"])?)?;
    let answer = output.json()?;
    ensure!(output.status == 1 && answer["changed"] == false && answer["counts"]["created"] == Value::Null, "{answer}");
    ensure!(answer["records"][0] == json!({"file": path, "line": 1, "result": "not tried", "name": "web"}), "{answer}");
    ensure!(answer["records"][1]["error"] == "denied-by-host" && answer["records"][1]["line"] == 2, "{answer}");
    let message = answer["records"][1]["msg"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("the host's policy does not allow db.example:") && message.contains("`--allow db.example:"),
        "{message}"
    );
    Ok(())
}

#[test]
fn printed_tables_and_summaries_are_exact() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    file(
        &folder,
        "sessions.yaml",
        "- name: web\n  delay: 20s\n- {name: batch, ttl: 10m, behavior: delete}\n- {name: old, state: absent}\n",
    )?;
    let run_in_folder = |args: &[&str]| run(command(&agent, args)?.current_dir(folder.path()));
    let output = run_in_folder(&["apply", "--file", "sessions.yaml"])?;
    expect(
        &screen(&output),
        &format!(
            "LINE  RESULT     NAME   NODE        ID\n1     created    web    agent-node  {}\n3     created    batch  agent-node  {}\n4     unchanged  old    -           -\n3 sessions: 2 created, 1 unchanged in T s\n",
            id(0),
            id(1)
        ),
    )?;
    ensure!(output.status == 0);
    let output = run_in_folder(&["apply", "--file", "sessions.yaml", "--delay=5", "--state=absent", "--dry-run"])?;
    expect(
        &screen(&output),
        &format!(
            "LINE  RESULT      NAME   NODE        ID\n1     to destroy  web    agent-node  {}\n3     to destroy  batch  agent-node  {}\n4     unchanged   old    -           -\n3 sessions: 2 to destroy, 1 unchanged in T s\n",
            id(0),
            id(1)
        ),
    )?;
    ensure!(output.status == 0 && agent.api().sessions()?.len() == 2);
    let output = run_in_folder(&["destroy", "--name-prefix", "web"])?;
    expect(
        &screen(&output),
        "error (invalid-option): 1 session whose name begins with \"web\": cannot ask, since standard input is not a terminal: give --yes to destroy, --dry-run to see them\n",
    )?;
    ensure!(output.status == 2 && agent.api().sessions()?.len() == 2);
    let output = run_in_folder(&["destroy", "--name-prefix", "web", "--dry-run"])?;
    expect(
        &screen(&output),
        &format!("RESULT      NAME  NODE        ID\nto destroy  web   agent-node  {}\n1 session: 1 to destroy in T s\n", id(0)),
    )?;
    ensure!(output.status == 0 && agent.api().sessions()?.len() == 2);
    let output = run_in_folder(&["destroy", "--name-prefix", "web", "--yes"])?;
    expect(
        &screen(&output),
        &format!(
            "RESULT     NAME  NODE        ID\ndestroyed  web   agent-node  {}\n1 session: 1 destroyed in T s; 0 left\n",
            id(0)
        ),
    )?;
    ensure!(output.status == 0 && names(&agent.api())?.keys().collect::<Vec<_>>() == ["batch"]);
    Ok(())
}

#[test]
fn thousand_sessions_are_created_kept_and_destroyed() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(1000))?;
    run_at(&agent, &["name=other"])?.succeeded()?;
    let log = agent.log_length();
    let first = run_at(&agent, &["apply", "--file", &path])?;
    ensure!(first.status == 0 && summary(&first) == "1000 sessions: 1000 created in T s", "{}", first.stderr);
    // The table has the order of the file.
    let in_order = first
        .stdout
        .lines()
        .skip(1)
        .enumerate()
        .all(|(index, line)| line.contains(&format!(" created  job-{index:05}  {NODE} ")));
    ensure!(in_order && first.stdout.lines().count() == 1001, "{}", first.stdout);
    let text = agent.log_since(log);
    let (lists, creations) = (text.matches("url=/v1/session/list").count(), text.matches("url=/v1/session/create").count());
    ensure!((lists, creations) == (2, 1000), "{lists} list requests, {creations} create requests");
    ensure_one_of_each(&agent.api(), 1001)?;
    let before = agent.api().sessions()?;
    let again = run_at(&agent, &["apply", "--file", &path])?;
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
    let gone = run_at(&agent, &["destroy", "--name-prefix", "job-", "--yes"])?;
    ensure!(gone.status == 0 && summary(&gone) == "1000 sessions: 1000 destroyed in T s; 0 left", "{}", gone.stderr);
    ensure!(names(&agent.api())?.keys().collect::<Vec<_>>() == ["other"]);
    Ok(())
}

#[test]
fn yaml_json_and_stdin_are_equivalent() -> Result<()> {
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
    let made = run_at(&agent, &["apply", "--file", &yaml])?;
    ensure!(made.status == 0 && summary(&made) == "3 sessions: 3 created in T s", "{}", made.stderr);
    let mut from_stdin = command(&agent, &["apply", "--file", "-"])?;
    let same = run(from_stdin.stdin(input(json)?))?;
    ensure!(same.status == 0 && summary(&same) == "3 sessions: 3 unchanged in T s", "{}", same.stderr);
    // Each session is the one that a single call with the same options creates.
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

#[test]
fn mixed_records_have_the_results_of_single_calls() -> Result<()> {
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
        "- {{name: replace, delay: 2, on_mismatch: replace}}\n- {{id: {elsewhere}, delay: 15}}\n- {{name: absent, state: absent}}\n- {{name: never, state: absent}}\n- {{id: {by_id}, delay: 2}}\n- {{id: {gone}, state: absent}}\n- {{id: {missing}}}\n- {{name: new, node: n2, node_checks: []}}\n- {{name: new, node: {NODE}}}\n- {{name: two, node: n2, state: absent}}\n"
    );
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", text)?;
    let sessions = api.sessions()?;
    let dry = run_at(&agent, &["apply", "--file", &path, "--dry-run", "--format", "json"])?.json()?;
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
    let output = run_at(&agent, &["apply", "--file", &path, "--format", "json"])?;
    // The second list request follows the last creation, even that of a record which waits for the
    // agent's own node. The third follows the destruction of the replaced session.
    let lists = agent.log_since(log).matches("url=/v1/session/list").count();
    ensure!(lists == 3, "{lists} list requests");
    let answer = output.json()?;
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
        output.status == 1 && answer["changed"] == true && answer["failed"] == true && answer["interrupted"] == false,
        "{answer}"
    );
    let record = |index: usize| &answer["records"][index];
    ensure!(record(0)["destroyed"] == json!([differs]) && record(1)["session_id"] == elsewhere.as_str(), "{answer}");
    ensure!(record(2)["destroyed"] == json!([first, second]) && record(4)["session_id"] == by_id.as_str(), "{answer}");
    ensure!(record(2)["name"] == "absent" && answer["counts"]["failed"] == 1, "{answer}");
    ensure!(record(6)["error"] == "not-found" && record(6)["line"] == 7, "{answer}");
    ensure!(record(7)["node"] == "n2" && record(8)["node"] == NODE, "{answer}");
    ensure!(record(9)["destroyed"] == json!([there]) && api.sessions()?.len() == 6, "{answer}");
    ensure!(api.sessions()?.iter().any(|session| session["ID"] == *here));
    // A second run has nothing left to do.
    let again = run_at(&agent, &["apply", "--file", &path])?;
    ensure!(summary(&again) == "10 sessions: 9 unchanged, 1 failed in T s", "{}", again.stderr);
    Ok(())
}

#[test]
fn failed_record_does_not_stop_the_others() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "other", "LockDelay": "1s"})))?;
    let folder = tempdir()?;
    let path = file(
        &folder,
        "s.yaml",
        "- name: a\n- {name: b, checks: [critical-check]}\n- {name: c, node: nowhere}\n- {name: other, delay: 2}\n- name: d\n",
    )?;
    let output = run_at(&agent, &["apply", "--file", &path])?;
    ensure!(output.status == 1 && summary(&output) == "5 sessions: 2 created, 3 failed in T s", "{}", output.stderr);
    for (line, part) in output.stderr.lines().zip([
        format!("error (critical-check): {path}:2: a check is critical"),
        format!("error (unknown-node): {path}:3: no node of this name"),
        format!("error (mismatch): {path}:4: session "),
    ]) {
        ensure!(line.starts_with(&part), "{line}");
    }
    ensure!(agent.api().sessions()?.len() == 3);
    Ok(())
}

/// Runs several commands at the same time, each until it ends.
fn run_concurrently(commands: Vec<Command>) -> Result<Vec<Output>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = commands.into_iter().map(|mut command| scope.spawn(move || run(&mut command))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked"))?).collect()
    })
}

#[test]
fn concurrent_applies_agree_on_one_session_per_name() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(200))?;
    let commands = (0..4).map(|_| command(&agent, &["apply", "--file", &path, "--format", "json"])).collect::<Result<_>>()?;
    let answers = run_concurrently(commands)?.iter().map(Output::json).collect::<Result<Vec<_>>>()?;
    ensure_one_of_each(&agent.api(), 200)?;
    let ids = |answer: &Value| -> Vec<Value> {
        answer["records"].as_array().into_iter().flatten().map(|record| record["session_id"].clone()).collect()
    };
    ensure!(
        answers.iter().all(|answer| answer["failed"] == false && ids(answer).len() == 200 && ids(answer) == ids(&answers[0]))
    );
    let created: i64 = answers.iter().filter_map(|answer| answer["counts"]["created"].as_i64()).sum();
    ensure!(created == 200, "{created} created");
    // Without a conflict between them the test shows nothing.
    ensure!(
        answers.iter().any(|answer| answer.to_string().contains("at the same moment")),
        "no two of them created the same session"
    );
    Ok(())
}

#[test]
fn apply_and_single_callers_agree_on_one_session_per_name() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(20))?;
    let mut commands = vec![command(&agent, &["apply", "--file", &path, "--format", "json", "--concurrency", "1"])?];
    for name in ["job-00000", "job-00010", "job-00019"] {
        for _ in 0..3 {
            commands.push(command(&agent, &[&format!("name={name}"), "delay=20s", "--format", "json"])?);
        }
    }
    let answers = run_concurrently(commands)?.iter().map(Output::json).collect::<Result<Vec<_>>>()?;
    ensure_one_of_each(&agent.api(), 20)?;
    for answer in &answers[1..] {
        let record = answers[0]["records"].as_array().into_iter().flatten().find(|record| record["name"] == answer["name"]);
        ensure!(record.is_some_and(|record| record["session_id"] == answer["session_id"]), "{answer}");
    }
    Ok(())
}

/// A program that runs.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Running> {
        Ok(Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Waits until the program ends.
    fn wait(self) -> Result<Output> {
        let output = self.0.wait_with_output()?;
        Ok(Output {
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
            status: output.status.code().context("ended by a signal")?,
        })
    }
}

/// Waits until `accept` holds of the number of sessions.
fn wait_for_count(api: &Api, accept: impl Fn(usize) -> bool) -> Result<()> {
    let start = Instant::now();
    while !accept(api.sessions()?.len()) {
        ensure!(start.elapsed() < Duration::from_secs(60), "no accepted number of sessions in 60 s");
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Enough sessions for a signal to come half-way.
const COUNT: usize = 3000;

#[test]
fn apply_interrupted_by_sigint_can_be_repeated() -> Result<()> {
    apply_interrupted_by(Signal::INT)
}

#[test]
fn apply_interrupted_by_sigterm_can_be_repeated() -> Result<()> {
    apply_interrupted_by(Signal::TERM)
}

fn apply_interrupted_by(signal: Signal) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(COUNT))?;
    let running = Running::start(command(&agent, &["apply", "--file", &path])?)?;
    wait_for_count(&agent.api(), |count| count >= 50)?;
    running.signal(signal)?;
    let output = running.wait()?;
    let created = agent.api().sessions()?.len();
    ensure!(output.status == 130 && (50..COUNT).contains(&created), "{}: {created}: {}", output.status, output.stderr);
    let expected = format!(
        "interrupted: finishing the requests under way; interrupt again to stop at once\ninterrupted; {COUNT} sessions: {created} created, {} not tried in T s\nrun the same command again to finish the rest\n",
        COUNT - created
    );
    expect(&untimed(&output.stderr), &expected)?;
    ensure!(output.stdout.lines().filter(|line| line.contains(" created ")).count() == created);
    let again = run_at(&agent, &["apply", "--file", &path])?;
    ensure!(
        again.status == 0
            && summary(&again) == format!("{COUNT} sessions: {} created, {created} unchanged in T s", COUNT - created),
        "{}",
        again.stderr
    );
    ensure_one_of_each(&agent.api(), COUNT)
}

#[test]
fn apply_interrupted_twice_ends_at_once() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(COUNT))?;
    let running = Running::start(command(&agent, &["apply", "--file", &path])?)?;
    wait_for_count(&agent.api(), |count| count >= 50)?;
    // A paused agent answers no request, so none that is in flight ends.
    agent.pause()?;
    running.signal(Signal::INT)?;
    sleep(Duration::from_millis(300));
    let start = Instant::now();
    running.signal(Signal::INT)?;
    let output = running.wait()?;
    agent.resume()?;
    ensure!(
        start.elapsed() < Duration::from_secs(3) && output.status == 130 && output.stdout.is_empty(),
        "{}: {}",
        output.status,
        output.stderr
    );
    ensure!(
        output.stderr
            == "interrupted: finishing the requests under way; interrupt again to stop at once\nstopped: requests that were under way may have taken effect\n",
        "{}",
        output.stderr
    );
    let again = run_at(&agent, &["apply", "--file", &path])?;
    ensure!(again.status == 0, "{}", again.stderr);
    ensure_one_of_each(&agent.api(), COUNT)
}

#[test]
fn destroy_interrupted_by_sigint_can_be_repeated() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(COUNT))?;
    ensure!(run_at(&agent, &["apply", "--file", &path])?.status == 0);
    let running = Running::start(command(&agent, &["destroy", "--name-prefix", "job-", "--yes"])?)?;
    wait_for_count(&agent.api(), |count| count < COUNT - 50)?;
    running.signal(Signal::INT)?;
    let output = running.wait()?;
    let left = agent.api().sessions()?.len();
    ensure!(output.status == 130 && (1..COUNT - 50).contains(&left), "{left}: {}", output.stderr);
    let expected = format!("interrupted; {COUNT} sessions: {} destroyed, {left} not tried in T s; {left} left", COUNT - left);
    ensure!(summary(&output) == expected, "{}", output.stderr);
    let again = run_at(&agent, &["destroy", "--name-prefix", "job-", "--yes"])?;
    ensure!(
        again.status == 0 && summary(&again) == format!("{left} sessions: {left} destroyed in T s; 0 left"),
        "{}",
        again.stderr
    );
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

#[test]
fn destroy_is_limited_to_the_prefix_and_the_node() -> Result<()> {
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
    let output = run_at(&agent, &["destroy", "--name-prefix", "web-", &format!("--node={NODE}"), "--yes", "--format", "json"])?;
    let answer = output.json()?;
    ensure!(
        output.status == 0
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
    ensure!(run_at(&agent, &["destroy", "--name-prefix", "web", "--yes"])?.status == 0);
    ensure!(left()? == ["@agent-node", "Web-3@agent-node", "aweb-4@agent-node", "we@agent-node"], "{:?}", left()?);
    Ok(())
}

/// Runs a program at its own terminal and types this there.
///
/// Returns the output on the terminal and the exit status.
fn at_terminal(mut command: Command, typed: &str) -> Result<(String, i32)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str()?)?;
    command.stdin(terminal.try_clone()?).stderr(terminal).stdout(Stdio::null()).env("TERM", "xterm");
    let mut child = command.spawn()?;
    // Now only the child has the other end open, so reading ends when the child does.
    drop(command);
    let mut master = std::fs::File::from(master);
    master.write_all(typed.as_bytes())?;
    let mut shown = Vec::new();
    let mut part = [0; 4096];
    // On Linux, reading fails when no process has the other end open.
    while let Ok(length @ 1..) = master.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
    }
    Ok((String::from_utf8_lossy(&shown).into_owned(), child.wait()?.code().context("ended by a signal")?))
}

#[test]
fn terminal_shows_a_progress_bar_and_a_question() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = tempdir()?;
    let path = file(&folder, "s.yaml", records(COUNT))?;
    let (screen, status) = at_terminal(command(&agent, &["apply", "--file", &path])?, "")?;
    ensure!(
        status == 0
            && screen.contains(&format!("/{COUNT}, "))
            && screen.contains("sessions [")
            && screen.contains("created in"),
        "{screen}"
    );
    for answer in ["\n", "n\n", "maybe\n"] {
        let (screen, status) = at_terminal(command(&agent, &["destroy", "--name-prefix", "job-"])?, answer)?;
        let question = format!(
            "job-00000, job-00001, job-00002, job-00003, job-00004, …\r\nDestroy {COUNT} sessions whose name begins with \"job-\"? [y/N] "
        );
        // The names come in the order of creation, which is only about that of the file.
        let question = question.split_once('…').map(|(_, question)| question).unwrap_or_default();
        ensure!(status == 1 && screen.contains(question) && screen.ends_with("nothing was destroyed\r\n"), "{screen}");
        ensure!(agent.api().sessions()?.len() == COUNT);
    }
    let (screen, status) = at_terminal(command(&agent, &["destroy", "--name-prefix", "job-"])?, "y\n")?;
    ensure!(status == 0 && screen.contains("? [y/N] ") && screen.contains(&format!("{COUNT} destroyed in ")), "{screen}");
    ensure!(agent.api().sessions()?.is_empty());
    // With `--format json` there is no progress bar.
    let (screen, _) = at_terminal(command(&agent, &["apply", "--file", &path, "--format", "json"])?, "")?;
    ensure!(screen.is_empty(), "{screen}");
    Ok(())
}

#[test]
fn acl_errors_are_reported_and_the_token_is_redacted() -> Result<()> {
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
            "- name: a\n- {{name: b, token: {TOKEN}}}\n- {{name: c, node: n2, checks: '', token: {TOKEN}}}\n- {{name: none, node: {NODE}, state: absent, token: {TOKEN}}}\n- {{name: hidden, node: n2, state: absent, token: {TOKEN}}}\n"
        ),
    )?;
    let output = run_at(&agent, &["apply", "--file", &path])?;
    ensure!(!format!("{}{}", output.stdout, output.stderr).contains(&TOKEN[..8]), "{}", output.stderr);
    ensure!(summary(&output) == "5 sessions: 1 created, 1 unchanged, 3 failed in T s", "{}", output.stderr);
    for (line, part) in output.stderr.lines().zip([
        format!("error (access-denied): {path}:1: "),
        format!("error (access-denied): {path}:3: "),
        format!("error (hidden): {path}:5: no session named `hidden` can be seen on node `n2`, but there may be one"),
    ]) {
        ensure!(line.starts_with(&part), "{}", output.stderr);
    }
    // The token cannot read the agent's node, and the session is found anyway.
    let again = file(&folder, "again.yaml", format!("- {{name: b, token: {TOKEN}}}\n"))?;
    let output = run_at(&agent, &["apply", "--file", &again])?;
    ensure!(summary(&output) == "1 session: 1 unchanged in T s", "{}", output.stderr);
    let output = run_at(&agent, &["destroy", "--name-prefix", "hid", "--yes", &format!("--token={TOKEN}")])?;
    ensure!(
        output.status == 0
            && output.stderr
                == "note: ACLs hid sessions, or may have: there may be more\nno session's name begins with \"hid\"\n",
        "{}",
        output.stderr
    );
    Ok(())
}
