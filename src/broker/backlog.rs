//! Dead letters that are worked off in later turns.
//!
//! A dead letter may die again where it goes, and so on, through thousands of queues; one nack may cause a
//! hundred thousand. Whoever causes them does a bounded part of it, the rest is done here, one turn
//! after the other, by a thread that nobody waits for. Until its turn a copy is what it was in
//! the log: settled with its new publish, in one record, or there again after a crash.
//!
//! While something waits here, all dead letters do. Those of one queue are a flow: each of them is worked
//! off to the end, with all that follows from it, before the next one, so that they stay in the order in which
//! they died, and the flows take turns. To the end, not all of them a step at a time: where queues
//! dead-letter into each other, a message goes every way through them that crosses no queue twice, 10^33 of
//! them for thirty queues, and what waits must not be as many as there are ways, but as one of them is long.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::memory::{Charge, Memory, Use};
use super::message::Message;
use super::ports::QueueId;
use super::queue::effects::Dead;
use crate::sync::Mutex;

/// Dead letters that whoever caused them routes at once, or that are routed in a turn, at most; one that
/// goes to several queues counts for each.
const AT_ONCE_MAX: usize = 1024;

/// Rounds of them: of dead letters that died of it again.
const ROUNDS_AT_ONCE: usize = 4;

/// Octets that are copied for it at once, or in a turn, about.
const OCTETS_MAX: usize = 1 << 20;

/// Dead letters of a turn, at most.
const TURN_MAX: usize = 256;

/// While more than this wait, publishers whose messages die are slowed down.
const MANY: usize = 4096;

/// While more octets than this wait for the disk, dead letters wait here: those who settle are not held
/// back by a disk that is full, so what they kill must not be staged without end.
pub(super) const STAGED_MAX: u64 = 16 << 20;

/// What a dead letter takes beside its message.
const DEAD_BYTES: u64 = size_of::<Dead>() as u64;

/// What goes where in the backlog.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// It died by itself: behind all others of its queue.
    Behind,
    /// It is left of this flow, or follows from what was: before the rest of it.
    Before(QueueId),
}

/// Dead letters of one queue, and what follows from them.
struct Flow {
    dead: VecDeque<Dead>,
    /// How many are routed in a turn: few while more dead letters follow from them than they are.
    width: usize,
    /// How many came before the rest since the turn began.
    came: usize,
    /// More followed from some of them than they were.
    multiplies: bool,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            dead: VecDeque::new(),
            width: TURN_MAX,
            came: 0,
            multiplies: false,
        }
    }
}

#[derive(Default)]
struct Waiting {
    flows: HashMap<QueueId, Flow>,
    /// Whose turn is next: each flow once, but for the one whose turn it is.
    turns: VecDeque<QueueId>,
    /// Those that multiply and have to wait for the one that does and is worked off.
    parked: VecDeque<QueueId>,
    /// Of those that multiply, the last one that had a turn.
    heavy: Option<QueueId>,
    n: u64,
    message_bytes: u64,
    entries: Charge,
    messages: Charge,
}

/// What its message takes that nobody else waits with.
fn message_bytes(dead: &Dead, beside: Option<&Dead>) -> u64 {
    let (message, other) = (
        &dead.entry.message,
        beside.and_then(|d| d.entry.message.as_ref()),
    );
    match (message, other) {
        (Some(m), Some(other)) if Message::is_same(m, other) => 0,
        (Some(m), _) => m.resident_bytes() as u64,
        (None, _) => 0,
    }
}

impl Waiting {
    fn behind(&mut self, dead: Dead) {
        let id = dead.queue.id();
        let turns = &mut self.turns;
        let flow = self.flows.entry(id).or_insert_with(|| {
            turns.push_back(id);
            Flow::default()
        });
        self.n += 1;
        dead.queue.dead_letter_waits();
        self.message_bytes += message_bytes(&dead, flow.dead.back());
        flow.dead.push_back(dead);
    }

    fn before(&mut self, id: QueueId, dead: impl DoubleEndedIterator<Item = Dead>) {
        let turns = &mut self.turns;
        let flow = self.flows.entry(id).or_insert_with(|| {
            turns.push_back(id);
            Flow::default()
        });
        for dead in dead.rev() {
            self.n += 1;
            dead.queue.dead_letter_waits();
            flow.came += 1;
            self.message_bytes += message_bytes(&dead, flow.dead.front());
            flow.dead.push_front(dead);
        }
    }

    /// Whose turn it is. While dead letters take their part of the memory (`tight`), only one of the flows
    /// that multiply has turns: what waits of each of them is as much as a way is long.
    fn next(&mut self, tight: bool) -> Option<QueueId> {
        if !tight {
            self.turns.append(&mut self.parked);
        }
        while let Some(id) = self.turns.pop_front() {
            let multiplies = self.flows.get(&id).is_some_and(|f| f.multiplies);
            if tight && multiplies && self.heavy.is_some_and(|heavy| heavy != id) {
                self.parked.push_back(id);
                continue;
            }
            if multiplies {
                self.heavy = Some(id);
            }
            return Some(id);
        }
        self.heavy = self.parked.pop_front();
        self.heavy
    }

