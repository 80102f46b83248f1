//! The queue as a pure machine: given an operation and the time, what changes and what follows.
//!
//! No clock, no disk, no task. [`super::Queue`] holds it behind a mutex.

mod attending;
mod limits;
pub(super) mod residency;
mod returned;
mod settling;
mod timeouts;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::consumers::{ConsumerIndex, Consumers};
use super::entry::{Entry, Incoming};
use super::expiry::Expiry;
use super::pace::Pace;
use super::ready::{ColdRun, Head, Level};
use super::{DeleteIf, DeleteRefused, Queue};
use crate::broker::arguments::{Overflow, QueueType};
use crate::broker::death::DeathReason;
use crate::broker::memory::{Charge, Memory, Use};
use crate::broker::message::Message;
use crate::broker::ports::{MessageId, RecoveredRun};
use crate::broker::queue::effects::{Dead, Effects};
use crate::broker::queue::outlet::{Delivery, NO_SLOT, Notice};

/// Entries that stay in memory at the head under memory pressure, so that a consumer that keeps up
/// never waits for a read.
const KEEP_AT_HEAD: usize = 128;

/// Entries that one enqueue moves out of memory at most beside its own, under memory pressure.
const EVICT_PER_ENQUEUE: usize = 64;

/// Messages that expire under one lock at most; the rest goes in further slices.
const EXPIRE_PER_TICK: usize = 1024;

/// Messages that wait to be dead-lettered until they are read, at most, before more expire.
const DYING_MAX: usize = 4096;

/// What has expired and may not die now is looked at again after this, milliseconds.
const HELD_MS: u64 = 250;

/// Slots of unacknowledged messages that a queue keeps when there are fewer.
const KEEP_SLOTS: usize = 1024;

/// No timer is set for longer than this, milliseconds: it is set again when it has run. Years are more
/// than a timer wheel can hold, and the timer of a deleted queue should not stay for hours.
const TIMER_MAX_MS: u64 = 60_000;

/// What an operation knows of the world, and where it notes what follows.
pub(super) struct Cx<'a> {
    pub(super) queue: &'a Arc<Queue>,
    /// Unix milliseconds.
    pub(super) now: u64,
    /// Bodies in memory exceed their budget.
    pub(super) over_budget: bool,
    pub(super) fx: &'a mut Effects,
}

/// A message that a consumer has and has not settled.
pub(super) struct Unacked {
    pub(super) entry: Entry,
    consumer: ConsumerIndex,
    serial: u32,
    /// Unix milliseconds at which it is taken back; zero: never.
    deadline: u64,
}

/// Unacknowledged messages that have their bodies in memory.
#[derive(Default)]
struct Bodies {
    /// The log has them, too.
    logged: usize,
    /// The log does not.
    unlogged: usize,
    /// Slots before this one were looked at last.
    looked_to: usize,
}

impl Bodies {
    fn of(&mut self, entry: &Entry) -> Option<&mut usize> {
        entry.message.as_ref()?;
        Some(match entry.id.is_some() {
            true => &mut self.logged,
            false => &mut self.unlogged,
        })
    }

    fn came(&mut self, entry: &Entry) {
        if let Some(n) = self.of(entry) {
            *n += 1;
        }
    }

    fn went(&mut self, entry: &Entry) {
        if let Some(n) = self.of(entry) {
            *n -= 1;
        }
    }
}

/// `basic.get`: taken without being a consumer.
const BY_GET: ConsumerIndex = u32::MAX;

/// How a consumer settles a delivery.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Settle {
    /// `basic.ack`.
    Ack,
    /// `basic.nack` with requeue, `basic.recover`: back to its place.
    Requeue,
    /// `basic.reject` with requeue, or the channel is gone: back to its place, and in a quorum queue
    /// one step nearer to the delivery limit.
    Fail,
    /// `basic.nack` without requeue: dead-lettered or dropped.
    Discard,
    /// `basic.reject` without requeue: the same, and it counts as a failed delivery.
    Reject,
}

