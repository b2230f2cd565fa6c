//! Consul's own Go client, in a process (`go/`) that reads one order per line.

use super::{Round, Subject, is_call};
use crate::backend::{Backend, CREATED};
use crate::workload::{MANY, Workload};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;
use test_support::tools::command;

/// Name in the tables, as a process for many calls and as a program for one.
pub const GO: &str = "Consul's Go client";

/// The process of the Go client. Killed when this is dropped.
pub struct Go {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Its answer to an order. Times are in nanoseconds.
#[derive(Deserialize)]
struct Answer {
    times: Vec<u64>,
    cpu: u64,
    error: Option<String>,
}

impl Go {
    /// Starts the program at this path.
    pub fn start(program: &Path) -> Result<Go> {
        let mut process = command(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        Ok(Go { process, input, output })
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Subject for Go {
    fn name(&self) -> String {
        GO.into()
    }

    fn supports(&self, workload: Workload) -> bool {
        is_call(workload)
    }

    fn run(&mut self, workload: Workload, backend: &Backend, calls: usize) -> Result<Round> {
        // `batch`: the operations of one measured time. `listed`: the expected length of a list.
        let (name, batch, at_once, listed) = match workload {
            Workload::Info => ("info", 1, 1, 0),
            Workload::CreateDestroy => ("create-destroy", 1, 1, 0),
            Workload::Present => ("present", 1, 1, 0),
            Workload::List(size) => ("list", 1, 1, size),
            Workload::Create(at_once) => ("create", MANY, at_once, 0),
            Workload::Cold | Workload::Task => anyhow::bail!("not a call within a process"),
        };
        let order = json!({
            "work": name, "calls": calls, "batch": batch, "atOnce": at_once, "listed": listed,
            "address": backend.address(workload).to_string(), "id": backend.id, "name": backend.session, "made": CREATED,
        });
        writeln!(self.input, "{order}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let Answer { times, cpu, error } =
            serde_json::from_str(&line).with_context(|| format!("invalid answer of the Go client: {line}"))?;
        ensure!(error.is_none() && times.len() == calls, "{}", error.unwrap_or_default());
        let times = times.into_iter().map(|time| Duration::from_nanos(time) / batch as u32).collect();
        Ok(Round { times, cpu: Some(Duration::from_nanos(cpu) / (calls * batch) as u32) })
    }
}
