//! `watch` and `lock` of the program, started as an operator starts them.

use super::sample::Sample;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use test_support::consul::die_with_parent;
use test_support::terminal::Terminal;
use test_support::tools::{command, root};

/// How long a program may take to end after SIGTERM: `lock` tries for five seconds to release, and
/// as long to destroy its session.
const END: Duration = Duration::from_secs(30);

/// The program and the agent.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The program.
    pub program: &'a Path,
    /// The agent's address.
    pub agent: SocketAddr,
    /// The folder for what programs write to standard error.
    pub folder: &'a Path,
}

impl Place<'_> {
    /// Returns the command that runs a command of the program on the agent.
    fn command(&self, arguments: &str) -> Command {
        let mut command = command(self.program);
        let (host, port) = (self.agent.ip(), self.agent.port());
        let line = format!("{arguments} --host {host} --port {port}");
        command.args(line.split_whitespace()).env("CONSUL_SESSION_CACHE", root().join("target/tmp/compiled"));
        // The main thread starts all of them.
        die_with_parent(&mut command);
        command
    }

    /// Opens the file for the standard error of a program, to add to it.
    fn errors(&self, name: &str) -> Result<File> {
        let path = self.folder.join(format!("{name}.err"));
        File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())
    }
}

/// A running program. It is killed when this is dropped.
pub struct Running(Child);

impl Running {
    /// Reads what the process uses.
    pub fn sample(&self) -> Result<Sample> {
        Sample::of(Some(self.0.id()))
    }

    /// Returns the exit status if the program has ended: the code, or the negative number of the
    /// signal that ended it.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.0.try_wait()?;
        Ok(status.map(|status| status.code().or(status.signal().map(|signal| -signal)).unwrap_or(i32::MIN)))
    }

    /// Ends the program with SIGTERM, and returns its exit status.
    pub fn end(&mut self) -> Result<i32> {
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        }
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ensure!(start.elapsed() < END, "it does not end within {END:?} of SIGTERM");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `watch` that prints JSON.
pub struct Watch {
    /// The process.
    pub process: Running,
    picture: Arc<Mutex<Picture>>,
}

/// What a `watch` has printed.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The ids of the sessions that are there.
    pub sessions: BTreeSet<String>,
    /// How many events there were of each kind.
    pub events: BTreeMap<String, u64>,
    /// Events that cannot be: a second coming, or the end of a session that was not there.
    pub impossible: Vec<String>,
}

impl Picture {
    fn read(&mut self, line: &str) {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let kind = event["event"].as_str().unwrap_or_default();
        let id = event["session"]["ID"].as_str().unwrap_or_default().to_owned();
        let is_possible = match kind {
            "is" | "came" => self.sessions.insert(id),
            "went" => self.sessions.remove(&id),
            "listed" | "error" | "recovered" => true,
            _ => false,
        };
        if !is_possible {
            self.impossible.push(line.to_owned());
        }
        *self.events.entry(kind.to_owned()).or_default() += 1;
    }
}

