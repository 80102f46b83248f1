//! Overload and hostility: the broker serves others meanwhile, and gets back what it was made to hold.
//!
//! `OVERLOAD_SECONDS=10 cargo test --release --test overload -- --nocapture` looks at each kind for so long, says how long
//! others waited, and fails if that is too long; `OVERLOAD_KIND=get` only at those with that in their name.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod bystander;
mod flood;
mod handshakes;
mod many;

use std::time::{Duration, Instant};

use bystander::{ASKED, Bystander, Latencies};
use flood::{Hostile, KINDS, Kind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Broker, PATIENCE, metric, scrape};

/// In the long form: how long each kind is watched, seconds.
fn seconds() -> Option<u64> {
    let text = std::env::var("OVERLOAD_SECONDS").ok()?;
    Some(text.parse().expect("OVERLOAD_SECONDS is a number"))
}

/// What others may wait in the long form, of a hundred questions all but one.
const P99: Duration = Duration::from_millis(10);

/// Files that the log may open meanwhile.
const FEW_FILES: usize = 12;

/// Memory that the allocator may keep of all that.
const KEPT: u64 = 128 << 20;

/// What a broker holds that others made it hold.
const HELD: [&str; 4] = [
    "rabbitmq_connections",
    "rabbitmq_channels",
    "rabbitmq_queues",
    "rabbitmq_consumers",
];

struct Ground {
    broker: Broker,
    metrics: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

/// This process needs a descriptor for each client, and shells leave it 1,024; how many it may have now.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.map_or(usize::MAX, |n| n as usize)
}

impl Ground {
    fn new(more: &[(&str, &str)]) -> Ground {
        raise_descriptors();
        let dir = tempfile::tempdir().unwrap();
        let mut environment = vec![("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0")];
        environment.extend(more);
        let broker = Broker::start_with(&dir.path().join("data"), &[], &environment);
        let metrics = broker.listens("prometheus");
        Ground {
            broker,
            metrics,
            _dir: dir,
        }
    }

    fn held(&self) -> [f64; HELD.len()] {
        let page = scrape(self.metrics);
        HELD.map(|name| metric(&page, name))
    }

    /// Waits until no more is held than this, and descriptors are what they were.
    fn comes_back_to(&self, before: &[f64; HELD.len()], descriptors: usize) {
        let since = Instant::now();
        loop {
            let now = self.held();
            let open = self.broker.descriptors();
            let back = now.iter().zip(before).all(|(now, before)| now <= before);
            if back && open <= descriptors {
                return;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{HELD:?} were {before:?}, are {now:?}; descriptors {descriptors}, {open}"
            );
        }
    }
}

fn told(name: &str, seen: &Latencies, resident: u64) -> Duration {
    let mut line = format!("{name:30}");
    let mut worst = Duration::ZERO;
    for (what, h) in ASKED.iter().zip(seen) {
        let at = |q: f64| h.value_at_quantile(q) as f64 / 1000.0;
        line += &format!(
            " | {what} {:6} {:7.2} {:7.2} {:7.2}",
            h.len(),
            at(0.5),
            at(0.99),
            at(0.999)
        );
        worst = worst.max(Duration::from_micros(h.value_at_quantile(0.99)));
    }
    support::tell(&format!("{line} | {} MiB", resident >> 20));
    worst
}

/// One kind after the other and all together; in the short form some kinds at a time.
fn ways() -> Vec<(String, Vec<&'static Kind>)> {
    let at_once = if seconds().is_some() { 1 } else { 4 };
    let name = |kinds: &[&Kind]| {
        let names: Vec<_> = kinds.iter().map(|k| k.name).collect();
        names.join(", ")
    };
    let all: Vec<_> = KINDS.iter().collect();
    let mut ways: Vec<_> = all
        .chunks(at_once)
        .map(|kinds| (name(kinds), kinds.to_vec()))
        .collect();
    ways.push(("all together".into(), all));
    if let Ok(only) = std::env::var("OVERLOAD_KIND") {
        ways.retain(|(name, _)| name.contains(&only));
    }
    ways
}

#[test]
fn others_are_served_beside_every_kind_of_hostility() {
    let (long, answers) = match seconds() {
        Some(n) => (Duration::from_secs(n), 100),
        None => (Duration::from_millis(100), 3),
    };
    let ground = Ground::new(&[]);
    let address = ground.broker.address;
    let bystander = Bystander::start(address);
    bystander.watch(Duration::from_millis(100), 3);
    let descriptors = ground.broker.descriptors() + FEW_FILES;
    let resident = ground.broker.resident();
    // Its three connections that stay, and the one that comes and goes.
    let before = [4.0, 4.0, 2.0, 1.0];
    let mut late = Vec::new();
    for (name, kinds) in ways() {
        let hostile = Hostile::start(address, kinds);
        let seen = bystander.watch(long, answers);
        let worst = told(&name, &seen, ground.broker.resident());
        hostile.stop();
        ground.comes_back_to(&before, descriptors);
        // Not with all at once: so much work takes as long as it takes.
        if worst > P99 && name != "all together" {
            late.push((name, worst));
        }
    }
    bystander.stop();
    ground.comes_back_to(&[0.0, 0.0, 2.0, 0.0], descriptors);
    let kept = ground.broker.resident().saturating_sub(resident);
    support::tell(&format!("kept: {} MiB", kept >> 20));
    assert!(kept < KEPT, "{} MiB", kept >> 20);
    assert!(ground.broker.stop(), "a clean stop");
    if seconds().is_some() {
        assert!(late.is_empty(), "others waited: {late:?}");
    }
}
