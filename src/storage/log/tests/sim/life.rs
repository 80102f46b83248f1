//! One life after the other of a log, step by step in one thread: what brokers do, rounds of the log thread,
//! passes and steps of the reclaiming thread, faults, ends and starts, as a seed says.

use std::sync::{Arc, Mutex, MutexGuard};

use super::super::*;
use super::check::{self, Back};
use super::damage::{self, Hit};
use super::disk::{Call, EIO, EMFILE, ENOSPC, End, Meanwhile, Plan, Rain, SimDisk, Strike};
use super::model::{Act, Cost, Draft, Model};
use super::table::SimTables;
use super::{Totals, Trace};
use crate::storage::definitions::{DefinitionStore, Sizes};

/// What may happen in the lives of a seed: few things at once meet what all at once hide.
#[derive(Clone, Copy, Debug)]
struct Swarm {
    strikes: bool,
    rain: bool,
    full: bool,
    damage: bool,
    unreadable: bool,
    /// What else goes on during one in so many calls.
    meanwhile: u64,
    ends: u64,
}

/// What changes while the log works.
struct Life {
    seed: u64,
    log: Option<Arc<SegmentedLog>>,
    writer: Option<writer::Writer>,
    reclaim: Option<reclaim::Reclaim>,
    model: Model,
    /// Something goes on meanwhile.
    busy: bool,
    failed: Option<String>,
    /// Nothing fails any more.
    calm: bool,
    /// Where the watermark was at the start.
    first: Lsn,
    cost: Cost,
    totals: Totals,
}

/// See the module.
pub(super) struct World {
    options: LogOptions,
    disk: SimDisk,
    tables: Arc<SimTables>,
    trace: Trace,
    swarm: Swarm,
    life: Mutex<Life>,
}

pub(super) fn shown(at: Lsn) -> String {
    format!("{}:{}", at.0 >> 32, at.0 & 0xffff_ffff)
}

impl World {
    pub(super) fn new(seed: u64, trace: &Trace) -> Arc<World> {
        let mut seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..4 {
            random(&mut seed);
        }
        let mut one_in = |n: u64| random(&mut seed).is_multiple_of(n);
        let swarm = Swarm {
            strikes: !one_in(3),
            rain: one_in(3),
            full: one_in(4),
            damage: one_in(3),
            unreadable: one_in(8),
            meanwhile: if one_in(3) { 0 } else { 6 },
            ends: if one_in(2) { 2 } else { 6 },
        };
        let sector = if one_in(2) { 64 } else { 512 };
        let in_order = one_in(2);
        let dir = PathBuf::from("/data");
        let options = LogOptions {
            segment_bytes: if one_in(3) { 2_000 } else { 5_000 },
            durability: match one_in(4) {
                true => Durability::Write,
                false => Durability::Fsync,
            },
            reserve_bytes: if one_in(2) { 16_000 } else { 0 },
            frame_bytes: if one_in(4) { 400 } else { format::FRAME_BYTES },
            ..LogOptions::new(&dir)
        };
        let model = Model::new(if one_in(2) { 60 } else { 600 }, one_in(4));
        trace.say(|| format!("{swarm:?}, {options:?}, sectors of {sector}"));
        let disk = SimDisk::new(random(&mut seed) | 1, sector, in_order, trace.clone());
        let tables = Arc::new(SimTables::new(disk.clone(), &dir));
        let world = Arc::new(World {
            options,
            disk,
            tables,
            trace: trace.clone(),
            swarm,
            life: Mutex::new(Life {
                seed,
                log: None,
                writer: None,
                reclaim: None,
                model,
                busy: false,
                failed: None,
                calm: false,
                first: Lsn::default(),
                cost: Cost::default(),
                totals: Totals::default(),
            }),
        });
        let meanwhile: Arc<dyn Meanwhile> = world.clone();
        world.disk.set_meanwhile(Some(Arc::downgrade(&meanwhile)));
        world
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("a lock")
    }

