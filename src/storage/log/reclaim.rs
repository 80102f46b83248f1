//! Giving disk space back, and checkpointing definitions.
//!
//! A segment goes when no copy in it is live. Settles in it may name messages of older segments
//! that stay: before it goes, those segments' own notes of what is done with (`.settled` files) are
//! brought up to date. A segment with few live copies is rewritten under its own number.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BufMut;

use super::format::{self, FrameHeader, Place, Record};
use super::frames::Frames;
use super::segment::{Index, Segment, lsn, note_frame};
use super::{Inner, Staging, UNPOISONED, index};
use crate::broker::ports::{DefinitionChange, Lsn, QueueId};
use crate::storage::files::{FileLayer, LogFile};

/// A sealed segment is rewritten when fewer than one in this many of its copies are live.
const REWRITE_BELOW_ONE_IN: u64 = 3;

pub(super) fn run(log: &Arc<Inner>) {
    loop {
        let stopping = {
            let staging = log.lock();
            // It may have been told to stop before it came to wait.
            staging.stopping || {
                let waited = log
                    .reclaim
                    .wait_timeout(staging, log.options.reclaim_interval);
                waited.expect(UNPOISONED).0.stopping
            }
        };
        if stopping || log.failed.load(Ordering::Acquire) {
            return;
        }
        if let Err(e) = pass(log) {
            // Nothing is lost by keeping too much; the next pass tries again.
            tracing::warn!("giving disk space back failed: {e}");
        }
    }
}

fn pass(log: &Inner) -> io::Result<()> {
    if !log.lock().definitions.is_empty() {
        checkpoint(log)?;
    }
    remove_dead(log)?;
    while let Some(number) = sparse(log) {
        rewrite(log, number)?;
    }
    for number in unindexed(log) {
        if log.lock().stopping {
            break;
        }
        let written = index::write(log, number);
        forget(log, number);
        if let Some(segment) = log.lock().segments.by_number.get_mut(&number) {
            // An index is a hint: a disk that failed once need not be asked again.
            segment.index = Index::Settled;
        }
        written?;
    }
    Ok(())
}

/// Lets go of a segment's pages that has much before it. Left alone, the system would let go of what
/// was read longest ago: the head of the queues, which will be read next.
fn forget(log: &Inner, number: u32) {
    let staging = log.lock();
    let before = staging.segments.by_number.range(..number);
    let before: u64 = before.map(|(_, s)| u64::from(s.len)).sum();
    let segment = staging.segments.by_number.get(&number);
    let file = segment.and_then(|s| s.file.clone());
    drop(staging);
    if let Some(file) = file
        && before > log.options.cached_bytes
    {
        file.forget();
    }
}

/// Sealed segments that want an index. One gets it when it has been looked at twice: what is consumed
/// as fast as it is filled goes before that.
fn unindexed(log: &Inner) -> Vec<u32> {
    let mut guard = log.lock();
    let horizon = Horizon::of(log, &guard);
    let mut due = Vec::new();
    for (number, s) in &mut guard.segments.by_number {
        match s.index {
            Index::Wanted if horizon.covers(*number, s) && s.file.is_some() => {
                s.index = Index::Due;
            }
            Index::Due => due.push(*number),
            Index::Wanted | Index::Settled => {}
        }
    }
    due
}

/// How far log and definitions' store have come on the disk.
struct Horizon {
    durable: Lsn,
    /// The first definition change that the store does not have yet.
    pending: Lsn,
}

impl Horizon {
    fn of(log: &Inner, staging: &Staging) -> Horizon {
        let first = staging.definitions.first();
        Horizon {
            durable: Lsn(log.durable.load(Ordering::Acquire)),
            pending: first.map_or(Lsn(u64::MAX), |(at, _)| *at),
        }
    }

    /// Nothing is appended to the segment any more, all of it is durable, and the store has its
    /// definitions.
    fn covers(&self, number: u32, s: &Segment) -> bool {
        s.sealed && lsn(number, s.len) <= self.durable && s.definitions_to < self.pending
    }
}

