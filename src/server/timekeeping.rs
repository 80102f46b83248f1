//! What one life leaves to the next of the time. See [`crate::clock`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{self, Note};
use crate::storage::LastTime;

/// How often it is noted how late it is: so much longer may something live that expires, over a restart of a machine whose
/// clock has gone back.
pub(super) const NOTE_INTERVAL: Duration = Duration::from_secs(10);

/// The file, and whether it was told that it cannot be written.
#[derive(Debug)]
pub(super) struct Timekeeper {
    file: Option<LastTime>,
    told: AtomicBool,
}

impl Timekeeper {
    /// Goes on from where the life before is now. The folder is locked, and nobody has asked for the time yet.
    pub(super) fn carry_on(data: &Path) -> Timekeeper {
        let shown = data.join("clock");
        let opened = LastTime::open(data).and_then(|file| Ok((file.read()?, file)));
        let (line, file) = match opened {
            Ok((line, file)) => (line, Some(file)),
            Err(error) => {
                let file = shown.display();
                tracing::warn!(%error, "cannot use {file}: expirations and delays go by the wall clock of the start");
                (String::new(), None)
            }
        };
        let before = Note::read(&line);
        if before.is_none() && !line.is_empty() {
            let file = shown.display();
            tracing::warn!(
                "{file} is damaged: expirations and delays go by the wall clock of the start"
            );
        }
        clock::carry_on(before.as_ref());
        let keeper = Timekeeper {
            file,
            told: AtomicBool::new(false),
        };
        keeper.note();
        keeper
    }

    /// Notes how late it is.
    pub(super) fn note(&self) {
        let Some(file) = &self.file else {
            return;
        };
        match file.write(&clock::note().line()) {
            Ok(()) => self.told.store(false, Ordering::Relaxed),
            Err(error) if !self.told.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "cannot note the time in the data folder; it will be tried again");
            }
            Err(_) => {}
        }
    }
}