/// A delivery named by the one who settles it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeliveryRef {
    /// Where the queue keeps it.
    pub slot: u32,
    /// Its sequence number: a stale reference settles nothing.
    pub seq: u64,
}

/// A message in memory that has no copy in the log yet.
pub struct Unlogged {
    /// Where it is; the slot is [`NO_SLOT`] when it is ready.
    pub at: DeliveryRef,
    /// The message.
    pub message: Message,
}

/// What `basic.get` finds.
#[derive(Debug)]
pub enum Got {
    /// Nothing is ready.
    Empty,
    /// The head has to be read from the log first; ask again when the outlet rings.
    Waiting,
    /// A message, and how many are ready after it.
    Message(Delivery, u64),
}

/// What the queue costs in memory beside its messages.
#[derive(Default)]
struct Charges {
    entries: Charge,
    places: Charge,
    unacked: Charge,
}

#[derive(Default)]
pub(super) struct QueueState {
    levels: Vec<Level>,
    unacked: Vec<Option<Unacked>>,
    /// Of those, what could leave memory.
    bodies: Bodies,
    free: Vec<u32>,
    n_unacked: u64,
    /// Deliveries that need no acknowledgement and are not on the wire yet.
    n_in_flight: u64,
    pub(super) consumers: Consumers,
    had_consumer: bool,
    /// Consumers whose room was asked for in this pump.
    touched: Vec<ConsumerIndex>,
    expiry: Expiry,
    next_seq: u64,
    n_ready: u64,
    ready_bytes: u64,
    unacked_bytes: u64,
    /// Promised to publishes that are on their way (reject-publish).
    reserved: u64,
    reserved_bytes: u64,
    /// It was over its limits, and is not far below them yet (reject-publish of quorum queues).
    refuses: bool,
    /// A read from the log is on its way.
    paging: bool,
    /// The one before did not give everything: this one may take long.
    stuck: bool,
    /// Neither ready nor with a consumer.
    away: returned::Away,
    /// To be dead-lettered once their bodies are read.
    dying: VecDeque<(Entry, DeathReason)>,
    /// What is dying was not asked for the last time: it is later.
    dying_later: bool,
    /// Called for in `fx.deadlines` already, unix milliseconds.
    armed: Option<u64>,
    /// No delivery is taken back before, unix milliseconds.
    next_timeout: Option<u64>,
    /// Slots of deliveries that were taken back, with their sequence numbers: not used again before
    /// the consumer settles them, so that what it says is not taken for somebody else's.
    taken_back: HashMap<u32, u64>,
    /// `x-expires`: unix milliseconds at which an unused queue goes.
    lease: Option<u64>,
    charges: Charges,
    /// Who waits for a body in `basic.get`.
    get_waiters: Vec<Arc<dyn crate::broker::ports::Bell>>,
    pub(super) pace: Pace,
    pub(super) deleted: bool,
    /// Slots that were looked at for something to evict.
    #[cfg(test)]
    pub(super) looked: usize,
}

impl QueueState {
    pub(super) fn new(max_priority: Option<u8>, memory: &Memory) -> QueueState {
        let levels = (0..=max_priority.unwrap_or(0)).map(Level::new).collect();
        QueueState {
            levels,
            next_seq: 1,
            charges: Charges {
                entries: memory.charge(Use::Entries),
                places: memory.charge(Use::Places),
                unacked: memory.charge(Use::Unacked),
            },
            ..QueueState::default()
        }
    }

    pub(super) fn counts(&self) -> super::Counts {
        super::Counts {
            ready: self.n_ready,
            unacked: self.n_unacked + self.n_in_flight,
            ready_bytes: self.ready_bytes,
            unacked_bytes: self.unacked_bytes,
            away: self.away.len(),
            consumers: self.consumers.len() as u64,
        }
    }

    // ----- in ---------------------------------------------------------------------------------

