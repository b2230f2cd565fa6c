//! The states of the `consul_session` options as steps over [`consul`](crate::consul).
//!
//! What a state asks for is decided by a look at the sessions, and every look on which a change or an
//! "unchanged" depends is `consistent`. The module `present_name` has the rule for concurrent callers.

#![forbid(unsafe_code)]

mod present_name;

use crate::consul::{Client, Connection, Listing, NewSession, Query, Scope, expand_checks};
use crate::duration;
use crate::error::{Difference, Error, ErrorKind};
use crate::options::{OnMismatch, Options, SessionId, State};
use crate::outcome::{Diff, Outcome};
use crate::session::Session;
use crate::transport::Transport;

/// Options that were checked together, and the operation that they describe. Consul does not reject
/// them, as far as can be known in advance.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Without defaults: only options that were given are compared with the sessions found.
    given: Options,
    dry_run: bool,
    on_mismatch: OnMismatch,
    connection: Connection,
    new_session: NewSession,
    operation: Operation,
}

#[derive(Clone, Debug)]
enum Operation {
    PresentId(SessionId),
    PresentName(String),
    PresentNew,
    AbsentId(SessionId),
    AbsentName(String),
    Read(Scope),
}

impl Plan {
    /// Checks that the options can be combined.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](ErrorKind::InvalidOption).
    pub fn new(given: Options) -> Result<Plan, Error> {
        let all = given.clone().resolve();
        let state = all.state;
        if given.checks.is_some() {
            let other = [("node_checks", &given.node_checks), ("service_checks", &given.service_checks)];
            if let Some((other, _)) = other.iter().find(|(_, list)| list.is_some()) {
                return Err(Error::invalid(
                    other,
                    format!("option `{other}` cannot be combined with `checks`: give the lists exactly, or `checks` alone"),
                ));
            }
        }
        let required = |name: &str, why: &str| Error::invalid(name, format!("state={} needs {why}", state.name()));
        let operation = match (state, all.id.clone(), all.name.clone()) {
            (State::Present, Some(id), _) => Operation::PresentId(id),
            (State::Present, None, Some(name)) => Operation::PresentName(name),
            (State::Present, None, None) => Operation::PresentNew,
            (State::Absent, Some(id), _) => Operation::AbsentId(id),
            (State::Absent, None, Some(name)) => Operation::AbsentName(name),
            (State::Absent, None, None) => return Err(required("id", "`id` or `name`, to know which session is meant")),
            (State::Info, Some(id), _) => Operation::Read(Scope::Id(id)),
            (State::Info, None, _) => {
                return Err(required("id", "`id`; sessions are found by name with state=list name=…, by node with state=node"));
            }
            (State::Node | State::List, Some(_), _) => {
                return Err(Error::invalid(
                    "id",
                    format!("state={} takes no `id`: one session is read with state=info", state.name()),
                ));
            }
            (State::Node, None, _) => {
                let node = all.node.clone().ok_or_else(|| required("node", "`node`, the name of the node"))?;
                Operation::Read(Scope::Node(node))
            }
            (State::List, None, _) => Operation::Read(Scope::All),
        };
        Ok(Plan {
            dry_run: all.dry_run,
            on_mismatch: all.on_mismatch,
            connection: Connection::new(&all),
            new_session: NewSession::new(&all),
            given,
            operation,
        })
    }

    /// Returns the overall timeout of the call, in nanoseconds. The transport enforces it.
    pub fn timeout(&self) -> i64 {
        self.connection.timeout()
    }

    /// Runs the operation.
    ///
    /// # Errors
    ///
    /// Any [`ErrorKind`]; see `wit/sessions.wit`.
    pub fn run(&self, transport: &mut dyn Transport) -> Result<Outcome, Error> {
        let mut run = Run { plan: self, consul: Client { connection: &self.connection, transport } };
        match &self.operation {
            Operation::PresentId(id) => run.present_id(id),
            Operation::PresentName(name) => run.present_name(name),
            Operation::PresentNew => run.present_new(),
            Operation::AbsentId(id) => run.absent_id(id),
            Operation::AbsentName(name) => run.absent_name(name),
            Operation::Read(scope) => run.read(scope),
        }
    }

