//! Reading messages back from the log for the queues that wait for them.
//!
//! One thread serves all queues, so nothing may keep it: what cannot be read now is asked for again
//! later, each queue by itself and less and less often, and the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::broker::batch::Batch;
use crate::broker::ports::Found;
use crate::broker::queue::{Arrived, Queue};
use crate::clock;

/// Messages read from the log at once, and about how many bytes.
const MESSAGES: usize = 1024;
const BYTES: u64 = 1 << 20;

/// How long a queue waits before it is read for again; twice as long each time, up to the longest.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);

/// A disk that fails is told of once in this.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Queues that have to be read for again.
#[derive(Default)]
struct Again {
    due: BTreeMap<(Instant, u64), (Arc<Queue>, Duration)>,
    n: u64,
}

impl Again {
    fn at(&mut self, now: Instant, queue: Arc<Queue>, pause: Duration) {
        self.n += 1;
        self.due.insert((now + pause, self.n), (queue, pause));
    }

    /// The first one that is due, and the pause it has had.
    fn due(&mut self, now: Instant) -> Option<(Arc<Queue>, Duration)> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// How long until one is due.
    fn until_next(&self, now: Instant) -> Option<Duration> {
        let (at, _) = self.due.first_key_value()?.0;
        Some(at.saturating_duration_since(now))
    }
}

