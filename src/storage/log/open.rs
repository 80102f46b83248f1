//! Files of segments, open while they are used: a backlog may have more segments than the process may have
//! descriptors.
//!
//! A [`SegmentFile`] is one file, whatever stands in its place later: who looked up where something is in it
//! reads that from no other. So the file that a rewrite takes the place of stays open until nobody knows it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::UNPOISONED;
use super::damage::is_of_the_process;
use crate::storage::files::{FileLayer, LogFile};

/// Files of sealed segments that stay open between two uses: the descriptors that a backlog takes, however
/// large it is. Connections leave 64 to all that opens files.
pub(super) const OPEN_SEGMENTS_MAX: usize = 32;

/// The file of a segment. See the module.
pub(super) struct SegmentFile {
    path: PathBuf,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    file: Option<Arc<dyn LogFile>>,
    /// So many want it to stay open: it is written to, or another file takes its place.
    holds: u32,
}

impl SegmentFile {
    /// A file that is there.
    pub(super) fn closed(path: &Path) -> Arc<SegmentFile> {
        Arc::new(SegmentFile {
            path: path.to_path_buf(),
            slot: Mutex::default(),
        })
    }

    /// A file that was just made: it is open until [`OpenSegments::release`].
    pub(super) fn held(path: &Path, file: Arc<dyn LogFile>) -> Arc<SegmentFile> {
        let made = SegmentFile::closed(path);
        made.hold(file);
        made
    }

    /// Keeps it open. `file` is what it was opened as.
    pub(super) fn hold(&self, file: Arc<dyn LogFile>) {
        let mut slot = self.lock();
        slot.file = Some(file);
        slot.holds += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().expect(UNPOISONED)
    }

    /// Closes it, once nobody reads it, unless somebody wants it to stay open.
    fn close(&self) {
        let mut slot = self.lock();
        if slot.holds == 0 {
            slot.file = None;
        }
    }
}

/// Those that are open although nobody needs them now, the one used last at the end.
#[derive(Default)]
pub(super) struct OpenSegments {
    used: Mutex<VecDeque<Arc<SegmentFile>>>,
}

impl OpenSegments {
    /// The open file, opened if it is not.
    ///
    /// # Errors
    /// The disk says no. What the process has run out of comes back here only when all that this keeps open
    /// is closed already.
    pub(super) fn get(
        &self,
        files: &dyn FileLayer,
        of: &Arc<SegmentFile>,
    ) -> io::Result<Arc<dyn LogFile>> {
        let opened = {
            let mut slot = of.lock();
            match &slot.file {
                Some(file) if slot.holds > 0 => return Ok(file.clone()),
                Some(file) => file.clone(),
                None => {
                    let file = self.with_room(|| files.open_existing(&of.path))?;
                    slot.file = Some(file.clone());
                    file
                }
            }
        };
        self.used(of);
        Ok(opened)
    }

    /// Does what needs a descriptor; if there is none, again without the files that are kept open.
    pub(super) fn with_room<T>(&self, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(e) if is_of_the_process(&e) && self.close_all() => act(),
            done => done,
        }
    }

    fn used(&self, it: &Arc<SegmentFile>) {
        let mut used = self.used.lock().expect(UNPOISONED);
        used.retain(|other| !Arc::ptr_eq(other, it));
        used.push_back(it.clone());
        let oldest = (used.len() > OPEN_SEGMENTS_MAX).then(|| used.pop_front());
        drop(used);
        if let Some(oldest) = oldest.flatten() {
            oldest.close();
        }
    }

    /// Nothing is written to it any more.
    pub(super) fn release(&self, it: &Arc<SegmentFile>) {
        let mut slot = it.lock();
        slot.holds = slot.holds.saturating_sub(1);
        drop(slot);
        self.used(it);
    }

    /// It was removed: its room comes back when it is closed. Or another file took its place: then it is held.
    pub(super) fn forget(&self, it: &Arc<SegmentFile>) {
        let mut used = self.used.lock().expect(UNPOISONED);
        used.retain(|other| !Arc::ptr_eq(other, it));
        drop(used);
        it.close();
    }

    /// Closes all that nobody needs now; false if there is none.
    pub(super) fn close_all(&self) -> bool {
        let used = std::mem::take(&mut *self.used.lock().expect(UNPOISONED));
        for it in &used {
            // One that is locked is being opened, by this thread perhaps.
            if let Ok(mut slot) = it.slot.try_lock()
                && slot.holds == 0
            {
                slot.file = None;
            }
        }
        !used.is_empty()
    }
}
