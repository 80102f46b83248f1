use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::*;
use crate::broker::exchange::Destination;
use crate::broker::memory::Use;
use crate::broker::message::{FLAG_PERSISTENT, Message, Parts};
use crate::broker::ports::MessageLog;
use crate::broker::queue::scheduler::Scheduler;
use crate::broker::queue::{DeleteIf, DeliveryRef, Got, Queue, Settle};
use crate::broker::vhost::{BindingSpec, QueueDeclare};
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
fn chain(broker: &Broker, hops: usize) -> Vec<Arc<Queue>> {
    broker.add_vhost("/").expect("the log works");
    let next = |n: usize| format!("q{}", n + 1);
    let passing =
        (0..hops).map(|n| declare(broker, &format!("q{n}"), Some(("", &next(n))), PASSES));
    let mut queues: Vec<_> = passing.collect();
    queues.push(declare(broker, &format!("q{hops}"), None, &[]));
    queues
}

/// Arguments of a queue that keeps nothing.
const PASSES: &[(&str, i64)] = &[("x-max-length", 0)];

/// A queue, and the exchange and key to which it dead-letters.
fn declare(
    broker: &Broker,
    name: &str,
    dead_letters_to: Option<(&str, &str)>,
    others: &[(&str, i64)],
) -> Arc<Queue> {
    let mut arguments = FieldTable::new();
    if let Some((exchange, key)) = dead_letters_to {
        arguments.insert("x-dead-letter-exchange", exchange);
        arguments.insert("x-dead-letter-routing-key", key);
    }
    for (name, value) in others {
        arguments.insert(*name, *value);
    }
    let declared = broker
        .vhost("/")
        .expect("there")
        .declare_queue(&QueueDeclare {
            durable: true,
            ..QueueDeclare::named(name, &arguments)
        });
    declared.expect("new").0
}

