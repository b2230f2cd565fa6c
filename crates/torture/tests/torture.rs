//! Two minutes of faults: every answer is true, and the run was a real one.
//!
//! `TORTURE_SEED=7 cargo test -p consul-session-torture --test torture -- --nocapture` has other faults.
//! `cargo xtask torture` has more.

use anyhow::{Context, Result, ensure};
use consul_session_torture::checker;
use consul_session_torture::history::FaultKind;
use consul_session_torture::report::Report;
use consul_session_torture::run::{HISTORY, Settings, own_folder, run};
use std::path::PathBuf;
use std::time::Duration;

/// The seed, without `TORTURE_SEED` in the environment. It has a partition early.
const SEED: u64 = 1;
/// How long faults are made.
const LENGTH: Duration = Duration::from_secs(100);
/// The fewest calls of a run that was real.
const OPERATIONS: u64 = 500;
/// What must have succeeded at least once.
const KINDS: [&str; 15] = [
    "present",
    "absent",
    "renew",
    "read",
    "create",
    "destroy",
    "acquire",
    "release",
    "write",
    "read-register",
    "acquire-slot",
    "release-slot",
    "hold",
    "hold-slot",
    "watch",
];

#[test]
fn clients_of_a_cluster_with_faults_get_no_false_answer() -> Result<()> {
    let seed = match std::env::var("TORTURE_SEED") {
        Ok(seed) => seed.parse().context("TORTURE_SEED")?,
        Err(_) => SEED,
    };
    println!("seed {seed}");
    let settings = Settings {
        seed,
        length: LENGTH,
        folder: own_folder("test")?,
        torture: PathBuf::from(env!("CARGO_BIN_EXE_consul-session-torture")),
    };
    let results = run(&settings).with_context(|| format!("seed {seed}"))?;
    let report = Report::new(&settings, results)?;
    println!("{report}");
    let verdict = checker::judge(&settings.folder.join(HISTORY))?;
    println!("{verdict}");
    ensure!(report.breaches().is_empty(), "seed {seed}: {:?}", report.breaches());
    ensure!(verdict.right, "seed {seed}: false answers, see above and {}", settings.folder.display());
    ensure!(report.leader_changes() >= 1, "seed {seed}: no leader was changed");
    ensure!(report.faults(FaultKind::Partition) >= 1, "seed {seed}: no partition");
    ensure!(report.operations() >= OPERATIONS, "seed {seed}: {} calls", report.operations());
    for kind in KINDS {
        ensure!(report.successes(kind) > 0, "seed {seed}: no `{kind}` succeeded");
    }
    Ok(())
}
