//! A session, and Consul's JSON for it.

use crate::json::Json;
use alloc::borrow::ToOwned;
use alloc::collections::BinaryHeap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A session as Consul stores it; the fields are described in `wit/sessions.wit`.
///
/// Other clients can store anything that Consul takes: negative lock delays, `null` for lists, empty names. So reading is
/// lenient: a field may be missing, `null` or of another type, which all mean its default, and unknown fields are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/sessions.wit")]
pub struct Session {
    pub id: String,
    pub name: String,
    pub node: String,
    /// Nanoseconds.
    pub lock_delay: i64,
    pub behavior: String,
    pub ttl: String,
    pub node_checks: Vec<String>,
    pub service_checks: Vec<ServiceCheck>,
    pub checks: Vec<String>,
    pub namespace: Option<String>,
    pub partition: Option<String>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A service check that a session depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCheck {
    /// Id of the check.
    pub id: String,
    /// Its namespace (Consul Enterprise); empty elsewhere.
    pub namespace: String,
}

impl Session {
    /// The ids of all checks that keep the session alive, each once: Consul treats the three lists alike.
    pub fn all_checks(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        let lists = self.node_checks.iter().chain(&self.checks).chain(self.service_checks.iter().map(|check| &check.id));
        for check in lists {
            if !all.contains(&check.as_str()) {
                all.push(check);
            }
        }
        all
    }

    /// The oldest first.
    pub fn sort(mut sessions: Vec<Session>) -> Vec<Session> {
        // A heap: std's sorts weigh five times as much in the component, and only keys are moved here. A heap sort of positions
        // alone would be smaller yet, and makes the reading of 100,000 sessions a fifth slower.
        let ages: BinaryHeap<((u64, &str), usize)> = sessions.iter().map(Session::age).zip(0..).collect();
        let mut order = Vec::with_capacity(sessions.len());
        for (_, at) in ages.into_sorted_vec() {
            order.push(at);
        }
        let mut sorted = Vec::with_capacity(sessions.len());
        for at in order {
            sorted.extend(sessions.get_mut(at).map(core::mem::take));
        }
        sorted
    }

    /// The lower, the older: decides races in the same way for every caller. Indexes are the same only where several sessions
    /// were made in one Raft entry.
    pub fn age(&self) -> (u64, &str) {
        (self.create_index, &self.id)
    }
}

impl From<&Json<'_>> for Session {
    fn from(json: &Json<'_>) -> Session {
        let text = |name| json.get(name).text().to_owned();
        let optional = |name| Some(text(name)).filter(|text| !text.is_empty());
        let index = |name| json.get(name).whole().try_into().unwrap_or(0);
        let mut service_checks = Vec::new();
        for check in json.get("ServiceChecks").items() {
            let text = |name| check.get(name).text().to_owned();
            service_checks.push(ServiceCheck { id: text("ID"), namespace: text("Namespace") });
        }
        Session {
            id: text("ID"),
            name: text("Name"),
            node: text("Node"),
            lock_delay: json.get("LockDelay").whole(),
            behavior: text("Behavior"),
            ttl: text("TTL"),
            node_checks: json.get("NodeChecks").texts(),
            service_checks,
            checks: json.get("Checks").texts(),
            namespace: optional("Namespace"),
            partition: optional("Partition"),
            create_index: index("CreateIndex"),
            modify_index: index("ModifyIndex"),
        }
    }
}

impl<'a> From<&'a Session> for Json<'a> {
    fn from(session: &'a Session) -> Json<'a> {
        Json::object(vec![
            ("ID", (&session.id).into()),
            ("Name", (&session.name).into()),
            ("Node", (&session.node).into()),
            ("LockDelay", Json::Whole(session.lock_delay)),
            ("Behavior", (&session.behavior).into()),
            ("TTL", (&session.ttl).into()),
            ("NodeChecks", session.node_checks.iter().collect()),
            ("ServiceChecks", session.service_checks.iter().collect()),
            // Consul leaves it out where it is empty, which it is but for sessions made with the older field.
            ("Checks", if session.checks.is_empty() { Json::Null } else { session.checks.iter().collect() }),
            ("Namespace", session.namespace.as_deref().into()),
            ("Partition", session.partition.as_deref().into()),
            ("CreateIndex", Json::Whole(session.create_index as i64)),
            ("ModifyIndex", Json::Whole(session.modify_index as i64)),
        ])
    }
}

impl<'a> From<&'a ServiceCheck> for Json<'a> {
    fn from(check: &'a ServiceCheck) -> Json<'a> {
        Json::object(vec![("ID", (&check.id).into()), ("Namespace", (&check.namespace).into())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_first() {
        for count in 0..200_u64 {
            // Every remainder once, in another order, and each index twice.
            let session =
                |n: u64| Session { create_index: n * 89 % 211 / 2, id: (n * 89 % 211).to_string(), ..Session::default() };
            let sessions: Vec<Session> = (0..count).map(session).collect();
            let mut expected = sessions.clone();
            expected.sort_by(|a, b| a.age().cmp(&b.age()));
            assert_eq!(Session::sort(sessions), expected, "{count}");
        }
    }

    #[test]
    fn odd_sessions_are_read() {
        let json = Json::parse(
            br#"{"ID":"x","Name":null,"LockDelay":-5000000000,"NodeChecks":null,"ServiceChecks":null,"Future":{"a":[1]}}"#,
        )
        .unwrap();
        assert_eq!(Session::from(&json), Session { id: "x".into(), lock_delay: -5_000_000_000, ..Session::default() });
    }

    #[test]
    fn all_checks_are_a_set() {
        let session = Session {
            node_checks: vec!["serfHealth".into(), "b".into()],
            checks: vec!["b".into(), "a".into()],
            service_checks: vec![ServiceCheck { id: "s".into(), namespace: String::new() }],
            ..Session::default()
        };
        assert_eq!(session.all_checks(), ["serfHealth", "b", "a", "s"]);
    }

    #[test]
    fn json_has_consuls_names() {
        let session = Session { id: "x".into(), ttl: "10s".into(), ..Session::default() };
        assert_eq!(
            Json::from(&session).to_string(),
            r#"{"ID":"x","Name":"","Node":"","LockDelay":0,"Behavior":"","TTL":"10s","NodeChecks":[],"ServiceChecks":[],"CreateIndex":0,"ModifyIndex":0}"#
        );
    }
}
