//! The Ansible collection: the program as a module, in the form that `ansible-galaxy` installs.
//!
//! `ansible-galaxy collection build` would write the time of the build into the archive, so it is
//! written here: `MANIFEST.json` describes the collection and has the digest of `FILES.json`, which
//! has those of the files.

use super::archive::{self, Entry};
use super::licences;
use crate::tools::root;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// Namespace and name: `consul_session.consul`.
const COLLECTION: (&str, &str) = ("consul_session", "consul");
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// The version of the format of both JSON files.
const FORMAT: u32 = 1;

/// Writes the collection with the program as its module into the folder.
pub fn write(folder: &Path, version: &str, program: &Path) -> Result<()> {
    let (namespace, name) = COLLECTION;
    let entries = entries(version, program)?;
    archive::write(&folder.join(format!("{namespace}-{name}-{version}.tar.gz")), &entries)
}

/// Returns the files, their folders and the two files that describe them.
fn entries(version: &str, program: &Path) -> Result<Vec<Entry>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let ours = root().join("crates/cli/ansible");
    let mut entries = vec![
        Entry::program("plugins/modules/consul_session", read(program)?),
        Entry::file("plugins/modules/consul_session.yml", read(&ours.join("consul_session.yml"))?),
        Entry::file("meta/runtime.yml", read(&ours.join("collection/meta/runtime.yml"))?),
        Entry::file("README.md", read(&ours.join("collection/README.md"))?),
        Entry::file("LICENSES-THIRD-PARTY.txt", licences::text()?),
    ];
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        entries.push(Entry::file(licence, read(&root().join(licence))?));
    }
    // ansible-galaxy requires each folder, in the archive and in FILES.json.
    let folders =
        |entry: &Entry| entry.path.match_indices('/').map(|(end, _)| entry.path[..=end].to_owned()).collect::<Vec<_>>();
    let folders: BTreeSet<String> = entries.iter().flat_map(folders).collect();
    entries.extend(folders.into_iter().map(Entry::folder));
    entries.sort_by(|one, other| one.path.cmp(&other.path));

    let folder =
        |name: &str| json!({"name": name, "ftype": "dir", "chksum_type": null, "chksum_sha256": null, "format": FORMAT});
    let mut files = vec![folder(".")];
    files.extend(entries.iter().map(|entry| match entry.path.strip_suffix('/') {
        Some(name) => folder(name),
        None => file(&entry.path, &entry.bytes),
    }));
    let files = serde_json::to_vec_pretty(&json!({"files": files, "format": FORMAT}))?;
    let manifest = json!({
        "collection_info": info(version),
        "file_manifest_file": file("FILES.json", &files),
        "format": FORMAT,
    });
    entries.push(Entry::file("MANIFEST.json", serde_json::to_vec_pretty(&manifest)?));
    entries.push(Entry::file("FILES.json", files));
    Ok(entries)
}

/// Describes a file with its digest.
fn file(name: &str, bytes: &[u8]) -> Value {
    let digest = format!("{:x}", Sha256::digest(bytes));
    json!({"name": name, "ftype": "file", "chksum_type": "sha256", "chksum_sha256": digest, "format": FORMAT})
}

/// Describes the collection, with the keys of `galaxy.yml`.
fn info(version: &str) -> Value {
    let (namespace, name) = COLLECTION;
    json!({
        "namespace": namespace,
        "name": name,
        "version": version,
        "authors": ["the consul-session authors"],
        "readme": "README.md",
        "tags": ["consul", "session", "infrastructure"],
        "description": "Consul sessions, by a module that is one binary file",
        "license": ["MIT", "Apache-2.0"],
        "license_file": null,
        "dependencies": {},
        "repository": REPOSITORY,
        "documentation": format!("{REPOSITORY}/blob/main/docs/ansible.md"),
        "homepage": REPOSITORY,
        "issues": format!("{REPOSITORY}/issues"),
    })
}
