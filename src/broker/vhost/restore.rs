//! What the store has, without writing it again.

use std::sync::Arc;

use super::*;

impl Vhost {
    pub(in crate::broker) fn restore_exchange(&self, info: ExchangeInfo) {
        let name = Box::from(&info.name[..]);
        self.exchanges
            .write()
            .expect(UNPOISONED)
            .insert(name, Exchange::new(info, &self.memory));
        self.accounts.iter().for_each(|a| a.exchanges.add());
    }

    pub(in crate::broker) fn restore_queue(
        &self,
        stored: StoredQueue,
        refused: impl FnMut(ArgumentError),
    ) -> Result<Arc<Queue>, ArgumentError> {
        if let Some(exchange) = stored.delays.as_deref().and_then(|x| self.exchange(x)) {
            let queue = self.waiting_of(&stored, true);
            exchange.set_waiting(queue.clone());
            return Ok(queue);
        }
        let settings = QueueSettings::restore(&stored.arguments, refused)?;
        let info = QueueInfo {
            id: QueueId(stored.id),
            vhost: self.name.clone(),
            name: stored.name.as_str().into(),
            durable: true,
            auto_delete: stored.auto_delete,
            exclusive_owner: None,
            arguments: stored.arguments,
            settings,
            delays: None,
        };
        let queue = Queue::new(info, &self.memory);
        self.queues
            .write()
            .expect(UNPOISONED)
            .insert(stored.name.into(), queue.clone());
        self.accounts.iter().for_each(|a| a.queues.add());
        Ok(queue)
    }

    /// False if one of its ends is missing.
    pub(in crate::broker) fn restore_binding(&self, stored: &StoredBinding) -> bool {
        let destination = if stored.to_queue {
            self.queue(&stored.destination).map(Destination::Queue)
        } else {
            self.exchange(&stored.destination)
                .map(Destination::Exchange)
        };
        let (Some(source), Some(destination)) = (self.exchange(&stored.source), destination) else {
            return false;
        };
        source
            .router_mut()
            .bind(&stored.routing_key, &stored.arguments, &destination);
        let mut links = self.links.lock();
        let sources = links.sources.entry(destination).or_default();
        if !sources.iter().any(|s| Arc::ptr_eq(s, &source)) {
            sources.push(source);
        }
        true
    }
}
