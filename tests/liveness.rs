//! Peers that are slow, silent or gone.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::{FrameKind, PROTOCOL_HEADER};
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client, PATIENCE, metric, scrape};

/// Reads until the broker hangs up, and says how long that took.
fn hung_up(c: &mut Client) -> Duration {
    let began = Instant::now();
    let mut rest = [0; 65536];
    loop {
        match c.socket.read(&mut rest) {
            Ok(0) => return began.elapsed(),
            Ok(_) => assert!(began.elapsed() < PATIENCE, "the broker goes on talking"),
            Err(e) => {
                assert_ne!(
                    e.kind(),
                    ErrorKind::WouldBlock,
                    "the broker does not hang up"
                );
                return began.elapsed();
            }
        }
    }
}

#[test]
fn heartbeats_are_sent_and_missed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut silent = Client::raw(broker.address).unwrap();
    silent.login_with(131_072, 1).unwrap();
    let began = Instant::now();
    // Twice a second while idle.
    let f = silent.any().unwrap();
    assert_eq!(f.kind, FrameKind::Heartbeat);
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "half an interval"
    );
    // Nothing is heard of this one (a half-open connection looks the same): two intervals.
    hung_up(&mut silent);
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_secs(5),
        "{took:?}"
    );

    // A peer that sends heartbeats of its own stays.
    let mut alive = Client::raw(broker.address).unwrap();
    alive.login_with(131_072, 1).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        // The broker's heartbeats are the clock.
        assert_eq!(alive.any().unwrap().kind, FrameKind::Heartbeat);
        alive
            .socket
            .write_all(&[8, 0, 0, 0, 0, 0, 0, 0xCE])
            .unwrap();
    }
    alive.send(1, &channel::Open).unwrap();
    alive.expect(channel::OpenOk::ID).unwrap();
}

#[test]
fn a_handshake_has_a_time_limit() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LEVERET_PROTOCOL_HANDSHAKE_TIMEOUT_MS", "300")];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let mut mute = Client::raw(broker.address).unwrap();
    let mut stuck = Client::raw(broker.address).unwrap();
    stuck.socket.write_all(&PROTOCOL_HEADER).unwrap();
    stuck.expect(connection::Start::ID).unwrap();
    assert!(hung_up(&mut mute) < Duration::from_secs(5));
    assert!(hung_up(&mut stuck) < Duration::from_secs(5));
}

#[test]
fn connections_that_have_not_logged_in_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("LEVERET_PROTOCOL_MAX_UNAUTHENTICATED_CONNECTIONS", "6"),
        (
            "LEVERET_PROTOCOL_MAX_UNAUTHENTICATED_CONNECTIONS_PER_ADDRESS",
            "3",
        ),
        // Not what ends them here.
        ("LEVERET_PROTOCOL_HANDSHAKE_TIMEOUT_MS", "600000"),
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
    ];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let try_from = |address: [u8; 4]| {
        let mut c = Client::raw_from(address, broker.address)?;
        c.socket.write_all(&PROTOCOL_HEADER)?;
        c.expect(connection::Start::ID).map(|_| c)
    };
    let (one, other, third) = ([127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]);
    // Who has logged in has no place here any more.
    let logged_in = |_| {
        let mut c = Client::raw_from(one, broker.address).unwrap();
        c.login(131_072).unwrap();
        c
    };
    let _logged_in: Vec<_> = (0..7).map(logged_in).collect();
    let mut waiting: Vec<_> = (0..3).map(|_| try_from(one).unwrap()).collect();
    assert!(try_from(one).is_err(), "too many from there");
    // As many as are still free.
    waiting.extend((0..2).map(|_| try_from(other).unwrap()));
    assert!(try_from(other).is_err(), "room is left for others");
    waiting.push(try_from(third).unwrap());
    let last = [127, 0, 0, 4];
    assert!(try_from(last).is_err(), "too many in all");
    let page = scrape(broker.listens("prometheus"));
    assert_eq!(metric(&page, "leveret_connections_unauthenticated"), 6.0);
    // One that gives up makes room.
    waiting.remove(0);
    let deadline = Instant::now() + PATIENCE;
    while try_from(last).is_err() {
        assert!(Instant::now() < deadline, "no room again");
    }
}

#[test]
fn a_client_that_never_reads_is_given_up_and_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LEVERET_PROTOCOL_WRITE_TIMEOUT_MS", "1500")];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let mut deaf = Client::connect(broker.address).unwrap();
    deaf.declare("deaf", false, &FieldTable::new()).unwrap();
    deaf.consume("deaf", true).unwrap();
    let before = broker.resident();

    let mut other = Client::connect(broker.address).unwrap();
    other.declare("other", false, &FieldTable::new()).unwrap();
    other.consume("other", true).unwrap();
    other.confirm_select().unwrap();
    let body = vec![1; 64 * 1024];
    // 32 MiB for one that does not take them; the other is served all the while.
    for i in 1..=512 {
        other.stage_publish("deaf", &body, &Properties::default());
        other.flush().unwrap();
        assert!(
            matches!(other.next().unwrap().method(), Method::BasicAck(a) if a.delivery_tag == i)
        );
    }
    let grown = broker.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB for 32 MiB of bodies", grown >> 20);
    other.publish("other", b"served").unwrap();
    let mut seen = 0;
    while seen < 2 {
        match other.next().unwrap() {
            f if f.kind == FrameKind::Method => seen += 1,
            _ => {}
        }
    }
    // It is hung up on: its consumer goes, and what it did not take waits for the next one.
    let deadline = Instant::now() + PATIENCE;
    let mut late = Client::connect(broker.address).unwrap();
    loop {
        let (ready, consumers) = late.counts("deaf").unwrap();
        if consumers == 0 {
            assert!(ready > 256, "{ready} are ready");
            break;
        }
        assert!(Instant::now() < deadline, "it is still there");
    }
    hung_up(&mut deaf);
}

