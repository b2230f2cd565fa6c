//! The examples for Python, Node and the browser, run as they are in their files. The one in Rust
//! is in `crates/host/examples`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Command;
use test_support::consul::{Consul, Kind};
use test_support::tools::{self, Transpiled, root};

#[test]
fn python_example_creates_the_session_once() -> Result<()> {
    let mut python = Command::new(tools::python()?);
    python.arg("examples/python/main.py");
    creates_the_session_once(python)
}

#[test]
fn node_example_creates_the_session_once() -> Result<()> {
    // The example imports the transpiled plugin from its own folder.
    let main = tools::transpiled(Transpiled::Node)?.join("main.mjs");
    std::fs::copy(root().join("examples/node/main.mjs"), &main)?;
    let mut node = Command::new("node");
    node.arg(main);
    creates_the_session_once(node)
}

#[test]
fn browser_example_creates_the_session_once() -> Result<()> {
    tools::chromium()?;
    let mut node = Command::new("node");
    node.arg("tests/conformance/runners/browser/example.mjs").arg(tools::transpiled(Transpiled::Browser)?);
    creates_the_session_once(node)
}

/// Runs an example twice: the first run creates the session, the second finds it.
fn creates_the_session_once(mut example: Command) -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    example.arg(consul.http().port().to_string()).current_dir(root());
    let mut run = || -> Result<String> {
        let output = example.output().with_context(|| format!("{example:?}"))?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        // The web page shows the answer itself, as JSON.
        let Ok(answer) = serde_json::from_str::<Value>(&text) else { return Ok(text) };
        let changed = if answer["changed"] == true { "changed" } else { "unchanged" };
        Ok(format!("{} {changed}\n", answer["session_id"].as_str().with_context(|| text.clone())?))
    };
    let (first, second) = (run()?, run()?);
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["Name"] == "session1", "{sessions:?}");
    let id = sessions[0]["ID"].as_str().context("a session without an id")?;
    ensure!(first == format!("{id} changed\n") && second == format!("{id} unchanged\n"), "{first}{second}");
    Ok(())
}
