//! The example `apply`: run against a real Consul agent, and quoted in `docs/embedding.md`.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use test_support::consul::{Consul, Kind};
use test_support::tools::root;

#[test]
fn example_creates_the_session_once() -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    let mut command = Command::new(example()?);
    command.arg(consul.http().port().to_string()).current_dir(root());
    let mut run = || -> Result<String> {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let (first, second) = (run()?, run()?);
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["Name"] == "session1", "{sessions:?}");
    let id = sessions[0]["ID"].as_str().context("a session without an id")?;
    ensure!(first == format!("{id} changed\n") && second == format!("{id} unchanged\n"), "{first}{second}");
    Ok(())
}

#[test]
fn embedding_guide_quotes_the_example() -> Result<()> {
    let guide = std::fs::read_to_string(root().join("docs").join("embedding.md"))?;
    let example = include_str!("../examples/apply.rs");
    ensure!(guide.contains(&format!("```rust\n{example}```\n")), "docs/embedding.md does not quote examples/apply.rs");
    Ok(())
}

/// Returns the program of the example. Cargo puts it into `examples/`, and this test into `deps/`,
/// of the same folder.
fn example() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent()).context("this test is outside of a target folder")?;
    let example = profile.join("examples").join("apply").with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(example.is_file(), "no {}: run `cargo build -p consul-session-host --example apply`", example.display());
    Ok(example)
}
