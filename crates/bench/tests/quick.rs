//! The benchmark works, as `cargo xtask bench --quick` runs it. The figures are not tested: this is
//! a debug build on any machine.

use serde_json::Value;
use std::process::Command;
use test_support::in_ci;
use test_support::tools::root;

#[test]
fn quick_run_measures_every_subject_and_workload() {
    // The program of `crates/cli` is in the same folder when the whole workspace is tested.
    let output = Command::new(env!("CARGO_BIN_EXE_consul-session-bench")).arg("--quick").current_dir(root()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(root().join("target/bench-quick.json")).unwrap()).unwrap();
    let all = |list: &str, field: &str| -> Vec<Value> {
        json[list].as_array().unwrap().iter().map(|entry| entry[field].clone()).collect()
    };
    // In CI nothing is missing: eight workloads that are calls, by each of five subjects, and one
    // process of each of six programs.
    let left_out = json["left_out"].as_array().unwrap();
    assert!(left_out.is_empty() || !in_ci(), "{left_out:?}");
    if left_out.is_empty() {
        assert_eq!(all("times", "p50_ns").len(), 8 * 5 + 6, "{printed}");
    }
    assert!(all("times", "p50_ns").iter().chain(&all("figures", "value")).all(|value| value.as_f64() > Some(0.0)), "{printed}");
    for target in json["targets"].as_array().unwrap() {
        let what = target["what"].as_str().unwrap();
        // A target has no figure if it needs a real agent, and a figure otherwise.
        let real = what.contains("real agent") || what.contains("community.general");
        let absent = real || !left_out.is_empty();
        assert!(target["figure"].is_f64() || absent, "{target}");
        assert!(printed.contains(what), "{what} is not in {printed}");
    }
}
