//! What a message costs in a queue: enqueued in a batch, handed to a consumer, acknowledged; without
//! expiration and with it. The first figure must not depend on the others being possible.
//!
//! `cargo bench --bench queue`

#[path = "support/inbox.rs"]
mod inbox;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use leveret::broker::arguments::QueueSettings;
use leveret::broker::memory::Memory;
use leveret::broker::message::{FLAG_PERSISTENT, Message, Parts};
use leveret::broker::ports::{MessageId, QueueId};
use leveret::broker::queue::effects::Effects;
use leveret::broker::queue::outlet::ConsumerKey;
use leveret::broker::queue::{ConsumerInfo, DeliveryRef, Incoming, Queue, QueueInfo, Settle};
use leveret::protocol::field_table::FieldTable;

use self::inbox::Inbox;

/// Messages that one read brings.
const BATCH: u64 = 64;

/// Messages that wait before the measured ones come, and stay.
const WAITING: u64 = 100_000;

fn queue(memory: &Memory, max_priority: Option<u8>) -> Arc<Queue> {
    let info = QueueInfo {
        id: QueueId(1),
        vhost: "/".into(),
        name: "q".into(),
        durable: true,
        auto_delete: false,
        exclusive_owner: None,
        arguments: FieldTable::new(),
        settings: QueueSettings {
            max_priority,
            ..QueueSettings::default()
        },
        delays: None,
    };
    Queue::new(info, memory)
}

fn message(memory: &Memory) -> Message {
    let parts = Parts {
        exchange: "".into(),
        routing_key: "q".into(),
        properties: &[0x10, 0, 2],
        flags: FLAG_PERSISTENT,
    };
    Message::new(memory, &parts, &[7; 16])
}

fn consumer(sink: &Arc<Inbox>) -> ConsumerInfo {
    ConsumerInfo {
        key: ConsumerKey {
            slot: 0,
            generation: 0,
        },
        tag: "c".into(),
        outlet: sink.clone(),
        no_ack: false,
        exclusive: false,
        priority: 0,
        prefetch_count: 0,
        timeout: 0,
        channel_credit: None,
    }
}

/// A batch in, out, and acknowledged.
struct Round {
    queue: Arc<Queue>,
    sink: Arc<Inbox>,
    message: Message,
    incoming: Vec<Incoming>,
    refs: Vec<DeliveryRef>,
    fx: Effects,
    number: u64,
}

impl Round {
    fn new(max_priority: Option<u8>) -> Round {
        let sink = Inbox::new(1000, 1 << 20);
        let memory = Memory::new();
        memory.set_budget(1 << 30);
        let queue = queue(&memory, max_priority);
        let mut fx = Effects::default();
        let consuming = queue.consume(consumer(&sink), 1, &mut fx);
        assert!(consuming.is_ok(), "nobody is exclusive");
        Round {
            queue,
            sink,
            message: message(&memory),
            incoming: Vec::new(),
            refs: Vec::new(),
            fx,
            number: 0,
        }
    }

    fn run(&mut self, expires_at: impl Fn(u64) -> u64) {
        for _ in 0..BATCH {
            self.number += 1;
            self.incoming.push(Incoming {
                message: self.message.clone(),
                id: MessageId(self.number),
                expires_at: expires_at(self.number),
                priority: 0,
                reserved: false,
                delivery_count: 0,
            });
        }
        self.queue.enqueue(&mut self.incoming, 1, &mut self.fx);
        let delivered = std::mem::take(&mut *self.sink.deliveries.lock().expect("one thread"));
        self.refs.extend(delivered.iter().map(|d| DeliveryRef {
            slot: d.slot,
            seq: d.entry.seq,
        }));
        self.queue.settle(&self.refs, Settle::Ack, 1, &mut self.fx);
        self.refs.clear();
        black_box(&self.fx.settles);
        self.fx = Effects::default();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("through");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("no expiration", |b| {
        let mut round = Round::new(None);
        b.iter(|| round.run(|_| 0));
    });
    group.bench_function("one expiration for all", |b| {
        let mut round = Round::new(None);
        b.iter(|| round.run(|_| 1_000_000));
    });
    group.bench_function("any expiration", |b| {
        let mut round = Round::new(None);
        b.iter(|| round.run(|n| 1_000_000 + n * 2_654_435_761 % 1_000_000));
    });
    group.bench_function("priorities", |b| {
        let mut round = Round::new(Some(9));
        b.iter(|| round.run(|_| 0));
    });
    group.finish();
    let mut group = criterion.benchmark_group("expire one behind the waiting");
    for waiting in [1_000, WAITING] {
        group.bench_function(BenchmarkId::from_parameter(waiting), |b| {
            let memory = Memory::new();
            memory.set_budget(1 << 30);
            let q = queue(&memory, None);
            let mut fx = Effects::default();
            let one = |number, expires_at| Incoming {
                message: message(&memory),
                id: MessageId(number),
                expires_at,
                priority: 0,
                reserved: false,
                delivery_count: 0,
            };
            let mut all: Vec<_> = (1..=waiting).map(|n| one(n, u64::MAX)).collect();
            q.enqueue(&mut all, 1, &mut fx);
            let mut now = 1;
            b.iter(|| {
                now += 2;
                q.enqueue(&mut vec![one(waiting + now, now + 1)], now, &mut fx);
                q.tick(now + 1, &mut fx);
                assert_eq!(q.counts().ready, waiting);
                fx = Effects::default();
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
