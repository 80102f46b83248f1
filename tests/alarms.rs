//! Memory and disk alarms: publishers wait and are told, consumers drain.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::FrameKind;
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client};

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
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

#[test]
fn a_full_disk_holds_publishers_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    // Other tests write meanwhile: what takes the room away is much larger than what they use.
    const MARGIN: u64 = 2 << 30;
    let limit = (free_bytes(dir.path()) - MARGIN).to_string();
    let settings = [("LEVERET_DISK_FREE_LIMIT_BYTES", limit.as_str())];
    let broker = Broker::start(&dir.path().join("data"), &settings);
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
    rustix::fs::fallocate(&file, none, 0, 2 * MARGIN).unwrap();
    assert_eq!(blocked(&mut publisher), "low on disk");
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
    let settings = [("LEVERET_MEMORY_HIGH_WATERMARK_BYTES", "1")];
    let broker = Broker::start(&data, &settings);
    broker.said.wait_for("resource alarm: low on memory");
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
