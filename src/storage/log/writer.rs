//! The log thread: write, sync, move the watermark, ring, apply.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::open::SegmentFile;
use super::pending::{Durable, Pending};
use super::segment::lsn;
use super::{Chunk, Durability, Inner, Job, OpenFiles, UNPOISONED, format, trouble};
use crate::broker::ports::{Bell, LogFailed, Lsn};
use crate::storage::files::LogFile;

/// How long to wait before asking again for what was short.
const RETRY_WHEN_SHORT: Duration = Duration::from_millis(250);

/// Who stops while the disk has no room waits so often for some, [`RETRY_WHEN_SHORT`] each: what clients have settled is
/// written then. What is confirmed is there in any case.
const WAITS_AT_STOP: u32 = 12;

/// Buffers kept for the next round.
const SPARE_BUFFERS: usize = 4;

/// Where durable means written: segments with bytes that were not synced. Their files are open, as what a
/// file opened anew is synced of says nothing of writes that failed before.
const UNSYNCED_MAX: usize = 16;

/// A buffer larger than this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// The log thread: waits for work, and does it in rounds.
pub(super) fn run(log: &Inner) {
    let mut writer = Writer::default();
    loop {
        let go_on = match wait_for_work(log) {
            Work::Round => writer.round(log),
            Work::None => {
                prove(log);
                true
            }
            Work::Over => false,
        };
        if !go_on {
            return;
        }
    }
}

/// What there is to do.
enum Work {
    Round,
    /// Nothing for a while.
    None,
    /// Nothing, and the log is stopped.
    Over,
}

/// Stages a mark when nothing is staged and all that was is durable: no later frame might ever say so,
/// and then a damaged frame is taken for the torn end of the log, and what is behind it is cut.
pub(super) fn prove(log: &Inner) {
    let mut staging = log.lock();
    let all = lsn(staging.segment, staging.offset).0;
    if staging.unproved && staging.chunks.is_empty() && log.proof.load(Ordering::Relaxed) >= all {
        staging.unproved = false;
        drop(staging);
        log.stage(0, format::encode_mark);
    }
}

/// Waits until there is something to write that somebody waits for, or that has waited long enough.
fn wait_for_work(log: &Inner) -> Work {
    let mut staging = log.lock();
    loop {
        let urgent = !staging.waiters.is_empty() || staging.staged_bytes >= super::WAKE_AT_BYTES;
        if urgent && !staging.chunks.is_empty() {
            return Work::Round;
        }
        if staging.stopping {
            return match staging.chunks.is_empty() {
                true => Work::Over,
                false => Work::Round,
            };
        }
        staging.asleep = true;
        let (again, timeout) = log
            .work
            .wait_timeout(staging, log.options.flush_interval)
            .expect(UNPOISONED);
        staging = again;
        staging.asleep = false;
        if timeout.timed_out() && !staging.chunks.is_empty() {
            return Work::Round;
        }
        if timeout.timed_out() && staging.unproved {
            return Work::None;
        }
    }
}

/// Says that a round was written and synced, which only this module can say.
pub(super) struct Synced(());

/// What was staged when a round began, and what waits for it.
struct Round {
    chunks: Vec<Chunk>,
    pending: Pending,
    target: Lsn,
}

/// What the log thread keeps between rounds.
#[derive(Default)]
pub(super) struct Writer {
    unsynced: OpenFiles,
    /// The file of the segment that is written to.
    active: Option<Arc<SegmentFile>>,
    due: Vec<Arc<dyn Bell>>,
    /// Room for what will wait for the next round.
    room: Pending,
}

impl Writer {
    /// Does rounds until nothing is staged, or the log has failed.
    pub(super) fn rounds(&mut self, log: &Inner) {
        while !log.lock().chunks.is_empty() && self.round(log) {}
    }

    /// What is staged of the first segment that has any. Each is a round of its own, as each file is synced
    /// by itself: what is in one must not wait for the room of the next, which it may give back.
    fn next(&mut self, log: &Inner) -> Round {
        let mut guard = log.lock();
        let s = &mut *guard;
        let Some(pending) = s.sealed.pop_front() else {
            return Round {
                chunks: std::mem::take(&mut s.chunks),
                pending: std::mem::replace(&mut s.pending, std::mem::take(&mut self.room)),
                target: lsn(s.segment, s.offset),
            };
        };
        let first = s.chunks.first().map_or(s.segment, |c| c.segment);
        let n = s.chunks.partition_point(|c| c.segment == first);
        let behind = s.chunks.split_off(n);
        let chunks = std::mem::replace(&mut s.chunks, behind);
        let end = chunks.last().map_or(0, |c| c.offset + c.bytes.len() as u32);
        Round {
            chunks,
            pending,
            target: lsn(first, end),
        }
    }

