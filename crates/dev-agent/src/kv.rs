//! Keys, their holders, and how Consul reads the body of a transaction.

use crate::go::{self, Object};
use crate::session::Session;
use base64::DecodeError;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest lock delay that Consul applies, even if a session has a longer one.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);

/// A key with Consul's own field names, in Consul's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    lock_index: u64,
    key: String,
    flags: u64,
    #[serde(serialize_with = "in_base64")]
    value: Vec<u8>,
    #[serde(skip_serializing_if = "String::is_empty")]
    session: String,
    create_index: u64,
    pub modify_index: u64,
}

/// Writes an empty value as `null`.
fn in_base64<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    (!value.is_empty()).then(|| BASE64_STANDARD.encode(value)).serialize(serializer)
}

/// An operation on a key.
#[derive(Default)]
pub struct Operation {
    pub verb: Verb,
    pub key: String,
    pub value: Vec<u8>,
    pub flags: u64,
    pub session: String,
    /// The index that [`Verb::Cas`] and [`Verb::DeleteCas`] compare.
    pub index: u64,
}

/// The verbs of a transaction that this agent supports.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Verb {
    #[default]
    Get,
    Set,
    /// Sets a key if it was last modified at an index; with 0, if it does not exist.
    Cas,
    Lock,
    Unlock,
    CheckSession,
    Delete,
    /// Deletes a key if it was last modified at an index.
    DeleteCas,
    /// Deletes all keys that start with a prefix.
    DeleteTree,
}

/// Why an operation is refused.
pub enum Refusal {
    /// `PUT /v1/kv/<key>` answers `false`.
    No(String),
    /// `PUT /v1/kv/<key>` answers with an error.
    Error(String),
}

impl Refusal {
    /// Returns Consul's text.
    pub fn text(&self) -> &str {
        let (Refusal::No(text) | Refusal::Error(text)) = self;
        text
    }
}

/// Why the body of a transaction cannot be decoded.
pub enum Undecoded {
    /// The text that Consul writes after `Failed to parse body: `.
    Body(String),
    /// A part of Consul's API that this agent lacks.
    Lacking(String),
}

impl From<String> for Undecoded {
    fn from(text: String) -> Undecoded {
        Undecoded::Body(text)
    }
}

