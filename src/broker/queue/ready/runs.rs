//! Messages that are only in the log, in the order of their sequence numbers, as runs.

use std::collections::VecDeque;

use super::Entry;
use crate::broker::ports::{MessageId, RecoveredRun};
use crate::broker::redelivery::Known;

/// Messages of a run whose bodies are of different lengths.
const VARIED_MAX: u32 = 1024;

/// Consecutive messages that are only in the log and agree in everything but their number, and the
/// length of their bodies if there are not too many.
#[derive(Clone, Debug)]
pub(in crate::broker::queue) struct ColdRun {
    seq: u64,
    id: u64,
    expires_at: u64,
    count: u32,
    body_len: u32,
    delivery_count: u16,
    acquired_count: u16,
    redelivered: bool,
    /// Of each, where they differ: four octets a message instead of a run.
    #[allow(
        clippy::box_collection,
        reason = "most runs have none, and there may be millions of them"
    )]
    lens: Option<Box<VecDeque<u32>>>,
}

impl ColdRun {
    pub(super) fn of(entry: &Entry) -> ColdRun {
        ColdRun {
            seq: entry.seq,
            id: entry.id.0,
            expires_at: entry.expires_at,
            count: 1,
            body_len: entry.body_len,
            delivery_count: entry.delivery_count,
            acquired_count: entry.acquired_count,
            redelivered: entry.redelivered,
            lens: None,
        }
    }

    /// What recovery found; the first of them gets the number `seq`.
    pub(in crate::broker::queue) fn recovered(seq: u64, run: &RecoveredRun) -> ColdRun {
        ColdRun {
            seq,
            id: run.first_id.0,
            expires_at: run.target.expires_at,
            count: run.count,
            body_len: run.body_len,
            delivery_count: run.target.delivery_count,
            acquired_count: 0,
            redelivered: run.redelivered || run.target.delivery_count > 0,
            lens: None,
        }
    }

    /// The same, of what had come back before.
    pub(in crate::broker::queue) fn returned(
        seq: u64,
        run: &RecoveredRun,
        known: Known,
    ) -> ColdRun {
        ColdRun {
            delivery_count: known.delivery_count,
            acquired_count: known.acquired_count,
            redelivered: true,
            ..ColdRun::recovered(seq, run)
        }
    }

    /// Sequence number of the first message.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// When its messages expire, unix milliseconds; zero: never.
    pub(super) fn expires_at(&self) -> u64 {
        self.expires_at
    }

    pub(super) fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// The first and the last copy in the log.
    pub(super) fn ids(&self) -> (MessageId, MessageId) {
        let last = self.id + u64::from(self.count) - 1;
        (MessageId(self.id), MessageId(last))
    }

    /// Number, copy in the log and length of the body of each.
    pub(super) fn messages(&self) -> impl Iterator<Item = (u64, MessageId, u32)> {
        (0..self.count).map(|offset| {
            let n = u64::from(offset);
            (self.seq + n, MessageId(self.id + n), self.body_len(offset))
        })
    }

    fn body_len(&self, offset: u32) -> u32 {
        let len = self.lens.as_ref().and_then(|l| l.get(offset as usize));
        len.copied().unwrap_or(self.body_len)
    }

    fn entry(&self, offset: u32, priority: u8) -> Entry {
        Entry {
            seq: self.seq + u64::from(offset),
            id: MessageId(self.id + u64::from(offset)),
            message: None,
            expires_at: self.expires_at,
            body_len: self.body_len(offset),
            delivery_count: self.delivery_count,
            acquired_count: self.acquired_count,
            priority,
            redelivered: self.redelivered,
        }
    }

