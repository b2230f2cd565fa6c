//! A key that a session can hold, and Consul's JSON for it.

#![forbid(unsafe_code)]

use crate::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    /// Parses the name of a key. It must be safe in a URL and accepted by Consul's own clients.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
    pub fn parse(text: &str) -> Result<Key, Error> {
        let reason = match text {
            "" => "is empty",
            "." | ".." => "is not possible in the path of a URL",
            text if text.starts_with('/') => "begins with `/`",
            text if text.bytes().any(|byte| byte.is_ascii_control()) => "has a control character",
            text => return Ok(Key(text.to_owned())),
        };
        Err(Error::invalid("key", format!("`key`: `{text}` {reason}; give the name of a key, such as service/leader")))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key as in Consul's JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StoredKey {
    /// Required, since every key has a name, but not used.
    #[serde(rename = "Key")]
    _key: String,
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
