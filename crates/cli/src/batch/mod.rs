//! Many sessions at once: `apply --file` and `destroy --name-prefix`.

mod apply;
mod destroy;
mod file;
mod pool;
mod replay;

pub use destroy::destroy;

use crate::{VERBOSE, merge, read_all, terminal};
use anstyle::Style;
use apply::{Apply, Entry};
use consul_session::duration::Seconds;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session_args::{
    Command, DIM, Format, GREEN, Invocation, Output, RED, YELLOW, counted, difference, error_line, json_text, or_dash,
    printable,
};
use consul_session_host::{Host, Limits};
use file::Mistake;
use pool::{INTERRUPTED, Interrupt};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

const CONCURRENCY: (&str, &str, &str) =
    ("concurrency", "N", "How many requests are under way at once, 1 to 100 (and the limit `instances`). Default: 16");
/// Twice as many are no faster, and leave Consul less for others.
const AT_ONCE: usize = 16;

pub const APPLY: Command = Command {
    name: "apply",
    args: &[],
    rest: None,
    flags: &[],
    settings: &[
        (
            "file",
            "FILE",
            "A list of records in YAML or JSON, each with the options of one session: [{name: session1, delay: 20s}]. `-` for \
             standard input. All of it is checked before the first request",
        ),
        CONCURRENCY,
    ],
    help: "Make it as a file says, many sessions at once. Options that are typed beside it are defaults for its records. What was \
           interrupted is finished by typing it again",
};

pub const DESTROY: Command = Command {
    name: "destroy",
    args: &[],
    rest: None,
    flags: &[("yes", "Do not ask. Needed where standard input is not a terminal")],
    settings: &[("name-prefix", "PREFIX", "How the names begin. Not empty"), CONCURRENCY],
    help: "Destroy all sessions whose names begin so, on `node` or everywhere in the datacenter, after asking",
};

/// How many mistakes and failures are told one by one.
const TOLD: usize = 20;

/// `apply --file`.
pub async fn apply(host: &Host, invocation: &Invocation) -> Result<Output, Error> {
    let at_once = at_once(invocation)?;
    let name = invocation
        .setting("file")
        .next_back()
        .ok_or_else(|| Error::invalid("file", "`apply` needs --file FILE, a list of records; `-` for standard input"))?;
    let text = if name == "-" {
        read_all()?
    } else {
        let read = std::fs::read(name).map_err(|error| error.to_string());
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into()));
        text.map_err(|error| Error::invalid("file", format!("--file: {name} cannot be read: {error}")))?
    };
    let name = if name == "-" { "standard input" } else { name };
    let records = match file::read(&text, &invocation.options) {
        Ok(records) => records,
        Err(mistakes) => return Ok(refused(name, &mistakes, invocation.format)),
    };
    let dry_run = invocation.is_dry_run();
    let start = Instant::now();
    let interrupt = listen()?;
    let progress = pool::progress(records.len(), "sessions", is_followed(invocation));
    let mut apply = Apply::new(host.clone(), records, interrupt.clone(), progress.clone());
    apply.run(at_once).await;
    progress.finish_and_clear();
    let output = applied(name, &apply.records, dry_run, &interrupt, start.elapsed(), invocation.format);
    Ok(ended(output, &interrupt))
}

fn at_once(invocation: &Invocation) -> Result<usize, Error> {
    let most = Limits::default().instances;
    match invocation.setting("concurrency").next_back() {
        None => Ok(AT_ONCE),
        Some(text) => text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
            Error::invalid(
                "concurrency",
                format!("invalid value `{text}` for --concurrency: out of range (expected 1 to {most})"),
            )
        }),
    }
}

/// Whether somebody follows it, and nothing else is told meanwhile.
fn is_followed(invocation: &Invocation) -> bool {
    invocation.format != Format::Json && !invocation.flags.contains(&VERBOSE)
}

fn listen() -> Result<Interrupt, Error> {
    Interrupt::listen().map_err(|error| Error::new(ErrorKind::Other, format!("signals cannot be listened for: {error}")))
}

/// Ends the program where it was interrupted: an [`Output`] has no such exit status.
fn ended(output: Output, interrupt: &Interrupt) -> Output {
    if !interrupt.is_set() {
        return output;
    }
    // Whether or not somebody still reads it.
    let _ = std::io::stdout().write_all(output.stdout.as_bytes());
    let _ = std::io::stderr().write_all(output.stderr.as_bytes());
    std::process::exit(INTERRUPTED.into())
}

/// What is wrong with the file, all of it.
fn refused(file: &str, mistakes: &[Mistake], format: Format) -> Output {
    let place = |mistake: &Mistake| format!("{file}:{}: {}", mistake.line, mistake.message);
    let (stdout, stderr) = match format {
        Format::Table | Format::Ids => {
            let terminal = terminal::style().stderr;
            let lines =
                mistakes.iter().map(|mistake| error_line(&Error::invalid(&mistake.option, place(mistake)), "", terminal));
            (String::new(), told(&lines.collect::<Vec<_>>(), "errors") + "nothing was sent\n")
        }
        Format::Json => {
            let all = mistakes
                .iter()
                .map(|mistake| json!({ "line": mistake.line, "option": mistake.option, "msg": mistake.message }))
                .collect::<Value>();
            let json = json!({
                "changed": false, "failed": true, "error": "invalid-option",
                "msg": mistakes.first().map(place).unwrap_or_default(), "file": file, "mistakes": all,
            });
            (json_text(&json), String::new())
        }
    };
    Output { stdout, stderr, success: false }
}