    fn random(&self, n: u64) -> u64 {
        random(&mut self.life().seed) % n
    }

    fn log(&self) -> Option<Arc<SegmentedLog>> {
        self.life().log.clone()
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.life().totals;
        totals.disk(&self.disk.counts());
        totals
    }

    /// The first start.
    pub(super) fn begin(&self) -> Result<(), String> {
        self.start([Lsn::default(); 2], None, Redelivered::Any)
    }

    pub(super) fn step(&self, n: u64) -> Result<(), String> {
        self.trace.say(|| format!("step {n}"));
        match self.random(100) {
            0..42 => self.append(),
            42..60 => self.round(),
            60..69 => self.pass(),
            69..82 => self.reclaim(),
            82..84 => self.prove(),
            84..90 => self.read(),
            90..95 => self.arm(),
            95 => {
                let meanwhile = self.swarm.meanwhile;
                let calm = Plan {
                    meanwhile,
                    ..Plan::default()
                };
                self.disk.plan(|plan| *plan = calm);
                self.trace.say(|| "    calm".into());
            }
            _ if self.random(self.swarm.ends) > 0 => {}
            96 => self.close()?,
            97 | 98 => self.end(End::Power)?,
            _ => self.end(End::Process)?,
        }
        self.look()
    }

    /// Whether something was wrong, and whether the life is over.
    fn look(&self) -> Result<(), String> {
        if let Some(failed) = self.life().failed.take() {
            return Err(failed);
        }
        if let Some(end) = self.disk.off() {
            return self.end(end);
        }
        if self.log().is_some_and(|log| log.failed()) {
            self.trace.say(|| "    the log has failed".into());
            let end = match self.random(2) {
                0 => End::Power,
                _ => End::Process,
            };
            return self.end(end);
        }
        Ok(())
    }

    fn append(&self) {
        let life = &mut *self.life();
        let Some(log) = life.log.clone() else { return };
        let mut draft = Draft::default();
        for _ in 0..=random(&mut life.seed) % 3 {
            life.model.act(&mut life.seed, &mut draft);
        }
        let told = std::mem::take(&mut draft.told);
        match life.put(&log, draft) {
            Err(e) => life.failed = Some(e),
            Ok(None) => {}
            Ok(Some(act)) => self.trace.say(|| {
                let (settled, published) = (act.settled.len(), act.published.len());
                let at = shown(act.at);
                format!("    append {told:?}: {settled} settled, {published} copies, up to {at}")
            }),
        }
    }

    fn round(&self) {
        let (Some(log), Some(mut writer)) = (self.log(), self.life().writer.take()) else {
            return;
        };
        if !log.inner.lock().chunks.is_empty() {
            self.trace.say(|| "    round".into());
            writer.round(&log.inner);
            let durable = shown(log.durable());
            self.trace.say(|| format!("    durable up to {durable}"));
        }
        self.life().writer = Some(writer);
    }

    fn prove(&self) {
        if let Some(log) = self.log() {
            writer::prove(&log.inner);
        }
    }

    fn with_reclaim(&self, act: impl FnOnce(&mut reclaim::Reclaim, &Inner)) {
        let (Some(log), Some(mut reclaim)) = (self.log(), self.life().reclaim.take()) else {
            return;
        };
        act(&mut reclaim, &log.inner);
        self.life().reclaim = Some(reclaim);
    }

    fn pass(&self) {
        self.trace.say(|| "    pass".into());
        self.with_reclaim(|reclaim, log| reclaim.pass(log));
    }

    fn reclaim(&self) {
        self.trace.say(|| "    reclaim".into());
        self.with_reclaim(|reclaim, log| {
            reclaim.step(log);
        });
    }

