//! The disk of the simulation. What is written and not synced may be there after a power cut, sector by
//! sector; what is created, renamed and removed, too. Calls fail when a plan says so, and what else goes on
//! in the process may go on during any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use super::super::random;
use super::Trace;
use crate::storage::files::{FileLayer, LogFile};

pub(super) const EIO: i32 = 5;
pub(super) const EMFILE: i32 = 24;
pub(super) const ENOSPC: i32 = 28;

/// What is random, the same each time: who looks at the files knows it, too.
pub(super) const SALT: [u8; 8] = *b"seasalt.";

/// What a process may ask of a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    Open,
    /// Of a file that is there: under a lock of it, so nothing else goes on meanwhile.
    Reopen,
    Read,
    Write,
    Sync,
    Allocate,
    Truncate,
    Rename,
    Remove,
    SyncDir,
    /// One of the second copy of the definitions.
    Table,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// The machine goes down: what was not synced may be gone.
    Power,
    /// The process goes down: what it wrote is there.
    Process,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strike {
    Ends(End),
    Fails(i32),
}

/// For a while, one in so many of some calls fails.
#[derive(Clone, Debug)]
pub(super) struct Rain {
    pub(super) calls: Vec<Call>,
    pub(super) code: i32,
    pub(super) one_in: u64,
    pub(super) until: u64,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Behind so many calls that change something.
    pub(super) strike: Option<(u64, Strike)>,
    pub(super) rain: Option<Rain>,
    /// Up to this call there are no more bytes than that.
    pub(super) full: Option<(u64, u64)>,
    /// A file that cannot be read so often.
    pub(super) unreadable: Option<(PathBuf, u32)>,
    /// During one in so many calls something else happens; zero: none.
    pub(super) meanwhile: u64,
    /// A failed write or sync of a segment, which is the end of the log, may be among it.
    pub(super) final_too: bool,
}

impl Plan {
    pub(super) fn is_fine(&self) -> bool {
        self.strike.is_none()
            && self.rain.is_none()
            && self.full.is_none()
            && self.unreadable.is_none()
    }
}

/// What else goes on in the process.
pub(super) trait Meanwhile: Send + Sync {
    /// During a call; or while the disk is waited for.
    fn go_on(&self, waits: bool);
}

#[derive(Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written since the last sync.
    dirty: BTreeSet<usize>,
    /// The shortest that it was since then.
    least: usize,
}

#[derive(Clone)]
enum Change {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Change::Create(path, _) | Change::Rename(_, path, _) | Change::Remove(path) => path,
        }
    }

    fn make(self, entries: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Create(path, node) => drop(entries.insert(path, node)),
            Change::Remove(path) => drop(entries.remove(&path)),
            Change::Rename(from, to, node) => {
                if entries.get(&from) == Some(&node) {
                    entries.remove(&from);
                }
                entries.insert(to, node);
            }
        }
    }
}

/// Faults of a life, for the closing note.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) no_room: u64,
    pub(super) torn: u64,
    pub(super) lost_entries: u64,
}

struct Core {
    seed: u64,
    sector: usize,
    /// Changes of folders reach the disk in their order.
    in_order: bool,
    capacity: u64,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    inodes: Vec<Inode>,
    lives: u64,
    off: Option<End>,
    plan: Plan,
    counts: Counts,
}

struct Shared {
    core: Mutex<Core>,
    meanwhile: Mutex<Option<Weak<dyn Meanwhile>>>,
    trace: Trace,
}

/// See the module.
#[derive(Clone)]
pub(super) struct SimDisk(Arc<Shared>);

struct SimFile {
    path: PathBuf,
    node: usize,
    life: u64,
    disk: SimDisk,
}

