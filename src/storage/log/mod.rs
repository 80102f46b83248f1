//! The message log: segments, appended to by whoever publishes, written and synced by one thread.
//!
//! `append` encodes into a buffer under one lock and returns. The log thread swaps the buffer,
//! writes it, syncs when somebody waits (or now and then), moves the watermark and rings. While it syncs,
//! the next buffer fills: that is all there is to group commit. A second thread gives disk space back
//! and brings the definitions' store up to date.

mod compact;
mod damage;
mod examine;
mod format;
mod frames;
mod index;
mod open;
mod pending;
mod progress;
mod reader;
mod reclaim;
mod recovery;
mod reserve;
mod salt;
mod segment;
mod settled;
mod shared;
mod summary;
mod trouble;
mod unsynced;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) use self::damage::is_of_the_process;
pub use self::damage::{Damage, Hole};
pub(super) use self::examine::{Examined, examine};
use self::format::Part;
use self::open::OpenSegments;
use self::pending::{Pending, Unstored};
use self::reserve::Reserve;
use self::salt::Salts;
use self::segment::{Segment, Segments, lsn};
use self::trouble::Troubles;
use self::unsynced::Unsynced;
use super::definitions::{DefinitionStore, Stored};
use super::files::FileLayer;
use crate::broker::memory::Charge;
use crate::broker::ports::{
    Appended, Bell, Definition, Found, LogFailed, Lsn, MessageId, MessageLog, QueueId, Records,
    RecoveredRun,
};

pub use self::trouble::Job;

/// What "durable" means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// A confirmed message survives a power cut: confirms wait for fdatasync.
    #[default]
    Fsync,
    /// A confirmed message survives the end of the process, not of the machine: confirms wait for
    /// write.
    Write,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The data folder.
    pub dir: PathBuf,
    /// Size of a segment in bytes; at most 2 GiB.
    pub segment_bytes: u32,
    /// What "durable" means.
    pub durability: Durability,
    /// Records that nobody waits for are synced within this.
    pub flush_interval: Duration,
    /// How often space is given back and definitions are checkpointed.
    pub reclaim_interval: Duration,
    /// What the system's page cache should hold of a log that grows: its oldest so many bytes, which
    /// will be read first.
    pub cached_bytes: u64,
    /// Bytes of the disk that are kept for when it is full; zero: none.
    pub reserve_bytes: u64,
    /// Bytes of records above which an append is several frames: a frame is read and checked whole,
    /// whichever of its messages is wanted.
    pub frame_bytes: usize,
}

impl LogOptions {
    /// The defaults, in this folder.
    pub fn new(dir: &Path) -> LogOptions {
        LogOptions {
            dir: dir.to_path_buf(),
            segment_bytes: 64 << 20,
            durability: Durability::Fsync,
            flush_interval: Duration::from_millis(200),
            reclaim_interval: Duration::from_millis(500),
            cached_bytes: 4 << 30,
            reserve_bytes: 0,
            frame_bytes: format::FRAME_BYTES,
        }
    }
}

/// Bytes staged before the log thread is woken although nobody waits.
const WAKE_AT_BYTES: u64 = 1 << 20;

/// Damaged places that are told of and counted.
const DAMAGED_MAX: usize = 10_000;

/// Offsets in a segment have 32 bits, and what does not fit into one is all in the next.
const SEGMENT_BYTES_MAX: u32 = 2 << 30;

/// How often a start tries to note which ids it passes over, and how long it waits between.
const NOTE_TRIES: u32 = 3;
const NOTE_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// More copies that had been delivered are not told one by one at a clean stop: then all count as delivered.
const CLEAN_STOP_COPIES_MAX: usize = 1 << 26;

/// Staged bytes of one segment.
struct Chunk {
    segment: u32,
    offset: u32,
    bytes: Vec<u8>,
}

