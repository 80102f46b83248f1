//! What is wrong with the log's files: what a start finds, how it is told, and what becomes of it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::storage::files::FileLayer;

use super::format::{PUBLISH_BYTES_MIN, SEGMENT_IDS_MAX};

/// What a start found wrong.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// What had been durable and is not there any more.
    pub holes: Vec<Hole>,
    /// Files that could not be read, and are left out under another name.
    pub set_aside: Vec<PathBuf>,
    /// One copy of the definitions was damaged, and of the other one it is not known whether it had all of it.
    pub definitions: bool,
}

impl Damage {
    /// Messages that stood in the holes, at most: some may have been settled.
    pub fn lost_messages(&self) -> u64 {
        self.holes.iter().filter_map(|hole| hole.messages).sum()
    }
}

/// A part of a segment, or of the notes beside it of what is settled, that is not what was written there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hole {
    /// The file.
    pub path: PathBuf,
    /// Where it starts.
    pub offset: u64,
    /// Bytes; zero if the file is shorter than it was.
    pub len: u64,
    /// Messages that stood there, at most: some may have been settled. `None`: not known.
    pub messages: Option<u64>,
}

impl Hole {
    /// By their ids so many messages stood there: not more than there is room for.
    pub(super) fn had(&mut self, messages: Option<u64>) {
        let room = match self.len {
            0 => SEGMENT_IDS_MAX,
            len => len / PUBLISH_BYTES_MIN,
        };
        self.messages = messages.map(|n| n.min(room));
    }

    pub(super) fn tell(&self) {
        let lost = match self.messages {
            Some(n) => format!("{n} messages at most"),
            None => "what was in it".to_string(),
        };
        tracing::error!(
            "{}: damaged at byte {}, {} bytes passed over; lost: {lost}",
            self.path.display(),
            self.offset,
            self.len
        );
    }
}

/// How the name ends of what is set aside.
pub(super) const ASIDE: &str = "unreadable";

/// What to do about a segment that is set aside.
pub(super) const WAY_OUT: &str = "its messages and definitions are missing, what is acknowledged in \
     it may come back; to have them again, stop the broker, make the file readable (a copy on a good \
     disk), give it its name back and start; to do without, remove it";

/// What a file is called that is set aside.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(ASIDE);
    name.into()
}

/// Tells of what an earlier start set aside.
pub(super) fn still_aside(path: &Path) {
    let (shown, was) = (path.display(), path.with_extension(""));
    if number_of(&was).is_some() {
        tracing::error!("{shown}: still set aside: {WAY_OUT}");
    } else if was.extension().is_some_and(|e| e == "settled") {
        tracing::error!("{shown}: still set aside: acknowledged messages may come back");
    } else {
        tracing::warn!("{shown}: still set aside: nothing is lost, it may be removed");
    }
}

/// Puts something aside whose place is needed, and which nothing is lost with.
pub(super) fn out_of_the_way(files: &dyn FileLayer, path: &Path) -> Option<PathBuf> {
    let aside = aside(path);
    match files.rename(path, &aside) {
        Ok(()) => {
            tracing::warn!(
                "{}: stood in the way, set aside as {}: nothing is lost, it may be removed",
                path.display(),
                aside.display()
            );
            Some(aside)
        }
        Err(e) => {
            tracing::warn!(
                "{}: stands in the way, and cannot be set aside ({e}); move it away",
                path.display()
            );
            None
        }
    }
}

/// Segments have numbers below this.
const NUMBER_MAX: u32 = 1 << 31;

/// The number of a segment by its file's name.
pub(super) fn number_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let number: u32 = name.strip_suffix(".segment")?.parse().ok()?;
    let own = format!("{number:010}.segment") == name;
    (own && (1..NUMBER_MAX).contains(&number)).then_some(number)
}

/// Whether this says nothing of the file: the process, or the machine, has run out of something.
pub(in crate::storage) fn is_of_the_process(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
    )
}

/// An error of the start, with the file that it is about and what to do.
pub(super) fn of(what: &str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let what = format!(
        "{what} {}; the broker must be able to read and write it; to start without it, move it away",
        path.display()
    );
    move |e| told(&what, &e)
}

pub(super) fn told(what: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{what}: {e}"))
}
