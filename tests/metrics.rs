//! What metrics say of messages, by the type of their queue.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use leveret::protocol::field_table::FieldTable;
use support::{Broker, Client, metric, scrape};

#[test]
fn deliveries_are_counted_by_the_type_of_their_queue() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = [("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0")];
    let broker = Broker::start(&dir.path().join("data"), &metrics);
    let mut c = Client::connect(broker.address).unwrap();
    let mut arguments = FieldTable::new();
    arguments.insert("x-queue-type", "quorum");
    c.declare("q", true, &arguments).unwrap();
    for body in [b"1", b"2", b"3", b"4"] {
        c.publish("q", body).unwrap();
    }
    c.get("q", true).unwrap().unwrap();
    let got = c.get("q", false).unwrap().unwrap();
    c.ack(got.tag, false).unwrap();
    c.consume("q", false).unwrap();
    let last = [c.delivery().unwrap(), c.delivery().unwrap()];
    c.ack(last[1].tag, true).unwrap();
    assert!(c.get("q", true).unwrap().is_none());
    let page = scrape(broker.listens("prometheus"));
    for (name, expected) in [
        ("delivered_get_auto_ack", 1.0),
        ("delivered_get_manual_ack", 1.0),
        ("delivered_consume_auto_ack", 0.0),
        ("delivered_consume_manual_ack", 2.0),
        ("acknowledged", 3.0),
        ("get_empty", 1.0),
        ("redelivered", 0.0),
    ] {
        let of = |kind: &str| {
            let labels = format!("{{protocol=\"amqp091\",queue_type=\"rabbit_{kind}_queue\"}}");
            metric(
                &page,
                &format!("rabbitmq_global_messages_{name}_total{labels}"),
            )
        };
        let all = ["classic", "quorum", "volatile"].map(of);
        assert_eq!(all, [0.0, expected, 0.0], "{name}");
    }
}