/// Brings the definitions' store up to what is durable in the log.
pub(super) fn checkpoint(log: &Inner) -> io::Result<()> {
    let durable = Lsn(log.durable.load(Ordering::Acquire));
    let (changes, next_id): (Vec<_>, u64) = {
        let staging = log.lock();
        let due = staging
            .definitions
            .iter()
            .take_while(|(at, _)| *at <= durable);
        (
            due.map(|(_, change)| change.clone()).collect(),
            staging.next_id,
        )
    };
    let n = changes.len();
    log.store.checkpoint(&latest(changes), durable, next_id)?;
    log.lock().definitions.drain(..n);
    Ok(())
}

/// The latest change of each key, in their order: a de-duplication window writes the same few over and
/// over.
fn latest(changes: Vec<DefinitionChange>) -> Vec<DefinitionChange> {
    let mut seen = HashSet::with_capacity(changes.len());
    let mut kept: Vec<_> = changes
        .into_iter()
        .rev()
        .filter(|c| seen.insert((c.kind, c.key.clone())))
        .collect();
    kept.reverse();
    kept
}

/// Sealed segments without a live copy whose last settle is durable.
fn dead(log: &Inner) -> Vec<u32> {
    let staging = log.lock();
    let horizon = Horizon::of(log, &staging);
    let dead = staging.segments.by_number.iter().filter(|(number, s)| {
        horizon.covers(**number, s) && s.live == 0 && s.settled_at <= horizon.durable
    });
    dead.map(|(number, _)| *number).collect()
}

fn remove_dead(log: &Inner) -> io::Result<()> {
    let dead = dead(log);
    if dead.is_empty() {
        return Ok(());
    }
    let dir = log.options.dir.join("log");
    // Older segments that stay must not need the settles that go.
    let newest = dead.iter().max().copied().unwrap_or(0);
    let dirty: Vec<u32> = {
        let staging = log.lock();
        let stay = staging
            .segments
            .by_number
            .range(..newest)
            .filter(|(n, s)| s.dirty && !dead.contains(n));
        stay.map(|(n, _)| *n).collect()
    };
    for number in &dirty {
        save_settled(log, *number)?;
    }
    log.files.sync_dir(&dir)?;
    // Neither ids nor segment numbers are used twice, even when no segment is left to tell.
    checkpoint(log)?;
    for number in dead {
        let segment = log.lock().segments.remove(number);
        if segment.is_some_and(|s| s.file.is_some()) {
            log.files.remove(&log.segment_path(number))?;
        }
        remove_if_there(log, &settled_path(&log.options.dir, number))?;
        remove_if_there(log, &index::path(&log.options.dir, number))?;
        // One after the other, oldest first: a later one may hold the settles of an earlier one.
        log.files.sync_dir(&dir)?;
    }
    Ok(())
}

fn remove_if_there(log: &Inner, path: &Path) -> io::Result<()> {
    match log.files.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// What the notes are called of what is settled in this segment.
pub(super) fn settled_path(dir: &Path, number: u32) -> PathBuf {
    dir.join("log").join(format!("{number:010}.settled"))
}

/// Writes which messages of a segment are done with.
pub(super) fn save_settled(log: &Inner, number: u32) -> io::Result<()> {
    let mut out = vec![0; 4];
    let (first_id, at) = {
        let mut staging = log.lock();
        let Some(segment) = staging.segments.by_number.get_mut(&number) else {
            return Ok(());
        };
        segment.dirty = false;
        out.put_u64(segment.first_id);
        out.put_u32(segment.done.len() as u32);
        for word in &segment.done {
            out.put_u64(*word);
        }
        for (queue, first, n) in segment.shared.settled() {
            out.put_u64(queue.0);
            out.put_u64(segment.first_id + first);
            out.put_u64(n);
        }
        (segment.first_id, segment.settled_at)
    };
    debug_assert!(first_id > 0);
    // What it says is done with must be durable by itself: a dead letter's settle comes with a
    // publish.
    if !wait_durable(log, at) {
        return Err(io::Error::other("the log ended before it was synced"));
    }
    let crc = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    replace(log, &settled_path(&log.options.dir, number), &out, true)
}

/// Puts a file in place of another: all or nothing, if it is `synced` before. The folder is the caller's.
pub(super) fn replace(log: &Inner, path: &Path, bytes: &[u8], synced: bool) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let file = log.files.open(&tmp)?;
    file.truncate(0)?;
    file.write_at(bytes, 0)?;
    if synced {
        file.sync_data()?;
    }
    log.files.rename(&tmp, path)
}

