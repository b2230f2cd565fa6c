//! Concurrent callers of a real Consul: any number of them end with one session, and nothing is
//! half done when the agent dies, pauses or restarts meanwhile.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_host::{
    Acquisition, Connection, Consistency, CreateOptions, OnMismatch, Options, Outcome, Query, Scheme, State,
};
use consul_session_tests::embedded::{Answer, answer, connection, host, options, within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use test_support::block_on;
use test_support::consul::{Consul, Kind, NODE};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// Waits until no other test runs: these tests are about many calls at once and about time, so each
/// has the machine to itself.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Options for `present` by this name.
fn present(agent: &Consul, name: &str) -> Options {
    Options { name: Some(name.into()), ..options(agent.http()) }
}

/// Options for `absent` by this name.
fn absent(agent: &Consul, name: &str) -> Options {
    Options { state: Some(State::Absent), ..present(agent, name) }
}

async fn apply(options: &Options) -> Result<Answer<Outcome>> {
    answer(host()?.apply(options)).await
}

/// Applies all of these at once, each in an instance of its own, and waits for all. Each must
/// succeed.
fn at_once(calls: impl IntoIterator<Item = Options>) -> Result<Vec<Outcome>> {
    block_on(async {
        let mut running = JoinSet::new();
        for options in calls {
            running.spawn(async move { apply(&options).await?.value() });
        }
        running.join_all().await.into_iter().collect()
    })
}

/// Returns the id that all of these outcomes name.
fn one_id(outcomes: &[Outcome]) -> Result<&str> {
    let ids: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.session_id.as_deref()).collect();
    match ids.first() {
        Some(Some(id)) if ids.len() == 1 => Ok(id),
        _ => Err(anyhow!("{} different ids: {ids:?}", ids.len())),
    }
}

/// Returns the ids of the sessions with this name.
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

#[test]
fn present_of_one_name_by_50_callers_creates_one_session() -> Result<()> {
    let _alone = alone();
    let agent = Consul::start(Kind::Plain)?;
    for round in 0..10 {
        let name = format!("x{round}");
        let outcomes = at_once((0..50).map(|_| present(&agent, &name)))?;
        let id = one_id(&outcomes).with_context(|| format!("round {round}"))?;
        ensure!(ids_of(&agent, &name)? == [id], "round {round}: {:?}", ids_of(&agent, &name)?);
        ensure!(changed(&outcomes) == 1, "round {round}: {} callers report that they created it", changed(&outcomes));
    }
    Ok(())
}

#[test]
fn present_of_an_existing_name_by_50_callers_changes_nothing() -> Result<()> {
    let _alone = alone();
    let agent = Consul::start(Kind::Plain)?;
    let first = at_once([present(&agent, "x")])?;
    let outcomes = at_once((0..50).map(|_| present(&agent, "x")))?;
    ensure!(one_id(&outcomes)? == one_id(&first)? && changed(&outcomes) == 0);
    ensure!(ids_of(&agent, "x")?.len() == 1);
    Ok(())
}

/// Options that replace sessions with another delay.
fn replace(agent: &Consul, delay: f64) -> Options {
    Options { delay: Some(delay), on_mismatch: Some(OnMismatch::Replace), ..present(agent, "x") }
}

#[test]
fn replace_by_40_callers_ends_with_one_session() -> Result<()> {
    let _alone = alone();
    let agent = Consul::start(Kind::Plain)?;
    let old = at_once([present(&agent, "x")])?;
    let outcomes = at_once((0..40).map(|_| replace(&agent, 20.0)))?;
    let id = one_id(&outcomes)?;
    ensure!(id != one_id(&old)? && ids_of(&agent, "x")? == [id], "{:?}", ids_of(&agent, "x")?);
    ensure!(changed(&outcomes) == 1, "{} callers report that they replaced it", changed(&outcomes));
    Ok(())
}

#[test]
fn replace_by_two_sessions_from_40_callers_ends_with_one() -> Result<()> {
    let _alone = alone();
    let agent = Consul::start(Kind::Plain)?;
    at_once([present(&agent, "x")])?;
    at_once((0..40).map(|number| replace(&agent, if number % 2 == 0 { 20.0 } else { 30.0 })))?;
    ensure!(ids_of(&agent, "x")?.len() == 1, "{:?}", ids_of(&agent, "x")?);
    Ok(())
}

#[test]
fn present_and_absent_by_50_callers_leave_at_most_one_session() -> Result<()> {
    let _alone = alone();
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

#[test]
fn present_of_50_names_creates_50_sessions() -> Result<()> {
    let _alone = alone();
    let agent = Consul::start(Kind::Plain)?;
    let outcomes = at_once((0..50).map(|number| present(&agent, &format!("x{number}"))))?;
    let ids: BTreeSet<_> = outcomes.iter().filter_map(|outcome| outcome.session_id.clone()).collect();
    let stored: BTreeSet<_> = agent.api().sessions()?.iter().map(|session| text(&session["ID"])).collect();
    ensure!(ids.len() == 50 && ids == stored, "{} and {}", ids.len(), stored.len());
    Ok(())
}

/// Creates a token that can create sessions everywhere, cannot read `/v1/agent/self`, and has these
/// further rules.
fn limited_token(agent: &Consul, more: &str) -> Result<String> {
    let rules = format!(r#"session_prefix "" {{ policy = "write" }} {more}"#);
    agent.api().put("/v1/acl/policy", Some(&json!({"Name": "sessions", "Rules": rules})))?;
    let token = agent.api().put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "sessions"}]})))?;
    Ok(text(&token["SecretID"]))
}

