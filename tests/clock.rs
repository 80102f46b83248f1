//! Clocks that jump: what expires or is delayed takes its time, however wrong the wall clock was before, after, or in
//! between. Nobody sets this machine's clock here: a note in the data folder that is wrong by a year does the same.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use leveret::clock::{self, Note};
use leveret::protocol::EncodeMethod as _;
use leveret::protocol::Method;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use leveret::protocol::properties::{Properties, parse_content_header};
use rustix::process::Signal;
use support::{Broker, Client};

const YEAR: i64 = 365 * 24 * 3_600_000;

/// What a broker before would have left whose clock was wrong by so many milliseconds, on this machine or another one.
fn leave(data: &Path, wrong: i64, this_machine: bool) {
    let note = clock::note();
    let note = Note {
        now_ms: note.now_ms.saturating_add_signed(wrong),
        machine: match this_machine {
            true => note.machine,
            false => Some("another".into()),
        },
        ..note
    };
    std::fs::create_dir_all(data).unwrap();
    std::fs::write(data.join("clock"), note.line()).unwrap();
}

/// The machine is not the same any more: it was started again.
fn start_the_machine_again(data: &Path) {
    let text = std::fs::read_to_string(data.join("clock")).unwrap();
    let note = Note::read(&text).unwrap();
    let machine = Some("another".into());
    std::fs::write(data.join("clock"), Note { machine, ..note }.line()).unwrap();
}

fn with(expiration: &str, delay: Option<i64>) -> Properties {
    let mut headers = FieldTable::new();
    if let Some(delay) = delay {
        headers.insert("x-delay", delay);
    }
    Properties {
        delivery_mode: Some(2),
        headers: Some(headers),
        expiration: Some(expiration).filter(|e| !e.is_empty()).map(Into::into),
        ..Properties::default()
    }
}

/// Messages with expirations and delays, all confirmed; when they were published.
fn publish(c: &mut Client) -> Instant {
    let mut arguments = FieldTable::new();
    arguments.insert("x-dead-letter-exchange", "");
    arguments.insert("x-dead-letter-routing-key", "dead");
    c.declare("q", true, &arguments).unwrap();
    c.declare("dead", true, &FieldTable::new()).unwrap();
    c.declare("out", true, &FieldTable::new()).unwrap();
    let mut arguments = FieldTable::new();
    arguments.insert("x-delayed-type", "fanout");
    c.declare_exchange("later", "x-delayed-message", &arguments)
        .unwrap();
    c.bind("out", "later", "").unwrap();
    c.confirm_select().unwrap();
    let since = Instant::now();
    c.stage_publish("q", b"short", &with(&SHORT.as_millis().to_string(), None));
    c.stage_publish("q", b"long", &with("600000", None));
    let delay = DELAY.as_millis() as i64;
    c.stage_publish_to("later", "", b"delayed", &with("", Some(delay)));
    c.flush().unwrap();
    let mut confirmed = 0;
    while confirmed < 3 {
        let frame = c.expect(basic::Ack::ID).unwrap();
        let Method::BasicAck(ack) = frame.method() else {
            unreachable!("it was asked for")
        };
        confirmed = ack.delivery_tag;
    }
    since
}

const SHORT: Duration = Duration::from_millis(1500);
const DELAY: Duration = Duration::from_millis(2000);

/// Each comes when its time has come, seconds after it at most, and what has time is there.
fn each_in_its_time(broker: &Broker, since: Instant) {
    const LATE_MAX: Duration = Duration::from_secs(10);
    let mut dead = Client::connect(broker.address).unwrap();
    dead.consume("dead", true).unwrap();
    dead.expect(basic::Deliver::ID).unwrap();
    assert!(since.elapsed() >= SHORT, "it expired early");
    assert!(since.elapsed() < SHORT + LATE_MAX, "it expired late");
    let header = dead.next().unwrap();
    let properties = parse_content_header(&header.payload).unwrap().properties;
    let headers = properties.headers().unwrap();
    let deaths = headers.get("x-death").unwrap().to_owned();
    let text = format!("{deaths:?}");
    let died: u64 = text
        .split("Timestamp(")
        .nth(1)
        .and_then(|rest| rest.split(')').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no time in {text}"));
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let wall = wall.unwrap().as_secs();
    assert!(
        wall.abs_diff(died) < 30,
        "x-death has the time of the wall clock: {died}, {wall}"
    );
    let mut c = Client::connect(broker.address).unwrap();
    let long = c.get("q", true).unwrap();
    assert_eq!(long.map(|m| m.body), Some(b"long".to_vec()));
    c.consume("out", true).unwrap();
    assert_eq!(c.delivery().unwrap().body, b"delayed");
    assert!(since.elapsed() >= DELAY, "it came early");
    assert!(since.elapsed() < DELAY + LATE_MAX, "it came late");
}

fn over_a_restart(wrong: i64, of_the_machine: bool) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    leave(&data, wrong, true);
    let broker = Broker::start(&data, &[]);
    let since = publish(&mut Client::connect(broker.address).unwrap());
    broker.kill();
    if of_the_machine {
        start_the_machine_again(&data);
    }
    let broker = Broker::start(&data, &[]);
    broker.said.wait_for("the wall clock was set");
    each_in_its_time(&broker, since);
}

#[test]
fn a_clock_that_was_set_back_a_year_before_a_restart() {
    over_a_restart(YEAR, false);
}

#[test]
fn a_clock_that_was_set_forward_a_year_before_a_restart() {
    over_a_restart(-YEAR, false);
}

#[test]
fn a_machine_that_starts_again_with_a_clock_that_is_a_year_behind() {
    over_a_restart(YEAR, true);
}

#[test]
fn a_note_that_is_damaged_costs_nothing_but_itself() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let since = publish(&mut Client::connect(broker.address).unwrap());
    broker.kill();
    std::fs::write(data.join("clock"), "999999999999999 0 - 00000000\n").unwrap();
    let broker = Broker::start(&data, &[]);
    broker.said.wait_for("clock is damaged");
    each_in_its_time(&broker, since);
}

#[test]
fn what_expires_while_the_process_does_not_run_has_expired_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let since = publish(&mut c);
    broker.signal(Signal::STOP);
    while since.elapsed() < DELAY {
        std::thread::park_timeout(DELAY.saturating_sub(since.elapsed()));
    }
    // The question is there before any timer has run.
    c.send(
        1,
        &basic::Get {
            queue: "q",
            no_ack: true,
        },
    )
    .unwrap();
    broker.signal(Signal::CONT);
    c.expect(basic::GetOk::ID).unwrap();
    assert_eq!(c.content().unwrap(), b"long", "the short one has expired");
    c.consume("out", true).unwrap();
    assert_eq!(c.delivery().unwrap().body, b"delayed");
    assert_eq!(c.counts("dead").unwrap().0, 1);
}