    /// Some messages that are there.
    fn read(&self) {
        let Some(log) = self.log() else { return };
        let wanted = {
            let life = &mut *self.life();
            let all = life.model.now.copies.iter().chain(&life.model.transient);
            let all: Vec<_> = all.map(|((_, id), copy)| (*id, *copy)).collect();
            let from = random(&mut life.seed) as usize % (all.len() + 1);
            all[from..].iter().take(6).copied().collect::<Vec<_>>()
        };
        let life = self.life();
        let unwritten = life.model.acts.iter();
        let written = Lsn(log.inner.written.load(Ordering::Relaxed));
        let unwritten = unwritten.filter(|act| act.at > written);
        let unwritten: BTreeSet<u64> = unwritten
            .flat_map(|act| act.published.iter().map(|p| p.1))
            // Of these it is not known.
            .chain(life.model.transient.keys().map(|(_, id)| *id))
            .collect();
        drop(life);
        // Nobody is to wait for what only this thread can do.
        log.inner.stalled.store(written.0, Ordering::Relaxed);
        let ids: Vec<_> = wanted.iter().map(|(id, _)| MessageId(*id)).collect();
        let mut found = Vec::new();
        let read = log.read(&ids, &mut found);
        self.trace.say(|| format!("    read {ids:?}: {read:?}"));
        let mut life = self.life();
        for ((id, copy), found) in wanted.into_iter().zip(found) {
            let is_settled = !life.model.now.copies.keys().any(|(_, i)| *i == id);
            let fits = match found {
                Found::Here(m) => check::is(&m, &copy),
                Found::Lost => life.cost.lost.contains(&id),
                Found::Later => {
                    read.is_err() || unwritten.contains(&id) || self.disk.off().is_some()
                }
                // Meanwhile, perhaps.
                Found::Settled => is_settled,
            };
            if !fits && log.failed() {
                continue;
            }
            if !fits {
                life.failed = Some(format!(
                    "message {id} is read as {:?}, {read:?}",
                    check::told(&ids, id, &log)
                ));
            }
        }
    }

    /// Something will go wrong.
    fn arm(&self) {
        let swarm = self.swarm;
        let calls = self.disk.counts().calls;
        let mut plan = Plan {
            meanwhile: swarm.meanwhile,
            final_too: self.random(3) == 0,
            ..Plan::default()
        };
        if swarm.strikes {
            let how = match self.random(6) {
                0 | 1 => Strike::Ends(End::Power),
                2 => Strike::Ends(End::Process),
                3 => Strike::Fails(ENOSPC),
                _ => Strike::Fails(EIO),
            };
            plan.strike = Some((self.random(25), how));
        }
        if swarm.rain && self.random(2) == 0 {
            plan.rain = Some(self.rain(calls));
        }
        if swarm.full && self.random(2) == 0 {
            let until = calls + 20 + self.random(200);
            plan.full = Some((until, self.disk.used() + self.random(6_000)));
        }
        self.trace
            .say(|| format!("    plan at call {calls}: {plan:?}"));
        self.disk.plan(|p| *p = plan);
    }

    fn rain(&self, calls: u64) -> Rain {
        let kinds = [
            (vec![Call::Read, Call::Reopen], EIO),
            (
                vec![Call::Write, Call::Allocate, Call::Open, Call::Table],
                ENOSPC,
            ),
            (vec![Call::Write, Call::Sync, Call::Table], EIO),
            (vec![Call::Rename, Call::Remove, Call::SyncDir], EIO),
            (vec![Call::Open, Call::Reopen, Call::SyncDir], EMFILE),
            (vec![Call::Truncate, Call::Allocate], EIO),
        ];
        let (calls_of, code) = kinds[self.random(kinds.len() as u64) as usize].clone();
        Rain {
            calls: calls_of,
            code,
            one_in: 1 + self.random(4),
            until: calls + 5 + self.random(60),
        }
    }

