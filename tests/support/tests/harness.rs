//! What the other tests count on: that an agent of theirs can be halted, killed and started again, and that none is left over.

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use test_support::consul::{Consul, Kind, NODE};

/// Set in the copy of this program that starts an agent and then dies.
const DOOMED: &str = "CONSUL_SESSION_TEST_DOOMED";

type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    if std::env::var_os(DOOMED).is_some() {
        return doomed();
    }
    let tests: [(&str, Test); 6] = [
        ("an agent has the checks that the cases count on", has_the_checks),
        ("a persistent agent keeps its sessions when it is killed and started again", keeps_its_sessions),
        ("a paused agent does not answer until it goes on", pauses),
        ("a dropped agent is gone", is_gone_when_dropped),
        ("an agent dies with the test that aborts", dies_with_its_test),
        ("a TLS agent has a certificate of its CA", speaks_tls),
    ];
    let no_consul = Consul::is_missing();
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}")))).with_ignored_flag(no_consul)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn has_the_checks() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    ensure!(agent.api().node()? == NODE);
    let create =
        |check: &str| agent.api().send("PUT", "/v1/session/create", Some(&json!({"NodeChecks": ["serfHealth", check]})));
    ensure!(create("passing-check")?.status == 200);
    ensure!(create("service:web")?.status == 200);
    ensure!(create("critical-check")?.text.contains("critical state"));
    Ok(())
}

fn keeps_its_sessions() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let created = agent.api().put("/v1/session/create", Some(&json!({"Name": "kept"})))?;
    let address = agent.http();
    agent.kill()?;
    ensure!(TcpStream::connect(address).is_err(), "killed, and yet it listens");
    agent.restart()?;
    ensure!(agent.http() == address);
    let sessions = agent.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["ID"] == created["ID"], "{sessions:?}");
    Ok(())
}

fn pauses() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.pause()?;
    let api = agent.api();
    let answer = std::thread::spawn(move || api.sessions());
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!answer.is_finished(), "paused, and yet it answered");
    agent.resume()?;
    answer.join().expect("the thread does not panic").map(|_| ())
}

fn is_gone_when_dropped() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let address = agent.http();
    TcpStream::connect(address)?;
    drop(agent);
    ensure!(TcpStream::connect(address).is_err(), "dropped, and yet it listens");
    Ok(())
}

/// Elsewhere than on Linux nothing ends an agent whose test was killed.
#[cfg(not(target_os = "linux"))]
fn dies_with_its_test() -> Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn dies_with_its_test() -> Result<()> {
    let output = Command::new(std::env::current_exe()?).env(DOOMED, "1").stderr(Stdio::inherit()).output()?;
    ensure!(!output.status.success(), "it was to abort");
    let address: SocketAddr = String::from_utf8(output.stdout)?.trim().parse()?;
    let start = Instant::now();
    while TcpStream::connect(address).is_ok() {
        ensure!(start.elapsed() < Duration::from_secs(10), "the agent at {address} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn doomed() -> ExitCode {
    let agent = Consul::start(Kind::Plain).expect("an agent");
    println!("{}", agent.http());
    std::process::abort()
}

fn speaks_tls() -> Result<()> {
    let agent = Consul::start(Kind::Tls)?;
    // Consul's own client: the test needs no TLS library, and what it takes is what an operator would use.
    let members = |host: &str, ca: &Path| -> Result<bool> {
        let port = agent.https().context("an HTTPS port")?.port();
        let mut client = Command::new(Consul::binary().context("no Consul")?);
        client.arg("members").arg(format!("-http-addr=https://{host}:{port}")).arg("-ca-file").arg(ca);
        Ok(client.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    };
    ensure!(members("localhost", &agent.ca())? && members("127.0.0.1", &agent.ca())?, "not for its names");
    let other = Consul::start(Kind::Tls)?;
    ensure!(!members("localhost", &other.ca())?, "another CA will do");
    Ok(())
}
