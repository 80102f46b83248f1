//! What exchanges remember survives kill -9.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::{Duration, Instant};

use leveret::protocol::EncodeMethod;
use leveret::protocol::Method;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::{basic, exchange};
use leveret::protocol::properties::Properties;
use support::{Broker, Client};

fn with_header(name: &str, value: i64, delivery_mode: u8) -> Properties {
    let mut headers = FieldTable::new();
    headers.insert(name, value);
    Properties {
        headers: Some(headers),
        delivery_mode: Some(delivery_mode),
        ..Default::default()
    }
}

fn acks(c: &mut Client, n: u64) {
    loop {
        let f = c.expect(basic::Ack::ID).unwrap();
        let Method::BasicAck(ack) = f.method() else {
            unreachable!()
        };
        if ack.delivery_tag == n {
            return;
        }
    }
}

#[test]
fn delayed_messages_survive_kill_9_and_come_on_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let mut arguments = FieldTable::new();
    arguments.insert("x-delayed-type", "direct");
    c.declare_exchange("later", "x-delayed-message", &arguments)
        .unwrap();
    c.declare("out", true, &FieldTable::new()).unwrap();
    c.bind("out", "later", "k").unwrap();
    c.confirm_select().unwrap();
    let delays = [2000, 500, 1500];
    for delay in delays {
        let body = delay.to_string();
        c.stage_publish_to(
            "later",
            "k",
            body.as_bytes(),
            &with_header("x-delay", delay, 2),
        );
    }
    // A transient one is safe while it waits, too, as with RabbitMQ's plugin.
    c.stage_publish_to("later", "k", b"1000", &with_header("x-delay", 1000, 1));
    let began = Instant::now();
    c.flush().unwrap();
    acks(&mut c, 4);
    broker.kill();

    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    c.consume("out", true).unwrap();
    for delay in [500u64, 1000, 1500, 2000] {
        let m = c.delivery().unwrap();
        assert_eq!(m.body, delay.to_string().as_bytes());
        assert!(began.elapsed() >= Duration::from_millis(delay));
    }
    // What went with its exchange does not come back, not even in the next life.
    c.confirm_select().unwrap();
    c.stage_publish_to("later", "k", b"never", &with_header("x-delay", 500, 2));
    c.flush().unwrap();
    acks(&mut c, 1);
    let delete = exchange::Delete {
        exchange: "later",
        if_unused: false,
        nowait: false,
    };
    c.send(1, &delete).unwrap();
    c.expect(exchange::DeleteOk::ID).unwrap();
    broker.kill();
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare_exchange("later", "x-delayed-message", &arguments)
        .unwrap();
    c.bind("out", "later", "k").unwrap();
    c.confirm_select().unwrap();
    c.stage_publish_to("later", "k", b"last", &with_header("x-delay", 600, 2));
    c.flush().unwrap();
    acks(&mut c, 1);
    c.consume("out", true).unwrap();
    assert_eq!(c.delivery().unwrap().body, b"last");
    broker.kill();
}