/// Starts an ACL agent with a session of the name on another node, so that the agent's own node
/// matters. Returns it with the options of a caller without permission to read that node.
fn agent_with_another_node() -> Result<(Consul, Options)> {
    let agent = Consul::start(Kind::Acl)?;
    agent.api().put("/v1/catalog/register", Some(&json!({"Node": "n2", "Address": "127.0.0.1"})))?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "x", "Node": "n2", "NodeChecks": []})))?;
    let caller = Options { token: Some(limited_token(&agent, "")?), ..present(&agent, "x") };
    Ok((agent, caller))
}

/// Returns the ids of the sessions named x on the agent's own node.
fn own_ids(agent: &Consul) -> Result<Vec<String>> {
    let sessions = agent.api().sessions()?;
    let own = sessions.iter().filter(|session| session["Name"] == "x" && session["Node"] == NODE);
    Ok(own.map(|session| text(&session["ID"])).collect())
}

#[test]
fn present_without_permission_to_read_the_agent_creates_one_session() -> Result<()> {
    let _alone = alone();
    let (agent, caller) = agent_with_another_node()?;
    let outcomes = at_once((0..20).map(|_| caller.clone()))?;
    ensure!(own_ids(&agent)? == [one_id(&outcomes)?], "{:?}", own_ids(&agent)?);
    ensure!(ids_of(&agent, "x")?.len() == 2, "the session on the other node is gone");
    Ok(())
}

/// Starts an agent as [`agent_with_another_node`] with two sessions of the name on its own node.
/// Returns their ids too, and a caller who wants a delay of 15 seconds.
fn agent_with_two_sessions(delays: [&str; 2]) -> Result<(Consul, Options, [String; 2])> {
    let (agent, caller) = agent_with_another_node()?;
    let create = |delay: &str| agent.api().put("/v1/session/create", Some(&json!({"Name": "x", "LockDelay": delay})));
    let existing = [create(delays[0])?, create(delays[1])?].map(|session| text(&session["ID"]));
    Ok((agent, Options { delay: Some(15.0), ..caller }, existing))
}

#[test]
fn present_without_permission_to_read_the_agent_finds_the_oldest_session() -> Result<()> {
    let _alone = alone();
    let (agent, caller, existing) = agent_with_two_sessions(["15s", "30s"])?;
    let outcomes = at_once((0..20).map(|_| caller.clone()))?;
    ensure!(one_id(&outcomes)? == existing[0] && changed(&outcomes) == 0, "{outcomes:?}");
    ensure!(own_ids(&agent)?.into_iter().collect::<BTreeSet<_>>() == existing.into(), "{:?}", own_ids(&agent)?);
    Ok(())
}

/// The oldest session is the session of the name, also where a younger one would match.
#[test]
fn present_without_permission_to_read_the_agent_compares_the_oldest_session() -> Result<()> {
    let _alone = alone();
    let (agent, caller, existing) = agent_with_two_sessions(["30s", "15s"])?;
    block_on(async {
        let mut running = JoinSet::new();
        for caller in std::iter::repeat_n(caller, 20) {
            running.spawn(async move { apply(&caller).await });
        }
        for answer in running.join_all().await {
            let message = answer?.error("mismatch")?;
            ensure!(existing.iter().all(|id| message.contains(id)), "{message}");
        }
        anyhow::Ok(())
    })?;
    ensure!(own_ids(&agent)?.into_iter().collect::<BTreeSet<_>>() == existing.into(), "{:?}", own_ids(&agent)?);
    Ok(())
}

/// The timeout of a call while the agent fails.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Callers that run until they are stopped. Each makes a name of its own present and absent in
/// turn, so that at any moment some are in each phase of a call.
struct Callers {
    stop: watch::Sender<bool>,
    /// The successes and errors of each caller.
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

