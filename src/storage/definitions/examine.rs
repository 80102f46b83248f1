//! Looking at both copies of the definitions without changing either.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::{Journal, Sizes, is_of_another_version};
use super::tree::Trees;
use super::{Stored, Tables, is_of_the_process};
use crate::broker::ports::Lsn;
use crate::storage::files::FileLayer;

/// What a copy of the definitions is worth.
pub(in crate::storage) enum Copy {
    Good,
    /// It is not there: a start makes it of the other one.
    Missing,
    /// The other one is good.
    Damaged(String),
    /// The other one is good, and may be behind.
    Unsure(String),
}

/// What both copies come to, and what each is worth. `tree`: what stands for the folder of sled, if that is there,
/// or why nothing does.
///
/// # Errors
/// Neither can be read, or the journal is of another version.
pub(in crate::storage) fn examine(
    files: Arc<dyn FileLayer>,
    dir: &Path,
    tree: Result<Option<&Path>, String>,
) -> io::Result<(Stored, Vec<(PathBuf, Copy)>)> {
    let (path, folder) = (dir.join("definitions.journal"), dir.join("definitions"));
    let journal = match Journal::open(files, &path, Sizes::default()) {
        Ok((_, None)) => None,
        Ok((_, Some(found))) if !found.damaged => Some(Ok(found.stored)),
        Ok((_, Some(found))) => {
            let why = "checksum mismatch".to_string();
            Some(Err((why, found.stored.applied, found.reaches)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) if is_of_the_process(&e) => return Err(e),
        Err(e) if is_of_another_version(&e) => {
            return Err(io::Error::other(format!("{}: {e}", path.display())));
        }
        Err(e) => Some(Err((e.to_string(), Lsn::default(), None))),
    };
    let opened = match tree {
        Ok(None) => Err(None),
        Ok(Some(copy)) => match Trees(copy.to_path_buf())
            .open()
            .and_then(|tree| Ok((tree.read()?, tree)))
        {
            Err(e) if is_of_the_process(&e) => return Err(e),
            read => read.map_err(|e| Some(e.to_string())),
        },
        Err(why) => Err(Some(why)),
    };
    let not_there = "it is not there";
    let neither = |journal: &str, tree: Option<String>| {
        let tree = tree.as_deref().unwrap_or(not_there);
        let what = format!(
            "the definitions can be read neither from {} ({journal}) nor from {} ({tree})",
            path.display(),
            folder.display()
        );
        io::Error::other(what)
    };
    let (stored, journal, tree) = match (journal, opened) {
        (None, Ok((stored, _))) => (stored, Copy::Missing, Copy::Good),
        (None, Err(why)) => return Err(neither(not_there, why)),
        (Some(Err((why, applied, reaches))), Ok((stored, _))) if stored.applied > applied => {
            let worth = match reaches.is_none_or(|end| stored.applied < end) {
                true => Copy::Unsure(why),
                false => Copy::Damaged(why),
            };
            (stored, worth, Copy::Good)
        }
        (Some(Err((why, ..))), Ok(_)) => {
            return Err(neither(&why, Some("it is older".to_string())));
        }
        (Some(Err((journal, ..))), Err(tree)) => return Err(neither(&journal, tree)),
        (Some(Ok(stored)), Err(None)) => (stored, Copy::Good, Copy::Missing),
        (Some(Ok(stored)), Err(Some(why))) => (stored, Copy::Good, Copy::Damaged(why)),
        (Some(Ok(stored)), Ok((other, _))) if other.applied > stored.applied => {
            let why = "it has lost its end".to_string();
            (other, Copy::Damaged(why), Copy::Good)
        }
        (Some(Ok(stored)), Ok((other, tree))) => {
            // One that is behind is brought up to date by a start: that is no damage.
            let differ = other.applied == stored.applied && !tree.differences(&stored)?.is_empty();
            let copy = match differ {
                _ if other.applied == Lsn::default() && stored.applied > other.applied => {
                    Copy::Damaged("it is empty".to_string())
                }
                true => Copy::Damaged("not all in it is as it was written".to_string()),
                false => Copy::Good,
            };
            (stored, Copy::Good, copy)
        }
    };
    Ok((stored, vec![(path, journal), (folder, tree)]))
}

/// Opens a copy of sled's folder and reads it.
pub(in crate::storage) fn probe(copy: &Path) -> io::Result<()> {
    Trees(copy.to_path_buf()).open()?.read().map(drop)
}
