//! The ready messages of one priority level, in order.
//!
//! ```text
//!   front: entries   |   cold: runs, bodies only in the log   |   back: entries
//!   <- head                                                            tail ->
//! ```
//!
//! While nothing is cold, everything is in `front`. Under memory pressure entries at the tail become
//! cold, and cold ones return to `front` when the head comes near. Requeued entries stand beside
//! this in a map by sequence number; whichever has the lowest number is the head. What leaves, from
//! wherever it stands, leaves memory: each part is at most about twice as long as what is ready in it.

mod line;
mod runs;

use std::collections::BTreeMap;

use self::line::Line;
pub(super) use self::runs::ColdRun;
use self::runs::Runs;
use super::entry::Entry;
use crate::broker::message::Message;
use crate::broker::ports::MessageId;

/// Bytes of bodies that stay in memory at the head, about: few large ones, or many small ones.
const KEEP_BYTES: usize = 1 << 20;

/// More is read from the log when fewer entries than this are left before a cold one.
const READ_AHEAD_BELOW: usize = 512;

/// What stands at the head of a level.
pub(super) enum Head<'a> {
    Empty,
    /// The head has its body.
    Here(&'a Entry),
    /// The head must be read from the log first.
    Cold {
        expires_at: u64,
    },
}

/// The ready messages of one priority level.
#[derive(Debug, Default)]
pub(super) struct Level {
    front: Line,
    cold: Runs,
    /// Empty while nothing is cold.
    back: Line,
    requeued: BTreeMap<u64, Entry>,
    priority: u8,
    /// The highest number that consumers are done with in any way.
    passed: u64,
}

impl Level {
    pub(super) fn new(priority: u8) -> Level {
        Level {
            priority,
            ..Level::default()
        }
    }

    /// Somebody has had this one, or will have it whatever happens.
    pub(super) fn pass(&mut self, seq: u64) {
        self.passed = self.passed.max(seq);
    }

    /// See [`Level::pass`].
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn len(&self) -> u64 {
        self.in_memory() as u64 + self.cold.len()
    }

    /// Entries in memory, with or without their bodies.
    pub(super) fn in_memory(&self) -> usize {
        self.front.len() + self.back.len() + self.requeued.len()
    }

