//! The consumers of a queue and whose turn it is.
//!
//! Consumers that can take a message now stand in a ring, one ring per consumer priority; the
//! highest non-empty ring is served round robin. A consumer leaves its ring when it runs out of
//! credit or its connection is full, and returns when that changes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::queue::outlet::{ChannelCredit, ConsumerKey, Delivery, Outlet, Room};

/// What a consumer asked for.
pub struct ConsumerInfo {
    /// Its key in its connection.
    pub key: ConsumerKey,
    /// Consumer tag.
    pub tag: Arc<str>,
    /// Where deliveries go.
    pub outlet: Arc<dyn Outlet>,
    /// Deliveries need no acknowledgement.
    pub no_ack: bool,
    /// No other consumer is allowed.
    pub exclusive: bool,
    /// `x-priority`; higher is served first.
    pub priority: i32,
    /// At most so many unacknowledged messages; zero: no limit.
    pub prefetch_count: u16,
    /// Deliveries that are not settled after this are taken back, milliseconds; zero: never.
    pub timeout: u64,
    /// The limit it shares with the other consumers of its channel.
    pub channel_credit: Option<Arc<ChannelCredit>>,
}

/// A consumer as its queue knows it.
pub(super) struct Consumer {
    pub(super) info: ConsumerInfo,
    /// Tells this consumer from an earlier one at the same index.
    pub(super) serial: u32,
    /// Unacknowledged messages.
    pub(super) n_unacked: u32,
    in_ring: bool,
    /// Its outlet is full, and will call `resume`.
    pub(super) stalled: bool,
    /// Of the outlet, asked once per pump.
    pub(super) room: Option<Room>,
    /// Handed out in this pump, not pushed yet.
    pub(super) pending: Vec<Delivery>,
    /// Waits behind the single active consumer.
    pub(super) waiting: bool,
}

impl Consumer {
    fn has_credit(&self) -> bool {
        let limit = u32::from(self.info.prefetch_count);
        self.info.no_ack || limit == 0 || self.n_unacked < limit
    }

    fn can_take(&self) -> bool {
        self.has_credit() && !self.stalled && !self.waiting
    }
}

/// Index of a consumer within its queue; reused after the consumer is gone.
pub type ConsumerIndex = u32;

/// Which consumers of a queue get messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Active {
    #[default]
    All,
    /// One; when it leaves, the next is the first of those with the highest priority.
    One,
    /// One, the first of those with the highest priority: who gets a better one beside it is given nothing
    /// more, and makes room as soon as it has settled what it has.
    First,
}

/// All consumers of one queue.
#[derive(Default)]
pub(super) struct Consumers {
    slots: Vec<Option<Consumer>>,
    /// In the order they came.
    order: Vec<ConsumerIndex>,
    rings: Vec<(i32, VecDeque<ConsumerIndex>)>,
    n_ready: usize,
    next_serial: u32,
    active: Active,
    /// The single active consumer.
    holder: Option<ConsumerIndex>,
    /// It gets nothing more: a better one waits.
    makes_room: bool,
    /// Whole rings that were looked through.
    #[cfg(test)]
    pub(super) searches: std::cell::Cell<u64>,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Indexes are below this.
    pub(super) fn n_slots(&self) -> ConsumerIndex {
        self.slots.len() as ConsumerIndex
    }

    pub(super) fn any_ready(&self) -> bool {
        self.n_ready > 0
    }

