//! `REVISION`: the commit that the files come from, which `cargo xtask publish` tells the registry.

use crate::tools::{output, root};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// The name of the file: `<SHA-1>[-dirty] <time of the commit>`.
const REVISION: &str = "REVISION";

/// Writes the file, unless the source is not a Git checkout.
pub fn write(folder: &Path) -> Result<()> {
    match revision(&root())? {
        Some(revision) => Ok(std::fs::write(folder.join(REVISION), format!("{revision}\n"))?),
        None => Ok(()),
    }
}

/// Returns the commit of a checkout and its time. Uncommitted changes, and files that Git neither
/// tracks nor ignores, make it dirty: a build may use them.
fn revision(checkout: &Path) -> Result<Option<String>> {
    let git = |args: &[&str]| output(Command::new("git").current_dir(checkout).args(args).env("TZ", "UTC"));
    let show = ["show", "--no-patch", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%H %cd", "HEAD"];
    let Ok(commit) = git(&show) else { return Ok(None) };
    let commit = commit.trim();
    let dirty = !git(&["status", "--porcelain"])?.is_empty();
    Ok(Some(if dirty { commit.replacen(' ', "-dirty ", 1) } else { commit.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn revision_says_whether_files_are_uncommitted() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(&folder).args(["-c", "user.name=a", "-c", "user.email=a@example.com"]).args(args);
            output(git.env("GIT_COMMITTER_DATE", "2026-01-02T04:04:05+01:00").env("GIT_CONFIG_GLOBAL", "/dev/null"))
        };
        git(&["init", "--quiet"])?;
        assert_eq!(revision(folder.path())?, None);
        std::fs::write(folder.path().join("a"), "1")?;
        git(&["add", "a"])?;
        git(&["commit", "--quiet", "--message=one"])?;
        let commit = git(&["rev-parse", "HEAD"])?;
        let commit = commit.trim();
        assert_eq!(revision(folder.path())?, Some(format!("{commit} 2026-01-02T03:04:05Z")));
        let dirty = Some(format!("{commit}-dirty 2026-01-02T03:04:05Z"));
        std::fs::write(folder.path().join("a"), "2")?;
        assert_eq!(revision(folder.path())?, dirty);
        git(&["checkout", "--quiet", "a"])?;
        assert_eq!(revision(folder.path())?.context("no commit")?.matches("dirty").count(), 0);
        std::fs::write(folder.path().join("b"), "1")?;
        assert_eq!(revision(folder.path())?, dirty);
        Ok(())
    }
}
