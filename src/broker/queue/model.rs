//! The queue against its definition, for as many random steps as one likes, with everything at once:
//! several consumers with limits and priorities, single active consumer, priorities, time to live,
//! length limits, delivery limit, delayed retries, consumer timeout, messages that leave memory and come back.
//!
//! `LEVERET_MODEL_STEPS=10000000 LEVERET_MODEL_SEED=7 cargo test --release --lib queue::model` goes on for ten
//! million steps; the seed is printed, and makes the same steps again.

mod limits;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::tests::{Sink, consumer, feed, incoming, number, queue};
use super::*;
use crate::broker::arguments::{DeadLetterTarget, DelayedRetry};
use crate::broker::death::DeathReason;
use crate::broker::queue::outlet::{NO_SLOT, Notice};

/// Steps without `LEVERET_MODEL_STEPS`.
const STEPS: u64 = 60_000;

/// A queue lives for so many steps; then another one, with other arguments, takes its place.
const STEPS_OF_A_LIFE: u64 = 400;

/// Above this nothing is published: what a queue expires in one go is limited.
const READY_MAX: usize = 500;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
        self.one_in(2).then(|| value(self))
    }
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    expires_at: u64,
    redelivered: bool,
    failed: u16,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    level: u8,
    copy: Copy,
    at: DeliveryRef,
    /// Slot of the consumer; none: `basic.get`.
    by: Option<u32>,
    deadline: u64,
}

#[derive(Clone, Debug)]
struct Taker {
    slot: u32,
    index: ConsumerIndex,
    prefetch: usize,
    priority: i32,
    no_ack: bool,
    timeout: u64,
}

/// What a step did to a message, if it left the queue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum End {
    Done,
    Dead(&'static str),
}

struct World {
    q: Arc<Queue>,
    sink: Arc<Sink>,
    now: u64,
    last: u64,
    next_slot: u32,
    levels: u8,
    /// (lower for higher priorities, number) → copy
    ready: BTreeMap<(u8, u64), Copy>,
    held: BTreeMap<u64, Held>,
    /// To be tried again: (unix milliseconds, number) → level and copy
    away: BTreeMap<(u64, u64), (u8, Copy)>,
    /// In the order they came.
    takers: Vec<Taker>,
    /// Slot of the single active consumer.
    holder: Cell<Option<u32>>,
    /// Settled, or taken back: what they are said to be makes no difference any more.
    stale: Vec<DeliveryRef>,
    /// A quorum queue that was over its limit, and is not far below it yet.
    refuses: bool,
    /// Left the queue in this step, as the model has it.
    ended: BTreeMap<u64, End>,
    /// Level → the highest number that a consumer gave back, or that needs no acknowledgement.
    passed: HashMap<u8, u64>,
}

impl World {
    fn new(r: &mut Random) -> World {
        let quorum = r.one_in(3);
        let max_priority = r.maybe(|r| 1 + r.below(3) as u8);
        let settings = QueueSettings {
            max_length: r.maybe(|r| r.below(60)),
            max_priority,
            overflow: match r.below(3) {
                0 => Overflow::RejectPublish,
                _ => Overflow::DropHead,
            },
            single_active_consumer: r.one_in(4),
            dead_letter: r.maybe(|_| DeadLetterTarget {
                exchange: Box::default(),
                routing_key: None,
            }),
            queue_type: match quorum {
                true => QueueType::Quorum,
                false => QueueType::Classic,
            },
            delivery_limit: match quorum {
                true => r.maybe(|r| r.below(4) as u16),
                false => None,
            },
            delayed_retry: DelayedRetry {
                failed: quorum && r.one_in(2),
                returned: quorum && r.one_in(4),
                min: r.below(30),
                max: r.maybe(|r| r.below(80)),
            },
            ..QueueSettings::default()
        };
        World {
            q: queue(settings),
            sink: Sink::new(usize::MAX >> 1),
            now: 1000,
            last: 0,
            next_slot: 0,
            levels: max_priority.map_or(1, |n| n + 1),
            ready: BTreeMap::new(),
            held: BTreeMap::new(),
            away: BTreeMap::new(),
            takers: Vec::new(),
            holder: Cell::new(None),
            stale: Vec::new(),
            refuses: false,
            ended: BTreeMap::new(),
            passed: HashMap::new(),
        }
    }

