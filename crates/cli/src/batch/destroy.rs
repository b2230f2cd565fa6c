//! `destroy --name-prefix`: destroys every session whose name has a prefix.

use super::common::{self, CONSISTENT};
use super::pool::{self, Interrupt, Work};
use crate::util::merge;
use crate::{convert, terminal};
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session_args::flags::Destroy;
use consul_session_args::{Column, DIM, Format, Invocation, Output, RED, counted, error_line, json_text, or_dash, printable};
use consul_session_host::{Connection, Host, Session};
use indicatif::ProgressBar;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// The columns of the results.
const COLUMNS: [Column; 4] = [Column::new("RESULT"), Column::NAME, Column::NODE, Column::ID];

/// The most names that the question shows.
const SHOWN: usize = 5;

/// Runs `destroy --name-prefix`.
pub async fn destroy(host: &Host, invocation: &Invocation, args: &Destroy, prefix: &str) -> Result<Output, Error> {
    if prefix.is_empty() {
        return Err(Error::invalid(
            "name_prefix",
            "--name-prefix is empty, which would mean every session: say how the names begin",
        ));
    }
    let options = &invocation.options;
    let dry_run = invocation.is_dry_run();
    let (_, connection) = common::connection(options);
    let (found, filtered) = list(host, options, &connection, prefix).await?;
    let format = invocation.format;
    if !dry_run && !found.is_empty() && !args.yes && !confirmed(&found, prefix, options)? {
        return Ok(Output { stdout: String::new(), stderr: "nothing was destroyed\n".into(), status: Output::FAILED });
    }
    let start = Instant::now();
    let interrupt = common::listen()?;
    let bar = pool::progress(found.len(), "sessions", common::shows_progress(invocation) && !dry_run);
    let total = found.len();
    let results = found.iter().map(|_| None).collect();
    let mut work = Destruction { host: host.clone(), connection, found, results, stopped: dry_run, interrupt, bar };
    pool::run(&mut work, 0..total, args.concurrency.requests.into()).await;
    work.bar.finish_and_clear();
    let left = match dry_run {
        true => None,
        // Other clients may have created new sessions meanwhile.
        false => list(host, options, &work.connection, prefix).await.ok().map(|(left, _)| left.len()),
    };
    let output = work.output(prefix, dry_run, filtered, left, start, format);
    Ok(common::exit_if_interrupted(output, &work.interrupt))
}

/// Reads the sessions with this prefix, and whether ACLs may hide more.
async fn list(host: &Host, options: &Options, connection: &Connection, prefix: &str) -> Result<(Vec<Session>, bool), Error> {
    let mut listing = match &options.node {
        Some(node) => host.node(node, Some(CONSISTENT), Some(connection)).await.map_err(convert::error)?,
        None => host.list_sessions(Some(CONSISTENT), Some(connection)).await.map_err(convert::error)?,
    };
    listing.sessions.retain(|session| session.name.starts_with(prefix));
    Ok((listing.sessions, listing.filtered))
}

/// Asks for confirmation on a terminal.
fn confirmed(found: &[Session], prefix: &str, options: &Options) -> Result<bool, Error> {
    let mut question = format!("{} whose name begins with \"{}\"", counted(found.len()), printable(prefix));
    if let Some(node) = &options.node {
        question += &format!(", on node {}", printable(node));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(
            "yes",
            format!(
                "{question}: cannot ask, since standard input is not a terminal: give --yes to destroy, --dry-run to see them"
            ),
        ));
    }
    let names: Vec<String> = found.iter().take(SHOWN).map(|session| printable(&session.name)).collect();
    let more = if found.len() > SHOWN { ", …" } else { "" };
    let failed = |error: std::io::Error| Error::new(ErrorKind::Other, format!("the question cannot be asked: {error}"));
    let mut stderr = std::io::stderr();
    let terminal = terminal::style().stderr;
    let (names, question) =
        (terminal.fold(&format!("{}{more}", names.join(", "))), terminal.fold(&format!("Destroy {question}? [y/N]")));
    write!(stderr, "{names}\n{question} ").map_err(failed)?;
    stderr.flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// The sessions to destroy, and the results.
struct Destruction {
    host: Host,
    connection: Connection,
    found: Vec<Session>,
    results: Vec<Option<Result<(), Error>>>,
    /// Whether every further request would fail with the same error.
    stopped: bool,
    interrupt: Interrupt,
    bar: ProgressBar,
}

impl Work for Destruction {
    type Job = usize;
    type Completed = (usize, Result<(), Error>);

