//! What grows with traffic, counted: one budget for all of it, owned by the broker.
//!
//! Each [`Use`] is counted by itself. Two kinds of them share the budget:
//!
//! - **evictable** ([`Use::Messages`], [`Use::Entries`]): a queue can move it to the log;
//! - **pinned** (the rest): it stays until somebody is done with it. Each pinned use that a client can
//!   make as large as it likes has a limit of its own where it grows, but for what is delivered and
//!   not settled: that has the memory alarm.
//!
//! What is pinned is taken from the budget, so that all of it together stays near the budget; but
//! half of the budget is always there for what is evictable. Otherwise a few histories or open
//! transactions would send everybody's messages through the disk for as long as they are there. Beyond
//! that what is pinned counts for the memory alarm, which looks at the whole process.
//!
//! ```text
//!   0                         budget / 2                       budget
//!   |---- evictable: always ----|-- evictable, or else pinned --|
//! ```
//!
//! Threads count by themselves and report in steps of [`STEP_BYTES`], and what is left when they end: a
//! reading is off by less than that for each thread that lives, and never drifts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, RwLock, Weak};

/// How much a thread counts by itself, of each use, before it reports, bytes.
pub const STEP_BYTES: i64 = 16 * 1024;

/// The budget without configuration, bytes: small, so that a broker with a backlog stays small; enough
/// for more than a second of traffic.
pub const BUDGET_BYTES: u64 = 64 << 20;

/// What all histories of a broker take together without configuration, bytes.
pub const HISTORY_BYTES: u64 = 64 << 20;

const UNPOISONED: &str = "a panic aborts the process";

/// What memory is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Contents of messages, each counted once however many queues have it.
    Messages,
    /// Ready messages' places in their queues, as far as they can move to the log.
    Entries,
    /// Where messages are that are only in the log, and when they expire.
    Places,
    /// Deliveries that are not settled, and copies that wait to be tried again.
    Unacked,
    /// Messages that `x-recent-history` exchanges remember; they count as [`Use::Messages`], too.
    History,
    /// Messages in open transactions; they count as [`Use::Messages`], too.
    Transactions,
    /// Contents that are not complete yet.
    Assembly,
    /// What de-duplication windows remember.
    Deduplication,
    /// What connections remember of routes.
    Routes,
    /// Dead letters that wait for their turn, beside their messages.
    DeadLetters,
    /// Messages of dead letters that wait; they count as [`Use::Messages`], too.
    DeadMessages,
    /// Which copies came back to quorum queues, as far as the store knows something of them.
    Returned,
    /// Definition changes that the log has and the store does not have yet.
    Definitions,
}

impl Use {
    /// All of them.
    pub const ALL: [Use; 13] = [
        Use::Messages,
        Use::Entries,
        Use::Places,
        Use::Unacked,
        Use::History,
        Use::Transactions,
        Use::Assembly,
        Use::Deduplication,
        Use::Routes,
        Use::DeadLetters,
        Use::DeadMessages,
        Use::Returned,
        Use::Definitions,
    ];

    /// Its name, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Use::Messages => "messages",
            Use::Entries => "entries",
            Use::Places => "places",
            Use::Unacked => "unacked",
            Use::History => "history",
            Use::Transactions => "transactions",
            Use::Assembly => "assembly",
            Use::Deduplication => "deduplication",
            Use::Routes => "routes",
            Use::DeadLetters => "dead_letters",
            Use::DeadMessages => "dead_messages",
            Use::Returned => "returned",
            Use::Definitions => "definitions",
        }
    }

    fn is_pinned(self) -> bool {
        !matches!(self, Use::Messages | Use::Entries)
    }

    /// Whether its bytes are messages', and so among those of [`Use::Messages`].
    fn holds_messages(self) -> bool {
        matches!(self, Use::History | Use::Transactions | Use::DeadMessages)
    }
}

/// Names a gauge in what has to be small; zero names none, and counts nowhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct MemoryId(u32);

/// The counters of a broker.
#[derive(Debug)]
struct Gauge {
    id: MemoryId,
    used: [AtomicI64; Use::ALL.len()],
    budget: AtomicI64,
    /// [`Use::Messages`] and [`Use::Entries`] may take this much together, and from here on they are short:
    /// from the budget and what is pinned.
    max: AtomicI64,
    short_above: AtomicI64,
    history_max: AtomicI64,
    alarm: AtomicBool,
}

