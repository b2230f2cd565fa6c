//! The plugin served over NATS by wRPC and called from another process.
//!
//! `cargo xtask distributed` builds the tools and runs this test. wRPC's tool takes a quarter of an
//! hour of CPU time to compile, too long for `cargo xtask test`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use test_support::consul::{Consul, Kind};

/// Time limit of each step.
const LIMIT: Duration = Duration::from_secs(30);

/// A process, killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the path that an environment variable names.
fn file(variable: &str) -> Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run `cargo xtask distributed`"))
}

fn start(command: &mut Command) -> Result<Process> {
    Ok(Process(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().with_context(|| format!("{command:?}"))?))
}

/// Starts a NATS server.
fn nats() -> Result<(Process, SocketAddr)> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = start(Command::new(file("NATS_BIN")?).args(["-a", "127.0.0.1", "-p", &address.port().to_string()]))?;
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < deadline, "NATS does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((server, address))
}

/// Returns a command for wRPC's tool, without the log, which it writes to standard output by
/// default.
fn wrpc() -> Result<Command> {
    let mut command = Command::new(file("WRPC_BIN")?);
    command.env("RUST_LOG", "off");
    Ok(command)
}

/// Starts a server of the plugin in the queue group `plugin`.
fn serve(nats: SocketAddr) -> Result<Process> {
    let mut command = wrpc()?;
    command.args(["nats", "serve", "--nats", &format!("nats://{nats}"), "--export", "consul", "--group", "plugin"]);
    start(command.arg(test_support::plugin()?))
}

/// Calls `apply-json` with each of the options in another process. Returns the answers, or as
/// strings the lines that are not JSON.
fn call(nats: SocketAddr, options: &[Value]) -> Result<Vec<Value>> {
    let mut command = wrpc()?;
    command.args(["nats", "run", "--nats", &format!("nats://{nats}"), "--import", "consul"]).arg(file("CALLER")?);
    let mut caller = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = caller.stdin.take().context("no standard input")?;
    for options in options {
        writeln!(input, "{options}")?;
    }
    drop(input);
    let output = caller.wait_with_output()?;
    ensure!(output.status.success(), "the caller failed: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect())
}

/// Repeats the calls until a server answers. A server does not report when it is ready.
fn call_when_served(nats: SocketAddr, options: &[Value]) -> Result<Vec<Value>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match call(nats, options) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
            answers => return answers,
        }
    }
}

#[test]
fn calls_go_over_nats_and_survive_the_loss_of_a_server() -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    let port = consul.http().port();
    let (_nats, nats) = nats()?;
    let apply = |name: &str| json!({"name": name, "delay": "20s", "port": port});

    ensure!(call(nats, &[apply("x")]).is_err(), "an answer without a server");

    let first = serve(nats)?;
    call_when_served(nats, &[json!({"state": "list", "port": port})])?;
    let answers = call(nats, &[apply("x"), apply("x"), json!({"state": "list", "port": port}), json!({"delay": 61})])?;
    let [created, again, listed, refused] = answers.as_slice() else { anyhow::bail!("{answers:?}") };
    ensure!(created["changed"] == true && again["changed"] == false, "{answers:?}");
    ensure!(created["session_id"] == again["session_id"] && created["delay"] == 20, "{answers:?}");
    ensure!(listed["sessions"][0]["ID"] == created["session_id"], "{answers:?}");
    ensure!(refused.as_str().is_some_and(|text| text.contains("InvalidOption") && text.contains("delay")), "{refused}");
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["ID"] == created["session_id"], "{sessions:?}");

    // A second server in the same queue group takes over when the first is killed.
    let _second = serve(nats)?;
    drop(first);
    let after = call_when_served(nats, &[apply("x")])?;
    ensure!(after[0]["session_id"] == created["session_id"] && after[0]["changed"] == false, "{after:?}");
    Ok(())
}
