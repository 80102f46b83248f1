//! Dead-lettering: what a message looks like after it died, and where it goes.
//!
//! `x-death` is kept in the message's headers, newest death first, one entry per queue and reason, as
//! RabbitMQ 4 writes it. An `x-death` that a client made up is replaced: only a message that was
//! dead-lettered here carries a history.

mod history;

use std::collections::HashSet;
use std::sync::Arc;

use self::history::Death;
use super::message::{FLAG_BCC, FLAG_DEAD_LETTERED, FLAG_KEYED, Message};
use super::node::Broker;
use super::queue::effects::Dead;
use super::queue::{Entry, Queue, reserve_all};
use super::route::Route;
use super::routing::route_keys;
use super::routing_keys::RoutingKeys;
use crate::protocol::frame::FRAME_HARD_MAX;
use crate::protocol::properties::PropertiesRef;
use crate::protocol::raw::Splice;
use crate::protocol::short::ShortBytes;

/// Up to this many queues are looked for in the history, one after the other.
const FEW_QUEUES: usize = 4;

/// What becomes of a dead letter.
pub(super) enum Routed {
    /// Nobody takes it.
    Nowhere,
    /// It was delayed, and goes on as it was published.
    Released(Message, Route),
    /// It is published.
    To(Letter),
    /// It only passes through another queue, where it has died again: its copy in the log stays what it is.
    Through(Dead),
    /// Nobody takes it, and it is not to be lost.
    Kept,
}

/// A dead letter to publish.
pub(super) struct Letter {
    /// As it looks after its death.
    pub(super) message: Message,
    /// Where it goes.
    pub(super) route: Route,
    /// Of the message itself.
    pub(super) priority: Option<u8>,
    /// Its queues have room for it, see [`reserve_all`].
    pub(super) promised: bool,
}

impl Letter {
    /// To how many queues it goes, or all that there are if it multiplies: several of them will not keep it for
    /// a moment.
    pub(super) fn queues(&self) -> usize {
        let queues = &self.route.queues;
        let passing = || queues.iter().filter(|q| q.passes().is_some());
        match queues.len() {
            2.. if passing().take(2).count() == 2 => usize::MAX,
            n => n,
        }
    }
}

/// Routes a dead message to its queue's dead-letter exchange.
pub(super) fn route(broker: &Broker, dead: &Dead, now: u64) -> Routed {
    let info = dead.queue.info();
    let (Some(target), Some(message)) = (&info.settings.dead_letter, &dead.entry.message) else {
        return Routed::Nowhere;
    };
    let Some(vhost) = broker.vhost(&info.vhost) else {
        return Routed::Nowhere;
    };
    if info.delays.is_some() {
        // The time of a delayed message has come: it is routed as it was published.
        let properties = PropertiesRef::unchecked(message.properties());
        let keys = RoutingKeys::of(message);
        let route = route_keys(&vhost, &message.exchange(), &keys.all(), properties);
        return Routed::Released(message.clone(), route.unwrap_or_default());
    }
    let routing_keys = RoutingKeys::of(message);
    let mut flags = message.flags() | FLAG_DEAD_LETTERED;
    let keys = match &target.routing_key {
        Some(key) => {
            flags = flags & !FLAG_BCC | FLAG_KEYED;
            vec![&**key]
        }
        None => routing_keys.all(),
    };
    let death = Death {
        queue: &info.name,
        reason: dead.reason,
        routing_keys: routing_keys.shown(),
        now: broker.wall(now),
        rekeyed: target.routing_key.is_some(),
    };
    let mut properties = history::bury(message, &death);
    if properties.len() > FRAME_HARD_MAX as usize {
        // No content header has room for its history, which repeats its CC keys at each death.
        properties = Splice::new();
        properties.keep(message.properties());
    }
    // Arguments may be longer than any short string: RabbitMQ takes them, too, and fails to deliver.
    let exchange = ShortBytes::cut(&target.exchange);
    let routing_key = keys.first().map(|key| ShortBytes::cut(key));
    let reborn = message.with_written(
        exchange,
        routing_key.unwrap_or_default(),
        &properties,
        flags,
    );
    let properties = PropertiesRef::unchecked(reborn.properties());
    let mut route = route_keys(&vhost, &target.exchange, &keys, properties).unwrap_or_default();
    if info.settings.at_least_once && route.is_unroutable() {
        return Routed::Kept;
    }
    leave_out_cycles(&mut route.queues, &reborn);
    let promised = info.settings.at_least_once;
    if promised && !reserve_all(&route.queues, reborn.body_len()) {
        return Routed::Kept;
    }
    if let [queue] = &*route.queues
        && route.special.is_empty()
        && !promised
        && let Some(reason) = queue.passes()
    {
        return Routed::Through(Dead {
            queue: queue.clone(),
            entry: Entry::outside(&reborn, dead.entry.delivery_count),
            reason,
            origin: Some(dead.copy()),
        });
    }
    let priority = properties.priority();
    Routed::To(Letter {
        message: reborn,
        route,
        priority,
        promised,
    })
}

/// Leaves out the queues where delivering would close a loop that nobody interrupts: it died there, and
/// no death since then was a rejection.
fn leave_out_cycles(queues: &mut Vec<Arc<Queue>>, reborn: &Message) {
    let died = || history::of(reborn).uninterrupted();
    if queues.len() <= FEW_QUEUES {
        queues.retain(|q| !died().any(|name| name == q.info().name.as_bytes()));
        return;
    }
    let died: HashSet<&[u8]> = died().collect();
    queues.retain(|q| !died.contains(q.info().name.as_bytes()));
}

#[cfg(test)]
mod tests;