/// What the lock of the log protects.
struct Staging {
    chunks: Vec<Chunk>,
    spare: Vec<Vec<u8>>,
    staged_bytes: u64,
    /// The active segment and where the next frame goes.
    segment: u32,
    offset: u32,
    next_id: u64,
    salts: Salts,
    segments: Segments,
    waiters: Vec<(Lsn, Arc<dyn Bell>)>,
    /// What waits for the active segment's bytes to be durable.
    pending: Pending,
    /// The same of each segment before it whose last bytes are staged, too.
    sealed: VecDeque<Pending>,
    /// Everything before this is durable, and has been applied to `segments` and `unstored`.
    applied: Lsn,
    /// Definition changes that the store does not have yet.
    unstored: Unstored,
    stopping: bool,
    /// What is staged is not written any more.
    abandoned: bool,
    /// Something was staged since the last mark: no frame says yet of all of it that it was durable.
    unproved: bool,
    /// The log thread waits for work.
    asleep: bool,
    /// Threads that wait for a write or a sync.
    n_watching: usize,
}

struct Inner {
    options: LogOptions,
    files: Arc<dyn FileLayer>,
    store: DefinitionStore,
    salts: Salts,
    staging: Mutex<Staging>,
    /// Wakes the log thread.
    work: Condvar,
    /// Wakes whoever waits for a write.
    progress: Condvar,
    /// Wakes the reclaiming thread.
    reclaim: Condvar,
    written: AtomicU64,
    durable: AtomicU64,
    /// What a power cut cannot take: frames carry it, as proof for the next start. Where durable means
    /// written, that is less than `durable`.
    proof: AtomicU64,
    /// Where durable means written: files of segments with bytes that were not synced.
    unsynced: Unsynced,
    open: OpenSegments,
    failed: AtomicBool,
    out_of_space: AtomicBool,
    /// How often somebody who closes it has waited for room.
    waits_at_stop: AtomicU32,
    reserve: Reserve,
    troubles: Troubles,
    syncs: AtomicU64,
    /// Bytes staged and not yet written, also while they are being written.
    backlog: AtomicU64,
    /// What was written when somebody waited for more and got none.
    stalled: AtomicU64,
    /// Places that were found damaged: segment and offset.
    damaged: Mutex<BTreeSet<(u32, u32)>>,
}

/// The log. See the module.
pub struct SegmentedLog {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    recovered: Mutex<Option<recovery::Copies>>,
    damage: Damage,
    /// None: nobody else can have it, in a test.
    _folder: Option<super::Folder>,
}

/// Figures of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogStats {
    /// Segments.
    pub segments: usize,
    /// Bytes in use in them.
    pub bytes: u64,
    /// Copies that are not done with.
    pub live_copies: u64,
    /// Calls of fdatasync so far.
    pub syncs: u64,
    /// Places in segments that were found damaged, at the start and since.
    pub damaged: u64,
    /// Bytes of the disk that are kept for when it has none.
    pub reserve_bytes: u64,
}

const UNPOISONED: &str = "a panic aborts the process";

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().expect(UNPOISONED)
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        self.options
            .dir
            .join("log")
            .join(format!("{number:010}.segment"))
    }

    /// Gives the lock back and wakes the log thread if it sleeps: waking is a system call, while it works it
    /// looks by itself, and what is woken wants the lock.
    fn wake(&self, mut staging: MutexGuard<'_, Staging>) {
        let asleep = std::mem::take(&mut staging.asleep);
        drop(staging);
        if asleep {
            self.work.notify_one();
        }
    }

    /// Wakes those who watch, if there are any.
    fn tell(&self, staging: &Staging) {
        if staging.n_watching > 0 {
            self.progress.notify_all();
        }
    }

    /// Stages a frame without messages: at most `len` bytes beside header, kind and count.
    fn stage(&self, len: usize, encode: impl FnOnce(&mut Vec<u8>, &format::Place)) {
        let mut guard = self.lock();
        let s = &mut *guard;
        let len = format::FRAME_HEADER + 5 + len;
        let watermark = self.proof.load(Ordering::Relaxed);
        s.make_room(len, self.options.segment_bytes, watermark);
        let (place, chunk) = s.place(watermark);
        let before = s.chunks[chunk].bytes.len();
        encode(&mut s.chunks[chunk].bytes, &place);
        s.staged(before, chunk);
        if let Some(active) = s.segments.by_number.get_mut(&place.segment) {
            active.note_frame(place.first_id, place.offset);
        }
    }

    /// A part of a segment is not what was written there. Told once.
    fn note_damage(&self, segment: u32, from: u32, to: u32) {
        let mut damaged = self.damaged.lock().expect(UNPOISONED);
        if damaged.len() < DAMAGED_MAX && damaged.insert((segment, from)) {
            tracing::error!(
                "{}: damaged from byte {from} to {to}; the messages that were in it are lost",
                self.segment_path(segment).display()
            );
        }
    }

    /// The file of a segment is not there any more. Told once.
    fn note_missing(&self, segment: u32) {
        let mut damaged = self.damaged.lock().expect(UNPOISONED);
        if damaged.len() < DAMAGED_MAX && damaged.insert((segment, 0)) {
            tracing::error!(
                "{}: it was removed; the messages that were in it are lost",
                self.segment_path(segment).display()
            );
        }
    }

    fn fail(&self, why: &io::Error) {
        tracing::error!("the message log failed, nothing more is accepted: {why}");
        self.failed.store(true, Ordering::Release);
        let waiters = std::mem::take(&mut self.lock().waiters);
        for (_, bell) in waiters {
            bell.ring();
        }
        self.progress.notify_all();
    }
}

