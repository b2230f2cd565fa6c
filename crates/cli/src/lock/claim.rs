//! What a session is kept for.

use consul_session::error::{Error, ErrorKind};
use consul_session_args::printable;
use consul_session_host::{self as wit, CallError, Connection, Consistency, CreateOptions, Host, Query};
use std::cell::Cell;
use std::time::Duration;

/// The most characters to show of what another holder wrote.
const SHOWN: usize = 200;
/// The most holders of slots to name.
const NAMED: usize = 3;
/// How long Consul may block a query, in seconds.
const BLOCK: f64 = 60.0;

/// Variables for the environment of the command. One without a value is removed: it would be that
/// of another lock, in which this program runs.
pub type Environment = Vec<(&'static str, Option<String>)>;

/// What a session is kept for: a key, a slot, or nothing else.
pub trait Claim {
    /// The command of the command line.
    const COMMAND: &'static str;
    /// What the session holds, in messages: `the key`. None if that is nothing.
    const HELD: Option<&'static str>;
    /// Whether the lock delay applies to that.
    const HAS_DELAY: bool;

    /// Returns the name of the key or the session.
    fn name(&self) -> &str;

    /// Sets what the session has unless the options say otherwise.
    fn defaults(&self, new: &mut CreateOptions, is_given: &dyn Fn(&str) -> bool);

    /// Returns the error for this obstacle.
    fn refusal(&self, why: &str) -> Error {
        Error::new(ErrorKind::Refused { status: REFUSED }, format!("no lock on `{}`: {why}", self.name()))
    }

    /// Tries once to acquire what the session is for. With the index of an obstacle, waits before
    /// until that may be gone.
    async fn attempt(&self, agent: &Agent, session: &Session, index: Option<u64>) -> Result<Attempt, CallError>;

    /// Reads whether the session still holds what was acquired, at once or when Consul's index is
    /// above this one.
    async fn check(&self, agent: &Agent, id: &str, index: Option<u64>) -> Result<Check, CallError>;

    /// Releases what was acquired. Returns whether the session held it until then.
    async fn release(&self, agent: &Agent, id: &str) -> Result<bool, CallError>;
}

/// Consul's status for a refused acquisition.
pub const REFUSED: u16 = 409;

/// The result of an attempt to acquire.
pub enum Attempt {
    Acquired(Environment),
    /// This is in the way, at least until Consul's index is above this one. 0 means that no index
    /// tells when to try again.
    Blocked(Obstacle, u64),
    /// Another session was faster; the next attempt tells which.
    Outrun,
    /// Nothing that other sessions do would help.
    Unusable(Error),
    /// The session does not exist any more.
    Ended,
}

/// The state of what was acquired.
pub enum Check {
    /// The session holds it, at this index.
    Held(u64),
    /// It is lost, for this reason.
    Lost(String),
}

/// What is in the way of an acquisition.
pub enum Obstacle {
    /// Another session holds the key. Without a value, `who` describes the session.
    Holder {
        session: String,
        value: Vec<u8>,
        who: String,
    },
    /// These sessions have all slots.
    Full(Vec<String>),
    /// An acquisition found a holder that reads do not show.
    Unseen,
    Delay,
    Error(Error),
}

impl Obstacle {
    /// Returns the obstacle as text.
    pub fn described(&self) -> String {
        match self {
            Obstacle::Holder { session, value, who } if value.is_empty() && !who.is_empty() => {
                format!("session {} ({who}) holds it", printable(session))
            }
            Obstacle::Holder { session, value, .. } => {
                let value: String = String::from_utf8_lossy(value).chars().take(SHOWN).collect();
                let value = if value.is_empty() { "empty".into() } else { printable(&value) };
                format!("session {} holds it, value: {value}", printable(session))
            }
            Obstacle::Full(holders) => {
                let count = holders.len();
                let mut named: Vec<String> = holders.iter().take(NAMED).map(|id| printable(id)).collect();
                if count > NAMED {
                    named.push(format!("{} more", count - NAMED));
                }
                match &named[..] {
                    [one] => format!("session {one} has its only slot"),
                    [others @ .., last] => format!("sessions {} and {last} have its {count} slots", others.join(", ")),
                    [] => "all its slots are taken".into(),
                }
            }
            Obstacle::Unseen => "another session holds it, or did a moment ago".into(),
            Obstacle::Delay => "the session that held it has ended, and its lock delay runs, for 60 seconds at most".into(),
            Obstacle::Error(error) => printable(&error.message),
        }
    }
}

/// Where Consul is.
pub struct Agent {
    pub host: Host,
    pub connection: Connection,
}

impl Agent {
    /// Describes a session by its name and its node; empty if it is not known.
    pub async fn who(&self, id: &str) -> String {
        let found = self.host.info(id, None, Some(&self.connection)).await.ok().and_then(|found| found.session);
        match found {
            Some(session) if session.name.is_empty() => format!("on node {}", printable(&session.node)),
            Some(session) => {
                let name: String = session.name.chars().take(SHOWN).collect();
                format!("\"{}\" on node {}", printable(&name), printable(&session.node))
            }
            None => String::new(),
        }
    }
}

/// Returns the query of a read, at once or when Consul's index is above this one. Reads are
/// consistent: after a change of leader, Consul may answer a plain read with an old state.
pub fn query(index: Option<u64>) -> Option<Query> {
    Some(Query { consistency: Some(Consistency::Consistent), index, wait: index.map(|_| BLOCK) })
}

/// A session of this program.
pub struct Session {
    pub id: String,
    pub ttl: Duration,
    /// When the last successful renewal, or the creation, was sent, as a time of the clock.
    pub renewed: Cell<Duration>,
    /// Whether it may hold what it was created for: false only if it certainly does not.
    pub may_hold: Cell<bool>,
}

impl Session {
    /// Returns the time from which Consul may have ended the session.
    pub fn deadline(&self) -> Duration {
        self.renewed.get() + self.ttl
    }

    pub fn may_have_ended(&self) -> bool {
        super::clock::now() >= self.deadline()
    }

    /// Sends an acquisition, and keeps in mind whether the session may hold something then.
    pub async fn acquire<T>(
        &self,
        sent: impl Future<Output = Result<T, CallError>>,
        is_acquired: impl FnOnce(&T) -> bool,
    ) -> Result<T, CallError> {
        self.may_hold.set(true);
        let answer = sent.await;
        self.may_hold.set(match &answer {
            Ok(answer) => is_acquired(answer),
            Err(CallError::Plugin(error)) => matches!(error, wit::Error::OutcomeUnknown(_)),
            Err(_) => true,
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_of_many_slots_are_counted() {
        let full = |ids: &[&str]| Obstacle::Full(ids.iter().map(|id| (*id).to_owned()).collect()).described();
        assert_eq!(full(&["a"]), "session a has its only slot");
        assert_eq!(full(&["a", "b", "c"]), "sessions a, b and c have its 3 slots");
        assert_eq!(full(&["a", "b", "c", "d", "e"]), "sessions a, b, c and 2 more have its 5 slots");
    }
}
