//! Each function of `sessions`, and of `locks`, against a real Consul and against the dev agent: the same tests for both.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_dev_agent::DevAgent;
use consul_session_host::{
    Behavior, Connection, Consistency, CreateOptions, Listing, Lookup, Query, Scheme, ServiceCheck, Session,
};
use consul_session_tests::embedded::{Answer, answer, connection, host, start_dev_agent, within};
use libtest_mimic::Trial;
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use test_support::agent::Api;
use test_support::consul::{Consul, Kind};
use test_support::trial::trial;
use test_support::{TOKEN, block_on, started};

/// A session that does not exist.
pub const MISSING: &str = "00000000-0000-4000-8000-000000000000";

pub type Test = fn(&Agent) -> Result<()>;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("a session is created as asked for", creates_all),
        ("a session is created with Consul's defaults", creates_default),
        ("each creation makes another session", creates_again),
        ("no node checks means none", creates_without_checks),
        ("a session needs a node that exists", unknown_node),
        ("a session needs checks that exist", unknown_check),
        ("a session needs checks that pass", critical_check),
        ("a destroyed session is gone", destroys),
        ("a session is destroyed once and may be destroyed again", destroys_again),
        ("a renewal gives the session", renews),
        ("a missing session cannot be renewed", renews_missing),
        ("a missing session is no error to ask for", info_missing),
        ("an id is taken in upper case", upper_case),
        ("a node has its own sessions only", node),
        ("a node has any name", odd_node_name),
        ("a node that does not exist has no sessions", node_missing),
        ("sessions are listed by age", by_age),
        ("every consistency shows the sessions", consistency),
        ("a blocking query is woken by a change", woken),
        ("a blocking query of one session is woken by its end", woken_by_end),
        ("a blocking query may wait longer than the timeout", waits_longer),
        ("the agent's datacenter may be named, another is unknown", datacenter),
        ("namespaces and partitions are refused", enterprise),
        ("a token that is not needed does no harm", needless_token),
        ("HTTPS to the port for HTTP is no TLS", https_to_http),
    ];
    let agents = Arc::new(Agents::default());
    let no_consul = Consul::is_missing();
    let mut trials = Vec::new();
    for &(name, test) in tests.iter().chain(crate::locks::TESTS) {
        for place in [Place::Consul, Place::DevAgent] {
            let agents = Arc::clone(&agents);
            let ignored = matches!(place, Place::Consul) && no_consul;
            trials.push(trial(format!("{place:?}: {name}"), move || agents.run(place, test)).with_ignored_flag(ignored));
        }
    }
    trials
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Consul,
    DevAgent,
}

/// Both agents, each started by the first test that needs it and used by one test at a time.
#[derive(Default)]
struct Agents {
    consul: OnceLock<Result<Consul>>,
    consul_in_use: Mutex<()>,
    dev: OnceLock<Result<DevAgent>>,
    dev_in_use: Mutex<()>,
}

impl Agents {
    fn run(&self, place: Place, test: Test) -> Result<()> {
        let in_use = match place {
            Place::Consul => &self.consul_in_use,
            Place::DevAgent => &self.dev_in_use,
        };
        let _in_use = in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let api = match place {
            Place::Consul => started(self.consul.get_or_init(|| Consul::start(Kind::Plain)))?.api(),
            Place::DevAgent => {
                let dev = self.dev.get_or_init(|| start_dev_agent((Ipv4Addr::LOCALHOST, 0).into()));
                Api::new(started(dev)?.addr(), Kind::Plain)
            }
        };
        api.clean()?;
        test(&Agent { to: connection(api.address), api })
    }
}

/// An agent without sessions, and the plugin's functions with a connection to it.
pub struct Agent {
    pub api: Api,
    pub to: Connection,
}

impl Agent {
    pub fn create(&self, session: &CreateOptions) -> Result<Answer<String>> {
        block_on(answer(host()?.create(session, Some(&self.to))))
    }

    pub fn destroy(&self, id: &str) -> Result<Answer<()>> {
        block_on(answer(host()?.destroy(id, Some(&self.to))))
    }

