//! Runs the tests of Consul's own Go client about sessions, locks and semaphores against a real
//! Consul and the dev agent.
//!
//! Each test has an agent of its own, as in its own repository: what it leaves behind, such as a lock
//! delay, would stop the next one.

use anyhow::{Result, ensure};
use consul_session_dev_agent::DevAgent;
use libtest_mimic::{Arguments, Failed, Trial};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use test_support::block_on;
use test_support::consul::{Consul, Kind};
use test_support::program::run;
use test_support::tools::{command, consul_api_tests};

/// The number of Go tests in the version that `consul-api/go.mod` pins.
const TESTS: usize = 29;
/// The most threads. Some of the Go tests allow a second for what an agent does at once.
const THREADS: usize = 2;

fn main() -> ExitCode {
    run_all().unwrap_or_else(|error| {
        eprintln!("the tests of Consul's Go client cannot be run: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_all() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    let program: Arc<Path> = consul_api_tests()?.into();
    let listed = run(command(&*program).args(["-test.list", "."]))?.succeeded()?.stdout;
    let names: Vec<&str> = listed.lines().collect();
    ensure!(names.len() == TESTS, "{} tests instead of {TESTS}:\n{listed}", names.len());
    // One after the other, so that the harness counts the tests on each.
    let [consul, dev] = [("consul", on_consul as OnAgent), ("dev", on_dev_agent)].map(|(agent, run)| {
        let trial = |name: &&str| {
            let (program, go_test) = (Arc::clone(&program), (*name).to_owned());
            let test = move || run(&program, &go_test).map_err(|error| Failed::from(format!("{error:#}")));
            Trial::test(format!("{agent}::{name}"), test)
        };
        libtest_mimic::run(&arguments, names.iter().map(trial).collect())
    });
    Ok(if consul.has_failed() { consul.exit_code() } else { dev.exit_code() })
}

/// Runs one Go test of the program on an agent of its own.
///
/// # Errors
///
/// The test did not pass; the error has its output.
type OnAgent = fn(&Path, &str) -> Result<()>;

fn on_consul(program: &Path, name: &str) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    go_test(program, name, agent.http())
}

fn on_dev_agent(program: &Path, name: &str) -> Result<()> {
    let agent = block_on(DevAgent::start((Ipv4Addr::LOCALHOST, 0).into()))?;
    go_test(program, name, agent.addr())
}

fn go_test(program: &Path, name: &str, agent: SocketAddr) -> Result<()> {
    let mut test = command(program);
    test.args(["-test.v", "-test.timeout=2m", "-test.run", &format!("^{name}$")]);
    let output = run(test.env("CONSUL_HTTP_ADDR", agent.to_string()))?;
    // A skipped test succeeds too.
    let passed = output.stdout.lines().any(|line| line.starts_with(&format!("--- PASS: {name} (")));
    ensure!(output.status == 0 && passed, "at {agent}: {}{}", output.stdout, output.stderr);
    Ok(())
}
