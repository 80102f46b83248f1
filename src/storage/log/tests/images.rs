//! Tests of what clients make up to look like the log's own.

use super::damage::{found, image, paths, said, without};
use super::reading::frames_of;
use super::*;
use crate::storage::octets::Salt;

const IMAGES: usize = 40;

/// Octets with the frame of a message from nobody at every place at which a frame could be looked for, as they
/// would have to stand from `offset` on in this segment. `salt`: what the frames have that made them up.
fn images(segment: u32, offset: u32, salt: Salt) -> Vec<u8> {
    let mut out = Vec::new();
    let mut records = Records::default();
    stage(&mut records, message(0xbad, 0), &[1]);
    let part = Part::all(&records);
    for _ in 0..IMAGES {
        let place = format::Place {
            segment,
            salt,
            offset: offset + out.len() as u32,
            watermark: u64::MAX >> 8,
            first_id: 900,
        };
        format::encode(&mut out, &records, &part, 0, &place);
    }
    out
}

/// A log of one segment, in which the third message has images of frames for its body; where that frame stands,
/// and the images in it.
fn with_images(dir: &Path, disk: &FaultyDisk) -> (PathBuf, usize, usize) {
    let large = LogOptions {
        segment_bytes: 1 << 20,
        ..idle(dir)
    };
    let (log, _) = open_with(&large, disk);
    let mut records = Records::default();
    let append = |records: &mut Records| {
        let a = log.append(records).expect("accepted");
        wait(&log, a.lsn);
    };
    for n in 1..3 {
        stage(&mut records, message(n, 100), &[1]);
        append(&mut records);
    }
    // What a client can know: lengths, numbers and ids.
    let staged = log.staged().0 as u32;
    let parts = Parts {
        exchange: "".into(),
        routing_key: "".into(),
        properties: &[0, 0],
        flags: FLAG_PERSISTENT,
    };
    let around = format::FRAME_HEADER + 17 + 19 + 2;
    let body = staged + around as u32;
    let made_up = images(1, body, Salt::NONE);
    records.targets.push(target(1));
    records.publishes.push(LoggedPublish {
        message: Message::uncounted(&parts, &made_up),
        first_target: 0,
        n_targets: 1,
        transient: false,
    });
    append(&mut records);
    for n in 4..6 {
        stage(&mut records, message(n, 100), &[1]);
        append(&mut records);
    }
    drop(log);
    let path = paths(disk, "segment").remove(0);
    let live = image(disk, &path).lock().expect("a lock").live.clone();
    let (at, header) = frames_of(&live)[2];
    assert_eq!(
        (at, header.size()),
        (staged as usize, around + made_up.len())
    );
    let first = frames_of(&live[body as usize..])[0].1;
    assert_eq!(
        (first.offset, first.mark),
        (body, 1),
        "where it says that it is"
    );
    (path, at, body as usize)
}

#[test]
fn an_image_of_a_frame_in_a_message_is_no_frame() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (path, at, body) = with_images(dir.path(), &disk);
    let said = said(&disk);
    let expected = without(&said, Some(2));
    for byte in [at, at + 4, at + 9, at + 13, at + 40, body - 1, body + 3] {
        let damaged = disk.with_those(|_| true);
        image(&damaged, &path).lock().expect("a lock").live[byte] ^= 8;
        let (live, damage) = found(dir.path(), &damaged);
        assert_eq!(live, expected, "byte {byte}");
        let holes: Vec<_> = damage
            .holes
            .iter()
            .map(|h| (h.offset, h.messages))
            .collect();
        assert_eq!(holes, [(at as u64, Some(1))], "byte {byte}");
    }
    // While it runs, too.
    let (log, _) = open_with(&idle(dir.path()), &disk);
    image(&disk, &path).lock().expect("a lock").live[at + 40] ^= 8;
    let mut read = Vec::new();
    let ids: Vec<MessageId> = (1..6).map(MessageId).collect();
    log.read(&ids, &mut read).expect("readable");
    assert_eq!(numbers(&read), [1, 2, 4, 5]);
    assert!(matches!(read[2], Found::Lost));
}

