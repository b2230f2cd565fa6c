//! The checker of histories, a program in Go beside this package, and its verdict.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use test_support::tools::root;

/// Returns the folder with the checker's Go module.
pub fn module() -> PathBuf {
    root().join("crates/torture/checker")
}

/// Returns Go with its arguments, to run in the checker's module.
pub fn go(args: &[&str]) -> Command {
    let mut go = Command::new("go");
    go.args(args).env("CGO_ENABLED", "0").current_dir(module());
    go
}

/// Builds the checker, which takes a moment if nothing has changed, and returns its program.
///
/// # Errors
///
/// Go is missing or cannot build it.
pub fn build() -> Result<PathBuf> {
    // One at a time: all write the same file.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock();
    let program = root().join("target/tools/torture-checker");
    let path = program.to_str().context("the path of the repository is not UTF-8")?;
    let output = go(&["build", "-trimpath", "-o", path, "."]).output().context("install Go 1.24 or newer")?;
    ensure!(output.status.success(), "the checker cannot be built: {}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

/// Builds the checker and judges a history.
///
/// # Errors
///
/// There is no verdict: the checker cannot be built, or the history cannot be read.
pub fn judge(history: &Path) -> Result<Verdict> {
    let output = Command::new(build()?).arg(history).output().context("the checker cannot be run")?;
    match output.status.code() {
        Some(0 | 1) => {}
        _ => bail!("{}: {}", history.display(), String::from_utf8_lossy(&output.stderr).trim()),
    }
    let verdict: Verdict = serde_json::from_slice(&output.stdout).context("the checker's verdict is not as expected")?;
    let is_right = verdict.wrong.is_empty() && verdict.undecided.is_empty();
    ensure!(verdict.right == is_right && output.status.success() == is_right, "the verdict contradicts itself:\n{verdict}");
    Ok(verdict)
}

/// What the checker says of a history. `Display` is for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether nothing is wrong, and everything was decided.
    pub right: bool,
    /// How many calls of each kind had which answer: `ok` or the case of an error.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// How much each check judged.
    pub judged: BTreeMap<String, BTreeMap<String, u64>>,
    /// The wrong answers that were excused, since Consul itself gives them.
    pub exceptions: Vec<Exception>,
    /// The names and keys for which the search ran out of time.
    pub undecided: Vec<String>,
    /// What is wrong.
    pub wrong: Vec<Wrong>,
}

/// A kind of wrong answer that Consul itself gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exception {
    /// What it is.
    pub what: String,
    /// How often it was made.
    pub count: u64,
    /// The numbers of the records: the answer, and the fault that explains it.
    pub examples: Vec<Vec<u64>>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wrong {
    /// The check that found it.
    pub check: String,
    /// The name, key, session or watch.
    pub subject: String,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// How often the same was found of it.
    pub times: u64,
    /// The shortest history that shows it, or the first one.
    pub history: Vec<Value>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>9} {:>9} {:>9} {:>9}", "calls", "all", "ok", "unknown", "errors")?;
        for (kind, answers) in &self.calls {
            let count = |answer: &str| answers.get(answer).copied().unwrap_or_default();
            let (all, ok, unknown) = (answers.values().sum::<u64>(), count("ok"), count("outcome-unknown"));
            writeln!(f, "{kind:<16} {all:>9} {ok:>9} {unknown:>9} {:>9}", all - ok - unknown)?;
        }
        for (check, counts) in &self.judged {
            let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
            write_wrapped(f, &format!("judged, {check}: {}", counts.join(", ")))?;
        }
        for exception in &self.exceptions {
            write_wrapped(f, &format!("excused {} times: {}", exception.count, exception.what))?;
        }
        for undecided in &self.undecided {
            write_wrapped(f, &format!("NOT DECIDED in time: {undecided}"))?;
        }
        for wrong in &self.wrong {
            let Wrong { check, subject, sentence, times, .. } = wrong;
            let times = if *times > 1 { format!(", {times} times") } else { String::new() };
            write_wrapped(f, &format!("WRONG ({check}{times}): {subject}: {sentence}; the shortest history:"))?;
            for record in &wrong.history {
                write_wrapped(f, &format!("  {}", in_words(record)))?;
            }
        }
        let result = if self.right { "right: all answers can be true" } else { "WRONG" };
        writeln!(f, "{result}: {} wrong, {} not decided", self.wrong.len(), self.undecided.len())
    }
}

