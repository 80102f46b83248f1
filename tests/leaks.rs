//! What is declared and deleted leaves nothing behind: not a name, not a binding, not an octet.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../benches/support/inbox.rs"]
mod inbox;
#[path = "../benches/support/session.rs"]
#[allow(dead_code, reason = "its broker on a log in memory is for others")]
mod session;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use leveret::amqp::connection::Connection;
use leveret::amqp::settings::SessionSettings;
use leveret::broker::Broker;
use leveret::broker::memory::Use;
use leveret::broker::ports::{
    Appended, Bell, Found, LogFailed, Lsn, MessageId, MessageLog, QueueId, Records,
};
use leveret::protocol::EncodeMethod;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::{FieldTable, FieldValue, TableRef};
use leveret::protocol::methods::{basic, channel, exchange, queue};
use leveret::protocol::properties::Properties;

use self::inbox::Inbox;

/// Of each kind.
const N: usize = 10_000 / if cfg!(debug_assertions) { 10 } else { 1 };

const NOW: u64 = 1_700_000_000_000;

/// A log that takes everything and keeps nothing but the number of definitions.
#[derive(Default)]
struct Forgetful {
    staged: AtomicU64,
    ids: AtomicU64,
}

impl MessageLog for Forgetful {
    fn append(&self, records: &mut Records) -> Result<Appended, LogFailed> {
        let n = records.publishes.len() as u64;
        records.clear();
        records.definitions.clear();
        records.publishes.clear();
        Ok(Appended {
            first_id: MessageId(self.ids.fetch_add(n, Ordering::Relaxed) + 1),
            lsn: Lsn(self.staged.fetch_add(1, Ordering::Relaxed) + 1),
        })
    }

    fn durable(&self) -> Lsn {
        self.staged()
    }

    fn staged(&self) -> Lsn {
        Lsn(self.staged.load(Ordering::Relaxed))
    }

    fn failed(&self) -> bool {
        false
    }

    fn ring_at(&self, _: Lsn, bell: &Arc<dyn Bell>) {
        bell.ring();
    }

    fn read(&self, ids: &[MessageId], into: &mut Vec<Found>) -> io::Result<()> {
        into.extend(ids.iter().map(|_| Found::Settled));
        Ok(())
    }

    fn backlog_bytes(&self) -> u64 {
        0
    }

    fn close(&self, _: &[(QueueId, MessageId)]) -> io::Result<()> {
        Ok(())
    }
}

struct Peer {
    machine: Connection,
    inbox: Arc<Inbox>,
}

impl Peer {
    fn new(broker: &Arc<Broker>) -> Peer {
        let inbox = Inbox::new(1000, 1 << 24);
        let mut peer = Peer {
            machine: session::connection(broker, &inbox, SessionSettings::default(), NOW),
            inbox,
        };
        peer.take(session::HANDSHAKE);
        peer
    }

