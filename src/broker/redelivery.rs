//! What quorum queues know of copies that came back, kept over a crash: how often they were
//! acquired, how often that failed, when they are ready again (`x-delayed-retry-type`), and of what they
//! died if nobody takes the dead letter (`x-dead-letter-strategy`).
//!
//! Copies that come back together, and of which the same is known, are a group: one definition, in the log
//! record of the batch that returned them. It stays as it was written until the last of its copies is
//! settled, or has come back again and is in a later group, and goes in the record that does that. So
//! a consumer that is lost with a hundred thousand messages costs one definition, not as many. A crash
//! finds groups with copies that are done with, which are passed over, and copies in two groups, of which
//! the later one counts.
//!
//! What is orphaned all the same (two connections can return and settle a copy in one moment) is removed
//! at the next start.

mod runs;
mod stored;

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::runs::{Ids, RUN_BYTES, Runs};
use self::stored::{NUMBERS, Name, Stored};
use super::codec::DefinitionError;
use super::death::DeathReason;
use super::memory::{Charge, Memory, Use};
use super::ports::{DefinitionChange, DefinitionKind, MessageId, QueueId, Records, RecoveredRun};
use crate::sync::Mutex;

const KIND: DefinitionKind = DefinitionKind::Returned;

/// Runs of consecutive ids in one group. In a queue that gets every other message each copy is one; the
/// definition of a group stays as large as it was for the last of its copies.
const RUNS_MAX: usize = 128;

/// About what a group takes in a table, which is half full or more.
const GROUP_BYTES: usize = size_of::<(u64, Group)>() + 1;

/// Groups, and copies of a batch, for which room is kept.
const ROOM_KEPT: usize = 1024;

/// What is known of a copy that came back.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Known {
    /// `x-delivery-count`
    pub delivery_count: u16,
    /// `x-acquired-count`
    pub acquired_count: u16,
    /// Unix milliseconds at which it is ready again; zero: at once.
    pub retry_at: u64,
    /// It is dead, and its dead-letter exchange did not take it yet.
    pub dead: Option<DeathReason>,
}

/// A copy that came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReturnedCopy {
    /// The queue.
    pub queue: QueueId,
    /// The message.
    pub id: MessageId,
    /// What is known of it.
    pub known: Known,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    /// Copies that are in no later group and not settled.
    left: u64,
    known: Known,
}

/// The groups that the store has.
#[derive(Debug, Default)]
pub(super) struct Groups {
    runs: Runs,
    /// By number. A single copy that was stored as such has one that is not in the store.
    by_number: HashMap<u64, Group>,
    /// Numbers below `next` that may be given out again: while the store cannot be written, changes of
    /// the same names replace each other.
    free: Vec<u64>,
    next: u64,
    /// Numbers below this may be in the store and not here.
    first: u64,
    generation: u64,
    /// What is in the store and has no copy left.
    empty: Vec<Name>,
    charge: Charge,
}

fn n_ids((first, last): Ids) -> u64 {
    last - first + 1
}

impl Groups {
    /// Takes copies out of their groups.
    fn take(&mut self, queue: QueueId, ids: Ids) {
        let (groups, free, empty) = (&mut self.by_number, &mut self.free, &mut self.empty);
        self.runs.take(queue, ids, |number, part| {
            let Some(group) = groups.get_mut(&number) else {
                return;
            };
            group.left -= n_ids(part);
            if group.left > 0 {
                return;
            }
            groups.remove(&number);
            empty.push(name(number, queue, part));
            if number < NUMBERS {
                free.push(number);
            }
        });
    }

    /// Makes a group of copies, which may be in others.
    fn put(&mut self, number: u64, queue: QueueId, known: Known, runs: &[Ids]) {
        let left = runs.iter().copied().map(n_ids).sum();
        self.by_number.insert(number, Group { left, known });
        for ids in runs {
            self.runs.insert(queue, *ids, number);
        }
    }

