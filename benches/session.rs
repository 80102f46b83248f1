//! What a message costs without the sockets: frames in, decode, route, enqueue, hand out, encode, frames out,
//! acknowledged. In time, and in allocations.
//!
//! `cargo bench --bench session`

#[path = "support/inbox.rs"]
mod inbox;
#[path = "support/session.rs"]
mod session;

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use leveret::amqp::connection::Connection;
use leveret::amqp::settings::SessionSettings;
use leveret::broker::Broker;
use leveret::broker::queue::outlet::Delivery;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::TableRef;
use leveret::protocol::frame::{self, FrameKind, Parsed};
use leveret::protocol::methods::{Method, basic, queue};

use self::inbox::Inbox;

/// Messages that one read brings.
const BATCH: u64 = 64;

const NOW: u64 = 1_700_000_000_000;

/// As the handshake negotiates it.
const FRAME_MAX: u32 = 65_536;

struct Peer {
    machine: Connection,
    inbox: Arc<Inbox>,
    deliveries: Vec<Delivery>,
}

impl Peer {
    fn new(broker: &Arc<Broker>) -> Peer {
        let inbox = Inbox::new(1000, 1 << 24);
        let mut peer = Peer {
            machine: session::connection(broker, &inbox, SessionSettings::default(), NOW),
            inbox,
            deliveries: Vec::new(),
        };
        peer.sends(session::HANDSHAKE);
        peer
    }

    fn sends(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let received = self.machine.receive(rest, NOW);
            assert!(received.consumed > 0, "frames are complete");
            rest = &rest[received.consumed..];
        }
        black_box(&self.machine.output);
        self.machine.output.clear();
    }

    /// Takes what its queues have for it; the last delivery tag.
    fn takes(&mut self) -> u64 {
        std::mem::swap(
            &mut *self.inbox.deliveries.lock().expect("one thread"),
            &mut self.deliveries,
        );
        let n = self.deliveries.len() as u64;
        self.machine.deliver(&mut self.deliveries, NOW);
        black_box(&self.machine.output);
        self.machine.output.clear();
        n
    }
}

/// Publishers' frames for one batch.
fn publishes(exchange: &str, size: usize) -> BytesMut {
    let mut out = BytesMut::new();
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: "q0".into(),
        mandatory: false,
        immediate: false,
    };
    let content = Content {
        properties: &[0x10, 0, 1],
        body: &vec![7; size],
    };
    for _ in 0..BATCH {
        encode::method(&mut out, 1, &publish);
        encode::content(&mut out, 1, &content, FRAME_MAX);
    }
    out
}

struct Case {
    name: &'static str,
    exchange: &'static str,
    size: usize,
    queues: u64,
    /// Acknowledgements: none, one for the batch, one for each.
    acks: Acks,
}

#[derive(Clone, Copy, PartialEq)]
enum Acks {
    None,
    Batch,
    Each,
}

struct World {
    producer: Peer,
    consumer: Peer,
    bytes: BytesMut,
    acks: Acks,
    delivered: u64,
    ack_bytes: BytesMut,
}

impl World {
    fn new(case: &Case) -> World {
        let broker = session::broker();
        let (producer, mut consumer) = (Peer::new(&broker), Peer::new(&broker));
        for n in 0..case.queues {
            let name = format!("q{n}");
            let mut out = BytesMut::new();
            let declare = queue::Declare {
                queue: &name,
                passive: false,
                durable: false,
                exclusive: false,
                auto_delete: false,
                nowait: true,
                arguments: TableRef::unchecked(&[]),
            };
            encode::method(&mut out, 1, &declare);
            if !case.exchange.is_empty() {
                let bind = queue::Bind {
                    queue: &name,
                    exchange: case.exchange,
                    routing_key: "",
                    nowait: true,
                    arguments: TableRef::unchecked(&[]),
                };
                encode::method(&mut out, 1, &bind);
            }
            let consume = basic::Consume {
                queue: &name,
                consumer_tag: &name,
                no_local: false,
                no_ack: case.acks == Acks::None,
                exclusive: false,
                nowait: true,
                arguments: TableRef::unchecked(&[]),
            };
            encode::method(&mut out, 1, &consume);
            consumer.sends(&out);
        }
        World {
            producer,
            consumer,
            bytes: publishes(case.exchange, case.size),
            acks: case.acks,
            delivered: 0,
            ack_bytes: BytesMut::new(),
        }
    }

