//! What quorum queues know of copies that came back, kept over a crash: how often they were
//! acquired, how often that failed, when they are ready again (`x-delayed-retry-type`), and of what they
//! died if nobody takes the dead letter (`x-dead-letter-strategy`).
//!
//! It is a definition by queue and message, in the log record of the batch that returned it, and goes in
//! the record that settles the copy. What is orphaned all the same (two connections can return and
//! settle a copy in one moment) is removed at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::definitions::{self, DefinitionError};
use super::effects::DeathReason;
use super::memory::{Charge, Memory, Use};
use super::ports::{DefinitionChange, DefinitionKind, MessageId, QueueId, Records, RecoveredRun};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::sync::Mutex;

const KIND: DefinitionKind = DefinitionKind::Returned;

/// See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReturnedCopy {
    /// The queue.
    pub queue: QueueId,
    /// The message.
    pub id: MessageId,
    /// `x-delivery-count`
    pub delivery_count: u16,
    /// `x-acquired-count`
    pub acquired_count: u16,
    /// Unix milliseconds at which it is ready again; zero: at once.
    pub retry_at: u64,
    /// It is dead, and its dead-letter exchange did not take it yet.
    pub dead: Option<DeathReason>,
}

type Name = (QueueId, MessageId);

impl ReturnedCopy {
    fn name(&self) -> Name {
        (self.queue, self.id)
    }

    fn put(&self) -> DefinitionChange {
        let mut t = FieldTable::new();
        t.insert("delivery_count", i64::from(self.delivery_count));
        t.insert("acquired_count", i64::from(self.acquired_count));
        t.insert("retry_at", self.retry_at as i64);
        if let Some(reason) = self.dead {
            t.insert("dead", reason.as_str());
        }
        let (queue, id) = key(self.name());
        definitions::put(KIND, &[&queue, &id], &t)
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// A key or value that was not written by this version.
    pub fn read(key: &[u8], value: &[u8]) -> Result<ReturnedCopy, DefinitionError> {
        // Two parts of eight bytes, each behind its length.
        let number = |at: usize| {
            let bytes = key.get(at..at + 8).and_then(|b| b.first_chunk::<8>());
            bytes.map(|b| u64::from_be_bytes(*b))
        };
        let (Some(queue), Some(id), 24) = (number(4), number(16), key.len()) else {
            return Err(DefinitionError("malformed name of a returned copy".into()));
        };
        let t = definitions::fields(value)?;
        let field = |name: &str| t.get(name).and_then(FieldValue::as_integer).unwrap_or(0);
        let count = |name: &str| u16::try_from(field(name)).unwrap_or(u16::MAX);
        let reason = t.get("dead").and_then(FieldValue::as_str);
        Ok(ReturnedCopy {
            queue: QueueId(queue),
            id: MessageId(id),
            delivery_count: count("delivery_count"),
            acquired_count: count("acquired_count"),
            retry_at: u64::try_from(field("retry_at")).unwrap_or(0),
            dead: reason.and_then(DeathReason::of),
        })
    }
}

fn key((queue, id): Name) -> ([u8; 8], [u8; 8]) {
    (queue.0.to_be_bytes(), id.0.to_be_bytes())
}

fn remove(name: Name) -> DefinitionChange {
    let (queue, id) = key(name);
    definitions::remove(KIND, &[&queue, &id])
}

/// Visits a run of copies that recovery found, cut at those of which something is known.
pub(super) fn split(
    run: &RecoveredRun,
    known: &BTreeMap<Name, ReturnedCopy>,
    each: &mut dyn FnMut(&RecoveredRun, Option<&ReturnedCopy>),
) {
    let (queue, end) = (run.target.queue, run.first_id.0 + u64::from(run.count));
    let mut next = run.first_id.0;
    let part = |first: u64, end: u64| RecoveredRun {
        first_id: MessageId(first),
        count: (end - first) as u32,
        ..*run
    };
    for ((_, id), copy) in known.range((queue, run.first_id)..(queue, MessageId(end))) {
        if id.0 > next {
            each(&part(next, id.0), None);
        }
        next = id.0 + 1;
        each(&part(id.0, next), Some(copy));
    }
    if next < end {
        each(&part(next, end), None);
    }
}

/// The copies that the store knows something of.
#[derive(Debug)]
pub(super) struct Returned {
    /// How many, so that batches without them need no lock.
    n: AtomicUsize,
    names: Mutex<Names>,
}

/// About what a name takes in a tree that grows at its end, whose nodes are half full.
const NAME_BYTES: usize = 32;

#[derive(Debug)]
struct Names {
    known: BTreeSet<Name>,
    charge: Charge,
}

impl Names {
    /// Counts what it takes; returns how many there are.
    fn count(&mut self) -> usize {
        self.charge.set((self.known.len() * NAME_BYTES) as u64);
        self.known.len()
    }
}

impl Returned {
    /// None; they count in `memory`.
    pub(super) fn new(memory: &Memory) -> Returned {
        let names = Names {
            known: BTreeSet::new(),
            charge: memory.charge(Use::Returned),
        };
        Returned {
            n: AtomicUsize::new(0),
            names: Mutex::new("the names of returned copies", names),
        }
    }

