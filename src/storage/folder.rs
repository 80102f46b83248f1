//! The data folder: created, locked, checked.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::kinds;

/// Version of the folder's format. Since 2, frames of the log have a salt; since 3, records of the journal have a
/// key: an earlier Leveret would take such a journal for a damaged one, and an older sled for the definitions.
pub const FORMAT_VERSION: u32 = 3;

/// A folder of an earlier version than this, or of a later one than ours, is refused, not guessed at. One in
/// between is ours from the first start on.
const READ_FROM_VERSION: u32 = 1;

/// A data folder that this process owns until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

fn told(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// Why the folder cannot be locked.
fn not_locked(path: &Path, why: Errno) -> io::Error {
    let shown = path.display();
    io::Error::other(match why {
        Errno::WOULDBLOCK => format!("another broker uses the data folder {shown}"),
        Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL => format!(
            "the file system of the data folder {shown} has no file locks ({why}), so that two \
             brokers could use it at once; mount it with locks, or take a folder on another one"
        ),
        other => format!("cannot lock {shown}/lock: {other}"),
    })
}

/// What a file begins with: there is no more to a version. What is no file is not waited for.
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    const VERSION_BYTES_MAX: u64 = 1024;
    let file = kinds::open_to_read(path).map_err(no_file)?;
    let mut text = Vec::new();
    file.take(VERSION_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// What to do about what is no file.
fn no_file(e: io::Error) -> io::Error {
    match kinds::is_no_file(&e) {
        true => io::Error::other(format!("{e}; move it away")),
        false => e,
    }
}

/// Makes a folder, for its owner only, if nothing is there.
fn make(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.map_err(|e| match fs::symlink_metadata(dir) {
        Ok(_) => {
            let what = "what stands there is no folder; move it away, or mount what it leads to";
            let what = format!("cannot use {}: {what} ({e})", dir.display());
            io::Error::new(e.kind(), what)
        }
        Err(_) => told(format!("cannot create {}", dir.display()))(e),
    })
}

/// The version that a folder says it has; empty: none.
fn version(path: &Path) -> io::Result<String> {
    let file = path.join("version");
    match beginning(&file) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            // Zeros are what a crash leaves of a file that was being written.
            Ok(text
                .trim_matches(|c: char| c == '\0' || c.is_whitespace())
                .to_string())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(told(format!("cannot read {}", file.display()))(e)),
    }
}

/// Refuses a folder of a version that this program does not read.
fn refuse_other(path: &Path, text: &str) -> io::Result<()> {
    let mut ours = READ_FROM_VERSION..=FORMAT_VERSION;
    if text.is_empty() || ours.any(|v| v.to_string() == text) {
        return Ok(());
    }
    let start: String = text.chars().take(32).collect();
    Err(io::Error::other(format!(
        "{} says that the data folder has format version {start:?}; this Leveret reads versions \
         {READ_FROM_VERSION} to {FORMAT_VERSION}, and writes {FORMAT_VERSION}",
        path.join("version").display()
    )))
}

/// Checks the version of the folder's format, and notes it in a new folder.
fn check_version(path: &Path) -> io::Result<()> {
    let text = version(path)?;
    refuse_other(path, &text)?;
    if text == FORMAT_VERSION.to_string() {
        return Ok(());
    }
    // A new one, or an earlier one, whose Leveret must not read it any more; or one that lost power while its first version, which did so in place, was noted.
    let file = path.join("version");
    write_version(path).map_err(told(format!("cannot write {}", file.display())))
}

/// All of it is there after a crash, or nothing.
fn write_version(path: &Path) -> io::Result<()> {
    let tmp = path.join("version.tmp");
    kinds::make_way(&tmp)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&tmp)?;
    writeln!(file, "{FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&tmp, path.join("version"))?;
    File::open(path)?.sync_all()
}

impl Folder {
    /// Creates the folder if needed (for its owner only), locks it and checks its version.
    ///
    /// # Errors
    /// Another broker uses it, its format is of another version, or the disk says no.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let shown = path.display();
        make(path)?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let lock = kinds::open(&path.join("lock"), &options)
            .map_err(|e| told(format!("cannot open {shown}/lock"))(no_file(e)))?;
        let folder = Folder::locked(path, lock)?;
        check_version(path)?;
        make(&path.join("log"))?;
        let definitions = path.join("definitions");
        // What stands there and is no folder can be made anew of the journal, if that can be read.
        if fs::symlink_metadata(&definitions).is_err() {
            make(&definitions)?;
        }
        Ok(folder)
    }

    fn locked(path: &Path, lock: File) -> io::Result<Folder> {
        let flock = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        retry_on_intr(flock).map_err(|e| not_locked(path, e))?;
        Ok(Folder {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// Locks a folder that is there, and changes nothing in it.
    ///
    /// # Errors
    /// It is none, a broker uses it, its format is of another version, or the disk says no.
    pub fn lock(path: &Path) -> io::Result<Folder> {
        let lock = path.join("lock");
        let none = |e: io::Error| {
            let (shown, lock) = (path.display(), lock.display());
            told(format!("{shown} is no data folder: cannot open {lock}"))(no_file(e))
        };
        let folder = Folder::locked(path, kinds::open_to_read(&lock).map_err(none)?)?;
        let text = version(path)?;
        refuse_other(path, &text)?;
        match text.is_empty() {
            true => Err(io::Error::other(format!(
                "{} says no format version: the first start did not end",
                path.join("version").display()
            ))),
            false => Ok(folder),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_belongs_to_one_broker_and_to_its_owner() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data");
        let first = Folder::open(&path).expect("free");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o700
        );
        let second = Folder::open(&path).expect_err("locked");
        assert!(second.to_string().contains("another broker"));
        drop(first);
        Folder::open(&path).expect("free again");
    }

    #[test]
    fn another_format_version_is_refused() {
        for other in ["4\n", "0", "1.5", "01", "\u{fffd}\u{1b}[31m"] {
            let dir = tempfile::tempdir().expect("a folder");
            fs::write(dir.path().join("version"), other).expect("written");
            let refused = Folder::open(dir.path()).expect_err("refused").to_string();
            let shown = format!("format version {:?}", other.trim());
            assert!(refused.contains(&shown) && refused.contains("/version says"));
        }
    }

    #[test]
    fn a_version_that_was_being_written_or_an_earlier_one_is_written_again() {
        for (name, text) in [
            ("version", ""),
            ("version", "\n"),
            ("version", "\0\0"),
            ("version.tmp", ""),
            ("version", "1\n"),
            ("version", "2\n"),
        ] {
            let dir = tempfile::tempdir().expect("a folder");
            fs::write(dir.path().join(name), text).expect("written");
            drop(Folder::open(dir.path()).expect("opened"));
            let version = fs::read_to_string(dir.path().join("version"));
            assert_eq!(version.expect("there"), "3\n");
            assert!(!dir.path().join("version.tmp").exists());
        }
    }

    #[test]
    fn a_version_that_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let fifo = dir.path().join("version");
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        );
        made.expect("a FIFO");
        let refused = Folder::open(dir.path()).expect_err("refused").to_string();
        let says = "/version: it is a FIFO, not a file; move it away";
        assert!(refused.contains(says), "{refused}");
    }

    #[test]
    fn a_file_system_without_locks_is_not_another_broker() {
        let path = Path::new("/data");
        for (errno, says) in [
            (Errno::WOULDBLOCK, "another broker"),
            (Errno::OPNOTSUPP, "no file locks"),
            (Errno::NOLCK, "no file locks"),
            (Errno::IO, "cannot lock /data/lock"),
        ] {
            let told = not_locked(path, errno).to_string();
            assert!(told.contains(says), "{told}");
        }
    }
}