    /// Waits until the counts of each caller have `reached` a state, given those of now.
    fn wait_until(&mut self, reached: impl Fn(Counts, Counts) -> bool) -> Result<()> {
        block_on(async {
            for counts in &mut self.counts {
                let begin = *counts.borrow();
                // An error means that the caller ended, which `stop` reports.
                let waiting = counts.wait_for(|now| reached(begin, *now));
                if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
                    return Err(anyhow!("a caller makes no progress: {:?}", *counts.borrow()));
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
        // Without receivers, all callers have ended.
        let _ = self.stop.send(true);
        block_on(self.running.join_all()).into_iter().collect()
    }
}

/// Applies the two in turn until `stop`. Only the errors of a failing agent are accepted, and they
/// must be in time.
async fn call_in_turn(pair: [Options; 2], stop: watch::Receiver<bool>, counts: watch::Sender<Counts>) -> Result<()> {
    for options in pair.iter().cycle() {
        if *stop.borrow() {
            break;
        }
        match within(TIMEOUT, host()?.apply(options)).await?.0 {
            Ok(_) => counts.send_modify(|counts| counts.successes += 1),
            Err(error) => {
                let expected = ["unreachable", "timeout", "outcome-unknown", "invalid-response", "unavailable"];
                ensure!(expected.contains(&error.name()), "{error:?}");
                counts.send_modify(|counts| counts.errors += 1);
                // Connections to a dead agent fail at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// Makes an agent fail and recover while callers run, and then checks the sessions that are left.
fn nothing_is_half_done(fail: impl FnOnce(&mut Consul, &mut Callers) -> Result<()>) -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let mut callers = Callers::start(&agent);
    callers.wait_for_successes()?;
    let result = fail(&mut agent, &mut callers).and_then(|()| callers.wait_for_successes());
    // The error of a caller explains more than that of waiting for it.
    callers.stop()?;
    result?;
    for number in 0..Callers::COUNT {
        let name = Callers::name(number);
        let left = ids_of(&agent, &name)?;
        ensure!(left.len() <= 1, "{name}: {left:?}");
        // The next call converges, whatever the outcome of the last.
        let outcomes = at_once([present(&agent, &name)])?;
        ensure!(ids_of(&agent, &name)? == [one_id(&outcomes)?]);
        at_once([absent(&agent, &name)])?;
        ensure!(ids_of(&agent, &name)?.is_empty());
    }
    Ok(())
}

#[test]
fn killed_agent_leaves_nothing_half_done() -> Result<()> {
    let _alone = alone();
    nothing_is_half_done(|agent, callers| {
        agent.kill()?;
        callers.wait_for_errors()?;
        agent.restart()
    })
}

#[test]
fn paused_agent_leaves_nothing_half_done() -> Result<()> {
    let _alone = alone();
    nothing_is_half_done(|agent, callers| {
        agent.pause()?;
        callers.wait_for_errors()?;
        agent.resume()
    })
}

#[test]
fn restarted_agent_leaves_nothing_half_done() -> Result<()> {
    let _alone = alone();
    nothing_is_half_done(|agent, _| {
        agent.kill()?;
        agent.restart()
    })
}

/// Callers that died between creating and comparing can leave several sessions; the next callers
/// must still agree on one.
#[test]
fn callers_of_one_name_agree_after_a_crash() -> Result<()> {
    let _alone = alone();
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let calls: Vec<_> = (0..20).map(|_| Options { timeout: Some(TIMEOUT.as_secs_f64()), ..present(&agent, "x") }).collect();
    block_on(async {
        let mut running = JoinSet::new();
        for options in calls {
            running.spawn(async move { within(TIMEOUT, host()?.apply(&options)).await });
        }
        // Kills the agent in the middle: when the first sessions exist.
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

#[test]
fn blocking_query_ends_when_the_agent_dies() -> Result<()> {
    let _alone = alone();
    let mut agent = Consul::start(Kind::Plain)?;
    let to = connection(agent.http());
    let index = block_on(answer(host()?.list_sessions(None, Some(&to))))?.value()?.index;
    let query = Query { index: Some(index), wait: Some(300.0), consistency: None };
    // The query is sent, and cannot be answered before the agent dies.
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

#[test]
fn reads_without_a_token_report_hidden_sessions() -> Result<()> {
    let _alone = alone();
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

/// Each contender acquires and releases the key and ends, and retries when the key changes hands.
#[test]
fn key_held_by_50_sessions_in_turn_has_rising_fencing_numbers() -> Result<()> {
    let _alone = alone();
    let agent = Consul::start(Kind::Plain)?;
    let to = connection(agent.http());
    let query = Query { consistency: Some(Consistency::Consistent), wait: Some(5.0), index: None };
    // The fencing numbers in the order of the holders. A second holder at the same time would find
    // the mutex locked.
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
                        let mut numbers = numbers.try_lock().map_err(|_| anyhow!("two sessions hold the key"))?;
                        // Lets other contenders run.
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

#[test]
fn locks_without_key_permissions_are_denied() -> Result<()> {
    let _alone = alone();
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

#[test]
fn lock_with_an_unknown_outcome_can_be_retried() -> Result<()> {
    let _alone = alone();
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
        // Either of the two releases released it.
        answer(host()?.release("key", &id, None, Some(&to))).await?.value()?;
        let holding = answer(host()?.holder("key", None, Some(&to))).await?.value()?;
        ensure!(holding.lock.as_ref().is_some_and(|lock| lock.session.is_none()), "{holding:?}");
        Ok(())
    })
}

#[test]
fn certificate_of_an_unknown_ca_is_refused() -> Result<()> {
    let _alone = alone();
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
