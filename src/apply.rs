//! The states of the option page as steps over [`consul`](crate::consul).
//!
//! # One session, however many callers
//!
//! Consul has no "create if it does not exist", names are not unique, and the create cannot be told from a second one. So
//! after every creation by name the sessions are read once more, with a quorum's consistency. Whoever created the oldest
//! session of the name (the lowest create index; the same for every reader) keeps it; everybody else destroys their own and
//! answers with that one. The owner of the lowest index always sees itself as the lowest, and whoever reads later sees it too,
//! so that exactly one session stays, without a lock and without waiting.

#![forbid(unsafe_code)]

use crate::consul::{Client, Connection, Listing, NewSession, Query, Scope, create};
use crate::duration;
use crate::error::{Difference, Error, ErrorKind};
use crate::options::{OnMismatch, Options, SessionId, State};
use crate::outcome::{Diff, Outcome};
use crate::session::Session;
use crate::transport::Transport;

/// Options that were checked as a whole: nothing that Consul would refuse, as far as that can be known, is left in them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As given: only what was given is compared with what is found.
    given: Options,
    dry_run: bool,
    on_mismatch: OnMismatch,
    connection: Connection,
    new_session: NewSession,
    what: Operation,
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
    /// Checks that the options go together.
    ///
    /// Errors: [`InvalidOption`](ErrorKind::InvalidOption).
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
        let what = match (state, all.id.clone(), all.name.clone()) {
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
            what,
        })
    }

    /// Overall timeout of the call, in nanoseconds: the transport's to keep.
    pub fn timeout(&self) -> i64 {
        self.connection.timeout()
    }

    /// Does it.
    pub fn run(&self, transport: &mut dyn Transport) -> Result<Outcome, Error> {
        let mut run = Run { plan: self, consul: Client { connection: &self.connection, transport } };
        match &self.what {
            Operation::PresentId(id) => run.present_id(id),
            Operation::PresentName(name) => run.present_name(name),
            Operation::PresentNew => run.present_new(),
            Operation::AbsentId(id) => run.absent_id(id),
            Operation::AbsentName(name) => run.absent_name(name),
            Operation::Read(scope) => run.read(scope),
        }
    }

    /// How a session differs from the options that were given, beside name and node.
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
            // Consul keeps the text: 600s, 10m and 600000ms are the same, and so are none, 0 and 0s.
            let stored = if session.ttl.is_empty() { Some(0) } else { duration::parse_go(&session.ttl) };
            let shown = |ttl: i64| if ttl == 0 { "none".into() } else { duration::format(ttl) };
            compare("ttl", stored == Some(ttl), stored.map_or_else(|| session.ttl.clone(), shown), shown(ttl));
        }
        let mut compare_lists = |option, found: &[&str], wanted: &[&str]| {
            let within = |these: &[&str], those: &[&str]| these.iter().all(|check| those.contains(check));
            compare(option, within(found, wanted) && within(wanted, found), list(found), list(wanted));
        };
        if let Some(checks) = &given.checks {
            let wanted = create::effective(checks);
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

    /// How a session that was named by its id differs in what it is found by otherwise.
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
}

/// The name of a node is not case-sensitive in Consul. Beyond ASCII no node name is valid in DNS, and the tables weigh much.
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

