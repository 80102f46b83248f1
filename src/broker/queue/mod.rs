//! A queue: the handle that everybody shares, around a pure state machine behind one lock.
//!
//! Every method takes the lock once, does a bounded amount of work without I/O, and leaves in
//! [`Effects`] what the caller has to do afterwards. `now` is unix milliseconds.

mod consumers;
pub mod effects;
mod entry;
mod expiry;
pub mod outlet;
mod pace;
mod ready;
pub mod scheduler;
mod state;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub use consumers::{ConsumerIndex, ConsumerInfo};
pub use entry::{Entry, Incoming};
pub use state::residency::Arrived;
pub use state::{DeliveryRef, Got, Settle, Unlogged};

use self::effects::Effects;
use self::outlet::{ChannelCredit, Delivery, NO_SLOT, Outlet};
use self::state::{Cx, QueueState};
use super::arguments::{Overflow, QueueSettings, QueueType};
use super::death::DeathReason;
use super::deduplication::Window;
use super::ids::ConnectionId;
use super::memory::Memory;
use super::message::Message;
use super::ports::{Bell, Found, MessageId, QueueId, RecoveredRun};
use super::redelivery::Known;
use crate::protocol::field_table::FieldTable;
use crate::sync::Mutex;

/// What a queue is, fixed at its declaration.
pub struct QueueInfo {
    /// Its name in the log.
    pub id: QueueId,
    /// Vhost.
    pub vhost: Arc<str>,
    /// Queue name.
    pub name: Arc<str>,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that declared it exclusive.
    pub exclusive_owner: Option<ConnectionId>,
    /// The arguments as declared, for the equivalence check.
    pub arguments: FieldTable,
    /// What the arguments mean.
    pub settings: QueueSettings,
    /// The `x-delayed-message` exchange whose messages wait here. No client sees such a queue.
    pub delays: Option<Arc<str>>,
}

/// Conditions of `queue.delete`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeleteIf {
    /// Only without consumers.
    pub unused: bool,
    /// Only without ready messages.
    pub empty: bool,
}

/// Why a queue was not deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeleteRefused {
    /// It has consumers.
    InUse,
    /// It has ready messages.
    NotEmpty,
    /// Somebody else deleted it meanwhile.
    Gone,
}

/// Why a consumer was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConsumeRefused {
    /// The queue has an exclusive consumer, or the new one wants to be exclusive and is not alone.
    ExclusiveUse,
    /// The queue is gone.
    Gone,
}

/// Gauges of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Ready messages.
    pub ready: u64,
    /// Delivered and not settled.
    pub unacked: u64,
    /// Bytes of the bodies of ready messages.
    pub ready_bytes: u64,
    /// Bytes of the bodies of unacknowledged messages.
    pub unacked_bytes: u64,
    /// Neither: waiting to be tried again, or dead letters that nobody took.
    pub away: u64,
    /// Consumers.
    pub consumers: u64,
}

/// The gauges, written under the queue's lock, read by anyone.
#[derive(Debug, Default)]
struct Gauges {
    ready: AtomicU64,
    unacked: AtomicU64,
    ready_bytes: AtomicU64,
    unacked_bytes: AtomicU64,
    away: AtomicU64,
    consumers: AtomicU64,
}

/// Dead letters of a queue that may wait while all of them take their part of the memory.
const FEW_DEAD: usize = 64;

/// A queue. See the module.
pub struct Queue {
    info: QueueInfo,
    state: Mutex<QueueState>,
    gauges: Gauges,
    deleted: AtomicBool,
    spilling: AtomicBool,
    /// Until when publishers wait for the consumers, unix milliseconds.
    behind_until: AtomicU64,
    /// Its dead letters that wait.
    dead: AtomicUsize,
    window: Option<Arc<Window>>,
    memory: Memory,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} in {})", self.info.name, self.info.vhost)
    }
}

