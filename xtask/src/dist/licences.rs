//! The licences of what is linked into a release.

use crate::tools::root;
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Returns the texts of the licences of everything that is linked into the program and the components.
pub fn text() -> Result<String> {
    // Several packages hold it.
    static TEXT: Mutex<Option<String>> = Mutex::new(None);
    let mut text = TEXT.lock().ok().context("the licences were not collected")?;
    if let Some(text) = &*text {
        return Ok(text.clone());
    }
    let output = inventory().arg("licences").stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the licences cannot be collected");
    Ok(text.insert(String::from_utf8(output.stdout)?).clone())
}

/// Returns the program of `crates/inventory`, which has more dependencies than xtask should.
pub(super) fn inventory() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--locked", "--package", "consul-session-inventory", "--"]).current_dir(root());
    cargo
}
