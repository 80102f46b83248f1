//! What exchanges do with a message beside routing it to queues: note it, or keep it for later.

use std::sync::Arc;

use super::arguments::parse_expiration;
use super::batch::Batch;
use super::exchange::{DELAY_HEADER, Exchange};
use super::message::{Message, Parts};
use super::queue::Queue;
use crate::protocol::field_table::FieldValue;
use crate::protocol::properties::{Properties, PropertiesRef};

/// See the module.
#[derive(Clone, Debug)]
pub enum Detour {
    /// An `x-recent-history` exchange notes the message.
    Remember(Arc<Exchange>),
    /// An `x-delayed-message` exchange routes it after this many milliseconds.
    Delay(Arc<Exchange>, u64),
}

/// Where a message goes.
#[derive(Debug, Default)]
pub struct Found {
    /// The queues, each once.
    pub queues: Vec<Arc<Queue>>,
    /// What else happens to it on the way.
    pub detours: Vec<Detour>,
    /// De-duplication windows look at it: what is here is where it goes if they let it pass.
    pub guarded: bool,
    /// It was a duplicate for some window.
    pub duplicate: bool,
}

impl Found {
    /// Whether some exchange keeps it for later.
    pub fn is_delayed(&self) -> bool {
        self.detours.iter().any(|d| matches!(d, Detour::Delay(..)))
    }
}

/// Does what the detours say. Returns whether a copy has to be durable before the message is
/// confirmed.
pub fn follow(batch: &mut Batch, detours: &[Detour], message: &Message, now: u64) -> bool {
    let mut durable = false;
    for detour in detours {
        match detour {
            Detour::Remember(exchange) => exchange.remember(message),
            Detour::Delay(exchange, delay) => {
                let Some(waiting) = exchange.waiting() else {
                    continue;
                };
                let message = waits(message, &exchange.info.name);
                let (_, kept) = batch.publish_beside(&message, waiting, *delay, now);
                durable |= kept;
            }
        }
    }
    durable
}

/// The message as it waits: published to the exchange that delays it, and not to be delayed again.
fn waits(message: &Message, exchange: &str) -> Message {
    let mut properties = Properties::from(PropertiesRef::unchecked(message.properties()));
    if let Some(headers) = &mut properties.headers
        && let Some(delay) = headers.get(DELAY_HEADER).and_then(FieldValue::as_integer)
    {
        headers.insert(DELAY_HEADER, -delay);
    }
    let parts = Parts {
        exchange,
        routing_key: message.routing_key(),
        properties: &properties.encode(),
        flags: message.flags(),
    };
    Message::new(&parts, message.body())
}

/// The message's own TTL, milliseconds. What is no number was refused when it was published.
pub fn expiration_of(properties: PropertiesRef<'_>) -> Option<u64> {
    parse_expiration(properties.expiration()?).ok()
}
