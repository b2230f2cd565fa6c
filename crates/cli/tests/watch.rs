//! `watch` against real Consuls: that it reports each change once, even if the agent or the leader
//! fails; its output as JSON, as text and on a terminal; and how it ends.

use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_tests::embedded::start_dev_agent;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{scope, sleep, spawn};
use std::time::{Duration, Instant};
use test_support::api::Api;
use test_support::cluster::{Cluster, SERVERS};
use test_support::consul::{Consul, Kind, NODE};
use test_support::program::{CommandLine, consul_session};
use test_support::terminal::Terminal;
use test_support::unused_address;

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
/// The time limit of each wait.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the program must be silent before a test assumes that no event follows.
const QUIET: Duration = Duration::from_millis(1500);

/// A running `watch` with JSON output. It is killed when this is dropped.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
    /// All events so far.
    events: Vec<Value>,
}

impl Watcher {
    /// Watches the agent at this address, with more arguments.
    fn start(address: SocketAddr, args: &str) -> Result<Watcher> {
        Watcher::from_line(&format!("watch --host={} --port={} --format json {args}", address.ip(), address.port()))
    }

    /// Runs the program with these arguments. Spaces separate them.
    fn from_line(line: &str) -> Result<Watcher> {
        let args: Vec<&str> = line.split_whitespace().collect();
        let (child, stdout) = start(consul_session(PROGRAM, &args, &[])?)?;
        let (sender, lines) = channel();
        spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The receiver is gone after the end of the test.
                let _ = sender.send(line);
            }
        });
        Ok(Watcher { child, lines, events: Vec::new() })
    }

    /// Returns the next event, or nothing if none arrives within the time limit.
    fn next(&mut self, limit: Duration) -> Result<Option<Value>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
                self.events.push(event.clone());
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the program has ended:{}", self.transcript()),
        }
    }

    /// Waits for the next event of this kind, and returns it.
    fn wait_for(&mut self, kind: &str) -> Result<Value> {
        self.wait_for_events(kind, 1)?.pop().context("no event")
    }

    /// Waits for the next `count` events of this kind, and returns them.
    fn wait_for_events(&mut self, kind: &str, count: usize) -> Result<Vec<Value>> {
        let (start, mut found) = (Instant::now(), Vec::new());
        while found.len() < count {
            let left = LIMIT.saturating_sub(start.elapsed());
            let event = self.next(left)?.ok_or_else(|| anyhow!("no `{kind}` in {LIMIT:?}:{}", self.transcript()))?;
            found.extend((event["event"] == kind).then_some(event));
        }
        Ok(found)
    }

    /// Waits until the events agree with the sessions that the agent lists, and no event follows.
    fn wait_for_agreement(&mut self, api: &Api) -> Result<()> {
        let start = Instant::now();
        loop {
            while self.next(QUIET)?.is_some() {}
            let listed: BTreeSet<String> = api.sessions()?.iter().map(|session| text(&session["ID"])).collect();
            let reported = self.present()?;
            if reported == listed {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "listed: {listed:?}, reported: {reported:?}:{}", self.transcript());
        }
    }

    /// Returns the ids of the sessions that exist according to the events.
    ///
    /// # Errors
    ///
    /// Fails if a session comes twice, or goes without having come.
    fn present(&self) -> Result<BTreeSet<String>> {
        let (mut present, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for event in &self.events {
            let id = text(&event["session"]["ID"]);
            let is_valid = match event["event"].as_str() {
                Some("is" | "came") => !gone.contains(&id) && present.insert(id),
                Some("went") => present.remove(&id) && gone.insert(id),
                _ => true,
            };
            ensure!(is_valid, "unexpected {event}:{}", self.transcript());
        }
        Ok(present)
    }

    /// Returns the number of events of this kind for each session id.
    fn count(&self, kind: &str) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for event in self.events.iter().filter(|event| event["event"] == kind) {
            *count.entry(text(&event["session"]["ID"])).or_insert(0) += 1;
        }
        count
    }

    /// Returns all events so far, each on a new line.
    fn transcript(&self) -> String {
        self.events.iter().map(|event| format!("\n{event}")).collect()
    }

    /// Sends a signal and waits for the end; see [`wait`].
    fn end(&mut self, signal: Signal) -> Result<(Option<i32>, String)> {
        kill_process(Pid::from_child(&self.child), signal)?;
        wait(&mut self.child)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command, and returns it with its standard output. Standard error is a pipe too.
fn start(mut command: Command) -> Result<(Child, ChildStdout)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    Ok((child, stdout))
}

/// Waits until the program ends, and returns its exit status and standard error.
///
/// # Errors
///
/// Fails after 5 seconds, and kills the program.
fn wait(child: &mut Child) -> Result<(Option<i32>, String)> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if let Some(status) = child.try_wait()? {
            let mut errors = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut errors)?;
            }
            return Ok((status.code(), errors));
        }
        sleep(Duration::from_millis(10));
    }
    child.kill()?;
    bail!("the program did not end")
}

