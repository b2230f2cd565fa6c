//! `cargo xtask publish`: pushes a release to an OCI registry, by the program in `crates/publish`.

use crate::tools::root;
use anyhow::Result;
use std::process::Command;

/// Runs the program with these arguments, which it explains with `--help`.
pub fn run(args: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    // From the current folder, to which the paths in the arguments are relative.
    cargo.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(root().join("Cargo.toml"));
    cargo.args(["--package", "consul-session-publish", "--"]).args(args);
    if !args.iter().any(|arg| *arg == "--from" || arg.starts_with("--from=")) {
        cargo.arg("--from").arg(root().join("dist").join("release"));
    }
    let status = cargo.status()?;
    if !status.success() {
        // The program has said why.
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}
