//! What routing costs: the remembered route that nearly every publish takes, the ways around it,
//! and binding many queues.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BatchSize, Criterion, Throughput};
use leveret::broker::Broker;
use leveret::broker::exchange::{Destination, ExchangeType, Router};
use leveret::broker::ports::{
    Appended, Bell, Found, LogFailed, Lsn, MessageId, MessageLog, QueueId, Records,
};
use leveret::broker::routing::RouteCache;
use leveret::broker::vhost::{BindingSpec, QueueDeclare, Vhost};
use leveret::protocol::field_table::{FieldTable, FieldValue};
use leveret::protocol::properties::{Properties, PropertiesRef};

/// A log that takes everything and keeps nothing.
struct NoLog;

impl MessageLog for NoLog {
    fn append(&self, records: &mut Records) -> Result<Appended, LogFailed> {
        static POSITION: AtomicU64 = AtomicU64::new(0);
        records.clear();
        Ok(Appended {
            first_id: MessageId(1),
            lsn: Lsn(POSITION.fetch_add(1, Ordering::Relaxed)),
        })
    }

    fn durable(&self) -> Lsn {
        Lsn::default()
    }

    fn staged(&self) -> Lsn {
        Lsn::default()
    }

    fn failed(&self) -> bool {
        false
    }

    fn ring_at(&self, _: Lsn, _: &Arc<dyn Bell>) {}

    fn read(&self, _: &[MessageId], _: &mut Vec<Found>) -> io::Result<()> {
        Ok(())
    }

    fn backlog_bytes(&self) -> u64 {
        0
    }

    fn close(&self, _: &[(QueueId, MessageId)]) -> io::Result<()> {
        Ok(())
    }
}

fn vhost() -> Arc<Vhost> {
    let (broker, _) = Broker::new(Arc::new(NoLog), &[]);
    broker.add_vhost("/").expect("the log takes everything");
    broker.vhost("/").expect("it was added")
}

fn queue(v: &Vhost, name: &str) -> Destination {
    let none = FieldTable::new();
    let declare = QueueDeclare {
        durable: true,
        ..QueueDeclare::named(name, &none)
    };
    Destination::Queue(v.declare_queue(&declare).expect("it is new").0)
}

fn bind(v: &Vhost, source: &str, destination: &Destination, routing_key: &str) {
    let spec = BindingSpec {
        source,
        destination,
        routing_key,
        arguments: &FieldTable::new(),
    };
    v.bind(&spec).expect("it is valid");
}

/// Routes that a channel remembers.
fn remembered(c: &mut Criterion) {
    let mut group = c.benchmark_group("remembered");
    let v = vhost();
    let none = PropertiesRef::unchecked(&[0, 0]);
    let q = queue(&v, "orders.created");
    let mut cache = RouteCache::default();
    group.bench_function("default exchange, same queue", |b| {
        b.iter(|| {
            let found = cache.route(&v, "", black_box(b"orders.created"), none);
            found.map(|f| f.queues.len())
        });
    });
    bind(&v, "amq.topic", &q, "orders.*");
    group.bench_function("topic exchange, same key", |b| {
        b.iter(|| {
            let found = cache.route(&v, "amq.topic", black_box(b"orders.created"), none);
            found.map(|f| f.queues.len())
        });
    });
    let keys: Vec<String> = (0..100).map(|n| format!("orders.{n}")).collect();
    group.throughput(Throughput::Elements(keys.len() as u64));
    group.bench_function("topic exchange, 100 keys in turn", |b| {
        b.iter(|| {
            for key in &keys {
                black_box(
                    cache
                        .route(&v, "amq.topic", key.as_bytes(), none)
                        .map(|f| f.queues.len()),
                )
                .ok();
            }
        });
    });
    let names: Vec<String> = (0..100).map(|n| format!("reply.{n}")).collect();
    let queues: Vec<_> = names.iter().map(|name| queue(&v, name)).collect();
    group.bench_function("default exchange, 100 queues in turn", |b| {
        b.iter(|| {
            for name in &names {
                black_box(
                    cache
                        .route(&v, "", name.as_bytes(), none)
                        .map(|f| f.queues.len()),
                )
                .ok();
            }
        });
    });
    drop(queues);
    group.finish();
}