/// Finds the gauge of an id, for a thread that counted for another broker before. The counters
/// themselves are the brokers': this only says where they are.
static GAUGES: RwLock<Option<HashMap<u32, Weak<Gauge>>>> = RwLock::new(None);

impl Gauge {
    fn add(&self, what: Use, n: i64) {
        self.used[what as usize].fetch_add(n, Ordering::Relaxed);
        if what.is_pinned() {
            self.share();
        }
    }

    fn get(&self, what: Use) -> i64 {
        self.used[what as usize].load(Ordering::Relaxed)
    }

    fn messages_and_entries(&self) -> i64 {
        self.get(Use::Messages) + self.get(Use::Entries)
    }

    /// Shares the budget out: see the module.
    fn share(&self) {
        let (mut held, mut other) = (0, 0);
        for what in Use::ALL.into_iter().filter(|u| u.is_pinned()) {
            match what.holds_messages() {
                true => held += self.get(what),
                false => other += self.get(what),
            }
        }
        let budget = self.budget.load(Ordering::Relaxed);
        let evictable = (budget - held - other).max(budget / 2);
        self.max.store(held + evictable, Ordering::Relaxed);
        self.short_above
            .store(held + evictable / 2, Ordering::Relaxed);
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        if let Some(all) = GAUGES.write().expect(UNPOISONED).as_mut() {
            all.remove(&self.id.0);
        }
    }
}

/// What this thread has counted and not reported yet.
struct Here {
    id: Cell<u32>,
    gauge: RefCell<Option<Arc<Gauge>>>,
    counts: [Cell<i64>; Use::ALL.len()],
}

thread_local! {
    static HERE: Here = const {
        Here {
            id: Cell::new(0),
            gauge: RefCell::new(None),
            counts: [const { Cell::new(0) }; Use::ALL.len()],
        }
    };
}

impl Here {
    #[inline]
    fn add(&self, id: MemoryId, what: Use, n: i64) {
        if self.id.get() != id.0 {
            self.turn_to(id);
        }
        let count = &self.counts[what as usize];
        let sum = count.get() + n;
        count.set(sum);
        if sum.abs() >= STEP_BYTES {
            self.report(what);
        }
    }

    #[cold]
    fn turn_to(&self, id: MemoryId) {
        self.report_all();
        self.id.set(id.0);
        *self.gauge.borrow_mut() = find(id);
    }

    #[cold]
    fn report(&self, what: Use) {
        let n = self.counts[what as usize].take();
        // There is none any more when the broker is gone, and its messages outlive it.
        if n != 0
            && let Some(gauge) = &*self.gauge.borrow()
        {
            gauge.add(what, n);
        }
    }

    fn report_all(&self) {
        Use::ALL.into_iter().for_each(|what| self.report(what));
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.report_all();
    }
}

fn find(id: MemoryId) -> Option<Arc<Gauge>> {
    let all = GAUGES.read().expect(UNPOISONED);
    all.as_ref()?.get(&id.0)?.upgrade()
}

impl MemoryId {
    /// Counts `n` bytes more, or fewer.
    #[inline]
    pub(super) fn add(self, what: Use, n: i64) {
        if self.0 == 0 || n == 0 {
            return;
        }
        // A thread that is being torn down has reported already: what it still drops counts at once.
        if HERE.try_with(|here| here.add(self, what, n)).is_err()
            && let Some(gauge) = find(self)
        {
            gauge.add(what, n);
        }
    }
}