    fn is_wanted(&self, _: &usize) -> bool {
        !self.stopped && !self.interrupt.is_set()
    }

    fn start(&self, at: usize) -> impl Future<Output = Self::Completed> + Send + 'static {
        let (host, connection, id) = (self.host.clone(), self.connection.clone(), self.found[at].id.clone());
        async move { (at, host.destroy(&id, Some(&connection)).await.map_err(convert::error)) }
    }

    fn complete(&mut self, (at, result): Self::Completed) -> Option<usize> {
        if let Err(error) = &result {
            self.stopped |= common::fails_all(error);
        }
        self.results[at] = Some(result);
        self.bar.inc(1);
        None
    }
}

impl Destruction {
    /// Returns the output: the sessions, then the errors, then the counts.
    fn output(
        &self,
        prefix: &str,
        dry_run: bool,
        filtered: bool,
        left: Option<usize>,
        start: Instant,
        format: Format,
    ) -> Output {
        let interrupted = self.interrupt.is_set();
        let status = |result: &Option<Result<(), Error>>| match result {
            _ if dry_run => "to destroy",
            Some(Ok(())) => "destroyed",
            Some(Err(_)) => "failed",
            None => "not tried",
        };
        let counts = ["to destroy", "destroyed", "failed", "not tried"]
            .map(|kind| (kind, self.results.iter().filter(|result| status(result) == kind).count()))
            .into_iter()
            .filter(|(_, count)| *count > 0);
        let success = self.results.iter().all(|result| matches!(status(result), "to destroy" | "destroyed"));
        let status_code = if success { Output::DONE } else { Output::FAILED };
        let took = start.elapsed();
        if format == Format::Json {
            let changed = self.results.iter().any(|result| matches!(status(result), "to destroy" | "destroyed"));
            let sessions = self.found.iter().zip(&self.results).map(|(session, result)| {
                let mut fields = json!({
                    "result": status(result), "session_id": session.id, "name": session.name, "node": session.node,
                });
                if let Some(Err(error)) = result {
                    merge(&mut fields, json!(error));
                }
                fields
            });
            let mut answer = json!({
                "changed": changed, "failed": !success, "interrupted": interrupted, "filtered": filtered,
                "seconds": common::seconds(took), "counts": common::counts_json(counts),
            });
            if let Some(left) = left {
                answer["left"] = left.into();
            }
            answer["sessions"] = sessions.collect();
            return Output { stdout: json_text(&answer), stderr: String::new(), status: status_code };
        }
        let style = terminal::style();
        let all = || self.found.iter().zip(&self.results).map(|(session, result)| (session, result, status(result)));
        let stdout = match format {
            _ if self.found.is_empty() => String::new(),
            Format::Ids => {
                let gone = all().filter(|(_, _, status)| ["to destroy", "destroyed"].contains(status));
                gone.map(|(session, ..)| format!("{}\n", printable(&session.id))).collect()
            }
            _ => {
                let rows: Vec<_> = all()
                    .map(|(session, _, status)| {
                        let cells = [status.into(), or_dash(&session.name), or_dash(&session.node), or_dash(&session.id)];
                        (cells, Some(if status == "not tried" { DIM } else { RED }))
                    })
                    .collect();
                style.stdout.of_tables(format).table(&COLUMNS, &rows)
            }
        };
        let errors = all().filter_map(|(session, result, _)| match result {
            Some(Err(error)) => Some(error_line(error, &format!("session {}: ", session.id), style.stderr)),
            _ => None,
        });
        let mut stderr = common::first_lines(&errors.collect::<Vec<_>>(), "errors");
        if filtered {
            stderr += &style.stderr.titled(DIM, "note:", "ACLs hid sessions, or may have: there may be more");
        }
        let prefix = printable(prefix);
        if self.found.is_empty() {
            stderr += &format!("no session's name begins with \"{prefix}\"\n");
        } else {
            let counts: Vec<String> = counts.map(|(kind, count)| format!("{count} {kind}")).collect();
            let left = match left {
                Some(left) => format!("; {left} left"),
                None if dry_run => String::new(),
                None => "; the remaining sessions could not be read".into(),
            };
            let prefix = if interrupted { "interrupted; " } else { "" };
            let (found, took) = (counted(self.found.len()), common::duration_text(took));
            let total = format!("{prefix}{found}: {} in {took}{left}", counts.join(", "));
            stderr += &format!("{}\n", style.stderr.fold(&total));
        }
        Output { stdout, stderr, status: status_code }
    }
}