fn short(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

impl Core {
    fn used(&self) -> u64 {
        let all = self.live.values();
        all.map(|node| self.inodes[*node].live.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        let limit = match self.plan.full {
            Some((until, limit)) if self.counts.calls < until => limit,
            _ => self.capacity,
        };
        limit.saturating_sub(self.used())
    }

    fn random(&mut self, n: u64) -> u64 {
        random(&mut self.seed) % n
    }

    /// What the plan says of this call.
    fn strikes(&mut self, call: Call, path: &Path) -> Option<Strike> {
        let calls = self.counts.calls;
        if let Some((name, left)) = &mut self.plan.unreadable
            && call == Call::Read
            && name == path
        {
            *left -= 1;
            if *left == 0 {
                self.plan.unreadable = None;
            }
            return Some(Strike::Fails(EIO));
        }
        if self.plan.full.is_some_and(|(until, _)| calls >= until) {
            self.plan.full = None;
        }
        if self.plan.rain.as_ref().is_some_and(|r| calls >= r.until) {
            self.plan.rain = None;
        }
        let is_final = matches!(call, Call::Write | Call::Sync)
            && path.extension().is_some_and(|e| e == "segment");
        let may = !is_final || self.plan.final_too;
        if let Some(rain) = self.plan.rain.clone()
            && rain.calls.contains(&call)
            && (may || rain.code == ENOSPC && call == Call::Write)
            && self.random(rain.one_in) == 0
        {
            return Some(Strike::Fails(rain.code));
        }
        if matches!(call, Call::Read | Call::Reopen) {
            return None;
        }
        match self.plan.strike {
            Some((0, strike)) if may || matches!(strike, Strike::Ends(_)) => {
                self.plan.strike = None;
                Some(strike)
            }
            Some((left, strike)) => {
                self.plan.strike = Some((left.saturating_sub(1), strike));
                None
            }
            None => None,
        }
    }

    fn write(&mut self, node: usize, bytes: &[u8], at: usize) {
        let inode = &mut self.inodes[node];
        let end = at + bytes.len();
        if inode.live.len() < end {
            inode.live.resize(end, 0);
        }
        inode.live[at..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            inode
                .dirty
                .extend(at / self.sector..=(end - 1) / self.sector);
        }
    }

    fn sync(&mut self, node: usize) {
        let sector = self.sector;
        let Inode {
            live,
            durable,
            dirty,
            least,
        } = &mut self.inodes[node];
        durable.truncate(*least);
        durable.resize(live.len(), 0);
        for at in std::mem::take(dirty) {
            let range = at * sector..((at + 1) * sector).min(live.len());
            if !range.is_empty() {
                durable[range.clone()].copy_from_slice(&live[range]);
            }
        }
        *least = live.len();
    }

    /// What is left of a file: each sector that was not synced is there, or is as it was.
    fn cut(&mut self, node: usize) {
        let sector = self.sector;
        let (long, how) = (self.random(2) == 0, self.random(5));
        let mut seed = self.seed;
        let inode = &mut self.inodes[node];
        let n = inode.dirty.len() as u64;
        let mut kept = std::mem::take(&mut inode.durable);
        if long {
            kept.truncate(inode.least);
            kept.resize(inode.live.len(), 0);
        }
        let some = random(&mut seed) % (n + 1);
        for (i, at) in std::mem::take(&mut inode.dirty).into_iter().enumerate() {
            let keeps = match how {
                0 => false,
                1 => true,
                2 => (i as u64) < some,
                3 => (i as u64) >= some,
                _ => random(&mut seed).is_multiple_of(2),
            };
            let range = at * sector..((at + 1) * sector).min(inode.live.len());
            let range = range.start..range.end.min(kept.len());
            if keeps && !range.is_empty() {
                kept[range.clone()].copy_from_slice(&inode.live[range]);
            }
        }
        inode.live = kept.clone();
        inode.least = kept.len();
        inode.durable = kept;
        self.seed = seed;
        self.counts.torn += u64::from(n > 0);
    }

    /// Which of the changes of folders are there that were not synced.
    fn cut_folders(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let first = self.random(changes.len() as u64 + 1);
        let how = self.random(3);
        for (i, change) in changes.into_iter().enumerate() {
            let there = match how {
                0 => true,
                1 if !self.in_order => self.random(2) == 0,
                _ => (i as u64) < first,
            };
            match there {
                true => change.make(&mut self.durable),
                false => self.counts.lost_entries += 1,
            }
        }
        self.live = self.durable.clone();
    }
}

impl SimDisk {
    pub(super) fn new(seed: u64, sector: usize, in_order: bool, trace: Trace) -> SimDisk {
        SimDisk(Arc::new(Shared {
            core: Mutex::new(Core {
                seed,
                sector,
                in_order,
                capacity: 4 << 20,
                live: BTreeMap::new(),
                durable: BTreeMap::new(),
                changes: Vec::new(),
                inodes: Vec::new(),
                lives: 0,
                off: None,
                plan: Plan::default(),
                counts: Counts::default(),
            }),
            meanwhile: Mutex::new(None),
            trace,
        }))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().expect("a lock")
    }

    pub(super) fn set_meanwhile(&self, meanwhile: Option<Weak<dyn Meanwhile>>) {
        *self.0.meanwhile.lock().expect("a lock") = meanwhile;
    }

    /// Changes the plan.
    pub(super) fn plan<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.core().plan)
    }

    pub(super) fn counts(&self) -> Counts {
        self.core().counts
    }

    pub(super) fn used(&self) -> u64 {
        self.core().used()
    }

    /// What ended the life, if anything did.
    pub(super) fn off(&self) -> Option<End> {
        self.core().off
    }

    fn go_on(&self, waits: bool) {
        let meanwhile = self.0.meanwhile.lock().expect("a lock").clone();
        if let Some(meanwhile) = meanwhile.and_then(|m| m.upgrade()) {
            meanwhile.go_on(waits);
        }
    }

    /// A call of a process of this life.
    fn call(&self, call: Call, path: &Path, life: u64) -> io::Result<MutexGuard<'_, Core>> {
        {
            let mut core = self.core();
            let one_in = core.plan.meanwhile;
            let may = one_in > 0 && core.off.is_none() && call != Call::Reopen;
            if may && core.random(one_in) == 0 {
                drop(core);
                self.go_on(false);
            }
        }
        let mut core = self.core();
        if core.off.is_some() || core.lives != life {
            return Err(io::Error::other("this process is no more"));
        }
        core.counts.calls += 1;
        match core.strikes(call, path) {
            None => Ok(core),
            Some(Strike::Ends(end)) => {
                core.off = Some(end);
                self.0
                    .trace
                    .say(|| format!("      {call:?} {}: END by {end:?}", short(path)));
                Err(io::Error::from_raw_os_error(EIO))
            }
            Some(Strike::Fails(code)) => {
                core.counts.failed += 1;
                self.0
                    .trace
                    .say(|| format!("      {call:?} {}: FAILS with {code}", short(path)));
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }

    /// A call of the second copy of the definitions.
    pub(super) fn table(&self, what: &str) -> io::Result<()> {
        let life = self.core().lives;
        drop(self.call(Call::Table, Path::new("definitions"), life)?);
        self.say(|| format!("table {what}"));
        Ok(())
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.0.trace.say(|| format!("      {}", what()));
    }

    /// The life is over; what a power cut leaves is there for the next one.
    pub(super) fn end(&self, end: End) {
        let mut core = self.core();
        core.lives += 1;
        core.off = None;
        core.plan = Plan::default();
        if end == End::Power {
            core.cut_folders();
            for node in core.live.values().copied().collect::<Vec<_>>() {
                core.cut(node);
            }
        }
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.core().live.keys().cloned().collect()
    }

    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        let core = self.core();
        let node = core.live.get(path);
        node.map_or_else(Vec::new, |node| core.inodes[*node].live.clone())
    }

    /// The medium has forgotten.
    pub(super) fn flip(&self, path: &Path, at: usize, bit: u8) {
        let mut core = self.core();
        let node = core.live[path];
        let inode = &mut core.inodes[node];
        inode.live[at] ^= 1 << bit;
        if let Some(byte) = inode.durable.get_mut(at) {
            *byte = inode.live[at];
        }
        self.say(|| format!("{} byte {at}: bit {bit} FLIPS", short(path)));
    }

    /// Somebody removes a file for good.
    pub(super) fn take_away(&self, path: &Path) {
        let mut core = self.core();
        core.live.remove(path);
        core.durable.remove(path);
    }

    fn file(&self, path: &Path, node: usize, life: u64) -> Arc<dyn LogFile> {
        Arc::new(SimFile {
            path: path.to_path_buf(),
            node,
            life,
            disk: self.clone(),
        })
    }

    fn no_room(&self, mut core: MutexGuard<'_, Core>, call: Call, path: &Path) -> io::Error {
        core.counts.no_room += 1;
        self.say(|| format!("{call:?} {}: NO ROOM", short(path)));
        io::Error::from_raw_os_error(ENOSPC)
    }
}

