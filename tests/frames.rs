//! What is not AMQP, or not in order, costs the connection it came from and nobody else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use leveret::protocol::encode;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::FRAME_END;
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client, PATIENCE};

/// A frame of raw bytes.
fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
    out
}

/// The close that the broker answers with: code and text.
fn closed(c: &mut Client) -> (u16, String) {
    let f = c.expect(connection::Close::ID).unwrap();
    let Method::ConnectionClose(close) = f.method() else {
        unreachable!()
    };
    let told = (close.reply_code, close.reply_text.to_owned());
    c.send(0, &connection::CloseOk).unwrap();
    ended(c);
    told
}

/// The broker hangs up.
fn ended(c: &mut Client) {
    let mut rest = [0; 4096];
    let deadline = Instant::now() + PATIENCE;
    loop {
        match c.socket.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => assert!(Instant::now() < deadline, "still talking"),
            Err(e) => {
                assert_ne!(
                    e.kind(),
                    ErrorKind::WouldBlock,
                    "the broker does not hang up"
                );
                return;
            }
        }
    }
}

/// A connection that has nothing to do with it goes on.
fn works(c: &mut Client) {
    c.publish("witness", b"still here").unwrap();
    assert_eq!(c.delivery().unwrap().body, b"still here");
}

fn publish(exchange: &str) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: "witness".into(),
        mandatory: false,
        immediate: false,
    };
    encode::method(&mut out, 1, &publish);
    out.to_vec()
}

/// A content header frame for a body of this size.
fn header(class: u16, body_size: u64) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend([0, 0]);
    payload.extend(body_size.to_be_bytes());
    payload.extend(Properties::default().encode());
    frame(2, 1, &payload)
}

#[test]
fn frames_that_are_wrong_cost_their_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut witness = Client::connect(broker.address).unwrap();
    witness
        .declare("witness", false, &FieldTable::new())
        .unwrap();
    witness.consume("witness", true).unwrap();

    let bad_end = {
        let mut bytes = frame(1, 1, &[0, 60, 0, 40]);
        *bytes.last_mut().unwrap() = 0;
        bytes
    };
    let truncated_arguments = frame(1, 1, &[0, 50, 0, 10, 0, 0, 200]);
    // queue.declare "q" with a table that says it has 100 octets and has 2.
    let bad_table = frame(
        1,
        1,
        &[0, 50, 0, 10, 0, 0, 1, b'q', 0, 0, 0, 0, 100, 1, b'x'],
    );
    // The same with a field of a type that does not exist.
    let bad_type = frame(
        1,
        1,
        &[0, 50, 0, 10, 0, 0, 1, b'q', 0, 0, 0, 0, 3, 1, b'x', b'?'],
    );
    let with_header = |header: Vec<u8>, more: Vec<u8>| [publish(""), header, more].concat();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("end marker", bad_end, 501, "invalid_frame_end_marker"),
        (
            "unknown frame type",
            frame(7, 1, &[1, 2, 3]),
            501,
            "unknown_frame",
        ),
        (
            "arguments cut off",
            truncated_arguments,
            501,
            "cannot decode <<0,0,200>>",
        ),
        (
            "table cut off",
            bad_table,
            501,
            "cannot decode <<0,0,1,113,",
        ),
        ("field type", bad_type, 501, ""),
        (
            "unknown class",
            frame(1, 1, &[0, 99, 0, 1]),
            503,
            "unimplemented method",
        ),
        (
            "unknown method",
            frame(1, 1, &[0, 60, 0, 99]),
            503,
            "unimplemented method",
        ),
        (
            "body without a method",
            frame(3, 1, b"body"),
            505,
            "expected method frame, got non method frame instead",
        ),
        (
            "header of another class",
            with_header(header(90, 4), Vec::new()),
            505,
            "expected content header for class 60, got one for class 90 instead",
        ),
        (
            "body instead of a header",
            [publish(""), frame(3, 1, b"body")].concat(),
            505,
            "expected content header for class 60, got non content header frame instead",
        ),
        (
            "method instead of a header",
            [publish(""), publish("")].concat(),
            505,
            "expected content header for class 60, got non content header frame instead",
        ),
        (
            "method instead of a body",
            with_header(header(60, 4), publish("")),
            505,
            "expected content body, got non content body frame instead",
        ),
        (
            "more body than announced",
            with_header(header(60, 4), frame(3, 1, b"too much")),
            501,
            "content body frame exceeds remaining content size",
        ),
        (
            "a body beyond every limit",
            with_header(header(60, 1 << 40), Vec::new()),
            501,
            "content body size 1099511627776 exceeds maximum allowed size 536870912",
        ),
        (
            "a method on a channel that is not open",
            frame(1, 9, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 1, 0]),
            504,
            "expected 'channel.open'",
        ),
        (
            "content on channel 0",
            frame(3, 0, b"body"),
            505,
            "type 3, all octets = <<\"body\">>",
        ),
        ("a heartbeat on a channel", frame(8, 1, &[]), 505, ""),
        (
            "a channel method on channel 0",
            frame(1, 0, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 1, 0]),
            504,
            "unexpected method in connection state running",
        ),
        (
            "a heartbeat with a payload",
            frame(8, 0, b"x"),
            501,
            "type 8, all octets = <<\"x\">>: unknown_frame",
        ),
        (
            "larger than frame_max",
            frame(3, 1, &vec![0; 131_073]),
            501,
            "frame_too_large",
        ),
    ];
    for (what, bytes, code, text) in cases {
        let mut c = Client::connect(broker.address).unwrap();
        c.socket.write_all(&bytes).unwrap();
        let told = closed(&mut c);
        assert_eq!(told.0, code, "{what}: {}", told.1);
        assert!(told.1.contains(text), "{what}: {}", told.1);
        works(&mut witness);
    }
    assert!(broker.stop(), "it stops as if nothing had happened");
}

