//! Keys of the KV store that sessions hold: [`PUT /v1/txn`](https://developer.hashicorp.com/consul/api-docs/txn) with the verbs
//! `lock` and `unlock`, and [`GET /v1/kv/<key>`](https://developer.hashicorp.com/consul/api-docs/kv#read-key).
//!
//! A transaction, since it answers with the indexes of the very acquisition and says why there is none; the older
//! `PUT /v1/kv/<key>?acquire` answers `true` or `false`.

use super::{Connection, Query, encode, json, not_consul};
use crate::error::{Error, from_status};
use crate::json::Json;
use crate::options::SessionId;
use crate::transport::{Method, Request, Response};
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The name of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Checks a name: it has to stand in a URL, and Consul's own clients take no other.
    ///
    /// Errors: [`InvalidOption`](crate::error::Case::InvalidOption).
    pub fn parse(text: &str) -> Result<Key, Error> {
        let reason = match text {
            "" => "is empty",
            "." | ".." => "cannot stand in a URL's path",
            text if text.starts_with('/') => "begins with `/`",
            text if text.bytes().any(|byte| byte.is_ascii_control()) => "has a control character",
            text => return Ok(Key(text.to_owned())),
        };
        Err(Error::invalid("key", text!["`key`: `", text, "` ", reason, "; give the name of a key, such as service/leader"]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands in a key; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
pub struct Contents {
    pub value: Vec<u8>,
    pub flags: u64,
}

/// A key as Consul stores it; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
pub struct Lock {
    pub session: Option<String>,
    pub lock_index: u64,
    pub modify_index: u64,
    pub create_index: u64,
    pub contents: Contents,
}

/// Answer to an acquisition; see `wit/locks.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// The session holds it.
    Acquired(Lock),
    /// Another does.
    Held,
    /// Nobody may yet.
    Delayed,
}

/// Answer to the question who holds a key; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// None if there is no such key.
    pub lock: Option<Lock>,
    /// For the next blocking query.
    pub index: u64,
}

/// What a transaction does with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Acquires it.
    Lock,
    /// Releases it.
    Unlock,
}

/// The request that acquires or releases.
pub fn request(connection: &Connection, verb: Verb, key: &Key, id: &SessionId, contents: &Contents) -> Request {
    let verb = match verb {
        Verb::Lock => "lock",
        Verb::Unlock => "unlock",
    };
    let operation = text![
        "[{\"KV\":{\"Verb\":\"",
        verb,
        "\",\"Key\":",
        Json::from(key.as_str()).to_text(),
        ",\"Value\":\"",
        base64(&contents.value),
        "\",\"Flags\":",
        contents.flags.to_string(),
        ",\"Session\":\"",
        id.as_str(),
        "\"}}]"
    ];
    Request { body: operation.into_bytes(), ..connection.request(Method::Put, "txn", "") }
}

/// Whether the key was acquired, or released: what another session, or none, holds is [`Held`](Acquisition::Held). `contents` is what was
/// sent, which a transaction does not repeat.
pub fn response(response: &Response, id: &SessionId, contents: Contents) -> Result<Acquisition, Error> {
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
    let lock =
        lock(first("Results").get("KV")).ok_or_else(|| not_consul(&response.body, "it is no result of a transaction"))?;
    Ok(Acquisition::Acquired(Lock { contents, ..lock }))
}

/// The request that reads.
pub fn read(connection: &Connection, key: &Key, query: &Query) -> Request {
    connection.request(Method::Get, &text!["kv/", encode(key.as_str())], &query.parameters())
}

/// The key, if it exists.
pub fn holding(response: &Response) -> Result<Holding, Error> {
    let index = response.index();
    // With a text it is no answer about a key, but of something that knows no such path.
    if response.status == 404 && response.body.is_empty() {
        return Ok(Holding { lock: None, index });
    }
    let json = json(response)?;
    let lock = json.items().first().and_then(lock).ok_or_else(|| not_consul(&response.body, "it is no key"))?;
    Ok(Holding { lock: Some(lock), index })
}

fn lock(json: &Json) -> Option<Lock> {
    let index = |name| json.get(name).whole().try_into().unwrap_or(0);
    // Every key has one.
    (!json.get("Key").text().is_empty()).then(|| Lock {
        session: Some(json.get("Session").text().to_owned()).filter(|id| !id.is_empty()),
        lock_index: index("LockIndex"),
        modify_index: index("ModifyIndex"),
        create_index: index("CreateIndex"),
        contents: Contents {
            value: from_base64(json.get("Value").text()),
            flags: match json.get("Flags") {
                Json::Fraction(number) => *number as u64,
                flags => flags.whole() as u64,
            },
        },
    })
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64, as a transaction wants values. By hand: the crate for it is ten times as large.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The bytes that a text in Base64 stands for.
fn from_base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes() {
        let Some(value) = DIGITS.iter().position(|known| *known == digit) else { break };
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
