//! Many calls: one after another in one instance, and at once. Each test runs in a process of its
//! own, so that the memory of other tests does not count.

use crate::exclusive;
use crate::plugin::{connection, host, options};
use anyhow::{Context as _, Result, ensure};
use consul_session_host::Options;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;
use test_support::block_on;
use test_support::consul::{Consul, Kind};
use tokio::task::JoinSet;

/// Set in the child process that runs a single test.
const CHILD: &str = "CONSUL_SESSION_TEST_CHILD";
/// Sets how many calls are made in one instance.
const CALLS: &str = "CONSUL_SESSION_CALLS";

#[test]
fn memory_is_constant_over_calls_in_one_instance() -> Result<()> {
    in_child("load::memory_is_constant_over_calls_in_one_instance", one_instance)
}

#[test]
fn concurrent_calls_create_one_session() -> Result<()> {
    in_child("load::concurrent_calls_create_one_session", concurrent_calls)
}

/// Runs the test of this name in a child process, where this function calls `test`.
fn in_child(name: &str, test: fn() -> Result<()>) -> Result<()> {
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let _exclusive = exclusive();
    let mut child = Command::new(std::env::current_exe()?);
    let output = child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    print!("{stdout}");
    ensure!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(stdout.contains("1 passed"), "the child did not run {name}: {stdout}");
    Ok(())
}

/// Returns a value of `/proc/self/status` in MiB. On systems other than Linux it is always 0.
fn memory(name: &str) -> Result<f64> {
    if !cfg!(target_os = "linux") {
        return Ok(0.0);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value =
        status.lines().find_map(|text| text.strip_prefix(name)?.strip_prefix(':')?.strip_suffix("kB")?.trim().parse().ok());
    value.map(|kib: f64| kib / 1024.0).with_context(|| format!("no {name}"))
}

/// Starts a server that answers every request with an empty list, and records nothing.
fn stateless_server() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    let mut requests = BufReader::new(stream);
    while requests.read_line(&mut line)? > 0 {
        // The end of the head. The requests have no bodies.
        if line == "\r\n" {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")?;
        }
        line.clear();
    }
    Ok(())
}

/// If each call leaked a handle, this would end at
/// [`Limits::handles`](consul_session_host::Limits).
fn one_instance() -> Result<()> {
    let calls: u32 = std::env::var(CALLS).map_or(Ok(20_000), |text| text.parse())?;
    let to = connection(stateless_server()?);
    block_on(async {
        let mut instance = host()?.instance().await?;
        let start = Instant::now();
        let mut measured = Vec::new();
        for number in 1..=calls {
            instance.list_sessions(None, Some(&to)).await?;
            if [calls / 10, calls / 2, calls].contains(&number) {
                let (resident, guest) = (memory("VmRSS")?, instance.memory());
                let seconds = start.elapsed().as_secs_f64();
                println!("{number} calls in one instance: {seconds:.1} s, RSS {resident:.1} MiB, guest memory {guest}");
                measured.push((resident, guest));
            }
        }
        let (Some(first), Some(last)) = (measured.first(), measured.last()) else { anyhow::bail!("too few calls") };
        ensure!(last.1 == first.1, "guest memory grew from {} to {}", first.1, last.1);
        ensure!(last.0 < first.0 + 4.0, "RSS grew from {} to {} MiB", first.0, last.0);
        Ok(())
    })
}

fn concurrent_calls() -> Result<()> {
    const CALLS: usize = 10_000;
    let agent = Consul::start(Kind::Plain)?;
    let start = Instant::now();
    let outcomes = block_on(async {
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let options = Options { name: Some("x".into()), ..options(agent.http()) };
            calls.spawn(async move { host()?.apply(&options).await.context("a call failed") });
        }
        calls.join_all().await.into_iter().collect::<Result<Vec<_>>>()
    })?;
    let (seconds, peak) = (start.elapsed().as_secs_f64(), memory("VmHWM")?);
    println!("{CALLS} calls at once: {seconds:.1} s, at most {peak:.1} MiB");
    let ids: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.session_id.as_deref()).collect();
    ensure!(ids.len() == 1 && !ids.contains(&None), "{ids:?}");
    ensure!(outcomes.iter().any(|outcome| outcome.changed), "no call reports that it created the session");
    let sessions = agent.api().sessions()?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    Ok(())
}