    /// The process ends in order, if the disk lets it.
    fn close(&self) -> Result<(), String> {
        let Some(log) = self.log() else { return Ok(()) };
        let delivered = {
            let life = &mut *self.life();
            life.busy = true;
            let all = life.model.now.copies.keys().copied();
            let mut some: Vec<_> = all.collect();
            some.retain(|_| random(&mut life.seed).is_multiple_of(3));
            some
        };
        let named: Vec<_> = delivered
            .iter()
            .map(|(queue, id)| (QueueId(*queue), MessageId(*id)))
            .collect();
        let closed = log.close(&named);
        self.life().busy = false;
        self.trace.say(|| format!("    close: {closed:?}"));
        if self.disk.off().is_some() || closed.is_err() {
            // It may have been said what was delivered, or not.
            self.life().first = Lsn(u64::MAX);
            return self.end(self.disk.off().unwrap_or(End::Process));
        }
        let life = self.life();
        let last = life.model.acts.last().map_or(Lsn::default(), |act| act.at);
        drop(life);
        if log.durable() < last {
            return Err("closed, and not all is durable".into());
        }
        drop(log);
        self.finish(End::Process);
        let redelivered = Redelivered::These(delivered.into_iter().collect());
        self.start([last, last], None, redelivered)
    }

    /// The process, or the machine, goes down, and starts again.
    fn end(&self, end: End) -> Result<(), String> {
        let Some(log) = self.log() else { return Ok(()) };
        // Where durable means written, the disk that could not write it may have let go of it.
        let synced = match self.options.durability {
            Durability::Write => Lsn(log.inner.proof.load(Ordering::Relaxed)),
            Durability::Fsync => log.durable(),
        };
        let durable = match end == End::Power || log.failed() {
            true => synced,
            false => log.durable(),
        };
        let staged = log.staged();
        let twice = log.inner.store.has_both();
        // A clean stop before this life counts until something of this life is durable.
        let redelivered = match durable > self.life().first {
            true => Redelivered::All,
            false => Redelivered::Any,
        };
        self.trace.say(|| {
            let (durable, staged) = (shown(durable), shown(staged));
            format!("    END by {end:?}: {durable} is promised, {staged} was staged")
        });
        drop(log);
        self.finish(end);
        let hit = self.spoil(twice);
        self.start([durable, synced], hit, redelivered)
    }

    fn finish(&self, end: End) {
        let mut life = self.life();
        (life.log, life.writer, life.reclaim) = (None, None, None);
        life.totals.ends += 1;
        self.disk.end(end);
        self.tables.end(end, &mut life.seed);
    }

    /// What the medium loses while nobody looks.
    fn spoil(&self, definitions_twice: bool) -> Option<Hit> {
        // A segment that was set aside is removed for good.
        for path in self.disk.paths() {
            if has_extension(&path, "unreadable") {
                self.disk.take_away(&path);
            }
        }
        if !self.swarm.damage || self.random(3) > 0 {
            return None;
        }
        let life = &mut *self.life();
        life.totals.flips += 1;
        let seed = &mut life.seed;
        let any = |extension: &str, seed: &mut u64| {
            let mut all = self.disk.paths();
            all.retain(|path| path.ends_with(extension) || has_extension(path, extension));
            all.retain(|path| !self.disk.bytes(path).is_empty());
            let at = random(seed) as usize % all.len().max(1);
            let path = all.into_iter().nth(at)?;
            let len = self.disk.bytes(&path).len();
            let byte = random(seed) as usize % len;
            self.disk.flip(&path, byte, (random(seed) % 8) as u8);
            Some(path)
        };
        match random(seed) % 8 {
            0 => drop(any("index", seed)),
            4 => drop(any("salt", seed)),
            1 => {
                let path = any("settled", seed)?;
                return Some(Hit {
                    offset: 0,
                    proven: true,
                    cost: damage::of_notes(&self.disk, &path),
                    path,
                });
            }
            2 if definitions_twice => drop(any("journal", seed)),
            3 if definitions_twice => self.tables.damage(),
            _ => return damage::flip_frame(&self.disk, seed),
        }
        None
    }

    fn open(&self) -> io::Result<(SegmentedLog, Vec<Definition>)> {
        let files: Arc<dyn FileLayer> = Arc::new(self.disk.clone());
        let sizes = Sizes {
            allocate_bytes: 2_000,
            compact_above_bytes: 4_000,
        };
        let dir = &self.options.dir;
        let (store, stored) =
            DefinitionStore::open_with(files.clone(), dir, self.tables.clone(), sizes)?;
        SegmentedLog::recovered(self.options.clone(), files, store, stored, None)
    }

