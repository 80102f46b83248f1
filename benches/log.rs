//! What the log costs whoever appends: a batch of messages staged, and as many older ones settled. The disk
//! is the log thread's business; it runs beside.
//!
//! `cargo bench --bench log`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use leveret::broker::message::{FLAG_PERSISTENT, Message, Parts};
use leveret::broker::ports::{LoggedPublish, MessageId, MessageLog, QueueId, Records, Target};
use leveret::storage::{Durability, LogOptions, SegmentedLog};

/// Messages that one read brings.
const BATCH: u64 = 64;

/// Bytes on their way to the disk above which the measurement waits, as connections do.
const BACKLOG_BYTES: u64 = 8 << 20;

struct Appender {
    log: SegmentedLog,
    message: Message,
    records: Records,
    /// The first message that is not settled.
    oldest: u64,
    next: u64,
}

impl Appender {
    fn batch(&mut self, settle: bool) {
        for n in 0..BATCH as u32 {
            self.records.targets.push(Target {
                queue: QueueId(1),
                expires_at: 0,
                priority: 0,
                delivery_count: 0,
            });
            self.records.publishes.push(LoggedPublish {
                message: self.message.clone(),
                first_target: n,
                n_targets: 1,
                transient: false,
            });
        }
        if settle && self.next > self.oldest + BATCH {
            let first = MessageId(self.oldest);
            self.oldest += BATCH;
            let ids = first.0..self.oldest;
            self.records
                .settles
                .extend(ids.map(|id| (QueueId(1), MessageId(id))));
        }
        let appended = self.log.append(&mut self.records).expect("accepted");
        self.next = appended.first_id.0 + BATCH;
    }

    fn wait(&self) {
        while self.log.backlog_bytes() > BACKLOG_BYTES {
            std::thread::yield_now();
        }
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(BATCH));
    for size in [16, 1024] {
        let dir = tempfile::tempdir().expect("a folder");
        let options = LogOptions {
            durability: Durability::Write,
            ..LogOptions::new(dir.path())
        };
        let (log, _) = SegmentedLog::open(options, Arc::new(leveret::storage::files::Disk))
            .expect("an empty folder");
        log.recover(&|_| true, &mut |_| {});
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q".into(),
            properties: &[0x10, 0, 2],
            flags: FLAG_PERSISTENT,
        };
        let mut appender = Appender {
            log,
            message: Message::uncounted(&parts, &vec![7; size]),
            records: Records::default(),
            oldest: 1,
            next: 1,
        };
        (0..200).for_each(|_| appender.batch(true));
        let counted = allocation_counter::measure(|| appender.batch(true));
        println!(
            "log/append and settle/{size}: {:.3} allocations a message",
            counted.count_total as f64 / BATCH as f64
        );
        group.bench_function(BenchmarkId::new("append and settle", size), |b| {
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    appender.wait();
                    let began = std::time::Instant::now();
                    appender.batch(true);
                    took += began.elapsed();
                }
                took
            });
        });
        black_box(&appender.records);
    }
    group.finish();
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    append(&mut c);
    c.final_summary();
}
