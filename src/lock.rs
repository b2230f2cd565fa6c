//! A key that a session can hold, and Consul's JSON for it.

#![forbid(unsafe_code)]

use crate::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// The contents to write to a key; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
pub struct Contents {
    pub value: Option<Vec<u8>>,
    pub flags: Option<u64>,
}

/// A key as Consul stores it; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
pub struct Lock {
    pub session: Option<String>,
    pub lock_index: u64,
    pub modify_index: u64,
    pub create_index: u64,
    pub flags: u64,
    pub value: Vec<u8>,
}

/// The result of an acquisition; see `wit/locks.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each case is described in wit/locks.wit")]
pub enum Acquisition {
    Acquired(Lock),
    Held,
    Delayed,
}

/// The holder of a key; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
pub struct Holding {
    pub lock: Option<Lock>,
    pub index: u64,
}

/// The name of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Parses the name of a key. It must be safe in a URL, and every version of Consul must read it
    /// under the name under which it is written. From 1.21.5 on, Consul cleans the path of a read,
    /// but not the key in a transaction: `a//b` would be locked as such, and read as `a/b`.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
    pub fn parse(text: &str) -> Result<Key, Error> {
        Key::parse_as("key", text)
    }

    /// Does the same for the argument of this name.
    pub(crate) fn parse_as(argument: &str, text: &str) -> Result<Key, Error> {
        // A key may end with `/`, which Consul keeps.
        let inner = text.strip_suffix('/').unwrap_or(text);
        let has_segment = |segment: &str| inner.split('/').any(|other| other == segment);
        let reason = if text.is_empty() {
            "is empty"
        } else if text.starts_with('/') {
            "begins with `/`"
        } else if has_segment("") {
            "has nothing between two `/`"
        } else if has_segment(".") || has_segment("..") {
            "has a segment `.` or `..`"
        } else if text.starts_with(' ') || text.ends_with(' ') {
            "begins or ends with a space"
        } else if is_decoded_again(text) {
            "has an escape of a space or of `..`"
        } else if text.bytes().any(|byte| byte.is_ascii_control()) {
            "has a control character"
        } else {
            return Ok(Key(text.to_owned()));
        };
        Err(Error::invalid(
            argument,
            format!("`{argument}`: `{text}` {reason}; give the name of a key, such as service/leader"),
        ))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether the key has percent-escapes of its own which stand for a space or `..`. From
/// 1.21.5 on, Consul decodes a key once more when it reads it, and refuses these.
fn is_decoded_again(text: &str) -> bool {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    decoded != text && (decoded.contains(' ') || decoded.contains(".."))
}

/// A key as in Consul's JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StoredKey {
    pub key: String,
    session: Option<String>,
    lock_index: u64,
    modify_index: u64,
    create_index: u64,
    flags: u64,
    /// In Base64.
    value: Option<String>,
}

impl From<StoredKey> for Lock {
    fn from(stored: StoredKey) -> Lock {
        Lock {
            session: stored.session.filter(|id| !id.is_empty()),
            lock_index: stored.lock_index,
            modify_index: stored.modify_index,
            create_index: stored.create_index,
            flags: stored.flags,
            value: stored.value.and_then(|value| STANDARD.decode(value).ok()).unwrap_or_default(),
        }
    }
}
