//! The journal of the definitions: what was checkpointed, one checksummed record after the other, written
//! anew when most of it is out of date. Each file has a key of its own (`key.rs`).
//!
//! A file of which a write or a sync failed is never written to again: what was synced of it before, and
//! checks, is copied to a new one. Room is reserved ahead, so that small checkpoints go on when the disk
//! is full.

mod key;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BufMut;

use self::key::Key;
use super::{Stored, apply};
use crate::broker::ports::{DefinitionChange, DefinitionKind, Lsn};
use crate::storage::files::{FileLayer, LogFile, tmp};
use crate::storage::octets::Octets;

/// Begins each record, with the file's key in it.
const MAGIC: u32 = 0x4c56_4a52;

/// Magic, checksum, length of the payload.
const HEADER: usize = 12;

/// Octets of changes in a record, after which the next one begins.
const RECORD_BYTES: usize = 1 << 20;

/// Octets that a record takes beside its changes, and a change beside its key and value.
const RECORD_EXTRA: usize = HEADER + 16;
const CHANGE_EXTRA: usize = 10;

/// How long a journal is.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Sizes {
    /// Room that is reserved at a time.
    pub(in crate::storage) allocate_bytes: u64,
    /// Below this, it is not made anew.
    pub(in crate::storage) compact_above_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            allocate_bytes: 1 << 20,
            compact_above_bytes: 4 << 20,
        }
    }
}

/// A journal is not longer: what is behind that is none of ours.
const JOURNAL_BYTES_MAX: u64 = 4 << 30;

/// Octets that are read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// A record may end with so many octets of zero at most, which are as those of the room behind it.
const ZEROS_MAX: usize = 16 << 20;

/// So many places behind the last good record are tried: one at which another begins tells a damaged
/// journal from one whose last write was not finished.
const TRIES_BEHIND: usize = 64;

/// See the module.
pub(super) struct Journal {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
    sizes: Sizes,
    /// None: what comes next is written to a new file.
    file: Option<Arc<dyn LogFile>>,
    /// Up to here it is synced and checks; zero: it has nothing.
    end: u64,
    allocated: u64,
    /// Its length when it was last made anew.
    made_anew: u64,
    key: Key,
    applied: Lsn,
    next_id: u64,
}

/// What a journal says.
pub(super) struct Found {
    pub(super) stored: Stored,
    /// There is more, and it does not check.
    pub(super) damaged: bool,
    /// Nor does what is behind the last record: one was not written to its end, or is damaged.
    pub(super) unfinished: bool,
    /// Up to here it went, by what checks in it; `None`: nothing does.
    pub(super) reaches: Option<Lsn>,
}

/// One record, read.
struct Record {
    applied: Lsn,
    next_id: u64,
    changes: Vec<DefinitionChange>,
    len: usize,
}

/// The record that these octets begin with, if they do.
fn record(bytes: &[u8], key: Key) -> Option<Record> {
    let mut r = Octets(bytes);
    if r.u32()? != key.magic() {
        return None;
    }
    let (crc, payload) = (r.u32()?, r.long()?);
    if key.hash(payload) != crc {
        return None;
    }
    let mut r = Octets(payload);
    let (applied, next_id) = (Lsn(r.u64()?), r.u64()?);
    let mut changes = Vec::new();
    while !r.0.is_empty() {
        let kind = DefinitionKind::of(r.u8()?);
        let key = r.long()?.to_vec();
        let value = match r.u8()? {
            0 => None,
            _ => Some(r.long()?.to_vec()),
        };
        changes.push(DefinitionChange { kind, key, value });
    }
    Some(Record {
        applied,
        next_id,
        changes,
        len: HEADER + payload.len(),
    })
}

/// Reads what is there: up to where, and what.
fn read(bytes: &[u8]) -> Result<(usize, Found), key::Unknown> {
    let mut stored = Stored::default();
    let (key, start) = Key::of(bytes)?;
    let mut at = start;
    while let Some(record) = record(&bytes[at..], key) {
        at += record.len;
        (stored.applied, stored.next_id) = (record.applied, record.next_id);
        for change in record.changes {
            apply(&mut stored, change);
        }
    }
    let magic = key.magic().to_be_bytes();
    let behind = bytes.get(at + 1..).unwrap_or_default();
    let starts = behind.windows(magic.len()).enumerate();
    let mut starts = starts.filter(|(_, w)| *w == magic).take(TRIES_BEHIND);
    let further = starts.find_map(|(n, _)| reach(&behind[n..], key));
    // A journal begins with a record: it is synced before it is in its place.
    let damaged = further.is_some() || (at == start && !bytes.iter().all(|b| *b == 0));
    let found = Found {
        reaches: further.or((at > start).then_some(stored.applied)),
        stored,
        damaged,
        unfinished: !damaged && !bytes[at..].iter().all(|b| *b == 0),
    };
    Ok((if at == start { 0 } else { at }, found))
}

