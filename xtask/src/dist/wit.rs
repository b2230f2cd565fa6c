//! The WIT package: as a file for tools, as text, and compared with the last release.

use anyhow::{Context, Result, anyhow, bail, ensure};
use semver::{BuildMetadata, Comparator, Op, Version};
use std::path::{Path, PathBuf};
use std::process::Command;
use wit_component::{DecodedWasm, WitPrinter};
use wit_parser::{PackageId, Resolve, UnresolvedPackageGroup};

/// The name of the WIT package's files, before `-VERSION.wit` and `-VERSION.wit.wasm`.
const NAME: &str = "consul-session-plugin";

/// Marks the version of a released package while it is compared: two packages of one name in a
/// `Resolve` need different versions.
const COMPARED: &str = "released";

/// The WIT package of the plugin, with what it needs of other packages.
pub struct Package {
    /// Its version.
    pub version: Version,
    /// The package as a component, which `wit-bindgen`, `wkg` and `wasm-tools` read.
    component: Vec<u8>,
    /// The same as text in one file.
    text: String,
    resolve: Resolve,
    id: PackageId,
}

/// The WIT of an earlier release, as the repository keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct Released {
    /// Its version.
    pub version: Version,
    file: PathBuf,
}

impl Package {
    /// Reads the package in this folder.
    pub fn read(folder: &Path) -> Result<Package> {
        let mut resolve = Resolve::default();
        let (id, _) = resolve.push_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        let version = resolve.packages[id].name.version.clone();
        let version = version.with_context(|| format!("the package in {} has no version", folder.display()))?;
        let component = wit_component::encode(&resolve, id)?;
        let text = text(&component)?;
        Ok(Package { version, component, text, resolve, id })
    }

    /// Writes the package into this folder, and returns the path of the text.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        std::fs::write(folder.join(format!("{NAME}-{}.wit.wasm", self.version)), &self.component)?;
        let text = folder.join(file_name(&self.version));
        std::fs::write(&text, &self.text)?;
        Ok(text)
    }

    /// Fails unless this package can take the place of the released one, or its version says that it
    /// cannot.
    pub fn check(&self, released: &Released) -> Result<()> {
        let Released { version, file } = released;
        if !is_compatible(version, &self.version) {
            return Ok(());
        }
        self.check_text(&std::fs::read_to_string(file)?).with_context(|| {
            let file = file.display();
            format!(
                "wit/ is {}, but not compatible with {version} ({file}): undo the change, or raise its version",
                self.version
            )
        })
    }

    /// Compares the worlds as types of components, by their structure.
    ///
    /// A function, a type or an interface more is compatible, and an import less. No other
    /// difference is: neither a field nor a case more, nor another name of a parameter. Versions and
    /// comments are not compared.
    fn check_text(&self, released: &str) -> Result<()> {
        let mut group = UnresolvedPackageGroup::parse("released.wit", released)
            .map_err(|(sources, error)| anyhow!("{}", error.render(&sources)))?;
        let version = group.main.name.version.as_mut().context("the released package has no version")?;
        version.build = BuildMetadata::new(COMPARED)?;
        let mut released = Resolve::default();
        let id = released.push_group(group)?;
        let worlds = released.packages[id].worlds.clone();
        let mut both = self.resolve.clone();
        let merged = both.merge(released).context("it uses other interfaces of WASI")?;
        for (name, released) in worlds {
            let released = merged.worlds[released.index()].context("a world is missing after the merge")?;
            let current = *self.resolve.packages[self.id].worlds.get(&name).with_context(|| format!("no world `{name}`"))?;
            // In this order: a component of the first world must fit where the second is expected.
            wit_component::semver_check(both.clone(), current, released)
                .map_err(|error| anyhow!("{}", error.root_cause().to_string().replace('\n', ": ")))
                .with_context(|| format!("world `{name}`"))?;
        }
        Ok(())
    }
}