/// Returns the string, which is empty for another value.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Creates a session and returns its id.
fn create(api: &Api, session: &Value) -> Result<String> {
    Ok(text(&api.put("/v1/session/create", Some(session))?["ID"]))
}

/// Creates a session with this name and returns its id.
fn create_named(api: &Api, name: &str) -> Result<String> {
    create(api, &json!({"Name": name}))
}

fn destroy(api: &Api, id: &str) -> Result<()> {
    api.put(&format!("/v1/session/destroy/{id}"), None).map(|_| ())
}

/// Fails unless the event has these contents, and a valid time and index.
fn ensure_event(event: &Value, kind: &str, session: &Value, why: &Value) -> Result<()> {
    let found = (&event["event"], &event["session"], &event["why"]);
    ensure!(found == (&json!(kind), session, why), "{kind} {session} {why}: {event}");
    let time = text(&event["time"]);
    ensure!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z') && event["index"].as_u64() > Some(0), "{event}");
    Ok(())
}

/// Checks the events of a session, and those of a node that is deregistered.
fn check_changes(api: &Api) -> Result<()> {
    let first = create_named(api, "first")?;
    // `watch` shows a session as Consul does, except that no checks are an empty list, not null.
    let shown = |id: &str| -> Result<Value> {
        let mut session = api.get(&format!("/v1/session/info/{id}"))?[0].clone();
        session["ServiceChecks"] = json!([]);
        Ok(session)
    };
    let first_shown = shown(&first)?;
    let mut watcher = Watcher::start(api.address, "")?;
    ensure_event(&watcher.next(LIMIT)?.context("no event")?, "is", &first_shown, &Value::Null)?;
    let listed = watcher.next(LIMIT)?.context("no event")?;
    ensure!(listed["agent"] == api.address.to_string() && listed["sessions"] == 1 && listed["filtered"] == false, "{listed}");

    let second = create(api, &json!({"Name": "zwei\u{1b}", "TTL": "20s", "LockDelay": "1s", "Behavior": "delete"}))?;
    let second_shown = shown(&second)?;
    let came = watcher.wait_for("came")?;
    ensure_event(&came, "came", &second_shown, &Value::Null)?;
    destroy(api, &first)?;
    ensure!(watcher.wait_for("went")?["session"]["ID"] == first);
    ensure!(watcher.events.last().is_some_and(|event| event["why"].is_null()), "{}", watcher.transcript());
    destroy(api, &second)?;
    ensure_event(&watcher.wait_for("went")?, "went", &second_shown, &Value::Null)?;

    // Consul ends the sessions of a node that is deregistered.
    let check = json!({"CheckID": "c", "Name": "c", "Status": "passing", "Node": "n2"});
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.2", "Check": check})))?;
    let on_node = || create(api, &json!({"Node": "n2", "NodeChecks": ["c"]}));
    let gone = BTreeSet::from([on_node()?, on_node()?]);
    watcher.wait_for_events("came", 2)?;
    api.put("/v1/catalog/deregister", Some(&json!({"Node": "n2"})))?;
    let went = watcher.wait_for_events("went", 2)?;
    ensure!(went.iter().all(|event| event["why"] == "checks"), "{went:?}");
    ensure!(went.iter().map(|event| text(&event["session"]["ID"])).collect::<BTreeSet<_>>() == gone, "{went:?}");
    watcher.wait_for_agreement(api)
}

#[test]
fn changes_are_reported_with_their_reason() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    check_changes(&agent.api())
}

#[test]
fn changes_are_reported_with_their_reason_at_the_dev_agent() -> Result<()> {
    let agent = start_dev_agent(unused_address()?)?;
    check_changes(&Api::new(agent.addr(), Kind::Plain))
}

/// Checks the reason in the event of a session whose TTL expires.
fn check_expiry(api: &Api) -> Result<()> {
    let mut watcher = Watcher::start(api.address, "")?;
    watcher.wait_for("listed")?;
    let id = create(api, &json!({"TTL": "10s"}))?;
    watcher.wait_for("came")?;
    let went = watcher.wait_for("went")?;
    ensure!(went["session"]["ID"] == id && went["why"] == "ttl", "{went}");
    Ok(())
}

#[test]
fn expired_ttl_is_the_reason() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    check_expiry(&agent.api())
}

#[test]
fn expired_ttl_is_the_reason_at_the_dev_agent() -> Result<()> {
    let agent = start_dev_agent(unused_address()?)?;
    check_expiry(&Api::new(agent.addr(), Kind::Plain))
}

