//! `cargo xtask build`: builds the components with no tool but the Rust toolchain.
//!
//! The packages are built for `wasm32-unknown-unknown` and made components here. With
//! `wasm32-wasip2` std would add unused imports of `wasi:cli`, which every host would have to
//! grant.

use crate::tools::{output, root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use wasm_metadata::{AddMetadata, AddMetadataField};
use wit_component::ComponentEncoder;

/// Target of the components.
pub const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "component";
/// The environment variable with the flags for rustc, which replace those of the user.
pub const RUSTFLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
/// Target for a build of the plugin with plain cargo.
pub const WASIP2: &str = "wasm32-wasip2";

/// The packages of the components, and the names of their files in `dist/`.
const PLUGIN: (&str, &str) = ("consul-session", "consul-session-plugin.wasm");
const COMMAND: (&str, &str) = ("consul-session-command", "consul-session.wasm");

/// The plugin's memory at the start, in bytes: stack, data, and a heap that is enough for all but large
/// lists. The host library clears and keeps as much of it from instance to instance.
const MEMORY: usize = 512 << 10;
/// The plugin's stack, in bytes. The linker's default is 1 MiB.
const STACK: usize = 128 << 10;

/// Builds both components into `dist/`, and returns the path of the plugin.
pub fn run() -> Result<PathBuf> {
    run_to(&root().join("dist"))
}

/// Builds both components into this folder, and returns the path of the plugin.
pub fn run_to(dist: &Path) -> Result<PathBuf> {
    let plugin = plugin_to(dist)?;
    let (package, file) = COMMAND;
    write(&dist.join(file), &component(package)?)?;
    Ok(plugin)
}

/// Builds the plugin alone into this folder, and returns its path.
pub fn plugin_to(dist: &Path) -> Result<PathBuf> {
    add_target(TARGET)?;
    std::fs::create_dir_all(dist)?;
    let (package, file) = PLUGIN;
    let path = dist.join(file);
    write(&path, &component(package)?)?;
    Ok(path)
}

/// Builds a package and returns it as a component.
pub fn component(package: &str) -> Result<Vec<u8>> {
    let module = core_module(package)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .with_context(|| format!("the module of {package} cannot be made a component"))?;
    with_metadata(&component, package)
}

/// Writes the file atomically: a concurrent test run may be reading it. A file that has these bytes
/// keeps its time, after which cargo would build the program with the plugin inside again.
pub fn write(path: &Path, component: &[u8]) -> Result<()> {
    if !std::fs::read(path).is_ok_and(|bytes| bytes == component) {
        let part = path.with_extension("wasm.part");
        std::fs::write(&part, component).with_context(|| format!("{} cannot be written", part.display()))?;
        std::fs::rename(&part, path)?;
    }
    println!("{}: {} bytes", path.file_name().unwrap_or_default().display(), component.len());
    Ok(())
}

/// Adds a target to the toolchain. `rust-toolchain.toml` names the targets, but rustup installs
/// them only where its auto-install is on.
pub fn add_target(target: &str) -> Result<()> {
    let libdir = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(libdir.trim()).exists() {
        return Ok(());
    }
    println!("adding the target {target} to the toolchain");
    output(Command::new("rustup").args(["target", "add", target]))
        .with_context(|| format!("the target {target} is missing and rustup cannot add it"))?;
    Ok(())
}

fn core_module(package: &str) -> Result<Vec<u8>> {
    let mut flags = remapped_paths();
    // Without it the linker leaves every reference five bytes long.
    flags.push("-Clink-arg=--compress-relocations".to_owned());
    // The command depends on the plugin's crate, whose `cdylib` would overwrite the plugin's. Then
    // each build would find the other's file and start over.
    let mut target = target_directory()?;
    if package == COMMAND.0 {
        target.push("command");
    } else {
        flags.push(format!("-Clink-arg=-zstack-size={STACK}"));
        flags.push(format!("-Clink-arg=--initial-memory={MEMORY}"));
    }
    // Not `cargo build`: for a crate that is an rlib too, it ignores the profile's LTO without a
    // warning.
    let status = Command::new("cargo")
        .current_dir(root())
        .args(["rustc", "--locked", "--package", package, "--lib"])
        .args(["--crate-type", "cdylib"])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env(RUSTFLAGS, flags.join("\u{1f}"))
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("{package} does not build");
    }
    let path = target.join(TARGET).join(PROFILE).join(package.replace('-', "_")).with_extension("wasm");
    std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Returns flags for rustc that replace the paths of this machine, which panic locations contain.
/// The same source must give the same bytes on every machine.
pub fn remapped_paths() -> Vec<String> {
    let home = |name: &str, folder: &str| {
        std::env::var_os(name).map(PathBuf::from).or_else(|| std::env::home_dir().map(|home| home.join(folder)))
    };
    let mut flags = vec![format!("--remap-path-prefix={}=consul-session", root().display())];
    // The name of a registry's folder depends on the address of the registry.
    if let Some(sources) = home("CARGO_HOME", ".cargo").map(|home| home.join("registry").join("src")) {
        for registry in std::fs::read_dir(sources).into_iter().flatten().flatten() {
            flags.push(format!("--remap-path-prefix={}=deps", registry.path().display()));
        }
    }
    if let Some(rustup) = home("RUSTUP_HOME", ".rustup") {
        flags.push(format!("--remap-path-prefix={}=rustup", rustup.display()));
    }
    flags
}

/// Adds name, version, description, licence and source to the component. `wasm-tools metadata show`
/// prints them.
fn with_metadata(component: &[u8], package: &str) -> Result<Vec<u8>> {
    let metadata = metadata()?;
    let package = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|listed| listed["name"] == package)
        .with_context(|| format!("cargo metadata does not list {package}"))?;
    let field = |name: &str| package[name].as_str().with_context(|| format!("Cargo.toml has no {name}"));
    let mut add = AddMetadata::default();
    add.name = AddMetadataField::Set(field("name")?.to_owned());
    add.version = AddMetadataField::Set(field("version")?.parse()?);
    add.description = AddMetadataField::Set(field("description")?.parse()?);
    add.licenses = AddMetadataField::Set(field("license")?.parse()?);
    add.source = AddMetadataField::Set(field("repository")?.parse()?);
    add.to_wasm(component).context("metadata cannot be added")
}

/// Returns cargo's target folder.
pub fn target_directory() -> Result<PathBuf> {
    metadata()?["target_directory"].as_str().map(PathBuf::from).context("cargo metadata has no target_directory")
}

fn metadata() -> Result<Value> {
    let text = output(Command::new("cargo").current_dir(root()).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_str(&text)?)
}
