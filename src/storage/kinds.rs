//! What stands in the data folder and is of another kind than it should be: a folder, a FIFO, a socket, a device, a
//! symbolic link that leads nowhere. Nothing waits for it, nothing is read from it or written to it; what can be done
//! without goes aside, under a name that nothing else has.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Something that is no file stands where one should.
#[derive(Debug)]
struct NoFile(&'static str);

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}, not a file", self.0)
    }
}

impl std::error::Error for NoFile {}

/// Whether an error says that something else stands where a file should.
pub(super) fn is_no_file(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|e| e.is::<NoFile>())
}

fn name(kind: FileType) -> Option<&'static str> {
    match kind {
        k if k.is_file() => None,
        k if k.is_dir() => Some("a folder"),
        k if k.is_fifo() => Some("a FIFO"),
        k if k.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

/// What stands there, if it is no file.
pub(super) fn other_than_file(path: &Path) -> Option<&'static str> {
    match fs::metadata(path) {
        Ok(found) => name(found.file_type()),
        Err(_) => {
            let link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
            link.then_some("a symbolic link that leads nowhere")
        }
    }
}

/// What was opened, or tried to be, if it is a file.
fn checked(path: &Path, opened: io::Result<File>) -> io::Result<File> {
    let other = match &opened {
        Ok(file) => name(file.metadata()?.file_type()),
        Err(_) => other_than_file(path),
    };
    match other {
        Some(what) => Err(io::Error::other(NoFile(what))),
        None => opened,
    }
}

/// Opens a file. What is none is not waited for.
pub(super) fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    open_with(path, options, OFlags::empty())
}

/// Opens a file that stands here itself: a symbolic link is none.
pub(super) fn open_here(path: &Path, options: &OpenOptions) -> io::Result<File> {
    open_with(path, options, OFlags::NOFOLLOW)
}

fn open_with(path: &Path, options: &OpenOptions, flags: OFlags) -> io::Result<File> {
    let mut options = options.clone();
    options.custom_flags((flags | OFlags::NONBLOCK).bits() as i32);
    checked(path, options.open(path))
}

/// Opens a file to read it.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true))
}

/// Refuses a folder in which anything is neither a file of so many bytes at most nor a folder. That it is not there
/// is none.
pub(super) fn only_files(folder: &Path, bytes_max: u64) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !folder.is_dir() {
        return Err(io::Error::other("it is no folder"));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let refused = if entry.file_type()?.is_dir() {
            only_files(&path, bytes_max)?;
            None
        } else if let Some(what) = other_than_file(&path) {
            Some(NoFile(what).to_string())
        } else {
            let len = fs::metadata(&path)?.len();
            (len > bytes_max).then(|| format!("it has {len} bytes, somebody made it long"))
        };
        if let Some(why) = refused {
            let name = entry.file_name();
            return Err(io::Error::other(format!("{}: {why}", name.display())));
        }
    }
    Ok(())
}

/// Puts something aside, whatever it is, under a name that nothing has; returns that.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    for n in 1..=u32::MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{n}"));
        let aside = PathBuf::from(name);
        if fs::symlink_metadata(&aside).is_err() {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// What stands where a file is to be made, if that is none.
pub(super) fn in_the_way(path: &Path) -> Option<&'static str> {
    let found = fs::symlink_metadata(path).ok()?;
    match found.is_symlink() {
        true => Some("a symbolic link"),
        false => name(found.file_type()),
    }
}

/// Sees to it that a file can be made here: what stands in the way, and is none, goes aside, and that is told.
pub(super) fn make_way(path: &Path) -> io::Result<()> {
    let Some(what) = in_the_way(path) else {
        return Ok(());
    };
    let shown = path.display();
    let aside = put_aside(path).map_err(|e| {
        let what =
            format!("{shown} is {what}, not a file, and cannot be set aside ({e}); move it away");
        io::Error::new(e.kind(), what)
    })?;
    tracing::error!(
        "{shown}: it is {what}, not a file; set aside as {}, which may be removed: nothing is lost",
        aside.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("folder")).expect("made");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, 0o600.into(), 0).expect("made");
        std::os::unix::net::UnixListener::bind(path("socket")).expect("made");
        for (link, to) in [
            ("loop", "loop"),
            ("nowhere", "none"),
            ("device", "/dev/null"),
        ] {
            std::os::unix::fs::symlink(to, path(link)).expect("made");
        }
        fs::write(path("file"), "x").expect("written");
        std::os::unix::fs::symlink("file", path("link")).expect("made");
        for name in ["file", "link"] {
            open_to_read(&path(name)).expect("a file");
        }
        let none = open_to_read(&path("none")).expect_err("none");
        assert!(none.kind() == io::ErrorKind::NotFound && !is_no_file(&none));
        for name in ["folder", "fifo", "socket", "loop", "nowhere", "device"] {
            for write in [false, true] {
                let mut options = OpenOptions::new();
                let refused = open(&path(name), options.read(true).write(write));
                assert!(is_no_file(&refused.expect_err(name)), "{name}");
            }
            make_way(&path(name)).expect(name);
            make_way(&path(name)).expect("nothing there");
            let aside = path(&format!("{name}.damaged-1"));
            assert!(fs::symlink_metadata(aside).is_ok(), "{name}");
            assert!(fs::symlink_metadata(path(name)).is_err(), "{name}");
        }
    }
}
