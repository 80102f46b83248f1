//! The log thread: write, sync, move the watermark, ring.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::segment::lsn;
use super::{Chunk, Durability, Inner, OpenFiles, Staging};
use crate::broker::ports::{Bell, Lsn};
use crate::storage::files::LogFile;

/// How long to wait before asking a full disk again.
const RETRY_WHEN_FULL: Duration = Duration::from_millis(250);

/// Buffers kept for the next round.
const SPARE_BUFFERS: usize = 4;

/// A buffer larger than this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 4 << 20;

pub(super) fn run(log: &Arc<Inner>) {
    let mut unsynced = OpenFiles::new();
    let mut due = Vec::new();
    loop {
        let (chunks, target, stopping) = wait_for_work(log);
        match write(log, &chunks, &mut unsynced) {
            Ok(()) => {}
            Err(e) => return log.fail(&e),
        }
        log.written.store(target.0, Ordering::Release);
        give_back(log, chunks);
        if let Err(e) = sync(log, &mut unsynced) {
            return log.fail(&e);
        }
        log.durable.store(target.0, Ordering::Release);
        ring(log, target, &mut due);
        if stopping {
            return;
        }
    }
}

/// Waits until there is something to write that somebody waits for, or that has waited long enough.
fn wait_for_work(log: &Inner) -> (Vec<Chunk>, Lsn, bool) {
    let mut staging = log.lock();
    loop {
        let urgent = !staging.waiters.is_empty() || staging.staged_bytes >= super::WAKE_AT_BYTES;
        if (urgent && !staging.chunks.is_empty()) || staging.stopping {
            break;
        }
        staging.asleep = true;
        let (again, timeout) = log
            .work
            .wait_timeout(staging, log.options.flush_interval)
            .expect(super::UNPOISONED);
        staging = again;
        staging.asleep = false;
        if timeout.timed_out() && !staging.chunks.is_empty() {
            break;
        }
    }
    let s: &mut Staging = &mut staging;
    let target = lsn(s.segment, s.offset);
    (std::mem::take(&mut s.chunks), target, s.stopping)
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
        file.write_at(&chunk.bytes, u64::from(chunk.offset))?;
    }
    Ok(())
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

fn sync(log: &Inner, unsynced: &mut OpenFiles) -> io::Result<()> {
    for (_, file) in unsynced.drain() {
        if log.options.durability == Durability::Fsync {
            file.sync_data()?;
            log.syncs.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
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
