//! The report of a conformance run: the expected failures, and the table of `docs/runtimes.md`.

use crate::runtime::Runtime;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;
use test_support::case::Case;
use test_support::tools::root;

/// A limitation of some runtimes, as `tests/conformance/expected-failures.json` records it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFailure {
    /// The names of the runtimes.
    pub runtimes: BTreeSet<String>,
    /// The names of the cases that fail.
    pub cases: BTreeSet<String>,
    /// The difference, for the table.
    pub reason: String,
    /// The proof: the address of a public issue, or a script below `tests/conformance/` that
    /// succeeds while the limitation exists.
    pub probe: String,
}

impl ExpectedFailure {
    /// Returns whether this is about the case in this runtime.
    pub fn is_about(&self, runtime: &str, case: &str) -> bool {
        self.runtimes.contains(runtime) && self.cases.contains(case)
    }

    /// Returns the script, if the probe is one.
    pub fn script(&self) -> Option<&str> {
        (!self.probe.starts_with("https://")).then_some(&self.probe)
    }
}

/// Reads the expected failures. Each must name existing runtimes and cases.
pub fn expected_failures(runtimes: &[Runtime], cases: &[Case]) -> Result<Vec<ExpectedFailure>> {
    let file = root().join("tests/conformance/expected-failures.json");
    let all: Vec<ExpectedFailure> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    for expected in &all {
        for name in &expected.runtimes {
            ensure!(runtimes.iter().any(|runtime| runtime.name == name), "no runtime has the name {name:?}");
        }
        for name in &expected.cases {
            ensure!(cases.iter().any(|case| case.name == *name), "no case has the name {name:?}");
        }
    }
    Ok(all)
}

/// The results of one runtime.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The version of the runtime.
    pub version: String,
    /// The number of cases that ran.
    pub cases: usize,
    /// The number of cases that passed.
    pub passed: usize,
    /// The time that they took. It is not in the table, which is the same on every machine.
    pub time: Duration,
}

impl Tally {
    /// Returns whether enough cases passed to call the runtime supported.
    pub fn suffices(&self) -> bool {
        self.passed * 100 >= self.cases * 95
    }
}

/// Returns the table, with a line for each runtime.
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

/// Counts the lines that are neither blank nor only a comment, in Rust, Python, JavaScript and
/// HTML.
fn lines_of_code(text: &str) -> usize {
    let is_comment = |line: &str| ["//", "#", "\"\"\"", "<!--", "/*", "*"].iter().any(|start| line.starts_with(start));
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line)).count()
}

const BEGIN: &str = "<!-- runtimes: made by tests/conformance.rs -->\n";
const END: &str = "<!-- /runtimes -->";

/// The document with the table.
const DOCUMENT: &str = "docs/runtimes.md";

/// Compares the document's table with this one, or writes it there if `UPDATE_DOCS` is 1.
pub fn check_document(table: &str) -> Result<()> {
    let file = root().join(DOCUMENT);
    let text = std::fs::read_to_string(&file)?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no place for the table in {DOCUMENT}"))?;
    let (old, after) = rest.split_once(END).with_context(|| format!("no end of the table in {DOCUMENT}"))?;
    if std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}"))?;
        return Ok(());
    }
    ensure!(old == table, "{DOCUMENT} has another table; UPDATE_DOCS=1 on the same command writes this one:\n{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_comments_are_not_counted() {
        assert_eq!(lines_of_code("// a\n\nlet a = 1; // b\n  # c\n\"\"\"d\"\"\"\n<!-- e -->\nb()\n"), 2);
    }

    #[test]
    fn ninety_five_percent_suffices() {
        let tally = |passed| Tally { cases: 100, passed, ..Tally::default() };
        assert!(tally(95).suffices() && !tally(94).suffices());
    }
}
