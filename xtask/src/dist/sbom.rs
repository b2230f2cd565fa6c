//! The software bills of materials.

use super::{archive, licences};
use crate::tools::run_command;
use anyhow::Result;
use std::path::Path;

/// Writes an SBOM for the program and for each component in the folder.
pub fn write(folder: &Path, version: &str, program: &Path) -> Result<()> {
    let mut inventory = licences::inventory();
    inventory.arg("sboms").arg(std::path::absolute(folder)?).arg(version).arg(std::path::absolute(program)?);
    run_command(inventory.env("SOURCE_DATE_EPOCH", archive::source_date()?.to_string()))
}
