//! A pseudoterminal and its screen.

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// The rows of a terminal, unless a function says otherwise.
pub const ROWS: u16 = 12;

/// The lines that a terminal keeps above its screen.
const SCROLLBACK: usize = 1000;

/// A pseudoterminal whose screen can be read, with [`ROWS`] rows unless a function says otherwise.
pub struct Terminal {
    master: OwnedFd,
    rows: u16,
    screen: Arc<Mutex<vt100::Parser>>,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a program whose standard output is a terminal with this many columns.
    pub fn run(command: &mut Command, columns: u16) -> Result<(Terminal, Child)> {
        let (mut terminal, slave) = Terminal::open(columns, ROWS)?;
        let child = command.stdin(Stdio::null()).stdout(slave).spawn().context("cannot start the program")?;
        // The command keeps the terminal's other side open.
        command.stdout(Stdio::null());
        terminal.read()?;
        Ok((terminal, child))
    }

    /// Runs a program until it ends, on a terminal with enough rows for all its output, errors
    /// included.
    ///
    /// Returns the terminal and the program's exit status.
    pub fn run_to_end(command: &mut Command, columns: u16) -> Result<(Terminal, ExitStatus)> {
        let (mut terminal, slave) = Terminal::open(columns, 200)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .spawn()
            .context("cannot start the program")?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        terminal.read()?;
        let status = child.wait()?;
        // Reading ends when no process has the other side open.
        if let Some(reader) = terminal.reader.take() {
            reader.join().map_err(|_| anyhow!("the thread that reads the terminal panicked"))?;
        }
        Ok((terminal, status))
    }

    /// Starts a program whose standard streams are all a terminal with this many columns.
    ///
    /// The command must begin with `setsid --ctty`. The terminal is then its controlling terminal:
    /// keys such as Ctrl-C send signals to the foreground process group.
    pub fn control(command: &mut Command, columns: u16) -> Result<(Terminal, Child)> {
        Terminal::control_of_size(command, columns, ROWS)
    }

    /// Starts a program as [`Terminal::control`] does, on a terminal with this many rows.
    pub fn control_of_size(command: &mut Command, columns: u16, rows: u16) -> Result<(Terminal, Child)> {
        let (mut terminal, slave) = Terminal::open(columns, rows)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let child = command.spawn().context("cannot start the program")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        terminal.read()?;
        Ok((terminal, child))
    }

    /// Types these keys.
    pub fn type_in(&self, keys: &str) -> Result<()> {
        Ok(File::from(self.master.try_clone()?).write_all(keys.as_bytes())?)
    }

    fn open(columns: u16, rows: u16) -> Result<(Terminal, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = open(ptsname(&master, Vec::new())?, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, SCROLLBACK)));
        let terminal = Terminal { master, rows, screen, output: Arc::default(), reader: None };
        terminal.set_size(columns)?;
        Ok((terminal, slave))
    }

    /// Starts to copy the program's output to the screen. A process must have the other side open
    /// by then.
    fn read(&mut self) -> Result<()> {
        let mut output = File::from(self.master.try_clone()?);
        let (screen, all) = (self.screen.clone(), self.output.clone());
        self.reader = Some(spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                all.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..length]);
                screen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..length]);
            }
        }));
        Ok(())
    }

    /// Changes the number of columns of the terminal and its screen. The program gets no signal.
    pub fn resize(&self, columns: u16) -> Result<()> {
        self.set_size(columns)?;
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(self.rows, columns);
        Ok(())
    }

    fn set_size(&self, columns: u16) -> Result<()> {
        Ok(tcsetwinsize(&self.master, Winsize { ws_row: self.rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
    }

    /// Returns the text on the screen, without the empty rows at its end.
    pub fn text(&self) -> String {
        self.with(|screen| screen.contents().lines().map(|line| format!("{}\n", line.trim_end())).collect())
    }

    /// Returns all that was written to the terminal, also what is no longer on the screen.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Returns how many lines have left the screen at its top. The alternate screen has none.
    pub fn scrolled(&self) -> usize {
        let mut parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = parser.screen_mut();
        screen.set_scrollback(usize::MAX);
        let lines = screen.scrollback();
        screen.set_scrollback(0);
        lines
    }

    /// Passes the screen to `read`.
    pub fn with<T>(&self, read: impl FnOnce(&vt100::Screen) -> T) -> T {
        read(self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// Waits until the text on the screen satisfies `accept`, and returns it.
    ///
    /// # Errors
    ///
    /// Fails after 30 seconds.
    pub fn wait_for(&self, accept: impl Fn(&str) -> bool) -> Result<String> {
        let start = Instant::now();
        loop {
            let text = self.text();
            if accept(&text) {
                return Ok(text);
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the screen is\n{text}");
            }
            sleep(Duration::from_millis(20));
        }
    }
}
