//! Which group each returned copy is in, as runs of consecutive ids.

use std::collections::BTreeMap;

use crate::broker::ports::{MessageId, QueueId};

/// Ids, first and last.
pub(super) type Ids = (u64, u64);

/// About what a run takes in a tree that grows at its end, whose nodes are half full.
pub(super) const RUN_BYTES: usize = 72;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Run {
    first: u64,
    group: u64,
}

/// Runs that do not overlap, by queue and last id: copies are mostly settled from the front, where that
/// changes nothing but the value.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Runs(BTreeMap<(QueueId, u64), Run>);

impl Runs {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The group that a copy is in.
    pub(super) fn group_of(&self, queue: QueueId, id: MessageId) -> Option<u64> {
        let ((of, _), run) = self.0.range((queue, id.0)..).next()?;
        (*of == queue && run.first <= id.0).then_some(run.group)
    }

    /// Adds a run of which nothing is there.
    pub(super) fn insert(&mut self, queue: QueueId, (first, last): Ids, group: u64) {
        self.0.insert((queue, last), Run { first, group });
    }

    /// Takes out what is there of these ids; `each` gets the parts.
    pub(super) fn take(
        &mut self,
        queue: QueueId,
        (first, last): Ids,
        mut each: impl FnMut(u64, Ids),
    ) {
        while let Some((&(of, end), run)) = self.0.range_mut((queue, first)..).next() {
            let Run {
                first: start,
                group,
            } = *run;
            if of != queue || start > last {
                return;
            }
            each(group, (start.max(first), end.min(last)));
            let goes_on = end <= last;
            match goes_on {
                true => drop(self.0.remove(&(of, end))),
                // It ends behind them, so there are more.
                false => run.first = last + 1,
            }
            if start < first {
                self.insert(queue, (start, first - 1), group);
            }
            if !goes_on {
                return;
            }
        }
    }

    /// The parts of these ids in their order, with their groups, if they are in any.
    pub(super) fn split(
        &self,
        queue: QueueId,
        (first, last): Ids,
        mut each: impl FnMut(Ids, Option<u64>),
    ) {
        let mut next = first;
        let known = self.0.range((queue, first)..);
        let known = known.take_while(|((of, _), run)| *of == queue && run.first <= last);
        for ((_, end), run) in known {
            if run.first > next {
                each((next, run.first - 1), None);
            }
            let end = *end.min(&last);
            each((run.first.max(next), end), Some(run.group));
            // Of what is behind the last id there is nothing.
            match end.checked_add(1) {
                Some(behind) => next = behind,
                None => return,
            }
        }
        if next <= last {
            each((next, last), None);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (QueueId, Ids, u64)> {
        let all = self.0.iter();
        all.map(|((queue, last), run)| (*queue, (run.first, *last), run.group))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as a map of single copies.
        #[test]
        fn they_are_what_is_known_of_each(
            steps in prop::collection::vec((0..3u8, 1..3u64, 1..40u64, 0..12u64), 1..60),
        ) {
            let mut runs = Runs::default();
            let mut single: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            for (group, (what, queue, first, more)) in steps.into_iter().enumerate() {
                let (group, last) = (group as u64, first + more);
                let mut taken = BTreeMap::new();
                runs.take(QueueId(queue), (first, last), |group, (first, last)| {
                    taken.extend((first..=last).map(|id| ((queue, id), group)));
                });
                let expected = single.range((queue, first)..=(queue, last));
                prop_assert_eq!(taken, expected.map(|(id, group)| (*id, *group)).collect());
                single.retain(|(of, id), _| *of != queue || !(first..=last).contains(id));
                if what > 0 {
                    runs.insert(QueueId(queue), (first, last), group);
                    single.extend((first..=last).map(|id| ((queue, id), group)));
                }
                for id in 0..60 {
                    let group = runs.group_of(QueueId(queue), MessageId(id));
                    prop_assert_eq!(group, single.get(&(queue, id)).copied());
                }
                let mut seen = Vec::new();
                runs.split(QueueId(queue), (3, 30), |(first, last), group| {
                    seen.extend((first..=last).map(|id| (id, group)));
                });
                let expected = (3..=30).map(|id| (id, single.get(&(queue, id)).copied()));
                prop_assert_eq!(seen, expected.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn ids_end_somewhere() {
        let (queue, all) = (QueueId(u64::MAX), (0, u64::MAX));
        let mut runs = Runs::default();
        runs.insert(queue, all, 1);
        let mut seen = Vec::new();
        runs.split(queue, all, |ids, group| seen.push((ids, group)));
        assert_eq!(seen, [(all, Some(1))]);
        runs.take(queue, all, |_, _| {});
        assert_eq!(runs.len(), 0);
    }
}
