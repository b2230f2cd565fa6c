//! The tools that `cargo xtask test` installs below `target/tools/`: wasmtime, jco, Python
//! packages, Go tests.

use crate::{component, plugin};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

const INSTALL: &str = "run `cargo xtask test`, which installs it";

/// Returns the folder of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the wasmtime command line, which `WASMTIME_BIN` names.
pub fn wasmtime() -> Result<PathBuf> {
    let path = std::env::var_os("WASMTIME_BIN").map(PathBuf::from);
    path.filter(|path| path.is_file()).with_context(|| format!("no wasmtime at WASMTIME_BIN: {INSTALL}"))
}

/// Returns the Python that has wasmtime-py.
pub fn python() -> Result<PathBuf> {
    installed("python/bin/python3", "wasmtime-py")
}

/// Returns `ansible-playbook`. Its wheels require a newer Python than the others.
pub fn ansible_playbook() -> Result<PathBuf> {
    installed("python/bin/ansible-playbook", "ansible-core (Python 3.11 or newer)")
}

/// Returns the folder of jco and its dependencies, as npm installs them.
pub fn node_modules() -> Result<PathBuf> {
    installed("npm/node_modules", "jco")
}

/// Returns wasmCloud's `wash`, which a pinned wheel brings.
pub fn wash() -> Result<PathBuf> {
    let python = root().join("target/tools/python/lib");
    let versions = std::fs::read_dir(&python).with_context(|| format!("no Python below {}: {INSTALL}", python.display()))?;
    let found =
        versions.flatten().map(|version| version.path().join("site-packages/wash_cli/wash")).find(|path| path.is_file());
    found.with_context(|| format!("no wash: {INSTALL}"))?.canonicalize().context("wash")
}

/// Returns the folder of the packages, which `CONSUL_SESSION_DIST` names.
pub fn dist() -> Result<PathBuf> {
    let path = std::env::var_os("CONSUL_SESSION_DIST").map(PathBuf::from);
    path.filter(|path| path.is_dir()).context("no packages at CONSUL_SESSION_DIST: run `cargo xtask test`, which makes them")
}

/// Returns the only file of the packages whose name begins and ends with these.
pub fn dist_file(begin: &str, end: &str) -> Result<PathBuf> {
    let files = std::fs::read_dir(dist()?)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = files.into_iter().filter(|file| name(file).starts_with(begin) && name(file).ends_with(end));
    match (found.next(), found.next()) {
        (Some(file), None) => Ok(file),
        (first, second) => bail!("{begin}…{end} names {first:?} and {second:?}"),
    }
}

/// Returns distribution's OCI registry.
pub fn registry() -> Result<PathBuf> {
    installed("registry/registry", "OCI registry")
}

/// Returns the tests of Consul's Go client about sessions, locks and semaphores, as one program.
pub fn consul_api_tests() -> Result<PathBuf> {
    installed("consul-api/consul-api.test", "tests of Consul's Go client")
}

/// Returns the browser of the system: the one that `CHROMIUM_BIN` names, or Debian's.
pub fn chromium() -> Result<PathBuf> {
    let path = std::env::var_os("CHROMIUM_BIN").map_or("/usr/bin/chromium".into(), PathBuf::from);
    ensure!(path.is_file(), "no Chromium at {}: install it (137 or newer), or set CHROMIUM_BIN", path.display());
    Ok(path)
}

/// Returns the wasmtime command line of another release: `wasmtime-oldest` or `wasmtime-newest`.
pub fn wasmtime_release(name: &str) -> Result<PathBuf> {
    installed(&format!("{name}/wasmtime_cli/wasmtime"), name)
}

/// Returns the folder of wasmtime's C library, with `include/` and `lib/`.
pub fn wasmtime_c() -> Result<PathBuf> {
    let advice = "C library of wasmtime (or run `cargo xtask wasmtime-c`)";
    let header = installed("wasmtime-c/include/wasmtime.h", advice)?;
    Ok(header.ancestors().nth(2).context("no folder")?.to_owned())
}

/// Returns the conformance runner in Go.
pub fn go_runner() -> Result<PathBuf> {
    installed("go-runner", "conformance runner in Go")
}

/// Checks that a program is on PATH.
pub fn on_path(name: &str, advice: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    ensure!(is_found, "no `{name}` on PATH: {advice}");
    Ok(())
}