    fn take(&mut self, tight: bool) -> Turn {
        let mut turn = Turn::default();
        let Some(id) = self.next(tight) else {
            return turn;
        };
        turn.flow = id;
        let Some(flow) = self.flows.get_mut(&id) else {
            return turn;
        };
        flow.came = 0;
        let mut left = OCTETS_MAX;
        while turn.dead.len() < flow.width
            && left > 0
            && let Some(dead) = flow.dead.pop_front()
        {
            left = left.saturating_sub(octets(&dead));
            self.n -= 1;
            dead.queue.dead_letter_goes();
            self.message_bytes -= message_bytes(&dead, flow.dead.front());
            turn.dead.push(dead);
        }
        turn
    }

    fn end(&mut self, id: QueueId, n: usize) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let multiplied = flow.came > n;
        flow.multiplies |= multiplied;
        flow.width = match multiplied {
            true => 1,
            false => (flow.width + 1).min(TURN_MAX),
        };
        if flow.dead.is_empty() {
            self.flows.remove(&id);
            self.heavy = self.heavy.filter(|heavy| *heavy != id);
        } else {
            self.turns.push_back(id);
        }
    }

    fn count(&mut self) {
        if self.flows.is_empty() {
            (self.flows, self.turns, self.parked) = Default::default();
        }
        self.entries.set(self.n * DEAD_BYTES);
        self.messages.set(self.message_bytes);
    }
}

/// How many dead letters a flush routes itself. The others wait.
pub(super) struct AtOnce {
    pub(super) rounds: usize,
    pub(super) left: usize,
    pub(super) octets: usize,
    /// Only if nobody waits there.
    pub(super) in_turn: bool,
    /// Where what is left goes, and what follows from the rest; not known before something has died.
    pub(super) place: Option<Place>,
}

impl AtOnce {
    /// Nobody works anything off.
    pub(super) fn everything() -> AtOnce {
        AtOnce {
            rounds: usize::MAX,
            left: usize::MAX,
            octets: usize::MAX,
            in_turn: false,
            place: None,
        }
    }

    pub(super) fn some() -> AtOnce {
        AtOnce {
            rounds: ROUNDS_AT_ONCE,
            left: AT_ONCE_MAX,
            octets: OCTETS_MAX,
            in_turn: true,
            place: None,
        }
    }

    /// Those of this flow, and nothing of what follows.
    pub(super) fn turn(flow: QueueId) -> AtOnce {
        AtOnce {
            rounds: 1,
            left: AT_ONCE_MAX,
            octets: usize::MAX,
            in_turn: false,
            place: Some(Place::Before(flow)),
        }
    }
}

/// Dead letters whose turn it is.
pub(super) struct Turn {
    pub(super) flow: QueueId,
    pub(super) dead: Vec<Dead>,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            flow: QueueId(0),
            dead: Vec::new(),
        }
    }
}

/// See the module.
pub(super) struct Backlog {
    memory: Memory,
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
            entries: memory.charge(Use::DeadLetters),
            messages: memory.charge(Use::DeadMessages),
            ..Waiting::default()
        };
        Backlog {
            memory: memory.clone(),
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

    /// Adds them. True if somebody has to be called to work them off.
    pub(super) fn push(
        &self,
        dead: impl ExactSizeIterator<Item = Dead> + DoubleEndedIterator,
        place: Place,
    ) -> bool {
        if dead.len() == 0 {
            return false;
        }
        let mut waiting = self.waiting.lock();
        self.n.fetch_add(dead.len(), Ordering::AcqRel);
        match place {
            Place::Behind => dead.for_each(|dead| waiting.behind(dead)),
            Place::Before(flow) => waiting.before(flow, dead),
        }
        waiting.count();
        !self.called.swap(true, Ordering::AcqRel)
    }

    /// Takes those of one turn.
    pub(super) fn take_turn(&self) -> Turn {
        let mut waiting = self.waiting.lock();
        let turn = waiting.take(self.memory.dead_letters_are_tight());
        waiting.count();
        turn
    }

    /// The turn of so many of this flow is over. False if nothing is left, and the next one calls again.
    pub(super) fn end_turn(&self, flow: QueueId, n: usize) -> bool {
        let mut waiting = self.waiting.lock();
        self.n.fetch_sub(n, Ordering::AcqRel);
        waiting.end(flow, n);
        waiting.count();
        let more = !waiting.flows.is_empty();
        if !more {
            self.called.store(false, Ordering::Release);
        }
        more
    }
}
