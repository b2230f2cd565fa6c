//! `cargo xtask build`: the components, with no tool besides rustup's toolchain.
//!
//! The crate is built for `wasm32-unknown-unknown` and wrapped here: std for `wasm32-wasip2` would add imports of `wasi:cli`
//! that nothing uses and every host would have to grant.

use crate::root;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use wasm_metadata::{AddMetadata, AddMetadataField};
use wit_component::ComponentEncoder;

/// What the components are built for.
pub const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "component";
/// What the plugin can be built for without this program.
pub const WASIP2: &str = "wasm32-wasip2";

/// Both components: the name of the file in `dist/`, and the package that makes it.
const COMPONENTS: [(&str, &str); 2] =
    [("consul-session-plugin.wasm", "consul-session"), ("consul-session.wasm", "consul-session-command")];

/// Builds both components into `dist/`; the plugin's path.
pub fn run() -> Result<PathBuf> {
    run_to(&root().join("dist"))
}

/// Builds both components into this folder; the plugin's path.
pub fn run_to(dist: &Path) -> Result<PathBuf> {
    add_target(TARGET)?;
    std::fs::create_dir_all(dist)?;
    for (name, package) in COMPONENTS {
        write(&dist.join(name), &component(package)?)?;
    }
    Ok(dist.join("consul-session-plugin.wasm"))
}

/// The component that this package is.
pub fn component(package: &str) -> Result<Vec<u8>> {
    let module = core_module(package)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("the module of {package} cannot be made a component"))?;
    with_metadata(&component, package)
}

/// Writes the file whole or not at all: a test run beside this one may be reading it.
pub fn write(path: &Path, component: &[u8]) -> Result<()> {
    let part = path.with_extension("wasm.part");
    std::fs::write(&part, component).with_context(|| format!("{} cannot be written", part.display()))?;
    std::fs::rename(&part, path)?;
    println!("{}: {} bytes", path.file_name().unwrap_or_default().display(), component.len());
    Ok(())
}

/// `rust-toolchain.toml` names the targets, but rustup adds them by itself only where its auto-install is on.
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
    // Paths of this machine stand in panic locations; the same source must give the same bytes everywhere.
    let home = |name: &str, folder: &str| {
        std::env::var_os(name).map(PathBuf::from).or_else(|| std::env::home_dir().map(|home| home.join(folder)))
    };
    let mut flags = vec![
        format!("--remap-path-prefix={}=consul-session", root().display()),
        // The linker leaves every reference five bytes long unless it is told.
        "-Clink-arg=--compress-relocations".to_owned(),
    ];
    // Cargo names a registry's folder after the address that it reaches it by.
    if let Some(sources) = home("CARGO_HOME", ".cargo").map(|home| home.join("registry").join("src")) {
        for registry in std::fs::read_dir(sources).into_iter().flatten().flatten() {
            flags.push(format!("--remap-path-prefix={}=deps", registry.path().display()));
        }
    }
    if let Some(rustup) = home("RUSTUP_HOME", ".rustup") {
        flags.push(format!("--remap-path-prefix={}=rustup", rustup.display()));
    }
    // Not `cargo build`: for a crate that is an rlib too, cargo leaves out the profile's LTO, and says nothing.
    let status = Command::new("cargo")
        .current_dir(root())
        .args(["rustc", "--locked", "--package", package, "--lib"])
        .args(["--crate-type", "cdylib"])
        .args(["--profile", PROFILE, "--target", TARGET])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("{package} does not build");
    }
    let path = target_directory()?.join(TARGET).join(PROFILE).join(package.replace('-', "_")).with_extension("wasm");
    std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Writes what the file is into the file; `wasm-tools metadata show` prints it.
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

pub fn target_directory() -> Result<PathBuf> {
    metadata()?["target_directory"].as_str().map(PathBuf::from).context("cargo metadata has no target_directory")
}

fn metadata() -> Result<Value> {
    let text = output(Command::new("cargo").current_dir(root()).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_str(&text)?)
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
