//! Tests of giving disk space back on a disk that says no.

use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Of messages in queue 1 each tenth is not settled; of the later ones half, too many for a rewrite.
fn stays(n: u64) -> bool {
    n.is_multiple_of(10) || n >= 100 && n.is_multiple_of(2)
}

/// Messages in queue 1, all durable, and most of them settled; durably, too.
fn mostly_settled(log: &SegmentedLog, n: u64) -> Vec<u64> {
    let mut records = Records::default();
    let mut last = Lsn::default();
    for n in 0..n {
        stage(&mut records, message(n, 200), &[1]);
        last = log.append(&mut records).expect("accepted").lsn;
    }
    wait(log, last);
    // The settles are between messages that are settled, too: nothing keeps their segment.
    let mut around = Vec::new();
    let fill = |records: &mut Records| {
        (0..20).for_each(|_| stage(records, message(0, 1000), &[2]));
        log.append(records).expect("accepted").first_id.0
    };
    around.push(fill(&mut records));
    let settled = (0..n).filter(|n| !stays(*n));
    records
        .settles
        .extend(settled.map(|n| (QueueId(1), MessageId(n + 1))));
    log.append(&mut records).expect("accepted");
    around.push(fill(&mut records));
    for first in around {
        let last = MessageId(first + 19);
        let range = (QueueId(2), MessageId(first), last);
        records.settled_ranges.push(range);
    }
    wait(log, log.append(&mut records).expect("accepted").lsn);
    (0..n).filter(|n| stays(*n)).collect()
}

/// Everything there is to do for the reclaiming thread, `passes` times.
fn reclaim(log: &SegmentedLog, passes: usize) {
    let mut reclaim = reclaim::Reclaim::default();
    for _ in 0..passes {
        reclaim.pass(&log.inner);
        while reclaim.step(&log.inner) {}
    }
}

/// A dead letter's settle and its new publish are one record: until that is durable, the old copy is the
/// only one.
#[test]
fn a_settle_is_not_believed_before_it_is_durable() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let mut expected = mostly_settled(&log, 400);
    let mut records = Records::default();
    for n in &expected {
        records.settles.push((QueueId(1), MessageId(n + 1)));
        stage(&mut records, message(*n, 1), &[2]);
    }
    log.append(&mut records).expect("accepted");
    reclaim(&log, 3);
    let after = disk.after_power_cut(&mut 3);
    drop(log);
    let (log, _) = open_with(&idle(dir.path()), &after);
    let mut found: Vec<u64> = recovered(&log).into_values().flatten().collect();
    found.sort_unstable();
    expected.dedup();
    assert_eq!(found, expected);
}

/// Whatever call fails once while space is given back: what is settled stays settled, what is not is there.
#[test]
fn a_call_that_fails_once_is_made_good() {
    let mut n_calls = 0;
    for nth in 0.. {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        let (log, _) = open_with(&idle(dir.path()), &disk);
        let mut expected = mostly_settled(&log, 200);
        // Those of the first segments go at all.
        let mut records = Records::default();
        let gone: Vec<u64> = expected.extract_if(.., |n| (50..100).contains(n)).collect();
        records
            .settles
            .extend(gone.iter().map(|n| (QueueId(1), MessageId(n + 1))));
        wait(&log, log.append(&mut records).expect("accepted").lsn);
        let bytes = log.stats().bytes;
        let calls = Arc::new(AtomicU64::new(0));
        let counted = calls.clone();
        disk.faults.set(move |_, _| {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            (call == nth).then_some(if nth % 2 == 0 { EIO } else { ENOSPC })
        });
        reclaim(&log, 4);
        assert!(
            log.stats().bytes < bytes * 2 / 3,
            "call {nth}: {:?}",
            log.stats()
        );
        assert_eq!(log.troubles(), [], "call {nth}");
        n_calls = n_calls.max(calls.load(Ordering::Relaxed));
        disk.faults.clear();
        let after = disk.after_power_cut(&mut (nth + 1));
        drop(log);
        let (log, _) = open_with(&idle(dir.path()), &after);
        assert_eq!(recovered(&log)[&1], expected, "call {nth}");
        if nth >= n_calls {
            break;
        }
    }
    assert!(n_calls > 40, "{n_calls}");
}

/// What is short when a segment is made may be there in a while; anything else ends the log.
#[test]
fn a_segment_that_cannot_be_made_now_is_made_later() {
    for (call, code, final_) in [
        (Call::Open, 24, false),
        (Call::Open, 23, false),
        (Call::Allocate, ENOSPC, false),
        (Call::Allocate, 122, false),
        (Call::SyncDir, 24, false),
        (Call::SyncDir, ENOSPC, true),
        (Call::Open, EIO, true),
        (Call::Write, ENOSPC, false),
        (Call::Write, EIO, true),
        (Call::Sync, ENOSPC, true),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        let (log, _) = open_with(&idle(dir.path()), &disk);
        let mut left = 1;
        disk.faults.set(move |this, _| {
            let now = this == call && left > 0;
            left -= i32::from(now);
            now.then_some(code)
        });
        let mut records = Records::default();
        stage(&mut records, message(1, 1), &[1]);
        let a = log.append(&mut records).expect("accepted");
        wait(&log, a.lsn);
        assert_eq!(log.failed(), final_, "{call:?} {code}");
        assert_eq!(log.durable() < a.lsn, final_, "{call:?} {code}");
        assert!(!log.out_of_space());
    }
}

/// Where durable means written, a power cut takes some of what was written and not synced; what is there
/// again has no holes all the same.
#[test]
fn after_a_power_cut_there_are_no_holes_although_nothing_was_synced() {
    let mut n_lost = 0;
    for seed in 1..30 {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        let options = LogOptions {
            durability: Durability::Write,
            ..idle(dir.path())
        };
        let (log, _) = open_with(&options, &disk);
        let mut records = Records::default();
        for n in 0..100 {
            stage(&mut records, message(n, 500), &[1]);
            if n == 50 && seed % 2 == 0 {
                // The store is synced, so the log is before it.
                records.definitions.push(DefinitionChange {
                    kind: DefinitionKind::Queue,
                    key: b"q".to_vec(),
                    value: Some(Vec::new()),
                });
            }
            wait(&log, log.append(&mut records).expect("accepted").lsn);
            if n == 51 {
                reclaim(&log, 3);
            }
        }
        let after = disk.after_power_cut(&mut (seed * 99));
        drop(log);
        let (log, definitions) = open_with(&options, &after);
        let found = recovered(&log).remove(&1).unwrap_or_default();
        assert!(found.iter().copied().eq(0..found.len() as u64), "{found:?}");
        assert!(definitions.is_empty() || found.len() > 50, "{found:?}");
        n_lost += 100 - found.len();
    }
    assert!(n_lost > 0);
}
