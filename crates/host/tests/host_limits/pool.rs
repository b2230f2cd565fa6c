//! [`Pool`]: which instances are kept, and which are not.
//!
//! The component `counter.wat` returns how many calls its instance has served.

use crate::exclusive;
use crate::hostile::built;
use anyhow::{Result, ensure};
use consul_session_host::{CallError, Host, Pool};
use std::time::Duration;
use test_support::block_on;

fn host(limits: &[(&str, &str)]) -> Result<Host> {
    let mut builder = Host::builder();
    for (name, value) in limits {
        builder = builder.limit(name, value)?;
    }
    built(builder, include_str!("counter.wat"))
}

/// Makes these calls one after another, and returns their answers. `-` stands for a call that was
/// stopped or trapped.
async fn served(pool: &Pool, calls: &str) -> String {
    let mut answers = String::new();
    for call in calls.chars() {
        answers += &match pool.apply_json(&call.to_string()).await {
            Ok(number) | Err(CallError::Plugin(consul_session_host::Error::Other(number))) => number,
            Err(_) => "-".into(),
        };
    }
    answers
}

#[test]
fn instances_are_kept_until_they_may_not_be() -> Result<()> {
    let _exclusive = exclusive();
    block_on(async {
        for (what, size, renew_after, calls, expected) in [
            ("kept", 1, 100, "nnnn", "1234"),
            ("an error of the plugin is an answer", 1, 100, "neen", "1234"),
            ("a trap", 1, 100, "ntnn", "1-12"),
            ("a call that was stopped", 1, 100, "nwnn", "1-12"),
            ("memory", 1, 100, "nmnn", "1212"),
            ("the last call", 1, 3, "nnnnnnn", "1231231"),
            ("each call", 1, 1, "nnn", "111"),
            ("each call too", 1, 0, "nnn", "111"),
            ("none is kept", 0, 100, "nnn", "111"),
        ] {
            let pool = host(&[("time", "200ms")])?.pool(size).renew_after(renew_after);
            let answers = served(&pool, calls).await;
            ensure!(answers == expected, "{what}: {answers}");
        }
        Ok(())
    })
}

#[test]
fn an_instance_whose_call_was_dropped_is_not_kept() -> Result<()> {
    let _exclusive = exclusive();
    block_on(async {
        let pool = host(&[])?.pool(1);
        ensure!(served(&pool, "nn").await == "12");
        ensure!(tokio::time::timeout(Duration::from_millis(50), pool.apply_json("w")).await.is_err());
        ensure!(served(&pool, "nn").await == "12");
        Ok(())
    })
}

#[test]
fn clones_share_instances_and_other_pools_do_not() -> Result<()> {
    let _exclusive = exclusive();
    block_on(async {
        let host = host(&[])?;
        let [one, other] = [(), ()].map(|()| host.pool(1));
        ensure!(served(&one, "nn").await == "12");
        ensure!(served(&other, "n").await == "1");
        ensure!(served(&one.clone(), "n").await == "3");
        ensure!(host.apply_json("n").await? == "1");
        Ok(())
    })
}

/// A call that finds no idle instance gets a new one. After both calls, as many are kept as the pool
/// allows.
#[test]
fn concurrent_calls_have_an_instance_each() -> Result<()> {
    let _exclusive = exclusive();
    block_on(async {
        for (size, expected) in [(1, ["2", "1"]), (2, ["2", "2"])] {
            let pool = host(&[])?.pool(size);
            // The argument `p` ends the first poll of a call.
            let pair = async || tokio::join!(pool.apply_json("p"), pool.apply_json("p"));
            let (first, second) = pair().await;
            ensure!([first?, second?] == ["1", "1"], "{size}: one instance served both");
            let (first, second) = pair().await;
            let mut answers = [first?, second?];
            answers.sort_by(|a, b| b.cmp(a));
            ensure!(answers == expected, "{size}: {answers:?}");
        }
        Ok(())
    })
}

/// Idle instances leave the permits of the host to others, and there are no more of them than the
/// host may run.
#[test]
fn idle_instances_take_no_permits() -> Result<()> {
    let _exclusive = exclusive();
    block_on(async {
        let host = host(&[("instances", "1")])?;
        let pools = [(), (), ()].map(|()| host.pool(10));
        for pool in &pools {
            ensure!(served(pool, "n").await == "1");
        }
        ensure!(host.apply_json("n").await? == "1");
        let mut again = Vec::new();
        for pool in &pools {
            again.push(served(pool, "n").await);
        }
        ensure!(again == ["2", "1", "1"], "{again:?}");
        Ok(())
    })
}
