//! The host's limits: hostile components are stopped while other calls continue, calls wait for
//! permits, and many calls leave nothing behind.

mod hostile;
mod load;
mod permits;
mod plugin;
mod pool;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test of this program runs. The tests measure what happens beside them, so
/// each holds this guard.
fn exclusive() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
