//! Tests of the log on a disk that loses power, tears writes and flips bits.

mod damage;
mod definitions;
mod descriptors;
mod faults;
mod full;
mod golden;
mod images;
mod index;
mod large;
mod offline;
mod power;
mod reading;
mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::*;
use crate::broker::message::{FLAG_PERSISTENT, Message, Parts};
use crate::broker::ports::{DefinitionChange, DefinitionKind, LoggedPublish, Target};
use crate::storage::files::{FileLayer, LogFile};

/// A file with what was synced and what was only written.
#[derive(Clone, Default)]
struct Image {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync: offset and length.
    unsynced: Vec<(usize, usize)>,
    /// Memory was told to let go of it.
    forgotten: bool,
}

#[derive(Default)]
struct State {
    /// Files by name, as the running system sees them.
    files: BTreeMap<PathBuf, Arc<Mutex<Image>>>,
    /// Directory entries that survive a power cut.
    entries: BTreeMap<PathBuf, Arc<Mutex<Image>>>,
}

/// A disk in memory that can lose power: unsynced writes and directory entries are kept or lost, one by
/// one, as a seed says.
#[derive(Clone, Default)]
struct FaultyDisk {
    state: Arc<Mutex<State>>,
    fail: Arc<AtomicBool>,
    /// It can be written, and not read.
    unreadable: Arc<AtomicBool>,
    /// It does not open these.
    refused: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// It has no room for a further file.
    full: Arc<AtomicBool>,
    /// Bytes that it has; zero: more than are ever written.
    capacity: Arc<AtomicU64>,
    power: Power,
    /// Bytes that were read.
    n_read: Arc<AtomicU64>,
    faults: Faults,
}

/// What changes a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Open,
    Write,
    Sync,
    Allocate,
    Truncate,
    Rename,
    Remove,
    SyncDir,
}

type Fault = dyn FnMut(Call, &Path) -> Option<i32> + Send;

/// Says which calls fail, and with which error of the system.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Option<Box<Fault>>>>);

impl Faults {
    fn set(&self, fault: impl FnMut(Call, &Path) -> Option<i32> + Send + 'static) {
        *self.0.lock().expect("a lock") = Some(Box::new(fault));
    }

    fn clear(&self) {
        *self.0.lock().expect("a lock") = None;
    }