    /// Starts, however often that ends early, and looks at what is there: what was promised of the end of the
    /// process, and of a power cut.
    fn start(
        &self,
        [durable, synced]: [Lsn; 2],
        hit: Option<Hit>,
        redelivered: Redelivered,
    ) -> Result<(), String> {
        let (mut redelivered, mut durable) = (redelivered, durable);
        let mut cost = Cost::default();
        let mut aside = Vec::new();
        let mut tries = 0;
        let (log, definitions) = loop {
            // Damage and a disk that does not answer at once would be two faults.
            self.hinder(tries, hit.is_none());
            tries += 1;
            let before: Vec<_> = damage::segments(&self.disk)
                .into_iter()
                .map(|path| (damage::of_segment(&self.disk, &path), path))
                .collect();
            let notes: Vec<_> = match self.disk.plan(|plan| plan.is_fine()) {
                true => Vec::new(),
                false => self.notes(),
            };
            let fine = self.disk.plan(|plan| plan.is_fine());
            let opened = self.open();
            for (of_it, path) in before.into_iter().chain(notes) {
                let now = super::super::super::damage::aside(&path);
                if self.disk.paths().contains(&now) {
                    cost.add(&of_it);
                    aside.push(now);
                }
            }
            if let Some(end) = self.disk.off() {
                drop(opened);
                self.trace.say(|| format!("    the start ends by {end:?}"));
                self.finish(end);
                if end == End::Power {
                    durable = synced;
                }
                redelivered = Redelivered::Any;
                continue;
            }
            match opened {
                Ok(opened) => break opened,
                Err(e) if fine => return Err(format!("it does not start: {e}")),
                Err(e) => {
                    self.trace.say(|| format!("    the start fails: {e}"));
                    self.finish(End::Process);
                }
            }
        };
        let calm = Plan::default();
        self.disk.plan(|plan| *plan = calm);
        let life = &mut *self.life();
        if !aside.is_empty() || hit.is_some() {
            life.totals.hits += 1;
        }
        let back = Back::of(&log, definitions)?;
        let told = check::Told {
            durable,
            hit,
            aside,
            cost,
            redelivered,
        };
        let base = check::check(&mut life.model, &back, &log, told, &mut life.cost);
        let (base, at) = base?;
        self.trace.say(|| {
            let (n, at) = (base.copies.len(), shown(at.unwrap_or_default()));
            format!(
                "    START: {n} copies, as they were at {at}; {:?}",
                log.damage()
            )
        });
        life.totals.starts += 1;
        life.model.restart(base, at);
        life.first = log.durable();
        life.log = Some(Arc::new(log));
        life.writer = Some(writer::Writer::default());
        life.reclaim = Some(reclaim::Reclaim::default());
        let meanwhile = self.swarm.meanwhile;
        self.disk.plan(|plan| plan.meanwhile = meanwhile);
        Ok(())
    }

    fn notes(&self) -> Vec<(Cost, PathBuf)> {
        let mut all = self.disk.paths();
        all.retain(|path| has_extension(path, "settled"));
        let cost = |path: PathBuf| (damage::of_notes(&self.disk, &path), path);
        all.into_iter().map(cost).collect()
    }

