//! The tasks of this repository: `cargo xtask help` lists them.

mod bench;
mod build;
mod compose;
mod deny;
mod dist;
mod fuzz;
mod install;
mod mutants;
mod publish;
mod soak;
mod test;
mod tools;
mod torture;
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
cargo xtask bench [--quick] [--against PLUGIN] [--runs N]
                             measures the plugin; --quick: one minute, no Consul;
                             --against: beside another plugin's file; --runs: N
                             times, with the range of each target's figure
cargo xtask bench --document
                             writes tables and graph of docs/performance.md
cargo xtask compose          composes the plugin and the example of a guest
cargo xtask deny             checks licences and sources of the Rust packages,
                             and advisories if ADVISORY_DB names a clone of
                             RustSec's database
cargo xtask dist [--to FOLDER] [--debug] [--sign KEYFILE]
                             makes the files of a release
cargo xtask distributed      tests the plugin over NATS (a quarter of an hour)
cargo xtask mutants [--shard K/N] [AREA]
                             changes the code of the core, policy, transport or
                             component, and reports what no test notices (hours)
cargo xtask fuzz [--minutes N] [--target NAME]
                             runs the fuzz targets, and saves inputs (nightly)
cargo xtask publish --to REGISTRY [--insecure] [--from FOLDER]
                             pushes what `dist` made to an OCI registry
cargo xtask soak [--calls N] [--fresh N] [--hours H]
                             looks for leaks: 10^7 calls of one instance, 10^6
                             with fresh ones, 2 hours of `watch` and `lock`; or
                             the parts that are given
cargo xtask torture [--minutes N] [--seed S] [--plugin FILE] [--keep FOLDER]
                             real servers with faults, and a checker of every
                             answer; as root, for network namespaces
cargo xtask wasmtime-c       fetches wasmtime's C library with its headers";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["build"] => build::run().map(|_| ()),
        // For the test that two builds have the same bytes.
        ["build", folder] => build::run_to(Path::new(folder)).map(|_| ()),
        ["bench", rest @ ..] => bench::run(rest),
        ["compose"] => compose::run(&build::run()?),
        ["demo"] => demo(),
        ["install"] => install::run(None, false),
        ["install", "--debug"] => install::run(None, true),
        ["install", "--root", folder] => install::run(Some(folder), false),
        ["install", "--root", folder, "--debug"] => install::run(Some(folder), true),
        ["deny"] => deny::run(&tools::python()?),
        ["dist", rest @ ..] => dist::run(rest),
        ["distributed"] => test::distributed(),
        ["mutants"] => mutants::run(None, None),
        ["mutants", "--shard", shard] => mutants::run(Some(shard), None),
        ["mutants", "--shard", shard, area] => mutants::run(Some(shard), Some(area)),
        ["mutants", area] => mutants::run(None, Some(area)),
        // Runs the tests of a mutant of the component.
        ["with-plugin", program @ ..] => mutants::with_plugin(program),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["publish", rest @ ..] => publish::run(rest),
        ["soak", rest @ ..] => soak::run(rest),
        ["torture", rest @ ..] => torture::run(rest),
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
