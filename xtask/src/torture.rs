//! `cargo xtask torture`: real servers with faults, clients of all kinds, and a checker that decides
//! whether every answer can be true.

use crate::build;
use crate::tools::{EMBEDDED, cargo, consul, root, run_command, step};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds what the run needs, and runs it. `--plugin FILE` names another component than that of this
/// checkout; the other arguments go to the run.
pub fn run(args: &[&str]) -> Result<()> {
    let (plugin, args) = plugin(args)?;
    let built = step("the component", build::run)?;
    let plugin = plugin.unwrap_or(built);
    let consul = step("a real Consul agent", consul)?;
    // As the tests build it: the servers take more of the time than the clients.
    step("the clients", || {
        let packages = ["build", "-p", "consul-session-torture", "-p", "consul-session-cli"];
        cargo(&[&packages[..], &EMBEDDED].concat(), &[])
    })?;
    let mut torture = Command::new(root().join("target/debug/consul-session-torture"));
    torture.args(args).env("CONSUL_SESSION_PLUGIN", plugin).env("CONSUL_BIN", consul);
    step("the run", || run_command(&mut torture))
}

/// Splits `--plugin FILE` from the arguments.
fn plugin<'a>(args: &[&'a str]) -> Result<(Option<PathBuf>, Vec<&'a str>)> {
    let Some(at) = args.iter().position(|arg| *arg == "--plugin") else { return Ok((None, args.to_vec())) };
    let file = args.get(at + 1).context("`--plugin` needs a file")?;
    let file = Path::new(file).canonicalize().with_context(|| format!("no plugin at {file}"))?;
    Ok((Some(file), [&args[..at], &args[at + 2..]].concat()))
}
