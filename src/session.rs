//! A session, and Consul's JSON for it.

use crate::json::{FromFields, Json, Name, Plain};
use crate::text::{List, Maybe, Text, kept};
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

/// A span of time, as Go has it.
pub type Nanoseconds = i64;

/// A session as Consul stores it; the fields are described in `wit/sessions.wit`.
///
/// Other clients can store anything that Consul takes: negative lock delays, `null` for lists, empty names. So reading is
/// lenient: a field may be missing, `null` or of another type, which all mean its default, and unknown fields are passed over.
///
/// It lies in memory as `wit/` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/sessions.wit")]
#[repr(C)]
pub struct Session {
    pub id: Text,
    pub name: Text,
    pub node: Text,
    pub lock_delay: Nanoseconds,
    pub behavior: Text,
    pub ttl: Text,
    pub node_checks: List<Text>,
    pub service_checks: List<ServiceCheck>,
    pub checks: List<Text>,
    pub namespace: Maybe<Text>,
    pub partition: Maybe<Text>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A service check that a session depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/sessions.wit")]
#[repr(C)]
pub struct ServiceCheck {
    pub id: Text,
    pub namespace: Text,
}

impl Session {
    /// The ids of all checks that keep the session alive, each once: Consul treats the three lists alike.
    pub fn all_checks(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        let lists = self.node_checks.iter().chain(self.checks.iter()).chain(self.service_checks.iter().map(|check| &check.id));
        for check in lists {
            if !all.contains(&check.as_str()) {
                all.push(check);
            }
        }
        all
    }

    /// Its fields in JSON, with Consul's names and in its order.
    pub fn fields<'a>(&'a self, field: &mut dyn FnMut(&'static str, Json<'a>)) {
        field("ID", (&self.id).into());
        field("Name", (&self.name).into());
        field("Node", (&self.node).into());
        field("LockDelay", Json::Whole(self.lock_delay));
        field("Behavior", (&self.behavior).into());
        field("TTL", (&self.ttl).into());
        field("NodeChecks", Json::Texts(&self.node_checks));
        field("ServiceChecks", self.service_checks.iter().collect());
        // Consul leaves these out where they are empty, and its Community Edition has no namespaces and partitions.
        if !self.checks.is_empty() {
            field("Checks", Json::Texts(&self.checks));
        }
        for (name, text) in [("Namespace", &self.namespace), ("Partition", &self.partition)] {
            if let Some(text) = text.as_ref() {
                field(name, text.into());
            }
        }
        field("CreateIndex", Json::Whole(self.create_index as i64));
        field("ModifyIndex", Json::Whole(self.modify_index as i64));
    }

    /// The oldest first.
    pub fn sort(mut sessions: Vec<Session>) -> Vec<Session> {
        if sessions.is_sorted_by(|a, b| a.age() <= b.age()) {
            return sessions;
        }
        // Places are sorted, by hand, as std's sorts weigh five times as much in the component.
        let mut order: Vec<(u64, usize)> = Vec::with_capacity(sessions.len());
        for (place, session) in sessions.iter().enumerate() {
            order.push((session.create_index, place));
        }
        let mut other = order.clone();
        // Consul answers in the order of ids: sorted by the index alone, which takes three rounds instead of seventeen, they are in
        // the right order but where it does not.
        if order.len() > 256 {
            by_index(&mut order, &mut other);
        }
        let id = |place: usize| sessions.get(place).map(|session| session.id.as_str());
        let older = |a: &(u64, usize), b: &(u64, usize)| a.0 < b.0 || a.0 == b.0 && id(a.1) <= id(b.1);
        if !order.is_sorted_by(older) {
            let mut width = 1;
            while width < order.len() {
                for (from, to) in order.chunks(2 * width).zip(other.chunks_mut(2 * width)) {
                    let (mut left, mut right) = from.split_at_checked(width).unwrap_or((from, &[]));
                    for place in to {
                        match (left, right) {
                            ([a, rest @ ..], [b, ..]) if older(a, b) => (*place, left) = (*a, rest),
                            (_, [b, rest @ ..]) => (*place, right) = (*b, rest),
                            ([a, rest @ ..], []) => (*place, left) = (*a, rest),
                            ([], []) => {}
                        }
                    }
                }
                mem::swap(&mut order, &mut other);
                width *= 2;
            }
        }
        // Each goes where it belongs at once, and takes what was there along: a copy of all would be the most memory that a list takes.
        for start in 0..order.len() {
            let mut to = start;
            while let Some((_, place)) = order.get_mut(to) {
                let from = mem::replace(place, to);
                // Where `from` is `start`, what was at the start has come along to where it belongs.
                if from == start {
                    break;
                }
                if let Ok([to_there, from_there]) = sessions.get_disjoint_mut([to, from]) {
                    mem::swap(to_there, from_there);
                }
                to = from;
            }
        }
        sessions
    }

