//! `watch`, as a person types it, against real Consuls: that it tells each change once, whatever becomes of the agent or of its
//! leader; what it prints for programs, for people and on a terminal; and how it ends.

use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_tests::embedded::start_dev_agent;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{scope, sleep, spawn};
use std::time::{Duration, Instant};
use test_support::agent::Api;
use test_support::cluster::{Cluster, SERVERS};
use test_support::consul::{Consul, Kind, NODE};
use test_support::program::{Typed, host};
use test_support::terminal::Terminal;
use test_support::trial::{Test, run_tests};
use test_support::unused_address;

fn main() -> ExitCode {
    let without_consul: [(&str, Test); 6] = [
        ("dev agent: what came and went, and why", || came_and_went_at(&start_dev_agent(unused_address()?)?.addr().into())),
        ("dev agent: a TTL that runs out", || ttl_at(&start_dev_agent(unused_address()?)?.addr().into())),
        ("--dev says where its agent is", own_agent),
        ("an agent that starts later", started_later),
        ("options that mean nothing to it", options),
        ("its reader goes away", reader_gone),
    ];
    let with_consul: [(&str, Test); 13] = [
        ("what came and went, and why", || came_and_went_at(&Consul::start(Kind::Plain)?.into())),
        ("a TTL that runs out", || ttl_at(&Consul::start(Kind::Plain)?.into())),
        ("filters", filters),
        ("an agent that starts again with its data: no change is missed, and none told twice", restarted),
        ("an agent that starts again without its data", data_lost),
        ("three servers: another one leads, and no change is missed", leader_killed),
        ("three servers: the one that is asked leads no more, or dies", asked_server_killed),
        ("a leader that steps down", leader_stepped_down),
        ("errors that waiting does not mend", hopeless),
        ("a token that is taken away, and given back", token_revoked),
        ("signals", signals),
        ("lines for people", lines),
        ("a terminal of 80 columns, of 40, and one that is resized", screens),
    ];
    run_tests(without_consul, with_consul)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(60);
/// So long nothing may be told, where there is nothing to tell.
const QUIET: Duration = Duration::from_millis(1500);

/// An agent, which lives as long as this.
struct Agent {
    api: Api,
    _alive: Box<dyn std::any::Any>,
}

impl From<Consul> for Agent {
    fn from(agent: Consul) -> Agent {
        Agent { api: agent.api(), _alive: Box::new(agent) }
    }
}

impl From<SocketAddr> for Agent {
    fn from(address: SocketAddr) -> Agent {
        Agent { api: Api::new(address, Kind::Plain), _alive: Box::new(()) }
    }
}

/// A program that watches.
struct Watching {
    child: Child,
    lines: Receiver<String>,
    /// All that it has told, from the beginning.
    told: Vec<Value>,
}

impl Watching {
    /// Watches the agent at this address, with these words beside.
    fn start(address: SocketAddr, words: &str) -> Result<Watching> {
        Watching::of(&format!("watch host={} port={} --format json {words}", address.ip(), address.port()))
    }

    fn of(line: &str) -> Result<Watching> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (child, stdout) = run(host(PROGRAM, &words, &[])?)?;
        let (sender, lines) = channel();
        spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody waits for it where a test has ended.
                let _ = sender.send(line);
            }
        });
        Ok(Watching { child, lines, told: Vec::new() })
    }

    /// The next event, if there is one in this time.
    fn next(&mut self, limit: Duration) -> Result<Option<Value>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
                self.told.push(event.clone());
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("it has ended: {}", self.record()),
        }
    }

    /// The first event from here on of this kind.
    fn until(&mut self, kind: &str) -> Result<Value> {
        self.until_all(|event| event["event"] == kind, 1)?.pop().context("nothing")
    }

    /// As many events from here on as this for which something holds.
    fn until_all(&mut self, holds: impl Fn(&Value) -> bool, count: usize) -> Result<Vec<Value>> {
        let (start, mut found) = (Instant::now(), Vec::new());
        while found.len() < count {
            let left = LIMIT.saturating_sub(start.elapsed());
            let event = self.next(left)?.ok_or_else(|| anyhow!("not told in {LIMIT:?}: {}", self.record()))?;
            found.extend(holds(&event).then_some(event));
        }
        Ok(found)
    }

    /// Reads until the record says that there is what this agent lists, and nothing more comes.
    fn until_agrees(&mut self, api: &Api) -> Result<()> {
        let start = Instant::now();
        loop {
            while self.next(QUIET)?.is_some() {}
            let there: BTreeSet<String> = api.sessions()?.iter().map(|session| text(&session["ID"])).collect();
            let told = self.there()?;
            if told == there {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "there is {there:?}, told was {told:?}: {}", self.record());
        }
    }

    /// The sessions that are there, as told. Fails where one is told twice, or went without having been there.
    fn there(&self) -> Result<BTreeSet<String>> {
        let (mut there, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for event in &self.told {
            let id = text(&event["session"]["ID"]);
            let right = match event["event"].as_str() {
                Some("is" | "came") => !gone.contains(&id) && there.insert(id),
                Some("went") => there.remove(&id) && gone.insert(id),
                _ => true,
            };
            ensure!(right, "{event} is out of place: {}", self.record());
        }
        Ok(there)
    }

    /// How often this was told of each session.
    fn count(&self, kind: &str) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for event in self.told.iter().filter(|event| event["event"] == kind) {
            *count.entry(text(&event["session"]["ID"])).or_insert(0) += 1;
        }
        count
    }

    fn record(&self) -> String {
        self.told.iter().map(|event| format!("\n{event}")).collect()
    }

    /// Sends a signal; the exit status and what stood on standard error.
    fn end(&mut self, signal: Signal) -> Result<(Option<i32>, String)> {
        kill_process(Pid::from_child(&self.child), signal)?;
        ended(&mut self.child)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(mut command: Command) -> Result<(Child, ChildStdout)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    Ok((child, stdout))
}

