//! What is known of each segment while the broker runs: where messages are, which are done with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::open::SegmentFile;
use super::pending::Durable;
use super::shared::SharedCopies;
use super::summary::Settled;
use crate::broker::ports::{Lsn, MessageId, QueueId, RecoveredRun};

/// Distance between the places of a segment that are remembered; a message is found by reading on
/// from the place before it.
pub(super) const SPARSE_BYTES: u32 = 64 * 1024;

/// A log position as segment and offset.
pub(super) fn lsn(segment: u32, offset: u32) -> Lsn {
    Lsn(u64::from(segment) << 32 | u64::from(offset))
}

/// Whether a segment has an index beside it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Index {
    Wanted,
    /// It has none, and was sealed when a pass looked at it.
    Seen,
    /// It has none, and was there for a second pass: it will not go at once.
    Due,
    /// It has one, or is not worth one.
    Settled,
}

/// Remembers a frame at `offset` whose messages start at `first_id`, if the last one remembered is
/// far enough.
pub(super) fn note_frame(sparse: &mut Vec<(u64, u32)>, first_id: u64, offset: u32) {
    if sparse
        .last()
        .is_none_or(|(_, last)| offset - last >= SPARSE_BYTES)
    {
        sparse.push((first_id, offset));
    }
}

/// A segment.
pub(super) struct Segment {
    /// None: it is not made yet.
    pub(super) file: Option<Arc<SegmentFile>>,
    /// Ids of its messages are in `first_id..next_id`.
    pub(super) first_id: u64,
    pub(super) next_id: u64,
    /// Bytes in use.
    pub(super) len: u32,
    /// Copies that are not done with.
    pub(super) live: u64,
    /// Copies that were ever in it.
    pub(super) copies: u64,
    /// One bit per message: no copy of it is left.
    pub(super) done: Vec<u64>,
    /// Messages with several copies.
    pub(super) shared: SharedCopies,
    /// (first id, offset) of frames, [`SPARSE_BYTES`] apart.
    pub(super) sparse: Vec<(u64, u32)>,
    /// Copies that queues are done with, as far as that is durable.
    pub(super) settled: u64,
    /// So many of them are in the notes beside it.
    pub(super) noted: u64,
    /// Nothing is appended any more.
    pub(super) sealed: bool,
    /// Whether it has an index.
    pub(super) index: Index,
    /// Was rewritten when it had so many live copies; not again before half of them are gone.
    pub(super) compacted_at: u64,
}

impl Segment {
    pub(super) fn new(file: Option<Arc<SegmentFile>>, first_id: u64) -> Segment {
        Segment {
            file,
            first_id,
            next_id: first_id,
            len: 0,
            live: 0,
            copies: 0,
            done: Vec::new(),
            shared: SharedCopies::default(),
            sparse: Vec::new(),
            settled: 0,
            noted: 0,
            sealed: false,
            index: Index::Wanted,
            compacted_at: u64::MAX,
        }
    }

    fn place(&self, id: u64) -> (usize, u64) {
        let at = id - self.first_id;
        ((at / 64) as usize, 1 << (at % 64))
    }

    pub(super) fn is_done(&self, id: u64) -> bool {
        let (word, bit) = self.place(id);
        self.done.get(word).is_some_and(|w| w & bit != 0)
    }

    pub(super) fn set_done(&mut self, id: u64) {
        let (word, bit) = self.place(id);
        if self.done.len() <= word {
            self.done.resize(word + 1, 0);
        }
        self.done[word] |= bit;
    }

    /// Notes a frame at `offset` whose messages start at `first_id`.
    pub(super) fn note_frame(&mut self, first_id: u64, offset: u32) {
        note_frame(&mut self.sparse, first_id, offset);
    }

    /// Passes over the ids up to this one: they are done with.
    pub(super) fn skip_to(&mut self, id: u64) {
        for skipped in self.next_id..id {
            self.set_done(skipped);
        }
        self.next_id = self.next_id.max(id);
    }

    /// Notes a message with `n` copies; ids that were passed over are done with.
    pub(super) fn note_message(&mut self, id: u64, n: u32) {
        self.skip_to(id);
        self.next_id = id + 1;
        self.live += u64::from(n);
        self.copies += u64::from(n);
        match n {
            0 => self.set_done(id),
            1 => {}
            n => self.shared.add(id - self.first_id, n),
        }
    }

    /// Notes all messages up to `next_id`: those with copies are in runs, the others are done with.
    pub(super) fn note_runs(&mut self, next_id: u64, runs: &[RecoveredRun]) {
        self.skip_to(next_id);
        for run in runs {
            for id in run.first_id.0..run.first_id.0 + u64::from(run.count) {
                let (word, bit) = self.place(id);
                match self.done.get_mut(word) {
                    Some(done) if *done & bit != 0 => *done &= !bit,
                    _ => {
                        let index = id - self.first_id;
                        let n = self.shared.left(index).unwrap_or(1);
                        self.shared.add(index, n + 1);
                    }
                }
            }
            self.live += u64::from(run.count);
            self.copies += u64::from(run.count);
        }
    }

