//! What a queue does with what the log says of its messages.

use super::*;
use crate::broker::ports::Target;

/// A queue with these messages, ids from one, all of them only in the log.
fn cold(settings: QueueSettings, count: u32, expires_at: u64) -> Arc<Queue> {
    let q = queue(settings);
    let target = Target {
        queue: q.id(),
        expires_at,
        priority: 0,
        delivery_count: 0,
    };
    let run = RecoveredRun {
        target,
        first_id: MessageId(1),
        count,
        body_len: 8,
        redelivered: false,
    };
    q.recover(&run, 1, &mut Effects::default());
    q
}

/// Hands in what the queue wants as `found` says.
fn hand_in(q: &Arc<Queue>, now: u64, fx: &mut Effects, found: impl Fn(u64) -> Found) -> Arrived {
    let wanted = q.wanted(64, u64::MAX).into_iter();
    let read = wanted.map(|(seq, id)| (seq, id, found(id.0)));
    q.arrived(read.collect(), now, fx)
}

fn here(id: u64) -> Found {
    Found::Here(message(id))
}

#[test]
fn what_could_not_be_read_is_waited_for_and_not_settled() {
    let q = cold(QueueSettings::default(), 100, 0);
    let sink = Sink::new(1000);
    let mut fx = Effects::default();
    q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx)
        .expect("free");
    q.pump(1, &mut fx);
    assert_eq!(fx.page_ins.len(), 1);
    fx.page_ins.clear();
    for _ in 0..3 {
        let arrived = hand_in(&q, 1, &mut fx, |id| match id {
            3..10 => Found::Later,
            _ => here(id),
        });
        assert!(arrived.again && arrived.lost == 0);
        assert!(fx.page_ins.is_empty(), "whoever reads comes back by itself");
    }
    let numbers = |sink: &Sink| -> Vec<u64> {
        let got = sink.take();
        got.iter().map(|d| number(&d.entry)).collect()
    };
    assert_eq!(numbers(&sink), [1, 2], "in order, or not at all");
    // One of those is lost for certain.
    let arrived = hand_in(&q, 1, &mut fx, |id| match id {
        5 => Found::Lost,
        _ => here(id),
    });
    assert_eq!((arrived.again, arrived.lost), (false, 1));
    while feed(&q, &mut fx, 1) {}
    let expected: Vec<u64> = (3..=100).filter(|n| *n != 5).collect();
    assert_eq!(numbers(&sink), expected);
    assert_eq!(fx.settles, [(q.id(), MessageId(5))]);
}

#[test]
fn a_queue_that_cannot_be_read_keeps_to_its_limit() {
    let settings = QueueSettings {
        max_length: Some(10),
        ..QueueSettings::default()
    };
    let q = cold(settings, 10, 0);
    let sink = Sink::new(1000);
    let mut fx = Effects::default();
    q.consume(consumer(&sink, 0, 0, 0), 1, &mut fx)
        .expect("free");
    q.pump(1, &mut fx);
    assert!(hand_in(&q, 1, &mut fx, |_| Found::Later).again);
    q.enqueue(
        &mut (11..=15).map(|n| incoming(n, 0, 0)).collect(),
        1,
        &mut fx,
    );
    assert_eq!(q.counts().ready, 10);
    let oldest: Vec<_> = (1..=5).map(|id| (q.id(), MessageId(id))).collect();
    assert_eq!(fx.settles, oldest);
}

#[test]
fn what_dies_in_the_log_is_dead_lettered_in_the_order_of_the_queue() {
    let settings = QueueSettings {
        dead_letter: Some(DeadLetterTarget {
            exchange: b"x"[..].into(),
            routing_key: None,
        }),
        ..QueueSettings::default()
    };
    let q = cold(settings, 500, 2);
    let mut fx = Effects::default();
    q.tick(10, &mut fx);
    let mut reads = 0;
    while !fx.page_ins.is_empty() {
        fx.page_ins.clear();
        reads += 1;
        // Now and then the first one, or one in the middle, cannot be read or is lost.
        let arrived = hand_in(&q, 10, &mut fx, |id| match id {
            200 => Found::Lost,
            _ if reads % 3 == 1 && id % 40 == 7 => Found::Later,
            _ => here(id),
        });
        if arrived.again {
            fx.page_ins.push(q.clone());
        }
    }
    let dead: Vec<u64> = fx.dead.iter().map(|d| number(&d.entry)).collect();
    let expected: Vec<u64> = (1..=500).filter(|n| *n != 200).collect();
    assert_eq!(dead, expected);
    assert_eq!(fx.settles, [(q.id(), MessageId(200))]);
}

#[test]
fn what_dies_can_wait_while_consumers_read_on() {
    let settings = QueueSettings {
        dead_letter: Some(DeadLetterTarget {
            exchange: b"x"[..].into(),
            routing_key: None,
        }),
        ..QueueSettings::default()
    };
    let q = cold(settings, 100, 2);
    let target = Target {
        queue: q.id(),
        expires_at: 0,
        priority: 0,
        delivery_count: 0,
    };
    let run = RecoveredRun {
        target,
        first_id: MessageId(101),
        count: 10,
        body_len: 8,
        redelivered: false,
    };
    let mut fx = Effects::default();
    q.recover(&run, 1, &mut fx);
    q.tick(10, &mut fx);
    let sink = Sink::new(1000);
    q.consume(consumer(&sink, 0, 0, 0), 10, &mut fx)
        .expect("free");
    q.memory().set_alarm(true);
    let wanted = q.wanted_now(64, u64::MAX).into_iter();
    let read = wanted.map(|(seq, id)| (seq, id, here(id.0)));
    let arrived = q.arrived(read.collect(), 10, &mut fx);
    assert!(arrived.again, "for what is dying");
    let got: Vec<u64> = sink.take().iter().map(|d| number(&d.entry)).collect();
    assert_eq!(got, (101..=110).collect::<Vec<_>>());
    assert!(fx.dead.is_empty());
    q.memory().set_alarm(false);
    while hand_in(&q, 10, &mut fx, here) == Arrived::default() && fx.dead.len() < 100 {}
    assert_eq!(fx.dead.len(), 100);
}
