//! What was promised to clients, and whether it is kept.
//!
//! A message that is routed to a queue makes a copy, named by the message and that queue: a dead letter is
//! still the copy of the queue it died in. Whatever happens to the broker, a copy that was confirmed is there
//! until it is settled, one that is settled for good does not come back, and none is there twice.

use std::collections::HashMap;

/// A message, by its number, and the queue (an index) it was routed to first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CopyId {
    pub message: u64,
    pub queue: usize,
}

/// What is known of a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// On its way to the broker: there or not.
    Published,
    /// There, and after a kill if `durable`.
    Kept { durable: bool },
    /// Acknowledged, and not known whether that arrived; what it was before makes no difference.
    Settling,
    /// Delivered again while it was acknowledged: right only if the acknowledgement never arrived.
    Questioned,
    /// Acknowledged, as the broker has shown with something later; for good if this many are.
    Gone { number: u64 },
    /// There or not: both are right.
    Doubtful,
}

#[derive(Debug)]
struct Copy {
    state: State,
    persistent: bool,
    /// Whether it was delivered since the last kill: from its queue, and as a dead letter.
    delivered: [bool; 2],
    /// A client has it.
    out: bool,
    /// It was delivered as a dead letter since the last kill.
    dead: bool,
}

/// A delivery.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub copy: CopyId,
    pub dead: bool,
    pub redelivered: bool,
    /// Who got it, and who published it: order is kept between the two.
    pub consumer: u64,
    pub publisher: u64,
    /// Which one of this publisher; `None` where there is no order.
    pub sequence: Option<u64>,
}

#[derive(Default)]
pub struct History {
    copies: HashMap<CopyId, Copy>,
    /// Consumer, publisher and queue → the last one in order.
    last: HashMap<(u64, u64, usize), u64>,
    /// Settled copies so far.
    settled: u64,
    /// So many of them are for good: something published after them was confirmed.
    for_good: u64,
}

impl History {
    /// Copies that are on their way.
    pub fn published(&mut self, copy: CopyId, persistent: bool) {
        let fresh = Copy {
            state: State::Published,
            persistent,
            delivered: [false; 2],
            out: false,
            dead: false,
        };
        assert!(self.copies.insert(copy, fresh).is_none(), "a number twice");
    }

    /// How many are settled, to be given to [`History::kept`] with what is published now.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The broker has taken it; and answers for it if it is persistent and was `confirmed`.
    pub fn kept(&mut self, copy: CopyId, confirmed: bool, settled_before: u64) {
        let Some(c) = self.copies.get_mut(&copy) else {
            return;
        };
        let durable = confirmed && c.persistent;
        if c.state == State::Published || c.state == (State::Kept { durable: false }) {
            c.state = State::Kept { durable };
        }
        if durable {
            self.for_good = self.for_good.max(settled_before);
        }
    }

    /// It was never published after all: rolled back.
    pub fn undone(&mut self, copy: CopyId) {
        self.copies
            .entry(copy)
            .and_modify(|c| c.state = State::Gone { number: 0 });
    }

    /// Nobody knows any more.
    pub fn doubtful(&mut self, copy: CopyId) {
        self.copies.entry(copy).and_modify(|c| {
            if !matches!(c.state, State::Gone { .. }) {
                c.state = State::Doubtful;
            }
        });
    }

    /// All copies of these queues that no client has may be gone or not (a purge, an automatic acknowledgement of
    /// something that never arrived).
    pub fn shaken(&mut self, of: impl Fn(usize) -> bool) {
        for (id, c) in &mut self.copies {
            let known = matches!(c.state, State::Kept { .. } | State::Published);
            if of(id.queue) && !c.out && known {
                c.state = State::Doubtful;
            }
        }
    }

    /// A client got it. An error says what is wrong with that.
    pub fn delivered(&mut self, d: &Delivery) -> Result<(), String> {
        let Some(c) = self.copies.get_mut(&d.copy) else {
            return Err(format!("was never published there: {d:?}"));
        };
        match c.state {
            State::Gone { .. } => return Err(format!("was settled, and came back: {d:?} {c:?}")),
            State::Settling => c.state = State::Questioned,
            _ => {}
        }
        if c.out {
            return Err(format!("is with two clients: {d:?} {c:?}"));
        }
        if c.dead && !d.dead {
            return Err(format!("died, and is in its queue again: {d:?} {c:?}"));
        }
        let before = std::mem::replace(&mut c.delivered[usize::from(d.dead)], true);
        if before && !d.redelivered {
            return Err(format!("is redelivered, and does not say so: {d:?} {c:?}"));
        }
        (c.out, c.dead) = (true, d.dead);
        if let (Some(sequence), false, false) = (d.sequence, d.dead, d.redelivered) {
            let last = self
                .last
                .entry((d.consumer, d.publisher, d.copy.queue))
                .or_default();
            if *last > sequence {
                return Err(format!("is out of order, {last} was there before: {d:?}"));
            }
            *last = sequence;
        }
        Ok(())
    }

    /// It is back in its queue, or on its way there.
    pub fn returned(&mut self, copy: CopyId) {
        self.copies.entry(copy).and_modify(|c| c.out = false);
    }

    /// It was delivered to a client that acknowledges nothing.
    pub fn taken(&mut self, copy: CopyId) -> Result<(), String> {
        match self.copies.get_mut(&copy) {
            // Whether it should have been delivered is still to be seen.
            Some(c) if c.state == State::Questioned => c.out = false,
            _ => self.gone(copy)?,
        }
        Ok(())
    }

    /// An acknowledgement is on its way.
    pub fn settling(&mut self, copy: CopyId) {
        self.copies.entry(copy).and_modify(|c| {
            c.state = State::Settling;
            c.out = false;
        });
    }

