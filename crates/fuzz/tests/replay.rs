//! Runs each target on its saved inputs, without coverage guidance.

use consul_session_fuzz::TARGETS;
#[cfg(all(feature = "consul", feature = "host"))]
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Bounds of what is saved: of one target, and of all.
const MAX_FILES: usize = 500;
const MAX_BYTES: u64 = 100_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files of a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Returns the names of the files of a folder, without their extensions.
#[cfg(all(feature = "consul", feature = "host"))]
fn names(folder: &Path) -> BTreeSet<String> {
    files(folder).iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn saved_inputs_keep_the_promises_of_their_targets() {
    let mut failed = Vec::new();
    for target in TARGETS {
        for file in files(&folder().join("corpus").join(target.name)) {
            let input = fs::read(&file).unwrap();
            if catch_unwind(|| (target.run)(&input)).is_err() {
                eprintln!("{} fails on {}", target.name, file.display());
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[cfg(all(feature = "consul", feature = "host"))]
#[test]
fn targets_have_a_binary_and_saved_inputs() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(names(&folder().join("corpus")), targets);
    let package = folder().join("targets");
    assert_eq!(names(&package.join("fuzz_targets")), targets);
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for name in &targets {
        let binary = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&binary), "no binary {name} in the manifest");
        let main = fs::read_to_string(package.join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert_eq!(
            main,
            format!("#![no_main]\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| consul_session_fuzz::{name}(data));\n")
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}

#[test]
fn saved_inputs_are_few_and_small() {
    for target in TARGETS {
        let files = files(&folder().join("corpus").join(target.name));
        let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(
            (1..=MAX_FILES).contains(&files.len()) && bytes <= MAX_BYTES,
            "{}: {} files, {bytes} bytes",
            target.name,
            files.len()
        );
    }
}