/// Where the sessions of a name are meant.
enum OwnNode {
    /// On this node.
    Node(String),
    /// On the agent's own node, whose name could not be learned.
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
        let listing = self.consul.sessions(&Scope::Id(id.clone()), &Query::default())?;
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
        // The session is there, whatever becomes of reading it back.
        match self.consul.sessions(&Scope::Id(id.clone()), &Query::CONSISTENT) {
            Ok(listing) => match listing.sessions.into_iter().next() {
                Some(session) => Ok(created(session, Vec::new(), Vec::new())),
                None => Ok(self.created_and_gone(&id)),
            },
            Err(error) => {
                let mut outcome = self.created_and_gone(&id);
                outcome.notes = vec![format!("the new session could not be read back: {error}")];
                Ok(outcome)
            }
        }
    }

    fn present_name(&mut self, name: &str) -> Result<Outcome, Error> {
        let before = self.named(name, &Query::default())?;
        let place = match &self.plan.given.node {
            Some(node) => Some(OwnNode::Node(node.clone())),
            // Nothing to tell apart: not asked, so that no permission to ask is needed.
            None if before.sessions.is_empty() => None,
            None => Some(self.own_place()?),
        };
        let candidates: Vec<Session> = match &place {
            Some(OwnNode::Node(node)) => on_node(&before.sessions, node),
            Some(OwnNode::Unknown) | None => Vec::new(),
        };
        if let Some(found) = candidates.iter().find(|session| self.plan.matches(session)) {
            return Ok(unchanged(found.clone(), those(&candidates, &|session| session.id != found.id)));
        }
        if let Some(oldest) = candidates.first()
            && self.plan.on_mismatch == OnMismatch::Fail
        {
            return Err(self.mismatch_by_name(oldest, candidates.len()));
        }
        if self.plan.dry_run {
            if matches!(place, Some(OwnNode::Unknown)) {
                return Err(node_required(&before.sessions));
            }
            return self.planned(candidates);
        }
        match self.consul.create(&self.plan.new_session) {
            Ok(id) => self.settle(name, &id, &before.sessions),
            Err(error) if error.is_ambiguous() => self.look_again(name, error, place, &before.sessions),
            Err(error) => Err(error),
        }
    }

    /// After a creation by name: finds out who keeps their session, and cleans up.
    fn settle(&mut self, name: &str, own_id: &SessionId, before: &[Session]) -> Result<Outcome, Error> {
        let listing = self.named(name, &Query::CONSISTENT).map_err(|error| {
            Error::new(ErrorKind::OutcomeUnknown, format!(
                "{error}; session {} was created, but whether another caller created one of that name at the same time could not \
                 be checked: do the same again, which finds it",
                own_id.as_str()
            ))
        })?;
        let Some(own) = listing.sessions.iter().find(|session| session.id == own_id.as_str()).cloned() else {
            return Ok(self.created_and_gone(own_id));
        };
        // Reading was complete, since whoever may create on a node may read its sessions.
        let peers: Vec<Session> = on_node(&listing.sessions, &own.node);
        let was_before = |session: &&Session| before.iter().any(|old| old.id == session.id);

        // One that was there already, unseen because the agent's own node was not known.
        let earlier = peers.iter().filter(was_before).find(|session| self.plan.matches(session));
        let winner = match (earlier, self.plan.on_mismatch) {
            (Some(earlier), _) => earlier,
            (None, OnMismatch::Fail) => peers.first().unwrap_or(&own),
            (None, OnMismatch::Replace) => peers.iter().find(|session| self.plan.matches(session)).unwrap_or(&own),
        };
        if winner.id != own.id {
            self.consul.destroy(own_id).map_err(|error| {
                error.context(&format!("session {} stays beside the older {} of the same name", own.id, winner.id))
            })?;
            if !self.plan.matches(winner) {
                return Err(self.mismatch_by_name(winner, peers.len() - 1));
            }
            let others = those(&peers, &|peer| peer.id != winner.id && peer.id != own.id);
            let mut outcome = unchanged(winner.clone(), others);
            if !was_before(&winner) {
                outcome.notes.push("another caller created it at the same moment".into());
            }
            return Ok(outcome);
        }
        // Replacing: everything older that is not as wanted. Operation is younger is another caller's, who replaces ours.
        let replaced = |peer: &Session| self.plan.on_mismatch == OnMismatch::Replace && peer.age() < own.age();
        let old = those(&peers, &replaced);
        let others = those(&peers, &|peer| peer.id != own.id && !replaced(peer));
        self.destroy_all(&old).map_err(|error| error.context(&format!("session {} was created to replace it", own.id)))?;
        Ok(created(own, old, others))
    }

    /// After a creation by name whose answer was lost.
    fn look_again(&mut self, name: &str, lost: Error, place: Option<OwnNode>, before: &[Session]) -> Result<Outcome, Error> {
        let unknown = |lost: Error| lost.into_outcome_unknown("the creation of the session");
        let Ok(listing) = self.named(name, &Query::CONSISTENT) else { return Err(unknown(lost)) };
        let place = match place {
            Some(place) => place,
            None => match self.own_place() {
                Ok(place) => place,
                Err(_) => return Err(unknown(lost)),
            },
        };
        let OwnNode::Node(node) = place else { return Err(unknown(lost)) };
        // None of those before it matched, else nothing would have been created.
        let fresh = those(&listing.sessions, &|session| same_node(&session.node, &node) && self.plan.matches(session));
        match fresh.first() {
            // Ours or another caller's, which is the same to whoever asked for it. Replacing goes on as usual.
            Some(session) => match SessionId::parse(&session.id) {
                Some(id) => {
                    let mut outcome = self.settle(name, &id, before)?;
                    let note = format!("the answer to the creation was lost ({lost}), and the session was found afterwards");
                    outcome.notes.push(note);
                    Ok(outcome)
                }
                None => Err(unknown(lost)),
            },
            None => Err(lost.context("no new session of that name was found afterwards")),
        }
    }

    fn absent_id(&mut self, id: &SessionId) -> Result<Outcome, Error> {
        let listing = self.consul.sessions(&Scope::Id(id.clone()), &Query::CONSISTENT)?;
        if let Some(session) = listing.sessions.first() {
            let differences = self.plan.identity_differences(session);
            if !differences.is_empty() {
                return Err(mismatch(session, differences, "nothing was destroyed; check which session is meant"));
            }
            return self.destroyed(listing.sessions);
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
        // Consul refuses to destroy a session that is only hidden, and has nothing against one that does not exist.
        match self.consul.destroy(id) {
            Ok(()) => Ok(nothing_to_destroy()),
            // Not so of a write that the agent's configuration blocks.
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
        match self.own_place()? {
            // Operation is seen of a node is all of it, or nothing.
            OwnNode::Node(node) => match on_node(&listing.sessions, &node) {
                found if !found.is_empty() => self.destroyed(found),
                _ if !listing.may_hide() => Ok(nothing_to_destroy()),
                _ => self.absent_on(name, &node),
            },
            OwnNode::Unknown => Err(node_required(&listing.sessions)),
        }
    }

    fn absent_on(&mut self, name: &str, node: &str) -> Result<Outcome, Error> {
        let listing = self.consul.sessions(&Scope::Node(node.to_owned()), &Query::CONSISTENT)?;
        let found = those(&listing.sessions, &|session| session.name == name);
        if !found.is_empty() {
            return self.destroyed(found);
        }
        let reason = if listing.filtered {
            "ACLs hide the sessions of this node".into()
        } else if listing.masked {
            match self.consul.may_read(node) {
                Ok(true) => return Ok(nothing_to_destroy()),
                Ok(false) => "without a token the sessions of this node cannot be read".into(),
                Err(error) => format!("whether the sessions of this node can be read could not be asked: {error}"),
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

    /// The sessions of this name, in the scope of the options: on the given node, or in the whole datacenter.
    fn named(&mut self, name: &str, query: &Query) -> Result<Listing, Error> {
        let scope = match &self.plan.given.node {
            Some(node) => Scope::Node(node.clone()),
            None => Scope::All,
        };
        let mut listing = self.consul.sessions(&scope, query)?;
        listing.sessions = those(&listing.sessions, &|session| session.name == name);
        Ok(listing)
    }

    /// The agent's own node, if it may be asked.
    fn own_place(&mut self) -> Result<OwnNode, Error> {
        match self.consul.own_node() {
            Ok(node) => Ok(OwnNode::Node(node)),
            Err(error) if matches!(error.kind, ErrorKind::AccessDenied { .. }) => Ok(OwnNode::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Destroys them, or says that it would.
    fn destroyed(&mut self, sessions: Vec<Session>) -> Result<Outcome, Error> {
        if !self.plan.dry_run {
            self.destroy_all(&sessions)?;
        }
        Ok(Outcome {
            changed: true,
            destroyed: sessions.iter().map(|session| session.id.clone()).collect(),
            diff: Some(Diff { before: sessions, after: Vec::new() }),
            ..Outcome::default()
        })
    }

    fn destroy_all(&mut self, sessions: &[Session]) -> Result<(), Error> {
        for (done, session) in sessions.iter().enumerate() {
            let destroyed = match SessionId::parse(&session.id) {
                Some(id) => self.consul.destroy(&id),
                None => Err(Error::new(
                    ErrorKind::InvalidResponse,
                    format!("consul lists a session whose id is not a UUID: {}", session.id),
                )),
            };
            destroyed.map_err(|error| {
                let (gone, left) = sessions.split_at_checked(done).unwrap_or_default();
                match gone {
                    [] => error.context(&format!("not destroyed: {}", ids(left))),
                    _ => error.context(&format!("destroyed: {}; not destroyed: {}", ids(gone), ids(left))),
                }
            })?;
        }
        Ok(())
    }

    fn mismatch_by_name(&self, session: &Session, of: usize) -> Error {
        let error = mismatch(
            session,
            self.plan.differences(session),
            "on_mismatch=replace creates a new one and destroys it, which frees its locks under its lock delay",
        );
        if of > 1 { error.context(&format!("{} more of that name differ too", of - 1)) } else { error }
    }

    /// Operation a dry run says of a creation.
    fn planned(&mut self, replaced: Vec<Session>) -> Result<Outcome, Error> {
        let mut session = self.plan.new_session.planned();
        if let ("", Some(old)) = (session.node.as_str(), replaced.first()) {
            session.node = old.node.clone();
        }
        // Left empty where the agent may not be asked.
        if session.node.is_empty()
            && let OwnNode::Node(node) = self.own_place()?
        {
            session.node = node;
        }
        Ok(created(session, replaced, Vec::new()))
    }

    /// A session that was created but is not there any more, or cannot be read.
    fn created_and_gone(&self, id: &SessionId) -> Outcome {
        let session = Session { id: id.as_str().to_owned(), ..self.plan.new_session.planned() };
        Outcome {
            notes: vec![
                "the new session was gone when it was read back: somebody destroyed it, or one of its checks failed".into(),
            ],
            ..created(session, Vec::new(), Vec::new())
        }
    }
}

fn on_node(sessions: &[Session], node: &str) -> Vec<Session> {
    those(sessions, &|session| same_node(&session.node, node))
}

/// The sessions that a question holds for.
fn those(sessions: &[Session], holds: &dyn Fn(&Session) -> bool) -> Vec<Session> {
    sessions.iter().filter(|session| holds(session)).cloned().collect()
}

fn note_others(others: &[Session], notes: &mut Vec<String>) {
    if !others.is_empty() {
        notes.push(format!("other sessions have the same name: {}", ids(others)));
    }
}

fn unchanged(session: Session, others: Vec<Session>) -> Outcome {
    let mut notes = Vec::new();
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
        "which node is meant cannot be known, since the agent's own may not be asked (agent:read): give `node`; {where_seen}"
    );
    Error::new(ErrorKind::NodeRequired { nodes }, message)
}
