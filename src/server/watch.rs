//! Memory, disk and clock, looked at again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::machine;
use super::shared::Shared;
use super::workers::Resources;
use crate::clock;
use crate::storage::SegmentedLog;

/// A wall clock that is off by more than this was set; less is how clocks run.
const CLOCK_SET_MS: u64 = 10_000;

/// Looks at memory and disk.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Arc<SegmentedLog>,
}

impl Watch {
    /// Looks once; an alarm ends only if it `may_end` now.
    pub(super) fn once(&self, may_end: bool) {
        let ahead = clock::ahead();
        self.shared.broker.set_wall_ahead(ahead);
        tell_set_clock(&self.shared.clock_ahead, ahead);
        let config = &self.shared.config;
        let state = Resources {
            memory: machine::resident_bytes(),
            memory_limit: machine::memory_limit(config),
            disk_free: machine::disk_free(&config.data_dir()),
            disk_free_limit: config.disk.free_limit_bytes.0,
            log_out_of_space: self.log.out_of_space(),
        };
        let alarm = state.alarm();
        if alarm.is_some() || may_end {
            self.shared.set_alarm(alarm, &state);
        }
    }
}

/// Looks at something on a thread that may wait, again and again; told which time it is.
pub(super) async fn again_and_again(
    interval: Duration,
    stop: CancellationToken,
    look: impl Fn(u64) + Clone + Send + 'static,
) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let look = look.clone();
        if tokio::task::spawn_blocking(move || look(n)).await.is_err() {
            return;
        }
    }
}

/// Tells that the wall clock was set, once for each time. Returns whether it did.
fn tell_set_clock(told: &AtomicI64, ahead: i64) -> bool {
    let before = told.load(Ordering::Relaxed);
    let set = ahead.abs_diff(before) > CLOCK_SET_MS;
    if set {
        told.store(ahead, Ordering::Relaxed);
        tracing::warn!(
            milliseconds_ahead = ahead,
            "the wall clock was set: expirations and delays go on by the time that passes"
        );
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_once() {
        let told = AtomicI64::new(0);
        let tell = |ahead| tell_set_clock(&told, ahead);
        assert!(!tell(9_000) && !tell(-9_000));
        assert!(tell(3_600_000) && !tell(3_600_500));
        assert!(tell(0) && tell(i64::MIN));
    }
}
