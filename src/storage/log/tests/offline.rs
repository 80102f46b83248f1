//! Tests of repairing a log: what a start finds afterwards is what it would have found before, and nothing is wrong.

use super::damage::{grouped, image, paths};
use super::reading::frames_of;
use super::*;
use crate::storage::definitions::Stored;
use crate::storage::examine::ReadOnly;
use crate::storage::files::Disk;

fn examined(dir: &Path) -> examine::Examined {
    let files = ReadOnly::new(0, Arc::new(|_, _| {}));
    examine::examine(dir, &files, Stored::default(), &|_| true).expect("readable")
}

/// Repairs a log, on the real disk; whether anything was wrong, whether it ended before its last segment, and the
/// next id.
fn repaired(dir: &Path, damaged: &FaultyDisk) -> (bool, bool, u64) {
    let (log_dir, aside) = (dir.join("log"), dir.join("aside"));
    for dir in [&log_dir, &aside] {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir(dir).expect("made");
    }
    let all: Vec<_> = {
        let state = damaged.state.lock().expect("a lock");
        let all = state.files.iter().filter(|(p, _)| p.starts_with(&log_dir));
        all.map(|(p, image)| (p.clone(), image.lock().expect("a lock").live.clone()))
            .collect()
    };
    for (path, bytes) in &all {
        std::fs::write(path, bytes).expect("written");
    }
    let before = examined(dir);
    for (path, bytes) in &all {
        assert!(std::fs::read(path).expect("there") == *bytes);
    }
    let whole = damaged.with_those(|_| true);
    let found = recovery::run(&idle(dir), &whole, Stored::default()).expect("it starts");
    let last = found.last_segment;
    let (live, damage) = super::damage::found(dir, damaged);
    let wrong = !damage.holes.is_empty() || !damage.set_aside.is_empty();
    assert_eq!(!before.faults.is_empty(), wrong, "{damage:?}");
    let mut keep = |path: &Path, stays: bool| {
        let to = aside.join(path.file_name().expect("a name"));
        match stays {
            true => std::fs::hard_link(path, &to),
            false => std::fs::rename(path, &to),
        }
    };
    before.repair(dir, &Disk, &mut keep).expect("repaired");
    let after = examined(dir);
    assert!(after.faults.is_empty(), "{:?}", after.faults);
    for fault in &before.faults {
        let kept = aside.join(fault.path.file_name().expect("a name"));
        let bytes = all.iter().find(|(path, _)| *path == fault.path);
        assert_eq!(std::fs::read(kept).ok().as_ref(), bytes.map(|(_, b)| b));
    }
    let found = recovery::run(&idle(dir), &Disk, Stored::default()).expect("it starts");
    assert!(found.damage.holes.is_empty() && found.damage.set_aside.is_empty());
    // No number is used twice, but for those behind the end, of which nobody was told.
    assert!(before.is_torn() || found.last_segment >= last);
    let next_id = found.next_id;
    let (mut segments, mut again) = (found.segments, BTreeSet::new());
    found.copies.visit(&mut segments, &|_| true, &mut |run| {
        let ids = run.first_id.0..run.first_id.0 + u64::from(run.count);
        again.extend(ids.map(|id| (run.target.queue.0, id)));
    });
    assert_eq!(again, live);
    (wrong, before.is_torn(), next_id)
}

#[test]
fn a_repaired_log_has_what_it_had_and_no_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(grouped(dir.path(), &disk, 3));
    let segments = paths(&disk, "segment");
    let (mut seed, mut n_damaged) = (99, 0);
    for round in 0..12 {
        let damaged = disk.with_those(|_| true);
        for _ in 0..=round % 3 {
            let path = &segments[random(&mut seed) as usize % segments.len()];
            let image = image(&damaged, path);
            let bytes = &mut image.lock().expect("a lock").live;
            let at = random(&mut seed) as usize % bytes.len().max(1);
            match random(&mut seed) % 8 {
                0 => bytes[at..].fill(0),
                1 => bytes.truncate(at),
                2 => bytes.fill(0x77),
                _ => bytes[at] ^= 1 << (at % 8),
            }
        }
        n_damaged += u64::from(repaired(dir.path(), &damaged).0);
    }
    assert!(n_damaged > 7, "{n_damaged}");
    let last = disk.with_those(|_| true);
    // One that the disk did not give to a start.
    let path = segments.last().expect("one");
    let (from, to) = (path.clone(), crate::storage::log::damage::aside(path));
    last.rename(&from, &to).expect("renamed");
    let next_id = repaired(dir.path(), &disk).2;
    assert!(
        repaired(dir.path(), &last).2 >= next_id,
        "no id is used twice"
    );
}

/// Where the log ends before its last segment, and is damaged before that.
#[test]
fn what_a_start_would_cut_is_kept_and_not_brought_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let mut records = Records::default();
    for n in 0..80 {
        stage(&mut records, message(n, 500), &[1]);
        let a = log.append(&mut records).expect("accepted");
        if n == 9 {
            wait(&log, a.lsn);
        }
    }
    wait(&log, log.staged());
    assert!(log.stats().segments > 2);
    drop(log);
    let path = &paths(&disk, "segment")[0];
    let live = image(&disk, path).lock().expect("a lock").live.clone();
    let frames = frames_of(&live);
    for n in [3, 14] {
        image(&disk, path).lock().expect("a lock").live[frames[n].0 + 50] ^= 1;
    }
    let (wrong, torn, _) = repaired(dir.path(), &disk);
    assert!(wrong && torn);
    for (n, kept) in paths(&disk, "segment").iter().enumerate() {
        let name = kept.file_name().expect("a name");
        assert!(dir.path().join("aside").join(name).exists(), "{n}");
    }
}
