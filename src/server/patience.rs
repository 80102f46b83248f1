//! Slowing down a publisher whose consumers are a little behind.
//!
//! Memory has a budget for messages; what exceeds it goes to disk, which costs a publisher and its
//! consumers more than waiting for a moment. So a connection that publishes while the budget is half
//! used is not read for a few milliseconds, until there is room again. If no room appears, nobody is
//! consuming: then waiting is useless, and the connection learns to do without.

/// The longest wait, milliseconds.
const WAIT_MAX_MS: u64 = 16;

/// When waiting did not help, it is tried again after so many milliseconds.
const RETRY_MS: u64 = 500;

/// How long the first wait is then, milliseconds.
const RETRY_WAIT_MS: u64 = 4;

/// One connection's patience. Times are unix milliseconds.
#[derive(Debug)]
pub(super) struct Patience {
    wait_ms: u64,
    retry_at: u64,
    /// It waits, at most until then.
    until: Option<u64>,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience {
            wait_ms: WAIT_MAX_MS,
            retry_at: 0,
            until: None,
        }
    }

    /// The connection published while memory was short: starts a wait, if waiting has helped lately.
    pub(super) fn published_under_pressure(&mut self, now: u64) {
        if self.wait_ms == 0 {
            if now < self.retry_at {
                return;
            }
            self.wait_ms = RETRY_WAIT_MS;
        }
        self.until.get_or_insert(now + self.wait_ms);
    }

    /// Whether the connection goes on waiting; learns from how the wait ended.
    pub(super) fn waits(&mut self, pressure: bool, now: u64) -> bool {
        let Some(until) = self.until else {
            return false;
        };
        if pressure && now < until {
            return true;
        }
        self.until = None;
        if pressure {
            self.wait_ms /= 2;
            self.retry_at = now + RETRY_MS;
        } else {
            self.wait_ms = WAIT_MAX_MS;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_there_is_room() {
        let mut p = Patience::new();
        assert!(!p.waits(true, 1000), "nothing was published");
        p.published_under_pressure(1000);
        assert!(p.waits(true, 1001));
        assert!(!p.waits(false, 1002));
        p.published_under_pressure(1003);
        assert!(p.waits(true, 1003 + WAIT_MAX_MS - 1), "as patient as ever");
    }

    #[test]
    fn waiting_in_vain_is_given_up_and_tried_again() {
        let mut p = Patience::new();
        let (mut now, mut waited) = (1000, 0);
        for _ in 0..10_000 {
            p.published_under_pressure(now);
            while p.waits(true, now) {
                now += 1;
                waited += 1;
            }
            now += 1;
        }
        let share = waited * 100 / (now - 1000);
        assert!(
            (1..4).contains(&share),
            "{share} % of the time spent waiting"
        );
    }
}
