//! What stands in the data folder and is not as the broker left it: told by name, and passed over.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use support::{Broker, Client};

const SMALL: (&str, &str) = ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB");

/// Confirmed messages; each takes most of a segment.
fn publish(broker: &Broker, n: usize) {
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    for _ in 0..n {
        c.publish("q", &[1; 600_000]).unwrap();
        c.expect(basic::Ack::ID).unwrap();
    }
}

fn drained(broker: &Broker) -> usize {
    let mut c = Client::connect(broker.address).unwrap();
    let mut n = 0;
    while c.get("q", true).unwrap().is_some() {
        n += 1;
    }
    n
}

#[test]
fn a_folder_in_place_of_the_reserve_holds_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("reserve")).unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    broker
        .said
        .wait_for("/reserve: room for when the disk is full");
    publish(&broker, 1);
    fs::remove_dir(dir.path().join("reserve")).unwrap();
    broker.said.wait_for("/reserve: can be made again");
    assert!(broker.stop());
}

#[test]
fn a_folder_named_like_a_segment_behind_the_end_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    publish(&broker, 2);
    broker.kill();
    let folder = dir.path().join("log/0000000099.segment");
    fs::create_dir_all(folder.join("x")).unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    broker.said.wait_for("0000000099.segment.unreadable");
    assert!(!folder.exists());
    publish(&broker, 1);
    assert_eq!(drained(&broker), 3);
    assert!(broker.stop());
}

#[test]
fn a_sealed_segment_that_can_only_be_read_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    publish(&broker, 4);
    broker.kill();
    let first = dir.path().join("log/0000000001.segment");
    fs::set_permissions(&first, fs::Permissions::from_mode(0o400)).unwrap();
    // Root writes whatever the mode says, unless it may not.
    let shell = match rustix::process::geteuid().is_root() {
        true => "set -- setpriv --bounding-set=-dac_override \"$@\"",
        false => ":",
    };
    let broker = Broker::start_after(shell, dir.path(), &[SMALL]);
    assert_eq!(drained(&broker), 4);
    assert!(broker.stop());
}

#[test]
fn files_that_were_made_long_take_neither_memory_nor_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    publish(&broker, 3);
    broker.kill();
    for name in [
        "definitions.journal",
        "log/0000000001.segment",
        "log/0000000003.segment",
    ] {
        let file = fs::File::options().write(true).open(dir.path().join(name));
        file.unwrap().set_len(1 << 40).unwrap();
    }
    let broker = Broker::start(dir.path(), &[SMALL]);
    let resident = broker.resident();
    assert!(resident < 200 << 20, "{resident}");
    assert_eq!(drained(&broker), 3);
    assert!(broker.stop());
}
