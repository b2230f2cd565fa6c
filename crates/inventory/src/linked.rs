//! The packages that are linked into an artifact.

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Metadata, MetadataCommand};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of a release that Rust code is linked into, and how cargo builds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name, which differs from those of the others.
    pub name: &'static str,
    /// The name of the file.
    pub file: &'static str,
    package: &'static str,
    features: Option<&'static str>,
    /// The target, or none for that of this machine.
    target: Option<&'static str>,
    /// An artifact that is part of this one.
    pub contains: Option<&'static Artifact>,
}

const WASM: &str = "wasm32-unknown-unknown";

/// The plugin, a component.
pub const PLUGIN: Artifact = Artifact {
    name: "consul-session-plugin",
    file: "consul-session-plugin.wasm",
    package: "consul-session",
    features: None,
    target: Some(WASM),
    contains: None,
};

/// The command component.
pub const COMMAND: Artifact = Artifact {
    name: "consul-session-command",
    file: "consul-session.wasm",
    package: "consul-session-command",
    features: None,
    target: Some(WASM),
    contains: None,
};

/// The program with the plugin inside.
pub const PROGRAM: Artifact = Artifact {
    name: "consul-session",
    file: "consul-session",
    package: "consul-session-cli",
    features: Some("embedded"),
    target: None,
    contains: Some(&PLUGIN),
};

/// The artifacts of a release.
pub const ARTIFACTS: [&Artifact; 3] = [&PROGRAM, &PLUGIN, &COMMAND];

/// Name and version, which are unique among the packages of `Cargo.lock`.
pub type Id = (String, String);

/// A package of `Cargo.lock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its description in a line.
    pub description: Option<String>,
    /// An SPDX expression.
    pub licence: String,
    /// The address of the source.
    pub repository: Option<String>,
    /// The folder of `Cargo.toml`.
    pub folder: PathBuf,
    /// SHA-256 of the crate's file in the registry; none for a package of this repository.
    pub sha256: Option<String>,
}

impl Package {
    /// Returns whether it is a package of this repository.
    pub fn is_ours(&self) -> bool {
        self.sha256.is_none()
    }
}

/// The packages that are linked into an artifact, and which of them uses which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// The package that is built.
    pub root: Id,
    /// All packages with that one.
    pub packages: BTreeMap<Id, Package>,
    /// The direct dependencies of each package.
    pub dependencies: BTreeMap<Id, BTreeSet<Id>>,
}

/// The workspace: its manifest, its lock file and the sources of its dependencies.
pub struct Workspace {
    packages: BTreeMap<Id, Package>,
    root: PathBuf,
    rust: Rust,
}

/// The Rust toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rust {
    /// The version, such as `1.95.0`.
    pub version: String,
    host: String,
}

impl Workspace {
    /// Reads the workspace in this folder.
    pub fn read(root: &Path) -> Result<Workspace> {
        let rust = Rust::installed()?;
        // Without the filters cargo would need the sources for every platform.
        let filters = [&rust.host, WASM].map(|target| format!("--filter-platform={target}"));
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .other_options(["--locked".to_owned()].into_iter().chain(filters).collect::<Vec<_>>())
            .exec()?;
        let lock = std::fs::read_to_string(root.join("Cargo.lock"))?;
        Ok(Workspace { packages: packages(metadata, &lock)?, root: root.to_owned(), rust })
    }

    /// Returns the folder of the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the toolchain, whose standard library is linked into every artifact.
    pub fn rust(&self) -> &Rust {
        &self.rust
    }

    /// Returns what is linked into the artifact.
    pub fn linked(&self, artifact: &Artifact) -> Result<Linked> {
        let mut cargo = Command::new("cargo");
        cargo.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", " {p}"]);
        cargo.args(["--package", artifact.package, "--target", artifact.target.unwrap_or(&self.rust.host)]);
        if let Some(features) = artifact.features {
            cargo.args(["--features", features]);
        }
        let tree = tree(&output(cargo.current_dir(&self.root))?)?;
        let mut linked = Linked { root: tree.root, dependencies: tree.dependencies, packages: BTreeMap::new() };
        for id in linked.dependencies.keys() {
            let (name, version) = id;
            let package = self.packages.get(id).with_context(|| format!("cargo metadata does not list {name} {version}"))?;
            linked.packages.insert(id.clone(), package.clone());
        }
        Ok(linked)
    }
}