/// How far the records go that these octets begin with; `None`: with none.
fn reach(bytes: &[u8], key: Key) -> Option<Lsn> {
    let (mut at, mut reaches) = (0, None);
    while let Some(record) = record(&bytes[at..], key) {
        at += record.len;
        reaches = reaches.max(Some(record.applied));
    }
    reaches
}

/// Whether a journal is not read as another version wrote it: that is no damage.
pub(super) fn is_of_another_version(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|e| e.is::<key::Unknown>())
}

/// Writes records one behind the other.
struct Writer<'a> {
    file: &'a dyn LogFile,
    key: Key,
    at: u64,
    applied: Lsn,
    next_id: u64,
    changes: Vec<u8>,
}

impl Writer<'_> {
    fn put(&mut self, kind: DefinitionKind, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let out = &mut self.changes;
        out.put_u8(kind.number());
        // Those of the log have 32 bits, too.
        out.put_u32(key.len() as u32);
        out.put_slice(key);
        out.put_u8(u8::from(value.is_some()));
        if let Some(value) = value {
            out.put_u32(value.len() as u32);
            out.put_slice(value);
        }
        match out.len() < RECORD_BYTES {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// Writes what was put. A record that is not the last one has the position of the one before: what
    /// comes after a crash in between is all applied again. The first one of a file has its key before it.
    fn write(&mut self) -> io::Result<()> {
        let mut out = Vec::with_capacity(key::LEN + RECORD_EXTRA + self.changes.len());
        if self.at == 0 {
            out.put_slice(&self.key.start());
        }
        let start = out.len();
        out.put_u32(self.key.magic());
        out.put_u32(0);
        out.put_u32(16 + self.changes.len() as u32);
        out.put_u64(self.applied.0);
        out.put_u64(self.next_id);
        out.append(&mut self.changes);
        let crc = self.key.hash(&out[start + HEADER..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
        self.file.write_at(&out, self.at)?;
        self.at += out.len() as u64;
        Ok(())
    }

    fn put_all(&mut self, changes: &[DefinitionChange]) -> io::Result<()> {
        let mut changes = changes.iter();
        changes.try_for_each(|c| self.put(c.kind, &c.key, c.value.as_deref()))
    }
}

impl Journal {
    /// Reads the journal at `path`; none if there is none.
    ///
    /// # Errors
    /// The disk says no, or it is of another version.
    pub(super) fn open(
        files: Arc<dyn FileLayer>,
        path: &Path,
        sizes: Sizes,
    ) -> io::Result<(Journal, Option<Found>)> {
        let mut journal = Journal::new(files, path, sizes);
        let file = journal.files.open(path)?;
        let bytes = written(file.as_ref(), file.len()?)?;
        if bytes.is_empty() {
            return Ok((journal, None));
        }
        let (end, found) = read(&bytes).map_err(io::Error::other)?;
        if !found.damaged {
            journal.end = end as u64;
            (journal.applied, journal.next_id) = (found.stored.applied, found.stored.next_id);
        }
        // It is not gone on with: what was read may be in the page cache only, and what is behind it
        // may be left of a write that was not finished.
        Ok((journal, Some(found)))
    }

    /// One that has nothing.
    pub(super) fn new(files: Arc<dyn FileLayer>, path: &Path, sizes: Sizes) -> Journal {
        Journal {
            files,
            path: path.to_path_buf(),
            sizes,
            file: None,
            end: 0,
            allocated: 0,
            made_anew: 0,
            key: Key::NONE,
            applied: Lsn::default(),
            next_id: 0,
        }
    }

    /// Whether it has anything; if not, it is to be told all with [`Self::replace`].
    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Takes it for what it does not have.
    pub(super) fn give_up(&mut self) {
        (self.file, self.end) = (None, 0);
    }

    /// Writes changes, and makes them durable.
    ///
    /// # Errors
    /// The disk says no: it is as it was before.
    pub(super) fn append(
        &mut self,
        changes: &[DefinitionChange],
        applied: Lsn,
        next_id: u64,
    ) -> io::Result<()> {
        let due = self.sizes.compact_above_bytes.max(2 * self.made_anew);
        let Some(file) = self.file.clone().filter(|_| self.end < due) else {
            let latest = self.read()?;
            return self.write_anew(&latest, changes, applied, next_id);
        };
        let sizes = changes
            .iter()
            .map(|c| c.key.len() + c.value.as_ref().map_or(0, Vec::len) + CHANGE_EXTRA);
        let len: usize = sizes.sum();
        let records = len / RECORD_BYTES + 1;
        let needed = self.end + (len + records * RECORD_EXTRA) as u64;
        if needed > self.allocated {
            let room =
                needed.next_multiple_of(self.sizes.allocate_bytes) + self.sizes.allocate_bytes;
            file.allocate(room)?;
            self.allocated = room;
        }
        // What fails from here on has lost the file.
        self.file = None;
        let mut writer = Writer {
            file: file.as_ref(),
            key: self.key,
            at: self.end,
            applied: self.applied,
            next_id: self.next_id,
            changes: Vec::new(),
        };
        writer.put_all(changes)?;
        (writer.applied, writer.next_id) = (applied, next_id);
        writer.write()?;
        let end = writer.at;
        file.sync_data()?;
        (self.end, self.applied, self.next_id) = (end, applied, next_id);
        self.file = Some(file);
        Ok(())
    }

    /// Everything that is in it.
    ///
    /// # Errors
    /// The disk says no, or it is damaged since it was written.
    pub(super) fn read(&self) -> io::Result<Stored> {
        if self.end == 0 {
            return Ok(Stored::default());
        }
        let bytes = whole(self.files.open(&self.path)?.as_ref(), self.end)?;
        let (end, found) = read(&bytes).map_err(io::Error::other)?;
        if end as u64 == self.end {
            return Ok(found.stored);
        }
        let shown = self.path.display();
        let what = format!("{shown}: checksum mismatch at byte {end}");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Makes it one of all this.
    ///
    /// # Errors
    /// The disk says no.
    pub(super) fn replace(&mut self, all: &Stored) -> io::Result<()> {
        self.write_anew(all, &[], all.applied, all.next_id)
    }

    /// Writes it all to a new file, and puts that in place of this one.
    fn write_anew(
        &mut self,
        latest: &Stored,
        changes: &[DefinitionChange],
        applied: Lsn,
        next_id: u64,
    ) -> io::Result<()> {
        let tmp = tmp(&self.path);
        let key = Key::new(self.files.as_ref())?;
        let written = (|| {
            let file = self.files.open(&tmp)?;
            file.truncate(0)?;
            let mut writer = Writer {
                file: file.as_ref(),
                key,
                at: 0,
                applied: Lsn::default(),
                next_id: 0,
                changes: Vec::new(),
            };
            for ((kind, key), value) in &latest.definitions {
                writer.put(*kind, key, Some(value))?;
            }
            writer.put_all(changes)?;
            (writer.applied, writer.next_id) = (applied, next_id);
            writer.write()?;
            let end = writer.at;
            let room = end.next_multiple_of(self.sizes.allocate_bytes) + self.sizes.allocate_bytes;
            file.allocate(room)?;
            file.sync_data()?;
            self.files.rename(&tmp, &self.path)?;
            Ok((file, end, room))
        })();
        let (file, end, room) = match written {
            Ok(written) => written,
            Err(e) => {
                // It takes room on a disk that may be full.
                let _ = self.files.remove(&tmp);
                return Err(e);
            }
        };
        // Whichever of the two files a power cut leaves here is one that checks; but the older one must not be
        // believed to have what only the new one has.
        (self.file, self.end, self.made_anew) = (None, end, end);
        if let Some(dir) = self.path.parent() {
            self.files.sync_dir(dir)?;
        }
        (self.applied, self.next_id, self.allocated) = (applied, next_id, room);
        (self.file, self.key) = (Some(file), key);
        Ok(())
    }
}

/// What was written to a file of this length: not the room behind it, which may be a hole of any size.
fn written(file: &dyn LogFile, len: u64) -> io::Result<Vec<u8>> {
    let end = len.min(JOURNAL_BYTES_MAX);
    let mut bytes = Vec::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    while let Some(from) = file.data_from(at).filter(|from| *from < end) {
        let most = (end - from).min(BLOCK_BYTES as u64) as usize;
        let n = file.read_at(&mut block[..most], from)?;
        if n == 0 {
            break;
        }
        if block[..n].iter().any(|b| *b != 0) {
            lengthen(&mut bytes, from as usize)?;
            bytes.try_reserve(n).map_err(io::Error::other)?;
            bytes.extend_from_slice(&block[..n]);
        }
        at = from + n as u64;
    }
    let zeros = (end as usize).min(bytes.len().saturating_add(ZEROS_MAX));
    lengthen(&mut bytes, zeros)?;
    Ok(bytes)
}

/// Makes it this long, with zeros.
fn lengthen(bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve(more).map_err(io::Error::other)?;
    bytes.resize(len.max(bytes.len()), 0);
    Ok(())
}

fn whole(file: &dyn LogFile, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(io::Error::other)?;
    bytes.resize(len, 0);
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
