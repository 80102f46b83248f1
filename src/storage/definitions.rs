//! Definitions in sled: what the definition changes in the log add up to.
//!
//! Changes become durable in the log, with the same fdatasync as messages and in one order with them;
//! sled is where they are checkpointed, so that the log's segments may go. It keeps the log position
//! up to which it was brought, with the last of the changes: replay, which puts and removes, is exact.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::broker::ports::{Definition, DefinitionChange, DefinitionKind, Lsn};

/// sled's page cache: its default of 1 GiB is for other uses.
const CACHE_BYTES: u64 = 16 << 20;

/// Changes that sled gets at once. Of larger batches it keeps memory for ever, some 1 KB a change: five times
/// 100,000 values of 80 bytes under the same keys are 973 MiB in one batch each, 96 MiB in these.
const BATCH: usize = 512;

/// Key of what the store knows about itself; kinds are counted from one, so it is nobody's.
const STATE_KEY: [u8; 1] = [0];

/// The store.
pub(super) struct DefinitionStore {
    db: sled::Db,
    path: PathBuf,
}

/// What the store held when it was opened.
#[derive(Default)]
pub(super) struct Stored {
    /// Definitions by kind and key.
    pub(super) definitions: BTreeMap<(DefinitionKind, Vec<u8>), Vec<u8>>,
    /// Changes up to this log position are in it.
    pub(super) applied: Lsn,
    /// No message id at or above this was given out when it was last brought up to date.
    pub(super) next_id: u64,
}

fn io_error(e: sled::Error) -> io::Error {
    match e {
        sled::Error::Io(e) => e,
        other => io::Error::other(other.to_string()),
    }
}

impl DefinitionStore {
    pub(super) fn open(path: &Path) -> io::Result<(DefinitionStore, Stored)> {
        let config = sled::Config::default()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let db = config.open().map_err(io_error)?;
        let mut stored = Stored::default();
        for item in db.iter() {
            let (key, value) = item.map_err(io_error)?;
            match key.split_first() {
                Some((0, [])) if value.len() == 16 => {
                    let number =
                        |at: usize| value[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
                    (stored.applied, stored.next_id) = (Lsn(number(0)), number(8));
                }
                Some((kind, key)) => {
                    let name = (DefinitionKind::of(*kind), key.to_vec());
                    stored.definitions.insert(name, value.to_vec());
                }
                None => {}
            }
        }
        Ok((
            DefinitionStore {
                db,
                path: path.to_path_buf(),
            },
            stored,
        ))
    }

    /// Applies changes, notes that everything up to `applied` is in, and makes it durable.
    pub(super) fn checkpoint(
        &self,
        changes: &[DefinitionChange],
        applied: Lsn,
        next_id: u64,
    ) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (n, change) in changes.iter().enumerate() {
            if n > 0 && n % BATCH == 0 {
                // A crash in between is none: all is applied again, in its order, from the old position on.
                self.db
                    .apply_batch(std::mem::take(&mut batch))
                    .map_err(io_error)?;
            }
            let key = [&[change.kind.number()], change.key.as_slice()].concat();
            match &change.value {
                Some(value) => batch.insert(key, value.as_slice()),
                None => batch.remove(key),
            }
        }
        batch.insert(
            &STATE_KEY,
            [applied.0.to_be_bytes(), next_id.to_be_bytes()].concat(),
        );
        self.db.apply_batch(batch).map_err(io_error)?;
        self.db.flush().map_err(io_error)?;
        // sled 0.34 ends a flush with sync_file_range, which leaves the drive's cache alone.
        File::open(self.path.join("db"))?.sync_data()
    }
}

/// Applies a change to what was read.
pub(super) fn apply(to: &mut Stored, change: DefinitionChange) {
    match change.value {
        Some(value) => drop(to.definitions.insert((change.kind, change.key), value)),
        None => drop(to.definitions.remove(&(change.kind, change.key))),
    }
}

/// As a list, in key order per kind.
pub(super) fn list(stored: &Stored) -> Vec<Definition> {
    stored
        .definitions
        .iter()
        .map(|((kind, key), value)| (*kind, key.clone(), value.clone()))
        .collect()
}
