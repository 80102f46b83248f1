//! Where the messages of an `x-delayed-message` exchange wait.

use super::*;

impl Vhost {
    /// The name under which the queue is stored. Clients cannot declare names that begin like this.
    fn waiting_name(exchange: &str) -> String {
        format!("amq.delayed.{exchange}")
    }

    /// The queue, durable if the exchange is; its definition goes into `records`.
    pub(super) fn waiting_queue(&self, info: &ExchangeInfo, records: &mut Records) -> Arc<Queue> {
        let number = self.next_queue_id.fetch_add(1, Ordering::Relaxed);
        let stored = StoredQueue {
            id: number,
            name: Self::waiting_name(&info.name),
            auto_delete: false,
            arguments: FieldTable::new(),
            delays: Some(info.name.to_string()),
        };
        if info.durable {
            records.definitions.push(stored.put(&self.name));
            records
                .definitions
                .push(self.next_queue_id_change(number + 1));
        }
        self.waiting_of(&stored, info.durable)
    }

    /// The queue of a definition.
    pub(super) fn waiting_of(&self, stored: &StoredQueue, durable: bool) -> Arc<Queue> {
        let transient = if durable { 0 } else { TRANSIENT_QUEUE };
        let exchange = stored.delays.as_deref().unwrap_or("");
        let info = QueueInfo {
            id: QueueId(stored.id | transient),
            vhost: self.name.clone(),
            name: stored.name.as_str().into(),
            durable,
            auto_delete: false,
            exclusive_owner: None,
            arguments: FieldTable::new(),
            settings: QueueSettings {
                // What expires here goes on.
                dead_letter: Some(DeadLetterTarget {
                    exchange: exchange.as_bytes().into(),
                    routing_key: None,
                }),
                ..QueueSettings::default()
            },
            delays: Some(exchange.into()),
        };
        Queue::new(info, &self.memory)
    }

    /// With its exchange go the messages that wait.
    pub(super) fn delete_waiting(&self, exchange: &Exchange, records: &mut Records) {
        let Some(queue) = exchange.waiting() else {
            return;
        };
        let mut fx = Effects::default();
        if queue.mark_deleted(DeleteIf::default(), &mut fx).is_err() {
            return;
        }
        records.settles.append(&mut fx.settles);
        records.settled_ranges.append(&mut fx.settled_ranges);
        let info = queue.info();
        if info.durable {
            let parts = [self.name.as_bytes(), info.name.as_bytes()];
            records
                .definitions
                .push(codec::remove(DefinitionKind::Queue, &parts));
        }
    }

    /// The queues in which delayed messages wait.
    pub fn waiting_queues(&self) -> Vec<Arc<Queue>> {
        let exchanges = self.exchanges.read().expect(UNPOISONED);
        exchanges
            .values()
            .filter_map(|x| x.waiting().cloned())
            .collect()
    }
}
