//! A session, and Consul's JSON for it.

#![forbid(unsafe_code)]

use crate::duration;
use crate::lenient::{Any, Lenient, Object, TOO_MANY_ELEMENTS, lenient, scalar};
use serde::de::{Error, SeqAccess};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Maximum number of sessions in a list. A response of Consul within 64 MiB has fewer: its shortest
/// session takes 190 bytes.
const MAX_SESSIONS: usize = 500_000;

/// Maximum memory of the sessions in a list, as [`Session::size`] counts it. A response of 64 MiB
/// takes less if its sessions have up to five checks.
const MAX_SIZE: usize = 128 << 20;

/// A session as Consul stores it; see `wit/sessions.wit`.
///
/// Other clients can store anything that Consul accepts: negative lock delays, `null` for lists,
/// empty names. Reading is therefore lenient: a field that is missing, `null` or of another type
/// has its default, and unknown fields are skipped.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is described in wit/sessions.wit")]
#[serde(default, rename_all = "PascalCase")]
pub struct Session {
    #[serde(rename = "ID", deserialize_with = "scalar")]
    pub id: String,
    #[serde(deserialize_with = "scalar")]
    pub name: String,
    #[serde(deserialize_with = "scalar")]
    pub node: String,
    /// Nanoseconds.
    #[serde(deserialize_with = "scalar")]
    pub lock_delay: i64,
    #[serde(deserialize_with = "scalar")]
    pub behavior: String,
    #[serde(rename = "TTL", deserialize_with = "scalar")]
    pub ttl: String,
    #[serde(deserialize_with = "lenient")]
    pub node_checks: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub service_checks: Vec<ServiceCheck>,
    // Consul omits these three if they are empty; Community Edition never has the last two.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    #[serde(deserialize_with = "scalar", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "scalar", skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    #[serde(deserialize_with = "scalar")]
    pub create_index: u64,
    #[serde(deserialize_with = "scalar")]
    pub modify_index: u64,
}

/// A service check that a session depends on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is described in wit/sessions.wit")]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceCheck {
    #[serde(rename = "ID", deserialize_with = "scalar")]
    pub id: String,
    #[serde(deserialize_with = "scalar")]
    pub namespace: String,
}

impl Object for Session {}
impl Object for ServiceCheck {}

impl Session {
    /// Returns the ids of all checks that keep the session alive, without duplicates: Consul treats
    /// the three lists alike.
    pub fn all_checks(&self) -> Vec<&str> {
        let lists = self.node_checks.iter().chain(&self.checks).chain(self.service_checks.iter().map(|check| &check.id));
        let (mut seen, mut all) = (BTreeSet::new(), Vec::new());
        all.extend(lists.map(String::as_str).filter(|id| seen.insert(*id)));
        all
    }

    /// Returns the TTL in nanoseconds, 0 for none; `None` if it is not a valid duration.
    pub(crate) fn ttl(&self) -> Option<i64> {
        if self.ttl.is_empty() { Some(0) } else { duration::parse_go(&self.ttl) }
    }

    /// Returns whether the sessions have the same properties, except for name and node.
    pub(crate) fn is_like(&self, other: &Session) -> bool {
        let (checks, others) = (self.all_checks(), other.all_checks());
        self.lock_delay == other.lock_delay
            && self.behavior == other.behavior
            && self.ttl() == other.ttl()
            && checks.len() == others.len()
            && checks.iter().all(|check| others.contains(check))
    }

    /// Returns a key that sorts sessions from the oldest to the youngest, in the same order for
    /// every reader. Indexes are equal only if one Raft entry created several sessions.
    pub fn age(&self) -> (u64, &str) {
        (self.create_index, &self.id)
    }

    /// Returns about how many bytes the session takes, for wasm32.
    fn size(&self) -> usize {
        /// What an allocation takes besides its content.
        const ALLOCATION: usize = 16;
        let text = |text: &String| if text.is_empty() { 0 } else { ALLOCATION + text.len() };
        let texts = |texts: &Vec<String>| ALLOCATION + texts.iter().map(|one| 12 + text(one)).sum::<usize>();
        let checks = self.service_checks.iter().map(|check| 24 + text(&check.id) + text(&check.namespace)).sum::<usize>();
        let required = [&self.id, &self.name, &self.node, &self.behavior, &self.ttl];
        let all = required.into_iter().chain(&self.namespace).chain(&self.partition).map(text).sum::<usize>();
        144 + all + texts(&self.node_checks) + texts(&self.checks) + ALLOCATION + checks
    }
}

/// A list of sessions in a response of Consul: an array of objects that all have an id; `None` for
/// any other JSON. [`MAX_SESSIONS`] and [`MAX_SIZE`] bound its memory.
#[derive(Default)]
pub(crate) struct Sessions(pub Option<Vec<Session>>);