    /// Takes new messages, hands out what consumers can take, enforces the limits.
    pub(super) fn enqueue(&mut self, incoming: &mut Vec<Incoming>, cx: &mut Cx<'_>) {
        let n = incoming.len();
        let mut may_expire_at_once = false;
        for m in incoming.drain(..) {
            if m.reserved {
                self.reserved -= 1;
                self.reserved_bytes -= u64::from(m.message.body_len());
            }
            let seq = self.next_seq;
            self.next_seq += 1;
            let body_len = m.message.body_len();
            let priority = m.priority.min(self.max_priority());
            may_expire_at_once |= m.expires_at != 0 && m.expires_at <= cx.now;
            let entry = Entry {
                seq,
                id: m.id,
                message: Some(m.message),
                expires_at: m.expires_at,
                body_len,
                delivery_count: m.delivery_count,
                acquired_count: 0,
                priority,
                redelivered: m.delivery_count > 0,
            };
            self.push(entry);
        }
        self.pump(cx);
        if self.n_ready > 0 {
            self.enforce_limits(cx);
            if may_expire_at_once {
                self.expire(cx);
            }
            if cx.over_budget || self.held_bytes() > residency::HELD_BYTES_MAX {
                self.evict(n + EVICT_PER_ENQUEUE);
            } else {
                self.evict_behind(n + EVICT_PER_ENQUEUE);
            }
            self.arm(cx);
        }
    }

    fn push(&mut self, entry: Entry) {
        self.n_ready += 1;
        self.ready_bytes += u64::from(entry.body_len);
        if entry.expires_at != 0 {
            if self.levels.len() == 1 {
                self.expiry.push(entry.expires_at, entry.seq);
            } else {
                self.expiry.insert(entry.expires_at, entry.seq);
            }
        }
        self.levels[usize::from(entry.priority)].push(entry);
    }

    fn max_priority(&self) -> u8 {
        (self.levels.len() - 1) as u8
    }

    /// Takes copies that recovery found; bodies stay in the log.
    pub(super) fn recover(&mut self, run: &RecoveredRun) {
        self.recover_ready(run, ColdRun::recovered(self.next_seq, run));
    }

    fn recover_ready(&mut self, run: &RecoveredRun, cold: ColdRun) {
        let priority = run.target.priority.min(self.max_priority());
        let first = self.next_seq;
        self.next_seq += u64::from(run.count);
        self.n_ready += u64::from(run.count);
        self.ready_bytes += u64::from(run.body_len) * u64::from(run.count);
        if run.target.expires_at != 0 {
            for seq in first..self.next_seq {
                if self.levels.len() == 1 {
                    self.expiry.push(run.target.expires_at, seq);
                } else {
                    self.expiry.insert(run.target.expires_at, seq);
                }
            }
        }
        self.levels[usize::from(priority)].push_cold(cold);
    }

    // ----- out --------------------------------------------------------------------------------

    fn pop(&mut self, level: usize) -> Option<Entry> {
        let (entry, in_line) = self.levels[level].pop()?;
        self.n_ready -= 1;
        self.ready_bytes -= u64::from(entry.body_len);
        self.expiry.left(
            entry.expires_at,
            entry.seq,
            in_line && self.levels.len() == 1,
        );
        Some(entry)
    }

    /// The highest level with a message.
    fn top(&self) -> Option<usize> {
        if self.levels.len() == 1 {
            return (self.levels[0].len() > 0).then_some(0);
        }
        self.levels.iter().rposition(|l| l.len() > 0)
    }

