//! The ready messages of one priority level, in order.
//!
//! ```text
//!   front: entries   |   cold: runs, bodies only in the log   |   back: entries
//!   <- head                                                            tail ->
//! ```
//!
//! While nothing is cold, everything is in `front`. Under memory pressure entries at the tail become
//! cold, and cold ones return to `front` when the head comes near. Requeued entries stand beside
//! this in a map by sequence number; whichever has the lowest number is the head.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::entry::Entry;
use crate::broker::message::Message;
use crate::broker::ports::MessageId;

/// Bytes of bodies that stay in memory at the head, about: few large ones, or many small ones.
const KEEP_BYTES: usize = 1 << 20;

/// More is read from the log when fewer entries than this are left before a cold one.
const READ_AHEAD_BELOW: usize = 512;

/// Places for entries that a drained level keeps.
const KEEP_PLACES: usize = 4096;

/// Consecutive messages that are only in the log and agree in everything but their number.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColdRun {
    pub(super) seq: u64,
    pub(super) id: u64,
    pub(super) expires_at: u64,
    pub(super) count: u32,
    pub(super) body_len: u32,
    pub(super) delivery_count: u16,
    pub(super) acquired_count: u16,
    pub(super) redelivered: bool,
}

impl ColdRun {
    fn of(entry: &Entry) -> ColdRun {
        ColdRun {
            seq: entry.seq,
            id: entry.id.0,
            expires_at: entry.expires_at,
            count: 1,
            body_len: entry.body_len,
            delivery_count: entry.delivery_count,
            acquired_count: entry.acquired_count,
            redelivered: entry.redelivered,
        }
    }

    /// Whether `next` directly continues this run.
    fn continues(&self, next: &ColdRun) -> bool {
        self.seq + u64::from(self.count) == next.seq
            && self.id + u64::from(self.count) == next.id
            && self.expires_at == next.expires_at
            && self.body_len == next.body_len
            && self.delivery_count == next.delivery_count
            && self.acquired_count == next.acquired_count
            && self.redelivered == next.redelivered
            && self.count.checked_add(next.count).is_some()
    }

    fn entry(&self, offset: u32, priority: u8) -> Entry {
        Entry {
            seq: self.seq + u64::from(offset),
            id: MessageId(self.id + u64::from(offset)),
            message: None,
            expires_at: self.expires_at,
            body_len: self.body_len,
            delivery_count: self.delivery_count,
            acquired_count: self.acquired_count,
            priority,
            redelivered: self.redelivered,
        }
    }
}

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
    front: VecDeque<Entry>,
    cold: VecDeque<ColdRun>,
    /// Messages counted in `cold`, without those in `removed`.
    n_cold: u64,
    back: VecDeque<Entry>,
    requeued: BTreeMap<u64, Entry>,
    /// Removed from the middle of `front`, `cold` or `back`, still standing there.
    removed: BTreeSet<u64>,
    len: u64,
    priority: u8,
}

