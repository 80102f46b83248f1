//! Tests of starting with files that are damaged, foreign, or not to be had.

use super::reading::frames_of;
use super::*;
use crate::storage::definitions::Stored;
use crate::storage::octets::Salt;

pub(super) type Copies = BTreeSet<(u64, u64)>;

/// What a frame says: copies that it publishes, copies that it settles.
pub(super) struct Said {
    path: PathBuf,
    start: usize,
    end: usize,
    published: Copies,
    settled: Copies,
}

/// A log of several segments. Frames that were synced together say the same of what was durable; the
/// last one of all was staged when everything before it was.
pub(super) fn grouped(dir: &Path, disk: &FaultyDisk, len: usize) -> SegmentedLog {
    let small = LogOptions {
        segment_bytes: 1000 + len as u32 * 10,
        ..idle(dir)
    };
    let (log, _) = open_with(&small, disk);
    let mut records = Records::default();
    for n in 0..30u64 {
        for m in 0..=n % 2 {
            let queues: &[u64] = if n % 5 == 0 { &[1, 2] } else { &[1] };
            stage(&mut records, message(n * 2 + m, len), queues);
        }
        if n % 3 == 2 {
            records.settles.push((QueueId(1), MessageId(n)));
        }
        log.append(&mut records).expect("accepted");
        if n % 10 == 9 {
            wait(&log, log.staged());
        }
    }
    records.settles.push((QueueId(1), MessageId(3)));
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    assert!(log.stats().segments > 3);
    log
}

pub(super) fn image(disk: &FaultyDisk, path: &Path) -> Arc<Mutex<Image>> {
    disk.state.lock().expect("a lock").files[path].clone()
}

pub(super) fn paths(disk: &FaultyDisk, extension: &str) -> Vec<PathBuf> {
    let state = disk.state.lock().expect("a lock");
    let all = state.files.keys();
    all.filter(|path| has_extension(path, extension))
        .cloned()
        .collect()
}

/// Everything that the frames of a log say.
pub(super) fn said(disk: &FaultyDisk) -> Vec<Said> {
    let mut all = Vec::new();
    for path in paths(disk, "segment") {
        let bytes = image(disk, &path).lock().expect("a lock").live.clone();
        for (start, header) in frames_of(&bytes) {
            let end = start + header.size();
            let (mut published, mut settled) = (Copies::new(), Copies::new());
            format::decode(&bytes[start..end], &header, |record| match record {
                format::Record::Publish(p) => {
                    published.extend(p.targets().map(|t| (t.queue.0, p.id.0)));
                }
                format::Record::Settle(queue, id) => drop(settled.insert((queue.0, id.0))),
                _ => {}
            });
            all.push(Said {
                path: path.clone(),
                start,
                end,
                published,
                settled,
            });
        }
    }
    all
}

/// The live copies of a log without one of its frames.
pub(super) fn without(said: &[Said], frame: Option<usize>) -> Copies {
    let rest = said.iter().enumerate().filter(|(n, _)| Some(*n) != frame);
    let published: Copies = rest
        .clone()
        .flat_map(|(_, f)| f.published.clone())
        .collect();
    let settled: Copies = rest.flat_map(|(_, f)| f.settled.clone()).collect();
    published.difference(&settled).copied().collect()
}

/// The live copies that a start finds, and what it finds wrong.
pub(super) fn found(dir: &Path, disk: &FaultyDisk) -> (Copies, Damage) {
    let found = recovery::run(&idle(dir), disk, Stored::default()).expect("it starts");
    let (mut segments, mut live) = (found.segments, Copies::new());
    found.copies.visit(&mut segments, &|_| true, &mut |run| {
        let ids = run.first_id.0..run.first_id.0 + u64::from(run.count);
        live.extend(ids.map(|id| (run.target.queue.0, id)));
    });
    (live, found.damage)
}

fn flipped(disk: &FaultyDisk, path: &Path, at: usize) -> FaultyDisk {
    let disk = disk.with_those(|_| true);
    image(&disk, path).lock().expect("a lock").live[at] ^= 1 << (at * 5 % 8);
    disk
}