impl Lenient for Sessions {
    fn array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<Sessions, A::Error> {
        let (mut sessions, mut size) = (Vec::<Session>::new(), 0);
        while let Some(Any(session)) = array.next_element::<Any<Session>>()? {
            if session.id.is_empty() {
                return Err(A::Error::custom("not a list of sessions"));
            }
            size += session.size();
            if sessions.len() == MAX_SESSIONS || size > MAX_SIZE {
                return Err(A::Error::custom(format_args!(
                    "{TOO_MANY_ELEMENTS}: at most {MAX_SESSIONS} sessions in {} MiB of memory are accepted",
                    MAX_SIZE >> 20
                )));
            }
            sessions.push(session);
        }
        Ok(Sessions(Some(sessions)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lenient::MAX_ELEMENTS;

    fn read(json: &str) -> serde_json::Result<Option<Vec<Session>>> {
        serde_json::from_str::<Any<Sessions>>(json).map(|Any(Sessions(sessions))| sessions)
    }

    #[test]
    fn odd_fields_are_the_default() {
        let sessions = read(
            r#"[{"ID":"x","Name":null,"LockDelay":-5000000000,"NodeChecks":null,"ServiceChecks":null,"Future":{"a":[1]}},
                {"ID":"y","Name":1,"LockDelay":1.5e9,"NodeChecks":["a",7],"ServiceChecks":[{"ID":"s"},["t"]],"Namespace":""}]"#,
        )
        .unwrap()
        .unwrap();
        let [x, y] = &sessions[..] else { panic!("{sessions:?}") };
        assert_eq!(*x, Session { id: "x".into(), lock_delay: -5_000_000_000, ..Session::default() });
        let service_checks = vec![ServiceCheck { id: "s".into(), ..ServiceCheck::default() }, ServiceCheck::default()];
        let node_checks = vec!["a".into(), String::new()];
        assert_eq!(*y, Session { id: "y".into(), node_checks, service_checks, ..Session::default() });
    }

    #[test]
    fn other_lists_are_rejected() {
        for json in ["[{}]", "[[]]", "[3]", r#"[["x"]]"#, r#"[{"ID":5}]"#, r#"[{"ID":"x"},null]"#, "{}", "null", "true"] {
            assert!(!matches!(read(json), Ok(Some(_))), "{json}");
        }
    }

    #[test]
    fn size_counts_the_session_and_each_allocation() {
        let size = |json: &str| serde_json::from_str::<Any<Session>>(json).map(|Any(session)| session.size()).unwrap();
        let empty = size("{}");
        assert_eq!(empty, 144 + 3 * 16);
        for field in ["ID", "Name", "Node", "Behavior", "TTL", "Namespace", "Partition"] {
            assert_eq!(size(&format!(r#"{{"{field}":"abc"}}"#)) - empty, 16 + 3, "{field}");
        }
        for field in ["NodeChecks", "Checks"] {
            assert_eq!(size(&format!(r#"{{"{field}":["","ab"]}}"#)) - empty, 12 + (12 + 16 + 2), "{field}");
        }
        assert_eq!(size(r#"{"ServiceChecks":[{},{"ID":"a"},{"Namespace":"bcd"}]}"#) - empty, 24 + (24 + 17) + (24 + 19));
    }

    #[test]
    fn lists_over_the_limits_are_rejected() {
        let read = |json: &str| read(json).map(|sessions| sessions.unwrap().len());
        let list = |session: &str, count: usize| format!("[{}]", vec![session; count].join(","));
        assert_eq!(read(&list(r#"{"ID":"x"}"#, MAX_SESSIONS)).unwrap(), MAX_SESSIONS);
        // Exactly half of the memory.
        let half = format!(r#"{{"ID":"{}"}}"#, "x".repeat(MAX_SIZE / 2 - 144 - 3 * 16 - 16));
        assert_eq!(read(&list(&half, 2)).unwrap(), 2);
        let checks = format!(r#"{{"ID":"x","NodeChecks":[{}]}}"#, vec![r#""x""#; MAX_ELEMENTS].join(","));
        for (session, count) in [(r#"{"ID":"x"}"#, MAX_SESSIONS + 1), (&half, 3), (&checks, 20)] {
            let error = read(&list(session, count)).unwrap_err().to_string();
            assert!(error.starts_with(TOO_MANY_ELEMENTS), "{error}");
        }
    }

    #[test]
    fn all_checks_have_no_duplicates() {
        let session = Session {
            node_checks: vec!["serfHealth".into(), "b".into()],
            checks: vec!["b".into(), "a".into()],
            service_checks: vec![ServiceCheck { id: "s".into(), namespace: String::new() }],
            ..Session::default()
        };
        assert_eq!(session.all_checks(), ["serfHealth", "b", "a", "s"]);
    }

    #[test]
    fn json_has_the_names_of_consul() {
        let session = Session { id: "x".into(), ttl: "10s".into(), ..Session::default() };
        assert_eq!(
            serde_json::to_string(&session).unwrap(),
            r#"{"ID":"x","Name":"","Node":"","LockDelay":0,"Behavior":"","TTL":"10s","NodeChecks":[],"ServiceChecks":[],"CreateIndex":0,"ModifyIndex":0}"#
        );
    }
}
