//! Three real Consul servers whose leader is killed and halted by turns, while callers of all three
//! run: every answer is true, and every error says truly whether something was changed.
//!
//! `FAILOVERS=8 cargo test -p consul-session-tests --test failovers -- --nocapture` is the long
//! trial. It prints how many calls succeeded. `target/failover-errors.txt` has every message.

use anyhow::{Context, Result, bail, ensure};
use consul_session_host::{CallError, Connection, Consistency, Error, Options, Outcome, Query, State};
use consul_session_tests::embedded::{connection, host, options, within};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use test_support::api::Api;
use test_support::block_on;
use test_support::cluster::{Cluster, SERVERS};
use test_support::consul::Kind;
use test_support::tools::root;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// The number of failovers, without `FAILOVERS` in the environment: one kill and one halt.
const FAILOVERS: usize = 2;
/// The timeouts of the callers: the default, and the one that the documents advise.
const TIMEOUTS: [Option<f64>; 2] = [None, Some(30.0)];
/// The callers of one name at the same time, spread over the servers.
const RACERS: usize = 2 * SERVERS;
/// The longest that the cluster may need for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// The successes that end each phase of a failover.
const SUCCESSES: u64 = 40;
/// The errors that a caller can get. `invalid-response` is an answer that was cut off.
const ERRORS: [&str; 5] = ["unavailable", "timeout", "unreachable", "outcome-unknown", "invalid-response"];

#[test]
fn failovers_of_three_servers_cause_no_false_answer() -> Result<()> {
    let failovers = match std::env::var("FAILOVERS") {
        Ok(number) => number.parse().context("FAILOVERS")?,
        Err(_) => FAILOVERS,
    };
    let mut cluster = Cluster::start()?;
    let trial = Arc::new(Trial::new(&cluster));
    let stop = watch::Sender::new(false);
    let mut callers = JoinSet::new();
    for (server, limit) in (0..SERVERS).flat_map(|server| TIMEOUTS.map(|limit| (server, limit))) {
        let worker = Worker::new(&trial, server, limit);
        block_on(async { callers.spawn(worker.run(stop.subscribe())) });
    }
    for limit in TIMEOUTS {
        let racers = Racers { trial: Arc::clone(&trial), limit, left: Vec::new() };
        block_on(async { callers.spawn(racers.run(stop.subscribe())) });
    }
    let failed = (0..failovers).try_for_each(|number| fail_over(&mut cluster, &trial, number % 2 == 1));
    // Without receivers, all callers have ended.
    let _ = stop.send(true);
    let ended: Vec<Result<Vec<Expected>>> = block_on(callers.join_all());
    trial.report(failovers)?;
    failed?;
    let expected: Vec<Vec<Expected>> = ended.into_iter().collect::<Result<_>>()?;
    let stored = block_on(trial.read_patiently())?;
    expected.iter().flatten().for_each(|expected| trial.compare(expected, &stored));
    trial.conclude()
}

/// Makes the leader fail, waits until the callers work with another one, and brings it back.
fn fail_over(cluster: &mut Cluster, trial: &Trial, halt: bool) -> Result<()> {
    trial.wait_for_successes()?;
    let leader = cluster.leader(0)?;
    let other = (leader + 1) % SERVERS;
    let begin = Instant::now();
    trial.failed.store(leader, Ordering::SeqCst);
    if halt {
        cluster.halt(leader)?
    } else {
        cluster.kill(leader)?
    }
    while !cluster.leader(other).is_ok_and(|now| now != leader) {
        ensure!(begin.elapsed() < LIMIT, "no new leader");
        std::thread::sleep(Duration::from_millis(20));
    }
    let elected = begin.elapsed();
    trial.wait_for_successes()?;
    let worked = begin.elapsed();
    trial.wait_for_an_error()?;
    if halt {
        cluster.resume(leader)?
    } else {
        cluster.restart(leader)?
    }
    trial.failed.store(usize::MAX, Ordering::SeqCst);
    let how = if halt { "halted" } else { "killed" };
    println!("leader {leader} {how}: a new one after {elected:.1?}, {SUCCESSES} successes after {worked:.1?}");
    trial.wait_for_successes()
}

/// What all callers share.
struct Trial {
    servers: Vec<SocketAddr>,
    /// The number of the server that is down.
    failed: AtomicUsize,
    /// The number of successful calls of the servers that run.
    successes: watch::Sender<u64>,
    /// The number of failed calls of the server that is down.
    errors: watch::Sender<u64>,
    /// The numbers of calls by outcome.
    tallies: Mutex<BTreeMap<Group, BTreeMap<&'static str, u64>>>,
    /// The messages of all errors, and how often each came.
    messages: Mutex<BTreeMap<String, u64>>,
    /// What is wrong.
    faults: Mutex<BTreeSet<String>>,
}

