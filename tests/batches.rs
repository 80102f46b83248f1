//! Batches that settle in many queues.

use std::sync::Arc;

use leveret::broker::Broker;
use leveret::broker::batch::Batch;
use leveret::broker::message::{Message, Parts};
use leveret::broker::ports::Bell;
use leveret::broker::queue::{DeliveryRef, Got, Queue, Settle};
use leveret::broker::vhost::QueueDeclare;
use leveret::protocol::field_table::FieldTable;
use leveret::storage::memory::MemoryLog;

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

/// However many queues there are, in whatever order, and batch after batch.
#[test]
fn settlements_find_their_queue_among_many() {
    // More than are looked through one by one.
    const QUEUES: usize = 64;
    let (broker, _) = Broker::new(MemoryLog::new(), &[]);
    broker.add_vhost("/").expect("the log works");
    let vhost = broker.vhost("/").expect("just added");
    let mut batch = Batch::default();
    let bell: Arc<dyn Bell> = Arc::new(NoBell);
    let queues: Vec<_> = (0..QUEUES)
        .map(|n| {
            let declared =
                vhost.declare_queue(&QueueDeclare::named(&n.to_string(), &FieldTable::new()));
            let queue = declared.expect("new").0;
            let parts = Parts {
                exchange: "".into(),
                routing_key: "q".into(),
                properties: &[0, 0],
                flags: 0,
            };
            for _ in 0..4 {
                let message = Message::new(broker.memory(), &parts, b"m");
                batch.publish(message, std::slice::from_ref(&queue), None, None, 1);
            }
            batch.flush(&broker, 1).expect("the log works");
            queue
        })
        .collect();
    let mut settle = |order: &mut dyn Iterator<Item = &Arc<Queue>>| {
        for queue in order {
            let Got::Message(d, _) = queue.get(false, &bell, 1, &mut batch.fx) else {
                panic!("nothing is left");
            };
            let delivery = DeliveryRef {
                slot: d.slot,
                seq: d.entry.seq,
            };
            batch.settle(queue, delivery, Settle::Ack);
        }
        batch.flush(&broker, 1).expect("the log works");
    };
    let twice = queues.iter().chain(&queues);
    settle(&mut twice.clone());
    settle(&mut twice.rev());
    let left = |q: &Arc<Queue>| (q.counts().ready, q.counts().unacked);
    assert!(queues.iter().all(|q| left(q) == (0, 0)));
}
