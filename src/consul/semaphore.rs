//! The keys of a semaphore:
//! [`GET /v1/kv/<prefix>/?recurse`](https://developer.hashicorp.com/consul/api-docs/kv#read-key) and
//! [`PUT /v1/txn`](https://developer.hashicorp.com/consul/api-docs/txn).
//!
//! A transaction changes `PREFIX/.lock` and the key of the holder together or not at all, so nothing
//! is left of an acquisition that did not succeed.

#![forbid(unsafe_code)]

use super::connection::{Connection, add, body, encode};
use super::lock::{KvOperation, Operation};
use super::read::Query;
use super::renew;
use super::response::{json, not_consul, parse};
use crate::error::{Error, ErrorKind, from_status};
use crate::lock::StoredKey;
use crate::options::SessionId;
use crate::semaphore::{FLAGS, Holders, Prefix, Slots};
use crate::transport::{FILTERED, INDEX, Method, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Builds the request that reads the keys of the semaphore.
pub(super) fn read(connection: &Connection, prefix: &Prefix, query: &Query) -> Request {
    let mut parameters = query.parameters();
    add(&mut parameters, "recurse", None);
    let path = format!("kv/{}", encode(&prefix.folder()));
    Request { headers: &[INDEX, FILTERED], ..connection.request(Method::Get, &path, &parameters) }
}

/// Reads the semaphore, and the index of its keys.
pub(super) fn slots(response: &Response, prefix: &Prefix) -> Result<(Slots, u64), Error> {
    // The sessions of hidden keys would count as dead, and their slots as free.
    if response.header(FILTERED) == Some("true") {
        let message = format!("ACLs hide keys of this semaphore: give a `token` with key:read for {}", prefix.folder());
        return Err(Error::new(ErrorKind::Hidden, message));
    }
    let keys: Vec<StoredKey> = match response.status {
        404 if response.body.is_empty() => Vec::new(),
        _ => json(response)?,
    };
    Ok((Slots::new(keys, prefix), response.index()))
}

/// Builds the request that makes the session a holder. `slots` has it as one already.
pub(super) fn acquire(
    connection: &Connection,
    prefix: &Prefix,
    id: &SessionId,
    limit: u32,
    slots: &Slots,
    value: &[u8],
) -> Request {
    let (contender, lock) = (prefix.contender(id), prefix.lock());
    let operation = KvOperation { flags: FLAGS, ..operation(connection) };
    let hold =
        KvOperation { verb: "lock", key: &contender, value: STANDARD.encode(value), session: id.as_str(), ..operation.clone() };
    let swap = KvOperation { verb: "cas", key: &lock, value: holders(limit, slots), index: Some(slots.modified), ..operation };
    transaction(connection, vec![hold, swap])
}

/// Builds the request that deletes the key of the session. It is not a holder in `slots` any more;
/// if it was one, that is written too. The last one deletes the semaphore.
pub(super) fn release(connection: &Connection, prefix: &Prefix, id: &SessionId, slots: &Slots, was_holder: bool) -> Request {
    let (contender, lock) = (prefix.contender(id), prefix.lock());
    let mut operations = Vec::new();
    if was_holder {
        let base = KvOperation { key: &lock, index: Some(slots.modified), ..operation(connection) };
        operations.push(match slots.limit {
            Some(limit) if !slots.holders.is_empty() => {
                KvOperation { verb: "cas", flags: FLAGS, value: holders(limit, slots), ..base }
            }
            _ => KvOperation { verb: "delete-cas", ..base },
        });
    }
    operations.push(KvOperation { verb: "delete", key: &contender, ..operation(connection) });
    transaction(connection, operations)
}

fn holders(limit: u32, slots: &Slots) -> String {
    STANDARD.encode(body(&Holders { limit, holders: &slots.holders }))
}

fn operation(connection: &Connection) -> KvOperation<'_> {
    let (namespace, partition) = (connection.namespace.as_deref(), connection.partition.as_deref());
    KvOperation { namespace, partition, ..KvOperation::default() }
}

fn transaction(connection: &Connection, operations: Vec<KvOperation>) -> Request {
    let operations: Vec<_> = operations.into_iter().map(|kv| Operation { kv }).collect();
    Request { body: body(&operations), ..connection.request(Method::Put, "txn", "") }
}

/// Reads whether the transaction was performed. It was not if the key `.lock` changed meanwhile.
pub(super) fn is_done(response: &Response, id: &SessionId) -> Result<bool, Error> {
    if response.status == 409 {
        let answer: Value = parse(&response.body).unwrap_or_default();
        let errors = answer.get("Errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let reasons = errors.iter().filter_map(|error| error.get("What")?.as_str());
        let mut others = reasons.filter(|reason| !reason.ends_with("index is stale"));
        return match others.next() {
            None if !errors.is_empty() => Ok(false),
            // Only the end of the session itself delays the key that has its name.
            Some(reason) if reason.starts_with("invalid session") || reason.ends_with("due to lock delay") => {
                Err(renew::missing(id))
            }
            reason => Err(from_status(response.status, reason.unwrap_or_default().as_bytes())),
        };
    }
    let answer: Value = json(response)?;
    if answer.get("Results").is_some() { Ok(true) } else { Err(not_consul(&response.body, "not the result of a transaction")) }
}
