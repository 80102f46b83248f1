//! What one read batch did, applied at once: the unit of work of the broker.
//!
//! Publishes and settlements are collected, then [`Batch::flush`] logs them together, locks each
//! queue once, and carries out what follows: dead letters, deletions, bells. Everything that puts
//! messages into queues goes through here, sessions and timers alike.

use std::collections::HashMap;
use std::iter::repeat_n;
use std::sync::Arc;

use super::arguments::parse_expiration;
use super::backlog::{self, AtOnce, Place, Turn};
use super::dead_letter::{self, Letter, Routed};
use super::message::Message;
use super::node::Broker;
use super::ports::{
    DefinitionChange, LogFailed, LoggedPublish, Lsn, MessageId, QueueId, Records, Target,
};
use super::queue::effects::{Dead, Effects};
use super::queue::{DeleteIf, DeliveryRef, Incoming, Queue, Settle};
use super::route::{Route, SpecialTarget, delayed_message};
use crate::protocol::properties::PropertiesRef;

/// Publishes collected before a flush at most, so that the first message of a flood does not wait
/// for the last.
const PUBLISHES_MAX: u32 = 256;

/// Copies of them in queues collected before a flush at most, but for those of one publish: a publish to a thousand queues
/// is a thousand times the work.
const COPIES_MAX: u32 = 16 * 1024;

/// Settlements that are looked through one by one.
const FEW_SETTLEMENTS: usize = 16;

/// Rounds of consequences that one flush follows at most. Dead letters that die again are left to the
/// [`backlog`] far sooner, if somebody works it off.
const ROUNDS_MAX: usize = 1000;

/// Messages on their way into one queue.
#[derive(Default)]
struct Group {
    incoming: Vec<Incoming>,
}

/// Deliveries of one queue to settle in one way.
struct Settlement {
    queue: Arc<Queue>,
    how: Settle,
    deliveries: Vec<DeliveryRef>,
}

/// See the module.
#[derive(Default)]
pub struct Batch {
    queues: Vec<Arc<Queue>>,
    groups: Vec<Group>,
    by_id: HashMap<u64, usize>,
    next_group: usize,
    settlements: Vec<Settlement>,
    /// Where they are, if they are many.
    settlements_at: HashMap<(u64, Settle), usize>,
    spare: Vec<Vec<DeliveryRef>>,
    records: Records,
    n_publishes: u32,
    n_copies: u32,
    /// See [`Self::take_work`].
    work: u32,
    refused: Vec<u32>,
    spilled: bool,
    /// A queue that was published to, and whose consumers are behind.
    behind: Option<Arc<Queue>>,
    /// Deliveries that failed of what is published now, in the queues where it was before; see
    /// [`Self::publish_dead_letter`].
    delivery_count: u16,
    /// Room for what is published now was promised by its queues.
    promised: bool,
    /// The position of the next flush is behind everything in the log.
    behind_all: bool,
    /// What follows from operations on queues that were done directly.
    pub fx: Effects,
}