#[test]
fn name_and_node_filter() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.2"})))?;
    let on = |node: &str, name: &str| create(&api, &json!({"Node": node, "Name": name, "NodeChecks": []}));
    let mut by_name = Watcher::start(agent.http(), "--name=a")?;
    let mut by_node = Watcher::start(agent.http(), "--node=N2")?;
    let mut by_both = Watcher::start(agent.http(), "--name a --node n2")?;
    for watcher in [&mut by_name, &mut by_node, &mut by_both] {
        watcher.wait_for("listed")?;
    }
    let [a1, a2, b2, capital] = [on(NODE, "a")?, on("n2", "a")?, on("n2", "b")?, on(NODE, "A")?];
    for id in [&a1, &a2, &b2, &capital] {
        destroy(&api, id)?;
    }
    for (watcher, ids) in [(&mut by_name, [&a1, &a2].as_slice()), (&mut by_node, &[&a2, &b2]), (&mut by_both, &[&a2])] {
        watcher.wait_for_agreement(&api)?;
        let expected: BTreeMap<String, usize> = ids.iter().map(|id| ((*id).clone(), 1)).collect();
        // `watch` does not see a session that is created and destroyed between two reads.
        let (came, went) = (watcher.count("came"), watcher.count("went"));
        ensure!(came == went && came.iter().all(|(id, count)| expected.get(id) == Some(count)), "{}", watcher.transcript());
    }
    let kept = [on(NODE, "a")?, on("n2", "a")?, on("n2", "b")?];
    sleep(QUIET);
    for (watcher, numbers) in [(by_name, [0, 1].as_slice()), (by_node, &[1, 2]), (by_both, &[1])] {
        let mut watcher = watcher;
        while watcher.next(QUIET)?.is_some() {}
        ensure!(
            watcher.present()? == numbers.iter().map(|number: &usize| kept[*number].clone()).collect(),
            "{}",
            watcher.transcript()
        );
    }
    Ok(())
}

#[test]
fn agent_restart_with_data_misses_and_repeats_no_change() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let api = agent.api();
    let old = [create_named(&api, "old")?, create_named(&api, "old")?, create_named(&api, "old")?];
    let mut watcher = Watcher::start(agent.http(), "")?;
    watcher.wait_for("listed")?;
    for id in &old {
        // One session just before the agent is killed, and one just after its restart.
        let before = create_named(&api, "before")?;
        agent.kill()?;
        let error = watcher.wait_for("error")?;
        ensure!(["unreachable", "invalid-response"].contains(&error["error"].as_str().unwrap_or_default()), "{error}");
        ensure!(text(&error["msg"]).contains(&agent.http().to_string()), "{error}");
        agent.restart()?;
        let after = create_named(&api, "after")?;
        destroy(&api, id)?;
        watcher.wait_for("recovered")?;
        watcher.wait_for_agreement(&api)?;
        for id in [before, after] {
            ensure!(watcher.count("came").get(&id) == Some(&1), "{id}: {}", watcher.transcript());
        }
        ensure!(watcher.count("went").get(id) == Some(&1), "{id}: {}", watcher.transcript());
    }
    ensure!(watcher.count("went").len() == old.len(), "{}", watcher.transcript());
    Ok(())
}

#[test]
fn agent_restart_without_data_reports_lost_sessions() -> Result<()> {
    let mut agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let lost: BTreeSet<String> = (0..30).map(|_| create_named(&api, "lost")).collect::<Result<_>>()?;
    let mut watcher = Watcher::start(agent.http(), "")?;
    let listed = watcher.wait_for("listed")?;
    agent.kill()?;
    watcher.wait_for("error")?;
    agent.restart()?;
    let went = watcher.wait_for_events("went", lost.len())?;
    ensure!(went.iter().map(|event| text(&event["session"]["ID"])).collect::<BTreeSet<_>>() == lost, "{went:?}");
    ensure!(went.iter().all(|event| event["why"] == "reset" && event["index"].as_u64() < listed["index"].as_u64()), "{went:?}");
    // The event comes at once. An agent would not answer for a minute if the query had the index
    // from before the restart, which is above its own.
    let new = create_named(&api, "new")?;
    let start = Instant::now();
    ensure!(watcher.wait_for("came")?["session"]["ID"] == new && start.elapsed() < Duration::from_secs(5));
    watcher.wait_for_agreement(&api)
}

/// Creates sessions at one server and destroys some of them, until `done` is set and there are
/// enough of both.
///
/// Returns the ids of the sessions whose creation, and whose destruction, the server confirmed.
fn change_sessions(api: &Api, done: &AtomicBool) -> (Vec<String>, Vec<String>) {
    let (mut created, mut destroyed) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let enough = |created: usize, destroyed: usize| created > 60 && destroyed > 10 || start.elapsed() > LIMIT;
    while !(done.load(Ordering::Relaxed) && enough(created.len(), destroyed.len())) {
        if let Ok(id) = create_named(api, "created") {
            created.push(id);
        }
        // The oldest first: `watch` might miss a new session, since a read can take long.
        if created.len() > 2 * (destroyed.len() + 10)
            && let Some(id) = created.get(destroyed.len())
            && destroy(api, id).is_ok()
        {
            destroyed.push(id.clone());
        }
        sleep(Duration::from_millis(20));
    }
    (created, destroyed)
}

