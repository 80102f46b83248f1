//! What peers begin and do not finish, by the hundred: it is waited for or refused, and memory stays bounded.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use leveret::protocol::encode;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::{FRAME_END, FrameKind};
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client, PATIENCE};

const MIB: u64 = 1 << 20;

/// A broker, and what it took before anything happened.
struct Flooded {
    broker: Broker,
    before: u64,
    _dir: tempfile::TempDir,
}

impl Flooded {
    fn start(more: &[(&str, &str)]) -> Flooded {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(&dir.path().join("data"), more);
        let mut c = Client::connect(broker.address).unwrap();
        c.declare("q", false, &FieldTable::new()).unwrap();
        let before = broker.resident();
        Flooded {
            broker,
            before,
            _dir: dir,
        }
    }

    /// It serves, and takes no more than this above what it did.
    fn takes_at_most(&self, mib: u64) {
        let mut c = Client::connect(self.broker.address).unwrap();
        c.publish("q", b"x").unwrap();
        assert!(c.get("q", true).unwrap().is_some());
        let takes = self.broker.resident().saturating_sub(self.before) / MIB;
        assert!(takes <= mib, "{takes} MiB");
    }
}

fn frame(out: &mut BytesMut, kind: FrameKind, channel: u16, payload: &[u8]) {
    out.put_u8(kind.octet());
    out.put_u16(channel);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    out.put_u8(FRAME_END);
}

/// A publish up to its content header, with these properties.
fn begin(out: &mut BytesMut, number: u16, properties: &[u8], body_size: u64) {
    let publish = basic::Publish {
        exchange: "".into(),
        routing_key: "q".into(),
        mandatory: false,
        immediate: false,
    };
    encode::method(out, number, &publish);
    let mut header = vec![0, 60, 0, 0];
    header.extend(body_size.to_be_bytes());
    header.extend(properties);
    frame(out, FrameKind::Header, number, &header);
}

/// Properties with so many headers that are nothing but names.
fn headers(n: u32) -> Vec<u8> {
    let mut table = Vec::new();
    for i in 0..n {
        table.extend([4, b'a' + (i % 26) as u8]);
        table.extend(format!("{:03x}", i & 0xfff).as_bytes());
        table.push(b'V');
    }
    let mut out = vec![0x20, 0];
    out.extend((table.len() as u32).to_be_bytes());
    out.extend(table);
    out
}

/// Opens channels up to this one.
fn open(c: &mut Client, to: u16) {
    for number in 2..=to {
        encode::method(&mut c.out, number, &channel::Open);
    }
    c.flush().unwrap();
    for _ in 2..=to {
        c.expect(channel::OpenOk::ID).unwrap();
    }
}

/// Asks for an answer on channel 1, behind everything that was sent.
fn is_served(c: &mut Client) {
    c.send(1, &basic::Qos::default()).unwrap();
    c.expect(basic::QosOk::ID).unwrap();
}

