//! Each function of a semaphore against a real Consul and against the dev agent, and together with
//! `consul lock -n`.

use crate::functions::{Agent, MISSING, on_every_agent};
use anyhow::{Context as _, Result, bail, ensure};
use consul_session_host::{Behavior, Connection, CreateOptions, Query, Semaphore, SlotAcquisition};
use consul_session_tests::embedded::{Answer, answer, connection, host};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use test_support::block_on;
use test_support::consul::{Consul, Kind};

/// A semaphore of an agent.
struct Slots<'a> {
    agent: &'a Agent,
    prefix: &'a str,
    limit: u32,
}

impl Agent {
    fn slots<'a>(&'a self, prefix: &'a str, limit: u32) -> Slots<'a> {
        Slots { agent: self, prefix, limit }
    }

    /// Sessions with the lock delay of 15 seconds, which does not apply to slots.
    fn sessions<const COUNT: usize>(&self) -> Result<[String; COUNT]> {
        let session = CreateOptions { behavior: Some(Behavior::Delete), ..CreateOptions::default() };
        let ids: Vec<_> = (0..COUNT).map(|_| self.create(&session)?.value()).collect::<Result<_>>()?;
        ids.try_into().map_err(|_| anyhow::anyhow!("another number"))
    }

    fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let answer = self.api.send("GET", &format!("/v1/kv/{prefix}/?recurse"), None)?;
        let keys: serde_json::Value = serde_json::from_str(if answer.status == 404 { "[]" } else { &answer.text })?;
        Ok(keys.as_array().into_iter().flatten().filter_map(|key| Some(key["Key"].as_str()?.to_owned())).collect())
    }
}

