//! What is known of all that was done: the history, and what it cannot know of transactions, duplicates and returns.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::history::{CopyId, Delivery, History};

/// Queues, by the index that the history knows them by.
pub const QUEUES: [&str; 10] = [
    "letters",
    "letters-dead",
    "delayed",
    "tx-a",
    "tx-b",
    "returns",
    "returns-dead",
    "once-exchange",
    "once-queue",
    "purges",
];
pub const LETTERS: usize = 0;
pub const LETTERS_DEAD: usize = 1;
pub const DELAYED: usize = 2;
pub const TX: [usize; 2] = [3, 4];
pub const RETURNS: usize = 5;
pub const RETURNS_DEAD: usize = 6;
pub const ONCE: [usize; 2] = [7, 8];
pub const PURGES: usize = 9;

/// Returns that a quorum queue allows.
pub const DELIVERY_LIMIT: i64 = 3;

/// What is done last is shown when something is wrong.
const TRACE_MAX: usize = 3000;

/// Where a dead letter of this queue came from.
pub fn origin(queue: usize) -> usize {
    match queue {
        LETTERS_DEAD => LETTERS,
        RETURNS_DEAD => RETURNS,
        other => other,
    }
}

/// Who published a message, as which of the channel if there is an order, and when it may come.
struct Message {
    publisher: u64,
    sequence: Option<u64>,
    not_before: Instant,
}

/// A transaction: its copies, and whether a commit was sent.
pub struct Transaction {
    pub copies: Vec<CopyId>,
    pub sent: bool,
    pub answered: bool,
}

/// All that was published with one value of the de-duplication header.
#[derive(Default)]
pub struct Once {
    pub queue: usize,
    pub numbers: Vec<u64>,
    pub confirmed: bool,
    /// The one that came.
    pub came: Option<u64>,
    pub came_ever: bool,
}

#[derive(Default)]
pub struct Pages {
    pub history: History,
    messages: HashMap<u64, Message>,
    pub next: u64,
    pub received: u64,
    ids: u64,
    pub transactions: Vec<Transaction>,
    seen: HashSet<CopyId>,
    pub once: Vec<Once>,
    /// By the number of the message.
    pub once_of: HashMap<u64, usize>,
    /// Message and its counts of deliveries and failures, as they were seen, in this order.
    counted: Vec<(u64, [i64; 2])>,
    /// So many of them were before something that was confirmed.
    counted_for_good: usize,
    /// No count is below this.
    floor: HashMap<u64, [i64; 2]>,
    /// By then all has come that is delayed.
    pub delayed_until: Option<Instant>,
    trace: VecDeque<String>,
}

#[derive(Default)]
pub struct Book(Mutex<Pages>);

/// Taken when a message is published: what a confirm of it says of all before.
#[derive(Clone, Copy)]
pub struct Before {
    settled: u64,
    counted: usize,
}

impl Book {
    pub fn new(first: u64) -> Book {
        let pages = Pages {
            next: first,
            ..Pages::default()
        };
        Book(Mutex::new(pages))
    }

    pub fn open(&self) -> MutexGuard<'_, Pages> {
        // A test that failed in one task ends in all.
        self.0.lock().expect("nothing has failed")
    }
}

