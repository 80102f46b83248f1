//! Threads and tasks that serve queues: timers, reading from the log, keeping memory within its
//! budget.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::timers::Timers;
use crate::broker::Broker;
use crate::broker::batch::Batch;
use crate::broker::ports::{Bell, LoggedPublish, QueueId, Records, Target};
use crate::broker::queue::Queue;
use crate::broker::queue::scheduler::Scheduler;
use crate::clock;

mod dead_letters;
mod page_in;
mod timers;

/// A queue that wants to be told of a time, unix milliseconds.
type Timer = (QueueId, Weak<Queue>, u64);

/// Messages moved out of memory under one lock.
const EVICT_MESSAGES: usize = 1024;

/// Bytes of messages put into the log at once so that they can leave memory.
const SPILL_BYTES: u64 = 2 << 20;

/// How often memory is compared with its budget.
const RESIDENCY_INTERVAL: Duration = Duration::from_millis(10);

/// How often to look whether the machine was suspended: timers stand still meanwhile, and time does not.
const SUSPENDED_INTERVAL: Duration = Duration::from_secs(1);

/// Timers are late by this much at most, milliseconds, because of a suspension that is not noticed.
const SUSPENDED_MS: u64 = 100;

/// How long after a suspension queues look at the time: what waits in sockets, acknowledgements among it, comes first.
const WAKE_AFTER: Duration = Duration::from_millis(250);

/// Takes requests of queues to the threads that serve them.
pub(super) struct Workers {
    timers: UnboundedSender<Timer>,
    page_ins: Sender<Arc<Queue>>,
    dead_letters: Sender<()>,
}

impl Scheduler for Workers {
    fn arm(&self, queue: &Arc<Queue>, at: u64) {
        // Refused only while the server stops.
        let _ = self.timers.send((queue.id(), Arc::downgrade(queue), at));
    }

    fn page_in(&self, queue: &Arc<Queue>) {
        let _ = self.page_ins.send(queue.clone());
    }

    fn work_off(&self) {
        let _ = self.dead_letters.send(());
    }
}

/// Starts them.
pub(super) fn start(broker: &Arc<Broker>, stop: &CancellationToken) -> std::io::Result<()> {
    let (timers, armed) = unbounded_channel();
    let (page_ins, requests) = channel();
    let (dead_letters, calls) = channel();
    let bell: Arc<dyn Bell> = Arc::new(dead_letters::Call(dead_letters.clone()));
    broker.set_scheduler(Arc::new(Workers {
        timers,
        page_ins,
        dead_letters,
    }));
    let clock = Clock {
        now: clock::now,
        suspended: clock::suspended,
    };
    tokio::spawn(run_timers(broker.clone(), armed, clock, stop.clone()));
    let b = broker.clone();
    std::thread::Builder::new()
        .name("page-in".into())
        .spawn(move || page_in::run(&b, &requests))?;
    let (b, s) = (broker.clone(), stop.clone());
    std::thread::Builder::new()
        .name("dead-letters".into())
        .spawn(move || dead_letters::run(&b, &calls, &bell, &s))?;
    tokio::spawn(run_residency(broker.clone(), stop.clone()));
    Ok(())
}

/// What timers know of the time. See [`crate::clock`].
#[derive(Clone, Copy)]
struct Clock {
    now: fn() -> u64,
    suspended: fn() -> u64,
}

async fn run_timers(
    broker: Arc<Broker>,
    mut armed: UnboundedReceiver<Timer>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut timers = Timers::new();
    let mut batch = Batch::default();
    let mut look = tokio::time::interval(SUSPENDED_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspended = (clock.suspended)();
    loop {
        let queue = tokio::select! {
            () = stop.cancelled() => return,
            request = armed.recv() => match request {
                Some((id, queue, at)) => {
                    let after = at.saturating_sub((clock.now)());
                    timers.arm(id, queue, Duration::from_millis(after));
                    continue;
                }
                None => return,
            },
            _ = look.tick() => {
                let before = std::mem::replace(&mut suspended, (clock.suspended)());
                let milliseconds = suspended.saturating_sub(before);
                if milliseconds >= SUSPENDED_MS {
                    tracing::warn!(milliseconds, "the machine was suspended: what has expired meanwhile goes now");
                    timers.all_after(WAKE_AFTER);
                }
                continue;
            }
            queue = timers.next() => queue,
        };
        if let Some(queue) = queue {
            let now = (clock.now)();
            queue.tick(now, &mut batch.fx);
            if batch.flush(&broker, now).is_err() {
                return;
            }
        }
    }
}

/// Moves bodies out of memory while they exceed the budget.
async fn run_residency(broker: Arc<Broker>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(RESIDENCY_INTERVAL);
    let mut relief = Relief::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !relief.is_due(broker.memory().over_budget(), broker.memory().evictable()) {
            continue;
        }
        let broker = broker.clone();
        // Many queues are many locks: not on a thread that serves connections.
        let done = tokio::task::spawn_blocking(move || {
            let moved = relieve(&broker);
            broker.memory().report();
            (moved, broker.memory().evictable())
        });
        let Ok((moved, left)) = done.await else {
            return;
        };
        relief.ended(moved, left);
    }
}

