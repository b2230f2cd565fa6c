//! The graph of `docs/performance.md` shows the figures beside it. `UPDATE_DOCS=1 cargo xtask bench`
//! writes both files.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use test_support::tools::root;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn graph_is_drawn_from_the_figures() {
    let [figures, graph] = ["docs/performance.json", "docs/performance.svg"].map(|path| root().join(path));
    let folder = tempfile::tempdir().unwrap();
    let drawn = folder.path().join("performance.svg");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_consul-session-bench"));
    let output = bench.arg("graph").arg(figures).arg(&drawn).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::copy(&drawn, &graph).unwrap();
    }
    assert!(read(&graph) == read(&drawn), "docs/performance.svg differs; `cargo xtask bench --graph` draws it");
}

#[test]
fn figures_are_those_of_a_whole_run_and_name_no_path() {
    let text = read(&root().join("docs/performance.json"));
    let figures: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(figures["profile"], "dist");
    for run in figures["runs"].as_array().unwrap() {
        assert_eq!(run["left_out"], Value::Array(Vec::new()));
    }
    let paths: Vec<&str> = text.split(['"', ' ']).filter(|word| word.len() > 1 && word.starts_with('/')).collect();
    assert!(paths.is_empty(), "{paths:?}");
}
