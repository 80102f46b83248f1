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

/// Octets that are copied to route a dead letter, about: the history in its headers is read and written.
pub(super) fn octets(dead: &Dead) -> usize {
    let message = dead.entry.message.as_ref();
    message.map_or(0, |m| 4 * m.properties().len() + m.resident_bytes())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::batch::Batch;
    use crate::broker::message::{FLAG_PERSISTENT, Message, Parts};
    use crate::broker::ports::{MessageLog, Scheduler};
    use crate::broker::queue::{Got, Queue};
    use crate::broker::vhost::QueueDeclare;
    use crate::broker::{Broker, ConnectionId};
    use crate::protocol::field_table::FieldTable;
    use crate::storage::memory::MemoryLog;

    const QUEUES: usize = 60;

    /// Nobody is called: the test works off by itself.
    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Scheduler for Calls {
        fn arm(&self, _: &Arc<Queue>, _: u64) {}

        fn page_in(&self, _: &Arc<Queue>) {}

        fn work_off(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues that keep nothing, each dead-lettering into the next, and one that keeps all.
    fn chain(broker: &Broker) -> Vec<Arc<Queue>> {
        broker.add_vhost("/").expect("the log works");
        let vhost = broker.vhost("/").expect("just added");
        let declare = |n: usize| {
            let mut arguments = FieldTable::new();
            if n < QUEUES {
                arguments.insert("x-max-length", 0i64);
                arguments.insert("x-dead-letter-exchange", "");
                arguments.insert("x-dead-letter-routing-key", format!("q{}", n + 1).as_str());
            }
            let declared = vhost.declare_queue(&QueueDeclare {
                name: &format!("q{n}"),
                server_named: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments: &arguments,
                connection: ConnectionId(1),
            });
            declared.expect("new").0
        };
        (0..=QUEUES).map(declare).collect()
    }

    fn publish(broker: &Broker, batch: &mut Batch, queue: &Arc<Queue>, number: u64) {
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q0".into(),
            properties: &[0x10, 0, 2],
            flags: FLAG_PERSISTENT,
        };
        let message = Message::new(broker.memory(), &parts, &number.to_be_bytes());
        batch.publish(message, std::slice::from_ref(queue), None, None, 1);
    }

    #[test]
    fn a_chain_is_worked_off_in_turns_and_confirmed_before() {
        let log = MemoryLog::new();
        let (broker, _) = Broker::new(log.clone(), &[]);
        let calls = Arc::new(Calls::default());
        broker.set_scheduler(calls.clone());
        let queues = chain(&broker);
        let mut batch = Batch::default();
        for number in 0..10 {
            publish(&broker, &mut batch, &queues[0], number);
            let before = log.staged();
            let lsn = batch.flush(&broker, 1).expect("the log works");
            assert!(
                lsn > before && (number > 0 || lsn < log.staged()),
                "its own record"
            );
        }
        let last = &queues[QUEUES];
        assert_eq!(
            (last.counts().ready, calls.0.load(Ordering::Relaxed)),
            (0, 1)
        );
        // A crash now: all of them are somewhere.
        log.sync();
        let crashed = log.after_crash();
        let (again, _) = Broker::new(crashed.clone(), &crashed.definitions());
        again.recover_messages(|known, each| crashed.recover(known, each), 1);
        let ready: u64 = again.all_queues().iter().map(|q| q.counts().ready).sum();
        assert_eq!(ready, 10);
        let mut turns = 1;
        while broker.work_off(&mut batch, 1).expect("the log works") {
            turns += 1;
        }
        assert!(turns > QUEUES / 2 && broker.backlog().is_idle(), "{turns}");
        assert_eq!(broker.memory().used(Use::DeadLetters), 0);
        let bell: Arc<dyn crate::broker::ports::Bell> = Arc::new(NoBell);
        for number in 0..10u64 {
            let Got::Message(d, _) = last.get(true, &bell, 1, &mut batch.fx) else {
                panic!("{number} is missing");
            };
            let message = d.entry.message.expect("it is in memory");
            assert_eq!(message.body(), number.to_be_bytes());
        }
    }

    struct NoBell;

    impl crate::broker::ports::Bell for NoBell {
        fn ring(&self) {}
    }

    #[test]
    fn many_at_once_are_shared_out_and_stay_in_order() {
        let (broker, _) = Broker::new(MemoryLog::new(), &[]);
        broker.set_scheduler(Arc::new(Calls::default()));
        let queues = chain(&broker);
        let last = &queues[QUEUES];
        let mut batch = Batch::default();
        for number in 0..3 * AT_ONCE_MAX as u64 {
            publish(&broker, &mut batch, &queues[QUEUES - 1], number);
        }
        batch.flush(&broker, 1).expect("the log works");
        assert_eq!(last.counts().ready, AT_ONCE_MAX as u64);
        // Another one does not overtake those that wait.
        publish(&broker, &mut batch, &queues[QUEUES - 1], u64::MAX);
        batch.flush(&broker, 1).expect("the log works");
        assert_eq!(last.counts().ready, AT_ONCE_MAX as u64);
        while broker.work_off(&mut batch, 1).expect("the log works") {}
        assert_eq!(last.counts().ready, 3 * AT_ONCE_MAX as u64 + 1);
    }
}
