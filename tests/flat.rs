//! Memory is flat: the same work ten times takes no more the tenth time than the second, in every way through the
//! broker. `FLAT_WORK=20 cargo test --release --test flat -- --nocapture` does so many times as much of it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::{FieldTable, FieldValue, TableRef};
use leveret::protocol::frame::{self, FrameKind};
use leveret::protocol::methods::{basic, channel, connection, queue, tx};
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client};

/// Times that the work is done before memory is looked at: allocator, caches and tables get their size.
const WARM: usize = 5;

/// Times that it is done then.
const ROUNDS: usize = 10;

/// The first of them, which are compared with as many at the end.
const FIRST: std::ops::Range<usize> = 0..3;

/// An allocator that still finds its size stops growing; a leak does not.
const TRIES: usize = 3;

/// What the process may have more the last times than the first: pages that the allocator keeps.
const SLACK: u64 = 3 << 20;

/// Messages, or whatever the work is made of, each time.
fn n() -> usize {
    let factor =
        std::env::var("FLAT_WORK").map_or(1, |n| n.parse().expect("FLAT_WORK is a number"));
    1_000 * factor
}

/// A client for one kind of work.
struct Peer {
    c: Client,
    address: SocketAddr,
}

impl Peer {
    fn ask<M: EncodeMethod, A: EncodeMethod>(&mut self, method: &M, _: A) {
        self.c.send(1, method).unwrap();
        self.c.expect(A::ID).unwrap();
    }

    fn declare(&mut self, name: &str, arguments: &FieldTable) {
        self.c.declare(name, true, arguments).unwrap();
    }

    fn exchange(&mut self, name: &str, type_: &str, arguments: &FieldTable) {
        self.c.declare_exchange(name, type_, arguments).unwrap();
    }

    fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str) {
        self.c.bind(queue, exchange, routing_key).unwrap();
    }

    fn purge(&mut self, queue: &str) {
        self.c
            .send(
                1,
                &queue::Purge {
                    queue,
                    nowait: false,
                },
            )
            .unwrap();
        self.c.expect(queue::PurgeOk::ID).unwrap();
    }

    /// Publishes so many persistent messages.
    fn publish(
        &mut self,
        exchange: &str,
        key: &str,
        count: usize,
        properties: impl Fn(usize) -> Properties,
    ) {
        for i in 0..count {
            let body = [i as u8; 100];
            self.c
                .stage_publish_to(exchange, key, &body, &properties(i));
            if i % 100 == 99 {
                self.c.flush().unwrap();
            }
        }
        self.c.flush().unwrap();
    }

    /// Takes so many deliveries, and does something with each.
    fn take(&mut self, count: usize, mut each: impl FnMut(&mut Client, u64)) {
        for _ in 0..count {
            let delivery = self.c.delivery().unwrap();
            each(&mut self.c, delivery.tag);
        }
    }

    /// Consumes for the time of `work`.
    fn consuming(&mut self, queue: &str, work: impl FnOnce(&mut Peer)) {
        self.c.consume(queue, false).unwrap();
        work(self);
        let cancel = basic::Cancel {
            consumer_tag: "c",
            nowait: false,
        };
        self.c.send(1, &cancel).unwrap();
        let mut left = false;
        loop {
            let frame = self.c.next().unwrap();
            let id = (frame.kind == FrameKind::Method).then(|| frame.method().id());
            if id == Some(basic::CancelOk::ID) {
                break;
            }
            left |= id == Some(basic::Deliver::ID);
        }
        // What was still under way.
        if left {
            self.c.ack(0, true).unwrap();
        }
    }

    /// Another connection, for what ends with one.
    fn other(&self) -> Client {
        Client::connect(self.address).unwrap()
    }
}

fn arguments<const M: usize>(fields: [(&str, FieldValue); M]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in fields {
        table.insert(name, value);
    }
    table
}

fn number(n: i64) -> FieldValue {
    FieldValue::I64(n)
}

