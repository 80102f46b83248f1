//! The time, in unix milliseconds, that never goes back.
//!
//! The wall clock is read once at start and carried on by what the system has been up since, suspended or not
//! (`CLOCK_BOOTTIME`). So a machine whose clock is set back neither revives expired messages nor freezes a
//! queue, one whose clock is set forward does not expire everything at once, and what expires while a machine
//! is suspended has expired when it wakes. Until the next start, times that are kept over a restart
//! (expirations, delays) are off by what the clock was set; [`ahead`] says by how much, and the server tells it.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// What the clocks said when one of them was first read.
struct Start {
    wall_ms: u64,
    up_ms: u64,
    awake_ms: u64,
}

static START: OnceLock<Start> = OnceLock::new();

fn start() -> &'static Start {
    START.get_or_init(|| Start {
        wall_ms: wall_ms(),
        up_ms: read(ClockId::Boottime),
        awake_ms: read(ClockId::Monotonic),
    })
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the system"
)]
fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    wall.unwrap_or_default().as_millis() as u64
}

/// Unix milliseconds.
pub fn now() -> u64 {
    let start = start();
    start.wall_ms + read(ClockId::Boottime).saturating_sub(start.up_ms)
}

/// How far the wall clock is ahead of [`now`], milliseconds: what it was set since the start.
pub fn ahead() -> i64 {
    let wall = i64::try_from(wall_ms()).unwrap_or(i64::MAX);
    wall.saturating_sub_unsigned(now())
}

/// How long the machine has been suspended since the start, milliseconds. Timers do not count that.
pub fn suspended() -> u64 {
    let start = start();
    let up = read(ClockId::Boottime).saturating_sub(start.up_ms);
    up.saturating_sub(read(ClockId::Monotonic).saturating_sub(start.awake_ms))
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
        assert!(suspended() < 10_000);
    }
}
