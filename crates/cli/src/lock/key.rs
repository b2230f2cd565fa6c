//! A key that the session holds, for `lock`.

use super::claim::{Agent, Attempt, Check, Claim, Obstacle, Session, query};
use super::own_value;
use consul_session::error::Error;
use consul_session_args::printable;
use consul_session_host::{self as wit, Acquisition, CallError, Contents, CreateOptions, Holding, Lock};

/// The flags of keys that Go's `api.Lock` holds. With them `consul lock` and this program exclude
/// each other, and neither takes a key that holds something else.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

pub struct Key {
    name: String,
    contents: Contents,
}

impl Key {
    pub fn new(name: &str) -> Result<Key, Error> {
        // Before the session is created.
        consul_session::lock::Key::parse(name)?;
        Ok(Key { name: name.to_owned(), contents: Contents { value: Some(own_value()), flags: Some(FLAGS) } })
    }

    async fn holder(&self, agent: &Agent, index: Option<u64>) -> Result<Holding, CallError> {
        agent.host.holder(&self.name, query(index), Some(&agent.connection)).await
    }
}

impl Claim for Key {
    const COMMAND: &'static str = "lock";
    const HELD: Option<&'static str> = Some("the key");
    const HAS_DELAY: bool = true;

    fn name(&self) -> &str {
        &self.name
    }

    fn defaults(&self, new: &mut CreateOptions, _is_given: &dyn Fn(&str) -> bool) {
        new.name.get_or_insert_with(|| format!("lock {}", self.name));
    }

    async fn attempt(&self, agent: &Agent, session: &Session, index: Option<u64>) -> Result<Attempt, CallError> {
        match self.holder(agent, index).await? {
            Holding { lock: Some(found), .. } if found.flags != FLAGS => {
                return Ok(Attempt::Unusable(self.refusal(&format!(
                    "it holds something other than a lock (its flags are {}), which a lock would overwrite: name a key that \
                     does not exist yet",
                    found.flags
                ))));
            }
            Holding { lock: Some(Lock { session: Some(holder), value, .. }), index } if holder != session.id => {
                let who = if value.is_empty() { agent.who(&holder).await } else { String::new() };
                return Ok(Attempt::Blocked(Obstacle::Holder { session: holder, value, who }, index));
            }
            _ => {}
        }
        let sent = agent.host.acquire(&self.name, &session.id, Some(&self.contents), Some(&agent.connection));
        let answer = session.acquire(sent, |answer| matches!(answer, Acquisition::Acquired(_))).await;
        Ok(match answer {
            Ok(Acquisition::Acquired(lock)) => Attempt::Acquired(vec![
                ("CONSUL_LOCK_HELD", Some("true".to_owned())),
                ("CONSUL_LOCK_KEY", Some(self.name.clone())),
                ("CONSUL_LOCK_SESSION", Some(session.id.clone())),
                ("CONSUL_LOCK_INDEX", Some(lock.lock_index.to_string())),
                ("CONSUL_LOCK_FENCE", Some(lock.modify_index.to_string())),
            ]),
            Ok(Acquisition::Held) => Attempt::Outrun,
            Ok(Acquisition::Delayed) => Attempt::Blocked(Obstacle::Delay, 0),
            Err(CallError::Plugin(wit::Error::NotFound(_))) => Attempt::Ended,
            Err(error) => return Err(error),
        })
    }

    async fn check(&self, agent: &Agent, id: &str, index: Option<u64>) -> Result<Check, CallError> {
        Ok(match self.holder(agent, index).await? {
            Holding { lock: None, .. } => Check::Lost("the key was deleted".into()),
            Holding { lock: Some(Lock { session: Some(holder), .. }), index } if holder == id => Check::Held(index),
            Holding { lock: Some(Lock { session: Some(other), .. }), .. } => {
                Check::Lost(format!("session {} holds the key", printable(&other)))
            }
            Holding { lock: Some(_), .. } => {
                Check::Lost("it no longer holds the key: it has ended, or the key was released".into())
            }
        })
    }

    async fn release(&self, agent: &Agent, id: &str) -> Result<bool, CallError> {
        agent.host.release(&self.name, id, Some(&self.contents), Some(&agent.connection)).await
    }
}
