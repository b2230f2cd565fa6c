//! The program as it is typed, against a real Consul.

use anyhow::{Result, ensure};
use test_support::consul::{Consul, Kind};
use test_support::program::{Output, creates_session1_once, run};
use test_support::{plugin, tools, unused_address};

/// Runs `host-example PLUGIN ARGUMENTS`.
fn host_example(arguments: &[&str]) -> Result<Output> {
    run(tools::command(env!("CARGO_BIN_EXE_host-example")).arg(plugin()?).args(arguments))
}

/// The first example of the `consul_session` options is `name: session1`.
#[test]
fn first_example_creates_a_session_once() -> Result<()> {
    creates_session1_once(|port| {
        let arguments = ["name=session1", &format!("port={port}"), &format!("--allow=localhost:{port}")];
        Ok(host_example(&arguments)?.succeeded()?.stdout)
    })
}

#[test]
fn authority_that_is_not_allowed_is_denied() -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    let port = consul.http().port();
    // The address is that of the agent, and the name is not.
    let Output { stdout, stderr, status } =
        host_example(&["name=session1", "host=127.0.0.1", &format!("port={port}"), &format!("--allow=localhost:{port}")])?;
    ensure!(status == 1 && stdout.is_empty() && stderr.starts_with("error (denied-by-host): "), "{status} {stdout}{stderr}");
    ensure!(consul.api().sessions()?.is_empty(), "the request was sent");
    Ok(())
}

#[test]
fn missing_agent_is_unreachable() -> Result<()> {
    let address = unused_address()?;
    let (port, allow) = (format!("port={}", address.port()), format!("--allow={address}"));
    let Output { stdout, stderr, status } = host_example(&["name=session1", "host=127.0.0.1", &port, &allow])?;
    ensure!(status == 1 && stdout.is_empty() && stderr.starts_with("error (unreachable): "), "{status} {stdout}{stderr}");
    Ok(())
}

/// The command component imports `wasi:cli` too.
#[test]
fn component_with_other_imports_is_refused() -> Result<()> {
    let Output { stdout, stderr, status } =
        run(tools::command(env!("CARGO_BIN_EXE_host-example")).arg(test_support::component()?).arg("name=session1"))?;
    ensure!(status == 1 && stdout.is_empty() && stderr.contains("wasi:cli/"), "{status} {stdout}{stderr}");
    Ok(())
}

#[test]
fn wrong_usage_has_status_2() -> Result<()> {
    for arguments in [&["session1"][..], &["nmae=session1"], &["port=http"], &["--allow"]] {
        let Output { stdout, stderr, status } = host_example(arguments)?;
        ensure!(status == 2 && stdout.is_empty() && stderr.starts_with("usage: "), "{arguments:?}: {status} {stdout}{stderr}");
    }
    let Output { status, .. } = run(&mut tools::command(env!("CARGO_BIN_EXE_host-example")))?;
    ensure!(status == 2, "without arguments: {status}");
    Ok(())
}