    /// Whether `next` can be one run with this one, before it.
    fn is_continued_by(&self, next: &ColdRun) -> bool {
        self.count > 0
            && self.seq + u64::from(self.count) == next.seq
            && self.id + u64::from(self.count) == next.id
            && self.expires_at == next.expires_at
            && self.delivery_count == next.delivery_count
            && self.acquired_count == next.acquired_count
            && self.redelivered == next.redelivered
            && match self.count.checked_add(next.count) {
                None => false,
                Some(count) => count <= VARIED_MAX || self.is_even_with(next),
            }
    }

    /// All bodies are of one length.
    fn is_even_with(&self, next: &ColdRun) -> bool {
        self.lens.is_none() && next.lens.is_none() && self.body_len == next.body_len
    }

    fn lens(&mut self) -> &mut VecDeque<u32> {
        let (len, count) = (self.body_len, self.count as usize);
        self.lens
            .get_or_insert_with(|| Box::new(std::iter::repeat_n(len, count).collect()))
    }

    fn n_lens(&self) -> usize {
        self.lens.as_ref().map_or(0, |lens| lens.len())
    }

    /// Adds `next`, which continues it, at the end.
    fn extend(&mut self, mut next: ColdRun) {
        if !self.is_even_with(&next) {
            self.lens().append(next.lens());
        }
        self.count += next.count;
    }

    /// Adds `before`, which it continues, at the front: a single message.
    fn precede(&mut self, before: &ColdRun) {
        if !before.is_even_with(self) {
            self.lens().push_front(before.body_len);
        }
        (self.seq, self.id) = (before.seq, before.id);
        self.count += 1;
    }

    /// Cuts off what is behind the first `count`.
    fn split_off(&mut self, count: u32) -> ColdRun {
        let rest = ColdRun {
            seq: self.seq + u64::from(count),
            id: self.id + u64::from(count),
            count: self.count - count,
            lens: self
                .lens
                .as_mut()
                .map(|lens| Box::new(lens.split_off(count as usize))),
            ..*self
        };
        self.count = count;
        rest
    }

    /// Takes the first message off.
    fn advance(&mut self) {
        self.seq += 1;
        self.id += 1;
        self.count -= 1;
        if let Some(lens) = &mut self.lens {
            lens.pop_front();
        }
    }
}

/// See the module. A run that becomes empty in the middle stays until more than half are.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: VecDeque<ColdRun>,
    n_empty: usize,
    n_messages: u64,
    /// Lengths of bodies that are kept one by one.
    n_lens: usize,
}

impl Runs {
    /// Messages.
    pub(super) fn len(&self) -> u64 {
        self.n_messages
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_messages == 0
    }