    /// Returns how a session differs from the options that were given, except for name and node.
    fn differences(&self, session: &Session) -> Vec<Difference> {
        let given = &self.given;
        let mut differences = Vec::new();
        let mut compare = |option, same: bool, found: String, wanted: String| {
            if !same {
                differences.push(Difference { option, found, wanted });
            }
        };
        if let Some(behavior) = given.behavior {
            compare("behavior", session.behavior == behavior.name(), session.behavior.clone(), behavior.name().to_owned());
        }
        if let Some(delay) = given.delay {
            compare("delay", session.lock_delay == delay, duration::format(session.lock_delay), duration::format(delay));
        }
        if let Some(ttl) = given.ttl {
            // Consul keeps the string: 600s, 10m and 600000ms are equal, and so are none, 0 and 0s.
            let stored = session.ttl();
            let shown = |ttl: i64| if ttl == 0 { "none".into() } else { duration::format(ttl) };
            compare("ttl", stored == Some(ttl), stored.map_or_else(|| session.ttl.clone(), shown), shown(ttl));
        }
        let mut compare_lists = |option, found: &[&str], wanted: &[&str]| {
            let is_subset = |a: &[&str], b: &[&str]| a.iter().all(|check| b.contains(check));
            compare(option, is_subset(found, wanted) && is_subset(wanted, found), list(found), list(wanted));
        };
        if let Some(checks) = &given.checks {
            let wanted = expand_checks(checks);
            compare_lists("checks", &session.all_checks(), &texts(&wanted));
        }
        if let Some(checks) = &given.node_checks {
            let mut found = texts(&session.node_checks);
            found.extend(texts(&session.checks));
            compare_lists("node_checks", &found, &texts(checks));
        }
        if let Some(checks) = &given.service_checks {
            let found: Vec<&str> = session.service_checks.iter().map(|check| check.id.as_str()).collect();
            compare_lists("service_checks", &found, &texts(checks));
        }
        differences
    }

    /// Returns how a session differs in name and node, if these were given.
    fn identity_differences(&self, session: &Session) -> Vec<Difference> {
        let mut differences = Vec::new();
        if let Some(name) = &self.given.name
            && session.name != *name
        {
            differences.push(Difference { option: "name", found: session.name.clone(), wanted: name.clone() });
        }
        if let Some(node) = &self.given.node
            && !same_node(&session.node, node)
        {
            differences.push(Difference { option: "node", found: session.node.clone(), wanted: node.clone() });
        }
        differences
    }

    fn matches(&self, session: &Session) -> bool {
        self.differences(session).is_empty()
    }

    /// Returns the session to create, which may replace another one.
    fn new_session(&self, replaced: Option<&Session>) -> NewSession {
        match replaced {
            Some(old) => self.new_session.replacing(old, &self.given),
            None => self.new_session.clone(),
        }
    }
}

/// How often a destruction is repeated that Consul reports as done and that was not.
const CONFIRMATIONS: usize = 3;

/// Compares names of nodes, which are case-insensitive in Consul. Beyond ASCII no node name is
/// valid in DNS, which spares the large tables of Unicode.
fn same_node(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn list(set: &[&str]) -> String {
    if set.is_empty() { "none".into() } else { set.join(", ") }
}

fn ids(sessions: &[Session]) -> String {
    sessions.iter().map(|session| session.id.as_str()).collect::<Vec<_>>().join(", ")
}

fn mismatch(session: &Session, differences: Vec<Difference>, remedy: &str) -> Error {
    let mut message = format!("session {} differs from the options", session.id);
    for (n, difference) in differences.iter().enumerate() {
        let separator = if n == 0 { ": " } else { ", " };
        message += &format!("{separator}{} is {}, not {}", difference.option, difference.found, difference.wanted);
    }
    message += "; sessions cannot be changed: ";
    message += remedy;
    Error::new(ErrorKind::Mismatch { session_id: session.id.clone(), differences }, message)
}

/// The node whose sessions of a name are meant.
enum OwnNode {
    /// This node.
    Node(String),
    /// The agent's own node, whose name the token does not permit to read.
    Unknown,
}

struct Run<'a> {
    plan: &'a Plan,
    consul: Client<'a>,
}

