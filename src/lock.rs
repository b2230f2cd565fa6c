//! A key that a session may hold, and Consul's JSON for it.

use crate::error::Error;
use crate::json::Json;
use crate::session::index;
use crate::text::{List, Maybe, Text};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// What is to stand in a key; see `wit/locks.wit`. It lies in memory as it is there, as do the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
#[repr(C)]
pub struct Contents {
    pub value: Maybe<List<u8>>,
    pub flags: Maybe<u64>,
}

/// A key as Consul stores it; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
#[repr(C)]
pub struct Lock {
    pub session: Maybe<Text>,
    pub lock_index: u64,
    pub modify_index: u64,
    pub create_index: u64,
    pub flags: u64,
    pub value: List<u8>,
}

/// Answer to an acquisition; see `wit/locks.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each case is described in wit/locks.wit")]
#[repr(C, u8)]
pub enum Acquisition {
    Acquired(Lock),
    Held,
    Delayed,
}

/// Answer to the question who holds a key; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
#[repr(C)]
pub struct Holding {
    pub lock: Maybe<Lock>,
    pub index: u64,
}

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

impl Lock {
    /// A key of Consul's JSON; `None` if it is none.
    pub fn read(json: &Json) -> Option<Lock> {
        let index = |name| index(json.get(name));
        // Every key has a name.
        (!json.get("Key").text().is_empty()).then(|| Lock {
            session: Some(json.get("Session").text()).filter(|id| !id.is_empty()).map(String::from).into(),
            lock_index: index("LockIndex"),
            modify_index: index("ModifyIndex"),
            create_index: index("CreateIndex"),
            flags: match json.get("Flags") {
                Json::Fraction(number) => *number as u64,
                flags => flags.whole() as u64,
            },
            value: from_base64(json.get("Value").text()).into(),
        })
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64, as a transaction wants values. By hand: the crate for it is ten times as large.
pub fn base64(bytes: &[u8]) -> String {
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