/// Waits for the end; the exit status and what stood on standard error.
fn ended(child: &mut Child) -> Result<(Option<i32>, String)> {
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
    bail!("it did not end")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn create(api: &Api, session: &Value) -> Result<String> {
    Ok(text(&api.put("/v1/session/create", Some(session))?["ID"]))
}

fn named(api: &Api, name: &str) -> Result<String> {
    create(api, &json!({"Name": name}))
}

fn destroy(api: &Api, id: &str) -> Result<()> {
    api.put(&format!("/v1/session/destroy/{id}"), None).map(|_| ())
}

/// What must stand in an event beside its time and its index.
fn ensure_event(event: &Value, kind: &str, session: &Value, why: &Value) -> Result<()> {
    let found = (&event["event"], &event["session"], &event["why"]);
    ensure!(found == (&json!(kind), session, why), "{kind} {session} {why}: {event}");
    let time = text(&event["time"]);
    ensure!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z') && event["index"].as_u64() > Some(0), "{event}");
    Ok(())
}

fn came_and_went_at(agent: &Agent) -> Result<()> {
    let api = &agent.api;
    let first = named(api, "first")?;
    // As Consul shows it; what it writes as null for want of checks is a list here.
    let shown = |id: &str| -> Result<Value> {
        let mut session = api.get(&format!("/v1/session/info/{id}"))?[0].clone();
        session["ServiceChecks"] = json!([]);
        Ok(session)
    };
    let first_shown = shown(&first)?;
    let mut watching = Watching::start(api.address, "")?;
    ensure_event(&watching.next(LIMIT)?.context("nothing")?, "is", &first_shown, &Value::Null)?;
    let listed = watching.next(LIMIT)?.context("nothing")?;
    ensure!(listed["agent"] == api.address.to_string() && listed["sessions"] == 1 && listed["filtered"] == false, "{listed}");

    let second = create(api, &json!({"Name": "zwei\u{1b}", "TTL": "20s", "LockDelay": "1s", "Behavior": "delete"}))?;
    let second_shown = shown(&second)?;
    let came = watching.until("came")?;
    ensure_event(&came, "came", &second_shown, &Value::Null)?;
    destroy(api, &first)?;
    ensure!(watching.until("went")?["session"]["ID"] == first);
    ensure!(watching.told.last().is_some_and(|event| event["why"].is_null()), "{}", watching.record());
    destroy(api, &second)?;
    ensure_event(&watching.until("went")?, "went", &second_shown, &Value::Null)?;

    // A node that goes takes its sessions with it.
    let check = json!({"CheckID": "c", "Name": "c", "Status": "passing", "Node": "n2"});
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.2", "Check": check})))?;
    let on_node = || create(api, &json!({"Node": "n2", "NodeChecks": ["c"]}));
    let gone = BTreeSet::from([on_node()?, on_node()?]);
    watching.until_all(|event| event["event"] == "came", 2)?;
    api.put("/v1/catalog/deregister", Some(&json!({"Node": "n2"})))?;
    let went = watching.until_all(|event| event["event"] == "went", 2)?;
    ensure!(went.iter().all(|event| event["why"] == "checks"), "{went:?}");
    ensure!(went.iter().map(|event| text(&event["session"]["ID"])).collect::<BTreeSet<_>>() == gone, "{went:?}");
    watching.until_agrees(api)
}

fn ttl_at(agent: &Agent) -> Result<()> {
    let api = &agent.api;
    let mut watching = Watching::start(api.address, "")?;
    watching.until("listed")?;
    let id = create(api, &json!({"TTL": "10s"}))?;
    watching.until("came")?;
    let went = watching.until("went")?;
    ensure!(went["session"]["ID"] == id && went["why"] == "ttl", "{went}");
    Ok(())
}

fn filters() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    api.put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.2"})))?;
    let on = |node: &str, name: &str| create(&api, &json!({"Node": node, "Name": name, "NodeChecks": []}));
    let mut by_name = Watching::start(agent.http(), "name=a")?;
    let mut by_node = Watching::start(agent.http(), "node=N2")?;
    let mut by_both = Watching::start(agent.http(), "--name a --node n2")?;
    for watching in [&mut by_name, &mut by_node, &mut by_both] {
        watching.until("listed")?;
    }
    let [a1, a2, b2, capital] = [on(NODE, "a")?, on("n2", "a")?, on("n2", "b")?, on(NODE, "A")?];
    for id in [&a1, &a2, &b2, &capital] {
        destroy(&api, id)?;
    }
    for (watching, ids) in [(&mut by_name, [&a1, &a2].as_slice()), (&mut by_node, &[&a2, &b2]), (&mut by_both, &[&a2])] {
        watching.until_agrees(&api)?;
        let expected: BTreeMap<String, usize> = ids.iter().map(|id| ((*id).clone(), 1)).collect();
        // What comes and goes between two reads is not seen; it is seen if it is there long enough.
        let (came, went) = (watching.count("came"), watching.count("went"));
        ensure!(came == went && came.iter().all(|one| expected.get(one.0) == Some(one.1)), "{}", watching.record());
    }
    let kept = [on(NODE, "a")?, on("n2", "a")?, on("n2", "b")?];
    sleep(QUIET);
    for (watching, numbers) in [(by_name, [0, 1].as_slice()), (by_node, &[1, 2]), (by_both, &[1])] {
        let mut watching = watching;
        while watching.next(QUIET)?.is_some() {}
        ensure!(watching.there()? == numbers.iter().map(|at: &usize| kept[*at].clone()).collect(), "{}", watching.record());
    }
    Ok(())
}

