//! A session, and how Consul reads one from the body of a create request.

use crate::go::{self, Object, SECOND};
use serde::Serialize;
use serde_json::Value;

/// A session with Consul's own field names, in Consul's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub node: String,
    /// In nanoseconds. It can be negative.
    pub lock_delay: i64,
    pub behavior: String,
    /// As the client sent it.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// `None` is `null`, which Consul distinguishes from `[]`.
    pub node_checks: Option<Vec<String>>,
    pub service_checks: Option<Vec<ServiceCheck>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    pub create_index: u64,
    pub modify_index: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCheck {
    #[serde(rename = "ID")]
    pub id: String,
    pub namespace: String,
}

impl Session {
    /// Decodes the body of a create request. Missing fields get Consul's defaults: a lock delay of
    /// 15 s, the check `serfHealth`, and `node`. An empty body is an empty object.
    ///
    /// # Errors
    ///
    /// The text that Consul writes after `Request decode failed: `.
    pub fn decode(body: &[u8], node: &str) -> Result<Session, String> {
        let mut session = Session {
            id: String::new(),
            name: String::new(),
            node: node.into(),
            lock_delay: 15 * SECOND,
            behavior: "release".into(),
            ttl: String::new(),
            node_checks: Some(vec!["serfHealth".into()]),
            service_checks: None,
            checks: vec!["serfHealth".into()],
            create_index: 0,
            modify_index: 0,
        };
        let mut lock_delay = Value::Null;
        let body = if body.is_empty() { b"null" } else { body };
        let object = Object::read(body, "struct { LockDelay interface {}; *structs.Alias }")?;
        let mut strings =
            [("ID", &mut session.id), ("Name", &mut session.name), ("Node", &mut session.node), ("TTL", &mut session.ttl)];
        object.read_into::<String>(".Alias", &mut strings, |field, value| {
            match field.to_ascii_lowercase().as_str() {
                "lockdelay" => lock_delay = value,
                "behavior" => {
                    go::set_string(&mut session.behavior, value, ".Alias.Behavior", "structs.SessionBehavior")?;
                }
                "nodechecks" => session.node_checks = go::strings(value, ".Alias.NodeChecks", "string")?,
                "servicechecks" => session.service_checks = service_checks(value)?,
                "checks" => session.checks = go::strings(value, ".Alias.Checks", "types.CheckID")?.unwrap_or_default(),
                "createindex" | "modifyindex" if !(value.is_u64() || value.is_null()) => {
                    return Err(go::mismatch(&value, &format!(".Alias.RaftIndex.{field}"), "uint64"));
                }
                _ => {}
            }
            Ok(())
        })?;
        if let Some(nanoseconds) = nanoseconds(&lock_delay)? {
            // Consul takes numbers below 1000 as seconds, and does not check for overflow.
            session.lock_delay = if nanoseconds < 1000 { nanoseconds.wrapping_mul(SECOND) } else { nanoseconds };
        }
        session.fold_checks();
        Ok(session)
    }

    /// Merges the older field `Checks` with its successor, as Consul's `fixupEmptySessionChecks`
    /// does.
    fn fold_checks(&mut self) {
        if self.checks.is_empty() {
            self.node_checks = Some(Vec::new());
        } else if self.node_checks.as_ref().is_none_or(Vec::is_empty) || self.checks == ["serfHealth"] {
            self.checks.clear();
        }
    }

    /// Returns the ids of all checks that the session depends on, in the order in which Consul
    /// tests them.
    pub fn all_checks(&self) -> impl Iterator<Item = &str> {
        let node = self.node_checks.iter().flatten();
        let service = self.service_checks.iter().flatten().map(|check| &check.id);
        self.checks.iter().chain(node).chain(service).map(String::as_str)
    }
}

/// Returns `None` for `null`, which leaves the default.
fn nanoseconds(lock_delay: &Value) -> Result<Option<i64>, String> {
    match lock_delay {
        Value::Null => Ok(None),
        Value::String(text) => go::duration(text).map(Some),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN).trunc();
            // As on amd64, a number that does not fit becomes the smallest one.
            let fits = (-(2f64.powi(63))..2f64.powi(63)).contains(&number);
            Ok(Some(if fits { number as i64 } else { i64::MIN }))
        }
        _ => Ok(Some(0)),
    }
}