    fn settings(&self) -> &QueueSettings {
        &self.q.info().settings
    }

    /// How many more messages a consumer may have.
    fn credit(&self, t: &Taker) -> usize {
        if self.settings().single_active_consumer && self.active() != Some(t.slot) {
            return 0;
        }
        if t.no_ack || t.prefetch == 0 {
            return usize::MAX >> 1;
        }
        t.prefetch.saturating_sub(self.has(t.slot))
    }

    /// How many messages a consumer has.
    fn has(&self, slot: u32) -> usize {
        self.held.values().filter(|h| h.by == Some(slot)).count()
    }

    /// The single active consumer, while it may get something. In a quorum queue it makes room for one of a
    /// higher priority.
    fn active(&self) -> Option<u32> {
        let mut best = self.takers.first()?;
        for t in &self.takers {
            if t.priority > best.priority {
                best = t;
            }
        }
        let holder = self.holder.get();
        let holder = self.takers.iter().find(|t| Some(t.slot) == holder);
        let is_quorum = self.settings().queue_type == QueueType::Quorum;
        match holder {
            Some(t) if is_quorum && best.priority > t.priority && self.has(t.slot) > 0 => None,
            Some(t) if !is_quorum || best.priority <= t.priority => Some(t.slot),
            _ => {
                self.holder.set(Some(best.slot));
                Some(best.slot)
            }
        }
    }

    fn step(&mut self, r: &mut Random) -> String {
        let mut fx = Effects::default();
        let did = self.act(r, &mut fx);
        // What has to be read is read, and what is delivered is taken, until nothing moves any more.
        loop {
            while feed(&self.q, &mut fx, self.now) {}
            let deliveries = self.sink.take();
            if deliveries.is_empty() {
                break;
            }
            // With a limit, what is lost and comes back would be dropped in an order of its own.
            if self.settings().max_length.is_none() && r.one_in(12) {
                self.lose_connection(deliveries, &mut fx);
            } else {
                self.take(&deliveries.iter().map(|d| number(&d.entry)).collect(), &fx);
                self.deliver(&deliveries, &mut fx);
            }
        }
        let told = self.told(&fx);
        self.limit(&told);
        self.check(&told);
        did
    }

    fn act(&mut self, r: &mut Random, fx: &mut Effects) -> String {
        match r.below(16) {
            0..=4 if self.ready.len() < READY_MAX => self.publish(r, fx),
            0..=6 => self.get(fx),
            7 => self.consume(r, fx),
            8 if !self.takers.is_empty() && r.one_in(2) => self.leave(r, fx),
            8 if !self.takers.is_empty() => {
                let taker = self
                    .takers
                    .remove(r.below(self.takers.len() as u64) as usize);
                self.q.cancel(taker.index, self.now, fx);
                format!("cancel {}", taker.slot)
            }
            9 => {
                let n = 1 + r.below(60) as usize;
                self.q.evict(n);
                format!("evict {n}")
            }
            10 if r.one_in(8) => {
                self.q.purge(self.now, fx);
                let gone = std::mem::take(&mut self.ready);
                let away = std::mem::take(&mut self.away);
                let gone = gone.into_keys().map(|(_, n)| n);
                let gone = gone.chain(away.into_keys().map(|(_, n)| n));
                self.ended.extend(gone.map(|n| (n, End::Done)));
                "purge".into()
            }
            11 => self.pass(1 + r.below(40), fx),
            12 if !self.stale.is_empty() => {
                let at = self
                    .stale
                    .swap_remove(r.below(self.stale.len() as u64) as usize);
                self.q.settle(&[at], Settle::Discard, self.now, fx);
                "settle what is settled".into()
            }
            _ => self.settle(r, fx),
        }
    }

    /// The channel of a consumer ends, with what it had.
    fn leave(&mut self, r: &mut Random, fx: &mut Effects) -> String {
        let at = r.below(self.takers.len() as u64) as usize;
        let taker = self.takers.remove(at);
        let had = self.held.extract_if(.., |_, h| h.by == Some(taker.slot));
        let had: Vec<_> = had.collect();
        for (n, held) in &had {
            self.had(held.level, *n);
            self.come_back(*n, held, Settle::Fail);
        }
        let refs: Vec<_> = had.iter().map(|(_, h)| h.at).collect();
        self.q.leave(&[taker.index], &refs, self.now, fx);
        format!("the channel of {} ends", taker.slot)
    }