    fn take(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let received = self.machine.receive(rest, NOW);
            assert!(received.consumed > 0, "frames are complete");
            rest = &rest[received.consumed..];
        }
        let notices = std::mem::take(&mut *self.inbox.notices.lock().unwrap());
        for notice in notices {
            self.machine.notice(notice, NOW);
        }
        self.machine.progress(NOW);
        let said = self.machine.output.to_vec();
        // channel.close and connection.close; what is closed takes nothing, and would leave nothing.
        for close in [[0, 20, 0, 40], [0, 10, 0, 50]] {
            let text = String::from_utf8_lossy(&said).into_owned();
            assert!(!said.windows(4).any(|w| w == close), "{text}");
        }
        self.machine.output.clear();
    }

    fn says<M: EncodeMethod>(&mut self, channel: u16, method: &M) {
        let mut out = BytesMut::new();
        encode::method(&mut out, channel, method);
        self.take(&out);
    }

    fn publishes(&mut self, channel: u16, exchange: &str, key: &str, headers: &FieldTable) {
        let mut out = BytesMut::new();
        let publish = basic::Publish {
            exchange: exchange.into(),
            routing_key: key.into(),
            mandatory: false,
            immediate: false,
        };
        encode::method(&mut out, channel, &publish);
        let properties = Properties {
            headers: Some(headers.clone()),
            delivery_mode: Some(2),
            ..Properties::default()
        };
        let content = Content {
            properties: &properties.encode(),
            body: &[7; 50],
        };
        encode::content(&mut out, channel, &content, 65_536);
        self.take(&out);
    }

    fn declares(&mut self, name: &str, flags: &str, arguments: &FieldTable) {
        let arguments = arguments.to_bytes();
        let has = |flag| flags.contains(flag);
        let declare = queue::Declare {
            queue: name,
            passive: false,
            durable: has('d'),
            exclusive: has('e'),
            auto_delete: has('a'),
            nowait: false,
            arguments: TableRef::unchecked(&arguments),
        };
        self.says(1, &declare);
    }

    fn deletes(&mut self, name: &str) {
        let delete = queue::Delete {
            queue: name,
            if_unused: false,
            if_empty: false,
            nowait: false,
        };
        self.says(1, &delete);
    }

    fn declares_exchange(&mut self, name: &str, kind: &str, flags: &str, arguments: &FieldTable) {
        let arguments = arguments.to_bytes();
        let declare = exchange::Declare {
            exchange: name,
            type_: kind,
            passive: false,
            durable: flags.contains('d'),
            auto_delete: flags.contains('a'),
            internal: false,
            nowait: false,
            arguments: TableRef::unchecked(&arguments),
        };
        self.says(1, &declare);
    }

    fn binds(&mut self, source: &str, destination: &str, key: &str, to_queue: bool) {
        let arguments = TableRef::unchecked(&[]);
        match to_queue {
            true => self.says(
                1,
                &queue::Bind {
                    queue: destination,
                    exchange: source,
                    routing_key: key,
                    nowait: false,
                    arguments,
                },
            ),
            false => self.says(
                1,
                &exchange::Bind {
                    destination,
                    source,
                    routing_key: key,
                    nowait: false,
                    arguments,
                },
            ),
        }
    }

    fn consumes(&mut self, channel: u16, queue: &str, tag: &str) {
        let consume = basic::Consume {
            queue,
            consumer_tag: tag,
            no_local: false,
            no_ack: true,
            exclusive: false,
            nowait: false,
            arguments: TableRef::unchecked(&[]),
        };
        self.says(channel, &consume);
    }

    fn ends(mut self) {
        let undelivered = std::mem::take(&mut *self.inbox.deliveries.lock().unwrap());
        self.machine.lost(undelivered, NOW);
    }
}

fn table<const M: usize>(fields: [(&str, FieldValue); M]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in fields {
        table.insert(name, value);
    }
    table
}