/// Writes a line in 80 columns. What does not fit goes on below, indented.
fn write_wrapped(f: &mut fmt::Formatter<'_>, line: &str) -> fmt::Result {
    const WIDTH: usize = 80;
    let indent = line.len() - line.trim_start().len();
    let mut column = indent;
    write!(f, "{:indent$}", "")?;
    for (number, word) in line.split_whitespace().enumerate() {
        let length = word.chars().count();
        if number > 0 && column + 1 + length > WIDTH {
            column = indent + 2;
            write!(f, "\n{:column$}", "")?;
        } else if number > 0 {
            column += 1;
            f.write_str(" ")?;
        }
        f.write_str(word)?;
        column += length;
    }
    f.write_str("\n")
}

/// Returns a record for people: when, who, what, and the answer.
fn in_words(record: &Value) -> String {
    let seconds = |field: &str| {
        let micros = record[field].as_u64().unwrap_or_default();
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    };
    let mut words = format!("#{} {}-{} s", record["id"], seconds("start"), seconds("end"));
    words += &format!(" {} {}", text(&record["client"]), text(&record["kind"]));
    let hidden = ["id", "client", "host", "start", "end", "kind", "answer"];
    for (field, value) in record.as_object().into_iter().flatten().filter(|(field, _)| !hidden.contains(&field.as_str())) {
        if !is_empty(value) {
            words += &format!(" {field}={}", text(value));
        }
    }
    if let Some(answer) = record["answer"].as_object() {
        words += &format!(" -> {}", text(answer.get("is").unwrap_or(&Value::Null)));
        for (field, value) in answer.iter().filter(|(field, value)| *field != "is" && !is_empty(value)) {
            words += &format!(" {field}={}", text(value));
        }
    }
    words
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Returns a value without what makes JSON longer. A session is its id and its index.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => match (map.get("id"), map.get("index")) {
            (Some(id), Some(index)) => format!("{}@{index}", text(id)),
            _ => {
                let fields = map.iter().filter(|(_, value)| !value.is_null());
                format!("{{{}}}", fields.map(|(field, value)| format!("{field}={}", text(value))).collect::<Vec<_>>().join(" "))
            }
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn verdict_for_people_fits_in_80_columns() {
        let record = json!({
            "id": 7, "client": "library-1", "host": "c1", "server": 2, "start": 1_000_001, "end": 2_500_000, "kind": "present",
            "name": "x", "node": "n1", "wish": {"delay": 15000}, "replace": false,
            "answer": {"is": "outcome", "changed": true, "session": "0a", "destroyed": [], "sessions": [{"id": "0a", "index": 5}]},
        });
        let verdict = Verdict {
            right: false,
            calls: BTreeMap::from([("present".into(), BTreeMap::from([("ok".into(), 3), ("outcome-unknown".into(), 1)]))]),
            judged: BTreeMap::from([("sessions".into(), BTreeMap::from([("names".into(), 1)]))]),
            exceptions: vec![Exception { what: "an old state".into(), count: 2, examples: vec![vec![1, 2]] }],
            undecided: vec!["name y on n1".into()],
            wrong: vec![Wrong {
                check: "sessions".into(),
                subject: "name x on n1".into(),
                sentence: "no sequence of calls explains these answers".into(),
                times: 1,
                history: vec![record],
            }],
        };
        let shown = verdict.to_string();
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert!(shown.contains("present                  4         3         1         0\n"), "{shown}");
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(" #7 1.000001-2.500000 s library-1 present server=2 name=x "), "{shown}");
        assert!(words.contains(" session=0a sessions=[0a@5] "), "{shown}");
        assert!(shown.ends_with("WRONG: 1 wrong, 1 not decided\n"), "{shown}");
    }
}
