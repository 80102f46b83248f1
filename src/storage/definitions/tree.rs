//! The definitions in sled.
//!
//! sled 0.34 keeps the first error of its disk for as long as it is open, and a damaged folder can make it
//! panic when it is opened. So it is given up after any error and made anew, and a file stands
//! beside the folder while it is opened: what is found there at a start says that the last opening never ended.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::{Stored, Table, Tables};
use crate::broker::ports::{DefinitionChange, DefinitionKind, Lsn};
use crate::storage::kinds;

/// sled's page cache: its default of 1 GiB is for other uses.
const CACHE_BYTES: u64 = 16 << 20;

/// Changes that sled gets at once. Of larger batches it keeps memory for ever, some 1 KB a change: five times
/// 100,000 values of 80 bytes under the same keys are 973 MiB in one batch each, 96 MiB in these.
const BATCH: usize = 512;

/// Key of what the store knows about itself; kinds are counted from one, so it is nobody's.
const STATE_KEY: [u8; 1] = [0];

/// sled gives its files back on threads of its own, a moment after it was dropped.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(5);

/// Free bytes of the disk below which sled is not made anew, beside twice what goes into it.
const ROOM_BYTES: u64 = 16 << 20;

/// No file of sled's is longer, bytes: four times what a journal may have. What is was made long by somebody else.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// What is read of the file that says how often opening was begun, bytes.
const MARKER_BYTES_MAX: u64 = 64;

/// The folder in which a tree is.
pub(super) struct Trees(pub(super) PathBuf);

/// See the module.
struct Tree {
    db: sled::Db,
    path: PathBuf,
}