impl Batch {
    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.n_publishes == 0
            && self.settlements.is_empty()
            && self.records.is_empty()
            && self.fx.is_empty()
    }

    /// Whether so much was published since the last flush that it is time for the next.
    pub fn is_full(&self) -> bool {
        self.n_publishes >= PUBLISHES_MAX || self.n_copies >= COPIES_MAX
    }

    /// Copies and settlements that were added since the last call.
    pub fn take_work(&mut self) -> u32 {
        std::mem::take(&mut self.work)
    }

    /// Adds a message for these queues. Returns its number in this batch, and whether some copy has
    /// to be durable before it is confirmed. `expiration` is the message's own, in milliseconds;
    /// without a `priority` each queue takes its own default.
    pub fn publish(
        &mut self,
        message: Message,
        queues: &[Arc<Queue>],
        expiration: Option<u64>,
        priority: Option<u8>,
        now: u64,
    ) -> (u32, bool) {
        let number = self.n_publishes;
        self.n_publishes += 1;
        let copies = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        self.n_copies = self.n_copies.saturating_add(copies);
        self.work = self.work.saturating_add(copies);
        let first_target = self.records.targets.len();
        let over_budget = queues.first().is_some_and(|q| q.memory().over_budget());
        let mut logged = false;
        // The last queue takes the message itself: counting a reference that goes at once would cost each
        // message two locked instructions.
        for (queue, message) in queues.iter().zip(repeat_n(message, queues.len())) {
            let reserved = queue.may_refuse();
            if reserved && !self.promised && !queue.reserve(message.body_len()) {
                if self.refused.last() != Some(&number) {
                    self.refused.push(number);
                }
                self.fx.refuse(queue, &message, self.delivery_count);
                continue;
            }
            let durable = queue.keeps(&message);
            let priority = priority.unwrap_or(queue.info().settings.default_priority);
            let expires_at = queue.deadline(now, expiration);
            // Under memory pressure everything goes to the log, so that it can leave memory.
            let in_log = durable || over_budget || queue.is_spilling();
            logged |= durable;
            self.spilled |= in_log && !durable;
            // Until the append, an id is the number of the record, counted from one.
            let id = if in_log {
                if self.records.targets.len() == first_target {
                    self.records.publishes.push(LoggedPublish {
                        message: message.clone(),
                        first_target: first_target as u32,
                        n_targets: 0,
                        transient: true,
                    });
                }
                if let Some(record) = self.records.publishes.last_mut() {
                    record.n_targets += 1;
                    record.transient &= !durable;
                }
                self.records.targets.push(Target {
                    queue: queue.id(),
                    expires_at,
                    priority,
                    delivery_count: self.delivery_count,
                });
                MessageId(self.records.publishes.len() as u64)
            } else {
                MessageId::NONE
            };
            let delivery_count = self.delivery_count;
            let group = self.group(queue);
            group.incoming.push(Incoming {
                message,
                id,
                expires_at,
                priority,
                reserved,
                delivery_count,
            });
        }
        (number, logged)
    }

    /// Adds a message for all places of a route. Returns what [`Self::publish`] does.
    pub fn publish_to(
        &mut self,
        route: &Route,
        message: Message,
        expiration: Option<u64>,
        priority: Option<u8>,
        now: u64,
    ) -> (u32, bool) {
        let queues = &route.queues;
        if route.special.is_empty() {
            return self.publish(message, queues, expiration, priority, now);
        }
        let (number, durable) = self.publish(message.clone(), queues, expiration, priority, now);
        let kept = self.publish_special(&route.special, &message, now);
        (number, durable | kept)
    }

    /// Adds a message that was published before, with the expiration and priority of its own.
    pub fn publish_again(&mut self, route: &Route, message: &Message, now: u64) {
        let properties = PropertiesRef::unchecked(message.properties());
        // What is no number was refused when it was published.
        let expiration = properties
            .expiration()
            .and_then(|text| parse_expiration(text.to_str()?).ok());
        let priority = properties.priority();
        self.publish_to(route, message.clone(), expiration, priority, now);
    }

    /// Hands a message to targets that are no queues. Returns whether a copy has to be durable before the
    /// message is confirmed.
    fn publish_special(&mut self, targets: &[SpecialTarget], message: &Message, now: u64) -> bool {
        let mut durable = false;
        for target in targets {
            match target {
                SpecialTarget::Remember(exchange) => exchange.remember(message),
                SpecialTarget::Reply(target) => target.send(message, &mut self.fx),
                SpecialTarget::NoReply => {}
                SpecialTarget::Delay(exchange, delay) => {
                    let Some(queue) = exchange.waiting() else {
                        continue;
                    };
                    let message = delayed_message(message, &exchange.info.name);
                    let queue = std::slice::from_ref(queue);
                    durable |= self.publish(message, queue, Some(*delay), None, now).1;
                }
            }
        }
        durable
    }

    /// Routes what has died, or lets it wait.
    fn route_dead(&mut self, at_once: &mut AtOnce, broker: &Broker, now: u64) {
        let dead = std::mem::take(&mut self.fx.dead);
        if dead.is_empty() {
            return;
        }
        let backlog = broker.backlog();
        let turn = !at_once.in_turn || backlog.is_idle() && !broker.dead_letters_wait_for_disk();
        // What dies of what died in one queue belongs to it. Of several it is not known.
        let place = *at_once.place.get_or_insert_with(|| {
            let queue = dead.first().map(|d| d.queue.id());
            match queue.filter(|id| turn && dead.iter().all(|d| d.queue.id() == *id)) {
                Some(queue) => Place::Before(queue),
                None => Place::Behind,
            }
        });
        let mut dead = dead.into_iter();
        if turn && at_once.rounds > 0 {
            at_once.rounds -= 1;
            while at_once.left > 0
                && at_once.octets > 0
                && let Some(dead) = dead.next()
            {
                at_once.octets = at_once.octets.saturating_sub(backlog::octets(&dead));
                let queues = self.publish_dead_letter(broker, dead, now);
                if at_once.left != usize::MAX {
                    at_once.left = at_once.left.saturating_sub(queues.max(1));
                }
            }
        }
        if backlog.push(dead, place)
            && let Some(scheduler) = broker.scheduler()
        {
            scheduler.work_off();
        }
        self.spilled |= backlog.is_long();
    }

    /// Publishes a dead letter, and settles the copy that died: both become durable together. With the
    /// strategy at-least-once, what nobody takes goes back to the queue to be kept. Returns to how many queues it
    /// went, or all that there are if it multiplies: several of them will not keep it for a moment.
    fn publish_dead_letter(&mut self, broker: &Broker, dead: Dead, now: u64) -> usize {
        // What was in a queue before is redelivered in the next one, if a delivery of it failed, as in RabbitMQ.
        let delivery_count = dead.entry.delivery_count;
        let queues = match dead_letter::route(broker, &dead, now) {
            Routed::Nowhere => 0,
            Routed::Released(message, route) => {
                self.delivery_count = delivery_count;
                self.publish_again(&route, &message, now);
                0
            }
            Routed::To(letter) => {
                let queues = letter.queues();
                self.delivery_count = delivery_count;
                self.publish_letter(letter, now);
                queues
            }
            Routed::Through(next) => {
                self.fx.dead.push(next);
                return 1;
            }
            Routed::Kept => {
                let queue = &dead.queue;
                queue.keep_dead(dead.entry, dead.reason, now, &mut self.fx);
                return 0;
            }
        };
        self.delivery_count = 0;
        self.settled_copy(dead.copy());
        queues
    }

    fn publish_letter(&mut self, letter: Letter, now: u64) {
        let Letter {
            message,
            route,
            priority,
            promised,
        } = letter;
        if !route.queues.is_empty() {
            self.promised = promised;
            self.publish(message.clone(), &route.queues, None, priority, now);
            self.promised = false;
        }
        self.publish_special(&route.special, &message, now);
    }

    /// Adds what the store has to know beside what is published.
    pub fn define(&mut self, mut changes: Vec<DefinitionChange>) {
        self.records.definitions.append(&mut changes);
    }

    /// Makes the next flush return a position behind everything that is in the log by then: what
    /// a duplicate is a duplicate of.
    pub fn wait_behind_all(&mut self) {
        self.behind_all = true;
    }

    /// Counts a publish that goes to no queue; returns its number in this batch.
    pub fn publish_nowhere(&mut self) -> u32 {
        self.n_publishes += 1;
        self.n_publishes - 1
    }

    fn group(&mut self, queue: &Arc<Queue>) -> &mut Group {
        // A fan-out repeats its queues in the same order.
        let n = self.queues.len();
        if n > 0 {
            let guess = if self.next_group < n {
                self.next_group
            } else {
                0
            };
            if Arc::ptr_eq(&self.queues[guess], queue) {
                self.next_group = guess + 1;
                return &mut self.groups[guess];
            }
        }
        let at = *self.by_id.entry(queue.id().0).or_insert(n);
        if at == n {
            self.queues.push(queue.clone());
            if self.groups.len() == n {
                self.groups.push(Group::default());
            }
        }
        self.next_group = at + 1;
        &mut self.groups[at]
    }

    /// Adds a delivery to settle.
    pub fn settle(&mut self, queue: &Arc<Queue>, delivery: DeliveryRef, how: Settle) {
        self.work = self.work.saturating_add(1);
        let last = self.settlements.last_mut();
        if let Some(s) = last.filter(|s| s.how == how && Arc::ptr_eq(&s.queue, queue)) {
            s.deliveries.push(delivery);
            return;
        }
        match self.find_settlement(queue, how) {
            Some(at) => self.settlements[at].deliveries.push(delivery),
            None => {
                let mut deliveries = self.spare.pop().unwrap_or_default();
                deliveries.push(delivery);
                self.settlements.push(Settlement {
                    queue: queue.clone(),
                    how,
                    deliveries,
                });
            }
        }
    }

    /// Looks through a few, and in a table of many.
    fn find_settlement(&mut self, queue: &Arc<Queue>, how: Settle) -> Option<usize> {
        let all = &self.settlements;
        if all.len() <= FEW_SETTLEMENTS {
            return all
                .iter()
                .position(|s| s.how == how && Arc::ptr_eq(&s.queue, queue));
        }
        let noted = self.settlements_at.len();
        for (at, s) in all.iter().enumerate().skip(noted) {
            self.settlements_at.insert((s.queue.id().0, s.how), at);
        }
        self.settlements_at.get(&(queue.id().0, how)).copied()
    }

    /// Publishes of the last flush that a queue refused, by number, ascending.
    pub fn refused(&self) -> &[u32] {
        &self.refused
    }

    /// Logs and applies everything, and starts the next batch. The position is that of the last
    /// record of this batch's publishes and settlements.
    ///
    /// # Errors
    /// [`LogFailed`]: nothing that needed the log was published.
    pub fn flush(&mut self, broker: &Broker, now: u64) -> Result<Lsn, LogFailed> {
        let at_once = match broker.scheduler() {
            None => AtOnce::everything(),
            Some(_) => AtOnce::some(),
        };
        self.run(broker, at_once, now)
    }

    /// Routes these dead letters; what follows from that waits for its own turn.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub(super) fn flush_dead(
        &mut self,
        broker: &Broker,
        turn: Turn,
        now: u64,
    ) -> Result<(), LogFailed> {
        self.fx.dead = turn.dead;
        self.run(broker, AtOnce::turn(turn.flow), now).map(drop)
    }

    fn run(&mut self, broker: &Broker, mut at_once: AtOnce, now: u64) -> Result<Lsn, LogFailed> {
        (self.n_publishes, self.n_copies) = (0, 0);
        // Settlements first: what they free may take what was published.
        self.settlements_at.clear();
        for mut s in self.settlements.drain(..) {
            s.queue.settle(&s.deliveries, s.how, now, &mut self.fx);
            s.deliveries.clear();
            if self.spare.len() < 16 {
                self.spare.push(s.deliveries);
            }
        }
        // Dead letters are nobody's publishes: what is refused of them is not told.
        let refused = std::mem::take(&mut self.refused);
        let mut lsn = Lsn::default();
        let mut result = Ok(());
        for round in 0..ROUNDS_MAX {
            self.take_settles();
            self.route_dead(&mut at_once, broker, now);
            (self.n_publishes, self.n_copies) = (0, 0);
            match self.append(broker) {
                // What follows later is nothing that was asked for here.
                Ok(Some(to)) if round == 0 => lsn = to,
                Ok(_) => {}
                Err(failed) => {
                    self.drop_publishes();
                    result = Err(failed);
                }
            }
            for (queue, group) in self.queues.drain(..).zip(&mut self.groups) {
                queue.enqueue(&mut group.incoming, now, &mut self.fx);
                if queue.behind_until() > now {
                    self.behind = Some(queue);
                }
            }
            self.by_id.clear();
            for queue in std::mem::take(&mut self.fx.unused) {
                self.delete_unused(broker, &queue);
            }
            if self.fx.settles.is_empty()
                && self.fx.settled_ranges.is_empty()
                && self.fx.returned.is_empty()
                && self.fx.dead.is_empty()
            {
                break;
            }
        }
        self.refused = refused;
        if std::mem::take(&mut self.behind_all) {
            lsn = lsn.max(broker.log().staged());
        }
        self.carry_out(broker);
        result.map(|()| lsn)
    }

    /// What a queue noted as done with goes into the next append.
    fn take_settles(&mut self) {
        self.records.settles.append(&mut self.fx.settles);
        self.records
            .settled_ranges
            .append(&mut self.fx.settled_ranges);
    }

    /// A delivery without acknowledgement is on the wire: its log copy is done with.
    pub fn settled(&mut self, queue: &Arc<Queue>, id: MessageId) {
        self.settled_copy((queue.id(), id));
    }

    /// A copy in the log is done with, if there is one.
    pub(super) fn settled_copy(&mut self, copy: (QueueId, MessageId)) {
        if copy.1.is_some() {
            self.records.settles.push(copy);
        }
    }

    fn append(&mut self, broker: &Broker) -> Result<Option<Lsn>, LogFailed> {
        let turn = broker
            .returned()
            .note(&mut self.fx.returned, &mut self.records);
        if self.records.is_empty() {
            return Ok(None);
        }
        let n = self.records.publishes.len();
        let appended = broker.log().append(&mut self.records)?;
        drop(turn);
        if n > 0 {
            for group in &mut self.groups {
                for m in group.incoming.iter_mut().filter(|m| m.id.is_some()) {
                    m.id.0 += appended.first_id.0 - 1;
                }
            }
        }
        Ok(Some(appended.lsn))
    }

    /// The log refused: messages that were to be in it do not enter their queues.
    fn drop_publishes(&mut self) {
        self.records.clear();
        for (queue, group) in self.queues.iter().zip(&mut self.groups) {
            group.incoming.retain(|m| {
                if m.id.is_some() && m.reserved {
                    queue.unreserve(m.message.body_len());
                }
                !m.id.is_some()
            });
        }
    }

    fn delete_unused(&mut self, broker: &Broker, queue: &Arc<Queue>) {
        if let Some(vhost) = broker.vhost(&queue.info().vhost) {
            // A consumer that came meanwhile keeps it.
            let condition = DeleteIf {
                unused: true,
                empty: false,
            };
            let _ = vhost.delete_queue(queue, condition, &mut self.fx);
        }
    }

    fn carry_out(&mut self, broker: &Broker) {
        for bell in self.fx.bells.drain(..) {
            bell.ring();
        }
        if self.fx.page_ins.is_empty() && self.fx.deadlines.is_empty() {
            return;
        }
        if let Some(scheduler) = broker.scheduler() {
            for queue in self.fx.page_ins.drain(..) {
                scheduler.page_in(&queue);
            }
            for (queue, at) in self.fx.deadlines.drain(..) {
                scheduler.arm(&queue, at);
            }
        }
    }

    /// Whether transient messages went to the log since the last call, because memory is over its
    /// budget, or more dead letters wait than are worked off: the publisher should be slowed down.
    pub fn take_spilled(&mut self) -> bool {
        std::mem::take(&mut self.spilled)
    }

    /// A queue that was published to since the last call and whose consumers are behind.
    pub fn take_behind(&mut self) -> Option<Arc<Queue>> {
        self.behind.take()
    }

    /// Forgets which publishes were refused; called before the next ones are collected.
    pub fn clear_refused(&mut self) {
        self.refused.clear();
    }
}
