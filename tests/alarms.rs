//! Memory and disk alarms: publishers wait and are told, consumers drain.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::FrameKind;
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::{EncodeMethod, Method};
use support::{Apart, Broker, Client};

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// The metrics of the alarms, memory and disk.
fn alarms(broker: &Broker) -> [f64; 2] {
    let page = support::scrape(broker.listens("prometheus"));
    [
        "rabbitmq_alarms_memory_used_watermark",
        "rabbitmq_alarms_free_disk_space_watermark",
    ]
    .map(|name| support::metric(&page, name))
}

fn blocked(c: &mut Client) -> String {
    let f = c.expect(connection::Blocked::ID).unwrap();
    let Method::ConnectionBlocked(blocked) = f.method() else {
        unreachable!()
    };
    blocked.reason.to_owned()
}

fn confirmed(c: &mut Client, tag: u64) {
    let f = c.expect(basic::Ack::ID).unwrap();
    assert!(matches!(f.method(), Method::BasicAck(ack) if ack.delivery_tag == tag));
}

/// Bytes on a disk above the limit of the alarm.
const MARGIN: u64 = 48 << 20;

/// A disk of our own, where nobody else writes: a file system in memory on this folder.
const DISK: &str = "/mnt";

#[test]
fn a_full_disk_holds_publishers_until_there_is_room() {
    let test = "a_full_disk_holds_publishers_until_there_is_room";
    let setup = format!("mount -t tmpfs -o size=128m leveret {DISK}");
    let dir = match support::apart(test, "--mount", &setup) {
        Apart::Inside => tempfile::tempdir_in(DISK).unwrap(),
        Apart::Done => return,
        Apart::Impossible => {
            support::tell(&format!(
                "{test}: on the disk of everybody, as this machine lets nobody mount another: who writes \
                 there meanwhile may make it fail"
            ));
            tempfile::tempdir().unwrap()
        }
    };
    let free = free_bytes(dir.path());
    assert!(free > 2 * MARGIN, "{free} bytes free");
    let limit = (free - MARGIN).to_string();
    let settings = [
        ("LEVERET_DISK_FREE_LIMIT_BYTES", limit.as_str()),
        ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB"),
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
    ];
    let broker = Broker::start_with(&dir.path().join("data"), &[], &settings);
    let alarms = || alarms(&broker);
    assert_eq!(alarms(), [0.0, 0.0]);
    let mut publisher = Client::raw(broker.address).unwrap();
    publisher.login_with(131_072, 1).unwrap();
    publisher.send(1, &channel::Open).unwrap();
    publisher.expect(channel::OpenOk::ID).unwrap();
    publisher.declare("q", true, &FieldTable::new()).unwrap();
    publisher.confirm_select().unwrap();
    for tag in 1..=10 {
        publisher.publish("q", b"before").unwrap();
        confirmed(&mut publisher, tag);
    }
    let mut consumer = Client::connect(broker.address).unwrap();

    let ballast = dir.path().join("ballast");
    let file = std::fs::File::create(&ballast).unwrap();
    let none = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, none, 0, MARGIN + MARGIN / 2).unwrap();
    assert_eq!(blocked(&mut publisher), "low on disk");
    assert_eq!(alarms(), [0.0, 1.0]);
    let line = broker.said.wait_for("resource alarm: low on disk");
    assert!(line.contains("disk_free="), "{line}");
    publisher.publish("q", b"during").unwrap();
    // It is not read: no confirm. Heartbeats go on in both directions: ours are sent, its own are not
    // missed, although it sends none for more than two intervals.
    for _ in 0..7 {
        assert_eq!(publisher.any().unwrap().kind, FrameKind::Heartbeat);
    }
    // Who only consumes is not concerned.
    consumer.consume("q", false).unwrap();
    for _ in 0..10 {
        let m = consumer.delivery().unwrap();
        assert_eq!(m.body, b"before");
        consumer.ack(m.tag, false).unwrap();
    }
    // A connection that publishes now is told at once.
    let mut second = Client::connect(broker.address).unwrap();
    second.publish("q", b"another").unwrap();
    assert_eq!(blocked(&mut second), "low on disk");

    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    publisher.expect(connection::Unblocked::ID).unwrap();
    assert_eq!(alarms(), [0.0, 0.0]);
    confirmed(&mut publisher, 11);
    second.expect(connection::Unblocked::ID).unwrap();
    let mut bodies = vec![
        consumer.delivery().unwrap().body,
        consumer.delivery().unwrap().body,
    ];
    bodies.sort();
    assert_eq!(bodies, [&b"another"[..], b"during"]);
}

#[test]
fn with_too_little_memory_a_backlog_can_still_be_consumed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    {
        let broker = Broker::start(&data, &[]);
        let mut c = Client::connect(broker.address).unwrap();
        c.declare("q", true, &FieldTable::new()).unwrap();
        c.confirm_select().unwrap();
        for tag in 1..=100 {
            c.publish("q", &[tag; 1000]).unwrap();
            confirmed(&mut c, tag.into());
        }
        assert!(broker.stop());
    }
    let settings = [
        ("LEVERET_MEMORY_HIGH_WATERMARK_BYTES", "1"),
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
    ];
    let broker = Broker::start_with(&data, &[], &settings);
    broker.said.wait_for("resource alarm: low on memory");
    assert_eq!(alarms(&broker), [1.0, 0.0]);
    let mut publisher = Client::connect(broker.address).unwrap();
    publisher.publish("q", b"first").unwrap();
    assert_eq!(blocked(&mut publisher), "low on memory");
    let mut consumer = Client::connect(broker.address).unwrap();
    consumer.qos(10).unwrap();
    consumer.consume("q", false).unwrap();
    for n in 1..=100 {
        let m = consumer.delivery().unwrap();
        assert_eq!(m.body, [n; 1000]);
        consumer.ack(m.tag, false).unwrap();
    }
}
