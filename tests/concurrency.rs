//! What only a real Consul can show: that any number of callers end with one session, and that nothing is half done when the
//! agent dies, halts or starts again under them.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_host::{
    Acquisition, Connection, Consistency, CreateOptions, OnMismatch, Options, Outcome, Query, Scheme, State,
};
use consul_session_tests::embedded::{Answer, answer, connection, host, options, within};
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use test_support::block_on;
use test_support::consul::{Consul, Kind, NODE};
use test_support::trial::trial;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has the machine to itself: they are about many calls at once, and about time.
    arguments.test_threads = Some(1);
    let tests: [(&str, Test); 18] = [
        ("50 callers of the same name end with one session and one id, ten times over", same_name),
        ("50 callers that find the session change nothing", found),
        ("40 callers that replace end with one session and one id", same_replacement),
        ("40 callers that replace by two different sessions end with one", two_replacements),
        ("50 callers, half present and half absent, leave no more than one", present_and_absent),
        ("50 callers of as many names end with as many sessions", many_names),
        ("20 callers that may not ask for the agent's node end with one session", node_not_readable),
        ("20 callers that may not ask for the agent's node find the session that is there", node_not_readable_found),
        ("a killed agent leaves nothing half done", killed),
        ("a halted agent leaves nothing half done", halted),
        ("an agent that starts again leaves nothing half done", restarted),
        ("callers of the same name agree after a crash", agreed_after_crash),
        ("a blocking query ends when the agent dies", blocking_query_of_dying_agent),
        ("a read without a token says what it may not see", filtered),
        ("50 sessions that want one key get it one after another, each with a higher fencing number", one_key),
        ("a lock needs key:write, and its reading key:read", lock_denied),
        ("a lock of an agent that dies is in doubt, and can be asked for again", lock_in_doubt),
        ("a certificate of a CA that the host does not know is refused", unknown_ca),
    ];
    let no_consul = Consul::is_missing();
    let trials = tests.map(|(name, test)| trial(name, test).with_ignored_flag(no_consul));
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// `present` by this name.
fn present(agent: &Consul, name: &str) -> Options {
    Options { name: Some(name.into()), ..options(agent.http()) }
}

/// `absent` by this name.
fn absent(agent: &Consul, name: &str) -> Options {
    Options { state: Some(State::Absent), ..present(agent, name) }
}

async fn apply(options: &Options) -> Result<Answer<Outcome>> {
    answer(host()?.apply(options)).await
}

/// Applies all of these at once, each in an instance of its own, and waits for all; each must succeed.
fn at_once(calls: impl IntoIterator<Item = Options>) -> Result<Vec<Outcome>> {
    block_on(async {
        let mut running = JoinSet::new();
        for options in calls {
            running.spawn(async move { apply(&options).await?.value() });
        }
        running.join_all().await.into_iter().collect()
    })
}

/// The one id that all of these answers name.
fn one_id(outcomes: &[Outcome]) -> Result<&str> {
    let ids: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.session_id.as_deref()).collect();
    match ids.first() {
        Some(Some(id)) if ids.len() == 1 => Ok(id),
        _ => Err(anyhow!("{} different ids: {ids:?}", ids.len())),
    }
}

/// The ids of the sessions of this name.
fn ids_of(agent: &Consul, name: &str) -> Result<Vec<String>> {
    let named = |session: &Value| session["Name"] == name;
    Ok(agent.api().sessions()?.iter().filter(|session| named(session)).map(|session| text(&session["ID"])).collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn changed(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.changed).count()
}

fn same_name() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for round in 0..10 {
        let name = format!("x{round}");
        let outcomes = at_once((0..50).map(|_| present(&agent, &name)))?;
        let id = one_id(&outcomes).with_context(|| format!("round {round}"))?;
        ensure!(ids_of(&agent, &name)? == [id], "round {round}: {:?}", ids_of(&agent, &name)?);
        ensure!(changed(&outcomes) == 1, "round {round}: {} say that they created it", changed(&outcomes));
    }
    Ok(())
}

fn found() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let first = at_once([present(&agent, "x")])?;
    let outcomes = at_once((0..50).map(|_| present(&agent, "x")))?;
    ensure!(one_id(&outcomes)? == one_id(&first)? && changed(&outcomes) == 0);
    ensure!(ids_of(&agent, "x")?.len() == 1);
    Ok(())
}

