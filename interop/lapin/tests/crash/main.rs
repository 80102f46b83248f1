//! The broker's process is killed at any moment under a client that does all that has to survive it: dead letters by
//! rejection and expiration, delayed messages, transactions, returns of quorum queues, de-duplication, purges and deletions.
//! An account is kept of what was promised (`book`), and compared with what is there.
//!
//! `LEVERET_BIN` names the binary; `KILLS=300` goes on until so many kills, `CRASH_SEED=...` begins with that round.
//! Each round prints its seed.

#[path = "../../../../tests/support/body.rs"]
mod body;
mod book;
mod broker;
mod client;
mod features;
#[allow(dead_code, reason = "others need more of it")]
#[path = "../../../../tests/support/history.rs"]
mod history;
#[path = "../../../../tests/support/random.rs"]
mod random;
mod round;

use std::time::Instant;

use random::mix;
use round::Counts;

/// Kills, if nobody says how many.
const KILLS: u64 = 12;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_survives_kills_at_any_moment() {
    let Some(binary) = std::env::var_os("LEVERET_BIN") else {
        eprintln!("LEVERET_BIN is not set: nothing is killed, crash is not tested");
        return;
    };
    let kills = setting("KILLS").unwrap_or(KILLS);
    let mut seed = setting("CRASH_SEED").unwrap_or_else(|| mix(u64::from(std::process::id())));
    let folder = broker::Folder::new();
    let (since, mut done) = (Instant::now(), Counts::default());
    while done.kills < kills {
        eprintln!("CRASH_SEED={seed} (kill {})", done.kills);
        done.add(&round::run(seed, &binary, &folder).await);
        seed = mix(seed);
    }
    eprintln!("crash: {:.0?}: {done:?}", since.elapsed());
}
