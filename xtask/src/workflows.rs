//! The workflows in `.github/`.

use crate::tools::{go_tool, root};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks the workflows with actionlint, and that they and our own actions name those of others by
/// the commit: a tag can be moved.
pub fn check() -> Result<()> {
    let actionlint = go_tool("actionlint")?;
    let github = root().join(".github");
    let workflows = files(&github.join("workflows"))?;
    for workflow in &workflows {
        lint(&actionlint, workflow)?;
    }
    let actions = files(&github.join("actions"))?.into_iter().map(|action| action.join("action.yml"));
    for file in workflows.into_iter().chain(actions) {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for line in text.lines() {
            ensure!(is_pinned(line), "{}: no commit and version: `{}`", file.display(), line.trim());
        }
    }
    Ok(())
}

/// Returns what is in the folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    ensure!(!files.is_empty(), "no files in {}", folder.display());
    Ok(files)
}

fn lint(actionlint: &Path, file: &Path) -> Result<()> {
    // Without the programs that it would call where they are installed: it is the same everywhere.
    let output =
        Command::new(actionlint).args(["-no-color", "-shellcheck=", "-pyflakes="]).arg(file).current_dir(root()).output();
    let output = output.context("actionlint cannot be run")?;
    if !output.status.success() {
        bail!("actionlint: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Returns whether a line names no action, one of this repository, or one by a commit with its
/// version: `uses: OWNER/NAME@COMMIT # vVERSION`.
fn is_pinned(line: &str) -> bool {
    let Some(action) = line.trim_start().trim_start_matches("- ").strip_prefix("uses: ") else { return true };
    if action.starts_with("./") {
        return true;
    }
    let Some((_, pin)) = action.split_once('@') else { return false };
    pin.split_once(" # v").is_some_and(|(commit, version)| {
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_commit && version.starts_with(|first: char| first.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn lint_of(workflow: &str) -> Result<()> {
        let folder = TempDir::new()?;
        let file = folder.path().join("ci.yml");
        std::fs::write(&file, workflow)?;
        lint(&go_tool("actionlint")?, &file)
    }

    #[test]
    fn broken_workflow_fails() -> Result<()> {
        let workflow = "on: push\njobs:\n  test:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo \"${{ github.event.head_commit.message }}\"\n";
        let error = lint_of(workflow).expect_err("a script injection").to_string();
        assert!(error.contains("\"github.event.head_commit.message\" is potentially untrusted"), "{error}");
        let error = lint_of(&workflow.replace("runs-on", "runs_on")).expect_err("a mistake").to_string();
        assert!(error.contains("unexpected key \"runs_on\""), "{error}");
        lint_of(&workflow.replace("${{ github.event.head_commit.message }}", "$GITHUB_SHA"))
    }

    #[test]
    fn actions_without_a_commit_are_found() {
        let commit = "3d3c42e5aac5ba805825da76410c181273ba90b1";
        for pinned in ["steps:", "- run: cargo xtask test", &format!("      - uses: actions/checkout@{commit} # v7.0.1")] {
            assert!(is_pinned(pinned), "{pinned}");
        }
        assert!(is_pinned("- uses: ./.github/actions/setup"));
        for other in ["- uses: actions/checkout@v7", "uses: actions/checkout", &format!("- uses: actions/checkout@{commit}")] {
            assert!(!is_pinned(other), "{other}");
        }
    }
}
