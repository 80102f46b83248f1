//! Keeping publishers and consumers of a queue in step.
//!
//! A publisher that streams faster than the consumers take only makes the queue longer: every message
//! then leaves the processor's caches before it is delivered, and waits behind all the others. So once
//! the backlog of a queue with consumers is larger than a cache holds, publishers that stream are asked
//! to wait for a moment until it is smaller. It is a courtesy, not a limit: when consumers turn out
//! to be slow, nobody waits for them. RabbitMQ's credit flow has the same purpose.

use std::sync::{Arc, Weak};

use crate::broker::queue::effects::Effects;
use crate::broker::queue::outlet::Outlet;

/// Consumers are behind when more than this waits in the queue, bytes as [`backlog`] counts them.
const BEHIND_BYTES: u64 = 512 * 1024;

/// What a message counts beside its body: without it, a backlog of small ones would have no end.
const MESSAGE_BYTES: u64 = 16;

/// A body counts no more than this: one that no cache holds anyway is not waited for.
const BODY_BYTES_MAX: u64 = 4 * 1024;

/// They have caught up when no more than this waits. Little less: what is left is their work while the
/// publishers wake up.
const CAUGHT_UP_BYTES: u64 = BEHIND_BYTES / 8 * 7;

/// How long publishers wait before it is looked whether that helps, milliseconds.
const STEP_MS: u64 = 16;

/// It helps when the backlog shrinks by this much in a step.
const PROGRESS_BYTES: u64 = 32 * 1024;

/// How long they wait for a backlog that shrinks, milliseconds.
const WAIT_MAX_MS: u64 = 64;

/// When waiting did not help, it is tried again after so many milliseconds.
const RETRY_MS: u64 = 500;

/// The pace of one queue. Times are unix milliseconds.
#[derive(Default)]
pub(super) struct Pace {
    /// Publishers wait, at most until then; zero: they do not.
    until: u64,
    /// Since when they wait.
    since: u64,
    /// The largest backlog of this step.
    backlog: u64,
    retry_at: u64,
    waiting: Vec<Weak<dyn Outlet>>,
}

/// What so many messages with so many bytes of bodies count.
pub(super) fn backlog(messages: u64, bytes: u64) -> u64 {
    bytes.min(messages * BODY_BYTES_MAX) + messages * MESSAGE_BYTES
}

impl Pace {
    /// Takes note of the [`backlog`]; returns until when publishers wait, zero for not at all.
    /// Rings those that need not wait any longer.
    pub(super) fn update(
        &mut self,
        backlog: u64,
        has_consumers: bool,
        now: u64,
        fx: &mut Effects,
    ) -> u64 {
        if backlog <= CAUGHT_UP_BYTES || !has_consumers {
            self.retry_at = 0;
            self.end(fx);
        } else if self.until == 0 {
            if backlog > BEHIND_BYTES && now >= self.retry_at {
                (self.until, self.since, self.backlog) = (now + STEP_MS, now, backlog);
            }
        } else if now < self.until {
            self.backlog = self.backlog.max(backlog);
        } else if backlog + PROGRESS_BYTES <= self.backlog && now < self.since + WAIT_MAX_MS {
            (self.until, self.backlog) = (now + STEP_MS, backlog);
        } else {
            self.retry_at = now + RETRY_MS;
            self.end(fx);
        }
        self.until
    }

    fn end(&mut self, fx: &mut Effects) {
        if self.until != 0 {
            self.until = 0;
            for outlet in self.waiting.drain(..) {
                if let Some(outlet) = outlet.upgrade() {
                    fx.ring(&outlet);
                }
            }
        }
    }

