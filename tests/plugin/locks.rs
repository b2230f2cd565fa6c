//! Each function of `locks` against a real Consul and against the dev agent, with the same tests
//! for both.

use crate::functions::{Agent, MISSING, on_every_agent};
use anyhow::{Context as _, Result, ensure};
use consul_session_host::{Acquisition, Behavior, Connection, Consistency, Contents, CreateOptions, Holding, Lock, Query};
use consul_session_tests::embedded::{Answer, answer, host};
use std::thread;
use std::time::Duration;
use test_support::block_on;

/// A key of an agent.
struct Locked<'a> {
    agent: &'a Agent,
    key: &'a str,
}

impl Agent {
    fn lock<'a>(&'a self, key: &'a str) -> Locked<'a> {
        Locked { agent: self, key }
    }

    /// A session with this lock delay, in seconds, and behavior.
    fn session(&self, delay: f64, behavior: Behavior) -> Result<String> {
        let session = CreateOptions { lock_delay: Some(delay), behavior: Some(behavior), ..CreateOptions::default() };
        self.create(&session)?.value()
    }
}

impl Locked<'_> {
    fn acquire_with(&self, id: &str, contents: Option<&Contents>) -> Result<Answer<Acquisition>> {
        block_on(answer(host()?.acquire(self.key, id, contents, Some(&self.agent.to))))
    }

    fn acquire(&self, id: &str) -> Result<Acquisition> {
        self.acquire_with(id, None)?.value()
    }

    /// Acquires the key, which must succeed.
    fn acquired(&self, id: &str) -> Result<Lock> {
        match self.acquire(id)? {
            Acquisition::Acquired(lock) => Ok(lock),
            other => anyhow::bail!("{other:?}"),
        }
    }

    fn release_with(&self, id: &str, contents: Option<&Contents>) -> Result<Answer<bool>> {
        block_on(answer(host()?.release(self.key, id, contents, Some(&self.agent.to))))
    }

    fn release(&self, id: &str) -> Result<bool> {
        self.release_with(id, None)?.value()
    }

    fn holding(&self, query: Option<Query>, to: &Connection) -> Result<Answer<Holding>> {
        block_on(answer(host()?.holder(self.key, query, Some(to))))
    }

    fn read(&self) -> Result<Holding> {
        self.holding(None, &self.agent.to)?.value()
    }

    /// The key, which must exist.
    fn stored(&self) -> Result<Lock> {
        self.read()?.lock.context("the key does not exist")
    }
}

#[test]
fn key_is_acquired_held_and_released() -> Result<()> {
    on_every_agent(|agent| {
        let (lock, id) = (agent.lock("acquires"), agent.session(15.0, Behavior::Release)?);
        let acquired = lock.acquired(&id)?;
        ensure!(acquired.session.as_ref() == Some(&id) && acquired.lock_index == 1, "{acquired:?}");
        ensure!(acquired.create_index > 0 && acquired.modify_index == acquired.create_index, "{acquired:?}");
        ensure!((acquired.flags, acquired.value.as_slice()) == (0, &b""[..]), "{acquired:?}");
        let holding = lock.read()?;
        ensure!(holding.lock.as_ref() == Some(&acquired) && holding.index == acquired.modify_index, "{holding:?}");
        ensure!(lock.release(&id)?);
        let free = lock.stored()?;
        ensure!(free.session.is_none() && free.lock_index == 1 && free.modify_index > acquired.modify_index, "{free:?}");
        // A second release changes nothing.
        ensure!(!lock.release(&id)?);
        ensure!(lock.stored()? == free);
        Ok(())
    })
}

#[test]
fn acquire_by_the_holder_succeeds_again() -> Result<()> {
    on_every_agent(|agent| {
        let (lock, id) = (agent.lock("acquires_again"), agent.session(0.0, Behavior::Release)?);
        let first = lock.acquired(&id)?;
        ensure!(lock.acquired(&id.to_uppercase())? == first);
        let other = Contents { value: Some(b"other".to_vec()), flags: None };
        let Acquisition::Acquired(second) = lock.acquire_with(&id, Some(&other))?.value()? else {
            anyhow::bail!("not acquired")
        };
        ensure!(second.lock_index == first.lock_index && second.modify_index > first.modify_index, "{second:?}");
        Ok(())
    })
}

#[test]
fn acquire_of_a_held_key_returns_held() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("held");
        let [holder, other] = [agent.session(0.0, Behavior::Release)?, agent.session(0.0, Behavior::Release)?];
        let acquired = lock.acquired(&holder)?;
        ensure!(lock.acquire(&other)? == Acquisition::Held);
        ensure!(lock.stored()? == acquired);
        Ok(())
    })
}

