//! `cargo xtask fuzz`: runs the fuzz targets under coverage guidance, and saves what they find worth
//! keeping.

use crate::build;
use crate::tools::{cargo_install, consul, output, root, run_command, step};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The version of cargo-fuzz, which is installed.
const CARGO_FUZZ: &str = "0.13.2";

/// How long all targets together run, in minutes, if nothing else is asked for.
const MINUTES: NonZeroU64 = NonZeroU64::new(10).expect("not zero");

/// The longest input that is tried, in bytes, as libFuzzer takes it. With 4,096, its default,
/// `policy_rules` reaches 977 edges instead of 973, and runs a third as often.
const MAX_LENGTH: &str = "-max_len=512";

/// Bounds of what is saved of one target; `crates/fuzz/tests/replay.rs` has the same.
const MAX_FILES: usize = 500;
const MAX_BYTES: u64 = 100_000;

/// A binary of the package of the fuzz targets, and the features that it needs.
struct Target {
    name: String,
    features: Vec<String>,
}

/// What the run of a target has shown.
struct Run {
    executions: u64,
    time: Duration,
    /// The inputs that broke a promise.
    findings: Vec<PathBuf>,
}

/// Runs the targets, or the one that is named, each for its share of the time.
pub fn run(args: &[&str]) -> Result<()> {
    let (mut minutes, mut only, mut rest) = (MINUTES, None, args);
    while let [flag, value, others @ ..] = rest {
        match *flag {
            "--minutes" => minutes = value.parse().with_context(|| format!("invalid number of minutes `{value}`"))?,
            "--target" => only = Some(*value),
            other => bail!("unknown argument `{other}`: expected --minutes N, --target NAME"),
        }
        rest = others;
    }
    if let [other, ..] = rest {
        bail!("unknown argument `{other}`: expected --minutes N, --target NAME");
    }
    let mut targets = targets()?;
    let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    targets.retain(|target| only.is_none_or(|name| target.name == name));
    if targets.is_empty() {
        bail!("unknown target `{}`; the targets are {}", only.unwrap_or_default(), names.join(", "));
    }
    let tool = Tool::new()?;
    let needs = |feature: &str| targets.iter().any(|target| target.features.iter().any(|other| other == feature));
    let mut environment = Vec::new();
    if needs("consul") {
        environment.push(("CONSUL_BIN", step("a real Consul agent", consul)?));
    }
    if needs("host") {
        environment.push(("CONSUL_SESSION_PLUGIN", step("the component", build::run)?));
    }
    let share = Duration::from_secs(60 * minutes.get()) / u32::try_from(targets.len())?;
    let mut rows = Vec::new();
    for target in &targets {
        step(&format!("{}: the instrumented build", target.name), || run_command(&mut tool.command("build", target, &[])))?;
        let run = step(&format!("{}: {} s", target.name, share.as_secs()), || tool.run(target, share, &environment))?;
        if run.findings.is_empty() {
            step(&format!("{}: what is saved", target.name), || tool.minimise(target, &environment))?;
        }
        rows.push((target, run));
    }
    println!("| target | executions | per second | saved files | saved bytes | findings |");
    println!("|---|---|---|---|---|---|");
    for (Target { name, .. }, Run { executions, time, findings }) in &rows {
        let rate = *executions as f64 / time.as_secs_f64();
        let saved = sizes(&saved(name))?;
        let (files, bytes) = (saved.len(), saved.iter().map(|(_, length)| length).sum::<u64>());
        println!("| {name} | {executions} | {rate:.0} | {files} | {bytes} | {} |", findings.len());
    }
    let findings = || rows.iter().flat_map(|(target, run)| run.findings.iter().map(move |input| (*target, input)));
    for (target, input) in findings() {
        let program = Path::new("target/fuzz").join(&tool.triple).join("release").join(&target.name);
        println!("\n{} breaks a promise on {}; this repeats it:", target.name, input.display());
        println!("  {} {}", program.display(), input.display());
        println!("and in {}/ it is a test:", saved(&target.name).display());
        println!("  cargo test -p consul-session-fuzz --test replay");
    }
    if findings().next().is_some() {
        bail!("{} findings", findings().count());
    }
    Ok(())
}

fn package() -> PathBuf {
    root().join("crates").join("fuzz").join("targets")
}

/// Returns the folder of the saved inputs of a target.
fn saved(name: &str) -> PathBuf {
    root().join("crates").join("fuzz").join("corpus").join(name)
}

/// Returns the folder of all inputs of a target that were of use on this machine.
fn collected(name: &str) -> PathBuf {
    root().join("target").join("fuzz").join("corpus").join(name)
}

/// Returns the binaries of the package of the fuzz targets.
fn targets() -> Result<Vec<Target>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(package().join("Cargo.toml"));
    let metadata: Value = serde_json::from_str(&output(&mut cargo)?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let binaries = metadata["packages"][0]["targets"].as_array().into_iter().flatten();
    Ok(binaries.map(|target| Target { name: text(&target["name"]), features: list(&target["required-features"]) }).collect())
}

/// cargo-fuzz, on a nightly toolchain.
struct Tool {
    /// The folder of cargo-fuzz, in front of PATH.
    path: std::ffi::OsString,
    /// The platform, after which cargo names the folder of the programs.
    triple: String,
}

