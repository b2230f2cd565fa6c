//! The tasks of this repository: `cargo xtask help` lists them.

mod bench;
mod build;
mod compose;
mod deny;
mod dist;
mod install;
mod publish;
mod test;
mod tools;
mod wasmtime_c;
mod workflows;

use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;
use tools::root;

const USAGE: &str = "\
cargo xtask build            builds both components in dist/
cargo xtask demo             runs the examples of consul_session on a dev agent
cargo xtask install [--root FOLDER] [--debug]
                             installs the program, its manual and completions
cargo xtask test [ARGS]      runs all checks and tests; ARGS go to cargo test
cargo xtask test --consul 1.20 [ARGS]
                             the same on the older Consul alone
cargo xtask bench [--quick]  measures the plugin; --quick: one minute, no Consul
cargo xtask compose          composes the plugin and the example of a guest
cargo xtask deny             checks licences and sources of the Rust packages,
                             and advisories if ADVISORY_DB names a clone of
                             RustSec's database
cargo xtask dist [--to FOLDER] [--debug] [--sign KEYFILE]
                             makes the files of a release
cargo xtask distributed      tests the plugin over NATS (a quarter of an hour)
cargo xtask publish --to REGISTRY [--insecure] [--from FOLDER]
                             pushes what `dist` made to an OCI registry
cargo xtask wasmtime-c       fetches wasmtime's C library with its headers";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["build"] => build::run().map(|_| ()),
        // For the test that two builds have the same bytes.
        ["build", folder] => build::run_to(Path::new(folder)).map(|_| ()),
        ["bench"] => bench::run(false),
        ["bench", "--quick"] => bench::run(true),
        ["compose"] => compose::run(&build::run()?),
        ["demo"] => demo(),
        ["install"] => install::run(None, false),
        ["install", "--debug"] => install::run(None, true),
        ["install", "--root", folder] => install::run(Some(folder), false),
        ["install", "--root", folder, "--debug"] => install::run(Some(folder), true),
        ["deny"] => deny::run(&tools::python()?),
        ["dist", rest @ ..] => dist::run(rest),
        ["distributed"] => test::distributed(),
        ["publish", rest @ ..] => publish::run(rest),
        ["wasmtime-c"] => wasmtime_c::run(),
        ["test", "--consul", version, rest @ ..] => test::run(Some(version), rest),
        ["test", rest @ ..] => test::run(None, rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown task `{}`; the tasks are:\n{USAGE}", other.join(" ")),
    }
}

/// Builds the plugin and runs the demo, which needs nothing installed.
fn demo() -> Result<()> {
    build::plugin_to(&root().join("dist"))?;
    let status = Command::new("cargo")
        .current_dir(root())
        .args(["run", "--locked", "--package", "consul-session-cli", "--", "demo", "--dev"])
        .status()?;
    if !status.success() {
        bail!("the demo failed");
    }
    Ok(())
}
