//! The way out to a consumer's connection, and the credit a channel shares among its consumers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use super::{Entry, Queue};
use crate::broker::ports::Bell;
use crate::sync::Mutex;

/// Names a consumer within its connection. A stale key (the slot was reused) is recognised by its
/// generation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConsumerKey {
    /// Slot in the connection's table of consumers.
    pub slot: u32,
    /// Counts how often the slot was reused.
    pub generation: u32,
}

/// Marks a delivery that needs no acknowledgement: the entry travels with it.
pub const NO_SLOT: u32 = u32::MAX;

/// A message on its way to a consumer.
#[derive(Debug)]
pub struct Delivery {
    /// The consumer.
    pub consumer: ConsumerKey,
    /// Where the queue keeps the unacknowledged copy, or [`NO_SLOT`].
    pub slot: u32,
    /// The copy. Its message is always here.
    pub entry: Entry,
}

/// How much an outlet takes now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Deliveries.
    pub deliveries: u32,
    /// Bytes of bodies; the last delivery may go beyond.
    pub bytes: u64,
}

/// What a queue tells a consumer's connection beside deliveries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The queue is gone or gave the consumer up: `basic.cancel`.
    Cancelled(ConsumerKey),
    /// The consumer kept a delivery for longer than this many milliseconds, and was given up.
    TimedOut(ConsumerKey, u64),
}

/// A connection, seen from a queue: where deliveries go. Implemented by the connection's inbox.
pub trait Outlet: Bell {
    /// What may be pushed now. If that is nothing, the consumer is noted as stalled in the same
    /// critical section, and [`Queue::resume`] is called once there is room.
    fn room(&self, queue: &Arc<Queue>, consumer: u32) -> Option<Room>;

    /// Takes the deliveries, in order, leaving the vector empty. True if the outlet was empty and
    /// has to be rung after the queue is unlocked.
    fn push(&self, deliveries: &mut Vec<Delivery>) -> bool;

    /// How many deliveries were pushed for a consumer and not taken yet.
    fn waiting(&self, consumer: ConsumerKey) -> usize;

    /// Deliveries that wait here, and bytes of their bodies.
    fn load(&self) -> (usize, u64) {
        (0, 0)
    }

    /// Gives back what was pushed for a consumer and not taken yet.
    fn withdraw(&self, consumer: ConsumerKey) -> Vec<Delivery>;

    /// Takes a notice. True as for [`Self::push`].
    fn notify(&self, notice: Notice) -> bool;
}

/// The prefetch limit that `basic.qos global=true` sets for all consumers of a channel.
#[derive(Debug)]
pub struct ChannelCredit {
    /// At most so many unacknowledged messages; zero: no limit.
    limit: AtomicU32,
    used: AtomicU32,
    /// Queues with a consumer that found no credit; they are pumped in turn as it returns.
    waiting: Mutex<Vec<Weak<Queue>>>,
}

impl ChannelCredit {
    /// No limit, nothing used.
    pub fn unlimited() -> ChannelCredit {
        ChannelCredit {
            limit: AtomicU32::new(0),
            used: AtomicU32::new(0),
            waiting: Mutex::new("channel credit", Vec::new()),
        }
    }

    /// Sets the limit; what is out already may exceed it. The caller pumps [`Self::take_waiting`].
    pub fn set_limit(&self, limit: u16) {
        self.limit.store(u32::from(limit), Ordering::Release);
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.limit.load(Ordering::Acquire) != 0
    }

    /// Counts what is out already, although nobody asked.
    pub fn count(&self, n: u32) {
        self.used.fetch_add(n, Ordering::AcqRel);
    }

    /// Takes one unit, or notes the queue as waiting.
    pub fn take(&self, queue: &Arc<Queue>) -> bool {
        if self.try_take() {
            return true;
        }
        let mut waiting = self.waiting.lock();
        // Between the first try and the lock, a unit may have come back.
        if self.try_take() {
            return true;
        }
        if !waiting
            .iter()
            .any(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(queue)))
        {
            waiting.push(Arc::downgrade(queue));
        }
        false
    }

    fn try_take(&self) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (limit == 0 || used < limit).then_some(used + 1)
            })
            .is_ok()
    }

    /// Gives `n` units back.
    pub fn give_back(&self, n: u32) {
        // The update always succeeds; saturating, because a limit may have been changed meanwhile.
        let _ = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                Some(used.saturating_sub(n))
            });
    }

    /// Queues that waited for credit and should be pumped, unless there still is none.
    pub fn take_waiting(&self) -> Vec<Arc<Queue>> {
        let limit = self.limit.load(Ordering::Acquire);
        if limit != 0 && self.used.load(Ordering::Acquire) >= limit {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock();
        waiting.drain(..).filter_map(|w| w.upgrade()).collect()
    }
}