    fn meet(&self, call: Call, path: &Path) -> io::Result<()> {
        let mut fault = self.0.lock().expect("a lock");
        let code = fault.as_mut().and_then(|fault| fault(call, path));
        code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

/// Off from a power cut on: what a log that still runs does then must not look as if it had worked.
#[derive(Clone, Default)]
struct Power(Arc<RwLock<Off>>);

#[derive(Default)]
struct Off(bool);

impl Power {
    /// Does something that is over before the power goes, or fails.
    fn on<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let off = self.0.read().expect("a lock");
        if off.0 {
            return Err(io::Error::other("there is no power"));
        }
        act()
    }
}

struct FaultyFile {
    path: PathBuf,
    image: Arc<Mutex<Image>>,
    disk: FaultyDisk,
}

impl FaultyFile {
    /// Whether the disk has room for a file that is so long.
    fn has_room(&self, len: u64) -> io::Result<()> {
        let free = self.disk.free();
        match len.saturating_sub(LogFile::len(self)?) <= free {
            true => Ok(()),
            false => Err(rustix::io::Errno::NOSPC.into()),
        }
    }
}

impl LogFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.faults.meet(Call::Write, &self.path)?;
        if self.disk.fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        self.has_room(offset + bytes.len() as u64)?;
        self.disk.power.on(|| {
            let mut image = self.image.lock().expect("a lock");
            let at = offset as usize;
            if image.live.len() < at + bytes.len() {
                image.live.resize(at + bytes.len(), 0);
            }
            image.live[at..at + bytes.len()].copy_from_slice(bytes);
            image.unsynced.push((at, bytes.len()));
            Ok(())
        })
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.disk.unreadable.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk cannot be read"));
        }
        let image = self.image.lock().expect("a lock");
        let from = (offset as usize).min(image.live.len());
        let n = into.len().min(image.live.len() - from);
        into[..n].copy_from_slice(&image.live[from..from + n]);
        // Of the log.
        if !has_extension(&self.path, "journal") {
            self.disk.n_read.fetch_add(n as u64, Ordering::Relaxed);
        }
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.faults.meet(Call::Sync, &self.path)?;
        if self.disk.fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        self.disk.power.on(|| {
            let mut image = self.image.lock().expect("a lock");
            image.durable = image.live.clone();
            image.unsynced.clear();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.image.lock().expect("a lock").live.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.disk.faults.meet(Call::Allocate, &self.path)?;
        if self.disk.full.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.has_room(len)?;
        self.disk.power.on(|| {
            let mut image = self.image.lock().expect("a lock");
            if image.live.len() < len as usize {
                image.live.resize(len as usize, 0);
            }
            Ok(true)
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.faults.meet(Call::Truncate, &self.path)?;
        self.disk.power.on(|| {
            let mut image = self.image.lock().expect("a lock");
            image.live.truncate(len as usize);
            Ok(())
        })
    }

    fn forget(&self) {
        self.image.lock().expect("a lock").forgotten = true;
    }
}

impl FileLayer for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.faults.meet(Call::Open, path)?;
        if self.refused.lock().expect("a lock").contains(path) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.power.on(|| {
            let mut state = self.state.lock().expect("a lock");
            let image = state.files.entry(path.to_path_buf()).or_default().clone();
            Ok(Arc::new(FaultyFile {
                path: path.to_path_buf(),
                image,
                disk: self.clone(),
            }) as Arc<dyn LogFile>)
        })
    }

    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        if !self.state.lock().expect("a lock").files.contains_key(path) {
            self.faults.meet(Call::Open, path)?;
            return Err(io::ErrorKind::NotFound.into());
        }
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.meet(Call::Rename, to)?;
        self.power.on(|| {
            let mut state = self.state.lock().expect("a lock");
            let image = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.files.insert(to.to_path_buf(), image);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.meet(Call::Remove, path)?;
        self.power.on(|| {
            let removed = self.state.lock().expect("a lock").files.remove(path);
            removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
        })
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock().expect("a lock");
        Ok(state.files.keys().cloned().collect())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.meet(Call::SyncDir, path)?;
        self.power.on(|| {
            let mut state = self.state.lock().expect("a lock");
            state.entries = state.files.clone();
            Ok(())
        })
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

impl FaultyDisk {
    fn free(&self) -> u64 {
        let capacity = self.capacity.load(Ordering::Relaxed);
        if capacity == 0 {
            return u64::MAX;
        }
        let state = self.state.lock().expect("a lock");
        let lengths = state.files.values();
        let used: usize = lengths.map(|f| f.lock().expect("a lock").live.len()).sum();
        capacity.saturating_sub(used as u64)
    }

    /// What is there after a power cut: everything synced; of the rest, what the seed keeps, torn
    /// where the seed says. Directory entries that were not synced are as they were, or as they are.
    fn after_power_cut(&self, seed: &mut u64) -> FaultyDisk {
        self.power.0.write().expect("a lock").0 = true;
        let state = self.state.lock().expect("a lock");
        let after = FaultyDisk {
            capacity: self.capacity.clone(),
            ..FaultyDisk::default()
        };
        let mut new = State::default();
        let names: BTreeSet<&PathBuf> = state.files.keys().chain(state.entries.keys()).collect();
        for name in names {
            let (now, synced) = (state.files.get(name), state.entries.get(name));
            let same = matches!((now, synced), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            let image = if same || random(seed).is_multiple_of(2) {
                now
            } else {
                synced
            };
            let Some(image) = image else { continue };
            let image = image.lock().expect("a lock");
            let mut kept = image.durable.clone();
            kept.resize(image.live.len().max(kept.len()), 0);
            for &(at, len) in &image.unsynced {
                let n = match random(seed) % 3 {
                    0 => 0,
                    1 => len,
                    _ => random(seed) as usize % (len + 1),
                };
                // Cut by a later truncation, perhaps.
                let end = (at + n).min(image.live.len());
                if at < end {
                    kept[at..end].copy_from_slice(&image.live[at..end]);
                }
            }
            let image = Image {
                live: kept.clone(),
                durable: kept,
                ..Image::default()
            };
            new.files.insert(name.clone(), Arc::new(Mutex::new(image)));
        }
        new.entries = new.files.clone();
        *after.state.lock().expect("a lock") = new;
        after
    }
}

impl FaultyDisk {
    /// The same disk, as if no index had ever been written.
    fn without_indexes(&self) -> FaultyDisk {
        self.with_those(|path| !has_extension(path, "index"))
    }

    /// Another disk with some of the files.
    fn with_those(&self, wanted: impl Fn(&Path) -> bool) -> FaultyDisk {
        let state = self.state.lock().expect("a lock");
        let kept = state.files.iter().filter(|(path, _)| wanted(path));
        let files: BTreeMap<_, _> = kept
            .map(|(path, image)| {
                let image = image.lock().expect("a lock").clone();
                (path.clone(), Arc::new(Mutex::new(image)))
            })
            .collect();
        let entries = files.clone();
        FaultyDisk {
            state: Arc::new(Mutex::new(State { files, entries })),
            ..FaultyDisk::default()
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

struct Told(Sender<()>);

impl Bell for Told {
    fn ring(&self) {
        let _ = self.0.send(());
    }
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        segment_bytes: 16 * 1024,
        flush_interval: Duration::from_millis(5),
        reclaim_interval: Duration::from_millis(2),
        ..LogOptions::new(dir)
    }
}

/// A log that neither syncs nor gives space back by itself.
fn idle(dir: &Path) -> LogOptions {
    LogOptions {
        reclaim_interval: Duration::from_secs(3600),
        flush_interval: Duration::from_secs(3600),
        ..options(dir)
    }
}

/// Opens the log with the usual options.
fn open(dir: &Path, disk: &FaultyDisk) -> (SegmentedLog, Vec<Definition>) {
    open_with(&options(dir), disk)
}

/// Opens the log. sled gives its lock back a moment after it is dropped, on a thread of its own: a
/// process that starts again never meets that.
fn open_with(options: &LogOptions, disk: &FaultyDisk) -> Opened {
    open_by(|| SegmentedLog::open(options.clone(), Arc::new(disk.clone())))
}

type Opened = (SegmentedLog, Vec<Definition>);

fn open_by(open: impl Fn() -> io::Result<Opened>) -> Opened {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(e)
                if e.to_string().contains("could not acquire lock")
                    && std::time::Instant::now() < deadline =>
            {
                std::thread::yield_now();
            }
            Err(e) => panic!("{e}"),
        }
    }
}

fn message(number: u64, len: usize) -> Message {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + len, number as u8);
    Message::uncounted(
        &Parts {
            exchange: "x".into(),
            routing_key: "k".into(),
            properties: &[0x10, 0, 2],
            flags: FLAG_PERSISTENT,
        },
        &body,
    )
}

fn number_of(m: &Message) -> u64 {
    u64::from_be_bytes(m.body()[..8].try_into().expect("eight bytes"))
}

/// The numbers of the messages that are there.
fn numbers(found: &[Found]) -> Vec<u64> {
    let here = found.iter().filter_map(|found| match found {
        Found::Here(m) => Some(number_of(m)),
        _ => None,
    });
    here.collect()
}

fn target(queue: u64) -> Target {
    Target {
        queue: QueueId(queue),
        expires_at: 0,
        priority: 0,
        delivery_count: 0,
    }
}

fn stage(records: &mut Records, m: Message, queues: &[u64]) {
    let first_target = records.targets.len() as u32;
    records.targets.extend(queues.iter().map(|q| target(*q)));
    records.publishes.push(LoggedPublish {
        message: m,
        first_target,
        n_targets: queues.len() as u32,
        transient: false,
    });
}

/// Until what is before this is durable, or the log has failed. What it settles and defines is applied then: bells
/// ring before that.
fn wait(log: &SegmentedLog, at: Lsn) {
    let (tell, told) = channel();
    let bell: Arc<dyn Bell> = Arc::new(Told(tell));
    log.ring_at(at, &bell);
    told.recv_timeout(Duration::from_secs(20))
        .expect("the log rings");
    while !log.failed() && log.inner.lock().applied < at {
        std::thread::yield_now();
    }
}

/// Copies by queue, in order, with the numbers of their messages.
fn recovered(log: &SegmentedLog) -> BTreeMap<u64, Vec<u64>> {
    let mut runs = Vec::new();
    log.recover(&|_| true, &mut |run| runs.push(run));
    let mut out: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for run in runs {
        let ids: Vec<MessageId> = (run.first_id.0..run.first_id.0 + u64::from(run.count))
            .map(MessageId)
            .collect();
        let mut messages = Vec::new();
        log.read(&ids, &mut messages).expect("readable");
        let here = numbers(&messages);
        assert_eq!(here.len(), ids.len(), "a live copy has its message");
        out.entry(run.target.queue.0).or_default().extend(here);
    }
    out
}

#[test]
fn what_was_appended_is_read_back_and_recovered() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, definitions) = open(dir.path(), &disk);
    assert!(definitions.is_empty());
    let mut records = Records::default();
    for n in 0..10 {
        stage(
            &mut records,
            message(n, 100),
            if n == 3 { &[1, 2] } else { &[1] },
        );
    }
    records.definitions.push(DefinitionChange {
        kind: DefinitionKind::Queue,
        key: b"q".to_vec(),
        value: Some(b"v".to_vec()),
    });
    let a = log.append(&mut records).expect("accepted");
    assert_eq!(a.first_id, MessageId(1));
    let mut back = Vec::new();
    log.read(&[MessageId(4), MessageId(1)], &mut back)
        .expect("staged messages are found, too");
    assert_eq!(numbers(&back), [3, 0]);
    records.settles.push((QueueId(1), MessageId(2)));
    records.settles.push((QueueId(1), MessageId(4)));
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    drop(log);
    let (log, definitions) = open(dir.path(), &disk);
    assert_eq!(
        definitions,
        [(DefinitionKind::Queue, b"q".to_vec(), b"v".to_vec())]
    );
    let found = recovered(&log);
    assert_eq!(found[&1], [0, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(found[&2], [3]);
    // Ids go on where they were.
    stage(&mut records, message(10, 1), &[1]);
    assert_eq!(
        log.append(&mut records).expect("accepted").first_id,
        MessageId(11)
    );
}

#[test]
fn after_a_clean_stop_only_what_was_delivered_is_redelivered() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open(dir.path(), &disk);
    let mut records = Records::default();
    for n in 0..3 {
        stage(&mut records, message(n, 1), &[1]);
    }
    log.append(&mut records).expect("accepted");
    log.close(&[(QueueId(1), MessageId(2))]).expect("closes");
    drop(log);
    let (log, _) = open(dir.path(), &disk);
    let mut flags = Vec::new();
    log.recover(&|_| true, &mut |run| {
        flags.extend((0..run.count).map(|_| run.redelivered))
    });
    assert_eq!(flags, [false, true, false]);
    // Nothing is published or settled in this life, and it does not end in order.
    wait(&log, log.staged());
    drop(log);
    let (log, _) = open(dir.path(), &disk);
    flags.clear();
    log.recover(&|_| true, &mut |run| {
        flags.extend((0..run.count).map(|_| run.redelivered))
    });
    assert_eq!(flags, [true, true, true]);
}

#[test]
fn a_failed_write_is_final_and_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open(dir.path(), &disk);
    disk.fail.store(true, Ordering::Relaxed);
    let mut records = Records::default();
    stage(&mut records, message(1, 1), &[1]);
    let a = log
        .append(&mut records)
        .expect("accepted: it has not failed yet");
    wait(&log, a.lsn);
    assert!(log.failed() && log.durable() < a.lsn);
    disk.fail.store(false, Ordering::Relaxed);
    stage(&mut records, message(2, 1), &[1]);
    assert_eq!(log.append(&mut records), Err(LogFailed));
}

/// Flips a bit in the body of the third of five messages, and says what is recovered.
fn with_a_flipped_bit(len: usize) -> Vec<u64> {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let large = LogOptions {
        segment_bytes: 4 << 20,
        ..options(dir.path())
    };
    let (log, _) = open_with(&large, &disk);
    let mut records = Records::default();
    for n in 0..5 {
        stage(&mut records, message(n, len), &[1]);
        let a = log.append(&mut records).expect("accepted");
        wait(&log, a.lsn);
    }
    drop(log);
    {
        let state = disk.state.lock().expect("a lock");
        let mut files = state.files.iter();
        let segment = files.find(|(path, _)| has_extension(path, "segment"));
        let (_, image) = segment.expect("a segment");
        let mut image = image.lock().expect("a lock");
        let mut bytes = image.live.windows(50);
        let at = bytes.position(|w| w == [2; 50]).expect("there") + 20;
        image.live[at] ^= 4;
    }
    let (log, _) = open_with(&large, &disk);
    recovered(&log)[&1].clone()
}

#[test]
fn a_flipped_bit_costs_its_frame_only() {
    assert_eq!(with_a_flipped_bit(100), [0, 1, 3, 4]);
    // The next good frame is looked for 64 KiB at a time: just before, at and behind the first step.
    for len in (65_400..65_540).step_by(10).chain([300_000]) {
        assert_eq!(with_a_flipped_bit(len), [0, 1, 3, 4], "{len}");
    }
}

#[test]
fn one_old_message_does_not_pin_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open(dir.path(), &disk);
    let mut records = Records::default();
    for n in 0..2000 {
        stage(&mut records, message(n, 200), &[1]);
        let a = log.append(&mut records).expect("accepted");
        if n > 0 {
            records.settles.push((QueueId(1), a.first_id));
        }
    }
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while log.stats().bytes > 3 * 16 * 1024 {
        assert!(std::time::Instant::now() < deadline, "{:?}", log.stats());
        std::thread::yield_now();
    }
    let mut back = Vec::new();
    log.read(&[MessageId(1)], &mut back).expect("readable");
    assert_eq!(numbers(&back), [0]);
    drop(log);
    let (log, _) = open(dir.path(), &disk);
    assert_eq!(recovered(&log), BTreeMap::from([(1, vec![0])]));
}

