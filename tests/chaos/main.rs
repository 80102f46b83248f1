//! A random tester over real sockets: several connections at once, all methods, values at borders, small budgets,
//! kills and restarts in between. It checks that the process never ends by itself or hangs, that promises are
//! kept ([`history`]), that counts agree with what can be got, and that memory and disk come back.
//!
//! `CHAOS_SECONDS=600 cargo test --release --test chaos` goes on for so long, `CHAOS_OPERATIONS=1000000` for so
//! many, `CHAOS_KILLS=300` until so many kills. Each round prints its seed; `CHAOS_SEED=...` begins with that round.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/body.rs"]
mod body;
mod full;
#[path = "../support/history.rs"]
mod history;
mod link;
mod operations;
mod random;
mod round;
mod topology;
mod wild;
mod world;

use std::time::{Duration, Instant};

use random::mix;
use round::{Counts, Round};

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn what_clients_do_at_random_keeps_every_promise() {
    let mut seed = setting("CHAOS_SEED").unwrap_or_else(|| mix(u64::from(std::process::id())));
    let (operations, kills) = (setting("CHAOS_OPERATIONS"), setting("CHAOS_KILLS"));
    let seconds = setting("CHAOS_SECONDS").unwrap_or(match operations.or(kills) {
        None => 25,
        Some(_) => u64::MAX,
    });
    let dir = tempfile::tempdir().unwrap();
    let since = Instant::now();
    let mut done = Counts::default();
    let mut rounds = 0;
    let enough = |done: &Counts| {
        operations.is_some_and(|n| done.operations >= n)
            || kills.is_some_and(|n| done.kills >= n)
            || since.elapsed() >= Duration::from_secs(seconds)
    };
    while rounds == 0 || !enough(&done) {
        eprintln!("CHAOS_SEED={seed} (round {rounds})");
        done.add(&Round::new(seed, dir.path(), &[]).run());
        seed = mix(seed);
        rounds += 1;
    }
    support::tell(&format!(
        "chaos: {rounds} rounds, {:.0?}: {done:?}",
        since.elapsed()
    ));
}