/// The memory of a broker. Cloning it copies a pointer.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Gauge>);

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Nothing used, of a budget of [`BUDGET_BYTES`].
    pub fn new() -> Memory {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let gauge = Arc::new(Gauge {
            id: MemoryId(NEXT.fetch_add(1, Ordering::Relaxed)),
            used: Default::default(),
            budget: AtomicI64::new(BUDGET_BYTES as i64),
            max: AtomicI64::new(BUDGET_BYTES as i64),
            short_above: AtomicI64::new(BUDGET_BYTES as i64 / 2),
            history_max: AtomicI64::new(HISTORY_BYTES as i64),
            alarm: AtomicBool::new(false),
        });
        let mut all = GAUGES.write().expect(UNPOISONED);
        let all = all.get_or_insert_default();
        all.insert(gauge.id.0, Arc::downgrade(&gauge));
        Memory(gauge)
    }

    /// Sets the budget, bytes.
    pub fn set_budget(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.budget.store(bytes, Ordering::Relaxed);
        self.0.share();
    }

    /// Sets what all histories may take together before each of them forgets more than its arguments
    /// say, bytes.
    pub fn set_history_max(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.history_max.store(bytes, Ordering::Relaxed);
    }

    /// Whether an alarm is on, of memory or disk: publishers are held back, and what expires is not
    /// dead-lettered.
    pub fn set_alarm(&self, on: bool) {
        self.0.alarm.store(on, Ordering::Relaxed);
    }

    /// See [`Self::set_alarm`].
    pub fn is_alarming(&self) -> bool {
        self.0.alarm.load(Ordering::Relaxed)
    }

    /// Something to count `what` with.
    pub fn charge(&self, what: Use) -> Charge {
        self.id().charge(what)
    }

    pub(super) fn id(&self) -> MemoryId {
        self.0.id
    }

    /// Bytes used now, all that the calling thread has counted included.
    pub fn used(&self, what: Use) -> u64 {
        self.report();
        self.0.get(what).max(0) as u64
    }

    /// Makes everybody see what the calling thread has counted: for threads that may idle now.
    pub fn report(&self) {
        // A thread that is being torn down has reported.
        let _ = HERE.try_with(Here::report_all);
    }

    /// What evictable uses take, about.
    pub fn evictable(&self) -> u64 {
        self.0.messages_and_entries().max(0) as u64
    }

    /// Whether half of what evictable uses may take is used: time to slow publishers down.
    pub fn is_short(&self) -> bool {
        self.0.messages_and_entries() > self.0.short_above.load(Ordering::Relaxed)
    }

    /// Whether dead letters that wait take this part of the budget, messages and all.
    fn dead_letters_take(&self, part: i64) -> bool {
        let dead = self.0.get(Use::DeadLetters) + self.0.get(Use::DeadMessages);
        dead > self.0.budget.load(Ordering::Relaxed) / part
    }

    /// Whether dead letters that wait take a sixteenth of the budget: fewer of those are worked off at a time
    /// from which more follow.
    pub fn dead_letters_are_tight(&self) -> bool {
        self.dead_letters_take(16)
    }

    /// Whether dead letters that wait take a quarter of the budget: what expires waits in its queue, then,
    /// from where it can leave for the log, and no more are read from there.
    pub fn dead_letters_are_many(&self) -> bool {
        self.dead_letters_take(4)
    }

    /// Whether evictable uses take more than they may: messages have to leave for the log.
    pub fn over_budget(&self) -> bool {
        self.0.messages_and_entries() > self.0.max.load(Ordering::Relaxed)
    }
}

impl MemoryId {
    /// Something to count `what` with.
    pub(super) fn charge(self, what: Use) -> Charge {
        Charge {
            id: self,
            what,
            bytes: 0,
        }
    }

    /// Whether all histories together take more than they may.
    pub(super) fn histories_are_large(self) -> bool {
        find(self).is_some_and(|gauge| {
            gauge.get(Use::History) > gauge.history_max.load(Ordering::Relaxed)
        })
    }
}

/// Bytes that count for as long as this lives; by default nowhere.
#[derive(Debug)]
pub struct Charge {
    id: MemoryId,
    what: Use,
    bytes: u64,
}

