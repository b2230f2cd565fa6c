//! What `cargo xtask test` installs below `target/tools/`: other people's runtimes.

use crate::{component, plugin};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

const INSTALL: &str = "run `cargo xtask test`, which installs it";

/// The repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The wasmtime command line, which `WASMTIME_BIN` names.
pub fn wasmtime() -> Result<PathBuf> {
    let path = std::env::var_os("WASMTIME_BIN").map(PathBuf::from);
    path.filter(|path| path.is_file()).with_context(|| format!("no wasmtime at WASMTIME_BIN: {INSTALL}"))
}

/// The Python that has wasmtime-py.
pub fn python() -> Result<PathBuf> {
    installed("python/bin/python3", "wasmtime-py")
}

/// Ansible's program that runs a playbook. Its wheels want a newer Python than the others.
pub fn ansible_playbook() -> Result<PathBuf> {
    installed("python/bin/ansible-playbook", "ansible-core (Python 3.11 or newer)")
}

/// jco and what it needs, as npm installs them.
pub fn node_modules() -> Result<PathBuf> {
    installed("npm/node_modules", "jco")
}

/// The browser, which is the system's own: `CHROMIUM_BIN` or Debian's.
pub fn chromium() -> Result<PathBuf> {
    let path = std::env::var_os("CHROMIUM_BIN").map_or("/usr/bin/chromium".into(), PathBuf::from);
    ensure!(path.is_file(), "no Chromium at {}: install it (137 or newer), or set CHROMIUM_BIN", path.display());
    Ok(path)
}

fn installed(path: &str, name: &str) -> Result<PathBuf> {
    // Not made canonical: what stands at the end of Python's links is a Python without the packages.
    let path = std::path::absolute(root().join("target/tools").join(path))?;
    ensure!(path.join(".package-lock.json").is_file() || path.is_file(), "no {name}: {INSTALL}");
    Ok(path)
}

/// A command without what this process would tell a program of ours by its environment.
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

/// How jco makes JavaScript of the components.
#[derive(Clone, Copy, Debug)]
pub enum Transpiled {
    /// For Node, where calls block.
    Node,
    /// For browsers, where calls are promises.
    Browser,
}

/// A folder with `node_modules` and the transpiled components: `plugin/`, for Node also `command/`. Made once for each build of
/// the components.
pub fn transpiled(target: Transpiled) -> Result<PathBuf> {
    // One at a time; the others then find it.
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
    let part = TempDir::new_in(folder.parent().context("a folder in no folder")?)?;
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
    // ES modules, all of them.
    std::fs::write(part.path().join("package.json"), r#"{"type": "module"}"#)?;
    match std::fs::rename(part.keep(), &folder) {
        // Another test program was faster.
        Err(_) if folder.is_dir() => Ok(folder),
        result => Ok(result.map(|()| folder)?),
    }
}

/// The SHA-256 of a file, in hexadecimal.
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