impl Level {
    pub(super) fn new(priority: u8) -> Level {
        Level {
            priority,
            ..Level::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Entries in memory, with or without their bodies.
    pub(super) fn in_memory(&self) -> usize {
        self.front.len() + self.back.len() + self.requeued.len()
    }

    /// Runs of messages that are only in the log.
    pub(super) fn runs(&self) -> usize {
        self.cold.len()
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
        self.len += 1;
        if self.cold.is_empty() {
            if !self.back.is_empty() {
                self.front.append(&mut self.back);
            }
            self.front.push_back(entry);
        } else {
            self.back.push_back(entry);
        }
    }

    /// Appends messages that are only in the log (recovery).
    pub(super) fn push_cold(&mut self, run: ColdRun) {
        debug_assert!(self.back.is_empty());
        self.len += u64::from(run.count);
        self.append_cold(run);
    }

    fn append_cold(&mut self, run: ColdRun) {
        self.n_cold += u64::from(run.count);
        match self.cold.back_mut() {
            Some(last) if last.continues(&run) => last.count += run.count,
            _ => self.cold.push_back(run),
        }
    }

    /// Puts a message back to where its sequence number belongs.
    pub(super) fn requeue(&mut self, entry: Entry) {
        self.len += 1;
        self.requeued.insert(entry.seq, entry);
    }

    /// Drops removed entries from the head, and pulls `back` up when nothing is cold.
    fn trim(&mut self) {
        if !self.removed.is_empty() {
            while let Some(entry) = self.front.front()
                && self.removed.remove(&entry.seq)
            {
                self.front.pop_front();
            }
            while self.front.is_empty()
                && let Some(run) = self.cold.front_mut()
                && self.removed.remove(&run.seq)
            {
                run.seq += 1;
                run.id += 1;
                run.count -= 1;
                if run.count == 0 {
                    self.cold.pop_front();
                }
            }
        }
        if self.cold.is_empty() && !self.back.is_empty() {
            self.front.append(&mut self.back);
            if !self.removed.is_empty()
                && self
                    .front
                    .front()
                    .is_some_and(|e| self.removed.contains(&e.seq))
            {
                self.trim();
            }
        }
    }

    /// The first message in order.
    pub(super) fn head(&mut self) -> Head<'_> {
        self.trim();
        let in_line = match (self.front.front(), self.cold.front()) {
            (Some(entry), _) => Some(entry.seq),
            (None, Some(run)) => Some(run.seq),
            (None, None) => None,
        };
        if let Some((&seq, _)) = self.requeued.first_key_value()
            && in_line.is_none_or(|other| seq < other)
        {
            let entry = &self.requeued[&seq];
            return match entry.message {
                Some(_) => Head::Here(entry),
                None => Head::Cold {
                    expires_at: entry.expires_at,
                },
            };
        }
        match self.front.front() {
            Some(entry) if entry.message.is_some() => Head::Here(entry),
            Some(entry) => Head::Cold {
                expires_at: entry.expires_at,
            },
            None => match self.cold.front() {
                Some(run) => Head::Cold {
                    expires_at: run.expires_at,
                },
                None => Head::Empty,
            },
        }
    }

    /// Takes the first message, with or without its body, and whether it stood in line
    /// (true) or had been requeued (false).
    pub(super) fn pop(&mut self) -> Option<(Entry, bool)> {
        self.trim();
        let in_line = match (self.front.front(), self.cold.front()) {
            (Some(entry), _) => Some(entry.seq),
            (None, Some(run)) => Some(run.seq),
            (None, None) => None,
        };
        if let Some(first) = self.requeued.first_entry()
            && in_line.is_none_or(|other| *first.key() < other)
        {
            self.len -= 1;
            return Some((first.remove(), false));
        }
        if let Some(entry) = self.front.pop_front() {
            self.len -= 1;
            if self.front.is_empty() && self.front.capacity() > KEEP_PLACES {
                self.front = VecDeque::new();
            }
            return Some((entry, true));
        }
        let run = self.cold.front_mut()?;
        let entry = run.entry(0, self.priority);
        run.seq += 1;
        run.id += 1;
        run.count -= 1;
        if run.count == 0 {
            self.cold.pop_front();
        }
        self.n_cold -= 1;
        self.len -= 1;
        Some((entry, true))
    }

    /// Takes the message `seq` from wherever it stands, if it is ready.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        if let Some(entry) = self.requeued.remove(&seq) {
            self.len -= 1;
            return Some(entry);
        }
        if self.removed.contains(&seq) {
            return None;
        }
        for part in [&mut self.front, &mut self.back] {
            if let Ok(at) = part.binary_search_by_key(&seq, |e| e.seq) {
                // The place stays, empty: what is at the head leaves for good in `trim`.
                let entry = Entry {
                    message: part[at].message.take(),
                    ..part[at].clone()
                };
                self.removed.insert(seq);
                self.len -= 1;
                return Some(entry);
            }
        }
        let at = self
            .cold
            .partition_point(|run| run.seq <= seq)
            .checked_sub(1)?;
        let run = &self.cold[at];
        let offset = u32::try_from(seq - run.seq)
            .ok()
            .filter(|o| *o < run.count)?;
        let entry = run.entry(offset, self.priority);
        self.removed.insert(seq);
        self.n_cold -= 1;
        self.len -= 1;
        Some(entry)
    }

    /// Whether the entries in memory before the first cold one are few, in number and in bytes.
    pub(super) fn front_is_short(&self) -> bool {
        let each = self.front.front().map_or(0, |e| e.body_len as usize);
        self.front.len() < READ_AHEAD_BELOW && self.front.len() * each < 2 * KEEP_BYTES
    }

    /// Whether some ready message is only in the log.
    pub(super) fn has_cold(&self) -> bool {
        !self.cold.is_empty()
            || self
                .requeued
                .values()
                .next()
                .is_some_and(|e| e.message.is_none())
    }

    /// Names the messages to read next, first those nearest to the head: at most `count`, and not
    /// many more bytes than `bytes`.
    pub(super) fn wanted(&mut self, count: usize, bytes: u64, into: &mut Vec<(u64, MessageId)>) {
        self.trim();
        let mut left = bytes;
        let requeued = self
            .requeued
            .values()
            .take(count)
            .filter(|e| e.message.is_none());
        for entry in requeued {
            into.push((entry.seq, entry.id));
            left = left.saturating_sub(u64::from(entry.body_len));
        }
        let front = self
            .front
            .iter()
            .take(count)
            .filter(|e| e.message.is_none() && !self.removed.contains(&e.seq));
        for entry in front {
            if into.len() >= count || left == 0 {
                return;
            }
            into.push((entry.seq, entry.id));
            left = left.saturating_sub(u64::from(entry.body_len));
        }
        for run in &self.cold {
            for offset in 0..run.count {
                if into.len() >= count || left == 0 {
                    return;
                }
                let seq = run.seq + u64::from(offset);
                if self.removed.is_empty() || !self.removed.contains(&seq) {
                    into.push((seq, MessageId(run.id + u64::from(offset))));
                    left = left.saturating_sub(u64::from(run.body_len));
                }
            }
        }
    }

    /// Hands in a message read from the log. `Err` gives it back if it is not waiting for its body
    /// here; a message the log could not give (`None`) is taken out and returned.
    pub(super) fn arrived(
        &mut self,
        seq: u64,
        message: Option<Message>,
    ) -> Result<Option<Entry>, Option<Message>> {
        if let Some(entry) = self.requeued.get_mut(&seq) {
            if entry.message.is_some() {
                return Err(message);
            }
            if message.is_none() {
                return Ok(self.remove(seq));
            }
            entry.message = message;
            return Ok(None);
        }
        self.trim();
        if let Ok(at) = self.front.binary_search_by_key(&seq, |e| e.seq) {
            if self.removed.contains(&seq) || self.front[at].message.is_some() {
                return Err(message);
            }
            if message.is_none() {
                return Ok(self.remove(seq));
            }
            self.front[at].message = message;
            return Ok(None);
        }
        // Cold runs become entries up to and including this one, in order; the ones before it are
        // bodiless entries that the same page-in (or the next) fills.
        if self.removed.contains(&seq) {
            return Err(message);
        }
        while let Some(run) = self.cold.front_mut()
            && run.seq <= seq
        {
            let entry = run.entry(0, self.priority);
            run.seq += 1;
            run.id += 1;
            run.count -= 1;
            if run.count == 0 {
                self.cold.pop_front();
            }
            if self.removed.remove(&entry.seq) {
                continue;
            }
            self.n_cold -= 1;
            if entry.seq == seq {
                let mut entry = entry;
                if message.is_none() {
                    self.len -= 1;
                    return Ok(Some(entry));
                }
                entry.message = message;
                self.front.push_back(entry);
                return Ok(None);
            }
            self.front.push_back(entry);
        }
        Err(message)
    }

    /// Moves up to `count` entries out of memory, from the tail towards the head, leaving
    /// `keep` at the head. Entries that are not in the log yet stop it; returns how many moved.
    pub(super) fn evict(&mut self, count: usize, keep: usize) -> usize {
        let mut moved = 0;
        if !self.cold.is_empty() {
            // Behind cold ones, order allows only the oldest of `back` to join them.
            while moved < count
                && let Some(entry) = self.back.front()
            {
                if self.removed.remove(&entry.seq) {
                    self.back.pop_front();
                    continue;
                }
                if !entry.id.is_some() {
                    break;
                }
                let run = ColdRun::of(entry);
                self.back.pop_front();
                self.append_cold(run);
                moved += 1;
            }
        }
        while moved < count
            && let Some(entry) = self.front.back()
            && self.front.len() > keep.min(KEEP_BYTES / (entry.body_len as usize + 1))
        {
            if self.removed.remove(&entry.seq) {
                self.front.pop_back();
                continue;
            }
            if !entry.id.is_some() {
                break;
            }
            let run = ColdRun::of(entry);
            self.front.pop_back();
            self.n_cold += 1;
            match self.cold.front_mut() {
                Some(next) if run.continues(next) => {
                    next.seq = run.seq;
                    next.id = run.id;
                    next.count += 1;
                }
                _ => self.cold.push_front(run),
            }
            moved += 1;
        }
        moved
    }

    /// Entries in memory that have no copy in the log yet, those nearest to the tail first, at most
    /// `count`, and about `left` bytes.
    pub(super) fn unlogged(&self, count: usize, left: &mut u64, into: &mut Vec<(u64, Message)>) {
        let entries = self
            .back
            .iter()
            .rev()
            .chain(self.front.iter().rev())
            .chain(self.requeued.values().rev());
        for entry in entries {
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
        if let Some(entry) = self.requeued.get_mut(&seq) {
            entry.id = id;
            return true;
        }
        if self.removed.contains(&seq) {
            return false;
        }
        for part in [&mut self.front, &mut self.back] {
            if let Ok(at) = part.binary_search_by_key(&seq, |e| e.seq) {
                part[at].id = id;
                return true;
            }
        }
        false
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

    /// Visits every log copy as ranges of ids, for a purge.
    pub(super) fn logged_ranges(&self, mut each: impl FnMut(MessageId, MessageId)) {
        for entry in self
            .front
            .iter()
            .chain(&self.back)
            .chain(self.requeued.values())
        {
            if entry.id.is_some() && !self.removed.contains(&entry.seq) {
                each(entry.id, entry.id);
            }
        }
        for run in &self.cold {
            let end = run.seq + u64::from(run.count);
            let mut from = run.seq;
            let id = |seq: u64| MessageId(run.id + (seq - run.seq));
            for &gone in self.removed.range(run.seq..end) {
                if gone > from {
                    each(id(from), id(gone - 1));
                }
                from = gone + 1;
            }
            if from < end {
                each(id(from), id(end - 1));
            }
        }
    }

    /// Visits the log copies that were delivered before.
    pub(super) fn redelivered(&self, each: &mut impl FnMut(MessageId)) {
        let entries = self
            .front
            .iter()
            .chain(&self.back)
            .chain(self.requeued.values());
        for entry in entries.filter(|e| e.redelivered && e.id.is_some()) {
            if !self.removed.contains(&entry.seq) {
                each(entry.id);
            }
        }
        for run in self.cold.iter().filter(|run| run.redelivered) {
            for offset in 0..u64::from(run.count) {
                if !self.removed.contains(&(run.seq + offset)) {
                    each(MessageId(run.id + offset));
                }
            }
        }
    }
}
