//! The folder of a release, as `cargo xtask dist` makes it.

use crate::artifact::{Artifact, Origin};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use wasm_metadata::{Metadata, Payload};

/// The plugin. Its metadata has the version of the release.
const PLUGIN: &str = "consul-session-plugin.wasm";
/// The command component.
const COMMAND: &str = "consul-session.wasm";
/// The commit that the files were built from and its time: `<SHA-1> <RFC 3339>`.
const REVISION: &str = "REVISION";
/// The SHA-256 of each file, as `sha256sum` prints it.
const SUMS: &str = "SHA256SUMS";

/// A folder whose files are those that its `SHA256SUMS` lists.
pub struct Release {
    folder: PathBuf,
    /// The SHA-256 of each file by its name.
    sums: HashMap<String, String>,
}

impl Release {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// `cargo xtask dist` did not make it.
    pub fn open(folder: &Path) -> Result<Release> {
        let file = folder.join(SUMS);
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read; `cargo xtask dist` makes the folder to publish", file.display()))?;
        let lines = text.lines().filter_map(|line| line.split_once("  "));
        let sums = lines.map(|(sum, name)| (name.to_owned(), sum.to_owned())).collect();
        Ok(Release { folder: folder.to_owned(), sums })
    }

    /// Returns what is pushed: plugin, command and WIT package.
    ///
    /// # Errors
    ///
    /// A file is missing or has changed, or was built from uncommitted changes.
    pub fn artifacts(&self) -> Result<Vec<Artifact>> {
        let (revision, created) = self.revision()?;
        let (plugin, command) = (self.read(PLUGIN)?, self.read(COMMAND)?);
        let plugin_origin = origin(&plugin, PLUGIN, &revision, &created)?;
        let command_origin = origin(&command, COMMAND, &revision, &created)?;
        let wit_file = format!("consul-session-plugin-{}.wit.wasm", plugin_origin.version);
        let wit = self.read(&wit_file)?;
        Ok(vec![
            Artifact::component("consul-session/plugin", PLUGIN, plugin, &plugin_origin)?,
            Artifact::component("consul-session/command", COMMAND, command, &command_origin)?,
            Artifact::wit_package("interfaces", &wit_file, wit, &plugin_origin)?,
        ])
    }

    /// Returns the commit and its time.
    fn revision(&self) -> Result<(String, String)> {
        let text = String::from_utf8(self.read(REVISION)?).context(REVISION)?;
        let (revision, created) = text.trim().split_once(' ').with_context(|| format!("{REVISION}: `{text}`"))?;
        if let Some(commit) = revision.strip_suffix("-dirty") {
            bail!("the files were built from changes after commit {commit}; commit them, and run `cargo xtask dist` again");
        }
        Ok((revision.to_owned(), created.to_owned()))
    }

    /// Returns a file with the bytes that `SHA256SUMS` lists.
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.folder.join(name);
        let bytes =
            std::fs::read(&file).with_context(|| format!("{} cannot be read; `cargo xtask dist` makes it", file.display()))?;
        let listed = self.sums.get(name).with_context(|| format!("{SUMS} does not list {name}"))?;
        let found = format!("{:x}", Sha256::digest(&bytes));
        ensure!(found == *listed, "{} is not the file that {SUMS} lists; run `cargo xtask dist` again", file.display());
        Ok(bytes)
    }
}

/// Returns the origin of a component, which its metadata says but for the commit.
fn origin(component: &[u8], file: &str, revision: &str, created: &str) -> Result<Origin> {
    let mut payload = Payload::from_binary(component).with_context(|| format!("{file} is not a component"))?;
    let Metadata { version, description, licenses, source, .. } = std::mem::take(payload.metadata_mut());
    let missing = |name: &str| format!("{file} has no {name} in its metadata");
    Ok(Origin {
        description: description.with_context(|| missing("description"))?.to_string(),
        licenses: licenses.with_context(|| missing("licence"))?.to_string(),
        source: source.with_context(|| missing("source"))?.to_string(),
        version: version.with_context(|| missing("version"))?.to_string(),
        revision: revision.to_owned(),
        created: created.to_owned(),
    })
}
