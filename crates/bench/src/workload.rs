//! The workloads: what every subject does.

use std::fmt;

/// A unit of work, which is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Reads one session.
    Info,
    /// Creates a session, then destroys it.
    CreateDestroy,
    /// Ensures that a session with a name exists, which it does.
    Present,
    /// Reads this many sessions.
    List(usize),
    /// Creates [`MANY`] sessions, this many concurrently. The time is the total divided by
    /// [`MANY`].
    Create(usize),
    /// Reads one session in a new process. The time is from exec to exit.
    Cold,
    /// As [`Workload::Present`], as one task of Ansible.
    Task,
}

/// Number of sessions that [`Workload::Create`] creates.
pub const MANY: usize = 1_000;
/// The most concurrent callers of a workload.
pub const CALLERS: usize = 64;

/// Each workload with its calls per round. The large lists come last: they fill the real agent.
pub const WORKLOADS: [(Workload, usize); 10] = [
    (Workload::Info, 100),
    (Workload::CreateDestroy, 50),
    (Workload::Present, 50),
    (Workload::List(10), 100),
    (Workload::Create(1), 1),
    (Workload::Create(CALLERS), 1),
    (Workload::Cold, 3),
    (Workload::Task, 1),
    (Workload::List(10_000), 5),
    (Workload::List(100_000), 1),
];

/// Returns the sizes of the lists.
pub fn sizes() -> Vec<usize> {
    WORKLOADS.iter().filter_map(|(workload, _)| if let Workload::List(size) = workload { Some(*size) } else { None }).collect()
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Info => f.write_str("info"),
            Workload::CreateDestroy => f.write_str("create + destroy"),
            Workload::Present => f.write_str("present that finds its session"),
            Workload::List(size) => write!(f, "list of {size}"),
            Workload::Create(1) => write!(f, "create, one of {MANY} in a row"),
            Workload::Create(at_once) => write!(f, "create, one of {MANY}, {at_once} at a time"),
            Workload::Cold => f.write_str("info, a process from exec to end"),
            Workload::Task => f.write_str("present, one task of a play"),
        }
    }
}