/// All that says what was durable may be gone with the segments that said it.
#[test]
fn a_rewritten_segment_is_not_taken_for_the_end_of_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::default();
    let (log, _) = open_with(&idle(dir.path()), &disk);
    let mut records = Records::default();
    for n in 0..300 {
        stage(&mut records, message(n, 200), &[1]);
        let a = log.append(&mut records).expect("accepted");
        if n % 10 != 0 && n < 200 {
            records.settles.push((QueueId(1), a.first_id));
        }
    }
    let a = log.append(&mut records).expect("accepted");
    wait(&log, a.lsn);
    let before = log.stats().bytes;
    drop(log);
    // Nothing is written in this life, but space is given back.
    let (log, _) = open(dir.path(), &disk);
    let expected: Vec<u64> = (0..300).filter(|n| n % 10 == 0 || *n >= 200).collect();
    assert_eq!(recovered(&log)[&1], expected);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while log.stats().bytes > before / 2 {
        assert!(std::time::Instant::now() < deadline, "{:?}", log.stats());
        std::thread::yield_now();
    }
    drop(log);
    for _ in 0..2 {
        let disk = disk.after_power_cut(&mut 7);
        let (log, _) = open(dir.path(), &disk);
        assert_eq!(recovered(&log)[&1], expected);
    }
}
