//! The second copy of the definitions in the simulation, in the place of sled: it keeps its first error until
//! it is opened again, and what was written last may or may not be there after a crash.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::random;
use super::disk::{End, SimDisk};
use crate::broker::ports::{DefinitionChange, Lsn};
use crate::storage::definitions::{Stored, Table, Tables, apply};

#[derive(Default)]
struct State {
    /// What it was since it was last synced, the first one when it was.
    states: Vec<Arc<Stored>>,
    openings: u32,
    damaged: bool,
}

/// See the module.
pub(super) struct SimTables {
    disk: SimDisk,
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

struct SimTable {
    disk: SimDisk,
    state: Arc<Mutex<State>>,
    broken: AtomicBool,
}

fn copy(s: &Stored) -> Stored {
    Stored {
        definitions: s.definitions.clone(),
        applied: s.applied,
        next_id: s.next_id,
        may_be_behind: false,
    }
}

impl State {
    fn latest(&self) -> Stored {
        self.states.last().map_or_else(Stored::default, |s| copy(s))
    }
}

impl SimTables {
    pub(super) fn new(disk: SimDisk, dir: &Path) -> SimTables {
        SimTables {
            disk,
            path: dir.join("definitions"),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a lock")
    }

    /// A life is over.
    pub(super) fn end(&self, end: End, seed: &mut u64) {
        let mut state = self.state();
        if end == End::Power && !state.states.is_empty() {
            let n = random(seed) as usize % state.states.len();
            state.states.truncate(n + 1);
            let last = state.states.pop();
            state.states = last.into_iter().collect();
        }
    }

    /// It can not be opened any more.
    pub(super) fn damage(&self) {
        self.state().damaged = true;
    }
}

impl SimTable {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(io::Error::other("it has failed before")),
            false => Ok(self.state.lock().expect("a lock")),
        }
    }

    fn call(&self, what: &str) -> io::Result<()> {
        drop(self.state()?);
        let called = self.disk.table(what);
        if called.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        called
    }
}

impl Table for SimTable {
    fn position(&self) -> io::Result<(Lsn, u64)> {
        let latest = self.state()?.latest();
        Ok((latest.applied, latest.next_id))
    }

    fn read(&self) -> io::Result<Stored> {
        Ok(self.state()?.latest())
    }

    fn differences(&self, wanted: &Stored) -> io::Result<Vec<DefinitionChange>> {
        let has = self.read()?.definitions;
        let gone = has
            .keys()
            .filter(|key| !wanted.definitions.contains_key(*key));
        let gone = gone.map(|key| (key, None));
        let new = wanted.definitions.iter();
        let new = new.filter(|(key, value)| has.get(*key) != Some(*value));
        let new = new.map(|(key, value)| (key, Some(value.clone())));
        let changes = gone
            .chain(new)
            .map(|((kind, key), value)| DefinitionChange {
                kind: *kind,
                key: key.clone(),
                value,
            });
        Ok(changes.collect())
    }

    fn write(&self, changes: &[DefinitionChange], applied: Lsn, next_id: u64) -> io::Result<()> {
        let mut now = self.read()?;
        for (n, change) in changes.iter().enumerate() {
            if n > 0 && n % 3 == 0 {
                self.call("batch")?;
                self.state()?.states.push(Arc::new(copy(&now)));
            }
            apply(&mut now, change.clone());
        }
        (now.applied, now.next_id) = (applied, next_id);
        self.call("batch")?;
        self.state()?.states.push(Arc::new(now));
        self.call("flush")?;
        let mut state = self.state()?;
        let last = state.states.len() - 1;
        state.states.drain(..last);
        Ok(())
    }
}

impl Tables for SimTables {
    fn path(&self) -> &Path {
        &self.path
    }

    fn begin(&self) -> u32 {
        let mut state = self.state();
        state.openings += 1;
        state.openings - 1
    }

    fn end(&self) {
        // A process that is no more does not come so far.
        if self.disk.off().is_none() {
            self.state().openings = 0;
        }
    }

    fn open(&self) -> io::Result<Box<dyn Table>> {
        self.disk.table("open")?;
        let mut state = self.state();
        if state.damaged {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if state.states.is_empty() {
            state.states.push(Arc::default());
        }
        Ok(Box::new(SimTable {
            disk: self.disk.clone(),
            state: self.state.clone(),
            broken: AtomicBool::new(false),
        }))
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        self.disk.table("set aside")?;
        *self.state() = State::default();
        Ok(self.path.with_extension("damaged"))
    }

    fn make_anew(&self, all: &Stored) -> io::Result<Box<dyn Table>> {
        self.disk.table("remove")?;
        let openings = self.state().openings;
        *self.state() = State {
            openings,
            ..State::default()
        };
        let table = self.open()?;
        let changes = table.differences(all)?;
        table.write(&changes, all.applied, all.next_id)?;
        Ok(table)
    }
}
