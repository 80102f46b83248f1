//! However much a peer sends at once, and whatever: it is worked off in turns of a bounded size, and others have theirs
//! in between.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../benches/support/inbox.rs"]
mod inbox;
#[path = "../benches/support/session.rs"]
mod session;

use bytes::BytesMut;
use leveret::amqp::connection::{Connection, Received, WORK_PER_TURN};
use leveret::amqp::settings::SessionSettings;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::methods::{basic, channel, exchange, queue, tx};

use self::inbox::Inbox;

const NOW: u64 = 1_700_000_000_000;

/// What one frame may be beyond the end of a turn, and what one flush is.
const OVER: u32 = 20_000;

/// A connection with channel 1 open.
fn connected() -> Connection {
    let broker = session::broker();
    let inbox = Inbox::new(512, 1 << 20);
    let mut machine = session::connection(&broker, &inbox, SessionSettings::default(), NOW);
    take(&mut machine, session::HANDSHAKE);
    machine
}

/// Hands all of it in; what each turn came to.
fn take(machine: &mut Connection, octets: &[u8]) -> Vec<Received> {
    let (mut rest, mut turns) = (octets, Vec::new());
    while !rest.is_empty() {
        let received = machine.receive(rest, NOW);
        assert!(received.consumed > 0, "a turn does something");
        rest = &rest[received.consumed..];
        assert_eq!(received.more, !rest.is_empty());
        turns.push(received);
        machine.output.clear();
    }
    turns
}

fn publish(out: &mut BytesMut, exchange: &str, key: &str) {
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: key.into(),
        ..basic::Publish::default()
    };
    encode::method(out, 1, &publish);
    let content = Content {
        properties: &[0, 0],
        body: b"x",
    };
    encode::content(out, 1, &content, 0);
}

/// Turns that so many of these take, after `setup`.
fn turns(
    setup: impl FnOnce(&mut BytesMut),
    times: usize,
    each: impl Fn(&mut BytesMut, usize),
) -> usize {
    let mut machine = connected();
    let mut out = BytesMut::new();
    setup(&mut out);
    take(&mut machine, &out);
    out.clear();
    (0..times).for_each(|n| each(&mut out, n));
    let turns = take(&mut machine, &out);
    for turn in &turns {
        assert!(turn.work < WORK_PER_TURN + OVER, "{turn:?}");
        assert!(!turn.more || turn.work >= WORK_PER_TURN, "{turn:?}");
    }
    turns.len()
}

fn declare(out: &mut BytesMut, name: &str) {
    let declare = queue::Declare {
        queue: name,
        exclusive: true,
        ..queue::Declare::default()
    };
    encode::method(out, 1, &declare);
}

#[test]
fn what_is_sent_at_once_is_done_in_turns() {
    // A hundred publishes are one.
    let few = turns(|_| {}, 100, |out, _| publish(out, "", "nobody"));
    assert_eq!(few, 1);
    let frames = turns(|_| {}, 12_000, |out, _| publish(out, "", "nobody"));
    assert!(frames >= 3 * 12_000 / WORK_PER_TURN as usize, "{frames}");
    let methods = turns(
        |out| declare(out, "q"),
        12_000,
        |out, _| {
            encode::method(
                out,
                1,
                &basic::Get {
                    queue: "q",
                    no_ack: true,
                },
            );
        },
    );
    assert!(methods >= 12_000 * 9 / WORK_PER_TURN as usize, "{methods}");
    let queues = turns(|_| {}, 12_000, |out, n| declare(out, &n.to_string()));
    assert!(queues >= 12_000 * 33 / WORK_PER_TURN as usize, "{queues}");
    let channels = turns(
        |_| {},
        4000,
        |out, _| {
            encode::method(out, 2, &channel::Open);
            encode::method(out, 2, &channel::Close::default());
        },
    );
    assert!(channels > 50, "{channels}");
}