#[test]
fn release_of_a_key_held_by_another_returns_false() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("releases_others");
        let [holder, other] = [agent.session(0.0, Behavior::Release)?, agent.session(0.0, Behavior::Release)?];
        ensure!(!lock.release(&other)?, "the key does not exist yet");
        let acquired = lock.acquired(&holder)?;
        ensure!(!lock.release(&other)?);
        ensure!(!lock.release(MISSING)?);
        ensure!(lock.stored()? == acquired);
        Ok(())
    })
}

#[test]
fn fencing_number_rises_with_each_holder() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("fences");
        let (mut number, mut count) = (0, 0);
        for how in ["release", "destroy", "release"] {
            let id = agent.session(0.0, Behavior::Release)?;
            let acquired = lock.acquired(&id)?;
            ensure!(acquired.modify_index > number && acquired.lock_index == count + 1, "{acquired:?} after {number}, {count}");
            (number, count) = (acquired.modify_index, acquired.lock_index);
            if how == "release" {
                ensure!(lock.release(&id)?);
            } else {
                agent.destroy(&id)?.value()?;
            }
        }
        Ok(())
    })
}

#[test]
fn fencing_number_rises_after_the_key_is_deleted() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("fences_deleted");
        let mut number = 0;
        for _ in 0..3 {
            let id = agent.session(0.0, Behavior::Delete)?;
            let acquired = lock.acquired(&id)?;
            ensure!(acquired.lock_index == 1 && acquired.modify_index > number, "{acquired:?} after {number}");
            number = acquired.modify_index;
            agent.destroy(&id)?.value()?;
        }
        Ok(())
    })
}

#[test]
fn acquire_within_the_lock_delay_returns_delayed() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("delayed");
        let [first, next] = [agent.session(2.0, Behavior::Release)?, agent.session(2.0, Behavior::Release)?];
        let before = lock.acquired(&first)?;
        agent.destroy(&first)?.value()?;
        ensure!(lock.stored()?.session.is_none());
        ensure!(lock.acquire(&next)? == Acquisition::Delayed);
        let mut acquired = lock.acquire(&next)?;
        for _ in 0..100 {
            if acquired != Acquisition::Delayed {
                break;
            }
            thread::sleep(Duration::from_millis(100));
            acquired = lock.acquire(&next)?;
        }
        let Acquisition::Acquired(acquired) = acquired else { anyhow::bail!("{acquired:?}") };
        ensure!(acquired.modify_index > before.modify_index, "{acquired:?}");
        // A release causes no delay.
        ensure!(lock.release(&next)?);
        lock.acquired(&agent.session(0.0, Behavior::Release)?).map(|_| ())
    })
}

#[test]
fn acquire_after_a_zero_lock_delay_succeeds() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("not_delayed");
        let [first, next] = [agent.session(0.0, Behavior::Release)?, agent.session(0.0, Behavior::Release)?];
        lock.acquired(&first)?;
        agent.destroy(&first)?.value()?;
        lock.acquired(&next).map(|_| ())
    })
}

#[test]
fn key_is_deleted_with_its_session() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("deletes");
        let id = agent.session(0.0, Behavior::Delete)?;
        lock.acquired(&id)?;
        agent.destroy(&id)?.value()?;
        ensure!(lock.read()?.lock.is_none());
        // A release keeps the key.
        let id = agent.session(0.0, Behavior::Delete)?;
        lock.acquired(&id)?;
        ensure!(lock.release(&id)?);
        agent.destroy(&id)?.value()?;
        ensure!(lock.stored()?.session.is_none());
        Ok(())
    })
}

#[test]
fn acquire_for_a_missing_session_fails() -> Result<()> {
    on_every_agent(|agent| {
        let lock = agent.lock("missing_session");
        let text = lock.acquire_with(MISSING, None)?.error("not-found")?;
        ensure!(text.contains(MISSING), "{text}");
        ensure!(lock.read()?.lock.is_none());
        Ok(())
    })
}

#[test]
fn holder_of_a_missing_key_returns_none() -> Result<()> {
    on_every_agent(|agent| {
        let holding = agent.lock("missing_key").read()?;
        ensure!(holding.lock.is_none() && holding.index > 0, "{holding:?}");
        Ok(())
    })
}

#[test]
fn invalid_keys_and_ids_are_rejected() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.session(0.0, Behavior::Release)?;
        for key in ["", "/refuses", "..", "a\nb"] {
            let lock = agent.lock(key);
            lock.acquire_with(&id, None)?.error("invalid-option")?;
            lock.release_with(&id, None)?.error("invalid-option")?;
            lock.holding(None, &agent.to)?.error("invalid-option")?;
        }
        let lock = agent.lock("refuses");
        lock.acquire_with("none", None)?.error("invalid-option")?;
        lock.release_with("none", None)?.error("invalid-option")?;
        let wait = Query { wait: Some(1.0), ..Query::default() };
        lock.holding(Some(wait), &agent.to)?.error("invalid-option")?;
        ensure!(lock.read()?.lock.is_none());
        Ok(())
    })
}

