//! The thread that works off dead letters that wait, and how it waits for the disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::broker::batch::Batch;
use crate::broker::ports::Bell;
use crate::clock;

/// Calls whoever works off dead letters.
pub(super) struct Call(pub(super) Sender<()>);

impl Bell for Call {
    fn ring(&self) {
        let _ = self.0.send(());
    }
}

/// Works off dead letters when it is called to, a turn at a time. What is left when the server stops is in
/// the log, where it was. While the disk is behind, `bell` calls for the next turn when it has caught
/// up with the last one.
pub(super) fn run(
    broker: &Broker,
    calls: &Receiver<()>,
    bell: &Arc<dyn Bell>,
    stop: &CancellationToken,
) {
    let mut batch = Batch::default();
    while calls.recv().is_ok() {
        while !stop.is_cancelled() {
            match broker.work_off(&mut batch, clock::now()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return,
            }
            if broker.dead_letters_wait_for_disk() {
                let log = broker.log();
                log.ring_at(log.staged(), bell);
                break;
            }
        }
        broker.memory().report();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::broker::ConnectionId;
    use crate::broker::memory::Use;
    use crate::broker::message::{FLAG_PERSISTENT, Message, Parts};
    use crate::broker::ports::{MessageLog, Scheduler};
    use crate::broker::queue::{DeliveryRef, Got, Queue, Settle};
    use crate::broker::vhost::QueueDeclare;
    use crate::protocol::field_table::FieldTable;
    use crate::storage::memory::MemoryLog;

    /// What whoever causes dead letters routes at once, at most.
    const AT_ONCE: u64 = 1024;

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
        chain_of(broker, QUEUES)
    }

    fn chain_of(broker: &Broker, queues: usize) -> Vec<Arc<Queue>> {
        broker.add_vhost("/").expect("the log works");
        let vhost = broker.vhost("/").expect("just added");
        let declare = |n: usize| {
            let mut arguments = FieldTable::new();
            if n < queues {
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
        (0..=queues).map(declare).collect()
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
        assert!(turns > QUEUES / 2, "{turns}");
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

    /// Nothing of a history is built in a hop: it is copied, into the message and into the log.
    #[test]
    fn a_hop_takes_what_its_history_has() {
        const HOPS: usize = 600;
        let (broker, _) = Broker::new(MemoryLog::new(), &[]);
        broker.set_scheduler(Arc::new(Calls::default()));
        let queues = chain_of(&broker, HOPS);
        let mut batch = Batch::default();
        publish(&broker, &mut batch, &queues[0], 1);
        batch.flush(&broker, 1).expect("the log works");
        let mut hops = Vec::new();
        let mut more = true;
        while more {
            hops.push(allocation_counter::measure(|| {
                more = broker.work_off(&mut batch, 1).expect("the log works");
            }));
        }
        assert!((HOPS - 10..=HOPS).contains(&hops.len()), "{}", hops.len());
        let bell: Arc<dyn Bell> = Arc::new(NoBell);
        let Got::Message(d, _) = queues[HOPS].get(true, &bell, 1, &mut batch.fx) else {
            panic!("it is missing");
        };
        let history = d.entry.message.expect("in memory").properties().len() as u64;
        let sum = |hops: &[allocation_counter::AllocationInfo]| {
            let all = hops.iter().map(|h| (h.count_total, h.bytes_total));
            all.fold((0, 0), |sum, hop| (sum.0 + hop.0, sum.1 + hop.1))
        };
        let (early, late) = (sum(&hops[20..120]), sum(&hops[HOPS - 120..HOPS - 20]));
        assert!(late.0 <= early.0 + 50, "allocations: {early:?}, {late:?}");
        assert!(
            late.1 <= 100 * 3 * history,
            "octets: {early:?}, {late:?}, of {history}"
        );
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
        for number in 0..3 * AT_ONCE {
            publish(&broker, &mut batch, &queues[QUEUES - 1], number);
        }
        batch.flush(&broker, 1).expect("the log works");
        assert_eq!(last.counts().ready, AT_ONCE);
        // Another one does not overtake those that wait.
        publish(&broker, &mut batch, &queues[QUEUES - 1], u64::MAX);
        batch.flush(&broker, 1).expect("the log works");
        assert_eq!(last.counts().ready, AT_ONCE);
        while broker.work_off(&mut batch, 1).expect("the log works") {}
        assert_eq!(last.counts().ready, 3 * AT_ONCE + 1);
    }

    struct Rings(AtomicUsize);

    impl Bell for Rings {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn declare(broker: &Broker, name: &str, dead_letters_to: Option<&str>) -> Arc<Queue> {
        let mut arguments = FieldTable::new();
        if let Some(key) = dead_letters_to {
            arguments.insert("x-dead-letter-exchange", "");
            arguments.insert("x-dead-letter-routing-key", key);
        }
        let declared = broker
            .vhost("/")
            .expect("there")
            .declare_queue(&QueueDeclare {
                name,
                server_named: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments: &arguments,
                connection: ConnectionId(1),
            });
        declared.expect("new").0
    }

    /// While the disk does not write, who rejects goes on, and what dies of it is not staged without end.
    #[test]
    fn dead_letters_wait_for_a_disk_that_is_behind() {
        const MESSAGES: u64 = 600;
        let log = MemoryLog::new();
        let (broker, _) = Broker::new(log.clone(), &[]);
        broker.add_vhost("/").expect("the log works");
        let (from, to) = (
            declare(&broker, "from", Some("to")),
            declare(&broker, "to", None),
        );
        let scheduler = Arc::new(Calls::default());
        broker.set_scheduler(scheduler.clone());
        let bell = Arc::new(Rings(AtomicUsize::new(0)));
        let rings: Arc<dyn Bell> = bell.clone();
        let mut batch = Batch::default();
        let mut delivered = Vec::new();
        for _ in 0..MESSAGES {
            let parts = Parts {
                exchange: "".into(),
                routing_key: "from".into(),
                properties: &[0x10, 0, 2],
                flags: FLAG_PERSISTENT,
            };
            let message = Message::new(broker.memory(), &parts, &[1; 64 << 10]);
            batch.publish(message, std::slice::from_ref(&from), None, None, 1);
            batch.flush(&broker, 1).expect("the log works");
            let Got::Message(d, _) = from.get(false, &rings, 1, &mut batch.fx) else {
                panic!("a message is missing");
            };
            delivered.push(DeliveryRef {
                slot: d.slot,
                seq: d.entry.seq,
            });
        }
        log.hold(true);
        for at in delivered {
            batch.settle(&from, at, Settle::Reject);
            batch.flush(&broker, 1).expect("the log works");
        }
        let behind = log.backlog_bytes();
        assert!((16 << 20..18 << 20).contains(&behind), "{behind}");
        // Called once, it does one turn more, and asks to be called when the disk has caught up.
        let call = || {
            let (tell, told) = channel();
            let called = [&scheduler.0, &bell.0].map(|n| n.swap(0, Ordering::Relaxed));
            for _ in 0..called[0] + called[1] {
                tell.send(()).expect("open");
            }
            drop(tell);
            run(&broker, &told, &rings, &CancellationToken::new());
        };
        call();
        assert!(log.backlog_bytes() < behind + (2 << 20));
        let left = to.counts().ready;
        call();
        assert_eq!(to.counts().ready, left, "nobody called");
        log.hold(false);
        call();
        assert_eq!(to.counts().ready, MESSAGES);
    }
}
