//! How groups of returned copies are stored.

use super::runs::Ids;
use super::{KIND, Known};
use crate::broker::codec::{self, DefinitionError};
use crate::broker::death::DeathReason;
use crate::broker::ports::{DefinitionChange, MessageId, QueueId};
use crate::protocol::field_table::{FieldTable, FieldValue};

/// Numbers of groups in the store are below this.
pub(super) const NUMBERS: u64 = 1 << 63;

/// What a definition is stored under.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Name {
    /// A group, by its number.
    Group(u64),
    /// A single copy, as they were stored one by one.
    Copy(QueueId, MessageId),
}

impl Name {
    /// The name that a key says.
    ///
    /// # Errors
    /// One that was not written here.
    pub(super) fn read(key: &[u8]) -> Result<Name, DefinitionError> {
        // Parts of eight octets, each behind its length.
        let number = |at: usize| {
            let octets = key.get(at + 4..at + 12).and_then(|b| b.first_chunk::<8>());
            octets.map(|b| u64::from_be_bytes(*b))
        };
        match (number(0), number(12), key.len()) {
            (Some(group), None, 12) if group < NUMBERS => Ok(Name::Group(group)),
            (Some(queue), Some(id), 24) => Ok(Name::Copy(QueueId(queue), MessageId(id))),
            _ => Err(DefinitionError("malformed name of returned copies".into())),
        }
    }

    fn key(self) -> Vec<u8> {
        match self {
            Name::Group(number) => codec::key(&[&number.to_be_bytes()]),
            Name::Copy(queue, id) => codec::key(&[&queue.0.to_be_bytes(), &id.0.to_be_bytes()]),
        }
    }

    pub(super) fn remove(self) -> DefinitionChange {
        DefinitionChange {
            kind: KIND,
            key: self.key(),
            value: None,
        }
    }
}

/// What the value of a definition says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stored {
    /// Of two groups with one copy, the later one counts.
    pub(super) generation: u64,
    pub(super) queue: QueueId,
    pub(super) known: Known,
    /// Ascending.
    pub(super) runs: Vec<Ids>,
}

