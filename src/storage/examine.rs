//! Looking at a data folder that no broker uses, with the code that a start reads it with, on files that cannot
//! be written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::definitions::{self, Copy};
use super::files::{Disk, FileLayer, LogFile};
use super::{kinds, log};
use crate::broker::definitions::StoredQueue;
use crate::broker::ports::{DefinitionKind, QueueId};

/// Something that is not as it was written.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The file, or folder.
    pub path: PathBuf,
    /// What is wrong, and what it costs beside messages.
    pub what: String,
    /// Where it starts, and bytes, where that is a part of the file.
    pub offset: Option<u64>,
    /// See there.
    pub len: Option<u64>,
    /// Messages that were in it at most: some may have been acknowledged. `None`: not known.
    pub messages: Option<u64>,
    /// Messages of queues that were in this file and are not there any more, as far as that is known.
    pub by_queue: Vec<(QueueId, u64)>,
}

impl Fault {
    pub(super) fn new(path: &Path, what: &str) -> Fault {
        Fault {
            path: path.to_path_buf(),
            what: what.to_string(),
            offset: None,
            len: None,
            messages: None,
            by_queue: Vec::new(),
        }
    }
}

/// What was found in a data folder.
pub struct Examined {
    /// Segments of the log.
    pub segments: usize,
    /// Messages in queues.
    pub messages: u64,
    /// Definitions.
    pub definitions: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Durable queues by their ids in the log: virtual host and name.
    pub queues: Vec<(QueueId, String, String)>,
    log: log::Examined,
}

/// Files of the data folder in which nothing is that is not elsewhere.
const OWN_FILES: [&str; 5] = [
    "clock",
    "version.tmp",
    "reserve",
    "definitions.opening",
    "definitions.journal.tmp",
];

/// Told of the bytes that were read, and of all that there are.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Files that can only be read; what would change them is said to have been done.
#[derive(Clone)]
pub(super) struct ReadOnly {
    hidden: Option<&'static str>,
    n_read: Arc<AtomicU64>,
    total: u64,
    progress: Progress,
}

impl ReadOnly {
    /// All files, of which so many bytes are read.
    pub(super) fn new(total: u64, progress: Progress) -> ReadOnly {
        ReadOnly {
            hidden: None,
            n_read: Arc::default(),
            total,
            progress,
        }
    }

    /// The same without the files whose names end so.
    pub(super) fn without(&self, extension: &'static str) -> ReadOnly {
        ReadOnly {
            hidden: Some(extension),
            ..self.clone()
        }
    }
}

struct ReadFile {
    file: File,
    layer: ReadOnly,
}

impl LogFile for ReadFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = LogFile::read_at(&self.file, into, offset)?;
        let all = self.layer.n_read.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        (self.layer.progress)(all, self.layer.total);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        LogFile::len(&self.file)
    }

    fn data_from(&self, offset: u64) -> Option<u64> {
        self.file.data_from(offset)
    }

    fn allocate(&self, _: u64) -> io::Result<bool> {
        Ok(true)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self) {}
}

impl FileLayer for ReadOnly {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.open_existing(path)
    }

    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(ReadFile {
            file: kinds::open_to_read(path)?,
            layer: self.clone(),
        }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut all = Disk.list(dir)?;
        let hidden = |path: &PathBuf| {
            let extension = path.extension().and_then(|e| e.to_str());
            extension.is_some_and(|e| self.hidden == Some(e))
        };
        all.retain(|path| !hidden(path));
        Ok(all)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Disk.free_bytes(dir)
    }
}

/// Bytes of the files in a folder.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().filter_map(|e| e.metadata().ok());
    sizes.filter(fs::Metadata::is_file).map(|m| m.len()).sum()
}

/// Opens a copy of the definitions in sled and reads it: whoever asks does so in a process that may end by it.
///
/// # Errors
/// It cannot be read.
pub fn probe(copy: &Path) -> io::Result<()> {
    definitions::probe(copy)
}

/// Looks at all that is in a data folder. `tree`: a copy of its folder `definitions` that can be opened, if
/// that is there, or why there is none.
///
/// # Errors
/// What is there cannot be told.
pub fn examine(
    dir: &Path,
    tree: Result<Option<&Path>, String>,
    progress: Progress,
) -> io::Result<Examined> {
    let files = ReadOnly::new(bytes_in(&dir.join("log")), progress);
    let (stored, copies) = definitions::examine(Arc::new(files.clone()), dir, tree)?;
    let mut faults = Vec::new();
    for (path, copy) in copies {
        let what = match copy {
            Copy::Good | Copy::Missing => continue,
            Copy::Damaged(why) => format!(
                "damaged ({why}); nothing is lost: the other copy of the definitions is good"
            ),
            Copy::Unsure(why) => format!(
                "damaged ({why}); the other copy of the definitions is good, but may be behind it: if so, what was \
                 defined last is lost"
            ),
        };
        faults.push(Fault::new(&path, &what));
    }
    for name in OWN_FILES {
        let path = dir.join(name);
        if let Some(what) = kinds::other_than_file(&path) {
            faults.push(Fault::new(
                &path,
                &format!("is {what}, not a file; nothing is lost"),
            ));
        }
    }
    let mut queues = Vec::new();
    for ((kind, key), value) in &stored.definitions {
        if *kind == DefinitionKind::Queue
            && let Ok((vhost, queue)) = StoredQueue::read(key, value)
        {
            queues.push((QueueId(queue.id), vhost, queue.name));
        }
    }
    let definitions = stored.definitions.len();
    // What the log itself defines is not in the store yet: its messages count, too.
    let known = |_| true;
    let log = log::examine(dir, &files, stored, &known)?;
    faults.extend(log.faults.iter().cloned());
    Ok(Examined {
        segments: log.segments,
        messages: log.messages,
        definitions,
        faults,
        queues,
        log,
    })
}

impl Examined {
    /// Sets aside what is damaged, in a folder `aside`, so that a start finds nothing wrong.
    ///
    /// # Errors
    /// The disk says no. What was set aside so far is.
    pub fn repair(&self, dir: &Path, aside: &Path) -> io::Result<()> {
        fs::create_dir(aside)?;
        File::open(dir)?.sync_all()?;
        let mut keep = |path: &Path, stays: bool| {
            let name = path.file_name().unwrap_or_default();
            let to = aside.join(name);
            // Until another takes its place, it has two names.
            let linked = stays && fs::hard_link(path, &to).is_ok();
            if !linked {
                fs::rename(path, &to)?;
            }
            File::open(aside)?.sync_all()
        };
        for fault in &self.faults {
            if !fault.path.starts_with(dir.join("log")) {
                keep(&fault.path, false)?;
            }
        }
        File::open(dir)?.sync_all()?;
        self.log.repair(dir, &Disk, &mut keep)
    }
}
