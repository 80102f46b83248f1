//! The firehose: what is published and delivered in a vhost that is traced, copied to its exchange
//! `amq.rabbitmq.trace` with the keys `publish.<exchange>` and `deliver.<queue>`, as RabbitMQ does. What
//! comes from that exchange itself is not.

use std::sync::Arc;

use super::connection::Connection;
use super::settings::NODE_NAME;

use crate::broker::message::{Message, Parts};
use crate::broker::queue::Queue;
use crate::broker::queue::outlet::Delivery;
use crate::broker::routing::route_keys;
use crate::broker::routing_keys::{RoutingKeys, shown_properties};
use crate::broker::vhost::Vhost;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::{Properties, PropertiesRef};
use crate::protocol::short::{ShortBuf, ShortBytes};

/// Where it goes.
const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

impl Connection {
    /// The vhost, if it is traced.
    pub(super) fn traced(&self) -> Option<Arc<Vhost>> {
        self.vhost.as_ref().filter(|v| v.is_traced()).cloned()
    }

    /// A message comes in, for these queues. `keys` are all its routing keys.
    pub(super) fn trace_publish(
        &mut self,
        vhost: &Vhost,
        number: u16,
        message: &Message,
        keys: &[&[u8]],
        queues: &[Arc<Queue>],
    ) {
        if message.exchange() == TRACE_EXCHANGE {
            return;
        }
        let names = queues.iter().map(|q| FieldValue::from(&*q.info().name));
        let routed = ("routed_queues", FieldValue::Array(names.collect()));
        let keys = keys.iter().map(|k| FieldValue::from(*k)).collect();
        let key = [b"publish.", message.exchange().as_bytes()].concat();
        self.trace(vhost, number, &key, message, keys, routed);
    }

    /// A message goes out of a queue.
    pub(super) fn trace_deliver(
        &mut self,
        vhost: &Vhost,
        number: u16,
        message: &Message,
        queue: &str,
        redelivered: bool,
    ) {
        if message.exchange() == TRACE_EXCHANGE {
            return;
        }
        let keys = RoutingKeys::of(message);
        let keys = keys.all().into_iter().map(FieldValue::from).collect();
        let redelivered = ("redelivered", FieldValue::I32(redelivered.into()));
        self.trace(
            vhost,
            number,
            &[b"deliver.", queue.as_bytes()].concat(),
            message,
            keys,
            redelivered,
        );
    }

    /// Messages are about to be written to consumers.
    pub(super) fn trace_deliveries(&mut self, vhost: &Vhost, deliveries: &[Delivery]) {
        for d in deliveries {
            let Some(message) = &d.entry.message else {
                continue;
            };
            let Some(consumer) = self.consumers.get(d.consumer) else {
                continue;
            };
            let Some((queue, _)) = consumer.queue.clone() else {
                continue;
            };
            let channel = consumer.channel;
            let name = &queue.info().name;
            self.trace_deliver(vhost, channel, message, name, d.entry.redelivered);
        }
    }

    fn trace(
        &mut self,
        vhost: &Vhost,
        number: u16,
        key: &[u8],
        message: &Message,
        routing_keys: Vec<FieldValue>,
        (name, value): (&str, FieldValue),
    ) {
        let address = |a: Option<std::net::SocketAddr>| a.map_or(String::new(), |a| a.to_string());
        let connection = format!(
            "{} -> {}",
            address(self.peer.address),
            address(self.peer.local)
        );
        let mut t = FieldTable::new();
        t.insert("exchange_name", message.exchange());
        t.insert("routing_keys", FieldValue::Array(routing_keys));
        t.insert("properties", table(&shown_properties(message)));
        t.insert("node", NODE_NAME);
        t.insert("vhost", &*vhost.name);
        t.insert("connection", connection.as_str());
        t.insert("channel", FieldValue::I32(number.into()));
        t.insert("user", self.peer.user.as_str());
        t.insert(name, value);
        let properties = Properties {
            headers: Some(t),
            ..Properties::default()
        }
        .encode();
        let parts = Parts {
            exchange: TRACE_EXCHANGE.into(),
            routing_key: ShortBytes::cut(key),
            properties: &properties,
            flags: 0,
        };
        let copy = message.with_parts(&parts);
        let raw = PropertiesRef::unchecked(&properties);
        let found = route_keys(vhost, TRACE_EXCHANGE.as_bytes(), &[key], raw).unwrap_or_default();
        if !found.queues.is_empty() {
            self.batch
                .publish(copy, &found.queues, None, None, self.now);
        }
    }
}

/// The properties as a table, with the fields that are there.
fn table(p: &Properties) -> FieldValue {
    let mut t = FieldTable::new();
    let mut text = |name: &str, value: &Option<ShortBuf>| {
        if let Some(value) = value {
            t.insert(name, value.as_short());
        }
    };
    text("content_type", &p.content_type);
    text("content_encoding", &p.content_encoding);
    text("correlation_id", &p.correlation_id);
    text("reply_to", &p.reply_to);
    text("expiration", &p.expiration);
    text("message_id", &p.message_id);
    text("type", &p.type_);
    text("user_id", &p.user_id);
    text("app_id", &p.app_id);
    text("cluster_id", &p.cluster_id);
    if let Some(headers) = &p.headers {
        t.insert("headers", headers.clone());
    }
    if let Some(mode) = p.delivery_mode {
        t.insert("delivery_mode", FieldValue::I32(mode.into()));
    }
    if let Some(priority) = p.priority {
        t.insert("priority", FieldValue::I32(priority.into()));
    }
    if let Some(timestamp) = p.timestamp {
        let small = i32::try_from(timestamp).map(FieldValue::I32);
        t.insert(
            "timestamp",
            small.unwrap_or(FieldValue::I64(timestamp as i64)),
        );
    }
    FieldValue::Table(t)
}