    /// Runs, the empty ones included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.runs.len()
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.runs.len() * size_of::<ColdRun>() + self.n_lens * size_of::<u32>()
    }

    pub(super) fn front(&self) -> Option<&ColdRun> {
        self.runs.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ColdRun> {
        self.runs.iter().filter(|run| run.count > 0)
    }

    /// Adds messages at the end.
    pub(super) fn push_back(&mut self, run: ColdRun) {
        self.n_messages += u64::from(run.count);
        match self.runs.back_mut() {
            Some(last) if last.is_continued_by(&run) => {
                let before = last.n_lens();
                last.extend(run);
                self.n_lens += last.n_lens() - before;
            }
            _ => {
                self.n_lens += run.n_lens();
                self.runs.push_back(run);
            }
        }
    }

    /// Adds one message at the front.
    pub(super) fn push_front(&mut self, run: ColdRun) {
        self.n_messages += 1;
        match self.runs.front_mut() {
            Some(next) if run.is_continued_by(next) => {
                let before = next.n_lens();
                next.precede(&run);
                self.n_lens += next.n_lens() - before;
            }
            _ => self.runs.push_front(run),
        }
    }

    /// Takes the first message.
    pub(super) fn pop_front(&mut self, priority: u8) -> Option<Entry> {
        let run = self.runs.front_mut()?;
        let entry = run.entry(0, priority);
        self.n_lens -= usize::from(run.lens.is_some());
        self.n_messages -= 1;
        run.advance();
        if run.count == 0 {
            self.n_empty += 1;
            self.tidy();
        }
        Some(entry)
    }

    /// Which run has the message `seq`, and where in it.
    fn position(&self, seq: u64) -> Option<(usize, u32)> {
        let after = self.runs.partition_point(|run| run.seq <= seq);
        let at = after.checked_sub(1)?;
        let run = self.runs.get(at)?;
        let offset = u32::try_from(seq - run.seq).ok()?;
        (offset < run.count).then_some((at, offset))
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.position(seq).is_some()
    }

    /// Takes the message `seq` out.
    pub(super) fn remove(&mut self, seq: u64, priority: u8) -> Option<Entry> {
        let (at, offset) = self.position(seq)?;
        let run = self.runs.get_mut(at)?;
        let entry = run.entry(offset, priority);
        self.n_lens -= usize::from(run.lens.is_some());
        self.n_messages -= 1;
        if offset > 0 {
            // Messages of one run expire in their order: seldom is it one from the middle.
            let mut rest = run.split_off(offset);
            rest.advance();
            if rest.count > 0 {
                self.runs.insert(at + 1, rest);
            }
            return Some(entry);
        }
        run.advance();
        if run.count == 0 {
            self.n_empty += 1;
            self.tidy();
        }
        Some(entry)
    }

    fn tidy(&mut self) {
        while self.runs.front().is_some_and(|run| run.count == 0) {
            self.runs.pop_front();
            self.n_empty -= 1;
        }
        while self.runs.back().is_some_and(|run| run.count == 0) {
            self.runs.pop_back();
            self.n_empty -= 1;
        }
        if self.n_empty * 2 > self.runs.len() {
            self.runs.retain(|run| run.count > 0);
            self.n_empty = 0;
        }
        let room = self.runs.capacity();
        if room > 64 && self.runs.len() < room / 4 {
            self.runs.shrink_to(room / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, body_len: u32) -> Entry {
        Entry {
            seq,
            id: MessageId(1000 + seq),
            message: None,
            expires_at: 0,
            body_len,
            delivery_count: 0,
            acquired_count: 0,
            priority: 0,
            redelivered: false,
        }
    }

    /// Whatever the order in which messages come and go, each comes out once, in order, as it went in,
    /// and what is left takes little.
    #[test]
    fn runs_give_back_what_went_in() {
        let len = |seq: u64| match seq / 100 % 3 {
            0 => 7,
            1 => seq as u32,
            _ => (seq % 2) as u32,
        };
        let mut runs = Runs::default();
        (5_000..20_000).for_each(|n| runs.push_back(ColdRun::of(&entry(n, len(n)))));
        for n in (0..5_000).rev() {
            runs.push_front(ColdRun::of(&entry(n, len(n))));
        }
        assert!(runs.bytes() < 20_000 * 6, "{} bytes", runs.bytes());
        let mut expected: Vec<u64> = (0..20_000).collect();
        for n in (0..20_000).step_by(7) {
            let removed = runs.remove(n, 0).expect("it is there");
            assert_eq!((removed.seq, removed.body_len), (n, len(n)));
            assert!(!runs.contains(n) && runs.remove(n, 0).is_none());
        }
        expected.retain(|n| n % 7 != 0);
        let named = runs.iter().flat_map(ColdRun::messages);
        let named: Vec<u64> = named
            .inspect(|(seq, id, l)| assert_eq!((id.0, *l), (1000 + seq, len(*seq))))
            .map(|(seq, ..)| seq)
            .collect();
        assert_eq!(named, expected);
        for n in expected {
            let entry = runs.pop_front(0).expect("there are more");
            assert_eq!((entry.seq, entry.id.0), (n, 1000 + n));
            assert_eq!(entry.body_len, len(n));
        }
        assert!(runs.is_empty() && runs.held() == 0 && runs.bytes() == 0);
    }
}
