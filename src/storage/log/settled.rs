//! Notes beside a segment of what is settled in it (`.settled` files), so that the segments that hold the
//! settles may go.
//!
//! ```text
//! | crc | first_id | n, words of bits: done with | (queue, first, n) of messages that several have |
//! ```

use std::io;
use std::path::{Path, PathBuf};

use bytes::BufMut;

use super::segment::Segment;
use super::{Inner, writer};
use crate::broker::ports::QueueId;
use crate::storage::files::{FileLayer, LogFile, replace, whole};
use crate::storage::octets::Octets;

/// No notes are longer.
const BYTES_MAX: u64 = 1 << 30;

/// What the notes are called of what is settled in this segment.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join("log").join(format!("{number:010}.settled"))
}

/// Brings the notes of every segment up to this one up to date, but for those that will go first. If
/// that fails, `Err` also has the first segment that needs the settles of later ones as before.
pub(super) fn save(log: &Inner, to: u32, but: &[u32]) -> Result<(), (u32, io::Error)> {
    let mut saved = Vec::new();
    let mut failed = None;
    let dirty: Vec<u32> = {
        let staging = log.lock();
        let all = staging.segments.by_number.range(..=to);
        let dirty = all.filter(|(number, s)| s.is_dirty() && !but.contains(number));
        dirty.map(|(number, _)| *number).collect()
    };
    for number in dirty {
        match save_one(log, number) {
            Ok(settled) => saved.push((number, settled)),
            Err(e) => {
                failed = Some((number, e));
                break;
            }
        }
    }
    if let Some(&(first, _)) = saved.first() {
        let dir = log.options.dir.join("log");
        log.files.sync_dir(&dir).map_err(|e| (first, e))?;
        let mut staging = log.lock();
        for (number, settled) in saved {
            if let Some(segment) = staging.segments.by_number.get_mut(&number) {
                segment.noted = settled;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Writes which messages of a segment are done with, and how many copies it says are; the folder is
/// the caller's.
fn save_one(log: &Inner, number: u32) -> io::Result<u64> {
    let mut out = vec![0; 4];
    let settled = {
        let staging = log.lock();
        let Some(segment) = staging.segments.by_number.get(&number) else {
            return Ok(0);
        };
        segment.encode_settled(&mut out);
        segment.settled
    };
    writer::sync_applied(log)?;
    let crc = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    replace(
        log.files.as_ref(),
        &path(&log.options.dir, number),
        &out,
        true,
    )?;
    Ok(settled)
}

impl Segment {
    pub(super) fn encode_settled(&self, out: &mut Vec<u8>) {
        out.put_u64(self.first_id);
        // A segment has fewer messages than bytes.
        out.put_u32(u32::try_from(self.done.len()).unwrap_or(u32::MAX));
        for word in &self.done {
            out.put_u64(*word);
        }
        for (queue, first, n) in self.shared.settled() {
            out.put_u64(queue.0);
            out.put_u64(self.first_id + first);
            out.put_u64(n);
        }
    }
}

/// What is in notes behind their checksum, if that fits.
fn read(file: &dyn LogFile) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = whole(file, BYTES_MAX)?.unwrap_or_default();
    let mut r = Octets(&bytes);
    if r.u32() != Some(crc32fast::hash(r.0)) {
        return Ok(None);
    }
    bytes.drain(..4);
    Ok(Some(bytes))
}

/// Whether these are notes that check.
pub(super) fn checks(files: &dyn FileLayer, path: &Path) -> io::Result<bool> {
    Ok(read(files.open_existing(path)?.as_ref())?.is_some())
}

/// Reads what [`save`] wrote. A file that does not check is ignored, as it is a hint beside the settles in the
/// log, and told of: those may be gone. Returns its length then.
pub(super) fn load(
    files: &dyn FileLayer,
    dir: &Path,
    number: u32,
    segment: &mut Segment,
) -> io::Result<Option<u64>> {
    let path = path(dir, number);
    let file = files.open_existing(&path)?;
    let bytes = read(file.as_ref())?;
    let Some(mut r) = bytes.as_deref().map(Octets) else {
        tracing::error!(
            "{}: checksum mismatch, ignored: acknowledged messages may come back",
            path.display()
        );
        return Ok(Some(file.len()?));
    };
    // Whatever fits the checksum is looked at; what this segment has not is passed over.
    let (Some(first_id), Some(n)) = (r.u64(), r.u32()) else {
        return Ok(None);
    };
    for word in 0..u64::from(n) {
        let Some(bits) = r.u64() else { break };
        for bit in (0..64).filter(|bit| bits & (1 << bit) != 0) {
            let id = first_id.saturating_add(word * 64 + bit);
            if (segment.first_id..segment.next_id).contains(&id) {
                segment.settle_all(id);
            }
        }
    }
    while let (Some(queue), Some(first), Some(n)) = (r.u64(), r.u64(), r.u64()) {
        let last = first.saturating_add(n).min(segment.next_id);
        for id in first.max(segment.first_id)..last {
            segment.settle(QueueId(queue), id);
        }
    }
    segment.noted = segment.settled;
    Ok(None)
}
