//! The command: a process group of its own, so that all of it can be told and ended, which has the terminal while it runs.

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_current_process_group, kill_process_group, test_kill_process_group,
    waitid,
};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// The command, running.
pub struct Child {
    process: tokio::process::Child,
    group: Pid,
    /// Tells that a child has ended or was stopped.
    changed: tokio::signal::unix::Signal,
    /// This program's own group, if the terminal is the command's.
    own: Option<Pid>,
}

/// What a command does.
pub enum Event {
    /// With its exit status, as a shell tells it.
    Ended(u8),
    /// As by Ctrl-Z.
    Stopped,
}

impl Child {
    /// Starts it with this environment beside the inherited one.
    pub fn start(command: &[String], environment: impl IntoIterator<Item = (&'static str, String)>) -> io::Result<Child> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let changed = signal(SignalKind::child())?;
        let own = foreground();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
        let process = Command::new(program).args(arguments).envs(environment).process_group(0).spawn().map_err(named)?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let group = pid.ok_or(io::ErrorKind::NotFound)?;
        let child = Child { process, group, changed, own };
        if own.is_some() {
            // SAFETY: it only says that a signal is ignored. A program in the background that takes the terminal gets this one,
            // and would stop. After the start, since the command inherits what is ignored.
            unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
            // It may have been stopped by a read before it had the terminal.
            child.resume();
        }
        Ok(child)
    }

    /// The next that it does.
    pub async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                ended = self.process.wait() => return Event::Ended(status(ended)),
                _ = self.changed.recv() => {
                    let stopped = waitid(WaitId::Pid(self.group), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
                    if self.own.is_some() && stopped.is_ok_and(|stopped| stopped.is_some()) {
                        return Event::Stopped;
                    }
                }
            }
        }
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        // It may be gone.
        let _ = kill_process_group(self.group, signal);
    }

    /// Ends all of it, and kills what is left of it after this time. Its exit status.
    pub async fn end(&mut self, kill_after: Duration) -> u8 {
        self.signal(Signal::TERM);
        // One that is stopped does not hear.
        self.signal(Signal::CONT);
        let ended = async {
            let ended = self.process.wait().await;
            while test_kill_process_group(self.group).is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            ended
        };
        match timeout(kill_after, ended).await {
            Ok(ended) => status(ended),
            Err(_) => {
                self.signal(Signal::KILL);
                status(self.process.wait().await)
            }
        }
    }

    /// Stops this program as the command was stopped, with all that the shell started beside it, so that the shell has the
    /// terminal. Comes back when the shell lets it go on, or at once where no shell could.
    pub fn suspend(&self) {
        self.take_terminal();
        let _ = kill_current_process_group(Signal::TSTP);
    }

    /// Lets it go on, with the terminal if this program has that.
    pub fn resume(&self) {
        if self.own.is_some() && foreground().is_some() {
            let _ = tcsetpgrp(stdin(), self.group);
        }
        self.signal(Signal::CONT);
    }

    fn take_terminal(&self) {
        if let Some(own) = self.own {
            let _ = tcsetpgrp(stdin(), own);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.take_terminal();
    }
}

/// This program's group, if the terminal is its own. With a pipe or a file on either side, others may read from the terminal,
/// such as the pager that it writes to.
fn foreground() -> Option<Pid> {
    let own = getpgrp();
    let all = isatty(stdin()) && isatty(stdout()) && isatty(stderr());
    (all && tcgetpgrp(stdin()).is_ok_and(|group| group == own)).then_some(own)
}

/// As a shell tells it.
fn status(ended: io::Result<ExitStatus>) -> u8 {
    match ended.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => u8::try_from(code).unwrap_or(1),
        Ok((None, Some(signal))) => of_signal(signal),
        _ => 1,
    }
}

/// As a shell tells that this signal ended a command.
pub fn status_of(signal: Signal) -> u8 {
    of_signal(signal.as_raw())
}

fn of_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(1)
}

/// The signals with which somebody wants it to end.
pub struct Signals {
    received: mpsc::UnboundedReceiver<Signal>,
    /// So that the other end is never closed.
    _sender: mpsc::UnboundedSender<Signal>,
}

impl Signals {
    /// Listens for SIGHUP, SIGINT and SIGTERM, but for those that this program was told to ignore, as by `nohup`.
    pub fn listen() -> io::Result<Signals> {
        let (sender, received) = mpsc::unbounded_channel();
        let ignored = ignored();
        for one in [Signal::HUP, Signal::INT, Signal::TERM] {
            if ignored >> (one.as_raw() - 1) & 1 == 1 {
                continue;
            }
            let (mut stream, sender) = (signal(SignalKind::from_raw(one.as_raw()))?, sender.clone());
            tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(one).is_ok() {} });
        }
        Ok(Signals { received, _sender: sender })
    }

    pub async fn next(&mut self) -> Signal {
        match self.received.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// The signals that this program ignores, as bits from 1 on. Elsewhere than on Linux: none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