    /// The lower, the older: decides races in the same way for every caller. Indexes are the same only where several sessions
    /// were made in one Raft entry.
    pub fn age(&self) -> (u64, &str) {
        (self.create_index, &self.id)
    }
}

/// Sorts by the index, byte after byte, and otherwise leaves them in their order.
fn by_index(order: &mut Vec<(u64, usize)>, other: &mut Vec<(u64, usize)>) {
    let most = order.iter().map(|(index, _)| *index).max().unwrap_or(0);
    let mut shift = 0;
    while shift < 64 && most >> shift > 0 {
        let byte = |index: u64| usize::from((index >> shift) as u8);
        // How many have each byte, and then where the next with it goes.
        let mut next = [0; 256];
        for (index, _) in &*order {
            if let Some(count) = next.get_mut(byte(*index)) {
                *count += 1;
            }
        }
        let mut start = 0;
        for next in &mut next {
            start += mem::replace(next, start);
        }
        for entry in &*order {
            if let Some(next) = next.get_mut(byte(entry.0)) {
                if let Some(place) = other.get_mut(*next) {
                    *place = *entry;
                }
                *next += 1;
            }
        }
        mem::swap(order, other);
        shift += 8;
    }
}

impl FromFields for Session {
    fn set(&mut self, name: &str, value: Json) {
        // By the length too, as texts alone would be compared with one name after the other.
        match (name.len(), name) {
            (2, "ID") => self.id = text(value),
            (4, "Name") => self.name = text(value),
            (4, "Node") => self.node = text(value),
            (9, "LockDelay") => self.lock_delay = value.whole(),
            (8, "Behavior") => self.behavior = text(value),
            (3, "TTL") => self.ttl = text(value),
            (10, "NodeChecks") => self.node_checks = items(value).map(text).collect(),
            (13, "ServiceChecks") => self.service_checks = items(value).map(ServiceCheck::from).collect(),
            (6, "Checks") => self.checks = items(value).map(text).collect(),
            (9, "Namespace") => self.namespace = given(text(value)),
            (9, "Partition") => self.partition = given(text(value)),
            (11, "CreateIndex") => self.create_index = index(&value),
            (11, "ModifyIndex") => self.modify_index = index(&value),
            _ => {}
        }
    }

    fn read_plain(plain: &mut Plain) -> Option<Session> {
        const ID: Name = Name::new("ID");
        const NAME: Name = Name::new("Name");
        const NODE: Name = Name::new("Node");
        const LOCK_DELAY: Name = Name::new("LockDelay");
        const BEHAVIOR: Name = Name::new("Behavior");
        const TTL: Name = Name::new("TTL");
        const NODE_CHECKS: Name = Name::new("NodeChecks");
        const SERVICE_CHECKS: Name = Name::new("ServiceChecks");
        const CREATE_INDEX: Name = Name::new("CreateIndex");
        const MODIFY_INDEX: Name = Name::new("ModifyIndex");
        const CHECKS: Name = Name::new("Checks");
        const NAMESPACE: Name = Name::new("Namespace");
        const PARTITION: Name = Name::new("Partition");
        let mut session = Session::default();
        plain.take(b'{')?;
        loop {
            match plain.name()? {
                ID => session.id = plain.text()?,
                NAME => session.name = plain.text()?,
                NODE => session.node = plain.text()?,
                LOCK_DELAY => session.lock_delay = plain.whole()?,
                BEHAVIOR => session.behavior = plain.text()?,
                TTL => session.ttl = plain.text()?,
                NODE_CHECKS => session.node_checks = plain.texts()?,
                SERVICE_CHECKS => plain.nothing().map(|()| session.service_checks = List::default())?,
                CHECKS => session.checks = plain.texts()?,
                NAMESPACE => session.namespace = given(plain.text()?),
                PARTITION => session.partition = given(plain.text()?),
                CREATE_INDEX => session.create_index = plain.whole()?.unsigned_abs(),
                MODIFY_INDEX => session.modify_index = plain.whole()?.unsigned_abs(),
                _ => return None,
            }
            if !plain.another(b'}')? {
                return Some(session);
            }
        }
    }
}

