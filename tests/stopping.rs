//! Stopping: nobody but the disk is waited for, and every signal is heard.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method};
use rustix::process::{Pid, Signal, kill_process};
use support::{Broker, Client, launch};

/// A broker for TLS and metrics, too, whose handshakes may take long.
fn start(dir: &std::path::Path) -> Broker {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let settings = [
        ("LEVERET_TLS_CERT", cert.to_str().unwrap()),
        ("LEVERET_TLS_KEY", key.to_str().unwrap()),
        ("LEVERET_LISTENERS_AMQPS", "127.0.0.1:0"),
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
        ("LEVERET_PROTOCOL_HANDSHAKE_TIMEOUT_MS", "60000"),
    ];
    Broker::start_with(&dir.join("data"), &[], &settings)
}

/// A consumer that reads nothing of what it has been sent: much more than sockets hold.
fn deaf(broker: &Broker) -> Client {
    let mut deaf = Client::connect(broker.address).unwrap();
    deaf.declare("deaf", false, &FieldTable::new()).unwrap();
    deaf.consume("deaf", true).unwrap();
    let mut other = Client::connect(broker.address).unwrap();
    other.confirm_select().unwrap();
    for _ in 0..20 {
        other.stage_publish("deaf", &[1; 1 << 20], &Properties::default());
        other.flush().unwrap();
        other.next().unwrap();
    }
    deaf
}

#[test]
fn half_a_request_and_half_a_handshake_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path());
    let mut held: Vec<_> = ["amqps", "prometheus", "amqp"]
        .map(|p| TcpStream::connect(broker.listens(p)).unwrap())
        .into();
    held[1].write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let mut mute = TcpStream::connect(broker.address).unwrap();
    mute.write_all(b"AMQP\0\0\x09\x01").unwrap();
    // They are served, not only accepted.
    assert!(mute.read(&mut [0; 100]).unwrap() > 0);
    support::scrape(broker.listens("prometheus"));
    let began = Instant::now();
    assert!(broker.stop());
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[test]
fn who_does_not_read_or_answer_is_waited_for_three_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path());
    let _deaf = deaf(&broker);
    let _silent = Client::connect(broker.address).unwrap();
    let began = Instant::now();
    assert!(broker.stop(), "what is durable is");
    let took = began.elapsed();
    // To the end of the time that they have, and then at once.
    let right = Duration::from_millis(2500)..Duration::from_secs(6);
    assert!(right.contains(&took), "{took:?}");
}

#[test]
fn a_second_signal_is_obeyed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = start(dir.path());
    let _deaf = deaf(&broker);
    broker.signal(Signal::TERM);
    broker.said.wait_for("stopping");
    let began = Instant::now();
    broker.signal(Signal::INT);
    assert!(!broker.ended(), "it did not end as it should");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    broker.said.wait_for("second signal");
}

#[test]
fn a_start_that_takes_long_hears_signals() {
    let dir = tempfile::tempdir().unwrap();
    // A file that nobody writes: the start waits for it for ever.
    let fifo = dir.path().join("definitions.json");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o600.into(), 0).unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.arg("--data-dir").arg(dir.path().join("data"));
        let settings = [
            ("LEVERET_LISTENERS_PROMETHEUS", ""),
            ("LEVERET_LISTENERS_AMQP", "127.0.0.1:0"),
            ("LEVERET_LOAD_DEFINITIONS", fifo.to_str().unwrap()),
        ];
        let (mut child, said) = launch(command, &settings);
        said.wait_for("starting");
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        assert!(child.wait().unwrap().success());
        said.wait_for("stopped during the start");
    }
}

/// What was rejected and not routed yet is in the log where it was.
#[test]
fn dead_letters_that_wait_are_not_lost_by_a_clean_stop() {
    const MESSAGES: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let mut arguments = FieldTable::new();
    arguments.insert("x-dead-letter-exchange", "");
    arguments.insert("x-dead-letter-routing-key", "dead");
    c.declare("dead", true, &FieldTable::new()).unwrap();
    c.declare("from", true, &arguments).unwrap();
    for n in 0..MESSAGES {
        c.stage_publish("from", &n.to_be_bytes(), &support::persistent());
    }
    c.flush().unwrap();
    c.consume("from", false).unwrap();
    for _ in 0..MESSAGES {
        c.delivery().unwrap();
    }
    let nack = basic::Nack {
        delivery_tag: 0,
        multiple: true,
        requeue: false,
    };
    c.send(1, &nack).unwrap();
    // All of it is dead now, and far more than a flush routes.
    c.qos(1).unwrap();
    assert!(broker.stop());
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let mut numbers = std::collections::BTreeSet::new();
    for queue in ["from", "dead"] {
        while let Some(m) = c.get(queue, true).unwrap() {
            assert!(numbers.insert(m.body), "twice");
        }
    }
    assert_eq!(numbers.len() as u64, MESSAGES);
}

/// A stop does not wait for a long chain of dead letters; what is on its way goes on after the start.
#[test]
fn a_chain_of_dead_letters_goes_on_after_a_stop() {
    const HOPS: usize = 100;
    const MESSAGES: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    for n in 0..HOPS {
        let mut arguments = FieldTable::new();
        arguments.insert("x-max-length", 0i64);
        arguments.insert("x-dead-letter-exchange", "");
        arguments.insert("x-dead-letter-routing-key", format!("q{}", n + 1));
        c.declare(&format!("q{n}"), true, &arguments).unwrap();
    }
    let last = format!("q{HOPS}");
    c.declare(&last, true, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    for n in 0..MESSAGES {
        c.stage_publish("q0", &n.to_be_bytes(), &support::persistent());
    }
    c.flush().unwrap();
    let mut confirmed = 0;
    while confirmed < MESSAGES {
        let frame = c.expect(basic::Ack::ID).unwrap();
        let Method::BasicAck(ack) = frame.method() else {
            panic!("expected an ack");
        };
        confirmed = ack.delivery_tag;
    }
    let (through, _) = c.counts(&last).unwrap();
    drop(c);
    let began = Instant::now();
    assert!(broker.stop());
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert!(u64::from(through) < MESSAGES, "too fast to be stopped");
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    c.consume(&last, true).unwrap();
    for n in 0..MESSAGES {
        assert_eq!(c.delivery().unwrap().body, n.to_be_bytes());
    }
    assert!(broker.stop());
}