    /// It has arrived.
    pub fn gone(&mut self, copy: CopyId) -> Result<(), String> {
        let Some(c) = self.copies.get_mut(&copy) else {
            return Ok(());
        };
        if c.state == State::Questioned {
            return Err(format!(
                "was delivered although it was acknowledged: {copy:?} {c:?}"
            ));
        }
        self.settled += 1;
        c.state = State::Gone {
            number: self.settled,
        };
        c.out = false;
        Ok(())
    }

    /// The acknowledgement is not known to have arrived: its channel is gone.
    pub fn unsettled(&mut self, copy: CopyId) {
        self.copies.entry(copy).and_modify(|c| {
            if matches!(c.state, State::Settling | State::Questioned) {
                c.state = State::Doubtful;
            }
        });
    }

    /// The broker was killed: what it did not promise may be gone, or be as it was.
    pub fn killed(&mut self) {
        for c in self.copies.values_mut() {
            c.state = match c.state {
                State::Settling | State::Questioned | State::Kept { durable: false } => {
                    State::Doubtful
                }
                State::Gone { number } if number > self.for_good => State::Doubtful,
                known => known,
            };
            (c.delivered, c.out, c.dead) = ([false; 2], false, false);
        }
        self.last.clear();
    }

    /// Whether it was last seen as a dead letter.
    pub fn is_dead(&self, copy: CopyId) -> bool {
        self.copies.get(&copy).is_some_and(|c| c.dead)
    }

    /// Copies that are in this queue, or may be, and that no client has.
    #[allow(dead_code, reason = "not everybody purges what is followed")]
    pub fn waiting(&self, queue: usize) -> Vec<CopyId> {
        let there = |c: &Copy| !c.out && !matches!(c.state, State::Gone { .. });
        let all = self.copies.iter();
        all.filter(|(id, c)| id.queue == queue && there(c))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Copies that must be there, and have not been found.
    pub fn missing(&self) -> impl Iterator<Item = CopyId> {
        self.copies
            .iter()
            .filter(|(_, c)| matches!(c.state, State::Kept { .. }))
            .map(|(id, _)| *id)
    }

    /// What is known of a copy, for people.
    pub fn describe(&self, copy: CopyId) -> String {
        format!("{copy:?} {:?}", self.copies.get(&copy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CopyId = CopyId {
        message: 1,
        queue: 0,
    };
    const B: CopyId = CopyId {
        message: 2,
        queue: 0,
    };

    fn got(copy: CopyId) -> Delivery {
        Delivery {
            copy,
            dead: false,
            redelivered: false,
            consumer: 1,
            publisher: 1,
            sequence: Some(copy.message),
        }
    }

    fn with(copies: &[CopyId]) -> History {
        let mut history = History::default();
        for copy in copies {
            history.published(*copy, true);
            history.kept(*copy, true, 0);
        }
        history
    }

    #[test]
    fn what_is_lost_is_seen() {
        let mut history = with(&[A]);
        history.killed();
        assert_eq!(history.missing().collect::<Vec<_>>(), [A]);
        history.delivered(&got(A)).unwrap();
        history.settling(A);
        history.gone(A).unwrap();
        assert_eq!(history.missing().count(), 0);
    }

    #[test]
    fn what_was_not_promised_may_be_lost() {
        let mut history = with(&[]);
        history.published(A, false);
        history.kept(A, true, 0);
        history.published(B, true);
        history.killed();
        assert_eq!(history.missing().count(), 0);
        history.delivered(&got(B)).unwrap();
    }

    #[test]
    fn what_comes_back_is_seen_if_its_end_was_for_good() {
        let mut history = with(&[A]);
        history.delivered(&got(A)).unwrap();
        history.settling(A);
        history.gone(A).unwrap();
        let settled = history.settled();
        history.published(B, true);
        history.kept(B, true, settled);
        history.killed();
        assert!(
            history
                .delivered(&got(A))
                .unwrap_err()
                .contains("came back")
        );
    }

    #[test]
    fn what_comes_back_after_a_kill_may_if_nothing_was_confirmed_behind_it() {
        let mut history = with(&[A, B]);
        history.delivered(&got(A)).unwrap();
        history.settling(A);
        history.gone(A).unwrap();
        assert!(history.delivered(&got(A)).is_err());
        history.killed();
        history.delivered(&got(A)).unwrap();
    }

    #[test]
    fn twice_out_of_order_unmarked_and_unpublished_are_seen() {
        let mut history = with(&[A, B]);
        history.delivered(&got(B)).unwrap();
        assert!(
            history
                .delivered(&got(B))
                .unwrap_err()
                .contains("two clients")
        );
        assert!(
            history
                .delivered(&got(A))
                .unwrap_err()
                .contains("out of order")
        );
        history.returned(B);
        assert!(
            history
                .delivered(&got(B))
                .unwrap_err()
                .contains("does not say so")
        );
        let never = CopyId {
            message: 3,
            queue: 0,
        };
        assert!(
            history
                .delivered(&got(never))
                .unwrap_err()
                .contains("never published")
        );
    }

    #[test]
    fn an_acknowledged_one_that_is_delivered_again_is_seen() {
        let mut history = with(&[A]);
        history.delivered(&got(A)).unwrap();
        history.settling(A);
        history
            .delivered(&Delivery {
                redelivered: true,
                ..got(A)
            })
            .unwrap();
        assert!(history.gone(A).is_err());
    }

    #[test]
    fn what_died_is_not_in_two_places() {
        let mut history = with(&[A]);
        history
            .delivered(&Delivery {
                dead: true,
                ..got(A)
            })
            .unwrap();
        history.returned(A);
        assert!(history.delivered(&got(A)).unwrap_err().contains("died"));
    }
}
