//! `apply`: the records of files, and their output.

use super::common;
use super::file::{self, Mistake, Text};
use super::pool::{self, Interrupt};
use super::scheduler::{Entry, Scheduler};
use crate::terminal;
use crate::util::{merge, read_stdin};
use anstyle::Style;
use consul_session::error::Error;
use consul_session::options::Options;
use consul_session_args::flags::Apply;
use consul_session_args::{
    Column, DIM, Format, GREEN, Invocation, Output, RED, YELLOW, counted, difference, error_line, json_text, or_dash, printable,
};
use consul_session_host::Host;
use serde_json::{Value, json};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Runs `apply`.
pub async fn apply(host: &Host, invocation: &Invocation, args: &Apply) -> Result<Output, Error> {
    let texts = args.files().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    if texts.iter().filter(|text| *text.name == *STDIN).count() > 1 {
        return Err(Error::invalid("file", "`-` is given twice: standard input can be read once"));
    }
    let records = match file::read(&texts, &invocation.options) {
        Ok(records) => records,
        Err(mistakes) => return Ok(mistakes_output(&mistakes, invocation.format)),
    };
    let dry_run = invocation.is_dry_run();
    let start = Instant::now();
    let interrupt = common::listen()?;
    let progress = pool::progress(records.len(), "sessions", common::shows_progress(invocation));
    let mut scheduler = Scheduler::new(host.clone(), records, interrupt.clone(), progress.clone());
    scheduler.run(args.concurrency.requests.into()).await;
    progress.finish_and_clear();
    let files: Vec<_> = texts.into_iter().map(|text| text.name).collect();
    let output = results_output(&files, &scheduler.entries, dry_run, &interrupt, start.elapsed(), invocation.format);
    Ok(common::exit_if_interrupted(output, &interrupt))
}

/// How messages call a file that is standard input.
const STDIN: &str = "standard input";

/// Reads a file; `-` for standard input.
fn read(file: &Path) -> Result<Text, Error> {
    if file == Path::new("-") {
        return Ok(Text { name: STDIN.into(), text: read_stdin()? });
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string());
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into()));
    let name = file.display().to_string();
    let text = text.map_err(|error| Error::invalid("file", format!("{name} cannot be read: {error}")))?;
    Ok(Text { name: name.into(), text })
}

/// Returns the output for files with mistakes: all of them.
fn mistakes_output(mistakes: &[Mistake], format: Format) -> Output {
    let place = |mistake: &Mistake| format!("{}:{}: {}", mistake.file, mistake.line, mistake.message);
    let (stdout, stderr) = match format {
        Format::Table | Format::Wide | Format::Ids => {
            let terminal = terminal::style().stderr;
            let lines =
                mistakes.iter().map(|mistake| error_line(&Error::invalid(&mistake.option, place(mistake)), "", terminal));
            (String::new(), common::first_lines(&lines.collect::<Vec<_>>(), "errors") + "nothing was sent\n")
        }
        Format::Json => {
            let all = mistakes
                .iter()
                .map(|mistake| {
                    json!({ "file": &*mistake.file, "line": mistake.line, "option": mistake.option, "msg": mistake.message })
                })
                .collect::<Value>();
            let json = json!({
                "changed": false, "failed": true, "error": "invalid-option",
                "msg": mistakes.first().map(place).unwrap_or_default(), "mistakes": all,
            });
            (json_text(&json), String::new())
        }
    };
    Output { stdout, stderr, status: Output::USAGE }
}

/// The result of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Created,
    Replaced,
    Destroyed,
    Unchanged,
    Failed,
    NotTried,
}

impl Status {
    const ALL: [Status; 6] =
        [Status::Created, Status::Replaced, Status::Destroyed, Status::Unchanged, Status::Failed, Status::NotTried];

    fn of(entry: &Entry) -> Status {
        match &entry.result {
            None => Status::NotTried,
            Some(Err(_)) => Status::Failed,
            Some(Ok(outcome)) if !outcome.changed => Status::Unchanged,
            Some(Ok(outcome)) => match outcome.diff.as_ref().map(|diff| (diff.before.len(), diff.after.len())) {
                None | Some((0, _)) => Status::Created,
                Some((_, 0)) => Status::Destroyed,
                _ => Status::Replaced,
            },
        }
    }

    /// Returns the status as a table shows it.
    fn name(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Status::Created, false) => "created",
            (Status::Created, true) => "to create",
            (Status::Replaced, false) => "replaced",
            (Status::Replaced, true) => "to replace",
            (Status::Destroyed, false) => "destroyed",
            (Status::Destroyed, true) => "to destroy",
            (Status::Unchanged, _) => "unchanged",
            (Status::Failed, _) => "failed",
            (Status::NotTried, _) => "not tried",
        }
    }

    fn style(self) -> Option<Style> {
        match self {
            Status::Created => Some(GREEN),
            Status::Replaced => Some(YELLOW),
            Status::Destroyed | Status::Failed => Some(RED),
            Status::NotTried => Some(DIM),
            Status::Unchanged => None,
        }
    }
}