impl Run<'_> {
    fn read(&mut self, scope: &Scope) -> Result<Outcome, Error> {
        let listing = self.consul.sessions(scope, &Query::default())?;
        let filtered = listing.may_hide();
        let mut sessions = listing.sessions;
        sessions.retain(|session| self.plan.identity_differences(session).is_empty());
        let session = match scope {
            Scope::Id(_) => sessions.first().cloned(),
            _ => None,
        };
        let mut notes = Vec::new();
        if filtered {
            notes.push("ACLs hid sessions from this answer, or may have".into());
        }
        Ok(Outcome { session, sessions, filtered, notes, ..Outcome::default() })
    }

    fn present_id(&mut self, id: &SessionId) -> Result<Outcome, Error> {
        let listing = self.consul.sessions(&Scope::Id(id.clone()), &Query::CONSISTENT)?;
        let may_hide = listing.may_hide();
        let Some(session) = listing.sessions.into_iter().next() else {
            let hidden = if may_hide { ", or ACLs hide it" } else { "" };
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no session {} exists{hidden}: consul chooses the ids, so leave `id` out to create one", id.as_str()),
            ));
        };
        let mut differences = self.plan.identity_differences(&session);
        differences.extend(self.plan.differences(&session));
        if !differences.is_empty() {
            return Err(mismatch(&session, differences, "a new one gets another id, so leave `id` out"));
        }
        Ok(unchanged(session, Vec::new()))
    }

    fn present_new(&mut self) -> Result<Outcome, Error> {
        if self.plan.dry_run {
            return self.planned(Vec::new());
        }
        let id = self
            .consul
            .create(&self.plan.new_session)
            .map_err(|error| error.into_outcome_unknown("the creation of the session, which has no name to find it by,"))?;
        // The session exists, even if reading it back fails.
        match self.consul.sessions(&Scope::Id(id.clone()), &Query::CONSISTENT) {
            Ok(listing) => match listing.sessions.into_iter().next() {
                Some(session) => Ok(created(session, Vec::new(), Vec::new())),
                None => Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "session {} was created, and was gone when it was read back: another client destroyed it, or one of \
                         its checks failed",
                        id.as_str()
                    ),
                )),
            },
            Err(error) => {
                let session = Session { id: id.as_str().to_owned(), ..self.plan.new_session.planned() };
                let mut outcome = created(session, Vec::new(), Vec::new());
                outcome.notes.push(format!("the new session could not be read back: {error}"));
                Ok(outcome)
            }
        }
    }

    fn absent_id(&mut self, id: &SessionId) -> Result<Outcome, Error> {
        let listing = self.consul.sessions(&Scope::Id(id.clone()), &Query::CONSISTENT)?;
        if let Some(session) = listing.sessions.first() {
            let differences = self.plan.identity_differences(session);
            if !differences.is_empty() {
                return Err(mismatch(session, differences, "nothing was destroyed; check which session is meant"));
            }
            return self.destroyed(listing.sessions, &Scope::Id(id.clone()));
        }
        if self.plan.dry_run {
            return if listing.may_hide() {
                Err(Error::new(
                    ErrorKind::Hidden,
                    format!("no session {} can be seen, but ACLs may hide it: give a `token` that can read it", id.as_str()),
                ))
            } else {
                Ok(nothing_to_destroy())
            };
        }
        // Consul refuses to destroy a hidden session, but not one that does not exist.
        match self.consul.destroy(id) {
            Ok(()) => Ok(nothing_to_destroy()),
            // This does not apply to a write that the agent's configuration blocks.
            Err(error) if error.message.contains("Permission denied") => {
                Err(error.context(&format!("session {} exists, but ACLs hide it from reads", id.as_str())))
            }
            Err(error) => Err(error),
        }
    }

    fn absent_name(&mut self, name: &str) -> Result<Outcome, Error> {
        if let Some(node) = self.plan.given.node.clone() {
            return self.absent_on(name, &node);
        }
        let listing = self.named(name, &Query::CONSISTENT)?;
        if listing.sessions.is_empty() && !listing.may_hide() {
            return Ok(nothing_to_destroy());
        }
        match self.own_node()? {
            // A token sees all sessions of a node or none of them.
            OwnNode::Node(node) => match on_node(&listing.sessions, &node) {
                found if !found.is_empty() => self.destroyed(found, &Scope::Node(node)),
                _ if !listing.may_hide() => Ok(nothing_to_destroy()),
                _ => self.absent_on(name, &node),
            },
            OwnNode::Unknown => Err(node_required(&listing.sessions)),
        }
    }

    fn absent_on(&mut self, name: &str, node: &str) -> Result<Outcome, Error> {
        let scope = Scope::Node(node.to_owned());
        let listing = self.consul.sessions(&scope, &Query::CONSISTENT)?;
        let found = select(&listing.sessions, &|session| session.name == name);
        if !found.is_empty() {
            return self.destroyed(found, &scope);
        }
        let reason = if listing.filtered {
            "ACLs hide the sessions of this node".into()
        } else if listing.masked {
            match self.consul.may_read(node) {
                Ok(true) => return Ok(nothing_to_destroy()),
                Ok(false) => "without a token the sessions of this node cannot be read".into(),
                Err(error) => format!("permission to read the sessions of this node could not be checked: {error}"),
            }
        } else {
            return Ok(nothing_to_destroy());
        };
        Err(Error::new(
            ErrorKind::Hidden,
            format!(
                "no session named `{name}` can be seen on node `{node}`, but there may be one: {reason}; give a `token` with \
             session:read"
            ),
        ))
    }

    /// Reads the sessions of this name, on the given node or in the whole datacenter.
    fn named(&mut self, name: &str, query: &Query) -> Result<Listing, Error> {
        let scope = match &self.plan.given.node {
            Some(node) => Scope::Node(node.clone()),
            None => Scope::All,
        };
        let mut listing = self.consul.sessions(&scope, query)?;
        listing.sessions = select(&listing.sessions, &|session| session.name == name);
        Ok(listing)
    }

    /// Reads the agent's own node, if the token permits it.
    fn own_node(&mut self) -> Result<OwnNode, Error> {
        match self.consul.own_node() {
            Ok(node) => Ok(OwnNode::Node(node)),
            Err(error) if matches!(error.kind, ErrorKind::AccessDenied { .. }) => Ok(OwnNode::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Destroys the sessions of a scope, unless in a dry run, and returns the outcome.
    fn destroyed(&mut self, sessions: Vec<Session>, scope: &Scope) -> Result<Outcome, Error> {
        if !self.plan.dry_run {
            self.destroy_all(&sessions)?;
            self.confirm_destroyed(&sessions, scope)?;
        }
        Ok(Outcome {
            changed: true,
            destroyed: sessions.iter().map(|session| session.id.clone()).collect(),
            diff: Some(Diff { before: sessions, after: Vec::new() }),
            ..Outcome::default()
        })
    }

    /// Destroys again what is still there. A new leader says that a session is destroyed which it
    /// does not know yet, until it has applied what its predecessor committed. A consistent read
    /// waits for that.
    fn confirm_destroyed(&mut self, sessions: &[Session], scope: &Scope) -> Result<(), Error> {
        let unconfirmed = |error: Error| {
            let message = format!("{error}; destroyed: {}, but whether they are gone could not be checked", ids(sessions));
            Error::new(ErrorKind::OutcomeUnknown, message)
        };
        for _ in 0..CONFIRMATIONS {
            let listing = self.consul.sessions(scope, &Query::CONSISTENT).map_err(unconfirmed)?;
            // Sorted by age, as every listing is.
            let was_destroyed =
                |session: &Session| sessions.binary_search_by(|destroyed| destroyed.age().cmp(&session.age())).is_ok();
            let left = select(&listing.sessions, &was_destroyed);
            if left.is_empty() {
                return Ok(());
            }
            let gone = select(sessions, &|session| !left.iter().any(|other| other.id == session.id));
            self.destroy_all(&left).map_err(|error| match gone.as_slice() {
                [] => error,
                gone => error.context(&format!("destroyed before: {}", ids(gone))),
            })?;
        }
        Err(unconfirmed(Error::new(ErrorKind::Other, "consul lists sessions that it says are destroyed")))
    }

    /// Destroys sessions that are sorted by age, the youngest first. So the oldest, which is the
    /// session of the name, stays the same until none of them is left, and no other caller takes
    /// one of the others for it.
    fn destroy_all(&mut self, sessions: &[Session]) -> Result<(), Error> {
        for (index, session) in sessions.iter().enumerate().rev() {
            let destroyed = match SessionId::parse(&session.id) {
                Some(id) => self.consul.destroy(&id),
                None => Err(Error::new(
                    ErrorKind::InvalidResponse,
                    format!("consul lists a session whose id is not a UUID: {}", session.id),
                )),
            };
            destroyed.map_err(|error| {
                let (left, gone) = sessions.split_at_checked(index + 1).unwrap_or_default();
                match gone {
                    [] => error.context(&format!("not destroyed: {}", ids(left))),
                    _ => error.context(&format!("destroyed: {}; not destroyed: {}", ids(gone), ids(left))),
                }
            })?;
        }
        Ok(())
    }

    /// Returns the outcome of a creation in a dry run.
    fn planned(&mut self, replaced: Vec<Session>) -> Result<Outcome, Error> {
        let mut session = self.plan.new_session(replaced.first()).planned();
        if let ("", Some(old)) = (session.node.as_str(), replaced.first()) {
            session.node = old.node.clone();
        }
        // The node stays empty if the token does not permit reading it.
        if session.node.is_empty()
            && let OwnNode::Node(node) = self.own_node()?
        {
            session.node = node;
        }
        let mut outcome = created(session, replaced, Vec::new());
        outcome.notes.extend(unchecked(&self.plan.given));
        Ok(outcome)
    }
}

/// Returns the note of what the dry run of a creation does not check, if that is anything.
pub fn unchecked(given: &Options) -> Option<String> {
    let has_checks = [&given.checks, &given.node_checks, &given.service_checks];
    let has_checks = has_checks.into_iter().flatten().any(|checks| !checks.is_empty());
    let what = match (&given.node, has_checks) {
        (Some(_), true) => "the node and the checks exist",
        (Some(_), false) => "the node exists",
        (None, true) => "the checks exist",
        (None, false) => return None,
    };
    Some(format!("a dry run does not check whether {what}"))
}

fn on_node(sessions: &[Session], node: &str) -> Vec<Session> {
    select(sessions, &|session| same_node(&session.node, node))
}

/// Returns the sessions that the predicate selects.
fn select(sessions: &[Session], predicate: &dyn Fn(&Session) -> bool) -> Vec<Session> {
    sessions.iter().filter(|session| predicate(session)).cloned().collect()
}

fn note_others(others: &[Session], notes: &mut Vec<String>) {
    if !others.is_empty() {
        notes.push(format!("other sessions have the same name: {}", ids(others)));
    }
}

/// Notes how long a session lasts that was found, and that its caller may not know to renew.
fn note_ttl(session: &Session, notes: &mut Vec<String>) {
    if let Some(ttl @ 1..) = session.ttl() {
        // Consul never ends it before its TTL is over, and by twice that. A new leader starts anew.
        notes.push(format!(
            "its ttl of {} is running: unless it is renewed, consul ends it within {}, or later if the leader changes",
            duration::format(ttl),
            duration::format(ttl.saturating_mul(2))
        ));
    }
}

fn unchanged(session: Session, others: Vec<Session>) -> Outcome {
    let mut notes = Vec::new();
    note_ttl(&session, &mut notes);
    note_others(&others, &mut notes);
    let same = vec![session.clone()];
    let mut sessions = same.clone();
    sessions.extend(others);
    Outcome {
        session: Some(session),
        sessions,
        diff: Some(Diff { before: same.clone(), after: same }),
        notes,
        ..Outcome::default()
    }
}

fn created(session: Session, replaced: Vec<Session>, others: Vec<Session>) -> Outcome {
    let mut notes = Vec::new();
    if !replaced.is_empty() {
        let note = format!(
            "replaces {}: locks held there are freed under its lock delay ({})",
            ids(&replaced),
            replaced.iter().map(|old| duration::format(old.lock_delay)).collect::<Vec<_>>().join(", ")
        );
        notes.push(note);
    }
    note_others(&others, &mut notes);
    let mut sessions = vec![session.clone()];
    sessions.extend(others);
    Outcome {
        changed: true,
        session: Some(session.clone()),
        sessions,
        destroyed: replaced.iter().map(|old| old.id.clone()).collect(),
        diff: Some(Diff { before: replaced, after: vec![session] }),
        notes,
        ..Outcome::default()
    }
}

fn nothing_to_destroy() -> Outcome {
    Outcome { diff: Some(Diff::default()), ..Outcome::default() }
}

fn node_required(seen: &[Session]) -> Error {
    let mut nodes: Vec<String> = Vec::new();
    for session in seen {
        if !nodes.contains(&session.node) {
            nodes.push(session.node.clone());
        }
    }
    let where_seen = match nodes.as_slice() {
        [] => "none of that name can be seen".into(),
        nodes => format!("sessions of that name were seen on {}", nodes.join(", ")),
    };
    let message = format!(
        "the node cannot be determined, since reading the agent's own was denied (agent:read): give `node`; {where_seen}"
    );
    Error::new(ErrorKind::NodeRequired { nodes }, message)
}
