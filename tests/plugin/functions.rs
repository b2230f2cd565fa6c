//! Each function of `sessions` against a real Consul and against the dev agent, with the same tests
//! for both.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_host::{
    Behavior, Connection, Consistency, CreateOptions, Listing, Lookup, Query, Scheme, ServiceCheck, Session,
};
use consul_session_tests::embedded::{Answer, answer, connection, host, start_dev_agent, within};
use serde_json::json;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};
use test_support::api::Api;
use test_support::consul::{Consul, Kind};
use test_support::{TOKEN, block_on};

/// The id of a session that does not exist.
pub const MISSING: &str = "00000000-0000-4000-8000-000000000000";

/// Runs a test against a new Consul and against a new dev agent.
pub fn on_every_agent(test: impl Fn(&Agent) -> Result<()>) -> Result<()> {
    let run = |api: Api| test(&Agent { to: connection(api.address), api });
    let consul = Consul::start(Kind::Plain)?;
    run(consul.api()).context("against a real Consul")?;
    let dev_agent = start_dev_agent((Ipv4Addr::LOCALHOST, 0).into())?;
    run(Api::new(dev_agent.addr(), Kind::Plain)).context("against the dev agent")
}

/// An agent without sessions, and the plugin's functions called on it.
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

    /// Creates a session with this name on the agent's own node.
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

#[test]
fn create_with_every_option_stores_them() -> Result<()> {
    on_every_agent(|agent| {
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
        let session = agent.info(&id)?.session.context("the session is missing")?;
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
    })
}

#[test]
fn create_without_options_stores_the_defaults() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.create(&CreateOptions::default())?.value()?;
        let session = agent.info(&id)?.session.context("the session is missing")?;
        ensure!(session.node == agent.api.node()?, "{session:?}");
        ensure!((session.lock_delay, session.behavior.as_str()) == (15_000_000_000, "release"), "{session:?}");
        ensure!(session.node_checks == ["serfHealth"] && session.service_checks.is_empty(), "{session:?}");
        ensure!(session.name.is_empty() && session.ttl.is_empty(), "{session:?}");
        Ok(())
    })
}

#[test]
fn create_makes_another_session_each_time() -> Result<()> {
    on_every_agent(|agent| {
        let pair = [agent.named("s1")?, agent.named("s1")?];
        ensure!(pair[0] != pair[1]);
        ensure!(ids(&agent.list()?.sessions) == pair);
        Ok(())
    })
}

#[test]
fn create_without_node_checks_stores_none() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.create(&CreateOptions { node_checks: Some(vec![]), ..CreateOptions::default() })?.value()?;
        let session = agent.info(&id)?.session.context("the session is missing")?;
        ensure!(session.node_checks.is_empty() && session.checks.is_empty(), "{session:?}");
        Ok(())
    })
}

#[test]
fn create_on_an_unknown_node_fails() -> Result<()> {
    on_every_agent(|agent| {
        let session = CreateOptions { node: Some("nowhere".into()), ..CreateOptions::default() };
        agent.create(&session)?.error("unknown-node").map(|_| ())
    })
}

#[test]
fn create_with_an_unknown_check_fails() -> Result<()> {
    on_every_agent(|agent| {
        let session = CreateOptions { node_checks: Some(vec!["no-such-check".into()]), ..CreateOptions::default() };
        let text = agent.create(&session)?.error("unknown-check")?;
        ensure!(text.contains("no-such-check"), "{text}");
        Ok(())
    })
}

#[test]
fn create_with_a_critical_check_fails() -> Result<()> {
    on_every_agent(|agent| {
        let session = CreateOptions { node_checks: Some(vec!["critical-check".into()]), ..CreateOptions::default() };
        let text = agent.create(&session)?.error("critical-check")?;
        ensure!(text.contains("critical-check"), "{text}");
        Ok(())
    })
}

