//! Who has not logged in yet: whatever it says, in whatever order, it gets in only with what the server takes, is told
//! only what belongs to the handshake, and costs little.
//!
//! The input is a list of things to say, most of them well-formed as frames, and the first octet chooses the settings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use leveret::amqp::connection::{Connection, Parts};
use leveret::amqp::settings::{AnonymousLogin, Authenticator, Login, Refused, SessionSettings};
use leveret::protocol::encode;
use leveret::protocol::field_table::{FieldTable, FieldValue, TableRef};
use leveret::protocol::frame::{self, FRAME_END, FrameKind, PROTOCOL_HEADER, Parsed};
use leveret::protocol::methods::{Method, channel, connection};

use super::inbox::Inbox;
use super::octets::Octets;
use super::{session, within};

/// A broker without anything in it, and one connection.
const AT_REST: u64 = 2 << 20;

/// Start-ok may bring a table of which each octet is a value, twice.
const FOR_AN_OCTET: u64 = 512;

/// Octets of a frame before `tune-ok` at most, with everything.
const FRAME_MAX: usize = 131_072;

/// What the server says in a handshake at most: start, tune, open-ok, or a close.
const SAID_MAX: usize = 4096;

/// Takes guest's password, and whoever has a certificate; counts what it is asked.
#[derive(Default)]
struct Door {
    asked: AtomicUsize,
    let_in: Mutex<Vec<String>>,
}

impl Authenticator for Door {
    fn authenticate(&self, login: &Login<'_>) -> Result<(), Refused> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match (login.user, login.password) {
            ("guest", Some(b"guest")) | ("certified", None) => {
                self.let_in
                    .lock()
                    .expect("no panic")
                    .push(login.user.into());
                Ok(())
            }
            _ => Err(Refused("no".into())),
        }
    }
}

/// See the module.
pub fn run(input: &[u8]) {
    within(AT_REST, FOR_AN_OCTET, input.len(), || {
        converse(Octets::new(input))
    });
}

fn converse(mut input: Octets<'_>) {
    let mode = input.octet();
    let settings = SessionSettings {
        anonymous: match mode & 3 {
            0 | 1 => AnonymousLogin::of("guest", "guest"),
            2 => AnonymousLogin::of("guest", "changed"),
            _ => None,
        },
        frame_max: [131_072, 4096, 0][usize::from(mode >> 2) % 3],
        channel_max: [2047, 0, 1][usize::from(mode >> 4) % 3],
        ..SessionSettings::default()
    };
    let certified = match mode >> 6 {
        0 | 1 => None,
        2 => Some("certified".to_string()),
        _ => Some("nobody".to_string()),
    };
    let (door, inbox) = (Arc::new(Door::default()), Inbox::new(4, 1 << 16));
    let mut now = 1_700_000_000_000;
    let parts = Parts {
        broker: session::broker(),
        settings: Arc::new(settings),
        authenticator: door.clone(),
        outlet: inbox.clone(),
        bell: inbox,
        address: None,
        local: None,
        certified,
    };
    let mut machine = Connection::new(parts, now);
    let (mut pending, mut said) = (BytesMut::new(), Vec::new());
    let mut header = true;
    while !input.is_empty() && !machine.is_over() {
        if !say(&mut input, &mut pending) {
            now += u64::from(input.short());
            if machine.next_deadline().is_some_and(|at| at <= now) {
                machine.tick(now);
            }
        }
        let received = machine.receive(&pending, now);
        assert!(received.consumed <= pending.len());
        bytes::Buf::advance(&mut pending, received.consumed);
        if !machine.is_running() {
            assert!(
                received.needed <= FRAME_MAX.max(pending.len() + 1),
                "{}",
                received.needed
            );
        }
        said.extend(machine.output.to_vec());
        machine.output.clear();
        assert!(
            said.len() <= SAID_MAX || machine.is_running(),
            "{} octets",
            said.len()
        );
        look(&said, &machine, &door, &mut header);
        // Behind the handshake begins what other targets look at.
        if machine.is_running() {
            break;
        }
        machine.progress(now);
    }
    machine.lost(Vec::new(), now);
}

