//! The log, the definitions' store and the disk below both, simulated: one thread, and whatever happens
//! comes from a seed, so that a seed makes the same lives again.
//!
//! What comes back after an end, however it came, is what some first part of the appends says, and that part has
//! all that was promised: everything durable after a power cut, everything written after the end of the
//! process (with `durability = "write"`, a power cut takes what was not synced, and there are no holes all
//! the same). Damage costs no more than the frame that it hits, and is told of. When the disk works again, room
//! comes back.
//!
//! ```text
//! LEVERET_LOG_SEEDS=1..100000 cargo test --release --lib log::tests::sim -- --nocapture
//! LEVERET_LOG_SEEDS=17..18 LEVERET_LOG_STEPS=60 cargo test --lib log::tests::sim -- --nocapture
//! ```
//!
//! A single seed is told step by step.

mod check;
mod damage;
mod disk;
mod life;
mod model;
mod table;

use std::ops::Range;

use super::*;

/// Seeds that are tried when nobody says which.
const SEEDS: Range<u64> = 1..2001;

/// Steps of a seed.
const STEPS: u64 = 120;

/// What happens, for somebody who reads; or nothing.
#[derive(Clone, Default)]
struct Trace(Option<Arc<Mutex<Vec<String>>>>);

impl Trace {
    fn say(&self, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            lines.lock().expect("a lock").push(what());
        }
    }
}

/// What was met, for the record.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    appends: u64,
    ends: u64,
    starts: u64,
    flips: u64,
    hits: u64,
    calls: u64,
    failed: u64,
    no_room: u64,
    torn: u64,
    lost_entries: u64,
}

impl Totals {
    fn disk(&mut self, counts: &disk::Counts) {
        self.calls = counts.calls;
        self.failed = counts.failed;
        self.no_room = counts.no_room;
        self.torn = counts.torn;
        self.lost_entries = counts.lost_entries;
    }

    fn add(&mut self, other: &Totals) {
        self.appends += other.appends;
        self.ends += other.ends;
        self.starts += other.starts;
        self.flips += other.flips;
        self.hits += other.hits;
        self.calls += other.calls;
        self.failed += other.failed;
        self.no_room += other.no_room;
        self.torn += other.torn;
        self.lost_entries += other.lost_entries;
    }
}

/// So many steps of a seed.
fn run(seed: u64, steps: u64, trace: &Trace) -> Result<Totals, String> {
    let world = life::World::new(seed, trace);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.begin()?;
        for n in 1..=steps {
            world.step(n)?;
        }
        world.recovers()
    }));
    match lived {
        Ok(lived) => lived.map(|()| world.totals()),
        Err(panic) => Err(format!("a panic: {:?}", panic.downcast_ref::<String>())),
    }
}

/// Tells of a seed that fails: with as few steps as make it fail.
fn told(seed: u64, steps: u64, why: &str) -> String {
    let quiet = Trace::default();
    let fails = |n: &u64| run(seed, *n, &quiet).is_err();
    let steps = (0..steps).find(fails).unwrap_or(steps);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let again = run(seed, steps, &Trace(Some(lines.clone())));
    let why = again.err().unwrap_or_else(|| format!("not again: {why}"));
    let lines = lines.lock().expect("a lock").join("\n");
    format!(
        "{lines}\nseed {seed}, {steps} steps: {why}\n\nThe same again: LEVERET_LOG_SEEDS={seed}..{} \
         LEVERET_LOG_STEPS={steps} cargo test --lib log::tests::sim -- --nocapture",
        seed + 1
    )
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds() -> Range<u64> {
    let Some(text) = env("LEVERET_LOG_SEEDS") else {
        return SEEDS;
    };
    let number = |n: &str| n.parse().expect("LEVERET_LOG_SEEDS is from..to");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 1..number(&text) + 1,
    }
}

#[test]
fn whatever_happens_what_was_promised_is_there_and_what_is_done_with_is_not() {
    let all = seeds();
    let steps = env("LEVERET_LOG_STEPS").map_or(STEPS, |n| n.parse().expect("a number"));
    if all.end == all.start + 1 {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let done = run(all.start, steps, &Trace(Some(lines.clone())));
        println!("{}\n{done:?}", lines.lock().expect("a lock").join("\n"));
        return assert!(done.is_ok());
    }
    let began = std::time::Instant::now();
    let (next, totals) = (AtomicU64::new(all.start), Mutex::new(Totals::default()));
    let failed = Mutex::new(None);
    let work = || {
        let mut own = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= all.end || failed.lock().expect("a lock").is_some() {
                return totals.lock().expect("a lock").add(&own);
            }
            match run(seed, steps, &Trace::default()) {
                Ok(met) => own.add(&met),
                Err(why) => drop(failed.lock().expect("a lock").get_or_insert((seed, why))),
            }
        }
    };
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..n {
            scope.spawn(work);
        }
    });
    if let Some((seed, why)) = failed.into_inner().expect("a lock") {
        panic!("{}", told(seed, steps, &why));
    }
    println!(
        "{all:?}: {:?} in {:?}",
        totals.into_inner(),
        began.elapsed()
    );
}
