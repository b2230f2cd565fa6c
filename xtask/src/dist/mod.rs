//! `cargo xtask dist`: a folder that can be published as it is.
//!
//! Everything in it is the same for the same source: sorted, with one time for all, without the
//! paths of this machine.

pub mod archive;
mod collection;
mod deb;
mod licences;
mod notes;
mod revision;
mod sbom;
mod sums;
mod wit;

use crate::build;
use crate::install::{self, PROGRAM};
use crate::tools::{EMBEDDED, cargo, go_tool, output, root, run_command, step};
use anyhow::{Context, Result, bail, ensure};
use archive::Entry;
use semver::Version;
use std::path::{Path, PathBuf};
use std::process::Command;
use wit::{Package, Released};

/// The folder of the documents below an installation's root.
const DOCUMENTS: &str = "share/doc/consul-session";

/// The version of everything in the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The profile of the program.
const PROFILE: &str = "dist";

/// The file with the release notes.
const NOTES: &str = "RELEASE_NOTES.md";

/// What the user chose.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// The folder to make.
    to: PathBuf,
    /// Whether the program is the one that the tests build.
    debug: bool,
    /// The secret key of minisign to sign with.
    sign: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Options> {
        let mut options = Options { to: root().join("dist").join("release"), debug: false, sign: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("`{arg}` needs a path"));
            match *arg {
                "--debug" => options.debug = true,
                "--to" => options.to = std::path::absolute(value()?)?,
                "--sign" => options.sign = Some(std::path::absolute(value()?)?),
                other => bail!("unknown argument `{other}` (expected --to FOLDER, --debug or --sign KEYFILE)"),
            }
        }
        Ok(options)
    }
}

/// Makes the folder that these arguments name.
pub fn run(args: &[&str]) -> Result<()> {
    make(Options::parse(args)?)
}

/// Makes this folder with the program that the tests build.
pub fn debug_to(folder: &Path) -> Result<()> {
    make(Options { to: folder.to_owned(), debug: true, sign: None })
}

/// Makes the folder. What fails without a build is checked first.
fn make(options: Options) -> Result<()> {
    let Options { to, debug, sign } = options;
    let version: Version = VERSION.parse()?;
    let package = Package::read(&root().join("wit"))?;
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md"))?;
    let notes = check_versions(&version, &package.version, &changelog)?;
    let released = Released::last(&root().join("wit").join("released"), &version)?;
    if let Some(released) = &released {
        package.check(released)?;
    }
    if let Some(key) = &sign {
        ensure!(key.is_file(), "no secret key at {}", key.display());
        sums::check_minisign()?;
    }
    let part = to.with_added_extension("part");
    remove_old(&to)?;
    remove(&part)?;
    // Renamed at the end, so that a folder of this name is always complete.
    let (folder, work) = (part.join("folder"), part.join("work"));
    for folder in [&folder, &work.join("deb")] {
        std::fs::create_dir_all(folder)?;
    }

    let plugin = step("the components", build::run)?;
    for file in [&plugin, &plugin.with_file_name("consul-session.wasm")] {
        std::fs::copy(file, folder.join(file.file_name().unwrap_or_default()))?;
    }
    let nfpm = step("nfpm", || go_tool("nfpm"))?;
    let program = step("the program", || program(debug, &work))?;
    let wit = package.write(&folder)?;
    let difference = released.map(|released| released.difference(&wit)).transpose()?;
    std::fs::write(folder.join(NOTES), with_difference(notes, &difference.unwrap_or_default()))?;

    let target = host()?;
    let installed = step("the files to install", || installed(&program, &work.join("installed")))?;
    step("the archive", || {
        let top = format!("{PROGRAM}-{version}-{target}");
        let entries: Vec<Entry> =
            installed.iter().cloned().map(|entry| Entry { path: format!("{top}/{}", entry.path), ..entry }).collect();
        archive::write(&folder.join(format!("{top}.tar.gz")), &entries)
    })?;
    step("the package for Debian", || deb::write(&folder, &work.join("deb"), &nfpm, &target, &program, &installed))?;
    step("the Ansible collection", || collection::write(&folder, VERSION, &program))?;
    step("the SBOMs", || sbom::write(&folder, VERSION, &program))?;
    revision::write(&folder)?;
    sums::write(&folder)?;
    if let Some(key) = sign {
        step("the signature", || sums::sign(&folder, &key, VERSION))?;
    }

    std::fs::rename(&folder, &to)?;
    std::fs::remove_dir_all(&part)?;
    println!("{}:\n{}", to.display(), listing(&to)?);
    Ok(())
}

/// Fails unless the three places that name the version agree, and returns the release notes.
fn check_versions(version: &Version, wit: &Version, changelog: &str) -> Result<String> {
    ensure!(wit == version, "the package in wit/ has the version {wit}, [workspace.package] in Cargo.toml {version}");
    notes::notes(changelog, version)
}

/// Adds the difference of the WIT to the notes, if there is one.
fn with_difference(notes: String, difference: &str) -> String {
    match difference {
        "" => notes,
        difference => format!("{notes}\n## The difference of the WIT\n\n```diff\n{difference}```\n"),
    }
}

