//! Tests of a log that has more segments than the process may have descriptors.

use super::*;
use crate::storage::log::open::OPEN_SEGMENTS_MAX;
use std::sync::atomic::AtomicUsize;

/// A disk whose files need descriptors.
#[derive(Clone, Default)]
struct Scarce {
    disk: FaultyDisk,
    open: Arc<AtomicUsize>,
    /// The most that were ever open.
    peak: Arc<AtomicUsize>,
    /// So many may be; zero: any number.
    limit: Arc<AtomicUsize>,
}

struct Descriptor {
    file: Arc<dyn LogFile>,
    open: Arc<AtomicUsize>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scarce {
    fn counted(
        &self,
        open: impl FnOnce() -> io::Result<Arc<dyn LogFile>>,
    ) -> io::Result<Arc<dyn LogFile>> {
        let limit = self.limit.load(Ordering::SeqCst);
        let now = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        let file = match limit > 0 && now > limit {
            true => Err(rustix::io::Errno::MFILE.into()),
            false => open(),
        };
        if file.is_err() {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
        let file = file?;
        self.peak.fetch_max(now, Ordering::SeqCst);
        let open = self.open.clone();
        Ok(Arc::new(Descriptor { file, open }))
    }
}

impl LogFile for Descriptor {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn forget(&self) {
        self.file.forget();
    }
}

impl FileLayer for Scarce {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.counted(|| self.disk.open(path))
    }

    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.counted(|| self.disk.open_existing(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
}

/// What is open beside the segments: journals, what is written anew, what is being read.
const OTHERS: usize = 8;

fn open_scarce(options: &LogOptions, scarce: &Scarce) -> SegmentedLog {
    let opened = || SegmentedLog::open(options.clone(), Arc::new(scarce.clone()));
    open_by(opened).0
}

/// With segments of four messages, and nothing that reclaims them by itself.
fn small(dir: &Path, scarce: &Scarce) -> SegmentedLog {
    let options = LogOptions {
        segment_bytes: 4096,
        ..idle(dir)
    };
    open_scarce(&options, scarce)
}

/// A backlog of many small segments.
fn backlog(log: &SegmentedLog, n: u64) -> Vec<MessageId> {
    let mut records = Records::default();
    let append = |n| {
        stage(&mut records, message(n, 900), &[1]);
        log.append(&mut records).expect("accepted").first_id
    };
    let ids = (0..n).map(append).collect();
    wait(log, log.staged());
    ids
}

#[test]
fn a_backlog_of_many_segments_keeps_few_files_open() {
    for durability in [Durability::Fsync, Durability::Write] {
        let dir = tempfile::tempdir().expect("a folder");
        let scarce = Scarce::default();
        let small = LogOptions {
            segment_bytes: 4096,
            durability,
            ..options(dir.path())
        };
        let log = open_scarce(&small, &scarce);
        let ids = backlog(&log, 1000);
        assert!(log.stats().segments > 5 * OPEN_SEGMENTS_MAX);
        let mut found = Vec::new();
        log.read(&ids, &mut found).expect("readable");
        assert_eq!(numbers(&found).len(), ids.len());
        drop(log);
        let log = open_scarce(&small, &scarce);
        assert_eq!(recovered(&log)[&1].len(), ids.len());
        drop(log);
        let peak = scarce.peak.load(Ordering::SeqCst);
        let unsynced = match durability {
            Durability::Fsync => 0,
            Durability::Write => 17,
        };
        assert!(peak <= OPEN_SEGMENTS_MAX + OTHERS + unsynced, "{peak}");
    }
}

/// One that may have no more descriptors than it has closes what it keeps open; with none at all, it has lost
/// nothing.
#[test]
fn without_descriptors_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let scarce = Scarce::default();
    let log = small(dir.path(), &scarce);
    let mut ids = backlog(&log, 400);
    let read = |ids: &[MessageId]| {
        let mut found = Vec::new();
        let outcome = log.read(ids, &mut found);
        assert!(
            !found
                .iter()
                .any(|f| matches!(f, Found::Lost | Found::Settled))
        );
        (numbers(&found).len(), outcome.is_ok())
    };
    assert_eq!(read(&ids), (400, true));
    let open = scarce.open.load(Ordering::SeqCst);
    assert!(open > OPEN_SEGMENTS_MAX);
    scarce.limit.store(open, Ordering::SeqCst);
    assert_eq!(read(&ids), (400, true));
    ids.extend(backlog(&log, 100));
    assert_eq!(read(&ids), (500, true));
    scarce.limit.store(1, Ordering::SeqCst);
    let (here, ok) = read(&ids);
    assert!(here < 500 && !ok, "{here}");
    scarce.limit.store(0, Ordering::SeqCst);
    assert_eq!(read(&ids), (500, true));
    assert_eq!(log.stats().damaged, 0);
}

/// What was looked up in a segment is read from the file that had it, although another has its name by then;
/// and nobody keeps a file that has none.
#[test]
fn a_file_is_read_to_the_end_and_closed_when_another_takes_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let scarce = Scarce::default();
    let log = small(dir.path(), &scarce);
    let ids = backlog(&log, 60);
    let first = || log.inner.lock().segments.by_number[&1].file.clone();
    let get = |file| log.inner.open.get(&scarce, file).expect("opened");
    let bytes = |file| {
        let mut bytes = vec![0; 4096];
        let n = get(file).read_at(&mut bytes, 0).expect("read");
        bytes.truncate(n);
        bytes
    };
    let old = first().expect("a file");
    let before = bytes(&old);
    let settle = |ids: &[MessageId]| {
        let mut records = Records::default();
        let settles = ids.iter().map(|id| (QueueId(1), *id));
        records.settles.extend(settles);
        let at = log.append(&mut records).expect("accepted").lsn;
        wait(&log, at);
        while log.inner.lock().applied < at {
            std::thread::yield_now();
        }
        let mut reclaim = reclaim::Reclaim::default();
        reclaim.pass(&log.inner);
        while reclaim.step(&log.inner) {}
    };
    settle(&ids[1..]);
    assert_eq!(Arc::strong_count(&old), 1, "only who reads it has it");
    log.inner.open.close_all();
    assert!(bytes(&old) == before, "another file's");
    let new = first().expect("a file");
    assert!(bytes(&new).len() < before.len() / 2);
    drop((old, new));
    settle(&ids[..1]);
    assert_eq!(log.stats().live_copies, 0);
    let open = scarce.open.load(Ordering::SeqCst);
    log.inner.open.close_all();
    let needed = scarce.open.load(Ordering::SeqCst);
    assert_eq!(open, needed, "what is removed is closed");
}

/// Somebody who removes a segment under the log has lost what was in it, and no more.
#[test]
fn a_segment_that_is_missing_is_lost_and_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let scarce = Scarce::default();
    let log = small(dir.path(), &scarce);
    let ids = backlog(&log, 200);
    let (path, range) = {
        let staging = log.inner.lock();
        let third = &staging.segments.by_number[&3];
        (log.inner.segment_path(3), third.first_id..third.next_id)
    };
    scarce.disk.remove(&path).expect("there");
    let mut found = Vec::new();
    log.read(&ids, &mut found).expect("readable");
    for (id, found) in ids.iter().zip(&found) {
        assert_eq!(
            matches!(found, Found::Lost),
            range.contains(&id.0),
            "{id:?}"
        );
    }
    assert_eq!(log.stats().damaged, 1);
    // Where all are gone, the folder is.
    for number in 1..=log.inner.lock().segment {
        let _ = scarce.disk.remove(&log.inner.segment_path(number));
    }
    log.inner.open.close_all();
    found.clear();
    log.read(&ids[100..110], &mut found).expect_err("told");
    assert!(found.iter().all(|f| matches!(f, Found::Later)));
}
