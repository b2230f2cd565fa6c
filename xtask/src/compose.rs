//! `cargo xtask compose`: composes the plugin and a guest that imports its interfaces.

use crate::build;
use crate::tools::root;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// Writes `dist/leader-election-guest.wasm`, the guest alone, and `dist/leader-election.wasm`, the
/// composition.
pub fn run(plugin: &Path) -> Result<()> {
    let dist = root().join("dist");
    let (guest, composed) = (dist.join("leader-election-guest.wasm"), dist.join("leader-election.wasm"));
    build::write(&guest, &build::component("leader-election")?)?;
    let status = Command::new("cargo")
        .current_dir(root())
        .args(["run", "--quiet", "--locked", "--package", "leader-election", "--bin", "compose", "--"])
        .args([plugin, &guest, &composed])
        .status()?;
    if !status.success() {
        bail!("the plugin cannot be plugged into the guest");
    }
    Ok(())
}