/// One that replaces whatever has another delay.
fn replace(agent: &Consul, delay: f64) -> Options {
    Options { delay: Some(delay), on_mismatch: Some(OnMismatch::Replace), ..present(agent, "x") }
}

fn same_replacement() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let old = at_once([present(&agent, "x")])?;
    let outcomes = at_once((0..40).map(|_| replace(&agent, 20.0)))?;
    let id = one_id(&outcomes)?;
    ensure!(id != one_id(&old)? && ids_of(&agent, "x")? == [id], "{:?}", ids_of(&agent, "x")?);
    ensure!(changed(&outcomes) == 1, "{} say that they replaced it", changed(&outcomes));
    Ok(())
}

fn two_replacements() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    at_once([present(&agent, "x")])?;
    at_once((0..40).map(|number| replace(&agent, if number % 2 == 0 { 20.0 } else { 30.0 })))?;
    ensure!(ids_of(&agent, "x")?.len() == 1, "{:?}", ids_of(&agent, "x")?);
    Ok(())
}

fn present_and_absent() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    for round in 0..5 {
        at_once((0..50).map(|number| if number % 2 == 0 { present(&agent, "x") } else { absent(&agent, "x") }))?;
        let left = ids_of(&agent, "x")?;
        ensure!(left.len() <= 1, "round {round}: {left:?}");
    }
    let outcomes = at_once([present(&agent, "x")])?;
    ensure!(ids_of(&agent, "x")? == [one_id(&outcomes)?]);
    Ok(())
}

fn many_names() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let outcomes = at_once((0..50).map(|number| present(&agent, &format!("x{number}"))))?;
    let ids: BTreeSet<_> = outcomes.iter().filter_map(|outcome| outcome.session_id.clone()).collect();
    let there: BTreeSet<_> = agent.api().sessions()?.iter().map(|session| text(&session["ID"])).collect();
    ensure!(ids.len() == 50 && ids == there, "{} and {}", ids.len(), there.len());
    Ok(())
}

/// A token that may make sessions everywhere, may not read `/v1/agent/self`, and otherwise what these rules say.
fn limited_token(agent: &Consul, more: &str) -> Result<String> {
    let rules = format!(r#"session_prefix "" {{ policy = "write" }} {more}"#);
    agent.api().put("/v1/acl/policy", Some(&json!({"Name": "sessions", "Rules": rules})))?;
    let token = agent.api().put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "sessions"}]})))?;
    Ok(text(&token["SecretID"]))
}

/// An ACL agent with a session of the name on another node, so that the agent's own must be known, and callers that may not
/// ask for it.
fn agent_with_another_node() -> Result<(Consul, Options)> {
    let agent = Consul::start(Kind::Acl)?;
    agent.api().put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.1"})))?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "x", "Node": "n2", "NodeChecks": []})))?;
    let caller = Options { token: Some(limited_token(&agent, "")?), ..present(&agent, "x") };
    Ok((agent, caller))
}

/// The ids of the sessions named x on the agent's own node.
fn own_ids(agent: &Consul) -> Result<Vec<String>> {
    let sessions = agent.api().sessions()?;
    let own = sessions.iter().filter(|session| session["Name"] == "x" && session["Node"] == NODE);
    Ok(own.map(|session| text(&session["ID"])).collect())
}

fn node_not_readable() -> Result<()> {
    let (agent, caller) = agent_with_another_node()?;
    let outcomes = at_once((0..20).map(|_| caller.clone()))?;
    ensure!(own_ids(&agent)? == [one_id(&outcomes)?], "{:?}", own_ids(&agent)?);
    ensure!(ids_of(&agent, "x")?.len() == 2, "the other node's is gone");
    Ok(())
}

fn node_not_readable_found() -> Result<()> {
    let (agent, caller) = agent_with_another_node()?;
    let caller = Options { delay: Some(15.0), ..caller };
    // The older one is not as asked for.
    let create = |delay: &str| agent.api().put("/v1/session/create", Some(&json!({"Name": "x", "LockDelay": delay})));
    let there = [create("30s")?, create("15s")?].map(|session| text(&session["ID"]));
    let outcomes = at_once((0..20).map(|_| caller.clone()))?;
    ensure!(one_id(&outcomes)? == there[1] && changed(&outcomes) == 0, "{outcomes:?}");
    ensure!(own_ids(&agent)?.into_iter().collect::<BTreeSet<_>>() == there.into(), "{:?}", own_ids(&agent)?);
    Ok(())
}

