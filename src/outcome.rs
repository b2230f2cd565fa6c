//! What [`apply`](crate::apply) answers, and its JSON.

use crate::duration;
use crate::json::Json;
use crate::session::Session;
use crate::text::Text;
use alloc::vec;
use alloc::vec::Vec;

/// What was found and done; see `record outcome` in `wit/desired-state.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything was changed, or would be in a dry run.
    pub changed: bool,
    /// The one session that the options speak of. Its id is empty in the dry run of a creation.
    pub session: Option<Session>,
    /// The sessions found, or the one that is now present (first) with others of its name.
    pub sessions: Vec<Session>,
    /// Ids of the sessions that were, or in a dry run would be, destroyed.
    pub destroyed: Vec<Text>,
    /// `None` after a read.
    pub diff: Option<Diff>,
    /// Whether ACLs hid something from a read, or may have.
    pub filtered: bool,
    /// What a person should know besides, in sentences.
    pub notes: Vec<Text>,
}

/// What a call changes, or would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The sessions concerned, before.
    pub before: Vec<Session>,
    /// The sessions concerned, after.
    pub after: Vec<Session>,
}

impl Outcome {
    /// The id of the one session that the options speak of, if it has one yet.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str()).filter(|id| !id.is_empty())
    }

    /// One object with the page's keys.
    pub fn to_json(&self) -> Json<'_> {
        let of_session = |field: fn(&Session) -> Json<'_>| self.session.as_ref().map_or(Json::Null, field);
        let mut object = Json::object(vec![
            ("changed", Json::Bool(self.changed)),
            ("session_id", self.session_id().into()),
            ("name", of_session(|session| (&session.name).into())),
            ("node", of_session(|session| (&session.node).into())),
            ("behavior", of_session(|session| (&session.behavior).into())),
            ("delay", of_session(|session| Json::Seconds(session.lock_delay))),
            ("checks", of_session(|session| session.all_checks().into_iter().collect())),
            ("sessions", Json::Sessions(&self.sessions)),
            ("destroyed", Json::Texts(&self.destroyed)),
            ("diff", self.diff.as_ref().map_or(Json::Null, Diff::to_json)),
            ("filtered", Json::Bool(self.filtered)),
            ("notes", Json::Texts(&self.notes)),
        ]);
        // The one key whose `null` says something: there is no TTL.
        if let (Some(session), Json::Object(fields)) = (&self.session, &mut object) {
            fields.push(("ttl".into(), ttl(&session.ttl)));
        }
        object
    }
}

impl Diff {
    fn to_json(&self) -> Json<'_> {
        Json::object(vec![("before", sessions_json(&self.before)), ("after", sessions_json(&self.after))])
    }
}

/// One side of a [`Diff`].
pub fn sessions_json(sessions: &[Session]) -> Json<'_> {
    Json::object(vec![("sessions", Json::Sessions(sessions))])
}

/// A stored TTL as seconds; `null` for none. What does not read as a duration stays as it is.
fn ttl(stored: &str) -> Json<'_> {
    match duration::parse_go(stored) {
        Some(0) => Json::Null,
        Some(nanoseconds) => Json::Seconds(nanoseconds),
        None if stored.is_empty() => Json::Null,
        None => stored.into(),
    }
}