    /// Hands out messages while there is one ready and a consumer that can take it.
    pub(super) fn pump(&mut self, cx: &mut Cx<'_>) {
        let mut touched = false;
        while self.n_ready > 0 && self.consumers.any_ready() {
            let Some(level) = self.top() else { break };
            match self.levels[level].head() {
                Head::Empty => break,
                Head::Here(entry) => {
                    if entry.is_past(cx.now) {
                        if let Some(entry) = self.pop(level) {
                            self.die(entry, DeathReason::Expired, cx);
                        }
                        continue;
                    }
                }
                Head::Cold { expires_at } => {
                    if expires_at != 0 && expires_at < cx.now {
                        if let Some(entry) = self.pop(level) {
                            self.die(entry, DeathReason::Expired, cx);
                        }
                        continue;
                    }
                    self.want_page_in(cx);
                    break;
                }
            }
            let Some(index) = self.next_consumer(cx) else {
                break;
            };
            let Some(entry) = self.pop(level) else { break };
            self.hand_out(index, entry, cx);
            touched = true;
        }
        if touched {
            self.push_pending(cx);
            if let Some(level) = self.top()
                && self.levels[level].front_is_short()
                && self.levels[level].has_cold()
            {
                self.want_page_in(cx);
            }
        }
        // Rooms are valid for one pump only.
        while let Some(index) = self.touched.pop() {
            if let Some(c) = self.consumers.get(index) {
                c.room = None;
            }
        }
    }

    /// The next consumer with credit, room, and credit of its channel.
    fn next_consumer(&mut self, cx: &mut Cx<'_>) -> Option<ConsumerIndex> {
        loop {
            let index = self.consumers.next()?;
            let consumer = self.consumers.get(index)?;
            if consumer.room.is_none() {
                consumer.room = consumer.info.outlet.room(cx.queue, index);
                self.touched.push(index);
            }
            let Some(room) = &consumer.room else {
                consumer.stalled = true;
                self.consumers.update(index);
                continue;
            };
            if room.deliveries == 0 || room.bytes == 0 {
                // What is pending has used up what it had: push it, then ask again.
                self.push_pending_of(index, cx);
                continue;
            }
            if !consumer.info.no_ack
                && let Some(credit) = &consumer.info.channel_credit
                && !credit.clone().take(cx.queue)
            {
                let consumer = self.consumers.get(index)?;
                consumer.stalled = true;
                self.consumers.update(index);
                continue;
            }
            return Some(index);
        }
    }

    fn hand_out(&mut self, index: ConsumerIndex, mut entry: Entry, cx: &mut Cx<'_>) {
        let body_len = u64::from(entry.body_len);
        let Some(consumer) = self.consumers.get(index) else {
            return;
        };
        if let Some(room) = &mut consumer.room {
            room.deliveries -= 1;
            room.bytes = room.bytes.saturating_sub(body_len.max(1));
        }
        let key = consumer.info.key;
        if consumer.info.no_ack {
            self.n_in_flight += 1;
            self.unacked_bytes += body_len;
            self.levels[usize::from(entry.priority)].pass(entry.seq);
            consumer.pending.push(Delivery {
                consumer: key,
                slot: NO_SLOT,
                entry,
            });
            return;
        }
        consumer.n_unacked += 1;
        let serial = consumer.serial;
        let timeout = consumer.info.timeout;
        self.consumers.update(index);
        let slot = self.keep_unacked(&mut entry, index, serial, cx.over_budget);
        if timeout != 0 {
            self.set_deadline(slot, timeout, cx);
        }
        if let Some(consumer) = self.consumers.get(index) {
            consumer.pending.push(Delivery {
                consumer: key,
                slot,
                entry,
            });
        }
    }

    /// Notes the entry as unacknowledged and returns its slot.
    fn keep_unacked(
        &mut self,
        entry: &mut Entry,
        consumer: ConsumerIndex,
        serial: u32,
        over_budget: bool,
    ) -> u32 {
        let mut kept = entry.clone();
        if over_budget && kept.id.is_some() {
            kept.message = None;
        }
        self.n_unacked += 1;
        self.unacked_bytes += u64::from(entry.body_len);
        self.bodies.came(&kept);
        let unacked = Some(Unacked {
            entry: kept,
            consumer,
            serial,
            deadline: 0,
        });
        match self.take_slot() {
            Some(slot) => {
                self.unacked[slot as usize] = unacked;
                slot
            }
            None => {
                self.unacked.push(unacked);
                (self.unacked.len() - 1) as u32
            }
        }
    }

    fn push_pending(&mut self, cx: &mut Cx<'_>) {
        for at in 0..self.touched.len() {
            self.push_pending_of(self.touched[at], cx);
        }
    }