    fn publish(&mut self, r: &mut Random, fx: &mut Effects) -> String {
        let n = 1 + r.below(20);
        let mut batch = Vec::new();
        let priority = r.below(u64::from(self.levels) + 1) as u8;
        let level = self.levels - 1 - priority.min(self.levels - 1);
        let expires_at = match r.below(3) {
            0 => self.now + 1 + r.below(60),
            _ => 0,
        };
        for _ in 0..n {
            let mut m = incoming(self.last + 1, priority, expires_at);
            // Some were dead-lettered to here.
            m.delivery_count = r.below(12).saturating_sub(8) as u16;
            if self.q.may_refuse() {
                if !self.reserve() {
                    continue;
                }
                m.reserved = true;
            }
            self.last += 1;
            let copy = Copy {
                expires_at,
                redelivered: m.delivery_count > 0,
                failed: m.delivery_count,
            };
            self.ready.insert((level, self.last), copy);
            batch.push(m);
        }
        let did = format!(
            "publish {} of priority {priority} until {expires_at}",
            batch.len()
        );
        self.q.enqueue(&mut batch, self.now, fx);
        did
    }

    fn get(&mut self, fx: &mut Effects) -> String {
        let bell: Arc<dyn Bell> = self.sink.clone();
        loop {
            match self.q.get(false, &bell, self.now, fx) {
                Got::Empty => {
                    let now = self.now;
                    self.pass_over(|copy| copy.expires_at != 0 && copy.expires_at <= now);
                    assert!(self.ready.is_empty(), "nothing was found");
                    return "get nothing".into();
                }
                Got::Waiting => {
                    feed(&self.q, fx, self.now);
                }
                Got::Message(d, _) => {
                    let n = number(&d.entry);
                    self.take(&BTreeSet::from([n]), fx);
                    let (level, copy) = self.found(&d);
                    self.hold(&d, level, copy, None, 0);
                    return format!("get {n}");
                }
            }
        }
    }