#[test]
fn a_flipped_bit_anywhere_costs_the_frame_that_it_hits() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let said = said(&disk);
    let same = disk.with_those(|_| true);
    assert_eq!(found(dir.path(), &same).0, without(&said, None));
    for (n, frame) in said.iter().enumerate() {
        let expected = without(&said, Some(n));
        for at in frame.start..frame.end {
            let disk = flipped(&disk, &frame.path, at);
            let (live, damage) = found(dir.path(), &disk);
            assert_eq!(live, expected, "{}, byte {at}", frame.path.display());
            let hole = damage.holes.first();
            // Nothing behind the last one says that it had been durable.
            let told = format!("{}, byte {at}: {damage:?}", frame.path.display());
            assert_eq!(hole.is_some(), n + 1 < said.len(), "{told}");
            if let Some(hole) = hole {
                assert_eq!((&hole.path, hole.offset), (&frame.path, frame.start as u64));
                let messages: BTreeSet<u64> = frame.published.iter().map(|p| p.1).collect();
                let is_end = said[n + 1].path != frame.path;
                assert!(is_end || hole.messages == Some(messages.len() as u64));
            }
            // What was found is sealed: the next start finds the same, and nothing wrong but that.
            if at % 16 == 0 {
                assert_eq!(found(dir.path(), &disk).0, expected);
            }
        }
    }
}

/// When nothing follows what was synced last, a mark says of it that it was durable, or the clean stop does.
#[test]
fn a_flipped_bit_in_the_last_round_costs_no_more() {
    for closed in [true, false] {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        let (log, _) = open_with(&idle(dir.path()), &disk);
        let mut records = Records::default();
        for n in 0..5 {
            stage(&mut records, message(n, 10), &[1]);
            log.append(&mut records).expect("accepted");
        }
        if closed {
            log.close(&[]).expect("closed");
        } else {
            wait(&log, log.staged());
            let all = log.staged();
            writer::prove(&log.inner);
            assert!(log.staged() > all);
            wait(&log, log.staged());
            let all = log.staged();
            writer::prove(&log.inner);
            assert_eq!(log.staged(), all, "a mark needs none");
        }
        let said = said(&disk);
        assert_eq!(said.len(), 6);
        for n in 0..5 {
            let disk = flipped(&disk, &said[n].path, said[n].end - 1);
            let (live, damage) = found(dir.path(), &disk);
            assert_eq!(live, without(&said, Some(n)), "{closed} {n}");
            assert_eq!(damage.holes.len(), 1, "{closed} {n}");
        }
    }
}

#[test]
fn an_end_that_is_missing_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let said = said(&disk);
    let second = &paths(&disk, "segment")[1];
    let mut of_second = said.iter().filter(|f| f.path == *second);
    let from = of_second.nth(2).expect("a frame").start;
    let lost = said
        .iter()
        .filter(|f| f.path == *second && f.start >= from)
        .flat_map(|f| f.published.iter().map(|p| p.1));
    let lost: BTreeSet<u64> = lost.collect();
    for zeros in [true, false] {
        let disk = disk.with_those(|_| true);
        let image = image(&disk, second);
        let mut image = image.lock().expect("a lock");
        match zeros {
            true => image.live[from..].fill(0),
            false => image.live.truncate(from),
        }
        let len = (image.live.len() - from) as u64;
        drop(image);
        let (live, damage) = found(dir.path(), &disk);
        let hole = Hole {
            path: second.clone(),
            offset: from as u64,
            len,
            messages: Some(lost.len() as u64),
        };
        assert_eq!(damage.holes, [hole]);
        assert_eq!(damage.lost_messages(), lost.len() as u64);
        let there: BTreeSet<u64> = live.iter().map(|(_, id)| *id).collect();
        assert!(there.is_disjoint(&lost));
        let newest = without(&said, None).last().copied().expect("not empty");
        assert!(live.contains(&newest), "what is behind it is there");
    }
}

/// A log as [`grouped`] with everything that may stand beside its segments.
fn with_hints(dir: &Path, disk: &FaultyDisk) -> Vec<PathBuf> {
    let log = grouped(dir, disk, 400);
    for number in 1..log.stats().segments as u32 {
        super::super::index::write(&log.inner, number).expect("written");
    }
    settled::save(&log.inner, u32::MAX, &[])
        .map_err(|(_, e)| e)
        .expect("written");
    let (indexes, notes) = (paths(disk, "index"), paths(disk, "settled"));
    assert!(!indexes.is_empty() && !notes.is_empty());
    [indexes, notes].concat()
}