impl Queue {
    /// An empty queue, which counts in `memory`.
    pub fn new(info: QueueInfo, memory: &Memory) -> Arc<Queue> {
        let state = QueueState::new(info.settings.max_priority, memory);
        let window = info
            .settings
            .deduplication
            .clone()
            .map(|settings| Window::new(info.id.0, info.durable, settings, memory));
        Arc::new(Queue {
            info,
            state: Mutex::new("a queue", state),
            gauges: Gauges::default(),
            deleted: AtomicBool::new(false),
            spilling: AtomicBool::new(false),
            behind_until: AtomicU64::new(0),
            dead: AtomicUsize::new(0),
            window,
            memory: memory.clone(),
        })
    }

    /// What the queue is.
    pub fn info(&self) -> &QueueInfo {
        &self.info
    }

    /// De-duplication: what came before.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.window.as_ref()
    }

    /// Gauges, without taking the lock.
    pub fn counts(&self) -> Counts {
        Counts {
            ready: self.gauges.ready.load(Ordering::Relaxed),
            unacked: self.gauges.unacked.load(Ordering::Relaxed),
            ready_bytes: self.gauges.ready_bytes.load(Ordering::Relaxed),
            unacked_bytes: self.gauges.unacked_bytes.load(Ordering::Relaxed),
            away: self.gauges.away.load(Ordering::Relaxed),
            consumers: self.gauges.consumers.load(Ordering::Relaxed),
        }
    }

    /// Whether the queue is deleted, or about to be: no message goes in any more.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Whether a copy of this message is durable here: if both say so, or in a quorum queue, or while
    /// it waits for its time, as with RabbitMQ's plugin.
    pub fn keeps(&self, message: &Message) -> bool {
        let info = &self.info;
        let everything = info.settings.queue_type == QueueType::Quorum || info.delays.is_some();
        info.durable && (message.is_persistent() || everything)
    }

    /// What its messages count in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether messages before the next one are only in the log: then that goes there, too, so that
    /// it can leave memory behind them.
    pub fn is_spilling(&self) -> bool {
        self.spilling.load(Ordering::Relaxed)
    }

    /// Until when publishers that stream should wait for this queue's consumers, unix milliseconds;
    /// zero: they need not. See `pace`.
    pub fn behind_until(&self) -> u64 {
        self.behind_until.load(Ordering::Relaxed)
    }

    /// A publisher waits for the consumers; `outlet` is rung when it need not any longer. False if
    /// that is now.
    pub fn wait_for_consumers(&self, outlet: &Arc<dyn Outlet>) -> bool {
        self.state.lock().pace.wait(outlet)
    }

    /// Whether a publish may be refused, so that room has to be reserved before it is logged.
    pub fn may_refuse(&self) -> bool {
        let s = &self.info.settings;
        s.overflow != Overflow::DropHead && (s.max_length.is_some() || s.max_length_bytes.is_some())
    }

    /// When a message published at `now` expires: the shorter of the queue's TTL and its own, both
    /// milliseconds; zero for never.
    pub fn deadline(&self, now: u64, expiration: Option<u64>) -> u64 {
        let ttl = match (self.info.settings.message_ttl, expiration) {
            (None, None) => return 0,
            (Some(a), Some(b)) => a.min(b),
            (Some(ttl), None) | (None, Some(ttl)) => ttl,
        };
        now.saturating_add(ttl).max(1)
    }

    fn with<R>(
        self: &Arc<Self>,
        now: u64,
        fx: &mut Effects,
        work: impl FnOnce(&mut QueueState, &mut Cx<'_>) -> R,
    ) -> R {
        let over_budget = self.memory.over_budget();
        let mut state = self.state.lock();
        let result = work(
            &mut state,
            &mut Cx {
                queue: self,
                now,
                over_budget,
                fx,
            },
        );
        state.charge();
        self.spilling.store(state.is_spilling(), Ordering::Relaxed);
        self.behind_until
            .store(state.keep_pace(now, fx), Ordering::Relaxed);
        let counts = state.counts();
        // One writer at a time, as the lock is held: plain stores.
        self.gauges.ready.store(counts.ready, Ordering::Relaxed);
        self.gauges.unacked.store(counts.unacked, Ordering::Relaxed);
        self.gauges
            .ready_bytes
            .store(counts.ready_bytes, Ordering::Relaxed);
        self.gauges
            .unacked_bytes
            .store(counts.unacked_bytes, Ordering::Relaxed);
        self.gauges.away.store(counts.away, Ordering::Relaxed);
        self.gauges
            .consumers
            .store(counts.consumers, Ordering::Relaxed);
        result
    }

    /// Takes new messages, leaving the vector empty. In a deleted queue they vanish.
    pub fn enqueue(self: &Arc<Self>, incoming: &mut Vec<Incoming>, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, cx| {
            if state.deleted {
                let copies = incoming.drain(..).filter(|m| m.id.is_some());
                cx.fx.settles.extend(copies.map(|m| (self.info.id, m.id)));
            } else {
                state.enqueue(incoming, cx);
            }
        });
    }

    /// Why a message would be a dead letter as soon as it entered, if it would: it need not enter, then,
    /// nor go to the log for that.
    pub(in crate::broker) fn passes(&self) -> Option<DeathReason> {
        let settings = &self.info.settings;
        let some = settings.dead_letter.is_some() && !settings.at_least_once;
        some.then(|| self.state.lock().passes(settings)).flatten()
    }

    /// Promises room for one message with a body of `body_len` bytes; false if the queue's limit
    /// refuses it. The promise is used by an [`Incoming::reserved`] message, or taken back.
    pub fn reserve(self: &Arc<Self>, body_len: u32) -> bool {
        let mut state = self.state.lock();
        state.reserve(body_len, &self.info.settings)
    }

    /// Takes back a promise of [`Self::reserve`].
    pub fn unreserve(&self, body_len: u32) {
        let mut state = self.state.lock();
        state.unreserve(body_len, &self.info.settings);
    }

    /// Hands in copies found by recovery.
    pub fn recover(self: &Arc<Self>, run: &RecoveredRun, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, _| state.recover(run));
    }

    /// Hands in copies found by recovery that had come back before.
    pub(in crate::broker) fn recover_returned(
        self: &Arc<Self>,
        run: &RecoveredRun,
        known: Known,
        now: u64,
        fx: &mut Effects,
    ) {
        self.with(now, fx, |state, cx| state.recover_returned(run, known, cx));
    }

    /// A dead letter that nobody took waits here until somebody does; in a deleted queue it vanishes.
    pub(in crate::broker) fn keep_dead(
        self: &Arc<Self>,
        entry: Entry,
        reason: DeathReason,
        now: u64,
        fx: &mut Effects,
    ) {
        self.with(now, fx, |state, cx| match state.deleted {
            true if entry.id.is_some() => cx.fx.settles.push((self.info.id, entry.id)),
            true => {}
            false => state.keep_dead(entry, reason, cx),
        });
    }

    /// Settles deliveries: ack, requeue or discard.
    pub fn settle(
        self: &Arc<Self>,
        deliveries: &[DeliveryRef],
        how: Settle,
        now: u64,
        fx: &mut Effects,
    ) {
        self.with(now, fx, |state, cx| state.settle(deliveries, how, cx));
    }

    /// `n` deliveries that need no acknowledgement, with `bytes` of bodies, are on the wire.
    pub fn sent(self: &Arc<Self>, n: u64, bytes: u64, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, _| state.sent(n, bytes));
    }

    /// Deliveries that never reached the wire come back, marked as redelivered only if others were handed out
    /// that stand behind them.
    pub fn unsent(self: &Arc<Self>, deliveries: Vec<Delivery>, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, cx| {
            if state.deleted {
                let copies = deliveries
                    .iter()
                    .filter(|d| d.slot == NO_SLOT && d.entry.id.is_some());
                cx.fx
                    .settles
                    .extend(copies.map(|d| (self.info.id, d.entry.id)));
            } else {
                state.unsent(deliveries, cx);
            }
        });
    }

    /// `basic.get`. With [`Got::Waiting`], `bell` is rung when it is worth asking again.
    pub fn get(
        self: &Arc<Self>,
        no_ack: bool,
        bell: &Arc<dyn Bell>,
        now: u64,
        fx: &mut Effects,
    ) -> Got {
        self.with(now, fx, |state, cx| state.get(no_ack, bell, cx))
    }

    /// Adds a consumer and starts delivering to it.
    ///
    /// # Errors
    /// See [`ConsumeRefused`].
    pub fn consume(
        self: &Arc<Self>,
        info: ConsumerInfo,
        now: u64,
        fx: &mut Effects,
    ) -> Result<ConsumerIndex, ConsumeRefused> {
        self.with(now, fx, |state, cx| {
            if state.deleted {
                return Err(ConsumeRefused::Gone);
            }
            let sac = self.info.settings.single_active_consumer;
            // Who is exclusive is alone.
            let taken = state
                .consumers
                .iter()
                .next()
                .is_some_and(|c| c.info.exclusive);
            if taken || (info.exclusive && (sac || state.consumers.len() > 0)) {
                return Err(ConsumeRefused::ExclusiveUse);
            }
            let index = state.add_consumer(info, cx);
            Ok(index)
        })
    }

    /// Starts delivering to new consumers; called after `consume-ok` is written.
    pub fn pump(self: &Arc<Self>, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, cx| state.pump(cx));
    }

    /// Removes a consumer; what it holds unacknowledged stays so. What it was handed and has not sent comes
    /// back; returns how many that are.
    pub fn cancel(self: &Arc<Self>, consumer: ConsumerIndex, now: u64, fx: &mut Effects) -> usize {
        self.leave(&[consumer], &[], now, fx)
    }

    /// A channel ends: removes its consumers, and takes back what they were handed and have not sent, and
    /// the deliveries that were not settled. All of it is back before others get anything.
    pub fn leave(
        self: &Arc<Self>,
        consumers: &[ConsumerIndex],
        deliveries: &[DeliveryRef],
        now: u64,
        fx: &mut Effects,
    ) -> usize {
        self.with(now, fx, |state, cx| state.leave(consumers, deliveries, cx))
    }

    /// From now on a consumer shares this limit with the others of its channel, see `basic.qos`. Returns how
    /// many deliveries are on their way to the channel.
    pub fn share_credit(&self, consumer: ConsumerIndex, credit: &Arc<ChannelCredit>) -> usize {
        self.state.lock().share_credit(consumer, credit)
    }

    /// The outlet of these consumers has room again.
    pub fn resume(self: &Arc<Self>, consumers: &[ConsumerIndex], now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, cx| state.resume(consumers, cx));
    }

    /// A channel has credit again that consumers of this queue wait for.
    pub fn resume_all(self: &Arc<Self>, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, cx| state.resume_all(cx));
    }

    /// Removes all ready messages and returns their number. Unacknowledged ones stay.
    pub fn purge(self: &Arc<Self>, now: u64, fx: &mut Effects) -> u64 {
        let (n, levels) = self.with(now, fx, |state, cx| state.purge(cx));
        for level in &levels {
            level.logged_ranges(|first, last| fx.settled_ranges.push((self.info.id, first, last)));
        }
        n
    }

    /// Marks the queue as deleted and tells its consumers; returns the number of ready messages.
    /// The caller unlinks it from the topology and notes it in the log.
    ///
    /// # Errors
    /// See [`DeleteRefused`].
    pub fn mark_deleted(
        self: &Arc<Self>,
        condition: DeleteIf,
        fx: &mut Effects,
    ) -> Result<u64, DeleteRefused> {
        let mut contents = None;
        let n = self.with(0, fx, |state, cx| {
            if state.deleted {
                return Err(DeleteRefused::Gone);
            }
            let n = state.delete(condition, cx)?;
            self.deleted.store(true, Ordering::Release);
            contents = Some(state.take_contents());
            Ok(n)
        });
        if let Some(contents) = contents {
            contents
                .logged_ranges(|first, last| fx.settled_ranges.push((self.info.id, first, last)));
        }
        n
    }

    /// The queue was used (declared again, or passively): renews its `x-expires` lease.
    pub fn touch(self: &Arc<Self>, now: u64, fx: &mut Effects) {
        if self.info.settings.expires.is_some() {
            self.with(now, fx, |state, cx| state.touch(cx));
        }
    }

    /// Recovery has handed in everything: what the queue has no room for had died when the broker stopped, and
    /// dies again.
    pub(in crate::broker) fn recovered(self: &Arc<Self>, now: u64, fx: &mut Effects) {
        self.touch(now, fx);
        self.tick(now, fx);
        self.with(now, fx, |state, cx| state.enforce_limits(cx));
    }

    /// Time has passed: expires messages and the queue's lease.
    pub fn tick(self: &Arc<Self>, now: u64, fx: &mut Effects) {
        self.with(now, fx, |state, cx| {
            if !state.deleted {
                state.tick(cx);
            }
        });
    }

    /// What to read from the log next: at most `count` messages of about `bytes` in all, each with
    /// its sequence number. Hand the result to [`Self::arrived`], even if it is empty.
    pub fn wanted(&self, count: usize, bytes: u64) -> Vec<(u64, MessageId)> {
        self.state.lock().wanted(count, bytes, count)
    }

    /// The same with no more that is read to be dead-lettered than may die now: the rest is left for a later call.
    pub fn wanted_now(&self, count: usize, bytes: u64) -> Vec<(u64, MessageId)> {
        let dying = self.may_die();
        self.state.lock().wanted(count, bytes, dying)
    }

    /// How many of its messages may become dead letters that wait: all, but while those of the broker take their
    /// part of the memory few, so that each queue's go on, and none while an alarm is on. They are
    /// better off in the queue, from where they can leave for the log.
    pub(in crate::broker) fn may_die(&self) -> usize {
        if self.info.settings.dead_letter.is_none() || self.info.delays.is_some() {
            return usize::MAX;
        }
        if self.memory.is_alarming() {
            return 0;
        }
        match self.memory.dead_letters_are_many() {
            true => FEW_DEAD.saturating_sub(self.dead.load(Ordering::Relaxed)),
            false => usize::MAX,
        }
    }

    /// One more of its dead letters waits.
    pub(in crate::broker) fn dead_letter_waits(&self) {
        self.dead.fetch_add(1, Ordering::Relaxed);
    }

    /// One that waited does so no more.
    pub(in crate::broker) fn dead_letter_goes(&self) {
        self.dead.fetch_sub(1, Ordering::Relaxed);
    }

    /// Hands in what was read. After [`Arrived::again`] the queue waits for it to be called again.
    pub fn arrived(
        self: &Arc<Self>,
        read: Vec<(u64, MessageId, Found)>,
        now: u64,
        fx: &mut Effects,
    ) -> Arrived {
        self.with(now, fx, |state, cx| state.arrived(read, cx))
    }

    /// Moves up to `count` bodies out of memory that the log has; returns how many.
    pub fn evict(self: &Arc<Self>, count: usize) -> usize {
        let mut state = self.state.lock();
        let moved = state.evict_all(count);
        state.charge();
        self.spilling.store(state.is_spilling(), Ordering::Relaxed);
        moved
    }

    /// Messages in memory that the log does not have: at most `count`, of about `bytes` in all.
    pub fn unlogged(&self, count: usize, bytes: u64) -> Vec<Unlogged> {
        self.state.lock().unlogged(count, bytes)
    }

    /// Notes that messages of [`Self::unlogged`] are in the log now.
    pub fn logged(
        self: &Arc<Self>,
        copies: &[(DeliveryRef, MessageId)],
        now: u64,
        fx: &mut Effects,
    ) {
        self.with(now, fx, |state, cx| state.logged(copies, cx));
    }

    /// Places that ready messages and their deadlines have in memory, those of messages that have left included.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.state.lock().held()
    }

    /// Copies in the log that were delivered and not settled, for a clean stop.
    pub fn redelivered(&self, each: impl FnMut(MessageId)) {
        self.state.lock().redelivered(each);
    }

    /// Whether the message may have gone out before (`basic.deliver`'s flag is in the entry).
    pub fn id(&self) -> QueueId {
        self.info.id
    }
}

/// Makes all of these queues promise room for a message; false, and no promise is left, if one refuses.
pub(in crate::broker) fn reserve_all(queues: &[Arc<Queue>], body_len: u32) -> bool {
    let limited = || queues.iter().filter(|q| q.may_refuse());
    let Some(n) = limited().position(|q| !q.reserve(body_len)) else {
        return true;
    };
    limited().take(n).for_each(|q| q.unreserve(body_len));
    false
}
