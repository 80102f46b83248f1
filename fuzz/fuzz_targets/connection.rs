//! A connection of a peer that says anything: no panic, and no answer that is larger than it may be.
//!
//! The first byte chooses whether the handshake is done for it; the rest is what it sends, in pieces,
//! with time passing between them.

#![no_main]

use std::sync::{Arc, Mutex};

use leveret::amqp::connection::{Connection, Parts};
use leveret::amqp::settings::{Authenticator, Login, Refused, SessionSettings};
use leveret::broker::Broker;
use leveret::broker::access::User;
use leveret::broker::outlet::{ConsumerKey, Delivery, Notice, Outlet, Room};
use leveret::broker::ports::Bell;
use leveret::broker::queue::Queue;
use leveret::protocol::frame::{self, Parsed};
use leveret::storage::memory::MemoryLog;
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Inbox(Mutex<(Vec<Delivery>, Vec<Notice>)>);

impl Bell for Inbox {
    fn ring(&self) {}
}

impl Outlet for Inbox {
    fn room(&self, _: &Arc<Queue>, _: u32) -> Option<Room> {
        Some(Room {
            deliveries: 64,
            bytes: 1 << 20,
        })
    }

    fn push(&self, deliveries: &mut Vec<Delivery>) -> bool {
        self.0.lock().expect("no panic").0.append(deliveries);
        true
    }

    fn withdraw(&self, consumer: ConsumerKey) -> Vec<Delivery> {
        let mut inbox = self.0.lock().expect("no panic");
        inbox.0.extract_if(.., |d| d.consumer == consumer).collect()
    }

    fn notify(&self, notice: Notice) -> bool {
        self.0.lock().expect("no panic").1.push(notice);
        true
    }
}

struct Anybody;

impl Authenticator for Anybody {
    fn authenticate(&self, _: &Login<'_>) -> Result<(), Refused> {
        Ok(())
    }
}

/// A handshake as `guest`, and channel 1.
const HANDSHAKE: &[u8] = b"AMQP\0\0\x09\x01\
    \x01\0\0\0\0\0\x24\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US\xce\
    \x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x40\0\x01\0\0\0\x0a\xce\
    \x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce\
    \x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce";

fuzz_target!(|input: &[u8]| {
    let Some((mode, input)) = input.split_first() else {
        return;
    };
    let log = MemoryLog::new();
    let Ok((broker, _)) = Broker::new(log, &[]) else {
        panic!("an empty broker starts");
    };
    let broker = Arc::new(broker);
    broker.add_vhost("/").expect("accepted");
    let guest = User {
        name: "guest".into(),
        password_hash: String::new(),
        hashing_algorithm: String::new(),
        tags: Vec::new(),
    };
    broker.put_user(guest).expect("accepted");
    broker
        .put_permissions("guest", "/", [".*"; 3])
        .expect("accepted");
    let inbox = Arc::new(Inbox::default());
    let parts = Parts {
        broker,
        settings: Arc::new(SessionSettings::default()),
        authenticator: Arc::new(Anybody),
        outlet: inbox.clone(),
        bell: inbox.clone(),
        address: None,
        local: None,
        certified: None,
    };
    let mut now = 1_700_000_000_000;
    let mut machine = Connection::new(parts, now);
    let mut bytes = Vec::new();
    if mode & 1 == 0 {
        bytes.extend(HANDSHAKE);
    }
    bytes.extend(input);
    let piece = match mode >> 1 {
        0 => bytes.len().max(1),
        n => usize::from(n),
    };
    let mut pending = Vec::new();
    for part in bytes.chunks(piece) {
        pending.extend(part);
        let received = machine.receive(&pending, now);
        pending.drain(..received.consumed);
        let (mut deliveries, notices) = std::mem::take(&mut *inbox.0.lock().expect("no panic"));
        machine.deliver(&mut deliveries, now);
        for notice in notices {
            machine.notice(notice, now);
        }
        machine.progress(now);
        now += 7;
        if machine.next_deadline().is_some_and(|at| at <= now) {
            machine.tick(now);
        }
        // Everything that is said is frames, and never more than there is a reason for.
        let said = machine.output.split();
        assert!(said.len() < (8 << 20) + 64 * bytes.len(), "{} octets", said.len());
        let mut rest = &said[..];
        if rest.starts_with(b"AMQP") {
            rest = &rest[8..];
        }
        while !rest.is_empty() {
            match frame::parse(rest, 0) {
                Ok(Parsed::Frame { size, .. }) => rest = &rest[size..],
                other => panic!("not a frame: {other:?}"),
            }
        }
        if machine.is_over() {
            break;
        }
    }
    let left = std::mem::take(&mut inbox.0.lock().expect("no panic").0);
    machine.lost(left, now);
});