fn service_checks(value: Value) -> Result<Option<Vec<ServiceCheck>>, String> {
    const FIELD: &str = ".Alias.ServiceChecks";
    let item = |value| {
        let mut check = ServiceCheck::default();
        let fields: Object = match value {
            Value::Null => return Ok(check),
            Value::Object(fields) => fields.into(),
            other => return Err(go::mismatch(&other, FIELD, "structs.ServiceCheck")),
        };
        let mut strings = [("ID", &mut check.id), ("Namespace", &mut check.namespace)];
        fields.read_into::<String>("ServiceCheck.Alias.ServiceChecks", &mut strings, |_, _| Ok(()))?;
        Ok(check)
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => items.into_iter().map(item).collect::<Result<_, _>>().map(Some),
        other => Err(go::mismatch(&other, FIELD, "[]structs.ServiceCheck")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decode(body: &str) -> Result<Session, String> {
        Session::decode(body.as_bytes(), "n")
    }

    #[test]
    fn lock_delays_decode_as_in_consul() {
        for (sent, stored) in [
            ("null", 15 * SECOND),
            (r#""20s""#, 20 * SECOND),
            ("20", 20 * SECOND),
            ("20000000000", 20 * SECOND),
            (r#""20ns""#, 20 * SECOND),
            ("999", 999 * SECOND),
            ("1000", 1000),
            (r#""1us""#, 1000),
            (r#""1ms""#, 1_000_000),
            ("1.9", SECOND),
            ("0", 0),
            (r#""0""#, 0),
            ("0.5", 0),
            ("true", 0),
            ("[]", 0),
            ("{}", 0),
            ("-5", -5 * SECOND),
            (r#""-5s""#, -5_000_000_000_000_000_000),
            (r#""120s""#, 120 * SECOND),
            ("1e30", 0),
        ] {
            let session = decode(&format!(r#"{{"LockDelay":{sent}}}"#));
            assert_eq!(session.map(|session| session.lock_delay), Ok(stored), "{sent}");
        }
        for (sent, text) in [
            ("15", r#"time: missing unit in duration "15""#),
            ("", r#"time: invalid duration """#),
            (" 5s", r#"time: invalid duration " 5s""#),
            ("5S", r#"time: unknown unit "S" in duration "5S""#),
            ("1h2d", r#"time: unknown unit "d" in duration "1h2d""#),
            ("10ä", r#"time: unknown unit "\xc3\xa4" in duration "10\xc3\xa4""#),
            ("99999999999h", r#"time: invalid duration "99999999999h""#),
        ] {
            assert_eq!(decode(&format!(r#"{{"LockDelay":"{sent}"}}"#)).err().as_deref(), Some(text), "{sent}");
        }
    }

    /// Each row has a body, and the `NodeChecks`, `Checks` and ids of `ServiceChecks` that Consul
    /// makes of it.
    #[test]
    fn checks_are_merged_as_in_consul() {
        for (body, expected) in [
            (r#""#, r#"["serfHealth"] [] null"#),
            (r#""Checks":[]"#, r#"[] [] null"#),
            (r#""Checks":null"#, r#"[] [] null"#),
            (r#""NodeChecks":[]"#, r#"[] [] null"#),
            (r#""NodeChecks":null"#, r#"null [] null"#),
            (r#""Checks":["a"]"#, r#"["serfHealth"] ["a"] null"#),
            (r#""Checks":["serfHealth"]"#, r#"["serfHealth"] [] null"#),
            (r#""Checks":["a","serfHealth"]"#, r#"["serfHealth"] ["a","serfHealth"] null"#),
            (r#""NodeChecks":["a"]"#, r#"["a"] [] null"#),
            (r#""Checks":["a"],"NodeChecks":["b"]"#, r#"["b"] ["a"] null"#),
            (r#""Checks":["a"],"NodeChecks":[]"#, r#"[] [] null"#),
            (r#""Checks":["a"],"NodeChecks":null"#, r#"null [] null"#),
            (r#""Checks":[],"NodeChecks":["b"]"#, r#"[] [] null"#),
            (r#""ServiceChecks":[{"ID":"s"}]"#, r#"["serfHealth"] [] ["s"]"#),
            (r#""ServiceChecks":[{"id":"s","x":1},null],"NodeChecks":[]"#, r#"[] [] ["s",""]"#),
            (r#""NodeChecks":["a","a"]"#, r#"["a","a"] [] null"#),
        ] {
            let session = decode(&format!("{{{body}}}")).ok().unwrap();
            let services = session.service_checks.map(|checks| checks.into_iter().map(|c| c.id).collect::<Vec<_>>());
            let found = [json!(session.node_checks), json!(session.checks), json!(services)].map(|value| value.to_string());
            assert_eq!(found.join(" "), expected, "{body}");
        }
    }

    #[test]
    fn bodies_decode_as_in_consul() {
        let name = |body| decode(body).map(|session| session.name);
        for (body, expected) in [
            ("", ""),
            ("null", ""),
            (" {} trailing", ""),
            (r#"{"Name":"a"}{"Name":"b"}"#, "a"),
            (r#"{"name":"x","Name":"y"}"#, "y"),
            (r#"{"Name":"x","name":null}"#, "x"),
            (r#"{"Unknown":1,"Namespace":5,"lock_delay":"x"}"#, ""),
            (r#"{"ID":"x","CreateIndex":5,"ModifyIndex":null}"#, ""),
        ] {
            assert_eq!(name(body).as_deref(), Ok(expected), "{body}");
        }
        let unmarshal = "json: cannot unmarshal";
        for (body, text) in [
            ("[]", format!("{unmarshal} array into Go value of type struct {{ LockDelay interface {{}}; *structs.Alias }}")),
            ("{", "unexpected EOF".into()),
            (r#"{"Name":5}"#, format!("{unmarshal} number into Go struct field .Alias.Name of type string")),
            (r#"{"LockDelay":"x","TTL":30}"#, format!("{unmarshal} number into Go struct field .Alias.TTL of type string")),
            (r#"{"Checks":"a"}"#, format!("{unmarshal} string into Go struct field .Alias.Checks of type []types.CheckID")),
            (r#"{"Checks":[1]}"#, format!("{unmarshal} number into Go struct field .Alias.Checks of type types.CheckID")),
            (
                r#"{"ServiceChecks":["a"]}"#,
                format!("{unmarshal} string into Go struct field .Alias.ServiceChecks of type structs.ServiceCheck"),
            ),
            (
                r#"{"ServiceChecks":[{"ID":5}]}"#,
                format!("{unmarshal} number into Go struct field ServiceCheck.Alias.ServiceChecks.ID of type string"),
            ),
        ] {
            assert_eq!(name(body), Err(text), "{body}");
        }
    }
}