/// Whether room for a segment can be reserved here, as far as can be said.
fn reserves(files: &dyn FileLayer, dir: &Path) -> bool {
    const PROBE_BYTES: u64 = 4096;
    let probe = dir.join("log").join("probe.tmp");
    let reserved = files.open(&probe).and_then(|f| f.allocate(PROBE_BYTES));
    let _ = files.remove(&probe);
    reserved.unwrap_or(true)
}

/// Notes which ids may have been given out in segments that were set aside. IMPORTANT: before any is given out again:
/// should the segments that come now be unreadable, too, and the others removed, nothing else says which are in them.
fn note_next_id(
    files: &dyn FileLayer,
    store: &DefinitionStore,
    reserve: &Reserve,
    applied: Lsn,
    next_id: u64,
) -> io::Result<()> {
    let mut tries = 1;
    while let Err(e) = store.checkpoint(&[], applied, next_id) {
        // What an earlier life kept for a full disk.
        let has_room = trouble::is_no_room(&e) && reserve.give_left(files);
        if tries == NOTE_TRIES {
            let what = "a segment was set aside, and which ids its messages may have cannot be noted beside the \
                        definitions; without that there is no start";
            return Err(damage::told(what, &e));
        }
        if !has_room {
            files.pause(NOTE_AGAIN_AFTER);
        }
        tries += 1;
    }
    Ok(())
}

impl SegmentedLog {
    /// Opens the log in its folder, recovering what is there, and returns the definitions. The
    /// messages follow with [`Self::recover`].
    ///
    /// # Errors
    /// The folder is in use or of another version, or the disk says no. Corruption is not an
    /// error: it is reported with file and offset, and the rest is served.
    pub fn open(
        options: LogOptions,
        files: Arc<dyn FileLayer>,
    ) -> io::Result<(SegmentedLog, Vec<Definition>)> {
        let (log, definitions) = SegmentedLog::open_still(options, files)?;
        let threads = [
            log.spawn("log", writer::run)?,
            log.spawn("log-reclaim", reclaim::run)?,
        ];
        log.threads.lock().expect(UNPOISONED).extend(threads);
        Ok((log, definitions))
    }

    fn spawn(&self, name: &str, run: fn(&Inner)) -> io::Result<JoinHandle<()>> {
        let (log, named) = (self.inner.clone(), std::thread::Builder::new());
        named.name(name.into()).spawn(move || run(&log))
    }

    /// As [`Self::open`], but nothing moves by itself: for [`writer::Writer::round`],
    /// [`reclaim::Reclaim::pass`] and [`reclaim::Reclaim::step`] called one by one.
    fn open_still(
        options: LogOptions,
        files: Arc<dyn FileLayer>,
    ) -> io::Result<(SegmentedLog, Vec<Definition>)> {
        let folder = super::Folder::open(&options.dir)?;
        let (store, stored) = DefinitionStore::open(files.clone(), &options.dir)?;
        SegmentedLog::recovered(options, files, store, stored, Some(folder))
    }