    fn renew(&self, id: &str) -> Result<Answer<Session>> {
        block_on(answer(host()?.renew(id, Some(&self.to))))
    }

    fn info(&self, id: &str) -> Result<Lookup> {
        block_on(answer(host()?.info(id, None, Some(&self.to))))?.value()
    }

    fn node(&self, node: &str) -> Result<Listing> {
        block_on(answer(host()?.node(node, None, Some(&self.to))))?.value()
    }

    fn list(&self) -> Result<Listing> {
        self.listed(None, &self.to)?.value()
    }

    fn listed(&self, query: Option<Query>, to: &Connection) -> Result<Answer<Listing>> {
        block_on(answer(host()?.list_sessions(query, Some(to))))
    }

    /// Creates a session of this name, on the agent's own node.
    fn named(&self, name: &str) -> Result<String> {
        self.create(&CreateOptions { name: Some(name.into()), ..CreateOptions::default() })?.value()
    }

    /// Registers a node and creates a session on it.
    fn on_new_node(&self, node: &str) -> Result<String> {
        self.api.put("/v1/catalog/register", Some(&json!({"Node": node, "Address": "127.0.0.1"})))?;
        self.create(&CreateOptions { node: Some(node.into()), node_checks: Some(vec![]), ..CreateOptions::default() })?.value()
    }
}

fn ids(sessions: &[Session]) -> Vec<&str> {
    sessions.iter().map(|session| session.id.as_str()).collect()
}

fn creates_all(agent: &Agent) -> Result<()> {
    let id = agent
        .create(&CreateOptions {
            name: Some("\"s1\" ü".into()),
            node: Some(agent.api.node()?),
            lock_delay: Some(0.5),
            behavior: Some(Behavior::Delete),
            ttl: Some(600.0),
            node_checks: Some(vec!["serfHealth".into(), "passing-check".into()]),
            service_checks: Some(vec!["service:web".into()]),
        })?
        .value()?;
    let session = agent.info(&id)?.session.context("it is not there")?;
    let expected = Session {
        id,
        name: "\"s1\" ü".into(),
        node: agent.api.node()?,
        lock_delay: 500_000_000,
        behavior: "delete".into(),
        ttl: "600s".into(),
        node_checks: vec!["serfHealth".into(), "passing-check".into()],
        service_checks: vec![ServiceCheck { id: "service:web".into(), namespace: String::new() }],
        checks: vec![],
        namespace: None,
        partition: None,
        create_index: session.create_index,
        modify_index: session.create_index,
    };
    ensure!(session == expected, "{session:?}");
    ensure!(session.create_index > 0);
    Ok(())
}

fn creates_default(agent: &Agent) -> Result<()> {
    let id = agent.create(&CreateOptions::default())?.value()?;
    let session = agent.info(&id)?.session.context("it is not there")?;
    ensure!(session.node == agent.api.node()?, "{session:?}");
    ensure!((session.lock_delay, session.behavior.as_str()) == (15_000_000_000, "release"), "{session:?}");
    ensure!(session.node_checks == ["serfHealth"] && session.service_checks.is_empty(), "{session:?}");
    ensure!(session.name.is_empty() && session.ttl.is_empty(), "{session:?}");
    Ok(())
}

fn creates_again(agent: &Agent) -> Result<()> {
    let pair = [agent.named("s1")?, agent.named("s1")?];
    ensure!(pair[0] != pair[1]);
    ensure!(ids(&agent.list()?.sessions) == pair);
    Ok(())
}

fn creates_without_checks(agent: &Agent) -> Result<()> {
    let id = agent.create(&CreateOptions { node_checks: Some(vec![]), ..CreateOptions::default() })?.value()?;
    let session = agent.info(&id)?.session.context("it is not there")?;
    ensure!(session.node_checks.is_empty() && session.checks.is_empty(), "{session:?}");
    Ok(())
}

fn unknown_node(agent: &Agent) -> Result<()> {
    let session = CreateOptions { node: Some("nowhere".into()), ..CreateOptions::default() };
    agent.create(&session)?.error("unknown-node").map(|_| ())
}

