//! The time, in unix milliseconds, that never goes back.
//!
//! The wall clock is read once at start and carried on by the monotonic clock: a machine whose clock is
//! set back neither revives expired messages nor freezes a queue, one whose clock is set forward does not
//! expire everything at once, and the time that a machine was suspended is no time that passed. Until the
//! next start, times that are kept over a restart (expirations, delays) are off by what the clock was set;
//! [`ahead`] says by how much, and the server tells it.

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

/// How far the wall clock is ahead of [`now`], milliseconds: what it was set since the start, and how
/// long the machine was suspended.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the system"
)]
pub fn ahead() -> i64 {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
    wall.saturating_sub_unsigned(now())
}

/// How long until a time of [`now`].
pub fn until(at: u64) -> Duration {
    Duration::from_millis(at.saturating_sub(now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sets_the_clock_here() {
        now();
        assert!(ahead().abs() < 10_000);
    }
}
