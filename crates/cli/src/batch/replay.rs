//! The core's own steps, run against known answers.
//!
//! The core's [`Plan`] alone decides what a record needs. A replay runs it from the beginning:
//! each request with a known answer gets that answer, and the first request without one is the
//! next step. So many records share each look at the sessions, and each of them still does what it
//! would do alone.

use crate::convert;
use consul_session::apply::Plan;
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{Options, State};
use consul_session::outcome::Outcome;
use consul_session::session::Session;
use consul_session::transport::{FILTERED, Request, Response, Transport};
use consul_session_host::{Behavior, CreateOptions, Listing};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// All sessions of a datacenter, from one read.
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

/// What was seen and done for one record, in order.
#[derive(Debug, Default)]
pub struct Progress {
    /// The looks at the sessions. Each was taken after everything that the record did before it.
    pub looks: Vec<Result<Arc<Snapshot>, Error>>,
    /// The results of the creations: the ids of the new sessions.
    pub creations: Vec<Result<String, Error>>,
    /// The results of the destructions, by session id.
    pub destructions: HashMap<String, Vec<Result<(), Error>>>,
}

/// The next step of a record.
#[derive(Debug)]
pub enum NextStep {
    /// Read the agent's own node.
    OwnNode,
    /// Create this session.
    Creation(Box<CreateOptions>),
    /// Read all sessions, after this pause, in nanoseconds.
    Look(i64),
    /// Destroy the session of this id.
    Destruction(String),
    /// Leave the whole record to the component, since it needs an answer that is not shared.
    Alone,
}

/// Runs the plan as far as its answers are known. Returns its result, or the next step as the
/// error. All records of one agent share its `own_node`.
pub fn step(
    plan: &Plan,
    options: &Options,
    own_node: Option<&Result<String, Error>>,
    progress: &Progress,
) -> Result<Result<Outcome, Error>, NextStep> {
    let mut replay =
        Replay { options, own_node, progress, looks: 0, creations: 0, destructions: HashMap::new(), pause: 0, next: None };
    let result = plan.run(&mut replay);
    match replay.next {
        Some(next) => Err(next),
        None => Ok(result),
    }
}

/// A transport that answers from known answers.
struct Replay<'a> {
    options: &'a Options,
    own_node: Option<&'a Result<String, Error>>,
    progress: &'a Progress,
    /// How many of the known answers the plan has got.
    looks: usize,
    creations: usize,
    destructions: HashMap<String, usize>,
    /// The longest pause since the last answer, in nanoseconds.
    pause: i64,
    next: Option<NextStep>,
}

impl Transport for Replay<'_> {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        let answer = self.answer(request).unwrap_or_else(|next| {
            // The first unknown request is the next step. The plan's reaction to this error is
            // ignored. The error is not ambiguous, so the plan ends soon.
            self.next.get_or_insert(next);
            Err(Error::new(ErrorKind::Unsupported, "not known yet"))
        });
        self.pause = 0;
        answer
    }

    /// The next look, which all records share, is taken after the pause.
    fn pause(&mut self, longest: i64) -> bool {
        self.pause = self.pause.max(longest);
        true
    }
}

impl<'a> Replay<'a> {
    /// Returns the known answer to a request, or the step that makes it known.
    fn answer(&mut self, request: &Request) -> Result<Result<Response, Error>, NextStep> {
        let path = request.path_and_query.split('?').next().unwrap_or_default();
        let path = path.strip_prefix("/v1/").unwrap_or_default();
        Ok(match path.split_once('/') {
            Some(("session", "list")) => self.read(self.options.name.as_deref(), None)?,
            Some(("session", rest)) => match rest.split_once('/') {
                None if rest == "create" => {
                    let known = self.progress.creations.get(self.creations);
                    self.creations += 1;
                    match known {
                        Some(Ok(id)) => Ok(response(&json!({ "ID": id }))),
                        Some(Err(error)) => Err(error.clone()),
                        None => return Err(NextStep::Creation(create_options(&request.body).into())),
                    }
                }
                // For the node that the record names, and to see whether what was destroyed on the
                // agent's own node is gone.
                Some(("node", _)) if self.options.node.is_some() || !self.destructions.is_empty() => {
                    let own = self.own_node.and_then(|node| node.as_deref().ok());
                    self.read(self.options.name.as_deref(), self.options.node.as_deref().or(own))?
                }
                Some(("info", id)) => self.info(id)?,
                Some(("destroy", id)) => {
                    let times = self.destructions.entry(id.to_owned()).or_default();
                    let known = self.progress.destructions.get(id).and_then(|results| results.get(*times));
                    *times += 1;
                    match known {
                        Some(result) => result.clone().map(|()| response(&true)),
                        None => return Err(NextStep::Destruction(id.to_owned())),
                    }
                }
                _ => return Err(NextStep::Alone),
            },
            Some(("agent", "self")) => match self.own_node {
                Some(Ok(node)) => Ok(response(&json!({ "Config": { "NodeName": node } }))),
                Some(Err(error)) => Err(error.clone()),
                None => return Err(NextStep::OwnNode),
            },
            _ => return Err(NextStep::Alone),
        })
    }

    /// Returns the next look of the record.
    fn look(&mut self) -> Result<Result<&'a Snapshot, Error>, NextStep> {
        let look = self.progress.looks.get(self.looks).ok_or(NextStep::Look(self.pause))?;
        self.looks += 1;
        Ok(look.as_deref().map_err(Error::clone))
    }

    fn read(&mut self, name: Option<&str>, node: Option<&str>) -> Result<Result<Response, Error>, NextStep> {
        let on_node = |session: &&Session| node.is_none_or(|node| session.node.eq_ignore_ascii_case(node));
        let snapshot = match self.look()? {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        let found: Vec<&Session> = snapshot.named(name.unwrap_or_default()).filter(on_node).collect();
        self.sessions(snapshot, found)
    }

    fn info(&mut self, id: &str) -> Result<Result<Response, Error>, NextStep> {
        match self.look()? {
            Ok(snapshot) => self.sessions(snapshot, snapshot.with_id(id).into_iter().collect()),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Returns the answer with these sessions.
    fn sessions(&self, snapshot: &Snapshot, found: Vec<&Session>) -> Result<Result<Response, Error>, NextStep> {
        // A read of one node or one session can show that a session does not exist where a
        // filtered read of all cannot. After the first look, what the record could see is gone.
        if snapshot.filtered && found.is_empty() && !self.creates() && self.looks == 1 {
            return Err(NextStep::Alone);
        }
        let mut response = response(&found);
        if snapshot.filtered {
            response.headers.push((FILTERED, "true".into()));
        }
        Ok(Ok(response))
    }

    /// Returns whether the plan creates a session if it sees none. If that succeeds, the read was
    /// complete.
    fn creates(&self) -> bool {
        self.options.id.is_none() && self.options.state != Some(State::Absent)
    }
}

fn response(body: &impl Serialize) -> Response {
    Response { status: 200, headers: Vec::new(), body: serde_json::to_vec(body).expect("strings and numbers are JSON") }
}

/// The body of the core's request to create a session.
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

/// Converts the body of the core's request to the component's options.
fn create_options(body: &[u8]) -> CreateOptions {
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
