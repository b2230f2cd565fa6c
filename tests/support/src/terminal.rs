//! A terminal, and what stands on its screen.

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

/// The most rows of it.
pub const ROWS: u16 = 12;

/// A terminal, of [`ROWS`] rows where nothing else is said.
pub struct Terminal {
    master: OwnedFd,
    rows: u16,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a program whose standard output goes to a terminal with so many columns.
    pub fn run(command: &mut Command, columns: u16) -> Result<(Terminal, Child)> {
        let (mut terminal, slave) = Terminal::open(columns, ROWS)?;
        let child = command.stdin(Stdio::null()).stdout(slave).spawn().context("cannot start it")?;
        // The command keeps the terminal's other side open.
        command.stdout(Stdio::null());
        terminal.read()?;
        Ok((terminal, child))
    }

    /// Runs a program to its end on a terminal that has room for all that it prints, errors too; and how it ended.
    pub fn run_to_end(command: &mut Command, columns: u16) -> Result<(Terminal, ExitStatus)> {
        let (mut terminal, slave) = Terminal::open(columns, 200)?;
        let mut child =
            command.stdin(Stdio::null()).stdout(slave.try_clone()?).stderr(slave).spawn().context("cannot start it")?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        terminal.read()?;
        let status = child.wait()?;
        // It ends when nobody has the other side any more.
        if let Some(reader) = terminal.reader.take() {
            reader.join().map_err(|_| anyhow!("what the terminal shows could not be read"))?;
        }
        Ok((terminal, status))
    }

    /// Starts a program at a terminal with so many columns: it reads what is typed there, writes there, and signals are sent to
    /// it or to whom it gives the terminal. The command is to begin with `setsid --ctty`.
    pub fn control(command: &mut Command, columns: u16) -> Result<(Terminal, Child)> {
        let (mut terminal, slave) = Terminal::open(columns, ROWS)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let child = command.spawn().context("cannot start it")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        terminal.read()?;
        Ok((terminal, child))
    }

    /// Types this.
    pub fn type_in(&self, keys: &str) -> Result<()> {
        Ok(File::from(self.master.try_clone()?).write_all(keys.as_bytes())?)
    }

    fn open(columns: u16, rows: u16) -> Result<(Terminal, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = open(ptsname(&master, Vec::new())?, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let terminal = Terminal { master, rows, screen, reader: None };
        terminal.set_size(columns)?;
        Ok((terminal, slave))
    }

    /// Shows what comes, when somebody has the other side.
    fn read(&mut self) -> Result<()> {
        let mut output = File::from(self.master.try_clone()?);
        let screen = self.screen.clone();
        self.reader = Some(spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..length]);
            }
        }));
        Ok(())
    }

    /// Gives it so many columns. The program is not told.
    pub fn resize(&self, columns: u16) -> Result<()> {
        self.set_size(columns)?;
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(self.rows, columns);
        Ok(())
    }

    fn set_size(&self, columns: u16) -> Result<()> {
        Ok(tcsetwinsize(&self.master, Winsize { ws_row: self.rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
    }

    /// The text on it, without the empty rows below.
    pub fn text(&self) -> String {
        self.with(|screen| screen.contents().lines().map(|line| format!("{}\n", line.trim_end())).collect())
    }

    /// Looks at the screen.
    pub fn with<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// Waits until the text is as wanted.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let start = Instant::now();
        loop {
            let text = self.text();
            if wanted(&text) {
                return Ok(text);
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the screen is\n{text}");
            }
            sleep(Duration::from_millis(20));
        }
    }
}