fn restarted() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let api = agent.api();
    let old = [named(&api, "old")?, named(&api, "old")?, named(&api, "old")?];
    let mut watching = Watching::start(agent.http(), "")?;
    watching.until("listed")?;
    for id in &old {
        // Just before it dies, and just after it is back.
        let before = named(&api, "before")?;
        agent.kill()?;
        let error = watching.until("error")?;
        ensure!(["unreachable", "invalid-response"].contains(&error["error"].as_str().unwrap_or_default()), "{error}");
        ensure!(text(&error["msg"]).contains(&agent.http().to_string()), "{error}");
        agent.restart()?;
        let after = named(&api, "after")?;
        destroy(&api, id)?;
        watching.until("recovered")?;
        watching.until_agrees(&api)?;
        for id in [before, after] {
            ensure!(watching.count("came").get(&id) == Some(&1), "{id}: {}", watching.record());
        }
        ensure!(watching.count("went").get(id) == Some(&1), "{id}: {}", watching.record());
    }
    ensure!(watching.count("went").len() == old.len(), "{}", watching.record());
    Ok(())
}

fn data_lost() -> Result<()> {
    let mut agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let lost: BTreeSet<String> = (0..30).map(|_| named(&api, "lost")).collect::<Result<_>>()?;
    let mut watching = Watching::start(agent.http(), "")?;
    let listed = watching.until("listed")?;
    agent.kill()?;
    watching.until("error")?;
    agent.restart()?;
    let went = watching.until_all(|event| event["event"] == "went", lost.len())?;
    ensure!(went.iter().map(|event| text(&event["session"]["ID"])).collect::<BTreeSet<_>>() == lost, "{went:?}");
    ensure!(went.iter().all(|event| event["why"] == "reset" && event["index"].as_u64() < listed["index"].as_u64()), "{went:?}");
    // Not after a minute, for which an agent would be silent that is asked for an index above the old one.
    let new = named(&api, "new")?;
    let start = Instant::now();
    ensure!(watching.until("came")?["session"]["ID"] == new && start.elapsed() < Duration::from_secs(5));
    watching.until_agrees(&api)
}