impl From<Json<'_>> for ServiceCheck {
    fn from(json: Json) -> ServiceCheck {
        let mut check = ServiceCheck::default();
        if let Json::Object(fields) = json {
            for (name, value) in fields {
                match &*name {
                    "ID" => check.id = text(value),
                    "Namespace" => check.namespace = text(value),
                    _ => {}
                }
            }
        }
        check
    }
}

fn text(value: Json) -> Text {
    match value {
        // Safety: what is read is an answer, or a copy.
        Json::Text(text) => unsafe { kept(text) },
        _ => Text::default(),
    }
}

/// What is empty where it is not given.
fn given(text: Text) -> Maybe<Text> {
    Some(text).filter(|text| !text.is_empty()).into()
}

fn items(value: Json) -> vec::IntoIter<Json> {
    match value {
        Json::List(items) => items,
        _ => Vec::new(),
    }
    .into_iter()
}

/// An index of Raft; 0 for what is none.
pub(crate) fn index(value: &Json) -> u64 {
    value.whole().try_into().unwrap_or(0)
}

#[cfg(feature = "cli")]
impl From<&Json<'_>> for Session {
    fn from(json: &Json) -> Session {
        let mut session = Session::default();
        if let Json::Object(fields) = json {
            for (name, value) in fields {
                session.set(name, value.clone().into_owned());
            }
        }
        session
    }
}

