//! When the messages of one queue expire, wherever they stand in it.
//!
//! With one TTL for all, deadlines come in the order of the queue and a list of runs is enough: it is
//! trimmed from the front as messages leave. What comes out of order (per-message expiration shorter
//! than the one before it, requeued messages, priority levels) is kept in a sorted set. Queues without
//! TTL pay one comparison.

use std::collections::{BTreeSet, VecDeque};

/// Messages with consecutive sequence numbers that expire in the same millisecond.
#[derive(Clone, Copy, Debug)]
struct Run {
    deadline: u64,
    first_seq: u64,
    last_seq: u64,
}

/// What one item of the sorted set costs, with the slack of its nodes.
const SET_ITEM_BYTES: usize = 28;

/// Deadlines of the ready messages of a queue.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// Deadlines and sequence numbers both rise from front to back.
    in_order: VecDeque<Run>,
    /// Everything else: (deadline, seq).
    out_of_order: BTreeSet<(u64, u64)>,
}

impl Expiry {
    /// Notes that the message `seq`, new at the end of the queue, expires at `deadline`.
    pub(super) fn push(&mut self, deadline: u64, seq: u64) {
        match self.in_order.back_mut() {
            Some(last) if last.deadline == deadline && last.last_seq + 1 == seq => {
                last.last_seq = seq;
            }
            Some(last) if last.deadline > deadline || last.last_seq >= seq => {
                self.out_of_order.insert((deadline, seq));
            }
            _ => self.in_order.push_back(Run {
                deadline,
                first_seq: seq,
                last_seq: seq,
            }),
        }
    }

    /// Notes a message that is not at the end of the queue.
    pub(super) fn insert(&mut self, deadline: u64, seq: u64) {
        self.out_of_order.insert((deadline, seq));
    }

    /// Forgets a message that left from the head of the queue (`strictly_first`: nothing before
    /// it is ready any more, requeued messages aside) or from elsewhere.
    pub(super) fn left(&mut self, deadline: u64, seq: u64, strictly_first: bool) {
        if deadline != 0 && !self.out_of_order.is_empty() {
            self.out_of_order.remove(&(deadline, seq));
        }
        if strictly_first {
            while let Some(run) = self.in_order.front_mut() {
                if run.first_seq > seq {
                    break;
                }
                if run.last_seq > seq {
                    run.first_seq = seq + 1;
                    break;
                }
                self.in_order.pop_front();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.in_order.len() + self.out_of_order.len()
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        let runs = self.in_order.len() * size_of::<Run>();
        (runs + self.out_of_order.len() * SET_ITEM_BYTES) as u64
    }

    /// The earliest deadline; it may belong to a message that has left already.
    pub(super) fn next(&self) -> Option<u64> {
        let a = self.in_order.front().map(|run| run.deadline);
        let b = self.out_of_order.first().map(|(deadline, _)| *deadline);
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes one message whose deadline is at or before `now`. It may have left already.
    pub(super) fn pop(&mut self, now: u64) -> Option<u64> {
        if let Some(&(deadline, seq)) = self.out_of_order.first()
            && deadline <= now
        {
            self.out_of_order.pop_first();
            return Some(seq);
        }
        let run = self.in_order.front_mut()?;
        if run.deadline > now {
            return None;
        }
        let seq = run.first_seq;
        if run.first_seq == run.last_seq {
            self.in_order.pop_front();
        } else {
            run.first_seq += 1;
        }
        Some(seq)
    }

    pub(super) fn clear(&mut self) {
        *self = Expiry::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ttl_for_all_is_a_handful_of_runs() {
        let mut e = Expiry::default();
        for seq in 0..100_000 {
            e.push(1000 + seq / 1000, seq);
        }
        assert_eq!(e.in_order.len(), 100);
        for seq in 0..50_500 {
            e.left(1000 + seq / 1000, seq, true);
        }
        assert_eq!(e.in_order.len(), 50);
        assert_eq!(e.next(), Some(1050));
        assert_eq!(e.pop(1050), Some(50_500));
    }

    #[test]
    fn a_short_one_behind_a_long_one_comes_out_first() {
        let mut e = Expiry::default();
        e.push(90_000, 1);
        e.push(50, 2);
        assert_eq!(e.next(), Some(50));
        assert_eq!(e.pop(49), None);
        assert_eq!(e.pop(50), Some(2));
        assert_eq!(e.pop(50), None);
        e.left(90_000, 1, true);
        assert_eq!(e.next(), None);
    }
}