/// Makes sessions and destroys some of them, by one server, until `done` and there are enough; what it was told that it made, and destroyed.
fn make_sessions(api: &Api, done: &AtomicBool) -> (Vec<String>, Vec<String>) {
    let (mut made, mut destroyed) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let enough = |made: usize, destroyed: usize| made > 60 && destroyed > 10 || start.elapsed() > LIMIT;
    while !(done.load(Ordering::Relaxed) && enough(made.len(), destroyed.len())) {
        if let Ok(id) = named(api, "made") {
            made.push(id);
        }
        // Not those just made, which might not be seen: what is in between may take long.
        if made.len() > 2 * (destroyed.len() + 10)
            && let Some(id) = made.get(destroyed.len())
            && destroy(api, id).is_ok()
        {
            destroyed.push(id.clone());
        }
        sleep(Duration::from_millis(20));
    }
    (made, destroyed)
}

/// Has sessions made by one server while something happens; then fails unless every change was told once.
fn nothing_missed(
    watching: &mut Watching,
    cluster: &mut Cluster,
    by: usize,
    happens: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let (api, done) = (cluster.api(by), AtomicBool::new(false));
    let (made, destroyed) = scope(|scope| {
        let making = scope.spawn(|| make_sessions(&api, &done));
        let happened = happens(cluster);
        done.store(true, Ordering::Relaxed);
        happened.and_then(|()| making.join().map_err(|_| anyhow!("panicked")))
    })?;
    // Also those that were made though their maker was told of an error.
    watching.until_agrees(&api)?;
    let (came, went) = (watching.count("came"), watching.count("went"));
    ensure!(made.len() > 60 && destroyed.len() > 10, "made {}, destroyed {}", made.len(), destroyed.len());
    // One that was destroyed while there was no answer may never have been seen.
    let kept = made.iter().filter(|id| !destroyed.contains(id));
    for id in kept {
        ensure!(came.get(id) == Some(&1) && !went.contains_key(id), "{id}: {}", watching.record());
    }
    for id in destroyed {
        ensure!(came.get(&id) == went.get(&id), "{id}: {}", watching.record());
    }
    Ok(())
}