    fn consume(&mut self, r: &mut Random, fx: &mut Effects) -> String {
        if self.takers.len() >= 4 {
            return "enough consumers".into();
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let prefetch = r.below(6) as u16;
        let priority = r.below(3) as i32;
        let mut info = consumer(&self.sink, slot, prefetch, priority);
        info.no_ack = r.one_in(6);
        if self.settings().queue_type == QueueType::Quorum && r.one_in(2) {
            info.timeout = 20 + r.below(60);
        }
        let (no_ack, timeout) = (info.no_ack, info.timeout);
        let index = self
            .q
            .consume(info, self.now, fx)
            .expect("nobody is exclusive");
        self.takers.push(Taker {
            slot,
            index,
            prefetch: prefetch.into(),
            priority,
            no_ack,
            timeout,
        });
        self.q.pump(self.now, fx);
        format!(
            "consumer {slot}, {prefetch} at once, priority {priority}, no_ack {no_ack}, timeout {timeout}"
        )
    }

    fn settle(&mut self, r: &mut Random, fx: &mut Effects) -> String {
        if self.held.is_empty() {
            return "nothing to settle".into();
        }
        let how = [
            Settle::Ack,
            Settle::Requeue,
            Settle::Fail,
            Settle::Discard,
            Settle::Reject,
        ][r.below(5) as usize];
        let all: Vec<u64> = self.held.keys().copied().collect();
        let first = r.below(all.len() as u64) as usize;
        let n = if r.one_in(3) {
            1 + r.below(8) as usize
        } else {
            1
        };
        let chosen = &all[first..(first + n).min(all.len())];
        let mut refs = Vec::new();
        for n in chosen {
            let held = self.held.remove(n).expect("chosen from it");
            self.had(held.level, *n);
            refs.push(held.at);
            match how {
                Settle::Ack => drop(self.ended.insert(*n, End::Done)),
                Settle::Discard | Settle::Reject => {
                    self.ended.insert(*n, End::Dead("rejected"));
                }
                Settle::Requeue | Settle::Fail => self.come_back(*n, &held, how),
            }
        }
        if matches!(how, Settle::Ack | Settle::Discard | Settle::Reject) {
            self.stale.extend(&refs);
        }
        self.q.settle(&refs, how, self.now, fx);
        format!("{how:?} {chosen:?}")
    }

    fn pass(&mut self, ms: u64, fx: &mut Effects) -> String {
        self.now += ms;
        let now = self.now;
        let late = |h: &&Held| h.deadline != 0 && h.deadline <= now;
        let late: Vec<u64> = self
            .held
            .iter()
            .filter(|(_, h)| late(h))
            .map(|(n, _)| *n)
            .collect();
        for n in late {
            let held = self.held.remove(&n).expect("just found");
            self.stale.push(held.at);
            self.had(held.level, n);
            self.come_back(n, &held, Settle::Fail);
            self.takers.retain(|t| Some(t.slot) != held.by);
        }
        let later = self.away.split_off(&(now + 1, 0));
        for ((_, n), (level, copy)) in std::mem::replace(&mut self.away, later) {
            self.ready.insert((level, n), copy);
        }
        self.q.tick(now, fx);
        let told = std::mem::take(&mut *self.sink.notices.lock());
        for notice in told {
            let Notice::TimedOut(key, _) = notice else {
                panic!("{notice:?}")
            };
            assert!(
                self.takers.iter().all(|t| t.slot != key.slot),
                "given up in time"
            );
        }
        format!("{ms} ms pass")
    }

    /// A consumer has had it.
    fn had(&mut self, level: u8, n: u64) {
        let highest = self.passed.entry(level).or_default();
        *highest = n.max(*highest);
    }

    /// What consumers have, or have had, is behind these: they are out of order when they come.
    fn overtaken(&mut self, lost: &BTreeSet<u64>) {
        for ((level, n), copy) in self.ready.iter_mut().filter(|((_, n), _)| lost.contains(n)) {
            let held = self
                .held
                .iter()
                .any(|(other, h)| h.level == *level && other > n);
            copy.redelivered |= held || self.passed.get(level).is_some_and(|highest| highest > n);
        }
    }

    /// A message returns, or has returned too often.
    fn come_back(&mut self, n: u64, held: &Held, how: Settle) {
        let mut copy = held.copy;
        copy.redelivered = true;
        let s = self.settings();
        if how == Settle::Fail {
            copy.failed += 1;
            if s.queue_type == QueueType::Quorum
                && s.delivery_limit.is_some_and(|limit| copy.failed > limit)
            {
                self.ended.insert(n, End::Dead("delivery_limit"));
                return;
            }
        }
        if copy.expires_at != 0 && copy.expires_at <= self.now {
            self.ended.insert(n, End::Dead("expired"));
            return;
        }
        let delay = match s.queue_type {
            QueueType::Quorum => s.delayed_retry.delay(how == Settle::Fail, copy.failed),
            QueueType::Classic => 0,
        };
        let mut at = self.now + delay;
        if copy.expires_at != 0 {
            at = at.min(copy.expires_at);
        }
        if at > self.now {
            self.away.insert((at, n), (held.level, copy));
        } else {
            self.ready.insert((held.level, n), copy);
        }
    }

    /// Takes messages out of the front, in any order among themselves; between them may stand what has
    /// expired, or was dropped for the limit before.
    fn take(&mut self, numbers: &BTreeSet<u64>, fx: &Effects) {
        let told = self.told(fx);
        let mut left = numbers.clone();
        let now = self.now;
        let passed: Vec<(u8, u64)> = self
            .ready
            .iter()
            .take_while(|((_, n), copy)| {
                if left.remove(n) {
                    return true;
                }
                let expired = copy.expires_at != 0 && copy.expires_at <= now;
                !left.is_empty() && (expired || told.contains_key(n))
            })
            .map(|(key, _)| *key)
            .collect();
        let front: Vec<_> = self.ready.keys().take(9).collect();
        assert!(
            left.is_empty(),
            "{left:?} out of order, ready are {front:?}"
        );
        for key in passed.into_iter().filter(|(_, n)| !numbers.contains(n)) {
            self.ready.remove(&key);
            let end = told.get(&key.1).copied();
            self.ended
                .insert(key.1, end.unwrap_or(End::Dead("expired")));
        }
    }

    /// The copy that was delivered leaves the ready ones.
    fn found(&mut self, d: &Delivery) -> (u8, Copy) {
        let n = number(&d.entry);
        let key = *self
            .ready
            .keys()
            .find(|(_, each)| *each == n)
            .expect("it was ready");
        let copy = self.ready.remove(&key).expect("just found");
        assert!(
            copy.expires_at == 0 || copy.expires_at >= self.now,
            "{n} after its time"
        );
        assert!(
            !copy.redelivered || copy.expires_at == 0 || copy.expires_at > self.now,
            "{n} again at its time"
        );
        assert_eq!(d.entry.redelivered, copy.redelivered, "{n}");
        assert_eq!(d.entry.delivery_count, copy.failed, "{n}");
        (key.0, copy)
    }

    fn hold(&mut self, d: &Delivery, level: u8, copy: Copy, by: Option<u32>, timeout: u64) {
        let at = DeliveryRef {
            slot: d.slot,
            seq: d.entry.seq,
        };
        let deadline = if timeout == 0 { 0 } else { self.now + timeout };
        let held = Held {
            level,
            copy,
            at,
            by,
            deadline,
        };
        assert!(
            self.held.insert(number(&d.entry), held).is_none(),
            "delivered twice"
        );
    }

    fn deliver(&mut self, deliveries: &[Delivery], fx: &mut Effects) {
        let mut latest: HashMap<u32, (u8, u64)> = HashMap::new();
        let mut free = 0;
        for d in deliveries {
            let slot = d.consumer.slot;
            let taker = self
                .takers
                .iter()
                .find(|t| t.slot == slot)
                .expect("a consumer")
                .clone();
            assert!(self.credit(&taker) > 0, "{slot} has too much");
            let (level, copy) = self.found(d);
            let place = (level, number(&d.entry));
            let before = latest.insert(slot, place);
            assert!(
                before.is_none_or(|b| b < place),
                "{place:?} after {before:?}"
            );
            assert_eq!(d.slot == NO_SLOT, taker.no_ack);
            if taker.no_ack {
                free += 1;
                self.ended.insert(place.1, End::Done);
                self.had(level, place.1);
                // It is the connection that settles these, once they are written.
                fx.settles.push((self.q.id(), d.entry.id));
            } else {
                self.hold(d, level, copy, Some(slot), taker.timeout);
            }
        }
        if free > 0 {
            self.q.sent(free, free * 8, self.now, fx);
        }
        for low in self.takers.iter().filter(|t| latest.contains_key(&t.slot)) {
            let higher = self.takers.iter().filter(|t| t.priority > low.priority);
            for high in higher {
                assert_eq!(self.credit(high), 0, "{} before {}", low.slot, high.slot);
            }
        }
    }

    /// The connection of a consumer is lost before it took these.
    fn lose_connection(&mut self, mut deliveries: Vec<Delivery>, fx: &mut Effects) {
        let slot = deliveries[0].consumer.slot;
        let lost: Vec<Delivery> = deliveries
            .extract_if(.., |d| d.consumer.slot == slot)
            .collect();
        // They were taken from the front, so that what stood between has expired.
        let all = deliveries.iter().chain(&lost).map(|d| number(&d.entry));
        self.take(&all.collect(), fx);
        let at = self
            .takers
            .iter()
            .position(|t| t.slot == slot)
            .expect("a consumer");
        let taker = self.takers.remove(at);
        self.deliver(&deliveries, fx);
        // They are back before others get what comes behind them.
        let numbers: BTreeSet<u64> = lost.iter().map(|d| number(&d.entry)).collect();
        if taker.no_ack {
            let lost: Vec<(u8, u64)> = self
                .ready
                .keys()
                .filter(|(_, n)| numbers.contains(n))
                .copied()
                .collect();
            lost.into_iter().for_each(|(level, n)| self.had(level, n));
        }
        self.overtaken(&numbers);
        let n = lost.len();
        self.sink.put_back(lost);
        assert_eq!(self.q.cancel(taker.index, self.now, fx), n);
    }

    fn pass_over(&mut self, is_gone: impl Fn(&Copy) -> bool) {
        let gone: Vec<_> = self
            .ready
            .iter()
            .filter(|(_, copy)| is_gone(copy))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.ready.remove(&key);
            self.ended.insert(key.1, End::Dead("expired"));
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        self.pass_over(|copy| copy.expires_at != 0 && copy.expires_at <= now);
    }

    /// What the queue says of messages that left it.
    fn told(&self, fx: &Effects) -> BTreeMap<u64, End> {
        let mut told = BTreeMap::new();
        let mut tell = |n: u64, end: End| {
            assert!(told.insert(n, end).is_none(), "{n} ended twice");
        };
        for (_, id) in &fx.settles {
            tell(id.0, End::Done);
        }
        for (_, first, last) in &fx.settled_ranges {
            (first.0..=last.0).for_each(|id| tell(id, End::Done));
        }
        for dead in &fx.dead {
            tell(number(&dead.entry), End::Dead(dead.reason.as_str()));
        }
        told
    }

    /// What was dropped for the limit: the lowest priority first, the oldest of it first. Messages past
    /// their time count until they are gone, so that it may be a few more than without them.
    fn limit(&mut self, told: &BTreeMap<u64, End>) {
        let max = match self.settings().overflow {
            Overflow::DropHead => self.settings().max_length.unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        let over = (self.ready.len() as u64).saturating_sub(max);
        let now = self.now;
        let is_past = |c: &Copy| c.expires_at != 0 && c.expires_at <= now;
        let past = self
            .ready
            .iter()
            .filter(|((_, n), c)| is_past(c) && told.contains_key(n));
        for key in past.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.ready.remove(&key);
            self.ended.insert(key.1, told[&key.1]);
        }
        let mut dropped: Vec<_> = self
            .ready
            .keys()
            .filter(|(_, n)| told.contains_key(n))
            .copied()
            .collect();
        assert!(
            dropped.len() as u64 <= over,
            "{dropped:?} dropped, {over} too many"
        );
        let mut left: Vec<_> = self
            .ready
            .iter()
            .filter(|(_, c)| !is_past(c))
            .map(|(key, _)| *key)
            .collect();
        for order in [&mut dropped, &mut left] {
            order.sort_by_key(|(level, n)| (std::cmp::Reverse(*level), *n));
        }
        assert!(
            left.starts_with(&dropped),
            "{dropped:?} dropped of {left:?}"
        );
        for key in dropped {
            self.ready.remove(&key);
            self.ended.insert(key.1, End::Dead("maxlen"));
        }
        self.expire();
        assert!(self.ready.len() as u64 <= max, "the limit of {max}");
    }

    /// After each step the queue is what the model is.
    fn check(&mut self, told: &BTreeMap<u64, End>) {
        let counts = self.q.counts();
        assert_eq!(counts.ready, self.ready.len() as u64, "ready");
        assert_eq!(counts.unacked, self.held.len() as u64, "unacknowledged");
        assert_eq!(counts.away, self.away.len() as u64, "away");
        assert_eq!(counts.consumers, self.takers.len() as u64, "consumers");
        assert_eq!(counts.ready_bytes, counts.ready * 8);
        self.active();
        let held = self.q.held();
        let most = 2 * self.ready.len() + 2 * usize::from(self.levels);
        assert!(held <= most, "{held} places for {}", self.ready.len());
        if !self.ready.is_empty() {
            let idle = self.takers.iter().find(|t| self.credit(t) > 0);
            assert!(idle.is_none(), "{idle:?} could have more");
        }
        let mut ended = std::mem::take(&mut self.ended);
        if self.settings().dead_letter.is_none() {
            ended.values_mut().for_each(|end| *end = End::Done);
        }
        assert_eq!(*told, ended, "what the queue told, and what ended");
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn the_queue_is_what_its_definition_says() {
    let seed = number_from("LEVERET_MODEL_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        u64::from_le_bytes(bytes)
    });
    let steps = number_from("LEVERET_MODEL_STEPS").unwrap_or(STEPS);
    println!("LEVERET_MODEL_SEED={seed} LEVERET_MODEL_STEPS={steps}");
    let mut random = Random(seed);
    let mut done = 0;
    while done < steps {
        let mut world = World::new(&mut random);
        // Told only if it fails.
        println!("at step {done}: {:?}", world.settings());
        for _ in 0..STEPS_OF_A_LIFE {
            let did = world.step(&mut random);
            if steps <= STEPS {
                println!("{done}: {did}");
            }
            done += 1;
        }
    }
}

#[test]
fn deaths_have_the_names_that_the_model_gives_them() {
    assert_eq!(
        DeathReason::ALL.map(DeathReason::as_str),
        ["rejected", "expired", "maxlen", "delivery_limit"]
    );
}
