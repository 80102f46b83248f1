//! Publisher confirms of one channel.
//!
//! Each publish waits for a log position: its own, if some copy is durable, otherwise that of the
//! publish before it. Order is kept by construction, and a channel without persistent messages never
//! waits for a disk.

use std::collections::VecDeque;

use crate::broker::ports::Lsn;

/// Publishes of a channel in confirm mode.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Number of the latest publish.
    latest: u64,
    /// The last publish of a run that waits for the same position, in order.
    waiting: VecDeque<(u64, Lsn)>,
    /// Publishes that no `ack multiple` passes, in order.
    marks: VecDeque<(u64, Mark)>,
    /// All up to this one were told.
    told: u64,
    position: Lsn,
}

/// What became of a publish that is told by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mark {
    /// Nacked in its turn.
    Refused,
    /// Returned: what was published before it is told apart.
    Returned,
}

/// A `basic.ack` or `basic.nack` to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Ack { upto: u64, multiple: bool },
    Nack(u64),
}

impl Confirms {
    /// The number of a new publish.
    pub(super) fn next(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// A publish was flushed: it is safe at `position` (zero: nothing to wait for).
    pub(super) fn flushed(&mut self, number: u64, position: Lsn, refused: bool) {
        self.position = self.position.max(position);
        if refused {
            self.marks.push_back((number, Mark::Refused));
        }
        match self.waiting.back_mut() {
            Some((last, at)) if *at == self.position => *last = number,
            _ => self.waiting.push_back((number, self.position)),
        }
    }

    /// A publish is being returned; [`Self::flushed`] comes next for it.
    pub(super) fn returned(&mut self, number: u64) {
        self.marks.push_back((number, Mark::Returned));
    }

    /// The position that something waits for.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        self.waiting.back().map(|(_, at)| *at)
    }

    /// What can be told now that everything up to `durable` is safe.
    pub(super) fn settle(&mut self, durable: Lsn, out: &mut Vec<Verdict>) -> u64 {
        let mut upto = self.told;
        while let Some((last, at)) = self.waiting.front()
            && *at <= durable
        {
            upto = *last;
            self.waiting.pop_front();
        }
        let n = upto - self.told;
        while let Some(&(number, mark)) = self.marks.front()
            && number <= upto
        {
            self.marks.pop_front();
            self.ack_upto(number - 1, out);
            if mark == Mark::Refused {
                out.push(Verdict::Nack(number));
                self.told = number;
            }
        }
        self.ack_upto(upto, out);
        n
    }

    fn ack_upto(&mut self, upto: u64, out: &mut Vec<Verdict>) {
        if upto > self.told {
            out.push(Verdict::Ack {
                upto,
                multiple: upto - self.told > 1,
            });
            self.told = upto;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(c: &mut Confirms, durable: u64) -> Vec<Verdict> {
        let mut out = vec![];
        c.settle(Lsn(durable), &mut out);
        out
    }

    #[test]
    fn order_is_kept_and_transient_ones_wait_for_those_before_them() {
        let mut c = Confirms::default();
        for (n, at) in [(1, 0), (2, 50), (3, 0), (4, 90)] {
            assert_eq!(c.next(), n);
            c.flushed(n, Lsn(at), false);
        }
        assert_eq!(
            settle(&mut c, 0),
            [Verdict::Ack {
                upto: 1,
                multiple: false
            }]
        );
        assert_eq!(
            settle(&mut c, 60),
            [Verdict::Ack {
                upto: 3,
                multiple: true
            }]
        );
        assert_eq!(settle(&mut c, 60), []);
        assert_eq!(
            settle(&mut c, 90),
            [Verdict::Ack {
                upto: 4,
                multiple: false
            }]
        );
    }

    #[test]
    fn no_ack_passes_a_returned_publish() {
        let ack = |upto, multiple| Verdict::Ack { upto, multiple };
        let mut c = Confirms::default();
        for n in 1..=6 {
            c.next();
            if n == 4 || n == 5 {
                c.returned(n);
            }
            c.flushed(n, Lsn(if n == 2 { 50 } else { 0 }), false);
        }
        assert_eq!(settle(&mut c, 0), [ack(1, false)]);
        let want = [ack(3, true), ack(4, false), ack(6, true)];
        assert_eq!(settle(&mut c, 50), want);
    }

    #[test]
    fn no_ack_passes_a_refused_publish() {
        let mut c = Confirms::default();
        for n in 1..=5 {
            c.next();
            c.flushed(n, Lsn(0), n == 3 || n == 5);
        }
        let want = [
            Verdict::Ack {
                upto: 2,
                multiple: true,
            },
            Verdict::Nack(3),
            Verdict::Ack {
                upto: 4,
                multiple: false,
            },
            Verdict::Nack(5),
        ];
        assert_eq!(settle(&mut c, 0), want);
    }
}
