//! A clock that runs while this program is stopped and while the machine sleeps, as the clock of a
//! remote Consul does.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::sleep;

/// The longest step of a wait: the runtime's timers stop while the machine sleeps.
const STEP: Duration = Duration::from_secs(1);

/// Returns the time of the clock.
pub fn now() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere the monotonic clock is the closest.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Waits until a time of [`now`].
pub async fn until(time: Duration) {
    loop {
        match time.saturating_sub(now()) {
            Duration::ZERO => return,
            left => sleep(left.min(STEP)).await,
        }
    }
}
