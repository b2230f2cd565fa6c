//! `consul-session watch`, of which each line is recorded.

use super::Client;
use super::locker::Programs;
use super::program::{command, messages, stored};
use crate::history::{Event, WatchEvent};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use test_support::consul::die_with_parent;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

/// The beginning of the names of sessions whose arrival is waited for.
pub const MARK: &str = "mark-";

/// A line of the program.
#[derive(Deserialize)]
struct Line {
    event: WatchEvent,
    #[serde(default)]
    index: u64,
    session: Option<consul_session::Session>,
    sessions: Option<u64>,
}

/// Runs `consul-session watch` until `stop` or an error, and records its lines. The names of the marks
/// that it has printed go to `seen`.
///
/// # Errors
///
/// It ended by itself, or printed something else.
pub async fn run(
    client: Client,
    programs: Arc<Programs>,
    seen: watch::Sender<BTreeSet<String>>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut command = command(&client, &["watch", "--output", "json"])?;
    command.stdout(Stdio::piped()).stderr(messages(&client)?);
    die_with_parent(command.as_std_mut());
    let mut process = command.spawn()?;
    let _entry = programs.add(&client, process.id(), None, None)?;
    let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
    let recorder = &client.place.shared.recorder;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            // The process is killed when it is dropped.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let Some(line) = line else { bail!("{}: `watch` ended with {}", client.name, process.wait().await?) };
        let now = recorder.now();
        let Line { event, index, session, sessions } = serde_json::from_str(&line).with_context(|| line.clone())?;
        let session = session.map(stored);
        let mark = session.as_ref().map(|session| session.name.clone()).filter(|name| name.starts_with(MARK));
        recorder.write(&client.subject(), [now, now], Event::Watch { event, index, session, count: sessions }, None);
        if let (WatchEvent::Is | WatchEvent::Came, Some(mark)) = (event, mark) {
            seen.send_modify(|seen| {
                seen.insert(mark);
            });
        }
    }
}
