//! Tests of starting with the indexes of sealed segments.

use super::*;

/// Segments that have an index, and those that have none.
fn indexed(disk: &FaultyDisk) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let state = disk.state.lock().expect("a lock");
    let segments = state
        .files
        .keys()
        .filter(|path| has_extension(path, "segment"));
    segments
        .cloned()
        .partition(|path| state.files.contains_key(&path.with_extension("index")))
}

/// A log of three queues that has not ended in order: shared messages, settled ones here and there,
/// definitions, and all sealed segments but the last with an index.
fn log_with_indexes(dir: &Path, disk: &FaultyDisk) -> BTreeMap<u64, Vec<u64>> {
    let (log, _) = open(dir, disk);
    let mut records = Records::default();
    let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for n in 0..3000u64 {
        let queues: &[u64] = match n % 10 {
            0 => &[1, 2, 3],
            1..4 => &[2, 1],
            _ => &[1],
        };
        stage(&mut records, message(n, 100), queues);
        if n % 500 == 0 {
            records.definitions.push(DefinitionChange {
                kind: DefinitionKind::Queue,
                key: b"q".to_vec(),
                value: Some(n.to_be_bytes().to_vec()),
            });
        }
        let a = log.append(&mut records).expect("accepted");
        for queue in queues {
            if n % 7 == 3 || *queue == 3 && n < 1500 {
                records.settles.push((QueueId(*queue), a.first_id));
            } else {
                expected.entry(*queue).or_default().push(n);
            }
        }
    }
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while indexed(disk).1.len() > 1 {
        assert!(std::time::Instant::now() < deadline, "{:?}", indexed(disk));
        std::thread::yield_now();
    }
    drop(log);
    assert!(indexed(disk).0.len() > 15);
    expected
}

#[test]
fn a_segment_with_an_index_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let expected = log_with_indexes(dir.path(), &disk);
    let without = disk.without_indexes();
    for (disk, few) in [(&disk, true), (&without, false)] {
        disk.n_read.store(0, Ordering::Relaxed);
        let (log, definitions) = open_with(&idle(dir.path()), disk);
        let (read, all) = (disk.n_read.load(Ordering::Relaxed), log.stats().bytes);
        assert_eq!(read < all / 4, few, "{read} of {all} bytes were read");
        assert_eq!(definitions[0].2, 2500u64.to_be_bytes());
        assert_eq!(recovered(&log), expected);
    }
}

/// What is settled after the index was made is known from later segments, or from notes beside it.
#[test]
fn an_index_goes_with_what_is_settled_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let mut expected = log_with_indexes(dir.path(), &disk);
    let (log, _) = open(dir.path(), &disk);
    let mut of_one = Vec::new();
    log.recover(&|_| true, &mut |run| {
        if run.target.queue == QueueId(1) {
            of_one.extend((0..u64::from(run.count)).map(|n| MessageId(run.first_id.0 + n)));
        }
    });
    let mut records = Records::default();
    let every_other = of_one.iter().step_by(2);
    records
        .settles
        .extend(every_other.map(|id| (QueueId(1), *id)));
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    drop(log);
    let mut n = 0;
    expected.entry(1).or_default().retain(|_| {
        n += 1;
        n % 2 == 0
    });
    for _ in 0..2 {
        let (log, _) = open(dir.path(), &disk);
        assert_eq!(recovered(&log), expected);
    }
}

#[test]
fn an_index_that_does_not_check_or_fit_is_not_used() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let expected = log_with_indexes(dir.path(), &disk);
    let indexes: Vec<Arc<Mutex<Image>>> = {
        let state = disk.state.lock().expect("a lock");
        let all = state.files.iter();
        all.filter(|(path, _)| has_extension(path, "index"))
            .map(|(_, image)| image.clone())
            .collect()
    };
    // Of another segment; cut; with a flipped bit; empty.
    let other = indexes[1].lock().expect("a lock").live.clone();
    indexes[0].lock().expect("a lock").live = other;
    indexes[2].lock().expect("a lock").live.pop();
    indexes[3].lock().expect("a lock").live[100] ^= 1;
    indexes[4].lock().expect("a lock").live.clear();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    assert_eq!(recovered(&log), expected);
}

/// Waits until every sealed segment has been given an index, or was not worth one.
fn wait_until_looked_at(log: &SegmentedLog) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let looked_at = || {
        let staging = log.inner.lock();
        let mut sealed = staging.segments.by_number.values().filter(|s| s.sealed);
        sealed.all(|s| s.index == segment::Index::Settled)
    };
    while !looked_at() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn what_makes_no_runs_gets_no_index() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open(dir.path(), &disk);
    let mut records = Records::default();
    for n in 0..2000u64 {
        let one_more = LoggedPublish {
            message: message(n, n as usize % 9),
            first_target: records.targets.len() as u32,
            n_targets: 1,
            transient: false,
        };
        records.targets.push(Target {
            expires_at: 1 << 40 | n,
            ..target(1)
        });
        records.publishes.push(one_more);
        log.append(&mut records).expect("accepted");
    }
    wait(&log, log.staged());
    wait_until_looked_at(&log);
    assert!(indexed(&disk).0.is_empty() && indexed(&disk).1.len() > 5);
}

/// The page cache keeps what will be read first.
#[test]
fn only_the_oldest_segments_stay_in_the_page_cache() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let some = LogOptions {
        cached_bytes: 40 * 1024,
        ..options(dir.path())
    };
    let (log, _) = open_with(&some, &disk);
    let mut records = Records::default();
    for n in 0..1000 {
        stage(&mut records, message(n, 200), &[1]);
        log.append(&mut records).expect("accepted");
    }
    wait(&log, log.staged());
    wait_until_looked_at(&log);
    drop(log);
    let state = disk.state.lock().expect("a lock");
    let segments = state.files.iter();
    let forgotten: Vec<bool> = segments
        .filter(|(path, _)| has_extension(path, "segment"))
        .map(|(_, image)| image.lock().expect("a lock").forgotten)
        .collect();
    let n = forgotten.len();
    assert!(n > 10);
    // Three of 16 KiB are more than that; the last one is not sealed.
    let expected: Vec<bool> = (0..n).map(|at| at >= 3 && at < n - 1).collect();
    assert_eq!(forgotten, expected);
}
