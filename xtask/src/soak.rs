//! `cargo xtask soak`: builds the program and the benchmark, whose server and clients it shares, and
//! runs very many calls, and hours of `watch` and `lock`.

use crate::build;
use crate::tools::{EMBEDDED, cargo, consul, root, run_command, step};
use anyhow::Result;
use std::fs;
use std::process::Command;

/// Runs the parts that the arguments name.
pub fn run(args: &[&str]) -> Result<()> {
    let plugin = step("the component", build::run)?;
    let consul = step("a real Consul agent", consul)?;
    step("the program and its clients, as for production", || {
        let packages = ["build", "--release", "-p", "consul-session-bench", "-p", "consul-session-cli"];
        cargo(&[&packages[..], &EMBEDDED].concat(), &[])
    })?;
    // Copies, so that another build does not change them during the hours.
    let folder = root().join("target/soak/bin");
    fs::create_dir_all(&folder)?;
    for program in ["consul-session", "consul-session-bench"] {
        // A program that still runs cannot be written to.
        let (from, to) = (root().join("target/release").join(program), folder.join(program));
        fs::copy(&from, folder.join("new")).and_then(|_| fs::rename(folder.join("new"), to))?;
    }
    let mut soak = Command::new(folder.join("consul-session-bench"));
    soak.arg("soak").args(args).env("CONSUL_SESSION_PLUGIN", plugin).env("CONSUL_BIN", consul);
    step("the soak", || run_command(&mut soak))
}
