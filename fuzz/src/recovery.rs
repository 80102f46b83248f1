//! A start from files that anybody may have written.
//!
//! The input says what files there are: frames, indexes, notes and a journal, made here by the document of the format
//! (`docs/format.md`) and nothing of the log's code, and what is done to them afterwards. The log is opened, read, written
//! to, left, and opened again. While nothing was done to the files, it must find exactly what they say. Whatever was
//! done, it ends neither the process nor its patience, takes no memory for what is not there, gives what it says it has,
//! and a second start has what the first one had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use leveret::broker::message::{Message, Parts};
use leveret::broker::ports::{
    Bell, Definition, Found, LoggedPublish, Lsn, MessageId, MessageLog, QueueId, Records, Target,
};
use leveret::storage::files::Disk;
use leveret::storage::{LogOptions, SegmentedLog, examine};

use super::files::Files;
use super::octets::Octets;
use super::{memory_folder, within};

/// The log's buffers, the definitions' caches, blocks that are read at once.
const AT_REST: u64 = 48 << 20;

/// A message of 17 octets has its places, a bit of a note its copies.
const FOR_AN_OCTET: u64 = 4096;

/// Octets of an input at most.
const INPUT_MAX: usize = 1 << 14;

/// So many messages of a run are read, at its start and at its end.
const READ_MAX: u64 = 32;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A queue that no input names.
const OURS: QueueId = QueueId(7777);

/// See the module.
pub fn run(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_MAX)];
    // Set up once, and not of this input.
    let folder = Folder::new();
    within(AT_REST, FOR_AN_OCTET, input.len(), || {
        check(&folder.0, input)
    });
}

/// A folder of this thread, empty.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let id = format!("{:?}", std::thread::current().id());
        let id: String = id.chars().filter(char::is_ascii_digit).collect();
        let name = format!("leveret-fuzz-{}-{id}-data", std::process::id());
        let path = memory_folder().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(dir: &Path) -> LogOptions {
    let mut options = LogOptions::new(dir);
    options.segment_bytes = 4096;
    // Nothing by itself: it is opened and closed.
    options.flush_interval = Duration::from_secs(3600);
    options.reclaim_interval = Duration::from_secs(3600);
    options
}

type Copies = BTreeSet<(u64, u64)>;

fn check(dir: &Path, input: &[u8]) {
    let mut input = Octets::new(input);
    let mode = input.octet();
    let files = Files::of(&mut input);
    files.write(dir);
    let as_made = !files.changed();
    let looked = look(dir, &files, mode & 1 == 1);
    let log = match SegmentedLog::open(options(dir), Arc::new(Disk)) {
        Ok((log, definitions)) => {
            if as_made {
                assert_eq!(by_key(&definitions), files.definitions);
            }
            log
        }
        Err(e) => {
            assert!(!as_made, "a good folder is refused: {e}");
            return;
        }
    };
    let copies = recovered(&log, &files);
    if as_made {
        assert_eq!(
            copies,
            files.copies(),
            "other copies than those in the files"
        );
        assert!(
            log.damage().holes.is_empty() && log.damage().set_aside.is_empty(),
            "{:?}",
            log.damage()
        );
    }
    // A frame that checks and says nothing that can be understood stays where it is.
    if matches!(looked, Looked::Repaired) && !files.made_up() {
        assert!(
            log.damage().holes.is_empty(),
            "damaged after a repair: {:?}",
            log.damage()
        );
    }
    if let Looked::Counted(messages) = looked {
        assert_eq!(
            messages,
            copies.len() as u64,
            "check counts other copies than a start"
        );
    }
    let settled = copies.iter().next().copied();
    let ours = append(&log, settled);
    if mode & 2 == 2 {
        log.close(&[]).expect("a disk that works");
    }
    drop(log);
    let log = open_again(dir);
    let again = recovered(&log, &files);
    let mut wanted = copies;
    wanted.insert((OURS.0, ours.0));
    if let Some(copy) = settled {
        wanted.remove(&copy);
    }
    assert_eq!(again, wanted, "a second start has something else");
    assert!(matches!(&read(&log, &[ours])[..], [Found::Here(m)] if m.body() == b"ours"));
}

/// Sled's threads keep its lock for a moment longer than it is open.
fn open_again(dir: &Path) -> SegmentedLog {
    let until = Instant::now() + PATIENCE;
    loop {
        match SegmentedLog::open(options(dir), Arc::new(Disk)) {
            Ok((log, _)) => return log,
            Err(e)
                if e.to_string().contains("could not acquire lock") && Instant::now() < until =>
            {
                std::thread::yield_now();
            }
            Err(e) => panic!("what was opened once is not again: {e}"),
        }
    }
}

