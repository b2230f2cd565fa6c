//! What is downloaded is pinned: each file that names packages of npm, PyPI or Go's proxy has their
//! digests.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns the files of the repository with this name: `*` at its end stands for anything.
fn files(name: &str) -> Result<Vec<PathBuf>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", name, &format!("**/{name}")];
    let output = Command::new("git").args(list).current_dir(root()).output().context("git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let mut files: Vec<PathBuf> =
        String::from_utf8(output.stdout)?.split_terminator('\0').map(|file| root().join(file)).collect();
    files.sort();
    files.dedup();
    // Git lists a file that was removed until that is committed.
    files.retain(|file| file.is_file());
    ensure!(!files.is_empty(), "no {name}");
    Ok(files)
}

/// Returns the packages of a file for pip that have no hash or no single version.
fn unpinned_by_pip(requirements: &str) -> Vec<&str> {
    let joined = requirements.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut packages: Vec<(&str, bool)> = Vec::new();
    for line in joined.filter(|line| !line.trim().is_empty()) {
        if !line.starts_with(' ') {
            packages.push((line.trim_end_matches('\\').trim(), false));
        }
        if let Some((_, has_hash)) = packages.last_mut() {
            *has_hash |= line.contains("--hash=sha256:");
        }
    }
    packages
        .into_iter()
        .filter(|(package, has_hash)| !has_hash || !package.contains("=="))
        .map(|(package, _)| package)
        .collect()
}

/// Returns the packages of a lock file of npm without a digest.
fn unpinned_by_npm(lock: &Value) -> Vec<&str> {
    let packages = lock["packages"].as_object().into_iter().flatten();
    // The one without a name is the project.
    let packages = packages.filter(|(name, package)| !name.is_empty() && package["link"] != true);
    let unpinned =
        packages.filter(|(_, package)| !package["integrity"].as_str().is_some_and(|digest| digest.starts_with("sha512-")));
    unpinned.map(|(name, _)| name.as_str()).collect()
}

/// Returns the modules of a `go.mod` without a digest in its `go.sum`, apart from those of this
/// repository, which a path replaces.
fn unpinned_by_go<'a>(module: &'a str, sums: &str) -> Vec<&'a str> {
    let words = module.lines().map(|line| line.trim_start().trim_start_matches("require ").split_whitespace());
    let modules = words.filter_map(|mut words| Some((words.next()?, words.next().filter(|version| version.starts_with('v'))?)));
    let is_listed =
        |name: &str, version: &str| sums.lines().any(|line| line.starts_with(&format!("{name} {version}/go.mod h1:")));
    let is_ours = |name: &str| module.contains(&format!("{name} => ."));
    modules.filter(|(name, version)| !is_listed(name, version) && !is_ours(name)).map(|(name, _)| name).collect()
}

#[test]
fn wheels_have_a_version_and_a_hash() -> Result<()> {
    for file in files("requirements*.txt")? {
        let requirements = std::fs::read_to_string(&file)?;
        assert_eq!(unpinned_by_pip(&requirements), [""; 0], "{}", file.display());
    }
    let wrong = "# a==1\na==1 ; python_version > \"3\" \\\n    --hash=sha256:00\nb==1\nc>=1 \\\n    --hash=sha256:00\n";
    assert_eq!(unpinned_by_pip(wrong), ["b==1", "c>=1"]);
    Ok(())
}

#[test]
fn npm_packages_have_a_digest() -> Result<()> {
    for file in files("package.json")? {
        let lock = file.with_file_name("package-lock.json");
        let lock: Value = serde_json::from_slice(&std::fs::read(&lock).with_context(|| lock.display().to_string())?)?;
        assert!(lock["packages"].as_object().is_some_and(|packages| packages.len() > 1), "{}", file.display());
        assert_eq!(unpinned_by_npm(&lock), [""; 0], "{}", file.display());
    }
    let wrong =
        serde_json::json!({"packages": {"": {}, "a": {"integrity": "sha512-0"}, "b": {"integrity": "sha1-0"}, "c": {}}});
    assert_eq!(unpinned_by_npm(&wrong), ["b", "c"]);
    Ok(())
}

#[test]
fn go_modules_have_a_digest() -> Result<()> {
    for file in files("go.mod")? {
        let module = std::fs::read_to_string(&file)?;
        // There is none for a module without dependencies.
        let sums = std::fs::read_to_string(file.with_file_name("go.sum")).unwrap_or_default();
        assert_eq!(unpinned_by_go(&module, &sums), [""; 0], "{}", file.display());
    }
    let module = "module m\n\ngo 1.26\n\nrequire a/b v1.0.0\nrequire (\n\tc/d v2.0.0 // indirect\n\te/f v1.0.0\n)\nreplace e/f => ../f\n";
    assert_eq!(unpinned_by_go(module, "a/b v1.0.0 h1:0\na/b v1.0.0/go.mod h1:0\nc/d v1.0.0/go.mod h1:0\n"), ["c/d"]);
    Ok(())
}

#[test]
fn crates_have_a_digest() -> Result<()> {
    for file in files("Cargo.lock")? {
        let lock = std::fs::read_to_string(&file)?;
        for package in lock.split("[[package]]").skip(1).filter(|package| package.contains("\nsource = ")) {
            assert!(package.contains("\nchecksum = "), "{}: {package}", file.display());
        }
    }
    Ok(())
}

/// The wheels bring programs that the tests run: whoever runs the tests can read which.
#[test]
fn wheels_are_named_in_the_guide_for_contributors() -> Result<()> {
    let guide = std::fs::read_to_string(root().join("CONTRIBUTING.md"))?;
    for file in files("requirements*.txt")? {
        for line in std::fs::read_to_string(&file)?.lines() {
            let Some((name, _)) = line.split_once("==").filter(|_| !line.starts_with('#')) else { continue };
            assert!(
                guide.contains(&format!("`{name}`")),
                "CONTRIBUTING.md does not name the wheel `{name}` of {}",
                file.display()
            );
        }
    }
    Ok(())
}