    /// Writes and syncs what is staged now of a segment, moves the watermark, rings, and applies what waited
    /// for that. False once the log has failed.
    pub(super) fn round(&mut self, log: &Inner) -> bool {
        if log.failed.load(Ordering::Acquire) {
            // What comes behind what is not there must not count as durable.
            return false;
        }
        let round = self.next(log);
        if let Err(e) = self.write(log, &round.chunks) {
            log.fail(&e);
            return false;
        }
        log.written.store(round.target.0, Ordering::Release);
        give_back(log, round.chunks);
        let synced = match sync(log, &mut self.unsynced) {
            Ok(synced) => synced,
            Err(e) => {
                log.fail(&e);
                return false;
            }
        };
        if log.options.durability == Durability::Fsync {
            log.proof.store(round.target.0, Ordering::Relaxed);
        }
        log.durable.store(round.target.0, Ordering::Release);
        ring(log, round.target, &mut self.due);
        let mut pending = Durable::synced(round.pending, &synced);
        loop {
            let mut guard = log.lock();
            let s = &mut *guard;
            if !pending.apply(&mut s.segments, &mut s.unstored) {
                s.applied = round.target;
                break;
            }
        }
        self.room = pending.into_room();
        true
    }

    fn write(&mut self, log: &Inner, chunks: &[Chunk]) -> io::Result<()> {
        for chunk in chunks {
            let file = match self.unsynced.get(&chunk.segment) {
                Some(file) => file.clone(),
                None => {
                    let file = self.open_segment(log, chunk)?;
                    self.unsynced.insert(chunk.segment, file.clone());
                    file
                }
            };
            write_chunk(log, file.as_ref(), chunk)?;
        }
        Ok(())
    }

    /// The file of a segment, prepared if this is the first write to it.
    fn open_segment(&mut self, log: &Inner, chunk: &Chunk) -> io::Result<Arc<dyn LogFile>> {
        let known = {
            let staging = log.lock();
            let segment = staging.segments.by_number.get(&chunk.segment);
            segment.and_then(|s| s.file.clone())
        };
        if let Some(file) = known {
            return log.open.get(log.files.as_ref(), &file);
        }
        let path = log.segment_path(chunk.segment);
        let file = make_segment(log, &path, chunk)?;
        let made = SegmentFile::held(&path, file.clone());
        if let Some(segment) = log.lock().segments.by_number.get_mut(&chunk.segment) {
            segment.file = Some(made.clone());
        }
        if let Some(full) = self.active.replace(made) {
            log.open.release(&full);
        }
        Ok(file)
    }
}

/// Whether what is short is waited for: always, and for [`WAITS_AT_STOP`] times by who closes the log.
pub(super) fn may_wait(log: &Inner) -> bool {
    let staging = log.lock();
    match (staging.stopping, staging.abandoned) {
        (false, _) => true,
        (true, true) => false,
        (true, false) => log.waits_at_stop.fetch_add(1, Ordering::Relaxed) < WAITS_AT_STOP,
    }
}

/// Gives the reserve for what finds no room, or lets a moment pass.
pub(super) fn wait_for_room(log: &Inner) {
    if !log.reserve.give(log.files.as_ref()) {
        log.files.pause(RETRY_WHEN_SHORT);
    }
}

/// Writes a chunk. Where room cannot be reserved, or every write takes new room, it is this that meets a
/// full disk: nothing that was accepted is lost by it, all of the chunk waits in memory and is written
/// again.
fn write_chunk(log: &Inner, file: &dyn LogFile, chunk: &Chunk) -> io::Result<()> {
    let mut waited = false;
    loop {
        let written = file.write_at(&chunk.bytes, u64::from(chunk.offset));
        match written {
            Err(e) if trouble::is_no_room(&e) && may_wait(log) => {
                if !log.out_of_space.swap(true, Ordering::Relaxed) {
                    let why = trouble::why(&e);
                    tracing::warn!("no room on the disk for what is written: {why}");
                }
                waited = true;
                wait_for_room(log);
            }
            written => {
                if waited && written.is_ok() {
                    log.out_of_space.store(false, Ordering::Relaxed);
                }
                return written;
            }
        }
    }
}