impl Slots<'_> {
    fn try_acquire(&self, id: &str) -> Result<Answer<SlotAcquisition>> {
        block_on(answer(host()?.acquire_slot(self.prefix, id, self.limit, Some(b"me"), Some(&self.agent.to))))
    }

    fn acquire(&self, id: &str) -> Result<SlotAcquisition> {
        self.try_acquire(id)?.value()
    }

    fn try_release(&self, id: &str) -> Result<Answer<bool>> {
        block_on(answer(host()?.release_slot(self.prefix, id, Some(&self.agent.to))))
    }

    fn release(&self, id: &str) -> Result<bool> {
        self.try_release(id)?.value()
    }

    fn holders(&self, query: Option<Query>) -> Result<Answer<Semaphore>> {
        block_on(answer(host()?.slot_holders(self.prefix, query, Some(&self.agent.to))))
    }

    fn read(&self) -> Result<Semaphore> {
        self.holders(None)?.value()
    }

    /// Waits for a change after the index with which an acquisition was refused.
    fn wait(&self, index: u64) -> Result<Semaphore> {
        self.holders(Some(Query { index: Some(index), wait: Some(60.0), ..Query::default() }))?.value()
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[test]
fn limited_number_of_sessions_have_a_slot() -> Result<()> {
    on_every_agent(|agent| {
        let (slots, [a, b, c]) = (agent.slots("sem/limited", 2), agent.sessions()?);
        ensure!(slots.read()?.limit.is_none() && slots.read()?.holders.is_empty());
        for id in [&a, &b, &a, &b.to_uppercase()] {
            ensure!(slots.acquire(id)? == SlotAcquisition::Acquired);
        }
        let SlotAcquisition::Full(index) = slots.acquire(&c)? else { bail!("not full") };
        let semaphore = slots.read()?;
        ensure!(semaphore.limit == Some(2) && sorted(semaphore.holders) == sorted(vec![a.clone(), b.clone()]));
        ensure!(semaphore.index == index, "nothing has changed");
        // Who did not get one leaves nothing behind.
        let key = |name: &str| format!("sem/limited/{name}");
        ensure!(agent.keys("sem/limited")? == sorted(vec![key(".lock"), key(&a), key(&b)]), "{:?}", agent.keys("sem/limited")?);
        ensure!(agent.api.get(&format!("/v1/kv/{}", key(&a)))?[0]["Value"] == "bWU=");
        ensure!(slots.release(&a)? && !slots.release(&a)? && !slots.release(&c)?);
        ensure!(slots.acquire(&c)? == SlotAcquisition::Acquired);
        ensure!(slots.release(&b)? && slots.release(&c)?);
        ensure!(agent.keys("sem/limited")?.is_empty(), "the last one deletes the keys");
        // So the limit may be another one.
        ensure!(agent.slots("sem/limited/", 1).acquire(&a)? == SlotAcquisition::Acquired);
        Ok(())
    })
}

#[test]
fn slot_of_an_ended_session_is_free_at_once() -> Result<()> {
    on_every_agent(|agent| {
        for behavior in [Behavior::Delete, Behavior::Release] {
            let prefix = format!("sem/ended/{behavior:?}");
            let (slots, [next]) = (agent.slots(&prefix, 1), agent.sessions()?);
            let session = CreateOptions { behavior: Some(behavior), ..CreateOptions::default() };
            let gone = agent.create(&session)?.value()?;
            ensure!(slots.acquire(&gone)? == SlotAcquisition::Acquired);
            let SlotAcquisition::Full(index) = slots.acquire(&next)? else { bail!("not full") };
            let woken = thread::scope(|scope| -> Result<Semaphore> {
                let waiting = scope.spawn(|| slots.wait(index));
                // So that the query most likely waits already; if not, it returns at once.
                thread::sleep(Duration::from_millis(100));
                agent.destroy(&gone)?.value()?;
                waiting.join().expect("it does not panic")
            })?;
            ensure!(woken.holders.is_empty() && woken.limit == Some(1) && woken.index > index, "{woken:?}");
            // The lock delay of 15 seconds is for its key only.
            ensure!(slots.acquire(&next)? == SlotAcquisition::Acquired);
            ensure!(slots.read()?.holders == std::slice::from_ref(&next));
            ensure!(matches!(slots.acquire(&gone)?, SlotAcquisition::Full(_)));
            ensure!(slots.release(&next)?);
            let text = slots.try_acquire(&gone)?.error("not-found")?;
            ensure!(text.contains(&gone), "{text}");
            ensure!(agent.keys(&prefix)?.iter().all(|key| !key.ends_with(".lock")));
        }
        Ok(())
    })
}

#[test]
fn concurrent_acquisitions_exceed_no_limit() -> Result<()> {
    on_every_agent(|agent| {
        let (slots, ids) = (agent.slots("sem/race", 3), agent.sessions::<8>()?);
        let results = thread::scope(|scope| -> Result<Vec<_>> {
            let racing: Vec<_> = ids.iter().map(|id| scope.spawn(|| slots.acquire(id))).collect();
            racing.into_iter().map(|one| one.join().expect("it does not panic")).collect()
        })?;
        let acquired: Vec<_> = ids.iter().zip(&results).filter(|(_, got)| **got == SlotAcquisition::Acquired).collect();
        ensure!(acquired.len() == 3, "{results:?}");
        ensure!(sorted(slots.read()?.holders) == sorted(acquired.iter().map(|(id, _)| id.to_string()).collect()));
        let released = thread::scope(|scope| -> Result<Vec<_>> {
            let racing: Vec<_> = ids.iter().map(|id| scope.spawn(|| slots.release(id))).collect();
            racing.into_iter().map(|one| one.join().expect("it does not panic")).collect()
        })?;
        ensure!(released.iter().filter(|had| **had).count() == 3 && agent.keys("sem/race")?.is_empty(), "{released:?}");
        Ok(())
    })
}

#[test]
fn other_limits_and_other_keys_are_reported() -> Result<()> {
    on_every_agent(|agent| {
        let [a, b] = agent.sessions()?;
        ensure!(agent.slots("sem/other", 2).acquire(&a)? == SlotAcquisition::Acquired);
        ensure!(agent.slots("sem/other", 3).acquire(&b)? == SlotAcquisition::OtherLimit(2));
        // A lock of `consul lock` without a number.
        agent.api.put(&format!("/v1/kv/sem/lock/.lock?acquire={b}&flags=3304740253564472344"), None)?;
        ensure!(agent.slots("sem/lock", 2).acquire(&a)? == SlotAcquisition::NotASemaphore);
        ensure!(agent.slots("sem/lock", 2).read()?.limit.is_none());
        Ok(())
    })
}

#[test]
fn invalid_prefixes_ids_and_limits_are_rejected() -> Result<()> {
    on_every_agent(|agent| {
        let [id] = agent.sessions()?;
        for prefix in ["", "/", "/a", "a//b", "..", " a", "a\nb"] {
            let slots = agent.slots(prefix, 2);
            ensure!(slots.try_acquire(&id)?.invalid_option()?.0 == "prefix");
            ensure!(slots.try_release(&id)?.invalid_option()?.0 == "prefix");
            ensure!(slots.holders(None)?.invalid_option()?.0 == "prefix");
        }
        ensure!(agent.slots("sem/wrong", 0).try_acquire(&id)?.invalid_option()?.0 == "limit");
        ensure!(agent.slots("sem/wrong", 1).try_acquire("none")?.invalid_option()?.0 == "id");
        agent.slots("sem/wrong", 1).try_acquire(MISSING)?.error("not-found")?;
        let elsewhere = Agent { api: agent.api.clone(), to: Connection { namespace: Some("n".into()), ..agent.to.clone() } };
        elsewhere.slots("sem/wrong", 1).try_acquire(&id)?.error("unsupported")?;
        elsewhere.slots("sem/wrong", 1).try_release(&id)?.error("unsupported")?;
        ensure!(agent.keys("sem/wrong")?.is_empty());
        Ok(())
    })
}

/// A token that reads `.lock` and not the keys of the others would take these for dead.
#[test]
fn keys_hidden_by_acls_are_an_error() -> Result<()> {
    let consul = Consul::start(Kind::Acl)?;
    let api = consul.api();
    let root = Agent { to: Connection { token: Some("root".into()), ..connection(api.address) }, api: api.clone() };
    let [holder, other] = root.sessions()?;
    ensure!(root.slots("sem/acl", 1).acquire(&holder)? == SlotAcquisition::Acquired);
    let rules = format!(
        r#"session_prefix "" {{policy="write"}} key "sem/acl/.lock" {{policy="write"}} key "sem/acl/{other}" {{policy="write"}}"#
    );
    api.put("/v1/acl/policy", Some(&json!({"Name": "narrow", "Rules": rules})))?;
    let token = api.put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "narrow"}]})))?;
    let to = Connection { token: token["SecretID"].as_str().map(str::to_owned), ..connection(api.address) };
    let narrow = Agent { api: api.clone(), to };
    narrow.slots("sem/acl", 1).try_acquire(&other)?.error("hidden")?;
    narrow.slots("sem/acl", 1).holders(None)?.error("hidden")?;
    let rules = r#"session_prefix "" {policy="write"} key_prefix "sem/acl/" {policy="read"}"#;
    api.put("/v1/acl/policy", Some(&json!({"Name": "reader", "Rules": rules})))?;
    let token = api.put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "reader"}]})))?;
    let to = Connection { token: token["SecretID"].as_str().map(str::to_owned), ..connection(api.address) };
    let reader = Agent { api, to };
    ensure!(reader.slots("sem/acl", 1).read()?.holders == std::slice::from_ref(&holder));
    reader.slots("sem/acl", 2).try_release(&holder)?.error("access-denied")?;
    Ok(())
}