/// Builds the program with the plugin inside, and returns a copy without its symbols.
///
/// In debug mode it is the program that the tests use, so the same command as theirs builds it: one
/// with other packages would choose other features, and build wasmtime again.
fn program(debug: bool, work: &Path) -> Result<PathBuf> {
    let built = if debug {
        cargo(&[&["build", "--locked", "--workspace", "--test", "install"], &EMBEDDED[..]].concat(), &[])?;
        build::target_directory()?.join("debug")
    } else {
        let target = host()?;
        let mut flags = build::remapped_paths();
        // Where build scripts write code; it may be outside of the workspace.
        flags.push(format!("--remap-path-prefix={}=target", build::target_directory()?.display()));
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--locked", "--package", "consul-session-cli", "--profile", PROFILE]).args(EMBEDDED);
        // Naming the target keeps the flags from build scripts and macros.
        cargo.args(["--target", &target]).env(build::RUSTFLAGS, flags.join("\u{1f}")).current_dir(root());
        run_command(&mut cargo)?;
        build::target_directory()?.join(target).join(PROFILE)
    };
    let program = work.join(PROGRAM);
    std::fs::copy(built.join(PROGRAM), &program)?;
    output(Command::new("strip").arg(&program)).context("install binutils, for `strip`")?;
    Ok(program)
}

/// Returns the target of this machine, as Rust names it.
fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` prints no host")?.to_owned())
}

/// Returns the files of an installation by their paths below its root. `folder` is used for those
/// that the program writes.
fn installed(program: &Path, folder: &Path) -> Result<Vec<Entry>> {
    install::documentation(program, folder)?;
    let mut entries = vec![Entry::program(format!("bin/{PROGRAM}"), std::fs::read(program)?)];
    collect(folder, "", &mut entries)?;
    for name in ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
        entries.push(Entry::file(format!("{DOCUMENTS}/{name}"), std::fs::read(root().join(name))?));
    }
    entries.push(Entry::file(format!("{DOCUMENTS}/LICENSES-THIRD-PARTY.txt"), licences::text()?));
    Ok(entries)
}

/// Adds the files of the folder, and of those below it, to the entries.
fn collect(folder: &Path, below: &str, entries: &mut Vec<Entry>) -> Result<()> {
    for name in file_names(folder)? {
        let (path, below) = (folder.join(&name), format!("{below}{name}"));
        if path.is_dir() {
            collect(&path, &format!("{below}/"), entries)?;
        } else {
            entries.push(Entry::file(below, std::fs::read(&path)?));
        }
    }
    Ok(())
}

/// Returns the names in a folder, sorted.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        names.push(name.into_string().map_err(|name| anyhow::anyhow!("{} is not UTF-8", name.display()))?);
    }
    names.sort();
    Ok(names)
}

/// Removes an earlier folder, so that after a failure none looks done.
///
/// # Errors
///
/// The folder has files, and not those that this task writes.
fn remove_old(folder: &Path) -> Result<()> {
    let is_ours = !folder.exists() || folder.join(sums::SUMS).is_file() || file_names(folder)?.is_empty();
    ensure!(is_ours, "{} has files and no {}: name a new folder", folder.display(), sums::SUMS);
    remove(folder)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    Ok(())
}

/// Lists the files with their sizes, in lines of at most 80 columns.
fn listing(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for name in file_names(folder)? {
        let size = std::fs::metadata(folder.join(&name))?.len();
        lines.push(format!("{name:<66} {:>12}", grouped(size)));
    }
    Ok(lines.join("\n"))
}

/// Returns a number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (first, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    Some(first.to_owned()).filter(|first| !first.is_empty()).into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_any_order() -> Result<()> {
        let options = Options::parse(&["--sign", "/k", "--debug", "--to", "/f"])?;
        assert_eq!(options, Options { to: "/f".into(), debug: true, sign: Some("/k".into()) });
        let plain = Options::parse(&[])?;
        assert_eq!(plain, Options { to: root().join("dist/release"), debug: false, sign: None });
        let fails = |args: &[&str]| Options::parse(args).expect_err("wrong arguments").to_string();
        assert_eq!(fails(&["--to"]), "`--to` needs a path");
        assert_eq!(fails(&["x"]), "unknown argument `x` (expected --to FOLDER, --debug or --sign KEYFILE)");
        Ok(())
    }

    #[test]
    fn version_of_the_wit_must_be_that_of_the_workspace() -> Result<()> {
        let changelog = "# Changelog\n\n## 0.1.1\n\n- One.\n";
        let (older, version): (Version, Version) = ("0.1.0".parse()?, "0.1.1".parse()?);
        assert!(check_versions(&version, &version, changelog).is_ok());
        let error = check_versions(&version, &older, changelog).expect_err("a mismatch").to_string();
        assert_eq!(error, "the package in wit/ has the version 0.1.0, [workspace.package] in Cargo.toml 0.1.1");
        Ok(())
    }

    #[test]
    fn difference_of_the_wit_is_in_the_notes() {
        assert_eq!(with_difference("# One\n".into(), ""), "# One\n");
        let expected = "# One\n\n## The difference of the WIT\n\n```diff\n+two\n```\n";
        assert_eq!(with_difference("# One\n".into(), "+two\n"), expected);
    }

    #[test]
    fn sizes_have_groups_of_three_digits() {
        let found = [0, 12, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(found, ["0", "12", "999", "1,000", "123,456", "1,234,567"]);
    }
}
