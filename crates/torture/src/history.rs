//! The history of a run: one record per call, event or fault, one per line in JSON.
//!
//! The clients write it, and the checker in `checker/` reads it. All times are microseconds since the
//! run began, of one monotonic clock.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The number of the record, unique in its history.
    pub id: u64,
    /// The name of the client that called, or of what else the record is about.
    pub client: String,
    /// The name of the network host on which the client runs.
    pub host: String,
    /// The number of the server that was asked, from 0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<usize>,
    /// The time before the call was made.
    pub start: u64,
    /// The time after its answer came.
    pub end: u64,
    /// What was called, or happened.
    #[serde(flatten)]
    pub event: Event,
    /// The answer, of a call only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What a record is about: a call with its arguments, or something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Event {
    /// Makes a session present by name. The answer is [`Answer::Outcome`].
    Present {
        /// The name.
        name: String,
        /// The node that is meant, whether the call names it or not.
        node: String,
        /// The properties that the options give.
        #[serde(default)]
        wish: Wish,
        /// Whether a session that differs is replaced.
        #[serde(default)]
        replace: bool,
    },
    /// Makes a session absent, by name and node or by id. The answer is [`Answer::Outcome`].
    Absent {
        /// The name; none by id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The node that is meant, whether the call names it or not; none by id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        /// The id; none by name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Creates a session without regard to others. The answer is [`Answer::Created`]. Not for the
    /// names of [`Event::Present`].
    Create {
        /// The name, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The node.
        node: String,
        /// The properties.
        #[serde(default)]
        wish: Wish,
    },
    /// Destroys a session by `sessions.destroy`, which does not check that it is gone. The answer is
    /// [`Answer::Done`]. Not for the names of [`Event::Present`].
    Destroy {
        /// The id.
        session: String,
    },
    /// Renews a session. The answer is [`Answer::Renewed`].
    Renew {
        /// The id.
        session: String,
    },
    /// Reads sessions: those of a name (on all nodes), or all. The answer is [`Answer::Sessions`].
    Read {
        /// The name; none for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Whether the read is `consistent`.
        #[serde(default)]
        consistent: bool,
    },
    /// Acquires a key for a session. The answer is [`Answer::Acquired`], [`Answer::Held`] or
    /// [`Answer::Delayed`].
    Acquire {
        /// The key.
        key: String,
        /// The id of the session.
        session: String,
    },
    /// Releases a key. The answer is [`Answer::Released`].
    Release {
        /// The key.
        key: String,
        /// The id of the session.
        session: String,
    },
    /// A time in which a program held a key: from the start of its command to its end. Without an
    /// answer.
    Hold {
        /// The key.
        key: String,
        /// The id of the session, if the command was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// The fencing number that the command was told.
        fence: u64,
        /// The time at which the program was started.
        since: u64,
        /// The properties of its session, with the program's default for the TTL if none is given.
        #[serde(default)]
        wish: Wish,
    },
    /// A write to the register that a key protects, with the fencing number of the writer. The
    /// register accepts it if it has seen none higher. The answer is [`Answer::Accepted`] or
    /// [`Answer::Refused`].
    Write {
        /// The key, which is the name of the register too.
        key: String,
        /// The fencing number.
        fence: u64,
        /// The value that the writer had read before, if it has: it writes the next one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<u64>,
        /// The value.
        value: u64,
    },
    /// Reads the register that a key protects. With a fencing number the register counts it as seen,
    /// or refuses it, as for a write: a holder that reads before it writes would lose an update
    /// otherwise. The answer is [`Answer::Value`] or [`Answer::Refused`].
    ReadRegister {
        /// The key, which is the name of the register too.
        key: String,
        /// The fencing number of a holder.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fence: Option<u64>,
    },
    /// Acquires a slot of a semaphore. The answer is [`Answer::Slot`] or [`Answer::Full`].
    AcquireSlot {
        /// The prefix.
        prefix: String,
        /// The id of the session.
        session: String,
        /// The limit.
        limit: u32,
    },
    /// Releases a slot. The answer is [`Answer::Released`].
    ReleaseSlot {
        /// The prefix.
        prefix: String,
        /// The id of the session.
        session: String,
    },
    /// A time in which a program held a slot: from the start of its command to its end. Without an
    /// answer.
    HoldSlot {
        /// The prefix.
        prefix: String,
        /// The id of the session, if the command was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// The limit.
        limit: u32,
        /// The time at which the program was started.
        since: u64,
        /// The properties of its session, with the program's default for the TTL if none is given.
        #[serde(default)]
        wish: Wish,
    },
    /// A line of `consul-session watch` on all names, which a client read at `start`. Without an
    /// answer.
    Watch {
        /// The event: `is`, `came`, `went`, `listed`, `error` or `recovered`.
        event: WatchEvent,
        /// Consul's index.
        #[serde(default)]
        index: u64,
        /// The session of `is`, `came` and `went`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<Session>,
        /// The number of sessions of `listed` and `recovered`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// The truth after everything is quiet, when no call is running and every watch has had the time
    /// to say what it saw. Without an answer.
    Final {
        /// All sessions, oldest first.
        sessions: Vec<Session>,
        /// The holders of keys: the id of the session by key, where there is one.
        #[serde(default)]
        holders: BTreeMap<String, String>,
        /// The values of the registers.
        #[serde(default)]
        registers: BTreeMap<String, u64>,
        /// The clients with a watch that still runs and has had the time to see all of this.
        #[serde(default)]
        watches: Vec<String>,
    },
    /// A fault that was made from `start` until `end`. Without an answer.
    Fault {
        /// Which fault.
        fault: FaultKind,
        /// The numbers of the servers that it strikes.
        #[serde(default)]
        servers: Vec<usize>,
        /// The names of the clients or hosts that it strikes, for people.
        #[serde(default)]
        targets: Vec<String>,
    },
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum FaultKind {
    Kill,
    Halt,
    Restart,
    /// The servers are cut off from the other servers, in both directions or in one.
    Partition,
    Latency,
    Loss,
    /// Connections end in the middle of a response.
    Cut,
    DiskFull,
    /// A client is stopped for a while, which for it is a jump of the clock.
    ClientHalt,
    /// A client's clock jumps.
    ClockJump,
    /// A client is killed.
    ClientKill,
}

/// An event of `consul-session watch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "docs/cli.md describes them")]
pub enum WatchEvent {
    Is,
    Came,
    Went,
    Listed,
    Error,
    Recovered,
}

/// The properties that a call gives. What is not given matches everything, and is Consul's default in
/// a new session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// `release` or `delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<String>,
    /// The lock delay in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<u64>,
    /// The TTL in milliseconds, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The checks as they are given, to which `serfHealth` is added unless there are none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<String>>,
}

/// A session as Consul stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The id.
    pub id: String,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// The node.
    #[serde(default)]
    pub node: String,
    /// The Raft index of its creation.
    #[serde(default)]
    pub index: u64,
    /// `release` or `delete`.
    #[serde(default)]
    pub behavior: String,
    /// The lock delay in milliseconds.
    #[serde(default)]
    pub delay: u64,
    /// The TTL in milliseconds, 0 for none.
    #[serde(default)]
    pub ttl: u64,
    /// The names of all checks.
    #[serde(default)]
    pub checks: Vec<String>,
}

