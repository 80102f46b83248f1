//! Judging a peer by its silence only after having listened.
//!
//! A process that was stopped (a suspended machine, SIGSTOP, a debugger, a scheduler under load) finds
//! that every deadline has passed, while what its peers have sent waits in the sockets. So a deadline
//! that is noticed late is not acted on: for a moment everything is read and written as usual, which
//! moves the deadlines of peers that live.

/// A deadline that is noticed so much later says that this process did not run, milliseconds.
const LATE_MS: u64 = 250;

/// How long it listens then, milliseconds.
const LISTEN_MS: u64 = 250;

/// See the module. Times are unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Punctual {
    listens_until: u64,
}

impl Punctual {
    /// Whether a deadline that was set for `due` may be acted on at `now`. If not, it may be at
    /// [`Self::not_before`].
    pub(super) fn judges(&mut self, due: Option<u64>, now: u64) -> bool {
        let late = due.is_some_and(|due| now > due + LATE_MS);
        if late {
            self.listens_until = now + LISTEN_MS;
        }
        !late
    }

    /// When to look at a deadline.
    pub(super) fn not_before(&self, deadline: u64) -> u64 {
        deadline.max(self.listens_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_noticed_late_is_looked_at_again() {
        let mut p = Punctual::default();
        assert_eq!(p.not_before(1000), 1000);
        assert!(p.judges(None, 5000));
        assert!(p.judges(Some(1000), 1000 + LATE_MS), "a busy machine");
        assert!(!p.judges(Some(1000), 9000), "it was stopped");
        // Nothing came: now it counts.
        let again = p.not_before(1000);
        assert_eq!(again, 9000 + LISTEN_MS);
        assert!(p.judges(Some(again), again));
        // Unless it was stopped again.
        assert!(!p.judges(Some(again), again + 9000));
    }
}