fn text(t: &str) -> FieldValue {
    FieldValue::LongStr(t.into())
}

fn with_headers(headers: FieldTable) -> Properties {
    Properties {
        headers: Some(headers),
        ..support::persistent()
    }
}

fn plain(_: usize) -> Properties {
    support::persistent()
}

fn acknowledge(c: &mut Client, tag: u64) {
    if tag.is_multiple_of(50) {
        c.ack(tag, true).unwrap();
    }
}

/// How much more of a count is none: segments that are open at the moment, a route that is remembered.
fn slack(name: &str) -> f64 {
    match name {
        "rabbitmq_process_open_fds" => 8.0,
        name if name.starts_with("leveret_memory_used_bytes") => 1024.0,
        _ => 0.0,
    }
}

/// Does the work again and again, and compares.
fn flat(setup: impl FnOnce(&mut Peer), mut work: impl FnMut(&mut Peer)) {
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
        ("LEVERET_STORAGE_SEGMENT_BYTES", "4MiB"),
        ("LEVERET_DISK_RESERVE_BYTES", "0"),
        ("LEVERET_WORKER_THREADS", "2"),
        // Logins that fail are part of the work.
        ("LEVERET_PROTOCOL_FAILED_LOGIN_DELAY_MS", "0"),
    ];
    let broker = Broker::start_with(&dir.path().join("data"), &[], &environment);
    let metrics = broker.listens("prometheus");
    let address = broker.address;
    let c = Client::connect(address).unwrap();
    let mut peer = Peer { c, address };
    setup(&mut peer);
    // What is counted, and may not grow: queues, consumers, connections, messages, descriptors, what the
    // budget knows.
    let counts = || {
        let page = support::scrape(metrics);
        let names = [
            "rabbitmq_queues ",
            "rabbitmq_consumers ",
            "rabbitmq_connections ",
            "rabbitmq_channels ",
            "rabbitmq_queue_messages ",
            "rabbitmq_process_open_fds ",
            "leveret_memory_used_bytes",
        ];
        let lines = page
            .lines()
            .filter(|l| names.iter().any(|n| l.starts_with(n)));
        lines
            .map(|l| l.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.to_string(), value.parse().unwrap()))
            .collect::<BTreeMap<String, f64>>()
    };
    let mut most = BTreeMap::<String, f64>::new();
    (0..WARM).for_each(|_| work(&mut peer));
    for again in (0..TRIES).rev() {
        let mut resident = Vec::new();
        for round in 0..ROUNDS {
            work(&mut peer);
            resident.push(broker.resident());
            if FIRST.contains(&round) {
                for (name, n) in counts() {
                    let known = most.entry(name).or_default();
                    *known = known.max(n);
                }
            }
        }
        let mib: Vec<u64> = resident.iter().map(|r| r >> 20).collect();
        support::tell(&format!(
            "{}: {mib:?} MiB",
            std::thread::current().name().unwrap_or_default()
        ));
        let before = resident[FIRST].iter().max().copied().unwrap_or_default();
        let mut last = resident[ROUNDS - FIRST.len()..].to_vec();
        last.sort_unstable();
        if last[1] < before + SLACK {
            break;
        }
        assert!(again > 0, "it grows: {resident:?}");
    }
    // Connections and what they held go a moment after their sockets.
    let since = std::time::Instant::now();
    loop {
        let mut more = counts();
        more.retain(|name, n| *n > most[name] + slack(name));
        if more.is_empty() {
            break;
        }
        assert!(
            since.elapsed() < support::PATIENCE,
            "more the last time than the first: {more:?}"
        );
    }
    assert!(broker.stop(), "a clean stop");
}

#[test]
fn publish_and_acknowledge() {
    flat(
        |p| p.declare("q", &FieldTable::new()),
        |p| {
            p.publish("", "q", n(), plain);
            p.consuming("q", |p| p.take(n(), acknowledge));
        },
    );
}

