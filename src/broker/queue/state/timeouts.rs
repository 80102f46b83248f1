//! Deliveries that a consumer keeps for too long (`x-consumer-timeout`): taken back, and the consumer
//! given up, as quorum queues do since RabbitMQ 4.3.

use super::*;

impl QueueState {
    /// Notes when a delivery is taken back.
    pub(super) fn set_deadline(&mut self, slot: u32, timeout: u64, cx: &mut Cx<'_>) {
        let deadline = cx.now.saturating_add(timeout);
        if let Some(Some(unacked)) = self.unacked.get_mut(slot as usize) {
            unacked.deadline = deadline;
        }
        if self.next_timeout.is_none_or(|at| deadline < at) {
            self.next_timeout = Some(deadline);
            self.arm(cx);
        }
    }

    /// Takes back what is past its deadline. Looks at every delivery, but not before the earliest
    /// deadline it saw the last time.
    pub(super) fn take_back(&mut self, cx: &mut Cx<'_>) {
        let mut next = None;
        let mut past = Vec::new();
        for (slot, unacked) in self.unacked.iter().enumerate() {
            match unacked {
                Some(u) if u.deadline == 0 => {}
                Some(u) if u.deadline <= cx.now => past.push(slot as u32),
                Some(u) => next = Some(next.map_or(u.deadline, |n: u64| n.min(u.deadline))),
                None => {}
            }
        }
        self.next_timeout = next;
        // All of them and their consumers first: who takes them gets them in order, and is not late.
        let mut late = Vec::new();
        for slot in past {
            let Some(unacked) = self.unacked[slot as usize].take() else {
                continue;
            };
            self.bodies.went(&unacked.entry);
            self.taken_back.insert(slot, unacked.entry.seq);
            self.levels[usize::from(unacked.entry.priority)].pass(unacked.entry.seq);
            self.n_unacked -= 1;
            self.unacked_bytes -= u64::from(unacked.entry.body_len);
            late.push((unacked.consumer, unacked.serial));
            self.come_back(unacked.entry, Settle::Fail, cx);
        }
        let mut unsent = Vec::new();
        for (consumer, serial) in late {
            unsent.append(&mut self.give_up(consumer, serial, cx));
        }
        self.take_unsent(unsent, cx);
        self.pump(cx);
        self.enforce_limits(cx);
    }

    /// Removes a consumer that kept a delivery for too long, and tells it; see [`Self::drop_consumer`].
    fn give_up(&mut self, index: ConsumerIndex, serial: u32, cx: &mut Cx<'_>) -> Vec<Delivery> {
        let Some(consumer) = self.consumers.get(index).filter(|c| c.serial == serial) else {
            return Vec::new();
        };
        let outlet = consumer.info.outlet.clone();
        let notice = Notice::TimedOut(consumer.info.key, consumer.info.timeout);
        if outlet.notify(notice) {
            cx.fx.ring(&outlet);
        }
        self.drop_consumer(index, cx)
    }
}
