//! Definitions that change in bulk cost what they keep.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret::broker::ports::{DefinitionChange, DefinitionKind, MessageLog, Records};
use leveret::storage::files::Disk;
use leveret::storage::{LogOptions, SegmentedLog};

/// Definitions that change in each round.
const CHANGES: u64 = 40_000;

/// Rounds in which caches fill up: sled's of 16 MiB, and what the journal is made anew from.
const WARM_UP_ROUNDS: usize = 4;

/// Memory that the rounds after those may take, all together: a cache may still fill up. What all of them keep for good takes
/// twice as much.
const GROWTH_MAX_BYTES: u64 = 24 << 20;

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn change(round: u64, number: u64) -> DefinitionChange {
    DefinitionChange {
        kind: DefinitionKind::Binding,
        key: number.to_be_bytes().to_vec(),
        value: Some(vec![round as u8; 80]),
    }
}

#[test]
fn memory_is_flat_however_often_definitions_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LogOptions::new(dir.path());
    options.reclaim_interval = Duration::from_millis(5);
    options.segment_bytes = 1 << 20;
    let (log, _) = SegmentedLog::open(options, Arc::new(Disk)).unwrap();
    let mut after = Vec::new();
    for round in 0..8 {
        let mut records = Records::default();
        for number in 0..CHANGES {
            records.definitions.push(change(round, number));
            if records.definitions.len() == 1000 {
                log.append(&mut records).unwrap();
            }
        }
        // All segments but the active one go once their definitions are checkpointed.
        let deadline = Instant::now() + Duration::from_secs(120);
        while log.stats().segments > 1 {
            assert!(Instant::now() < deadline, "nothing is checkpointed");
            std::thread::yield_now();
        }
        after.push(resident_bytes());
    }
    let growth = after
        .last()
        .unwrap()
        .saturating_sub(after[WARM_UP_ROUNDS - 1]);
    assert!(
        growth < GROWTH_MAX_BYTES,
        "bytes after each round: {after:?}"
    );
}
