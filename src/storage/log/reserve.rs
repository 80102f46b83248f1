//! Room on the disk that is kept for when there is no other.
//!
//! What is acknowledged gives room back once that is durable, so it takes room to make room: on a disk that is
//! really full nothing would ever move again. So a file of this size stands beside the log. When the log finds
//! no room, the file is removed, publishers are held back, and what was accepted and what is settled is
//! written where it was. When so much is free again, the file is made again, and publishing goes on.
//!
//! The room is free between the removal and the write that needs it: what else writes to the same disk may take
//! it, and then the log waits as without a reserve. So the data folder should have a disk of its own. A reserve
//! that is renamed into the file that needs room would have no such gap, but only one file could be it, where
//! a checkpoint, notes, a rewritten segment and the next one may all need some.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{UNPOISONED, trouble};
use crate::storage::files::FileLayer;

/// What has to be free beside it before it is made again, bytes.
const BESIDE_BYTES: u64 = 1 << 20;

/// See the module.
pub(super) struct Reserve {
    path: PathBuf,
    /// Zero: none is kept.
    bytes: u64,
    held: AtomicBool,
    /// Why it cannot be made, other than for want of room: what stands there is not ours, perhaps.
    refused: Mutex<Option<String>>,
}

impl Reserve {
    /// A reserve in this folder, which is not made yet.
    pub(super) fn new(dir: &Path, bytes: u64) -> Reserve {
        Reserve {
            path: dir.join("reserve"),
            bytes,
            held: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }

    /// Whether it was given away, or never made for want of room. Whatever else keeps it from being made says
    /// nothing of the room that there is.
    pub(super) fn is_missing(&self) -> bool {
        self.is_wanted() && self.refused.lock().expect(UNPOISONED).is_none()
    }

    fn is_wanted(&self) -> bool {
        self.bytes > 0 && !self.held.load(Ordering::Relaxed)
    }

    /// Bytes that are kept now.
    pub(super) fn held_bytes(&self) -> u64 {
        match self.held.load(Ordering::Relaxed) {
            true => self.bytes,
            false => 0,
        }
    }

    /// Makes it, if it is missing and there is room.
    pub(super) fn make(&self, files: &dyn FileLayer) {
        if !self.is_wanted() {
            return;
        }
        let refused = match self.try_make(files) {
            Ok(made) => {
                self.held.store(made, Ordering::Relaxed);
                None
            }
            Err(e) if trouble::is_no_room(&e) => {
                let _ = files.remove(&self.path);
                None
            }
            Err(e) => Some(e.to_string()),
        };
        let mut known = self.refused.lock().expect(UNPOISONED);
        let shown = self.path.display();
        match &refused {
            Some(why) if known.is_none() => tracing::warn!(
                "{shown}: room for when the disk is full cannot be kept there: {why}; it is tried again; what \
                 stands there and is not the broker's may be moved away"
            ),
            None if known.is_some() => tracing::info!("{shown}: can be made again"),
            _ => {}
        }
        *known = refused;
    }

    fn try_make(&self, files: &dyn FileLayer) -> io::Result<bool> {
        let file = files.open(&self.path)?;
        let has = file.len()?;
        let free = files.free_bytes(self.path.parent().unwrap_or(&self.path))?;
        if has < self.bytes && free < self.bytes.saturating_add(BESIDE_BYTES) {
            files.remove(&self.path)?;
            return Ok(false);
        }
        file.allocate(self.bytes)?;
        Ok(true)
    }

    /// Gives away what an earlier life has left of it; false if there is none.
    pub(super) fn give_left(&self, files: &dyn FileLayer) -> bool {
        files.remove(&self.path).is_ok()
    }

    /// Gives it away; false if there is none.
    pub(super) fn give(&self, files: &dyn FileLayer) -> bool {
        if !self.held.swap(false, Ordering::Relaxed) {
            return false;
        }
        tracing::warn!(
            "no room on the disk: the reserve of {} bytes is used, publishers are held back until there is",
            self.bytes
        );
        files.remove(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files::Disk;

    #[test]
    fn what_stands_in_its_place_says_nothing_of_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::new(dir.path(), 4096);
        assert!(reserve.is_missing());
        std::fs::create_dir(dir.path().join("reserve")).expect("made");
        reserve.make(&Disk);
        assert_eq!((reserve.is_missing(), reserve.held_bytes()), (false, 0));
        std::fs::remove_dir(dir.path().join("reserve")).expect("removed");
        reserve.make(&Disk);
        assert_eq!(reserve.held_bytes(), 4096);
        assert!(reserve.give(&Disk) && reserve.is_missing());
    }
}
