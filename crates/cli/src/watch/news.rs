//! Events with the time and the index at which they were seen.

use super::state::Event;
use std::time::SystemTime;

/// Events of one answer.
pub struct News {
    /// Consul's index; 0 before the first answer.
    pub index: u64,
    pub time: SystemTime,
    pub events: Vec<Event>,
}

impl News {
    /// Events that are seen now.
    pub fn new(index: u64, events: Vec<Event>) -> News {
        News { index, time: SystemTime::now(), events }
    }
}
