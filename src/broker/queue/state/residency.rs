//! Which bodies are in memory, and which only in the log.

use super::{Cx, DeliveryRef, Entry, KEEP_AT_HEAD, Level, QueueState, Unlogged};
use crate::broker::death::DeathReason;
use crate::broker::message::MESSAGE_OVERHEAD_BYTES;
use crate::broker::ports::{Found, MessageId};
use crate::broker::queue::effects::{Dead, Effects};
use crate::broker::queue::outlet::NO_SLOT;
use crate::broker::queue::pace;

/// What an entry costs in memory, with the slack of the table it stands in.
const ENTRY_BYTES: u64 = 64;

/// What a delivery costs in memory that is not settled.
const UNACKED_BYTES: u64 = 80;

/// Messages with bodies that may wait in memory behind ones that are only in the log.
const KEEP_BEHIND: usize = 1024;

/// Bytes that one queue's ready messages hold in memory, about, before those of them that are in the log
/// leave it although the budget is not used up. More than consumers that keep up ever leave waiting;
/// what nobody fetches need not be here.
pub(super) const HELD_BYTES_MAX: u64 = 16 << 20;

/// What became of messages that were read from the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Arrived {
    /// Some could not be read now: the queue waits, and whoever reads for it has to do so again,
    /// a little later.
    pub again: bool,
    /// So many that the queue waited for are lost in the log, and given up.
    pub lost: u64,
    /// So many that the queue waited for are settled, the log says, and given up.
    pub settled: u64,
}

impl Arrived {
    /// A message that was waited for will not come.
    fn gave_up(&mut self, id: MessageId, lost: bool, cx: &mut Cx<'_>) {
        if lost {
            self.lost += 1;
            cx.fx.settles.push((cx.queue.info.id, id));
        } else {
            self.settled += 1;
        }
    }
}

impl QueueState {
    /// What the ready messages that are in memory take there, about.
    pub(in crate::broker::queue) fn held_bytes(&self) -> u64 {
        let mean = self.ready_bytes / self.n_ready.max(1);
        self.entries_in_memory() * (mean + MESSAGE_OVERHEAD_BYTES as u64 + ENTRY_BYTES)
    }

    /// Ready messages that have an entry, with or without their bodies.
    fn entries_in_memory(&self) -> u64 {
        let entries: usize = self.levels.iter().map(Level::in_memory).sum();
        entries as u64
    }

    pub(super) fn want_page_in(&mut self, cx: &mut Cx<'_>) {
        if !self.paging {
            self.paging = true;
            cx.fx.page_ins.push(cx.queue.clone());
        }
    }

    /// Names what to read from the log next: what dies, in its order, if that is asked for, then what
    /// consumers wait for.
    pub(in crate::broker::queue) fn wanted(
        &mut self,
        count: usize,
        bytes: u64,
        dying: usize,
    ) -> Vec<(u64, MessageId)> {
        let (mut wanted, mut left) = (Vec::new(), bytes);
        self.dying_later = dying == 0;
        let dies = count.min(dying);
        for (entry, _) in self.dying.iter().take(dies) {
            if left == 0 {
                break;
            }
            wanted.push((entry.seq, entry.id));
            left = left.saturating_sub(u64::from(entry.body_len));
        }
        if wanted.len() < count
            && left > 0
            && let Some(level) = self.top()
        {
            self.levels[level].wanted(count, left, &mut wanted);
        }
        wanted
    }