impl Released {
    /// Returns the last release of those that the folder keeps, if there is one.
    ///
    /// # Errors
    ///
    /// It is newer than the version of `wit/`.
    pub fn last(folder: &Path, current: &Version) -> Result<Option<Released>> {
        let mut last: Option<Released> = None;
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let file = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = name.strip_suffix(".wit") else { continue };
            let version = name.strip_prefix(NAME).and_then(|rest| Version::parse(rest.strip_prefix('-')?).ok());
            let version = version.with_context(|| format!("{} is not {NAME}-VERSION.wit", file.display()))?;
            if last.as_ref().is_none_or(|last| last.version < version) {
                last = Some(Released { version, file });
            }
        }
        if let Some(Released { version, file }) = &last {
            ensure!(version <= current, "{} is newer than wit/, which is {current}", file.display());
        }
        Ok(last)
    }

    /// Returns the difference to a file as `diff -u` prints it; nothing if they are the same.
    pub fn difference(&self, current: &Path) -> Result<String> {
        let mut diff = Command::new("diff");
        for file in [&self.file, current] {
            diff.arg("--label").arg(file.file_name().unwrap_or_default());
        }
        let output = diff.arg("-u").args([&self.file, current]).output().context("`diff` cannot be run")?;
        ensure!(matches!(output.status.code(), Some(0 | 1)), "diff: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Returns the name of the package's text.
fn file_name(version: &Version) -> String {
    format!("{NAME}-{version}.wit")
}

/// Returns the text of an encoded package: itself, and what it needs of others as nested packages.
fn text(component: &[u8]) -> Result<String> {
    let DecodedWasm::WitPackage(resolve, id) = wit_component::decode(component)? else {
        bail!("the encoded package does not decode to a package")
    };
    let needed: Vec<PackageId> = resolve.topological_packages().into_iter().filter(|other| *other != id).collect();
    let mut printer = WitPrinter::default();
    printer.print(&resolve, id, &needed)?;
    let text: String = printer.output.into();
    Ok(format!("{}\n", text.trim_end()))
}

/// Returns whether a version promises compatibility with an earlier one, as cargo reads them: 0.1.1
/// with 0.1.0, 0.2.0 not.
fn is_compatible(earlier: &Version, later: &Version) -> bool {
    let Version { major, minor, patch, ref pre, .. } = *earlier;
    let caret = Comparator { op: Op::Caret, major, minor: Some(minor), patch: Some(patch), pre: pre.clone() };
    caret.matches(later)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASED: &str = "
        package consul-session:plugin@0.1.0;
        interface sessions {
            record query { node: string, index: option<u64> }
            variant error { not-found, refused(u16), other(string) }
            enum behavior { release, delete }
            type seconds = f64;
            type minutes = u32;
            info: func(id: string, query: query) -> result<seconds, error>;
            renew: func(id: string) -> result<_, error>;
            set: func(behavior: behavior);
        }
        interface locks { use sessions.{error}; release: func(key: string) -> result<_, error>; }
        interface clock { now: func() -> u64; }
        interface tick { use clock.{}; tick: func(); }
        world plugin { import clock; export sessions; export locks; }
        world command { export sessions; }";

    /// Checks the package in which one text is replaced by another.
    fn check(from: &str, to: &str) -> Result<()> {
        assert!(RELEASED.contains(from), "{from}");
        let text = RELEASED.replace(from, to);
        let mut resolve = Resolve::default();
        let id = resolve.push_str("current.wit", &text)?;
        let package = Package { version: Version::new(0, 1, 1), component: Vec::new(), text, resolve, id };
        package.check_text(RELEASED)
    }

    #[test]
    fn compatible_changes_are_accepted() -> Result<()> {
        for (from, to) in [
            ("@0.1.0", "@0.1.0"),
            ("@0.1.0", "@0.1.7"),
            ("renew: func", "/// Renews.\n renew: func"),
            ("renew: func", "count: func() -> u32; renew: func"),
            ("type seconds", "type hours = f64; type seconds"),
            ("export locks;", "export locks; export tick;"),
            ("import clock; ", ""),
            ("world command", "world more { export tick; } world command"),
        ] {
            check(from, to).with_context(|| format!("{from} => {to}"))?;
        }
        Ok(())
    }

    #[test]
    fn incompatible_changes_are_refused_and_named() {
        for (from, to, expected) in [
            ("export locks;", "", "missing export named `consul-session:plugin/locks`"),
            ("renew: func(id: string) -> result<_, error>;", "", "missing expected export `renew`"),
            ("renew: func", "renewed: func", "missing expected export `renew`"),
            ("renew: func(id: string)", "renew: func(id: string, node: string)", "expected 1 parameters, found 2"),
            ("renew: func(id: string)", "renew: func(name: string)", "expected parameter named `id`, found `name`"),
            ("renew: func(id: string)", "renew: func(id: u64)", "expected primitive `string` found primitive `u64`"),
            ("result<seconds, error>", "seconds", "expected result, found f64"),
            ("node: string, ", "", "export `query`: expected 2 fields, found 1"),
            ("node: string, ", "node: string, name: option<string>, ", "export `query`: expected 2 fields, found 3"),
            ("node: string, ", "nodes: string, ", "expected field name `node`, found `nodes`"),
            ("other(string)", "other(string), hidden", "export `error`: expected 3 cases, found 4"),
            ("other(string)", "other", "expected case `other` to have a type, found none"),
            ("not-found, ", "", "export `error`: expected 3 cases, found 2"),
            ("release, delete", "release, delete, keep", "export `behavior`: mismatch in enum elements"),
            ("release, delete", "delete, release", "export `behavior`: mismatch in enum elements"),
            ("seconds = f64", "seconds = u64", "export `seconds`: expected primitive `f64` found primitive `u64`"),
            ("type minutes = u32;", "", "missing expected export `minutes`"),
            ("world plugin {", "world plugin { import tick;", "missing import named `consul-session:plugin/tick`"),
            ("world command", "world commands", "no world `command`"),
        ] {
            let error = check(from, to).expect_err(to);
            let message = format!("{error:#}");
            assert!(message.contains(expected), "{from} => {to}: {message}");
        }
    }

    #[test]
    fn package_is_compatible_with_its_own_text() -> Result<()> {
        let folder = crate::tools::root().join("wit");
        let package = Package::read(&folder)?;
        package.check_text(&package.text)?;
        assert!(package.text.contains("/// One function for each of Consul's"), "{}", package.text);
        Ok(())
    }

    /// Keeps the text as that of these releases.
    fn released(text: &str, versions: &[&str]) -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("README.md"), "Nothing is released yet.\n")?;
        for version in versions {
            std::fs::write(folder.path().join(format!("{NAME}-{version}.wit")), text)?;
        }
        Ok(folder)
    }

    #[test]
    fn last_release_is_the_newest_version() -> Result<()> {
        let folder = released("", &["0.1.9", "0.1.10", "0.1.2"])?;
        let current = Version::parse("0.1.10")?;
        let last = Released::last(folder.path(), &current)?.map(|last| last.version);
        assert_eq!(last, Some(current));
        assert_eq!(Released::last(released("", &[])?.path(), &Version::new(0, 1, 0))?, None);
        let error = Released::last(folder.path(), &Version::new(0, 1, 9)).expect_err("an older one").to_string();
        assert!(error.ends_with("consul-session-plugin-0.1.10.wit is newer than wit/, which is 0.1.9"), "{error}");
        std::fs::write(folder.path().join("sessions.wit"), "")?;
        let error = Released::last(folder.path(), &Version::new(0, 2, 0)).expect_err("another name").to_string();
        assert!(error.ends_with("sessions.wit is not consul-session-plugin-VERSION.wit"), "{error}");
        Ok(())
    }

    #[test]
    fn incompatible_change_needs_another_minor_version() -> Result<()> {
        let mut package = Package::read(&crate::tools::root().join("wit"))?;
        let earlier = package.text.replacen("renew: func", "extend: func() -> u32;\n\n  renew: func", 1);
        let folder = released(&earlier, &["0.1.0"])?;
        for version in ["0.1.0", "0.1.1"] {
            package.version = Version::parse(version)?;
            let released = Released::last(folder.path(), &package.version)?.context("a release")?;
            let error = format!("{:#}", package.check(&released).expect_err("a removed function"));
            assert!(error.starts_with(&format!("wit/ is {version}, but not compatible with 0.1.0 (")), "{error}");
            assert!(error.contains("missing expected export `extend`"), "{error}");
        }
        package.version = Version::new(0, 2, 0);
        package.check(&Released::last(folder.path(), &package.version)?.context("a release")?)
    }

    #[test]
    fn difference_to_the_release_is_a_diff() -> Result<()> {
        let folder = released("world plugin {\n}\n", &["0.1.0"])?;
        let released = Released::last(folder.path(), &Version::new(0, 1, 1))?.context("a release")?;
        let current = folder.path().join("consul-session-plugin-0.1.1.wit");
        std::fs::write(&current, "world plugin {\n  export locks;\n}\n")?;
        let expected = "--- consul-session-plugin-0.1.0.wit\n+++ consul-session-plugin-0.1.1.wit\n@@ -1,2 +1,3 @@\n \
                        world plugin {\n+  export locks;\n }\n";
        assert_eq!(released.difference(&current)?, expected);
        assert_eq!(released.difference(&released.file)?, "");
        Ok(())
    }

    #[test]
    fn versions_of_one_minor_below_1_0_are_compatible() {
        let version = |text: &str| Version::parse(text).expect("a version");
        let all = ["0.1.0", "0.1.1", "0.2.0", "1.0.0", "1.2.0"].map(version);
        let compatible = |earlier: usize, later: usize| is_compatible(&all[earlier], &all[later]);
        assert!(compatible(0, 0) && compatible(0, 1) && compatible(3, 4));
        assert!(!compatible(0, 2) && !compatible(1, 0) && !compatible(2, 3));
    }
}