#[test]
fn key_stores_any_bytes_and_flags() -> Result<()> {
    on_every_agent(|agent| {
        let (lock, id) = (agent.lock("contents"), agent.session(0.0, Behavior::Release)?);
        let every_byte: Vec<u8> = (0..=255).collect();
        for (value, flags) in [
            (every_byte, 3_304_740_253_564_472_344),
            (vec![b'x'; 100_000], 1),
            (vec![0], i64::MAX as u64),
            (b"ab".to_vec(), 0),
            (vec![], 7),
        ] {
            let contents = Contents { value: Some(value.clone()), flags: Some(flags) };
            let Acquisition::Acquired(acquired) = lock.acquire_with(&id, Some(&contents))?.value()? else {
                anyhow::bail!("not acquired");
            };
            ensure!(acquired.value == value && acquired.flags == flags, "{flags}");
            ensure!(lock.stored()? == acquired, "{flags}");
        }
        // Each acquisition and release writes its contents; without contents, value and flags are
        // empty.
        let both = Contents { value: Some(b"bye".to_vec()), flags: Some(7) };
        ensure!(lock.release_with(&id, Some(&both))?.value()?);
        let free = lock.stored()?;
        ensure!((free.value.as_slice(), free.flags) == (&b"bye"[..], 7), "{free:?}");
        let again = lock.acquired(&id)?;
        ensure!(again.value.is_empty() && again.flags == 0, "{again:?}");
        Ok(())
    })
}

#[test]
fn key_is_read_under_the_name_under_which_it_is_locked() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.session(0.0, Behavior::Release)?;
        for key in ["odd/a b", "odd/.lock", "odd/", "odd/ä🦀", "odd/%2F?x=y&z#\"\\", "...", "odd/..c"] {
            let lock = agent.lock(key);
            let acquired = lock.acquired(&id).with_context(|| format!("{key:?}"))?;
            ensure!(lock.stored()? == acquired, "{key:?}");
            ensure!(lock.release(&id)?, "{key:?}");
        }
        // Consul from 1.21.5 on would read these as another key, or not at all.
        for key in ["odd//c", "odd/./c", "odd/b/../c", "../odd", " odd", "odd ", "odd/a%20b", "odd/%2e%2e"] {
            let (option, message) = agent.lock(key).acquire_with(&id, None)?.invalid_option()?;
            ensure!(option == "key" && message.contains(key), "{message}");
            agent.lock(key).release_with(&id, None)?.invalid_option()?;
            agent.lock(key).holding(None, &agent.to)?.invalid_option()?;
        }
        Ok(())
    })
}

#[test]
fn namespaces_and_partitions_are_unsupported() -> Result<()> {
    on_every_agent(|agent| {
        let id = agent.session(0.0, Behavior::Release)?;
        for to in [
            Connection { namespace: Some("team".into()), ..agent.to.clone() },
            Connection { partition: Some("team".into()), ..agent.to.clone() },
        ] {
            let elsewhere = Agent { api: agent.api.clone(), to };
            let lock = elsewhere.lock("enterprise");
            lock.acquire_with(&id, None)?.error("unsupported")?;
            lock.release_with(&id, None)?.error("unsupported")?;
            lock.holding(None, &elsewhere.to)?.error("unsupported")?;
        }
        ensure!(agent.lock("enterprise").read()?.lock.is_none());
        Ok(())
    })
}

#[test]
fn blocking_holder_returns_after_a_release() -> Result<()> {
    on_every_agent(|agent| {
        let (lock, id) = (agent.lock("woken"), agent.session(15.0, Behavior::Release)?);
        lock.acquired(&id)?;
        let index = lock.read()?.index;
        let query = Query { consistency: Some(Consistency::Consistent), index: Some(index), wait: Some(60.0) };
        let holding = thread::scope(|scope| -> Result<Holding> {
            let waiting = scope.spawn(|| lock.holding(Some(query), &agent.to)?.value());
            // So that the query most likely waits already; if not, it returns at once.
            thread::sleep(Duration::from_millis(100));
            ensure!(lock.release(&id)?);
            waiting.join().expect("it does not panic")
        })?;
        ensure!(holding.index > index && holding.lock.as_ref().is_some_and(|lock| lock.session.is_none()), "{holding:?}");
        Ok(())
    })
}