/// When it is worth looking for something that can leave memory.
#[derive(Debug, Default)]
struct Relief {
    /// Nothing could leave while this much was there, bytes.
    stuck_at: Option<u64>,
    /// Looks to let pass, and how many it was the last time.
    skip: u32,
    skipped: u32,
}

/// Looks that are let pass at most while nothing can leave: one second.
const SKIP_MAX: u32 = 100;

/// What is there has changed when it is this much more or less, bytes.
const CHANGED_BYTES: u64 = 1 << 20;

impl Relief {
    fn is_due(&mut self, over_budget: bool, evictable: u64) -> bool {
        if !over_budget {
            *self = Relief::default();
            return false;
        }
        let same = |at: u64| at.abs_diff(evictable) < CHANGED_BYTES;
        if self.stuck_at.is_some_and(same) && self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }

    /// A look is over: what moved, and what is left.
    fn ended(&mut self, moved: usize, left: u64) {
        if moved > 0 {
            *self = Relief::default();
            return;
        }
        self.stuck_at = Some(left);
        self.skipped = (self.skipped * 2 + 1).min(SKIP_MAX);
        self.skip = self.skipped;
    }
}

/// Moves messages out of memory until it is within its budget, or nothing moves any more; returns how many.
fn relieve(broker: &Broker) -> usize {
    let mut moved = 0;
    let mut queues = broker.all_queues();
    queues.sort_by_key(|q| std::cmp::Reverse(q.counts().ready_bytes + q.counts().unacked_bytes));
    for queue in queues {
        loop {
            if !broker.memory().over_budget() {
                return moved;
            }
            let logged = log_unlogged(broker, &queue);
            let evicted = queue.evict(EVICT_MESSAGES);
            moved += evicted + usize::from(logged);
            if evicted == 0 && !logged {
                break;
            }
        }
    }
    moved
}

/// Puts messages that only memory has into the log, marked as transient. False if there were none.
fn log_unlogged(broker: &Broker, queue: &Arc<Queue>) -> bool {
    if broker.log().backlog_bytes() > SPILL_BYTES {
        // The disk is behind: more would only move memory from queues to the log's buffers.
        return false;
    }
    let found = queue.unlogged(EVICT_MESSAGES, SPILL_BYTES);
    if found.is_empty() {
        return false;
    }
    let mut records = Records::default();
    for (i, u) in found.iter().enumerate() {
        records.targets.push(Target {
            queue: queue.id(),
            expires_at: 0,
            priority: 0,
            delivery_count: 0,
        });
        records.publishes.push(LoggedPublish {
            message: u.message.clone(),
            first_target: i as u32,
            n_targets: 1,
            transient: true,
        });
    }
    let Ok(appended) = broker.log().append(&mut records) else {
        return false;
    };
    let ids = (appended.first_id.0..).map(crate::broker::ports::MessageId);
    let copies: Vec<_> = found.iter().map(|u| u.at).zip(ids).collect();
    let mut batch = Batch::default();
    let now = clock::now();
    queue.logged(&copies, now, &mut batch.fx);
    batch.flush(broker, now).is_ok()
}

/// What alarms are made of, bytes.
pub(super) struct Resources {
    pub(super) memory: u64,
    pub(super) memory_limit: u64,
    pub(super) disk_free: u64,
    pub(super) disk_free_limit: u64,
    /// The log found no room, whatever the disk says it has.
    pub(super) log_out_of_space: bool,
}