    /// Adds to `records` what the store has to know of these copies, and takes from it what it need not
    /// know any more: the copies that `records` settles.
    pub(super) fn note(&self, copies: &mut Vec<ReturnedCopy>, records: &mut Records) {
        if copies.is_empty() && self.n.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut names = self.names.lock();
        for copy in copies.drain(..) {
            names.known.insert(copy.name());
            records.definitions.push(copy.put());
        }
        let mut gone: Vec<Name> = Vec::new();
        gone.extend(
            records
                .settles
                .iter()
                .filter(|name| names.known.contains(name)),
        );
        for (queue, first, last) in &records.settled_ranges {
            gone.extend(names.known.range((*queue, *first)..=(*queue, *last)));
        }
        for name in gone {
            names.known.remove(&name);
            records.definitions.push(remove(name));
        }
        self.n.store(names.count(), Ordering::Relaxed);
    }

    /// Notes what recovery found to be live, and returns the changes that remove the rest.
    pub(super) fn restore(
        &self,
        stored: impl Iterator<Item = (Name, bool)>,
    ) -> Vec<DefinitionChange> {
        let mut names = self.names.lock();
        let mut orphans = Vec::new();
        for (name, live) in stored {
            if live {
                names.known.insert(name);
            } else {
                orphans.push(remove(name));
            }
        }
        self.n.store(names.count(), Ordering::Relaxed);
        orphans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(queue: u64, id: u64) -> ReturnedCopy {
        ReturnedCopy {
            queue: QueueId(queue),
            id: MessageId(id),
            delivery_count: 3,
            acquired_count: 65535,
            retry_at: 1_700_000_000_123,
            dead: None,
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let reasons = DeathReason::ALL.map(Some);
        for dead in reasons.into_iter().chain([None]) {
            let copy = ReturnedCopy { dead, ..copy(7, 9) };
            let change = copy.put();
            let value = change.value.expect("a value");
            assert_eq!(ReturnedCopy::read(&change.key, &value), Ok(copy));
        }
        let change = copy(7, 9).put();
        assert!(ReturnedCopy::read(&change.key[1..], &change.value.expect("a value")).is_err());
    }

    #[test]
    fn what_is_settled_is_forgotten() {
        let memory = Memory::new();
        let returned = Returned::new(&memory);
        let mut records = Records::default();
        returned.note(
            &mut vec![copy(1, 1), copy(1, 5), copy(1, 9), copy(2, 5)],
            &mut records,
        );
        assert_eq!(records.definitions.len(), 4);
        assert_eq!(memory.used(Use::Returned), 4 * 32);
        records.clear();
        records.settles.push((QueueId(1), MessageId(9)));
        records.settles.push((QueueId(1), MessageId(8)));
        records
            .settled_ranges
            .push((QueueId(1), MessageId(2), MessageId(6)));
        returned.note(&mut Vec::new(), &mut records);
        let removed: Vec<_> = records.definitions.drain(..).collect();
        let expected = [9, 5].map(|id| remove((QueueId(1), MessageId(id))));
        assert_eq!(removed, expected);
        // Returned and settled in one batch: the removal comes last.
        records.clear();
        records.settles.push((QueueId(1), MessageId(3)));
        returned.note(&mut vec![copy(1, 3)], &mut records);
        let kinds: Vec<_> = records
            .definitions
            .iter()
            .map(|d| d.value.is_some())
            .collect();
        assert_eq!(kinds, [true, false]);
        assert_eq!(returned.n.load(Ordering::Relaxed), 2);
        assert_eq!(memory.used(Use::Returned), 2 * 32);
    }
}
