//! Dead-lettering: what a message looks like after it died, and where it goes.
//!
//! `x-death` is kept in the message's headers, newest death first, one entry per queue and reason, as
//! RabbitMQ 4 writes it. An `x-death` that a client made up is replaced: only a message that was
//! dead-lettered here carries a history.

mod history;

use std::collections::HashSet;
use std::sync::Arc;

use self::history::Death;
pub use self::history::HISTORY;
use super::Broker;
use super::batch::{Batch, promise};
use super::detour;
use super::effects::Dead;
use super::message::{FLAG_BCC, FLAG_DEAD_LETTERED, FLAG_KEYED, Message};
use super::queue::{Entry, Queue};
use super::routing::route_keys;
use super::routing_keys::RoutingKeys;
use super::vhost::Vhost;
use crate::protocol::frame::FRAME_HARD_MAX;
use crate::protocol::properties::PropertiesRef;
use crate::protocol::raw::Splice;
use crate::protocol::short::ShortBytes;

/// Up to this many queues are looked for in the history, one after the other.
const FEW_QUEUES: usize = 4;

/// What became of a dead letter.
enum Routed {
    /// It went to so many queues; see [`publish`].
    Done(usize),
    /// It only passes through another queue, where it has died again: its copy in the log stays what it is.
    Passed,
    /// Nobody takes it, and it is not to be lost.
    Kept,
}

/// Routes a dead message to its queue's dead-letter exchange as part of `batch`, and settles the copy
/// that died: both become durable together. With the strategy at-least-once, what nobody takes goes back
/// to the queue to be kept. Returns to how many queues it went, or all that there are if it multiplies:
/// several of them will not keep it for a moment.
pub(super) fn publish(batch: &mut Batch, broker: &Broker, dead: Dead, now: u64) -> usize {
    match route(batch, broker, &dead, now) {
        Routed::Done(queues) => {
            batch.settled_copy(dead.copy());
            queues
        }
        Routed::Passed => 1,
        Routed::Kept => {
            let queue = dead.queue;
            queue.keep_dead(dead.entry, dead.reason, now, &mut batch.fx);
            0
        }
    }
}

fn route(batch: &mut Batch, broker: &Broker, dead: &Dead, now: u64) -> Routed {
    let info = dead.queue.info();
    let (Some(target), Some(message)) = (&info.settings.dead_letter, &dead.entry.message) else {
        return Routed::Done(0);
    };
    let Some(vhost) = broker.vhost(&info.vhost) else {
        return Routed::Done(0);
    };
    if info.delays.is_some() {
        batch.counting_on(dead.entry.delivery_count, |batch| {
            release(batch, &vhost, message, now);
        });
        return Routed::Done(0);
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
        now,
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
    let mut found = route_keys(&vhost, &target.exchange, &keys, properties).unwrap_or_default();
    if info.settings.at_least_once && found.is_unroutable() {
        return Routed::Kept;
    }
    leave_out_cycles(&mut found.queues, &reborn);
    let to_all = info.settings.at_least_once;
    if to_all && !promise(&found.queues, reborn.body_len()) {
        return Routed::Kept;
    }
    if let [queue] = &*found.queues
        && found.detours.is_empty()
        && !to_all
        && let Some(reason) = queue.passes()
    {
        batch.fx.dead.push(Dead {
            queue: queue.clone(),
            entry: Entry::outside(&reborn, dead.entry.delivery_count),
            reason,
            origin: Some(dead.copy()),
        });
        return Routed::Passed;
    }
    let queues = match found.queues.len() {
        several @ 2.. => {
            let passing = found.queues.iter().filter(|q| q.passes().is_some());
            let multiplies = passing.take(2).count() == 2;
            if multiplies { usize::MAX } else { several }
        }
        few => few,
    };
    batch.counting_on(dead.entry.delivery_count, |batch| {
        if !found.queues.is_empty() {
            batch.publish_dead(&reborn, &found.queues, properties.priority(), to_all, now);
        }
        detour::follow(batch, &found.detours, &reborn, now);
    });
    Routed::Done(queues)
}

/// The time of a delayed message has come: it is routed as it was published.
fn release(batch: &mut Batch, vhost: &Vhost, message: &Message, now: u64) {
    let raw = PropertiesRef::unchecked(message.properties());
    let keys = RoutingKeys::of(message);
    let found = route_keys(vhost, &message.exchange(), &keys.all(), raw).unwrap_or_default();
    detour::send_again(batch, message, &found, now);
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
