//! The session as a machine, where what matters is not what it says: what it holds, and what it leaves.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../benches/support/inbox.rs"]
mod inbox;
#[path = "../benches/support/session.rs"]
mod session;

use std::sync::Arc;

use bytes::BytesMut;
use leveret::amqp::connection::Connection;
use leveret::broker::Broker;
use leveret::protocol::frame::{FRAME_END, FrameKind, Parsed, parse};
use leveret::protocol::methods::{Method, basic, channel, queue};
use leveret::protocol::{EncodeMethod, encode};

use self::inbox::Inbox;

const NOW: u64 = 1_700_000_000_000;

/// Octets of a body in the largest frame that the handshake negotiates.
const PART: usize = 65_536 - 8;

/// A connection with channel 1 open, and what is said on it.
struct Peer {
    machine: Connection,
    inbox: Arc<Inbox>,
    input: BytesMut,
}

impl Peer {
    fn new(broker: &Arc<Broker>) -> Peer {
        let inbox = Inbox::new(1000, 1 << 24);
        let mut peer = Peer {
            machine: session::connection(broker, &inbox, NOW),
            inbox,
            input: BytesMut::new(),
        };
        peer.input.extend_from_slice(session::HANDSHAKE);
        peer.turn();
        peer
    }

    fn method<M: EncodeMethod>(&mut self, channel: u16, method: &M) -> &mut Peer {
        encode::method(&mut self.input, channel, method);
        self
    }

    fn frame(&mut self, kind: FrameKind, channel: u16, payload: &[u8]) -> &mut Peer {
        self.input.extend_from_slice(&[kind.octet()]);
        self.input.extend_from_slice(&channel.to_be_bytes());
        self.input
            .extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.input.extend_from_slice(payload);
        self.input.extend_from_slice(&[FRAME_END]);
        self
    }

    /// A publish up to its content header.
    fn begin(&mut self, channel: u16, key: &str, properties: &[u8], body_size: u64) -> &mut Peer {
        let publish = basic::Publish {
            exchange: "".into(),
            routing_key: key.into(),
            mandatory: false,
            immediate: false,
        };
        let mut header = [0, 60, 0, 0].to_vec();
        header.extend(body_size.to_be_bytes());
        header.extend(properties);
        self.method(channel, &publish)
            .frame(FrameKind::Header, channel, &header)
    }

    fn declare(&mut self, name: &str) -> &mut Peer {
        let declare = queue::Declare {
            queue: name,
            ..Default::default()
        };
        self.method(1, &declare)
    }

    /// Does what there is to do; returns how many octets of the input were not used.
    fn turn(&mut self) -> usize {
        let received = self.machine.receive(&self.input, NOW);
        bytes::Buf::advance(&mut self.input, received.consumed);
        let mut deliveries = std::mem::take(&mut *self.inbox.deliveries.lock().unwrap());
        self.machine.deliver(&mut deliveries, NOW);
        self.input.len()
    }

    /// What was said since the last call: the ids of methods, and bodies.
    fn said(&mut self) -> Vec<String> {
        let all = self.machine.output.to_vec();
        self.machine.output.clear();
        let (mut rest, mut said) = (&all[..], Vec::new());
        while let Ok(Parsed::Frame { frame, size }) = parse(rest, 0) {
            rest = &rest[size..];
            match frame.kind {
                FrameKind::Method => said.push(match Method::decode(frame.payload).unwrap() {
                    Method::ConnectionClose(c) => {
                        format!("close {} {}", c.reply_code, c.reply_text)
                    }
                    other => format!("{:?}", other.id()),
                }),
                FrameKind::Body => said.push(String::from_utf8_lossy(frame.payload).into_owned()),
                _ => {}
            }
        }
        said
    }
}

/// Properties with one header of so many octets.
fn properties(octets: usize) -> Vec<u8> {
    let mut out = [0x20, 0].to_vec();
    out.extend((octets as u32 + 7).to_be_bytes());
    out.extend(b"\x01hS");
    out.extend((octets as u32).to_be_bytes());
    out.extend(vec![b'h'; octets]);
    out
}

#[test]
fn empty_frames_are_no_part_of_a_body_and_take_nothing() {
    let broker = session::broker();
    let mut peer = Peer::new(&broker);
    peer.declare("e").begin(1, "e", &[0, 0], 5);
    for part in ["", "hel", "", "lo"] {
        peer.frame(FrameKind::Body, 1, part.as_bytes());
    }
    let get = basic::Get {
        queue: "e",
        no_ack: true,
    };
    peer.method(1, &get).turn();
    assert_eq!(peer.said().last().unwrap(), "hello");

    let mut peer = Peer::new(&broker);
    peer.begin(1, "e", &properties(60_000), 16 << 20);
    for _ in 0..3000 {
        peer.frame(FrameKind::Body, 1, &[]);
    }
    let sent = peer.input.len() as u64;
    let held = allocation_counter::measure(|| {
        peer.turn();
    });
    assert!(held.bytes_max < 2 * sent, "{} for {sent}", held.bytes_max);
}

#[test]
fn an_alarm_stops_a_body_that_has_begun() {
    let broker = session::broker();
    let mut peer = Peer::new(&broker);
    peer.declare("e").begin(1, "e", &[0, 0], 1 << 20);
    peer.frame(FrameKind::Body, 1, &[1; PART]).turn();
    assert!(peer.machine.wants_input());
    peer.machine.set_alarm(Some("low on memory"));
    assert!(!peer.machine.wants_input(), "it publishes");
    let left = peer.frame(FrameKind::Body, 1, &[1; PART]).turn();
    assert_eq!(left, PART + 8, "nor is what was read before");
    peer.machine.set_alarm(None);
    assert!(peer.machine.wants_input() && peer.turn() == 0);

    // The first one that begins under an alarm is stopped by its header.
    let mut peer = Peer::new(&broker);
    peer.machine.set_alarm(Some("low on memory"));
    assert!(peer.declare("f").turn() == 0 && peer.machine.wants_input());
    peer.begin(1, "f", &[0, 0], 1 << 20);
    let left = peer.frame(FrameKind::Body, 1, &[1; PART]).turn();
    assert_eq!((left, peer.machine.wants_input()), (PART + 8, false));
}

#[test]
fn what_is_begun_and_not_complete_has_a_limit() {
    let broker = session::broker();
    let mut peer = Peer::new(&broker);
    for number in 2..=64 {
        peer.method(number, &channel::Open);
    }
    for number in 1..=64 {
        peer.begin(number, "e", &properties(30_000), 16 << 20);
    }
    assert_eq!(peer.turn(), 0);
    assert!(peer.said().iter().all(|s| !s.starts_with("close")));
    let mut sent = 0;
    let told = loop {
        for number in 1..=64 {
            peer.frame(FrameKind::Body, number, &[1; PART]);
            sent += PART;
        }
        peer.turn();
        if let Some(told) = peer.said().pop() {
            break told;
        }
    };
    let wanted =
        "close 506 RESOURCE_ERROR - messages that are not complete take more than 268435456 bytes";
    assert_eq!(told, wanted);
    assert!(sent > 128 << 20 && sent < 280 << 20, "{sent}");
}
