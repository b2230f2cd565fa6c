//! What the conformance run says: which failures are expected, and the table of the README.

use crate::runtime::Runtime;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;
use test_support::case::Case;
use test_support::tools::root;

/// What some runtimes cannot do, as `tests/conformance/expected-failures.json` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFailure {
    /// Names of runtimes.
    pub runtimes: BTreeSet<String>,
    /// Names of cases.
    pub cases: BTreeSet<String>,
    /// For the table: what is different.
    pub reason: String,
    /// What proves it: the address of a public issue, or a script below `tests/conformance/` that succeeds as long as it is so.
    pub probe: String,
}

impl ExpectedFailure {
    /// Whether this is about the case in this runtime.
    pub fn is_about(&self, runtime: &str, case: &str) -> bool {
        self.runtimes.contains(runtime) && self.cases.contains(case)
    }

    /// The script, if the probe is one.
    pub fn script(&self) -> Option<&str> {
        (!self.probe.starts_with("https://")).then_some(&self.probe)
    }
}

/// Reads the expected failures, all of which must be of runtimes and cases that there are.
pub fn expected_failures(runtimes: &[Runtime], cases: &[Case]) -> Result<Vec<ExpectedFailure>> {
    let file = root().join("tests/conformance/expected-failures.json");
    let all: Vec<ExpectedFailure> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    for expected in &all {
        for name in &expected.runtimes {
            ensure!(runtimes.iter().any(|runtime| runtime.name == name), "no runtime is named {name:?}");
        }
        for name in &expected.cases {
            ensure!(cases.iter().any(|case| case.name == *name), "no case is named {name:?}");
        }
    }
    Ok(all)
}

/// How the cases went in one runtime.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Which version it was.
    pub version: String,
    /// How many cases were run.
    pub cases: usize,
    /// How many of them passed.
    pub passed: usize,
    /// How long they took. Not in the table, which is the same on every machine.
    pub time: Duration,
}

impl Tally {
    /// Whether so many passed that the runtime may be called supported.
    pub fn suffices(&self) -> bool {
        self.passed * 100 >= self.cases * 95
    }
}

/// The table: a line for each runtime.
pub fn table(rows: &[(&Runtime, Tally)], expected: &[ExpectedFailure]) -> Result<String> {
    let mut table =
        "| runtime | version | cases passed | what differs | lines of host code |\n|---|---|---|---|---|\n".to_owned();
    for (runtime, tally) in rows {
        let reasons = expected.iter().filter(|expected| expected.runtimes.contains(runtime.name));
        let differs: Vec<&str> = std::iter::once(runtime.note)
            .filter(|note| !note.is_empty())
            .chain(reasons.map(|one| one.reason.as_str()))
            .collect();
        let lines = match runtime.host_code {
            Some(file) => lines_of_code(&std::fs::read_to_string(root().join("tests/conformance/runners").join(file))?),
            None => 0,
        };
        let (name, differs) = (runtime.name, differs.join("; "));
        let Tally { version, cases, passed, .. } = tally;
        writeln!(table, "| {name} | {version} | {passed} / {cases} | {differs} | {lines} |")?;
    }
    Ok(table)
}

/// Lines that are neither blank nor only a comment, in Rust, Python, JavaScript and HTML.
fn lines_of_code(text: &str) -> usize {
    let is_comment = |line: &str| ["//", "#", "\"\"\"", "<!--", "/*", "*"].iter().any(|start| line.starts_with(start));
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line)).count()
}

const BEGIN: &str = "<!-- runtimes: made by tests/conformance.rs -->\n";
const END: &str = "<!-- /runtimes -->";

/// Compares the README's table with this one, or writes it there if `UPDATE_README` is 1.
pub fn check_readme(table: &str) -> Result<()> {
    let file = root().join("README.md");
    let readme = std::fs::read_to_string(&file)?;
    let (before, rest) = readme.split_once(BEGIN).context("no place for the table in README.md")?;
    let (old, after) = rest.split_once(END).context("no end of the table in README.md")?;
    if std::env::var("UPDATE_README").is_ok_and(|value| value == "1") {
        std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}"))?;
        return Ok(());
    }
    ensure!(old == table, "README.md has another table; UPDATE_README=1 on the same command writes this one:\n{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_comments_are_no_code() {
        assert_eq!(lines_of_code("// a\n\nlet a = 1; // b\n  # c\n\"\"\"d\"\"\"\n<!-- e -->\nb()\n"), 2);
    }

    #[test]
    fn ninety_five_per_cent() {
        let tally = |passed| Tally { cases: 100, passed, ..Tally::default() };
        assert!(tally(95).suffices() && !tally(94).suffices());
    }
}
