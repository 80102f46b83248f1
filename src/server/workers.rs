//! Threads and tasks that serve queues: timers, reading from the log, keeping memory within its
//! budget.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::time::delay_queue::{self, DelayQueue};

use crate::broker::Broker;
use crate::broker::batch::Batch;
use crate::broker::ports::{LoggedPublish, QueueId, Records, Scheduler, Target};
use crate::broker::queue::Queue;
use crate::clock;

mod page_in;

/// A queue that wants to be told of a time, unix milliseconds.
type Timer = (QueueId, Weak<Queue>, u64);

/// Messages moved out of memory under one lock.
const EVICT_MESSAGES: usize = 1024;

/// Bytes of messages put into the log at once so that they can leave memory.
const SPILL_BYTES: u64 = 2 << 20;

/// How often memory is compared with its budget.
const RESIDENCY_INTERVAL: Duration = Duration::from_millis(10);

/// Takes requests of queues to the threads that serve them.
pub(super) struct Workers {
    timers: UnboundedSender<Timer>,
    page_ins: Sender<Arc<Queue>>,
}

impl Scheduler for Workers {
    fn arm(&self, queue: &Arc<Queue>, at: u64) {
        // Refused only while the server stops.
        let _ = self.timers.send((queue.id(), Arc::downgrade(queue), at));
    }

    fn page_in(&self, queue: &Arc<Queue>) {
        let _ = self.page_ins.send(queue.clone());
    }
}

/// Starts them.
pub(super) fn start(broker: &Arc<Broker>, stop: &CancellationToken) -> std::io::Result<()> {
    let (timers, armed) = unbounded_channel();
    let (page_ins, requests) = channel();
    broker.set_scheduler(Arc::new(Workers { timers, page_ins }));
    tokio::spawn(run_timers(broker.clone(), armed, stop.clone()));
    let b = broker.clone();
    std::thread::Builder::new()
        .name("page-in".into())
        .spawn(move || page_in::run(&b, &requests))?;
    tokio::spawn(run_residency(broker.clone(), stop.clone()));
    Ok(())
}

async fn run_timers(
    broker: Arc<Broker>,
    mut armed: UnboundedReceiver<Timer>,
    stop: CancellationToken,
) {
    use std::future::poll_fn;
    let mut due: DelayQueue<(QueueId, Weak<Queue>)> = DelayQueue::new();
    let mut keys: HashMap<QueueId, delay_queue::Key> = HashMap::new();
    let mut batch = Batch::default();
    loop {
        let queue = tokio::select! {
            () = stop.cancelled() => return,
            request = armed.recv() => match request {
                Some((id, queue, at)) => {
                    // One timer a queue: a queue asks again only for an earlier time.
                    match keys.entry(id) {
                        Entry::Occupied(key) => due.reset(key.get(), clock::until(at)),
                        Entry::Vacant(key) => {
                            key.insert(due.insert((id, queue), clock::until(at)));
                        }
                    }
                    continue;
                }
                None => return,
            },
            Some(expired) = poll_fn(|cx| due.poll_expired(cx)), if !due.is_empty() => {
                let (id, queue) = expired.into_inner();
                keys.remove(&id);
                queue
            }
        };
        if let Some(queue) = queue.upgrade() {
            let now = clock::now();
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
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !broker.memory().over_budget() {
            continue;
        }
        let broker = broker.clone();
        // Many queues are many locks: not on a thread that serves connections.
        let done = tokio::task::spawn_blocking(move || {
            relieve(&broker);
            broker.memory().report();
        });
        if done.await.is_err() {
            return;
        }
    }
}

fn relieve(broker: &Broker) {
    let mut queues = broker.all_queues();
    queues.sort_by_key(|q| std::cmp::Reverse(q.counts().ready_bytes + q.counts().unacked_bytes));
    for queue in queues {
        loop {
            if !broker.memory().over_budget() {
                return;
            }
            let logged = log_unlogged(broker, &queue);
            if queue.evict(EVICT_MESSAGES) == 0 && !logged {
                break;
            }
        }
    }
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

/// Memory in use and its limit, disk space and its limit: what alarms are made of.
pub(super) fn alarm_reason(memory: (u64, u64), disk: (u64, u64)) -> Option<String> {
    let mut reasons = Vec::new();
    if memory.0 > memory.1 {
        reasons.push("low on memory");
    }
    if disk.0 < disk.1 {
        reasons.push("low on disk");
    }
    (!reasons.is_empty()).then(|| reasons.join(" & "))
}
