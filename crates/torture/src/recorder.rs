//! The writer of the history.

use crate::history::{Answer, Event, Record};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Writes the records of a run, and has its clock.
pub struct Recorder {
    begin: Instant,
    next: AtomicU64,
    /// The file, or the error that ended the writing.
    file: Mutex<Result<BufWriter<File>>>,
}

/// Who a record is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// The name of the client.
    pub client: String,
    /// The name of its host.
    pub host: String,
    /// The number of the server that it asks.
    pub server: Option<usize>,
}

impl Recorder {
    /// Creates the file. The run begins now.
    pub fn create(path: &Path) -> Result<Recorder> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Recorder { begin: Instant::now(), next: AtomicU64::new(1), file: Mutex::new(Ok(BufWriter::new(file))) })
    }

    /// Returns the time since the run began, in microseconds.
    pub fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Returns the time from the begin of the run until `instant`, in microseconds.
    pub fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.begin).as_micros()).unwrap_or(u64::MAX)
    }

    /// Records a call: its time, and its answer.
    pub async fn call(&self, subject: &Subject, event: Event, answer: impl Future<Output = Answer>) -> Answer {
        let start = self.now();
        let answer = answer.await;
        self.write(subject, [start, self.now()], event, Some(answer.clone()));
        answer
    }

    /// Writes a record with this start and this end.
    pub fn write(&self, subject: &Subject, [start, end]: [u64; 2], event: Event, answer: Option<Answer>) {
        let Subject { client, host, server } = subject.clone();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let record = Record { id, client, host, server, start, end, event, answer };
        let mut file = lock(&self.file);
        let written = match &mut *file {
            Ok(file) => write_line(file, &record),
            Err(_) => return,
        };
        if let Err(error) = written {
            *file = Err(error);
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    ///
    /// A record could not be written.
    pub fn finish(&self) -> Result<()> {
        let mut file = lock(&self.file);
        let file = file.as_mut().map_err(|error| anyhow!("the history is incomplete: {error:#}"))?;
        file.flush().context("the history is incomplete")
    }
}

fn write_line(file: &mut impl Write, record: &Record) -> Result<()> {
    serde_json::to_writer(&mut *file, record)?;
    file.write_all(b"\n")?;
    Ok(())
}

/// Locks a mutex, also after a panic of another thread, which ends the run by itself.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