/// Changes sessions at the server `writer` during a failure. Fails unless the watcher reports each
/// change once.
fn ensure_no_change_is_missed(
    watcher: &mut Watcher,
    cluster: &mut Cluster,
    writer: usize,
    fail: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let (api, done) = (cluster.api(writer), AtomicBool::new(false));
    let (created, destroyed) = scope(|scope| {
        let changes = scope.spawn(|| change_sessions(&api, &done));
        let result = fail(cluster);
        done.store(true, Ordering::Relaxed);
        result.and_then(|()| changes.join().map_err(|_| anyhow!("panicked")))
    })?;
    // The sessions include those whose creation succeeded although the server answered an error.
    watcher.wait_for_agreement(&api)?;
    let (came, went) = (watcher.count("came"), watcher.count("went"));
    ensure!(created.len() > 60 && destroyed.len() > 10, "created {}, destroyed {}", created.len(), destroyed.len());
    // `watch` might miss a session that is destroyed while it gets no answer.
    let kept = created.iter().filter(|id| !destroyed.contains(id));
    for id in kept {
        ensure!(came.get(id) == Some(&1) && !went.contains_key(id), "{id}: {}", watcher.transcript());
    }
    for id in destroyed {
        ensure!(came.get(&id) == went.get(&id), "{id}: {}", watcher.transcript());
    }
    Ok(())
}

/// Returns a server other than these.
fn other_server(excluded: &[usize]) -> Result<usize> {
    (0..SERVERS).find(|number| !excluded.contains(number)).context("no other server")
}

/// Waits until the server `asked` reports another leader than `old`, and returns it.
fn wait_for_another_leader(cluster: &Cluster, old: usize, asked: usize) -> Result<usize> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match cluster.leader(asked) {
            Ok(leader) if leader != old => return Ok(leader),
            _ => sleep(Duration::from_millis(50)),
        }
    }
    bail!("no new leader in {LIMIT:?}")
}

#[test]
fn change_of_leader_misses_no_change() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let leader = cluster.leader(0)?;
    let asked = other_server(&[leader])?;
    let writer = other_server(&[leader, asked])?;
    let leader_session = create(&cluster.api(leader), &json!({"Name": "of the leader"}))?;
    let mut watcher = Watcher::start(cluster.http(asked), "")?;
    watcher.wait_for("listed")?;
    ensure_no_change_is_missed(&mut watcher, &mut cluster, writer, |cluster| {
        sleep(Duration::from_millis(500));
        cluster.kill(leader)?;
        wait_for_another_leader(cluster, leader, asked)?;
        sleep(Duration::from_secs(2));
        cluster.restart(leader)
    })?;
    // The killed leader's session ends if the others notice the failure before the restart.
    let went = watcher.count("went").get(&leader_session).copied().unwrap_or_default();
    ensure!(went <= 1, "{}", watcher.transcript());
    Ok(())
}

#[test]
fn loss_of_the_asked_server_misses_no_change() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let asked = cluster.leader(0)?;
    let writer = other_server(&[asked])?;
    let mut watcher = Watcher::start(cluster.http(asked), "")?;
    watcher.wait_for("listed")?;
    ensure_no_change_is_missed(&mut watcher, &mut cluster, writer, |cluster| {
        sleep(Duration::from_millis(500));
        cluster.kill(asked)?;
        wait_for_another_leader(cluster, asked, writer)?;
        sleep(Duration::from_secs(2));
        cluster.restart(asked)
    })?;
    let kinds: Vec<_> = watcher.events.iter().map(|event| text(&event["event"])).collect();
    ensure!(kinds.contains(&"error".into()) && kinds.contains(&"recovered".into()), "{}", watcher.transcript());
    Ok(())
}