/// Queues that dead-letter at once into all of them: a message goes every way that crosses none twice.
fn all_to_all(broker: &Broker, queues: usize) -> Vec<Arc<Queue>> {
    let vhost = broker.vhost("/").expect("there");
    let queue = |n: usize| {
        let queue = declare(
            broker,
            &format!("all{n}"),
            Some(("amq.fanout", "")),
            &[("x-message-ttl", 0)],
        );
        let bound = vhost.bind(&BindingSpec {
            source: "amq.fanout",
            destination: &Destination::Queue(queue.clone()),
            routing_key: "",
            arguments: &FieldTable::new(),
        });
        assert!(bound.is_ok());
        queue
    };
    (0..queues).map(queue).collect()
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
    let queues = chain(&broker, QUEUES);
    let mut batch = Batch::default();
    for number in 0..10 {
        publish(&broker, &mut batch, &queues[0], number);
        let before = log.staged();
        let lsn = batch.flush(&broker, 1).expect("the log works");
        // Where they do not stay they do not go to the log for it, either.
        assert!(lsn > before && lsn == log.staged(), "its own record");
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
    // They are read, and go on.
    let first = again.vhost("/").expect("there").queue("q0").expect("there");
    let wanted = first.wanted(100, 1 << 20);
    let ids: Vec<_> = wanted.iter().map(|(_, id)| *id).collect();
    let mut found = Vec::new();
    crashed.read(&ids, &mut found).expect("the log works");
    let read = wanted.into_iter().zip(found);
    let read = read.map(|((seq, id), found)| (seq, id, found)).collect();
    let mut there = Batch::default();
    first.arrived(read, 1, &mut there.fx);
    there.flush(&again, 1).expect("the log works");
    let name = last.info().name.to_string();
    let arrived = again.vhost("/").expect("there").queue(&name);
    assert_eq!(arrived.expect("there").counts().ready, 10);
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
    let queues = chain(&broker, HOPS);
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
    let queues = chain(&broker, QUEUES);
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

/// However many go at once, and wherever they wait.
#[test]
fn a_chain_keeps_the_order_in_which_they_died() {
    let (broker, _) = Broker::new(MemoryLog::new(), &[]);
    broker.set_scheduler(Arc::new(Calls::default()));
    let queues = chain(&broker, 9);
    let mut batch = Batch::default();
    let mut number = 0;
    for n in [3, 2000, 1, 700, 1500, 1] {
        for _ in 0..n {
            publish(&broker, &mut batch, &queues[0], number);
            number += 1;
        }
        batch.flush(&broker, 1).expect("the log works");
        for _ in 0..n % 5 {
            broker.work_off(&mut batch, 1).expect("the log works");
        }
    }
    while broker.work_off(&mut batch, 1).expect("the log works") {}
    let bell: Arc<dyn Bell> = Arc::new(NoBell);
    for n in 0..number {
        let Got::Message(d, _) = queues[9].get(true, &bell, 1, &mut batch.fx) else {
            panic!("{n} is missing");
        };
        let message = d.entry.message.expect("it is in memory");
        assert_eq!(message.body(), n.to_be_bytes());
    }
}

/// A message that multiplies: what waits is as much as one of its ways is long, others take their turns
/// beside it, and all of it ends with its queues.
#[test]
fn a_message_that_multiplies_keeps_its_place() {
    const ALL: usize = 25;
    let (broker, _) = Broker::new(MemoryLog::new(), &[]);
    broker.add_vhost("/").expect("the log works");
    broker.set_scheduler(Arc::new(Calls::default()));
    let all = all_to_all(&broker, ALL);
    let queues = chain(&broker, 3);
    let mut batch = Batch::default();
    let memory = broker.memory();
    publish(&broker, &mut batch, &all[0], 1);
    batch.flush(&broker, 1).expect("the log works");
    let mut most = 0;
    for turn in 0..3000 {
        if turn % 100 == 0 {
            let before = queues[3].counts().ready;
            publish(&broker, &mut batch, &queues[0], turn);
            batch.flush(&broker, 1).expect("the log works");
            for _ in 0..2 * (3 + 1) {
                assert!(broker.work_off(&mut batch, 1).expect("the log works"));
            }
            assert_eq!(queues[3].counts().ready, before + 1);
        }
        assert!(
            broker.work_off(&mut batch, 1).expect("the log works"),
            "it does not end"
        );
        let taken = [Use::DeadLetters, Use::DeadMessages].map(|what| memory.used(what));
        most = most.max(taken[0] + taken[1]);
    }
    // Of a breadth-first search it would be gigabytes.
    assert!(most < 128 << 10, "{most}");
    let vhost = broker.vhost("/").expect("there");
    for queue in &all {
        let any = DeleteIf {
            unused: false,
            empty: false,
        };
        vhost
            .delete_queue(queue, any, &mut batch.fx)
            .expect("there");
    }
    let mut turns = 0;
    while broker.work_off(&mut batch, 1).expect("the log works") {
        turns += 1;
    }
    assert!(turns < 100, "{turns}");
    let taken = [Use::DeadLetters, Use::DeadMessages].map(|what| memory.used(what));
    assert_eq!(taken, [0, 0]);
}

/// When dead letters take their part of the memory, what expires stays in its queue, from where it can leave
/// for the log.
#[test]
fn what_expires_waits_for_dead_letters() {
    const MESSAGES: u64 = 50_000;
    let (broker, _) = Broker::new(MemoryLog::new(), &[]);
    broker.add_vhost("/").expect("the log works");
    broker.set_scheduler(Arc::new(Calls::default()));
    broker.memory().set_budget(16 << 20);
    let all = all_to_all(&broker, 7);
    let (from, to) = (
        declare(&broker, "from", Some(("", "to")), &[("x-message-ttl", 10)]),
        declare(&broker, "to", None, &[]),
    );
    let mut batch = Batch::default();
    for number in 0..MESSAGES {
        publish(&broker, &mut batch, &from, number);
        if number % 1000 == 0 {
            batch.flush(&broker, 1).expect("the log works");
        }
    }
    // Something waits: so does what dies after it.
    publish(&broker, &mut batch, &all[0], 0);
    batch.flush(&broker, 1).expect("the log works");
    let died = || MESSAGES - from.counts().ready - to.counts().ready;
    for now in 12..100 {
        from.tick(now, &mut batch.fx);
        batch.flush(&broker, now).expect("the log works");
    }
    assert!((10_000..30_000).contains(&died()), "{}", died());
    assert!(broker.memory().dead_letters_are_many());
    // Of each queue some die all the same, but for an alarm.
    let some = declare(&broker, "some", Some(("", "to")), &[("x-message-ttl", 10)]);
    for number in 0..100 {
        publish(&broker, &mut batch, &some, number);
    }
    batch.flush(&broker, 1).expect("the log works");
    for (alarm, left) in [(true, 100), (false, 36), (false, 36)] {
        broker.memory().set_alarm(alarm);
        some.tick(120, &mut batch.fx);
        assert!(
            batch
                .fx
                .deadlines
                .iter()
                .any(|(q, at)| Arc::ptr_eq(q, &some) && *at <= 370)
        );
        batch.flush(&broker, 120).expect("the log works");
        assert_eq!(some.counts().ready, left, "{alarm}");
    }
    // Asked again and again.
    let mut now = 200;
    while to.counts().ready < MESSAGES + 100 {
        while broker.work_off(&mut batch, now).expect("the log works") {}
        now += 250;
        some.tick(now, &mut batch.fx);
        from.tick(now, &mut batch.fx);
        let next = batch.fx.deadlines.iter().any(|(_, at)| *at <= now + 250);
        assert!(next || from.counts().ready == 0, "nobody asks again");
        batch.flush(&broker, now).expect("the log works");
        assert!(now < 100_000, "{} wait", from.counts().ready);
    }
}

struct Rings(AtomicUsize);

impl Bell for Rings {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// While the disk does not write, who rejects goes on, and what dies of it is not staged without end.
#[test]
fn dead_letters_wait_for_a_disk_that_is_behind() {
    const MESSAGES: u64 = 600;
    let log = MemoryLog::new();
    let (broker, _) = Broker::new(log.clone(), &[]);
    broker.add_vhost("/").expect("the log works");
    let (from, to) = (
        declare(&broker, "from", Some(("", "to")), &[]),
        declare(&broker, "to", None, &[]),
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
