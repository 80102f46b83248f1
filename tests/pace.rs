//! Publishers that stream, and consumers that keep up with them, or do not.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::properties::Properties;
use support::{Broker, Client};

const MESSAGES: u32 = 20_000;

/// Publishes them all as fast as the broker takes them, each with its number.
fn stream(c: &mut Client, queue: &str) {
    let mut body = [b'x'; 1024];
    for i in 0..MESSAGES {
        body[..4].copy_from_slice(&i.to_be_bytes());
        c.stage_publish(queue, &body, &Properties::default());
        if i % 100 == 0 {
            c.flush().unwrap();
        }
    }
    c.flush().unwrap();
}

/// A connection that consumes from `q`, which it has declared.
fn consumer(broker: &Broker, prefetch: u16) -> Client {
    let mut consumer = Client::connect(broker.address).unwrap();
    consumer.declare("q", false, &FieldTable::new()).unwrap();
    consumer.qos(prefetch).unwrap();
    consumer.consume("q", false).unwrap();
    consumer
}

#[test]
fn what_streams_past_consumers_that_keep_up_arrives_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut consumer = consumer(&broker, 500);
    let mut publisher = Client::connect(broker.address).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| stream(&mut publisher, "q"));
        for i in 0..MESSAGES {
            let d = consumer.delivery().unwrap();
            assert_eq!(d.body[..4], i.to_be_bytes());
            if i % 50 == 49 {
                consumer.ack(d.tag, true).unwrap();
            }
        }
    });
    assert_eq!(publisher.counts("q").unwrap(), (0, 1));
}

#[test]
fn consumers_that_do_not_move_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = [("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0")];
    let broker = Broker::start(&dir.path().join("data"), &metrics);
    let waits = || {
        let page = support::scrape(broker.listens("prometheus"));
        support::metric(&page, "leveret_publishers_waited_for_consumers_total")
    };
    let mut consumer = consumer(&broker, 1);
    let mut publisher = Client::connect(broker.address).unwrap();
    stream(&mut publisher, "q");
    assert_eq!(publisher.counts("q").unwrap(), (MESSAGES - 1, 1));
    let waited = waits();
    assert!(waited > 0.0, "it is tried whether they move");
    // The same from the connection that would wait for itself.
    consumer.delivery().unwrap();
    stream(&mut consumer, "q");
    assert_eq!(consumer.counts("q").unwrap(), (2 * MESSAGES - 1, 1));
    assert_eq!(waits(), waited);
}
