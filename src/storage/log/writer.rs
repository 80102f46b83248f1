//! The log thread: write, sync, move the watermark, ring, apply.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::pending::{Durable, Pending};
use super::segment::lsn;
use super::{Chunk, Durability, Inner, OpenFiles, trouble};
use crate::broker::ports::{Bell, Lsn};
use crate::storage::files::LogFile;

/// How long to wait before asking a full disk again.
const RETRY_WHEN_FULL: Duration = Duration::from_millis(250);

/// Buffers kept for the next round.
const SPARE_BUFFERS: usize = 4;

/// A buffer larger than this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// The log thread: waits for work, and does it in rounds.
pub(super) fn run(log: &Arc<Inner>) {
    let mut writer = Writer::default();
    while wait_for_work(log) && writer.round(log) {}
}

/// Waits until there is something to write that somebody waits for, or that has waited long enough.
/// False when the log is stopped and there will be nothing.
fn wait_for_work(log: &Inner) -> bool {
    let mut staging = log.lock();
    loop {
        let urgent = !staging.waiters.is_empty() || staging.staged_bytes >= super::WAKE_AT_BYTES;
        if urgent && !staging.chunks.is_empty() {
            return true;
        }
        if staging.stopping {
            return !staging.chunks.is_empty();
        }
        staging.asleep = true;
        let (again, timeout) = log
            .work
            .wait_timeout(staging, log.options.flush_interval)
            .expect(super::UNPOISONED);
        staging = again;
        staging.asleep = false;
        if timeout.timed_out() && !staging.chunks.is_empty() {
            return true;
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
    due: Vec<Arc<dyn Bell>>,
    /// Room for what will wait for the next round.
    room: Pending,
}

impl Writer {
    /// Writes and syncs what is staged now, moves the watermark, rings, and applies what waited for
    /// that. False once the log has failed.
    pub(super) fn round(&mut self, log: &Inner) -> bool {
        let round = {
            let mut staging = log.lock();
            Round {
                chunks: std::mem::take(&mut staging.chunks),
                pending: std::mem::replace(&mut staging.pending, std::mem::take(&mut self.room)),
                target: lsn(staging.segment, staging.offset),
            }
        };
        if let Err(e) = write(log, &round.chunks, &mut self.unsynced) {
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
}

fn write(log: &Inner, chunks: &[Chunk], unsynced: &mut OpenFiles) -> io::Result<()> {
    for chunk in chunks {
        let file = match unsynced.get(&chunk.segment) {
            Some(file) => file.clone(),
            None => {
                let file = open_segment(log, chunk)?;
                unsynced.insert(chunk.segment, file.clone());
                file
            }
        };
        write_chunk(log, file.as_ref(), chunk)?;
    }
    Ok(())
}

/// Writes a chunk. Where room cannot be reserved, or every write takes new room, it is this that meets a
/// full disk: nothing that was accepted is lost by it, all of the chunk waits in memory and is written
/// again.
fn write_chunk(log: &Inner, file: &dyn LogFile, chunk: &Chunk) -> io::Result<()> {
    let mut waited = false;
    loop {
        let written = file.write_at(&chunk.bytes, u64::from(chunk.offset));
        match written {
            Err(e) if trouble::is_no_room(&e) && !log.lock().stopping => {
                if !log.out_of_space.swap(true, Ordering::Relaxed) {
                    tracing::warn!("no room on the disk for what is written: {e}");
                }
                waited = true;
                std::thread::park_timeout(RETRY_WHEN_FULL);
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

/// The file of a segment, prepared if this is the first write to it.
fn open_segment(log: &Inner, chunk: &Chunk) -> io::Result<Arc<dyn LogFile>> {
    let known = log
        .lock()
        .segments
        .by_number
        .get(&chunk.segment)
        .and_then(|s| s.file.clone());
    if let Some(file) = known {
        return Ok(file);
    }
    let path = log.segment_path(chunk.segment);
    let len = u64::from(log.options.segment_bytes).max(chunk.bytes.len() as u64);
    let file = loop {
        let prepared = log.files.open(&path).and_then(|file| {
            file.allocate(len)?;
            Ok(file)
        });
        match prepared {
            Ok(file) => break file,
            // Nothing that was accepted is lost yet: it waits in memory, and the alarm is raised.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                if !log.out_of_space.swap(true, Ordering::Relaxed) {
                    tracing::warn!("no room on the disk for {}", path.display());
                }
                if log.lock().stopping {
                    return Err(e);
                }
                std::thread::park_timeout(RETRY_WHEN_FULL);
            }
            Err(e) => return Err(e),
        }
    };
    log.out_of_space.store(false, Ordering::Relaxed);
    // IMPORTANT: without this the file itself may be gone after a power cut.
    log.files.sync_dir(&log.options.dir.join("log"))?;
    if let Some(segment) = log.lock().segments.by_number.get_mut(&chunk.segment) {
        segment.file = Some(file.clone());
    }
    Ok(file)
}

fn sync(log: &Inner, unsynced: &mut OpenFiles) -> io::Result<Synced> {
    for (_, file) in unsynced.drain() {
        if log.options.durability == Durability::Fsync {
            file.sync_data()?;
            log.syncs.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(Synced(()))
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
