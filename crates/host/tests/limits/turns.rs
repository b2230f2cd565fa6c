//! `Limits::instances`: how many calls are made at once, and that each gets its turn.

use crate::plugin::connection;
use anyhow::{Context as _, Result, bail, ensure};
use consul_session_host::{Connection, Host};
use libtest_mimic::Trial;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use test_support::block_on;
use test_support::plugin;
use test_support::scripted::{Reply, Scripted};
use test_support::trial::trial;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

type Test = fn() -> Result<()>;

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 3] = [
        ("no more calls at once than instances, and each has its turn", each_in_turn),
        ("a dropped call gives its turn back", dropped_call),
        ("an instance keeps its turn until it is dropped", kept_instance),
    ];
    tests.map(|(name, test)| trial(format!("turns: {name}"), test)).into()
}

fn host(instances: &str) -> Result<Host> {
    let builder = Host::builder().allow("*:*".parse()?).limit("instances", instances)?;
    builder.build(plugin()?).map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// A server whose every answer waits until it is let go.
struct Held {
    to: Connection,
    /// One for each request that has come in.
    arrived: UnboundedReceiver<()>,
    release: mpsc::Sender<()>,
    most: Arc<AtomicUsize>,
}

impl Held {
    fn start() -> Result<Held> {
        let (told, arrived) = unbounded_channel();
        let (release, released) = mpsc::channel();
        let (waiting, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (released, seen) = (Mutex::new(released), Arc::clone(&most));
        let server = Scripted::start(move |_| {
            seen.fetch_max(waiting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Nobody listens any more when the test has failed.
            let _ = told.send(());
            let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
            waiting.fetch_sub(1, Ordering::SeqCst);
            // So that each call has a connection of its own.
            Reply::http(200, "Connection: close\r\n", "[]").then_close()
        })?;
        Ok(Held { to: connection(server.address()), arrived, release, most })
    }
}

fn each_in_turn() -> Result<()> {
    let (host, mut server) = (host("3")?, Held::start()?);
    block_on(async {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let (host, to) = (host.clone(), server.to.clone());
            calls.spawn(async move { host.list_sessions(None, Some(&to)).await });
        }
        for number in 0..20 {
            server.arrived.recv().await.context("the server is gone")?;
            // From the third on there are three at the server, and one of them is let go.
            if number >= 2 {
                server.release.send(())?;
            }
        }
        server.release.send(())?;
        server.release.send(())?;
        for answered in calls.join_all().await {
            answered?;
        }
        let most = server.most.load(Ordering::SeqCst);
        ensure!(most == 3, "{most} at once");
        Ok(())
    })
}

fn dropped_call() -> Result<()> {
    let (host, mut server) = (host("1")?, Held::start()?);
    block_on(async {
        tokio::select! {
            answered = host.list_sessions(None, Some(&server.to)) => bail!("it was not to be answered: {answered:?}"),
            _ = server.arrived.recv() => {}
        }
        // For the dropped one, whose answer nobody reads, and for the next.
        server.release.send(())?;
        server.release.send(())?;
        host.list_sessions(None, Some(&server.to)).await?;
        Ok(())
    })
}

fn kept_instance() -> Result<()> {
    let (host, server) = (host("1")?, Held::start()?);
    block_on(async {
        for _ in 0..3 {
            server.release.send(())?;
        }
        let mut instance = host.instance().await?;
        instance.list_sessions(None, Some(&server.to)).await?;
        let mut other = std::pin::pin!(host.list_sessions(None, Some(&server.to)));
        tokio::select! {
            biased;
            answered = &mut other => bail!("it had no turn: {answered:?}"),
            answered = instance.list_sessions(None, Some(&server.to)) => drop(answered?),
        }
        drop(instance);
        other.await?;
        Ok(())
    })
}