    /// Everything that has a place here, those of messages that have left included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.front.held() + self.cold.held() + self.back.held() + self.requeued.len()
    }

    /// What the messages that are only in the log take in memory.
    pub(super) fn cold_bytes(&self) -> usize {
        self.cold.bytes()
    }

    /// Whether new messages have to queue up behind cold ones.
    pub(super) fn is_spilling(&self) -> bool {
        !self.cold.is_empty()
    }

    /// Entries behind the cold ones.
    pub(super) fn behind(&self) -> usize {
        self.back.len()
    }

    /// Appends a new message at the tail.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.cold.is_empty() {
            self.front.push_back(entry);
        } else {
            self.back.push_back(entry);
        }
    }

    /// Appends messages that are only in the log (recovery).
    pub(super) fn push_cold(&mut self, run: ColdRun) {
        debug_assert!(self.back.is_empty());
        self.cold.push_back(run);
    }

    /// Puts a message back to where its sequence number belongs.
    pub(super) fn requeue(&mut self, entry: Entry) {
        self.requeued.insert(entry.seq, entry);
    }

    /// Pulls `back` up when nothing is cold any more.
    fn close_up(&mut self) {
        if self.cold.is_empty() && !self.back.is_empty() {
            self.front.append(&mut self.back);
        }
    }

    /// The number of the first message that was not requeued.
    fn first_in_line(&self) -> Option<u64> {
        let cold = || self.cold.front().map(ColdRun::seq);
        self.front.front().map(|entry| entry.seq).or_else(cold)
    }

    /// The first message in order.
    pub(super) fn head(&self) -> Head<'_> {
        let in_line = self.first_in_line();
        let requeued = self.requeued.first_key_value();
        let requeued = requeued.filter(|(seq, _)| in_line.is_none_or(|other| **seq < other));
        match requeued.map(|(_, entry)| entry).or(self.front.front()) {
            Some(entry) if entry.message.is_some() => Head::Here(entry),
            Some(entry) => Head::Cold {
                expires_at: entry.expires_at,
            },
            None => match self.cold.front() {
                Some(run) => Head::Cold {
                    expires_at: run.expires_at(),
                },
                None => Head::Empty,
            },
        }
    }

    /// Takes the first message, with or without its body, and whether it stood in line
    /// (true) or had been requeued (false).
    pub(super) fn pop(&mut self) -> Option<(Entry, bool)> {
        let in_line = self.first_in_line();
        if let Some(first) = self.requeued.first_entry()
            && in_line.is_none_or(|other| *first.key() < other)
        {
            return Some((first.remove(), false));
        }
        if let Some(entry) = self.front.pop_front() {
            return Some((entry, true));
        }
        let entry = self.cold.pop_front(self.priority)?;
        self.close_up();
        Some((entry, true))
    }

    /// Takes the message `seq` from wherever it stands, if it is ready.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        if let Some(entry) = self.requeued.remove(&seq) {
            return Some(entry);
        }
        let entry = self.front.remove(seq).or_else(|| self.back.remove(seq));
        if entry.is_some() {
            return entry;
        }
        let entry = self.cold.remove(seq, self.priority);
        self.close_up();
        entry
    }

    /// Whether the entries in memory before the first cold one are few, in number and in bytes.
    pub(super) fn front_is_short(&self) -> bool {
        let each = self.front.front().map_or(0, |e| e.body_len as usize);
        self.front.len() < READ_AHEAD_BELOW && self.front.len() * each < 2 * KEEP_BYTES
    }

    /// Whether some ready message is only in the log.
    pub(super) fn has_cold(&self) -> bool {
        let requeued = self.requeued.first_key_value();
        !self.cold.is_empty() || requeued.is_some_and(|(_, e)| e.message.is_none())
    }

    /// Names the messages to read next, first those nearest to the head: at most `count`, and not
    /// many more bytes than `bytes`.
    pub(super) fn wanted(&self, count: usize, bytes: u64, into: &mut Vec<(u64, MessageId)>) {
        let without = |e: &&Entry| e.message.is_none();
        let named = |e: &Entry| (e.seq, e.id, e.body_len);
        let requeued = self.requeued.values().take(count).filter(without);
        let front = self.front.iter().take(count).filter(without);
        let cold = self.cold.iter().flat_map(ColdRun::messages);
        let mut left = bytes;
        for (seq, id, body_len) in requeued.chain(front).map(named).chain(cold) {
            if into.len() >= count || left == 0 {
                return;
            }
            into.push((seq, id));
            left = left.saturating_sub(u64::from(body_len));
        }
    }

    /// Hands in a message read from the log. `Err` gives it back if it is not waiting for its body
    /// here; a message the log could not give (`None`) is taken out and returned.
    pub(super) fn arrived(
        &mut self,
        seq: u64,
        message: Option<Message>,
    ) -> Result<Option<Entry>, Option<Message>> {
        if self.cold.contains(seq) {
            // Cold runs become entries up to and including this one, in order; the ones before it are
            // bodiless entries that the same page-in (or the next) fills.
            while let Some(run) = self.cold.front()
                && run.seq() <= seq
                && let Some(entry) = self.cold.pop_front(self.priority)
            {
                self.front.push_back(entry);
            }
            self.close_up();
        }
        let waiting = match self.requeued.get_mut(&seq) {
            Some(entry) => Some(entry),
            None => self.front.get_mut(seq),
        };
        match waiting.filter(|entry| entry.message.is_none()) {
            None => Err(message),
            Some(_) if message.is_none() => Ok(self.remove(seq)),
            Some(entry) => {
                entry.message = message;
                Ok(None)
            }
        }
    }

    /// Moves up to `count` entries out of memory, from the tail towards the head, leaving
    /// `keep` at the head. Entries that are not in the log yet stop it; returns how many moved.
    pub(super) fn evict(&mut self, count: usize, keep: usize) -> usize {
        let mut moved = 0;
        if !self.cold.is_empty() {
            // Behind cold ones, order allows only the oldest of `back` to join them.
            while moved < count
                && let Some(entry) = self.back.front()
                && entry.id.is_some()
            {
                self.cold.push_back(ColdRun::of(entry));
                self.back.pop_front();
                moved += 1;
            }
        }
        while moved < count
            && let Some(entry) = self.front.back()
            && self.front.len() > keep.min(KEEP_BYTES / (entry.body_len as usize + 1))
            && entry.id.is_some()
        {
            self.cold.push_front(ColdRun::of(entry));
            self.front.pop_back();
            moved += 1;
        }
        moved
    }

    /// Entries in memory that have no copy in the log yet, those nearest to the tail first, at most
    /// `count`, and about `left` bytes.
    pub(super) fn unlogged(&self, count: usize, left: &mut u64, into: &mut Vec<(u64, Message)>) {
        let in_line = self.back.iter().rev().chain(self.front.iter().rev());
        for entry in in_line.chain(self.requeued.values().rev()) {
            if into.len() >= count || *left == 0 {
                break;
            }
            if !entry.id.is_some()
                && let Some(message) = &entry.message
            {
                *left = left.saturating_sub(message.resident_bytes() as u64);
                into.push((entry.seq, message.clone()));
            }
        }
    }

    /// Notes that `seq` has a copy in the log now; false if it has left.
    pub(super) fn logged(&mut self, seq: u64, id: MessageId) -> bool {
        let entry = match self.requeued.get_mut(&seq) {
            Some(entry) => Some(entry),
            None => self.front.get_mut(seq).or_else(|| self.back.get_mut(seq)),
        };
        entry.map(|entry| entry.id = id).is_some()
    }

    /// Drops the bodies of requeued entries that the log has; they are read again when their turn
    /// comes.
    pub(super) fn evict_requeued(&mut self, count: usize) -> usize {
        let logged = self
            .requeued
            .values_mut()
            .rev()
            .filter(|e| e.id.is_some() && e.message.is_some());
        logged.take(count).map(|e| e.message = None).count()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let in_line = self.front.iter().chain(self.back.iter());
        in_line.chain(self.requeued.values())
    }

    /// Visits every log copy as ranges of ids, for a purge.
    pub(super) fn logged_ranges(&self, mut each: impl FnMut(MessageId, MessageId)) {
        for entry in self.entries().filter(|e| e.id.is_some()) {
            each(entry.id, entry.id);
        }
        for (first, last) in self.cold.iter().map(ColdRun::ids) {
            each(first, last);
        }
    }

    /// Visits the log copies that were delivered before.
    pub(super) fn redelivered(&self, each: &mut impl FnMut(MessageId)) {
        for entry in self.entries().filter(|e| e.redelivered && e.id.is_some()) {
            each(entry.id);
        }
        let runs = self.cold.iter().filter(|run| run.is_redelivered());
        runs.flat_map(ColdRun::messages)
            .for_each(|(_, id, _)| each(id));
    }
}
