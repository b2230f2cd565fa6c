//! The result of [`apply`](crate::apply), and its JSON.

#![forbid(unsafe_code)]

use crate::duration::{self, Seconds};
use crate::session::Session;
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use std::io::{self, Write};

/// The result of [`apply`](crate::apply); see `record outcome` in `wit/desired-state.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything changed, or would change in a dry run.
    pub changed: bool,
    /// The one session that the options describe. Its id is empty in the dry run of a creation.
    pub session: Option<Session>,
    /// The sessions found, or the one that is now present, followed by others with its name.
    pub sessions: Vec<Session>,
    /// Ids of the sessions that were, or in a dry run would be, destroyed.
    pub destroyed: Vec<String>,
    /// `None` after a read.
    pub diff: Option<Diff>,
    /// Whether ACLs hid, or may have hidden, sessions from a read.
    pub filtered: bool,
    /// Additional information for people, in sentences.
    pub notes: Vec<String>,
}

/// The sessions that a call changes, or would change in a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The affected sessions before the call.
    pub before: Vec<Session>,
    /// The affected sessions after the call.
    pub after: Vec<Session>,
}

impl Outcome {
    /// Returns the id of the one session that the options describe, if it has one yet.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str()).filter(|id| !id.is_empty())
    }

    /// Returns the JSON that `apply-json` returns and programs print, on one line.
    #[expect(clippy::expect_used, reason = "strings and numbers are always written, as UTF-8")]
    pub fn to_json(&self) -> String {
        // A session takes about 220 bytes.
        let mut json = Fixed::with_capacity(1024 + 230 * self.sessions.len());
        serde_json::to_writer(&mut json, self).expect("an outcome is JSON");
        if json.length > json.written.len() {
            json = Fixed::with_capacity(json.length);
            serde_json::to_writer(&mut json, self).expect("an outcome is JSON");
        }
        String::from_utf8(json.written).expect("JSON is UTF-8")
    }
}

/// A vector that never grows: growing takes three times the memory of what is written. What does not
/// fit is only counted.
struct Fixed {
    written: Vec<u8>,
    length: usize,
}

impl Fixed {
    fn with_capacity(capacity: usize) -> Fixed {
        Fixed { written: Vec::with_capacity(capacity), length: 0 }
    }
}

impl Write for Fixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.length += bytes.len();
        if self.length <= self.written.capacity() {
            self.written.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One object. The one session, if there is one, has its fields in it under the options' names.
impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("changed", &self.changed)?;
        if let Some(id) = self.session_id() {
            map.serialize_entry("session_id", id)?;
        }
        if let Some(session) = &self.session {
            map.serialize_entry("name", &session.name)?;
            map.serialize_entry("node", &session.node)?;
            map.serialize_entry("behavior", &session.behavior)?;
            map.serialize_entry("delay", &Seconds(session.lock_delay))?;
            map.serialize_entry("checks", &session.all_checks())?;
        }
        map.serialize_entry("sessions", &self.sessions)?;
        map.serialize_entry("destroyed", &self.destroyed)?;
        if let Some(diff) = &self.diff {
            map.serialize_entry("diff", diff)?;
        }
        map.serialize_entry("filtered", &self.filtered)?;
        map.serialize_entry("notes", &self.notes)?;
        if let Some(session) = &self.session {
            map.serialize_entry("ttl", &Ttl(&session.ttl))?;
        }
        map.end()
    }
}

/// `{"before": {"sessions": […]}, "after": {"sessions": […]}}`: as Ansible has it.
impl Serialize for Diff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Side<'a> {
            sessions: &'a [Session],
        }
        let mut diff = serializer.serialize_struct("Diff", 2)?;
        diff.serialize_field("before", &Side { sessions: &self.before })?;
        diff.serialize_field("after", &Side { sessions: &self.after })?;
        diff.end()
    }
}

/// A stored TTL in seconds; `null` means none. A TTL that is not a valid duration stays a string.
struct Ttl<'a>(&'a str);

impl Serialize for Ttl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match duration::parse_go(self.0) {
            Some(0) => serializer.serialize_none(),
            Some(nanoseconds) => Seconds(nanoseconds).serialize(serializer),
            None if self.0.is_empty() => serializer.serialize_none(),
            None => serializer.serialize_str(self.0),
        }
    }
}
