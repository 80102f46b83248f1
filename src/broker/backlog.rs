//! Dead letters that are worked off in later turns.
//!
//! A dead letter may die again where it goes, and so on, through thousands of queues; one nack may cause a
//! hundred thousand. Whoever causes them does a bounded part of it, the rest is done here, one turn
//! after the other, by a thread that nobody waits for. Until its turn a copy is what it was in
//! the log: settled with its new publish, in one record, or there again after a crash.
//!
//! While something waits here, all dead letters do: they stay in the order in which they died.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::effects::Dead;
use super::memory::{Charge, Memory, Use};
use crate::sync::Mutex;

/// Dead letters that whoever caused them routes at once, at most.
pub(super) const AT_ONCE_MAX: usize = 1024;

/// Rounds of them: of dead letters that died of it again.
pub(super) const ROUNDS_AT_ONCE: usize = 4;

/// Octets that are copied for it at once, or in a turn, about.
pub(super) const OCTETS_MAX: usize = 1 << 20;

/// Dead letters of a turn, at most.
const TURN_MAX: usize = 256;

/// While more than this wait, publishers are slowed down, and no more are read from the log.
const MANY: usize = 4096;

/// While more octets than this wait for the disk, dead letters wait here: those who settle are not held
/// back by a disk that is full, so what they kill must not be staged without end.
pub(super) const STAGED_MAX: u64 = 16 << 20;

/// What a dead letter takes beside its message.
const DEAD_BYTES: u64 = size_of::<Dead>() as u64;

#[derive(Default)]
struct Waiting {
    dead: VecDeque<Dead>,
    charge: Charge,
}

/// See the module.
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    /// Those of the turn that is on included.
    n: AtomicUsize,
    called: AtomicBool,
}

/// Octets that are copied to route a dead letter, about: once to change its headers, once for the log.
pub(super) fn octets(dead: &Dead) -> usize {
    let message = dead.entry.message.as_ref();
    message.map_or(0, |m| 2 * m.resident_bytes())
}

impl Backlog {
    pub(super) fn new(memory: &Memory) -> Backlog {
        let waiting = Waiting {
            dead: VecDeque::new(),
            charge: memory.charge(Use::DeadLetters),
        };
        Backlog {
            waiting: Mutex::new("dead letters that wait", waiting),
            n: AtomicUsize::new(0),
            called: AtomicBool::new(false),
        }
    }

    /// Whether nothing waits, and nobody works.
    pub(super) fn is_idle(&self) -> bool {
        self.n.load(Ordering::Acquire) == 0
    }

    /// Whether so many wait that publishers should be slower.
    pub(super) fn is_long(&self) -> bool {
        self.n.load(Ordering::Relaxed) > MANY
    }

    /// Adds them at the end. True if somebody has to be called to work them off.
    pub(super) fn push(&self, dead: impl ExactSizeIterator<Item = Dead>) -> bool {
        if dead.len() == 0 {
            return false;
        }
        let mut waiting = self.waiting.lock();
        self.n.fetch_add(dead.len(), Ordering::AcqRel);
        waiting.dead.extend(dead);
        let bytes = waiting.dead.len() as u64 * DEAD_BYTES;
        waiting.charge.set(bytes);
        !self.called.swap(true, Ordering::AcqRel)
    }

    /// Takes those of one turn.
    pub(super) fn take_turn(&self) -> Vec<Dead> {
        let mut waiting = self.waiting.lock();
        let mut turn = Vec::new();
        let mut left = OCTETS_MAX;
        while turn.len() < TURN_MAX
            && left > 0
            && let Some(dead) = waiting.dead.pop_front()
        {
            left = left.saturating_sub(octets(&dead));
            turn.push(dead);
        }
        if waiting.dead.is_empty() {
            waiting.dead = VecDeque::new();
        }
        let bytes = waiting.dead.len() as u64 * DEAD_BYTES;
        waiting.charge.set(bytes);
        turn
    }

    /// The turn of so many is over. False if nothing is left, and the next one calls again.
    pub(super) fn end_turn(&self, n: usize) -> bool {
        let waiting = self.waiting.lock();
        self.n.fetch_sub(n, Ordering::AcqRel);
        if waiting.dead.is_empty() {
            self.called.store(false, Ordering::Release);
        }
        !waiting.dead.is_empty()
    }
}