    fn push_pending_of(&mut self, index: ConsumerIndex, cx: &mut Cx<'_>) {
        let Some(consumer) = self.consumers.get(index) else {
            return;
        };
        consumer.room = None;
        if !consumer.pending.is_empty() {
            let outlet = consumer.info.outlet.clone();
            if outlet.push(&mut consumer.pending) {
                cx.fx.ring(&outlet);
            }
        }
    }

    // ----- basic.get --------------------------------------------------------------------------

    pub(super) fn get(
        &mut self,
        no_ack: bool,
        bell: &Arc<dyn crate::broker::ports::Bell>,
        cx: &mut Cx<'_>,
    ) -> Got {
        self.touch(cx);
        loop {
            let Some(level) = self.top() else {
                return Got::Empty;
            };
            let past = match self.levels[level].head() {
                Head::Empty => return Got::Empty,
                Head::Here(entry) => entry.is_past(cx.now),
                Head::Cold { expires_at } if expires_at != 0 && expires_at < cx.now => true,
                Head::Cold { .. } => {
                    if !self.get_waiters.iter().any(|w| Arc::ptr_eq(w, bell)) {
                        self.get_waiters.push(bell.clone());
                    }
                    self.want_page_in(cx);
                    return Got::Waiting;
                }
            };
            let Some(mut entry) = self.pop(level) else {
                return Got::Empty;
            };
            if past {
                self.die(entry, DeathReason::Expired, cx);
                continue;
            }
            let key = crate::broker::queue::outlet::ConsumerKey {
                slot: u32::MAX,
                generation: 0,
            };
            let slot = if no_ack {
                self.n_in_flight += 1;
                self.unacked_bytes += u64::from(entry.body_len);
                self.levels[level].pass(entry.seq);
                NO_SLOT
            } else {
                self.keep_unacked(&mut entry, BY_GET, 0, cx.over_budget)
            };
            return Got::Message(
                Delivery {
                    consumer: key,
                    slot,
                    entry,
                },
                self.n_ready,
            );
        }
    }

    // ----- the end of messages ----------------------------------------------------------------

    /// A message leaves the queue without being consumed.
    fn die(&mut self, entry: Entry, reason: DeathReason, cx: &mut Cx<'_>) {
        if cx.queue.info.settings.dead_letter.is_none() {
            if entry.id.is_some() {
                cx.fx.settles.push((cx.queue.info.id, entry.id));
            }
            return;
        }
        if entry.message.is_some() {
            cx.fx.dead.push(Dead {
                queue: cx.queue.clone(),
                entry,
                reason,
                origin: None,
            });
        } else {
            self.dying.push_back((entry, reason));
            self.want_page_in(cx);
        }
    }

    /// Removes the messages whose time has come, wherever they stand. The timer goes on with those that are left.
    fn expire(&mut self, cx: &mut Cx<'_>) {
        let may_die = self.expiry.next().map_or(0, |_| cx.queue.may_die());
        for _ in 0..EXPIRE_PER_TICK.min(may_die) {
            if self.dying.len() >= DYING_MAX {
                // `arrived` goes on.
                return;
            }
            let Some(seq) = self.expiry.pop(cx.now) else {
                return;
            };
            let found = self.levels.iter_mut().find_map(|level| level.remove(seq));
            if let Some(entry) = found {
                self.n_ready -= 1;
                self.ready_bytes -= u64::from(entry.body_len);
                self.die(entry, DeathReason::Expired, cx);
            }
        }
    }

    /// Removes all ready messages; returns their number and the log copies to settle.
    pub(super) fn purge(&mut self, cx: &mut Cx<'_>) -> (u64, Vec<Level>) {
        let fresh = (0..=self.max_priority()).map(Level::new).collect();
        let old = std::mem::replace(&mut self.levels, fresh);
        let n = self.n_ready;
        self.n_ready = 0;
        self.ready_bytes = 0;
        self.expiry.clear();
        (n + self.purge_away(cx), old)
    }

