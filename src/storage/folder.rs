//! The data folder: created, locked, checked.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;

/// Version of the folder's format. A folder with another one is refused, not guessed at.
pub const FORMAT_VERSION: u32 = 1;

/// A data folder that this process owns until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

fn told(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

impl Folder {
    /// Creates the folder if needed (for its owner only), locks it and checks its version.
    ///
    /// # Errors
    /// Another broker uses it, its format is of another version, or the disk says no.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let shown = path.display();
        for dir in [
            path.to_path_buf(),
            path.join("log"),
            path.join("definitions"),
        ] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder
                .create(&dir)
                .map_err(told(format!("cannot create {}", dir.display())))?;
        }
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let lock = options
            .open(path.join("lock"))
            .map_err(told(format!("cannot open {shown}/lock")))?;
        if !lock.try_lock_exclusive().unwrap_or(false) {
            return Err(io::Error::other(format!(
                "another broker uses the data folder {shown}"
            )));
        }
        let version_file = path.join("version");
        match fs::read_to_string(&version_file) {
            Ok(text) if text.trim() == FORMAT_VERSION.to_string() => {}
            Ok(text) => {
                return Err(io::Error::other(format!(
                    "the data folder {shown} has format version {}; this Leveret reads and writes version {FORMAT_VERSION}",
                    text.trim()
                )));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut options = OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&version_file)?;
                writeln!(file, "{FORMAT_VERSION}")?;
                file.sync_all()?;
                File::open(path)?.sync_all()?;
            }
            Err(e) => return Err(told(format!("cannot read {}", version_file.display()))(e)),
        }
        Ok(Folder {
            path: path.to_path_buf(),
            _lock: lock,
        })
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
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("version"), "2\n").expect("written");
        assert!(
            Folder::open(dir.path())
                .expect_err("refused")
                .to_string()
                .contains("format version 2")
        );
    }
}