    /// Groups copies that came back, the latest of each.
    fn add(&mut self, copies: &mut Vec<ReturnedCopy>, records: &mut Records) {
        copies.sort_by_key(|c| (c.queue, c.id));
        copies.dedup_by(|later, kept| {
            let same = (later.queue, later.id) == (kept.queue, kept.id);
            if same {
                *kept = *later;
            }
            same
        });
        // Another connection may have got it, returned it and been faster.
        copies.retain(|c| {
            let number = self.runs.group_of(c.queue, c.id);
            let group = number.and_then(|number| self.by_number.get(&number));
            group.is_none_or(|g| g.known.acquired_count <= c.known.acquired_count)
        });
        copies.sort_unstable_by_key(|c| (c.queue, c.known, c.id));
        self.generation = self.generation.saturating_add(1);
        let mut runs: Vec<Ids> = Vec::new();
        for (at, copy) in copies.iter().enumerate() {
            let id = copy.id.0;
            match runs.last_mut() {
                Some((_, last)) if last.wrapping_add(1) == id => *last = id,
                _ => runs.push((id, id)),
            }
            let goes_on = copies.get(at + 1).is_some_and(|next| {
                (next.queue, next.known) == (copy.queue, copy.known)
                    && (runs.len() < RUNS_MAX || next.id.0 == id.wrapping_add(1))
            });
            if goes_on {
                continue;
            }
            for ids in &runs {
                self.take(copy.queue, *ids);
            }
            let number = self.free.pop().unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
            self.put(number, copy.queue, copy.known, &runs);
            let stored = Stored {
                generation: self.generation,
                queue: copy.queue,
                known: copy.known,
                runs: std::mem::take(&mut runs),
            };
            records.definitions.push(stored.put(number));
        }
        copies.clear();
        copies.shrink_to(ROOM_KEPT);
    }

    /// Forgets the copies that these records settle.
    fn settle(&mut self, records: &Records) {
        let mut run: Option<(QueueId, Ids)> = None;
        for (queue, id) in &records.settles {
            match &mut run {
                Some((of, (_, last))) if of == queue && last.wrapping_add(1) == id.0 => {
                    *last = id.0;
                }
                _ => {
                    if let Some((queue, ids)) = run.replace((*queue, (id.0, id.0))) {
                        self.take(queue, ids);
                    }
                }
            }
        }
        if let Some((queue, ids)) = run {
            self.take(queue, ids);
        }
        for (queue, first, last) in &records.settled_ranges {
            self.take(*queue, (first.0, last.0));
        }
    }

    /// The changes that remove what has no copy left, and was not replaced.
    fn remove_empty(&mut self, changes: &mut Vec<DefinitionChange>) {
        let groups = &self.by_number;
        let empty = self.empty.drain(..).filter(|name| match name {
            Name::Group(number) => !groups.contains_key(number),
            Name::Copy(..) => true,
        });
        changes.extend(empty.map(Name::remove));
        self.empty.shrink_to(ROOM_KEPT);
        if groups.is_empty() {
            (self.by_number, self.free) = Default::default();
            self.next = self.first;
        }
    }

    /// Counts what it takes; returns how many runs there are.
    fn count(&mut self) -> usize {
        let (n, room) = (self.by_number.len(), self.by_number.capacity());
        if room > ROOM_KEPT && n < room / 4 {
            self.by_number.shrink_to(2 * n);
        }
        let bytes = self.runs.len() * RUN_BYTES
            + self.by_number.capacity() * GROUP_BYTES
            + self.free.capacity() * size_of::<u64>();
        self.charge.set(bytes as u64);
        self.runs.len()
    }
}

/// What a group is stored under; a part of it says which copy it is, if it is stored by itself.
fn name(number: u64, queue: QueueId, (_, last): Ids) -> Name {
    match number < NUMBERS {
        true => Name::Group(number),
        false => Name::Copy(queue, MessageId(last)),
    }
}

/// The copies that the store knows something of.
#[derive(Debug)]
pub(super) struct Returned {
    /// Runs of them, so that batches without any need no lock.
    n: AtomicUsize,
    groups: Mutex<Groups>,
}

impl Returned {
    /// None; they count in `memory`.
    pub(super) fn new(memory: &Memory) -> Returned {
        let groups = Groups {
            charge: memory.charge(Use::Returned),
            ..Groups::default()
        };
        Returned {
            n: AtomicUsize::new(0),
            groups: Mutex::new("the groups of returned copies", groups),
        }
    }

