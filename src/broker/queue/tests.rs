//! The queue against a naive model, with random operations; and the rules that need several consumers.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::broker::arguments::DeadLetterTarget;
use crate::broker::death::DeathReason;
use crate::broker::memory::Use;
use crate::broker::message::{FLAG_PERSISTENT, Parts};
use crate::broker::queue::outlet::{ConsumerKey, NO_SLOT, Notice, Outlet, Room};

mod leaving;
mod paging;

/// Takes everything, in order, up to a limit.
pub(super) struct Sink {
    got: Mutex<Vec<Delivery>>,
    pub(super) notices: Mutex<Vec<Notice>>,
    limit: usize,
}

impl Sink {
    pub(super) fn new(limit: usize) -> Arc<Sink> {
        Arc::new(Sink {
            got: Mutex::new("got", vec![]),
            notices: Mutex::new("notices", vec![]),
            limit,
        })
    }

    pub(super) fn put_back(&self, deliveries: Vec<Delivery>) {
        self.got.lock().extend(deliveries);
    }

    pub(super) fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.got.lock())
    }
}

impl Bell for Sink {
    fn ring(&self) {}
}

impl Outlet for Sink {
    fn room(&self, _: &Arc<Queue>, _: u32) -> Option<Room> {
        let left = self.limit - self.got.lock().len();
        (left > 0).then_some(Room {
            deliveries: left as u32,
            bytes: u64::MAX,
        })
    }

    fn push(&self, deliveries: &mut Vec<Delivery>) -> bool {
        self.got.lock().append(deliveries);
        true
    }

    fn waiting(&self, consumer: ConsumerKey) -> usize {
        let deliveries = self.got.lock();
        deliveries.iter().filter(|d| d.consumer == consumer).count()
    }

    fn withdraw(&self, consumer: ConsumerKey) -> Vec<Delivery> {
        self.got
            .lock()
            .extract_if(.., |d| d.consumer == consumer)
            .collect()
    }

    fn notify(&self, notice: Notice) -> bool {
        self.notices.lock().push(notice);
        true
    }
}

pub(super) fn queue(settings: QueueSettings) -> Arc<Queue> {
    let info = QueueInfo {
        delays: None,
        id: QueueId(1),
        vhost: "/".into(),
        name: "q".into(),
        durable: true,
        auto_delete: false,
        exclusive_owner: None,
        arguments: FieldTable::new(),
        settings,
    };
    Queue::new(info, &Memory::new())
}

fn message(number: u64) -> Message {
    let parts = Parts {
        exchange: "".into(),
        routing_key: "q".into(),
        properties: &[0, 0],
        flags: FLAG_PERSISTENT,
    };
    Message::uncounted(&parts, &number.to_be_bytes())
}

pub(super) fn number(entry: &Entry) -> u64 {
    let message = entry.message.as_ref().expect("a delivery has its message");
    u64::from_be_bytes(message.body().try_into().expect("eight bytes"))
}

pub(super) fn incoming(number: u64, priority: u8, expires_at: u64) -> Incoming {
    Incoming {
        delivery_count: 0,
        message: message(number),
        id: MessageId(number),
        expires_at,
        priority,
        reserved: false,
    }
}

pub(super) fn consumer(
    outlet: &Arc<Sink>,
    slot: u32,
    prefetch_count: u16,
    priority: i32,
) -> ConsumerInfo {
    let outlet: Arc<dyn Outlet> = outlet.clone();
    ConsumerInfo {
        key: ConsumerKey {
            slot,
            generation: 0,
        },
        tag: "c".into(),
        outlet,
        no_ack: false,
        exclusive: false,
        priority,
        prefetch_count,
        timeout: 0,
        channel_credit: None,
    }
}

fn publish(q: &Arc<Queue>, numbers: std::ops::RangeInclusive<u64>) -> Effects {
    let mut fx = Effects::default();
    q.enqueue(
        &mut numbers.map(|n| incoming(n, 0, 0)).collect(),
        1,
        &mut fx,
    );
    fx
}

#[test]
fn consumers_take_turns_and_the_higher_priority_goes_first() {
    let q = queue(QueueSettings::default());
    let (a, b, c) = (Sink::new(100), Sink::new(100), Sink::new(100));
    let mut fx = Effects::default();
    q.consume(consumer(&a, 0, 10, 0), 1, &mut fx)
        .expect("accepted");
    q.consume(consumer(&b, 1, 10, 0), 1, &mut fx)
        .expect("accepted");
    q.consume(consumer(&c, 2, 3, 5), 1, &mut fx)
        .expect("accepted");
    publish(&q, 1..=11);
    let sizes = [&a, &b, &c].map(|s| s.take().len());
    assert_eq!(sizes, [4, 4, 3]);
}

