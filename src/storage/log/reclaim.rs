//! Giving disk space back, and checkpointing definitions: five jobs that do not depend on each other.
//!
//! A segment goes when no copy in it is live. Settles in it may name messages of older segments
//! that stay: before it goes, those segments' own notes of what is done with (`.settled` files) are
//! brought up to date. A segment with few live copies is rewritten under its own number. What is
//! settled in a segment's memory is durable, so whatever is found there can be believed.
//!
//! A job that fails is tried again, more and more rarely, and the others go on: a disk that is full
//! gets room from removing what is dead, whatever else cannot be written.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::compact::{Piece, Rewrite};
use super::damage::is_of_the_process;
use super::segment::{Index, Segment, lsn};
use super::trouble::Job;
use super::{Durability, Inner, Staging, UNPOISONED, index, settled, trouble, writer};

/// A job that failed often is not tried in so many passes.
const SKIPPED_MAX: u32 = 15;

/// The reclaiming thread: a pass now and then, and what it left to do in small steps.
pub(super) fn run(log: &Inner) {
    let mut reclaim = Reclaim::default();
    let mut due = Instant::now() + log.options.reclaim_interval;
    let mut more = false;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let stopping = {
            let staging = log.lock();
            // It may have been told to stop before it came to wait.
            if staging.stopping || more {
                staging.stopping
            } else {
                let waited = log.reclaim.wait_timeout(staging, left);
                waited.expect(UNPOISONED).0.stopping
            }
        };
        if stopping || log.failed.load(Ordering::Acquire) {
            return;
        }
        if !more || left.is_zero() {
            reclaim.pass(log);
            due = Instant::now() + log.options.reclaim_interval;
        }
        more = reclaim.step(log);
    }
}

/// What is kept from one pass to the next.
#[derive(Default)]
pub(super) struct Reclaim {
    rewrite: Option<Rewrite>,
    /// The segments whose turn it was last, to be rewritten and to get an index.
    rewritten: u32,
    indexed: u32,
    /// By job: how often it failed in a row, and the passes in which it is not tried.
    failed: [(u32, u32); Job::ALL.len()],
}

impl Reclaim {
    /// Checkpoints, and removes what is dead. What takes longer is for [`Self::step`].
    pub(super) fn pass(&mut self, log: &Inner) {
        for (_, skipped) in &mut self.failed {
            *skipped = skipped.saturating_sub(1);
        }
        let unstored = !log.lock().unstored.is_empty();
        if unstored {
            self.job(log, Job::Checkpoint, |_| checkpoint(log));
        }
        self.job(log, Job::Definitions, |_| log.store.mend());
        self.job(log, Job::Removal, |_| remove_dead(log));
        note_indexes(log);
        // What gives room back needs some, too.
        match log.troubles.no_room() {
            true => drop(log.reserve.give(log.files.as_ref())),
            false => log.reserve.make(log.files.as_ref()),
        }
    }

    /// Rewrites a piece of a segment, or writes an index. False if there is nothing to do until the
    /// next pass.
    pub(super) fn step(&mut self, log: &Inner) -> bool {
        if self.job(log, Job::Compaction, |reclaim| reclaim.compact(log)) == Some(true) {
            return true;
        }
        self.job(log, Job::Index, |reclaim| reclaim.index(log)) == Some(true)
    }

