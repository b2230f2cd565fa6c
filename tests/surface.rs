//! The component file itself: its imports and exports, its size, its metadata, and that its build
//! is reproducible.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use test_support::{component, plugin};
use wasm_metadata::{Metadata, Payload};
use wit_component::DecodedWasm;
use wit_parser::WorldItem;

/// The budget for the plugin, in bytes.
const LARGEST: usize = 380_000;

fn bytes() -> Result<Vec<u8>> {
    Ok(std::fs::read(plugin()?)?)
}

/// Lists each interface that the component imports or exports, and each function that it exports,
/// one a line.
fn surface(component: &[u8]) -> Result<String> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        anyhow::bail!("the file is not a component")
    };
    let world = &resolve.worlds[world];
    let mut lines = Vec::new();
    for (direction, items) in [("import", &world.imports), ("export", &world.exports)] {
        let begin = lines.len();
        for (key, item) in items {
            let name = resolve.name_world_key(key);
            if let (WorldItem::Interface { id, .. }, "export") = (item, direction) {
                lines.extend(resolve.interfaces[*id].functions.keys().map(|function| format!("{direction} {name} {function}")));
            }
            lines.push(format!("{direction} {name}"));
        }
        lines[begin..].sort();
    }
    Ok(lines.join("\n") + "\n")
}

fn metadata(component: &[u8]) -> Result<Metadata> {
    match Payload::from_binary(component)? {
        Payload::Component { metadata, .. } => Ok(metadata),
        Payload::Module(_) => anyhow::bail!("the file is not a component"),
    }
}

#[test]
fn imports_and_exports_match_the_committed_list() -> Result<()> {
    let found = surface(&bytes()?)?;
    let committed = include_str!("surface.txt");
    ensure!(found == committed, "the imports and exports differ from tests/surface.txt:\n{found}");
    Ok(())
}

#[test]
fn size_is_within_the_budget() -> Result<()> {
    let size = bytes()?.len();
    ensure!(size <= LARGEST, "{size} bytes, over the budget of {LARGEST}");
    Ok(())
}

#[test]
fn metadata_is_embedded() -> Result<()> {
    let metadata = metadata(&bytes()?)?;
    let text = |field: Option<String>| field.unwrap_or_default();
    let found = [
        text(metadata.name),
        text(metadata.version.map(|version| version.to_string())),
        text(metadata.licenses.map(|licenses| licenses.to_string())),
        text(metadata.source.map(|source| source.to_string())),
        text(metadata.description.map(|description| description.to_string())),
    ];
    // The workspace has one version, licence and repository.
    let expected = [
        "consul-session",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_LICENSE"),
        "https://github.com/consul-session/consul-session",
        "Consul sessions as a sandboxed WebAssembly component",
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

#[test]
fn machine_paths_are_not_embedded() -> Result<()> {
    let component = bytes()?;
    let everywhere = ["/root", "/home/", "/Users/", "C:\\", "registry/src", "crates.io"];
    // The paths of this machine, wherever they are.
    let here = ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_MANIFEST_DIR"].map(|name| std::env::var(name).unwrap_or_default());
    for path in everywhere.iter().copied().chain(here.iter().map(String::as_str)).filter(|path| path.len() > 1) {
        let found = component.windows(path.len()).position(|window| window == path.as_bytes());
        if let Some(at) = found {
            let around = &component[at.saturating_sub(40)..component.len().min(at + 120)];
            anyhow::bail!("`{path}` is in the component: {}", around.escape_ascii());
        }
    }
    Ok(())
}

/// Builds from nothing in another folder: neither an earlier build nor the folder must affect the
/// result. Takes half a minute.
#[test]
fn second_build_gives_the_same_bytes() -> Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("a target folder")?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let second = folder.path().join("dist");
    // The task itself is reused from where it was built; its output goes to the new folder.
    let build = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "xtask", "--target-dir"])
        .arg(target)
        .args(["--", "build"])
        .arg(&second)
        .env("CARGO_TARGET_DIR", folder.path())
        .output()?;
    ensure!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    for first in [plugin()?, component()?] {
        let second = second.join(first.file_name().context("a file")?);
        ensure!(
            std::fs::read(&first)? == std::fs::read(second)?,
            "{} does not match the current source: run `cargo xtask build` and try again",
            first.display()
        );
    }
    Ok(())
}