/// Serves requests until nobody makes any, or the log has failed.
pub(super) fn run(broker: &Arc<Broker>, requests: &Receiver<Arc<Queue>>) {
    let mut reader = Reader {
        broker,
        batch: Batch::default(),
        found: Vec::new(),
        told: None,
    };
    let mut again = Again::default();
    loop {
        let now = Instant::now();
        let (queue, pause) = match again.due(now) {
            Some(due) => due,
            None => {
                // It may idle now.
                broker.memory().report();
                let request = match again.until_next(now) {
                    Some(pause) => requests.recv_timeout(pause),
                    None => requests.recv().map_err(RecvTimeoutError::from),
                };
                match request {
                    Ok(queue) => (queue, Duration::ZERO),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        match reader.read(&queue) {
            Some(arrived) if arrived.again => {
                let pause = match broker.dead_letters_are_many() {
                    // Who consumes from the queue is not to wait for those.
                    true => AGAIN_AFTER,
                    false => (pause * 2).clamp(AGAIN_AFTER, AGAIN_AFTER_MAX),
                };
                again.at(Instant::now(), queue, pause);
            }
            Some(_) => {}
            None => return,
        }
    }
}

struct Reader<'a> {
    broker: &'a Arc<Broker>,
    batch: Batch,
    found: Vec<Found>,
    /// When a failure was last told.
    told: Option<Instant>,
}

impl Reader<'_> {
    /// Reads what a queue wants next, and hands it over. `None` once the log has failed.
    fn read(&mut self, queue: &Arc<Queue>) -> Option<Arrived> {
        // What may not die now would only wait in memory.
        let wanted = queue.wanted_now(MESSAGES, BYTES);
        let ids: Vec<_> = wanted.iter().map(|(_, id)| *id).collect();
        self.found.clear();
        if let Err(e) = self.broker.log().read(&ids, &mut self.found) {
            self.failed(queue, &e);
        }
        // What there is no answer for has not been read.
        self.found.resize(ids.len(), Found::Later);
        let read = wanted
            .into_iter()
            .zip(self.found.drain(..))
            .map(|((seq, id), found)| (seq, id, found));
        let now = clock::now();
        let arrived = queue.arrived(read.collect(), now, &mut self.batch.fx);
        self.tell_losses(queue, &arrived);
        self.batch.flush(self.broker, now).ok()?;
        Some(arrived)
    }

    fn failed(&mut self, queue: &Queue, why: &std::io::Error) {
        let totals = &self.broker.totals;
        totals.log_read_errors.fetch_add(1, Ordering::Relaxed);
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            let info = queue.info();
            tracing::error!(
                queue = &*info.name,
                vhost = &*info.vhost,
                "reading messages from the log failed, nothing is given up, it is tried again: {why}"
            );
        }
    }

    fn tell_losses(&self, queue: &Queue, arrived: &Arrived) {
        let totals = &self.broker.totals;
        let info = queue.info();
        if arrived.lost > 0 {
            totals
                .log_lost_messages
                .fetch_add(arrived.lost, Ordering::Relaxed);
            tracing::error!(
                queue = &*info.name,
                vhost = &*info.vhost,
                messages = arrived.lost,
                "messages of a queue are lost: the log is damaged where they were"
            );
        }
        if arrived.settled > 0 {
            tracing::error!(
                queue = &*info.name,
                vhost = &*info.vhost,
                messages = arrived.settled,
                "messages of a queue are gone: the log has them as settled"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::broker::arguments::QueueSettings;
    use crate::broker::memory::Memory;
    use crate::broker::message::{Message, Parts};
    use crate::broker::ports::{
        Bell, LoggedPublish, MessageId, MessageLog as _, QueueId, Records, RecoveredRun, Target,
    };
    use crate::broker::queue::effects::Effects;
    use crate::broker::queue::{Got, QueueInfo};
    use crate::protocol::field_table::FieldTable;
    use crate::storage::memory::MemoryLog;

    struct Told(Sender<()>);

    impl Bell for Told {
        fn ring(&self) {
            let _ = self.0.send(());
        }
    }

    /// A durable queue with one message that is only in the log.
    fn queue(memory: &Memory, log: &MemoryLog, id: u64) -> (Arc<Queue>, MessageId) {
        let target = Target {
            queue: QueueId(id),
            expires_at: 0,
            priority: 0,
            delivery_count: 0,
        };
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q".into(),
            properties: &[0, 0],
            flags: 0,
        };
        let mut records = Records::default();
        records.targets.push(target);
        records.publishes.push(LoggedPublish {
            message: Message::new(memory, &parts, b"body"),
            first_target: 0,
            n_targets: 1,
            transient: false,
        });
        let first_id = log.append(&mut records).expect("accepted").first_id;
        let info = QueueInfo {
            delays: None,
            id: QueueId(id),
            vhost: "/".into(),
            name: format!("q{id}").into(),
            durable: true,
            auto_delete: false,
            exclusive_owner: None,
            arguments: FieldTable::new(),
            settings: QueueSettings::default(),
        };
        let queue = Queue::new(info, memory);
        let run = RecoveredRun {
            target,
            first_id,
            count: 1,
            body_len: 4,
            redelivered: false,
        };
        queue.recover(&run, 1, &mut Effects::default());
        (queue, first_id)
    }

    #[test]
    fn a_disk_that_fails_keeps_its_queue_waiting_and_nobody_else() {
        let log = MemoryLog::new();
        let (broker, _) = Broker::new(log.clone(), &[]);
        let broker = Arc::new(broker);
        let memory = broker.memory().clone();
        let (unreadable, id) = queue(&memory, &log, 1);
        let (fine, _) = queue(&memory, &log, 2);
        let (lost, lost_id) = queue(&memory, &log, 3);
        log.answer(id, Some(Found::Later));
        log.answer(lost_id, Some(Found::Lost));
        let (requests, served) = channel();
        let b = broker.clone();
        std::thread::spawn(move || run(&b, &served));
        let (tell, told) = channel();
        let bell: Arc<dyn Bell> = Arc::new(Told(tell));
        let get = |queue: &Arc<Queue>| {
            let mut fx = Effects::default();
            let got = queue.get(false, &bell, 1, &mut fx);
            for queue in fx.page_ins {
                requests.send(queue).expect("somebody serves it");
            }
            got
        };
        let wait = || told.recv_timeout(Duration::from_secs(20)).expect("a bell");
        assert!(matches!(get(&unreadable), Got::Waiting));
        assert!(matches!(get(&fine), Got::Waiting));
        wait();
        assert!(matches!(get(&fine), Got::Message(..)));
        assert!(matches!(get(&lost), Got::Waiting));
        wait();
        assert!(matches!(get(&lost), Got::Empty));
        // It has been asked for, and is again.
        assert!(broker.totals.log_read_errors.load(Ordering::Relaxed) > 0);
        log.answer(id, None);
        wait();
        assert!(matches!(get(&unreadable), Got::Message(..)));
        let mut live = Vec::new();
        log.recover(&|_| true, &mut |run| live.push(run.target.queue.0));
        assert_eq!(live, [1, 2], "only what is lost was settled");
        assert_eq!(broker.totals.log_lost_messages.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_has_to_wait_longer_comes_later() {
        let (memory, log) = (Memory::new(), MemoryLog::new());
        let (a, b) = (queue(&memory, &log, 1).0, queue(&memory, &log, 2).0);
        let (mut again, now) = (Again::default(), Instant::now());
        again.at(now, a, AGAIN_AFTER * 2);
        again.at(now, b, AGAIN_AFTER);
        assert!(again.due(now).is_none());
        assert_eq!(again.until_next(now), Some(AGAIN_AFTER));
        let at = now + AGAIN_AFTER;
        assert_eq!(again.due(at).map(|(queue, _)| queue.id()), Some(QueueId(2)));
        assert!(again.due(at).is_none());
        let at = now + AGAIN_AFTER * 2;
        assert_eq!(again.due(at).map(|(queue, _)| queue.id()), Some(QueueId(1)));
        assert_eq!(again.until_next(at), None);
    }
}