    /// Takes what was read from the log and goes on.
    pub(in crate::broker::queue) fn arrived(
        &mut self,
        read: Vec<(u64, MessageId, Found)>,
        cx: &mut Cx<'_>,
    ) -> Arrived {
        let mut arrived = Arrived::default();
        // Who waits asks again, unless nothing has changed.
        let mut moved = read.is_empty();
        for (seq, id, found) in read {
            // Only what the log has proved to be lost is given up, and told.
            let (mut message, lost) = match found {
                Found::Here(message) => (Some(message.counted(cx.queue.memory())), false),
                Found::Settled => (None, false),
                Found::Lost => (None, true),
                Found::Later => {
                    arrived.again = true;
                    continue;
                }
            };
            moved = true;
            // They were asked for in their order, and die in it: behind one that has to be read again
            // the others are, too.
            let dies = |(e, _): &(Entry, DeathReason)| e.seq == seq && e.id == id;
            if self.dying.front().is_some_and(dies)
                && let Some((mut entry, reason)) = self.dying.pop_front()
            {
                entry.message = message;
                match entry.message {
                    Some(_) => cx.fx.dead.push(Dead {
                        queue: cx.queue.clone(),
                        entry,
                        reason,
                        origin: None,
                    }),
                    None => arrived.gave_up(id, lost, cx),
                }
                continue;
            }
            for level in 0..self.levels.len() {
                match self.levels[level].arrived(seq, message) {
                    Ok(None) => break,
                    Ok(Some(entry)) => {
                        self.n_ready -= 1;
                        self.ready_bytes -= u64::from(entry.body_len);
                        arrived.gave_up(entry.id, lost, cx);
                        break;
                    }
                    Err(back) => message = back,
                }
            }
        }
        // Who reads comes back by itself when something has to be read again: until then nothing is
        // asked for, and nothing waits for what the limits want to have.
        self.stuck = arrived.again;
        arrived.again |= self.dying_later && !self.dying.is_empty();
        self.paging = arrived.again;
        if moved {
            for waiter in self.get_waiters.drain(..) {
                waiter.ring();
            }
        }
        // What could not expire while so much was dying.
        self.expire(cx);
        if !self.dying.is_empty() {
            self.want_page_in(cx);
        }
        self.pump(cx);
        self.enforce_limits(cx);
        self.arm(cx);
        arrived
    }

    /// Moves bodies out of memory, lowest priority and tail first; returns how many entries moved.
    pub(in crate::broker::queue) fn evict(&mut self, count: usize) -> usize {
        let mut moved = 0;
        let top = self.top();
        for (i, level) in self.levels.iter_mut().enumerate() {
            let keep = if Some(i) == top { KEEP_AT_HEAD } else { 0 };
            moved += level.evict(count - moved, keep);
            if moved >= count {
                break;
            }
        }
        moved
    }

    /// Moves bodies that queue up behind messages that are only in the log there, too, all but the
    /// last few: they would only wait in memory for their turn.
    pub(super) fn evict_behind(&mut self, count: usize) {
        for level in &mut self.levels {
            let behind = level.behind();
            if behind > KEEP_BEHIND {
                level.evict(count.min(behind - KEEP_BEHIND), usize::MAX);
            }
        }
    }

    /// Whether new messages should go to the log, because those before them are only there.
    pub(in crate::broker::queue) fn is_spilling(&self) -> bool {
        self.levels.iter().any(Level::is_spilling)
    }

    #[cfg(test)]
    pub(in crate::broker::queue) fn held(&self) -> usize {
        let places: usize = self.levels.iter().map(Level::held).sum();
        places.max(self.expiry.len())
    }

    /// Counts what is here now.
    pub(in crate::broker::queue) fn charge(&mut self) {
        let cold: usize = self.levels.iter().map(Level::cold_bytes).sum();
        let places = cold as u64 + self.expiry.bytes();
        let unacked = self.unacked.len() as u64 + self.away.len() + self.dying.len() as u64;
        self.charges
            .entries
            .set(self.entries_in_memory() * ENTRY_BYTES);
        self.charges.places.set(places);
        self.charges.unacked.set(unacked * UNACKED_BYTES);
    }

    /// Compares the backlog with what the consumers take; see [`crate::broker::queue::pace`].
    pub(in crate::broker::queue) fn keep_pace(&mut self, now: u64, fx: &mut Effects) -> u64 {
        let backlog = pace::backlog(self.n_ready, self.ready_bytes);
        let has_consumers = self.consumers.len() > 0;
        self.pace.update(backlog, has_consumers, now, fx)
    }

