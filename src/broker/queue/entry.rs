//! A queue's copy of a message.

use super::Queue;
use crate::broker::arguments::QueueType;
use crate::broker::message::Message;
use crate::broker::ports::MessageId;
use crate::broker::routing_keys::{shown_properties, stripped_properties};

/// One copy of a message in one queue.
///
/// What differs from queue to queue lives here; the message itself is shared and immutable.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Position in the queue, assigned at enqueue and never reused: a requeued copy goes back to
    /// where its `seq` puts it.
    pub seq: u64,
    /// The copy in the log, or [`MessageId::NONE`].
    pub id: MessageId,
    /// The message, or `None` while only the log has it.
    pub message: Option<Message>,
    /// Unix milliseconds at which it expires; zero: never.
    pub expires_at: u64,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Deliveries that failed: rejected, or the consumer was lost; saturating. A dead letter goes on
    /// counting where the queue before stopped. Quorum queues show it (`x-delivery-count`) and limit it.
    pub delivery_count: u16,
    /// Deliveries of a quorum queue's message that ended in any return to this queue; saturating.
    /// `x-acquired-count`.
    pub acquired_count: u16,
    /// Priority level.
    pub priority: u8,
    /// A delivery was attempted before.
    pub redelivered: bool,
}

impl Entry {
    /// One that is in no queue, and not in the log.
    pub(in crate::broker) fn outside(message: &Message, delivery_count: u16) -> Entry {
        Entry {
            seq: 0,
            id: MessageId::NONE,
            message: Some(message.clone()),
            expires_at: 0,
            body_len: message.body_len(),
            delivery_count,
            acquired_count: 0,
            priority: 0,
            redelivered: false,
        }
    }

    /// One more delivery failed.
    pub fn count_failure(&mut self) {
        self.delivery_count = self.delivery_count.saturating_add(1);
    }

    /// The properties to deliver the message with, where its own do not do: a quorum queue tells in
    /// the headers how often it was acquired, and how often that failed. Of what failed in queues before,
    /// it takes that both are the same. And nobody sees `BCC`. `queue` is where it comes from, if it was in
    /// one.
    pub fn shown_properties(&self, message: &Message, queue: Option<&Queue>) -> Option<Vec<u8>> {
        let is_quorum = |q: &Queue| q.info().settings.queue_type == QueueType::Quorum;
        if self.acquired_count == 0 && self.delivery_count == 0 || !queue.is_some_and(is_quorum) {
            return stripped_properties(message);
        }
        let acquired = match self.acquired_count {
            0 => self.delivery_count,
            n => n,
        };
        let mut properties = shown_properties(message);
        let headers = properties.headers.get_or_insert_default();
        headers.insert("x-acquired-count", i64::from(acquired));
        if self.delivery_count > 0 {
            headers.insert("x-delivery-count", i64::from(self.delivery_count));
        }
        Some(properties.encode())
    }

    /// Whether the entry's time has come at `now`, unix milliseconds: what was delivered once is not delivered
    /// again.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }

    /// Whether the entry's time has passed at `now`, unix milliseconds. An entry that expires at
    /// this very millisecond may still be delivered.
    pub fn is_past(&self, now: u64) -> bool {
        self.expires_at != 0 && self.expires_at < now
    }
}

/// A copy on its way into a queue.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The message.
    pub message: Message,
    /// Its copy in the log, or [`MessageId::NONE`].
    pub id: MessageId,
    /// Unix milliseconds at which it expires; zero: never.
    pub expires_at: u64,
    /// Priority as published; the queue limits it to its own maximum.
    pub priority: u8,
    /// Room was reserved for it (see [`super::Queue::reserve`]).
    pub reserved: bool,
    /// Deliveries that failed before it was dead-lettered to here.
    pub delivery_count: u16,
}
