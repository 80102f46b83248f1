//! What a broker has others do, done when it is said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use leveret::broker::Broker;
use leveret::broker::batch::Batch;
use leveret::broker::queue::Queue;
use leveret::broker::queue::effects::Effects;
use leveret::broker::queue::scheduler::Scheduler;

/// Dead letters may make others; those that go round end at some time.
const ROUNDS_MAX: usize = 10_000;

type Later = Mutex<BTreeMap<u64, (u64, Weak<Queue>)>>;

/// See the module.
#[derive(Default)]
pub(super) struct Work {
    /// By the queue's id: when.
    timers: Later,
    reads: Later,
    dead_letters: AtomicBool,
}

impl Scheduler for Work {
    fn arm(&self, queue: &Arc<Queue>, at: u64) {
        let entry = (at, Arc::downgrade(queue));
        self.timers
            .lock()
            .expect("no panic")
            .insert(queue.id().0, entry);
    }

    fn page_in(&self, queue: &Arc<Queue>) {
        let entry = (0, Arc::downgrade(queue));
        self.reads
            .lock()
            .expect("no panic")
            .insert(queue.id().0, entry);
    }

    fn work_off(&self) {
        self.dead_letters.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// Does all there is to do at this time.
    pub(super) fn turn(&self, broker: &Broker, now: u64) {
        for _ in 0..ROUNDS_MAX {
            let mut batch = Batch::default();
            let mut due = Vec::new();
            self.timers
                .lock()
                .expect("no panic")
                .retain(|_, (at, queue)| {
                    let is_due = *at <= now;
                    if is_due {
                        due.extend(queue.upgrade());
                    }
                    !is_due
                });
            let reads = std::mem::take(&mut *self.reads.lock().expect("no panic"));
            let reads: Vec<_> = reads
                .into_values()
                .filter_map(|(_, queue)| queue.upgrade())
                .collect();
            let dead = self.dead_letters.swap(false, Ordering::Relaxed);
            if due.is_empty() && reads.is_empty() && !dead {
                return;
            }
            for queue in due {
                queue.tick(now, &mut batch.fx);
            }
            for queue in reads {
                let wanted = queue.wanted_now(64, 1 << 20);
                let ids: Vec<_> = wanted.iter().map(|(_, id)| *id).collect();
                let mut found = Vec::new();
                broker
                    .log()
                    .read(&ids, &mut found)
                    .expect("a log in memory");
                let read = wanted
                    .into_iter()
                    .zip(found)
                    .map(|((seq, id), found)| (seq, id, found));
                let arrived = queue.arrived(read.collect(), now, &mut batch.fx);
                assert_eq!((arrived.lost, arrived.settled), (0, 0));
                if arrived.again {
                    self.page_in(&queue);
                }
            }
            batch.flush(broker, now).expect("a log in memory");
            if dead {
                while broker.work_off(&mut batch, now).expect("a log in memory") {}
            }
        }
        panic!("there is always something to do");
    }

    /// What follows of something that was done to a queue.
    pub(super) fn flush(&self, broker: &Broker, fx: Effects, now: u64) {
        let mut batch = Batch::default();
        batch.fx = fx;
        batch.flush(broker, now).expect("a log in memory");
    }
}
