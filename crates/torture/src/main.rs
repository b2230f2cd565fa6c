//! The program that `cargo xtask torture` runs.

use anyhow::{Context, Result, bail};
use consul_session_torture::report::Report;
use consul_session_torture::run::{HISTORY, Settings, own_folder, run};
use consul_session_torture::{checker, clients::child};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "Usage: consul-session-torture [--minutes N] [--seed S] [--keep FOLDER]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // The hidden command of the locks of a run.
    let result = match args.split_first() {
        Some((first, rest)) if first == child::ARGUMENT => child::run(rest),
        _ => torture(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn torture(args: &[String]) -> Result<ExitCode> {
    let (mut minutes, mut seed, mut folder) = (10.0, None, None);
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("`{flag}` needs a value\n{USAGE}"))?;
        match flag.as_str() {
            "--minutes" => minutes = value.parse().with_context(|| format!("invalid number of minutes `{value}`"))?,
            "--seed" => seed = Some(value.parse().with_context(|| format!("invalid seed `{value}`: not a number"))?),
            "--keep" => folder = Some(PathBuf::from(value)),
            _ => bail!("unknown flag `{flag}`\n{USAGE}"),
        }
    }
    let length = Duration::try_from_secs_f64(60.0 * minutes).context("invalid number of minutes")?;
    // Short, to be typed again.
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}");
    let folder = folder.map_or_else(|| own_folder(&seed.to_string()), Ok)?;
    let settings = Settings { seed, length, folder, torture: std::env::current_exe()? };
    let repeat = format!("cargo xtask torture --seed {seed} --minutes {minutes}");
    let results = run(&settings).with_context(|| format!("the run failed; to repeat it: {repeat}"))?;
    let report = Report::new(&settings, results)?;
    println!("{report}");
    let history = settings.folder.join(HISTORY);
    let verdict = checker::judge(&history)?;
    println!("{verdict}");
    if verdict.right && report.breaches().is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("false answers; the history: {}\nto repeat the run: {repeat}", history.display());
    Ok(ExitCode::FAILURE)
}