#[test]
fn a_full_outlet_is_passed_over_and_resumed() {
    let q = queue(QueueSettings::default());
    let (small, large) = (Sink::new(2), Sink::new(100));
    let mut fx = Effects::default();
    let index = q
        .consume(consumer(&small, 0, 0, 0), 1, &mut fx)
        .expect("accepted");
    q.consume(consumer(&large, 1, 4, 0), 1, &mut fx)
        .expect("accepted");
    publish(&q, 1..=10);
    assert_eq!(
        (small.take().len(), large.take().len(), q.counts().ready),
        (2, 4, 4)
    );
    q.resume(&[index], 1, &mut fx);
    assert_eq!((small.take().len(), q.counts().ready), (2, 2));
}

/// What nobody fetches does not stay in memory, if the log has it.
#[test]
fn a_queue_without_consumers_holds_a_little_only() {
    let parts = Parts {
        exchange: "".into(),
        routing_key: "q".into(),
        properties: &[0, 0],
        flags: FLAG_PERSISTENT,
    };
    // The same one again and again: this test is no reason to hold 40 MiB.
    let large = Message::uncounted(&parts, &[0; 1 << 20]);
    for (first_id, held_mib) in [(1, 1..18), (MessageId::NONE.0, 40..41)] {
        let q = queue(QueueSettings::default());
        let mut fx = Effects::default();
        for n in 0..40u64 {
            let large = Incoming {
                message: large.clone(),
                id: MessageId(first_id * (1 + n)),
                ..incoming(n, 0, 0)
            };
            q.enqueue(&mut vec![large], 1, &mut fx);
        }
        let counts = q.counts();
        assert_eq!((counts.ready, counts.ready_bytes), (40, 40 << 20));
        let held = q.state.lock().held_bytes() >> 20;
        assert!(held_mib.contains(&held), "{held} MiB");
    }
}

#[test]
fn a_single_active_consumer_is_followed_by_the_next() {
    let q = queue(QueueSettings {
        single_active_consumer: true,
        ..QueueSettings::default()
    });
    let (a, b) = (Sink::new(100), Sink::new(100));
    let mut fx = Effects::default();
    let first = q
        .consume(consumer(&a, 0, 0, 0), 1, &mut fx)
        .expect("accepted");
    q.consume(consumer(&b, 1, 0, 0), 1, &mut fx)
        .expect("accepted");
    publish(&q, 1..=3);
    assert_eq!((a.take().len(), b.take().len()), (3, 0));
    q.cancel(first, 1, &mut fx);
    publish(&q, 4..=6);
    assert_eq!((a.take().len(), b.take().len()), (0, 3));
}

#[test]
fn a_deleted_queue_tells_its_consumers_and_settles_its_copies() {
    let q = queue(QueueSettings::default());
    let sink = Sink::new(100);
    let mut fx = Effects::default();
    q.consume(consumer(&sink, 0, 2, 0), 1, &mut fx)
        .expect("accepted");
    publish(&q, 1..=5);
    assert_eq!(
        q.mark_deleted(
            DeleteIf {
                unused: true,
                empty: false
            },
            &mut fx
        ),
        Err(DeleteRefused::InUse)
    );
    assert_eq!(q.mark_deleted(DeleteIf::default(), &mut fx), Ok(3));
    assert_eq!(
        *sink.notices.lock(),
        [Notice::Cancelled(ConsumerKey {
            slot: 0,
            generation: 0
        })]
    );
    let settled: u64 = fx
        .settled_ranges
        .iter()
        .map(|(_, a, b)| b.0 - a.0 + 1)
        .sum();
    assert_eq!(settled, 5);
    fx.settles.clear();
    q.enqueue(&mut vec![incoming(6, 0, 0)], 1, &mut fx);
    assert_eq!(fx.settles, [(QueueId(1), MessageId(6))]);
}

