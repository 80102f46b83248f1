//! The session as a machine, where what matters is not what it says: what it holds, and what it leaves.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../benches/support/inbox.rs"]
mod inbox;
#[path = "../benches/support/session.rs"]
mod session;

use std::sync::Arc;

use bytes::BytesMut;
use leveret::amqp::connection::Connection;
use leveret::amqp::settings::SessionSettings;
use leveret::broker::Broker;
use leveret::broker::batch::Batch;
use leveret::broker::memory::Use;
use leveret::broker::ports::MessageLog;
use leveret::broker::queue::outlet::{ConsumerKey, Notice};
use leveret::protocol::frame::{FRAME_END, FrameKind, Parsed, parse};
use leveret::protocol::methods::{Method, basic, channel, confirm, connection, queue, tx};
use leveret::protocol::{EncodeMethod, encode};
use leveret::storage::memory::MemoryLog;

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
        Peer::with(broker, SessionSettings::default())
    }

    fn with(broker: &Arc<Broker>, settings: SessionSettings) -> Peer {
        let inbox = Inbox::new(1000, 1 << 24);
        let mut peer = Peer {
            machine: session::connection(broker, &inbox, settings, NOW),
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
        self.begin_as(channel, (key, false), properties, body_size)
    }

    fn begin_as(
        &mut self,
        channel: u16,
        (key, mandatory): (&str, bool),
        properties: &[u8],
        body_size: u64,
    ) -> &mut Peer {
        let publish = basic::Publish {
            exchange: "".into(),
            routing_key: key.into(),
            mandatory,
            immediate: false,
        };
        let mut header = [0, 60, 0, 0].to_vec();
        header.extend(body_size.to_be_bytes());
        header.extend(properties);
        self.method(channel, &publish)
            .frame(FrameKind::Header, channel, &header)
    }

    /// A publish on channel 1 with a body.
    fn publish(&mut self, key: &str, mandatory: bool, properties: &[u8]) -> &mut Peer {
        self.begin_as(1, (key, mandatory), properties, 4);
        self.frame(FrameKind::Body, 1, b"body")
    }

    fn consume(&mut self, channel: u16, queue: &str, no_ack: bool) -> &mut Peer {
        let consume = basic::Consume {
            queue,
            no_ack,
            ..Default::default()
        };
        self.method(channel, &consume)
    }

    fn ack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) -> &mut Peer {
        let ack = basic::Ack {
            delivery_tag,
            multiple,
        };
        self.method(channel, &ack)
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
        loop {
            let received = self.machine.receive(&self.input, NOW);
            bytes::Buf::advance(&mut self.input, received.consumed);
            if !received.more {
                break;
            }
        }
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
                    Method::ChannelClose(c) => format!("channel close {}", c.reply_code),
                    Method::ChannelCloseOk(_) => "close-ok".into(),
                    Method::BasicReturn(_) => "return".into(),
                    Method::BasicAck(a) if a.multiple => format!("ack {} multiple", a.delivery_tag),
                    Method::BasicAck(a) => format!("ack {}", a.delivery_tag),
                    Method::TxCommitOk(_) => "commit-ok".into(),
                    Method::QueuePurgeOk(_) => "purge-ok".into(),
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

/// Whether a publish is going on or not, as from RabbitMQ.
#[test]
fn a_header_that_is_too_short_is_no_frame() {
    for publishes in [false, true] {
        let broker = session::broker();
        let mut peer = Peer::new(&broker);
        if publishes {
            peer.method(1, &basic::Publish::default());
        }
        peer.frame(FrameKind::Header, 1, &[0, 60, 0, 0]).turn();
        let said = peer.said().pop().unwrap();
        assert!(said.starts_with("close 501") && said.ends_with("unknown_frame"));
    }
}

/// Who has not heard that its channel is closed goes on to publish there: that goes by.
#[test]
fn what_comes_on_a_closed_channel_takes_nothing() {
    let broker = session::broker();
    let passive = queue::Declare {
        queue: "none",
        passive: true,
        ..Default::default()
    };
    let mut peer = Peer::new(&broker);
    peer.method(1, &passive);
    peer.begin(1, "e", &properties(60_000), 16 << 20);
    let sent = peer.input.len() as u64;
    for _ in 0..200 {
        peer.frame(FrameKind::Body, 1, &[1; PART]);
    }
    let held = allocation_counter::measure(|| {
        peer.turn();
    });
    assert!(held.bytes_max < sent, "{}", held.bytes_max);
    assert_eq!(peer.said().last().unwrap(), "channel close 404");
    assert_eq!(peer.input.len(), 0);
    // Nor are its properties looked at: here is more announced than there is.
    let content_type = [0x80, 0, 200];
    let mut peer = Peer::new(&broker);
    peer.method(1, &passive)
        .begin(1, "e", &content_type, 0)
        .turn();
    assert_eq!(peer.said().last().unwrap(), "channel close 404");
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
    // By that of an empty one, too.
    let mut peer = Peer::new(&broker);
    peer.machine.set_alarm(Some("low on memory"));
    assert!(peer.begin(1, "f", &[0, 0], 0).turn() == 0 && !peer.machine.wants_input());
}

/// Who streams waits for consumers that are behind, unless it is a consumer itself.
#[test]
fn who_consumes_waits_for_no_consumers() {
    let broker = session::broker();
    let mut slow = Peer::new(&broker);
    let qos = basic::Qos {
        prefetch_size: 0,
        prefetch_count: 1,
        global: false,
    };
    slow.declare("b")
        .method(1, &qos)
        .consume(1, "b", false)
        .turn();
    let mut peer = Peer::new(&broker);
    for (consumes, waits) in [(false, true), (true, false)] {
        if consumes {
            peer.declare("mine").consume(1, "mine", true).turn();
        }
        for _ in 0..200 {
            peer.begin(1, "b", &[0, 0], 5000);
            peer.frame(FrameKind::Body, 1, &[1; 5000]);
        }
        peer.turn();
        let published = peer.machine.take_published().unwrap();
        assert_eq!(published.behind.is_some(), waits);
    }
}

/// As from RabbitMQ: a client has its heartbeat's time to answer `connection.close`, half a minute at most.
#[test]
fn close_ok_is_waited_for_as_long_as_a_heartbeat() {
    let broker = session::broker();
    for (heartbeat, waits) in [(10u16, 10_000), (60, 30_000), (0, 30_000)] {
        let inbox = Inbox::new(1000, 1 << 24);
        let mut peer = Peer {
            machine: session::connection(&broker, &inbox, SessionSettings::default(), NOW),
            inbox,
            input: BytesMut::new(),
        };
        let mut handshake = session::HANDSHAKE.to_vec();
        let tune_ok = handshake.windows(4).position(|w| w == [0, 0x0a, 0, 0x1f]);
        handshake[tune_ok.unwrap() + 10..][..2].copy_from_slice(&heartbeat.to_be_bytes());
        peer.input.extend_from_slice(&handshake);
        peer.turn();
        peer.ack(9, 1, false).turn();
        assert_eq!(
            peer.machine.next_deadline(),
            Some(NOW + waits),
            "{heartbeat}"
        );
    }
    // Less if the server itself ends.
    let mut peer = Peer::new(&broker);
    peer.machine.force_close("over", NOW);
    assert_eq!(peer.machine.next_deadline(), Some(NOW + 5_000));
}

#[test]
fn only_who_publishes_is_held_back_by_an_alarm_or_the_disk() {
    let broker = session::broker();
    let mut peer = Peer::new(&broker);
    let declare = queue::Declare {
        queue: "d",
        durable: true,
        ..Default::default()
    };
    peer.method(1, &declare).turn();
    let mut other = Peer::new(&broker);
    other
        .publish("d", false, PERSISTENT)
        .publish("d", false, PERSISTENT)
        .turn();
    assert!(other.machine.logs(), "what it publishes goes to the log");
    // One of each that a consumer says.
    peer.machine.set_alarm(Some("low on disk"));
    let get = basic::Get {
        queue: "d",
        no_ack: false,
    };
    peer.consume(1, "d", false).method(1, &get).turn();
    peer.turn();
    peer.ack(1, 1, true)
        .method(1, &basic::Recover { requeue: true })
        .turn();
    let delete = queue::Delete {
        queue: "d",
        ..Default::default()
    };
    peer.method(1, &delete).turn();
    assert_eq!(peer.machine.held(), None);
    assert!(!peer.machine.logs() && peer.machine.take_published().is_none());
    // Nor does what no disk sees wait for one.
    peer.declare("t")
        .publish("t", false, TRANSIENT)
        .publish("t", false, PERSISTENT);
    peer.machine.set_alarm(None);
    peer.turn();
    assert!(!peer.machine.logs() && peer.machine.take_published().is_some());
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

/// Without `frame_max`, a frame that is announced counts as what has begun, before any of it has come.
#[test]
fn a_frame_without_a_limit_has_that_of_what_is_not_complete() {
    const MAX: usize = 4 << 20;
    let broker = session::broker();
    let settings = SessionSettings {
        frame_max: 0,
        max_message_bytes: 1 << 20,
        unfinished_bytes: MAX as u64,
        ..SessionSettings::default()
    };
    let inbox = Inbox::new(1000, 1 << 24);
    let mut peer = Peer {
        machine: session::connection(&broker, &inbox, settings, NOW),
        inbox,
        input: BytesMut::new(),
    };
    let mut handshake = session::HANDSHAKE.to_vec();
    // Nor does the client want one.
    let tune_ok = handshake.windows(4).position(|w| w == [0, 0x0a, 0, 0x1f]);
    handshake[tune_ok.unwrap() + 6..][..4].fill(0);
    peer.input.extend_from_slice(&handshake);
    peer.turn();
    peer.said();
    peer.declare("e").begin(1, "e", &[0, 0], 1 << 20);
    peer.frame(FrameKind::Body, 1, &[1; 1 << 20]).turn();
    assert_eq!(
        broker
            .vhost("/")
            .unwrap()
            .queue("e")
            .unwrap()
            .counts()
            .ready,
        1
    );
    let announce = |peer: &mut Peer, size: usize| {
        peer.input.extend_from_slice(&[3, 0, 1]);
        peer.input.extend_from_slice(&(size as u32).to_be_bytes());
        peer.turn()
    };
    peer.begin(1, "e", &properties(500_000), 1 << 20).turn();
    peer.said();
    // One that fits is waited for; with the properties that are there, one octet more does not.
    let held = broker.memory().used(Use::Assembly) as usize;
    assert!(held >= 500_000, "{held}");
    let fits = MAX - held - 8;
    assert_eq!(announce(&mut peer, fits), 7);
    assert!(peer.said().is_empty());
    peer.input.clear();
    announce(&mut peer, fits + 1);
    let told = peer.said();
    assert!(told[0].starts_with("close 506 RESOURCE_ERROR"), "{told:?}");
    // Nothing is kept of what comes behind it.
    assert_eq!(announce(&mut peer, 500 << 20), 0);
    assert!(peer.said().is_empty());
}

/// Properties of a persistent message.
const PERSISTENT: &[u8] = &[0x10, 0, 2];

const TRANSIENT: &[u8] = &[0, 0];

#[test]
fn returns_stand_among_the_confirms_in_the_order_of_their_publishes() {
    let log = MemoryLog::new();
    let broker = session::broker_on(log.clone());
    let mut peer = Peer::new(&broker);
    let declare = queue::Declare {
        queue: "d",
        durable: true,
        ..Default::default()
    };
    peer.method(1, &declare).declare("t").turn();
    let select = confirm::Select { nowait: true };
    peer.method(1, &select).turn();
    peer.said();
    // Nobody takes them, the second is mandatory.
    peer.publish("none", false, TRANSIENT)
        .publish("none", true, TRANSIENT)
        .turn();
    assert_eq!(peer.said(), ["ack 1", "return", "body", "ack 2"]);
    for mandatory in [false, false, true, true, false] {
        peer.publish("none", mandatory, TRANSIENT);
    }
    peer.turn();
    let want = [
        "ack 4 multiple",
        "return",
        "body",
        "ack 5",
        "return",
        "body",
        "ack 7 multiple",
    ];
    assert_eq!(peer.said(), want);
    // What waits for the disk holds back the acks behind it, never a return.
    log.hold(true);
    peer.publish("t", false, TRANSIENT)
        .publish("d", false, PERSISTENT);
    peer.publish("none", true, TRANSIENT)
        .publish("t", false, TRANSIENT)
        .turn();
    assert_eq!(peer.said(), ["ack 8", "return", "body"]);
    log.hold(false);
    peer.machine.progress(NOW);
    assert_eq!(peer.said(), ["ack 9", "ack 11 multiple"]);
}

#[test]
fn behind_ones_own_close_of_a_channel_all_is_ignored() {
    let close = channel::Close {
        reply_code: 200,
        reply_text: "bye",
        class_id: 0,
        method_id: 0,
    };
    let broker = session::broker();
    let mut peer = Peer::new(&broker);
    peer.declare("q")
        .publish("q", false, TRANSIENT)
        .consume(1, "q", false)
        .turn();
    peer.said();
    peer.method(1, &close).ack(1, 1, false).ack(1, 9, false);
    peer.publish("q", false, TRANSIENT).method(1, &close).turn();
    assert_eq!(peer.said(), ["close-ok", "close-ok"]);
    let queue = broker.vhost("/").unwrap().queue("q").unwrap();
    let counts = queue.counts();
    assert_eq!((counts.ready, counts.unacked, counts.consumers), (1, 0, 0));
    // Of the same read, or a new channel.
    peer.method(1, &channel::Open)
        .method(1, &close)
        .method(1, &channel::Open)
        .turn();
    assert_eq!(peer.said().len(), 3);
    peer.method(1, &close).turn();
    peer.said();
    peer.ack(1, 1, false).turn();
    let want = "close 504 CHANNEL_ERROR - expected 'channel.open'";
    assert_eq!(peer.said(), [want]);
}

/// A broker that has recovered a durable queue `g` with one message: it is in the log only.
fn recovered() -> (Arc<Broker>, Arc<MemoryLog>) {
    let log = MemoryLog::new();
    let broker = session::broker_on(log.clone());
    let mut peer = Peer::new(&broker);
    let declare = queue::Declare {
        queue: "g",
        durable: true,
        ..Default::default()
    };
    peer.method(1, &declare)
        .publish("g", false, PERSISTENT)
        .turn();
    let log = log.after_crash();
    let (broker, _) = Broker::new(log.clone(), &log.definitions());
    broker.recover_messages(|known, each| log.recover(known, each), NOW);
    (Arc::new(broker), log)
}

/// Reads what the queue `g` asks for.
fn page_in(broker: &Broker, log: &MemoryLog) {
    let queue = broker.vhost("/").unwrap().queue("g").unwrap();
    let wanted = queue.wanted(100, 1 << 20);
    let ids: Vec<_> = wanted.iter().map(|(_, id)| *id).collect();
    let mut read = Vec::new();
    log.read(&ids, &mut read).unwrap();
    let found = wanted
        .into_iter()
        .zip(read)
        .map(|((seq, id), m)| (seq, id, m));
    let mut batch = Batch::default();
    queue.arrived(found.collect(), NOW, &mut batch.fx);
    batch.flush(broker, NOW).unwrap();
}

#[test]
fn what_is_waited_for_ends_with_its_channel() {
    let (broker, log) = recovered();
    let mut peer = Peer::new(&broker);
    let get = basic::Get {
        queue: "g",
        no_ack: false,
    };
    peer.declare("w")
        .consume(1, "w", false)
        .method(1, &get)
        .turn();
    assert!(!peer.machine.wants_input(), "it waits for the log");
    peer.said();
    // Its consumer is given up, which this client would not learn of: the channel is closed.
    let consumer = ConsumerKey {
        slot: 0,
        generation: 0,
    };
    peer.machine.notice(Notice::TimedOut(consumer, 1), NOW);
    assert_eq!(peer.said(), ["channel close 406"]);
    assert!(peer.machine.wants_input());
    page_in(&broker, &log);
    peer.machine.progress(NOW);
    peer.method(1, &channel::CloseOk).turn();
    assert!(peer.said().is_empty());
    let counts = broker.vhost("/").unwrap().queue("g").unwrap().counts();
    assert_eq!((counts.ready, counts.unacked), (1, 0));
    // Who still waits gets it.
    peer.method(1, &channel::Open).method(1, &get).turn();
    page_in(&broker, &log);
    peer.machine.progress(NOW);
    assert_eq!(peer.said().last().unwrap(), "body");
}

#[test]
fn what_was_settled_or_purged_is_told_when_it_is_durable() {
    let (broker, log) = recovered();
    page_in(&broker, &log);
    let mut peer = Peer::new(&broker);
    let get = basic::Get {
        queue: "g",
        no_ack: false,
    };
    peer.publish("g", false, PERSISTENT);
    peer.method(1, &get).method(1, &tx::Select).turn();
    page_in(&broker, &log);
    peer.machine.progress(NOW);
    peer.turn();
    peer.said();
    log.hold(true);
    peer.ack(1, 1, false).method(1, &tx::Commit).turn();
    assert!(peer.said().is_empty(), "commit-ok came before the disk");
    log.hold(false);
    peer.machine.progress(NOW);
    assert_eq!(peer.said(), ["commit-ok"]);
    log.hold(true);
    let purge = queue::Purge {
        queue: "g",
        nowait: false,
    };
    peer.method(1, &purge).turn();
    assert!(peer.said().is_empty(), "purge-ok came before the disk");
    log.hold(false);
    peer.machine.progress(NOW);
    assert_eq!(peer.said(), ["purge-ok"]);
}

#[test]
fn definitions_without_an_answer_wait_for_a_disk_that_is_behind() {
    let log = MemoryLog::new();
    let broker = session::broker_on(log.clone());
    let mut peer = Peer::new(&broker);
    let declare = |queue| queue::Declare {
        queue,
        durable: true,
        nowait: true,
        ..Default::default()
    };
    log.hold(true);
    peer.method(1, &declare("a"));
    for _ in 0..17 {
        peer.begin(1, "a", PERSISTENT, PART as u64)
            .frame(FrameKind::Body, 1, &[0; PART]);
    }
    peer.turn();
    assert!(log.backlog_bytes() > 1 << 20 && peer.machine.wants_input());
    peer.method(1, &declare("b")).turn();
    assert!(!peer.machine.wants_input());
    log.hold(false);
    peer.machine.progress(NOW);
    assert!(peer.machine.wants_input());
}

#[test]
fn what_a_transaction_settles_is_counted() {
    let broker = session::broker();
    let mut peer = Peer::new(&broker);
    let used = || broker.memory().used(Use::Assembly);
    peer.declare("q").method(1, &tx::Select);
    peer.consume(1, "q", false).publish("q", false, TRANSIENT);
    peer.method(1, &tx::Commit).turn();
    peer.turn();
    assert_eq!(used(), 0);
    peer.ack(1, 1, false).turn();
    assert!(used() > 16, "{}", used());
    peer.method(1, &tx::Rollback).turn();
    assert_eq!(used(), 0);
}

#[test]
fn a_limit_for_a_channel_counts_what_waits_for_it() {
    let broker = session::broker();
    let (mut peer, mut other) = (Peer::new(&broker), Peer::new(&broker));
    peer.declare("q").consume(1, "q", false).turn();
    for _ in 0..3 {
        other.publish("q", false, TRANSIENT);
    }
    other.turn();
    let waiting = |peer: &Peer| peer.inbox.deliveries.lock().unwrap().len();
    assert_eq!(waiting(&peer), 3);
    // They are on their way when the channel gets its limit.
    let qos = basic::Qos {
        prefetch_count: 3,
        global: true,
        ..Default::default()
    };
    encode::method(&mut peer.input, 1, &qos);
    let received = peer.machine.receive(&peer.input, NOW);
    bytes::Buf::advance(&mut peer.input, received.consumed);
    other.publish("q", false, TRANSIENT).turn();
    assert_eq!(waiting(&peer), 3, "no more than the limit");
    peer.turn();
    peer.ack(1, 1, false).turn();
    assert_eq!(peer.said().last().unwrap(), "body", "the fourth");
    assert_eq!(
        broker
            .vhost("/")
            .unwrap()
            .queue("q")
            .unwrap()
            .counts()
            .ready,
        0
    );
}

#[test]
fn who_is_refused_counts_nowhere() {
    let (broker, _) = Broker::new(MemoryLog::new(), &[]);
    broker.add_vhost("/").unwrap();
    let broker = Arc::new(broker);
    let accounts = || {
        let (node, vhost) = (broker.node_account().clone(), broker.vhost_account("/"));
        [node, vhost, broker.user_account("guest")]
    };
    let last = |peer: &mut Peer| peer.said().pop().unwrap();
    let counts = |n: i64| {
        for account in accounts() {
            account.connections.limit(n);
            let reached = account.connections.reached();
            account.connections.limit(n + 1);
            let beyond = account.connections.reached();
            account.connections.limit(-1);
            assert_eq!((reached, beyond), (Some(n as u64), None));
        }
    };
    let refused = |what: &str| {
        let said = last(&mut Peer::new(&broker));
        assert_eq!(said, format!("close 530 NOT_ALLOWED - {what}"));
    };
    refused("access to vhost '/' refused for user 'guest'");
    counts(0);
    let all = broker.put_permissions("guest", "/", [".*"; 3]);
    all.unwrap();
    let mut peer = Peer::new(&broker);
    counts(1);
    let [_, vhost, user] = accounts();
    user.connections.limit(1);
    refused("connection refused for user 'guest': user connection limit (1) is reached");
    counts(1);
    vhost.connections.limit(1);
    refused("access to vhost '/' refused for user 'guest': connection limit (1) is reached");
    counts(1);
    user.channels.limit(1);
    peer.method(2, &channel::Open).turn();
    let what = "number of channels opened for user 'guest' has reached the maximum allowed user limit of 1";
    assert_eq!(last(&mut peer), format!("close 530 NOT_ALLOWED - {what}"));
}

#[test]
fn a_connection_has_so_much_and_no_more() {
    let broker = session::broker();
    let settings = SessionSettings {
        max_message_bytes: 3,
        consumers_per_channel: 1,
        ..SessionSettings::default()
    };
    let with = || Peer::with(&broker, settings.clone());
    let mut peer = with();
    peer.declare("q").consume(1, "q", true).turn();
    peer.said();
    peer.begin(1, "q", &[0, 0], 3)
        .frame(FrameKind::Body, 1, b"one")
        .turn();
    assert_eq!(peer.said().last().unwrap(), "one");
    peer.publish("q", false, TRANSIENT).turn();
    assert_eq!(peer.said(), ["channel close 406"], "a body of four octets");
    let mut peer = with();
    peer.begin(1, "q", &[0, 0], (512 << 20) + 1).turn();
    let said = peer.said();
    assert!(said.last().unwrap().starts_with("close 501"), "{said:?}");
    let mut peer = with();
    peer.consume(1, "q", true).consume(1, "q", true).turn();
    let said = peer.said();
    assert!(
        said.last()
            .unwrap()
            .starts_with("close 530 NOT_ALLOWED - reached maximum (1) of consumers"),
        "{said:?}"
    );
    // The handshake asks for so many.
    let mut peer = with();
    for number in 2..=65 {
        peer.method(number, &channel::Open);
    }
    peer.turn();
    let said = peer.said();
    assert!(
        said.last()
            .unwrap()
            .starts_with("close 530 NOT_ALLOWED - number of channels opened (64)"),
        "{:?}",
        said.last()
    );
}

#[test]
fn a_transaction_is_as_large_as_is_configured() {
    let broker = session::broker();
    let settings = SessionSettings {
        tx_bytes_max: 1 << 20,
        ..SessionSettings::default()
    };
    let mut peer = Peer::with(&broker, settings);
    peer.declare("q").method(1, &tx::Select).turn();
    peer.said();
    for _ in 0..2 {
        for _ in 0..3000 {
            peer.publish("q", false, TRANSIENT);
        }
        peer.method(1, &tx::Commit).turn();
        assert_eq!(peer.said(), ["commit-ok"], "each has the whole limit");
    }
    for _ in 0..10_000 {
        peer.publish("q", false, TRANSIENT);
    }
    peer.method(1, &tx::Commit).turn();
    assert_eq!(peer.said(), ["channel close 406"]);
    let counts = broker.vhost("/").unwrap().queue("q").unwrap().counts();
    assert_eq!(counts.ready, 6000);
    // Without one, far more fits.
    let mut peer = Peer::new(&broker);
    peer.method(1, &tx::Select).turn();
    for _ in 0..20_000 {
        peer.publish("q", false, TRANSIENT);
    }
    peer.method(1, &tx::Commit).turn();
    assert_eq!(peer.said().last().unwrap(), "commit-ok");
}

/// The ways a channel or its connection ends.
const ENDS: [&str; 8] = [
    "channel.close",
    "connection.close",
    "the socket is gone",
    "channel error",
    "connection error",
    "heartbeats are missed",
    "the server stops",
    "the log fails",
];

/// A connection that holds a bit of everything, and ends; what it leaves is counted afterwards.
fn holds_and_ends(broker: &Arc<Broker>, log: &MemoryLog, end: &str) {
    let mut peer = Peer::new(broker);
    peer.method(2, &channel::Open).method(3, &channel::Open);
    let qos = basic::Qos {
        prefetch_size: 0,
        prefetch_count: 3,
        global: true,
    };
    peer.method(1, &qos)
        .consume(1, "q", false)
        .consume(1, "q", true);
    let exclusive = queue::Declare {
        queue: "mine",
        exclusive: true,
        ..Default::default()
    };
    peer.method(1, &exclusive)
        .consume(1, "amq.rabbitmq.reply-to", true)
        .turn();
    // Some delivered, some on their way.
    for _ in 0..3 {
        peer.publish("q", false, TRANSIENT);
    }
    peer.turn();
    peer.turn();
    peer.publish("q", false, TRANSIENT);
    let input = std::mem::take(&mut peer.input);
    peer.machine.receive(&input, NOW);
    // An open transaction, of both kinds; a message that is not complete; a message that is waited for.
    peer.method(2, &tx::Select).consume(2, "q", false).turn();
    peer.turn();
    peer.ack(2, 1, false).begin(2, "q", TRANSIENT, 0).turn();
    peer.begin(3, "q", &properties(20_000), 1 << 20);
    peer.frame(FrameKind::Body, 3, &[1; PART]).turn();
    let get = basic::Get {
        queue: "g",
        no_ack: false,
    };
    peer.method(1, &get).turn();
    match end {
        "channel.close" => {
            let close = channel::Close::default();
            page_in(broker, log);
            peer.machine.progress(NOW);
            for number in [1, 2] {
                peer.method(number, &close);
            }
            peer.turn();
        }
        "connection.close" => {
            page_in(broker, log);
            peer.machine.progress(NOW);
            peer.method(0, &connection::Close::default()).turn();
        }
        "channel error" => {
            page_in(broker, log);
            peer.machine.progress(NOW);
            peer.ack(1, 99, false).ack(2, 99, false).turn();
        }
        "connection error" => {
            page_in(broker, log);
            peer.machine.progress(NOW);
            peer.ack(9, 1, false).turn();
        }
        "heartbeats are missed" => {
            peer.machine.tick(NOW + 60_000);
            assert!(peer.machine.is_over() && peer.machine.is_reset());
        }
        "the server stops" => peer.machine.force_close("stop", NOW),
        "the log fails" => {
            log.fail();
            peer.machine.progress(NOW);
        }
        _ => {}
    }
    let left = std::mem::take(&mut *peer.inbox.deliveries.lock().unwrap());
    peer.machine.lost(left, NOW);
    let vhost = broker.vhost("/").unwrap();
    for (name, ready) in [("q", None), ("g", Some(1))] {
        let counts = vhost.queue(name).unwrap().counts();
        assert_eq!((counts.unacked, counts.consumers), (0, 0), "{end}: {name}");
        assert!(
            ready.is_none_or(|n| n == counts.ready),
            "{end}: {}",
            counts.ready
        );
    }
    assert!(vhost.queue("mine").is_none(), "{end}");
    for account in [broker.node_account(), &broker.user_account("guest")] {
        for quota in [&account.connections, &account.channels] {
            quota.limit(1);
            assert_eq!(quota.reached(), None, "{end}: none is used");
            quota.limit(-1);
        }
    }
}

#[test]
fn every_end_gives_everything_back_once() {
    for end in ENDS {
        let (broker, log) = recovered();
        let mut first = Peer::new(&broker);
        first.declare("q").turn();
        first.machine.lost(Vec::new(), NOW);
        drop(first);
        let round = || {
            holds_and_ends(&broker, &log, end);
            let mut batch = Batch::default();
            let queue = broker.vhost("/").unwrap().queue("q").unwrap();
            queue.purge(NOW, &mut batch.fx);
            let _ = batch.flush(&broker, NOW);
        };
        // The first ones leave room behind that is used again.
        round();
        round();
        let used = || Use::ALL.map(|what| broker.memory().used(what));
        let before = used();
        let left = allocation_counter::measure(round).bytes_current;
        assert_eq!(used(), before, "{end}: of {:?}", Use::ALL);
        for what in [Use::Assembly, Use::Transactions] {
            assert_eq!(broker.memory().used(what), 0, "{end}: {}", what.name());
        }
        assert!(left < 4096, "{end}: {left} bytes are left");
    }
}
