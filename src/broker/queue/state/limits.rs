//! How much a queue may hold: who is refused, and what is dropped.

use super::*;
use crate::broker::arguments::QueueSettings;

impl QueueState {
    /// Promises room for a message, or refuses it (reject-publish): see `Overflow`.
    pub(in crate::broker::queue) fn reserve(
        &mut self,
        body_len: u32,
        settings: &QueueSettings,
    ) -> bool {
        if settings.queue_type == QueueType::Quorum {
            return self.reserve_in_quorum(body_len, settings);
        }
        let (ready, bytes) = self.filled();
        let bytes = bytes + u64::from(body_len);
        let over_length = settings.max_length.is_some_and(|max| {
            ready + 1 > max && (max == 0 || ready + 1 > max + self.consumers.credit(ready + 1))
        });
        let over_bytes = settings.max_length_bytes.is_some_and(|max| bytes > max);
        if over_length || over_bytes {
            return false;
        }
        self.promise(body_len);
        true
    }

    fn promise(&mut self, body_len: u32) {
        self.reserved += 1;
        self.reserved_bytes += u64::from(body_len);
    }

    /// A quorum queue refuses once it is over its limits, the message that took it there is in it, and goes
    /// on refusing until four fifths of them are left. RabbitMQ tells publishers so a little later, and
    /// what they have sent by then is taken.
    fn reserve_in_quorum(&mut self, body_len: u32, settings: &QueueSettings) -> bool {
        if !self.refuses {
            self.refuses = self.is_over(settings);
        } else if self.is_below_limits(settings) {
            self.refuses = false;
        }
        if self.refuses {
            return false;
        }
        self.promise(body_len);
        self.refuses = self.is_over(settings);
        true
    }

    /// What waits, and what is promised to. Dead letters that nobody took do, too.
    fn filled(&self) -> (u64, u64) {
        let ready = self.n_ready + self.reserved + self.away.n_dead();
        (ready, self.ready_bytes + self.reserved_bytes)
    }

    fn is_over(&self, settings: &QueueSettings) -> bool {
        let (ready, bytes) = self.filled();
        let over_length = |max| ready > max && ready > max + self.consumers.credit(ready);
        settings.max_length.is_some_and(over_length)
            || settings.max_length_bytes.is_some_and(|max| bytes > max)
    }

    fn is_below_limits(&self, settings: &QueueSettings) -> bool {
        let (ready, bytes) = self.filled();
        let below = |n: u64, max: u64| u128::from(n) * 5 <= u128::from(max) * 4;
        settings.max_length.is_none_or(|max| below(ready, max))
            && settings
                .max_length_bytes
                .is_none_or(|max| below(bytes, max))
    }

    /// Takes back a promise that was not used.
    pub(in crate::broker::queue) fn unreserve(&mut self, body_len: u32, settings: &QueueSettings) {
        self.reserved -= 1;
        self.reserved_bytes -= u64::from(body_len);
        // It was given, so it was this promise that went over.
        self.refuses = self.refuses && self.is_over(settings);
    }

    pub(in crate::broker::queue) fn enforce_limits(&mut self, cx: &mut Cx<'_>) {
        let queue = cx.queue.clone();
        let settings = &queue.info.settings;
        if settings.max_length.is_none() && settings.max_length_bytes.is_none() {
            return;
        }
        if settings.overflow != Overflow::DropHead {
            return;
        }
        if self.paging && !self.stuck && self.consumers.any_ready() {
            // The head is on its way to a consumer; `arrived` comes back to this.
            return;
        }
        let max = settings.max_length.unwrap_or(u64::MAX);
        let max_bytes = settings.max_length_bytes.unwrap_or(u64::MAX);
        while self.n_ready > max || self.ready_bytes > max_bytes {
            // The lowest priority goes first.
            let Some(level) = self.levels.iter().position(|l| l.len() > 0) else {
                break;
            };
            let Some(entry) = self.pop(level) else { break };
            self.die(entry, DeathReason::Maxlen, cx);
        }
    }

    /// Whether a message would not stay here for a moment, and why: the queue holds none, and nobody waits for
    /// one. It need not enter, then.
    pub(in crate::broker::queue) fn passes(
        &mut self,
        settings: &QueueSettings,
    ) -> Option<DeathReason> {
        if self.deleted || self.filled().0 > 0 || self.paging || self.consumers.any_ready() {
            return None;
        }
        if settings.overflow == Overflow::DropHead && settings.max_length == Some(0) {
            return Some(DeathReason::Maxlen);
        }
        (settings.message_ttl == Some(0)).then_some(DeathReason::Expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::queue::tests::queue;

    #[test]
    fn a_promise_that_is_taken_back_leaves_its_room() {
        let q = queue(QueueSettings {
            queue_type: QueueType::Quorum,
            overflow: Overflow::RejectPublish,
            max_length: Some(2),
            ..QueueSettings::default()
        });
        for _ in 0..3 {
            // The third goes over.
            assert!(q.reserve(1) && q.reserve(1) && q.reserve(1) && !q.reserve(1));
            q.unreserve(1);
            assert!(q.reserve(1) && !q.reserve(1));
            (0..3).for_each(|_| q.unreserve(1));
        }
    }
}
