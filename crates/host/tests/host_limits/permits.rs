//! `Limits::instances`: how many calls run at once, and that each waiting call gets a permit.

use crate::exclusive;
use crate::plugin::connection;
use anyhow::{Context as _, Result, bail, ensure};
use consul_session_host::{Connection, Host};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use test_support::block_on;
use test_support::plugin;
use test_support::scripted::{Reply, Scripted};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

fn host(instances: &str) -> Result<Host> {
    let builder = Host::builder().allow("*:*".parse()?).limit("instances", instances)?;
    builder.build(plugin()?).map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// A server that holds back each response until the test releases it.
struct HoldingServer {
    to: Connection,
    /// A message for each request that has arrived.
    arrived: UnboundedReceiver<()>,
    release: mpsc::Sender<()>,
    /// The highest number of requests that waited at once.
    max_waiting: Arc<AtomicUsize>,
}

impl HoldingServer {
    fn start() -> Result<HoldingServer> {
        let (arrival, arrived) = unbounded_channel();
        let (release, released) = mpsc::channel();
        let (waiting, max_waiting) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (released, max) = (Mutex::new(released), Arc::clone(&max_waiting));
        let server = Scripted::start(move |_| {
            max.fetch_max(waiting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // The receiver is gone if the test has failed.
            let _ = arrival.send(());
            let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
            waiting.fetch_sub(1, Ordering::SeqCst);
            // Closing the connection gives each call its own.
            Reply::http(200, "Connection: close\r\n", "[]").then_close()
        })?;
        Ok(HoldingServer { to: connection(server.address()), arrived, release, max_waiting })
    }
}

#[test]
fn concurrent_calls_are_limited_and_each_gets_a_permit() -> Result<()> {
    let _exclusive = exclusive();
    let (host, mut server) = (host("3")?, HoldingServer::start()?);
    block_on(async {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let (host, to) = (host.clone(), server.to.clone());
            calls.spawn(async move { host.list_sessions(None, Some(&to)).await });
        }
        for number in 0..20 {
            server.arrived.recv().await.context("the server is gone")?;
            // From the third request on, three wait at the server, and one of them is released.
            if number >= 2 {
                server.release.send(())?;
            }
        }
        server.release.send(())?;
        server.release.send(())?;
        for result in calls.join_all().await {
            result?;
        }
        let most = server.max_waiting.load(Ordering::SeqCst);
        ensure!(most == 3, "{most} at once");
        Ok(())
    })
}

#[test]
fn dropped_call_returns_its_permit() -> Result<()> {
    let _exclusive = exclusive();
    let (host, mut server) = (host("1")?, HoldingServer::start()?);
    block_on(async {
        tokio::select! {
            result = host.list_sessions(None, Some(&server.to)) => bail!("the call ended too early: {result:?}"),
            _ = server.arrived.recv() => {}
        }
        // Releases the response of the dropped call, which is not read, and that of the next call.
        server.release.send(())?;
        server.release.send(())?;
        host.list_sessions(None, Some(&server.to)).await?;
        Ok(())
    })
}

#[test]
fn instance_keeps_its_permit_until_it_is_dropped() -> Result<()> {
    let _exclusive = exclusive();
    let (host, server) = (host("1")?, HoldingServer::start()?);
    block_on(async {
        for _ in 0..3 {
            server.release.send(())?;
        }
        let mut instance = host.instance().await?;
        instance.list_sessions(None, Some(&server.to)).await?;
        let mut other = std::pin::pin!(host.list_sessions(None, Some(&server.to)));
        tokio::select! {
            biased;
            result = &mut other => bail!("the call ran without a permit: {result:?}"),
            result = instance.list_sessions(None, Some(&server.to)) => drop(result?),
        }
        drop(instance);
        other.await?;
        Ok(())
    })
}
