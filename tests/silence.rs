//! Who is taken for gone, and who is not.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::properties::Properties;
use rustix::process::Signal;
use support::{Broker, Client, PATIENCE};

const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xCE];

/// A client with this heartbeat, in seconds, and channel 1.
fn beating(broker: &Broker, heartbeat: u16) -> Client {
    let mut c = Client::raw(broker.address).unwrap();
    c.login_with(131_072, heartbeat).unwrap();
    c.send(1, &channel::Open).unwrap();
    c.expect(channel::OpenOk::ID).unwrap();
    c
}

#[test]
fn a_frame_that_arrives_slowly_is_no_silence() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = beating(&broker, 1);
    c.declare("slow", false, &FieldTable::new()).unwrap();
    c.stage_publish("slow", &[7; 4000], &Properties::default());
    let frames = std::mem::take(&mut c.out);
    // A part with each heartbeat of the broker, twice a second: three times what a silence may take.
    for part in frames.chunks(350) {
        c.socket.write_all(part).unwrap();
        c.any().unwrap();
    }
    assert_eq!(c.get("slow", true).unwrap().unwrap().body, [7; 4000]);
}

#[test]
fn peers_of_a_broker_that_was_stopped_for_a_while_are_heard_before_they_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut clients: Vec<Client> = (0..30).map(|_| beating(&broker, 1)).collect();
    let mut gone = beating(&broker, 1);
    broker.signal(Signal::STOP);
    // Nothing comes for longer than two heartbeats, while theirs wait in the sockets.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3500) {
        for c in &mut clients {
            c.socket.write_all(&HEARTBEAT).unwrap();
        }
        let c = &mut clients[0];
        c.socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        while c.socket.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        c.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    broker.signal(Signal::CONT);
    for (n, c) in clients.iter_mut().enumerate().skip(1) {
        c.send(1, &basic::Qos::default()).unwrap();
        c.expect(basic::QosOk::ID)
            .unwrap_or_else(|e| panic!("{n}: {e}"));
    }
    // Who has said nothing is judged then.
    let began = Instant::now();
    while gone.socket.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
        assert!(began.elapsed() < PATIENCE);
    }
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn who_is_silent_behind_an_error_is_reset() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = beating(&broker, 1);
    let began = Instant::now();
    c.send(9, &basic::Ack::default()).unwrap();
    c.expect(connection::Close::ID).unwrap();
    let mut rest = [0; 4096];
    let e = loop {
        match c.socket.read(&mut rest) {
            Ok(0) => panic!("a FIN, as if it could still write"),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(4),
        "{took:?}"
    );
}
