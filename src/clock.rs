//! The time, in unix milliseconds, that never goes back.
//!
//! The wall clock is read once at start and carried on by the monotonic clock: a machine whose clock is
//! set back neither revives expired messages nor freezes a queue.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

static START: OnceLock<(u64, Instant)> = OnceLock::new();

/// Unix milliseconds.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the system"
)]
pub fn now() -> u64 {
    let (wall, start) = START.get_or_init(|| {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        (wall.as_millis() as u64, Instant::now())
    });
    wall + start.elapsed().as_millis() as u64
}

/// How long until a time of [`now`].
pub fn until(at: u64) -> Duration {
    Duration::from_millis(at.saturating_sub(now()))
}
