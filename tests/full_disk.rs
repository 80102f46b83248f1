//! A disk that is really full: publishers are held back, everybody else goes on and makes room.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::{basic, queue};
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client, PATIENCE, goes_on_apart};

/// Where the disk is mounted.
const DISK: &str = "/mnt";

/// Octets of a body.
const BODY: usize = 20_000;

/// Publishes numbers, from one, until its socket is shut down.
struct Publisher {
    socket: TcpStream,
    confirmed: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Publisher {
    fn start(broker: &Broker, queue: &'static str) -> Publisher {
        let mut reader = Client::connect(broker.address).unwrap();
        reader.confirm_select().unwrap();
        reader.socket.set_read_timeout(None).unwrap();
        let socket = reader.socket.try_clone().unwrap();
        let mut writer = Client::over(socket.try_clone().unwrap()).unwrap();
        writer.socket.set_read_timeout(None).unwrap();
        let confirmed = Arc::new(AtomicU64::new(0));
        let told = confirmed.clone();
        let writes = std::thread::spawn(move || {
            let mut body = vec![0; BODY];
            for number in 1u64.. {
                body[..8].copy_from_slice(&number.to_be_bytes());
                if writer.publish(queue, &body).is_err() {
                    return;
                }
            }
        });
        let reads = std::thread::spawn(move || {
            while let Ok(frame) = reader.next() {
                match frame.method() {
                    Method::BasicAck(ack) => told.store(ack.delivery_tag, Ordering::Relaxed),
                    Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
        let threads = vec![writes, reads];
        Publisher {
            socket,
            confirmed,
            threads,
        }
    }

    fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Waits until more than this are confirmed.
    fn confirms_more_than(&self, n: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.confirmed() <= n {
            assert!(Instant::now() < deadline, "no confirm behind {n}");
            std::thread::yield_now();
        }
    }

    fn end(self) -> u64 {
        let _ = self.socket.shutdown(Shutdown::Both);
        self.threads.into_iter().for_each(|t| t.join().unwrap());
        self.confirmed.load(Ordering::Relaxed)
    }
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().unwrap())
}

fn fill_and_drain(dir: &Path, reserve: &str) {
    let data = dir.join("data");
    let settings = [
        ("LEVERET_LISTENERS_PROMETHEUS", ""),
        ("LEVERET_DISK_FREE_LIMIT_BYTES", "1"),
        ("LEVERET_DISK_RESERVE_BYTES", reserve),
        ("LEVERET_STORAGE_SEGMENT_BYTES", "4MiB"),
        ("LEVERET_LIMITS_LOG_BACKLOG_BYTES", "2MiB"),
    ];
    let broker = Broker::start_with(&data, &[], &settings);
    let mut consumer = Client::connect(broker.address).unwrap();
    for name in ["q", "goes"] {
        consumer.declare(name, true, &FieldTable::new()).unwrap();
    }
    let mut arguments = FieldTable::new();
    arguments.insert("x-dead-letter-exchange", "");
    arguments.insert("x-dead-letter-routing-key", "dead");
    consumer.declare("dead", true, &FieldTable::new()).unwrap();
    consumer.declare("dies", true, &arguments).unwrap();
    let mut first = Client::connect(broker.address).unwrap();
    first.confirm_select().unwrap();
    for n in 0..50u8 {
        first.publish("dies", &[n; BODY]).unwrap();
        first.expect(basic::Ack::ID).unwrap();
    }
    drop(first);
    let publisher = Publisher::start(&broker, "q");
    broker.said.wait_for("no room on the disk");
    broker.said.wait_for("resource alarm: low on disk");
    let confirmed = publisher.confirmed();
    assert!(confirmed > 0);

    // Who comes now, and who asks, is answered.
    let mut other = Client::connect(broker.address).unwrap();
    let got = other.get("q", false).unwrap().unwrap();
    assert_eq!(number(&got.body), 1);
    let delete = queue::Delete {
        queue: "goes",
        ..Default::default()
    };
    other.send(1, &delete).unwrap();
    other.expect(queue::DeleteOk::ID).unwrap();
    for _ in 0..50 {
        let got = other.get("dies", false).unwrap().unwrap();
        let nack = basic::Nack {
            delivery_tag: got.tag,
            multiple: false,
            requeue: false,
        };
        other.send(1, &nack).unwrap();
    }
    consumer.qos(100).unwrap();
    consumer.consume("q", false).unwrap();
    // What is acknowledged makes room by itself.
    let mut next = 2;
    while publisher.confirmed() <= confirmed + 500 {
        let m = consumer.delivery().unwrap();
        assert_eq!(number(&m.body), next);
        consumer.ack(m.tag, false).unwrap();
        next += 1;
    }
    drop(consumer);
    broker.kill();
    let confirmed = publisher.end();
    let broker = Broker::start_with(&data, &[], &settings);
    let mut c = Client::connect(broker.address).unwrap();
    assert_eq!(
        c.counts("dead").unwrap().0 + c.counts("dies").unwrap().0,
        50
    );
    c.qos(500).unwrap();
    c.consume("q", false).unwrap();
    // What was acknowledged may be there again, nothing that was confirmed is missing.
    let mut got = BTreeSet::new();
    while confirmed >= next && got.last().is_none_or(|last| *last < confirmed) {
        let m = c.delivery().unwrap();
        got.insert(number(&m.body));
        c.ack(m.tag, false).unwrap();
    }
    let missing: Vec<_> = (next..=confirmed).filter(|n| !got.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    drop(broker);
}

#[test]
fn a_disk_that_is_really_full_is_drained_by_its_consumers() {
    let test = "a_disk_that_is_really_full_is_drained_by_its_consumers";
    if goes_on_apart(
        test,
        "--mount",
        &format!("mount -t tmpfs -o size=64m leveret {DISK}"),
    ) {
        fill_and_drain(&tempfile::tempdir_in(DISK).unwrap().keep(), "24MiB");
    }
}

/// No `fallocate` there: a write meets the full disk.
#[test]
fn a_disk_that_cannot_reserve_room_serves() {
    let test = "a_disk_that_cannot_reserve_room_serves";
    let setup = format!(
        "image=$(mktemp) && truncate -s 64M $image && mkfs.ext2 -q -F $image && mount -o loop $image {DISK} && rm $image"
    );
    if !goes_on_apart(test, "--mount", &setup) {
        return;
    }
    let data = Path::new(DISK).join("data");
    let settings = [
        ("LEVERET_LISTENERS_PROMETHEUS", ""),
        ("LEVERET_DISK_FREE_LIMIT_BYTES", "20000000"),
        ("LEVERET_STORAGE_SEGMENT_BYTES", "4MiB"),
    ];
    let broker = Broker::start_with(&data, &[], &settings);
    broker.said.wait_for("cannot reserve room");
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    let publisher = Publisher::start(&broker, "q");
    publisher.confirms_more_than(1000);
    c.qos(100).unwrap();
    c.consume("q", false).unwrap();
    for n in 1..=2000 {
        let m = c.delivery().unwrap();
        assert_eq!(number(&m.body), n);
        c.ack(m.tag, false).unwrap();
    }
    publisher.confirms_more_than(2000);
    broker.kill();
    let confirmed = publisher.end();
    let broker = Broker::start_with(&data, &[], &settings);
    let mut c = Client::connect(broker.address).unwrap();
    c.qos(100).unwrap();
    c.consume("q", false).unwrap();
    let mut last = 0;
    while last < confirmed {
        let m = c.delivery().unwrap();
        assert!(last == 0 || number(&m.body) == last + 1);
        last = number(&m.body);
        c.ack(m.tag, false).unwrap();
    }
    drop(broker);
}
