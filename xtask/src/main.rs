//! Builds the components and what the tests need: `cargo xtask build`, `cargo xtask test`, `cargo xtask bench`.

mod bench;
mod build;
mod compose;
mod test;

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "\
cargo xtask build             makes dist/consul-session-plugin.wasm and dist/consul-session.wasm
cargo xtask bench [--quick]   builds it and measures it beside everything else; --quick: in a minute, without Consul and Ansible
cargo xtask demo              builds it and shows the examples of consul_session's page on an embedded dev agent
cargo xtask compose           builds it and plugs it into the example of a guest: dist/leader-election.wasm
cargo xtask distributed       builds wRPC and a NATS server, and tests the plugin served over NATS (a quarter of an hour)
cargo xtask test [ARGS]       builds what is missing and runs all checks and tests; ARGS go to cargo test";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["build"] => build::run().map(|_| ()),
        // For the test that two builds give the same bytes.
        ["build", folder] => build::run_to(Path::new(folder)).map(|_| ()),
        ["bench"] => bench::run(false),
        ["bench", "--quick"] => bench::run(true),
        ["compose"] => compose::run(&build::run()?),
        ["demo"] => demo(),
        ["distributed"] => test::distributed(),
        ["test", ..] => test::run(&args[1..]),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown task `{}`; known are:\n{USAGE}", other.join(" ")),
    }
}

/// Shows the main job, where nothing is installed.
fn demo() -> Result<()> {
    build::run()?;
    let status = Command::new("cargo")
        .current_dir(root())
        .args(["run", "--locked", "--package", "consul-session-cli", "--", "--dev", "demo"])
        .status()?;
    if !status.success() {
        bail!("the demo failed");
    }
    Ok(())
}

/// The workspace's folder.
fn root() -> PathBuf {
    // Cargo runs the task with this package's folder, one below, in the environment.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}
