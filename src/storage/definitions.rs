//! Definitions: what the definition changes in the log add up to, twice.
//!
//! Changes become durable in the log, with the same fdatasync as messages and in one order with them.
//! They are checkpointed, so that the log's segments may go: first in a journal, whose every record has a
//! checksum, then in sled. Both keep the log position up to which they were brought, with the last of the
//! changes: replay, which puts and removes, is exact. Either is made anew of the other: sled after any error,
//! as it keeps its first one for ever, without a restart.

mod examine;
mod journal;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) use self::examine::{Copy, examine, probe};
pub(super) use self::journal::Sizes;
use self::journal::{Found, Journal};
use self::tree::Trees;
use super::files::{FileLayer, tmp};
use super::kinds;
use crate::broker::ports::{Definition, DefinitionChange, DefinitionKind, Lsn};

/// With a journal that cannot be read, too, sled's folder is tried so often: whoever stopped the broker in the
/// middle of a start did not damage it.
const OPENINGS_MAX: u32 = 3;

const UNPOISONED: &str = "a panic aborts the process";

/// The store.
pub(super) struct DefinitionStore {
    tables: Arc<dyn Tables>,
    copies: Mutex<Copies>,
}

struct Copies {
    journal: Journal,
    /// None: it is to be made anew.
    tree: Option<Box<dyn Table>>,
}

/// The second copy, open.
pub(super) trait Table: Send {
    /// The position it was brought to, and the first message id that was not given out by then.
    fn position(&self) -> io::Result<(Lsn, u64)>;
    /// Everything that is in it.
    fn read(&self) -> io::Result<Stored>;
    /// What has to change in it until it is this.
    fn differences(&self, wanted: &Stored) -> io::Result<Vec<DefinitionChange>>;
    /// Applies changes, notes that everything up to `applied` is in, and makes it durable.
    fn write(&self, changes: &[DefinitionChange], applied: Lsn, next_id: u64) -> io::Result<()>;
}

/// Where the second copy is kept: sled, in a folder. A trait, so that tests can do without.
pub(super) trait Tables: Send + Sync {
    /// The folder.
    fn path(&self) -> &Path;
    /// Notes that it is being opened; returns how many openings before this one did not end.
    fn begin(&self) -> u32;
    /// The opening has ended.
    fn end(&self);
    /// Opens it.
    fn open(&self) -> io::Result<Box<dyn Table>>;
    /// Puts a damaged one aside; returns where.
    fn set_aside(&self) -> io::Result<PathBuf>;
    /// A new one of all this, in place of what is there, which nobody has open any more.
    fn make_anew(&self, all: &Stored) -> io::Result<Box<dyn Table>>;
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
    /// It is of a copy of which nobody knows whether it has all that the other one had.
    pub(super) may_be_behind: bool,
}

/// Whether this says nothing of the files: somebody else has them, or the process has run out of something.
fn is_of_the_process(e: &io::Error) -> bool {
    super::log::is_of_the_process(e) || e.to_string().contains("could not acquire lock")
}

/// What to do when nothing has the definitions, or not all.
const RESTORE: &str = "restore both from a copy of the data folder";
const WAY_OUT: &str =
    "to start without any definition, and with that without the messages, remove both";

impl DefinitionStore {
    /// Opens the store in a data folder.
    ///
    /// # Errors
    /// Neither copy can be read, the journal is of another version, or the process has run out of something. Damage of one is none: it is
    /// reported, and made good.
    pub(super) fn open(
        files: Arc<dyn FileLayer>,
        dir: &Path,
    ) -> io::Result<(DefinitionStore, Stored)> {
        let trees = Arc::new(Trees(dir.join("definitions")));
        DefinitionStore::open_with(files, dir, trees, Sizes::default())
    }