#[test]
fn a_hint_with_a_flipped_bit_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let hints = with_hints(dir.path(), &disk);
    let expected = without(&said(&disk), None);
    for path in hints {
        let len = image(&disk, &path).lock().expect("a lock").live.len();
        for at in 0..len {
            let disk = flipped(&disk, &path, at);
            assert_eq!(found(dir.path(), &disk).0, expected, "byte {at}");
        }
    }
}

#[test]
fn what_the_disk_does_not_give_is_set_aside_and_the_rest_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let said = said(&disk);
    let all = paths(&disk, "segment");
    let (second, last) = (&all[1], all.last().expect("not empty"));
    for path in [second, last] {
        disk.refused.lock().expect("a lock").insert(path.clone());
    }
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let is_there = |f: &&Said| f.path != *second && f.path != *last;
    let published: Copies = said
        .iter()
        .filter(is_there)
        .flat_map(|f| f.published.clone())
        .collect();
    let settled: Copies = said
        .iter()
        .filter(is_there)
        .flat_map(|f| f.settled.clone())
        .collect();
    let mut live = Copies::new();
    log.recover(&|queue| queue == QueueId(1), &mut |run| {
        let ids = run.first_id.0..run.first_id.0 + u64::from(run.count);
        live.extend(ids.map(|id| (run.target.queue.0, id)));
    });
    let expected = published.difference(&settled).filter(|(q, _)| *q == 1);
    assert_eq!(live, expected.copied().collect());
    let aside: Vec<_> = [second, last]
        .map(|p| super::super::damage::aside(p))
        .into();
    assert_eq!(log.damage().set_aside, aside);
    // Neither its number nor its ids are used again.
    let newest = said
        .iter()
        .flat_map(|f| f.published.iter().map(|p| p.1))
        .max();
    let mut records = Records::default();
    stage(&mut records, message(1000, 3), &[1]);
    let a = log.append(&mut records).expect("accepted");
    assert!(Some(a.first_id.0) > newest);
    wait(&log, a.lsn);
    drop(log);
    assert!(paths(&disk, "segment").last() > Some(last));
    // And when it is given back, it is there again, with what nobody knew the queue of.
    disk.refused.lock().expect("a lock").clear();
    for (aside, path) in aside.iter().zip([second, last]) {
        disk.rename(aside, path).expect("there");
    }
    let (live, damage) = found(dir.path(), &disk);
    let mut expected = without(&said, None);
    expected.insert((1, a.first_id.0));
    assert_eq!(live, expected);
    // The last one was never ended: whether there was more in it nobody can tell.
    assert!(damage.holes.iter().all(|hole| hole.path == *last));
    assert!(damage.set_aside.is_empty());
}

#[test]
fn what_is_no_file_of_the_log_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let expected = without(&said(&disk), None);
    let mut foreign = Vec::new();
    for name in [
        "0000000000",
        "4294967295",
        "4294967296",
        "+000000001",
        "1",
        "copy of 1",
    ] {
        let path = dir.path().join("log").join(format!("{name}.segment"));
        disk.open(&path).expect("made");
        foreign.push(path);
    }
    assert_eq!(found(dir.path(), &disk).0, expected);
    assert!(foreign.iter().all(|f| paths(&disk, "segment").contains(f)));
}

/// Makes the checksums of a file fit again, so that what is in it is looked at.
fn fit(path: &Path, bytes: &mut [u8]) {
    if !has_extension(path, "segment") {
        if bytes.len() >= 4 {
            let crc = crc32fast::hash(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_be_bytes());
        }
        return;
    }
    let salt = format::salt_in(bytes).unwrap_or(Salt::NONE);
    let mut at = 0;
    while let Some(header) = bytes.get(at..).and_then(format::FrameHeader::read)
        && let Some(covered) = bytes.get(at + 8..at + header.size())
    {
        let mut crc = salt.hasher();
        crc.update(covered);
        let crc = crc.finalize();
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
        at += header.size();
    }
}

fn mutate(seed: &mut u64, path: &Path, bytes: &mut Vec<u8>) {
    for _ in 0..=random(seed) % 3 {
        let at = random(seed) as usize % bytes.len().max(1);
        let extreme = [0, 1, u64::MAX, 1 << 31, 1 << 63, u64::MAX - 1, random(seed)];
        let value = extreme[random(seed) as usize % extreme.len()].to_be_bytes();
        match random(seed) % 8 {
            0 => bytes.truncate(at),
            1 => bytes.extend((0..at).map(|_| random(seed) as u8)),
            2 => bytes.fill_with(|| random(seed) as u8),
            3 => drop(bytes.drain(..at)),
            4 | 5 => bytes
                .get_mut(at..at + 8)
                .map_or((), |b| b.copy_from_slice(&value)),
            _ => bytes
                .get_mut(at..at + 4)
                .map_or((), |b| b.copy_from_slice(&value[..4])),
        }
    }
    if !random(seed).is_multiple_of(4) {
        fit(path, bytes);
    }
}

