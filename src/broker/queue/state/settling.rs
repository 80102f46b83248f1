//! Acknowledged, returned, given up, never sent: the ways in which deliveries end.

use super::*;

impl QueueState {
    /// Settles deliveries. The log copies that are done with are in `cx.fx`.
    pub(in crate::broker::queue) fn settle(
        &mut self,
        deliveries: &[DeliveryRef],
        how: Settle,
        cx: &mut Cx<'_>,
    ) {
        for d in deliveries {
            let Some(unacked) = self.take_unacked(*d) else {
                continue;
            };
            self.return_credit(&unacked);
            match how {
                Settle::Ack => {
                    if unacked.entry.id.is_some() {
                        cx.fx.settles.push((cx.queue.info.id, unacked.entry.id));
                    }
                }
                Settle::Discard => self.die(unacked.entry, DeathReason::Rejected, cx),
                Settle::Reject => {
                    let mut entry = unacked.entry;
                    entry.count_failure();
                    self.die(entry, DeathReason::Rejected, cx);
                }
                Settle::Requeue | Settle::Fail => self.come_back(unacked.entry, how, cx),
            }
        }
        self.pump(cx);
        if matches!(how, Settle::Requeue | Settle::Fail) {
            self.enforce_limits(cx);
            self.expire(cx);
            self.arm(cx);
        }
    }

    pub(super) fn take_unacked(&mut self, d: DeliveryRef) -> Option<Unacked> {
        let unacked = self.remove_unacked(d)?;
        self.levels[usize::from(unacked.entry.priority)].pass(d.seq);
        Some(unacked)
    }

    /// The same for what its consumer never had.
    fn remove_unacked(&mut self, d: DeliveryRef) -> Option<Unacked> {
        let place = self.unacked.get_mut(d.slot as usize)?;
        if place.is_none() && self.taken_back.get(&d.slot) == Some(&d.seq) {
            self.taken_back.remove(&d.slot);
            self.free_slot(d.slot);
            return None;
        }
        if place.as_ref()?.entry.seq != d.seq {
            return None;
        }
        let unacked = place.take()?;
        self.bodies.went(&unacked.entry);
        self.n_unacked -= 1;
        self.unacked_bytes -= u64::from(unacked.entry.body_len);
        self.free_slot(d.slot);
        Some(unacked)
    }

    /// A slot is free; slots at the end that are free go.
    fn free_slot(&mut self, slot: u32) {
        self.free.push(slot);
        if slot as usize + 1 < self.unacked.len() {
            return;
        }
        while let Some(None) = self.unacked.last() {
            let last = (self.unacked.len() - 1) as u32;
            if !self.taken_back.is_empty() && self.taken_back.contains_key(&last) {
                break;
            }
            self.unacked.pop();
        }
        let (n, room) = (self.unacked.len(), self.unacked.capacity());
        if room > KEEP_SLOTS && n < room / 4 {
            self.unacked.shrink_to((2 * n).max(KEEP_SLOTS));
        }
        if self.free.len() > 2 * n + KEEP_SLOTS {
            self.free.retain(|slot| (*slot as usize) < n);
            self.free.shrink_to_fit();
        }
    }

    /// A slot that is free. Those that are past the end are so no longer; a slot is added at the end only when
    /// none is left of them.
    pub(super) fn take_slot(&mut self) -> Option<u32> {
        while let Some(slot) = self.free.pop() {
            if (slot as usize) < self.unacked.len() {
                return Some(slot);
            }
        }
        None
    }

    pub(super) fn return_credit(&mut self, unacked: &Unacked) {
        if let Some(consumer) = self.consumers.get(unacked.consumer)
            && consumer.serial == unacked.serial
        {
            consumer.n_unacked -= 1;
            self.consumers.settled(unacked.consumer);
        }
    }

    /// A message returns to its place, unless its time has come: it is not delivered again at the very
    /// millisecond at which a new one still might.
    pub(super) fn requeue(&mut self, entry: Entry, cx: &mut Cx<'_>) {
        if entry.is_over(cx.now) {
            return self.die(entry, DeathReason::Expired, cx);
        }
        self.n_ready += 1;
        self.ready_bytes += u64::from(entry.body_len);
        if entry.expires_at != 0 {
            self.expiry.insert(entry.expires_at, entry.seq);
        }
        self.levels[usize::from(entry.priority)].requeue(entry);
    }

    /// `n` deliveries without acknowledgement, of `bytes` in all, are on the wire.
    pub(in crate::broker::queue) fn sent(&mut self, n: u64, bytes: u64) {
        self.n_in_flight -= n;
        self.unacked_bytes -= bytes;
    }

    /// Deliveries that were never put on the wire come back.
    pub(in crate::broker::queue) fn unsent(&mut self, deliveries: Vec<Delivery>, cx: &mut Cx<'_>) {
        self.take_unsent(deliveries, cx);
        self.pump(cx);
        self.enforce_limits(cx);
        self.expire(cx);
        self.arm(cx);
    }

    /// The same, and hands nothing out.
    ///
    /// What has been overtaken is marked as redelivered, as RabbitMQ marks all of it: a consumer relies on the
    /// order of what is not marked.
    pub(super) fn take_unsent(&mut self, deliveries: Vec<Delivery>, cx: &mut Cx<'_>) {
        if deliveries.is_empty() {
            return;
        }
        let mut back = Vec::with_capacity(deliveries.len());
        for d in deliveries {
            if d.slot == NO_SLOT {
                self.n_in_flight -= 1;
                self.unacked_bytes -= u64::from(d.entry.body_len);
                back.push(d.entry);
            } else if let Some(unacked) = self.remove_unacked(DeliveryRef {
                slot: d.slot,
                seq: d.entry.seq,
            }) {
                self.return_credit(&unacked);
                back.push(unacked.entry);
            }
        }
        let mut passed: Vec<u64> = self.levels.iter().map(Level::passed).collect();
        for u in self.unacked.iter().flatten() {
            let highest = &mut passed[usize::from(u.entry.priority)];
            *highest = u.entry.seq.max(*highest);
        }
        for mut entry in back {
            entry.redelivered |= entry.seq < passed[usize::from(entry.priority)];
            self.requeue(entry, cx);
        }
    }
}