impl<'a> From<&'a Session> for Json<'a> {
    fn from(session: &'a Session) -> Json<'a> {
        let mut fields = Vec::new();
        session.fields(&mut |name, value| fields.push((name.into(), value)));
        Json::Object(fields)
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
        // More than 256 are sorted by their index first. Every remainder comes once, in another order, and each index twice.
        for (count, modulus, factor) in (0..200).map(|count| (count, 211, 1)).chain([
            (256, 211, 1),
            (257, 211, 1),
            (20_000, 100_003, 1),
            (20_000, 100_003, 1 << 40 | 1),
        ]) {
            let session = |n: u64| {
                let n = n * 89 % modulus;
                Session { create_index: n / 2 * factor, id: n.to_string(), ..Session::default() }
            };
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

    /// A session that the parser reads field by field.
    #[derive(Debug, Default, PartialEq)]
    struct ByFields(Session);

    impl FromFields for ByFields {
        fn set(&mut self, name: &str, value: Json) {
            self.0.set(name, value);
        }
    }

    /// Lists of sessions and what is near them, put together by chance, and then cut and changed: the plain reading gives what the
    /// parser gives, and its errors.
    #[test]
    fn plain_sessions_are_read_as_by_the_parser() {
        const NAMES: [&str; 17] = [
            "ID",
            "Name",
            "Node",
            "LockDelay",
            "Behavior",
            "TTL",
            "NodeChecks",
            "ServiceChecks",
            "Checks",
            "Namespace",
            "Partition",
            "CreateIndex",
            "ModifyIndex",
            "CreateIndexes",
            "N\\u0061me",
            "",
            "a name of sixteen",
        ];
        const TEXTS: [&str; 12] = [
            "\"\"",
            "\"adf4238a-882b-9ddc-4a9d-5b6758e4159e\"",
            "\"seven..\"",
            "\"eight...\"",
            "\"a\\tb\"",
            "\"f\u{fc}nf\"",
            "\"\\\"\"",
            "\"a longer text, ~ \u{7f} and all\"",
            "null",
            "3",
            "{}",
            "\"a\u{1}b\"",
        ];
        const NUMBERS: [&str; 14] = [
            "0",
            "7",
            "15000000000",
            "999999999999999999",
            "9223372036854775807",
            "9223372036854775808",
            "-5",
            "-0",
            "01",
            "1.5",
            "1e3",
            "null",
            "\"5\"",
            "[1]",
        ];
        const LISTS: [&str; 12] = [
            "null",
            "[]",
            "[\"serfHealth\"]",
            "[\"serfHealth\",\"b\",\"c\"]",
            "[\"serfHealth\", \"b\"]",
            "[\"a\",]",
            "[\"a\" \"b\"]",
            "[null]",
            "[ ]",
            "[{\"ID\":\"a\",\"Namespace\":\"b\"}]",
            "nul",
            "\"text\"",
        ];
        let mut below = crate::json::chance();
        let (mut plain, mut valid) = (0, 0);
        for _ in 0..100_000 {
            // As an agent writes it, or as one in dev mode does.
            let indented = below(2) == 0;
            let [list, field, colon, end] = if indented { ["\n    ", "\n        ", " ", "\n    "] } else { [""; 4] };
            let mut text = format!("[{list}");
            let rarely = [8, 40, 400][below(3)];
            let odd = |text: &mut String, below: &mut dyn FnMut(usize) -> usize| {
                if below(rarely) == 0 {
                    text.push_str([" ", "\t", "\r\n ", "         ", "\n", "\u{b}"][below(6)]);
                }
            };
            for n in 0..1 + below(3) {
                text.push_str(if n > 0 { ",{" } else { "{" });
                for n in 0..below(12) {
                    if n > 0 {
                        odd(&mut text, &mut below);
                        text.push(',');
                    }
                    text.push_str(field);
                    odd(&mut text, &mut below);
                    // Of each kind the first are those that Consul sends.
                    let name = NAMES[if below(rarely) == 0 { below(NAMES.len()) } else { below(13) }];
                    let values: &[&str] = match name {
                        "LockDelay" | "CreateIndex" | "ModifyIndex" => &NUMBERS,
                        "NodeChecks" | "ServiceChecks" | "Checks" => &LISTS,
                        _ => &TEXTS,
                    };
                    let mut value = values[if below(rarely) == 0 { below(values.len()) } else { below(3) }].to_owned();
                    if indented {
                        for (from, to) in
                            [("[\"", "[\n            \""), ("\",\"", "\",\n            \""), ("\"]", "\"\n        ]")]
                        {
                            value = value.replace(from, to);
                        }
                    }
                    text += &format!("\"{name}\":{colon}");
                    odd(&mut text, &mut below);
                    text += &value;
                }
                odd(&mut text, &mut below);
                text.push_str(end);
                text.push('}');
            }
            text.push(']');
            let mut bytes = text.into_bytes();
            match below(rarely) {
                0 => bytes.truncate(below(bytes.len() + 1)),
                1 => {
                    let at = below(bytes.len());
                    bytes[at] = below(256) as u8;
                }
                2 => {
                    bytes.remove(below(bytes.len()));
                }
                _ => {}
            }
            let shown = || String::from_utf8_lossy(&bytes).into_owned();
            let read = Json::parse_list::<Session>(&bytes);
            let expected = Json::parse_list::<ByFields>(&bytes);
            let expected = expected.map(|list| list.map(|list| list.into_iter().map(|session| session.0).collect()));
            assert_eq!(read, expected, "{}", shown());
            valid += usize::from(read.is_ok());
            plain += usize::from(Session::read_plain(&mut Plain::new(&bytes, 1 + list.len())).is_some());
        }
        assert!((30_000..95_000).contains(&valid) && (30_000..95_000).contains(&plain), "{valid}, {plain}");
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