/// No file can keep the log from starting, from being read, written, and started again.
#[test]
fn any_files_are_started_with() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    with_hints(dir.path(), &disk);
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..100 {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = disk.with_those(|_| true);
        let files: Vec<_> = {
            let state = disk.state.lock().expect("a lock");
            let all = state.files.iter();
            all.map(|(path, image)| (path.clone(), image.clone()))
                .collect()
        };
        for _ in 0..=random(&mut seed) % 3 {
            let (path, image) = &files[random(&mut seed) as usize % files.len()];
            mutate(&mut seed, path, &mut image.lock().expect("a lock").live);
        }
        for _ in 0..2 {
            let (log, _) = open_with(&idle(dir.path()), &disk);
            let mut ids = Vec::new();
            log.recover(&|queue| queue != QueueId(2), &mut |run| {
                let some = u64::from(run.count.min(100));
                ids.extend((run.first_id.0..run.first_id.0 + some).map(MessageId));
            });
            let mut read = Vec::new();
            log.read(&ids, &mut read).expect("readable");
            assert!(!read.iter().any(|f| matches!(f, Found::Later)));
            let mut records = Records::default();
            stage(&mut records, message(1, 3), &[1]);
            records
                .settles
                .extend(ids.iter().take(3).map(|id| (QueueId(1), *id)));
            let a = log.append(&mut records).expect("accepted");
            wait(&log, a.lsn);
        }
    }
}

/// What a checksum fits is looked at all the same: wherever a number that cannot be stands, frames beside it
/// say what they said.
#[test]
fn a_number_that_cannot_be_changes_nothing_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let mut records = Records::default();
    for n in 0..4 {
        // One frame has a message more than the next one that gets its queue.
        stage(&mut records, message(n, 3), &[1]);
        if n == 1 {
            stage(&mut records, message(9, 3), &[2]);
        }
        if n == 3 {
            for id in [1, 3] {
                let range = (QueueId(1), MessageId(id), MessageId(id));
                records.settled_ranges.push(range);
            }
        }
        log.append(&mut records).expect("accepted");
        wait(&log, log.staged());
    }
    drop(log);
    let said = said(&disk);
    let mut n_kept = 0;
    for frame in &said {
        let beside = said.iter().filter(|f| f.start != frame.start);
        let published: Copies = beside.flat_map(|f| f.published.clone()).collect();
        // But for the ids: those of a frame are what it says.
        let fields = [
            frame.start + 16..frame.start + 24,
            frame.start + 32..frame.end,
        ];
        let places = fields.iter().flat_map(|f| f.clone().map(|at| (at, f.end)));
        for (at, end) in places {
            for (number, width) in [(0, 4), (1, 4), (u64::MAX, 4), (u64::MAX, 8)] {
                let disk = disk.with_those(|_| true);
                let image = image(&disk, &frame.path);
                let mut image = image.lock().expect("a lock");
                let end = (at + width).min(end);
                let octets = &u64::to_be_bytes(number)[8 - (end - at)..];
                image.live[at..end].copy_from_slice(octets);
                fit(&frame.path, &mut image.live);
                drop(image);
                let (live, _) = found(dir.path(), &disk);
                let own: BTreeSet<u64> = frame.published.iter().map(|p| p.1).collect();
                let others = live.iter().filter(|(_, id)| !own.contains(id));
                for copy in others {
                    assert!(published.contains(copy), "{copy:?}, byte {at}, {number:x}");
                    n_kept += 1;
                }
            }
        }
    }
    assert!(n_kept > 0);
}