/// Adds something to what is said; false: time passes instead.
fn say(input: &mut Octets<'_>, to: &mut BytesMut) -> bool {
    match input.octet() % 14 {
        0 => to.extend_from_slice(&PROTOCOL_HEADER),
        1 => start_ok(input, to),
        2 => {
            let tune = connection::TuneOk {
                channel_max: input.one(&[0, 1, 2047, 2048, 65_535]),
                frame_max: input.one(&[0, 1, 4095, 4096, 131_072, 131_073, u32::MAX]),
                heartbeat: input.short(),
            };
            encode::method(to, 0, &tune);
        }
        3 => {
            let virtual_host = input.one(&["/", "", "none", "\u{1F407}"]);
            encode::method(to, 0, &connection::Open { virtual_host });
        }
        4 => encode::method(to, 0, &connection::CloseOk),
        5 => encode::method(to, 0, &connection::Close::default()),
        6 => encode::method(to, 1, &channel::Open),
        7 => encode::heartbeat(to),
        8 => {
            let n = usize::from(input.octet());
            to.extend_from_slice(input.take(n));
        }
        // Any frame, complete.
        9 | 10 => {
            let kind = input.one(&[1, 1, 2, 3, 8, 0, 9]);
            let channel = input.one(&[0, 0, 1, 65_535]);
            let n = usize::from(input.short() & 0x3FF);
            let payload = input.take(n);
            frame(to, kind, channel, payload.len() as u32, payload);
        }
        // One that is, or says that it is, too large.
        11 => {
            let length = input.long();
            frame(to, input.one(&[1, 2, 3, 8]), 0, length, &[]);
        }
        12 => {
            let length = FRAME_MAX as u32 - 8 + u32::from(input.octet() & 1);
            let octet = input.octet();
            frame(to, 1, 0, length, &vec![octet; length as usize]);
        }
        _ => return false,
    }
    true
}

fn frame(to: &mut BytesMut, kind: u8, channel: u16, length: u32, payload: &[u8]) {
    to.extend_from_slice(&[kind]);
    to.extend_from_slice(&channel.to_be_bytes());
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(payload);
    to.extend_from_slice(&[FRAME_END]);
}

fn start_ok(input: &mut Octets<'_>, to: &mut BytesMut) {
    let mut properties = FieldTable::new();
    let mut capabilities = FieldTable::new();
    let flags = input.octet();
    if flags & 1 == 1 {
        capabilities.insert("authentication_failure_close", flags & 2 == 2);
    }
    if flags & 4 == 4 {
        properties.insert("capabilities", capabilities);
    }
    if flags & 8 == 8 {
        let n = usize::from(input.octet());
        properties.insert(
            "connection_name",
            FieldValue::LongStr(input.take(n).to_vec()),
        );
    }
    let mut table = properties.to_bytes();
    if flags & 16 == 16 {
        let n = usize::from(input.octet());
        table.extend(input.take(n));
    }
    let mechanism = input.one(&["PLAIN", "AMQPLAIN", "ANONYMOUS", "EXTERNAL", "", "plain"]);
    let mut login = FieldTable::new();
    let (user, password) = (
        input.one(&["guest", "certified", "nobody"]),
        input.one(&["guest", ""]),
    );
    login.insert("LOGIN", user);
    login.insert("PASSWORD", password);
    let n = usize::from(input.octet() >> 1);
    let response = match input.octet() % 4 {
        0 if mechanism == "AMQPLAIN" => login.to_bytes(),
        0 => format!("\0{user}\0{password}").into_bytes(),
        // With its length, as some clients write it.
        1 => {
            let mut octets = Vec::new();
            login.encode_into(&mut octets);
            octets
        }
        _ => input.take(n).to_vec(),
    };
    let start = connection::StartOk {
        client_properties: TableRef::unchecked(&table),
        mechanism,
        response: &response,
        locale: "en_US",
    };
    encode::method(to, 0, &start);
}

/// What was said so far belongs to a handshake; nobody is in who was not let in.
fn look(said: &[u8], machine: &Connection, door: &Door, header: &mut bool) {
    let mut rest = said;
    let (mut tuned, mut opened, mut closed, mut ended) = (0, 0, false, false);
    while !rest.is_empty() {
        // What is not our protocol is told ours, and that is all.
        if rest == PROTOCOL_HEADER && *header {
            assert!(machine.is_over());
            return;
        }
        *header = false;
        let Ok(Parsed::Frame { frame, size }) = frame::parse(rest, 0) else {
            panic!("not a frame: {rest:?}");
        };
        assert_eq!((frame.kind, frame.channel), (FrameKind::Method, 0));
        let method = Method::decode(frame.payload).expect("we can read what we write");
        // Both may close at once: the peer's end is confirmed behind ours, as often as it says so.
        let confirms = matches!(method, Method::ConnectionCloseOk(_));
        assert!(!ended && (!closed || confirms), "{method:?} behind the end");
        match method {
            Method::ConnectionStart(_) => assert_eq!(rest.len(), said.len(), "not the first"),
            Method::ConnectionTune(_) => tuned += 1,
            Method::ConnectionOpenOk(_) => opened += 1,
            Method::ConnectionClose(_) => closed = true,
            Method::ConnectionCloseOk(_) => ended = !closed,
            other => panic!("{other:?} in a handshake"),
        }
        rest = &rest[size..];
    }
    let let_in = door.let_in.lock().expect("no panic");
    assert!(tuned <= 1 && opened <= 1 && let_in.len() <= 1);
    assert!(door.asked.load(Ordering::Relaxed) <= 1, "asked again");
    assert_eq!(tuned, let_in.len(), "tuned, and not let in");
    assert!(opened <= tuned && machine.is_running() == (opened == 1 && !closed && !ended));
    let user = let_in.first().map(String::as_str).unwrap_or_default();
    assert_eq!(machine.peer.user, user);
}