    /// Adds to `records` what the store has to know of these copies, and takes from it what it need not
    /// know any more: the copies that `records` settles. The log has to get it before that of anybody else:
    /// what this returns is held until it is appended.
    #[must_use]
    pub(super) fn note(
        &self,
        copies: &mut Vec<ReturnedCopy>,
        records: &mut Records,
    ) -> Option<MutexGuard<'_, Groups>> {
        let settles = !records.settles.is_empty() || !records.settled_ranges.is_empty();
        if copies.is_empty() && !(settles && self.n.load(Ordering::Relaxed) > 0) {
            return None;
        }
        let mut groups = self.groups.lock();
        groups.add(copies, records);
        groups.settle(records);
        groups.remove_empty(&mut records.definitions);
        self.n.store(groups.count(), Ordering::Relaxed);
        Some(groups)
    }

    /// Reads what the store has; `failed` gets what cannot be read, which stays there.
    pub(super) fn read<'a>(
        &self,
        stored: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        mut failed: impl FnMut(DefinitionError),
    ) {
        let mut groups = self.groups.lock();
        let mut numbered = Vec::new();
        let mut single = NUMBERS;
        for (key, value) in stored {
            let name = Name::read(key);
            if let Ok(Name::Group(number)) = name {
                groups.next = groups.next.max(number + 1);
            }
            match name.and_then(|name| Ok((name, Stored::read(name, value)?))) {
                Ok((Name::Group(number), it)) => numbered.push((number, it)),
                // From before there were groups, and so before all of them.
                Ok((Name::Copy(queue, _), it)) => {
                    groups.put(single, queue, it.known, &it.runs);
                    single += 1;
                }
                Err(e) => failed(e),
            }
        }
        numbered.sort_by_key(|(_, it)| it.generation);
        for (number, it) in numbered {
            groups.generation = it.generation;
            for ids in &it.runs {
                groups.take(it.queue, *ids);
            }
            groups.put(number, it.queue, it.known, &it.runs);
        }
        // Numbers are free once the store has been told so.
        groups.free.clear();
        self.n.store(groups.count(), Ordering::Relaxed);
    }

    /// What was read, to be compared with what recovery finds.
    pub(super) fn take_found(&self) -> Found {
        Found {
            groups: std::mem::take(&mut *self.groups.lock()),
            live: Runs::default(),
        }
    }

    /// Goes on with what of it is live, or in a queue that is `kept`. Returns the changes that remove the rest.
    pub(super) fn put_found(
        &self,
        found: Found,
        kept: impl Fn(QueueId) -> bool,
    ) -> Vec<DefinitionChange> {
        let Found { mut groups, live } = found;
        let all = std::mem::replace(&mut groups.runs, live);
        for (queue, ids, number) in all.iter().filter(|(queue, ..)| kept(*queue)) {
            groups.runs.insert(queue, ids, number);
        }
        groups.by_number.values_mut().for_each(|g| g.left = 0);
        for (_, ids, number) in groups.runs.iter() {
            if let Some(group) = groups.by_number.get_mut(&number) {
                group.left += n_ids(ids);
            }
        }
        for (queue, ids, number) in all.iter() {
            if groups.by_number.get(&number).is_some_and(|g| g.left == 0) {
                groups.by_number.remove(&number);
                groups.empty.push(name(number, queue, ids));
            }
        }
        groups.first = groups.next;
        let mut changes = Vec::new();
        groups.remove_empty(&mut changes);
        self.n.store(groups.count(), Ordering::Relaxed);
        *self.groups.lock() = groups;
        changes
    }
}

/// What the store had when the broker started.
pub(super) struct Found {
    groups: Groups,
    live: Runs,
}

impl Found {
    /// Visits a run of copies that recovery found, cut into those of which the same is known.
    pub(super) fn split(
        &mut self,
        run: &RecoveredRun,
        mut each: impl FnMut(&RecoveredRun, Option<Known>),
    ) {
        let (queue, first) = (run.target.queue, run.first_id.0);
        let last = first.saturating_add(u64::from(run.count) - 1);
        let (groups, live) = (&self.groups, &mut self.live);
        groups.runs.split(queue, (first, last), |ids, number| {
            let part = RecoveredRun {
                first_id: MessageId(ids.0),
                count: n_ids(ids) as u32,
                ..*run
            };
            let known = number.and_then(|number| {
                live.insert(queue, ids, number);
                groups.by_number.get(&number).map(|g| g.known)
            });
            each(&part, known);
        });
    }
}

#[cfg(test)]
mod tests;