/// The answer of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Answer {
    /// Of `present` and `absent`.
    Outcome {
        /// Whether the call changed anything.
        changed: bool,
        /// The id of the session that is present.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// The session that is present, and others of its name.
        #[serde(default)]
        sessions: Vec<Session>,
        /// The ids of the sessions that were destroyed.
        #[serde(default)]
        destroyed: Vec<String>,
        /// These sessions as they were (`diff.before`).
        #[serde(default)]
        before: Vec<Session>,
        /// The notes for people.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// Of `create`.
    Created {
        /// The id.
        session: String,
    },
    /// Of a call that answers nothing.
    Done,
    /// Of a renewal.
    Renewed {
        /// The session.
        session: Session,
    },
    /// Of a read: the sessions, oldest first.
    Sessions {
        /// The sessions.
        sessions: Vec<Session>,
    },
    /// The session holds the key.
    Acquired {
        /// The fencing number.
        fence: u64,
        /// Consul's LockIndex.
        #[serde(default)]
        lock_index: u64,
    },
    /// Another session holds the key.
    Held,
    /// The lock delay is not over.
    Delayed,
    /// Whether the session held the key, or had a slot.
    Released {
        /// Whether it did.
        held: bool,
    },
    /// The session has a slot.
    Slot,
    /// Others have all slots.
    Full,
    /// The register has taken the write.
    Accepted {
        /// The number of the write among those that the register has taken, from 1 on.
        order: u64,
    },
    /// The register has seen a higher fencing number.
    Refused {
        /// The highest that it has seen.
        highest: u64,
    },
    /// The value of a register.
    Value {
        /// The value, 0 before the first write.
        value: u64,
    },
    /// An error.
    Error {
        /// The case as in WIT, such as `outcome-unknown`. A program that was killed before it
        /// answered has `outcome-unknown` too.
        case: String,
        /// The message.
        #[serde(default)]
        message: String,
        /// The id that a `mismatch` names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_call_is_one_flat_object() {
        let record = Record {
            id: 7,
            client: "library-1".into(),
            host: "c1".into(),
            server: Some(2),
            start: 10,
            end: 20,
            event: Event::Present {
                name: "x".into(),
                node: "n1".into(),
                wish: Wish { delay: Some(15_000), ..Wish::default() },
                replace: true,
            },
            answer: Some(Answer::Error { case: "outcome-unknown".into(), message: "lost".into(), session: None }),
        };
        let line = serde_json::to_string(&record).expect("JSON");
        assert_eq!(
            line,
            r#"{"id":7,"client":"library-1","host":"c1","server":2,"start":10,"end":20,"kind":"present","name":"x","node":"n1","wish":{"delay":15000},"replace":true,"answer":{"is":"error","case":"outcome-unknown","message":"lost"}}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&line).expect("a record"), record);
    }
}
