//! How messages and consumers leave a queue, and that nothing of them stays in memory.

use super::*;

fn numbers(sink: &Sink) -> Vec<u64> {
    let got = sink.take();
    got.iter().map(|d| number(&d.entry)).collect()
}

fn with_dead_letters(settings: QueueSettings) -> QueueSettings {
    QueueSettings {
        dead_letter: Some(DeadLetterTarget {
            exchange: b"x"[..].into(),
            routing_key: None,
        }),
        ..settings
    }
}

/// Messages that expire in a queue without consumers, in memory or in the log, in order or not.
#[test]
fn what_expires_leaves_memory_without_consumers() {
    for (evict, spread) in [(false, 1), (false, 97), (true, 1), (true, 97)] {
        let q = queue(with_dead_letters(QueueSettings::default()));
        let mut fx = Effects::default();
        // One that stays, at the head; and one behind what each round brings.
        q.enqueue(&mut vec![incoming(1, 0, 0)], 1, &mut fx);
        for round in 1..100u64 {
            let now = round * 1000;
            let ends = |n| match n {
                199 => 0,
                _ => now + 1 + n * spread % 101,
            };
            let mut batch = (0..200)
                .map(|n| incoming(round * 200 + n, 0, ends(n)))
                .collect();
            q.enqueue(&mut batch, now, &mut fx);
            if evict {
                q.evict(1000);
            }
            q.tick(now + 500, &mut fx);
            while feed(&q, &mut fx, now + 500) {}
            let most = 2 * (1 + round as usize);
            assert_eq!(q.counts().ready, 1 + round);
            assert!(q.held() <= most, "{} places of {most}", q.held());
            fx = Effects::default();
        }
    }
}

/// More is not taken out of the queue than can be read.
#[test]
fn what_waits_to_be_read_before_it_dies_is_bounded() {
    let q = queue(with_dead_letters(QueueSettings::default()));
    let mut fx = Effects::default();
    let mut all = (1..=20_000).map(|n| incoming(n, 0, 5)).collect();
    q.enqueue(&mut all, 1, &mut fx);
    while q.evict(1000) > 0 {}
    for _ in 0..30 {
        q.tick(10, &mut fx);
    }
    let dying = 20_000 - q.counts().ready;
    assert!((1..10_000).contains(&dying), "{dying}");
    assert_eq!(fx.page_ins.len(), 1);
    // Who reads goes on with it, and no timer is needed.
    while feed(&q, &mut fx, 10) {}
    assert_eq!((q.counts().ready, fx.dead.len()), (0, 20_000));
}

#[test]
fn a_queue_that_drains_gives_its_memory_back() {
    let q = queue(QueueSettings::default());
    let sink = Sink::new(usize::MAX >> 1);
    let mut fx = Effects::default();
    q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx)
        .expect("free");
    let mut all = (1..=100_000).map(|n| incoming(n, 0, 0)).collect();
    q.enqueue(&mut all, 1, &mut fx);
    let refs: Vec<_> = sink
        .take()
        .iter()
        .map(|d| DeliveryRef {
            slot: d.slot,
            seq: d.entry.seq,
        })
        .collect();
    assert_eq!(refs.len(), 100_000);
    let used = |what| q.memory().used(what);
    assert!(used(Use::Unacked) > 1_000_000);
    // All but an early one.
    q.settle(&refs[1..], Settle::Ack, 1, &mut fx);
    assert!(used(Use::Unacked) < 200_000, "{}", used(Use::Unacked));
    q.settle(&refs[..1], Settle::Ack, 1, &mut fx);
    assert_eq!((q.counts().unacked, used(Use::Entries)), (0, 0));
}

/// A million deliveries that cannot leave memory are not looked at again and again.
#[test]
fn looking_for_something_to_evict_ends() {
    let q = queue(QueueSettings::default());
    let sink = Sink::new(usize::MAX >> 1);
    let mut fx = Effects::default();
    q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx)
        .expect("free");
    let mut all = (1..=20_000).map(|n| incoming(n, 0, 0)).collect();
    q.enqueue(&mut all, 1, &mut fx);
    drop(sink.take());
    let mut moved = 0;
    for _ in 0..100 {
        moved += q.evict(1024);
    }
    assert_eq!(moved, 20_000);
    let looked = q.state.lock().looked;
    assert!(looked <= 20_000, "{looked} slots");
}

