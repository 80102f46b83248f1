//! The same on a small disk that somebody else fills to its last block and frees, again and again.
//!
//! `CHAOS_SECONDS=600` goes on for so long, on each kind of disk.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::random::mix;
use crate::round::{Counts, OPERATIONS, Round};
use crate::setting;
use crate::support;

/// Where the disk is mounted.
const DISK: &str = "/mnt";

/// Operations of a round: the disk is filled several times meanwhile.
const FEW: u64 = OPERATIONS / 4;

/// How long the disk is full, and how long it is not. An alarm lasts a second at least.
const FULL: Duration = Duration::from_millis(400);
const FREE: Duration = Duration::from_millis(1200);

/// Who has files on this disk, too.
struct Other {
    over: mpsc::Sender<()>,
    thread: JoinHandle<u64>,
}

impl Other {
    fn start() -> Other {
        let (over, ends) = mpsc::channel();
        let thread = thread::spawn(move || {
            let path = Path::new(DISK).join("ballast");
            let mut filled = 0;
            loop {
                let mut file = fs::File::create(&path).unwrap();
                // What the broker frees meanwhile is taken, too, to the last block.
                for size in [65_536, 4096] {
                    while file.write_all(&vec![1; size]).is_ok() {}
                }
                drop(file);
                filled += 1;
                let end = ends.recv_timeout(FULL).is_ok();
                fs::remove_file(&path).unwrap();
                if end || ends.recv_timeout(FREE).is_ok() {
                    return filled;
                }
            }
        });
        Other { over, thread }
    }

    /// How often the disk was full.
    fn end(self) -> u64 {
        self.over.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

fn clients_work_while_it_fills(test: &str, mount: &str) {
    if !support::goes_on_apart(test, "--mount", mount) {
        return;
    }
    let mut seed = setting("CHAOS_SEED").unwrap_or_else(|| mix(u64::from(std::process::id())));
    let seconds = Duration::from_secs(setting("CHAOS_SECONDS").unwrap_or(0));
    let settings = [("LEVERET_DISK_FREE_LIMIT_BYTES", "8MiB")];
    let (since, mut done, mut filled, mut rounds) = (Instant::now(), Counts::default(), 0, 0);
    while rounds == 0 || since.elapsed() < seconds {
        eprintln!("CHAOS_SEED={seed} (round {rounds})");
        let round = Round::new(seed, Path::new(DISK), &settings).of(FEW);
        let other = Other::start();
        done.add(&round.run());
        filled += other.end();
        seed = mix(seed);
        rounds += 1;
    }
    support::tell(&format!(
        "{test}: {rounds} rounds, {:.0?}, filled {filled} times: {done:?}",
        since.elapsed()
    ));
}

#[test]
fn promises_are_kept_on_a_disk_that_is_filled_and_freed() {
    clients_work_while_it_fills(
        "full::promises_are_kept_on_a_disk_that_is_filled_and_freed",
        &format!("mount -t tmpfs -o size=96m leveret {DISK}"),
    );
}

/// ext2 on a loop device: no `fallocate` there, every write may meet the full disk.
#[test]
fn promises_are_kept_on_a_disk_that_is_filled_and_freed_and_reserves_nothing() {
    clients_work_while_it_fills(
        "full::promises_are_kept_on_a_disk_that_is_filled_and_freed_and_reserves_nothing",
        &format!(
            "image=$(mktemp) && truncate -s 96M $image && mkfs.ext2 -q -F $image && mount -o loop $image {DISK} && rm $image"
        ),
    );
}
