//! What other tasks have for a connection: deliveries, notices, bells.
//!
//! A queue pushes under its own lock; the connection swaps the contents out and writes them. The
//! inbox has a limit: a queue that finds it full leaves a note, and is resumed when there is room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use crate::broker::ports::Bell;
use crate::broker::queue::Queue;
use crate::broker::queue::outlet::{ConsumerKey, Delivery, Notice, Outlet, Room};
use crate::sync::Mutex;

/// What waits for the connection.
#[derive(Default)]
pub struct Contents {
    /// In the order they were pushed.
    pub deliveries: Vec<Delivery>,
    /// From queues.
    pub notices: Vec<Notice>,
    /// Consumers that found the inbox full.
    pub stalled: Vec<(Weak<Queue>, u32)>,
    bytes: u64,
}

impl Contents {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.notices.is_empty()
    }
}

/// See the module.
pub struct Inbox {
    contents: Mutex<Contents>,
    notify: Notify,
    rung: AtomicBool,
    deliveries_max: u32,
    bytes_max: u64,
}

impl Inbox {
    /// An empty inbox with these limits.
    pub fn new(deliveries_max: u32, bytes_max: u64) -> Arc<Inbox> {
        Arc::new(Inbox {
            contents: Mutex::new("an inbox", Contents::default()),
            notify: Notify::new(),
            rung: AtomicBool::new(false),
            deliveries_max: deliveries_max.max(1),
            bytes_max: bytes_max.max(1),
        })
    }

    /// Waits until something rings.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Whether something rang since the last call.
    pub fn take_ring(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Swaps everything out into `into`, which has to be empty.
    pub fn take(&self, into: &mut Contents) {
        let mut contents = self.contents.lock();
        std::mem::swap(&mut *contents, into);
    }
}

impl Contents {
    /// Empties it, keeping its room.
    pub fn clear(&mut self) {
        self.deliveries.clear();
        self.notices.clear();
        self.stalled.clear();
        self.bytes = 0;
    }
}

impl Bell for Inbox {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }
}

impl Outlet for Inbox {
    fn room(&self, queue: &Arc<Queue>, consumer: u32) -> Option<Room> {
        let mut contents = self.contents.lock();
        let deliveries = self
            .deliveries_max
            .saturating_sub(contents.deliveries.len() as u32);
        let bytes = self.bytes_max.saturating_sub(contents.bytes);
        if deliveries == 0 || bytes == 0 {
            contents.stalled.push((Arc::downgrade(queue), consumer));
            return None;
        }
        Some(Room { deliveries, bytes })
    }

    fn push(&self, deliveries: &mut Vec<Delivery>) -> bool {
        let mut contents = self.contents.lock();
        let was_empty = contents.is_empty();
        contents.bytes += deliveries
            .iter()
            .map(|d| u64::from(d.entry.body_len))
            .sum::<u64>();
        contents.deliveries.append(deliveries);
        was_empty
    }

    fn waiting(&self, consumer: ConsumerKey) -> usize {
        let contents = self.contents.lock();
        let deliveries = contents.deliveries.iter();
        deliveries.filter(|d| d.consumer == consumer).count()
    }

    fn load(&self) -> (usize, u64) {
        let contents = self.contents.lock();
        (contents.deliveries.len(), contents.bytes)
    }

    fn withdraw(&self, consumer: ConsumerKey) -> Vec<Delivery> {
        let mut contents = self.contents.lock();
        let Contents {
            deliveries, bytes, ..
        } = &mut *contents;
        let taken: Vec<Delivery> = deliveries
            .extract_if(.., |d| d.consumer == consumer)
            .collect();
        *bytes -= taken
            .iter()
            .map(|d| u64::from(d.entry.body_len))
            .sum::<u64>();
        taken
    }

    fn notify(&self, notice: Notice) -> bool {
        let mut contents = self.contents.lock();
        let was_empty = contents.is_empty();
        contents.notices.push(notice);
        was_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::Memory;
    use crate::broker::message::{Message, Parts};
    use crate::broker::queue::effects::Effects;
    use crate::broker::replies::ReplyTarget;

    /// No queue holds replies back: for a requester that does not read they are dropped, above either limit.
    #[test]
    fn replies_that_nobody_reads_are_dropped() {
        for (octets, sent, kept) in [(0, 70_000, 64 * 1024), (1 << 20, 100, 64)] {
            let inbox = Inbox::new(1, 1);
            let target = ReplyTarget {
                outlet: inbox.clone(),
                consumer: ConsumerKey {
                    slot: 0,
                    generation: 0,
                },
            };
            let parts = Parts {
                exchange: "".into(),
                routing_key: "r".into(),
                properties: &[0, 0],
                flags: 0,
            };
            let message = Message::new(&Memory::new(), &parts, &vec![0; octets]);
            let mut fx = Effects::default();
            for _ in 0..sent {
                target.send(&message, &mut fx);
            }
            assert_eq!(inbox.load().0, kept);
        }
    }
}
