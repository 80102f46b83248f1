//! kill -9 under load, at random moments: what was confirmed is there, once, in order; what was
//! acknowledged before a confirm does not come back.
//!
//! `KILL_ROUNDS=20 cargo test --release --test durability` runs as many rounds; the seed is printed.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use leveret::protocol::Method;
use leveret::protocol::field_table::FieldTable;
use support::{Broker, Client};

const QUEUES: [&str; 2] = ["kill-a", "kill-b"];
const PUBLISHERS: u64 = 3;

/// Messages that the consumer acknowledges at once. No more than these may have been acknowledged without
/// a confirm that says so.
const BATCH: usize = 20;

/// What is known of one round.
#[derive(Default)]
struct Book {
    /// Publisher and queue → highest confirmed number.
    confirmed: Mutex<HashMap<(u64, usize), u64>>,
    /// Bodies acknowledged before a publish that was confirmed.
    acknowledged: Mutex<Vec<(usize, Vec<u8>)>>,
    stop: AtomicBool,
    sent: AtomicU64,
}

fn body(publisher: u64, number: u64) -> Vec<u8> {
    let mut b = [publisher.to_be_bytes(), number.to_be_bytes()].concat();
    // Sizes vary; some are larger than a read.
    b.resize(
        16 + (number as usize * 37) % 900
            + if number.is_multiple_of(97) {
                100_000
            } else {
                0
            },
        7,
    );
    b
}

fn numbers(body: &[u8]) -> (u64, u64) {
    let n = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    (n(0), n(8))
}

/// Publishes to both queues in turn, with a window of unconfirmed messages, until the broker is gone.
fn publisher(address: SocketAddr, id: u64, first: u64, book: &Book) -> std::io::Result<()> {
    let mut c = Client::connect(address)?;
    c.confirm_select()?;
    let (mut number, mut seqno, mut told) = (first, 0u64, 0u64);
    let mut waiting: Vec<(u64, usize, u64)> = Vec::new();
    while !book.stop.load(Ordering::Relaxed) {
        while seqno - told < 50 {
            let queue = (seqno % 2) as usize;
            seqno += 1;
            number += 1;
            c.stage_publish(QUEUES[queue], &body(id, number), &support::persistent());
            waiting.push((seqno, queue, number));
            book.sent.fetch_add(1, Ordering::Relaxed);
        }
        c.flush()?;
        let f = c.next()?;
        let Method::BasicAck(ack) = f.method() else {
            panic!("expected an ack, got {:?}", f.method())
        };
        let mut confirmed = book.confirmed.lock().unwrap();
        waiting.retain(|(seqno, queue, number)| {
            let covered = *seqno == ack.delivery_tag || (ack.multiple && *seqno < ack.delivery_tag);
            if covered {
                let highest = confirmed.entry((id, *queue)).or_default();
                *highest = (*highest).max(*number);
            }
            !covered
        });
        told = waiting.first().map_or(seqno, |(s, ..)| s - 1);
    }
    Ok(())
}

/// Consumes from the first queue, acknowledges, and publishes a marker after each acknowledgement: when the
/// marker is confirmed, the acknowledgement has to hold.
fn consumer(address: SocketAddr, book: &Book) -> std::io::Result<()> {
    let mut consuming = Client::connect(address)?;
    consuming.declare("kill-marker", true, &FieldTable::new())?;
    consuming.confirm_select()?;
    consuming.qos(BATCH as u16)?;
    let mut got: Vec<Vec<u8>> = Vec::new();
    while !book.stop.load(Ordering::Relaxed) {
        // basic.get keeps replies and confirms apart: one thing at a time on this connection.
        match consuming.get(QUEUES[0], false)? {
            None => thread::yield_now(),
            Some(m) => {
                got.push(m.body);
                if got.len() < BATCH {
                    continue;
                }
                consuming.ack(m.tag, true)?;
                consuming.publish("kill-marker", b"m")?;
                let f = consuming.next()?;
                assert!(matches!(f.method(), Method::BasicAck(_)));
                book.acknowledged
                    .lock()
                    .unwrap()
                    .extend(got.drain(..).map(|b| (0, b)));
            }
        }
    }
    Ok(())
}

