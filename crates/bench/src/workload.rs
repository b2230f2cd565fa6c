//! What is done, in one table.

use std::fmt;

/// A work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Reads one session.
    Info,
    /// Creates a session and destroys it.
    CreateDestroy,
    /// Makes sure that there is a session of a name, which there is.
    Present,
    /// Reads this many sessions.
    List(usize),
    /// Creates [`MANY`] sessions, this many at a time. The time is that of all, divided by their number.
    Create(usize),
    /// Reads one session in a process of its own: from exec to its end.
    Cold,
    /// Makes sure that there is a session of a name, which there is, as a task of Ansible.
    Task,
}

/// How many sessions [`Workload::Create`] creates.
pub const MANY: usize = 1_000;

/// Each work with how often it is done in one round. On a real agent the lists fill it up, so that they come last.
pub const WORKLOADS: [(Workload, usize); 10] = [
    (Workload::Info, 100),
    (Workload::CreateDestroy, 50),
    (Workload::Present, 50),
    (Workload::List(10), 100),
    (Workload::Create(1), 1),
    (Workload::Create(64), 1),
    (Workload::Cold, 3),
    (Workload::Task, 1),
    (Workload::List(10_000), 5),
    (Workload::List(100_000), 1),
];

/// The sizes of the lists.
pub fn sizes() -> Vec<usize> {
    WORKLOADS.iter().filter_map(|(work, _)| if let Workload::List(size) = work { Some(*size) } else { None }).collect()
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
