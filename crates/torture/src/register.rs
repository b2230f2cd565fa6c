//! What the locks of a run protect: a counter for each key, which refuses the fencing number of a
//! holder if it has seen a higher one.
//!
//! It is in this process, so that it knows the true order of all writes. The commands of the program's
//! locks reach it by a Unix socket, which all network namespaces share.

use crate::history::{Answer, Event};
use crate::recorder::{Recorder, Subject, lock};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// The counters, and who holds what at the moment.
pub struct Register {
    recorder: Arc<Recorder>,
    counters: Mutex<BTreeMap<String, Counter>>,
    /// The commands that run, by the run of their program.
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    holds: BTreeMap<u64, Hold>,
    /// The runs that cannot know any more what they hold.
    forgotten: BTreeSet<u64>,
}

#[derive(Default)]
struct Counter {
    /// The highest fencing number so far.
    highest: u64,
    value: u64,
    /// The number of writes.
    writes: u64,
}

/// A command that runs while a key or a slot is held.
struct Hold {
    subject: Subject,
    /// The command's process id, which is that of its process group too.
    command: u32,
    event: Event,
    start: u64,
    /// When it last said that it runs. After its death it says nothing, and who notices that may be
    /// slow.
    seen: u64,
}

impl Register {
    /// Makes a register without keys.
    pub fn new(recorder: Arc<Recorder>) -> Register {
        Register { recorder, counters: Mutex::default(), holders: Mutex::default() }
    }

    /// Answers commands on this socket, each in a thread of its own.
    pub fn serve(self: &Arc<Register>, socket: &Path) -> Result<()> {
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        let register = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let register = Arc::clone(&register);
                // A command that was killed in the middle of a line ends its connection, nothing else.
                thread::spawn(move || register.answer(stream));
            }
        });
        Ok(())
    }

    /// Reads a counter, and refuses from now on who has a lower fencing number.
    pub fn read(&self, subject: &Subject, key: &str, fence: u64) -> Answer {
        let event = Event::ReadRegister { key: key.to_owned(), fence: Some(fence) };
        self.access(subject, event, key, fence, |counter| Answer::Value { value: counter.value })
    }

    /// Writes to a counter, whose value `previous` was read before.
    pub fn write(&self, subject: &Subject, key: &str, fence: u64, previous: u64) -> Answer {
        let value = previous + 1;
        let event = Event::Write { key: key.to_owned(), fence, previous: Some(previous), value };
        self.access(subject, event, key, fence, |counter| {
            counter.value = value;
            counter.writes += 1;
            Answer::Accepted { order: counter.writes }
        })
    }

    fn access(
        &self,
        subject: &Subject,
        event: Event,
        key: &str,
        fence: u64,
        access: impl FnOnce(&mut Counter) -> Answer,
    ) -> Answer {
        let start = self.recorder.now();
        let answer = {
            let mut counters = lock(&self.counters);
            let counter = counters.entry(key.to_owned()).or_default();
            if fence < counter.highest {
                Answer::Refused { highest: counter.highest }
            } else {
                counter.highest = fence;
                access(counter)
            }
        };
        self.recorder.write(subject, [start, self.recorder.now()], event, Some(answer.clone()));
        answer
    }

    /// Returns the values of all counters.
    pub fn values(&self) -> BTreeMap<String, u64> {
        lock(&self.counters).iter().map(|(key, counter)| (key.clone(), counter.value)).collect()
    }

    /// Returns the process id of the command of a run, while it runs.
    pub fn command(&self, run: u64) -> Option<u32> {
        lock(&self.holders).holds.get(&run).map(|hold| hold.command)
    }

    /// Returns the process ids of all commands that run.
    pub fn commands(&self) -> Vec<u32> {
        lock(&self.holders).holds.values().map(|hold| hold.command).collect()
    }

    /// Ends what the program of this run holds, as far as the history is concerned: it will be halted
    /// or killed, so that nobody renews its session.
    pub fn forget(&self, run: u64) {
        let mut holders = lock(&self.holders);
        if holders.forgotten.insert(run)
            && let Some(hold) = holders.holds.get(&run)
        {
            hold.record(&self.recorder, self.recorder.now());
        }
    }

    /// Answers one command until it ends.
    fn answer(&self, stream: UnixStream) -> Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().context("an empty connection")??;
        let Hello { subject, run, command, event } = serde_json::from_str(&first).with_context(|| first.clone())?;
        let start = self.recorder.now();
        let hold = Hold { subject: subject.clone(), command, event: event.clone(), start, seen: start };
        lock(&self.holders).holds.insert(run, hold);
        let result = self.converse(&stream, lines, &subject, run, &event);
        let mut holders = lock(&self.holders);
        if let Some(hold) = holders.holds.remove(&run)
            && !holders.forgotten.contains(&run)
        {
            hold.record(&self.recorder, hold.seen);
        }
        drop(holders);
        // Now a command that leaves may end.
        let _ = reply(&stream, &Answer::Done);
        result
    }

    fn converse(
        &self,
        stream: &UnixStream,
        lines: impl Iterator<Item = io::Result<String>>,
        subject: &Subject,
        run: u64,
        event: &Event,
    ) -> Result<()> {
        // The command begins what it is for when it has this answer.
        reply(stream, &Answer::Done)?;
        for line in lines {
            let answer = match (line?.split_once(' '), event) {
                (Some(("write", previous)), Event::Hold { key, fence, .. }) => {
                    self.write(subject, key, *fence, previous.parse()?)
                }
                (Some(("read", _)), Event::Hold { key, fence, .. }) => self.read(subject, key, *fence),
                (Some(("leave", _)), _) => {
                    self.seen(run);
                    return Ok(());
                }
                _ => Answer::Done,
            };
            self.seen(run);
            reply(stream, &answer)?;
        }
        Ok(())
    }

    fn seen(&self, run: u64) {
        let now = self.recorder.now();
        if let Some(hold) = lock(&self.holders).holds.get_mut(&run) {
            hold.seen = now;
        }
    }
}