/// False if the log ends before that.
fn wait_durable(log: &Inner, at: Lsn) -> bool {
    let mut staging = log.lock();
    while Lsn(log.durable.load(Ordering::Acquire)) < at
        && !log.failed.load(Ordering::Acquire)
        && !staging.stopping
    {
        staging = log.watch(staging);
    }
    Lsn(log.durable.load(Ordering::Acquire)) >= at
}

/// Reads what [`save_settled`] wrote. A file that does not check is ignored: it is a hint beside the
/// settles in the log.
pub(super) fn load_settled(
    files: &dyn FileLayer,
    dir: &Path,
    number: u32,
    segment: &mut Segment,
) -> io::Result<()> {
    let path = settled_path(dir, number);
    let file = files.open(&path)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    let checks = bytes.len() >= 16
        && bytes
            .first_chunk::<4>()
            .is_some_and(|crc| crc32fast::hash(&bytes[4..]) == u32::from_be_bytes(*crc));
    if !checks {
        tracing::error!(
            "{}: checksum mismatch, ignored: acknowledged messages may come back",
            path.display()
        );
        return Ok(());
    }
    let u64_at = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_be_bytes)
    };
    let u32_at = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    let first_id = u64_at(4);
    let words = u32_at(12) as usize;
    for word in 0..words {
        let bits = u64_at(16 + word * 8);
        for bit in (0..64).filter(|bit| bits & (1 << bit) != 0) {
            let id = first_id + word as u64 * 64 + bit;
            if id >= segment.first_id && id < segment.next_id && !segment.is_done(id) {
                let index = id - segment.first_id;
                segment.live -= u64::from(segment.shared.left(index).unwrap_or(1));
                segment.shared.remove(index);
                segment.set_done(id);
            }
        }
    }
    let mut at = 16 + words * 8;
    while at + 24 <= bytes.len() {
        let (queue, first, n) = (QueueId(u64_at(at)), u64_at(at + 8), u64_at(at + 16));
        let last = first.saturating_add(n).min(segment.next_id);
        for id in first.max(segment.first_id)..last {
            segment.settle(queue, id);
        }
        at += 24;
    }
    Ok(())
}

/// A sealed segment with few live copies, if there is one.
fn sparse(log: &Inner) -> Option<u32> {
    let staging = log.lock();
    let horizon = Horizon::of(log, &staging);
    let sparse = staging.segments.by_number.iter().find(|(number, s)| {
        horizon.covers(**number, s)
            && s.live > 0
            && s.file.is_some()
            && s.live * REWRITE_BELOW_ONE_IN < s.copies
            && s.live * 2 <= s.compacted_at
            && s.settled_at <= horizon.durable
    });
    sparse.map(|(number, _)| *number)
}

/// Messages of a frame that some queue has a copy of, ascending.
fn live_in(log: &Inner, number: u32, header: &FrameHeader) -> Vec<u64> {
    let staging = log.lock();
    let Some(segment) = staging.segments.by_number.get(&number) else {
        return Vec::new();
    };
    let ids = header.first_id..header.first_id + u64::from(header.n_messages);
    ids.filter(|id| !segment.is_done(*id)).collect()
}

/// A segment being written anew, a piece at a time: memory must not depend on its size.
struct Rewritten {
    file: Arc<dyn LogFile>,
    written: u64,
    bytes: Vec<u8>,
}