    // ----- the end of the queue ---------------------------------------------------------------

    /// Marks the queue as deleted: nothing goes in or out any more, consumers are told.
    pub(super) fn delete(
        &mut self,
        condition: DeleteIf,
        cx: &mut Cx<'_>,
    ) -> Result<u64, DeleteRefused> {
        if condition.unused && self.consumers.len() > 0 {
            return Err(DeleteRefused::InUse);
        }
        if condition.empty && self.n_ready > 0 {
            return Err(DeleteRefused::NotEmpty);
        }
        self.deleted = true;
        for index in 0..self.consumers.n_slots() {
            if let Some(consumer) = self.consumers.get(index) {
                let outlet = consumer.info.outlet.clone();
                if outlet.notify(Notice::Cancelled(consumer.info.key)) {
                    cx.fx.ring(&outlet);
                }
            }
        }
        self.consumers = Consumers::default();
        for waiter in self.get_waiters.drain(..) {
            waiter.ring();
        }
        Ok(self.n_ready)
    }

    /// Visits every log copy as ranges of ids.
    pub(super) fn logged_ranges(&self, mut each: impl FnMut(MessageId, MessageId)) {
        for level in &self.levels {
            level.logged_ranges(&mut each);
        }
        let unacked = self.unacked.iter().flatten().map(|u| &u.entry);
        let dying = self.dying.iter().map(|(e, _)| e);
        for entry in unacked.chain(dying).chain(self.away.entries()) {
            if entry.id.is_some() {
                each(entry.id, entry.id);
            }
        }
    }

    /// Takes everything out of a deleted queue, to be dropped without its lock.
    pub(super) fn take_contents(&mut self) -> QueueState {
        let empty = QueueState {
            levels: vec![Level::default()],
            deleted: true,
            ..QueueState::default()
        };
        let reserved = (self.reserved, self.reserved_bytes, self.n_in_flight);
        let contents = std::mem::replace(self, empty);
        // What is on its way in or out still comes by.
        (self.reserved, self.reserved_bytes, self.n_in_flight) = reserved;
        contents
    }

    // ----- time -------------------------------------------------------------------------------

    /// Use of the queue that renews its lease (`x-expires`).
    pub(super) fn touch(&mut self, cx: &mut Cx<'_>) {
        if let Some(expires) = cx.queue.info.settings.expires
            && self.consumers.len() == 0
        {
            self.lease = Some(cx.now.saturating_add(expires));
            self.arm(cx);
        }
    }

    /// Time has passed: expires messages, and the queue itself.
    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) {
        self.armed = None;
        if self.lease.is_some_and(|lease| lease <= cx.now) && self.consumers.len() == 0 {
            self.lease = None;
            cx.fx.unused.push(cx.queue.clone());
            // If a consumer came meanwhile, the queue stays, and so does what expires in it.
            self.arm(cx);
            return;
        }
        // What is due is in its place before anything is handed out.
        let brought = self.bring_back(cx);
        let timeout = self.next_timeout.is_some_and(|at| at <= cx.now);
        if timeout {
            self.take_back(cx);
        }
        self.expire(cx);
        if brought && !timeout {
            self.pump(cx);
            self.enforce_limits(cx);
        }
        self.arm(cx);
    }

    fn arm(&mut self, cx: &mut Cx<'_>) {
        let is_full = self.dying.len() >= DYING_MAX;
        let mut expiry = self.expiry.next().filter(|_| !is_full);
        if expiry.is_some_and(|at| at <= cx.now) && cx.queue.may_die() == 0 {
            expiry = Some(cx.now + HELD_MS);
        }
        let all = [expiry, self.lease, self.next_timeout, self.away.next()];
        let latest = cx.now.saturating_add(TIMER_MAX_MS);
        if let Some(next) = all.into_iter().flatten().min().map(|at| at.min(latest))
            && self.armed.is_none_or(|armed| next < armed)
        {
            self.armed = Some(next);
            cx.fx.deadlines.push((cx.queue.clone(), next));
        }
    }
}