impl Charge {
    /// Counts `bytes` instead of what it counted before.
    #[inline]
    pub fn set(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.id.add(self.what, bytes as i64 - self.bytes as i64);
            self.bytes = bytes;
        }
    }

    /// What it counts now, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Default for Charge {
    fn default() -> Charge {
        MemoryId::default().charge(Use::Entries)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::message::{Message, Parts};
    use crate::protocol::short::ShortBytes;

    const PARTS: Parts<'_> = Parts {
        exchange: ShortBytes::EMPTY,
        routing_key: ShortBytes::EMPTY,
        properties: &[0, 0],
        flags: 0,
    };

    #[test]
    fn a_shared_body_is_counted_once_and_given_back() {
        let memory = Memory::new();
        let m = Message::new(&memory, &PARTS, &[0; 1000]);
        let copies: Vec<_> = (0..10).map(|_| m.clone()).collect();
        assert_eq!(memory.used(Use::Messages), m.resident_bytes() as u64);
        drop((m, copies));
        assert_eq!(memory.used(Use::Messages), 0);
    }

    #[test]
    fn threads_that_end_leave_nothing_behind() {
        let memory = Memory::new();
        for size in [10, 1000, STEP_BYTES as usize - 200, 3 * STEP_BYTES as usize] {
            let messages: Vec<_> = (0..50)
                .map(|_| Message::new(&memory, &PARTS, &vec![0; size]))
                .collect();
            let each = messages[0].resident_bytes() as u64;
            let mut left = 50;
            for m in messages {
                std::thread::spawn(move || drop(m)).join().unwrap();
                left -= 1;
                assert_eq!(memory.used(Use::Messages), left * each, "of {size}");
            }
        }
    }

    #[test]
    fn what_a_thread_drops_as_it_ends_is_counted() {
        thread_local! {
            static LAST: RefCell<Option<Message>> = const { RefCell::new(None) };
        }
        let memory = Memory::new();
        let m = Message::new(&memory, &PARTS, &[0; 1000]);
        std::thread::spawn(move || LAST.with(|last| *last.borrow_mut() = Some(m)))
            .join()
            .unwrap();
        assert_eq!(memory.used(Use::Messages), 0);
    }

    #[test]
    fn brokers_of_one_process_do_not_see_each_other() {
        let (a, b) = (Memory::new(), Memory::new());
        let one = Message::new(&a, &PARTS, &[0; 10]);
        let two = Message::new(&b, &PARTS, &[0; 20]);
        assert_eq!(a.used(Use::Messages), one.resident_bytes() as u64);
        assert_eq!(b.used(Use::Messages), two.resident_bytes() as u64);
        drop(one);
        assert_eq!(a.used(Use::Messages), 0);
        // A message may outlive its broker.
        drop(b);
        drop(two);
        assert_eq!(a.used(Use::Messages), 0);
    }

    #[test]
    fn a_message_of_the_log_counts_once_it_is_in_a_queue() {
        let memory = Memory::new();
        let m = Message::uncounted(&PARTS, &[0; 10]);
        assert_eq!(memory.used(Use::Messages), 0);
        let m = m.counted(&memory).counted(&memory);
        assert_eq!(memory.used(Use::Messages), m.resident_bytes() as u64);
    }

    #[test]
    fn what_is_pinned_takes_from_the_budget_but_not_the_last_half() {
        let memory = Memory::new();
        memory.set_budget(1 << 20);
        let (mut entries, mut unacked) = (memory.charge(Use::Entries), memory.charge(Use::Unacked));
        let mut over = |evictable: u64, pinned: u64| {
            entries.set(evictable);
            unacked.set(pinned);
            memory.report();
            (memory.is_short(), memory.over_budget())
        };
        assert_eq!(over(1 << 19, 0), (false, false));
        assert_eq!(over(1 << 20, 0), (true, false));
        assert_eq!(over((1 << 20) + 1, 0), (true, true));
        assert_eq!(over(3 << 18, 1 << 18), (true, false));
        assert_eq!(over((3 << 18) + 1, 1 << 18), (true, true));
        for pinned in [1 << 19, 1 << 20, 1 << 30] {
            assert_eq!(over(1 << 18, pinned), (false, false));
            assert_eq!(over(1 << 19, pinned), (true, false));
            assert_eq!(over((1 << 19) + 1, pinned), (true, true));
        }
    }

    #[test]
    fn messages_that_are_pinned_are_not_asked_to_leave() {
        let memory = Memory::new();
        memory.set_budget(1 << 20);
        let m = Message::new(&memory, &PARTS, &vec![0; 8 << 20]);
        assert!(memory.over_budget());
        let mut history = memory.charge(Use::History);
        history.set(m.resident_bytes() as u64);
        memory.report();
        assert!(!memory.over_budget() && !memory.is_short());
        history.set(0);
        memory.report();
        assert!(memory.over_budget());
    }
}