impl Rust {
    fn installed() -> Result<Rust> {
        let text = output(Command::new("rustc").args(["--version", "--verbose"]))?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("rustc --version does not print its {name}"))
        };
        Ok(Rust { version: field("release")?, host: field("host")? })
    }

    /// Returns the notices of the standard library, which the toolchain has as HTML.
    pub fn notices(&self) -> Result<String> {
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let file = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT-library.html");
        std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))
    }
}

fn packages(metadata: Metadata, lock: &str) -> Result<BTreeMap<Id, Package>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }

    let lock: Lock = toml::from_str(lock).context("Cargo.lock")?;
    let mut digests = BTreeMap::new();
    for Locked { name, version, checksum } in lock.package {
        ensure!(
            digests.insert((name.clone(), version.clone()), checksum).is_none(),
            "{name} {version} is in Cargo.lock from two sources"
        );
    }
    let mut packages = BTreeMap::new();
    for package in metadata.packages {
        let id = (package.name.to_string(), package.version.to_string());
        let (name, version) = id.clone();
        let sha256 = digests.get(&id).with_context(|| format!("Cargo.lock does not list {name} {version}"))?.clone();
        ensure!(
            sha256.is_some() == package.source.is_some(),
            "{name} {version} has no digest in Cargo.lock: only crates.io's packages have one"
        );
        let licence = package.license.with_context(|| format!("{name} {version} does not name its licence"))?;
        let folder = package.manifest_path.parent().context("a manifest without a folder")?.into();
        let (description, repository) = (package.description, package.repository);
        packages.insert(id, Package { name, version, description, licence, repository, folder, sha256 });
    }
    Ok(packages)
}

#[derive(Debug, PartialEq, Eq)]
struct Tree {
    root: Id,
    dependencies: BTreeMap<Id, BTreeSet<Id>>,
}

/// Parses what `cargo tree` prints: a line `DEPTH NAME vVERSION` for each package, and ` (*)` behind
/// one whose dependencies stand further up.
fn tree(printed: &str) -> Result<Tree> {
    let mut path: Vec<Id> = Vec::new();
    let mut dependencies: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    for line in printed.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let (Some(depth), Some(name), Some(version)) = (words.next(), words.next(), words.next()) else {
            bail!("unexpected line of cargo tree: `{line}`");
        };
        let depth: usize = depth.parse().with_context(|| format!("unexpected line of cargo tree: `{line}`"))?;
        ensure!(depth <= path.len() && (depth > 0 || path.is_empty()), "unexpected depth of cargo tree: `{line}`");
        let id = (name.to_owned(), version.trim_start_matches('v').to_owned());
        path.truncate(depth);
        dependencies.entry(id.clone()).or_default();
        if let Some(parent) = path.last() {
            dependencies.entry(parent.clone()).or_default().insert(id.clone());
        }
        path.push(id);
    }
    Ok(Tree { root: path.first().context("cargo tree prints nothing")?.clone(), dependencies })
}

/// Runs a command and returns what it prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (name.to_owned(), "1.0.0".to_owned())
    }

    #[test]
    fn tree_with_a_package_twice_has_its_dependencies_once() -> Result<()> {
        let printed = "0 a v1.0.0 (/folder/of a)\n1 b v1.0.0\n2 c v1.0.0\n1 d v1.0.0\n2 b v1.0.0 (*)\n";
        let tree = tree(printed)?;
        assert_eq!(tree.root, id("a"));
        let expected = [("a", vec!["b", "d"]), ("b", vec!["c"]), ("c", vec![]), ("d", vec!["b"])];
        let expected = expected.map(|(name, uses)| (id(name), uses.into_iter().map(id).collect()));
        assert_eq!(tree.dependencies, BTreeMap::from(expected));
        Ok(())
    }

    #[test]
    fn unexpected_trees_are_refused() {
        for printed in ["", "a v1.0.0", "0 a v1.0.0\n2 b v1.0.0", "0 a v1.0.0\n0 b v1.0.0"] {
            assert!(tree(printed).is_err(), "{printed:?}");
        }
    }
}