#[test]
fn destroy_removes_the_session() -> Result<()> {
    on_every_agent(|agent| {
        let (gone, stays) = (agent.named("s1")?, agent.named("s1")?);
        agent.destroy(&gone)?.value()?;
        ensure!(ids(&agent.list()?.sessions) == [stays]);
        Ok(())
    })
}

#[test]
fn destroy_is_idempotent() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.named("s1")?;
        agent.destroy(&id)?.value()?;
        agent.destroy(&id)?.value()?;
        agent.destroy(MISSING)?.value()
    })
}

#[test]
fn renew_returns_the_session() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.create(&CreateOptions { ttl: Some(10.0), ..CreateOptions::default() })?.value()?;
        let session = agent.renew(&id)?.value()?;
        ensure!(Some(&session) == agent.info(&id)?.session.as_ref(), "{session:?}");
        // Without a TTL a renewal restarts nothing, which is not an error.
        let id = agent.named("s1")?;
        ensure!(agent.renew(&id)?.value()?.id == id);
        Ok(())
    })
}

#[test]
fn renew_of_a_missing_session_fails() -> Result<()> {
    on_every_agent(|agent| {
        let text = agent.renew(MISSING)?.error("not-found")?;
        ensure!(text.contains(MISSING), "{text}");
        Ok(())
    })
}

#[test]
fn info_of_a_missing_session_returns_none() -> Result<()> {
    on_every_agent(|agent| {
        agent.named("s1")?;
        let lookup = agent.info(MISSING)?;
        ensure!(lookup.session.is_none() && !lookup.filtered, "{lookup:?}");
        // The index is that of the whole session table.
        ensure!(lookup.index == agent.list()?.index, "{lookup:?}");
        Ok(())
    })
}

#[test]
fn info_accepts_an_upper_case_id() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.named("s1")?;
        let session = agent.info(&id.to_uppercase())?.session.context("the session is missing")?;
        ensure!(session.id == id);
        Ok(())
    })
}

#[test]
fn node_returns_only_its_own_sessions() -> Result<()> {
    on_every_agent(|agent| {
        let (own, other) = (agent.named("s1")?, agent.on_new_node("n2")?);
        ensure!(ids(&agent.node(&agent.api.node()?)?.sessions) == [own]);
        // Node names are not case-sensitive.
        ensure!(ids(&agent.node("N2")?.sessions) == [other]);
        Ok(())
    })
}

#[test]
fn node_accepts_any_name() -> Result<()> {
    on_every_agent(|agent| {
        let name = "n 2/100%?#&+ü";
        let id = agent.on_new_node(name)?;
        let listing = agent.node(name)?;
        ensure!(ids(&listing.sessions) == [id] && listing.sessions[0].node == name, "{listing:?}");
        Ok(())
    })
}

#[test]
fn node_of_an_unknown_node_returns_no_sessions() -> Result<()> {
    on_every_agent(|agent| {
        agent.named("s1")?;
        let listing = agent.node("nowhere")?;
        ensure!(listing.sessions.is_empty() && listing.index > 0 && !listing.filtered, "{listing:?}");
        Ok(())
    })
}

#[test]
fn list_is_sorted_by_age() -> Result<()> {
    on_every_agent(|agent| {
        // Consul sorts by id, which is random: eight are almost never in order by chance.
        let created = (0..8).map(|_| agent.named("s1")).collect::<Result<Vec<_>>>()?;
        let listing = agent.list()?;
        ensure!(ids(&listing.sessions) == created);
        ensure!(Some(listing.index) == listing.sessions.last().map(|session| session.create_index), "{listing:?}");
        Ok(())
    })
}

#[test]
fn list_with_every_consistency_returns_the_sessions() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.named("s1")?;
        for consistency in [Consistency::Default, Consistency::Stale, Consistency::Consistent] {
            let query = Query { consistency: Some(consistency), ..Query::default() };
            let listing = agent.listed(Some(query), &agent.to)?.value()?;
            ensure!(ids(&listing.sessions) == [id.as_str()], "{consistency:?}: {listing:?}");
        }
        Ok(())
    })
}