/// What becomes of a record.
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
        match &entry.ending {
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

    fn word(self, dry_run: bool) -> &'static str {
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

/// What `apply` prints in the end: each record in the file's order, then what went wrong, then the counts.
fn applied(file: &str, entries: &[Entry], dry_run: bool, interrupt: &Interrupt, took: Duration, format: Format) -> Output {
    let fates: Vec<Status> = entries.iter().map(Status::of).collect();
    let counts = Status::ALL.map(|fate| (fate, fates.iter().filter(|one| **one == fate).count()));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let success = !fates.iter().any(|fate| matches!(fate, Status::Failed | Status::NotTried));
    if format == Format::Json {
        let changed = fates.iter().any(|fate| matches!(fate, Status::Created | Status::Replaced | Status::Destroyed));
        let records = entries.iter().zip(&fates).map(|(entry, fate)| record_json(entry, fate.word(dry_run)));
        let answer = json!({
            "changed": changed, "failed": !success, "interrupted": interrupt.is_set(), "file": file, "seconds": seconds(took),
            "counts": counts_json(counts.map(|(fate, count)| (fate.word(dry_run), count))),
            "records": records.collect::<Value>(),
        });
        return Output { stdout: json_text(&answer), stderr: String::new(), success };
    }
    let style = terminal::style();
    let (mut rows, mut ids, mut differences) = (Vec::new(), String::new(), String::new());
    let (mut errors, mut notes) = (Vec::new(), Vec::new());
    for (entry, fate) in entries.iter().zip(&fates) {
        let line = entry.record.line;
        let (mut name, mut node, mut id) = (entry.record.options.name.clone(), entry.record.options.node.clone(), None);
        match &entry.ending {
            Some(Ok(outcome)) => {
                let (before, after) = outcome.diff.as_ref().map_or((&[][..], &[][..]), |diff| (&diff.before, &diff.after));
                // The session as it is, or as it was.
                if let Some(session) = after.iter().chain(before).next().cloned() {
                    (name, node, id) = (Some(session.name), Some(session.node), Some(session.id).filter(|id| !id.is_empty()));
                }
                ids.extend(id.iter().map(|id| format!("{}\n", printable(id))));
                // What is made is in the file, and what is destroyed is told whole: only here are there two to compare.
                if (*fate, dry_run) == (Status::Replaced, true) {
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
        rows.push(([line.to_string(), fate.word(dry_run).into(), name, node, id], fate.style()));
    }
    let stdout = match format {
        Format::Ids => ids,
        _ => style.stdout.table(["LINE", "RESULT", "NAME", "NODE", "ID"], &rows) + &differences,
    };
    let mut stderr = told(&notes, "notes") + &told(&errors, "errors");
    let counts: Vec<String> = counts.map(|(fate, count)| format!("{count} {}", fate.word(dry_run))).collect();
    let interrupted = if interrupt.is_set() { "interrupted; " } else { "" };
    let sum = format!("{interrupted}{}: {} in {}", counted(entries.len()), counts.join(", "), shown(took));
    stderr += &format!("{}\n", style.stderr.fold(&sum));
    if interrupt.is_set() {
        stderr += "the same command again does the rest\n";
    }
    Output { stdout, stderr, success }
}

fn record_json(entry: &Entry, result: &str) -> Value {
    let Options { name, node, .. } = &entry.record.options;
    let mut fields = json!({ "line": entry.record.line, "result": result });
    match &entry.ending {
        Some(Ok(outcome)) => {
            // What the sessions are like is the file's business.
            let told = ["changed", "session_id", "name", "node", "destroyed", "notes"];
            let mut outcome = json!(outcome);
            if let Value::Object(outcome) = &mut outcome {
                outcome.retain(|key, _| told.contains(&key.as_str()));
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

/// How many of each kind.
fn counts_json(counts: impl Iterator<Item = (&'static str, usize)>) -> Value {
    Value::Object(counts.map(|(kind, count)| (kind.replace(' ', "_"), count.into())).collect())
}

/// The first of these lines, and how many more there are.
fn told(lines: &[String], what: &str) -> String {
    let mut text: String = lines.iter().take(TOLD).map(String::as_str).collect();
    if lines.len() > TOLD {
        text += &format!("and {} more {what}; --format json has them all\n", lines.len() - TOLD);
    }
    text
}

fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// To the millisecond.
fn seconds(time: Duration) -> Seconds {
    Seconds(i64::try_from(time.as_millis() * 1_000_000).unwrap_or(i64::MAX))
}
