//! Where messages should live: the table in ARCHITECTURE.md.
//!
//!     cargo run --release --manifest-path benches/storage/Cargo.toml [SECONDS]
//!
//! One queue of 1 KiB messages. Each batch is appended and made durable in one go, and as many of the
//! oldest messages are deleted, as a consumer that keeps up would have it; a thousand messages are
//! always there. Every store runs for SECONDS (3) with batches of 50 and of 500. CPU is of the whole
//! process, user and system.

#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use leveret::broker::message::{FLAG_PERSISTENT, Message, Parts};
use leveret::broker::ports::{
    Bell, LoggedPublish, MessageId, MessageLog, QueueId, Records, Target,
};
use leveret::storage::files::Disk;
use leveret::storage::{LogOptions, SegmentedLog};

const BODY: [u8; 1024] = [7; 1024];

/// Messages that stay.
const WAITING: u64 = 1000;

/// A store of one queue: appends `n` messages and deletes the `n` oldest, durably, all in one.
trait Store {
    fn batch(&mut self, n: u64);
}

/// Ours.
struct Segments {
    log: SegmentedLog,
    ids: std::collections::VecDeque<MessageId>,
    durable: Arc<Rung>,
}

#[derive(Default)]
struct Rung {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell for Rung {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Rung {
    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let mut rung = self.changed.wait_while(rung, |rung| !*rung).unwrap();
        *rung = false;
    }
}

impl Segments {
    fn new(dir: &Path) -> Segments {
        let (log, _) = SegmentedLog::open(LogOptions::new(dir), Arc::new(Disk)).unwrap();
        log.recover(&|_| true, &mut |_| {});
        Segments {
            log,
            ids: std::collections::VecDeque::new(),
            durable: Arc::default(),
        }
    }
}

impl Store for Segments {
    fn batch(&mut self, n: u64) {
        let mut records = Records::default();
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q".into(),
            properties: &[0, 0],
            flags: FLAG_PERSISTENT,
        };
        for i in 0..n {
            records.targets.push(Target {
                queue: QueueId(1),
                expires_at: 0,
                priority: 0,
                delivery_count: 0,
            });
            records.publishes.push(LoggedPublish {
                message: Message::uncounted(&parts, &BODY),
                first_target: i as u32,
                n_targets: 1,
                transient: false,
            });
        }
        while self.ids.len() as u64 > WAITING {
            let id = self.ids.pop_front().unwrap();
            records.settles.push((QueueId(1), id));
        }
        let a = self.log.append(&mut records).unwrap();
        self.ids.extend((0..n).map(|i| MessageId(a.first_id.0 + i)));
        let bell: Arc<dyn Bell> = self.durable.clone();
        self.log.ring_at(a.lsn, &bell);
        self.durable.wait();
    }
}

/// sled with whole messages, flushed for real: its own flush leaves the drive's cache alone.
struct Sled {
    db: sled::Db,
    file: File,
    next: u64,
    first: u64,
}

impl Sled {
    fn new(dir: &Path) -> Sled {
        let config = sled::Config::new().path(dir.join("sled"));
        let db = config
            .cache_capacity(64 << 20)
            .flush_every_ms(None)
            .open()
            .unwrap();
        Sled {
            file: File::open(dir.join("sled/db")).unwrap(),
            db,
            next: 0,
            first: 0,
        }
    }

    fn apply(&mut self, n: u64, value: impl Fn(u64) -> sled::IVec) {
        let mut batch = sled::Batch::default();
        for _ in 0..n {
            batch.insert(&self.next.to_be_bytes(), value(self.next));
            self.next += 1;
        }
        while self.next - self.first > WAITING + n {
            batch.remove(&self.first.to_be_bytes());
            self.first += 1;
        }
        self.db.apply_batch(batch).unwrap();
        self.db.flush().unwrap();
        self.file.sync_data().unwrap();
    }
}

impl Store for Sled {
    fn batch(&mut self, n: u64) {
        self.apply(n, |_| sled::IVec::from(&BODY[..]));
    }
}

/// sled as an index of positions in an append-only file.
struct SledIndex {
    index: Sled,
    bodies: File,
    end: u64,
}

impl Store for SledIndex {
    fn batch(&mut self, n: u64) {
        let block = BODY.repeat(n as usize);
        self.bodies.write_all_at(&block, self.end).unwrap();
        self.end += block.len() as u64;
        self.bodies.sync_data().unwrap();
        self.index
            .apply(n, |n| sled::IVec::from(&n.to_be_bytes()[..]));
    }
}

struct Fjall {
    keyspace: fjall::Keyspace,
    messages: fjall::PartitionHandle,
    next: u64,
    first: u64,
}

impl Store for Fjall {
    fn batch(&mut self, n: u64) {
        let mut batch = self
            .keyspace
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for _ in 0..n {
            batch.insert(&self.messages, self.next.to_be_bytes(), BODY);
            self.next += 1;
        }
        while self.next - self.first > WAITING + n {
            batch.remove(&self.messages, self.first.to_be_bytes());
            self.first += 1;
        }
        batch.commit().unwrap();
    }
}

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("messages");

struct Redb {
    db: redb::Database,
    next: u64,
    first: u64,
}

impl Store for Redb {
    fn batch(&mut self, n: u64) {
        let write = self.db.begin_write().unwrap();
        {
            let mut table = write.open_table(TABLE).unwrap();
            for _ in 0..n {
                table.insert(self.next, &BODY[..]).unwrap();
                self.next += 1;
            }
            while self.next - self.first > WAITING + n {
                table.remove(self.first).unwrap();
                self.first += 1;
            }
        }
        write.commit().unwrap();
    }
}

/// CPU seconds of this process, user and system.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // Clock ticks of 10 ms; fields 14 and 15 of the line.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

type Make = fn(&Path) -> Box<dyn Store>;

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(3);
    let stores: [(&str, Make); 5] = [
        ("append-only segments", |dir| Box::new(Segments::new(dir))),
        ("sled 0.34, whole messages", |dir| Box::new(Sled::new(dir))),
        ("sled index + append-only bodies", |dir| {
            Box::new(SledIndex {
                index: Sled::new(dir),
                bodies: File::create(dir.join("bodies")).unwrap(),
                end: 0,
            })
        }),
        ("fjall 2", |dir| {
            let keyspace = fjall::Config::new(dir.join("fjall")).open().unwrap();
            let options = fjall::PartitionCreateOptions::default();
            let messages = keyspace.open_partition("messages", options).unwrap();
            Box::new(Fjall {
                keyspace,
                messages,
                next: 0,
                first: 0,
            })
        }),
        ("redb 2", |dir| {
            let db = redb::Database::create(dir.join("redb")).unwrap();
            Box::new(Redb {
                db,
                next: 0,
                first: 0,
            })
        }),
    ];
    println!("| store | 50 a batch | 500 a batch | CPU per message |");
    println!("| --- | ---: | ---: | ---: |");
    for (name, make) in stores {
        print!("| {name} |");
        let mut costs = Vec::new();
        for n in [50, 500] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = make(dir.path());
            store.batch(n);
            let (began, spent) = (Instant::now(), cpu());
            let mut messages = 0;
            while began.elapsed() < Duration::from_secs(seconds) {
                store.batch(n);
                messages += n;
            }
            let rate = messages as f64 / began.elapsed().as_secs_f64();
            costs.push(format!("{:.2}", (cpu() - spent) * 1e6 / messages as f64));
            print!(" {rate:.0} msg/s |");
            std::io::stdout().flush().unwrap();
        }
        println!(" {} us |", costs.join(" / "));
    }
}
