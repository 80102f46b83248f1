//! The consumers of a connection.

use std::sync::Arc;

use crate::broker::queue::outlet::ConsumerKey;
use crate::broker::queue::{ConsumerIndex, Queue};

/// A consumer as its connection knows it.
pub(super) struct Consumer {
    pub(super) channel: u16,
    pub(super) tag: Arc<str>,
    /// `None`: direct reply-to.
    pub(super) queue: Option<(Arc<Queue>, ConsumerIndex)>,

    /// Deliveries need no acknowledgement.
    pub(super) no_ack: bool,
    /// Deliveries count against the channel's own limit.
    pub(super) credited: bool,
}

/// The consumers of a connection by slot.
#[derive(Default)]
pub(super) struct Consumers {
    slots: Vec<(u32, Option<Consumer>)>,
    free: Vec<u32>,
}

impl Consumers {
    pub(super) fn add(&mut self, consumer: Consumer) -> ConsumerKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.1 = Some(consumer);
        ConsumerKey {
            slot,
            generation: place.0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// The consumer in a slot, whichever it is.
    pub(super) fn at(&self, slot: u32) -> Option<&Consumer> {
        self.slots.get(slot as usize)?.1.as_ref()
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Consumer> {
        self.slots.get_mut(slot as usize)?.1.as_mut()
    }

    /// What the consumer in a slot is called.
    pub(super) fn key(&self, slot: u32) -> Option<ConsumerKey> {
        let (generation, _) = self.slots.get(slot as usize)?;
        Some(ConsumerKey {
            slot,
            generation: *generation,
        })
    }

    pub(super) fn get(&self, key: ConsumerKey) -> Option<&Consumer> {
        let (generation, consumer) = self.slots.get(key.slot as usize)?;
        consumer.as_ref().filter(|_| *generation == key.generation)
    }

    /// The queue of a consumer, and its index there.
    pub(super) fn queue_of(&self, slot: u32) -> Option<(&Arc<Queue>, ConsumerIndex)> {
        let (queue, index) = self.at(slot)?.queue.as_ref()?;
        Some((queue, *index))
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Consumer> {
        let place = self.slots.get_mut(slot as usize)?;
        let consumer = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(slot);
        Some(consumer)
    }

    pub(super) fn set_index(&mut self, slot: u32, index: ConsumerIndex) {
        if let Some((_, i)) = self.at_mut(slot).and_then(|c| c.queue.as_mut()) {
            *i = index;
        }
    }
}
