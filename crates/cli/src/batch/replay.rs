//! The core's own steps, run against answers that are known already.
//!
//! What a record needs is decided by the core's [`Plan`] and by nothing else. It is run from its beginning each time: as long as it
//! asks for what is known, it gets that; the first thing that is not known is what is to be done next. So many records share one
//! reading of the sessions, and each of them still does what it would do alone.

use crate::convert;
use consul_session::apply::Plan;
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session::outcome::Outcome;
use consul_session::session::Session;
use consul_session::transport::{FILTERED, Request, Response, Transport};
use consul_session_host::{Behavior, CreateOptions, Listing};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;

/// All sessions of a datacenter, as they were read once.
#[derive(Debug)]
pub struct Snapshot {
    by_name: HashMap<String, Vec<Session>>,
    /// Names, by id.
    names: HashMap<String, String>,
    /// Whether ACLs hid sessions, or may have.
    filtered: bool,
}

impl From<Listing> for Snapshot {
    fn from(listing: Listing) -> Snapshot {
        let mut by_name: HashMap<String, Vec<Session>> = HashMap::new();
        let mut names = HashMap::new();
        for session in listing.sessions.into_iter().map(convert::session) {
            names.insert(session.id.clone(), session.name.clone());
            by_name.entry(session.name.clone()).or_default().push(session);
        }
        Snapshot { by_name, names, filtered: listing.filtered }
    }
}

impl Snapshot {
    fn named(&self, name: &str) -> impl Iterator<Item = &Session> {
        self.by_name.get(name).into_iter().flatten()
    }

    fn with_id(&self, id: &str) -> Option<&Session> {
        self.named(self.names.get(id)?).find(|session| session.id == id)
    }
}

/// What is known to all records of one agent.
#[derive(Debug, Default)]
pub struct Shared {
    /// The sessions as they were before anything was done.
    pub before: Option<Snapshot>,
    /// As they were after the last creation.
    pub after: Option<Result<Snapshot, Error>>,
    /// The agent's own node.
    pub own_node: Option<Result<String, Error>>,
}

/// What was done for one record.
#[derive(Debug, Default)]
pub struct Progress {
    /// The new session's id.
    pub creation: Option<Result<String, Error>>,
    /// By the ids of the sessions.
    pub destructions: HashMap<String, Result<(), Error>>,
}

/// What is to be done next.
#[derive(Debug)]
pub enum NextStep {
    /// Ask for the agent's own node.
    OwnNode,
    /// Create this session.
    Creation(Box<CreateOptions>),
    /// Read all sessions once more, now that some were created.
    After,
    /// Destroy the session of this id.
    Destruction(String),
    /// Leave the whole record to the component: it needs an answer that is not shared.
    Alone,
}

/// Runs the task as far as it is known what happens, which is its end or what it wants next.
pub fn step(task: &Plan, options: &Options, shared: &Shared, done: &Progress) -> Result<Result<Outcome, Error>, NextStep> {
    let mut replay = Replay { options, shared, done, created: false, want: None };
    let ended = task.run(&mut replay);
    match replay.want {
        Some(want) => Err(want),
        None => Ok(ended),
    }
}

struct Replay<'a> {
    options: &'a Options,
    shared: &'a Shared,
    done: &'a Progress,
    /// Whether the task has got the answer to its creation: what it reads from then on must be younger than that.
    created: bool,
    want: Option<NextStep>,
}

impl Transport for Replay<'_> {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        self.answer(request).unwrap_or_else(|want| {
            // The first is the next. What the task makes of this error is of no account; it leaves no doubt, so that it ends soon.
            self.want.get_or_insert(want);
            Err(Error::new(ErrorKind::Unsupported, "not known yet"))
        })
    }
}