#[test]
fn a_short_ttl_behind_a_long_one_expires_on_time() {
    let dead_letter = Some(DeadLetterTarget {
        exchange: Box::default(),
        routing_key: None,
    });
    let q = queue(QueueSettings {
        dead_letter,
        ..QueueSettings::default()
    });
    let mut fx = Effects::default();
    let mut all: Vec<Incoming> = (1..=50_000).map(|n| incoming(n, 0, 1_000_000)).collect();
    all.push(incoming(50_001, 0, 50));
    q.enqueue(&mut all, 1, &mut fx);
    assert_eq!(fx.deadlines.last().map(|(_, at)| *at), Some(50));
    q.tick(49, &mut fx);
    assert!(fx.dead.is_empty());
    q.tick(50, &mut fx);
    assert_eq!(
        fx.dead.iter().map(|d| number(&d.entry)).collect::<Vec<_>>(),
        [50_001]
    );
    assert_eq!(
        (fx.dead[0].reason, q.counts().ready),
        (DeathReason::Expired, 50_000)
    );
}

#[test]
fn what_comes_back_unsent_counts_against_the_limit() {
    let q = queue(QueueSettings {
        max_length: Some(2),
        ..QueueSettings::default()
    });
    let sink = Sink::new(100);
    let mut fx = Effects::default();
    let index = q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx);
    let index = index.expect("nobody is exclusive");
    publish(&q, 1..=5);
    let lost = sink.take();
    assert_eq!(lost.len(), 5);
    q.cancel(index, 1, &mut fx);
    q.unsent(lost, 1, &mut fx);
    let dropped: Vec<u64> = fx.settles.iter().map(|(_, id)| id.0).collect();
    assert_eq!((q.counts().ready, dropped), (2, vec![1, 2, 3]));
}

#[test]
fn no_timer_is_set_for_years() {
    let q = queue(QueueSettings::default());
    let mut fx = Effects::default();
    let years = 10 * 365 * 24 * 3600 * 1000;
    q.enqueue(&mut vec![incoming(1, 0, years)], 0, &mut fx);
    let mut now = 0;
    for _ in 0..3 {
        let next = fx.deadlines.pop().map(|(_, at)| at).expect("a timer");
        assert!(now < next && next <= now + 60_000);
        now = next;
        q.tick(now, &mut fx);
        assert_eq!(q.counts().ready, 1);
    }
    q.tick(years, &mut fx);
    assert_eq!(q.counts().ready, 0);
}

#[derive(Clone, Debug)]
enum Op {
    Publish { n: u8, priority: u8, ttl: u8 },
    Get,
    Consume { prefetch: u8 },
    Cancel,
    Settle { at: usize, how: u8 },
    Evict { n: u8 },
    Purge,
    Pass { ms: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1u8..20, 0u8..4, 0u8..60).prop_map(|(n, priority, ttl)| Op::Publish { n, priority, ttl }),
        3 => Just(Op::Get),
        1 => (0u8..5).prop_map(|prefetch| Op::Consume { prefetch }),
        1 => Just(Op::Cancel),
        6 => (any::<usize>(), 0u8..3).prop_map(|(at, how)| Op::Settle { at, how }),
        4 => (1u8..60).prop_map(|n| Op::Evict { n }),
        1 => Just(Op::Purge),
        2 => (1u8..40).prop_map(|ms| Op::Pass { ms }),
    ]
}

/// The definition of a queue: what is ready, in order, with when it expires.
#[derive(Default)]
struct Model {
    /// (lower for higher priorities, number) → (expires at, delivered before)
    ready: BTreeMap<(u8, u64), (u64, bool)>,
    unacked: HashMap<u64, (u8, u64, DeliveryRef)>,
    limit: u64,
}

impl Model {
    fn expire(&mut self, now: u64) {
        self.ready.retain(|_, (at, _)| *at == 0 || *at > now);
    }

    /// A delivery has to be the head, but for messages whose time has come.
    fn delivered(&mut self, d: &Delivery, now: u64) -> Result<(), TestCaseError> {
        let got = number(&d.entry);
        loop {
            let Some((&(level, n), &(expires_at, again))) = self.ready.first_key_value() else {
                return Err(TestCaseError::fail(format!(
                    "{got} was delivered from an empty queue"
                )));
            };
            self.ready.pop_first();
            if n != got && expires_at != 0 && expires_at <= now {
                continue;
            }
            prop_assert_eq!(n, got, "out of order");
            prop_assert_eq!(d.entry.redelivered, again);
            prop_assert!(
                expires_at == 0 || expires_at >= now,
                "delivered after its time"
            );
            let at = DeliveryRef {
                slot: d.slot,
                seq: d.entry.seq,
            };
            self.unacked.insert(got, (level, expires_at, at));
            return Ok(());
        }
    }
}