/// What clients are told of an alarm.
pub(super) const LOW_ON_MEMORY: &str = "low on memory";
pub(super) const LOW_ON_DISK: &str = "low on disk";

impl Resources {
    /// The alarm, if one has to be.
    pub(super) fn alarm(&self) -> Option<String> {
        let low_on_disk = self.log_out_of_space || self.disk_free < self.disk_free_limit;
        let reasons = [
            (self.memory > self.memory_limit).then_some(LOW_ON_MEMORY),
            low_on_disk.then_some(LOW_ON_DISK),
        ];
        let reasons: Vec<_> = reasons.into_iter().flatten().collect();
        (!reasons.is_empty()).then(|| reasons.join(" & "))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::broker::message::{Message, Parts};
    use crate::broker::vhost::QueueDeclare;
    use crate::protocol::field_table::FieldTable;
    use crate::storage::memory::MemoryLog;

    /// Looks within so many intervals, while nothing can leave.
    fn looks(relief: &mut Relief, intervals: u64, evictable: impl Fn(u64) -> u64) -> u64 {
        let mut n = 0;
        for at in 0..intervals {
            if relief.is_due(true, evictable(at)) {
                n += 1;
                relief.ended(0, evictable(at));
            }
        }
        n
    }

    /// What expired while the machine was suspended goes when it wakes: timers alone would wait as long again.
    #[test]
    fn a_suspended_machine_wakes_in_its_time() {
        const HOUR: u64 = 3_600_000;
        static NOW: AtomicU64 = AtomicU64::new(1_700_000_000_000);
        static SUSPENDED: AtomicU64 = AtomicU64::new(0);
        let clock = Clock {
            now: || NOW.load(Ordering::Relaxed),
            suspended: || SUSPENDED.load(Ordering::Relaxed),
        };
        let (broker, _) = Broker::new(MemoryLog::new(), &[]);
        let broker = Arc::new(broker);
        let (timers, armed) = unbounded_channel();
        broker.set_scheduler(Arc::new(Workers {
            timers,
            page_ins: channel().0,
            dead_letters: channel().0,
        }));
        broker.add_vhost("/").expect("the log works");
        let vhost = broker.vhost("/").expect("just added");
        let mut batch = Batch::default();
        let queues = [HOUR, 2 * HOUR].map(|expiration| {
            let declared = vhost.declare_queue(&QueueDeclare::named(
                &expiration.to_string(),
                &FieldTable::new(),
            ));
            let queue = declared.expect("new").0;
            let parts = Parts {
                exchange: "".into(),
                routing_key: "q".into(),
                properties: &[0, 0],
                flags: 0,
            };
            let message = Message::new(broker.memory(), &parts, b"m");
            let to = std::slice::from_ref(&queue);
            batch.publish(message, to, Some(expiration), None, (clock.now)());
            queue
        });
        batch.flush(&broker, (clock.now)()).expect("the log works");
        let ready = || queues.each_ref().map(|q| q.counts().ready);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let stop = CancellationToken::new();
            let timers = run_timers(broker.clone(), armed, clock, stop.clone());
            let first_gone = async {
                assert_eq!(ready(), [1, 1]);
                NOW.fetch_add(HOUR, Ordering::Relaxed);
                SUSPENDED.fetch_add(HOUR, Ordering::Relaxed);
                while ready() == [1, 1] {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                stop.cancel();
            };
            let both = async { tokio::join!(timers, first_gone) };
            let within = Duration::from_secs(20);
            tokio::time::timeout(within, both).await.expect("it wakes");
        });
        assert_eq!(ready(), [0, 1]);
    }

    #[test]
    fn memory_that_cannot_be_relieved_is_looked_at_seldom() {
        let n = looks(&mut Relief::default(), 6_000, |_| 100 << 20);
        assert!((1..100).contains(&n), "{n} looks in a minute");
        // When it changes, at once.
        let n = looks(&mut Relief::default(), 1000, |at| at * CHANGED_BYTES);
        assert_eq!(n, 1000);
        let mut relief = Relief::default();
        looks(&mut relief, 6_000, |_| 100 << 20);
        assert!(relief.is_due(true, 102 << 20) && !relief.is_due(false, 0));
        relief.ended(5, 100 << 20);
        assert!(relief.is_due(true, 100 << 20), "while something moves");
    }
}
