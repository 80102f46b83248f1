//! What a hop costs in a chain of dead letters: one message through queues that keep nothing, each
//! dead-lettering into the next. The figure for each hop may grow with the octets of the history (110 a
//! hop), and with nothing else.
//!
//! `cargo bench --bench dead_letters`

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use leveret::broker::Broker;
use leveret::broker::batch::Batch;
use leveret::broker::message::{FLAG_PERSISTENT, Message, Parts};
use leveret::broker::queue::Queue;
use leveret::broker::vhost::QueueDeclare;
use leveret::protocol::field_table::FieldTable;
use leveret::storage::memory::MemoryLog;

fn chain(hops: u64) -> (Broker, Arc<Queue>, Arc<Queue>) {
    let (broker, _) = Broker::new(MemoryLog::new(), &[]);
    broker.add_vhost("/").expect("the log is in memory");
    let vhost = broker.vhost("/").expect("just added");
    let queue = |n: u64| {
        let mut arguments = FieldTable::new();
        if n < hops {
            arguments.insert("x-max-length", 0i64);
            arguments.insert("x-dead-letter-exchange", "");
            arguments.insert("x-dead-letter-routing-key", format!("q{}", n + 1).as_str());
        }
        let declared = vhost.declare_queue(&QueueDeclare {
            durable: true,
            ..QueueDeclare::named(&format!("q{n}"), &arguments)
        });
        declared.expect("new").0
    };
    let queues: Vec<_> = (0..=hops).map(queue).collect();
    let (first, last) = (queues[0].clone(), queues[hops as usize].clone());
    (broker, first, last)
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("dead_letters");
    for hops in [1, 30, 300, 900] {
        let (broker, first, last) = chain(hops);
        let mut batch = Batch::default();
        group.throughput(Throughput::Elements(hops));
        group.bench_function(BenchmarkId::new("hops", hops), |b| {
            b.iter(|| {
                let parts = Parts {
                    exchange: "".into(),
                    routing_key: "q0".into(),
                    properties: &[0x10, 0, 2],
                    flags: FLAG_PERSISTENT,
                };
                let message = Message::new(broker.memory(), &parts, &[7; 16]);
                batch.publish(message, std::slice::from_ref(&first), None, None, 1);
                batch.flush(&broker, 1).expect("the log is in memory");
                let left = last.purge(1, &mut batch.fx);
                assert_eq!(left, 1, "it arrives");
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