#[test]
fn get() {
    flat(
        |p| p.declare("q", &FieldTable::new()),
        |p| {
            p.publish("", "q", n(), plain);
            for _ in 0..n() {
                p.c.get("q", true).unwrap().unwrap();
            }
        },
    );
}

#[test]
fn dead_letters_of_a_ttl() {
    flat(
        |p| {
            p.declare("dead", &FieldTable::new());
            let to = [
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text("dead")),
            ];
            let mut ttl = arguments(to);
            ttl.insert("x-message-ttl", 1i64);
            p.declare("q", &ttl);
        },
        |p| {
            p.publish("", "q", n(), plain);
            p.consuming("dead", |p| p.take(n(), acknowledge));
        },
    );
}

#[test]
fn delayed_messages() {
    flat(
        |p| {
            p.declare("q", &FieldTable::new());
            p.exchange(
                "later",
                "x-delayed-message",
                &arguments([("x-delayed-type", text("fanout"))]),
            );
            p.bind("q", "later", "");
        },
        |p| {
            p.publish("later", "", n(), |i| {
                with_headers(arguments([("x-delay", number(i as i64 % 30))]))
            });
            p.consuming("q", |p| p.take(n(), acknowledge));
        },
    );
}

#[test]
fn returns_of_a_quorum_queue() {
    flat(
        |p| {
            let quorum = [
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", number(-1)),
            ];
            p.declare("q", &arguments(quorum));
        },
        |p| {
            p.publish("", "q", n(), plain);
            for _ in 0..3 {
                // All are with a client that is lost.
                let mut other = p.other();
                other.consume("q", false).unwrap();
                for _ in 0..n() {
                    other.delivery().unwrap();
                }
            }
            p.consuming("q", |p| p.take(n(), acknowledge));
        },
    );
}

#[test]
fn rejected_again_and_again() {
    flat(
        |p| p.declare("q", &FieldTable::new()),
        |p| {
            p.publish("", "q", 10, plain);
            p.consuming("q", |p| {
                p.take(n(), |c, delivery_tag| {
                    c.send(
                        1,
                        &basic::Reject {
                            delivery_tag,
                            requeue: true,
                        },
                    )
                    .unwrap();
                });
            });
            p.purge("q");
        },
    );
}

#[test]
fn de_duplication() {
    flat(
        |p| {
            let window = [("x-cache-size", number(500))];
            p.exchange("x", "x-message-deduplication", &arguments(window));
            p.declare("q", &FieldTable::new());
            p.bind("q", "x", "");
        },
        {
            let mut round = 0;
            move |p| {
                round += 1;
                p.publish("x", "", n(), |i| {
                    with_headers(arguments([(
                        "x-deduplication-header",
                        text(&format!("{round}-{i}")),
                    )]))
                });
                p.c.counts("q").unwrap();
                p.purge("q");
            }
        },
    );
}

#[test]
fn recent_history() {
    flat(
        |p| {
            p.exchange(
                "x",
                "x-recent-history",
                &arguments([("x-recent-history-length", number(50))]),
            )
        },
        |p| {
            p.publish("x", "", n(), plain);
            for _ in 0..20 {
                p.declare("q", &FieldTable::new());
                p.bind("q", "x", "");
                let delete = queue::Delete {
                    queue: "q",
                    if_unused: false,
                    if_empty: false,
                    nowait: false,
                };
                p.c.send(1, &delete).unwrap();
                p.c.expect(queue::DeleteOk::ID).unwrap();
            }
        },
    );
}

#[test]
fn fan_out() {
    flat(
        |p| {
            p.exchange("all", "fanout", &FieldTable::new());
            for i in 0..20 {
                let name = format!("q{i}");
                p.declare(&name, &FieldTable::new());
                p.bind(&name, "all", "");
            }
        },
        |p| {
            p.publish("all", "", n() / 10, plain);
            p.c.counts("q0").unwrap();
            (0..20).for_each(|i| p.purge(&format!("q{i}")));
        },
    );
}