/// The columns of the results.
const COLUMNS: [Column; 5] = [Column::new("LINE"), Column::new("RESULT"), Column::NAME, Column::NODE, Column::ID];

/// Returns the output of the results: the records in the file's order, then the errors, then the
/// counts.
fn results_output(
    files: &[Rc<str>],
    entries: &[Entry],
    dry_run: bool,
    interrupt: &Interrupt,
    took: Duration,
    format: Format,
) -> Output {
    let statuses: Vec<Status> = entries.iter().map(Status::of).collect();
    let counts = Status::ALL.map(|status| (status, statuses.iter().filter(|other| **other == status).count()));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let success = !statuses.iter().any(|status| matches!(status, Status::Failed | Status::NotTried));
    let status = if success { Output::DONE } else { Output::FAILED };
    if format == Format::Json {
        let changed = statuses.iter().any(|status| matches!(status, Status::Created | Status::Replaced | Status::Destroyed));
        let records = entries.iter().zip(&statuses).map(|(entry, status)| record_json(entry, status.name(dry_run)));
        let answer = json!({
            "changed": changed, "failed": !success, "interrupted": interrupt.is_set(), "files": files.iter().map(|file| &**file).collect::<Vec<_>>(), "seconds": common::seconds(took),
            "counts": common::counts_json(counts.map(|(status, count)| (status.name(dry_run), count))),
            "records": records.collect::<Value>(),
        });
        return Output { stdout: json_text(&answer), stderr: String::new(), status };
    }
    let style = terminal::style();
    let (mut rows, mut ids, mut differences) = (Vec::new(), String::new(), String::new());
    let (mut errors, mut notes) = (Vec::new(), Vec::new());
    for (entry, status) in entries.iter().zip(&statuses) {
        let (file, line) = (&entry.record.file, entry.record.line);
        let place = if files.len() > 1 { format!("{file}:{line}") } else { line.to_string() };
        let (mut name, mut node, mut id) = (entry.record.options.name.clone(), entry.record.options.node.clone(), None);
        match &entry.result {
            Some(Ok(outcome)) => {
                let (before, after) = outcome.diff.as_ref().map_or((&[][..], &[][..]), |diff| (&diff.before, &diff.after));
                // The present session, or the destroyed one.
                if let Some(session) = after.iter().chain(before).next().cloned() {
                    (name, node, id) = (Some(session.name), Some(session.node), Some(session.id).filter(|id| !id.is_empty()));
                }
                ids.extend(id.iter().map(|id| format!("{}\n", printable(id))));
                // The file shows a new session, and the row a destroyed one: only a replacement
                // has two sessions to compare.
                if (*status, dry_run) == (Status::Replaced, true) {
                    differences += &format!("\n{file}:{line}:\n{}", difference(before, after, style.stdout));
                }
                notes.extend(
                    outcome
                        .notes
                        .iter()
                        .map(|note| style.stderr.titled(DIM, &format!("{file}:{line}: note:"), &printable(note))),
                );
            }
            Some(Err(error)) => errors.push(error_line(error, &format!("{file}:{line}: "), style.stderr)),
            None => {}
        }
        let [name, node, id] = [name, node, id].map(|cell| or_dash(cell.as_deref().unwrap_or_default()));
        rows.push(([place, status.name(dry_run).into(), name, node, id], status.style()));
    }
    let stdout = match format {
        Format::Ids => ids,
        _ => style.stdout.of_tables(format).table(&COLUMNS, &rows) + &differences,
    };
    let mut stderr = common::first_lines(&notes, "notes") + &common::first_lines(&errors, "errors");
    let counts: Vec<String> = counts.map(|(status, count)| format!("{count} {}", status.name(dry_run))).collect();
    let interrupted = if interrupt.is_set() { "interrupted; " } else { "" };
    let total = format!("{interrupted}{}: {} in {}", counted(entries.len()), counts.join(", "), common::duration_text(took));
    stderr += &format!("{}\n", style.stderr.fold(&total));
    if interrupt.is_set() {
        stderr += "run the same command again to finish the rest\n";
    }
    Output { stdout, stderr, status }
}

/// Returns a record's result as JSON.
fn record_json(entry: &Entry, result: &str) -> Value {
    let Options { name, node, .. } = &entry.record.options;
    let mut fields = json!({ "file": &*entry.record.file, "line": entry.record.line, "result": result });
    match &entry.result {
        Some(Ok(outcome)) => {
            // The file describes the sessions themselves.
            let shown = ["changed", "session_id", "name", "node", "destroyed", "notes"];
            let mut outcome = json!(outcome);
            if let Value::Object(outcome) = &mut outcome {
                outcome.retain(|key, _| shown.contains(&key.as_str()));
            }
            merge(&mut fields, outcome);
        }
        Some(Err(error)) => merge(&mut fields, json!(error)),
        None => {}
    }
    for (key, value) in [("name", name), ("node", node)] {
        if let (Some(value), None) = (value, fields.get(key)) {
            fields[key] = value.as_str().into();
        }
    }
    fields
}
