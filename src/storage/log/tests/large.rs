//! Tests of appends that are several frames.

use super::*;

/// Queue 1 gets message 0; then, in one append, that is settled and queue 2 gets so many of 1 KiB.
fn append_large(log: &SegmentedLog, n: u64) -> Appended {
    let mut records = Records::default();
    stage(&mut records, message(0, 1), &[1]);
    let old = log.append(&mut records).expect("accepted");
    wait(log, old.lsn);
    records.settles.push((QueueId(1), old.first_id));
    for n in 1..=n {
        stage(&mut records, message(n, 1024), &[2]);
    }
    log.append(&mut records).expect("accepted")
}

#[test]
fn a_large_append_survives_as_a_whole_or_not_at_all() {
    let mut outcomes = BTreeSet::new();
    for seed in 1..40 {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        let (log, _) = open_with(&idle(dir.path()), &disk);
        let mut syncs = 0;
        disk.faults.set(move |call, path| {
            syncs += u32::from(call == Call::Sync && has_extension(path, "segment"));
            // It is written, and then the power goes. The segment before it is synced once more, for its end.
            (call == Call::Sync && syncs > 2).then_some(5)
        });
        let a = append_large(&log, 3000);
        wait(&log, a.lsn);
        assert!(log.failed());
        disk.faults.clear();
        let after = disk.after_power_cut(&mut (seed * 77));
        drop(log);
        let (log, _) = open_with(&idle(dir.path()), &after);
        let found = recovered(&log);
        match found.get(&2) {
            None => assert_eq!(found[&1], [0]),
            Some(all) => assert_eq!((all.len(), found.get(&1)), (3000, None), "{seed}"),
        }
        outcomes.insert(found.contains_key(&1));
    }
    assert_eq!(outcomes.len(), 2, "both happen");
}

#[test]
fn of_a_large_append_no_more_is_read_than_is_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let a = append_large(&log, 10_000);
    wait(&log, a.lsn);
    disk.n_read.store(0, Ordering::Relaxed);
    let mut back = Vec::new();
    log.read(&[MessageId(a.first_id.0 + 7_777)], &mut back)
        .expect("readable");
    assert!(matches!(&back[0], Found::Here(m) if number_of(m) == 7_778));
    let read = disk.n_read.load(Ordering::Relaxed);
    assert!(read < 3 << 20, "{read}");
}

/// More than one segment can have: as many appends as it takes.
#[test]
fn what_is_larger_than_a_segment_can_be_is_in_several() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let mut records = Records::default();
    for n in 0..5000 {
        stage(&mut records, message(n, 1024), &[1]);
    }
    let parts = format::parts(&records, format::FRAME_BYTES);
    let at = log
        .inner
        .lock()
        .put_in_parts(&records, parts, 2 << 20, 0, 16 * 1024);
    wait(&log, at);
    assert_eq!(log.stats().segments, 3);
    drop(log);
    let (log, _) = open_with(&idle(dir.path()), &disk);
    assert_eq!(recovered(&log)[&1], (0..5000).collect::<Vec<_>>());
}