/// The file of a new segment, as soon as there is what it needs.
fn make_segment(log: &Inner, path: &Path, chunk: &Chunk) -> io::Result<Arc<dyn LogFile>> {
    let len = u64::from(log.options.segment_bytes).max(chunk.bytes.len() as u64);
    let file = loop {
        let least = chunk.bytes.len() as u64;
        match log.open.with_room(|| prepare(log, path, len, least)) {
            Ok(file) => break file,
            Err(e) if trouble::is_no_room(&e) && log.reserve.give(log.files.as_ref()) => {}
            // Nothing that was accepted is lost yet: it waits in memory, and the alarm is raised.
            Err(e) if trouble::may_pass(&e) => {
                log.out_of_space
                    .store(trouble::is_no_room(&e), Ordering::Relaxed);
                log.troubles.note(Job::Segment, Some(&e));
                if !may_wait(log) {
                    return Err(e);
                }
                log.files.pause(RETRY_WHEN_SHORT);
            }
            Err(e) => return Err(e),
        }
    };
    log.out_of_space.store(false, Ordering::Relaxed);
    log.troubles.note(Job::Segment, None);
    Ok(file)
}

/// Makes a segment's file, with room for what will be in it. What is short here (room, descriptors) may be
/// there in a while, and nothing was written that could be half there.
/// Where there is no room for all of a segment, there may be for half of one.
fn prepare(log: &Inner, path: &Path, len: u64, least: u64) -> io::Result<Arc<dyn LogFile>> {
    let file = log.files.open(path)?;
    let mut part = len;
    while let Err(e) = file.allocate(part) {
        // What a file system that is full has given all the same.
        file.truncate(0)?;
        if !trouble::is_no_room(&e) || part / 2 < least {
            return Err(e);
        }
        part /= 2;
    }
    // IMPORTANT: without this the file itself may be gone after a power cut.
    let synced = log.files.sync_dir(&log.options.dir.join("log"));
    // No room is not what a sync may say: what it has not written is never tried again.
    synced.map_err(|e| match trouble::is_no_room(&e) {
        true => io::Error::other(e),
        false => e,
    })?;
    Ok(file)
}

fn sync(log: &Inner, unsynced: &mut OpenFiles) -> io::Result<Synced> {
    if log.options.durability == Durability::Write {
        if log.unsynced.add(unsynced) > UNSYNCED_MAX {
            sync_files(log)?;
        }
        return Ok(Synced(()));
    }
    for file in std::mem::take(unsynced).into_values() {
        file.sync_data()?;
        log.syncs.fetch_add(1, Ordering::Relaxed);
    }
    Ok(Synced(()))
}

/// Where durable means written: syncs everything that is written, which has been applied up to `applied`.
/// The definitions' store, which is synced, must not know of more than the log. Final if it fails, as any
/// sync of the log.
pub(super) fn sync_written(log: &Inner, applied: Lsn) -> io::Result<()> {
    sync_files(log)?;
    log.proof.fetch_max(applied.0, Ordering::Relaxed);
    Ok(())
}

fn sync_files(log: &Inner) -> io::Result<()> {
    if log.failed.load(Ordering::Acquire) {
        // What a sync has not written the next one may say it has.
        return Err(io::Error::other(LogFailed.to_string()));
    }
    match log.unsynced.sync() {
        Ok(n) => {
            log.syncs.fetch_add(n, Ordering::Relaxed);
            Ok(())
        }
        Err(e) => {
            log.fail(&e);
            Err(e)
        }
    }
}

/// What is settled in memory is believed by what cannot be taken back (a segment goes, is rewritten, gets notes):
/// where durable means written, it is synced before that.
pub(super) fn sync_applied(log: &Inner) -> io::Result<()> {
    let applied = log.lock().applied;
    let is_synced = log.proof.load(Ordering::Relaxed) >= applied.0;
    if log.options.durability == Durability::Fsync || is_synced {
        return Ok(());
    }
    sync_written(log, applied)
}

fn give_back(log: &Inner, chunks: Vec<Chunk>) {
    let written: u64 = chunks.iter().map(|c| c.bytes.len() as u64).sum();
    let mut staging = log.lock();
    staging.staged_bytes -= written;
    log.backlog.store(staging.staged_bytes, Ordering::Relaxed);
    for mut chunk in chunks {
        if staging.spare.len() < SPARE_BUFFERS && chunk.bytes.capacity() <= SPARE_BYTES_MAX {
            chunk.bytes.clear();
            staging.spare.push(chunk.bytes);
        }
    }
    log.tell(&staging);
}

/// Rings those who wait for this; `due` is empty before and afterwards.
fn ring(log: &Inner, durable: Lsn, due: &mut Vec<Arc<dyn Bell>>) {
    let mut staging = log.lock();
    staging.waiters.retain(|(at, bell)| {
        let is_due = *at <= durable;
        if is_due {
            due.push(bell.clone());
        }
        !is_due
    });
    log.tell(&staging);
    drop(staging);
    for bell in due.drain(..) {
        bell.ring();
    }
}
