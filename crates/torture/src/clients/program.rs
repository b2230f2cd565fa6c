//! Calls by the program, one process a call.

use super::library::{milliseconds, named};
use super::{Client, OUTCOME_UNKNOWN};
use crate::history::{Answer, Event, Session, Wish};
use anyhow::{Context, Result, ensure};
use consul_session::duration;
use serde::Deserialize;
use std::fs::File;
use std::process::Stdio;
use tokio::process::Command;

/// Returns the command that runs the program with these arguments against the client's server.
///
/// It inherits the network namespace of the thread that starts it.
pub fn command(client: &Client, args: &[&str]) -> Result<Command> {
    let shared = &client.place.shared;
    let program = shared.program.to_str().context("the program's path is not UTF-8")?;
    let address = client.place.address.to_string();
    let mut command = Command::from(test_support::program::consul_session(program, args, &[("CONSUL_HTTP_ADDR", &address)])?);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Opens the file for the messages of a client's programs.
pub fn messages(client: &Client) -> Result<File> {
    let path = client.place.shared.folder.join(format!("{}.log", client.name));
    File::options().create(true).append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// Runs the program as the event says.
///
/// # Errors
///
/// It printed something else than an answer.
pub async fn answer(client: &Client, event: &Event) -> Result<Answer> {
    let mut args = Vec::new();
    let mut add = |arg: &str, value: Option<&str>| {
        args.push(arg.to_owned());
        args.extend(value.map(str::to_owned));
    };
    match event {
        Event::Present { name, node, wish, replace } => {
            add("present", Some(name));
            if let Some(node) = client.names_node(node) {
                add("--node", Some(&node));
            }
            if *replace {
                add("--on-mismatch", Some("replace"));
            }
            add_wish(&mut add, wish);
        }
        Event::Absent { name, node, session } => {
            add("state=absent", None);
            let node = node.as_ref().and_then(|node| client.names_node(node));
            for (option, value) in [("--name", name), ("--node", &node), ("--id", session)] {
                if value.is_some() {
                    add(option, value.as_deref());
                }
            }
        }
        Event::Renew { session } => add("renew", Some(session)),
        Event::Read { name, consistent: false } => {
            add("list", None);
            if name.is_some() {
                add("--name", name.as_deref());
            }
        }
        other => unreachable!("{other:?} is not a call of the program"),
    }
    if let Some(timeout) = client.timeout {
        add("--timeout", Some(&timeout.to_string()));
    }
    add("--output", Some("json"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = command(client, &args)?;
    let output = command.stderr(messages(client)?).output().await?;
    if output.status.code().is_none() {
        let message = format!("the program was ended: {}", output.status);
        return Ok(Answer::Error { case: OUTCOME_UNKNOWN.into(), message, session: None });
    }
    let text = String::from_utf8(output.stdout)?;
    let printed: Printed = serde_json::from_str(&text).with_context(|| format!("{args:?} printed {text:?}"))?;
    ensure!(output.status.success() == printed.error.is_none(), "{args:?} ended with {}: {text}", output.status);
    if let Some(case) = printed.error {
        return Ok(Answer::Error { case, message: printed.msg, session: printed.session_id });
    }
    let mut sessions = printed.sessions.into_iter().map(stored);
    Ok(match event {
        Event::Renew { .. } => Answer::Renewed { session: sessions.next().context("no session")? },
        Event::Read { name, .. } => Answer::Sessions { sessions: named(sessions, name.as_deref()) },
        _ => Answer::Outcome {
            changed: printed.changed,
            session: printed.session_id,
            sessions: sessions.collect(),
            destroyed: printed.destroyed,
            before: printed.diff.before.sessions.into_iter().map(stored).collect(),
            notes: printed.notes,
        },
    })
}

fn add_wish(add: &mut impl FnMut(&str, Option<&str>), wish: &Wish) {
    let duration = |milliseconds: u64| format!("{milliseconds}ms");
    let checks = wish.checks.as_ref().map(|checks| checks.join(","));
    let options = [
        ("--behavior", wish.behavior.clone()),
        ("--delay", wish.delay.map(duration)),
        ("--ttl", wish.ttl.map(duration)),
        ("--checks", checks),
    ];
    for (option, value) in options {
        if value.is_some() {
            add(option, value.as_deref());
        }
    }
}

/// What the program prints, of which it leaves out what does not apply.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Printed {
    changed: bool,
    session_id: Option<String>,
    sessions: Vec<consul_session::Session>,
    destroyed: Vec<String>,
    diff: Diff,
    notes: Vec<String>,
    error: Option<String>,
    msg: String,
}

/// What a change did.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Diff {
    before: Sessions,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sessions {
    sessions: Vec<consul_session::Session>,
}

/// Converts a session with Consul's field names.
pub fn stored(session: consul_session::Session) -> Session {
    let service_checks = session.service_checks.into_iter().map(|check| check.id);
    Session {
        id: session.id,
        name: session.name,
        node: session.node,
        index: session.create_index,
        behavior: session.behavior,
        delay: milliseconds(session.lock_delay),
        ttl: duration::parse_go(&session.ttl).map_or(0, milliseconds),
        checks: session.node_checks.into_iter().chain(session.checks).chain(service_checks).collect(),
    }
}