impl Rewritten {
    /// Bytes collected before they are written.
    const PIECE_BYTES: usize = 1 << 20;

    fn to(file: Arc<dyn LogFile>) -> io::Result<Rewritten> {
        file.truncate(0)?;
        Ok(Rewritten {
            file,
            written: 0,
            bytes: Vec::new(),
        })
    }

    /// Where the next frame goes; segments are below 4 GiB.
    fn len(&self) -> u32 {
        (self.written + self.bytes.len() as u64) as u32
    }

    fn write_full(&mut self) -> io::Result<()> {
        if self.bytes.len() < Self::PIECE_BYTES {
            return Ok(());
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.bytes, self.written)?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u32> {
        self.write()?;
        self.file.sync_data()?;
        Ok(self.len())
    }
}

/// Rewrites a segment with its live messages only.
fn rewrite(log: &Inner, number: u32) -> io::Result<()> {
    let dir = log.options.dir.join("log");
    // The settles in it go: neither older segments nor itself must need them.
    let older: Vec<u32> = {
        let staging = log.lock();
        staging
            .segments
            .by_number
            .range(..=number)
            .filter(|(_, s)| s.dirty)
            .map(|(n, _)| *n)
            .collect()
    };
    for older in older {
        save_settled(log, older)?;
    }
    let (file, len, next_id) = {
        let staging = log.lock();
        match staging.segments.by_number.get(&number) {
            Some(s) => (s.file.clone(), u64::from(s.len), s.next_id),
            None => return Ok(()),
        }
    };
    let Some(file) = file else { return Ok(()) };
    let path = log.segment_path(number);
    let tmp = path.with_extension("tmp");
    let mut out = Rewritten::to(log.files.open(&tmp)?)?;
    let mut sparse = Vec::new();
    let mut frames = Frames::of(number, file)?;
    let mut at = 0;
    while at < len {
        let Some(header) = frames.frame(at)? else {
            // Corruption that recovery reported: what is readable was copied, the rest is behind it.
            tracing::error!("segment {number}: checksum mismatch at byte {at}, left as it is");
            if let Some(s) = log.lock().segments.by_number.get_mut(&number) {
                s.compacted_at = 0;
            }
            return log.files.remove(&tmp);
        };
        let live = live_in(log, number, &header);
        format::decode(frames.bytes(&header)?, &header, |record| {
            if let Record::Publish(p) = record
                && live.binary_search(&p.id.0).is_ok()
            {
                // With all its targets: settles elsewhere name those that are done with.
                let targets: Vec<_> = p.targets().collect();
                if let Some(record) = p.rewrite(&targets) {
                    let place = Place {
                        segment: number,
                        offset: out.len(),
                        // It was durable, or it would not be rewritten.
                        watermark: log.durable.load(Ordering::Acquire),
                        first_id: p.id.0,
                    };
                    note_frame(&mut sparse, p.id.0, place.offset);
                    format::encode_one(&mut out.bytes, &record, &place);
                }
            }
        });
        out.write_full()?;
        at += header.size() as u64;
    }
    // IMPORTANT: without it, recovery could take its end for the end of the log.
    let end = Place {
        segment: number,
        offset: out.len(),
        watermark: log.durable.load(Ordering::Acquire),
        first_id: next_id,
    };
    format::encode_seal(&mut out.bytes, &end);
    let new_len = out.finish()?;
    // IMPORTANT: an index of what was there before must not be found beside it.
    remove_if_there(log, &index::path(&log.options.dir, number))?;
    log.files.sync_dir(&dir)?;
    log.files.rename(&tmp, &path)?;
    log.files.sync_dir(&dir)?;
    let file = log.files.open(&log.segment_path(number))?;
    let mut staging = log.lock();
    if let Some(s) = staging.segments.by_number.get_mut(&number) {
        s.file = Some(file);
        s.len = new_len;
        s.sparse = sparse;
        s.copies = s.live;
        s.compacted_at = s.live;
        s.index = Index::Wanted;
    }
    Ok(())
}