impl Replay<'_> {
    fn answer(&mut self, request: &Request) -> Result<Result<Response, Error>, NextStep> {
        let path = request.path_and_query.split('?').next().unwrap_or_default();
        let path = path.strip_prefix("/v1/").unwrap_or_default();
        Ok(match path.split_once('/') {
            Some(("session", "list")) => self.read(self.options.name.as_deref(), None)?,
            Some(("session", rest)) => match rest.split_once('/') {
                None if rest == "create" => match &self.done.creation {
                    Some(Ok(id)) => {
                        self.created = true;
                        Ok(response(&json!({ "ID": id })))
                    }
                    Some(Err(error)) => {
                        self.created = true;
                        Err(error.clone())
                    }
                    None => return Err(NextStep::Creation(new_session(&request.body).into())),
                },
                // Only the node that the record names.
                Some(("node", _)) if self.options.node.is_some() => {
                    self.read(self.options.name.as_deref(), self.options.node.as_deref())?
                }
                Some(("info", id)) => self.info(id)?,
                Some(("destroy", id)) => match self.done.destructions.get(id) {
                    Some(result) => result.clone().map(|()| response(&true)),
                    None => return Err(NextStep::Destruction(id.to_owned())),
                },
                _ => return Err(NextStep::Alone),
            },
            Some(("agent", "self")) => match &self.shared.own_node {
                Some(Ok(node)) => Ok(response(&json!({ "Config": { "NodeName": node } }))),
                Some(Err(error)) => Err(error.clone()),
                None => return Err(NextStep::OwnNode),
            },
            _ => return Err(NextStep::Alone),
        })
    }

    /// What is to be answered to a read now.
    fn snapshot(&self) -> Result<Result<&Snapshot, Error>, NextStep> {
        if !self.created {
            return self.shared.before.as_ref().map(Ok).ok_or(NextStep::Alone);
        }
        self.shared.after.as_ref().map(|after| after.as_ref().map_err(Error::clone)).ok_or(NextStep::After)
    }

    fn read(&self, name: Option<&str>, node: Option<&str>) -> Result<Result<Response, Error>, NextStep> {
        let here = |session: &&Session| node.is_none_or(|node| session.node.eq_ignore_ascii_case(node));
        let snapshot = match self.snapshot()? {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        let found: Vec<&Session> = snapshot.named(name.unwrap_or_default()).filter(here).collect();
        self.sessions(snapshot, found)
    }

    fn info(&self, id: &str) -> Result<Result<Response, Error>, NextStep> {
        match self.snapshot()? {
            Ok(snapshot) => self.sessions(snapshot, snapshot.with_id(id).into_iter().collect()),
            Err(error) => Ok(Err(error)),
        }
    }

    fn sessions(&self, snapshot: &Snapshot, found: Vec<&Session>) -> Result<Result<Response, Error>, NextStep> {
        // That a session is not there can be said of a reading of one node or one session where it cannot be of all.
        if snapshot.filtered && found.is_empty() && !self.creates() {
            return Err(NextStep::Alone);
        }
        let mut response = response(&found);
        if snapshot.filtered {
            response.headers.push((FILTERED, "true".into()));
        }
        Ok(Ok(response))
    }

    /// Whether the task is to create a session where it sees none: that this succeeds shows that the reading was complete.
    fn creates(&self) -> bool {
        use consul_session::options::State;
        self.options.id.is_none() && self.options.state != Some(State::Absent)
    }
}

fn response(body: &impl Serialize) -> Response {
    Response { status: 200, headers: Vec::new(), body: serde_json::to_vec(body).expect("strings and numbers are JSON") }
}

/// What the core sends to create a session.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Creation {
    name: Option<String>,
    node: Option<String>,
    lock_delay: String,
    behavior: String,
    #[serde(rename = "TTL")]
    ttl: String,
    node_checks: Option<Vec<String>>,
    service_checks: Option<Vec<ById>>,
}

#[derive(Deserialize)]
struct ById {
    #[serde(rename = "ID")]
    id: String,
}

/// What the core would send to create a session, as the component takes it.
fn new_session(body: &[u8]) -> CreateOptions {
    let creation: Creation = serde_json::from_slice(body).unwrap_or_default();
    let seconds = |text: &str| duration::parse_go(text).map(|nanoseconds| nanoseconds as f64 / 1e9);
    CreateOptions {
        name: creation.name,
        node: creation.node,
        lock_delay: seconds(&creation.lock_delay),
        behavior: match creation.behavior.as_str() {
            "release" => Some(Behavior::Release),
            "delete" => Some(Behavior::Delete),
            _ => None,
        },
        ttl: seconds(&creation.ttl),
        node_checks: creation.node_checks,
        service_checks: creation.service_checks.map(|checks| checks.into_iter().map(|check| check.id).collect()),
    }
}
