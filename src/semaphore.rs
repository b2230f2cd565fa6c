//! A semaphore: keys under a prefix with which a limited number of sessions hold a slot each. The
//! keys are those of `consul lock -n` and of Go's `api.Semaphore`.
//!
//! The key `PREFIX/.lock` names the limit and the holders, and is changed by compare-and-set. Each
//! holder's session holds a key `PREFIX/<session>`, so that others see when the session has ended.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::lock::{Key, Lock, StoredKey};
use crate::options::SessionId;
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::Value;

/// The flags of a semaphore's keys, by which Consul's tools tell them from those of a lock.
pub(crate) const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// The result of an acquisition of a slot; see `wit/locks.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each case is described in wit/locks.wit")]
pub enum SlotAcquisition {
    Acquired,
    Full(u64),
    OtherLimit(u32),
    NotASemaphore,
}

/// A semaphore as Consul stores it; see `wit/locks.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in wit/locks.wit")]
pub struct Semaphore {
    pub limit: Option<u32>,
    pub holders: Vec<String>,
    pub index: u64,
}

/// The prefix of a semaphore's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Parses a prefix, which is like the name of a key. A `/` at its end makes no difference.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
    pub fn parse(text: &str) -> Result<Prefix, Error> {
        Key::parse_as("prefix", text)?;
        Ok(Prefix(text.strip_suffix('/').unwrap_or(text).to_owned()))
    }

    /// Returns the beginning of the keys, which ends with `/`.
    pub(crate) fn folder(&self) -> String {
        format!("{}/", self.0)
    }

    /// Returns the key with the limit and the holders.
    pub(crate) fn lock(&self) -> String {
        format!("{}/.lock", self.0)
    }

    /// Returns the key that the session of a holder holds.
    pub(crate) fn contender(&self, id: &SessionId) -> String {
        format!("{}/{}", self.0, id.as_str())
    }
}

/// The keys of a semaphore at one moment.
#[derive(Default)]
pub(crate) struct Slots {
    /// The limit, if there is a semaphore.
    pub limit: Option<u32>,
    /// The holders whose sessions exist.
    pub holders: Vec<String>,
    /// Index of the last change of the key `.lock`; 0 if it does not exist.
    pub modified: u64,
    /// Whether `.lock` is something else.
    pub is_foreign: bool,
}

impl Slots {
    /// Reads the keys under the prefix. A holder without a key that its session holds is dead.
    pub fn new(keys: Vec<StoredKey>, prefix: &Prefix) -> Slots {
        let lock = prefix.lock();
        let (mut alive, mut slots) = (Vec::new(), Slots::default());
        for stored in keys {
            let is_lock = stored.key == lock;
            let key = Lock::from(stored);
            if is_lock {
                slots.read(&key);
            }
            alive.extend(key.session);
        }
        slots.holders.retain(|id| alive.contains(id));
        slots
    }

    fn read(&mut self, key: &Lock) {
        self.modified = key.modify_index;
        self.is_foreign = key.flags != FLAGS;
        // Go's client takes an empty value for a semaphore that nobody uses yet.
        if self.is_foreign || key.value.is_empty() {
            return;
        }
        let text = std::str::from_utf8(&key.value).unwrap_or_default();
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        self.limit = value.get("Limit").and_then(Value::as_u64).and_then(|limit| limit.try_into().ok());
        match value.get("Holders") {
            Some(Value::Object(holders)) => self.holders = holders.keys().cloned().collect(),
            Some(Value::Null) | None => {}
            Some(_) => self.is_foreign = true,
        }
        self.is_foreign |= self.limit.is_none();
    }
}

/// The value of the key `.lock`, in the words of Go's client.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Holders<'a> {
    pub limit: u32,
    #[serde(serialize_with = "as_set")]
    pub holders: &'a [String],
}

/// Serializes a set as Go's `map[string]bool`.
fn as_set<S: Serializer>(ids: &&[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ids.iter().map(|id| (id, true)))
}