/// What was delivered is not delivered again at or after its time; a new one may be, at its very time.
#[test]
fn what_comes_back_after_its_time_has_expired() {
    for kind in [QueueType::Classic, QueueType::Quorum] {
        for how in [Settle::Requeue, Settle::Fail] {
            let settings = QueueSettings {
                queue_type: kind,
                ..QueueSettings::default()
            };
            let q = queue(with_dead_letters(settings));
            let sink = Sink::new(100);
            let mut fx = Effects::default();
            q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx)
                .expect("free");
            q.enqueue(&mut vec![incoming(1, 0, 7)], 7, &mut fx);
            let got = sink.take();
            let refs = [DeliveryRef {
                slot: got[0].slot,
                seq: got[0].entry.seq,
            }];
            q.settle(&refs, how, 7, &mut fx);
            assert!(sink.take().is_empty());
            assert_eq!((fx.dead.len(), q.counts().ready), (1, 0));
            assert_eq!(fx.dead[0].reason, DeathReason::Expired);
        }
    }
}

/// The next one begins with what the one before it had.
#[test]
fn what_a_single_active_consumer_had_is_back_before_the_next_starts() {
    let settings = QueueSettings {
        single_active_consumer: true,
        ..QueueSettings::default()
    };
    let q = queue(settings);
    let (a, b) = (Sink::new(100), Sink::new(100));
    let mut fx = Effects::default();
    let first = q.consume(consumer(&a, 0, 3, 0), 1, &mut fx).expect("free");
    q.consume(consumer(&b, 1, 3, 0), 1, &mut fx).expect("free");
    let mut all = (0..8).map(|n| incoming(n, 0, 0)).collect();
    q.enqueue(&mut all, 1, &mut fx);
    // One of them was not sent yet.
    let mut got = a.take();
    let refs: Vec<_> = got[..2]
        .iter()
        .map(|d| DeliveryRef {
            slot: d.slot,
            seq: d.entry.seq,
        })
        .collect();
    a.put_back(got.split_off(2));
    assert_eq!(q.leave(&[first], &refs, 1, &mut fx), 1);
    let again = b.take();
    let told: Vec<_> = again
        .iter()
        .map(|d| (number(&d.entry), d.entry.redelivered))
        .collect();
    assert_eq!(told, [(0, true), (1, true), (2, false)]);
}

/// As RabbitMQ's quorum queues do it; classic ones keep whom they have.
#[test]
fn a_better_single_active_consumer_takes_over_when_all_is_settled() {
    for kind in [QueueType::Classic, QueueType::Quorum] {
        let settings = QueueSettings {
            single_active_consumer: true,
            queue_type: kind,
            ..QueueSettings::default()
        };
        let q = queue(settings);
        let (a, b) = (Sink::new(100), Sink::new(100));
        let mut fx = Effects::default();
        q.consume(consumer(&a, 0, 2, 0), 1, &mut fx).expect("free");
        let mut all = (0..6).map(|n| incoming(n, 0, 0)).collect();
        q.enqueue(&mut all, 1, &mut fx);
        q.consume(consumer(&b, 1, 2, 5), 1, &mut fx).expect("free");
        q.pump(1, &mut fx);
        let got = a.take();
        for d in &got {
            let at = DeliveryRef {
                slot: d.slot,
                seq: d.entry.seq,
            };
            q.settle(&[at], Settle::Ack, 1, &mut fx);
            assert!(kind == QueueType::Classic || d.entry.seq > 1 || b.take().is_empty());
        }
        let expected: (&[u64], &[u64]) = match kind {
            QueueType::Classic => (&[2, 3], &[]),
            QueueType::Quorum => (&[], &[2, 3]),
        };
        assert_eq!((&*numbers(&a), &*numbers(&b)), expected);
    }
}

/// The deletion of a queue whose lease is over can be refused: what expires there still does.
#[test]
fn a_lease_that_is_over_does_not_stop_the_clock() {
    let settings = QueueSettings {
        expires: Some(10),
        ..QueueSettings::default()
    };
    let q = queue(settings);
    let mut fx = Effects::default();
    q.touch(1, &mut fx);
    q.enqueue(&mut vec![incoming(1, 0, 20)], 1, &mut fx);
    fx.deadlines.clear();
    q.tick(11, &mut fx);
    assert_eq!((fx.unused.len(), fx.deadlines.len()), (1, 1));
}

