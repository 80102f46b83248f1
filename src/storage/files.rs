//! The few file operations the log needs, as a trait, so that tests can lose power.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};

use super::kinds;

/// Where a file is written before it takes its place: what is found there at a start is nothing.
pub(super) fn tmp(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Puts a file in place of another: all or nothing, if it is `synced` before. The folder is the caller's.
///
/// # Errors
/// The disk says no; the other one stays.
pub(super) fn replace(
    files: &dyn FileLayer,
    path: &Path,
    bytes: &[u8],
    synced: bool,
) -> io::Result<()> {
    let tmp = tmp(path);
    let written = (|| {
        let file = files.open(&tmp)?;
        file.truncate(0)?;
        file.write_at(bytes, 0)?;
        if synced {
            file.sync_data()?;
        }
        files.rename(&tmp, path)
    })();
    if written.is_err() {
        // It takes room on a disk that may be full.
        let _ = files.remove(&tmp);
    }
    written
}

/// Copies a file, but for its holes: it may be long by nothing else.
///
/// # Errors
/// What stands there is no file, or the disk says no.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    const BLOCK_BYTES: usize = 256 * 1024;
    let from = kinds::open_to_read(from)?;
    let to = File::create(to)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    while let Some(data) = from.data_from(at) {
        let n = LogFile::read_at(&from, &mut block, data)?;
        if n == 0 {
            break;
        }
        LogFile::write_at(&to, &block[..n], data)?;
        at = data + n as u64;
    }
    LogFile::truncate(&to, LogFile::len(&from)?)
}

/// So many octets at the end of a file may be a hole in it and be read all the same, as zeros. One that is longer was
/// made by who wrote nothing to it.
const ZEROS_AT_THE_END_MAX: u64 = 32 << 20;

/// All that is in a file, if that may be: no more than `most` octets. Memory is taken for what was written, not for
/// what the file's length says.
pub(super) fn whole(file: &dyn LogFile, most: u64) -> io::Result<Option<Vec<u8>>> {
    const BLOCK_BYTES: u64 = 1 << 20;
    let len = file.len()?;
    if len > most {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    loop {
        let at = bytes.len() as u64;
        let data = file.data_from(at).map_or(len, |data| data.min(len));
        let end = (data + BLOCK_BYTES).min(len);
        if data == len && len - at > ZEROS_AT_THE_END_MAX {
            return Ok(None);
        }
        let more = usize::try_from(end - at).map_err(io::Error::other)?;
        bytes.try_reserve(more).map_err(io::Error::other)?;
        bytes.resize(data as usize, 0);
        if data == len {
            return Ok(Some(bytes));
        }
        bytes.resize(end as usize, 0);
        let n = file.read_at(&mut bytes[data as usize..], data)?;
        if n < (end - data) as usize {
            // It is shorter than it was.
            bytes.truncate(data as usize + n);
            return Ok(Some(bytes));
        }
    }
}

/// An open file, read and written at positions.
pub trait LogFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `into` from `offset`, or as much as the file has; returns how much.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// What was written survives a power cut afterwards.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Where the first bytes at or behind `offset` are that are not a hole in the file, as far as can be said;
    /// `None`: there are none. A file may be made long by who writes nothing to it.
    fn data_from(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
    /// Reserves room on the disk up to `len`, and makes the file that long. False if the file system
    /// cannot reserve any: then the file is that long, and it is a write that meets a full disk.
    fn allocate(&self, len: u64) -> io::Result<bool>;
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Nobody will read it soon: memory need not keep what the disk has. A hint.
    fn forget(&self);
}

/// A folder of files.
pub trait FileLayer: Send + Sync {
    /// Opens a file for reading and writing, creating it if it is not there, readable by its owner
    /// only. What stands there and is no file is an error: see [`kinds::is_no_file`].
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Opens a file for reading, and for writing if that may be; `NotFound` if it is not there.
    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Renames a file; durable after [`Self::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after [`Self::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The files in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// What was created, renamed and removed in the folder survives a power cut afterwards.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that the disk has free for us.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Octets that nobody can guess.
    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        getrandom::fill(into).map_err(io::Error::other)
    }
    /// Waits so long before a disk is asked again that has refused something.
    fn pause(&self, how_long: Duration) {
        std::thread::park_timeout(how_long);
    }
}

/// The real thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl LogFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut n = 0;
        while n < into.len() {
            match FileExt::read_at(self, &mut into[n..], offset + n as u64) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn data_from(&self, offset: u64) -> Option<u64> {
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Some(at),
            Err(Errno::NXIO) => None,
            // Where the file system does not say it, all of it may be data.
            Err(_) => Some(offset),
        }
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        let flags = FallocateFlags::empty();
        let outcome = retry_on_intr(|| rustix::fs::fallocate(self, flags, 0, len));
        allocated(self, len, outcome)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn forget(&self) {
        // Where the kernel does not listen, it keeps the pages, as it would have.
        let _ = rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// What comes of asking the file system to allocate.
fn allocated(file: &File, len: u64, outcome: Result<(), Errno>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        // ext2, ext3, NFS before 4.2, many of FUSE.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            if file.metadata()?.len() < len {
                file.set_len(len)?;
            }
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether a file is there that may only be read: its mode, its owner, the file system.
fn is_not_to_be_written(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

impl FileLayer for Disk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Arc::new(kinds::open(path, options.mode(0o600))?))
    }

    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut options = OpenOptions::new();
        let file = match kinds::open(path, options.read(true).write(true)) {
            // Whoever may not write may be able to read: messages are not lost by that.
            Err(e) if is_not_to_be_written(&e) => kinds::open_to_read(path).map_err(|_| e)?,
            opened => opened?,
        };
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_length_where_no_room_can_be_reserved() {
        let file = tempfile::tempfile().expect("a file");
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(!allocated(&file, 5000, Err(errno)).expect("its length"));
            assert_eq!(LogFile::len(&file).expect("a length"), 5000);
        }
        // Never shorter than it is.
        assert!(!allocated(&file, 10, Err(Errno::OPNOTSUPP)).expect("its length"));
        assert_eq!(LogFile::len(&file).expect("a length"), 5000);
        let full = allocated(&file, 9000, Err(Errno::NOSPC)).expect_err("no room");
        assert_eq!(full.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    }

    #[test]
    fn a_file_is_read_whole_if_it_may_be_that_long() {
        let file = tempfile::tempfile().expect("a file");
        let read = |most| whole(&file, most).expect("read");
        assert_eq!(read(0), Some(Vec::new()));
        let mut all = vec![0; 5 << 20];
        all[3 << 20..].fill(7);
        file.write_all_at(&all[3 << 20..], 3 << 20)
            .expect("written");
        assert!(read(5 << 20).as_ref() == Some(&all), "with its hole");
        assert_eq!(read((5 << 20) - 1), None);
        file.set_len(6 << 20).expect("longer");
        all.resize(6 << 20, 0);
        assert!(read(u64::MAX) == Some(all), "with a hole at its end");
        file.set_len(1 << 40).expect("longer");
        assert_eq!(read(u64::MAX), None);
    }
}