/// Any server but these.
fn other(than: &[usize]) -> Result<usize> {
    (0..SERVERS).find(|number| !than.contains(number)).context("no other server")
}

/// Waits until another server leads than this one, as that one says.
fn wait_for_another_leader(cluster: &Cluster, old: usize, asked: usize) -> Result<usize> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match cluster.leader(asked) {
            Ok(leader) if leader != old => return Ok(leader),
            _ => sleep(Duration::from_millis(50)),
        }
    }
    bail!("no other server leads")
}

fn leader_killed() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let leader = cluster.leader(0)?;
    let asked = other(&[leader])?;
    let by = other(&[leader, asked])?;
    let of_leader = create(&cluster.api(leader), &json!({"Name": "of the leader"}))?;
    let mut watching = Watching::start(cluster.http(asked), "")?;
    watching.until("listed")?;
    nothing_missed(&mut watching, &mut cluster, by, |cluster| {
        sleep(Duration::from_millis(500));
        cluster.kill(leader)?;
        wait_for_another_leader(cluster, leader, asked)?;
        sleep(Duration::from_secs(2));
        cluster.restart(leader)
    })?;
    // The dead node's session ends, if the others notice its death before it is back.
    let went = watching.count("went").get(&of_leader).copied().unwrap_or_default();
    ensure!(went <= 1, "{}", watching.record());
    Ok(())
}

fn asked_server_killed() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let asked = cluster.leader(0)?;
    let by = other(&[asked])?;
    let mut watching = Watching::start(cluster.http(asked), "")?;
    watching.until("listed")?;
    nothing_missed(&mut watching, &mut cluster, by, |cluster| {
        sleep(Duration::from_millis(500));
        cluster.kill(asked)?;
        watching_leader_back(cluster, asked, by)
    })?;
    let kinds: Vec<_> = watching.told.iter().map(|event| text(&event["event"])).collect();
    ensure!(kinds.contains(&"error".into()) && kinds.contains(&"recovered".into()), "{}", watching.record());
    Ok(())
}

fn watching_leader_back(cluster: &mut Cluster, dead: usize, by: usize) -> Result<()> {
    wait_for_another_leader(cluster, dead, by)?;
    sleep(Duration::from_secs(2));
    cluster.restart(dead)
}