    /// As [`Self::open`], with another second copy and a journal of other sizes.
    pub(super) fn open_with(
        files: Arc<dyn FileLayer>,
        dir: &Path,
        tables: Arc<dyn Tables>,
        sizes: Sizes,
    ) -> io::Result<(DefinitionStore, Stored)> {
        let journal_path = dir.join("definitions.journal");
        kinds::make_way(&tmp(&journal_path))?;
        let mut aside = None;
        let (journal, found) = match Journal::open(files.clone(), &journal_path, sizes) {
            Ok(opened) => opened,
            Err(e) if is_of_the_process(&e) => return Err(e),
            Err(e) if journal::is_of_another_version(&e) => {
                return Err(io::Error::other(format!("{}: {e}", journal_path.display())));
            }
            Err(e) => {
                tracing::error!("{}: {e}", journal_path.display());
                aside = kinds::is_no_file(&e).then_some(&journal_path);
                let damaged = Found {
                    stored: Stored::default(),
                    damaged: true,
                    unfinished: false,
                    reaches: None,
                };
                (Journal::new(files, &journal_path, sizes), Some(damaged))
            }
        };
        let unfinished = tables.begin();
        let opened = match found {
            Some(found) if !found.damaged => {
                Copies::with_journal(journal, found, tables.as_ref(), unfinished)
            }
            damaged => Copies::of_tree(journal, damaged, tables.as_ref(), unfinished),
        };
        tables.end();
        let (copies, stored) = opened?;
        if let Some(path) = aside {
            // Not before there is another copy: the next start must not take it for a new one.
            kinds::make_way(path)?;
        }
        let copies = Mutex::new(copies);
        Ok((DefinitionStore { tables, copies }, stored))
    }

    /// Whether both copies are as they should be.
    #[cfg(test)]
    pub(super) fn has_both(&self) -> bool {
        let copies = self.lock();
        copies.tree.is_some() && !copies.journal.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().expect(UNPOISONED)
    }

    /// Applies changes, notes that everything up to `applied` is in, and makes it durable.
    ///
    /// # Errors
    /// It is not durable, and may be tried again.
    pub(super) fn checkpoint(
        &self,
        changes: &[DefinitionChange],
        applied: Lsn,
        next_id: u64,
    ) -> io::Result<()> {
        let copies = &mut *self.lock();
        if copies.journal.is_empty() {
            // What is in sled is what was in the journal.
            let tree = copies.tree.as_ref();
            let tree = tree.ok_or_else(|| io::Error::other("neither copy can be read"))?;
            copies.journal.replace(&tree.read()?)?;
        }
        let written = copies.journal.append(changes, applied, next_id);
        if let Err(e) = written {
            if e.kind() == io::ErrorKind::InvalidData {
                copies.journal.give_up();
            }
            return Err(e);
        }
        // It is durable. What becomes of sled is for `mend`.
        if let Some(tree) = &copies.tree
            && let Err(e) = tree.write(changes, applied, next_id)
        {
            tracing::warn!(
                "{}: {e}; it will be made anew",
                self.tables.path().display()
            );
            copies.tree = None;
        }
        Ok(())
    }

    /// Makes one copy anew of the other, if it was given up.
    ///
    /// # Errors
    /// It cannot be; it may be tried again.
    pub(super) fn mend(&self) -> io::Result<()> {
        let copies = &mut *self.lock();
        match &copies.tree {
            Some(tree) if copies.journal.is_empty() => copies.journal.replace(&tree.read()?),
            Some(_) => Ok(()),
            None => {
                let all = copies.journal.read()?;
                copies.tree = Some(self.tables.make_anew(&all)?);
                tracing::info!("{}: made anew of the journal", self.tables.path().display());
                Ok(())
            }
        }
    }
}