    /// What goes wrong during a start, perhaps.
    fn hinder(&self, tries: u64, reads_too: bool) {
        if tries > 4 || self.life().calm {
            return;
        }
        let calls = self.disk.counts().calls;
        let mut plan = Plan::default();
        if self.swarm.strikes && self.random(4) == 0 {
            let how = match self.random(4) {
                0 => Strike::Ends(End::Process),
                1 => Strike::Fails(EIO),
                _ => Strike::Ends(End::Power),
            };
            plan.strike = Some((self.random(30), how));
        }
        if self.swarm.rain && self.random(6) == 0 {
            let rain = self.rain(calls);
            if reads_too || !rain.calls.contains(&Call::Read) {
                plan.rain = Some(rain);
            }
        }
        if self.swarm.unreadable && reads_too && self.random(3) == 0 {
            let mut all = self.disk.paths();
            all.retain(|path| has_extension(path, "segment") || has_extension(path, "settled"));
            if !all.is_empty() {
                let path = all.swap_remove(self.random(all.len() as u64) as usize);
                plan.unreadable = Some((path, 1 + self.random(8) as u32));
            }
        }
        if !plan.is_fine() {
            self.trace
                .say(|| format!("    plan for the start: {plan:?}"));
        }
        plan.final_too = true;
        self.disk.plan(|p| *p = plan);
    }

    /// With a disk that works again, all that is settled gives its room back.
    pub(super) fn recovers(&self) -> Result<(), String> {
        self.trace.say(|| "the end: the disk works".into());
        self.disk.set_meanwhile(None);
        self.disk.plan(|plan| *plan = Plan::default());
        self.life().calm = true;
        self.look()?;
        let Some(log) = self.log() else { return Ok(()) };
        for n in 0..60 {
            {
                let life = &mut *self.life();
                let mut draft = Draft::default();
                if n == 0 {
                    let keep = life.model.now.copies.keys().copied().take(2);
                    let keep: BTreeSet<_> = keep.collect();
                    let all = life
                        .model
                        .now
                        .copies
                        .keys()
                        .chain(life.model.transient.keys());
                    let all: Vec<_> = all.filter(|c| !keep.contains(c)).copied().collect();
                    all.into_iter()
                        .for_each(|(queue, id)| draft.settle(queue, id));
                }
                life.model.act(&mut life.seed, &mut draft);
                let before = life.model.acts.len();
                life.put(&log, draft)?;
                let mut draft = Draft::default();
                for (queue, id, _) in life.model.acts[before..].iter().flat_map(|a| &a.published) {
                    draft.settle(*queue, *id);
                }
                life.put(&log, draft)?;
            }
            while !log.inner.lock().chunks.is_empty() {
                self.round();
            }
            self.pass();
            self.with_reclaim(|reclaim, log| while reclaim.step(log) {});
        }
        let stats = log.stats();
        let left = log.troubles();
        if !left.is_empty() || log.out_of_space() || log.failed() || stats.segments > 8 {
            return Err(format!(
                "it does not recover: {left:?}, {stats:?}, out of space {}",
                log.out_of_space()
            ));
        }
        drop(log);
        self.close()?;
        let mut left = self.disk.paths();
        left.retain(|path| has_extension(path, "tmp"));
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("left behind: {left:?}")),
        }
    }
}

impl Life {
    /// Appends, unless there is nothing or the log has failed.
    fn put(&mut self, log: &SegmentedLog, mut draft: Draft) -> Result<Option<&Act>, String> {
        self.model.records(&mut draft);
        let mut records = std::mem::take(&mut draft.records);
        if records.is_empty() {
            return Ok(None);
        }
        let Ok(appended) = log.append(&mut records) else {
            return Ok(None);
        };
        self.totals.appends += 1;
        self.model.appended(draft, appended)?;
        Ok(self.model.acts.last())
    }
}

/// Which copies must be told to have been delivered.
pub(super) enum Redelivered {
    All,
    These(BTreeSet<(u64, u64)>),
    Any,
}

impl Meanwhile for World {
    fn go_on(&self, waits: bool) {
        {
            let mut life = self.life();
            if life.busy || life.log.is_none() || self.disk.off().is_some() {
                return;
            }
            life.busy = true;
        }
        self.trace.say(|| "    > meanwhile".into());
        for _ in 0..if waits { 4 } else { 1 } {
            match self.random(8) {
                0..4 => self.append(),
                4 | 5 => self.round(),
                6 => self.pass(),
                _ => self.reclaim(),
            }
        }
        self.trace.say(|| "    < meanwhile".into());
        self.life().busy = false;
    }
}