/// Consumers that have all that they may leave their ring without a search.
#[test]
fn many_consumers_with_little_credit_are_not_searched_for() {
    let q = queue(QueueSettings::default());
    let sink = Sink::new(usize::MAX >> 1);
    let mut fx = Effects::default();
    for slot in 0..500 {
        q.consume(consumer(&sink, slot, 1, 0), 1, &mut fx)
            .expect("free");
    }
    for round in 0..10u64 {
        let mut batch = (0..500).map(|n| incoming(round * 500 + n, 0, 0)).collect();
        q.enqueue(&mut batch, 1, &mut fx);
        let refs: Vec<_> = sink
            .take()
            .iter()
            .map(|d| DeliveryRef {
                slot: d.slot,
                seq: d.entry.seq,
            })
            .collect();
        assert_eq!(refs.len(), 500);
        q.settle(&refs, Settle::Ack, 1, &mut fx);
    }
    assert_eq!(q.state.lock().consumers.searches.get(), 0);
}

/// Nor are those that go: in whatever order, whole rings are looked through a few times, and not once for each.
#[test]
fn many_consumers_that_go_are_not_searched_for() {
    let q = queue(QueueSettings::default());
    let sink = Sink::new(usize::MAX >> 1);
    let mut fx = Effects::default();
    let mut indexes: Vec<_> = (0..1000)
        .map(|slot| {
            let c = consumer(&sink, slot, 0, 0);
            q.consume(c, 1, &mut fx).expect("free")
        })
        .collect();
    // The first, the last, the second, and so on.
    while !indexes.is_empty() {
        q.cancel(indexes.remove(0), 1, &mut fx);
        if let Some(last) = indexes.pop() {
            q.cancel(last, 1, &mut fx);
        }
        // Those that are left have their turns.
        let n = indexes.len();
        let mut batch = (0..n as u64).map(|n| incoming(n, 0, 0)).collect();
        q.enqueue(&mut batch, 1, &mut fx);
        let got = sink.take();
        let mut slots: Vec<_> = got.iter().map(|d| d.consumer.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!((got.len(), slots.len()), (n, n));
    }
    let consumers = &q.state.lock().consumers;
    assert_eq!((consumers.len(), consumers.any_ready()), (0, false));
    let searches = consumers.searches.get();
    assert!(searches < 20, "{searches}");
}

/// What would be a dead letter as soon as it entered does not enter; everything else does.
#[test]
fn only_what_a_queue_would_not_keep_passes() {
    let limited = |max_length, overflow| {
        with_dead_letters(QueueSettings {
            max_length,
            overflow,
            ..QueueSettings::default()
        })
    };
    let expiring = |message_ttl| {
        with_dead_letters(QueueSettings {
            message_ttl,
            ..QueueSettings::default()
        })
    };
    let passes = |settings| queue(settings).passes();
    let drops = || limited(Some(0), Overflow::DropHead);
    assert_eq!(passes(drops()), Some(DeathReason::Maxlen));
    assert_eq!(passes(expiring(Some(0))), Some(DeathReason::Expired));
    assert_eq!(passes(limited(Some(1), Overflow::DropHead)), None);
    assert_eq!(passes(limited(Some(0), Overflow::RejectPublish)), None);
    assert_eq!(passes(limited(Some(0), Overflow::RejectPublishDlx)), None);
    assert_eq!(
        (passes(expiring(Some(1))), passes(expiring(None))),
        (None, None)
    );
    let dropped = QueueSettings {
        dead_letter: None,
        ..drops()
    };
    assert_eq!(passes(dropped), None, "nobody wants it dead");
    let kept = QueueSettings {
        at_least_once: true,
        ..drops()
    };
    assert_eq!(passes(kept), None);
    // Somebody waits for it, as long as he can take it.
    let q = queue(drops());
    let (sink, mut fx) = (Sink::new(1), Effects::default());
    let consuming = q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx);
    assert!(consuming.is_ok());
    assert_eq!(q.passes(), None);
    // Something stands before it.
    let q = queue(expiring(Some(0)));
    q.enqueue(&mut vec![incoming(1, 0, 0)], 1, &mut fx);
    assert_eq!(q.passes(), None);
    q.purge(1, &mut fx);
    assert_eq!(q.passes(), Some(DeathReason::Expired));
}