#[test]
fn half_a_message_on_every_channel() {
    let flooded = Flooded::start(&[]);
    let mut c = Client::connect(flooded.broker.address).unwrap();
    open(&mut c, 2047);
    // Large ones are announced: 16 MiB on each channel.
    for number in 2..=2047 {
        begin(&mut c.out, number, &[0, 0], 16 * MIB);
        frame(&mut c.out, FrameKind::Body, number, &[1; 1000]);
    }
    c.flush().unwrap();
    is_served(&mut c);
    flooded.takes_at_most(64);
    // And as much of them as the limit takes, and no more.
    let refused = (0..20).find_map(|_| {
        for number in 2..=2047 {
            frame(&mut c.out, FrameKind::Body, number, &[1; 16_000]);
            if c.socket.write_all(&c.out.split()).is_err() {
                break;
            }
        }
        c.send(1, &basic::Qos::default()).ok();
        let answer = c.next().ok()?;
        match answer.method() {
            Method::BasicQosOk(_) => None,
            Method::ConnectionClose(close) => Some(close.reply_code),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(refused, Some(506));
    drop(c);
    flooded.takes_at_most(320);
}

#[test]
fn half_a_frame_from_hundreds() {
    let flooded = Flooded::start(&[]);
    let mut all = Vec::new();
    for _ in 0..500 {
        let mut c = Client::connect(flooded.broker.address).unwrap();
        begin(&mut c.out, 1, &[0, 0], 16 * MIB);
        c.out.put_u8(FrameKind::Body.octet());
        c.out.put_u16(1);
        c.out.put_u32(131_064);
        c.flush().unwrap();
        all.push(c);
    }
    // What is announced takes nothing.
    flooded.takes_at_most(40);
    let part = vec![1; 131_064];
    for c in &mut all {
        c.socket.write_all(&part).unwrap();
    }
    // 62 MiB have come; a buffer may be twice what is in it.
    flooded.takes_at_most(62 * 2 + 40);
    for c in &mut all {
        c.socket.write_all(&[FRAME_END]).unwrap();
    }
    for c in &mut all {
        begin(&mut c.out, 9, &[0, 0], 0);
        c.flush().unwrap();
        c.expect(connection::Close::ID).unwrap();
    }
    drop(all);
}

#[test]
fn half_a_frame_that_nothing_limits_but_its_name() {
    let flooded = Flooded::start(&[
        ("LEVERET_PROTOCOL_FRAME_MAX", "0"),
        ("LEVERET_LIMITS_UNFINISHED_BYTES", "32MiB"),
    ]);
    let mut c = Client::raw(flooded.broker.address).unwrap();
    c.login(0).unwrap();
    c.send(1, &channel::Open).unwrap();
    c.expect(channel::OpenOk::ID).unwrap();
    begin(&mut c.out, 1, &[0, 0], 16 * MIB);
    c.out.put_u8(FrameKind::Body.octet());
    c.out.put_u16(1);
    c.out.put_u32(400 << 20);
    c.flush().unwrap();
    let close = c.expect(connection::Close::ID).unwrap();
    assert!(matches!(close.method(), Method::ConnectionClose(c) if c.reply_code == 506));
    // Nor is more kept of what it sends now.
    let part = vec![1; 1 << 20];
    for _ in 0..200 {
        c.socket.write_all(&part).unwrap();
    }
    flooded.takes_at_most(2 * 32 + 40);
}

#[test]
fn headers_without_end() {
    let flooded = Flooded::start(&[]);
    let mut c = Client::connect(flooded.broker.address).unwrap();
    open(&mut c, 100);
    let bomb = headers(18_000);
    assert!(bomb.len() < 131_000);
    for number in 2..=100 {
        begin(&mut c.out, number, &bomb, 1);
    }
    c.flush().unwrap();
    is_served(&mut c);
    // 12 MiB are what they are.
    flooded.takes_at_most(13 + 40);
    // Complete, they wait in the queue, within its budget.
    for number in 2..=100 {
        frame(&mut c.out, FrameKind::Body, number, b"x");
    }
    c.flush().unwrap();
    is_served(&mut c);
    flooded.takes_at_most(2 * 13 + 40);
}

#[test]
fn empty_frames_without_end() {
    let flooded = Flooded::start(&[]);
    let mut c = Client::connect(flooded.broker.address).unwrap();
    let began = Instant::now();
    begin(&mut c.out, 1, &headers(100), 16 * MIB);
    for _ in 0..3000 {
        frame(&mut c.out, FrameKind::Body, 1, &[]);
    }
    let many = c.out.split();
    c.socket.write_all(&many).unwrap();
    let empty = &many[many.len() - 8 * 3000..];
    for _ in 0..100 {
        c.socket.write_all(empty).unwrap();
    }
    // The next message's method is not expected here: all before it has been looked at.
    c.send(1, &basic::Qos::default()).unwrap();
    c.expect(connection::Close::ID).unwrap();
    assert!(began.elapsed() < PATIENCE);
    flooded.takes_at_most(32);
}
