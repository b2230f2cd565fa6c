//! What is done, in one table.

use std::fmt;

/// A work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
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

/// How many sessions [`Work::Create`] creates.
pub const MANY: usize = 1_000;

/// Each work with how often it is done in one round. On a real agent the lists fill it up, so that they come last.
pub const WORKS: [(Work, usize); 10] = [
    (Work::Info, 100),
    (Work::CreateDestroy, 50),
    (Work::Present, 50),
    (Work::List(10), 100),
    (Work::Create(1), 1),
    (Work::Create(64), 1),
    (Work::Cold, 3),
    (Work::Task, 1),
    (Work::List(10_000), 5),
    (Work::List(100_000), 1),
];

/// The sizes of the lists.
pub fn sizes() -> Vec<usize> {
    WORKS.iter().filter_map(|(work, _)| if let Work::List(size) = work { Some(*size) } else { None }).collect()
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Info => f.write_str("info"),
            Work::CreateDestroy => f.write_str("create + destroy"),
            Work::Present => f.write_str("present that finds its session"),
            Work::List(size) => write!(f, "list of {size}"),
            Work::Create(1) => write!(f, "create, one of {MANY} in a row"),
            Work::Create(at_once) => write!(f, "create, one of {MANY}, {at_once} at a time"),
            Work::Cold => f.write_str("info, a process from exec to end"),
            Work::Task => f.write_str("present, one task of a play"),
        }
    }
}
