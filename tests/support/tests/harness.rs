//! The guarantees that the other tests rely on: an agent can be paused, killed and restarted, and
//! none outlives its test.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use test_support::consul::{Consul, Kind, NODE};

#[test]
fn started_agent_has_the_checks_of_the_cases() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    ensure!(agent.api().node()? == NODE);
    let create =
        |check: &str| agent.api().send("PUT", "/v1/session/create", Some(&json!({"NodeChecks": ["serfHealth", check]})));
    ensure!(create("passing-check")?.status == 200);
    ensure!(create("service:web")?.status == 200);
    ensure!(create("critical-check")?.text.contains("critical state"));
    Ok(())
}

#[test]
fn persistent_agent_keeps_its_sessions_across_a_kill() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let created = agent.api().put("/v1/session/create", Some(&json!({"Name": "kept"})))?;
    let address = agent.http();
    agent.kill()?;
    ensure!(TcpStream::connect(address).is_err(), "the killed agent listens");
    agent.restart()?;
    ensure!(agent.http() == address);
    let sessions = agent.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["ID"] == created["ID"], "{sessions:?}");
    Ok(())
}

#[test]
fn paused_agent_answers_only_after_it_resumes() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.pause()?;
    let api = agent.api();
    let answer = std::thread::spawn(move || api.sessions());
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!answer.is_finished(), "the paused agent answered");
    agent.resume()?;
    answer.join().expect("the thread does not panic").map(|_| ())
}

#[test]
fn dropped_agent_stops() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let address = agent.http();
    TcpStream::connect(address)?;
    drop(agent);
    ensure!(TcpStream::connect(address).is_err(), "the dropped agent listens");
    Ok(())
}

/// Only Linux ends an agent whose test process was killed.
#[cfg(target_os = "linux")]
#[test]
fn agent_dies_with_the_test_that_aborts() -> Result<()> {
    use std::net::SocketAddr;
    use std::time::Instant;

    /// Set in the copy of this program that starts an agent and aborts.
    const ABORTS: &str = "CONSUL_SESSION_TEST_ABORTS";
    /// Precedes the agent's address in the output of that copy.
    const ADDRESS: &str = "agent at ";

    if std::env::var_os(ABORTS).is_some() {
        let agent = Consul::start(Kind::Plain)?;
        // On a line of its own: the harness may have written the name of the test to this one.
        println!("\n{ADDRESS}{}", agent.http());
        std::process::abort();
    }
    let mut copy = Command::new(std::env::current_exe()?);
    copy.args(["--exact", "agent_dies_with_the_test_that_aborts", "--nocapture"]).env(ABORTS, "1");
    let output = copy.stderr(Stdio::inherit()).output()?;
    ensure!(!output.status.success(), "the copy did not abort");
    let text = String::from_utf8(output.stdout)?;
    let address = text.lines().find_map(|line| line.strip_prefix(ADDRESS));
    let address: SocketAddr = address.with_context(|| format!("no address in {text:?}"))?.parse()?;
    let start = Instant::now();
    while TcpStream::connect(address).is_ok() {
        ensure!(start.elapsed() < Duration::from_secs(10), "the agent at {address} is still running");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn tls_agent_has_a_certificate_of_its_ca() -> Result<()> {
    let agent = Consul::start(Kind::Tls)?;
    // Consul's own client: the test needs no TLS library, and the client accepts what an operator
    // would use.
    let members = |host: &str, ca: &Path| -> Result<bool> {
        let port = agent.https().context("an HTTPS port")?.port();
        let mut client = Command::new(Consul::binary().context("no Consul")?);
        client.arg("members").arg(format!("-http-addr=https://{host}:{port}")).arg("-ca-file").arg(ca);
        Ok(client.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    };
    ensure!(members("localhost", &agent.ca())?, "the certificate is not valid for localhost");
    ensure!(members("127.0.0.1", &agent.ca())?, "the certificate is not valid for 127.0.0.1");
    let other = Consul::start(Kind::Tls)?;
    ensure!(!members("localhost", &other.ca())?, "the certificate is valid for another CA");
    Ok(())
}
