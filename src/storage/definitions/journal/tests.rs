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
        let (upto, found) = read(&bytes);
        let records = ends.iter().filter(|end| **end <= at as u64).count();
        assert_eq!(
            upto as u64,
            if records == 0 { 0 } else { ends[records - 1] }
        );
        assert_eq!(found.stored.applied, Lsn(records as u64), "at {at}");
        assert_eq!(found.damaged, records < 9, "at {at}");
        let (upto, found) = read(&good[..at]);
        assert_eq!(
            upto as u64,
            if records == 0 { 0 } else { ends[records - 1] }
        );
        assert_eq!(found.stored.definitions.len(), records.min(1));
    }
}
