//! What was appended and waits for the watermark: settles and definition changes.
//!
//! A settle must not be believed before it is durable: by then the only copy of what it names may be
//! the old one (a dead letter's settle and its new publish are one record). So an append only stages,
//! the round of the log thread that takes its bytes takes these along, and what it syncs it applies.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;

use super::segment::Segments;
use super::summary::Settled;
use crate::broker::memory::Charge;
use crate::broker::ports::{DefinitionChange, DefinitionKind, Lsn, Records};

/// Copies settled and definitions changed under one lock of the log: whoever publishes waits for no more
/// than that.
const AT_ONCE: u64 = 1024;

/// Settles and changes of a round for which room is kept.
const ROOM_KEPT: usize = 16 * 1024;

/// Something that no crash can undo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durable<T>(T);

impl<T> Durable<T> {
    /// What the disk gave back at the start: recovery has synced what it believed.
    pub(super) fn recovered(it: T) -> Durable<T> {
        Durable(it)
    }

    /// What a sync has passed.
    pub(super) fn synced(it: T, _: &super::writer::Synced) -> Durable<T> {
        Durable(it)
    }
}

impl<T> Deref for Durable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Settles and definition changes of the appends that were staged since the last round.
#[derive(Default)]
pub(super) struct Pending {
    settles: Vec<Settled>,
    definitions: VecDeque<(Lsn, DefinitionChange)>,
    /// So many of the settles are applied.
    applied: usize,
}

impl Pending {
    /// Takes over what waits for the record at `at`.
    pub(super) fn add(&mut self, records: &mut Records, at: Lsn) {
        for (queue, id) in &records.settles {
            // Queues are served in order: mostly this is the one behind the last.
            match self.settles.last_mut() {
                Some(last) if last.queue == *queue && last.last.wrapping_add(1) == id.0 => {
                    last.last = id.0;
                }
                _ => self.settles.push(Settled {
                    queue: *queue,
                    first: id.0,
                    last: id.0,
                }),
            }
        }
        let ranges = records.settled_ranges.iter();
        self.settles
            .extend(ranges.map(|(queue, first, last)| Settled {
                queue: *queue,
                first: first.0,
                last: last.0,
            }));
        let changes = records.definitions.drain(..);
        self.definitions.extend(changes.map(|change| (at, change)));
    }
}

impl Durable<Pending> {
    /// Applies some of it; false when that was all. Between two calls the lock may be given away.
    pub(super) fn apply(&mut self, segments: &mut Segments, unstored: &mut Unstored) -> bool {
        let mut left = AT_ONCE;
        while left > 0 {
            if let Some((at, change)) = self.0.definitions.pop_front() {
                unstored.put(at, change);
                left -= 1;
            } else if let Some(settled) = self.0.settles.get_mut(self.0.applied) {
                let mut part = *settled;
                part.last = part.last.min(part.first.saturating_add(left - 1));
                segments.apply(&Durable(part));
                left -= 1 + part.last.saturating_sub(part.first);
                if part.last < settled.last {
                    settled.first = part.last + 1;
                } else {
                    self.0.applied += 1;
                }
            } else {
                return false;
            }
        }
        true
    }

    /// The room it took, for the next round.
    pub(super) fn into_room(mut self) -> Pending {
        if self.0.settles.capacity() > ROOM_KEPT {
            return Pending::default();
        }
        self.0.settles.clear();
        self.0.definitions.shrink_to(ROOM_KEPT);
        self.0.applied = 0;
        self.0
    }
}

/// What a definition is kept under.
type Key = (DefinitionKind, Vec<u8>);

/// Durable definition changes that the store does not have yet, the latest of each key: while the store
/// cannot be written, this grows with what is defined, not with how often.
#[derive(Default)]
pub(super) struct Unstored {
    latest: HashMap<Key, (Lsn, Option<Vec<u8>>)>,
    /// Octets of their keys and values.
    octets: usize,
    /// The same of those on their way to the store, and their places.
    storing: usize,
    /// How many of them each segment has: it stays while it has any.
    by_segment: BTreeMap<u32, usize>,
    charge: Charge,
}

/// What an entry of the table takes, a table having room for an eighth more than it says.
const ENTRY_BYTES: usize = size_of::<(Key, (Lsn, Option<Vec<u8>>))>() + 1;

fn octets(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len)
}

/// Changes on their way to the store.
pub(super) struct Storing {
    pub(super) changes: Vec<DefinitionChange>,
    at: Vec<Lsn>,
    octets: usize,
}

