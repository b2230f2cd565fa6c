//! `cargo xtask soak`: very many calls, and hours of `watch` and `lock`, with what they use at the
//! beginning, in the middle and at the end. What grows between the middle and the end is an error.

mod calls;
mod hours;
mod programs;
mod sample;

use anyhow::{Context, Result, bail};
use calls::Leak;
use hours::Stop;
use sample::{Life, table};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use test_support::tools::root;
use tokio::signal::unix::{SignalKind, signal};

/// First argument to soak.
pub const SOAK: &str = "soak";

/// What to do. A part that is 0 is left out.
struct Plan {
    calls: u64,
    fresh: u64,
    hours: f64,
    /// For the results.
    folder: PathBuf,
    leak: Option<Leak>,
}

/// Without a part among the arguments, all parts.
const ALL: (u64, u64, f64) = (10_000_000, 1_000_000, 2.0);

impl Plan {
    fn new(args: &[String]) -> Result<Plan> {
        let mut plan = Plan { calls: 0, fresh: 0, hours: 0.0, folder: root().join("target/soak"), leak: None };
        for pair in args.chunks(2) {
            let [name, value] = pair else { bail!("`{}` needs a value", pair[0]) };
            let invalid = || format!("`{name} {value}` is not a valid number");
            match name.as_str() {
                "--calls" => plan.calls = value.parse().with_context(invalid)?,
                "--fresh" => plan.fresh = value.parse().with_context(invalid)?,
                "--hours" => plan.hours = value.parse().with_context(invalid)?,
                // For tests.
                "--to" => plan.folder = value.into(),
                "--leak" => plan.leak = Some(Leak::named(value)?),
                _ => bail!("unknown argument `{name}` (expected --calls, --fresh or --hours)"),
            }
        }
        if (plan.calls, plan.fresh, plan.hours) == (0, 0, 0.0) {
            (plan.calls, plan.fresh, plan.hours) = ALL;
        }
        Ok(plan)
    }
}

/// Runs the parts that the arguments name.
///
/// # Errors
///
/// An answer is wrong, or something leaks.
pub fn run(args: &[String]) -> Result<()> {
    let plan = Plan::new(args)?;
    fs::create_dir_all(&plan.folder)?;
    let mut leaks = Vec::new();
    if plan.calls + plan.fresh > 0 {
        let lives = calls::run(plan.calls, plan.fresh, plan.leak)?;
        let Plan { calls, fresh, .. } = plan;
        let line = format!("{calls} calls of one kept instance, {fresh} of a fresh one each. Every answer was checked.");
        let json = json!({ "calls": calls, "fresh": fresh });
        leaks.extend(report(&plan.folder, "calls", &lives, &[line], json)?);
    }
    if plan.hours > 0.0 {
        let time = Duration::try_from_secs_f64(plan.hours * 3600.0).context("the hours are not a valid number")?;
        let hours = hours::run(time, stop_at_signals()?, &plan.folder)?;
        leaks.extend(report(&plan.folder, "hours", &hours.lives, &hours.events, hours.json)?);
    }
    if !leaks.is_empty() {
        bail!("leaks:\n{}", leaks.join("\n"));
    }
    Ok(())
}

/// Prints the table and the lines, and writes them to a file of this name, and all samples to
/// another. Returns the leaks.
fn report(folder: &Path, name: &str, lives: &[Life], lines: &[String], more: Value) -> Result<Vec<String>> {
    let leaks: Vec<String> = lives.iter().flat_map(Life::leaks).collect();
    let lines: String = lines.iter().chain(&leaks).map(|line| format!("{line}\n")).collect();
    let text = format!("{}\n\nMemory in MiB, calls in µs.\n{lines}", table(lives));
    println!("{text}");
    fs::write(folder.join(format!("{name}.txt")), text)?;
    let json = json!({ "lives": lives, "leaks": leaks, "run": more });
    fs::write(folder.join(format!("{name}.json")), format!("{json:#}\n"))?;
    Ok(leaks)
}

/// Returns what SIGINT and SIGTERM set: they end the run before its time, with its table.
fn stop_at_signals() -> Result<&'static Stop> {
    let stop: &Stop = Box::leak(Box::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let [mut interrupt, mut terminate] = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.set();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &str) -> Result<Plan> {
        Plan::new(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn parts_that_are_not_named_are_left_out() -> Result<()> {
        for (args, parts) in
            [("", ALL), ("--calls 5", (5, 0, 0.0)), ("--hours 0.5 --fresh 7", (0, 7, 0.5)), ("--to /x --leak files", ALL)]
        {
            let plan = plan(args)?;
            assert_eq!((plan.calls, plan.fresh, plan.hours), parts, "{args}");
        }
        for args in ["--calls", "--calls x", "--leak x", "--x 1", "x"] {
            assert!(plan(args).is_err(), "{args}");
        }
        Ok(())
    }
}