impl SimFile {
    fn call(&self, call: Call) -> io::Result<MutexGuard<'_, Core>> {
        self.disk.call(call, &self.path, self.life)
    }
}

impl LogFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (at, len) = (offset as usize, bytes.len());
        let core = self.call(Call::Write);
        let mut core = match core {
            Ok(core) => core,
            Err(e) => {
                let mut core = self.disk.core();
                if core.lives == self.life {
                    // Some of it was written.
                    let n = core.random(len as u64 + 1) as usize;
                    if (at + n).saturating_sub(core.inodes[self.node].live.len()) as u64
                        <= core.free()
                    {
                        core.write(self.node, &bytes[..n], at);
                    }
                }
                return Err(e);
            }
        };
        let has = core.inodes[self.node].live.len();
        if (at + len).saturating_sub(has) as u64 > core.free() {
            let fits = (has + core.free() as usize).saturating_sub(at).min(len);
            core.write(self.node, &bytes[..fits], at);
            return Err(self.disk.no_room(core, Call::Write, &self.path));
        }
        core.write(self.node, bytes, at);
        self.disk
            .say(|| format!("write {} {at}..{}", short(&self.path), at + len));
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let core = self.call(Call::Read)?;
        let live = &core.inodes[self.node].live;
        let from = (offset as usize).min(live.len());
        let n = into.len().min(live.len() - from);
        into[..n].copy_from_slice(&live[from..from + n]);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.call(Call::Sync) {
            Ok(mut core) => {
                core.sync(self.node);
                self.disk.say(|| format!("sync {}", short(&self.path)));
                Ok(())
            }
            Err(e) => {
                let mut core = self.disk.core();
                if core.lives == self.life && core.off.is_none() {
                    // Of what could not be written some is not there any more; or it is all still to be.
                    if core.random(2) == 0 {
                        core.cut(self.node);
                    }
                }
                Err(e)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.core().inodes[self.node].live.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        let mut core = self.call(Call::Allocate)?;
        let has = core.inodes[self.node].live.len() as u64;
        if len.saturating_sub(has) > core.free() {
            // It has given what it had.
            let some = core.free() / 2;
            core.inodes[self.node].live.resize((has + some) as usize, 0);
            return Err(self.disk.no_room(core, Call::Allocate, &self.path));
        }
        if len > has {
            core.inodes[self.node].live.resize(len as usize, 0);
        }
        self.disk
            .say(|| format!("allocate {} {len}", short(&self.path)));
        Ok(true)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut core = self.call(Call::Truncate)?;
        let sector = core.sector;
        let inode = &mut core.inodes[self.node];
        let len = (len as usize).min(inode.live.len());
        inode.live.truncate(len);
        inode.least = inode.least.min(len);
        inode.dirty.retain(|at| at * sector < len);
        self.disk
            .say(|| format!("truncate {} {len}", short(&self.path)));
        Ok(())
    }

    fn forget(&self) {}
}