impl Unstored {
    pub(super) fn put(&mut self, at: Lsn, change: DefinitionChange) {
        let DefinitionChange { kind, key, value } = change;
        *self.by_segment.entry(segment_of(at)).or_default() += 1;
        self.octets += octets(&key, value.as_deref());
        let n = key.len();
        if let Some((earlier, value)) = self.latest.insert((kind, key), (at, value)) {
            self.octets -= n + value.map_or(0, |value| value.len());
            self.done(earlier);
        }
        self.count();
    }

    /// From now on it counts there.
    pub(super) fn count_in(&mut self, charge: Charge) {
        self.charge = charge;
        self.count();
    }

    fn count(&mut self) {
        let places = self.latest.capacity() + self.latest.capacity() / 7;
        let bytes = self.octets + self.storing + places * ENTRY_BYTES;
        self.charge.set(bytes as u64);
    }

    fn done(&mut self, at: Lsn) {
        if let Some(n) = self.by_segment.get_mut(&segment_of(at)) {
            *n -= 1;
            if *n == 0 {
                self.by_segment.remove(&segment_of(at));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Whether a segment has changes that would be lost with it.
    pub(super) fn is_in(&self, segment: u32) -> bool {
        self.by_segment.contains_key(&segment)
    }

    /// Everything there is, for the store. It counts as unstored until [`Self::stored`].
    pub(super) fn take(&mut self) -> Storing {
        let mut storing = Storing {
            changes: Vec::with_capacity(self.latest.len()),
            at: Vec::with_capacity(self.latest.len()),
            octets: std::mem::take(&mut self.octets),
        };
        self.storing = storing.octets + self.latest.len() * ENTRY_BYTES;
        let mut latest: Vec<_> = std::mem::take(&mut self.latest).into_iter().collect();
        // In the order of the log.
        latest.sort_unstable_by(|(a, (at, _)), (b, (bt, _))| (at, a).cmp(&(bt, b)));
        for ((kind, key), (at, value)) in latest {
            storing.changes.push(DefinitionChange { kind, key, value });
            storing.at.push(at);
        }
        self.count();
        storing
    }

    /// The store has it.
    pub(super) fn stored(&mut self, storing: Storing) {
        storing.at.into_iter().for_each(|at| self.done(at));
        self.storing = 0;
        self.count();
    }

    /// The store does not have it: it is tried again, but for what has changed meanwhile.
    pub(super) fn put_back(&mut self, storing: Storing) {
        self.storing = 0;
        self.octets += storing.octets;
        for (change, at) in storing.changes.into_iter().zip(storing.at) {
            let DefinitionChange { kind, key, value } = change;
            let n = octets(&key, value.as_deref());
            match self.latest.entry((kind, key)) {
                Entry::Occupied(_) => {
                    self.octets -= n;
                    self.done(at);
                }
                Entry::Vacant(free) => drop(free.insert((at, value))),
            }
        }
        self.count();
    }
}

/// The segment in which the record ends that is at this position.
fn segment_of(at: Lsn) -> u32 {
    (at.0 >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::{Memory, Use};

    fn change(n: u64, value: Option<usize>) -> DefinitionChange {
        DefinitionChange {
            kind: DefinitionKind::Binding,
            key: n.to_be_bytes().to_vec(),
            value: value.map(|len| vec![0; len]),
        }
    }

    #[test]
    fn what_waits_for_the_store_is_counted_until_it_has_it() {
        let memory = Memory::new();
        let mut unstored = Unstored::default();
        unstored.put(Lsn(1), change(0, Some(500)));
        unstored.count_in(memory.charge(Use::Definitions));
        let used = || memory.used(Use::Definitions);
        let first = used();
        assert!((508..1500).contains(&first), "{first}");
        // The latest of each counts.
        unstored.put(Lsn(2), change(0, None));
        assert_eq!(used(), first - 500);
        (1..1000).for_each(|n| unstored.put(Lsn(n), change(n, Some(200))));
        let all = used();
        assert!((300_000..400_000).contains(&all), "{all}");
        // On its way it is there as before; what the store does not take, too.
        let storing = unstored.take();
        unstored.put(Lsn(3), change(7, Some(300)));
        assert!((250_000..all).contains(&used()), "{}", used());
        unstored.put_back(storing);
        assert_eq!(unstored.octets, 1000 * 8 + 998 * 200 + 300);
        assert!((300_000..400_000).contains(&used()), "{}", used());
        let storing = unstored.take();
        unstored.stored(storing);
        assert_eq!(used(), 0);
    }
}
