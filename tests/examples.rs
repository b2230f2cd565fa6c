//! The examples for Python, Node and the browser, run as they are in their files. The one in Rust
//! is in `crates/host/examples`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use test_support::program::{Output, creates_session1_once, run};
use test_support::tools::{self, Transpiled, root};

#[test]
fn python_example_creates_the_session_once() -> Result<()> {
    creates_the_session_once(tools::python()?, &["examples/python/main.py".as_ref()])
}

#[test]
fn node_example_creates_the_session_once() -> Result<()> {
    // The example imports the transpiled plugin from its own folder.
    let main = tools::transpiled(Transpiled::Node)?.join("main.mjs");
    std::fs::copy(root().join("examples/node/main.mjs"), &main)?;
    creates_the_session_once("node", &[&main])
}

#[test]
fn browser_example_creates_the_session_once() -> Result<()> {
    tools::chromium()?;
    let folder = tools::transpiled(Transpiled::Browser)?;
    creates_the_session_once("node", &["tests/conformance/runners/browser/example.mjs".as_ref(), &folder])
}

/// Runs an example, whose last argument is the agent's port.
fn creates_the_session_once(program: impl AsRef<Path>, arguments: &[&Path]) -> Result<()> {
    creates_session1_once(|port| {
        let mut example = Command::new(program.as_ref());
        let Output { stdout, stderr, status } = run(example.args(arguments).arg(port.to_string()).current_dir(root()))?;
        ensure!(status == 0, "status {status}: {stderr}");
        // The web page shows the answer itself, as JSON.
        let Ok(answer) = serde_json::from_str::<Value>(&stdout) else { return Ok(stdout) };
        let changed = if answer["changed"] == true { "changed" } else { "unchanged" };
        Ok(format!("{} {changed}\n", answer["session_id"].as_str().context(stdout)?))
    })
}
