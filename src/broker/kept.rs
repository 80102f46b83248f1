//! Queues of the store that cannot be read: their messages are kept.

use std::collections::HashSet;

use super::ports::{QueueId, TRANSIENT_QUEUE};

/// Queues whose messages are kept although nobody can have them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) ids: HashSet<u64>,
    /// There is a queue or exchange of which not even the number can be read.
    unknown: bool,
    /// How far numbers were used may not be known.
    pub(super) uncounted: bool,
}

impl Kept {
    pub(super) fn lose_number(&mut self) {
        (self.unknown, self.uncounted) = (true, true);
    }

    /// Whether the messages of a queue that is not there are kept.
    pub(super) fn keeps(&self, id: QueueId) -> bool {
        self.ids.contains(&id.0) || (self.unknown && id.0 & TRANSIENT_QUEUE == 0)
    }
}