impl Tool {
    fn new() -> Result<Tool> {
        let version = output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"])).context(
            "libFuzzer's coverage guidance needs a nightly toolchain: rustup toolchain install nightly --profile minimal",
        )?;
        let triple = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?.to_owned();
        let programs = cargo_install("cargo-fuzz", CARGO_FUZZ, &[])?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(programs).chain(std::env::split_paths(&path));
        Ok(Tool { path: std::env::join_paths(folders)?, triple })
    }

    /// Returns a command of cargo-fuzz about a target. Without a sanitizer: what runs here has no
    /// unsafe code of ours, and is twice as fast.
    fn command(&self, command: &str, target: &Target, args: &[&Path]) -> Command {
        let mut fuzz = Command::new("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", command, "--release", "--sanitizer", "none", "--fuzz-dir"])
            .arg(package());
        fuzz.arg("--target-dir").arg(root().join("target").join("fuzz"));
        fuzz.args(target.features.iter().map(|feature| format!("--features={feature}")));
        fuzz.arg(&target.name).args(args).env("PATH", &self.path).env_remove("RUSTUP_TOOLCHAIN").current_dir(root());
        fuzz
    }

    /// Runs a target for this time, or until it breaks a promise.
    fn run(&self, target: &Target, time: Duration, environment: &[(&str, PathBuf)]) -> Result<Run> {
        let folder = collected(&target.name);
        fs::create_dir_all(&folder)?;
        let artifacts = package().join("artifacts").join(&target.name);
        let before = sizes(&artifacts).unwrap_or_default();
        let log = root().join("target").join("fuzz").join(format!("{}.log", target.name));
        let mut fuzz = self.command("run", target, &[&folder, &saved(&target.name)]);
        // An input that takes so long is a finding. libFuzzer's 10 s are too few for the first one, which
        // waits until the component is compiled.
        fuzz.args(["--", "-print_final_stats=1", "-timeout=30", "-report_slow_units=30", MAX_LENGTH]);
        fuzz.arg(format!("-max_total_time={}", time.as_secs()));
        fuzz.envs(environment.iter().map(|(name, value)| (name, value))).stderr(File::create(&log)?);
        let start = Instant::now();
        let status = fuzz.status()?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let executions = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        let mut findings: Vec<PathBuf> = sizes(&artifacts).unwrap_or_default().into_iter().map(|(file, _)| file).collect();
        findings.retain(|file| !before.iter().any(|(other, _)| other == file));
        if !status.success() && findings.is_empty() {
            bail!("{} cannot be run: see {}", target.name, log.display());
        }
        for line in text
            .lines()
            .skip_while(|line| !line.contains("panicked at"))
            .take_while(|line| !line.starts_with("==") && !line.contains("stack backtrace"))
        {
            println!("   {line}");
        }
        let executions = executions.and_then(|count| count.trim().parse().ok()).unwrap_or_default();
        Ok(Run { executions, time: start.elapsed(), findings })
    }

    /// Replaces the saved inputs by fewer and smaller ones that reach the same, within the bounds.
    /// Those with a name that somebody chose stay.
    fn minimise(&self, target: &Target, environment: &[(&str, PathBuf)]) -> Result<()> {
        let (saved, collected) = (saved(&target.name), collected(&target.name));
        let merged = root().join("target").join("fuzz").join("merged").join(&target.name);
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        let is_chosen = |file: &Path| file.file_name().is_some_and(|name| name.len() != 40);
        let (chosen, others): (Vec<_>, Vec<_>) = sizes(&saved)?.into_iter().partition(|(file, _)| is_chosen(file));
        for (file, _) in &chosen {
            fs::copy(file, merged.join(file.file_name().unwrap_or_default()))?;
        }
        let log = merged.with_extension("log");
        let mut fuzz = self.command("run", target, &[&merged, &saved, &collected]);
        // Those that reach new code, and not also those that reach it another number of times.
        fuzz.args(["--", "-set_cover_merge=1", "-use_counters=0", "-timeout=30"])
            .envs(environment.iter().map(|(name, value)| (name, value)));
        run_command(fuzz.stderr(File::create(&log)?)).with_context(|| format!("see {}", log.display()))?;
        for (file, _) in others {
            fs::remove_file(file)?;
        }
        let (mut files, mut bytes) = (chosen.len(), chosen.iter().map(|(_, length)| length).sum::<u64>());
        // The smallest ones first.
        let mut new: Vec<_> = sizes(&merged)?.into_iter().filter(|(file, _)| !is_chosen(file)).collect();
        new.sort_by(|(a, shorter), (b, longer)| shorter.cmp(longer).then(a.cmp(b)));
        for (file, length) in new {
            if files == MAX_FILES || bytes + length > MAX_BYTES {
                break;
            }
            (files, bytes) = (files + 1, bytes + length);
            fs::copy(&file, saved.join(file.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }
}

/// Returns the files of a folder and their lengths.
fn sizes(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))? {
        let entry = entry?;
        files.push((entry.path(), entry.metadata()?.len()));
    }
    Ok(files)
}