    /// One batch, all the way.
    fn run(&mut self) -> u64 {
        self.producer.sends(&self.bytes);
        let n = self.consumer.takes();
        let (first, last) = (self.delivered + 1, self.delivered + n);
        self.delivered = last;
        let tags = match self.acks {
            Acks::None => return n,
            Acks::Batch => last..=last,
            Acks::Each => first..=last,
        };
        self.ack_bytes.clear();
        for delivery_tag in tags {
            let multiple = self.acks == Acks::Batch;
            let ack = basic::Ack {
                delivery_tag,
                multiple,
            };
            encode::method(&mut self.ack_bytes, 1, &ack);
        }
        self.consumer.sends(&self.ack_bytes);
        n
    }
}

const CASES: [Case; 5] = [
    Case {
        name: "16 B, no acks",
        exchange: "",
        size: 16,
        queues: 1,
        acks: Acks::None,
    },
    Case {
        name: "1 KiB, an ack for the batch",
        exchange: "",
        size: 1024,
        queues: 1,
        acks: Acks::Batch,
    },
    Case {
        name: "64 B, an ack for each",
        exchange: "",
        size: 64,
        queues: 1,
        acks: Acks::Each,
    },
    Case {
        name: "16 B to 10 queues",
        exchange: "amq.fanout",
        size: 16,
        queues: 10,
        acks: Acks::None,
    },
    Case {
        name: "64 KiB, no acks",
        exchange: "",
        size: 65_536,
        queues: 1,
        acks: Acks::None,
    },
];

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    for case in &CASES {
        let mut world = World::new(case);
        let n = world.run();
        assert_eq!(n, BATCH * case.queues, "all are delivered");
        for _ in 0..100 {
            world.run();
        }
        let counted = allocation_counter::measure(|| {
            black_box(world.run());
        });
        println!(
            "session/{}: {:.3} allocations a delivery, {:.0} bytes",
            case.name,
            counted.count_total as f64 / n as f64,
            counted.bytes_total as f64 / n as f64
        );
        group.throughput(Throughput::Elements(n));
        group.bench_function(BenchmarkId::from_parameter(case.name), |b| {
            b.iter(|| world.run());
        });
    }
    group.finish();
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for size in [16, 1024] {
        let bytes = publishes("", size);
        group.throughput(Throughput::Elements(BATCH));
        group.bench_function(BenchmarkId::new("parse and decode a publish", size), |b| {
            b.iter(|| {
                let mut at = 0;
                while let Ok(Parsed::Frame { frame, size }) = frame::parse(&bytes[at..], FRAME_MAX)
                {
                    if frame.kind == FrameKind::Method {
                        assert!(black_box(Method::decode(frame.payload)).is_ok());
                    }
                    at += size;
                }
                assert_eq!(at, bytes.len());
            });
        });
        let mut out = BytesMut::new();
        let body = vec![7; size];
        group.bench_function(BenchmarkId::new("encode a delivery", size), |b| {
            b.iter(|| {
                out.clear();
                for delivery_tag in 0..BATCH {
                    let head = encode::DeliverHead {
                        channel: 1,
                        consumer_tag: "c",
                        delivery_tag,
                        redelivered: false,
                        exchange: "".into(),
                        routing_key: "q0".into(),
                    };
                    let content = Content {
                        properties: &[0x10, 0, 1],
                        body: &body,
                    };
                    encode::deliver(&mut out, &head, &content, FRAME_MAX);
                }
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    whole(&mut c);
    codec(&mut c);
    c.final_summary();
}
