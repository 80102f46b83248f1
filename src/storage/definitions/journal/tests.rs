use std::sync::Mutex;

use super::super::DefinitionStore;
use super::*;
use crate::storage::files::Disk;

fn change(n: u64, value: Option<u8>) -> DefinitionChange {
    DefinitionChange {
        kind: DefinitionKind::Queue,
        key: n.to_be_bytes().to_vec(),
        value: value.map(|v| vec![v; 40]),
    }
}

fn open(path: &Path) -> (Journal, Option<Found>) {
    Journal::open(Arc::new(Disk), path, Sizes::default()).expect("a disk")
}

/// A journal of ten records, of which each puts one definition and removes the one before the last; and how
/// long it was after each.
fn ten(path: &Path) -> Vec<u64> {
    let (mut journal, found) = open(path);
    assert!(found.is_none());
    let mut ends = Vec::new();
    for n in 1..=10 {
        let changes = [change(n, Some(n as u8)), change(n - 1, None)];
        journal.append(&changes, Lsn(n), n + 100).expect("written");
        ends.push(journal.end);
    }
    ends
}

#[test]
fn it_is_read_as_it_was_written_however_often_it_was_made_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    let mut last = 0;
    for round in 0..3 {
        let (mut journal, found) = open(&path);
        if let Some(found) = found {
            assert!(!found.damaged);
            assert_eq!(found.stored.applied, Lsn(last));
            assert_eq!(found.stored.next_id, last + 7);
            assert_eq!(found.stored.definitions.len(), 60);
            let values = found.stored.definitions.into_values();
            assert!(values.into_iter().all(|v| v[0] == round));
        }
        // More than a record at once, and more than is kept before it is made anew.
        for _ in 0..5 {
            let mut changes: Vec<_> = (0..60).map(|n| change(n, Some(round + 1))).collect();
            changes.iter_mut().for_each(|c| {
                let value = c.value.as_mut().expect("a value");
                value.resize(40_000, round + 1);
            });
            last += 1;
            journal
                .append(&changes, Lsn(last), last + 7)
                .expect("written");
        }
        let len = std::fs::metadata(&path).expect("there").len();
        assert!(len < 3 * Sizes::default().compact_above_bytes, "{len}");
    }
}

/// Whatever its last write has left, what was there before is there; whatever is damaged before that is seen.
#[test]
fn every_octet_is_checked() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    let ends = ten(&path);
    let good = std::fs::read(&path).expect("there");
    let end = ends[9] as usize;
    assert!(good[end..].iter().all(|b| *b == 0));
    for at in 0..end {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        let (upto, found) = read(&bytes).expect("our version");
        let records = ends.iter().filter(|end| **end <= at as u64).count();
        assert_eq!(
            upto as u64,
            if records == 0 { 0 } else { ends[records - 1] }
        );
        assert_eq!(found.stored.applied, Lsn(records as u64), "at {at}");
        assert_eq!(found.damaged, records < 9, "at {at}");
        let (upto, found) = read(&good[..at]).expect("our version");
        assert_eq!(
            upto as u64,
            if records == 0 { 0 } else { ends[records - 1] }
        );
        assert_eq!(found.stored.definitions.len(), records.min(1));
    }
}

/// Two definitions, and then one of them removed, as the journal's first version wrote it.
const OF_VERSION_1: &[u8] = b"LVJR2<\xc6\xf6\x00\x00\x005\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00d\
    \x03\x00\x00\x00\x03one\x01\x00\x00\x00\x05first\x03\x00\x00\x00\x03two\x01\x00\x00\x00\x06second\
    LVJR\x8e\xfb\xb7?\x00\x00\x00\x19\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00e\
    \x03\x00\x00\x00\x03one\x00\0\0\0\0\0\0\0";

#[test]
fn one_of_the_first_version_is_read_and_gets_a_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    std::fs::write(&path, OF_VERSION_1).expect("written");
    let kept = (DefinitionKind::of(3), b"two".to_vec());
    for life in 0..3 {
        let (mut journal, found) = open(&path);
        let found = found.expect("something");
        assert!(!found.damaged && !found.unfinished, "life {life}");
        let stored = found.stored;
        assert_eq!(
            (stored.applied, stored.next_id),
            (Lsn(8 + life), 101 + life)
        );
        assert_eq!(stored.definitions.len() as u64, 1 + life);
        assert_eq!(stored.definitions[&kept], b"second");
        let (applied, next_id) = (Lsn(9 + life), 102 + life);
        let changes = [change(life, Some(1))];
        journal.append(&changes, applied, next_id).expect("written");
        let (key, start) = Key::of(&std::fs::read(&path).expect("there")).expect("ours");
        assert!(key != Key::NONE && start == key::LEN);
    }
}

