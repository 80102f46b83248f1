//! Where durable means written: the files of segments with bytes that were not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{OpenFiles, UNPOISONED};
use crate::storage::files::LogFile;

/// See the module.
#[derive(Default)]
pub(super) struct Unsynced(Mutex<Files>);

#[derive(Default)]
struct Files {
    /// By segment, with the round in which they were last written.
    by_segment: BTreeMap<u32, (Arc<dyn LogFile>, u64)>,
    rounds: u64,
}

impl Unsynced {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().expect(UNPOISONED)
    }

    /// These were written. Returns how many files there are now.
    pub(super) fn add(&self, files: &mut OpenFiles) -> usize {
        let mut all = self.lock();
        all.rounds += 1;
        let round = all.rounds;
        let files = std::mem::take(files).into_iter();
        all.by_segment
            .extend(files.map(|(number, file)| (number, (file, round))));
        all.by_segment.len()
    }

    /// A segment goes.
    pub(super) fn remove(&self, number: u32) {
        let removed = self.lock().by_segment.remove(&number);
        drop(removed);
    }

    /// Syncs all of them; returns how many. Two threads may: what one has begun to sync is not synced for the
    /// other until it is.
    ///
    /// # Errors
    /// One could not be, which is final.
    pub(super) fn sync(&self) -> io::Result<u64> {
        let files: Vec<_> = {
            let all = self.lock();
            let files = all.by_segment.iter();
            files
                .map(|(n, (file, at))| (*n, file.clone(), *at))
                .collect()
        };
        let n = files.len() as u64;
        for (number, file, written) in files {
            file.sync_data()?;
            let mut all = self.lock();
            if all
                .by_segment
                .get(&number)
                .is_some_and(|(_, at)| *at == written)
            {
                all.by_segment.remove(&number);
            }
        }
        Ok(n)
    }
}