#[test]
fn transactions() {
    flat(
        |p| {
            p.declare("q", &FieldTable::new());
            p.ask(&tx::Select, tx::SelectOk);
        },
        |p| {
            p.publish("", "q", n(), plain);
            p.ask(&tx::Rollback, tx::RollbackOk);
            p.publish("", "q", n(), plain);
            p.ask(&tx::Commit, tx::CommitOk);
            p.purge("q");
        },
    );
}

#[test]
fn priorities_and_a_limit() {
    flat(
        |p| {
            let limited = [
                ("x-max-priority", number(10)),
                ("x-max-length", number(500)),
            ];
            p.declare("q", &arguments(limited));
        },
        |p| {
            p.publish("", "q", n(), |i| Properties {
                priority: Some((i % 12) as u8),
                ..support::persistent()
            });
            p.consuming("q", |p| p.take(400, acknowledge));
            p.purge("q");
        },
    );
}

#[test]
fn connections_and_queues_of_theirs() {
    flat(
        |p| p.exchange("x", "topic", &FieldTable::new()),
        |p| {
            for i in 0..n() / 20 {
                let mut other = Peer {
                    c: p.other(),
                    address: p.address,
                };
                let name = format!("own-{i}");
                let declare = queue::Declare {
                    queue: &name,
                    passive: false,
                    durable: false,
                    exclusive: true,
                    auto_delete: true,
                    nowait: false,
                    arguments: TableRef::default(),
                };
                other.c.send(1, &declare).unwrap();
                other.c.expect(queue::DeclareOk::ID).unwrap();
                other.bind(&name, "x", &format!("key.{i}.#"));
                other.publish("x", &format!("key.{i}.a"), 5, plain);
                other.c.consume(&name, false).unwrap();
                other.take(3, |_, _| {});
                if i % 2 == 0 {
                    close(&mut other.c);
                }
            }
        },
    );
}

fn close(c: &mut Client) {
    let close = connection::Close {
        reply_code: 200,
        reply_text: "",
        class_id: 0,
        method_id: 0,
    };
    c.send(0, &close).unwrap();
    // Deliveries may come first.
    while let Ok(frame) = c.next() {
        if frame.kind == FrameKind::Method && frame.method().id() == connection::CloseOk::ID {
            return;
        }
    }
}

#[test]
fn a_backlog_that_is_held_and_returned() {
    flat(
        |p| p.declare("q", &FieldTable::new()),
        |p| {
            p.publish("", "q", n(), plain);
            let mut other = p.other();
            other.consume("q", false).unwrap();
            (0..n()).for_each(|_| drop(other.delivery().unwrap()));
            close(&mut other);
            p.purge("q");
        },
    );
}

#[test]
fn bodies_that_end_in_the_middle() {
    flat(
        |_| {},
        |p| {
            for _ in 0..n() / 40 {
                let mut other = p.other();
                let publish = basic::Publish {
                    exchange: "".into(),
                    routing_key: "q".into(),
                    mandatory: false,
                    immediate: false,
                };
                encode::method(&mut other.out, 1, &publish);
                let properties = support::persistent().encode();
                encode::content_header(&mut other.out, 1, &properties, 1 << 20);
                for _ in 0..3 {
                    encode::frame_head(&mut other.out, FrameKind::Body, 1, 60_000);
                    other.out.extend_from_slice(&[1; 60_000]);
                    other.out.extend_from_slice(&[frame::FRAME_END]);
                }
                encode::frame_head(&mut other.out, FrameKind::Body, 1, 60_000);
                other.out.extend_from_slice(&[1; 5_000]);
                other.flush().unwrap();
            }
        },
    );
}

