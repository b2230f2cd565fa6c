//! The servers that the workloads run against: the canned server and a real agent.

use crate::canned::{self, Server};
use crate::workload::{Workload, sizes};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Mutex;
use test_support::consul::{Consul, Settings};

/// Name of the sessions that workloads create.
pub const CREATED: &str = "made";
/// Name of the canned server in the tables.
pub const CANNED: &str = "canned server";
/// Name of the real agent in the tables.
pub const AGENT: &str = "real agent";
/// Number of concurrent requests that prepare an agent.
const AT_ONCE: usize = 8;

/// A server that workloads run against.
pub struct Backend {
    /// Name in the tables.
    pub name: &'static str,
    /// ID of a session that exists.
    pub id: String,
    /// Name of that session.
    pub session: String,
    server: ServerKind,
}

enum ServerKind {
    Canned(Server),
    /// An agent, and the number of sessions that it has.
    Agent(Box<Consul>, usize),
}

impl Backend {
    /// Starts the canned server.
    pub fn canned() -> Result<Backend> {
        let server = Server::start(&sizes())?;
        Ok(Backend { name: CANNED, id: canned::id(0), session: canned::name(0), server: ServerKind::Canned(server) })
    }

    /// Starts a real agent, with as many sessions as the shortest list has.
    pub fn agent() -> Result<Backend> {
        let mut backend = Backend {
            name: AGENT,
            id: String::new(),
            session: canned::name(0),
            // All subjects together open more than 200 connections.
            server: ServerKind::Agent(
                Box::new(Consul::start_with(Settings { many_connections: true, ..Settings::default() })?),
                0,
            ),
        };
        backend.prepare(Workload::Info)?;
        let sessions = backend.sessions()?;
        let first = sessions.iter().find(|session| session["Name"] == *backend.session).context("no session")?;
        backend.id = first["ID"].as_str().context("no id")?.to_owned();
        Ok(backend)
    }

    /// Returns whether this is a real Consul agent.
    pub fn is_real(&self) -> bool {
        matches!(self.server, ServerKind::Agent(..))
    }

    /// Returns the address for this workload.
    pub fn address(&self, workload: Workload) -> SocketAddr {
        match &self.server {
            ServerKind::Canned(server) => server.address(listed(workload)).expect("the server has a list of each size"),
            ServerKind::Agent(consul, _) => consul.http(),
        }
    }

    /// Creates the sessions that this workload needs.
    pub fn prepare(&mut self, workload: Workload) -> Result<()> {
        let ServerKind::Agent(consul, existing) = &mut self.server else { return Ok(()) };
        let (missing, needed) = (*existing..listed(workload), listed(workload));
        let api = consul.api();
        each(missing.collect(), |n: usize| api.put("/v1/session/create", Some(&json!({"Name": canned::name(n)}))).map(drop))?;
        ensure!(*existing <= needed, "{existing} sessions exist and {needed} are needed: order the workloads by size");
        *existing = needed;
        Ok(())
    }

    /// Destroys the sessions that workloads created.
    pub fn clean(&self) -> Result<()> {
        let ServerKind::Agent(consul, _) = &self.server else { return Ok(()) };
        let api = consul.api();
        let created = self.sessions()?.into_iter().filter(|session| session["Name"] == CREATED).collect();
        each(created, |session: Value| {
            api.put(&format!("/v1/session/destroy/{}", session["ID"].as_str().unwrap_or_default()), None).map(drop)
        })
    }

    fn sessions(&self) -> Result<Vec<Value>> {
        match &self.server {
            ServerKind::Agent(consul, _) => consul.api().sessions(),
            ServerKind::Canned(_) => Ok(Vec::new()),
        }
    }
}

/// Returns how many sessions exist during this workload.
fn listed(workload: Workload) -> usize {
    match workload {
        Workload::List(size) => size,
        _ => sizes()[0],
    }
}

/// Calls `run` for each item, with [`AT_ONCE`] calls at a time.
fn each<T: Send>(all: Vec<T>, run: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let all = Mutex::new(all.into_iter());
    let next = || all.lock().ok().and_then(|mut all| all.next());
    let worker = || std::iter::from_fn(next).try_for_each(&run);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })
}