fn unknown_check(agent: &Agent) -> Result<()> {
    let session = CreateOptions { node_checks: Some(vec!["no-such-check".into()]), ..CreateOptions::default() };
    let text = agent.create(&session)?.error("unknown-check")?;
    ensure!(text.contains("no-such-check"), "{text}");
    Ok(())
}

fn critical_check(agent: &Agent) -> Result<()> {
    let session = CreateOptions { node_checks: Some(vec!["critical-check".into()]), ..CreateOptions::default() };
    let text = agent.create(&session)?.error("critical-check")?;
    ensure!(text.contains("critical-check"), "{text}");
    Ok(())
}

fn destroys(agent: &Agent) -> Result<()> {
    let (gone, stays) = (agent.named("s1")?, agent.named("s1")?);
    agent.destroy(&gone)?.value()?;
    ensure!(ids(&agent.list()?.sessions) == [stays]);
    Ok(())
}

fn destroys_again(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    agent.destroy(&id)?.value()?;
    agent.destroy(&id)?.value()?;
    agent.destroy(MISSING)?.value()
}

fn renews(agent: &Agent) -> Result<()> {
    let id = agent.create(&CreateOptions { ttl: Some(10.0), ..CreateOptions::default() })?.value()?;
    let session = agent.renew(&id)?.value()?;
    ensure!(Some(&session) == agent.info(&id)?.session.as_ref(), "{session:?}");
    // Without a TTL there is nothing to restart, which is no error.
    let id = agent.named("s1")?;
    ensure!(agent.renew(&id)?.value()?.id == id);
    Ok(())
}

fn renews_missing(agent: &Agent) -> Result<()> {
    let text = agent.renew(MISSING)?.error("not-found")?;
    ensure!(text.contains(MISSING), "{text}");
    Ok(())
}

fn info_missing(agent: &Agent) -> Result<()> {
    agent.named("s1")?;
    let lookup = agent.info(MISSING)?;
    ensure!(lookup.session.is_none() && !lookup.filtered, "{lookup:?}");
    // The index is that of the whole table.
    ensure!(lookup.index == agent.list()?.index, "{lookup:?}");
    Ok(())
}

fn upper_case(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    let session = agent.info(&id.to_uppercase())?.session.context("it is not there")?;
    ensure!(session.id == id);
    Ok(())
}

fn node(agent: &Agent) -> Result<()> {
    let (own, other) = (agent.named("s1")?, agent.on_new_node("n2")?);
    ensure!(ids(&agent.node(&agent.api.node()?)?.sessions) == [own]);
    // Names of nodes have no case.
    ensure!(ids(&agent.node("N2")?.sessions) == [other]);
    Ok(())
}

fn odd_node_name(agent: &Agent) -> Result<()> {
    let name = "n 2/100%?#&+ü";
    let id = agent.on_new_node(name)?;
    let listing = agent.node(name)?;
    ensure!(ids(&listing.sessions) == [id] && listing.sessions[0].node == name, "{listing:?}");
    Ok(())
}

fn node_missing(agent: &Agent) -> Result<()> {
    agent.named("s1")?;
    let listing = agent.node("nowhere")?;
    ensure!(listing.sessions.is_empty() && listing.index > 0 && !listing.filtered, "{listing:?}");
    Ok(())
}

fn by_age(agent: &Agent) -> Result<()> {
    // Consul sorts by id, which is random: eight are as good as never in order by chance.
    let created = (0..8).map(|_| agent.named("s1")).collect::<Result<Vec<_>>>()?;
    let listing = agent.list()?;
    ensure!(ids(&listing.sessions) == created);
    ensure!(Some(listing.index) == listing.sessions.last().map(|session| session.create_index), "{listing:?}");
    Ok(())
}

fn consistency(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    for consistency in [Consistency::Default, Consistency::Stale, Consistency::Consistent] {
        let query = Query { consistency: Some(consistency), ..Query::default() };
        let listing = agent.listed(Some(query), &agent.to)?.value()?;
        ensure!(ids(&listing.sessions) == [id.as_str()], "{consistency:?}: {listing:?}");
    }
    Ok(())
}

