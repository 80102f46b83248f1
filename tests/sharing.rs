//! Who gets what of a burst: consumers of one queue share it evenly, however small the room of their connection.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::methods::{basic, channel};
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method, encode};
use support::{Broker, Client};

fn consume(c: &mut Client, channel: u16, tag: &str, no_ack: bool) {
    let consume = basic::Consume {
        queue: "q",
        consumer_tag: tag,
        no_local: false,
        no_ack,
        exclusive: false,
        nowait: false,
        arguments: TableRef::default(),
    };
    c.send(channel, &consume).unwrap();
    c.expect(basic::ConsumeOk::ID).unwrap();
}

/// Reads so many deliveries; how many went to each consumer.
fn deliveries(c: &mut Client, n: usize) -> BTreeMap<String, usize> {
    let mut got = BTreeMap::new();
    let mut left = n;
    while left > 0 {
        let f = c.expect(basic::Deliver::ID).unwrap();
        let Method::BasicDeliver(d) = f.method() else {
            unreachable!()
        };
        *got.entry(d.consumer_tag.to_string()).or_default() += 1;
        left -= 1;
        c.content().unwrap();
    }
    got
}

#[test]
fn a_burst_is_shared_evenly() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut publisher = Client::connect(broker.address).unwrap();
    publisher.declare("q", false, &FieldTable::new()).unwrap();
    // More than the connection's room: one of them must not take all of it, each time there is some.
    let mut c = Client::connect(broker.address).unwrap();
    for (number, tag) in [(1, "a"), (2, "b"), (3, "c")] {
        if number > 1 {
            c.send(number, &channel::Open).unwrap();
            c.expect(channel::OpenOk::ID).unwrap();
        }
        consume(&mut c, number, tag, false);
    }
    for _ in 0..12 {
        publisher.stage_publish("q", &[1; 1_000_000], &Properties::default());
    }
    publisher.flush().unwrap();
    let got = deliveries(&mut c, 12);
    assert!(got.len() == 3 && got.values().all(|n| *n == 4), "{got:?}");
    drop(c);
    // Those came back, and go.
    publisher.counts("q").unwrap();
    let mut c = Client::connect(broker.address).unwrap();
    c.send(
        1,
        &leveret::protocol::methods::queue::Purge {
            queue: "q",
            nowait: false,
        },
    )
    .unwrap();
    c.next().unwrap();
    for n in 0..100 {
        consume(&mut c, 1, &format!("c{n}"), true);
    }
    for _ in 0..4000 {
        publisher.stage_publish("q", b"x", &Properties::default());
    }
    publisher.flush().unwrap();
    let got = deliveries(&mut c, 4000);
    assert!(
        got.len() == 100 && got.values().all(|n| *n == 40),
        "{got:?}"
    );
}

#[test]
fn queues_that_fill_a_connection_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LEVERET_LIMITS_INBOX_DELIVERIES", "4")];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let mut publisher = Client::connect(broker.address).unwrap();
    let mut c = Client::connect(broker.address).unwrap();
    for queue in ["a", "b", "c"] {
        publisher.declare(queue, false, &FieldTable::new()).unwrap();
        for _ in 0..40 {
            publisher.stage_publish(queue, b"x", &Properties::default());
        }
    }
    publisher.flush().unwrap();
    for queue in ["a", "b", "c"] {
        while publisher.counts(queue).unwrap().0 < 40 {}
        let consume = basic::Consume {
            queue,
            consumer_tag: queue,
            no_ack: true,
            nowait: true,
            ..Default::default()
        };
        encode::method(&mut c.out, 1, &consume);
    }
    c.flush().unwrap();
    let got = deliveries(&mut c, 60);
    assert!(got.len() == 3 && got.values().all(|n| *n > 12), "{got:?}");
}
