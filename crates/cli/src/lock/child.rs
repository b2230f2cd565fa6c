//! The command of a lock. It runs in its own process group, so that signals reach all of its
//! processes, and has the terminal while it runs. In a pipeline it gets the terminal once it reads
//! from it.

use super::claim::Environment;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_current_process_group, kill_process_group, test_kill_process_group,
    waitid,
};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long a command may take to end after SIGKILL.
const KILLED: Duration = Duration::from_secs(5);

/// A running command.
pub struct Child {
    process: tokio::process::Child,
    group: Pid,
    /// SIGCHLD: a child has ended or was stopped.
    changed: tokio::signal::unix::Signal,
    /// This program's own group, if it lends its terminal to the command.
    own: Option<Pid>,
}

/// A change of the command's state.
pub enum Event {
    /// It ended, with its exit status as a shell reports it.
    Ended(u8),
    /// It was stopped, as by Ctrl-Z.
    Stopped,
}

impl Child {
    /// Starts the command, with these changes to the inherited environment.
    pub fn start(command: &[String], environment: Environment) -> io::Result<Child> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let changed = signal(SignalKind::child())?;
        let own = if is_alone() { foreground() } else { None };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let process = command.spawn().map_err(named)?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let group = pid.ok_or(io::ErrorKind::NotFound)?;
        let mut child = Child { process, group, changed, own };
        if own.is_some() {
            // A read before it had the terminal may have stopped it.
            child.lend_terminal();
        }
        Ok(child)
    }

    /// Gives the terminal to the command, and continues it. Returns false if this program does not
    /// have the terminal itself.
    fn lend_terminal(&mut self) -> bool {
        let Some(own) = foreground() else { return false };
        // A background process that takes the terminal receives SIGTTOU, which would stop it.
        // Ignored only after the start, since the command inherits ignored signals.
        // SAFETY: SIG_IGN installs no handler, so no code runs in signal context.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
        self.own = Some(own);
        self.resume();
        true
    }

    /// Waits for the next change.
    pub async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                ended = self.process.wait() => return Event::Ended(status(ended)),
                _ = self.changed.recv() => {
                    let stopped = waitid(WaitId::Pid(self.group), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
                    let by = stopped.ok().flatten().and_then(|stopped| stopped.stopping_signal());
                    let needs_terminal = matches!(by, Some(libc::SIGTTIN | libc::SIGTTOU));
                    if needs_terminal && self.lend_terminal() {
                        continue;
                    }
                    if self.own.is_some() && by.is_some() {
                        return Event::Stopped;
                    }
                }
            }
        }
    }

    /// Sends a signal to the process group, if it still exists.
    ///
    /// # Errors
    ///
    /// No process of the group may be sent signals, as with a command of another user.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill_process_group(self.group, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Ends the process group with SIGTERM, and kills it after this time, or when `hurry` is over.
    /// Returns the exit status.
    ///
    /// # Errors
    ///
    /// SIGKILL did not end the command.
    pub async fn end(&mut self, kill_after: Duration, hurry: impl Future<Output = ()>) -> io::Result<u8> {
        // The kill below reports an error.
        let _ = self.signal(Signal::TERM);
        // A stopped process does not handle SIGTERM.
        let _ = self.signal(Signal::CONT);
        let ended = async {
            let ended = self.process.wait().await;
            while test_kill_process_group(self.group).is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            ended
        };
        tokio::select! {
            biased;
            ended = ended => return Ok(status(ended)),
            () = sleep(kill_after) => {}
            () = hurry => {}
        }
        let killed = self.signal(Signal::KILL);
        match timeout(KILLED, self.process.wait()).await {
            Ok(ended) => Ok(status(ended)),
            Err(_) => Err(killed.err().unwrap_or_else(|| io::ErrorKind::TimedOut.into())),
        }
    }

    /// Stops this program's own process group, as the command was stopped, so that the shell gets
    /// the terminal. Returns when the shell continues it, or at once if no shell could.
    pub fn suspend(&self) {
        self.take_terminal();
        let _ = kill_current_process_group(Signal::TSTP);
    }

    /// Continues the command, with the terminal if this program has it.
    pub fn resume(&self) {
        if self.own.is_some()
            && foreground().is_some()
            && let Some(terminal) = terminal()
        {
            let _ = tcsetpgrp(terminal, self.group);
        }
        let _ = self.signal(Signal::CONT);
    }

    fn take_terminal(&self) {
        if let (Some(own), Some(terminal)) = (self.own, terminal()) {
            let _ = tcsetpgrp(terminal, own);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.take_terminal();
    }
}

/// Returns whether all streams are terminals. With a pipe or a file as one of them, another program
/// may read from the terminal, such as a pager.
fn is_alone() -> bool {
    isatty(stdin()) && isatty(stdout()) && isatty(stderr())
}

/// Returns this program's group, if it has the terminal.
fn foreground() -> Option<Pid> {
    let own = getpgrp();
    tcgetpgrp(terminal()?).is_ok_and(|group| group == own).then_some(own)
}

/// Returns a stream that is a terminal.
fn terminal() -> Option<BorrowedFd<'static>> {
    [stdin(), stdout(), stderr()].into_iter().find(|stream| isatty(stream))
}

/// Returns an exit status as a shell reports it.
fn status(ended: io::Result<ExitStatus>) -> u8 {
    match ended.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => u8::try_from(code).unwrap_or(1),
        Ok((None, Some(signal))) => status_of_raw(signal),
        _ => 1,
    }
}

/// Returns the exit status of a command that this signal ended, as a shell reports it.
pub fn status_of(signal: Signal) -> u8 {
    status_of_raw(signal.as_raw())
}

fn status_of_raw(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(1)
}

/// The signals that end this program.
pub struct Signals {
    received: mpsc::UnboundedReceiver<Signal>,
    /// Keeps the channel open.
    _sender: mpsc::UnboundedSender<Signal>,
}

impl Signals {
    /// Listens for SIGHUP, SIGINT and SIGTERM, except for those that are ignored at the start, as
    /// by `nohup`.
    pub fn listen() -> io::Result<Signals> {
        let (sender, received) = mpsc::unbounded_channel();
        let ignored = ignored();
        for number in [Signal::HUP, Signal::INT, Signal::TERM] {
            if ignored >> (number.as_raw() - 1) & 1 == 1 {
                continue;
            }
            let (mut stream, sender) = (signal(SignalKind::from_raw(number.as_raw()))?, sender.clone());
            tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(number).is_ok() {} });
        }
        Ok(Signals { received, _sender: sender })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        match self.received.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// Returns the ignored signals as a bit mask, in which signal 1 is the lowest bit. Other systems
/// than Linux report none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command of another user, to which signals may not be sent, needs a second user. One in a
    /// group that signals do not reach differs only in the error.
    #[tokio::test]
    async fn command_that_signals_do_not_end_is_not_waited_for() {
        let command = ["sleep".to_owned(), "60".to_owned()];
        let mut child = Child::start(&command, Vec::new()).unwrap();
        let reachable = child.group;
        // No process has this id: it is above the kernel's limit.
        child.group = Pid::from_raw(i32::MAX).unwrap();
        let ended = timeout(Duration::from_secs(30), child.end(Duration::ZERO, std::future::pending())).await;
        child.group = reachable;
        child.signal(Signal::KILL).unwrap();
        assert_eq!(ended.expect("waits without a bound").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(status(child.process.wait().await), 137);
    }
}
