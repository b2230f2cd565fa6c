//! Holders of keys and slots by the program: `consul-session lock`.

use super::holder::Held;
use super::{Client, child, program};
use crate::faults::ClientFaults;
use crate::history::{Event, Wish};
use crate::recorder::lock;
use crate::register::Register;
use crate::schedule::{ClientFault, ClientFaultKind};
use crate::workload::TTL;
use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use test_support::consul::die_with_parent;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// How long a program is halted after the end of the fault at least, and twice that at most: as long as
/// Consul may take to end its session.
const MORE: Duration = Duration::from_secs(10);
/// How long the program may clean up after SIGTERM: five seconds for each of two attempts that may both
/// hang, the time of the last one, and the rest of a halt.
const CLEAN_UP: Duration = Duration::from_secs(90);

/// The programs that run, which faults can strike.
#[derive(Default)]
pub struct Programs {
    running: Mutex<BTreeMap<String, Running>>,
    /// How many runs of `lock` ended with each exit status; by signal, 128 and its number.
    ended: Mutex<BTreeMap<i32, u64>>,
}

/// A program that runs.
#[derive(Clone)]
struct Running {
    pid: Pid,
    /// The file that makes its wall clock jump.
    clock: Option<PathBuf>,
    /// When it was started, if it is a lock. Only a lock can be killed.
    run: Option<u64>,
    register: Arc<Register>,
}

impl Programs {
    /// Adds a program, until what it returns is dropped. A lock has the time of its start, and possibly
    /// a clock.
    pub fn add(
        self: &Arc<Programs>,
        client: &Client,
        pid: Option<u32>,
        run: Option<u64>,
        clock: Option<PathBuf>,
    ) -> Result<Entry> {
        let pid = Pid::from_raw(pid.context("it has ended")?.cast_signed());
        let running = Running { pid, clock, run, register: Arc::clone(&client.place.shared.register) };
        lock(&self.running).insert(client.name.clone(), running);
        Ok(Entry { programs: Arc::clone(self), client: client.name.clone() })
    }

    /// Counts a run of `lock` that ended.
    fn count(&self, status: ExitStatus) {
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        *lock(&self.ended).entry(status).or_default() += 1;
    }

    /// Returns how many runs of `lock` ended with each exit status.
    pub fn ended(&self) -> BTreeMap<i32, u64> {
        lock(&self.ended).clone()
    }
}

impl ClientFaults for Programs {
    fn begin(&self, fault: ClientFault) -> Result<Option<String>> {
        let running = lock(&self.running);
        let suits = |program: &Running| match fault.kind {
            ClientFaultKind::Halt => true,
            ClientFaultKind::ClockJump(_) => program.clock.is_some(),
            ClientFaultKind::Kill => program.run.is_some(),
        };
        let candidates: Vec<(&String, &Running)> = running.iter().filter(|(_, program)| suits(program)).collect();
        if candidates.is_empty() {
            return Ok(None);
        }
        let (client, program) = candidates[fault.client % candidates.len()];
        match (fault.kind, &program.clock) {
            (ClientFaultKind::ClockJump(seconds), Some(clock)) => set_clock(clock, seconds)?,
            (ClientFaultKind::Kill, _) => {
                program.forget();
                program.signal(Signal::SIGKILL);
            }
            _ => {
                program.forget();
                program.signal(Signal::SIGSTOP);
                // As if the machine slept, or only the program was stopped.
                if (fault.client / candidates.len()).is_multiple_of(2) {
                    program.signal_command(Signal::SIGSTOP);
                }
            }
        }
        Ok(Some(client.clone()))
    }

