//! What a release says about its contents, compared with the contents.

use anyhow::{Context, Result};
use consul_session_inventory::{ARTIFACTS, Artifact, COMMAND, Licences, PLUGIN, PROGRAM, Workspace, file_name, sbom};
use cyclonedx_bom::prelude::{Bom, Component, Validate};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use test_support::program::stdout_of;
use test_support::tools::{dist, dist_file, root};

/// Packages in the program of the tests that are not in that of a release: cargo builds the tests'
/// one together with other packages, which switch on features of clap and wasmtime.
const OF_THE_TESTS: [&str; 6] =
    ["anstream", "anstyle-parse", "anstyle-query", "colorchoice", "ittapi", "wasmtime-internal-jit-debug"];

/// Returns the name and the version of each package that is linked in, as cargo prints them.
fn cargo_tree(artifact: &Artifact) -> Result<BTreeSet<String>> {
    let host = stdout_of(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("no host")?;
    let arguments = match artifact.name {
        "consul-session" => format!("-p consul-session-cli --features embedded --target {host}"),
        "consul-session-plugin" => "-p consul-session --target wasm32-unknown-unknown".into(),
        _ => "-p consul-session-command --target wasm32-unknown-unknown".into(),
    };
    let mut cargo = Command::new("cargo");
    cargo.args(["tree", "--locked", "-e", "normal,no-proc-macro", "--prefix", "none", "-f", "{p}"]);
    let tree = stdout_of(cargo.args(arguments.split(' ')).current_dir(root()))?;
    let packages = tree.lines().map(|line| line.split_once(" (").map_or(line, |(package, _)| package));
    Ok(packages.map(|package| package.replace(" v", " ")).collect())
}

fn bill(artifact: &Artifact) -> Result<Bom> {
    let file = dist()?.join(file_name(artifact, env!("CARGO_PKG_VERSION")));
    Ok(Bom::parse_from_json(std::fs::File::open(&file).with_context(|| file.display().to_string())?)?)
}

fn components(bill: &Bom) -> &[Component] {
    bill.components.as_ref().map_or(&[], |components| &components.0)
}

/// Returns the name and the version of each crate in the bill: not those of the artifact, and
/// not the standard library.
fn crates(bill: &Bom) -> BTreeSet<String> {
    let crates = components(bill).iter().filter(|component| component.name.to_string() != "std");
    crates.map(label).filter(|label| !label.starts_with("consul-session")).collect()
}

fn label(component: &Component) -> String {
    format!("{} {}", component.name, component.version.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Returns the file of the archive whose path ends with this.
fn archived(path: &str) -> Result<&'static [u8]> {
    // Unpacked once: unoptimized, it takes seconds.
    static FILES: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    let files = match FILES.get() {
        Some(files) => files,
        None => {
            let files = unpack()?;
            FILES.get_or_init(|| files)
        }
    };
    let found = files.iter().find(|(file, _)| file.ends_with(path));
    Ok(&found.with_context(|| format!("no {path} in the archive"))?.1)
}

fn unpack() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let archive = dist_file(concat!("consul-session-", env!("CARGO_PKG_VERSION"), "-"), ".tar.gz")?;
    let mut files = Vec::new();
    for entry in tar::Archive::new(GzDecoder::new(std::fs::File::open(archive)?)).entries()? {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.push((entry.path()?.into_owned(), bytes));
    }
    Ok(files)
}

fn file(artifact: &Artifact) -> Result<Vec<u8>> {
    if *artifact == PROGRAM {
        Ok(archived("bin/consul-session")?.to_vec())
    } else {
        Ok(std::fs::read(dist()?.join(artifact.file))?)
    }
}

/// Returns the crates whose sources the file names, where a panic would show them. `cargo` and
/// `cargo xtask dist` write the folder of the sources in different ways.
fn named_in(file: &[u8]) -> BTreeSet<String> {
    let text: String = file.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' }).collect();
    let mut found = BTreeSet::new();
    for folder in ["/index.crates.io-", "deps/"] {
        for (at, _) in text.match_indices(folder) {
            // The standard library has dependencies of its own, below `/rust/deps/`.
            let before = text[..at].chars().next_back();
            let rest = match folder {
                "deps/" if before != Some('/') => &text[at + folder.len()..],
                "deps/" => continue,
                _ => text[at + folder.len()..].split_once('/').map_or("", |(_, rest)| rest),
            };
            let name = rest.split(['/', ' ']).next().unwrap_or_default();
            let version =
                name.match_indices('-').find(|(at, _)| name[at + 1..].starts_with(|next: char| next.is_ascii_digit()));
            if let Some((at, _)) = version {
                found.insert(format!("{} {}", &name[..at], &name[at + 1..]));
            }
        }
    }
    found
}

#[test]
fn bills_are_valid_and_name_licence_digest_and_address_of_each_package() -> Result<()> {
    for artifact in ARTIFACTS {
        let bill = bill(artifact)?;
        assert!(bill.validate().passed(), "{:?}", bill.validate());
        assert_eq!(bill.serial_number, None, "it would be another one with each run");
        let component = bill.metadata.as_ref().and_then(|metadata| metadata.component.as_ref()).context("no component")?;
        let mut references: BTreeSet<&str> = component.bom_ref.as_deref().into_iter().collect();
        for component in components(&bill) {
            let label = label(component);
            let ours = label.starts_with("consul-session") || label.starts_with("std ");
            assert!(component.licenses.is_some() && component.purl.is_some(), "{label}");
            assert!(component.hashes.is_some() || ours, "{label}");
            assert!(references.insert(component.bom_ref.as_deref().unwrap_or_default()), "{label} is there twice");
        }
        let dependencies = &bill.dependencies.as_ref().context("no dependencies")?.0;
        let used: BTreeSet<&str> = dependencies.iter().flat_map(|one| &one.dependencies).map(String::as_str).collect();
        // Each is used by another one, apart from the artifact.
        references.remove(artifact.file);
        assert_eq!(used, references, "{}", artifact.file);
    }
    Ok(())
}

#[test]
fn bills_list_what_cargo_prints() -> Result<()> {
    for artifact in ARTIFACTS {
        let mut expected = cargo_tree(artifact)?;
        if let Some(contained) = artifact.contains {
            expected.extend(cargo_tree(contained)?);
        }
        expected.retain(|label| !label.starts_with("consul-session"));
        assert_eq!(crates(&bill(artifact)?), expected, "{}", artifact.file);
    }
    Ok(())
}

#[test]
fn bills_list_what_is_linked_and_nothing_that_only_builds_or_tests() -> Result<()> {
    let names = |artifact| -> Result<BTreeSet<String>> {
        Ok(components(&bill(artifact)?).iter().map(|component| component.name.to_string()).collect())
    };
    let (program, plugin, command) = (names(&PROGRAM)?, names(&PLUGIN)?, names(&COMMAND)?);
    for name in ["wasmtime", "rustls", "ring", "serde_json", "std", "consul-session", "consul-session-plugin.wasm", "talc"] {
        assert!(program.contains(name), "{name} is linked into the program");
    }
    for name in ["serde_json", "talc", "wasi", "std"] {
        assert!(plugin.contains(name) && command.contains(name), "{name} is linked into the components");
    }
    assert!(!plugin.contains("wasmtime") && !plugin.contains("clap"), "what only the program has");
    // Of the tests, of a build script, and procedural macros.
    for name in ["rcgen", "tempfile", "cc", "cranelift-isle", "serde_derive", "syn"] {
        assert!(!program.contains(name), "{name} is not linked in");
    }
    Ok(())
}

#[test]
fn artifacts_hold_no_package_that_is_not_in_their_bill() -> Result<()> {
    for artifact in ARTIFACTS {
        let listed = crates(&bill(artifact)?);
        let mut named = named_in(&file(artifact)?);
        // Without this the test would say nothing.
        assert!(named.iter().any(|label| label.starts_with("serde_json ")), "{} names {named:?}", artifact.file);
        named
            .retain(|label| !listed.contains(label) && !OF_THE_TESTS.iter().any(|name| label.starts_with(&format!("{name} "))));
        assert!(named.is_empty(), "{} has {named:?}", artifact.file);
    }
    Ok(())
}

#[test]
fn bills_have_the_digest_of_their_artifact() -> Result<()> {
    for artifact in ARTIFACTS {
        let metadata = bill(artifact)?.metadata.context("no metadata")?;
        let component = metadata.component.context("no component")?;
        let digest = format!("{:x}", Sha256::digest(file(artifact)?));
        assert_eq!(component.hashes.context("no digest")?.0[0].content.0, digest, "{}", artifact.file);
    }
    Ok(())
}

#[test]
fn bill_of_a_second_run_has_the_same_bytes() -> Result<()> {
    let workspace = Workspace::read(root())?;
    for artifact in ARTIFACTS {
        let written = std::fs::read_to_string(dist()?.join(file_name(artifact, env!("CARGO_PKG_VERSION"))))?;
        let time = written.split("\"timestamp\": \"").nth(1).and_then(|rest| rest.split('"').next()).context("no time")?;
        assert_eq!(String::from_utf8(sbom(&workspace, artifact, file, time)?)?, written);
    }
    Ok(())
}

#[test]
fn licences_of_a_second_run_have_the_same_bytes_and_every_package() -> Result<()> {
    let workspace = Workspace::read(root())?;
    let licences = Licences::read(workspace.root())?.text(&workspace, &ARTIFACTS)?;
    assert_eq!(std::str::from_utf8(archived("LICENSES-THIRD-PARTY.txt")?)?, licences);
    let (list, texts) = licences.split_once("Rust's standard library").context("no standard library")?;
    for artifact in ARTIFACTS {
        for label in crates(&bill(artifact)?) {
            assert!(list.contains(&format!("\n{label}: ")), "the list does not have {label}");
            let heads = texts.lines().filter(|line| line.split(", ").any(|one| one == label));
            assert!(heads.count() > 0, "no text belongs to {label}");
        }
    }
    for text in [
        "The MIT License",
        "Apache License",
        "LLVM Exceptions to the Apache 2.0 License",
        "Mozilla Public License Version 2.0",
        "UNICODE LICENSE V3",
        "Copyright 2015-2025 Brian Smith.",
        "Redistributions in binary form must reproduce the above copyright",
        "Copyright notices for The Rust Standard Library",
    ] {
        assert!(texts.contains(text), "{text}");
    }
    Ok(())
}
