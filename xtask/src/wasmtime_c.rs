//! `cargo xtask wasmtime-c`: wasmtime's C library with its headers, which no package of a registry
//! has together, and what is built with it.
//!
//! The library is in the wheel of wasmtime-py, the headers are in the crate of the C API. Both are
//! pinned by hash and must have the same version.

use crate::tools::{install, output, python, root, run_command};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate with the headers, which `xtask/tools/wasmtime-c/` pins.
const CRATE: &str = "wasmtime-c-api-impl";

/// Installs the library and prints what a compiler needs.
pub fn run() -> Result<()> {
    let folder = library(&python()?)?;
    let (include, lib) = (folder.join("include"), folder.join("lib"));
    println!("wasmtime's C library is in {}", folder.display());
    println!("compile with  -I{}", include.display());
    println!("link with     -L{lib} -lwasmtime -Wl,-rpath,{lib}", lib = lib.display());
    Ok(())
}

/// Returns the folder with `include/` and `lib/`.
pub fn library(python: &Path) -> Result<PathBuf> {
    let pins = root().join("xtask").join("tools").join("wasmtime-c");
    let files = [root().join("tests").join("requirements.txt"), pins.join("Cargo.toml"), pins.join("Cargo.lock")];
    install("wasmtime-c", &[&files[0], &files[1], &files[2]], |folder| {
        let (wheel, file) = wheel(python)?;
        let source = headers(&pins)?;
        let include = folder.join("include");
        copy_folder(&source.join("include"), &include)?;
        same_version(&wheel, &std::fs::read_to_string(include.join("wasmtime.h"))?)?;
        let features = std::fs::read_to_string(source.join("cmake").join("features.cmake"))?;
        let template = std::fs::read_to_string(include.join("wasmtime").join("conf.h.in"))?;
        std::fs::write(include.join("wasmtime").join("conf.h"), configured(&template, &features)?)?;
        let lib = folder.join("lib");
        std::fs::create_dir_all(&lib)?;
        // Python's name begins with `_`, which `-lwasmtime` does not find.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        std::fs::copy(&file, lib.join(name.trim_start_matches('_')))?;
        Ok(())
    })
}

/// Builds the conformance runner in Go, and returns the program.
pub fn go_runner(library: &Path) -> Result<PathBuf> {
    let program = root().join("target").join("tools").join("go-runner");
    let (include, lib) = (library.join("include"), library.join("lib"));
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").env("CGO_ENABLED", "1");
    go.env("CGO_CFLAGS", format!("-I{}", include.display()));
    go.env("CGO_LDFLAGS", format!("-L{lib} -Wl,-rpath,{lib}", lib = lib.display()));
    let runners = root().join("tests").join("conformance").join("runners");
    run_command(go.current_dir(runners.join("go"))).context("install Go 1.24 or newer and a C compiler (Debian: gcc)")?;
    Ok(program)
}

/// Returns the version of wasmtime-py and the library in its wheel.
fn wheel(python: &Path) -> Result<(String, PathBuf)> {
    let script = "import importlib.metadata, wasmtime._ffi\n\
                  print(importlib.metadata.version('wasmtime'), wasmtime._ffi.filename)";
    let text = output(Command::new(python).args(["-c", script])).context("wasmtime-py cannot be loaded")?;
    let (version, file) = text.trim().split_once(' ').with_context(|| text.clone())?;
    Ok((version.to_owned(), file.into()))
}

/// Returns the folder of the crate with the headers. Cargo downloads it, and compares it with the
/// checksum in `Cargo.lock`.
fn headers(pins: &Path) -> Result<PathBuf> {
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--locked", "--format-version", "1"]).current_dir(pins);
    let metadata: Value = serde_json::from_str(&output(&mut metadata)?)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = packages.iter().find(|package| package["name"] == CRATE);
    let manifest = package.and_then(|package| package["manifest_path"].as_str()).with_context(|| format!("no {CRATE}"))?;
    Ok(Path::new(manifest).parent().context("no folder")?.to_owned())
}

/// Checks that the library in the wheel has the version of the header `wasmtime.h`.
fn same_version(wheel: &str, header: &str) -> Result<()> {
    let (_, rest) = header.split_once("#define WASMTIME_VERSION \"").context("no WASMTIME_VERSION in wasmtime.h")?;
    let headers = rest.split('"').next().unwrap_or_default();
    ensure!(
        wheel == headers,
        "the library has version {wheel}, the headers have {headers}: \
         pin the same in tests/requirements.txt and xtask/tools/wasmtime-c/Cargo.toml"
    );
    Ok(())
}

/// Returns `conf.h`, as CMake would make it for a release: with the features that are on by default.
fn configured(template: &str, features: &str) -> Result<String> {
    let is_on = |name: &str| -> Result<bool> {
        let feature = name.trim_start_matches("WASMTIME_FEATURE_").to_lowercase().replace('_', "-");
        let default = features.lines().find_map(|line| line.strip_prefix(&format!("feature({feature} ")));
        match default {
            Some("ON)") => Ok(true),
            Some("OFF)") => Ok(false),
            _ => bail!("features.cmake has no default of {feature}"),
        }
    };
    let mut header = String::new();
    for line in template.lines() {
        match line.strip_prefix("#cmakedefine ") {
            Some(name) if is_on(name)? => header += &format!("#define {name}\n"),
            Some(name) => header += &format!("/* #undef {name} */\n"),
            None => header += &format!("{line}\n"),
        }
    }
    Ok(header)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy_folder(&path, &to)?,
            false => drop(std::fs::copy(&path, &to)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_are_on_by_default_are_defined() {
        let template = "#ifndef A\n#cmakedefine WASMTIME_FEATURE_WASI_HTTP\n#cmakedefine WASMTIME_FEATURE_ALL_ARCH\n#endif\n";
        let features = "option(X)\nfeature(wasi ON)\nfeature(wasi-http ON)\nfeature(all-arch OFF)\n";
        let header = configured(template, features).expect("a header");
        assert_eq!(header, "#ifndef A\n#define WASMTIME_FEATURE_WASI_HTTP\n/* #undef WASMTIME_FEATURE_ALL_ARCH */\n#endif\n");
        let error = configured(template, "feature(wasi-http ON)\n").expect_err("a feature without a default");
        assert_eq!(error.to_string(), "features.cmake has no default of all-arch");
    }

    #[test]
    fn headers_of_another_version_are_refused() {
        let header = "#define WASMTIME_VERSION \"50.0.1\"\n#define WASMTIME_VERSION_MAJOR 50\n";
        assert!(same_version("50.0.1", header).is_ok());
        let error = same_version("50.0.2", header).expect_err("another version");
        assert!(error.to_string().starts_with("the library has version 50.0.2, the headers have 50.0.1: pin"), "{error}");
        assert!(same_version("50.0.1", "").is_err());
    }
}
