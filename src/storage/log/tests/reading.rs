//! Tests of reading messages from what is damaged, does not answer, or is not there yet.

use super::*;

/// A log of some segments with frames of one to four messages; the ids of all.
fn filled(dir: &Path, disk: &FaultyDisk) -> (SegmentedLog, Vec<MessageId>) {
    let (log, _) = open_with(&idle(dir), disk);
    let (mut records, mut ids) = (Records::default(), Vec::new());
    for n in 0..100 {
        for m in 0..=n % 4 {
            stage(&mut records, message(n * 4 + m, 100), &[1]);
        }
        let first = log.append(&mut records).expect("accepted").first_id.0;
        ids.extend((first..=first + n % 4).map(MessageId));
    }
    wait(&log, log.staged());
    (log, ids)
}

/// The frames in `bytes`, which are whole, and where they stand.
pub(super) fn frames_of(bytes: &[u8]) -> Vec<(usize, format::FrameHeader)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(header) = format::FrameHeader::read(&bytes[at..])
        && header.len > 0
    {
        found.push((at, header));
        at += header.size();
    }
    found
}

fn first_segment(disk: &FaultyDisk) -> Arc<Mutex<Image>> {
    let state = disk.state.lock().expect("a lock");
    let mut segments = state.files.iter();
    let first = segments.find(|(path, _)| has_extension(path, "segment"));
    first.expect("a segment").1.clone()
}

#[test]
fn a_flipped_bit_anywhere_in_a_frame_loses_its_messages_and_no_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, ids) = filled(dir.path(), &disk);
    assert!(log.stats().segments > 1);
    let image = first_segment(&disk);
    let frames = frames_of(&image.lock().expect("a lock").live);
    let mut places = 0;
    for (start, header) in [frames[0], frames[7], frames[frames.len() - 2]] {
        let lost = header.first_id..header.first_id + u64::from(header.n_messages);
        for at in (start..start + 60).chain([start + header.size() - 1]) {
            for bit in [at % 8, 7 - at % 8] {
                image.lock().expect("a lock").live[at] ^= 1 << bit;
                let mut found = Vec::new();
                log.read(&ids, &mut found).expect("readable");
                for (id, found) in ids.iter().zip(found) {
                    match found {
                        Found::Here(_) => assert!(!lost.contains(&id.0)),
                        Found::Lost => assert!(lost.contains(&id.0), "{id:?}, byte {at}"),
                        other => panic!("{other:?}"),
                    }
                }
                image.lock().expect("a lock").live[at] ^= 1 << bit;
            }
        }
        places += 1;
        assert_eq!(log.stats().damaged, places, "each place is counted once");
    }
}

#[test]
fn a_missing_end_loses_what_was_in_it_and_the_next_segment_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, ids) = filled(dir.path(), &disk);
    let image = first_segment(&disk);
    let frames = frames_of(&image.lock().expect("a lock").live);
    let (cut, header) = frames[frames.len() / 2];
    let next = log.inner.lock().segments.by_number[&1].next_id;
    let read = || {
        let mut found = Vec::new();
        log.read(&ids, &mut found).expect("readable");
        let lost = ids.iter().zip(found);
        lost.filter(|(_, found)| matches!(found, Found::Lost))
            .map(|(id, _)| id.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(), [0; 0]);
    image.lock().expect("a lock").live[cut..].fill(0);
    assert_eq!(read(), Vec::from_iter(header.first_id..next));
    image.lock().expect("a lock").live.truncate(cut + 10);
    assert_eq!(read(), Vec::from_iter(header.first_id..next));
    assert_eq!(log.stats().damaged, 1);
}

#[test]
fn a_disk_that_does_not_answer_has_lost_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, ids) = filled(dir.path(), &disk);
    let mut found = Vec::new();
    disk.unreadable.store(true, Ordering::Relaxed);
    log.read(&ids, &mut found).expect_err("told");
    assert_eq!(found.len(), ids.len());
    assert!(found.iter().all(|f| matches!(f, Found::Later)));
    disk.unreadable.store(false, Ordering::Relaxed);
    found.clear();
    log.read(&ids, &mut found).expect("readable");
    assert_eq!(numbers(&found).len(), ids.len());
    assert_eq!(log.stats().damaged, 0);
    // What is settled is neither.
    let mut records = Records::default();
    records.settles.push((QueueId(1), ids[5]));
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    found.clear();
    log.read(&ids, &mut found).expect("readable");
    let gone = found.iter().position(|f| matches!(f, Found::Settled));
    assert_eq!((gone, numbers(&found).len()), (Some(5), ids.len() - 1));
}

#[test]
fn what_cannot_be_written_yet_keeps_nobody_from_reading_the_rest() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, mut ids) = filled(dir.path(), &disk);
    let written = ids.len();
    disk.full.store(true, Ordering::Relaxed);
    let mut records = Records::default();
    // More than the active segment has room for, so that another one is wanted.
    for n in 0..200 {
        stage(&mut records, message(n, 200), &[1]);
        ids.push(log.append(&mut records).expect("accepted").first_id);
    }
    let log = Arc::new(log);
    let read = |ids: &[MessageId]| {
        let (tell, told) = channel();
        let (log, ids) = (log.clone(), ids.to_vec());
        std::thread::spawn(move || {
            let mut found = Vec::new();
            let result = log.read(&ids, &mut found);
            tell.send((found, result.is_ok())).expect("somebody waits");
        });
        told.recv_timeout(Duration::from_secs(20))
            .expect("an answer, whatever the disk does")
    };
    let (found, ok) = read(&ids);
    assert!(ok && numbers(&found[..written]).len() == written);
    assert!(matches!(found.last(), Some(Found::Later)));
    assert!(!found.iter().any(|f| matches!(f, Found::Lost)));
    disk.full.store(false, Ordering::Relaxed);
    wait(&log, log.staged());
    let (found, _) = read(&ids);
    assert_eq!(numbers(&found).len(), ids.len());
    assert_eq!(log.stats().damaged, 0);
}