#[test]
fn what_is_no_amqp_is_told_the_version_and_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let hellos: [&[u8]; 5] = [
        b"AMQP\x00\x00\x08\x00",
        b"AMQP\x03\x01\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        // A TLS client hello on the plain port.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0",
    ];
    for hello in hellos {
        let mut c = Client::raw(broker.address).unwrap();
        c.socket.write_all(hello).unwrap();
        let mut answer = [0; 8];
        c.socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"AMQP\x00\x00\x09\x01", "{hello:?}");
        ended(&mut c);
    }
    // The header of 0-9 clients is as good.
    let mut c = Client::raw(broker.address).unwrap();
    c.socket.write_all(b"AMQP\x01\x01\x00\x09").unwrap();
    c.expect(connection::Start::ID).unwrap();
}

#[test]
fn before_the_login_only_small_frames_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = Client::raw(broker.address).unwrap();
    c.socket
        .write_all(&leveret::protocol::frame::PROTOCOL_HEADER)
        .unwrap();
    c.expect(connection::Start::ID).unwrap();
    // Only the head of a frame of 100 MiB: it is refused before anything of it arrives.
    let mut head = vec![1, 0, 0];
    head.extend((100u32 << 20).to_be_bytes());
    c.socket.write_all(&head).unwrap();
    let f = c.expect(connection::Close::ID).unwrap();
    let Method::ConnectionClose(close) = f.method() else {
        unreachable!()
    };
    assert_eq!(close.reply_code, 501, "{}", close.reply_text);

    // And a channel cannot be used before the connection is open.
    let mut c = Client::raw(broker.address).unwrap();
    c.socket
        .write_all(&leveret::protocol::frame::PROTOCOL_HEADER)
        .unwrap();
    c.expect(connection::Start::ID).unwrap();
    c.socket.write_all(&publish("")).unwrap();
    ended(&mut c);
}

#[test]
fn a_frame_larger_than_the_smallest_limit_is_refused_where_that_was_negotiated() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = Client::raw(broker.address).unwrap();
    c.login(4096).unwrap();
    c.send(1, &channel::Open).unwrap();
    c.expect(channel::OpenOk::ID).unwrap();
    let bytes = [publish(""), header(60, 5000), frame(3, 1, &[0; 4097])].concat();
    c.socket.write_all(&bytes).unwrap();
    let (code, text) = closed(&mut c);
    assert_eq!(code, 501, "{text}");
    assert!(text.contains("frame_too_large"), "{text}");
}
