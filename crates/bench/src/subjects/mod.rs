//! The implementations under test.

mod ansible;
mod go;
mod in_process;
mod native;
mod plugin;
mod process;
mod stock;

pub use ansible::{Ansible, Module};
pub use go::{GO, Go};
pub use in_process::{Caller, Client, InProcess};
pub use native::{NATIVE, Native, ONCE, once};
pub use plugin::{FRESH, Fresh, KEPT, Kept, PLUGIN, POOLED, Pooled, connection, host, load, named};
pub use process::{CACHED, COMPILES, CURL, Process};
pub use stock::Stock;

use crate::backend::Backend;
use crate::workload::Workload;
use anyhow::Result;
use std::time::Duration;

/// An implementation under test: a client in the tables.
pub trait Subject {
    /// Returns the name in the tables.
    fn name(&self) -> String;

    /// Returns whether this subject runs this workload.
    fn supports(&self, workload: Workload) -> bool;

    /// Runs the workload `calls` times, one call after another.
    ///
    /// # Errors
    ///
    /// Fails if a call fails or gets a wrong answer.
    fn run(&mut self, workload: Workload, backend: &Backend, calls: usize) -> Result<Round>;
}

/// The measurements of one round.
pub struct Round {
    /// The time of each call.
    pub times: Vec<Duration>,
    /// Processor time per call, of the subject alone, if it is known.
    pub cpu: Option<Duration>,
}

/// Returns whether the workload is a call within a running process.
fn is_call(workload: Workload) -> bool {
    !matches!(workload, Workload::Cold | Workload::Task)
}