/// Makes a blocking query that may take a minute, and a change meanwhile.
fn woken_by<T: Send>(query: impl FnOnce() -> Result<T> + Send, change: impl FnOnce() -> Result<()>) -> Result<T> {
    let start = Instant::now();
    // The order does not matter: a query that arrives after the change returns at once.
    let woken = thread::scope(|scope| {
        let query = scope.spawn(query);
        change()?;
        query.join().map_err(|_| anyhow!("the query panicked"))?
    })?;
    ensure!(start.elapsed() < Duration::from_secs(30), "the query did not return within {:?}", start.elapsed());
    Ok(woken)
}

fn minute_from(index: u64) -> Query {
    Query { index: Some(index), wait: Some(60.0), consistency: None }
}

#[test]
fn blocking_list_returns_after_a_change() -> Result<()> {
    on_every_agent(|agent| {
        agent.named("s1")?;
        let before = agent.list()?;
        let query = || {
            let call = host()?.list_sessions(Some(minute_from(before.index)), Some(&agent.to));
            block_on(within(Duration::from_secs(60), call))?.value()
        };
        let after = woken_by(query, || agent.named("s2").map(|_| ()))?;
        ensure!(after.index > before.index && after.sessions.len() == 2, "{after:?}");
        Ok(())
    })
}

#[test]
fn blocking_info_returns_after_the_session_ends() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.named("s1")?;
        let before = agent.info(&id)?;
        let query = || {
            let call = host()?.info(&id, Some(minute_from(before.index)), Some(&agent.to));
            block_on(within(Duration::from_secs(60), call))?.value()
        };
        let after = woken_by(query, || agent.destroy(&id)?.value())?;
        ensure!(after.index > before.index && after.session.is_none(), "{after:?}");
        Ok(())
    })
}

#[test]
fn blocking_query_waits_longer_than_the_timeout() -> Result<()> {
    on_every_agent(|agent| {
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
    })
}

#[test]
fn datacenter_of_the_agent_is_accepted_and_others_are_unknown() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.named("s1")?;
        let to = |name: &str| Connection { datacenter: Some(name.into()), ..agent.to.clone() };
        ensure!(ids(&agent.listed(None, &to("dc1"))?.value()?.sessions) == [id.as_str()]);
        agent.listed(None, &to("elsewhere"))?.error("unknown-datacenter")?;
        block_on(answer(host()?.destroy(&id, Some(&to("elsewhere")))))?.error("unknown-datacenter")?;
        ensure!(agent.info(&id)?.session.is_some(), "destroyed here, not there");
        Ok(())
    })
}

#[test]
fn namespaces_and_partitions_are_unsupported() -> Result<()> {
    on_every_agent(|agent| {
        let namespace = Connection { namespace: Some("n".into()), ..agent.to.clone() };
        agent.listed(None, &namespace)?.error("unsupported")?;
        let partition = Connection { partition: Some("p".into()), ..agent.to.clone() };
        block_on(answer(host()?.create(&CreateOptions::default(), Some(&partition))))?.error("unsupported")?;
        ensure!(agent.list()?.sessions.is_empty());
        Ok(())
    })
}

#[test]
fn token_without_acls_is_ignored() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.named("s1")?;
        let to = Connection { token: Some(TOKEN.into()), ..agent.to.clone() };
        let listing = agent.listed(None, &to)?.value()?;
        ensure!(ids(&listing.sessions) == [id] && !listing.filtered, "{listing:?}");
        Ok(())
    })
}

#[test]
fn https_to_an_http_port_is_a_tls_error() -> Result<()> {
    on_every_agent(|agent| {
        let to = Connection { scheme: Some(Scheme::Https), ..agent.to.clone() };
        let text = agent.listed(None, &to)?.error("tls")?;
        ensure!(text.contains("does not speak TLS"), "{text}");
        Ok(())
    })
}