#[test]
fn many_channels_with_many_keys() {
    flat(
        |p| {
            p.exchange("x", "topic", &FieldTable::new());
            p.declare("q", &FieldTable::new());
            p.bind("q", "x", "#");
        },
        |p| {
            let mut other = p.other();
            for number in 2..52 {
                other.send(number, &channel::Open).unwrap();
                other.expect(channel::OpenOk::ID).unwrap();
                for i in 0..n() / 50 {
                    let key = format!("{number}.{i}.{}", "k".repeat(100));
                    let publish = basic::Publish {
                        exchange: "x".into(),
                        routing_key: key.as_str().into(),
                        mandatory: false,
                        immediate: false,
                    };
                    encode::method(&mut other.out, number, &publish);
                    let content = Content {
                        properties: &[0, 0],
                        body: b"b",
                    };
                    encode::content(&mut other.out, number, &content, 131_072);
                }
                other.flush().unwrap();
            }
            close(&mut other);
            p.purge("q");
        },
    );
}

#[test]
fn errors_and_logins_that_fail() {
    flat(
        |_| {},
        |p| {
            for i in 0..n() / 10 {
                let name = format!("none-{i}");
                p.c.send(
                    1,
                    &basic::Get {
                        queue: &name,
                        no_ack: true,
                    },
                )
                .unwrap();
                p.c.expect(channel::Close::ID).unwrap();
                p.c.send(1, &channel::CloseOk).unwrap();
                p.ask(&channel::Open, channel::OpenOk);
            }
            // Each is answered late: all at once.
            let address = p.address;
            std::thread::scope(|all| {
                for i in 0..4 {
                    all.spawn(move || {
                        let mut other = Client::raw(address).unwrap();
                        let refused = other.log_in_as(&format!("nobody-{i}"), "x");
                        assert!(refused.is_err());
                    });
                }
            });
        },
    );
}

#[test]
fn consumers_and_bindings_that_come_and_go() {
    flat(
        |p| {
            p.exchange("x", "headers", &FieldTable::new());
            p.declare("q", &FieldTable::new());
        },
        |p| {
            for i in 0..n() / 10 {
                let fields =
                    arguments([("x-match", text("all")), ("a", number(i as i64))]).to_bytes();
                let key = format!("k{i}");
                let bind = queue::Bind {
                    queue: "q",
                    exchange: "x",
                    routing_key: &key,
                    nowait: false,
                    arguments: TableRef::unchecked(&fields),
                };
                p.ask(&bind, queue::BindOk);
                let unbind = queue::Unbind {
                    queue: "q",
                    exchange: "x",
                    routing_key: &key,
                    arguments: TableRef::unchecked(&fields),
                };
                p.ask(&unbind, queue::UnbindOk);
                p.consuming("q", |_| {});
            }
        },
    );
}

#[test]
fn answers_to_direct_reply_to() {
    flat(
        |p| p.declare("q", &FieldTable::new()),
        |p| {
            for _ in 0..n() / 40 {
                let mut other = Peer {
                    c: p.other(),
                    address: p.address,
                };
                other.c.consume("amq.rabbitmq.reply-to", true).unwrap();
                other.publish("", "q", 1, |_| Properties {
                    reply_to: Some(leveret::protocol::short::ShortBuf::from(
                        leveret::protocol::short::ShortBytes::from("amq.rabbitmq.reply-to"),
                    )),
                    ..support::persistent()
                });
                other.c.counts("q").unwrap();
                let address = {
                    p.c.send(
                        1,
                        &basic::Get {
                            queue: "q",
                            no_ack: true,
                        },
                    )
                    .unwrap();
                    let frame = p.c.expect(basic::GetOk::ID).unwrap();
                    assert!(matches!(frame.method(), Method::BasicGetOk(_)));
                    let header = p.c.next().unwrap();
                    let parsed =
                        leveret::protocol::properties::parse_content_header(&header.payload)
                            .unwrap();
                    let address = parsed
                        .properties
                        .reply_to()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_string();
                    p.c.next().unwrap();
                    address
                };
                p.publish("", &address, 1, plain);
                other.take(1, |_, _| {});
            }
        },
    );
}
