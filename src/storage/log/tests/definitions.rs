//! Tests of the definitions' two copies: on a disk that says no, and damaged.

use std::fs;

use super::*;
use crate::broker::ports::DefinitionChange;

fn change(n: u64, value: u8) -> DefinitionChange {
    DefinitionChange {
        kind: DefinitionKind::Queue,
        key: n.to_be_bytes().to_vec(),
        value: Some(vec![value; 300]),
    }
}

/// Defines twenty queues, with this value.
fn define(log: &SegmentedLog, value: u8) {
    let mut records = Records::default();
    records
        .definitions
        .extend((0..20).map(|n| change(n, value)));
    let at = log.append(&mut records).expect("accepted").lsn;
    wait(log, at);
}

/// What each queue was defined as last.
fn values(definitions: Vec<Definition>) -> Vec<u8> {
    definitions
        .into_iter()
        .map(|(_, _, value)| value[0])
        .collect()
}

/// Twenty passes: as long as anything is given up for a while.
fn passes(log: &SegmentedLog) {
    let mut reclaim = reclaim::Reclaim::default();
    (0..20).for_each(|_| reclaim.pass(&log.inner));
}

/// Whatever call fails once: nothing is lost, and segments go on being removed.
#[test]
fn a_disk_that_fails_once_loses_no_definition_and_keeps_no_segment() {
    for nth in 0..40 {
        for code in [5, 28] {
            let dir = tempfile::tempdir().expect("a folder");
            let disk = FaultyDisk::default();
            let (log, _) = open_with(&idle(dir.path()), &disk);
            let mut calls = 0;
            disk.faults.set(move |_, path| {
                let journal = path.to_string_lossy().contains("definitions.journal");
                calls += u64::from(journal);
                (journal && calls == nth + 1).then_some(code)
            });
            for value in 1..=4 {
                define(&log, value);
                passes(&log);
            }
            disk.faults.clear();
            passes(&log);
            assert_eq!(log.troubles(), [], "call {nth}");
            assert!(log.inner.lock().unstored.is_empty(), "call {nth}");
            define(&log, 5);
            let after = disk.after_power_cut(&mut (nth + 1));
            drop(log);
            // Without the other copy.
            fs::remove_dir_all(dir.path().join("definitions")).expect("there");
            let (log, found) = open_with(&idle(dir.path()), &after);
            assert_eq!(values(found), [5; 20], "call {nth}");
            drop(log);
        }
    }
}

/// What sled holds is damaged, or sled never ended opening it: everything is there, and soon in both.
#[test]
fn either_copy_is_enough() {
    type Damage = fn(&Path);
    let all: [(&str, Damage); 7] = [
        ("sled cut", |dir| {
            let db = dir.join("definitions/db");
            let file = fs::File::options().write(true).open(db).expect("there");
            file.set_len(20_000).expect("shorter");
        }),
        ("sled gone", |dir| {
            fs::remove_dir_all(dir.join("definitions")).expect("there");
        }),
        ("sled of others", |dir| {
            fs::write(dir.join("definitions/conf"), [0xff; 100]).expect("written");
        }),
        ("opening never ended", |dir| {
            fs::write(dir.join("definitions.opening"), "1").expect("written");
        }),
        ("journal gone", |dir| {
            fs::remove_file(dir.join("definitions.journal")).expect("there");
        }),
        ("journal cut", |dir| {
            let file = dir.join("definitions.journal");
            let bytes = fs::read(&file).expect("there");
            fs::write(file, &bytes[..3000]).expect("written");
        }),
        ("journal damaged", |dir| {
            let file = dir.join("definitions.journal");
            let mut bytes = fs::read(&file).expect("there");
            bytes[100] ^= 1;
            fs::write(file, &bytes).expect("written");
        }),
    ];
    for (what, damage) in all {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || {
            let disk: Arc<dyn FileLayer> = Arc::new(crate::storage::files::Disk);
            open_by(|| SegmentedLog::open(idle(dir.path()), disk.clone()))
        };
        let (log, _) = open();
        for value in 1..=3 {
            define(&log, value);
            passes(&log);
        }
        log.close(&[]).expect("closed");
        drop(log);
        // What is not in the log any more.
        fs::remove_dir_all(dir.path().join("log")).expect("there");
        damage(dir.path());
        let (log, found) = open();
        assert_eq!(values(found), [3; 20], "{what}");
        passes(&log);
        assert_eq!(log.troubles(), [], "{what}");
        log.close(&[]).expect("closed");
        drop(log);
        for other in ["definitions", "definitions.journal"] {
            let copy = tempfile::tempdir().expect("a folder");
            let from = dir.path().join(other);
            let to = copy.path().join(other);
            if from.is_dir() {
                fs::create_dir_all(to.join("blobs")).expect("made");
                for file in ["conf", "db"] {
                    fs::copy(from.join(file), to.join(file)).expect("copied");
                }
            } else {
                fs::copy(from, to).expect("copied");
            }
            let disk: Arc<dyn FileLayer> = Arc::new(crate::storage::files::Disk);
            let options = idle(copy.path());
            let (_, found) = open_by(|| SegmentedLog::open(options.clone(), disk.clone()));
            assert_eq!(values(found), [3; 20], "{what}, only {other}");
        }
        assert!(!dir.path().join("definitions.opening").exists(), "{what}");
    }
}