impl Pages {
    pub fn note(&mut self, what: String) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(what);
    }

    pub fn fail(&self, what: &str) -> ! {
        for line in &self.trace {
            eprintln!("{line}");
        }
        panic!("{what}");
    }

    pub fn must<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|what| self.fail(&what))
    }

    /// Messages that went one way or the other.
    pub fn moved(&self) -> u64 {
        self.next + self.received
    }

    /// A number that nobody else has.
    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// A new message to these queues.
    pub fn published(
        &mut self,
        publisher: u64,
        sequence: Option<u64>,
        to: &[usize],
        delay: Duration,
    ) -> (u64, Vec<CopyId>, Before) {
        let number = self.next;
        self.next += 1;
        self.delayed_until = self.delayed_until.max(Some(Instant::now() + delay));
        let message = Message {
            publisher,
            sequence,
            not_before: Instant::now() + delay,
        };
        self.messages.insert(number, message);
        let copy = |queue: &usize| CopyId {
            message: number,
            queue: *queue,
        };
        let copies: Vec<_> = to.iter().map(copy).collect();
        for copy in &copies {
            self.history.published(*copy, true);
        }
        let before = Before {
            settled: self.history.settled(),
            counted: self.counted.len(),
        };
        (number, copies, before)
    }

    /// The broker has confirmed it, or committed.
    pub fn confirmed(&mut self, number: u64, copies: &[CopyId], before: Before) {
        self.counted_for_good = self.counted_for_good.max(before.counted);
        if let Some(at) = self.once_of.get(&number) {
            let once = &mut self.once[*at];
            once.confirmed = true;
            // Whether this is the one that is there is known only of the first.
            if once.numbers[0] != number {
                return;
            }
        }
        for copy in copies {
            self.history.kept(*copy, true, before.settled);
        }
    }

    /// A client got a message of a queue.
    pub fn delivered(
        &mut self,
        queue: usize,
        octets: &[u8],
        redelivered: bool,
        counts: [i64; 2],
        consumer: u64,
    ) -> CopyId {
        self.received += 1;
        let read = crate::body::number(octets);
        let Some(message) = self.must(read) else {
            self.fail("a body of nobody");
        };
        let again = if redelivered { " again" } else { "" };
        self.note(format!("{}: got {message}{again}", QUEUES[queue]));
        let Some(known) = self.messages.get(&message) else {
            self.fail(&format!("message {message} was never published"));
        };
        if Instant::now() < known.not_before {
            self.fail(&format!("message {message} came too early"));
        }
        let dead = origin(queue) != queue;
        let copy = CopyId {
            message,
            queue: origin(queue),
        };
        let delivery = Delivery {
            copy,
            dead,
            redelivered,
            consumer,
            publisher: known.publisher,
            sequence: known.sequence,
        };
        let result = self.history.delivered(&delivery);
        self.must(result);
        if TX.contains(&queue) {
            self.seen.insert(copy);
        }
        if let Some(at) = self.once_of.get(&message) {
            let once = &mut self.once[*at];
            once.came_ever = true;
            match once.came.replace(message) {
                Some(other) if other != message => {
                    self.fail(&format!(
                        "{message} is a duplicate of {other}, and both came"
                    ));
                }
                _ => {}
            }
        }
        if queue == RETURNS {
            let floor = self.floor.get(&message).copied().unwrap_or_default();
            if counts[1] > DELIVERY_LIMIT || counts[0] < floor[0] || counts[1] < floor[1] {
                self.fail(&format!("{message} counts {counts:?}, before {floor:?}"));
            }
            self.counted.push((message, counts));
        }
        copy
    }

    /// The broker was killed.
    pub fn killed(&mut self) {
        self.note("killed".into());
        for (message, counts) in &self.counted[..self.counted_for_good] {
            let floor = self.floor.entry(*message).or_default();
            *floor = [0, 1].map(|i| floor[i].max(counts[i]));
        }
        self.counted.clear();
        self.counted_for_good = 0;
        for transaction in self.transactions.iter().filter(|t| !t.sent) {
            for copy in &transaction.copies {
                self.history.undone(*copy);
            }
        }
        for once in self.once.iter_mut().filter(|o| !o.confirmed) {
            once.came = None;
        }
        self.history.killed();
    }

    /// Everything that is there has come: is it what was promised?
    pub fn account(&self) {
        for transaction in &self.transactions {
            let came = transaction.copies.iter().filter(|c| self.seen.contains(c));
            let (came, all) = (came.count(), transaction.copies.len());
            let right = match (transaction.sent, transaction.answered) {
                (false, _) => came == 0,
                (true, true) => came == all,
                (true, false) => came == 0 || came == all,
            };
            if !right {
                let first = transaction.copies.first();
                self.fail(&format!(
                    "{came} of {all} came of the transaction with {first:?}"
                ));
            }
        }
        for once in self.once.iter().filter(|o| o.confirmed) {
            if !once.came_ever {
                self.fail(&format!("none came of {:?}", once.numbers));
            }
        }
    }
}
