//! What a start has to know of the time: a line that is written over and over, in place.
//!
//! It is never synced: a process that ends leaves it in the page cache, and after a machine that ended it says only
//! that it was not earlier. What is half there has no checksum that fits, and counts as nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::kinds;

/// The file in the data folder.
const NAME: &str = "clock";

/// A line is shorter.
const LINE_MAX: u64 = 1024;

/// The file, open.
#[derive(Debug)]
pub struct LastTime(File);

impl LastTime {
    /// Opens it in a folder that this process has locked.
    ///
    /// # Errors
    /// Of the disk; or something else is there.
    pub fn open(data: &Path) -> io::Result<LastTime> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        kinds::open_here(&data.join(NAME), options.mode(0o600)).map(LastTime)
    }

    /// What it says.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read(&self) -> io::Result<String> {
        let mut octets = Vec::new();
        (&self.0).take(LINE_MAX).read_to_end(&mut octets)?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    /// Writes a line over what is there. What is behind it stays: who reads looks at the first line only.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(&self, line: &str) -> io::Result<()> {
        self.0.write_all_at(line.as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_line_is_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = LastTime::open(dir.path()).expect("made");
        assert_eq!(file.read().expect("read"), "");
        for line in ["long one\n", "short\n"] {
            file.write(line).expect("written");
        }
        let again = LastTime::open(dir.path()).expect("opened");
        let text = again.read().expect("read");
        assert_eq!(text.lines().next(), Some("short"));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let fifo = dir.path().join(NAME);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o600.into(), 0).expect("a FIFO");
        assert!(LastTime::open(dir.path()).is_err());
        std::fs::remove_file(&fifo).expect("removed");
        std::fs::create_dir(&fifo).expect("a folder");
        assert!(LastTime::open(dir.path()).is_err());
    }
}