    /// A publisher waits, and wants to be rung when the wait is over. False if there is none.
    pub(super) fn wait(&mut self, outlet: &Arc<dyn Outlet>) -> bool {
        if self.until == 0 {
            return false;
        }
        let this = Arc::downgrade(outlet);
        self.waiting
            .retain(|w| w.strong_count() > 0 && !w.ptr_eq(&this));
        self.waiting.push(this);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::queue::tests::Sink;

    /// A queue whose consumers take `per_ms` bytes a millisecond, and a publisher that streams whatever
    /// it may, in reads of 256 KiB. Returns the share of time it waits, in percent, and the largest
    /// backlog.
    fn stream(per_ms: u64, mut backlog: u64) -> (u64, u64) {
        let (mut pace, mut fx) = (Pace::default(), Effects::default());
        let (mut waited, mut largest) = (0, 0);
        for now in 1000..11_000 {
            backlog = backlog.saturating_sub(per_ms);
            if pace.update(backlog, true, now, &mut fx) > now {
                waited += 1;
                continue;
            }
            backlog += 256 * 1024;
            largest = largest.max(backlog);
            pace.update(backlog, true, now, &mut fx);
        }
        (waited / 100, largest)
    }

    #[test]
    fn consumers_that_keep_up_have_no_backlog() {
        let (waited, largest) = stream(100 * 1024, 0);
        assert!(waited > 50, "{waited} %");
        assert!(largest <= BEHIND_BYTES + 256 * 1024);
    }

    #[test]
    fn a_backlog_that_shrinks_is_waited_for_and_goes() {
        let (_, largest) = stream(250 * 1024, 8 << 20);
        assert!(largest <= 8 << 20);
    }

    #[test]
    fn nobody_waits_for_consumers_that_do_not_move() {
        for per_ms in [0, 1024] {
            let (waited, _) = stream(per_ms, 0);
            assert!((1..5).contains(&waited), "{waited} %");
        }
        let (waited, _) = stream(4096, 1 << 30);
        assert!(waited < 15, "{waited} % for ones that are slow");
    }

    #[test]
    fn small_messages_count_and_large_ones_not_much() {
        assert!(backlog(20_000, 0) < BEHIND_BYTES && backlog(40_000, 0) > BEHIND_BYTES);
        assert!(backlog(1, 512 << 20) < BEHIND_BYTES && backlog(129, 129 << 20) > BEHIND_BYTES);
        assert!(backlog(512, 512 * 1024) > BEHIND_BYTES);
    }

    #[test]
    fn without_consumers_there_is_nothing_to_wait_for() {
        let (mut pace, mut fx) = (Pace::default(), Effects::default());
        assert_eq!(pace.update(u64::MAX, false, 1000, &mut fx), 0);
        let outlet: Arc<dyn Outlet> = Sink::new(1);
        assert!(!pace.wait(&outlet));
    }

    #[test]
    fn who_waits_is_rung_once_when_it_is_over() {
        let (mut pace, mut fx) = (Pace::default(), Effects::default());
        let outlet: Arc<dyn Outlet> = Sink::new(1);
        let gone: Arc<dyn Outlet> = Sink::new(1);
        assert_eq!(pace.update(1 << 20, true, 1000, &mut fx), 1000 + STEP_MS);
        assert!(pace.wait(&gone) && pace.wait(&outlet) && pace.wait(&outlet));
        drop(gone);
        pace.update(CAUGHT_UP_BYTES + 1, true, 1001, &mut fx);
        assert!(fx.bells.is_empty());
        assert_eq!(pace.update(CAUGHT_UP_BYTES, true, 1002, &mut fx), 0);
        assert_eq!(fx.bells.len(), 1);
        assert!(Arc::ptr_eq(&fx.bells[0], &outlet));
        assert!(!pace.wait(&outlet));
        // Given up, or without the last consumer: it is over as well.
        for (consumers, now) in [(true, 3000), (false, 2001)] {
            fx.bells.clear();
            assert!(pace.update(1 << 20, true, 2000, &mut fx) > 2000);
            assert!(pace.wait(&outlet));
            assert_eq!(pace.update(1 << 20, consumers, now, &mut fx), 0);
            assert_eq!(fx.bells.len(), 1);
            pace.update(0, true, now, &mut fx);
        }
    }
}