/// Either copy of the salt is enough; without both, what is not known for the log's own is not believed.
#[test]
fn the_salt_is_there_as_long_as_one_copy_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (path, ..) = with_images(dir.path(), &disk);
    let salt = salt::path(dir.path());
    let said = said(&disk);
    let whole = without(&said, None);
    let flip = |damaged: &FaultyDisk, path: &Path, at: usize| {
        image(damaged, path).lock().expect("a lock").live[at] ^= 1;
    };
    for at in 0..17 {
        let damaged = disk.with_those(|_| true);
        flip(&damaged, &salt, at);
        assert_eq!(found(dir.path(), &damaged).0, whole, "byte {at}");
    }
    let without_file = disk.with_those(|path| path != salt);
    assert_eq!(found(dir.path(), &without_file).0, whole);
    // The next start has it in its place again.
    drop(open_with(&idle(dir.path()), &without_file));
    let again = image(&without_file, &salt);
    let before = image(&disk, &salt);
    assert_eq!(
        again.lock().expect("a lock").live,
        before.lock().expect("a lock").live
    );
    for at in format::FRAME_HEADER..format::FRAME_HEADER + format::SALT_LEN {
        let damaged = disk.with_those(|_| true);
        flip(&damaged, &path, at);
        assert_eq!(
            found(dir.path(), &damaged).0,
            without(&said, Some(0)),
            "byte {at}"
        );
        let neither = damaged.with_those(|path| path != salt);
        let (live, damage) = found(dir.path(), &neither);
        assert!(
            live.is_empty() && damage.set_aside.len() == 1,
            "{live:?} {damage:?}"
        );
    }
}

/// A log of the first version is read as it was, and what is written from now on has the salt.
#[test]
fn segments_without_a_salt_are_read_and_rewritten_as_they_were() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let mut bytes = Vec::new();
    let mut records = Records::default();
    let mut put = |numbers: std::ops::Range<u64>| {
        numbers
            .clone()
            .for_each(|n| stage(&mut records, message(n, 10), &[1]));
        let place = format::Place {
            segment: 3,
            salt: Salt::NONE,
            offset: bytes.len() as u32,
            watermark: lsn(3, bytes.len() as u32).0,
            first_id: numbers.start,
        };
        format::encode(&mut bytes, &records, &Part::all(&records), 0, &place);
        records.clear();
    };
    for n in 0..100 {
        put(n * 3 + 1..n * 3 + 4);
    }
    let path = dir.path().join("log").join("0000000003.segment");
    let file = disk.open(&path).expect("made");
    file.write_at(&bytes, 0).expect("written");
    let (log, _) = open_with(&idle(dir.path()), &disk);
    assert_eq!(recovered(&log)[&1].len(), 300);
    let mut records = Records::default();
    let settles = (1..300).map(|id| (QueueId(1), MessageId(id)));
    records.settles.extend(settles);
    stage(&mut records, message(1000, 10), &[1]);
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    while log.inner.lock().applied < a.lsn {
        std::thread::yield_now();
    }
    let mut reclaim = reclaim::Reclaim::default();
    reclaim.pass(&log.inner);
    while reclaim.step(&log.inner) {}
    assert!(file.len().expect("a length") > 9000, "the old one");
    let rewritten = image(&disk, &path).lock().expect("a lock").live.clone();
    assert!(rewritten.len() < 500, "{}", rewritten.len());
    drop(log);
    let (log, _) = open_with(&idle(dir.path()), &disk);
    assert_eq!(recovered(&log)[&1], [300, 1000]);
    assert!(log.damage().holes.is_empty() && log.damage().set_aside.is_empty());
    let new = image(&disk, &dir.path().join("log").join("0000000004.segment"));
    let new = new.lock().expect("a lock").live.clone();
    assert!(format::salt_in(&rewritten).is_none() && format::salt_in(&new).is_some());
}