/// `consul lock -n 2 PREFIX`, which holds its slot until its input ends.
struct ConsulLock(Child);

impl ConsulLock {
    fn start(agent: &Agent, prefix: &str, limit: u32) -> Result<ConsulLock> {
        let child = Command::new(Consul::binary().context("a Consul program")?)
            .args(["lock", "-pass-stdin", "-verbose"])
            .arg(format!("-n={limit}"))
            .arg(format!("-http-addr={}", agent.api.address))
            .args([prefix, "echo has a slot; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(ConsulLock(child))
    }

    /// Waits until the command runs.
    fn has_slot(&mut self) -> Result<()> {
        let output = self.0.stdout.as_mut().context("it is piped")?;
        let mut lines = BufReader::new(output).lines();
        ensure!(lines.by_ref().map_while(Result::ok).any(|line| line == "has a slot"), "it ended without a slot");
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        // Whatever it prints at last.
        std::io::copy(self.0.stdout.as_mut().context("it is piped")?, &mut std::io::sink())?;
        ensure!(self.0.wait()?.success());
        Ok(())
    }
}

impl Drop for ConsulLock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn slots_and_consul_lock_exclude_each_other() -> Result<()> {
    on_every_agent(|agent| {
        let (slots, [a, b]) = (agent.slots("sem/both", 2), agent.sessions()?);
        let mut first = ConsulLock::start(agent, "sem/both", 2)?;
        first.has_slot()?;
        ensure!(slots.read()?.limit == Some(2) && slots.read()?.holders.len() == 1);
        ensure!(slots.acquire(&a)? == SlotAcquisition::Acquired);
        let SlotAcquisition::Full(index) = slots.acquire(&b)? else { bail!("a third slot") };
        // Its slot is the one to wait for.
        first.end()?;
        ensure!(slots.wait(index)?.index > index);
        let until = Instant::now() + Duration::from_secs(60);
        while slots.acquire(&b)? != SlotAcquisition::Acquired {
            ensure!(Instant::now() < until, "the slot of `consul lock` does not become free");
        }
        // It waits for one of ours.
        let mut second = ConsulLock::start(agent, "sem/both", 2)?;
        let contends = |key: &String| !key.ends_with(".lock") && !key.ends_with(&a) && !key.ends_with(&b);
        while !agent.keys("sem/both")?.iter().any(contends) {
            ensure!(Instant::now() < until, "`consul lock` does not contend");
            thread::sleep(Duration::from_millis(20));
        }
        ensure!(sorted(slots.read()?.holders) == sorted(vec![a.clone(), b.clone()]), "it waits");
        ensure!(slots.release(&a)?);
        second.has_slot()?;
        let holders = slots.read()?.holders;
        ensure!(holders.len() == 2 && holders.contains(&b) && !holders.contains(&a), "{holders:?}");
        // `consul lock` refuses another limit, as we do.
        let mut other = ConsulLock::start(agent, "sem/both", 3)?;
        ensure!(other.has_slot().is_err() && other.0.wait()?.code() == Some(1));
        ensure!(agent.slots("sem/both", 3).acquire(&a)? == SlotAcquisition::OtherLimit(2));
        ensure!(slots.release(&b)?);
        second.end()?;
        // What stays until its TTL is over is the key of the one that was refused.
        let keys = agent.keys("sem/both")?;
        ensure!(keys.len() <= 1 && !keys.contains(&"sem/both/.lock".to_owned()), "{keys:?}");
        Ok(())
    })
}