/// Returns the folder of a Java of this version or newer: `JAVA_HOME`, the one on PATH, or one
/// where the packages of Debian, Fedora and Temurin put it.
pub fn java_home(oldest: u32) -> Result<PathBuf> {
    let on_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .filter_map(|folder| Some(folder.join("java").canonicalize().ok()?.parent()?.parent()?.to_owned()))
        .collect::<Vec<_>>();
    let packages = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path());
    std::env::var_os("JAVA_HOME")
        .map(PathBuf::from)
        .into_iter()
        .chain(on_path)
        .chain(packages)
        .find(|home| java_version(home).is_some_and(|version| version >= oldest))
        .with_context(|| {
            format!("no Java {oldest} or newer: install a JDK (such as Temurin 25), or let JAVA_HOME name its folder")
        })
}

/// Returns the version that a JDK's file `release` has: `JAVA_VERSION="25.0.1"`.
fn java_version(home: &Path) -> Option<u32> {
    let release = std::fs::read_to_string(home.join("release")).ok()?;
    let (_, rest) = release.split_once("JAVA_VERSION=\"")?;
    rest.split(['.', '"', '-']).next()?.parse().ok()
}

fn installed(path: &str, name: &str) -> Result<PathBuf> {
    // Not canonical: Python's links lead to a Python without the packages.
    let path = std::path::absolute(root().join("target/tools").join(path))?;
    ensure!(path.join(".package-lock.json").is_file() || path.is_file(), "no {name}: {INSTALL}");
    Ok(path)
}

/// Makes a command without the environment variables that configure the programs under test.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if ["CONSUL_", "SSL_CERT_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The target of jco's transpilation.
#[derive(Clone, Copy, Debug)]
pub enum Transpiled {
    /// For Node, where calls block.
    Node,
    /// For browsers, where calls are promises.
    Browser,
}

/// Returns a folder with `node_modules` and the transpiled components: `plugin/`, and `command/`
/// for Node. It is made once for each build of the components.
pub fn transpiled(target: Transpiled) -> Result<PathBuf> {
    // One test makes it, and the others wait and find it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    let modules = node_modules()?;
    let folder = modules.with_file_name(match target {
        Transpiled::Node => format!("node-{}{}", &sha256(&plugin()?)?[..16], &sha256(&component()?)?[..16]),
        Transpiled::Browser => format!("browser-{}", &sha256(&plugin()?)?[..16]),
    });
    if folder.is_dir() {
        return Ok(folder);
    }
    let part = TempDir::new_in(folder.parent().context("node_modules has no parent")?)?;
    match target {
        Transpiled::Node => {
            transpile(&plugin()?, &part.path().join("plugin"), &[])?;
            transpile(&component()?, &part.path().join("command"), &[])?;
        }
        Transpiled::Browser => {
            let options = ["--async-mode", "jspi", "--async-wasi-imports", "--async-exports", "apply", "apply-json"];
            transpile(&plugin()?, &part.path().join("plugin"), &options)?;
        }
    }
    std::os::unix::fs::symlink(modules, part.path().join("node_modules"))?;
    // All files are ES modules.
    std::fs::write(part.path().join("package.json"), r#"{"type": "module"}"#)?;
    match std::fs::rename(part.keep(), &folder) {
        // Another test program made it first.
        Err(_) if folder.is_dir() => Ok(folder),
        result => Ok(result.map(|()| folder)?),
    }
}

/// Returns the SHA-256 of a file, in hexadecimal.
pub fn sha256(file: &Path) -> Result<String> {
    Ok(Sha256::digest(std::fs::read(file)?).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn transpile(component: &Path, to: &Path, options: &[&str]) -> Result<()> {
    let mut jco = command(node_modules()?.join(".bin/jco"));
    jco.args(["transpile", "--quiet"]).arg(component).arg("-o").arg(to).args(options);
    let output = jco.output().context("node cannot be run")?;
    ensure!(output.status.success(), "jco transpile: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_java_is_that_of_its_release_file() -> Result<()> {
        let home = tempfile::tempdir()?;
        assert_eq!(java_version(home.path()), None);
        for (release, version) in [
            ("IMPLEMENTOR=\"A\"\nJAVA_VERSION=\"25.0.1\"\n", Some(25)),
            ("JAVA_VERSION=\"22\"\n", Some(22)),
            ("JAVA_VERSION=\"26-ea\"\n", Some(26)),
            ("JAVA_RUNTIME_VERSION=\"25\"\n", None),
        ] {
            std::fs::write(home.path().join("release"), release)?;
            assert_eq!(java_version(home.path()), version, "{release}");
        }
        Ok(())
    }
}
