//! When queues want to be told of a time. One timer a queue; those of queues that are gone are forgotten
//! before they outnumber the others, however far away their time is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::time::delay_queue::{DelayQueue, Key};

use crate::broker::ports::QueueId;

/// With fewer timers nobody looks for those of queues that are gone.
const FEW: usize = 1024;

/// See the module. `Q` is a queue.
pub(super) struct Timers<Q> {
    due: DelayQueue<QueueId>,
    /// The weak reference keeps a queue's memory, if not what is in it.
    armed: HashMap<QueueId, (Key, Weak<Q>)>,
    /// So many timers are a reason to look for those of queues that are gone.
    look_at: usize,
}

impl<Q> Timers<Q> {
    pub(super) fn new() -> Timers<Q> {
        Timers {
            due: DelayQueue::new(),
            armed: HashMap::new(),
            look_at: FEW,
        }
    }

    /// Sets a queue's timer: it asks again only for an earlier time.
    pub(super) fn arm(&mut self, id: QueueId, queue: Weak<Q>, after: Duration) {
        match self.armed.entry(id) {
            Entry::Occupied(armed) => self.due.reset(&armed.get().0, after),
            Entry::Vacant(place) => {
                let key = self.due.insert(id, after);
                place.insert((key, queue));
            }
        }
        if self.armed.len() >= self.look_at {
            self.forget_those_gone();
            self.look_at = (2 * self.armed.len()).max(FEW);
        }
    }

    /// All queues look at the time; they ask again for what is not due.
    pub(super) fn all_after(&mut self, pause: Duration) {
        for (key, _) in self.armed.values() {
            self.due.reset(key, pause);
        }
    }

    fn forget_those_gone(&mut self) {
        let due = &mut self.due;
        self.armed.retain(|_, (key, queue)| {
            let there = queue.strong_count() > 0;
            if !there {
                due.remove(key);
            }
            there
        });
    }

    /// Waits for the next time that has come; for ever if there is none to come. `None`: its queue is gone.
    pub(super) async fn next(&mut self) -> Option<Arc<Q>> {
        if self.due.is_empty() {
            std::future::pending::<()>().await;
        }
        let expired = poll_fn(|cx| self.due.poll_expired(cx)).await?;
        let (_, queue) = self.armed.remove(expired.get_ref())?;
        queue.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_of_queues_that_are_gone_do_not_gather() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut timers = Timers::new();
            let far = Duration::from_secs(365 * 86_400);
            let stays: Vec<_> = (0..FEW as u64).map(Arc::new).collect();
            for (n, queue) in stays.iter().enumerate() {
                timers.arm(QueueId(n as u64), Arc::downgrade(queue), far);
            }
            for n in 0..10_000u64 {
                let queue = Arc::new(n);
                timers.arm(QueueId(1_000_000 + n), Arc::downgrade(&queue), far);
            }
            let most = 2 * stays.len();
            assert!(timers.armed.len() <= most && timers.due.len() <= most);
            // The others still work, and at an earlier time if they ask for it.
            timers.arm(QueueId(7), Arc::downgrade(&stays[7]), Duration::ZERO);
            assert_eq!(timers.next().await.as_deref(), Some(&7));
            timers.arm(QueueId(7), Arc::downgrade(&stays[7]), Duration::ZERO);
            assert_eq!(timers.next().await.as_deref(), Some(&7));
        });
    }
}
