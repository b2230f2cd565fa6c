//! That the benchmark works, as `cargo xtask bench --quick` runs it. Never what it measures: this is a debug build on any machine.

use serde_json::Value;
use std::process::Command;
use test_support::in_ci;
use test_support::tools::root;

#[test]
fn every_peer_does_every_work() {
    // The program of `crates/cli` lies beside it when the whole workspace is tested.
    let output = Command::new(env!("CARGO_BIN_EXE_consul-session-bench")).arg("--quick").current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(root().join("target/bench-quick.json")).unwrap()).unwrap();
    let all = |list: &str, field: &str| -> Vec<Value> {
        json[list].as_array().unwrap().iter().map(|entry| entry[field].clone()).collect()
    };
    // Nothing is missing in CI: eight works that are calls by each of five peers, and a process of each of six programs.
    let left_out = json["left_out"].as_array().unwrap();
    assert!(left_out.is_empty() || !in_ci(), "{left_out:?}");
    if left_out.is_empty() {
        assert_eq!(all("times", "p50_ns").len(), 8 * 5 + 6, "{said}");
    }
    assert!(all("times", "p50_ns").iter().chain(&all("beside", "value")).all(|value| value.as_f64() > Some(0.0)), "{said}");
    for target in json["targets"].as_array().unwrap() {
        let what = target["what"].as_str().unwrap();
        // What needs a real agent has no figure here, and everything else has one.
        let real = what.contains("real agent") || what.contains("community.general");
        let absent = real || !left_out.is_empty();
        assert!(target["figure"].is_f64() || absent, "{target}");
        assert!(said.contains(what), "{what} is not in {said}");
    }
}