    fn end(&self, fault: ClientFault, client: &str) -> Result<()> {
        let running = lock(&self.running);
        let Some(program) = running.get(client) else { return Ok(()) };
        match (fault.kind, &program.clock) {
            (ClientFaultKind::ClockJump(_), Some(clock)) => set_clock(clock, 0)?,
            (ClientFaultKind::Halt, _) => {
                let program = program.clone();
                // Longer than the fault, so that the lock goes to another one meanwhile. The next
                // faults do not wait for that.
                let more = MORE + Duration::from_secs(fault.client as u64 % MORE.as_secs());
                thread::spawn(move || {
                    thread::sleep(more);
                    // The command first, so that it has the time for a late write.
                    program.signal_command(Signal::SIGCONT);
                    program.signal(Signal::SIGCONT);
                });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Running {
    /// Before it is halted or killed, after which it cannot know what it holds.
    fn forget(&self) {
        if let Some(run) = self.run {
            self.register.forget(run);
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = kill(self.pid, signal);
    }

    /// Sends a signal to the command of a lock, which has a process group of its own.
    fn signal_command(&self, signal: Signal) {
        if let Some(group) = self.run.and_then(|run| self.register.command(run)) {
            // It may have ended.
            let _ = killpg(Pid::from_raw(group.cast_signed()), signal);
        }
    }
}

/// Sets how far the wall clock of a program is wrong, as libfaketime reads it.
fn set_clock(clock: &Path, seconds: i64) -> Result<()> {
    // Never an empty file, which a program would read as no answer.
    let next = clock.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}s\n"))?;
    std::fs::rename(&next, clock).with_context(|| clock.display().to_string())
}

/// A program of [`Programs`].
pub struct Entry {
    programs: Arc<Programs>,
    client: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.programs.running).remove(&self.client);
    }
}

/// A client that runs `consul-session lock` again and again.
pub struct Locker {
    /// The client.
    pub client: Client,
    /// What it holds.
    pub held: Held,
    /// The properties of its sessions, without the TTL.
    pub wish: Wish,
    /// Whether it runs under libfaketime.
    pub has_clock: bool,
    /// Chooses its times.
    pub random: Rng,
    /// Whether to end.
    pub stop: Arc<AtomicBool>,
    /// The programs that run.
    pub programs: Arc<Programs>,
}

impl Locker {
    /// Runs programs until the run stops.
    pub async fn run(mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.lock().await.with_context(|| self.client.name.clone())?;
            sleep(Duration::from_millis(self.random.u64(50..1000))).await;
        }
        Ok(())
    }

    /// Runs the program once.
    async fn lock(&mut self) -> Result<()> {
        // The name of the run too.
        let since = self.client.place.shared.recorder.now();
        let mut command = self.command(since)?;
        let clock = self.set_up_clock(&mut command)?;
        let mut process = command.spawn()?;
        let entry = self.programs.add(&self.client, process.id(), Some(since), clock)?;
        let stopped = async {
            while !self.stop.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let status = tokio::select! {
            status = process.wait() => status?,
            () = stopped => {
                if let Some(pid) = process.id() {
                    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)?;
                }
                timeout(CLEAN_UP, process.wait()).await.context("it does not end at SIGTERM")??
            }
        };
        drop(entry);
        self.programs.count(status);
        Ok(())
    }

    /// Returns the command of a run that starts now.
    fn command(&mut self, since: u64) -> Result<Command> {
        let shared = &self.client.place.shared;
        let wish = Wish { ttl: Some(TTL), ..self.wish.clone() };
        let milliseconds = |time: u64| format!("{time}ms");
        let mut args: Vec<String> = ["lock", "--wait", "20s", "--ttl"].map(str::to_owned).into();
        args.push(milliseconds(TTL));
        if wish.checks.is_some() {
            args.extend(["--checks".to_owned(), String::new()]);
        }
        if let Some(timeout) = self.client.timeout {
            args.extend(["--timeout".to_owned(), timeout.to_string()]);
        }
        let event = match self.held.clone() {
            Held::Key(key) => {
                args.extend(["--delay".to_owned(), milliseconds(wish.delay.unwrap_or_default()), key.clone()]);
                Event::Hold { key, session: None, fence: 0, since, wish }
            }
            Held::Slot(prefix, limit) => {
                args.extend(["--semaphore".to_owned(), limit.to_string(), prefix.clone()]);
                Event::HoldSlot { prefix, session: None, limit, since, wish }
            }
        };
        let path = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        args.extend(["--".to_owned(), path(&shared.torture)?, child::ARGUMENT.to_owned(), path(&shared.socket)?]);
        args.extend([serde_json::to_string(&self.client.subject())?, since.to_string(), serde_json::to_string(&event)?]);
        args.push(self.random.u64(100..4000).to_string());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = program::command(&self.client, &args)?;
        command.stdout(Stdio::null()).stderr(program::messages(&self.client)?);
        die_with_parent(command.as_std_mut());
        Ok(command)
    }

    /// Has the program read the wall clock from a file, if it is to have such a clock.
    fn set_up_clock(&self, command: &mut Command) -> Result<Option<PathBuf>> {
        if !self.has_clock {
            return Ok(None);
        }
        let shared = &self.client.place.shared;
        let clock = shared.folder.join(format!("{}.clock", self.client.name));
        set_clock(&clock, 0)?;
        command.env("LD_PRELOAD", &shared.faketime).env("FAKETIME_TIMESTAMP_FILE", &clock);
        // The wall clock alone, and each time that it is read.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Ok(Some(clock))
    }
}