/// One of each kind, declared, used and deleted.
fn everything(broker: &Arc<Broker>, peer: &mut Peer, n: usize) {
    let header = table([("x-deduplication-header", FieldValue::from(n as i64))]);
    let queues = [
        ("", table([])),
        ("d", table([])),
        ("e", table([])),
        ("a", table([])),
        (
            "d",
            table([
                ("x-queue-type", "quorum".into()),
                ("x-delivery-limit", 20i64.into()),
            ]),
        ),
        (
            "",
            table([
                ("x-message-ttl", 60_000i64.into()),
                ("x-expires", 60_000i64.into()),
            ]),
        ),
        ("d", table([("x-message-deduplication", true.into())])),
        ("", table([("x-max-priority", 5i64.into())])),
    ];
    for (at, (flags, arguments)) in queues.iter().enumerate() {
        let name = format!("q-{n}-{at}");
        peer.declares(&name, flags, arguments);
        for source in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
            peer.binds(source, &name, &format!("{name}.*.#"), true);
        }
        // Published, got, and returned, so that something is known of it.
        peer.says(2, &channel::Open);
        peer.publishes(2, "", &name, &header);
        peer.says(
            2,
            &basic::Get {
                queue: &name,
                no_ack: false,
            },
        );
        let (multiple, requeue) = (false, true);
        peer.says(
            2,
            &basic::Nack {
                delivery_tag: 1,
                multiple,
                requeue,
            },
        );
        let (reply_code, reply_text, class_id, method_id) = (200, "", 0, 0);
        peer.says(
            2,
            &channel::Close {
                reply_code,
                reply_text,
                class_id,
                method_id,
            },
        );
        peer.says(
            1,
            &queue::Purge {
                queue: &name,
                nowait: false,
            },
        );
        peer.consumes(1, &name, "tag");
        match flags.contains('a') {
            true => peer.says(
                1,
                &basic::Cancel {
                    consumer_tag: "tag",
                    nowait: false,
                },
            ),
            false => peer.deletes(&name),
        }
    }
    let kinds = [
        "direct",
        "fanout",
        "topic",
        "headers",
        "x-consistent-hash",
        "x-modulus-hash",
        "x-random",
        "x-local-random",
        "x-recent-history",
        "x-delayed-message",
        "x-message-deduplication",
    ];
    for (at, kind) in kinds.into_iter().enumerate() {
        let (name, target) = (format!("x-{n}-{at}"), format!("t-{n}-{at}"));
        let delayed = table([
            ("x-delayed-type", "topic".into()),
            ("x-cache-size", 9i64.into()),
        ]);
        peer.declares_exchange(&name, kind, ["", "d"][n % 2], &delayed);
        peer.declares_exchange(&target, "fanout", ["d", ""][n % 2], &table([]));
        let key = if kind == "x-local-random" { "" } else { "1" };
        peer.binds(&name, &target, key, false);
        peer.binds("amq.topic", &name, "a.#.b", false);
        let mut headers = header.clone();
        headers.insert("x-delay", 60_000i64);
        peer.publishes(1, &name, "1", &headers);
        for gone in [&name, &target] {
            let delete = exchange::Delete {
                exchange: gone,
                if_unused: false,
                nowait: false,
            };
            peer.says(1, &delete);
        }
    }
    // A connection that goes with all it has.
    let mut other = Peer::new(broker);
    other.consumes(1, "amq.rabbitmq.reply-to", "replies");
    other.declares("", "e", &table([]));
    other.binds("amq.fanout", "", "", true);
    other.declares_exchange(&format!("auto-{n}"), "direct", "a", &table([]));
    other.binds(&format!("auto-{n}"), "", "", true);
    other.consumes(1, "", "mine");
    other.publishes(1, "amq.fanout", "", &header);
    other.ends();
}

#[test]
fn what_is_deleted_leaves_nothing() {
    let broker = session::broker_on(Arc::new(Forgetful::default()));
    // What is counted, by names where there are some.
    let census = || {
        let vhost = broker.vhost("/").unwrap();
        let mut exchanges = vhost.exchanges();
        exchanges.sort_by_key(|x| x.info.name.clone());
        let routers = exchanges.iter().map(|x| {
            let bindings = x.router().iter().count();
            format!("{} {bindings} {:?}", x.info.name, x.router())
        });
        let accounts = [broker.user_account("guest"), broker.vhost_account("/")];
        let mut all: Vec<String> = routers.collect();
        all.push(format!("{accounts:?} {:?}", broker.node_account()));
        all.push(format!(
            "{:?} {}",
            broker.replies(),
            broker.all_queues().len()
        ));
        all.extend(Use::ALL.map(|of| format!("{of:?} {}", broker.memory().used(of))));
        all
    };
    let round = |from: usize, n: usize| {
        let mut peer = Peer::new(&broker);
        (from..from + n).for_each(|n| everything(&broker, &mut peer, n));
        peer.ends();
    };
    // Tables have their size after the first ones, and tries the nodes that are used again.
    round(0, 100);
    let before = census();
    let counted = allocation_counter::measure(|| round(1000, N));
    assert_eq!(census(), before);
    // Nothing that there is one of for each of them.
    let left = (counted.count_current, counted.bytes_current);
    assert!(
        left.0 < N as i64 / 10 && left.1 < 64 * N as i64 / 10,
        "{left:?}"
    );
}
