//! A connection of a peer that says anything: no panic, no answer that is larger than it may be, and no more
//! memory than there is a reason for.
//!
//! The first byte chooses whether the handshake is done for it; the rest is what it sends, in pieces,
//! with time passing between them.

use leveret::amqp::settings::SessionSettings;
use leveret::protocol::frame::{self, Parsed};

use super::inbox::Inbox;
use super::{session, within};

/// What a broker and a connection take that were told nothing, with the buffers and the routes that a
/// connection may have, octets.
const AT_REST: u64 = 4 << 20;

/// What an octet that was received may cost: the least `queue.declare` has 21, and makes a queue.
const FOR_AN_OCTET: u64 = 512;

/// See the module.
pub fn run(input: &[u8]) {
    let Some((mode, input)) = input.split_first() else {
        return;
    };
    within(AT_REST, FOR_AN_OCTET, input.len(), || {
        converse(*mode, input)
    });
}

fn converse(mode: u8, input: &[u8]) {
    let inbox = Inbox::new(64, 1 << 20);
    let mut now = 1_700_000_000_000;
    let mut machine =
        session::connection(&session::broker(), &inbox, SessionSettings::default(), now);
    let mut bytes = Vec::new();
    if mode & 1 == 0 {
        bytes.extend(session::HANDSHAKE);
    }
    bytes.extend(input);
    let piece = match mode >> 1 {
        0 => bytes.len().max(1),
        n => usize::from(n),
    };
    let mut pending = Vec::new();
    for part in bytes.chunks(piece) {
        pending.extend(part);
        loop {
            let received = machine.receive(&pending, now);
            pending.drain(..received.consumed);
            if !received.more {
                break;
            }
        }
        let mut deliveries = std::mem::take(&mut *inbox.deliveries.lock().expect("no panic"));
        let notices = std::mem::take(&mut *inbox.notices.lock().expect("no panic"));
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
        let said = machine.output.to_vec();
        machine.output.clear();
        assert!(
            said.len() < (8 << 20) + 64 * bytes.len(),
            "{} octets",
            said.len()
        );
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
    let left = std::mem::take(&mut *inbox.deliveries.lock().expect("no panic"));
    machine.lost(left, now);
}
