//! Tests of giving disk space back on a disk that says no.

use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Messages in queue 1, all durable, of which only each tenth is not settled; durably, too.
fn mostly_settled(log: &SegmentedLog, n: u64) -> Vec<u64> {
    let mut records = Records::default();
    let mut last = Lsn::default();
    for n in 0..n {
        stage(&mut records, message(n, 200), &[1]);
        last = log.append(&mut records).expect("accepted").lsn;
    }
    wait(log, last);
    let settled = (0..n).filter(|n| n % 10 != 0);
    records
        .settles
        .extend(settled.map(|n| (QueueId(1), MessageId(n + 1))));
    wait_applied(log, log.append(&mut records).expect("accepted").lsn);
    (0..n).filter(|n| n % 10 == 0).collect()
}

/// Until what is durable is applied, too.
fn wait_applied(log: &SegmentedLog, at: Lsn) {
    wait(log, at);
    while log.inner.lock().applied < at {
        std::thread::yield_now();
    }
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
        let gone: Vec<u64> = expected.extract_if(.., |n| (60..150).contains(n)).collect();
        records
            .settles
            .extend(gone.iter().map(|n| (QueueId(1), MessageId(n + 1))));
        wait_applied(&log, log.append(&mut records).expect("accepted").lsn);
        let bytes = log.stats().bytes;
        let calls = Arc::new(AtomicU64::new(0));
        let counted = calls.clone();
        disk.faults.set(move |_, _| {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            (call == nth).then_some(if nth % 2 == 0 { EIO } else { ENOSPC })
        });
        reclaim(&log, 4);
        assert!(
            log.stats().bytes < bytes / 2,
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
