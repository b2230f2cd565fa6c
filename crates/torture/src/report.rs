//! The report of a run, for 80 columns.

use crate::history::FaultKind;
use crate::run::{HISTORY, Results, Settings};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// What a run did, and how many of its calls succeeded.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    /// How long faults were made, in seconds.
    length: u64,
    results: Results,
    /// The calls by kind: at servers that a fault touched meanwhile, and at the others.
    calls: BTreeMap<String, [Counts; 2]>,
    /// The records that are no calls, by kind.
    events: BTreeMap<String, u64>,
    /// The writes and reads that the registers refused, since they had seen a higher fencing number.
    refused: u64,
}

/// The calls of a kind by their answers.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// The call did what it is for, or said why that is not so: `mismatch`, `not-found`.
    succeeded: u64,
    unknown: u64,
    /// The call could not do it, and has changed nothing.
    failed: u64,
}

impl Counts {
    fn all(self) -> u64 {
        self.succeeded + self.unknown + self.failed
    }
}

/// What the report needs of a record.
#[derive(Deserialize)]
struct Line {
    kind: String,
    server: Option<usize>,
    start: u64,
    end: u64,
    answer: Option<Answer>,
    fault: Option<FaultKind>,
    #[serde(default)]
    servers: Vec<usize>,
}

#[derive(Deserialize)]
struct Answer {
    is: String,
    #[serde(default)]
    case: String,
}

/// A fault that touched servers.
struct Touch {
    start: u64,
    end: u64,
    /// None for all.
    servers: Option<Vec<usize>>,
}

impl Touch {
    fn touched(&self, line: &Line) -> bool {
        let server = line.server.is_some_and(|server| self.servers.as_ref().is_none_or(|servers| servers.contains(&server)));
        server && self.start <= line.end && line.start <= self.end
    }
}

impl Report {
    /// Reads the history of a run.
    pub fn new(settings: &Settings, results: Results) -> Result<Report> {
        let history = settings.folder.join(HISTORY);
        let touches = touches(&history)?;
        let mut report = Report {
            seed: settings.seed,
            length: settings.length.as_secs(),
            results,
            calls: BTreeMap::new(),
            events: BTreeMap::new(),
            refused: 0,
        };
        for line in lines(&history)? {
            report.count(line?, &touches);
        }
        Ok(report)
    }

    fn count(&mut self, line: Line, touches: &[Touch]) {
        let Some(answer) = &line.answer else {
            *self.events.entry(line.kind).or_default() += 1;
            return;
        };
        let touched = touches.iter().any(|touch| touch.touched(&line));
        let calls = self.calls.entry(line.kind).or_default();
        let counts = &mut calls[usize::from(!touched)];
        match (answer.is.as_str(), answer.case.as_str()) {
            ("error", "outcome-unknown") => counts.unknown += 1,
            ("error", "mismatch" | "not-found") => counts.succeeded += 1,
            ("error", _) => counts.failed += 1,
            ("refused", _) => {
                self.refused += 1;
                counts.succeeded += 1;
            }
            _ => counts.succeeded += 1,
        }
    }

    /// Returns the number of calls.
    pub fn operations(&self) -> u64 {
        self.calls.values().flatten().map(|counts| counts.all()).sum()
    }

    /// Returns how many records of this kind there are: of calls, those that succeeded.
    pub fn successes(&self, kind: &str) -> u64 {
        let calls = self.calls.get(kind).into_iter().flatten().map(|counts| counts.succeeded).sum::<u64>();
        calls + self.events.get(kind).copied().unwrap_or_default()
    }

    /// Returns how many faults of this kind were made.
    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.results.tally.faults.get(&kind).copied().unwrap_or_default()
    }

    /// Returns how often another server became the leader.
    pub fn leader_changes(&self) -> u64 {
        self.results.tally.leader_changes
    }

    /// Returns what no call may do, and some did.
    pub fn breaches(&self) -> &[String] {
        &self.results.breaches
    }
}

/// Returns the faults of a history that touch servers.
fn touches(history: &Path) -> Result<Vec<Touch>> {
    let mut touches = Vec::new();
    for line in lines(history)? {
        let Line { fault, start, end, servers, .. } = line?;
        let all = servers.is_empty();
        match fault {
            None | Some(FaultKind::ClientHalt | FaultKind::ClientKill | FaultKind::ClockJump) => {}
            // Between the clients and all servers.
            Some(_) => touches.push(Touch { start, end, servers: (!all).then_some(servers) }),
        }
    }
    Ok(touches)
}