impl Stored {
    pub(super) fn put(&self, number: u64) -> DefinitionChange {
        let mut t = FieldTable::new();
        t.insert("generation", self.generation as i64);
        t.insert("queue", self.queue.0 as i64);
        t.insert("ids", FieldValue::Bytes(packed(&self.runs)));
        t.insert("delivery_count", i64::from(self.known.delivery_count));
        t.insert("acquired_count", i64::from(self.known.acquired_count));
        if self.known.retry_at > 0 {
            t.insert("retry_at", self.known.retry_at as i64);
        }
        if let Some(reason) = self.known.dead {
            t.insert("dead", reason.as_str());
        }
        DefinitionChange {
            kind: KIND,
            key: Name::Group(number).key(),
            value: Some(codec::value(&t)),
        }
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// A value that was not written here, or by a later version.
    pub(super) fn read(name: Name, value: &[u8]) -> Result<Stored, DefinitionError> {
        let t = codec::fields(value)?;
        let field = |name: &str| t.get(name).and_then(FieldValue::as_integer);
        let count = |name: &str| u16::try_from(field(name).unwrap_or(0)).unwrap_or(u16::MAX);
        let missing = |what| DefinitionError(format!("returned copies have no {what}"));
        let reason = t.get("dead").and_then(FieldValue::as_str);
        let known = Known {
            delivery_count: count("delivery_count"),
            acquired_count: count("acquired_count"),
            retry_at: u64::try_from(field("retry_at").unwrap_or(0)).unwrap_or(0),
            dead: reason.and_then(DeathReason::of),
        };
        let (generation, queue, runs) = match name {
            Name::Copy(queue, id) => (0, queue, vec![(id.0, id.0)]),
            Name::Group(_) => {
                let runs = match t.get("ids") {
                    Some(FieldValue::Bytes(packed)) => unpacked(packed),
                    _ => None,
                };
                let queue = field("queue").ok_or_else(|| missing("queue"))?;
                let generation = field("generation").ok_or_else(|| missing("generation"))?;
                let runs = runs.ok_or_else(|| missing("ids"))?;
                (generation as u64, QueueId(queue as u64), runs)
            }
        };
        Ok(Stored {
            generation,
            queue,
            known,
            runs,
        })
    }
}

/// Seven bits an octet, the lowest first; all but the last have the eighth.
fn pack(mut number: u64, into: &mut Vec<u8>) {
    while number > 0x7f {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn unpack(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (octet, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(octet & 0x7f);
        if bits > u64::MAX >> shift {
            return None;
        }
        number |= bits << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Each run as how far it is behind the one before, and how many more than one it has.
fn packed(runs: &[Ids]) -> Vec<u8> {
    let (mut out, mut next) = (Vec::new(), 1u64);
    for (first, last) in runs {
        pack(first.wrapping_sub(next), &mut out);
        pack(last - first, &mut out);
        next = last.wrapping_add(1);
    }
    out
}

fn unpacked(mut octets: &[u8]) -> Option<Vec<Ids>> {
    let (mut runs, mut next) = (Vec::new(), Some(1u64));
    while !octets.is_empty() {
        let first = next?.checked_add(unpack(&mut octets)?)?;
        let last = first.checked_add(unpack(&mut octets)?)?;
        runs.push((first, last));
        next = last.checked_add(1);
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored() -> Stored {
        Stored {
            generation: 5,
            queue: QueueId(7),
            known: Known {
                delivery_count: 3,
                acquired_count: 65535,
                retry_at: 1_700_000_000_123,
                dead: None,
            },
            runs: vec![(1, 1), (3, 300), (u64::MAX - 1, u64::MAX)],
        }
    }

    #[test]
    fn a_group_is_read_as_it_was_written() {
        let reasons = DeathReason::ALL.map(Some);
        for dead in reasons.into_iter().chain([None]) {
            let mut it = stored();
            it.known.dead = dead;
            it.generation = u64::MAX;
            let change = it.put(9);
            let name = Name::read(&change.key);
            assert_eq!(name, Ok(Name::Group(9)));
            let value = change.value.expect("a value");
            assert_eq!(Stored::read(Name::Group(9), &value), Ok(it));
        }
    }

    #[test]
    fn the_octets_of_a_group_are_those_of_its_format() {
        let mut it = stored();
        it.known.dead = Some(DeathReason::DeliveryLimit);
        let change = it.put(9);
        let copy = Name::Copy(QueueId(7), MessageId(9));
        let made = [
            ("key", change.key),
            ("value", change.value.expect("put")),
            ("key of a single copy", copy.key()),
        ];
        crate::golden::check("returned.txt", &made);
    }

    #[test]
    fn a_single_copy_of_before_is_a_run_of_one() {
        let mut t = FieldTable::new();
        t.insert("delivery_count", 3i64);
        t.insert("acquired_count", 65535i64);
        t.insert("retry_at", 1_700_000_000_123i64);
        let name = Name::Copy(QueueId(7), MessageId(9));
        assert_eq!(Name::read(&name.key()), Ok(name));
        let expected = Stored {
            generation: 0,
            runs: vec![(9, 9)],
            ..stored()
        };
        assert_eq!(Stored::read(name, &codec::value(&t)), Ok(expected));
    }

    #[test]
    fn what_was_not_written_here_is_refused() {
        let value = |change: DefinitionChange| change.value.expect("a value");
        for key in [
            codec::key(&[&NUMBERS.to_be_bytes()]),
            codec::key(&[&[0; 7]]),
            codec::key(&[&[0; 8], &[0; 8], &[0; 8]]),
            Vec::new(),
        ] {
            assert!(Name::read(&key).is_err(), "{key:?}");
        }
        let good = codec::fields(&value(stored().put(1))).expect("a table");
        for field in ["generation", "queue", "ids"] {
            let mut t = FieldTable::new();
            let others = good.iter().filter(|(name, _)| name.to_str() != Some(field));
            others.for_each(|(name, value)| t.insert(name.to_str().unwrap_or(""), value.clone()));
            assert!(Stored::read(Name::Group(1), &codec::value(&t)).is_err());
        }
        for octets in [
            // No end; more than 64 bits; a run that ends behind the last id; one more behind it.
            vec![0x80],
            vec![1],
            [vec![0xff; 9], vec![2, 0]].concat(),
            [vec![5], vec![0xff; 9], vec![1]].concat(),
            [vec![0], vec![0xfe], vec![0xff; 8], vec![1, 0, 0]].concat(),
        ] {
            assert_eq!(unpacked(&octets), None, "{octets:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_do_harm(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Name::read(&octets);
            let mut read = None;
            let used = allocation_counter::measure(|| read = unpacked(&octets));
            prop_assert!(used.bytes_max <= 256 + 64 * octets.len() as u64, "{}", used.bytes_max);
            if let Some(runs) = read {
                prop_assert!(runs.iter().all(|(first, last)| first <= last));
                prop_assert!(runs.is_sorted_by(|a, b| a.1 < b.0));
                prop_assert_eq!(unpacked(&packed(&runs)), Some(runs));
            }
        }
    }
}