    /// Does a job, unless it failed a short while ago.
    fn job<T>(
        &mut self,
        log: &Inner,
        job: Job,
        mut act: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> Option<T> {
        if self.failed[job as usize].1 > 0 {
            return None;
        }
        let mut done = act(self);
        let no_room = done.as_ref().is_err_and(trouble::is_no_room);
        if no_room && job.gives_room() && log.reserve.give(log.files.as_ref()) {
            done = act(self);
        }
        if done.as_ref().is_err_and(is_of_the_process) && log.open.close_all() {
            done = act(self);
        }
        log.troubles.note(job, done.as_ref().err());
        let (times, skipped) = &mut self.failed[job as usize];
        *times = if done.is_ok() { 0 } else { (*times + 1).min(5) };
        *skipped = ((1 << *times) - 1).min(SKIPPED_MAX);
        done.ok()
    }

    /// Writes the index of a segment that is due.
    fn index(&mut self, log: &Inner) -> io::Result<bool> {
        let due = {
            let staging = log.lock();
            let all = &staging.segments.by_number;
            // One that cannot be read must not keep the others from their turn.
            let from = all
                .range(self.indexed.saturating_add(1)..)
                .chain(all.range(..=self.indexed));
            let mut due = from.filter(|(_, s)| s.index == Index::Due && s.live > 0);
            due.next().map(|(number, _)| *number)
        };
        let Some(number) = due else { return Ok(false) };
        self.indexed = number;
        index::write(log, number)?;
        forget(log, number);
        if let Some(segment) = log.lock().segments.by_number.get_mut(&number) {
            segment.index = Index::Settled;
        }
        Ok(true)
    }

    fn compact(&mut self, log: &Inner) -> io::Result<bool> {
        if self.rewrite.is_none() {
            self.rewrite = Rewrite::begin(log, &mut self.rewritten)?;
        }
        let Some(mut rewrite) = self.rewrite.take() else {
            return Ok(false);
        };
        let done = match rewrite.piece(log) {
            Ok(Piece::More) => {
                self.rewrite = Some(rewrite);
                return Ok(true);
            }
            Ok(Piece::Copied) => rewrite.finish(log).map(|()| true),
            Ok(Piece::GivenUp) => {
                rewrite.give_up(log);
                return Ok(true);
            }
            Err(e) => Err(e),
        };
        if done.is_err() {
            rewrite.give_up(log);
        }
        done
    }
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
        && let Ok(file) = log.open.get(log.files.as_ref(), &file)
    {
        file.forget();
    }
}

/// Notes which segments want an index. One gets it in a later pass: what is consumed as fast as it is
/// filled goes before that.
fn note_indexes(log: &Inner) {
    let mut staging = log.lock();
    let applied = staging.applied;
    for (number, s) in &mut staging.segments.by_number {
        let over = s.sealed && lsn(*number, s.len) <= applied;
        s.index = match s.index {
            Index::Wanted if over && s.file.is_some() => Index::Seen,
            Index::Seen => Index::Due,
            as_it_is => as_it_is,
        };
    }
}

/// Whether a segment may go or be rewritten, as far as that is not for its messages to say: nothing is
/// appended any more, all of it is durable and has been applied, and the store has its definitions.
pub(super) fn is_over(staging: &Staging, number: u32, s: &Segment) -> bool {
    s.sealed && lsn(number, s.len) <= staging.applied && !staging.unstored.is_in(number)
}

/// Brings the definitions' store up to what is durable in the log.
pub(super) fn checkpoint(log: &Inner) -> io::Result<()> {
    let (storing, applied, next_id) = {
        let mut staging = log.lock();
        let storing = staging.unstored.take();
        (storing, staging.applied, staging.next_id)
    };
    let synced = match log.options.durability {
        Durability::Fsync => Ok(()),
        Durability::Write => writer::sync_written(log, applied),
    };
    let stored = synced.and_then(|()| log.store.checkpoint(&storing.changes, applied, next_id));
    let mut staging = log.lock();
    match stored {
        Ok(()) => staging.unstored.stored(storing),
        Err(_) => staging.unstored.put_back(storing),
    }
    stored
}

/// Removes sealed segments without a live copy, oldest first: a later one may hold the settles of an
/// earlier one.
fn remove_dead(log: &Inner) -> io::Result<()> {
    let dead: Vec<u32> = {
        let staging = log.lock();
        let all = staging.segments.by_number.iter();
        let dead = all.filter(|(number, s)| s.live == 0 && is_over(&staging, **number, s));
        dead.map(|(number, _)| *number).collect()
    };
    let Some(newest) = dead.last() else {
        return Ok(());
    };
    writer::sync_applied(log)?;
    // Older segments that stay must not need the settles that go.
    let noted = settled::save(log, *newest, &dead);
    let goes = match &noted {
        Ok(()) => dead.as_slice(),
        Err((first, _)) => &dead[..dead.partition_point(|number| number < first)],
    };
    if !goes.is_empty() && !is_told_by_a_segment(log) {
        // Neither ids nor segment numbers are used twice, even when no segment is left to tell.
        checkpoint(log)?;
    }
    let mut failed = noted.err().map(|(_, e)| e);
    for (i, number) in goes.iter().enumerate() {
        match remove(log, *number) {
            Ok(()) => drop(log.lock().segments.remove(*number)),
            Err(e) => {
                failed = Some(e);
                // It is there as before, so it is one of those that must not need the others.
                if settled::save(log, *newest, &goes[i + 1..]).is_err() {
                    break;
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes the files of a segment, for good: the next one to go may hold its settles. Its notes stay until it is
/// gone for certain: a power cut must not bring it back without them.
fn remove(log: &Inner, number: u32) -> io::Result<()> {
    let dir = &log.options.dir;
    log.unsynced.remove(number);
    let file = {
        let staging = log.lock();
        let segment = staging.segments.by_number.get(&number);
        segment.and_then(|s| s.file.clone())
    };
    remove_if_there(log, &log.segment_path(number))?;
    if let Some(file) = file {
        log.open.forget(&file);
    }
    log.files.sync_dir(&dir.join("log"))?;
    // IMPORTANT: only now. It may need them if it is back after a power cut, which may take the removal of the
    // one file and leave that of the other. Of the segment they are nothing, and go at a start at the latest.
    for beside in [settled::path(dir, number), index::path(dir, number)] {
        remove_if_there(log, &beside)?;
    }
    Ok(())
}

/// Whether the active segment is on the disk, and with it how far ids and segments were counted.
fn is_told_by_a_segment(log: &Inner) -> bool {
    let staging = log.lock();
    staging.applied > lsn(staging.segment, 0)
}

pub(super) fn remove_if_there(log: &Inner, path: &Path) -> io::Result<()> {
    match log.files.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