/// Decodes the body of a transaction.
pub fn decode(body: &[u8]) -> Result<Vec<Operation>, Undecoded> {
    let operations: Option<Vec<Value>> = go::read(body, "api.TxnOps")?;
    let fields = operations.into_iter().flatten().filter_map(|operation| match operation {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    let (kvs, others): (Vec<_>, Vec<_>) = fields.flatten().partition(|(name, _)| name.eq_ignore_ascii_case("kv"));
    if !others.is_empty() {
        return Err(Undecoded::Lacking("operations other than on keys".into()));
    }
    kvs.into_iter().filter(|(_, kv)| !kv.is_null()).map(|(_, kv)| operation(kv)).collect()
}

fn operation(kv: Value) -> Result<Operation, Undecoded> {
    let Value::Object(fields) = kv else { return Err(go::mismatch(&kv, "TxnOp.KV", "api.KVTxnOp").into()) };
    let (mut verb, mut operation) = (String::new(), Operation::default());
    let mut strings = [("Verb", &mut verb), ("Key", &mut operation.key), ("Session", &mut operation.session)];
    Object::from(fields).read_into::<Undecoded>("KVTxnOp.KV", &mut strings, |field, value| {
        match (field.to_ascii_lowercase().as_str(), value) {
            ("value", Value::Null) => {}
            ("value", Value::String(text)) => {
                operation.value = BASE64_STANDARD.decode(&text).map_err(|error| {
                    let at = if let DecodeError::InvalidByte(at, _) = error { at } else { text.len() };
                    format!("illegal base64 data at input byte {at}")
                })?;
            }
            ("value", value) => return Err(go::mismatch(&value, "KVTxnOp.KV.Value", "[]uint8").into()),
            ("flags", value) => operation.flags = go::uint64(&value, "KVTxnOp.KV.Flags")?,
            ("index", value) => operation.index = go::uint64(&value, "KVTxnOp.KV.Index")?,
            _ => return go::unknown_field(field),
        }
        Ok(())
    })?;
    operation.verb = match verb.as_str() {
        "get" => Verb::Get,
        "set" => Verb::Set,
        "cas" => Verb::Cas,
        "lock" => Verb::Lock,
        "unlock" => Verb::Unlock,
        "check-session" => Verb::CheckSession,
        "delete" => Verb::Delete,
        "delete-cas" => Verb::DeleteCas,
        "delete-tree" => Verb::DeleteTree,
        other => return Err(Undecoded::Lacking(format!("the verb {other:?}"))),
    };
    Ok(operation)
}

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keys {
    entries: BTreeMap<String, Entry>,
    /// The index at which each key or tree of keys was deleted last. Consul forgets it after a
    /// quarter of an hour.
    tombstones: BTreeMap<String, u64>,
    /// Index of the last change of any key; 0 before the first.
    index: u64,
    /// The end of each key's lock delay, on the state's clock.
    delays: BTreeMap<String, Duration>,
}

impl Keys {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns the index that a read of a key shows: its own, or that of all keys if it does not
    /// exist.
    pub fn index(&self, key: &str) -> u64 {
        self.get(key).map_or(self.index.max(1), |entry| entry.modify_index)
    }

    /// Returns the keys that start with `prefix`, in the order of their bytes.
    pub fn list(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        starting_with(&self.entries, prefix).map(|(_, entry)| entry)
    }

    /// Returns the index that a read of all keys with this prefix shows: that of their last change,
    /// deletions included, or that of all keys if there was none.
    pub fn list_index(&self, prefix: &str) -> u64 {
        let changed = self.list(prefix).map(|entry| entry.modify_index);
        let deleted = starting_with(&self.tombstones, prefix).map(|(_, index)| *index);
        let last = if prefix.is_empty() { None } else { changed.chain(deleted).max() };
        last.unwrap_or(self.index).max(1)
    }

    /// Performs all operations or none. Returns the keys that were written or read as they are
    /// afterwards. `index` is that of the change.
    ///
    /// # Errors
    ///
    /// The refusals, each with the number of its operation.
    pub fn transact(
        &mut self,
        operations: &[Operation],
        index: u64,
        now: Duration,
        is_session: impl Fn(&str) -> bool,
    ) -> Result<Vec<Entry>, Vec<(usize, Refusal)>> {
        self.delays.retain(|_, end| *end > now);
        // Consul checks these before it starts.
        let early = |(at, operation)| Some((at, self.may_start(operation).err()?));
        let mut refused: Vec<_> = operations.iter().enumerate().filter_map(early).collect();
        let (before, mut done) = (self.clone(), Vec::new());
        if refused.is_empty() {
            for (at, operation) in operations.iter().enumerate() {
                match self.perform(operation, index, &is_session) {
                    Ok(entry) => done.extend(entry),
                    Err(refusal) => refused.push((at, refusal)),
                }
            }
        }
        if !refused.is_empty() {
            *self = before;
            return Err(refused);
        }
        if *self != before {
            self.index = index;
        }
        Ok(done)
    }

    fn may_start(&self, operation: &Operation) -> Result<(), Refusal> {
        let key = &operation.key;
        match operation.verb {
            Verb::DeleteTree => Ok(()),
            _ if key.is_empty() => Err(Refusal::Error("Must provide key".into())),
            Verb::Lock if self.delays.contains_key(key) => {
                Err(Refusal::No(format!("failed to lock key {key:?} due to lock delay")))
            }
            _ => Ok(()),
        }
    }

    /// Performs one operation. Returns the key as it is afterwards, without its value except for a
    /// `get`. A deletion returns none.
    fn perform(
        &mut self,
        operation: &Operation,
        index: u64,
        is_session: &impl Fn(&str) -> bool,
    ) -> Result<Option<Entry>, Refusal> {
        let Operation { verb, key, value, flags, session, index: expected } = operation;
        let (no, error) = (|text| Err(Refusal::No(text)), |text| Err(Refusal::Error(text)));
        let found = self.entries.get(key);
        let holder = found.map_or("", |entry| &entry.session);
        let modified = found.map_or(0, |entry| entry.modify_index);
        let mut entry = Entry { key: key.clone(), flags: *flags, value: value.clone(), ..Entry::default() };
        match verb {
            Verb::Lock | Verb::Unlock if session.is_empty() => return error("missing session".into()),
            Verb::Lock if !is_session(session) => return error(format!("invalid session {session:?}")),
            Verb::Lock if ![session, ""].contains(&holder) => {
                return no(format!("failed to lock key {key:?}, lock is already held"));
            }
            Verb::Unlock if holder != session => {
                return no(format!("failed to unlock key {key:?}, lock isn't held, or is held by another session"));
            }
            Verb::Lock => {
                entry.session = session.clone();
                entry.lock_index = found.map_or(0, |entry| entry.lock_index) + u64::from(holder.is_empty());
            }
            Verb::Unlock => entry.lock_index = found.map_or(0, |entry| entry.lock_index),
            Verb::Cas if *expected != modified => return no(format!("failed to set key {key:?}, index is stale")),
            // The holder stays, but Consul resets the lock index.
            Verb::Set | Verb::Cas => entry.session = holder.to_owned(),
            Verb::Get => {
                let missing = || Refusal::Error(format!("key {key:?} doesn't exist"));
                return found.cloned().map(Some).ok_or_else(missing);
            }
            Verb::CheckSession => {
                return match found {
                    None => error(format!("failed to check session, key {key:?} doesn't exist")),
                    Some(_) if holder != session => {
                        error(format!("failed session check for key {key:?}, current session {holder:?} != {session:?}"))
                    }
                    Some(found) => Ok(Some(Entry { value: Vec::new(), ..found.clone() })),
                };
            }
            Verb::DeleteCas if found.is_some() && *expected != modified => {
                return no(format!("failed to delete key {key:?}, index is stale"));
            }
            Verb::Delete | Verb::DeleteCas => {
                self.delete(key, index);
                return Ok(None);
            }
            Verb::DeleteTree => {
                self.delete_tree(key, index);
                return Ok(None);
            }
        }
        entry.create_index = found.map_or(index, |entry| entry.create_index);
        entry.modify_index = found.map_or(index, |entry| entry.modify_index);
        // Writing the same again is not a change.
        if found.is_none_or(|found| *found != entry) {
            entry.modify_index = index;
            self.entries.insert(key.clone(), entry.clone());
        }
        Ok(Some(Entry { value: Vec::new(), ..entry }))
    }

    fn delete(&mut self, key: &str, index: u64) {
        if self.entries.remove(key).is_some() {
            self.tombstones.insert(key.to_owned(), index);
        }
    }

    fn delete_tree(&mut self, prefix: &str, index: u64) {
        let before = self.entries.len();
        self.entries.retain(|key, _| !key.starts_with(prefix));
        // The index of all keys counts the deletion of all.
        if self.entries.len() < before && !prefix.is_empty() {
            self.tombstones.insert(prefix.to_owned(), index);
        }
    }

    /// Releases or deletes, according to the session's behavior, the keys of a session that ended
    /// at `ended`.
    pub fn release_all(&mut self, session: &Session, ended: Duration, index: u64) {
        let delay = Duration::from_nanos(session.lock_delay.try_into().unwrap_or(0)).min(MAX_LOCK_DELAY);
        let held = self.entries.values().filter(|entry| entry.session == session.id).map(|entry| entry.key.clone());
        for key in held.collect::<Vec<_>>() {
            self.index = index;
            if session.behavior == "delete" {
                self.delete(&key, index);
            } else if let Some(entry) = self.entries.get_mut(&key) {
                entry.session.clear();
                entry.modify_index = index;
            }
            if !delay.is_zero() {
                self.delays.insert(key, ended + delay);
            }
        }
    }
}

fn starting_with<'a, T>(map: &'a BTreeMap<String, T>, prefix: &str) -> impl Iterator<Item = (&'a String, &'a T)> {
    map.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
}
