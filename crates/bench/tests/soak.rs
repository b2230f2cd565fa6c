//! The soak works: a small one finds nothing, and what leaks is found. The times are not tested:
//! this is a debug build on any machine.

use serde_json::Value;
use std::process::Command;
use tempfile::TempDir;
use test_support::consul::Consul;

/// Soaks with these arguments, and returns whether that succeeded, what was written to the file of
/// this part, and what was printed.
fn soak(args: &str, part: &str) -> (bool, Value, String) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_consul-session-bench"));
    command.arg("soak").args(args.split(' ')).arg("--to").arg(folder.path());
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let file = std::fs::read(folder.path().join(format!("{part}.json"))).unwrap_or_default();
    (output.status.success(), serde_json::from_slice(&file).unwrap_or_default(), printed)
}

#[test]
fn calls_use_as_much_in_the_end_as_in_the_middle() {
    let (succeeded, file, printed) = soak("--calls 9000 --fresh 900", "calls");
    assert!(succeeded, "{printed}");
    let lives = file["lives"].as_array().unwrap();
    assert_eq!(lives.iter().map(|life| &life["name"]).collect::<Vec<_>>(), ["kept", "fresh"]);
    for life in lives {
        let samples = life["samples"].as_array().unwrap();
        assert!(samples.len() >= 100, "{}", samples.len());
        for figure in ["resident", "anonymous", "peak", "files", "threads", "blocks", "linear", "call_ns"] {
            assert!(samples.iter().all(|sample| sample[figure].as_u64() > Some(0)), "{figure}: {life}");
        }
        // Exactly, where nothing else of the process changes them. A call that comes before the connection
        // of the last one is free again opens another, so files may be one more.
        for figure in ["threads", "linear"] {
            assert_eq!(samples[50][figure], samples[99][figure], "{figure}: {life}");
        }
    }
    let lines = printed.lines().filter(|line| line.starts_with('|'));
    assert!(lines.clone().count() == 2 + 6 && lines.clone().all(|line| line.chars().count() <= 80), "{printed}");
}

#[test]
fn leaks_of_each_kind_are_found() {
    for (leak, figure) in
        [("memory", "bytes of memory"), ("blocks", "blocks of the heap"), ("files", "open files"), ("threads", "threads")]
    {
        let (succeeded, file, printed) = soak(&format!("--calls 900 --leak {leak}"), "calls");
        let leaks = file["leaks"].as_array().unwrap();
        let found = leaks.iter().any(|leak| leak.as_str().unwrap().starts_with(&format!("kept: {figure} grew from")));
        assert!(!succeeded && found, "{leak}: {printed}");
        assert!(leaks.iter().all(|leak| printed.contains(leak.as_str().unwrap())), "{printed}");
    }
}

/// Some seconds are too short to tell a leak from the beginning of a process, which is left out here.
#[test]
fn watch_and_lock_agree_with_an_agent_that_came_and_went() {
    if Consul::is_missing() {
        return;
    }
    // The program of `crates/cli` is in the same folder when the whole workspace is tested.
    let (_, file, printed) = soak("--hours 0.005", "hours");
    let run = &file["run"];
    for figure in ["killed", "halted", "created", "taken", "processes"] {
        assert!(run[figure].as_u64() > Some(0), "{figure}: {run} {printed}");
    }
    assert!(run["watch"]["came"].as_u64() > Some(0) && file["lives"].as_array().unwrap().len() == 4, "{printed}");
}