fn io_error(e: sled::Error) -> io::Error {
    match e {
        sled::Error::Io(e) => e,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

fn state(applied: Lsn, next_id: u64) -> Vec<u8> {
    [applied.0.to_be_bytes(), next_id.to_be_bytes()].concat()
}

fn key(kind: DefinitionKind, key: &[u8]) -> Vec<u8> {
    [&[kind.number()], key].concat()
}

/// What the marker says.
fn noted(marker: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = kinds::open_to_read(marker)?;
    file.take(MARKER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Trees {
    /// A file beside the folder while it is being opened.
    fn marker(&self) -> PathBuf {
        self.0.with_extension("opening")
    }
}

impl Tables for Trees {
    fn path(&self) -> &Path {
        &self.0
    }

    fn begin(&self) -> u32 {
        let marker = self.marker();
        // One that was not written to its end is one.
        let before: u32 = noted(&marker).map_or(0, |n| n.trim().parse().unwrap_or(1));
        // On a disk that is full there is no guard, and no reason to give the folder up.
        let _ = kinds::make_way(&marker)
            .and_then(|()| fs::write(&marker, before.saturating_add(1).to_string()));
        before
    }

    fn end(&self) {
        let _ = fs::remove_file(self.marker());
    }

    fn open(&self) -> io::Result<Box<dyn Table>> {
        Ok(Box::new(Tree::open(&self.0)?))
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        kinds::put_aside(&self.0)
    }

    fn make_anew(&self, all: &Stored) -> io::Result<Box<dyn Table>> {
        Ok(Box::new(Tree::make_anew(&self.0, all)?))
    }
}

impl Tree {
    fn open(path: &Path) -> io::Result<Tree> {
        // What sled opens it waits for, and reads as far as it says to be long.
        kinds::only_files(path, FILE_BYTES_MAX)?;
        let config = sled::Config::default()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        Ok(Tree {
            db: config.open().map_err(io_error)?,
            path: path.to_path_buf(),
        })
    }

    fn each(&self, mut each: impl FnMut(DefinitionKind, &[u8], &[u8])) -> io::Result<()> {
        for item in self.db.iter() {
            let (key, value) = item.map_err(io_error)?;
            match key.split_first() {
                Some((0, [])) | None => {}
                Some((kind, key)) => each(DefinitionKind::of(*kind), key, &value),
            }
        }
        Ok(())
    }

    fn make_anew(path: &Path, all: &Stored) -> io::Result<Tree> {
        released(path)?;
        let sizes = all.definitions.iter();
        let bytes: usize = sizes.map(|((_, key), value)| key.len() + value.len()).sum();
        let stat = rustix::fs::statvfs(path.parent().unwrap_or(path))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < ROOM_BYTES + 2 * bytes as u64 {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let tree = Tree::open(path)?;
        let changes = tree.differences(all)?;
        tree.write(&changes, all.applied, all.next_id)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        File::open(path)?.sync_all()?;
        Ok(tree)
    }
}

impl Table for Tree {
    fn position(&self) -> io::Result<(Lsn, u64)> {
        let Some(value) = self.db.get(STATE_KEY).map_err(io_error)? else {
            return Ok((Lsn::default(), 0));
        };
        let number = |at: usize| {
            let bytes = value.get(at..at + 8).and_then(|b| b.first_chunk());
            bytes.map_or(0, |b| u64::from_be_bytes(*b))
        };
        Ok((Lsn(number(0)), number(8)))
    }

    fn read(&self) -> io::Result<Stored> {
        let (applied, next_id) = self.position()?;
        let mut stored = Stored {
            applied,
            next_id,
            ..Stored::default()
        };
        self.each(|kind, key, value| {
            let name = (kind, key.to_vec());
            stored.definitions.insert(name, value.to_vec());
        })?;
        Ok(stored)
    }

    fn differences(&self, wanted: &Stored) -> io::Result<Vec<DefinitionChange>> {
        let mut changes = Vec::new();
        let mut same = std::collections::BTreeSet::new();
        self.each(|kind, key, value| {
            let name = (kind, key.to_vec());
            match wanted.definitions.get_key_value(&name) {
                Some((known, wanted)) if wanted == value => drop(same.insert(known)),
                Some(_) => {}
                None => changes.push(DefinitionChange {
                    kind,
                    key: name.1,
                    value: None,
                }),
            }
        })?;
        let others = wanted.definitions.iter();
        let others = others.filter(|(name, _)| !same.contains(name));
        changes.extend(others.map(|((kind, key), value)| DefinitionChange {
            kind: *kind,
            key: key.clone(),
            value: Some(value.clone()),
        }));
        Ok(changes)
    }

    fn write(&self, changes: &[DefinitionChange], applied: Lsn, next_id: u64) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (n, change) in changes.iter().enumerate() {
            if n > 0 && n % BATCH == 0 {
                // A crash in between is none: the start compares it with the journal.
                self.db
                    .apply_batch(std::mem::take(&mut batch))
                    .map_err(io_error)?;
            }
            let key = key(change.kind, &change.key);
            match &change.value {
                Some(value) => batch.insert(key, value.as_slice()),
                None => batch.remove(key),
            }
        }
        batch.insert(&STATE_KEY, state(applied, next_id));
        self.db.apply_batch(batch).map_err(io_error)?;
        self.db.flush().map_err(io_error)?;
        // sled 0.34 ends a flush with sync_file_range, which leaves the drive's cache alone.
        kinds::open_to_read(&self.path.join("db"))?.sync_data()
    }
}

/// Waits until a sled that was dropped is gone.
fn released(path: &Path) -> io::Result<()> {
    let file = match kinds::open_to_read(&path.join("db")) {
        // Nothing that sled has open.
        Err(e) if kinds::is_no_file(&e) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let until = Instant::now() + RELEASED_WITHIN;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() >= until => return Err(e.into()),
            Err(_) => std::thread::park_timeout(LOOKED_AT_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_octets_in_sled_are_those_of_its_format() {
        let made = [
            ("key of a queue", key(DefinitionKind::Queue, b"key")),
            ("key of the position", STATE_KEY.to_vec()),
            ("position", state(Lsn(7 << 32 | 0x100), 0x1234)),
        ];
        crate::golden::check("sled.txt", &made);
    }
}