fn lines(history: &Path) -> Result<impl Iterator<Item = Result<Line>>> {
    let file = File::open(history).with_context(|| history.display().to_string())?;
    Ok(BufReader::new(file).lines().map(|line| {
        let line = line?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Results { tally, locks, breaches, time } = &self.results;
        writeln!(f, "seed {}: {} s of faults, {} s in all", self.seed, self.length, time.as_secs())?;
        let name = |kind: &FaultKind| serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned));
        let faults = tally.faults.iter().map(|(kind, count)| format!("{} {count}", name(kind).unwrap_or_default()));
        write_list(f, "faults:", faults)?;
        writeln!(
            f,
            "leader changes {}, partitions {}; Consul ended by itself {} times",
            tally.leader_changes,
            self.faults(FaultKind::Partition),
            tally.exits
        )?;
        writeln!(f, "\n{:<14}{:^33}{:^33}", "", "at servers that a fault touched", "at the others")?;
        write!(f, "{:<14}", "calls")?;
        for _ in 0..2 {
            write!(f, "{:>9}{:>10}{:>8}{:>6}", "all", "succeeded", "unknown", "err.")?;
        }
        writeln!(f)?;
        let mut sums = [Counts::default(); 2];
        for (kind, calls) in &self.calls {
            write_row(f, kind, calls)?;
            for (sum, counts) in sums.iter_mut().zip(calls) {
                sum.succeeded += counts.succeeded;
                sum.unknown += counts.unknown;
                sum.failed += counts.failed;
            }
        }
        write_row(f, "all", &sums)?;
        writeln!(f)?;
        let count = |kind: &str| self.events.get(kind).copied().unwrap_or_default();
        let held = [
            format!("{} times a key", count("hold")),
            format!("{} times a slot", count("hold-slot")),
            format!("{} late reads and writes refused", self.refused),
        ];
        write_list(f, "held by commands of `lock`:", held.into_iter())?;
        write_list(f, "exit statuses of `lock`:", locks.iter().map(|(status, count)| format!("{status}: {count} times")))?;
        writeln!(f, "lines of `watch`: {}", count("watch"))?;
        for breach in breaches {
            writeln!(f, "BREACH: {breach}")?;
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, kind: &str, calls: &[Counts; 2]) -> fmt::Result {
    write!(f, "{kind:<14}")?;
    for counts in calls {
        let all = counts.all();
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = if all == 0 { "-".to_owned() } else { format!("{:.2} %", 100.0 * counts.succeeded as f64 / all as f64) };
        write!(f, "{all:>9}{share:>10}{:>8}{:>6}", counts.unknown, counts.failed)?;
    }
    writeln!(f)
}

/// Writes words with commas between them, in lines of 80 columns.
fn write_list(f: &mut fmt::Formatter<'_>, title: &str, items: impl Iterator<Item = String>) -> fmt::Result {
    write!(f, "{title}")?;
    let mut column = title.len();
    for (number, item) in items.enumerate() {
        let separator = if number == 0 { " " } else { ", " };
        if column + separator.len() + item.len() + 1 > 80 {
            write!(f, "{}\n  {item}", separator.trim_end())?;
            column = 2 + item.len();
        } else {
            write!(f, "{separator}{item}")?;
            column += separator.len() + item.len();
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Tally;
    use std::path::PathBuf;
    use std::time::Duration;

    #[test]
    fn calls_are_counted_by_what_touched_their_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = [
            r#"{"kind":"present","server":0,"start":5,"end":9,"answer":{"is":"outcome"}}"#,
            r#"{"kind":"present","server":0,"start":15,"end":25,"answer":{"is":"error","case":"outcome-unknown"}}"#,
            r#"{"kind":"present","server":1,"start":15,"end":25,"answer":{"is":"error","case":"mismatch"}}"#,
            r#"{"kind":"present","server":1,"start":45,"end":55,"answer":{"is":"error","case":"timeout"}}"#,
            r#"{"kind":"write","server":2,"start":31,"end":32,"answer":{"is":"refused"}}"#,
            r#"{"kind":"hold","server":2,"start":31,"end":32}"#,
            // Of one server, of all, and of none.
            r#"{"kind":"fault","start":10,"end":20,"fault":"kill","servers":[0]}"#,
            r#"{"kind":"fault","start":50,"end":60,"fault":"loss","servers":[]}"#,
            r#"{"kind":"fault","start":1,"end":60,"fault":"client-halt","servers":[]}"#,
        ];
        std::fs::write(folder.path().join(HISTORY), lines.join("\n")).expect("a file");
        let settings =
            Settings { seed: 7, length: Duration::from_secs(60), folder: folder.path().to_owned(), torture: PathBuf::new() };
        let (tally, time) = (Tally::default(), Duration::from_secs(70));
        let results = Results { tally, locks: BTreeMap::from([(0, 3)]), breaches: Vec::new(), time };
        let report = Report::new(&settings, results).expect("a report");
        assert_eq!(report.operations(), 5);
        assert_eq!((report.successes("present"), report.successes("write"), report.successes("hold")), (2, 1, 1));
        let text = report.to_string();
        let row = "present               2    0.00 %       1     1        2  100.00 %       0     0";
        assert!(text.lines().any(|line| line == row), "{text}");
        assert!(text.contains("1 late reads and writes refused"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
