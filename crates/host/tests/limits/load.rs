//! Very many calls: one after another in one instance, and at once. Each test runs in a process of its own, so that no other's
//! memory counts.

use crate::plugin::{connection, host, options};
use anyhow::{Context as _, Result, ensure};
use consul_session_host::Options;
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::time::Instant;
use test_support::block_on;
use test_support::consul::{Consul, Kind};
use test_support::trial::trial;
use tokio::task::JoinSet;

/// Names the test in the process that is to run it.
const ALONE: &str = "CONSUL_SESSION_TEST_ALONE";
/// How many calls are made in one instance.
const CALLS: &str = "CONSUL_SESSION_CALLS";

const ONE_INSTANCE: &str = "load: calls in one instance need no more memory with time";
const AT_ONCE: &str = "load: 10,000 calls at once end with one session";

pub fn trials() -> Vec<Trial> {
    let in_child = |name: &'static str| trial(name, move || run(name));
    vec![in_child(ONE_INSTANCE), in_child(AT_ONCE).with_ignored_flag(Consul::is_missing())]
}

/// Runs the test of this process, if it is such a one.
pub fn alone() -> Option<ExitCode> {
    let name = std::env::var(ALONE).ok()?;
    let result = if name == ONE_INSTANCE { one_instance() } else { at_once() };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(name: &str) -> Result<()> {
    let output = Command::new(std::env::current_exe()?).env(ALONE, name).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A line of `/proc/self/status`, in MiB. Elsewhere than on Linux it is always 0.
fn memory(line: &str) -> Result<f64> {
    if !cfg!(target_os = "linux") {
        return Ok(0.0);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')?.strip_suffix("kB")?.trim().parse().ok());
    found.map(|kib: f64| kib / 1024.0).with_context(|| format!("no {line}"))
}

/// A server that answers every request with no sessions, and remembers nothing.
fn forgetful_server() -> Result<SocketAddr> {
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
        // The end of a head. There are no bodies.
        if line == "\r\n" {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")?;
        }
        line.clear();
    }
    Ok(())
}

/// A handle that is left over from each call would end this at [`Limits::handles`](consul_session_host::Limits).
fn one_instance() -> Result<()> {
    let calls: u32 = std::env::var(CALLS).map_or(Ok(20_000), |text| text.parse())?;
    let to = connection(forgetful_server()?);
    block_on(async {
        let mut instance = host()?.instance().await?;
        let start = Instant::now();
        let mut measured = Vec::new();
        for number in 1..=calls {
            instance.list_sessions(None, Some(&to)).await?;
            if [calls / 10, calls / 2, calls].contains(&number) {
                let (resident, guest) = (memory("VmRSS")?, instance.memory());
                let seconds = start.elapsed().as_secs_f64();
                println!("{number} calls in one instance: {seconds:.1} s, RSS {resident:.1} MiB, the guest's memory {guest}");
                measured.push((resident, guest));
            }
        }
        let (Some(first), Some(last)) = (measured.first(), measured.last()) else { anyhow::bail!("too few calls") };
        ensure!(last.1 == first.1, "the guest's memory grew from {} to {}", first.1, last.1);
        ensure!(last.0 < first.0 + 4.0, "RSS grew from {} to {} MiB", first.0, last.0);
        Ok(())
    })
}

fn at_once() -> Result<()> {
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
    ensure!(outcomes.iter().any(|outcome| outcome.changed), "nobody says that it created the session");
    let there = agent.api().sessions()?;
    ensure!(there.len() == 1, "{there:?}");
    Ok(())
}
