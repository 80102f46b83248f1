//! What the caller of a queue has to do after the queue is unlocked.
//!
//! A queue never calls out while it is locked (but for its consumers' outlets). It notes here what
//! follows from what it did: copies to settle in the log, messages to dead-letter, bells to ring.

use std::sync::Arc;

use super::outlet::Outlet;
use super::{Entry, Queue};
use crate::broker::arguments::Overflow;
use crate::broker::death::DeathReason;
use crate::broker::message::Message;
use crate::broker::ports::{MessageId, QueueId};
use crate::broker::redelivery::ReturnedCopy;

/// A message that has to be routed to its queue's dead-letter exchange.
pub struct Dead {
    /// Where it died.
    pub queue: Arc<Queue>,
    /// The copy; its message is here.
    pub entry: Entry,
    /// Why.
    pub reason: DeathReason,
    /// The copy in the log, if it only passed through `queue`: what it was before.
    pub origin: Option<(QueueId, MessageId)>,
}

impl Dead {
    /// The copy in the log that this settles.
    pub(in crate::broker) fn copy(&self) -> (QueueId, MessageId) {
        self.origin.unwrap_or((self.queue.id(), self.entry.id))
    }
}

/// What follows from what was done to queues; see the module.
#[derive(Default)]
pub struct Effects {
    /// Copies in the log that are done with.
    pub settles: Vec<(QueueId, MessageId)>,
    /// The same as ranges of ids.
    pub settled_ranges: Vec<(QueueId, MessageId, MessageId)>,
    /// What has to be known after a crash of copies that came back; see [`crate::broker::redelivery`].
    pub returned: Vec<ReturnedCopy>,
    /// Messages to dead-letter.
    pub dead: Vec<Dead>,
    /// Outlets to ring. Each tells it when something is put into it while it is empty, so that it is here about once.
    pub bells: Vec<Arc<dyn Outlet>>,
    /// Queues whose head has to be read from the log.
    pub page_ins: Vec<Arc<Queue>>,
    /// Queues that want [`Queue::tick`] at a time in unix milliseconds, earlier than asked before.
    pub deadlines: Vec<(Arc<Queue>, u64)>,
    /// Queues to delete: auto-delete after the last consumer, or unused for `x-expires`.
    pub unused: Vec<Arc<Queue>>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.settles.is_empty()
            && self.settled_ranges.is_empty()
            && self.returned.is_empty()
            && self.dead.is_empty()
            && self.bells.is_empty()
            && self.page_ins.is_empty()
            && self.deadlines.is_empty()
            && self.unused.is_empty()
    }

    /// A queue with `reject-publish-dlx` dead-letters what it refuses.
    pub(in crate::broker) fn refuse(
        &mut self,
        queue: &Arc<Queue>,
        message: &Message,
        delivery_count: u16,
    ) {
        let settings = &queue.info().settings;
        if settings.overflow != Overflow::RejectPublishDlx || settings.dead_letter.is_none() {
            return;
        }
        self.dead.push(Dead {
            queue: queue.clone(),
            entry: Entry::outside(message, delivery_count),
            reason: DeathReason::Maxlen,
            origin: None,
        });
    }

    /// Notes that an outlet has to be rung.
    pub fn ring(&mut self, outlet: &Arc<dyn Outlet>) {
        if !self.bells.last().is_some_and(|b| Arc::ptr_eq(b, outlet)) {
            self.bells.push(outlet.clone());
        }
    }
}