/// Makes a blocking query that may take a minute, and in the meantime a change.
fn woken_by<T: Send>(query: impl FnOnce() -> Result<T> + Send, change: impl FnOnce() -> Result<()>) -> Result<T> {
    let start = Instant::now();
    // Whichever comes first: a query that comes after the change is answered at once.
    let woken = thread::scope(|scope| {
        let query = scope.spawn(query);
        change()?;
        query.join().map_err(|_| anyhow!("the query panicked"))?
    })?;
    ensure!(start.elapsed() < Duration::from_secs(30), "it was not woken in {:?}", start.elapsed());
    Ok(woken)
}

fn minute_from(index: u64) -> Query {
    Query { index: Some(index), wait: Some(60.0), consistency: None }
}

fn woken(agent: &Agent) -> Result<()> {
    agent.named("s1")?;
    let before = agent.list()?;
    let query = || {
        let call = host()?.list_sessions(Some(minute_from(before.index)), Some(&agent.to));
        block_on(within(Duration::from_secs(60), call))?.value()
    };
    let after = woken_by(query, || agent.named("s2").map(|_| ()))?;
    ensure!(after.index > before.index && after.sessions.len() == 2, "{after:?}");
    Ok(())
}

fn woken_by_end(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    let before = agent.info(&id)?;
    let query = || {
        let call = host()?.info(&id, Some(minute_from(before.index)), Some(&agent.to));
        block_on(within(Duration::from_secs(60), call))?.value()
    };
    let after = woken_by(query, || agent.destroy(&id)?.value())?;
    ensure!(after.index > before.index && after.session.is_none(), "{after:?}");
    Ok(())
}

fn waits_longer(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    let index = agent.list()?.index;
    let to = Connection { timeout: Some(0.5), ..agent.to.clone() };
    let query = Query { index: Some(index), wait: Some(1.5), consistency: Some(Consistency::Stale) };
    let start = Instant::now();
    let listing =
        block_on(within(Duration::from_secs(2), host()?.node(&agent.api.node()?, Some(query), Some(&to))))?.value()?;
    ensure!(start.elapsed() >= Duration::from_millis(1500), "it waited only {:?}", start.elapsed());
    ensure!(listing.index == index && ids(&listing.sessions) == [id], "{listing:?}");
    Ok(())
}

fn datacenter(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    let to = |name: &str| Connection { datacenter: Some(name.into()), ..agent.to.clone() };
    ensure!(ids(&agent.listed(None, &to("dc1"))?.value()?.sessions) == [id.as_str()]);
    agent.listed(None, &to("elsewhere"))?.error("unknown-datacenter")?;
    block_on(answer(host()?.destroy(&id, Some(&to("elsewhere")))))?.error("unknown-datacenter")?;
    ensure!(agent.info(&id)?.session.is_some(), "destroyed here, not there");
    Ok(())
}

fn enterprise(agent: &Agent) -> Result<()> {
    let namespace = Connection { namespace: Some("n".into()), ..agent.to.clone() };
    agent.listed(None, &namespace)?.error("unsupported")?;
    let partition = Connection { partition: Some("p".into()), ..agent.to.clone() };
    block_on(answer(host()?.create(&CreateOptions::default(), Some(&partition))))?.error("unsupported")?;
    ensure!(agent.list()?.sessions.is_empty());
    Ok(())
}

fn needless_token(agent: &Agent) -> Result<()> {
    let id = agent.named("s1")?;
    let to = Connection { token: Some(TOKEN.into()), ..agent.to.clone() };
    let listing = agent.listed(None, &to)?.value()?;
    ensure!(ids(&listing.sessions) == [id] && !listing.filtered, "{listing:?}");
    Ok(())
}

fn https_to_http(agent: &Agent) -> Result<()> {
    let to = Connection { scheme: Some(Scheme::Https), ..agent.to.clone() };
    let text = agent.listed(None, &to)?.error("tls")?;
    ensure!(text.contains("does not speak TLS"), "{text}");
    Ok(())
}
