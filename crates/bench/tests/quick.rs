//! The benchmark works, as `cargo xtask bench --quick` runs it. The figures are not tested: this is
//! a debug build on any machine.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use test_support::in_ci;
use test_support::tools::root;

/// Measures the plugin against another one, on the canned server.
fn quick_run(against: &Path) -> Output {
    // The program of `crates/cli` is in the same folder when the whole workspace is tested.
    let mut bench = Command::new(env!("CARGO_BIN_EXE_consul-session-bench"));
    bench.args(["--quick", "--against"]).arg(against).current_dir(root()).output().unwrap()
}

#[test]
fn quick_run_measures_every_subject_and_workload() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.wasm");
    std::fs::copy(test_support::plugin().unwrap(), &other).unwrap();
    let output = quick_run(&other);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(root().join("target/bench-quick.json")).unwrap()).unwrap();
    let [run] = &json["runs"].as_array().unwrap()[..] else { panic!("{json}") };
    let [times, figures] = ["times", "figures"].map(|list| run[list].as_array().unwrap());
    // In CI nothing is missing: eight workloads that are calls, by each of eight subjects, and one
    // process of each of six programs.
    let left_out = run["left_out"].as_array().unwrap();
    assert!(left_out.is_empty() || !in_ci(), "{left_out:?}");
    if left_out.is_empty() {
        assert_eq!(times.len(), 8 * 8 + 6, "{printed}");
    }
    assert!(times.iter().all(|row| row["p50_ns"].as_u64() > Some(0)), "{printed}");
    for figure in figures {
        // A call of a kept instance need not have a page fault.
        let least = if figure["unit"] == "page faults" { 0.0 } else { f64::MIN_POSITIVE };
        assert!(figure["value"].as_f64() >= Some(least), "{figure}");
    }
    for target in json["targets"].as_array().unwrap() {
        let what = target["what"].as_str().unwrap();
        // A target has no figure if it needs a real agent, and a figure otherwise.
        let real = what.contains("real agent");
        let absent = real || !left_out.is_empty();
        assert!(target["figure"].is_f64() || absent, "{target}");
        assert!(printed.contains(what), "{what} is not in {printed}");
    }
    let (_, against) = printed.split_once("## Time as a multiple of that of other.wasm").unwrap();
    let (against, _) = against.split_once("\n## ").unwrap();
    let compared = against.lines().filter(|line| line.contains("| canned server |"));
    assert_eq!(compared.count(), 8, "{against}");
}

#[test]
fn plugins_that_the_host_cannot_call_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [nothing, renamed] = ["nothing.wasm", "renamed.wasm"].map(|name| folder.path().join(name));
    // A component without exports.
    std::fs::write(&nothing, b"\0asm\x0d\0\x01\0").unwrap();
    // A field of another name makes another type.
    let mut plugin = std::fs::read(test_support::plugin().unwrap()).unwrap();
    let (field, other) = (b"lock-delay", b"lock-relay");
    for at in 0..plugin.len() - field.len() {
        if plugin[at..].starts_with(field) {
            plugin[at..at + field.len()].copy_from_slice(other);
        }
    }
    std::fs::write(&renamed, plugin).unwrap();
    for (against, reason) in [(nothing, "exports no"), (renamed, "lock-relay")] {
        let output = quick_run(&against);
        let printed = String::from_utf8_lossy(&output.stderr);
        let name = against.file_name().unwrap().to_str().unwrap();
        assert!(!output.status.success() && printed.contains(name) && printed.contains(reason), "{printed}");
        // The first line of progress.
        assert!(!printed.contains("other figures"), "{printed}");
    }
}
