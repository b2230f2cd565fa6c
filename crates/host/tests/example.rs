//! The example `apply`: run against a real Consul agent, and quoted in `docs/embedding.md`.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use test_support::program::{Output, creates_session1_once, run};
use test_support::tools::root;

#[test]
fn example_creates_the_session_once() -> Result<()> {
    let example = example()?;
    creates_session1_once(|port| {
        let Output { stdout, stderr, status } = run(Command::new(&example).arg(port.to_string()).current_dir(root()))?;
        ensure!(status == 0, "status {status}: {stderr}");
        Ok(stdout)
    })
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
