//! Who does the works.

mod ansible;
mod go;
mod in_process;
mod native;
mod plugin;
mod process;
mod stock;

pub use ansible::{Ansible, Module};
pub use go::Go;
pub use in_process::{Caller, InProcess, Kind};
pub use native::{Native, ONCE, once};
pub use plugin::{Fresh, Kept, connection, host};
pub use process::Process;
pub use stock::Stock;

use crate::place::Place;
use crate::workload::Workload;
use anyhow::Result;
use std::time::Duration;

/// One who does works.
pub trait Subject {
    /// As it stands in the tables.
    fn name(&self) -> String;

    /// Whether it is for this work.
    fn does(&self, work: Workload) -> bool;

    /// Does the work `calls` times, one after another. What comes out is checked; a wrong answer is an error.
    fn run(&mut self, work: Workload, place: &Place, calls: usize) -> Result<Round>;
}

/// What came of it.
pub struct Round {
    /// How long each call took.
    pub times: Vec<Duration>,
    /// The processor's time for one call, if the peer can tell: its own, not the server's.
    pub cpu: Option<Duration>,
}

/// The works that are calls within one process.
fn is_call(work: Workload) -> bool {
    !matches!(work, Workload::Cold | Workload::Task)
}
