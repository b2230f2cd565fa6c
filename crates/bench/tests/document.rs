//! Tables and graph of `docs/performance.md` show the figures beside it. `UPDATE_DOCS=1 cargo xtask
//! bench --runs 3` writes all of them.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use test_support::tools::root;

const SHOWN: [&str; 2] = ["docs/performance.md", "docs/performance.svg"];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn tables_and_graph_are_those_of_the_figures() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    for file in SHOWN {
        std::fs::copy(root().join(file), folder.path().join(file)).unwrap();
    }
    let mut bench = Command::new(env!("CARGO_BIN_EXE_consul-session-bench"));
    let output = bench.arg("document").arg(root().join("docs/performance.json")).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in SHOWN {
        let (committed, made) = (root().join(file), folder.path().join(file));
        assert!(read(&committed) == read(&made), "{file} differs; `cargo xtask bench --document` writes it");
    }
}

#[test]
fn figures_are_those_of_whole_runs_and_name_no_path() {
    let text = read(&root().join("docs/performance.json"));
    let figures: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(figures["profile"], "dist");
    for run in figures["runs"].as_array().unwrap() {
        assert_eq!(run["left_out"], Value::Array(Vec::new()));
    }
    let paths: Vec<&str> = text.split(['"', ' ']).filter(|word| word.len() > 1 && word.starts_with('/')).collect();
    assert!(paths.is_empty(), "{paths:?}");
}
