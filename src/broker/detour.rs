//! What exchanges do with a message beside routing it to queues: note it, or keep it for later.

use std::sync::Arc;

use super::arguments::parse_expiration;
use super::batch::Batch;
use super::exchange::{DELAY_HEADER, Exchange, milliseconds};
use super::message::Message;
use super::queue::Queue;
use super::replies::ReplyTarget;
use crate::protocol::properties::PropertiesRef;
use crate::protocol::raw::Run;

/// See the module.
#[derive(Clone, Debug)]
pub enum Detour {
    /// An `x-recent-history` exchange notes the message.
    Remember(Arc<Exchange>),
    /// An `x-delayed-message` exchange routes it after this many milliseconds.
    Delay(Arc<Exchange>, u64),
    /// A consumer of direct replies gets it.
    Reply(Arc<ReplyTarget>),
    /// The consumer of direct replies that had this address is gone: nobody gets it, and nobody is told.
    NoReply,
}

/// Where a message goes.
#[derive(Clone, Debug, Default)]
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
    /// Whether nobody takes it: no queue, no address of direct replies, no exchange that keeps it for
    /// later; a duplicate was taken before.
    pub fn is_unroutable(&self) -> bool {
        let takes = |d: &Detour| !matches!(d, Detour::Remember(_));
        self.queues.is_empty() && !self.duplicate && !self.detours.iter().any(takes)
    }

    /// Empties it, keeping its room.
    pub(super) fn clear(&mut self) {
        self.queues.clear();
        self.detours.clear();
        (self.guarded, self.duplicate) = (false, false);
    }
}

/// Adds a message to the batch, for its queues and its detours. Returns its number there, and whether
/// some copy has to be durable before it is confirmed; see [`Batch::publish`].
pub fn send(
    batch: &mut Batch,
    message: Message,
    found: &Found,
    expiration: Option<u64>,
    priority: Option<u8>,
    now: u64,
) -> (u32, bool) {
    if found.detours.is_empty() {
        return batch.publish(message, &found.queues, expiration, priority, now);
    }
    let queues = &found.queues;
    let (number, durable) = batch.publish(message.clone(), queues, expiration, priority, now);
    let kept = follow(batch, &found.detours, &message, now);
    (number, durable | kept)
}

/// Adds a message that was published before, with the expiration and priority of its own.
pub fn send_again(batch: &mut Batch, message: &Message, found: &Found, now: u64) {
    let properties = PropertiesRef::unchecked(message.properties());
    // What is no number was refused when it was published.
    let expiration = properties
        .expiration()
        .and_then(|text| parse_expiration(text.to_str()?).ok());
    send(
        batch,
        message.clone(),
        found,
        expiration,
        properties.priority(),
        now,
    );
}

/// Does what the detours say. Returns whether a copy has to be durable before the message is
/// confirmed.
pub fn follow(batch: &mut Batch, detours: &[Detour], message: &Message, now: u64) -> bool {
    let mut durable = false;
    for detour in detours {
        match detour {
            Detour::Remember(exchange) => exchange.remember(message),
            Detour::Reply(target) => target.send(message, &mut batch.fx),
            Detour::NoReply => {}
            Detour::Delay(exchange, delay) => {
                let Some(waiting) = exchange.waiting() else {
                    continue;
                };
                let message = waits(message, &exchange.info.name);
                let waiting = std::slice::from_ref(waiting);
                durable |= batch.publish(message, waiting, Some(*delay), None, now).1;
            }
        }
    }
    durable
}

/// The message as it waits: published to the exchange that delays it, and not to be delayed again.
fn waits(message: &Message, exchange: &str) -> Message {
    let properties = PropertiesRef::unchecked(message.properties()).split();
    let properties = properties.with_headers(true, |out| {
        let mut run = Run::of(properties.headers);
        let mut delay = None;
        for field in properties.headers.fields() {
            let n = field.octets.len();
            // The first one counts.
            if delay.is_none() && field.name == DELAY_HEADER {
                delay = field.value.read().as_ref().and_then(milliseconds);
                if let Some(delay) = delay {
                    run.end(out, n);
                    out.integer(DELAY_HEADER, -delay);
                    continue;
                }
            }
            run.go_on(n);
        }
        run.end(out, 0);
    });
    message.with_written(
        exchange.into(),
        message.routing_key(),
        &properties,
        message.flags(),
    )
}
