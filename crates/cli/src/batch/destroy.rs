//! `destroy --name-prefix`: every session whose name begins so.

use super::apply::{CONSISTENT, connection};
use super::pool::{Interrupt, Work, progress, run};
use super::{at_once, counts_json, ended, is_followed, listen, seconds, shown, told};
use crate::convert;
use crate::{merge, terminal};
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session_args::{DIM, Format, Invocation, Output, RED, counted, error_line, json_text, or_dash, printable};
use consul_session_host::{Connection, Host, Session};
use indicatif::ProgressBar;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// The options that count here, beside those of the connection. Any other would promise something that is not looked at.
const OPTIONS: [&str; 2] = ["node", "dry_run"];

/// How many names are shown before the question.
const SHOWN: usize = 5;

/// `destroy --name-prefix`.
pub async fn destroy(host: &Host, invocation: &Invocation) -> Result<Output, Error> {
    let at_once = at_once(invocation)?;
    let prefix = prefix(invocation)?;
    let options = &invocation.options;
    let dry_run = invocation.is_dry_run();
    let (_, connection) = connection(options);
    let (found, filtered) = list(host, options, &connection, prefix).await?;
    let format = invocation.format;
    if !dry_run && !found.is_empty() && !invocation.flags.contains(&"yes") && !confirmed(&found, prefix, options)? {
        return Ok(Output { stdout: String::new(), stderr: "nothing was destroyed\n".into(), success: false });
    }
    let start = Instant::now();
    let interrupt = listen()?;
    let bar = progress(found.len(), "sessions", is_followed(invocation) && !dry_run);
    let total = found.len();
    let results = found.iter().map(|_| None).collect();
    let mut work = Destroy { host: host.clone(), connection, found, results, stopped: dry_run, interrupt, bar };
    run(&mut work, 0..total, at_once).await;
    work.bar.finish_and_clear();
    let left = match dry_run {
        true => None,
        // Others may have made new ones meanwhile.
        false => list(host, options, &work.connection, prefix).await.ok().map(|(left, _)| left.len()),
    };
    let output = work.output(prefix, dry_run, filtered, left, start, format);
    Ok(ended(output, &work.interrupt))
}

/// The sessions whose names begin so, and whether ACLs may hide more.
async fn list(host: &Host, options: &Options, to: &Connection, prefix: &str) -> Result<(Vec<Session>, bool), Error> {
    let mut listing = match &options.node {
        Some(node) => host.node(node, Some(CONSISTENT), Some(to)).await.map_err(convert::error)?,
        None => host.list_sessions(Some(CONSISTENT), Some(to)).await.map_err(convert::error)?,
    };
    listing.sessions.retain(|session| session.name.starts_with(prefix));
    Ok((listing.sessions, listing.filtered))
}

fn prefix(invocation: &Invocation) -> Result<&str, Error> {
    invocation.only(&OPTIONS, |option| {
        format!("`destroy` takes no option `{option}`: it goes by --name-prefix, and by `node` and `datacenter`")
    })?;
    match invocation.setting("name-prefix").collect::<Vec<_>>()[..] {
        [""] => Err(Error::invalid(
            "name-prefix",
            "--name-prefix is empty, which would mean every session: say how the names begin",
        )),
        [prefix] => Ok(prefix),
        [] => Err(Error::invalid("name-prefix", "`destroy` needs --name-prefix PREFIX: how the names begin")),
        _ => Err(Error::invalid("name-prefix", "--name-prefix is given twice: give one")),
    }
}