    /// The log of what is in a folder, and the definitions.
    fn recovered(
        options: LogOptions,
        files: Arc<dyn FileLayer>,
        store: DefinitionStore,
        stored: Stored,
        folder: Option<super::Folder>,
    ) -> io::Result<(SegmentedLog, Vec<Definition>)> {
        let mut options = options;
        options.segment_bytes = options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let may_reserve = reserves(files.as_ref(), &options.dir);
        let reserve = match may_reserve {
            true => Reserve::new(&options.dir, options.reserve_bytes),
            false => Reserve::new(&options.dir, 0),
        };
        if !may_reserve {
            tracing::warn!(
                "the file system of {} cannot reserve room (no fallocate): a full disk is met when \
                 messages are written, which then waits for room",
                options.dir.display()
            );
        }
        let (applied, may_be_behind) = (stored.applied, stored.may_be_behind);
        let mut found = recovery::run(&options, files.as_ref(), stored)?;
        found.damage.definitions = may_be_behind;
        if found.ids_passed_over {
            note_next_id(files.as_ref(), &store, &reserve, applied, found.next_id)?;
        }
        // Nothing is ever appended to a segment of an earlier run.
        let segment = found.last_segment + 1;
        if found.salt_from != salt::Source::File
            && let Err(e) = salt::save(files.as_ref(), &options.dir, &found.salts)
        {
            // Each segment says it, too.
            let path = salt::path(&options.dir);
            tracing::warn!("{}: cannot be written: {e}", path.display());
        }
        let mut segments = found.segments;
        let recovered_any = !segments.by_number.is_empty();
        segments.insert(segment, Segment::new(None, found.next_id));
        let mut unstored = Unstored::default();
        for (at, change) in found.replayed {
            unstored.put(at, change);
        }
        reserve.make(files.as_ref());
        let start = lsn(segment, 0);
        let inner = Arc::new(Inner {
            files,
            store,
            salts: found.salts,
            staging: Mutex::new(Staging {
                chunks: Vec::new(),
                spare: Vec::new(),
                staged_bytes: 0,
                segment,
                offset: 0,
                next_id: found.next_id,
                salts: found.salts,
                segments,
                waiters: Vec::new(),
                pending: Pending::default(),
                sealed: VecDeque::new(),
                applied: start,
                unstored,
                stopping: false,
                abandoned: false,
                // No frame says yet that all that was recovered is durable now.
                unproved: recovered_any,
                asleep: false,
                n_watching: 0,
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            reclaim: Condvar::new(),
            written: AtomicU64::new(start.0),
            durable: AtomicU64::new(start.0),
            proof: AtomicU64::new(start.0),
            unsynced: Unsynced::default(),
            open: OpenSegments::default(),
            failed: AtomicBool::new(false),
            out_of_space: AtomicBool::new(false),
            waits_at_stop: AtomicU32::new(0),
            reserve,
            troubles: Troubles::default(),
            syncs: AtomicU64::new(0),
            backlog: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            damaged: Mutex::default(),
            options,
        });
        let recovered = Mutex::new(Some(found.copies));
        Ok((
            SegmentedLog {
                inner,
                threads: Mutex::default(),
                recovered,
                damage: found.damage,
                _folder: folder,
            },
            found.definitions,
        ))
    }

    /// Visits the copies that recovery found, once: each queue's in the order of their ids. Copies
    /// in queues that `known` does not know are done with.
    pub fn recover(&self, known: &dyn Fn(QueueId) -> bool, each: &mut dyn FnMut(RecoveredRun)) {
        let Some(copies) = self.recovered.lock().expect(UNPOISONED).take() else {
            return;
        };
        if copies.follow_a_clean_stop() {
            // Should this life end without another frame, and not in order, the clean stop before it
            // must not say what had been delivered.
            self.inner.stage(0, format::encode_mark);
        }
        copies.visit(&mut self.inner.lock().segments, known, each);
        self.inner.reclaim.notify_one();
    }

    /// What was wrong when it was opened.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Figures.
    pub fn stats(&self) -> LogStats {
        let found = self.inner.damaged.lock().expect(UNPOISONED);
        let staging = self.inner.lock();
        let all = staging.segments.by_number.values();
        LogStats {
            segments: staging.segments.by_number.len(),
            bytes: all.clone().map(|s| u64::from(s.len)).sum(),
            live_copies: all.map(|s| s.live).sum(),
            syncs: self.inner.syncs.load(Ordering::Relaxed),
            damaged: (self.damage.holes.len() + found.len()) as u64
                + u64::from(self.damage.definitions),
            reserve_bytes: self.inner.reserve.held_bytes(),
        }
    }

    /// Whether the disk has no room: for another segment (what is accepted meanwhile waits in memory), or
    /// for giving room back.
    pub fn out_of_space(&self) -> bool {
        self.inner.out_of_space.load(Ordering::Relaxed)
            || self.inner.troubles.no_room()
            || self.inner.reserve.is_missing()
    }

    /// What cannot be done at the moment to give disk space back, and why. It is tried again.
    pub fn troubles(&self) -> Vec<(Job, String)> {
        self.inner.troubles.list()
    }
}

impl Staging {
    /// Starts a new segment.
    fn roll(&mut self) {
        if let Some(active) = self.segments.by_number.get_mut(&self.segment) {
            active.sealed = true;
        }
        self.sealed.push_back(std::mem::take(&mut self.pending));
        self.segment += 1;
        self.offset = 0;
        self.segments
            .insert(self.segment, Segment::new(None, self.next_id));
    }

    /// Sees to it that `len` bytes fit into the active segment.
    fn make_room(&mut self, len: usize, segment_bytes: u32, watermark: u64) {
        let end = self.offset as usize + len + format::SEAL_LEN;
        if self.offset > 0 && end > segment_bytes as usize {
            let (place, chunk) = self.place(watermark);
            let before = self.chunks[chunk].bytes.len();
            format::encode_seal(&mut self.chunks[chunk].bytes, &place);
            self.staged(before, chunk);
            self.roll();
        }
    }

    /// Stages the frame of a part of these records; there is room for it.
    fn put(&mut self, records: &Records, part: &Part, followed_by: usize, watermark: u64) -> Lsn {
        let (place, chunk) = self.place(watermark);
        let before = self.chunks[chunk].bytes.len();
        format::encode(
            &mut self.chunks[chunk].bytes,
            records,
            part,
            followed_by,
            &place,
        );
        let at = self.staged(before, chunk);
        if let Some(active) = self.segments.by_number.get_mut(&place.segment) {
            active.note_frame(place.first_id, place.offset);
            for p in &records.publishes[part.publishes.clone()] {
                active.note_message(self.next_id, p.n_targets);
                self.next_id += 1;
            }
        }
        at
    }

    /// Stages many records as frames that count together. Above `most` bytes, which one segment cannot
    /// have, only those in one segment do: messages go first, so that a crash loses none of those whose
    /// old copies are settled with it.
    fn put_in_parts(
        &mut self,
        records: &Records,
        mut parts: Vec<Part>,
        most: usize,
        watermark: u64,
        segment_bytes: u32,
    ) -> Lsn {
        let total: usize = parts.iter().map(|part| part.len).sum();
        if total > most {
            let at = parts.partition_point(|part| part.publishes.is_empty());
            parts.rotate_left(at);
        }
        let mut at = Lsn::default();
        let mut left = parts.as_slice();
        while !left.is_empty() {
            let mut len = 0;
            let fit = left.iter().take_while(|part| {
                len += part.len;
                len <= most
            });
            let (group, rest) = left.split_at(fit.count().max(1));
            let len = group.iter().map(|part| part.len).sum();
            self.make_room(len, segment_bytes, watermark);
            for (i, part) in group.iter().enumerate() {
                at = self.put(records, part, group.len() - 1 - i, watermark);
            }
            left = rest;
        }
        at
    }

    /// Where the next frame goes: place and buffer.
    fn place(&mut self, watermark: u64) -> (format::Place, usize) {
        let (segment, offset) = (self.segment, self.offset);
        let extends = self.chunks.last().is_some_and(|c| {
            c.segment == segment && c.offset as usize + c.bytes.len() == offset as usize
        });
        if !extends {
            let bytes = self.spare.pop().unwrap_or_default();
            self.chunks.push(Chunk {
                segment,
                offset,
                bytes,
            });
        }
        (
            format::Place {
                segment,
                salt: self.salts.of(segment),
                offset,
                watermark,
                first_id: self.next_id,
            },
            self.chunks.len() - 1,
        )
    }

    /// Counts the frame that was just encoded.
    fn staged(&mut self, before: usize, chunk: usize) -> Lsn {
        let n = self.chunks[chunk].bytes.len() - before;
        self.staged_bytes += n as u64;
        // See `format::APPEND_BYTES_MAX` and `LogOptions::segment_bytes`.
        self.offset = u32::try_from(self.offset as usize + n).expect("a segment below 4 GiB");
        if let Some(active) = self.segments.by_number.get_mut(&self.segment) {
            active.len = self.offset;
        }
        lsn(self.segment, self.offset)
    }
}

impl MessageLog for SegmentedLog {
    fn append(&self, records: &mut Records) -> Result<Appended, LogFailed> {
        let inner = &self.inner;
        if self.failed() {
            return Err(LogFailed);
        }
        let mut guard = inner.lock();
        let s = &mut *guard;
        let watermark = inner.proof.load(Ordering::Relaxed);
        let all = Part::all(records);
        let segment_bytes = inner.options.segment_bytes;
        let first_id = MessageId(s.next_id);
        let at = if all.len <= inner.options.frame_bytes {
            s.make_room(all.len, segment_bytes, watermark);
            s.put(records, &all, 0, watermark)
        } else {
            let parts = format::parts(records, inner.options.frame_bytes);
            s.put_in_parts(
                records,
                parts,
                format::APPEND_BYTES_MAX,
                watermark,
                segment_bytes,
            )
        };
        s.pending.add(records, at);
        s.unproved = true;
        inner.backlog.store(s.staged_bytes, Ordering::Relaxed);
        if s.staged_bytes >= WAKE_AT_BYTES {
            inner.wake(guard);
        } else {
            drop(guard);
        }
        records.clear();
        Ok(Appended { first_id, lsn: at })
    }

    fn durable(&self) -> Lsn {
        Lsn(self.inner.durable.load(Ordering::Acquire))
    }

    fn staged(&self) -> Lsn {
        let staging = self.inner.lock();
        lsn(staging.segment, staging.offset)
    }

    fn failed(&self) -> bool {
        self.inner.failed.load(Ordering::Acquire)
    }

    fn ring_at(&self, lsn: Lsn, bell: &Arc<dyn Bell>) {
        let mut staging = self.inner.lock();
        if self.durable() >= lsn || self.failed() {
            drop(staging);
            bell.ring();
            return;
        }
        staging.waiters.push((lsn, bell.clone()));
        self.inner.wake(staging);
    }

    fn read(&self, ids: &[MessageId], into: &mut Vec<Found>) -> io::Result<()> {
        reader::read(&self.inner, ids, into)
    }

    fn is_full(&self) -> bool {
        self.out_of_space()
    }

    fn count_definitions(&self, charge: Charge) {
        self.inner.lock().unstored.count_in(charge);
    }

    fn backlog_bytes(&self) -> u64 {
        self.inner.backlog.load(Ordering::Relaxed)
    }

    fn close(&self, redelivered: &[(QueueId, MessageId)]) -> io::Result<()> {
        let inner = &self.inner;
        inner.lock().stopping = true;
        inner.work.notify_all();
        inner.reclaim.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock().expect(UNPOISONED)) {
            if thread.join().is_err() {
                return Err(io::Error::other("a thread of the log panicked"));
            }
        }
        // What nobody wrote who was there before. All is durable then, and the last frame says so.
        let mut writer = writer::Writer::default();
        writer.rounds(inner);
        if redelivered.len() <= CLEAN_STOP_COPIES_MAX {
            inner.stage(redelivered.len() * 16, |out, place| {
                format::encode_clean_stop(out, redelivered, place);
            });
            writer.rounds(inner);
        }
        if self.failed() {
            return Err(io::Error::other(LogFailed.to_string()));
        }
        loop {
            match reclaim::checkpoint(inner) {
                Err(e) if trouble::is_no_room(&e) && writer::may_wait(inner) => {
                    writer::wait_for_room(inner);
                }
                done => return done,
            }
        }
    }
}

impl Drop for SegmentedLog {
    fn drop(&mut self) {
        // Without `close` this is like a crash: what is staged is not written.
        {
            let mut staging = self.inner.lock();
            staging.stopping = true;
            staging.abandoned = true;
            staging.chunks.clear();
            staging.pending = Pending::default();
            staging.sealed.clear();
        }
        self.inner.work.notify_all();
        self.inner.reclaim.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock().expect(UNPOISONED)) {
            let _ = thread.join();
        }
    }
}

/// Open files of segments by number.
type OpenFiles = BTreeMap<u32, Arc<dyn super::files::LogFile>>;
