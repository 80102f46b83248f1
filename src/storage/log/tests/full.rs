//! Tests of a disk that is full for long: acknowledgements give room back by themselves.

use super::*;

const SEGMENT: u32 = 64 * 1024;

/// Kept for when the disk is full.
const RESERVE: u64 = 128 * 1024;

/// Bytes that the disk has: the definitions' journal and its successor take 4 MiB, and what is beside the reserve one.
const DISK: u64 = (6 << 20) + (1 << 19);

/// A log with a reserve on a small disk, and what was done with it.
struct Life {
    dir: tempfile::TempDir,
    disk: FaultyDisk,
    log: Option<SegmentedLog>,
    /// By number: id, and from where on it is durable.
    published: BTreeMap<u64, (MessageId, Lsn)>,
    settled: BTreeMap<u64, Lsn>,
    next: u64,
}

fn kept(dir: &Path) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT,
        reserve_bytes: RESERVE,
        ..options(dir)
    }
}

/// Until this holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "no {what}");
        std::thread::yield_now();
    }
}

impl Life {
    fn new() -> Life {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        disk.capacity.store(DISK, Ordering::Relaxed);
        let (log, _) = open_with(&kept(dir.path()), &disk);
        log.recover(&|_| true, &mut |_| {});
        let life = Life {
            dir,
            disk,
            log: Some(log),
            published: BTreeMap::new(),
            settled: BTreeMap::new(),
            next: 0,
        };
        life.is_whole();
        life
    }

    fn log(&self) -> &SegmentedLog {
        self.log.as_ref().expect("open")
    }

    /// Waits for the reserve.
    fn is_whole(&self) {
        until("a reserve", || self.log().stats().reserve_bytes == RESERVE);
    }

    /// Publishes until publishers are held.
    fn fill(&mut self) {
        let mut records = Records::default();
        while !self.log().out_of_space() {
            if self.log().backlog_bytes() > 8000 {
                std::thread::yield_now();
                continue;
            }
            stage(&mut records, message(self.next, 2000), &[1]);
            let a = self.log().append(&mut records).expect("accepted");
            self.published.insert(self.next, (a.first_id, a.lsn));
            self.next += 1;
        }
    }

    /// Acknowledges the first so many of those, each by itself, but for each twentieth.
    fn settle(&mut self, n: usize) {
        let mut records = Records::default();
        let live = self.published.iter();
        let live = live.filter(|(number, _)| !self.settled.contains_key(number));
        let some = live
            .filter(|(number, _)| !number.is_multiple_of(20))
            .take(n);
        let some: Vec<_> = some.map(|(number, at)| (*number, at.0)).collect();
        for (number, id) in some {
            records.settles.push((QueueId(1), id));
            let a = self.log().append(&mut records).expect("accepted");
            self.settled.insert(number, a.lsn);
        }
        let (log, all) = (self.log(), self.log().staged());
        until("durable acknowledgements", || log.durable() >= all);
    }

    /// The power goes, and comes back.
    fn crash(&mut self, seed: &mut u64) {
        let durable = self.log().durable();
        let after = self.disk.after_power_cut(seed);
        // The definitions' store has one owner at a time.
        self.log = None;
        let (log, _) = open_with(&kept(self.dir.path()), &after);
        let found: BTreeSet<u64> = recovered(&log).into_values().flatten().collect();
        for (number, (_, at)) in &self.published {
            match self.settled.get(number) {
                Some(settled) if *settled <= durable => {
                    assert!(!found.contains(number), "{number} was acknowledged");
                }
                None if *at <= durable => assert!(found.contains(number), "{number} was confirmed"),
                _ => {}
            }
        }
        self.published.retain(|number, _| found.contains(number));
        self.settled.clear();
        (self.log, self.disk) = (Some(log), after);
    }
}

#[test]
fn acknowledgements_give_a_full_disk_room_again() {
    for seed in 1..=2 {
        let mut random_state = seed * 77;
        let mut life = Life::new();
        for _ in 0..2 {
            life.fill();
            if random(&mut random_state).is_multiple_of(2) {
                life.settle(random(&mut random_state) as usize % 100);
                life.crash(&mut random_state);
            }
            life.settle(usize::MAX);
            until("room again", || !life.log().out_of_space());
        }
        life.is_whole();
        life.crash(&mut random_state);
        assert!(life.next > 600, "{}", life.next);
    }
}

/// Stops while the next so many writes to files of this kind find no room.
fn stop_without_room(refused: usize, kind: &'static str) -> (io::Result<()>, usize) {
    const NO_ROOM: i32 = 28;
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&options(dir.path()), &disk);
    log.recover(&|_| true, &mut |_| {});
    let mut left = refused;
    disk.faults.set(move |call, path| {
        let of_the_kind = path.to_str().is_some_and(|path| path.contains(kind));
        let refuses = call == Call::Write && of_the_kind && left > 0;
        left -= usize::from(refuses);
        refuses.then_some(NO_ROOM)
    });
    let mut records = Records::default();
    stage(&mut records, message(1, 100), &[1]);
    records.definitions.push(DefinitionChange {
        kind: DefinitionKind::Vhost,
        key: vec![1],
        value: Some(vec![2]),
    });
    log.append(&mut records).expect("accepted");
    let closed = log.close(&[]);
    drop(log);
    disk.faults.set(|_, _| None);
    let (log, _) = open_with(&options(dir.path()), &disk);
    (closed, recovered(&log).into_values().flatten().count())
}

#[test]
fn who_stops_waits_a_moment_for_room_and_not_for_ever() {
    // What is written of messages, and of definitions behind them.
    for kind in [".segment", ".journal"] {
        let (closed, found) = stop_without_room(5, kind);
        closed.expect("there was room in time");
        assert_eq!(found, 1);
        let (closed, _) = stop_without_room(usize::MAX, kind);
        assert!(closed.is_err());
    }
}