/// What the share of successful calls depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    default_timeout: bool,
    asked_the_failed_server: bool,
}

/// The ids of the sessions by name.
type Stored = BTreeMap<String, BTreeSet<String>>;

/// The sessions that a name must have.
#[derive(Clone)]
struct Expected {
    name: String,
    /// The ids that exist for certain.
    ids: BTreeSet<String>,
    /// How many further ones can be there: those of calls whose outcome is unknown.
    more: usize,
    /// The answers that say so, for the report of a fault.
    answers: Vec<String>,
}

impl Expected {
    fn holds(&self, stored: &Stored) -> bool {
        let found = stored.get(&self.name).cloned().unwrap_or_default();
        found.is_superset(&self.ids) && found.len() <= self.ids.len() + self.more
    }
}

impl Trial {
    fn new(cluster: &Cluster) -> Trial {
        Trial {
            servers: (0..SERVERS).map(|server| cluster.http(server)).collect(),
            failed: AtomicUsize::new(usize::MAX),
            successes: watch::Sender::new(0),
            errors: watch::Sender::new(0),
            tallies: Mutex::default(),
            messages: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// Waits for [`SUCCESSES`] more.
    fn wait_for_successes(&self) -> Result<()> {
        wait_for_more(&self.successes, SUCCESSES).context("the callers make no progress")
    }

    /// Waits for an error of the server that is down: if it is halted, until a call timed out.
    fn wait_for_an_error(&self) -> Result<()> {
        wait_for_more(&self.errors, 1).context("no call fails")
    }

    /// Counts the outcome of a call, which must end in time.
    async fn call<T>(
        &self,
        server: usize,
        limit: Option<f64>,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Result<T, Error>> {
        let is_down = || self.failed.load(Ordering::SeqCst) == server;
        let was_down = is_down();
        let answer = within(Duration::from_secs_f64(limit.unwrap_or(10.0)), call).await?.0;
        let group = Group { default_timeout: limit.is_none(), asked_the_failed_server: was_down || is_down() };
        let case = answer.as_ref().map_or_else(Error::name, |_| "success");
        *lock(&self.tallies).entry(group).or_default().entry(case).or_default() += 1;
        match &answer {
            Ok(_) if group.asked_the_failed_server => {}
            Ok(_) => self.successes.send_modify(|successes| *successes += 1),
            Err(error) => {
                *lock(&self.messages).entry(format!("{case}: {}", without_numbers(error.message()))).or_default() += 1;
                if !ERRORS.contains(&case) {
                    self.fault(format!("{case}: {}", without_numbers(error.message())));
                }
                if group.asked_the_failed_server {
                    self.errors.send_modify(|errors| *errors += 1);
                }
                // A dead server refuses connections at once.
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(answer)
    }

    fn fault(&self, text: String) {
        // At once: the trial can fail for another reason before its end.
        if lock(&self.faults).insert(text.clone()) {
            println!("fault: {text}");
        }
    }

    /// Returns what is stored, by a consistent read of this server, if that is possible now.
    async fn read(&self, server: usize) -> Option<Stored> {
        let api = Api::new(self.servers[server], Kind::Plain).with_timeout(Duration::from_secs(2));
        let sessions = spawn_blocking(move || api.get("/v1/session/list?consistent")).await.ok()?.ok()?;
        let mut stored = Stored::new();
        for session in sessions.as_array()? {
            let text = |key: &str| session[key].as_str().unwrap_or_default().to_owned();
            stored.entry(text("Name")).or_default().insert(text("ID"));
        }
        Some(stored)
    }

    /// Returns what is stored, and waits until that can be read.
    async fn read_patiently(&self) -> Result<Stored> {
        let begin = Instant::now();
        for server in (0..SERVERS).cycle() {
            if let Some(stored) = self.read(server).await {
                return Ok(stored);
            }
            ensure!(begin.elapsed() < LIMIT, "no consistent read");
            sleep(Duration::from_millis(50)).await;
        }
        bail!("no servers")
    }

    /// Checks the sessions of a name, if they can be read now. Returns whether they could be.
    async fn check(&self, server: usize, expected: &Expected) -> Result<bool> {
        let Some(stored) = self.read(server).await else { return Ok(false) };
        if !expected.holds(&stored) {
            // A leader that was halted in the middle of a heartbeat can answer once more from its
            // old state, even to a consistent read.
            sleep(Duration::from_secs(1)).await;
            self.compare(expected, &self.read_patiently().await?);
        }
        Ok(true)
    }

    fn compare(&self, expected: &Expected, stored: &Stored) {
        if !expected.holds(stored) {
            let Expected { name, ids, more, answers } = expected;
            let found = stored.get(name);
            self.fault(format!("{name} has {found:?}, not {ids:?} and up to {more} more, after these answers: {answers:#?}"));
        }
    }

    /// Prints how many calls succeeded, and writes the messages of the others.
    fn report(&self, failovers: usize) -> Result<()> {
        println!("{failovers} failovers");
        for (group, cases) in &*lock(&self.tallies) {
            let all: u64 = cases.values().sum();
            let succeeded = *cases.get("success").unwrap_or(&0);
            let limit = if group.default_timeout { "the default timeout" } else { "timeout=30s" };
            let server = if group.asked_the_failed_server { "the server that is down" } else { "a server that runs" };
            #[expect(clippy::cast_precision_loss, reason = "a share for people")]
            let share = 100.0 * succeeded as f64 / all as f64;
            println!("{limit}, {server}: {succeeded} of {all} calls succeeded, {share:.2} %: {cases:?}");
        }
        let messages: Vec<String> =
            lock(&self.messages).iter().map(|(message, count)| format!("{count:6} {message}\n")).collect();
        std::fs::write(root().join("target/failover-errors.txt"), messages.concat())?;
        Ok(())
    }

    fn conclude(&self) -> Result<()> {
        let faults = lock(&self.faults);
        ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.iter().cloned().collect::<Vec<_>>().join("\n"));
        Ok(())
    }
}

fn wait_for_more(count: &watch::Sender<u64>, more: u64) -> Result<()> {
    let mut count = count.subscribe();
    let enough = *count.borrow() + more;
    block_on(async { timeout(LIMIT, count.wait_for(|now| *now >= enough)).await.map(|_| ()) })?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a message with `N` for each number of four digits or more and each id.
fn without_numbers(message: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let is_port = |word: &str| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut text = String::new();
    for part in message.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        match part.strip_prefix(word) {
            Some(rest) if is_id(word) || is_port(word) => text += &format!("N{rest}"),
            _ => text += part,
        }
    }
    text
}

/// Returns the id of the own session that certainly stays, where an error says so.
fn remaining(message: &str) -> Option<String> {
    let (before, _) = message.split_once(" stays beside the older ")?;
    Some(before.rsplit(' ').next()?.to_owned())
}

/// A caller that has names of its own, and knows at each moment what is stored.
struct Worker {
    trial: Arc<Trial>,
    server: usize,
    limit: Option<f64>,
    /// What its last certain answer says.
    expected: Expected,
    /// The names that it gave up, since the outcome of a change is unknown.
    given_up: Vec<Expected>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Present,
    Read,
    Absent,
}

impl Worker {
    fn new(trial: &Arc<Trial>, server: usize, limit: Option<f64>) -> Worker {
        let name = format!("worker-{server}-{}-0", limit.map_or("default", |_| "long"));
        let expected = Expected { name, ids: BTreeSet::new(), more: 0, answers: Vec::new() };
        Worker { trial: Arc::clone(trial), server, limit, expected, given_up: Vec::new() }
    }

    /// Calls until `stop`. Returns what its names have then.
    async fn run(mut self, stop: watch::Receiver<bool>) -> Result<Vec<Expected>> {
        for step in [Step::Present, Step::Read, Step::Absent, Step::Read].into_iter().cycle() {
            if *stop.borrow() {
                break;
            }
            self.step(step).await?;
        }
        self.given_up.push(self.expected);
        Ok(self.given_up)
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        let (trial, server, name) = (Arc::clone(&self.trial), self.server, self.expected.name.clone());
        let address = trial.servers[server];
        let answer = match step {
            Step::Present | Step::Absent => {
                let state = matches!(step, Step::Absent).then_some(State::Absent);
                // Without checks, so that Consul does not destroy it with the health of its node.
                let checks = matches!(step, Step::Present).then(Vec::new);
                let options = Options { name: Some(name.clone()), state, checks, timeout: self.limit, ..options(address) };
                let answer = trial.call(server, self.limit, host()?.apply(&options)).await?;
                answer.map(|outcome| match step {
                    Step::Absent => (outcome.changed, outcome.destroyed.into_iter().collect()),
                    _ => (outcome.changed, outcome.session_id.into_iter().collect()),
                })
            }
            Step::Read => {
                let to = Connection { timeout: self.limit, ..connection(address) };
                let query = Query { index: None, wait: None, consistency: Some(Consistency::Consistent) };
                let answer = trial.call(server, self.limit, host()?.list_sessions(Some(query), Some(&to))).await?;
                answer.map(|listing| {
                    let named = listing.sessions.into_iter().filter(|session| session.name == name);
                    (false, named.map(|session| session.id).collect())
                })
            }
        };
        let known = &self.expected.ids;
        match answer {
            Ok((changed, ids)) => {
                let ids: BTreeSet<String> = ids;
                let is_true = match step {
                    // What is there stays, and a new one has a new id.
                    Step::Present => ids.len() == 1 && changed == known.is_empty() && (changed || ids == *known),
                    Step::Read => ids == *known,
                    Step::Absent => ids == *known && changed != known.is_empty(),
                };
                if !is_true {
                    trial.fault(format!("{step:?} of {name} answers {ids:?}, changed: {changed}, where {known:?} exist"));
                }
                self.expected.ids = if matches!(step, Step::Absent) { BTreeSet::new() } else { ids };
                trial.check(server, &self.expected).await?;
            }
            Err(error @ Error::OutcomeUnknown(_)) => {
                // Carried out now, later or never: so nothing is known of this name any more.
                let ids = std::mem::take(&mut self.expected.ids);
                let next = format!("{}{}", name.trim_end_matches(|c: char| c.is_ascii_digit()), self.given_up.len() + 1);
                let more = ids.len().max(1);
                let answers = vec![format!("{step:?}: {error}")];
                self.given_up.push(Expected { name, ids: BTreeSet::new(), more, answers });
                self.expected.name = next;
            }
            // Any other error says that nothing was changed.
            Err(_) => drop(trial.check(server, &self.expected).await?),
        }
        Ok(())
    }
}

/// Callers of one name at the same time, who all want the same, in rounds.
struct Racers {
    trial: Arc<Trial>,
    limit: Option<f64>,
    /// The rounds that could not be checked, or that left something.
    left: Vec<Expected>,
}

impl Racers {
    async fn run(mut self, stop: watch::Receiver<bool>) -> Result<Vec<Expected>> {
        for round in 0.. {
            if *stop.borrow() {
                break;
            }
            self.round(format!("race-{}-{round}", self.limit.map_or("default", |_| "long"))).await?;
        }
        Ok(self.left)
    }

    async fn round(&mut self, name: String) -> Result<()> {
        let mut running = JoinSet::new();
        for racer in 0..RACERS {
            let (trial, limit, server) = (Arc::clone(&self.trial), self.limit, racer % SERVERS);
            // One node, whichever server is asked.
            let (name, node) = (Some(name.clone()), Some(Cluster::node(0)));
            let options = Options { name, node, checks: Some(Vec::new()), timeout: limit, ..options(trial.servers[server]) };
            running.spawn(async move { trial.call(server, limit, host()?.apply(&options)).await });
        }
        let answers: Vec<Result<Outcome, Error>> = running.join_all().await.into_iter().collect::<Result<_>>()?;
        let mut ids: BTreeSet<String> =
            answers.iter().flatten().map(|outcome| outcome.session_id.clone().unwrap_or_default()).collect();
        if ids.len() > 1 {
            self.trial.fault(format!("the racers of {name} are told {ids:?}"));
        }
        // A racer whose creation got no answer can go on with another one's session. It says so.
        let is_unknown = |answer: &&Result<Outcome, Error>| match answer {
            Ok(outcome) => outcome.notes.iter().any(|note| note.contains("creation was lost")),
            Err(error) => error.name() == "outcome-unknown",
        };
        let unknown = answers.iter().filter(is_unknown).count();
        // A racer whose server went before it could destroy its own younger session names that one.
        ids.extend(answers.iter().filter_map(|answer| remaining(answer.as_ref().err()?.message())));
        let texts = answers.iter().map(|answer| match answer {
            Ok(outcome) => format!("{}: {:?}", outcome.session_id.as_deref().unwrap_or_default(), outcome.notes),
            Err(error) => format!("{}: {}", error.name(), error.message()),
        });
        let expected = Expected { name: name.clone(), ids, more: unknown, answers: texts.collect() };
        // The destruction of one session is done or not.
        if unknown == 0 && expected.ids.len() == 1 && self.trial.check(0, &expected).await? {
            // So that the lists stay short.
            let (server, limit) = (1, self.limit);
            let (name, node) = (Some(name), Some(Cluster::node(0)));
            let options =
                Options { name, node, state: Some(State::Absent), timeout: limit, ..options(self.trial.servers[server]) };
            let left = match self.trial.call(server, limit, host()?.apply(&options)).await? {
                Ok(_) => Expected { ids: BTreeSet::new(), ..expected },
                Err(Error::OutcomeUnknown(_)) => Expected { more: expected.ids.len(), ids: BTreeSet::new(), ..expected },
                Err(_) => expected,
            };
            self.left.push(left);
        } else {
            self.left.push(expected);
        }
        Ok(())
    }
}