/// How long a call may take while an agent is in trouble.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Callers that go on and on until they are told to stop. Each has a name of its own, which it makes present and absent in
/// turn, so that at any moment some are in each phase of a call.
struct Callers {
    stop: watch::Sender<bool>,
    /// How many calls of each caller have succeeded and failed.
    counts: Vec<watch::Receiver<Counts>>,
    running: JoinSet<Result<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    successes: u64,
    errors: u64,
}

impl Callers {
    const COUNT: usize = 8;

    fn start(agent: &Consul) -> Callers {
        let stop = watch::Sender::new(false);
        let mut callers = Callers { stop, counts: Vec::new(), running: JoinSet::new() };
        for number in 0..Callers::COUNT {
            let (count, counts) = watch::channel(Counts::default());
            callers.counts.push(counts);
            let stop = callers.stop.subscribe();
            let timeout = Some(TIMEOUT.as_secs_f64());
            let pair = [present(agent, &Callers::name(number)), absent(agent, &Callers::name(number))];
            let pair = pair.map(|options| Options { timeout, ..options });
            block_on(async { callers.running.spawn(call_in_turn(pair, stop, count)) });
        }
        callers
    }

    fn name(number: usize) -> String {
        format!("x{number}")
    }

    /// Waits until each caller has gone on as far as this from where it is now. None may have stopped.
    fn wait_until(&mut self, reached: impl Fn(Counts, Counts) -> bool) -> Result<()> {
        block_on(async {
            for counts in &mut self.counts {
                let begin = *counts.borrow();
                // It ends when the caller does, which is for the caller to explain.
                let waiting = counts.wait_for(|now| reached(begin, *now));
                if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
                    return Err(anyhow!("a caller does not get on: {:?}", *counts.borrow()));
                }
            }
            Ok(())
        })
    }

    fn wait_for_successes(&mut self) -> Result<()> {
        self.wait_until(|begin, now| now.successes >= begin.successes + 3)
    }

    fn wait_for_errors(&mut self) -> Result<()> {
        self.wait_until(|begin, now| now.errors > begin.errors)
    }

    fn stop(self) -> Result<()> {
        // All have ended if nobody listens.
        let _ = self.stop.send(true);
        block_on(self.running.join_all()).into_iter().collect()
    }
}

