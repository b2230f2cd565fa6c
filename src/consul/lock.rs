//! Keys of the KV store that sessions hold:
//! [`PUT /v1/txn`](https://developer.hashicorp.com/consul/api-docs/txn) with the verbs `lock` and
//! `unlock`, and [`GET /v1/kv/<key>`](https://developer.hashicorp.com/consul/api-docs/kv#read-key).
//!
//! A transaction returns the indexes of the very acquisition, or the reason why it failed. The
//! older `PUT /v1/kv/<key>?acquire` returns only `true` or `false`.

#![forbid(unsafe_code)]

use super::connection::{Connection, body, encode};
use super::read::Query;
use super::renew;
use super::response::{json, not_consul, parse};
use crate::error::{Error, from_status};
use crate::lock::{Acquisition, Contents, Holding, Key, Lock, StoredKey};
use crate::options::SessionId;
use crate::transport::{INDEX, Method, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The operation of a transaction on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Acquires the key.
    Lock,
    /// Releases the key.
    Unlock,
}

#[derive(Serialize)]
pub(super) struct Operation<'a> {
    #[serde(rename = "KV")]
    pub kv: KvOperation<'a>,
}

#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KvOperation<'a> {
    pub verb: &'static str,
    pub key: &'a str,
    pub value: String,
    pub flags: u64,
    pub session: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<&'a str>,
}

/// Builds the request that acquires or releases the key.
pub(super) fn request(connection: &Connection, verb: Verb, key: &Key, id: &SessionId, contents: Option<&Contents>) -> Request {
    let value = contents.and_then(|contents| contents.value.as_deref()).unwrap_or_default();
    let kv = KvOperation {
        verb: match verb {
            Verb::Lock => "lock",
            Verb::Unlock => "unlock",
        },
        key: key.as_str(),
        value: STANDARD.encode(value),
        flags: contents.and_then(|contents| contents.flags).unwrap_or(0),
        session: id.as_str(),
        index: None,
        namespace: connection.namespace.as_deref(),
        partition: connection.partition.as_deref(),
    };
    Request { body: body(&[Operation { kv }]), ..connection.request(Method::Put, "txn", "") }
}

/// The response to a transaction of one operation: one result or one error.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transaction {
    results: Option<(TxnResult,)>,
    errors: Option<(TxnError,)>,
}

#[derive(Deserialize)]
struct TxnResult {
    #[serde(rename = "KV")]
    kv: StoredKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnError {
    what: String,
}

/// Reads whether the key was acquired or released; it is [`Held`](Acquisition::Held) if another
/// session holds it, or on release no session. The response does not repeat the value, so
/// `contents` supplies it.
pub(super) fn response(response: &Response, id: &SessionId, contents: Option<&Contents>) -> Result<Acquisition, Error> {
    if response.status == 409 {
        let Transaction { errors, .. } = parse(&response.body).unwrap_or_default();
        let reason = errors.map(|(error,)| error.what).unwrap_or_default();
        return match reason.as_str() {
            reason if reason.ends_with("held") || reason.ends_with("held by another session") => Ok(Acquisition::Held),
            reason if reason.ends_with("due to lock delay") => Ok(Acquisition::Delayed),
            reason if reason.starts_with("invalid session") => Err(renew::missing(id)),
            reason => Err(from_status(response.status, reason.as_bytes())),
        };
    }
    let Transaction { results, .. } = json(response)?;
    let (result,) = results.ok_or_else(|| not_consul(&response.body, "not the result of a transaction"))?;
    let mut lock = Lock::from(result.kv);
    if let Some(value) = contents.and_then(|contents| contents.value.as_ref()) {
        lock.value = value.clone();
    }
    Ok(Acquisition::Acquired(lock))
}

/// Builds the request that reads the key.
pub(super) fn read(connection: &Connection, key: &Key, query: &Query) -> Request {
    let path = format!("kv/{}", encode(key.as_str()));
    Request { headers: &[INDEX], ..connection.request(Method::Get, &path, &query.parameters()) }
}

/// Reads the key, if it exists.
pub(super) fn holding(response: &Response) -> Result<Holding, Error> {
    let index = response.index();
    // A 404 with a body is not about the key: the server does not know this path.
    if response.status == 404 && response.body.is_empty() {
        return Ok(Holding { lock: None, index });
    }
    let (key,): (StoredKey,) = json(response)?;
    Ok(Holding { lock: Some(key.into()), index })
}
