//! A server of others, for one test.

use crate::consul::spawn;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running server. It is killed when this is dropped, and on Linux also when the test process dies
/// without dropping it.
pub struct Server {
    /// The name, for messages.
    name: &'static str,
    process: Child,
    /// An unnamed file, so that nothing is left in the file system.
    log: File,
}

impl Server {
    /// Starts a server, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It ends, or is not ready in this time. The message has its log.
    pub fn start(name: &'static str, mut command: Command, limit: Duration, is_ready: impl Fn() -> bool) -> Result<Server> {
        let log = tempfile::tempfile()?;
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let mut server = Server { name, process: spawn(command)?, log };
        let start = Instant::now();
        while !is_ready() {
            if let Some(status) = server.process.try_wait()? {
                bail!("{name} ended at once ({status}); its log:\n{}", server.log()?);
            }
            if start.elapsed() > limit {
                bail!("{name} was not ready in {limit:?}; its log:\n{}", server.log()?);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Returns what it printed.
    pub fn log(&self) -> Result<String> {
        read_log(&self.log, 0).with_context(|| format!("the log of {}", self.name))
    }
}

/// Reads a log to which a process writes, from this place on.
pub(crate) fn read_log(log: &File, begin: u64) -> Result<String> {
    let mut text = vec![0; usize::try_from(log.metadata()?.len().saturating_sub(begin))?];
    // Without seeking: the process writes at the offset, which both share.
    log.read_exact_at(&mut text, begin)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.name, self.log().unwrap_or_default());
        }
    }
}