/// Applies the two in turn until told to stop. An error must be one of those of an agent in trouble, and in time.
async fn call_in_turn(pair: [Options; 2], stop: watch::Receiver<bool>, counts: watch::Sender<Counts>) -> Result<()> {
    for options in pair.iter().cycle() {
        if *stop.borrow() {
            break;
        }
        match within(TIMEOUT, host()?.apply(options)).await?.0 {
            Ok(_) => counts.send_modify(|counts| counts.successes += 1),
            Err(error) => {
                let of_trouble = ["unreachable", "timeout", "outcome-unknown", "invalid-response", "unavailable"];
                ensure!(of_trouble.contains(&error.name()), "{error:?}");
                counts.send_modify(|counts| counts.errors += 1);
                // An agent that is gone refuses at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// Gets an agent into trouble and out of it while callers call, and then looks what is left.
fn nothing_is_half_done(trouble: impl FnOnce(&mut Consul, &mut Callers) -> Result<()>) -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let mut callers = Callers::start(&agent);
    callers.wait_for_successes()?;
    let troubled = trouble(&mut agent, &mut callers).and_then(|()| callers.wait_for_successes());
    // What a caller says goes before what waiting for it came to.
    callers.stop()?;
    troubled?;
    for number in 0..Callers::COUNT {
        let name = Callers::name(number);
        let left = ids_of(&agent, &name)?;
        ensure!(left.len() <= 1, "{name}: {left:?}");
        // The same again converges, whatever the last call came to.
        let outcomes = at_once([present(&agent, &name)])?;
        ensure!(ids_of(&agent, &name)? == [one_id(&outcomes)?]);
        at_once([absent(&agent, &name)])?;
        ensure!(ids_of(&agent, &name)?.is_empty());
    }
    Ok(())
}

fn killed() -> Result<()> {
    nothing_is_half_done(|agent, callers| {
        agent.kill()?;
        callers.wait_for_errors()?;
        agent.restart()
    })
}

fn halted() -> Result<()> {
    nothing_is_half_done(|agent, callers| {
        agent.pause()?;
        callers.wait_for_errors()?;
        agent.resume()
    })
}

fn restarted() -> Result<()> {
    nothing_is_half_done(|agent, _| {
        agent.kill()?;
        agent.restart()
    })
}

/// Creators that died between creating and comparing can leave several; whoever comes next must still agree on one.
fn agreed_after_crash() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let calls: Vec<_> = (0..20).map(|_| Options { timeout: Some(TIMEOUT.as_secs_f64()), ..present(&agent, "x") }).collect();
    block_on(async {
        let mut running = JoinSet::new();
        for options in calls {
            running.spawn(async move { within(TIMEOUT, host()?.apply(&options)).await });
        }
        // In the middle of it: when the first sessions are there.
        let first = async {
            while agent.api().sessions()?.is_empty() {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(TIMEOUT, first).await.context("nothing was created")??;
        agent.kill()?;
        running.join_all().await.into_iter().try_for_each(|answer| answer.map(|_| ()))
    })?;
    agent.restart()?;
    let outcomes = at_once((0..20).map(|_| present(&agent, "x")))?;
    let id = one_id(&outcomes)?;
    ensure!(ids_of(&agent, "x")?.contains(&id.to_owned()));
    at_once([absent(&agent, "x")])?;
    ensure!(ids_of(&agent, "x")?.is_empty());
    Ok(())
}

fn blocking_query_of_dying_agent() -> Result<()> {
    let mut agent = Consul::start(Kind::Plain)?;
    let to = connection(agent.http());
    let index = block_on(answer(host()?.list_sessions(None, Some(&to))))?.value()?.index;
    let query = Query { index: Some(index), wait: Some(300.0), consistency: None };
    // It is sent, and cannot be answered before the agent dies.
    agent.pause()?;
    let call = std::thread::spawn(move || -> Result<_> {
        block_on(within(Duration::from_secs(5), host()?.list_sessions(Some(query), Some(&to))))
    });
    agent.kill()?;
    let answer = call.join().map_err(|_| anyhow!("the call panicked"))??;
    let case = answer.0.as_ref().err().map(|error| error.name());
    ensure!(matches!(case, Some("invalid-response" | "unreachable")), "{answer:?}");
    Ok(())
}

fn filtered() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let id = text(&agent.api().put("/v1/session/create", None)?["ID"]);
    let to = connection(agent.http());
    let call = async |token: Option<&str>| {
        let to = Connection { token: token.map(String::from), ..to.clone() };
        let lookup = answer(host()?.info(&id, None, Some(&to))).await?.value()?;
        let listing = answer(host()?.list_sessions(None, Some(&to))).await?.value()?;
        anyhow::Ok([(lookup.session.is_some(), lookup.filtered), (!listing.sessions.is_empty(), listing.filtered)])
    };
    block_on(async {
        ensure!(call(Some("root")).await? == [(true, false); 2]);
        ensure!(call(None).await? == [(false, true); 2]);
        let to = Connection { token: Some("unknown".into()), ..to.clone() };
        answer(host()?.list_sessions(None, Some(&to))).await?.error("access-denied").map(|_| ())
    })
}

/// Each contender acquires, releases and ends, and tries again when the key changes hands.
fn one_key() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let to = connection(agent.http());
    let query = Query { consistency: Some(Consistency::Consistent), wait: Some(5.0), index: None };
    // The fencing numbers in the order in which the key was held; a second holder at the same time would find it locked.
    let numbers = Arc::new(Mutex::new(Vec::new()));
    block_on(async {
        let mut contenders = JoinSet::new();
        for _ in 0..50 {
            let (to, numbers) = (to.clone(), Arc::clone(&numbers));
            contenders.spawn(async move {
                let session = CreateOptions { lock_delay: Some(0.0), ttl: Some(60.0), ..CreateOptions::default() };
                let id = answer(host()?.create(&session, Some(&to))).await?.value()?;
                loop {
                    let index = answer(host()?.holder("key", None, Some(&to))).await?.value()?.index;
                    if let Acquisition::Acquired(lock) = answer(host()?.acquire("key", &id, None, Some(&to))).await?.value()? {
                        let mut numbers = numbers.try_lock().map_err(|_| anyhow!("two hold it"))?;
                        // Others run meanwhile.
                        tokio::task::yield_now().await;
                        numbers.push(lock.modify_index);
                        break;
                    }
                    within(
                        Duration::from_secs(6),
                        host()?.holder("key", Some(Query { index: Some(index), ..query }), Some(&to)),
                    )
                    .await?
                    .value()?;
                }
                ensure!(answer(host()?.release("key", &id, None, Some(&to))).await?.value()?);
                answer(host()?.destroy(&id, Some(&to))).await?.value()
            });
        }
        contenders.join_all().await.into_iter().collect::<Result<Vec<()>>>()
    })?;
    let numbers = numbers.blocking_lock();
    ensure!(numbers.len() == 50 && numbers.is_sorted(), "{numbers:?}");
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

fn lock_denied() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let token = limited_token(&agent, r#"key "readable" { policy = "read" } key "writable" { policy = "write" }"#)?;
    let to = Connection { token: Some(token), ..connection(agent.http()) };
    let session = CreateOptions { node: Some(NODE.into()), ..CreateOptions::default() };
    block_on(async {
        let id = answer(host()?.create(&session, Some(&to))).await?.value()?;
        for key in ["hidden", "readable"] {
            for error in [
                answer(host()?.acquire(key, &id, None, Some(&to))).await?.error("access-denied")?,
                answer(host()?.release(key, &id, None, Some(&to))).await?.error("access-denied")?,
            ] {
                ensure!(error.contains("key:write") && error.contains(key), "{error}");
            }
        }
        let error = answer(host()?.holder("hidden", None, Some(&to))).await?.error("access-denied")?;
        ensure!(error.contains("key:read"), "{error}");
        ensure!(answer(host()?.holder("readable", None, Some(&to))).await?.value()?.lock.is_none());
        let acquired = answer(host()?.acquire("writable", &id, None, Some(&to))).await?.value()?;
        ensure!(matches!(acquired, Acquisition::Acquired(_)), "{acquired:?}");
        ensure!(answer(host()?.release("writable", &id, None, Some(&to))).await?.value()?);
        Ok(())
    })
}

fn lock_in_doubt() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let to = Connection { timeout: Some(1.0), ..connection(agent.http()) };
    let session = CreateOptions { ttl: Some(600.0), ..CreateOptions::default() };
    block_on(async {
        let id = answer(host()?.create(&session, Some(&to))).await?.value()?;
        agent.pause()?;
        answer(host()?.acquire("key", &id, None, Some(&to))).await?.error("outcome-unknown")?;
        answer(host()?.holder("key", None, Some(&to))).await?.error("timeout")?;
        agent.resume()?;
        let acquired = answer(host()?.acquire("key", &id, None, Some(&to))).await?.value()?;
        ensure!(matches!(&acquired, Acquisition::Acquired(lock) if lock.lock_index == 1), "{acquired:?}");
        agent.pause()?;
        answer(host()?.release("key", &id, None, Some(&to))).await?.error("outcome-unknown")?;
        agent.resume()?;
        // Whichever of the two released it.
        answer(host()?.release("key", &id, None, Some(&to))).await?.value()?;
        let holding = answer(host()?.holder("key", None, Some(&to))).await?.value()?;
        ensure!(holding.lock.as_ref().is_some_and(|lock| lock.session.is_none()), "{holding:?}");
        Ok(())
    })
}

fn unknown_ca() -> Result<()> {
    let agent = Consul::start(Kind::Tls)?;
    let https = agent.https().context("an HTTPS port")?;
    for host_name in ["localhost", "127.0.0.1"] {
        let options =
            Options { host: Some(host_name.into()), scheme: Some(Scheme::Https), name: Some("x".into()), ..options(https) };
        let text = block_on(apply(&options))?.error("tls")?;
        ensure!(text.contains("--ca-file"), "{text}");
    }
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}
