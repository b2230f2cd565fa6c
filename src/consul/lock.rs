//! Keys of the KV store that sessions hold: [`PUT /v1/txn`](https://developer.hashicorp.com/consul/api-docs/txn) with the verbs
//! `lock` and `unlock`, and [`GET /v1/kv/<key>`](https://developer.hashicorp.com/consul/api-docs/kv#read-key).
//!
//! A transaction, since it answers with the indexes of the very acquisition and says why there is none; the older
//! `PUT /v1/kv/<key>?acquire` answers `true` or `false`.

use super::{Connection, Query, encode, json, not_consul};
use crate::digits;
use crate::error::{Error, from_status};
use crate::json::Json;
use crate::lock::{Acquisition, Contents, Holding, Key, Lock, base64};
use crate::options::SessionId;
use crate::text::Maybe;
use crate::transport::{INDEX, Method, Request, Response};

/// What a transaction does with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Acquires it.
    Lock,
    /// Releases it.
    Unlock,
}

/// The request that acquires or releases.
pub fn request(connection: &Connection, verb: Verb, key: &Key, id: &SessionId, contents: Option<&Contents>) -> Request {
    let verb = match verb {
        Verb::Lock => "lock",
        Verb::Unlock => "unlock",
    };
    let value = contents.and_then(|contents| contents.value.as_ref());
    let flags = contents.and_then(|contents| contents.flags.as_ref());
    let operation = text![
        "[{\"KV\":{\"Verb\":\"",
        verb,
        "\",\"Key\":",
        Json::from(key.as_str()).to_text(),
        ",\"Value\":\"",
        base64(value.map_or(&[], |value| value)),
        "\",\"Flags\":",
        digits(flags.copied().unwrap_or(0)),
        ",\"Session\":\"",
        id.as_str(),
        "\"",
        connection.scope,
        "}}]"
    ];
    Request { body: operation.into_bytes(), ..connection.request(Method::Put, "txn", "") }
}

/// Whether the key was acquired, or released: what another session, or none, holds is [`Held`](Acquisition::Held). `contents` is what was
/// sent: of that a transaction does not repeat the value.
pub fn response(response: &Response, id: &SessionId, contents: Option<&Contents>) -> Result<Acquisition, Error> {
    let rolled_back = response.status == 409;
    let json = if rolled_back { Json::parse(&response.body).unwrap_or(Json::Null) } else { json(response)? };
    let first = |name| json.get(name).items().first().unwrap_or(&Json::Null);
    if rolled_back {
        let reason = first("Errors").get("What").text();
        return match reason {
            reason if reason.ends_with("held") || reason.ends_with("held by another session") => Ok(Acquisition::Held),
            reason if reason.ends_with("due to lock delay") => Ok(Acquisition::Delayed),
            reason if reason.starts_with("invalid session") => Err(super::renew::missing(id)),
            reason => Err(from_status(response.status, reason.as_bytes())),
        };
    }
    let lock = Lock::read(first("Results").get("KV"));
    let mut lock = lock.ok_or_else(|| not_consul(&response.body, "it is no result of a transaction"))?;
    if let Some(value) = contents.and_then(|contents| contents.value.as_ref()) {
        lock.value = value.clone();
    }
    Ok(Acquisition::Acquired(lock))
}

/// The request that reads.
pub fn read(connection: &Connection, key: &Key, query: &Query) -> Request {
    let path = text!["kv/", encode(key.as_str())];
    Request { headers: &[INDEX], ..connection.request(Method::Get, &path, &query.parameters()) }
}

/// The key, if it exists.
pub fn holding(response: &Response) -> Result<Holding, Error> {
    let index = response.index();
    // With a text it is no answer about a key, but of something that knows no such path.
    if response.status == 404 && response.body.is_empty() {
        return Ok(Holding { lock: Maybe::None, index });
    }
    let json = json(response)?;
    let lock = json.items().first().and_then(Lock::read).ok_or_else(|| not_consul(&response.body, "it is no key"))?;
    Ok(Holding { lock: Maybe::Some(lock), index })
}