fn leader_stepped_down() -> Result<()> {
    let mut cluster = Cluster::start()?;
    // It is asked all the while, as the leader and as a follower.
    let asked = cluster.leader(0)?;
    let mut watching = Watching::start(cluster.http(asked), "")?;
    watching.until("listed")?;
    for _ in 0..3 {
        let leader = cluster.leader(asked)?;
        nothing_missed(&mut watching, &mut cluster, other(&[asked])?, |cluster| {
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

fn own_agent() -> Result<()> {
    let mut watching = Watching::of("watch --dev --format json name=x")?;
    let listed = watching.until("listed")?;
    let api = Api::new(text(&listed["agent"]).parse()?, Kind::Plain);
    let id = named(&api, "x")?;
    ensure!(watching.until("came")?["session"]["ID"] == id);
    Ok(())
}

fn started_later() -> Result<()> {
    let address = unused_address()?;
    let mut watching = Watching::start(address, "")?;
    let error = watching.next(LIMIT)?.context("nothing")?;
    ensure!(error["event"] == "error" && error["error"] == "unreachable" && error["index"] == 0, "{error}");
    // Told once, however often it is tried.
    ensure!(watching.next(QUIET)?.is_none());
    let _agent = start_dev_agent(address)?;
    let recovered = watching.next(LIMIT)?.context("nothing")?;
    ensure!(recovered["event"] == "recovered" && recovered["sessions"] == 0, "{recovered}");
    ensure!(watching.next(LIMIT)?.context("nothing")?["event"] == "listed");
    Ok(())
}

fn options() -> Result<()> {
    for (word, option) in [
        ("id=adf4238a-882b-9ddc-4a9d-5b6758e4159e", "id"),
        ("state=list", "state"),
        ("delay=20s", "delay"),
        ("on_mismatch=replace", "on_mismatch"),
        ("--dry-run", "dry_run"),
        ("checks=a", "checks"),
    ] {
        let message = format!("option `{option}` means nothing to `watch`, which reads all sessions: `name` and `node` filter");
        Typed::new(PROGRAM, format!("watch {word}")).fails("invalid-option", &message)?;
    }
    let message =
        "invalid value `x` for `timeout`: not a duration (expected seconds or a duration: 20, 20s or 1m30s, 1ms to 86400s)";
    Typed::new(PROGRAM, "watch timeout=x").fails("invalid-option", message)
}

/// What ends it at once: the case, as told to people and to programs.
fn hopeless() -> Result<()> {
    let (plain, with_acls) = (Consul::start(Kind::Plain)?, Consul::start(Kind::Acl)?);
    let at = |agent: &Consul, words: &str| format!("watch host=127.0.0.1 port={} {words}", agent.http().port());
    for (line, input, case) in [
        (at(&with_acls, "token=5ec2e700-0000-4000-8000-cafecafecafe"), "", "access-denied"),
        (at(&plain, "datacenter=nowhere"), "", "unknown-datacenter"),
        (at(&plain, "namespace=x"), "", "unsupported"),
        (at(&plain, "scheme=https"), "", "tls"),
        ("watch -".into(), r#"{"host": "127.0.0.1"}"#, "denied-by-host"),
        (at(&plain, "--limit memory=1KiB"), "", "other"),
    ] {
        let people = Typed::new(PROGRAM, line.clone()).reading(input).run(&[])?;
        ensure!(people.status == 1 && people.stdout.is_empty(), "{line}: {people:?}");
        ensure!(people.stderr.starts_with(&format!("error ({case}): ")) && people.stderr.lines().count() == 1, "{people:?}");
        let programs = Typed::new(PROGRAM, line.clone()).reading(input).run(&["--format", "json"])?;
        ensure!(programs.status == 1 && programs.stderr.is_empty() && programs.stdout.lines().count() == 1, "{programs:?}");
        let event = programs.json()?;
        let told = format!("error ({case}): {}\n", text(&event["msg"]));
        ensure!(event["event"] == "error" && event["error"] == case && people.stderr == told, "{programs:?}");
    }
    // One that no blocking query can keep.
    let line = at(&plain, "--limit time=2s");
    let ran = Typed::new(PROGRAM, line).run(&[])?;
    ensure!(ran.status == 1 && ran.stdout.contains("  listed  ") && ran.stderr.contains("`--limit time=VALUE`"), "{ran:?}");
    Ok(())
}

fn token_revoked() -> Result<()> {
    const TOKEN: &str = "5ec2e700-0000-4000-8000-cafecafecafe";
    let agent = Consul::start(Kind::Acl)?;
    let api = agent.api();
    let rules = |prefix: &str| format!(r#"session_prefix "{prefix}" {{ policy = "read" }}"#);
    let policy = api.put("/v1/acl/policy", Some(&json!({"Name": "p", "Rules": rules("")})))?;
    let token = json!({"SecretID": TOKEN, "Policies": [{"Name": "p"}]});
    let accessor = text(&api.put("/v1/acl/token", Some(&token))?["AccessorID"]);
    let first = named(&api, "first")?;
    let mut watching = Watching::start(agent.http(), &format!("token={TOKEN}"))?;
    ensure!(watching.until("is")?["session"]["ID"] == first);
    ensure!(watching.until("listed")?["filtered"] == false);
    ensure!(api.send("DELETE", &format!("/v1/acl/token/{accessor}"), None)?.status == 200);
    // A change wakes the call that was allowed.
    let second = named(&api, "second")?;
    let error = watching.until("error")?;
    ensure!(error["error"] == "access-denied" && !error.to_string().contains(TOKEN), "{error}");
    let third = named(&api, "third")?;
    api.put("/v1/acl/token", Some(&token))?;
    watching.until("recovered")?;
    watching.until_agrees(&api)?;
    for id in [&second, &third] {
        ensure!(watching.count("came").get(id) == Some(&1), "{}", watching.record());
    }
    // Hidden is not gone, though it style the same.
    let policy = json!({"ID": policy["ID"], "Name": "p", "Rules": rules("other")});
    api.put(&format!("/v1/acl/policy/{}", text(&policy["ID"])), Some(&policy))?;
    // The first wakes the call that was allowed.
    for name in ["fourth", "fifth"] {
        named(&api, name)?;
        sleep(QUIET);
    }
    let went = watching.until_all(|event| event["event"] == "went", 4)?;
    ensure!(went.iter().all(|event| event["why"] == "acl"), "{went:?}");
    let listed = watching.until("listed")?;
    ensure!(listed["filtered"] == true && listed["sessions"] == 0, "{listed}");
    Ok(())
}

fn signals() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for signal in [Signal::INT, Signal::TERM] {
        let mut watching = Watching::start(agent.http(), "")?;
        watching.until("listed")?;
        let ended = watching.end(signal)?;
        ensure!(ended == (Some(0), String::new()), "{ended:?}");
    }
    // While it cannot reach the agent, and while nobody takes what it writes.
    let mut watching = Watching::start(unused_address()?, "")?;
    watching.until("error")?;
    ensure!(watching.end(Signal::INT)? == (Some(0), String::new()));
    for _ in 0..400 {
        named(&agent.api(), "a name of some length")?;
    }
    let words = ["watch", "--format", "json", "host=127.0.0.1", &format!("port={}", agent.http().port())];
    let (mut child, _stdout) = run(host(PROGRAM, &words, &[])?)?;
    sleep(QUIET);
    ensure!(child.try_wait()?.is_none());
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    ensure!(ended(&mut child)? == (Some(0), String::new()));
    Ok(())
}

/// As `head -1` does. It need not write to notice.
fn reader_gone() -> Result<()> {
    let agent = start_dev_agent(unused_address()?)?;
    let words = ["watch", "host=127.0.0.1", &format!("port={}", agent.addr().port())];
    let (mut child, stdout) = run(host(PROGRAM, &words, &[])?)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    reader.read_line(&mut line)?;
    ensure!(line.contains("  listed     no session at 127.0.0.1:"), "{line}");
    sleep(QUIET);
    ensure!(child.try_wait()?.is_none());
    drop(reader);
    let ended = ended(&mut child)?;
    ensure!(ended == (Some(0), String::new()), "{ended:?}");
    Ok(())
}

fn lines() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let first = named(&api, "first")?;
    let words = ["watch", "host=127.0.0.1", &format!("port={}", agent.http().port())];
    let (mut child, stdout) = run(host(PROGRAM, &words, &[])?)?;
    let mut lines = BufReader::new(stdout).lines();
    let mut next = || -> Result<String> {
        let line = lines.next().context("it has ended")??;
        let (time, rest) = line.split_once("  ").context("no time")?;
        ensure!(time.len() == 24 && time.ends_with('Z'), "{line}");
        Ok(rest.to_owned())
    };
    let result = (|| {
        ensure!(next()? == format!("is         {first}  first  {NODE}  -"));
        ensure!(next()? == format!("listed     1 session at {}", agent.http()));
        let second = create(&api, &json!({"Name": "x\u{1b}[2J", "TTL": "10s"}))?;
        ensure!(next()? == format!("came       {second}  x\u{fffd}[2J  {NODE}  10s"));
        destroy(&api, &first)?;
        ensure!(next()? == format!("went       {first}  first  {NODE}  -"));
        ensure!(next()? == format!("went       {second}  x\u{fffd}[2J  {NODE}  10s  TTL ran out?"));
        drop(agent);
        let error = next()?;
        ensure!(error.starts_with("error      (") && error.ends_with("; trying again"), "{error}");
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    result
}

/// The screen without what differs from run to run.
fn known(text: &str, address: SocketAddr, ids: &[String]) -> String {
    let mut text = text.replace(&address.to_string(), "AGENT");
    for (id, letter) in ids.iter().zip(["a", "b"]) {
        text = text.replace(id, &letter.repeat(36)).replace(&id[..8], &letter.repeat(8));
    }
    (0..9).fold(text, |text, seconds| text.replace(&format!("  {seconds}s"), "  #s"))
}

const SCREEN_80: &str = "\
1 session at AGENT
  ID                                    NAME       NODE        AGO  WHY
- aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  first      agent-node  #s
+ bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  second 長  agent-node  #s
";
const SCREEN_40: &str = "\
1 session at AGENT
  ID        NAME       NODE        AGO
- aaaaaaaa  first      agent-node  #s
+ bbbbbbbb  second 長  agent-node  #s
";

fn screens() -> Result<()> {
    for (columns, expected) in [(80, SCREEN_80), (40, SCREEN_40)] {
        for colored in [true, false] {
            screen(columns, expected, colored).with_context(|| format!("{columns} columns, coloured: {colored}"))?;
        }
    }
    Ok(())
}

fn screen(columns: u16, expected: &str, colored: bool) -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let (api, address) = (agent.api(), agent.http());
    let words = ["watch", "host=127.0.0.1", &format!("port={}", address.port())];
    let mut program = host(PROGRAM, &words, &[])?;
    program.env("TERM", "xterm").env_remove("NO_COLOR").envs((!colored).then_some(("NO_COLOR", "1")));
    let first = named(&api, "first")?;
    let (terminal, mut child) = Terminal::run(&mut program, columns)?;
    let pid = Pid::from_child(&child);
    let mut result = || {
        terminal.wait_for(|text| text.contains("first"))?;
        let ids = [first.clone(), named(&api, "second 長")?];
        terminal.wait_for(|text| text.contains("\n+ "))?;
        destroy(&api, &first)?;
        terminal.wait_for(|text| known(text, address, &ids) == expected)?;
        let color = |row| terminal.with(|screen| screen.cell(row, 0).map(vt100::Cell::fgcolor));
        let plain = vt100::Color::Default;
        let (red, green) = if colored { (vt100::Color::Idx(1), vt100::Color::Idx(2)) } else { (plain, plain) };
        ensure!((color(1), color(2), color(3)) == (Some(plain), Some(red), Some(green)));
        // Redrawn in place: so is it after an error, which may be long.
        agent.kill()?;
        let error = terminal.wait_for(|text| text.contains("no answer") && text.contains("(unreachable)"))?;
        ensure!(error.lines().all(|line| line.chars().count() <= columns.into()), "{error}");
        agent.restart()?;
        terminal.wait_for(|text| text.lines().nth(1).is_some_and(|line| line.starts_with("  ID  ")))?;
        // Another size.
        let (other, head) =
            if columns == 80 { (40, "  ID        NAME") } else { (80, "  ID                                    NAME") };
        terminal.resize(other)?;
        kill_process(pid, Signal::WINCH)?;
        let text = terminal.wait_for(|text| text.contains(head))?;
        ensure!(text.matches("session at").count() == 1 && text.matches("first").count() == 1, "{text}");
        // More than it has rows: what is new is shown.
        for number in 0..20 {
            named(&api, &format!("many-{number}"))?;
        }
        let text = terminal.wait_for(|text| text.contains("many-19") && text.contains("more"))?;
        ensure!(text.starts_with("21 sessions at ") && text.ends_with("and 14 more\n"), "{text}");
        Ok(())
    };
    let result = result();
    kill_process(pid, Signal::INT)?;
    let ended = ended(&mut child)?;
    ensure!(ended.0 == Some(0) && !terminal.with(vt100::Screen::hide_cursor), "{ended:?}");
    result
}