/// An error of sled's own disk, which it would keep for ever.
#[test]
fn sled_is_made_anew_after_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    define(&log, 1);
    passes(&log);
    // Its file cannot be opened to be synced.
    fs::rename(dir.path().join("definitions/db"), dir.path().join("gone")).expect("there");
    define(&log, 2);
    passes(&log);
    assert_eq!(log.troubles(), []);
    define(&log, 3);
    passes(&log);
    drop(log);
    let nothing = FaultyDisk::default();
    let (_, found) = open_with(&idle(dir.path()), &nothing);
    assert_eq!(values(found), [3; 20]);
}

/// Both are damaged, until both are removed: nothing is guessed, and nothing of the messages is thrown away.
#[test]
fn without_either_copy_nothing_is_started() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    drop(open_with(&idle(dir.path()), &disk));
    let real: Arc<dyn FileLayer> = Arc::new(crate::storage::files::Disk);
    fs::write(dir.path().join("definitions.journal"), [7; 100]).expect("written");
    for _ in 0..5 {
        let opened = std::iter::repeat_with(|| SegmentedLog::open(idle(dir.path()), real.clone()));
        let not_locked = |e: &io::Error| !e.to_string().contains("could not acquire lock");
        let mut failed = opened.map(|opened| opened.err().expect("an error"));
        let e = failed.find(not_locked).expect("one").to_string();
        assert!(
            e.contains("neither from") && e.contains("definitions.journal"),
            "{e}"
        );
        assert!(e.contains("remove both"), "{e}");
    }
    fs::remove_dir_all(dir.path().join("definitions")).expect("there");
    fs::remove_file(dir.path().join("definitions.journal")).expect("there");
    open_by(|| SegmentedLog::open(idle(dir.path()), real.clone()));
}

/// With a damaged journal, sled's folder is tried a few times, and not for ever.
#[test]
fn what_never_opens_is_tried_a_few_times() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk: Arc<dyn FileLayer> = Arc::new(crate::storage::files::Disk);
    let (log, _) = SegmentedLog::open(idle(dir.path()), disk.clone()).expect("opened");
    define(&log, 1);
    passes(&log);
    log.close(&[]).expect("closed");
    drop(log);
    fs::write(dir.path().join("definitions.journal"), [7; 100]).expect("written");
    let marker = dir.path().join("definitions.opening");
    fs::write(&marker, "3").expect("written");
    let e = SegmentedLog::open(idle(dir.path()), disk.clone());
    let e = e.err().expect("not again").to_string();
    assert!(e.contains("ended while it was opened"), "{e}");
    fs::write(&marker, "2").expect("written");
    let (_, found) = open_by(|| SegmentedLog::open(idle(dir.path()), disk.clone()));
    assert_eq!(values(found), [1; 20]);
}

/// A journal of which nothing checks does not say how far it went: sled is believed, and that is told and counted.
#[test]
fn a_copy_that_may_be_behind_is_counted() {
    for (what, at, is_behind) in [("first record", 100, false), ("key", 5, true)] {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || {
            let disk: Arc<dyn FileLayer> = Arc::new(crate::storage::files::Disk);
            open_by(|| SegmentedLog::open(idle(dir.path()), disk.clone()))
        };
        let (log, _) = open();
        for value in 1..=2 {
            define(&log, value);
            passes(&log);
        }
        log.close(&[]).expect("closed");
        drop(log);
        let journal = dir.path().join("definitions.journal");
        let mut bytes = fs::read(&journal).expect("there");
        bytes[at] ^= 1;
        fs::write(&journal, &bytes).expect("written");
        let (log, found) = open();
        assert_eq!(values(found), [2; 20], "{what}");
        assert_eq!(log.damage().definitions, is_behind, "{what}");
        assert_eq!(log.stats().damaged, u64::from(is_behind), "{what}");
    }
}