impl FileLayer for SimDisk {
    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let life = self.core().lives;
        let core = self.call(Call::Reopen, path, life)?;
        let node = *core.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(path, node, life))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let life = self.core().lives;
        let mut core = self.call(Call::Open, path, life)?;
        let node = match core.live.get(path) {
            Some(node) => *node,
            None => {
                let node = core.inodes.len();
                core.inodes.push(Inode::default());
                core.live.insert(path.to_path_buf(), node);
                core.changes.push(Change::Create(path.to_path_buf(), node));
                self.say(|| format!("create {}", short(path)));
                node
            }
        };
        Ok(self.file(path, node, life))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let life = self.core().lives;
        let mut core = self.call(Call::Rename, to, life)?;
        let node = core.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        core.live.insert(to.to_path_buf(), node);
        let change = Change::Rename(from.to_path_buf(), to.to_path_buf(), node);
        core.changes.push(change);
        self.say(|| format!("rename {} to {}", short(from), short(to)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let life = self.core().lives;
        let mut core = self.call(Call::Remove, path, life)?;
        core.live.remove(path).ok_or(io::ErrorKind::NotFound)?;
        core.changes.push(Change::Remove(path.to_path_buf()));
        self.say(|| format!("remove {}", short(path)));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let core = self.core();
        let all = core.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(all.cloned().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let life = self.core().lives;
        let mut core = self.call(Call::SyncDir, dir, life)?;
        let all = std::mem::take(&mut core.changes);
        for change in all {
            match change.path().parent() == Some(dir) {
                true => change.make(&mut core.durable),
                false => core.changes.push(change),
            }
        }
        self.say(|| format!("sync folder {}", short(dir)));
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.core().free())
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&SALT);
        Ok(())
    }

    fn pause(&self, how_long: Duration) {
        self.say(|| format!("waits {how_long:?}"));
        self.core().counts.calls += 20;
        self.go_on(true);
    }
}
