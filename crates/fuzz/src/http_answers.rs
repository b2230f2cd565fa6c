//! Consul's answers as HTTP, in the built component.

use crate::component::{Component, reply};
use serde_json::{Value, json};

/// The options of the calls, which the first byte chooses.
const CALLS: [&str; 8] = [
    r#"{"name": "web", "node": "n1"}"#,
    r#"{"name": "web", "on_mismatch": "replace", "delay": "20s", "token": "0f7c2d3e-b1a5-4c96-8d7f-e2a94b6c1d05"}"#,
    r#"{"state": "absent", "name": "web"}"#,
    r#"{"state": "absent", "id": "adf4238a-882b-9ddc-4a9d-000000000000"}"#,
    r#"{"state": "list"}"#,
    r#"{"state": "info", "id": "adf4238a-882b-9ddc-4a9d-000000000000"}"#,
    r#"{"state": "node", "node": "n1", "namespace": "ns"}"#,
    r#"{"ttl": "30s", "behavior": "delete", "dry_run": true}"#,
];

/// Calls the component with the options that the first byte chooses. The answers come from the
/// rest, each after a form feed: a body of a complete answer, or the bytes of one from `HTTP` on,
/// after which the connection is closed.
///
/// The component never traps and always ends, with JSON or with an error that does not show the
/// token.
pub fn http_answers(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let replies = rest.split(|byte| *byte == b'\x0c').take(12).map(|bytes| match std::str::from_utf8(bytes) {
        Ok(body) if !body.starts_with("HTTP") => reply(body),
        _ => bytes.to_vec(),
    });
    let component = Component::with(replies);
    let mut options: Value = serde_json::from_str(CALLS[usize::from(*first) % CALLS.len()]).unwrap_or_default();
    options["host"] = "127.0.0.1".into();
    options["port"] = component.port().into();
    options["timeout"] = json!(0.2);
    let options = options.to_string();
    let outcome = component.call(|host| host.apply_json(&options));
    if let Some(outcome) = outcome {
        assert!(serde_json::from_str::<Value>(&outcome).is_ok_and(|json| json["changed"].is_boolean()), "{outcome}");
    }
}