enum Looked {
    Nothing,
    Counted(u64),
    Repaired,
}

/// `leveret check`, and `leveret repair`.
fn look(dir: &Path, files: &Files, repairs: bool) -> Looked {
    let found = match examine(dir, Ok(None), Arc::new(|_, _| {})) {
        Ok(found) => found,
        Err(e) => {
            // Without any definitions it says that there are none.
            let none = !files.has_journal();
            assert!(none || files.changed(), "a good folder is not read: {e}");
            return Looked::Nothing;
        }
    };
    let faults: Vec<_> = found.faults.iter().map(|f| format!("{f:?}")).collect();
    assert!(
        files.changed() || faults.is_empty(),
        "a good folder is at fault: {faults:?}"
    );
    if repairs && !faults.is_empty() {
        found
            .repair(dir, &dir.join("damaged-1"))
            .expect("a disk that works");
        return Looked::Repaired;
    }
    match faults.is_empty() {
        true => Looked::Counted(found.messages),
        false => Looked::Nothing,
    }
}

fn by_key(definitions: &[Definition]) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let all = definitions.iter();
    all.map(|(kind, key, value)| ((kind.number(), key.clone()), value.clone()))
        .collect()
}

/// What the log says it has; all of it is read.
fn recovered(log: &SegmentedLog, files: &Files) -> Copies {
    let mut runs = Vec::new();
    log.recover(&|_| true, &mut |run| runs.push(run));
    let mut copies = Copies::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut n = 0;
    for run in &runs {
        let (queue, first, count) = (run.target.queue.0, run.first_id.0, u64::from(run.count));
        let before = last.insert(queue, first + count - 1);
        assert!(
            count > 0 && before.is_none_or(|id| id < first),
            "queue {queue}: {first} behind {before:?}"
        );
        n += count;
        assert!(n < 1 << 20, "more than there can be");
        copies.extend((first..first + count).map(|id| (queue, id)));
        let mut ids: BTreeSet<u64> = (first..first + count.min(READ_MAX)).collect();
        ids.extend(first + count - count.min(READ_MAX)..first + count);
        let ids: Vec<_> = ids.into_iter().map(MessageId).collect();
        for (id, found) in ids.iter().zip(read(log, &ids)) {
            match found {
                Found::Here(m) => {
                    let fits = m.body_len() == run.body_len || files.has_index();
                    assert!(fits, "{id:?}: {} octets", m.body_len());
                    assert!(files.may_hold(&m), "{id:?} was never written: {m:?}");
                }
                // An index is believed that checks and fits.
                Found::Lost | Found::Settled => {
                    assert!(files.has_index(), "{id:?} is not there: {found:?}")
                }
                Found::Later => panic!("{id:?} is not read"),
            }
        }
    }
    copies
}

fn read(log: &SegmentedLog, ids: &[MessageId]) -> Vec<Found> {
    let mut found = Vec::new();
    log.read(ids, &mut found).expect("a disk that works");
    assert_eq!(found.len(), ids.len());
    found
}

/// Publishes a message, and settles a copy; returns when both are durable.
fn append(log: &SegmentedLog, settled: Option<(u64, u64)>) -> MessageId {
    let parts = Parts {
        exchange: "".into(),
        routing_key: "ours".into(),
        properties: &[0, 0],
        flags: 0,
    };
    let mut records = Records::default();
    records
        .settles
        .extend(settled.map(|(queue, id)| (QueueId(queue), MessageId(id))));
    records.targets.push(Target {
        queue: OURS,
        expires_at: 0,
        priority: 0,
        delivery_count: 0,
    });
    records.publishes.push(LoggedPublish {
        message: Message::uncounted(&parts, b"ours"),
        first_target: 0,
        n_targets: 1,
        transient: false,
    });
    let appended = log.append(&mut records).expect("the log works");
    wait(log, appended.lsn);
    appended.first_id
}

/// A bell that can be waited for.
#[derive(Default)]
struct Rung(Mutex<bool>, Condvar);

impl Bell for Rung {
    fn ring(&self) {
        *self.0.lock().expect("no panic") = true;
        self.1.notify_all();
    }
}

fn wait(log: &SegmentedLog, lsn: Lsn) {
    let rung = Arc::new(Rung::default());
    let bell: Arc<dyn Bell> = rung.clone();
    log.ring_at(lsn, &bell);
    let guard = rung.0.lock().expect("no panic");
    let waited = rung.1.wait_timeout_while(guard, PATIENCE, |rung| !*rung);
    let timed_out = waited.expect("no panic").1.timed_out();
    assert!(
        !timed_out && log.durable() >= lsn && !log.failed(),
        "not durable"
    );
}
