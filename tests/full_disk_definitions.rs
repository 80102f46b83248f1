//! A disk that is full, for a while.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use leveret::protocol::field_table::FieldTable;
use support::{Broker, Client};

/// A disk of our own: a file system in memory on this folder.
const DISK: &str = "/mnt";

const SEGMENT_BYTES: u64 = 8 << 20;

fn segments(data: &Path) -> usize {
    let files = std::fs::read_dir(data.join("log")).unwrap();
    files
        .filter(|f| {
            f.as_ref()
                .is_ok_and(|f| f.path().extension().is_some_and(|e| e == "segment"))
        })
        .count()
}

fn large(n: u32) -> FieldTable {
    let mut arguments = FieldTable::new();
    arguments.insert("note", n.to_string().repeat(1000));
    arguments
}

#[test]
fn what_is_defined_while_the_disk_is_full_keeps_no_segment_afterwards() {
    let test = "what_is_defined_while_the_disk_is_full_keeps_no_segment_afterwards";
    let setup = format!("mount -t tmpfs -o size=192m leveret {DISK}");
    if !support::goes_on_apart(test, "--mount", &setup) {
        return;
    }
    let dir = tempfile::tempdir_in(DISK).unwrap();
    let data = dir.path().join("data");
    let settings = [
        ("LEVERET_DISK_FREE_LIMIT_BYTES", "1"),
        ("LEVERET_STORAGE_SEGMENT_BYTES", "8MiB"),
        ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
        // Nothing is left for the definitions: that is what is tried here.
        ("LEVERET_DISK_RESERVE_BYTES", "0"),
    ];
    let broker = Broker::start_with(&data, &[], &settings);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();

    let ballast = dir.path().join("ballast");
    let file = std::fs::File::create(&ballast).unwrap();
    let stat = rustix::fs::statvfs(dir.path()).unwrap();
    let none = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, none, 0, stat.f_bavail * stat.f_frsize).unwrap();
    drop(file);
    let failed = || {
        let mut lines = broker.said.lines().into_iter();
        lines.any(|line| line.contains("it will be tried again"))
    };
    let mut defined = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !failed() {
        assert!(Instant::now() < deadline, "it is not told");
        // The log has no room for more than a segment.
        if u64::from(defined) < SEGMENT_BYTES / 2 / 4000 {
            c.declare(&format!("q{defined}"), true, &large(defined))
                .unwrap();
            defined += 1;
        }
    }
    std::fs::remove_file(&ballast).unwrap();
    broker.said.wait_for("works again");

    // The publisher may be held back until the alarm is over.
    let mut consumer = Client::connect(broker.address).unwrap();
    consumer.consume("q", true).unwrap();
    for _ in 0..100 {
        for _ in 0..4 {
            c.publish("q", &[7; 200_000]).unwrap();
        }
        for _ in 0..4 {
            consumer.delivery().unwrap();
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while segments(&data) > 2 {
        assert!(Instant::now() < deadline, "{} segments", segments(&data));
        std::thread::yield_now();
    }
    broker.kill();
    let broker = Broker::start_with(&data, &[], &settings);
    let mut c = Client::connect(broker.address).unwrap();
    for n in 0..defined {
        c.counts(&format!("q{n}")).unwrap();
    }
}
