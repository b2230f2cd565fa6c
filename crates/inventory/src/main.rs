//! Writes what `cargo xtask dist` publishes about what is linked in.

use anyhow::{Context, Result, bail};
use consul_session_inventory::{ARTIFACTS, Artifact, Licences, PROGRAM, Workspace, file_name, sbom};
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const USAGE: &str = "\
consul-session-inventory licences
    prints the licences of all that is linked in
consul-session-inventory sboms FOLDER VERSION PROGRAM
    writes the SBOMs of PROGRAM and of the components in FOLDER into FOLDER, with the time that
    SOURCE_DATE_EPOCH gives in seconds";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["licences"] => {
            let workspace = workspace()?;
            print!("{}", Licences::read(workspace.root())?.text(&workspace, &ARTIFACTS)?);
            Ok(())
        }
        ["sboms", folder, version, program] => write_sboms(Path::new(folder), version, Path::new(program)),
        other => bail!("unknown arguments `{}`:\n{USAGE}", other.join(" ")),
    }
}

fn write_sboms(folder: &Path, version: &str, program: &Path) -> Result<()> {
    let time = std::env::var("SOURCE_DATE_EPOCH").context("SOURCE_DATE_EPOCH is not set")?;
    let time = OffsetDateTime::from_unix_timestamp(time.parse()?)?.format(&Rfc3339)?;
    let read = |artifact: &Artifact| {
        let path = if *artifact == PROGRAM { program.to_owned() } else { folder.join(artifact.file) };
        std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let workspace = workspace()?;
    for artifact in ARTIFACTS {
        let json = sbom(&workspace, artifact, read, &time)?;
        std::fs::write(folder.join(file_name(artifact, version)), json)?;
    }
    Ok(())
}

/// Returns the workspace that this package belongs to.
fn workspace() -> Result<Workspace> {
    Workspace::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}