impl Watch {
    /// Starts it.
    pub fn start(place: Place) -> Result<Watch> {
        let mut command = place.command("watch -o json");
        let mut child = command.stdout(Stdio::piped()).stderr(place.errors("watch")?).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let picture = Arc::new(Mutex::new(Picture::default()));
        let reader = Arc::clone(&picture);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                reader.lock().unwrap_or_else(PoisonError::into_inner).read(&line);
            }
        });
        Ok(Watch { process: Running(child), picture })
    }

    /// Returns what it has printed so far.
    pub fn picture(&self) -> Picture {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running `watch` on a terminal.
pub struct Screen {
    /// The process.
    pub process: Running,
    terminal: Terminal,
}

impl Screen {
    /// Starts it.
    pub fn start(place: Place) -> Result<Screen> {
        let mut command = place.command("watch");
        let (terminal, child) = Terminal::run(command.env("TERM", "xterm").stderr(place.errors("screen")?), 80)?;
        Ok(Screen { process: Running(child), terminal })
    }

    /// Returns how many sessions the screen says that there are.
    pub fn sessions(&self) -> Option<usize> {
        let text = self.terminal.text();
        let first = text.split_whitespace().next()?;
        if first == "no" { Some(0) } else { first.parse().ok() }
    }
}

/// A `lock` that is started again whenever it has lost its lock.
pub struct Lock {
    /// Name in the table and of its file.
    pub name: &'static str,
    arguments: String,
    /// The process, unless it has ended and was not started again.
    process: Running,
    record: Arc<Mutex<Record>>,
}

/// What has become of the locks of one [`Lock`].
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The processes so far.
    pub started: u64,
    /// How often the lock was taken.
    pub taken: u64,
    /// How often it was lost, so that the program ended.
    pub lost: u64,
    /// How often the program ended because the agent did not create its first session.
    pub refused: u64,
    /// The fences of the locks that were taken, the last one last.
    pub fences: Vec<u64>,
}

/// The exit status of `lock` if the lock was lost.
const LOST: i32 = 125;
/// The exit status of `lock` if its first session could not be created.
const FAILED: i32 = 1;

impl Lock {
    /// Starts `lock` with these arguments.
    pub fn start(place: Place, name: &'static str, arguments: &str) -> Result<Lock> {
        let record = Arc::new(Mutex::new(Record::default()));
        let process = start_lock(place, name, arguments, &record)?;
        Ok(Lock { name, arguments: arguments.to_owned(), process, record })
    }

    /// Returns what has become of its locks.
    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns its process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// Starts the program again if it has lost its lock, or found no agent.
    ///
    /// # Errors
    ///
    /// The program ended in another way.
    pub fn start_again(&mut self, place: Place) -> Result<()> {
        let Some(status) = self.process.ended()? else { return Ok(()) };
        {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            match status {
                LOST => record.lost += 1,
                FAILED => record.refused += 1,
                _ => bail!("{}: ended with status {status}; see {}.err", self.name, self.name),
            }
        }
        self.process = start_lock(place, self.name, &self.arguments, &self.record)?;
        Ok(())
    }
}

/// Starts `lock` with a command that prints its fence, if it has one, and runs until it is ended.
fn start_lock(place: Place, name: &str, arguments: &str, record: &Arc<Mutex<Record>>) -> Result<Running> {
    let mut command = place.command(&format!("lock {arguments}"));
    command.args(["--", "sh", "-c", "echo ${CONSUL_LOCK_FENCE-0}; exec sleep infinity"]);
    let mut child = command.stdout(Stdio::piped()).stderr(place.errors(name)?).spawn()?;
    record.lock().unwrap_or_else(PoisonError::into_inner).started += 1;
    let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let record = Arc::clone(record);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.taken += 1;
            record.fences.extend(line.parse::<u64>());
        }
    });
    Ok(Running(child))
}

/// Returns the program `consul-session` beside this one.
pub fn beside() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("consul-session");
    ensure!(program.is_file(), "no {}: `cargo xtask soak` builds it", program.display());
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_follows_the_events() {
        let mut picture = Picture::default();
        let line = |kind: &str, id: &str| format!(r#"{{"event":"{kind}","session":{{"ID":"{id}"}}}}"#);
        for (kind, id) in [("is", "a"), ("listed", ""), ("came", "b"), ("error", ""), ("went", "a"), ("recovered", "")] {
            picture.read(&line(kind, id));
        }
        assert!(picture.sessions.iter().eq(["b"]) && picture.impossible.is_empty(), "{picture:?}");
        assert_eq!(picture.events["came"], 1);
        for (kind, id) in [("came", "b"), ("went", "a"), ("else", "")] {
            picture.read(&line(kind, id));
        }
        picture.read("no JSON");
        assert_eq!(picture.impossible.len(), 4);
    }
}