impl Copies {
    /// With a journal that is as it was written, but perhaps for the end.
    fn with_journal(
        mut journal: Journal,
        found: Found,
        tables: &dyn Tables,
        unfinished: u32,
    ) -> io::Result<(Copies, Stored)> {
        let stored = found.stored;
        let shown = tables.path().display();
        let lost_end = || {
            if found.unfinished {
                tracing::error!(
                    "{shown}.journal: its last record does not check, and {shown} does not have it either. Unless \
                     the last process ended while it wrote it, what was defined last is lost: declare it again, \
                     or {RESTORE}"
                );
            }
        };
        let opened = match unfinished {
            0 => tables
                .open()
                .and_then(|tree| Ok((tree.position()?.0, tree))),
            _ => Err(io::Error::other("the last start ended while it was opened")),
        };
        let compared = opened.and_then(|(applied, tree)| {
            // Further on than what is written first: that has lost its end.
            let newer = (applied > stored.applied).then(|| tree.read());
            let changes = match newer {
                Some(_) => Vec::new(),
                None => tree.differences(&stored)?,
            };
            Ok((applied, tree, newer.transpose()?, changes))
        });
        let (applied, tree, newer, changes) = match compared {
            Ok(compared) => compared,
            Err(e) if is_of_the_process(&e) => return Err(e),
            Err(e) => {
                lost_end();
                match tables.set_aside() {
                    Ok(aside) => tracing::error!(
                        "{shown}: {e}; set aside as {}, and made anew of the journal: nothing is lost, it may be \
                         removed",
                        aside.display()
                    ),
                    Err(why) => tracing::error!("{shown}: {e}; it cannot be set aside: {why}"),
                }
                let tree = None;
                return Ok((Copies { journal, tree }, stored));
            }
        };
        if let Some(newer) = newer {
            tracing::error!("{shown}.journal has lost its end; it is made anew of {shown}");
            journal.give_up();
            let tree = Some(tree);
            return Ok((Copies { journal, tree }, newer));
        }
        if applied == Lsn::default() && stored.applied > applied && !found.unfinished {
            tracing::warn!("{shown}: it is empty, and made anew of the journal: nothing is lost");
        } else if applied < stored.applied {
            lost_end();
        } else if found.unfinished {
            tracing::warn!(
                "{shown}.journal: its last record was not finished; what it had is read from the log"
            );
        }
        if applied == stored.applied && changes.is_empty() {
            let tree = Some(tree);
            return Ok((Copies { journal, tree }, stored));
        }
        if applied == stored.applied {
            tracing::error!(
                "{shown}: damaged: {} definitions are not as they were written; they are taken from the journal",
                changes.len()
            );
        }
        let written = tree.write(&changes, stored.applied, stored.next_id);
        if let Err(e) = &written {
            tracing::warn!("{shown}: {e}; it will be made anew");
        }
        let tree = written.is_ok().then_some(tree);
        Ok((Copies { journal, tree }, stored))
    }

    /// Without a journal, or with a damaged one.
    fn of_tree(
        mut journal: Journal,
        damaged: Option<Found>,
        tables: &dyn Tables,
        unfinished: u32,
    ) -> io::Result<(Copies, Stored)> {
        journal.give_up();
        let shown = tables.path().display();
        let neither = |why: &str| {
            let what = format!(
                "the definitions can be read neither from {shown}.journal nor from {shown} ({why}); {RESTORE}; {WAY_OUT}"
            );
            io::Error::other(what)
        };
        if unfinished >= OPENINGS_MAX {
            return Err(neither("the last starts ended while it was opened"));
        }
        let opened = tables.open().and_then(|tree| Ok((tree.read()?, tree)));
        let (mut stored, tree) = opened.map_err(|e| match is_of_the_process(&e) {
            true => e,
            false => neither(&e.to_string()),
        })?;
        if let Some(damaged) = damaged {
            if stored.applied <= damaged.stored.applied {
                return Err(neither("it is older"));
            }
            stored.may_be_behind = damaged.reaches.is_none_or(|end| stored.applied < end);
            match stored.may_be_behind {
                true => tracing::error!(
                    "{shown}.journal is damaged; it is made anew of {shown}, which may be behind it: if so, what was \
                     defined last is lost: declare it again, or {RESTORE}"
                ),
                false => tracing::error!(
                    "{shown}.journal is damaged; it is made anew of {shown}: nothing is lost"
                ),
            }
        } else if stored.applied > Lsn::default() {
            tracing::warn!(
                "{shown}.journal is not there; it is made anew of {shown}: nothing is lost"
            );
        }
        let tree = Some(tree);
        Ok((Copies { journal, tree }, stored))
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