/// Where no room can be reserved, a full disk is met by a write.
#[test]
fn a_write_that_finds_no_room_waits_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open(dir.path(), &disk);
    let no_room = rustix::io::Errno::NOSPC.raw_os_error();
    disk.faults.set(move |call, path| {
        (call == Call::Write && has_extension(path, "segment")).then_some(no_room)
    });
    let mut records = Records::default();
    stage(&mut records, message(7, 100), &[1]);
    let a = log.append(&mut records).expect("accepted");
    let (tell, told) = channel();
    let bell: Arc<dyn Bell> = Arc::new(Told(tell));
    log.ring_at(a.lsn, &bell);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !log.out_of_space() {
        assert!(!log.failed() && std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    disk.faults.clear();
    told.recv_timeout(Duration::from_secs(20))
        .expect("it is written when there is room");
    assert!(!log.failed() && !log.out_of_space() && log.durable() >= a.lsn);
    drop(log);
    let (log, _) = open(dir.path(), &disk);
    assert_eq!(recovered(&log), BTreeMap::from([(1, vec![7])]));
}

/// A segment is not rewritten without what cannot be read now: a later version, or a repair, may.
#[test]
fn a_segment_that_is_rewritten_loses_nothing_that_it_had() {
    use super::super::compact::{Piece, Rewrite};
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let log = grouped(dir.path(), &disk, 3);
    let first = said(&disk)
        .into_iter()
        .filter(|f| f.path.ends_with("0000000001.segment"));
    let frames: Vec<Said> = first.collect();
    let kept = frames.iter().find(|f| f.published.len() == 1).expect("one");
    let mut records = Records::default();
    let others = frames.iter().filter(|f| f.start != kept.start);
    let copies = others.flat_map(|f| f.published.iter());
    records
        .settles
        .extend(copies.map(|(q, id)| (QueueId(*q), MessageId(*id))));
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    let rewritten = || loop {
        let mut rewrite = Rewrite::begin(&log.inner, &mut 0)
            .expect("readable")
            .expect("worth it");
        match rewrite.piece(&log.inner).expect("readable") {
            Piece::More => {}
            Piece::Copied => break true,
            Piece::GivenUp => break false,
        }
    };
    assert!(rewritten());
    let image = image(&disk, &kept.path);
    let mut image = image.lock().expect("a lock");
    // A record of a kind that nobody knows, in a frame that checks.
    image.live[kept.start + format::FRAME_HEADER] = 99;
    fit(&kept.path, &mut image.live);
    drop(image);
    assert!(!rewritten());
}

#[test]
fn no_id_is_given_out_before_it_is_noted_which_are_passed_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let last = paths(&disk, "segment").pop().expect("not empty");
    disk.refused.lock().expect("a lock").insert(last.clone());
    // Nothing can be noted: not now, or never.
    for times in [1, u32::MAX] {
        let mut left = times;
        disk.faults.set(move |call, path| {
            let is_note = call == Call::Open && path.ends_with("definitions.journal.tmp");
            let fails = is_note && left > 0;
            left -= u32::from(fails);
            fails.then_some(5)
        });
        let opened = SegmentedLog::open(idle(dir.path()), Arc::new(disk.clone()));
        match (times, opened) {
            (1, Ok((log, _))) => drop(log),
            (1, Err(e)) => panic!("{e}"),
            (_, Ok(_)) => panic!("it starts"),
            (_, Err(e)) => assert!(e.to_string().contains("without that there is no start")),
        }
    }
    disk.faults.clear();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let mut records = Records::default();
    stage(&mut records, message(1000, 3), &[1]);
    let given = log.append(&mut records).expect("accepted").first_id;
    drop(log);
    // Nothing of that life is left, nor what was set aside.
    let aside = super::super::damage::aside(&last);
    disk.remove(&aside).expect("there");
    let (log, _) = open_with(&idle(dir.path()), &disk);
    stage(&mut records, message(1001, 3), &[1]);
    let again = log.append(&mut records).expect("accepted").first_id;
    assert!(again >= given, "{again:?} {given:?}");
}

#[test]
fn what_a_start_takes_over_is_proved_although_nothing_is_published() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let said = said(&disk);
    let often = LogOptions {
        flush_interval: Duration::from_millis(1),
        ..idle(dir.path())
    };
    let (log, _) = open_with(&often, &disk);
    let start = log.durable();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while log.durable() == start {
        assert!(std::time::Instant::now() < deadline, "no mark");
        std::thread::yield_now();
    }
    drop(log);
    let last = said.last().expect("frames");
    let (live, damage) = found(dir.path(), &flipped(&disk, &last.path, last.start));
    assert_eq!(live, without(&said, Some(said.len() - 1)));
    assert_eq!(damage.holes.len(), 1, "{damage:?}");
}
