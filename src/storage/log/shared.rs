//! Messages of a segment that several queues have a copy of: which copies are done with.
//!
//! A fan-out of small messages makes millions of copies, so a copy must cost next to nothing: a
//! count of two bytes per message, and what each queue is done with as ranges of ids. Queues are
//! served in order, so a queue mostly has one range that grows.

use std::collections::{BTreeMap, HashMap};

use crate::broker::ports::QueueId;

/// Says that the count does not fit and stands in `large`.
const LARGE: u16 = u16::MAX;

/// Ids as ranges that do not touch each other: first to one past the last.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn contains(&self, id: u64) -> bool {
        let before = self.0.range(..=id).next_back();
        before.is_some_and(|(_, end)| id < *end)
    }

    /// False if it was in there already.
    fn insert(&mut self, id: u64) -> bool {
        let mut start = id;
        if let Some((first, end)) = self.0.range_mut(..=id).next_back() {
            if id < *end {
                return false;
            }
            if *end == id {
                *end = id + 1;
                start = *first;
            }
        }
        let end = self.0.remove(&(id + 1)).unwrap_or(id + 1);
        self.0.insert(start, end);
        true
    }
}

/// The copies of one segment's messages that have several.
#[derive(Debug, Default)]
pub(super) struct SharedCopies {
    /// Copies left, by message from the segment's first on; zero: not shared, or done with.
    left: Vec<u16>,
    large: HashMap<u64, u32>,
    done: HashMap<QueueId, Ranges>,
}

impl SharedCopies {
    /// Notes a message with `n` copies, more than one.
    pub(super) fn add(&mut self, index: u64, n: u32) {
        let at = index as usize;
        if self.left.len() <= at {
            self.left.resize(at + 1, 0);
        }
        self.left[at] = match u16::try_from(n) {
            Ok(n) if n < LARGE => n,
            _ => {
                self.large.insert(index, n);
                LARGE
            }
        };
    }

    /// Copies left of a message, if it has several.
    pub(super) fn left(&self, index: u64) -> Option<u32> {
        match self.left.get(index as usize).copied() {
            None | Some(0) => None,
            Some(LARGE) => self.large.get(&index).copied(),
            Some(n) => Some(u32::from(n)),
        }
    }

    /// Forgets a message: all its copies are done with.
    pub(super) fn remove(&mut self, index: u64) {
        if let Some(left) = self.left.get_mut(index as usize) {
            *left = 0;
            self.large.remove(&index);
        }
    }

    /// Notes that a queue is done with its copy, and returns how many are left; `None` if that was
    /// known.
    pub(super) fn settle(&mut self, queue: QueueId, index: u64) -> Option<u32> {
        let left = self.left(index)?;
        if !self.done.entry(queue).or_default().insert(index) {
            return None;
        }
        match left - 1 {
            0 => self.remove(index),
            n if self.large.contains_key(&index) => drop(self.large.insert(index, n)),
            n => self.left[index as usize] = n as u16,
        }
        Some(left - 1)
    }

    /// Whether a queue is done with its copy.
    pub(super) fn is_settled(&self, queue: QueueId, index: u64) -> bool {
        self.done
            .get(&queue)
            .is_some_and(|ranges| ranges.contains(index))
    }

    /// What each queue is done with: first index and number.
    pub(super) fn settled(&self) -> impl Iterator<Item = (QueueId, u64, u64)> {
        let mut done: Vec<_> = self.done.iter().collect();
        done.sort_unstable_by_key(|(queue, _)| **queue);
        done.into_iter().flat_map(|(queue, ranges)| {
            let each = ranges.0.iter();
            each.map(|(first, end)| (*queue, *first, end - first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_are_a_set() {
        let mut ranges = Ranges::default();
        let mut model = BTreeSet::new();
        let mut x = 7u64;
        for _ in 0..5_000 {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let id = (x >> 33) % 2_000;
            assert_eq!(ranges.insert(id), model.insert(id));
        }
        for id in 0..2_001 {
            assert_eq!(ranges.contains(id), model.contains(&id), "{id}");
        }
        let gaps = model.iter().filter(|id| !model.contains(&(**id + 1)));
        assert_eq!(ranges.0.len(), gaps.count(), "touching ranges are one");
    }

    #[test]
    fn copies_are_counted_once_each() {
        let mut shared = SharedCopies::default();
        shared.add(3, 2);
        shared.add(4, 70_000);
        assert_eq!((shared.left(2), shared.left(3)), (None, Some(2)));
        assert_eq!(shared.settle(QueueId(1), 3), Some(1));
        assert_eq!(shared.settle(QueueId(1), 3), None);
        assert_eq!(shared.settle(QueueId(2), 3), Some(0));
        assert_eq!(shared.left(3), None);
        for queue in 0..69_999 {
            assert_eq!(
                shared.settle(QueueId(queue), 4),
                Some(69_999 - queue as u32)
            );
        }
        assert!(shared.is_settled(QueueId(5), 4) && !shared.is_settled(QueueId(69_999), 4));
        assert_eq!(shared.settle(QueueId(69_999), 4), Some(0));
    }
}