/// It is not frames that count, but what they do.
#[test]
fn what_goes_to_many_queues_is_as_much_work() {
    let fanout = |out: &mut BytesMut| {
        let declared = exchange::Declare {
            exchange: "x",
            type_: "fanout",
            ..exchange::Declare::default()
        };
        encode::method(out, 1, &declared);
        for n in 0..1000 {
            let name = n.to_string();
            declare(out, &name);
            let bind = queue::Bind {
                queue: &name,
                exchange: "x",
                ..queue::Bind::default()
            };
            encode::method(out, 1, &bind);
        }
    };
    let turns = turns(fanout, 200, |out, _| publish(out, "x", ""));
    assert!(
        turns >= 200 * 1000 / (WORK_PER_TURN as usize + 2000),
        "{turns}"
    );
}

#[test]
fn consumers_that_come_and_go_take_turns() {
    let full = |out: &mut BytesMut| {
        declare(out, "q");
        (0..2000).for_each(|_| publish(out, "", "q"));
    };
    let turns = turns(full, 1200, |out, _| {
        let consume = basic::Consume {
            queue: "q",
            consumer_tag: "c",
            ..basic::Consume::default()
        };
        encode::method(out, 1, &consume);
        let cancel = basic::Cancel {
            consumer_tag: "c",
            ..basic::Cancel::default()
        };
        encode::method(out, 1, &cancel);
    });
    assert!(turns > 30, "{turns}");
}

/// One acknowledgement of many is the end of a turn.
#[test]
fn many_settlements_are_as_much_work() {
    let mut machine = connected();
    let mut out = BytesMut::new();
    declare(&mut out, "q");
    (0..20_000).for_each(|_| publish(&mut out, "", "q"));
    for _ in 0..20_000 {
        let get = basic::Get {
            queue: "q",
            no_ack: false,
        };
        encode::method(&mut out, 1, &get);
    }
    take(&mut machine, &out);
    out.clear();
    let all = basic::Ack {
        delivery_tag: 0,
        multiple: true,
    };
    encode::method(&mut out, 1, &all);
    encode::method(&mut out, 1, &tx::Select);
    let turns = take(&mut machine, &out);
    assert_eq!((turns.len(), turns[0].work), (2, 20_001));
}

/// Nor do frames count alike: a table is looked at field by field, by each binding of a headers exchange.
#[test]
fn tables_are_as_much_work_as_they_are_long() {
    let mut table: Vec<u8> = Vec::new();
    (0..5000).for_each(|_| table.extend(b"\x04nameV"));
    let mut bomb = vec![0x20, 0];
    bomb.extend((table.len() as u32).to_be_bytes());
    bomb.extend(table);
    let with_headers = |out: &mut BytesMut, exchange: &str, properties: &[u8]| {
        let publish = basic::Publish {
            exchange: exchange.into(),
            ..basic::Publish::default()
        };
        encode::method(out, 1, &publish);
        let content = Content {
            properties,
            body: b"",
        };
        encode::content(out, 1, &content, 0);
    };
    let long = turns(|_| {}, 100, |out, _| with_headers(out, "", &bomb));
    assert!(long >= 100 * 900 / (WORK_PER_TURN as usize + 900), "{long}");
    let bound = |out: &mut BytesMut| {
        declare(out, "q");
        for n in 0..500i64 {
            let mut wanted = FieldTable::new();
            wanted.insert("n", n);
            let wanted = wanted.to_bytes();
            let bind = queue::Bind {
                queue: "q",
                exchange: "amq.headers",
                arguments: TableRef::unchecked(&wanted),
                ..queue::Bind::default()
            };
            encode::method(out, 1, &bind);
        }
    };
    let compared = turns(bound, 400, |out, _| {
        with_headers(out, "amq.headers", &[0, 0])
    });
    assert!(
        compared >= 400 * 500 / (WORK_PER_TURN as usize + 500),
        "{compared}"
    );
}
