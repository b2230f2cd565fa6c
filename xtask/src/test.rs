//! `cargo xtask test`: builds what the tests need, once, and runs every check and test.

use crate::tools::{
    CONSUL_VERSIONS, EMBEDDED, cargo, cargo_install, consul, consul_of_version, given, go_tool, install, output, python, root,
    run_command, step, wash, wasmtime, wasmtime_release, which,
};
use crate::{bench, build, compose, deny, dist, wasmtime_c, workflows};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs all checks and tests. `args` go to `cargo test`. The tests run on the newest Consul, and the
/// conformance cases on the others too; with `version` all run on that one alone.
pub fn run(version: Option<&str>, args: &[&str]) -> Result<()> {
    let plugin = step("the component", build::run)?;
    let wasip2 = step("the component by plain cargo", wasip2)?;
    step("the front for wasmCloud", front)?;
    step("the composition", || compose::run(&plugin))?;
    let (consul, older) = step("real Consul agents", || consuls(version))?;
    let python = step("wasmtime for Python and as a command line", python)?;
    let wasmtime = wasmtime(&python)?;
    step("the oldest and the newest wasmtime command line", || {
        ["wasmtime-oldest", "wasmtime-newest"].into_iter().try_for_each(|name| wasmtime_release(&python, name).map(drop))
    })?;
    step("wasmtime's C library, and the conformance runner in Go", || wasmtime_c::go_runner(&wasmtime_c::library(&python)?))?;
    wash(&python)?;
    step("an OCI registry", || go_tool("registry"))?;
    step("cargo deny", || deny::run(&python))?;
    step("actionlint", workflows::check)?;
    let go = step("Consul's Go client", bench::go)?;
    step("the tests of Consul's Go client", go_tests)?;
    step("jco and Playwright", npm)?;
    let chromium = step("Chromium", chromium)?;
    step("minisign, man and faketime", || {
        debian("minisign", "minisign", "0.11 or newer")?;
        debian("man", "man-db", "which shows manual pages")?;
        debian("faketime", "faketime", "whose library makes the clock of a program jump").map(drop)
    })?;
    step("cargo fmt", || cargo(&["fmt", "--all", "--check"], &[]))?;
    let clippy = [&["clippy", "--workspace", "--all-targets"], &EMBEDDED[..], &["--", "-D", "warnings"]].concat();
    step("cargo clippy", || cargo(&clippy, &[]))?;
    // Code for wasm32 only. One package at a time: together the command would get the plugin's
    // exports.
    for package in ["consul-session", "consul-session-command"] {
        let command = ["clippy", "-p", package, "--lib", "--target", build::TARGET, "--", "-D", "warnings"];
        step(&format!("cargo clippy for {package} on {}", build::TARGET), || cargo(&command, &[]))?;
    }
    step("cargo clippy for the guests", || {
        let guests = ["clippy", "-p", "leader-election", "-p", "nats-caller", "-p", "wasmcloud-front", "--lib"];
        cargo(&[&guests[..], &["--target", build::TARGET, "--", "-D", "warnings"]].concat(), &[])
    })?;
    step("cargo doc", || cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-Dwarnings".as_ref())]))?;
    let packages = step("the packages", packages)?;
    // Last, so that cargo's own summary ends the output.
    step("cargo test", || {
        let mut command = [&["test", "--workspace", "--no-fail-fast"], &EMBEDDED[..]].concat();
        command.extend(args);
        let mut environment = vec![
            (bench::GO, go.as_path()),
            ("CONSUL_BIN", &consul),
            ("WASMTIME_BIN", &wasmtime),
            ("CHROMIUM_BIN", &chromium),
            ("CONSUL_SESSION_DIST", &packages),
            ("CONSUL_SESSION_PLUGIN", &plugin),
            ("CONSUL_SESSION_WASIP2", &wasip2),
        ];
        environment.extend(older.iter().map(|older| ("CONSUL_OLDER_BIN", older.as_path())));
        cargo(&command, &environment)
    })
}

/// Returns the Consul for all tests, and an older one for the conformance cases. There is none
/// beside a Consul that the user chose, by version or by `CONSUL_BIN`, unless `CONSUL_OLDER_BIN`
/// names it.
fn consuls(version: Option<&str>) -> Result<(PathBuf, Option<PathBuf>)> {
    match version {
        Some(version) => Ok((consul_of_version(version)?, None)),
        None => match (consul()?, given("CONSUL_OLDER_BIN")?) {
            (consul, None) if std::env::var_os("CONSUL_BIN").is_none() => {
                Ok((consul, Some(consul_of_version(CONSUL_VERSIONS[1])?)))
            }
            given => Ok(given),
        },
    }
}

/// Runs the test of the plugin over NATS. It is separate because its tool takes long to compile.
pub fn distributed() -> Result<()> {
    let plugin = step("the component", build::run)?;
    let caller = step("its caller", || {
        let caller = root().join("dist").join("nats-caller.wasm");
        build::write(&caller, &build::component("nats-caller")?)?;
        Ok(caller)
    })?;
    let consul = step("a real Consul agent", consul)?;
    let wrpc = step("wRPC", wrpc)?;
    let nats = step("a NATS server", nats)?;
    let environment = [
        ("CALLER", caller.as_path()),
        ("CONSUL_BIN", &consul),
        ("CONSUL_SESSION_PLUGIN", &plugin),
        ("NATS_BIN", &nats),
        ("WRPC_BIN", &wrpc),
    ];
    step("cargo test", || cargo(&["test", "-p", "nats-caller", "--test", "nats"], &environment))
}

/// Returns wRPC's tool: `WRPC_BIN`, or built from source. 0.17.0, since 0.18.0 dropped NATS.
fn wrpc() -> Result<PathBuf> {
    if let Some(path) = given("WRPC_BIN")? {
        return Ok(path);
    }
    let options = ["--bin", "wrpc-wasmtime", "--no-default-features", "--features", "bin-wasmtime,nats"];
    Ok(cargo_install("wrpc", "0.17.0", &options)?.join("wrpc-wasmtime"))
}

/// Returns a NATS server: `NATS_BIN`, or built from its Go module.
fn nats() -> Result<PathBuf> {
    if let Some(path) = given("NATS_BIN")? {
        return Ok(path);
    }
    let folder = root().join("target").join("tools").join("nats");
    let mut go = Command::new("go");
    go.args(["install", "github.com/nats-io/nats-server/v2@v2.15.2"]).env("GOBIN", &folder).env("CGO_ENABLED", "0");
    run_command(&mut go).context("the NATS server cannot be built: install Go 1.24 or newer, or set NATS_BIN")?;
    Ok(folder.join("nats-server"))
}

/// Returns the packages to test: those that `CONSUL_SESSION_DIST` names, such as those of a release, or
/// new ones with the program that the tests build.
fn packages() -> Result<PathBuf> {
    if let Some(path) = given("CONSUL_SESSION_DIST")? {
        return Ok(path);
    }
    let folder = root().join("target").join("dist-test");
    dist::debug_to(&folder)?;
    Ok(folder)
}

/// Builds the plugin with plain cargo for `wasm32-wasip2`, which adds imports of `wasi:cli`.
fn wasip2() -> Result<PathBuf> {
    build::add_target(build::WASIP2)?;
    cargo(&["build", "--locked", "--release", "--target", build::WASIP2], &[])?;
    Ok(build::target_directory()?.join(build::WASIP2).join("release").join("consul_session.wasm"))
}

/// Builds the component of `examples/wasmcloud` where its README says.
fn front() -> Result<()> {
    cargo(&["build", "--locked", "--release", "--target", build::WASIP2, "-p", "wasmcloud-front"], &[])
}

/// Installs what the lock file of the runners pins from npm.
fn npm() -> Result<PathBuf> {
    let runners = root().join("tests").join("conformance").join("runners");
    let files = ["package.json", "package-lock.json"].map(|file| runners.join(file));
    install("npm", &[&files[0], &files[1]], |folder| {
        std::fs::create_dir_all(folder)?;
        for file in &files {
            std::fs::copy(file, folder.join(file.file_name().unwrap_or_default()))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder);
        run_command(&mut npm).context("install Node 20 or newer with its npm")
    })
}

/// Builds the tests of Consul's Go client that `tests/consul_api.rs` runs.
///
/// They are in Go's module cache, of the version that `tests/consul-api/go.mod` pins, and belong to
/// the package that they test. So the package is copied next to a helper that replaces theirs.
fn go_tests() -> Result<PathBuf> {
    const TESTS: [&str; 3] = ["lock_test.go", "semaphore_test.go", "session_test.go"];
    const MODULE: &str = "github.com/hashicorp/consul/api";
    let project = root().join("tests").join("consul-api");
    let files = ["go.mod", "go.sum", "agent_test.go"].map(|file| project.join(file));
    install("consul-api", &[&files[0], &files[1], &files[2]], |folder| {
        let go = |args: &[&str], directory: &Path| {
            let mut go = Command::new("go");
            go.args(args).env("CGO_ENABLED", "0").current_dir(directory);
            go
        };
        let advice = "install Go 1.24 or newer";
        // Compares the module with its checksum in go.sum.
        run_command(&mut go(&["mod", "download", MODULE], &project)).context(advice)?;
        let module = PathBuf::from(output(&mut go(&["list", "-m", "-f", "{{.Dir}}", MODULE], &project))?.trim());
        std::fs::create_dir_all(folder)?;
        let copy = |file: &Path| std::fs::copy(file, folder.join(file.file_name().unwrap_or_default()));
        for entry in std::fs::read_dir(&module).with_context(|| format!("no {MODULE} at {}", module.display()))? {
            let file = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if TESTS.contains(&&*name) || name.ends_with(".go") && !name.ends_with("_test.go") {
                copy(&file)?;
            }
        }
        for file in &files {
            copy(file)?;
        }
        run_command(&mut go(&["test", "-c", "-trimpath", "-o", "consul-api.test", "."], folder)).context(advice)
    })
}

/// Returns the browser: `CHROMIUM_BIN`, or Debian's, which is installed where possible.
fn chromium() -> Result<PathBuf> {
    if let Some(path) = given("CHROMIUM_BIN")? {
        return Ok(path);
    }
    debian("chromium", "chromium", "137 or newer, or let CHROMIUM_BIN name it")
}

/// Returns a program on PATH, or installs it from a package of Debian where possible.
fn debian(name: &str, package: &str, advice: &str) -> Result<PathBuf> {
    if let Ok(path) = which(name) {
        return Ok(path);
    }
    println!("installing {name} from Debian's packages");
    let advice = format!("install {name} (Debian, as root: apt-get install {package}), {advice}");
    run_command(Command::new("apt-get").args(["update", "--quiet=2"])).context(advice.clone())?;
    let install = ["install", "--yes", "--quiet=2", "--no-install-recommends", package];
    run_command(Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive")).context(advice.clone())?;
    which(name).context(advice)
}