/// A number that differs from run to run, and is printed.
fn seed() -> u64 {
    let from_env = std::env::var("KILL_SEED").ok().and_then(|s| s.parse().ok());
    from_env.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1)
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn confirmed_messages_survive_kill_9() {
    let rounds: u64 = std::env::var("KILL_ROUNDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(3);
    let mut state = seed();
    println!("KILL_SEED={state}");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut next_number = 0;
    for round in 0..rounds {
        let broker = Broker::start(&data, &[("LEVERET_STORAGE_SEGMENT_BYTES", "4MiB")]);
        let address = broker.address;
        {
            let mut c = Client::connect(address).unwrap();
            for q in QUEUES {
                c.declare(q, true, &FieldTable::new()).unwrap();
            }
        }
        let book = Arc::new(Book::default());
        let mut threads = Vec::new();
        for id in 0..PUBLISHERS {
            let book = book.clone();
            threads.push(thread::spawn(move || {
                drop(publisher(address, id, next_number, &book))
            }));
        }
        let consuming = book.clone();
        threads.push(thread::spawn(move || drop(consumer(address, &consuming))));
        // Under load for a random time, at least until something was confirmed.
        let until = Instant::now() + Duration::from_millis(100 + random(&mut state) % 900);
        while Instant::now() < until || book.confirmed.lock().unwrap().len() < 2 {
            thread::yield_now();
        }
        broker.kill();
        book.stop.store(true, Ordering::Relaxed);
        for t in threads {
            t.join().unwrap();
        }
        check(&data, &book, round);
        next_number += 10_000_000;
    }
}

/// Drains both queues and compares them with the book.
fn check(data: &std::path::Path, book: &Book, round: u64) {
    let broker = Broker::start(data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let confirmed = book.confirmed.lock().unwrap();
    let acknowledged = book.acknowledged.lock().unwrap();
    let mut gone: HashMap<(usize, u64), Vec<u64>> = HashMap::new();
    for (queue, body) in acknowledged.iter() {
        let (publisher, number) = numbers(body);
        gone.entry((*queue, publisher)).or_default().push(number);
    }
    let mut found = 0u64;
    let mut uncertain = 0;
    for (q, name) in QUEUES.iter().enumerate() {
        let mut last: HashMap<u64, u64> = HashMap::new();
        let mut here: HashMap<u64, Vec<u64>> = HashMap::new();
        while let Some(m) = c.get(name, true).unwrap() {
            let (publisher, number) = numbers(&m.body);
            assert_eq!(
                m.body,
                body(publisher, number),
                "round {round}: a body was changed"
            );
            if let Some(before) = last.insert(publisher, number) {
                assert!(
                    before < number,
                    "round {round}: {name}: {number} of publisher {publisher} after {before}"
                );
            }
            let acked = gone
                .get(&(q, publisher))
                .is_some_and(|g| g.contains(&number));
            assert!(
                !acked,
                "round {round}: {number} of publisher {publisher} was acknowledged and came back"
            );
            here.entry(publisher).or_default().push(number);
            found += 1;
        }
        for ((publisher, _), highest) in confirmed.iter().filter(|((_, queue), _)| *queue == q) {
            // Each publisher alternates between the queues: every second number is here.
            let have = here.remove(publisher).unwrap_or_default();
            let acked = gone.get(&(q, *publisher)).cloned().unwrap_or_default();
            let first = highest - highest % 10_000_000;
            let wanted = (first + 1..=*highest).filter(|n| (n - first - 1) % 2 == q as u64);
            for number in wanted {
                let there = have.binary_search(&number).is_ok() || acked.contains(&number);
                // What was acknowledged last, without a confirmed marker, may be either.
                let at_the_head = q == 0 && have.first().is_none_or(|first| number < *first);
                uncertain += usize::from(!there && at_the_head);
                assert!(
                    there || (at_the_head && uncertain <= BATCH),
                    "round {round}: {name}: confirmed {number} of publisher {publisher} is lost"
                );
            }
        }
    }
    println!(
        "round {round}: {} sent, {found} found, {} acknowledged",
        book.sent.load(Ordering::Relaxed),
        acknowledged.len()
    );
    assert!(broker.stop(), "a clean stop");
}

#[test]
fn a_clean_stop_keeps_everything_and_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("kept", true, &FieldTable::new()).unwrap();
    c.declare("gone", false, &FieldTable::new()).unwrap();
    for i in 0..100u8 {
        c.publish("kept", &[i]).unwrap();
    }
    let first = c.get("kept", false).unwrap().unwrap();
    assert_eq!(first.body, [0]);
    assert!(broker.stop());
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    for i in 0..100u8 {
        let m = c.get("kept", true).unwrap().unwrap();
        // Only the one that had been delivered is marked.
        assert_eq!((m.body, m.redelivered), (vec![i], i == 0));
    }
    assert_eq!(c.get("kept", true).unwrap(), None);
    assert_eq!(c.declare("gone", false, &FieldTable::new()).unwrap(), 0);
}

/// What a broker with a backlog may hold in memory, bytes. A debug build evicts too slowly for a publisher that
/// competes with it for two cores.
const RESIDENT_MAX: u64 = if cfg!(debug_assertions) {
    400 << 20
} else {
    200 << 20
};

#[test]
fn a_backlog_larger_than_the_budget_lives_on_disk_and_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // The same with 4 GiB: BACKLOG_MIB=4096.
    let mib: u64 = std::env::var("BACKLOG_MIB")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(512);
    let size = 16 * 1024;
    let n = mib * 1024 * 1024 / size as u64;
    let broker = Broker::start(&data, &[]);
    let mut c = Client::connect(broker.address).unwrap();
    let mut arguments = FieldTable::new();
    arguments.insert("x-max-priority", 2i64);
    c.declare("big", true, &arguments).unwrap();
    c.confirm_select().unwrap();
    let mut told = 0;
    for i in 0..n {
        let mut body = i.to_be_bytes().to_vec();
        body.resize(size, 1);
        let mode = if i % 2 == 0 { 2 } else { 1 };
        let properties = leveret::protocol::properties::Properties {
            delivery_mode: Some(mode),
            priority: Some((i % 3) as u8),
            ..Default::default()
        };
        c.stage_publish("big", &body, &properties);
        if i % 16 == 15 || i + 1 == n {
            c.flush().unwrap();
            while told < i.saturating_sub(64) || (i + 1 == n && told < n) {
                let f = c.next().unwrap();
                let Method::BasicAck(ack) = f.method() else {
                    panic!("an ack")
                };
                told = ack.delivery_tag;
            }
        }
    }
    let resident = broker.resident();
    assert!(
        resident < RESIDENT_MAX,
        "{} MiB resident with {mib} MiB waiting",
        resident >> 20
    );
    // Some are taken and put back: they return to their places.
    let mut taken = Vec::new();
    for _ in 0..50 {
        taken.push(c.get("big", false).unwrap().unwrap());
    }
    drop(c);
    let mut c = Client::connect(broker.address).unwrap();
    c.qos(200).unwrap();
    c.consume("big", false).unwrap();
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    let mut priority = 2;
    for k in 0..n {
        let m = c.delivery().unwrap();
        let number = u64::from_be_bytes(m.body[..8].try_into().unwrap());
        assert_eq!(m.body.len(), size);
        seen[(number % 3) as usize].push(number);
        assert!(number % 3 <= priority, "higher priorities first");
        priority = number % 3;
        if k % 100 == 99 || k + 1 == n {
            c.ack(m.tag, true).unwrap();
        }
    }
    for list in &seen {
        assert!(list.is_sorted(), "in order within a priority");
    }
    let resident = broker.resident();
    assert!(
        resident < RESIDENT_MAX,
        "{} MiB resident after the drain",
        resident >> 20
    );
}