#[test]
fn leader_that_steps_down_misses_no_change() -> Result<()> {
    let mut cluster = Cluster::start()?;
    // `watch` asks this server throughout, which is first the leader and then a follower.
    let asked = cluster.leader(0)?;
    let mut watcher = Watcher::start(cluster.http(asked), "")?;
    watcher.wait_for("listed")?;
    for _ in 0..3 {
        let leader = cluster.leader(asked)?;
        ensure_no_change_is_missed(&mut watcher, &mut cluster, other_server(&[asked])?, |cluster| {
            sleep(Duration::from_millis(500));
            let stepped_down = cluster.api(leader).send("POST", "/v1/operator/raft/transfer-leader", None)?;
            ensure!(stepped_down.status == 200, "{stepped_down:?}");
            wait_for_another_leader(cluster, leader, asked)?;
            sleep(Duration::from_millis(500));
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn own_dev_agent_is_named() -> Result<()> {
    let mut watcher = Watcher::from_line("watch --dev --format json --name=x")?;
    let listed = watcher.wait_for("listed")?;
    let api = Api::new(text(&listed["agent"]).parse()?, Kind::Plain);
    let id = create_named(&api, "x")?;
    ensure!(watcher.wait_for("came")?["session"]["ID"] == id);
    Ok(())
}

#[test]
fn agent_started_later_is_waited_for() -> Result<()> {
    let address = unused_address()?;
    let mut watcher = Watcher::start(address, "")?;
    let error = watcher.next(LIMIT)?.context("no event")?;
    ensure!(error["event"] == "error" && error["error"] == "unreachable" && error["index"] == 0, "{error}");
    // `watch` reports the error once, and retries silently.
    ensure!(watcher.next(QUIET)?.is_none());
    let _agent = start_dev_agent(address)?;
    let recovered = watcher.next(LIMIT)?.context("no event")?;
    ensure!(recovered["event"] == "recovered" && recovered["sessions"] == 0, "{recovered}");
    ensure!(watcher.next(LIMIT)?.context("no event")?["event"] == "listed");
    Ok(())
}

#[test]
fn options_without_a_meaning_are_rejected() -> Result<()> {
    for (args, option) in [
        ("--id adf4238a-882b-9ddc-4a9d-5b6758e4159e", "id"),
        ("--delay 20s", "delay"),
        ("--dry-run", "dry_run"),
        ("--checks=a", "checks"),
    ] {
        let flag = args.split([' ', '=']).next().unwrap_or_default();
        let message = format!("unknown flag `{flag}` (argument 2): `watch` takes --name, --node");
        CommandLine::new(PROGRAM, format!("watch {args}")).fails("invalid-option", &message)?;
        let known = consul_session::options::info(option);
        ensure!(known.is_some(), "{option} is not an option");
    }
    let message =
        "invalid value `x` for `timeout`: not a duration (expected seconds or a duration: 20, 20s or 1m30s, 1ms to 86400s)";
    CommandLine::new(PROGRAM, "watch --timeout=x").fails("invalid-option", message)
}

#[test]
fn permanent_errors_end_the_program() -> Result<()> {
    let (plain, with_acls) = (Consul::start(Kind::Plain)?, Consul::start(Kind::Acl)?);
    let at = |agent: &Consul, args: &str| format!("watch --host=127.0.0.1 --port={} {args}", agent.http().port());
    for (line, input, case) in [
        (at(&with_acls, "--token=5ec2e700-0000-4000-8000-cafecafecafe"), "", "access-denied"),
        (at(&plain, "--datacenter=nowhere"), "", "unknown-datacenter"),
        (at(&plain, "--namespace=x"), "", "unsupported"),
        (at(&plain, "--scheme=https"), "", "tls"),
        (at(&plain, "--limit memory=1KiB"), "", "other"),
    ] {
        let as_text = CommandLine::new(PROGRAM, line.clone()).reading(input).run(&[])?;
        ensure!(as_text.status == 1 && as_text.stdout.is_empty(), "{line}: {as_text:?}");
        ensure!(as_text.stderr.starts_with(&format!("error ({case}): ")) && as_text.stderr.lines().count() == 1, "{as_text:?}");
        let as_json = CommandLine::new(PROGRAM, line.clone()).reading(input).run(&["--format", "json"])?;
        ensure!(as_json.status == 1 && as_json.stderr.is_empty() && as_json.stdout.lines().count() == 1, "{as_json:?}");
        let event = as_json.json()?;
        let expected = format!("error ({case}): {}\n", text(&event["msg"]));
        ensure!(event["event"] == "error" && event["error"] == case && as_text.stderr == expected, "{as_json:?}");
    }
    // A blocking query takes longer than this limit.
    let line = at(&plain, "--limit time=2s");
    let output = CommandLine::new(PROGRAM, line).run(&[])?;
    ensure!(
        output.status == 1 && output.stdout.contains("  listed  ") && output.stderr.contains("`--limit time=VALUE`"),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn revoked_token_is_reported_and_recovers() -> Result<()> {
    const TOKEN: &str = "5ec2e700-0000-4000-8000-cafecafecafe";
    let agent = Consul::start(Kind::Acl)?;
    let api = agent.api();
    let rules = |prefix: &str| format!(r#"session_prefix "{prefix}" {{ policy = "read" }}"#);
    let policy = api.put("/v1/acl/policy", Some(&json!({"Name": "p", "Rules": rules("")})))?;
    let token = json!({"SecretID": TOKEN, "Policies": [{"Name": "p"}]});
    let accessor = text(&api.put("/v1/acl/token", Some(&token))?["AccessorID"]);
    let first = create_named(&api, "first")?;
    let mut watcher = Watcher::start(agent.http(), &format!("--token={TOKEN}"))?;
    ensure!(watcher.wait_for("is")?["session"]["ID"] == first);
    ensure!(watcher.wait_for("listed")?["filtered"] == false);
    ensure!(api.send("DELETE", &format!("/v1/acl/token/{accessor}"), None)?.status == 200);
    // A change ends the blocking query that started with the valid token.
    let second = create_named(&api, "second")?;
    let error = watcher.wait_for("error")?;
    ensure!(error["error"] == "access-denied" && !error.to_string().contains(TOKEN), "{error}");
    let third = create_named(&api, "third")?;
    api.put("/v1/acl/token", Some(&token))?;
    watcher.wait_for("recovered")?;
    watcher.wait_for_agreement(&api)?;
    for id in [&second, &third] {
        ensure!(watcher.count("came").get(id) == Some(&1), "{}", watcher.transcript());
    }
    // Sessions that ACLs hide look like ended ones, and the events say why they went.
    let policy = json!({"ID": policy["ID"], "Name": "p", "Rules": rules("other")});
    api.put(&format!("/v1/acl/policy/{}", text(&policy["ID"])), Some(&policy))?;
    // The first change ends the blocking query that started with the old rules.
    for name in ["fourth", "fifth"] {
        create_named(&api, name)?;
        sleep(QUIET);
    }
    let went = watcher.wait_for_events("went", 4)?;
    ensure!(went.iter().all(|event| event["why"] == "acl"), "{went:?}");
    let listed = watcher.wait_for("listed")?;
    ensure!(listed["filtered"] == true && listed["sessions"] == 0, "{listed}");
    Ok(())
}

#[test]
fn signals_end_the_program() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for signal in [Signal::INT, Signal::TERM] {
        let mut watcher = Watcher::start(agent.http(), "")?;
        watcher.wait_for("listed")?;
        let ended = watcher.end(signal)?;
        ensure!(ended == (Some(0), String::new()), "{ended:?}");
    }
    // Also while the agent is unreachable, and while nothing reads the output.
    let mut watcher = Watcher::start(unused_address()?, "")?;
    watcher.wait_for("error")?;
    ensure!(watcher.end(Signal::INT)? == (Some(0), String::new()));
    for _ in 0..400 {
        create_named(&agent.api(), "a name of some length")?;
    }
    let args = ["watch", "--format", "json", "--host=127.0.0.1", &format!("--port={}", agent.http().port())];
    let (mut child, _stdout) = start(consul_session(PROGRAM, &args, &[])?)?;
    sleep(QUIET);
    ensure!(child.try_wait()?.is_none());
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    ensure!(wait(&mut child)? == (Some(0), String::new()));
    Ok(())
}

/// The program notices without writing. `watch | head -1` closes the output this way.
#[test]
fn closed_output_ends_the_program() -> Result<()> {
    let agent = start_dev_agent(unused_address()?)?;
    let args = ["watch", "--host=127.0.0.1", &format!("--port={}", agent.addr().port())];
    let (mut child, stdout) = start(consul_session(PROGRAM, &args, &[])?)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    reader.read_line(&mut line)?;
    ensure!(line.contains("  listed     no session at 127.0.0.1:"), "{line}");
    sleep(QUIET);
    ensure!(child.try_wait()?.is_none());
    drop(reader);
    let ended = wait(&mut child)?;
    ensure!(ended == (Some(0), String::new()), "{ended:?}");
    Ok(())
}

#[test]
fn text_output_has_one_line_per_event() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let first = create_named(&api, "first")?;
    let args = ["watch", "--host=127.0.0.1", &format!("--port={}", agent.http().port())];
    let (mut child, stdout) = start(consul_session(PROGRAM, &args, &[])?)?;
    let mut lines = BufReader::new(stdout).lines();
    let mut next = || -> Result<String> {
        let line = lines.next().context("the output has ended")??;
        let (time, rest) = line.split_once("  ").context("no time")?;
        ensure!(time.len() == 24 && time.ends_with('Z'), "{line}");
        Ok(rest.to_owned())
    };
    let result = (|| {
        ensure!(next()? == format!("is         {first}  first  {NODE}  -"));
        ensure!(next()? == format!("listed     1 session at {}", agent.http()));
        let second = create(&api, &json!({"Name": "x\u{1b}[2J", "TTL": "10s"}))?;
        ensure!(next()? == format!("came       {second}  x\\u{{1b}}[2J  {NODE}  10s"));
        destroy(&api, &first)?;
        ensure!(next()? == format!("went       {first}  first  {NODE}  -"));
        ensure!(next()? == format!("went       {second}  x\\u{{1b}}[2J  {NODE}  10s  TTL ran out?"));
        drop(agent);
        let error = next()?;
        ensure!(error.starts_with("error      (") && error.ends_with("; trying again"), "{error}");
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    result
}

/// Replaces the parts of a screen that differ between runs: the address, ids and ages.
fn masked(text: &str, address: SocketAddr, ids: &[String]) -> String {
    let mut text = text.replace(&address.to_string(), "AGENT");
    for (id, letter) in ids.iter().zip(["a", "b"]) {
        text = text.replace(id, &letter.repeat(36)).replace(&id[..8], &letter.repeat(8));
    }
    (0..9).fold(text, |text, seconds| text.replace(&format!("  {seconds}s"), "  #s"))
}

/// The masked screen of 80 columns.
const SCREEN_80: &str = "\
1 session at AGENT
  ID                                    NAME       NODE        AGO  WHY
- aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  first      agent-node  #s
+ bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  second 長  agent-node  #s
";
/// The masked screen of 40 columns.
const SCREEN_40: &str = "\
1 session at AGENT
  ID        NAME       NODE        AGO
- aaaaaaaa  first      agent-node  #s
+ bbbbbbbb  second 長  agent-node  #s
";

#[test]
fn screens_fit_the_terminal() -> Result<()> {
    for (columns, expected) in [(80, SCREEN_80), (40, SCREEN_40)] {
        for colored in [true, false] {
            check_screen(columns, expected, colored).with_context(|| format!("{columns} columns, coloured: {colored}"))?;
        }
    }
    Ok(())
}

/// Checks the screen of a terminal with this many columns, during changes and an error.
fn check_screen(columns: u16, expected: &str, colored: bool) -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let (api, address) = (agent.api(), agent.http());
    let args = ["watch", "--host=127.0.0.1", &format!("--port={}", address.port())];
    let mut program = consul_session(PROGRAM, &args, &[])?;
    program.env("TERM", "xterm").env_remove("NO_COLOR").envs((!colored).then_some(("NO_COLOR", "1")));
    let first = create_named(&api, "first")?;
    let (terminal, mut child) = Terminal::run(&mut program, columns)?;
    let pid = Pid::from_child(&child);
    let mut result = || {
        terminal.wait_for(|text| text.contains("first"))?;
        let ids = [first.clone(), create_named(&api, "second 長")?];
        terminal.wait_for(|text| text.contains("\n+ "))?;
        destroy(&api, &first)?;
        terminal.wait_for(|text| masked(text, address, &ids) == expected)?;
        let color = |row| terminal.with(|screen| screen.cell(row, 0).map(vt100::Cell::fgcolor));
        let plain = vt100::Color::Default;
        let (red, green) = if colored { (vt100::Color::Idx(1), vt100::Color::Idx(2)) } else { (plain, plain) };
        ensure!((color(1), color(2), color(3)) == (Some(plain), Some(red), Some(green)));
        // The program redraws in place, even after a long error.
        agent.kill()?;
        let error = terminal.wait_for(|text| text.contains("no answer") && text.contains("(unreachable)"))?;
        ensure!(error.lines().all(|line| line.chars().count() <= columns.into()), "{error}");
        agent.restart()?;
        terminal.wait_for(|text| text.lines().nth(1).is_some_and(|line| line.starts_with("  ID  ")))?;
        // It redraws for another size.
        let (new_columns, header) =
            if columns == 80 { (40, "  ID        NAME") } else { (80, "  ID                                    NAME") };
        terminal.resize(new_columns)?;
        kill_process(pid, Signal::WINCH)?;
        let text = terminal.wait_for(|text| text.contains(header))?;
        ensure!(text.matches("session at").count() == 1 && text.matches("first").count() == 1, "{text}");
        // The newest sessions are shown if there are more than rows.
        for number in 0..20 {
            create_named(&api, &format!("many-{number}"))?;
        }
        let text = terminal.wait_for(|text| text.contains("many-19") && text.contains("more"))?;
        ensure!(text.starts_with("21 sessions at ") && text.ends_with("and 14 more\n"), "{text}");
        Ok(())
    };
    let result = result();
    kill_process(pid, Signal::INT)?;
    let ended = wait(&mut child)?;
    ensure!(ended.0 == Some(0) && !terminal.with(vt100::Screen::hide_cursor), "{ended:?}");
    result
}

/// A shell on a terminal of its own, which runs `watch` and then shows a prompt.
fn shell_with_watch(address: SocketAddr, columns: u16, rows: u16) -> Result<(Terminal, Child)> {
    let line = format!("{PROGRAM} watch --host={} --port={}", address.ip(), address.port());
    // With the trap, the shell survives the Ctrl-C that ends the program.
    let script = format!("trap : INT; echo before; {line}; printf '%s$ ' \"$?\"; sleep 600");
    let mut shell = consul_session("setsid", &["--ctty", "sh", "-c", &script], &[])?;
    Terminal::control_of_size(shell.env("TERM", "xterm"), columns, rows)
}

#[test]
fn screen_with_more_sessions_than_rows_adds_nothing_to_the_scrollback() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let ids = (0..200).map(|number| create_named(&api, &format!("many-{number}"))).collect::<Result<Vec<_>>>()?;
    let (terminal, mut shell) = shell_with_watch(agent.http(), 80, 24)?;
    let result = (|| {
        terminal.wait_for(|text| text.starts_with("200 sessions at ") && text.ends_with("and 180 more\n"))?;
        ensure!(terminal.with(vt100::Screen::alternate_screen));
        for (number, id) in (0..30).zip(&ids) {
            destroy(&api, id)?;
            create_named(&api, &format!("new-{number}"))?;
        }
        terminal.wait_for(|text| text.contains("new-29"))?;
        terminal.type_in("\u{3}")?;
        let text = terminal.wait_for(|text| text.ends_with("0$\n"))?;
        ensure!(!terminal.with(vt100::Screen::alternate_screen) && terminal.scrolled() == 0, "{} lines", terminal.scrolled());
        // What was there, the sum, a header, the last changes, what they lack, and the prompt.
        let lines: Vec<&str> = text.lines().collect();
        ensure!(lines.len() == 13 && lines[0] == "before" && lines[1].starts_with("200 sessions at "), "{text}");
        ensure!(lines[2].starts_with("  ID  ") && lines[3..11].iter().all(|line| line.starts_with("+ ")), "{text}");
        ensure!(lines[11].starts_with("and ") && lines[12] == "0$", "{text}");
        Ok(())
    })();
    // The shell's end closes the terminal, which ends the program.
    shell.kill()?;
    wait(&mut shell)?;
    result
}

#[test]
fn signal_restores_the_terminal_and_leaves_the_last_changes() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let args = ["watch", "--host=127.0.0.1", &format!("--port={}", agent.http().port())];
    for signal in [Signal::INT, Signal::TERM] {
        create_named(&api, "old")?;
        let (terminal, mut child) = Terminal::run(consul_session(PROGRAM, &args, &[])?.env("TERM", "xterm"), 80)?;
        let result = (|| {
            terminal.wait_for(|text| text.contains("old"))?;
            ensure!(terminal.with(vt100::Screen::alternate_screen));
            create_named(&api, "new")?;
            terminal.wait_for(|text| text.contains("\n+ ") && text.contains("new"))
        })();
        kill_process(Pid::from_child(&child), signal)?;
        let ended = wait(&mut child)?;
        result?;
        ensure!(ended.0 == Some(0), "{ended:?}");
        let text = terminal.wait_for(|text| text.lines().count() == 3)?;
        ensure!(!terminal.with(vt100::Screen::alternate_screen));
        ensure!(text.starts_with("2 sessions at ") && !text.contains("old") && text.contains("  new  "), "{text}");
        api.clean()?;
    }
    Ok(())
}

#[test]
fn suspended_program_redraws_when_it_continues() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    create_named(&agent.api(), "old")?;
    let args = ["watch", "--host=127.0.0.1", &format!("--port={}", agent.http().port())];
    let (terminal, mut child) = Terminal::run(consul_session(PROGRAM, &args, &[])?.env("TERM", "xterm"), 80)?;
    let result = (|| {
        terminal.wait_for(|text| text.contains("old"))?;
        let drawn = terminal.output().len();
        for signal in [Signal::STOP, Signal::CONT] {
            kill_process(Pid::from_child(&child), signal)?;
        }
        terminal.wait_for(|_| terminal.output().len() > drawn)
    })();
    child.kill()?;
    wait(&mut child)?;
    result.map(|_| ())
}

#[test]
fn stopped_terminal_does_not_prevent_the_end() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let args = ["--ctty", PROGRAM, "watch", "--host=127.0.0.1", &format!("--port={}", agent.http().port())];
    let (terminal, mut child) = Terminal::control(consul_session("setsid", &args, &[])?.env("TERM", "xterm"), 80)?;
    terminal.wait_for(|text| text.contains("no session at"))?;
    // Ctrl-S. The next writes block.
    terminal.type_in("\u{13}")?;
    sleep(QUIET);
    create_named(&agent.api(), "unseen")?;
    sleep(QUIET);
    ensure!(!terminal.text().contains("unseen"));
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    ensure!(wait(&mut child)?.0 == Some(0));
    Ok(())
}

#[test]
fn error_at_the_start_is_all_that_is_left_on_the_terminal() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let args = ["watch", "--host=127.0.0.1", &format!("--port={}", agent.http().port()), "--token=x"];
    let (terminal, status) = Terminal::run_to_end(consul_session(PROGRAM, &args, &[])?.env("TERM", "xterm"), 80)?;
    let text = terminal.text();
    ensure!(status.code() == Some(1) && text.starts_with("error (access-denied): "), "{status} {text}");
    ensure!(!terminal.with(vt100::Screen::alternate_screen));
    Ok(())
}
