//! Where a message goes: its queues, and targets that are none.

use std::sync::Arc;

use super::exchange::{DELAY_HEADER, Exchange, milliseconds};
use super::message::Message;
use super::queue::Queue;
use super::replies::ReplyTarget;
use crate::protocol::properties::PropertiesRef;
use crate::protocol::raw::Run;

/// Where a message goes that is no queue.
#[derive(Clone, Debug)]
pub enum SpecialTarget {
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
pub struct Route {
    /// The queues, each once.
    pub queues: Vec<Arc<Queue>>,
    /// What is no queue.
    pub special: Vec<SpecialTarget>,
    /// De-duplication windows look at it: what is here is where it goes if they let it pass.
    pub guarded: bool,
    /// It was a duplicate for some window.
    pub duplicate: bool,
}

impl Route {
    /// Whether nobody takes it: no queue, no address of direct replies, no exchange that keeps it for
    /// later; a duplicate was taken before.
    pub fn is_unroutable(&self) -> bool {
        let takes = |d: &SpecialTarget| !matches!(d, SpecialTarget::Remember(_));
        self.queues.is_empty() && !self.duplicate && !self.special.iter().any(takes)
    }

    /// Empties it, keeping its room.
    pub(super) fn clear(&mut self) {
        self.queues.clear();
        self.special.clear();
        (self.guarded, self.duplicate) = (false, false);
    }
}

/// The message as it waits: published to the exchange that delays it, and not to be delayed again.
pub(super) fn delayed_message(message: &Message, exchange: &str) -> Message {
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
