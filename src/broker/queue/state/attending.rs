//! Consumers come, go, and go on.

use super::*;
use crate::broker::queue::consumers::{Active, ConsumerInfo};
use crate::broker::queue::outlet::ChannelCredit;

impl QueueState {
    pub(in crate::broker::queue) fn add_consumer(
        &mut self,
        info: ConsumerInfo,
        cx: &mut Cx<'_>,
    ) -> ConsumerIndex {
        self.had_consumer = true;
        self.lease = None;
        let settings = &cx.queue.info.settings;
        let active = match (settings.single_active_consumer, settings.queue_type) {
            (false, _) => Active::All,
            (true, QueueType::Classic) => Active::One,
            (true, QueueType::Quorum) => Active::First,
        };
        self.consumers.add(info, active)
    }

    /// Removes consumers, and takes back these deliveries as if they had failed. What was handed to the
    /// consumers and not sent comes back, too, and their number is returned. Only then does anybody else get
    /// something: first what has come back.
    pub(in crate::broker::queue) fn leave(
        &mut self,
        consumers: &[ConsumerIndex],
        deliveries: &[DeliveryRef],
        cx: &mut Cx<'_>,
    ) -> usize {
        let mut unsent = Vec::new();
        for index in consumers {
            unsent.append(&mut self.drop_consumer(*index, cx));
        }
        let n_unsent = unsent.len();
        self.take_unsent(unsent, cx);
        for d in deliveries {
            if let Some(unacked) = self.take_unacked(*d) {
                self.return_credit(&unacked);
                self.come_back(unacked.entry, Settle::Fail, cx);
            }
        }
        self.pump(cx);
        if n_unsent > 0 || !deliveries.is_empty() {
            self.enforce_limits(cx);
            self.expire(cx);
            self.arm(cx);
        }
        n_unsent
    }

    /// Removes a consumer; what was handed to it and not sent is for [`Self::take_unsent`]: of all consumers
    /// that go together at once.
    pub(super) fn drop_consumer(&mut self, index: ConsumerIndex, cx: &mut Cx<'_>) -> Vec<Delivery> {
        let Some(consumer) = self.consumers.remove(index) else {
            return Vec::new();
        };
        if self.consumers.len() == 0 {
            self.touch(cx);
            if cx.queue.info.auto_delete && self.had_consumer {
                cx.fx.unused.push(cx.queue.clone());
            }
        }
        consumer.info.outlet.withdraw(consumer.info.key)
    }

    /// The outlet of these consumers has room again. All of them before the first gets anything: it would
    /// take the room of the others.
    pub(in crate::broker::queue) fn resume(
        &mut self,
        consumers: &[ConsumerIndex],
        cx: &mut Cx<'_>,
    ) {
        for index in consumers {
            if let Some(consumer) = self.consumers.get(*index) {
                consumer.stalled = false;
                self.consumers.update(*index);
            }
        }
        self.pump(cx);
    }

    /// From now on a consumer shares the limit of its channel. Returns how many deliveries for it are on
    /// their way to the channel, which has to count them.
    pub(in crate::broker::queue) fn share_credit(
        &mut self,
        index: ConsumerIndex,
        credit: &Arc<ChannelCredit>,
    ) -> usize {
        let Some(consumer) = self.consumers.get(index) else {
            return 0;
        };
        if consumer.info.no_ack || consumer.info.channel_credit.is_some() {
            return 0;
        }
        consumer.info.channel_credit = Some(credit.clone());
        consumer.info.outlet.waiting(consumer.info.key)
    }

    /// All consumers that wait for channel credit may try again.
    pub(in crate::broker::queue) fn resume_all(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.consumers.n_slots() {
            if let Some(consumer) = self.consumers.get(index) {
                consumer.stalled = false;
                self.consumers.update(index);
            }
        }
        self.pump(cx);
    }
}