/// Asks, on a terminal.
fn confirmed(found: &[Session], prefix: &str, options: &Options) -> Result<bool, Error> {
    let mut question = format!("{} whose name begins with \"{}\"", counted(found.len()), printable(prefix));
    if let Some(node) = &options.node {
        question += &format!(", on node {}", printable(node));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(
            "yes",
            format!(
                "{question}: nobody can be asked, since standard input is not a terminal: give --yes to destroy, --dry-run to see them"
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

struct Destroy {
    host: Host,
    connection: Connection,
    found: Vec<Session>,
    results: Vec<Option<Result<(), Error>>>,
    /// Every further one would fail of the same.
    stopped: bool,
    interrupt: Interrupt,
    bar: ProgressBar,
}

impl Work for Destroy {
    type Job = usize;
    type Completed = (usize, Result<(), Error>);

    fn is_wanted(&self, _: &usize) -> bool {
        !self.stopped && !self.interrupt.is_set()
    }

    fn start(&self, at: usize) -> impl Future<Output = Self::Completed> + Send + 'static {
        let (host, connection, id) = (self.host.clone(), self.connection.clone(), self.found[at].id.clone());
        async move { (at, host.destroy(&id, Some(&connection)).await.map_err(convert::error)) }
    }

    fn did(&mut self, (at, result): Self::Completed) -> Option<usize> {
        if let Err(error) = &result {
            self.stopped |= super::apply::fails_all(error);
        }
        self.results[at] = Some(result);
        self.bar.inc(1);
        None
    }
}

impl Destroy {
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
        let word = |result: &Option<Result<(), Error>>| match result {
            _ if dry_run => "to destroy",
            Some(Ok(())) => "destroyed",
            Some(Err(_)) => "failed",
            None => "not tried",
        };
        let counts = ["to destroy", "destroyed", "failed", "not tried"]
            .map(|kind| (kind, self.results.iter().filter(|result| word(result) == kind).count()))
            .into_iter()
            .filter(|(_, count)| *count > 0);
        let success = self.results.iter().all(|result| matches!(word(result), "to destroy" | "destroyed"));
        let took = start.elapsed();
        if format == Format::Json {
            let changed = self.results.iter().any(|result| matches!(word(result), "to destroy" | "destroyed"));
            let sessions = self.found.iter().zip(&self.results).map(|(session, result)| {
                let mut fields = json!({
                    "result": word(result), "session_id": session.id, "name": session.name, "node": session.node,
                });
                if let Some(Err(error)) = result {
                    merge(&mut fields, json!(error));
                }
                fields
            });
            let mut answer = json!({
                "changed": changed, "failed": !success, "interrupted": interrupted, "filtered": filtered,
                "seconds": seconds(took), "counts": counts_json(counts),
            });
            if let Some(left) = left {
                answer["left"] = left.into();
            }
            answer["sessions"] = sessions.collect();
            return Output { stdout: json_text(&answer), stderr: String::new(), success };
        }
        let style = terminal::style();
        let all = || self.found.iter().zip(&self.results).map(|(session, result)| (session, result, word(result)));
        let stdout = match format {
            _ if self.found.is_empty() => String::new(),
            Format::Ids => {
                let gone = all().filter(|(_, _, word)| ["to destroy", "destroyed"].contains(word));
                gone.map(|(session, ..)| format!("{}\n", printable(&session.id))).collect()
            }
            _ => {
                let rows: Vec<_> = all()
                    .map(|(session, _, word)| {
                        let cells = [word.into(), or_dash(&session.name), or_dash(&session.node), or_dash(&session.id)];
                        (cells, Some(if word == "not tried" { DIM } else { RED }))
                    })
                    .collect();
                style.stdout.table(["RESULT", "NAME", "NODE", "ID"], &rows)
            }
        };
        let errors = all().filter_map(|(session, result, _)| match result {
            Some(Err(error)) => Some(error_line(error, &format!("session {}: ", session.id), style.stderr)),
            _ => None,
        });
        let mut stderr = told(&errors.collect::<Vec<_>>(), "errors");
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
                None => "; what is left could not be read".into(),
            };
            let first = if interrupted { "interrupted; " } else { "" };
            let sum = format!("{first}{}: {} in {}{left}", counted(self.found.len()), counts.join(", "), shown(took));
            stderr += &format!("{}\n", style.stderr.fold(&sum));
        }
        Output { stdout, stderr, success }
    }
}