const LEVELS: u8 = 3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_the_model_says(
        ops in prop::collection::vec(op(), 1..150),
        max_length in prop::option::of(5u64..60),
        priorities in any::<bool>(),
    ) {
        let max_priority = priorities.then_some(LEVELS - 1);
        let q = queue(QueueSettings { max_length, max_priority, ..QueueSettings::default() });
        let sink = Sink::new(usize::MAX >> 1);
        let bell: Arc<dyn Bell> = sink.clone();
        let mut model = Model { limit: max_length.unwrap_or(u64::MAX), ..Model::default() };
        let (mut now, mut last, mut active) = (1000u64, 0u64, None);
        for op in ops {
            let mut fx = Effects::default();
            match op {
                Op::Publish { n, priority, ttl } => {
                    let expires_at = if ttl < 30 { 0 } else { now + u64::from(ttl) - 29 };
                    let level = LEVELS - 1 - if priorities { priority.min(LEVELS - 1) } else { 0 };
                    let mut batch = Vec::new();
                    for _ in 0..n {
                        last += 1;
                        batch.push(incoming(last, priority, expires_at));
                        model.ready.insert((level, last), (expires_at, false));
                    }
                    q.enqueue(&mut batch, now, &mut fx);
                }
                Op::Get => loop {
                    match q.get(false, &bell, now, &mut fx) {
                        Got::Empty => {
                            model.expire(now);
                            prop_assert!(model.ready.is_empty());
                        }
                        Got::Waiting => {
                            feed(&q, &mut fx, now);
                            continue;
                        }
                        Got::Message(d, _) => model.delivered(&d, now)?,
                    }
                    break;
                },
                Op::Consume { prefetch } if active.is_none() => {
                    let info = consumer(&sink, 0, prefetch.into(), 0);
                    active = q.consume(info, now, &mut fx).ok();
                    q.pump(now, &mut fx);
                }
                Op::Consume { .. } => {}
                Op::Cancel => {
                    if let Some(index) = active.take() {
                        q.cancel(index, now, &mut fx);
                    }
                }
                Op::Settle { at, how } => {
                    let mut open: Vec<u64> = model.unacked.keys().copied().collect();
                    open.sort_unstable();
                    if open.is_empty() {
                        continue;
                    }
                    let n = open[at % open.len()];
                    let (level, expires_at, d) = model.unacked.remove(&n).expect("chosen from it");
                    let how = [Settle::Ack, Settle::Requeue, Settle::Discard][usize::from(how)];
                    if how == Settle::Requeue && (expires_at == 0 || expires_at > now) {
                        model.ready.insert((level, n), (expires_at, true));
                    }
                    q.settle(&[d], how, now, &mut fx);
                }
                Op::Evict { n } => drop(q.evict(n.into())),
                Op::Purge => {
                    q.purge(now, &mut fx);
                    model.ready.clear();
                }
                Op::Pass { ms } => {
                    now += u64::from(ms);
                    q.tick(now, &mut fx);
                    model.expire(now);
                }
            }
            // What has to be read is read, until nothing moves any more.
            while feed(&q, &mut fx, now) {}
            for d in sink.take() {
                prop_assert!(d.slot != NO_SLOT);
                model.delivered(&d, now)?;
            }
            while model.ready.len() as u64 > model.limit {
                // Lowest priority first, oldest first.
                let lowest = model.ready.keys().next_back().map_or(0, |(level, _)| *level);
                let oldest = model.ready.range((lowest, 0)..).next().map(|(k, _)| *k);
                model.ready.remove(&oldest.expect("not empty"));
            }
            let counts = q.counts();
            prop_assert_eq!(counts.unacked, model.unacked.len() as u64);
            prop_assert!(counts.ready <= model.ready.len() as u64, "more ready than there can be");
            model.expire(now);
            prop_assert!(counts.ready >= model.ready.len() as u64, "messages are missing");
        }
    }
}

/// Hands in what the queue asked for; false if it asked for nothing.
pub(super) fn feed(q: &Arc<Queue>, fx: &mut Effects, now: u64) -> bool {
    if fx.page_ins.is_empty() {
        return false;
    }
    fx.page_ins.clear();
    let read = q
        .wanted(7, u64::MAX)
        .into_iter()
        .map(|(seq, id)| (seq, id, Found::Here(message(id.0))))
        .collect();
    assert_eq!(q.arrived(read, now, fx), Arrived::default());
    true
}
