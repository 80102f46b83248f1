//! `basic.qos`, `consume`, `cancel`, `get`, and writing deliveries: the hot path out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connection::{Connection, not_open};
use super::consumers::Consumer;
use super::errors::{self, Exception};
use super::reply_address::{self, REPLY_TO};
use super::unacked::Unacked;
use crate::broker::access::Permission;
use crate::broker::arguments::{ConsumerSettings, QueueType};
use crate::broker::by_queue::ByQueue;
use crate::broker::queue::outlet::{ChannelCredit, ConsumerKey, Delivery, NO_SLOT};
use crate::broker::queue::{ConsumerIndex, ConsumerInfo, DeliveryRef, Got, Queue};
use crate::broker::replies::ReplyTarget;
use crate::broker::totals::QueueKind;
use crate::broker::vhost::generated_name;
use crate::protocol::encode::DeliverHead;
use crate::protocol::methods::basic;
use crate::protocol::reply_code::{HardCode, SoftCode};

impl Connection {
    pub(super) fn qos(&mut self, number: u16, m: &basic::Qos) -> Result<(), Exception> {
        if m.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", m.prefetch_size);
            return Err(Exception::hard(HardCode::NOT_IMPLEMENTED, text));
        }
        if m.global {
            let credit = self.shared_credit(number)?;
            self.set_credit_limit(&credit, m.prefetch_count);
        } else {
            let ch = self.channel_mut(number)?;
            ch.prefetch_count = m.prefetch_count;
            // As in RabbitMQ, it lifts the limit of the channel.
            if let Some(credit) = ch.credit.clone() {
                self.set_credit_limit(&credit, 0);
            }
        }
        self.send(number, &basic::QosOk);
        Ok(())
    }

    fn set_credit_limit(&mut self, credit: &ChannelCredit, limit: u16) {
        credit.set_limit(limit);
        for queue in credit.take_waiting() {
            queue.resume_all(self.now, &mut self.batch.fx);
        }
    }

    /// The credit that the consumers of a channel share. If there was none, it counts what is out already,
    /// and what is on its way to consumers that are there; those of quorum queues do not share.
    fn shared_credit(&mut self, number: u16) -> Result<Arc<ChannelCredit>, Exception> {
        let ch = self.channels.get_mut(number).ok_or_else(not_open)?;
        if let Some(credit) = &ch.credit {
            return Ok(credit.clone());
        }
        let credit = Arc::new(ChannelCredit::unlimited());
        ch.credit = Some(credit.clone());
        let mut n = ch.unacked.len();
        ch.unacked.iter_mut().for_each(|u| u.credited = true);
        for slot in ch.consumers.clone() {
            if let Some(consumer) = self.consumers.at_mut(slot)
                && let Some((queue, index)) = &consumer.queue
                && queue.info().settings.queue_type != QueueType::Quorum
            {
                // From here on the queue takes credit for what it hands out.
                n += queue.share_credit(*index, &credit);
                consumer.credited = !consumer.no_ack;
            }
        }
        credit.count(u32::try_from(n).unwrap_or(u32::MAX));
        Ok(credit)
    }

    pub(super) fn consume(&mut self, number: u16, m: &basic::Consume<'_>) -> Result<(), Exception> {
        let name = self.queue_or_last(number, m.queue)?;
        let generated;
        let tag = if m.consumer_tag.is_empty() {
            generated = generated_name("amq.ctag-");
            &generated
        } else {
            m.consumer_tag
        };
        let ch = self.channel_mut(number)?;
        let slots: Vec<u32> = ch.consumers.clone();
        let reply_slot = ch.reply_consumer.as_ref().map(|(slot, _)| *slot);
        let taken = slots
            .iter()
            .copied()
            .chain(reply_slot)
            .any(|slot| self.consumers.at(slot).is_some_and(|c| *c.tag == *tag));
        if taken {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        }
        let max = self.settings.consumers_per_channel;
        if max != 0 && slots.len() >= max as usize {
            let text = format!("reached maximum ({max}) of consumers per channel");
            return Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        }
        if name == REPLY_TO {
            return self.consume_replies(number, m, tag);
        }
        self.allow(Permission::Read, false, &name)?;
        let vhost = self.the_vhost()?;
        let queue = vhost
            .lookup_queue(&name, self.id)
            .map_err(|e| errors::topology(&e, &vhost.name))?;
        let of_queue = &queue.info().settings;
        let settings = ConsumerSettings::parse(&m.arguments.to_table(), of_queue.queue_type)
            .map_err(|e| errors::argument(&e, &name, &vhost.name))?;
        let ch = self.channel_mut(number)?;
        let (prefetch_count, mut credit) = (ch.prefetch_count, ch.credit.clone());
        if queue.info().settings.queue_type == QueueType::Quorum {
            // A limit that was lifted concerns nobody.
            if credit.take().is_some_and(|c| c.is_limited()) {
                let name = errors::queue_name(&name, &vhost.name);
                let text = format!("{name} does not support global qos");
                return Err(Exception::hard(HardCode::NOT_IMPLEMENTED, text));
            }
        }
        let tag: Arc<str> = tag.into();
        let consumer = Consumer {
            channel: number,
            tag: tag.clone(),
            queue: Some((queue.clone(), 0)),
            no_ack: m.no_ack,
            credited: credit.is_some() && !m.no_ack,
        };
        let key = self.consumers.add(consumer);
        let info = ConsumerInfo {
            key,
            tag: tag.clone(),
            outlet: self.outlet.clone(),
            no_ack: m.no_ack,
            exclusive: m.exclusive,
            priority: settings.priority,
            prefetch_count,
            timeout: match of_queue.queue_type {
                QueueType::Quorum => settings
                    .timeout
                    .or(of_queue.consumer_timeout)
                    .unwrap_or(self.settings.consumer_timeout_ms),
                _ => 0,
            },
            channel_credit: credit,
        };
        match queue.consume(info, self.now, &mut self.batch.fx) {
            Ok(index) => self.consumers.set_index(key.slot, index),
            Err(e) => {
                self.consumers.remove(key.slot);
                return Err(errors::consume(e, &name, &vhost.name));
            }
        }
        self.channel_mut(number)?.consumers.push(key.slot);
        if !m.nowait {
            self.send(number, &basic::ConsumeOk { consumer_tag: &tag });
        }
        // Only now: consume-ok comes before the first delivery.
        queue.pump(self.now, &mut self.batch.fx);
        self.flush();
        Ok(())
    }

    /// A consumer of direct replies: no queue, a name that others can publish to.
    fn consume_replies(
        &mut self,
        number: u16,
        m: &basic::Consume<'_>,
        tag: &str,
    ) -> Result<(), Exception> {
        let refused = |text: &str| Err(Exception::soft(SoftCode::PRECONDITION_FAILED, text));
        if !m.no_ack {
            return refused("reply consumer cannot acknowledge");
        }
        if self.channel_mut(number)?.reply_consumer.is_some() {
            return refused("reply consumer already set");
        }
        let consumer = Consumer {
            channel: number,
            tag: tag.into(),
            queue: None,
            no_ack: true,
            credited: false,
        };
        let key = self.consumers.add(consumer);
        let name = reply_address::fresh(self.id.0, key.slot);
        self.broker.replies().add(
            &name,
            ReplyTarget {
                outlet: self.outlet.clone(),
                consumer: key,
            },
        );
        self.channel_mut(number)?.reply_consumer = Some((key.slot, name));
        if !m.nowait {
            self.send(number, &basic::ConsumeOk { consumer_tag: tag });
        }
        Ok(())
    }

    pub(super) fn cancel(&mut self, number: u16, m: &basic::Cancel<'_>) -> Result<(), Exception> {
        let consumers = &self.consumers;
        let has_tag = |slot: &u32| {
            consumers
                .at(*slot)
                .is_some_and(|c| *c.tag == *m.consumer_tag)
        };
        let Some(ch) = self.channel(number) else {
            return Ok(());
        };
        let found = ch.consumers.iter().copied().find(has_tag);
        let reply = ch
            .reply_consumer
            .as_ref()
            .is_some_and(|(slot, _)| has_tag(slot));
        if let Some(slot) = found {
            self.channel_mut(number)?.consumers.retain(|s| *s != slot);
            self.drop_consumer(slot);
            self.flush();
        } else if reply && let Some((slot, name)) = self.channel_mut(number)?.reply_consumer.take()
        {
            self.broker.replies().remove(&name);
            self.consumers.remove(slot);
        }
        if !m.nowait {
            self.send(
                number,
                &basic::CancelOk {
                    consumer_tag: m.consumer_tag,
                },
            );
        }
        Ok(())
    }

    /// Takes a consumer out of its queue; what it has unacknowledged stays.
    fn drop_consumer(&mut self, slot: u32) {
        let mut unsent = 0;
        if let Some((queue, index)) = self.consumers.queue_of(slot) {
            unsent = queue.cancel(index, self.now, &mut self.batch.fx);
        }
        if let Some(consumer) = self.forget_consumer(slot)
            && consumer.credited
            && unsent > 0
        {
            self.return_credit(consumer.channel, unsent as u32);
        }
    }

    /// Takes the consumers of a channel out of their queues, and gives back what it has not settled. All that
    /// comes back to a queue is back before anybody else gets something.
    pub(super) fn leave_queues(
        &mut self,
        consumers: Vec<u32>,
        unacked: impl IntoIterator<Item = Unacked>,
    ) {
        let mut parts = ByQueue::<(Vec<ConsumerIndex>, Vec<DeliveryRef>)>::default();
        for slot in &consumers {
            if let Some((queue, index)) = self.consumers.queue_of(*slot) {
                parts.of(queue).0.push(index);
            }
        }
        for u in unacked {
            parts.of(&u.queue).1.push(u.delivery);
        }
        for (queue, (consumers, deliveries)) in parts.take() {
            queue.leave(&consumers, &deliveries, self.now, &mut self.batch.fx);
        }
        for slot in consumers {
            self.forget_consumer(slot);
        }
    }

    /// Forgets a consumer that its queue has forgotten.
    fn forget_consumer(&mut self, slot: u32) -> Option<Consumer> {
        let key = self.consumers.key(slot)?;
        // A deleted queue has not taken these back.
        let undelivered = self.outlet.withdraw(key);
        self.return_unsent(undelivered);
        self.consumers.remove(slot)
    }

    /// A consumer kept a delivery for too long: it is cancelled, or, if the client would not learn of
    /// that, its channel closed.
    pub(super) fn timed_out(&mut self, key: ConsumerKey, timeout: u64) {
        let Some(channel) = self.consumers.get(key).map(|c| c.channel) else {
            return;
        };
        self.cancelled_by_server(key);
        if !self.capabilities.consumer_cancel_notify && self.is_running() {
            let text = format!(
                "delivery acknowledgement on channel {channel} timed out. Timeout value used: {timeout} ms. This timeout value can be configured, see consumers doc guide to learn more"
            );
            let error = Exception::soft(SoftCode::PRECONDITION_FAILED, text);
            self.raise(channel, crate::protocol::MethodId::NONE, error);
        }
    }

    /// The queue of a consumer is gone.
    pub(super) fn cancelled_by_server(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get(key) else {
            return;
        };
        let (channel, tag) = (consumer.channel, consumer.tag.clone());
        let undelivered = self.outlet.withdraw(key);
        self.return_unsent(undelivered);
        self.consumers.remove(key.slot);
        if let Ok(ch) = self.channel_mut(channel) {
            ch.consumers.retain(|s| *s != key.slot);
        }
        if self.capabilities.consumer_cancel_notify && self.is_running() {
            self.send(
                channel,
                &basic::Cancel {
                    consumer_tag: &tag,
                    nowait: true,
                },
            );
        }
    }

    pub(super) fn get(&mut self, number: u16, queue: &str, no_ack: bool) -> Result<(), Exception> {
        let name = self.queue_or_last(number, queue)?;
        self.allow(Permission::Read, false, &name)?;
        let vhost = self.the_vhost()?;
        let queue = vhost
            .lookup_queue(&name, self.id)
            .map_err(|e| errors::topology(&e, &vhost.name))?;
        let settings = &queue.info().settings;
        if settings.queue_type == QueueType::Quorum && settings.single_active_consumer {
            let name = errors::queue_name(&name, &vhost.name);
            let text = format!(
                "cannot obtain access to locked {name}. basic.get operations are not supported by <<\"quorum\">> queues with single active consumer"
            );
            return Err(Exception::soft(SoftCode::RESOURCE_LOCKED, text));
        }
        let bell = self.bell.clone();
        match queue.get(no_ack, &bell, self.now, &mut self.batch.fx) {
            Got::Empty => {
                self.counted.of(&queue).get_empty += 1;
                self.send(number, &basic::GetEmpty);
            }
            Got::Waiting => {
                self.flush();
                self.get_later(number, name, no_ack);
            }
            Got::Message(delivery, left) => {
                let Some(message) = &delivery.entry.message else {
                    return Err(Exception::hard(
                        HardCode::INTERNAL_ERROR,
                        "a message without a body",
                    ));
                };
                if let Some(vhost) = self.traced() {
                    let again = delivery.entry.redelivered;
                    self.trace_deliver(&vhost, number, message, &name, again);
                }
                let ch = self.channel_mut(number)?;
                let delivery_tag = ch.tag();
                if delivery.slot != NO_SLOT {
                    let d = DeliveryRef {
                        slot: delivery.slot,
                        seq: delivery.entry.seq,
                    };
                    ch.unacked.push_back(Unacked {
                        tag: delivery_tag,
                        queue: queue.clone(),
                        delivery: d,
                        credited: false,
                    });
                }
                let redelivered = delivery.entry.redelivered;
                let ok = basic::GetOk {
                    delivery_tag,
                    redelivered,
                    exchange: message.exchange(),
                    routing_key: message.routing_key(),
                    message_count: u32::try_from(left).unwrap_or(u32::MAX),
                };
                self.send(number, &ok);
                let shown = delivery.entry.shown_properties(message, Some(&queue));
                let properties = shown.as_deref().unwrap_or(message.properties());
                self.output
                    .content(number, properties, message, self.frame_max);
                let counted = self.counted.of(&queue);
                counted.redelivered += u64::from(redelivered);
                if delivery.slot == NO_SLOT {
                    counted.get_auto_ack += 1;
                    self.batch.settled(&queue, delivery.entry.id);
                    queue.sent(
                        1,
                        delivery.entry.body_len.into(),
                        self.now,
                        &mut self.batch.fx,
                    );
                } else {
                    counted.get_manual_ack += 1;
                }
            }
        }
        self.flush();
        Ok(())
    }

    /// Writes deliveries in order.
    pub(super) fn write_deliveries(&mut self, deliveries: &mut Vec<Delivery>) {
        let Connection {
            consumers,
            channels,
            output,
            batch,
            counted,
            frame_max,
            now,
            ..
        } = self;
        // Deliveries without acknowledgement are told to their queue, a run at a time.
        let mut sent: Option<(&Arc<Queue>, u64, u64)> = None;
        for d in deliveries.drain(..) {
            let Some(consumer) = consumers.get(d.consumer) else {
                continue;
            };
            let ch = channels.get_mut(consumer.channel);
            let (Some(message), Some(ch)) = (&d.entry.message, ch) else {
                continue;
            };
            let head = DeliverHead {
                channel: consumer.channel,
                consumer_tag: &consumer.tag,
                delivery_tag: ch.tag(),
                redelivered: d.entry.redelivered,
                exchange: message.exchange(),
                routing_key: message.routing_key(),
            };
            let queue = consumer.queue.as_ref().map(|(queue, _)| &**queue);
            let shown = d.entry.shown_properties(message, queue);
            let properties = shown.as_deref().unwrap_or(message.properties());
            output.deliver(&head, properties, message, *frame_max);
            let Some((queue, _)) = &consumer.queue else {
                counted.queues[QueueKind::Volatile as usize].delivered_auto_ack += 1;
                continue;
            };
            let counted = counted.of(queue);
            counted.redelivered += u64::from(d.entry.redelivered);
            if d.slot != NO_SLOT {
                counted.delivered_manual_ack += 1;
                ch.unacked.push_back(Unacked {
                    tag: head.delivery_tag,
                    queue: queue.clone(),
                    delivery: DeliveryRef {
                        slot: d.slot,
                        seq: d.entry.seq,
                    },
                    credited: consumer.credited,
                });
                continue;
            }
            counted.delivered_auto_ack += 1;
            batch.settled(queue, d.entry.id);
            let bytes = u64::from(d.entry.body_len);
            match &mut sent {
                Some((q, n, sum)) if Arc::ptr_eq(q, queue) => {
                    *n += 1;
                    *sum += bytes;
                }
                _ => {
                    if let Some((q, n, sum)) = sent.replace((queue, 1, bytes)) {
                        q.sent(n, sum, *now, &mut batch.fx);
                    }
                }
            }
        }
        if let Some((q, n, sum)) = sent {
            q.sent(n, sum, *now, &mut batch.fx);
        }
    }

    /// Deliveries that will not be written go back where they came from.
    pub(super) fn return_unsent(&mut self, deliveries: Vec<Delivery>) {
        let mut by_queue = ByQueue::<Vec<Delivery>>::default();
        let mut credits: BTreeMap<u16, u32> = BTreeMap::new();
        for d in deliveries {
            let Some(consumer) = self.consumers.get(d.consumer) else {
                continue;
            };
            if consumer.credited {
                *credits.entry(consumer.channel).or_default() += 1;
            }
            let Some((queue, _)) = &consumer.queue else {
                continue;
            };
            by_queue.of(queue).push(d);
        }
        for (queue, list) in by_queue.take() {
            queue.unsent(list, self.now, &mut self.batch.fx);
        }
        for (channel, n) in credits {
            self.return_credit(channel, n);
        }
    }

    /// The queue a method names, or the one declared last.
    pub(super) fn queue_or_last(&mut self, number: u16, queue: &str) -> Result<String, Exception> {
        if !queue.is_empty() {
            return Ok(crate::broker::vhost::clean_name(queue));
        }
        let ch = self.channel_mut(number)?;
        if ch.last_queue.is_empty() {
            return Err(Exception::soft(
                SoftCode::NOT_FOUND,
                "no previously declared queue",
            ));
        }
        Ok(ch.last_queue.clone())
    }
}