/// Routes that have to be found.
fn found(c: &mut Criterion) {
    let mut group = c.benchmark_group("found");
    let v = vhost();
    let none = PropertiesRef::unchecked(&[0, 0]);
    let q = queue(&v, "q");
    bind(&v, "amq.topic", &q, "#");
    let mut cache = RouteCache::default();
    let mut n = 0u64;
    group.bench_function("topic exchange, a new key each time", |b| {
        b.iter(|| {
            n += 1;
            let found = cache.route(&v, "amq.topic", n.to_string().as_bytes(), none);
            found.map(|f| f.queues.len())
        });
    });

    let mut topic = Router::new(ExchangeType::Topic, &FieldTable::new());
    for n in 0..10_000u32 {
        let key = match n % 4 {
            0 => format!("region.{}.orders", n / 4),
            1 => format!("region.{}.#", n / 4),
            2 => format!("*.{}.orders", n / 4),
            _ => format!("#.{}.orders.#", n / 4),
        };
        topic.bind(&key, &FieldTable::new(), &n);
    }
    let mut out = Vec::new();
    group.bench_function("trie of 10,000 patterns", |b| {
        b.iter(|| {
            out.clear();
            topic.route(&[black_box(b"region.77.orders".as_slice())], none, &mut out);
            out.len()
        });
    });
    let mut hostile = Router::new(ExchangeType::Topic, &FieldTable::new());
    for n in 1..120u32 {
        let words = vec!["a"; n as usize].join(".");
        hostile.bind(&format!("#.{words}.#"), &FieldTable::new(), &n);
    }
    let key = vec!["a"; 127].join(".");
    group.bench_function("hostile patterns and key", |b| {
        b.iter(|| {
            out.clear();
            hostile.route(&[black_box(key.as_bytes())], none, &mut out);
            out.len()
        });
    });

    let mut headers = Router::new(ExchangeType::Headers, &FieldTable::new());
    for n in 0..1000u32 {
        let mut wanted = FieldTable::new();
        wanted.insert("tenant", FieldValue::I32(n as i32));
        wanted.insert("kind", "order");
        headers.bind("", &wanted, &n);
    }
    let mut have = FieldTable::new();
    have.insert("tenant", FieldValue::I32(500));
    have.insert("kind", "order");
    let with_headers = Properties {
        headers: Some(have),
        ..Properties::default()
    }
    .encode();
    let have = PropertiesRef::unchecked(&with_headers);
    group.bench_function("1,000 bindings by headers", |b| {
        b.iter(|| {
            out.clear();
            headers.route(&[b""], have, &mut out);
            out.len()
        });
    });
    group.finish();
}

/// Binding must not slow down with the number of bindings that are there.
fn bound(c: &mut Criterion) {
    let mut group = c.benchmark_group("bound");
    group.sample_size(10);
    for n in [1_000u64, 10_000] {
        group.throughput(Throughput::Elements(n));
        group.bench_function(format!("{n} queues to one topic exchange"), |b| {
            b.iter_batched(
                || {
                    let v = vhost();
                    let queues: Vec<_> = (0..n).map(|n| queue(&v, &n.to_string())).collect();
                    (v, queues)
                },
                |(v, queues)| {
                    for (n, q) in queues.iter().enumerate() {
                        bind(&v, "amq.topic", q, &format!("user.{n}.*"));
                        bind(&v, "amq.topic", q, "all");
                    }
                    (v, queues)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    remembered(&mut criterion);
    found(&mut criterion);
    bound(&mut criterion);
    criterion.final_summary();
}