    /// As [`Self::evict`], and everything else that holds a body: requeued and unacknowledged ones.
    pub(in crate::broker::queue) fn evict_all(&mut self, count: usize) -> usize {
        let mut moved = self.evict(count);
        for level in &mut self.levels {
            if moved >= count {
                return moved;
            }
            moved += level.evict_requeued(count - moved);
        }
        if moved < count {
            moved += self.away.evict(count - moved);
        }
        moved + self.evict_unacked(count - moved.min(count))
    }

    /// Drops bodies of unacknowledged messages that the log has. Goes on where it stopped the last time, and
    /// does not look for what is not there.
    fn evict_unacked(&mut self, count: usize) -> usize {
        let count = count.min(self.bodies.logged);
        let n = self.unacked.len();
        let (mut moved, mut looked) = (0, 0);
        while moved < count && looked < n {
            let at = (self.bodies.looked_to + looked) % n;
            if let Some(Some(unacked)) = self.unacked.get_mut(at)
                && unacked.entry.id.is_some()
                && unacked.entry.message.take().is_some()
            {
                moved += 1;
            }
            looked += 1;
        }
        self.bodies.logged -= moved;
        if n > 0 {
            self.bodies.looked_to = (self.bodies.looked_to + looked) % n;
        }
        #[cfg(test)]
        {
            self.looked += looked;
        }
        moved
    }

    /// Messages that have to be put into the log before they can leave memory.
    pub(in crate::broker::queue) fn unlogged(&self, count: usize, bytes: u64) -> Vec<Unlogged> {
        let mut found = Vec::new();
        let mut left = bytes;
        for level in &self.levels {
            level.unlogged(count, &mut left, &mut found);
        }
        let mut found: Vec<_> = found
            .into_iter()
            .map(|(seq, message)| Unlogged {
                at: DeliveryRef { slot: NO_SLOT, seq },
                message,
            })
            .collect();
        let mut unlogged = self.bodies.unlogged;
        for (slot, unacked) in self.unacked.iter().enumerate() {
            if found.len() >= count || left == 0 || unlogged == 0 {
                break;
            }
            if let Some(unacked) = unacked
                && !unacked.entry.id.is_some()
                && let Some(message) = &unacked.entry.message
            {
                let at = DeliveryRef {
                    slot: slot as u32,
                    seq: unacked.entry.seq,
                };
                left = left.saturating_sub(message.resident_bytes() as u64);
                unlogged -= 1;
                found.push(Unlogged {
                    at,
                    message: message.clone(),
                });
            }
        }
        found
    }

    /// Notes copies that were put into the log; what has left meanwhile is settled again.
    pub(in crate::broker::queue) fn logged(
        &mut self,
        copies: &[(DeliveryRef, MessageId)],
        cx: &mut Cx<'_>,
    ) {
        for &(at, id) in copies {
            let unacked = self
                .unacked
                .get_mut(at.slot as usize)
                .and_then(Option::as_mut);
            if let Some(unacked) = unacked
                && unacked.entry.seq == at.seq
            {
                self.bodies.went(&unacked.entry);
                unacked.entry.id = id;
                self.bodies.came(&unacked.entry);
            } else if !self.levels.iter_mut().any(|level| level.logged(at.seq, id)) {
                cx.fx.settles.push((cx.queue.info.id, id));
            }
        }
    }

    /// Copies in the log that were delivered and are not settled, for a clean stop.
    pub(in crate::broker::queue) fn redelivered(&self, mut each: impl FnMut(MessageId)) {
        for level in &self.levels {
            level.redelivered(&mut each);
        }
        let unacked = self.unacked.iter().flatten().map(|u| &u.entry);
        for entry in unacked.chain(self.away.entries()) {
            if entry.id.is_some() {
                each(entry.id);
            }
        }
    }
}