    /// Notes that a queue is done with its copy, for good: see [`Segments::apply`].
    pub(super) fn settle(&mut self, queue: QueueId, id: u64) {
        if self.is_done(id) {
            return;
        }
        let index = id - self.first_id;
        if self.shared.left(index).is_some() {
            match self.shared.settle(queue, index) {
                None => return,
                Some(0) => self.set_done(id),
                Some(_) => {}
            }
        } else {
            self.set_done(id);
        }
        self.live -= 1;
        self.settled += 1;
    }

    /// Notes that no copy of a message is left.
    pub(super) fn settle_all(&mut self, id: u64) {
        if self.is_done(id) {
            return;
        }
        let index = id - self.first_id;
        let left = u64::from(self.shared.left(index).unwrap_or(1));
        self.shared.remove(index);
        self.set_done(id);
        self.live -= left;
        self.settled += left;
    }

    /// Something is settled that the notes beside it do not say.
    pub(super) fn is_dirty(&self) -> bool {
        self.settled != self.noted
    }

    /// Whether a queue is done with its copy of a message that is in this segment.
    pub(super) fn is_settled(&self, queue: QueueId, id: u64) -> bool {
        self.is_done(id) || self.shared.is_settled(queue, id - self.first_id)
    }

    /// Where to start reading for a message.
    pub(super) fn seek(&self, id: u64) -> u32 {
        let at = self.sparse.partition_point(|(first, _)| *first <= id);
        let before = at.checked_sub(1).and_then(|at| self.sparse.get(at));
        before.map_or(0, |(_, offset)| *offset)
    }

    /// Where a message's frame ends, at most.
    pub(super) fn reach(&self, id: u64) -> u32 {
        let at = self.sparse.partition_point(|(first, _)| *first <= id);
        let behind = self.sparse.get(at);
        behind.map_or(self.len, |(_, offset)| *offset)
    }
}

/// All segments by number; ids rise with the number.
#[derive(Default)]
pub(super) struct Segments {
    pub(super) by_number: BTreeMap<u32, Segment>,
    /// (first id, number), to find a message's segment; empty segments are not in it.
    pub(super) by_id: Vec<(u64, u32)>,
}

impl Segments {
    pub(super) fn insert(&mut self, number: u32, segment: Segment) {
        let at = self.by_id.partition_point(|(_, n)| *n < number);
        self.by_id.insert(at, (segment.first_id, number));
        self.by_number.insert(number, segment);
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Segment> {
        self.by_id.retain(|(_, n)| *n != number);
        self.by_number.remove(&number)
    }

    /// The segment that has the message.
    pub(super) fn of(&mut self, id: MessageId) -> Option<(u32, &mut Segment)> {
        let mut at = self.by_id.partition_point(|(first, _)| *first <= id.0);
        while at > 0 {
            at -= 1;
            let number = self.by_id[at].1;
            // Segments without messages share their first id with the next one.
            let holds = self
                .by_number
                .get(&number)
                .is_some_and(|s| s.first_id <= id.0 && id.0 < s.next_id);
            if holds {
                return self.by_number.get_mut(&number).map(|s| (number, s));
            }
            if self
                .by_number
                .get(&number)
                .is_some_and(|s| s.next_id > s.first_id)
            {
                return None;
            }
        }
        None
    }

    /// Notes that a queue is done with its copies, for good. Whatever is believed of a segment (it may
    /// go, be rewritten, be noted beside it) is believed of what was settled here, so only what no
    /// crash can undo comes here.
    pub(super) fn apply(&mut self, settled: &Durable<Settled>) {
        let Settled { queue, first, last } = **settled;
        let mut id = first;
        while id <= last {
            let Some((_, segment)) = self.of(MessageId(id)) else {
                // On to the next segment there is.
                let next = self.by_id.partition_point(|(first, _)| *first <= id);
                let Some((first, _)) = self.by_id.get(next) else {
                    return;
                };
                id = *first;
                continue;
            };
            let end = last.min(segment.next_id - 1);
            for id in id..=end {
                segment.settle(queue, id);
            }
            id = end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_counted_until_the_last_is_done() {
        let mut s = Segment::new(None, 10);
        s.note_message(10, 1);
        s.note_message(11, 3);
        s.note_message(14, 1);
        assert_eq!((s.live, s.is_done(12), s.is_done(13)), (5, true, true));
        for (queue, id, live) in [
            (1, 11, 4),
            (1, 11, 4),
            (2, 11, 3),
            (3, 11, 2),
            (3, 11, 2),
            (1, 10, 1),
            (1, 14, 0),
        ] {
            s.settle(QueueId(queue), id);
            assert_eq!((s.live, s.settled), (live, 5 - live), "{queue} {id}");
            assert_eq!(s.is_done(11), live < 3);
        }
    }

    #[test]
    fn a_message_is_found_behind_empty_segments() {
        let mut all = Segments::default();
        let mut first = Segment::new(None, 1);
        first.note_message(1, 1);
        all.insert(1, first);
        all.insert(2, Segment::new(None, 2));
        let mut third = Segment::new(None, 2);
        third.note_message(2, 1);
        all.insert(3, third);
        all.insert(4, Segment::new(None, 3));
        assert_eq!(all.of(MessageId(1)).map(|(n, _)| n), Some(1));
        assert_eq!(all.of(MessageId(2)).map(|(n, _)| n), Some(3));
        assert_eq!(all.of(MessageId(3)).map(|(n, _)| n), None);
    }
}