impl Hold {
    fn record(&self, recorder: &Recorder, end: u64) {
        recorder.write(&self.subject, [self.start, end], self.event.clone(), None);
    }
}

/// The first line of a command.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// The client.
    pub subject: Subject,
    /// When its program was started.
    pub run: u64,
    /// The command's process id.
    pub command: u32,
    /// What it holds.
    pub event: Event,
}

fn reply(mut stream: &UnixStream, answer: &Answer) -> Result<()> {
    stream.write_all(format!("{}\n", serde_json::to_string(answer)?).as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Wish;

    fn register() -> (Arc<Register>, Subject) {
        let folder = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::create(&folder.path().join("history.jsonl")).expect("a file");
        let subject = Subject { client: "a".into(), host: "c1".into(), server: Some(0) };
        (Arc::new(Register::new(recorder.into())), subject)
    }

    #[test]
    fn late_write_with_a_lower_fence_is_refused() {
        let (register, subject) = register();
        assert_eq!(register.read(&subject, "k", 5), Answer::Value { value: 0 });
        assert_eq!(register.write(&subject, "k", 5, 0), Answer::Accepted { order: 1 });
        assert_eq!(register.read(&subject, "k", 5), Answer::Value { value: 1 });
        // A read of the next holder is enough.
        assert_eq!(register.read(&subject, "k", 7), Answer::Value { value: 1 });
        assert_eq!(register.write(&subject, "k", 5, 1), Answer::Refused { highest: 7 });
        assert_eq!(register.write(&subject, "k", 7, 1), Answer::Accepted { order: 2 });
        assert_eq!(register.values(), BTreeMap::from([("k".to_owned(), 2)]));
    }

    #[test]
    fn command_is_a_holder_until_it_leaves() {
        let (register, subject) = register();
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        register.serve(&socket).expect("a socket");
        let stream = UnixStream::connect(&socket).expect("a connection");
        let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
        let mut send = |line: &str| {
            (&stream).write_all(format!("{line}\n").as_bytes()).expect("sent");
            lines.next().expect("an answer").expect("a line")
        };
        let hold = Event::Hold { key: "k".into(), session: None, fence: 9, since: 3, wish: Wish::default() };
        let hello = Hello { subject: subject.clone(), run: 3, command: 7, event: hold };
        assert_eq!(send(&serde_json::to_string(&hello).expect("JSON")), r#"{"is":"done"}"#);
        assert_eq!(register.command(3), Some(7));
        assert_eq!(send("read "), r#"{"is":"value","value":0}"#);
        register.read(&subject, "k", 10);
        assert_eq!(send("write 0"), r#"{"is":"refused","highest":10}"#);
        assert_eq!(send("leave "), r#"{"is":"done"}"#);
        assert_eq!(register.command(3), None);
    }
}
