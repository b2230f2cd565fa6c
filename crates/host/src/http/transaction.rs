//! The transactions that get the host's secrets: to lock or unlock one key, and to acquire or release
//! a slot of a semaphore.
//!
//! `/v1/txn` also registers nodes, services and checks. With a token that permits it, a component
//! could send a service's clients elsewhere, though it was granted nothing but locks. So the host
//! reads the transaction before it adds its secrets, and sends what it has understood in place of
//! what the component wrote: Consul's parser accepts fields in any case and the last of several, so
//! the same text could mean something else to it.

use super::body::read_up_to;
use http::Request;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use wasmtime_wasi_http::WasiBody;

/// The path of transactions.
pub(crate) const PATH: &str = "/v1/txn";

/// The longest transaction that is read, in bytes. By default, Consul rejects more than half.
const MAX_BYTES: usize = 1 << 20;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    #[serde(rename = "KV")]
    kv: KvOperation,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct KvOperation {
    verb: Verb,
    key: String,
    value: String,
    flags: u64,
    session: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verb {
    Lock,
    Unlock,
    Cas,
    DeleteCas,
    Delete,
}

/// Returns the request of a transaction, read to its end, if all it does is what locks need.
/// Returns `None` if it does anything else, or does not end, or is too long.
pub(crate) async fn only_lock(request: Request<WasiBody>) -> Option<Request<WasiBody>> {
    let (mut head, body) = request.into_parts();
    let Ok((body, true)) = read_up_to(body, MAX_BYTES).await else { return None };
    let body = understood(&body)?;
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    Some(Request::from_parts(head, body.boxed_unsync()))
}

/// Returns the transaction as it is sent, or `None` if it does something else than locks need: to lock
/// or unlock one key, or to change the holders of a semaphore together with the key of one of them.
fn understood(body: &[u8]) -> Option<Vec<u8>> {
    let operations: Vec<Operation> = serde_json::from_slice(body).ok()?;
    let verbs: Vec<_> = operations.iter().map(|operation| &operation.kv.verb).collect();
    let is_known = matches!(
        verbs.as_slice(),
        [Verb::Lock | Verb::Unlock | Verb::Delete] | [Verb::Lock, Verb::Cas] | [Verb::Cas | Verb::DeleteCas, Verb::Delete]
    );
    if is_known { serde_json::to_vec(&operations).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"[{"KV":{"Verb":"lock","Key":"a/b","Value":"eA==","Flags":7,"Session":"s"}}]"#;

    #[test]
    fn lock_and_unlock_are_sent_as_the_plugin_writes_them() {
        let unlock = LOCK.replace("lock", "unlock").replace("\"s\"", "\"s\",\"Namespace\":\"n\",\"Partition\":\"p\"");
        for body in [LOCK, &unlock] {
            assert_eq!(understood(body.as_bytes()).as_deref(), Some(body.as_bytes()));
        }
        // Written in another way, it is sent in this one.
        let spaced = LOCK.replace(',', " , ").replace("lock", r"\u006cock");
        assert_eq!(understood(spaced.as_bytes()).as_deref(), Some(LOCK.as_bytes()));
    }

    #[test]
    fn changes_of_a_semaphore_are_sent_as_the_plugin_writes_them() {
        let operation = |verb: &str| {
            let index = if verb.ends_with("cas") { r#","Index":12"# } else { "" };
            LOCK[1..LOCK.len() - 1].replace("lock", verb).replace(r#""s""#, &format!(r#""s"{index}"#))
        };
        for verbs in [&["lock", "cas"][..], &["cas", "delete"], &["delete-cas", "delete"], &["delete"]] {
            let body = format!("[{}]", verbs.iter().map(|verb| operation(verb)).collect::<Vec<_>>().join(","));
            assert_eq!(understood(body.as_bytes()).as_deref(), Some(body.as_bytes()));
        }
        let other_orders = [&["cas", "lock"][..], &["cas"], &["delete", "delete"], &["lock", "cas", "delete"]];
        for verbs in other_orders {
            let body = format!("[{}]", verbs.iter().map(|verb| operation(verb)).collect::<Vec<_>>().join(","));
            assert_eq!(understood(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn other_transactions_are_not_understood() {
        let node = r#"{"Node":{"Verb":"set","Node":{"Node":"evil","Address":"10.6.6.6"}}}"#;
        let operation = &LOCK[1..LOCK.len() - 1];
        for body in [
            String::new(),
            "[]".into(),
            "{}".into(),
            "null".into(),
            operation.into(),
            format!("[{node}]"),
            format!("[{operation},{node}]"),
            format!("[{node},{operation}]"),
            format!("[{operation},{operation}]"),
            // After the end, for a parser that reads on or stops early.
            format!("{LOCK}{LOCK}"),
            format!("{LOCK}[{node}]"),
            format!("{LOCK}x"),
            // Beside the lock, in the same operation.
            LOCK.replacen('{', &format!("{{{},", &node[1..node.len() - 1]), 1),
            LOCK.replace("}}]", r#"},"Service":null}]"#),
            // Twice, of which Consul takes the last, in any case.
            LOCK.replace("}}]", r#"},"KV":{"Verb":"set","Key":"x"}}]"#),
            LOCK.replace("}}]", r#"},"kv":{"Verb":"set","Key":"x"}}]"#),
            LOCK.replace(r#""Key""#, r#""Verb":"delete-tree","Key""#),
            LOCK.replace(r#""Key""#, r#""verb":"delete-tree","Key""#),
            // Other operations on keys.
            LOCK.replace("lock", "set"),
            LOCK.replace("lock", "delete-tree"),
            LOCK.replace("lock", "Lock"),
            LOCK.replace(r#""lock""#, "null"),
            LOCK.replace(r#","Session":"s""#, ""),
            LOCK.replace('7', "-1"),
            LOCK.replace("a/b", r"\ud800"),
        ] {
            assert_eq!(understood(body.as_bytes()), None, "{body}");
        }
        assert_eq!(understood(&[LOCK.as_bytes(), b"\xff"].concat()), None);
    }
}