#[test]
fn one_of_an_unknown_version_is_refused_and_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("definitions.journal");
    let mut bytes = Key::NONE.start().to_vec();
    bytes[8] = 3;
    let crc = crc32fast::hash(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_be_bytes());
    bytes.extend([1; 50]);
    std::fs::write(&path, &bytes).expect("written");
    let e = DefinitionStore::open(Arc::new(Disk), dir.path()).err();
    let e = e.expect("refused").to_string();
    let what = "definitions.journal: the journal has version 3; this Leveret reads versions 1 to 2";
    assert!(e.contains(what), "{e}");
    assert_eq!(std::fs::read(&path).expect("there"), bytes);
}

/// Lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the definitions of a folder, as soon as sled's lock is free; and what is said then.
fn start(dir: &Path) -> (DefinitionStore, Stored, String) {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let opened = tracing::subscriber::with_default(log.finish(), || {
        let starts = std::iter::repeat_with(|| DefinitionStore::open(Arc::new(Disk), dir));
        let locked = |e: &io::Error| e.to_string().contains("could not acquire lock");
        let mut starts = starts.skip_while(|s| s.as_ref().err().is_some_and(locked));
        starts.next().expect("endless")
    });
    let (store, stored) = opened.expect("definitions");
    let said = lines.0.lock().expect("a lock").clone();
    (store, stored, String::from_utf8(said).expect("text"))
}

/// A definition whose value is full of records; of the write of it, all but the first sector came to the disk.
#[test]
fn an_image_of_a_record_in_a_definition_is_no_record() {
    let dir = tempfile::tempdir().expect("a folder");
    let images = {
        let file = Disk.open(&dir.path().join("images")).expect("a file");
        let mut writer = Writer {
            file: file.as_ref(),
            key: Key::NONE,
            at: 0,
            applied: Lsn(1 << 40),
            next_id: 1,
            changes: Vec::new(),
        };
        for n in 0..20 {
            writer.put_all(&[change(n, Some(0xbd))]).expect("staged");
            writer.write().expect("written");
        }
        whole(file.as_ref(), writer.at).expect("readable")
    };
    let path = dir.path().join("definitions.journal");
    let (store, _, said) = start(dir.path());
    assert_eq!(said, "");
    store
        .checkpoint(&[change(1, Some(1))], Lsn(10), 1)
        .expect("stored");
    let end = read(&std::fs::read(&path).expect("there")).expect("ours").0;
    let mut declared = change(2, None);
    declared.value = Some(images);
    store.checkpoint(&[declared], Lsn(20), 2).expect("stored");
    drop(store);
    let mut bytes = std::fs::read(&path).expect("there");
    bytes[end..end + 512].fill(0);
    std::fs::write(&path, &bytes).expect("written");
    std::fs::remove_dir_all(dir.path().join("definitions")).expect("there");

    let (store, stored, said) = start(dir.path());
    assert_eq!((stored.applied, stored.definitions.len()), (Lsn(10), 1));
    // It cannot be told from one that was written and is damaged.
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 1, "{said}");
    for part in [
        "ERROR",
        "definitions.journal: its last record does not check",
        "restore both",
    ] {
        assert!(said.contains(part), "{said}");
    }
    drop(store);
    // Sled has what the journal has: that is what a crash leaves.
    let (store, _, said) = start(dir.path());
    assert!(said.contains("WARN") && !said.contains("ERROR"), "{said}");
    store
        .checkpoint(&[change(3, Some(3))], Lsn(30), 3)
        .expect("stored");
    drop(store);
    let (_, stored, said) = start(dir.path());
    assert_eq!(
        (stored.applied, stored.definitions.len(), said.as_str()),
        (Lsn(30), 2, "")
    );
}

#[test]
fn the_octets_of_a_journal_are_those_of_its_format() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    let key = Key::fixed(0x0102_0304, 0x0506_0708);
    let file = Disk.open(&path).expect("a file");
    let mut writer = Writer {
        file: file.as_ref(),
        key,
        at: 0,
        applied: Lsn(7 << 32 | 0x100),
        next_id: 0x1234,
        changes: Vec::new(),
    };
    let changes = [change(1, Some(0xaa)), change(2, None)];
    writer.put_all(&changes).expect("put");
    writer.write().expect("written");
    let made = [("a journal", std::fs::read(&path).expect("there"))];
    crate::golden::check("journal.txt", &made);
}
