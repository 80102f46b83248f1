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
    /// Its place in the order they came.
    came: u64,
    /// Tells this consumer from an earlier one at the same index.
    pub(super) serial: u32,
    /// Unacknowledged messages.
    pub(super) n_unacked: u32,
    /// Its place in its ring, if it stands there.
    place: Option<u64>,
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

/// Places that were left and are still there, beyond which all of them go. A thousand consumers that leave one after
/// the other are not searched for a thousand times.
const LEFT_MIN: usize = 8;

/// Consumers of one priority that can take a message, in turn. Who leaves only leaves the place that it had.
struct Ring {
    priority: i32,
    places: VecDeque<(ConsumerIndex, u64)>,
    /// Places that nobody stands at any more.
    n_left: usize,
}

/// Whether a consumer still stands at a place of a ring.
fn stands(slots: &[Option<Consumer>], (index, place): (ConsumerIndex, u64)) -> bool {
    let consumer = slots.get(index as usize).and_then(Option::as_ref);
    consumer.is_some_and(|c| c.place == Some(place))
}

/// All consumers of one queue.
#[derive(Default)]
pub(super) struct Consumers {
    slots: Vec<Option<Consumer>>,
    /// Slots that are empty.
    free: Vec<ConsumerIndex>,
    /// In the order they came, with when; some are gone.
    order: Vec<(ConsumerIndex, u64)>,
    /// Those in the order that are gone.
    n_gone: usize,
    /// Of the next place, in the order or a ring.
    next_place: u64,
    /// The highest priority first.
    rings: Vec<Ring>,
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
        self.order.len() - self.n_gone
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
        self.in_order().map(|(_, consumer)| consumer)
    }

    fn in_order(&self) -> impl Iterator<Item = (ConsumerIndex, &Consumer)> {
        self.order.iter().filter_map(|(index, came)| {
            let consumer = self.slots.get(*index as usize)?.as_ref()?;
            (consumer.came == *came).then_some((*index, consumer))
        })
    }

    fn place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    pub(super) fn add(&mut self, info: ConsumerInfo, active: Active) -> ConsumerIndex {
        self.active = active;
        let waiting = active != Active::All;
        let priority = info.priority;
        self.next_serial = self.next_serial.wrapping_add(1);
        let came = self.place();
        let consumer = Consumer {
            info,
            came,
            serial: self.next_serial,
            n_unacked: 0,
            place: None,
            stalled: false,
            room: None,
            pending: Vec::new(),
            waiting,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(consumer);
                index
            }
            None => {
                let index = ConsumerIndex::try_from(self.slots.len());
                self.slots.push(Some(consumer));
                index.expect("limited by connections and channels")
            }
        };
        self.order.push((index, came));
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
        self.free.push(index);
        self.n_gone += 1;
        if 2 * self.n_gone > self.order.len() + LEFT_MIN {
            let slots = &self.slots;
            let is_here = |(index, came): &(ConsumerIndex, u64)| {
                let consumer = slots.get(*index as usize).and_then(Option::as_ref);
                consumer.is_some_and(|c| c.came == *came)
            };
            self.order.retain(is_here);
            self.n_gone = 0;
        }
        if let Some(place) = consumer.place {
            self.n_ready -= 1;
            let at = self.leave_ring(consumer.info.priority, (index, place));
            if let Some(at) = at
                && self.rings[at].places.len() == self.rings[at].n_left
            {
                self.rings.remove(at);
            }
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
        let best = self.in_order().map(|(index, _)| index).reduce(better);
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
        let (can_take, priority) = (consumer.can_take(), consumer.info.priority);
        match consumer.place {
            None if can_take => {
                self.next_place += 1;
                consumer.place = Some(self.next_place);
                self.n_ready += 1;
                let at = self.rings.partition_point(|r| r.priority > priority);
                if self.rings.get(at).is_none_or(|r| r.priority != priority) {
                    let ring = Ring {
                        priority,
                        places: VecDeque::new(),
                        n_left: 0,
                    };
                    self.rings.insert(at, ring);
                }
                self.rings[at].places.push_back((index, self.next_place));
            }
            Some(place) if !can_take => {
                consumer.place = None;
                self.n_ready -= 1;
                self.leave_ring(priority, (index, place));
            }
            _ => {}
        }
    }

    /// Nobody stands at this place any more; returns where its ring is.
    fn leave_ring(&mut self, priority: i32, place: (ConsumerIndex, u64)) -> Option<usize> {
        let at = self.rings.partition_point(|r| r.priority > priority);
        let ring = self.rings.get_mut(at).filter(|r| r.priority == priority)?;
        // Whose turn it was is at the end.
        if ring.places.back() == Some(&place) {
            ring.places.pop_back();
            return Some(at);
        }
        ring.n_left += 1;
        if 2 * ring.n_left > ring.places.len() + LEFT_MIN {
            let slots = &self.slots;
            ring.places.retain(|place| stands(slots, *place));
            ring.n_left = 0;
            #[cfg(test)]
            self.searches.set(self.searches.get() + 1);
        }
        Some(at)
    }

    /// Whose turn it is; the consumer goes to the end of its ring.
    pub(super) fn next(&mut self) -> Option<ConsumerIndex> {
        for ring in &mut self.rings {
            while let Some(place) = ring.places.front() {
                if stands(&self.slots, *place) {
                    let index = place.0;
                    if ring.places.len() > 1 {
                        ring.places.rotate_left(1);
                    }
                    return Some(index);
                }
                ring.places.pop_front();
                ring.n_left -= 1;
            }
        }
        None
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
