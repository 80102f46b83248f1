//! A disk that does not do what it said: a thin one, which has promised more than there is, and one that does not answer
//! for a while. Each is a loop device in memory, in a mount namespace of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod as _, Method};
use support::{Broker, Client};

/// Where the disk is mounted; beside it is what it is made of.
const DISK: &str = "/mnt/disk";

/// ext4 of 256 MiB, of which there are 48.
const THIN: &str = "mount -t tmpfs -o size=48m leveret /mnt && mkdir /mnt/disk && truncate -s 256M /mnt/image && \
    mkfs.ext4 -q -F -m 0 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 /mnt/image && mount -o loop /mnt/image /mnt/disk";

const SETTINGS: [(&str, &str); 4] = [
    ("LEVERET_LISTENERS_PROMETHEUS", ""),
    ("LEVERET_STORAGE_SEGMENT_BYTES", "4MiB"),
    ("LEVERET_DISK_FREE_LIMIT_BYTES", "1MiB"),
    ("LEVERET_DISK_RESERVE_BYTES", "0"),
];

/// Messages of 20,000 octets that a request to the disk has at most: 2 MiB of them.
const REQUEST_MESSAGES: u64 = 105;

fn run(command: &str) {
    let done = Command::new("/bin/sh").args(["-c", command]).status();
    assert!(done.unwrap().success(), "{command}");
}

/// Publishes numbers until the connection ends or nothing is confirmed for a while; the last one that was.
fn publish_until_it_ends(c: &mut Client) -> u64 {
    c.confirm_select().unwrap();
    let patience = Some(Duration::from_secs(3));
    c.socket.set_read_timeout(patience).unwrap();
    let mut body = vec![7; 20_000];
    let mut confirmed = 0;
    for number in 1u64.. {
        body[..8].copy_from_slice(&number.to_be_bytes());
        if c.publish("q", &body).is_err() {
            break;
        }
        while confirmed + 20 < number {
            match c.next() {
                Ok(frame) => match frame.method() {
                    Method::BasicAck(ack) => confirmed = ack.delivery_tag,
                    Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_) => {}
                    _ => return confirmed,
                },
                Err(_) => return confirmed,
            }
        }
    }
    confirmed
}

#[test]
fn a_disk_that_has_promised_more_than_there_is_ends_the_broker_and_the_next_one_goes_on() {
    let test =
        "a_disk_that_has_promised_more_than_there_is_ends_the_broker_and_the_next_one_goes_on";
    if !support::goes_on_apart(test, "--mount", THIN) {
        return;
    }
    let data = Path::new(DISK).join("data");
    let mut broker = Broker::start_with(&data, &[], &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    let confirmed = publish_until_it_ends(&mut c);
    assert!(confirmed > 0);
    // Pages that could not be written are as good as gone: that is for the next start.
    broker.said.wait_for("the message log failed");
    assert!(!broker.ended(), "it says so");
    // There is more of it now, and the system forgets what it could not write.
    run(
        "mount -o remount,size=512m /mnt && umount /mnt/disk && mount -o loop /mnt/image /mnt/disk",
    );
    let broker = Broker::start_with(&data, &[], &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    // What the disk has said it has, and has: the loop driver takes a write of which its file took only the
    // beginning for done, and that is one request.
    let mut found = 0;
    while let Some(got) = c.get("q", true).unwrap() {
        found += 1;
        assert_eq!(
            got.body[..8],
            u64::to_be_bytes(found),
            "in order, without a gap"
        );
    }
    assert!(
        found + REQUEST_MESSAGES >= confirmed,
        "{found} of {confirmed} are there"
    );
    drop(c);
    assert!(broker.stop());
}

#[test]
fn a_disk_that_does_not_answer_keeps_only_those_waiting_that_need_it() {
    let test = "a_disk_that_does_not_answer_keeps_only_those_waiting_that_need_it";
    if !support::goes_on_apart(test, "--mount", THIN) {
        return;
    }
    let data = Path::new(DISK).join("data");
    let broker = Broker::start_with(&data, &[], &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    c.declare("t", false, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    for n in 0..100u8 {
        c.publish("q", &[n]).unwrap();
        c.expect(basic::Ack::ID).unwrap();
    }
    run("fsfreeze -f /mnt/disk");
    let since = Instant::now();
    c.publish("q", &[100]).unwrap();
    // Others log in, get, acknowledge, and pass on what is not for the disk, each within moments.
    let mut slowest = Duration::ZERO;
    let mut got = 0u8;
    while since.elapsed() < Duration::from_secs(3) && got < 100 {
        let one = Instant::now();
        let mut other = Client::connect(broker.address).unwrap();
        let message = other.get("q", false).unwrap().unwrap();
        assert_eq!(message.body, [got]);
        other.ack(message.tag, false).unwrap();
        other.stage_publish("t", &[got], &Properties::default());
        other.flush().unwrap();
        assert_eq!(other.get("t", true).unwrap().unwrap().body, [got]);
        got += 1;
        slowest = slowest.max(one.elapsed());
    }
    let moment = Some(Duration::from_millis(50));
    c.socket.set_read_timeout(moment).unwrap();
    assert!(
        c.next().is_err(),
        "confirmed by a disk that does not answer"
    );
    c.socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    run("fsfreeze -u /mnt/disk");
    support::tell(&format!("{test}: {got} others, {slowest:?} at most"));
    assert!(got > 2 && slowest < Duration::from_secs(2), "{slowest:?}");
    c.expect(basic::Ack::ID).unwrap();
    broker.kill();
    let broker = Broker::start_with(&data, &[], &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    // What was acknowledged may be there again.
    c.qos(0).unwrap();
    c.consume("q", true).unwrap();
    let first = c.delivery().unwrap().body[0];
    assert!(first <= got);
    for n in first + 1..=100 {
        assert_eq!(c.delivery().unwrap().body, [n]);
    }
}
