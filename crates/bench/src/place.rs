//! Where the works are done: the server that answers at once, and a real agent.

use crate::canned::{self, Server};
use crate::workload::{Workload, sizes};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Mutex;
use test_support::consul::{Consul, Settings};

/// The name of the sessions that works make.
pub const MADE: &str = "made";
/// How the server that answers at once stands in the tables.
pub const CANNED: &str = "canned server";
/// How a real agent stands there.
pub const AGENT: &str = "real agent";
/// How many requests at a time prepare an agent.
const AT_ONCE: usize = 8;

/// A place.
pub struct Place {
    /// As it stands in the tables.
    pub name: &'static str,
    /// A session that is there.
    pub id: String,
    /// Its name.
    pub session: String,
    server: Kinds,
}

enum Kinds {
    Canned(Server),
    /// With this many sessions.
    Agent(Box<Consul>, usize),
}

impl Place {
    /// The server that answers at once.
    pub fn canned() -> Result<Place> {
        let server = Server::start(&sizes())?;
        Ok(Place { name: CANNED, id: canned::id(0), session: canned::name(0), server: Kinds::Canned(server) })
    }

    /// A real agent, with the fewest sessions that a list is of.
    pub fn agent() -> Result<Place> {
        let mut place = Place {
            name: AGENT,
            id: String::new(),
            session: canned::name(0),
            // All peers together have more than 200 connections.
            server: Kinds::Agent(Box::new(Consul::start_with(Settings { many_connections: true, ..Settings::default() })?), 0),
        };
        place.prepare(Workload::Info)?;
        let sessions = place.sessions()?;
        let first = sessions.iter().find(|session| session["Name"] == *place.session).context("no session")?;
        place.id = first["ID"].as_str().context("no id")?.to_owned();
        Ok(place)
    }

    /// Whether this is a Consul.
    pub fn is_real(&self) -> bool {
        matches!(self.server, Kinds::Agent(..))
    }

    /// Where this work is done.
    pub fn address(&self, work: Workload) -> SocketAddr {
        match &self.server {
            Kinds::Canned(server) => server.address(listed(work)).expect("it has all sizes"),
            Kinds::Agent(consul, _) => consul.http(),
        }
    }

    /// Makes the sessions that this work needs.
    pub fn prepare(&mut self, work: Workload) -> Result<()> {
        let Kinds::Agent(consul, there) = &mut self.server else { return Ok(()) };
        let (missing, wanted) = (*there..listed(work), listed(work));
        let api = consul.api();
        each(missing.collect(), |n: usize| api.put("/v1/session/create", Some(&json!({"Name": canned::name(n)}))).map(drop))?;
        ensure!(*there <= wanted, "the lists grow");
        *there = wanted;
        Ok(())
    }

    /// Destroys what works have made.
    pub fn clean(&self) -> Result<()> {
        let Kinds::Agent(consul, _) = &self.server else { return Ok(()) };
        let api = consul.api();
        let made = self.sessions()?.into_iter().filter(|session| session["Name"] == MADE).collect();
        each(made, |session: Value| {
            api.put(&format!("/v1/session/destroy/{}", session["ID"].as_str().unwrap_or_default()), None).map(drop)
        })
    }

    fn sessions(&self) -> Result<Vec<Value>> {
        match &self.server {
            Kinds::Agent(consul, _) => consul.api().sessions(),
            Kinds::Canned(_) => Ok(Vec::new()),
        }
    }
}

/// How many sessions there are for this work.
fn listed(work: Workload) -> usize {
    match work {
        Workload::List(size) => size,
        _ => sizes()[0],
    }
}

/// Does something for each, a few at a time.
fn each<T: Send>(all: Vec<T>, work: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let all = Mutex::new(all.into_iter());
    let next = || all.lock().ok().and_then(|mut all| all.next());
    let worker = || std::iter::from_fn(next).try_for_each(&work);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })
}
