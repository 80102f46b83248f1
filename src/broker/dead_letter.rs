//! Dead-lettering: what a message looks like after it died, and where it goes.
//!
//! `x-death` is kept in the message's headers, newest death first, one entry per queue and reason, as
//! RabbitMQ 4 writes it. An `x-death` that a client made up is replaced: only a message that was
//! dead-lettered here carries a history.

use super::Broker;
use super::batch::{Batch, promise};
use super::detour;
use super::effects::{Dead, DeathReason};
use super::message::{FLAG_BCC, FLAG_DEAD_LETTERED, FLAG_KEYED, Message, Parts};
use super::routing::route_keys;
use super::routing_keys::{RoutingKeys, shown_properties};
use super::vhost::Vhost;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::frame::FRAME_HARD_MAX;
use crate::protocol::properties::{Properties, PropertiesRef};
use crate::protocol::short::ShortBytes;

/// Routes a dead message to its queue's dead-letter exchange as part of `batch`, and settles the copy
/// that died: both become durable together. With the strategy at-least-once, what nobody takes goes back
/// to the queue to be kept.
pub(super) fn publish(batch: &mut Batch, broker: &Broker, dead: Dead, now: u64) {
    if route(batch, broker, &dead, now) {
        batch.settled(&dead.queue, dead.entry.id);
    } else {
        let queue = dead.queue;
        queue.keep_dead(dead.entry, dead.reason, now, &mut batch.fx);
    }
}

/// False if the dead letter has to be kept.
fn route(batch: &mut Batch, broker: &Broker, dead: &Dead, now: u64) -> bool {
    let info = dead.queue.info();
    let (Some(target), Some(message)) = (&info.settings.dead_letter, &dead.entry.message) else {
        return true;
    };
    let Some(vhost) = broker.vhost(&info.vhost) else {
        return true;
    };
    if info.delays.is_some() {
        batch.counting_on(dead.entry.delivery_count, |batch| {
            release(batch, &vhost, message, now);
        });
        return true;
    }
    let routing_keys = RoutingKeys::of(message);
    let mut flags = message.flags() | FLAG_DEAD_LETTERED;
    let (keys, mut properties) = match &target.routing_key {
        Some(key) => {
            flags = flags & !FLAG_BCC | FLAG_KEYED;
            (vec![&**key], shown_properties(message))
        }
        None => (
            routing_keys.all(),
            Properties::from(PropertiesRef::unchecked(message.properties())),
        ),
    };
    bury(
        &mut properties,
        message,
        &info.name,
        dead.reason,
        routing_keys.shown(),
        now,
    );
    let mut encoded = properties.encode();
    if encoded.len() > FRAME_HARD_MAX as usize {
        // No content header has room for its history, which repeats its CC keys at each death.
        encoded = message.properties().to_vec();
    }
    let parts = Parts {
        // Arguments may be longer than any short string: RabbitMQ takes them, too, and fails to deliver.
        exchange: ShortBytes::cut(&target.exchange),
        routing_key: keys
            .first()
            .map_or_else(ShortBytes::default, |key| ShortBytes::cut(key)),
        properties: &encoded,
        flags,
    };
    let reborn = message.with_parts(&parts);
    let properties_ref = PropertiesRef::unchecked(&encoded);
    let mut found = route_keys(&vhost, &target.exchange, &keys, properties_ref).unwrap_or_default();
    if info.settings.at_least_once && found.is_unroutable() {
        return false;
    }
    let deaths = history(&properties);
    found.queues.retain(|q| !is_cycle(deaths, &q.info().name));
    let to_all = info.settings.at_least_once;
    if to_all && !promise(&found.queues, reborn.body_len()) {
        return false;
    }
    batch.counting_on(dead.entry.delivery_count, |batch| {
        if !found.queues.is_empty() {
            batch.publish_dead(&reborn, &found.queues, properties.priority, to_all, now);
        }
        detour::follow(batch, &found.detours, &reborn, now);
    });
    true
}

/// The time of a delayed message has come: it is routed as it was published.
fn release(batch: &mut Batch, vhost: &Vhost, message: &Message, now: u64) {
    let raw = PropertiesRef::unchecked(message.properties());
    let keys = RoutingKeys::of(message);
    let found = route_keys(vhost, &message.exchange(), &keys.all(), raw).unwrap_or_default();
    detour::send_again(batch, message, &found, now);
}

/// Writes the death into the headers: the newest one is the first of the history.
fn bury(
    properties: &mut Properties,
    message: &Message,
    queue: &str,
    reason: DeathReason,
    routing_keys: &[Vec<u8>],
    now: u64,
) {
    let mut headers = properties.headers.take().unwrap_or_default();
    let mut deaths = match headers.remove("x-death") {
        Some(FieldValue::Array(items)) if message.is_dead_lettered() => items,
        _ => Vec::new(),
    };
    let same = |death: &FieldValue| {
        says(death, "queue") == Some(queue) && says(death, "reason") == Some(reason.as_str())
    };
    let death = match deaths.iter().position(same) {
        Some(at) => {
            let mut death = deaths.remove(at);
            if let FieldValue::Table(death) = &mut death {
                let count = death.get("count").and_then(FieldValue::as_integer);
                death.insert("count", count.unwrap_or(0) + 1);
            }
            death
        }
        None => {
            let keys = routing_keys.iter();
            let keys = keys.map(|k| FieldValue::from(k.as_slice())).collect();
            let mut death = FieldTable::new();
            if let Some(expiration) = &properties.expiration {
                death.insert("original-expiration", expiration.as_short());
            }
            death.insert("count", 1i64);
            death.insert("reason", reason.as_str());
            death.insert("queue", queue);
            death.insert("time", FieldValue::Timestamp(now / 1000));
            death.insert("exchange", message.exchange());
            death.insert("routing-keys", FieldValue::Array(keys));
            FieldValue::Table(death)
        }
    };
    deaths.insert(0, death);
    headers.insert("x-death", FieldValue::Array(deaths));
    let first = [
        "x-first-death-reason",
        "x-first-death-queue",
        "x-first-death-exchange",
    ];
    let last = [
        "x-last-death-reason",
        "x-last-death-queue",
        "x-last-death-exchange",
    ];
    let values = [reason.as_str().into(), queue.into(), message.exchange()];
    for ((first, last), value) in first.into_iter().zip(last).zip(values) {
        if !message.is_dead_lettered() {
            headers.insert(first, value);
        }
        headers.insert(last, value);
    }
    properties.headers = Some(headers);
    properties.expiration = None;
}

/// What a message has died of, newest first.
fn history(properties: &Properties) -> &[FieldValue] {
    match properties.headers.as_ref().and_then(|h| h.get("x-death")) {
        Some(FieldValue::Array(deaths)) => deaths,
        _ => &[],
    }
}

/// A text in one entry of the history.
fn says<'a>(death: &'a FieldValue, name: &str) -> Option<&'a str> {
    match death {
        FieldValue::Table(t) => t.get(name).and_then(FieldValue::as_str),
        _ => None,
    }
}

/// Whether delivering to `queue` would close a loop that nobody interrupts: it is in the history
/// and no death since then was a rejection.
fn is_cycle(deaths: &[FieldValue], queue: &str) -> bool {
    let rejected = |death| says(death, "reason") == Some(DeathReason::Rejected.as_str());
    for death in deaths {
        if rejected(death) {
            return false;
        }
        if says(death, "queue") == Some(queue) {
            return true;
        }
    }
    false
}
