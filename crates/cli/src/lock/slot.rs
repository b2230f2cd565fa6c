//! A slot of a semaphore, for `lock --semaphore`. Its keys are those of `consul lock -n`.

use super::claim::{Agent, Attempt, Check, Claim, Obstacle, REFUSED, Session, query};
use super::own_value;
use consul_session::error::{Error, ErrorKind};
use consul_session::semaphore::Prefix;
use consul_session_host::{self as wit, Behavior, CallError, CreateOptions, Semaphore, SlotAcquisition};

pub struct Slot {
    prefix: String,
    limit: u32,
    value: Vec<u8>,
}

impl Slot {
    pub fn new(prefix: &str, limit: u32) -> Result<Slot, Error> {
        // Before the session is created.
        Prefix::parse(prefix)?;
        Ok(Slot { prefix: prefix.to_owned(), limit, value: own_value() })
    }

    async fn holders(&self, agent: &Agent, index: Option<u64>) -> Result<Semaphore, CallError> {
        agent.host.slot_holders(&self.prefix, query(index), Some(&agent.connection)).await
    }

    fn other_limit(&self, limit: u32) -> Attempt {
        let own = self.limit;
        Attempt::Unusable(self.refusal(&format!("its holders use the limit {limit}, not {own}: use the same everywhere")))
    }
}

impl Claim for Slot {
    const COMMAND: &'static str = "lock";
    const HELD: Option<&'static str> = Some("the slot");
    const HAS_DELAY: bool = false;

    fn name(&self) -> &str {
        &self.prefix
    }

    fn defaults(&self, new: &mut CreateOptions, is_given: &dyn Fn(&str) -> bool) {
        new.name.get_or_insert_with(|| format!("lock {}", self.prefix));
        // The session's key goes with it.
        if !is_given("behavior") {
            new.behavior = Some(Behavior::Delete);
        }
    }

    fn refusal(&self, why: &str) -> Error {
        Error::new(ErrorKind::Refused { status: REFUSED }, format!("no slot of `{}`: {why}", self.prefix))
    }

    async fn attempt(&self, agent: &Agent, session: &Session, index: Option<u64>) -> Result<Attempt, CallError> {
        let mut found = self.holders(agent, index).await?;
        let is_holder = found.holders.contains(&session.id);
        match found.limit {
            Some(limit) if limit != self.limit && !found.holders.is_empty() => return Ok(self.other_limit(limit)),
            Some(limit) if found.holders.len() >= limit as usize && !is_holder => {
                found.holders.sort();
                return Ok(Attempt::Blocked(Obstacle::Full(found.holders), found.index));
            }
            _ => {}
        }
        let sent = agent.host.acquire_slot(&self.prefix, &session.id, self.limit, Some(&self.value), Some(&agent.connection));
        let answer = session.acquire(sent, |answer| matches!(answer, SlotAcquisition::Acquired)).await;
        Ok(match answer {
            Ok(SlotAcquisition::Acquired) => Attempt::Acquired(vec![
                ("CONSUL_LOCK_HELD", Some("true".to_owned())),
                ("CONSUL_LOCK_KEY", Some(self.prefix.clone())),
                ("CONSUL_LOCK_SESSION", Some(session.id.clone())),
                ("CONSUL_LOCK_INDEX", None),
                ("CONSUL_LOCK_FENCE", None),
            ]),
            Ok(SlotAcquisition::Full(_)) => Attempt::Outrun,
            Ok(SlotAcquisition::OtherLimit(limit)) => self.other_limit(limit),
            Ok(SlotAcquisition::NotASemaphore) => Attempt::Unusable(self.refusal(&format!(
                "`{}/.lock` is not the key of a semaphore: it may be a lock, as of `consul lock -n 1`; name a prefix that \
                 nothing else uses",
                self.prefix.trim_end_matches('/')
            ))),
            Err(CallError::Plugin(wit::Error::NotFound(_))) => Attempt::Ended,
            Err(error) => return Err(error),
        })
    }

    async fn check(&self, agent: &Agent, id: &str, index: Option<u64>) -> Result<Check, CallError> {
        let found = self.holders(agent, index).await?;
        Ok(match found.holders.iter().any(|holder| holder == id) {
            true => Check::Held(found.index),
            false => Check::Lost("it has no slot any more: it has ended, or a key of the semaphore was changed".into()),
        })
    }

    async fn release(&self, agent: &Agent, id: &str) -> Result<bool, CallError> {
        agent.host.release_slot(&self.prefix, id, Some(&agent.connection)).await
    }
}