#[test]
fn returns_to_a_client_that_never_reads_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LEVERET_PROTOCOL_WRITE_TIMEOUT_MS", "1000")];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let mut c = Client::connect(broker.address).unwrap();
    c.socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let before = broker.resident();
    let publish = basic::Publish {
        exchange: "".into(),
        routing_key: "nobody".into(),
        mandatory: true,
        immediate: false,
    };
    let properties = Properties::default().encode();
    let content = leveret::protocol::encode::Content {
        properties: &properties,
        body: &vec![7; 100_000],
    };
    // Until the broker, which cannot get rid of the returns, stops reading and hangs up.
    let failed = (0..10_000).any(|_| {
        leveret::protocol::encode::method(&mut c.out, 1, &publish);
        leveret::protocol::encode::content(&mut c.out, 1, &content, 131_072);
        let failed = c.flush().is_err();
        c.out.clear();
        failed
    });
    assert!(failed, "a gigabyte of returns was taken");
    let grown = broker.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}

#[test]
fn half_a_frame_is_counted_as_it_comes() {
    const SAID: usize = 60_000;
    let dir = tempfile::tempdir().unwrap();
    let settings = [("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0")];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let metrics = broker.listens("prometheus");
    let counted = || {
        let page = scrape(metrics);
        metric(&page, "leveret_memory_used_bytes{use=\"assembly\"}") as usize
    };
    let mut c = Client::connect(broker.address).unwrap();
    // A heartbeat of a hundred thousand octets: its head, and when that has been read more than half of it.
    c.socket.write_all(&[8, 0, 0, 0, 1, 0x86, 0xA0]).unwrap();
    counted();
    c.socket.write_all(&vec![0; SAID]).unwrap();
    let since = Instant::now();
    while counted() < SAID * 2 / 3 {
        assert!(since.elapsed() < PATIENCE, "{} are counted", counted());
    }
    drop(c);
    while counted() > 0 {
        assert!(since.elapsed() < 2 * PATIENCE, "{} are kept", counted());
    }
}

#[test]
fn both_sides_may_close_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = Client::connect(broker.address).unwrap();
    // An error that makes the broker close, and a close of our own behind it.
    let bad = basic::Publish {
        exchange: "".into(),
        routing_key: "".into(),
        mandatory: false,
        immediate: true,
    };
    leveret::protocol::encode::method(&mut c.out, 1, &bad);
    let content = leveret::protocol::encode::Content {
        properties: &Properties::default().encode(),
        body: b"",
    };
    leveret::protocol::encode::content(&mut c.out, 1, &content, 131_072);
    let close = connection::Close {
        reply_code: 200,
        reply_text: "bye",
        class_id: 0,
        method_id: 0,
    };
    c.send(0, &close).unwrap();
    let f = c.expect(connection::Close::ID).unwrap();
    assert!(matches!(f.method(), Method::ConnectionClose(close) if close.reply_code == 540));
    c.expect(connection::CloseOk::ID).unwrap();
    c.send(0, &connection::CloseOk).unwrap();
    hung_up(&mut c);
}

#[test]
fn a_stop_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let told = std::thread::spawn(move || {
        let f = c.expect(connection::Close::ID).unwrap();
        let Method::ConnectionClose(close) = f.method() else {
            unreachable!()
        };
        let told = (close.reply_code, close.reply_text.to_owned());
        c.send(0, &connection::CloseOk).unwrap();
        told
    });
    assert!(broker.stop(), "exit code 0");
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    assert_eq!(told.join().unwrap(), (320, text.to_owned()));
}

/// An address from which logins have failed waits, also with a right password. Others do not, and nobody for ever.
#[test]
fn failed_logins_slow_their_address_down() {
    const DELAY: Duration = Duration::from_millis(200);
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("LEVERET_PROTOCOL_FAILED_LOGINS_FREE", "3"),
        ("LEVERET_PROTOCOL_FAILED_LOGIN_DELAY_MS", "200"),
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
    ];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    let log_in = |address, password| {
        let began = Instant::now();
        let mut c = Client::raw_from(address, broker.address).unwrap();
        let done = c.log_in_as("guest", password).is_ok();
        assert_eq!(done, password == "guest");
        began.elapsed()
    };
    let (one, other) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    for _ in 0..5 {
        log_in(one, "wrong");
    }
    for password in ["wrong", "guest"] {
        assert!(log_in(one, password) >= DELAY);
    }
    // A mean of several: this machine may be busy.
    let n = 20;
    let took: Duration = (0..n).map(|_| log_in(other, "guest")).sum();
    assert!(took / n < DELAY, "{took:?}");
    broker.said.wait_for("connection slowed");
    let page = scrape(broker.listens("prometheus"));
    let slowed = metric(&page, "leveret_connections_slowed_total");
    assert!(slowed >= 2.0, "{slowed}");
    let failed = "rabbitmq_auth_attempts_failed_total{protocol=\"amqp091\"}";
    assert_eq!(metric(&page, failed), 6.0);
}
