//! `SHA256SUMS`, and its signature.

use crate::tools::run_command;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// The name of the file with the checksums.
pub const SUMS: &str = "SHA256SUMS";

/// Writes the checksums of all files of the folder, sorted by name, as `sha256sum -c` reads them.
pub fn write(folder: &Path) -> Result<()> {
    let mut sums = String::new();
    for name in super::file_names(folder)? {
        writeln!(sums, "{:x}  {name}", Sha256::digest(std::fs::read(folder.join(&name))?))?;
    }
    Ok(std::fs::write(folder.join(SUMS), sums)?)
}

/// Fails unless `minisign` can be run. It is checked before anything is built.
pub fn check_minisign() -> Result<()> {
    let version = Command::new("minisign").arg("-v").output();
    version.map(drop).context("`minisign` cannot be run (Debian: apt-get install minisign)")
}

/// Signs the checksums with this secret key. `minisign` asks for the key's password, if it has one.
pub fn sign(folder: &Path, key: &Path, version: &str) -> Result<()> {
    let mut minisign = Command::new("minisign");
    minisign.args(["-S", "-m"]).arg(folder.join(SUMS)).arg("-s").arg(key);
    // Both comments are the same for each run, as the signature is. The second one is signed too.
    minisign.arg("-c").arg("signature of SHA256SUMS").arg("-t").arg(format!("consul-session {version}"));
    run_command(&mut minisign)
}