    pub(super) fn get(&mut self, index: ConsumerIndex) -> Option<&mut Consumer> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.order
            .iter()
            .filter_map(|i| self.slots[*i as usize].as_ref())
    }

    pub(super) fn add(&mut self, info: ConsumerInfo, active: Active) -> ConsumerIndex {
        self.active = active;
        let waiting = active != Active::All;
        let priority = info.priority;
        self.next_serial = self.next_serial.wrapping_add(1);
        let consumer = Consumer {
            info,
            serial: self.next_serial,
            n_unacked: 0,
            in_ring: false,
            stalled: false,
            room: None,
            pending: Vec::new(),
            waiting,
        };
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some(consumer);
        let index = ConsumerIndex::try_from(index).expect("limited by connections and channels");
        self.order.push(index);
        self.update(index);
        let better = |holder: &Consumer| active == Active::First && priority > holder.info.priority;
        if waiting && self.holder().is_none_or(better) {
            self.elect();
        }
        index
    }

    /// Removes a consumer; with a single active one, the next in line takes over.
    pub(super) fn remove(&mut self, index: ConsumerIndex) -> Option<Consumer> {
        let consumer = self.slots.get_mut(index as usize)?.take()?;
        self.order.retain(|i| *i != index);
        if consumer.in_ring {
            self.n_ready -= 1;
        }
        for (_, ring) in &mut self.rings {
            ring.retain(|i| *i != index);
        }
        if self.holder == Some(index) {
            self.holder = None;
            self.elect();
        } else if self.makes_room {
            self.elect();
        }
        Some(consumer)
    }

    fn holder(&self) -> Option<&Consumer> {
        self.slots.get(self.holder? as usize)?.as_ref()
    }

    fn priority(&self, index: ConsumerIndex) -> i32 {
        let consumer = self.slots.get(index as usize).and_then(Option::as_ref);
        consumer.map_or(i32::MIN, |c| c.info.priority)
    }

    /// Decides who is the single active consumer.
    fn elect(&mut self) {
        if self.active == Active::All {
            return;
        }
        let before = self.holder;
        let better = |a, b| {
            if self.priority(b) > self.priority(a) {
                b
            } else {
                a
            }
        };
        let best = self.order.iter().copied().reduce(better);
        let holder = self.holder();
        let is_better = |c: &Consumer| best.is_some_and(|b| self.priority(b) > c.info.priority);
        let (next, makes_room) = match holder {
            None => (best, false),
            Some(c) if self.active == Active::First && is_better(c) => match c.n_unacked {
                0 => (best, false),
                _ => (before, true),
            },
            Some(_) => (before, false),
        };
        (self.holder, self.makes_room) = (next, makes_room);
        for index in before.into_iter().chain(next) {
            if let Some(consumer) = self.get(index) {
                consumer.waiting = Some(index) != next || makes_room;
                self.update(index);
            }
        }
    }

    /// A consumer has settled a delivery.
    pub(super) fn settled(&mut self, index: ConsumerIndex) {
        self.update(index);
        if self.makes_room
            && self.holder == Some(index)
            && self.holder().is_some_and(|c| c.n_unacked == 0)
        {
            self.elect();
        }
    }

    /// Puts a consumer into its ring, or leaves it out, after its credit or its outlet changed.
    pub(super) fn update(&mut self, index: ConsumerIndex) {
        let Some(consumer) = self.slots.get_mut(index as usize).and_then(Option::as_mut) else {
            return;
        };
        let can_take = consumer.can_take();
        if can_take && !consumer.in_ring {
            consumer.in_ring = true;
            self.n_ready += 1;
            let priority = consumer.info.priority;
            let at = self.rings.partition_point(|(p, _)| *p > priority);
            if self.rings.get(at).is_none_or(|(p, _)| *p != priority) {
                self.rings.insert(at, (priority, VecDeque::new()));
            }
            self.rings[at].1.push_back(index);
        } else if !can_take && consumer.in_ring {
            consumer.in_ring = false;
            self.n_ready -= 1;
            let priority = consumer.info.priority;
            if let Some((_, ring)) = self.rings.iter_mut().find(|(p, _)| *p == priority) {
                // Whose turn it was is at the end.
                if ring.back() == Some(&index) {
                    ring.pop_back();
                } else {
                    ring.retain(|i| *i != index);
                    #[cfg(test)]
                    self.searches.set(self.searches.get() + 1);
                }
            }
        }
    }

    /// Whose turn it is; the consumer goes to the end of its ring.
    pub(super) fn next(&mut self) -> Option<ConsumerIndex> {
        let ring = self
            .rings
            .iter_mut()
            .map(|(_, ring)| ring)
            .find(|ring| !ring.is_empty())?;
        if ring.len() > 1 {
            ring.rotate_left(1);
            return ring.back().copied();
        }
        ring.front().copied()
    }

    /// Messages that consumers could take right now, as far as that is known without asking their
    /// outlets; stops counting at `enough`.
    pub(super) fn credit(&self, enough: u64) -> u64 {
        let mut sum = 0u64;
        for consumer in self.iter().filter(|c| c.can_take()) {
            let limit = u32::from(consumer.info.prefetch_count);
            sum += if limit == 0 || consumer.info.no_ack {
                enough
            } else {
                u64::from(limit - consumer.n_unacked)
            };
            if sum >= enough {
                return enough;
            }
        }
        sum
    }
}
