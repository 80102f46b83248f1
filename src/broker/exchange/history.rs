//! What came last, for `x-recent-history`. Kept in memory: like RabbitMQ's, it starts anew with the
//! broker.

use std::collections::VecDeque;

use crate::broker::message::Message;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::PropertiesRef;

/// How many messages are kept without `x-recent-history-length`.
pub const HISTORY_DEFAULT: usize = 20;

/// No exchange keeps more than this, whatever its argument: each message stays in memory.
pub const HISTORY_MAX: usize = 10_000;

/// Nor more bytes of messages than this, but always the latest one.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;

/// A message with this header true is not kept.
pub const NO_STORE_HEADER: &str = "x-recent-history-no-store";

/// The latest messages.
#[derive(Debug, Default)]
pub(super) struct History {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl History {
    /// Adds one; the oldest goes when there are too many.
    pub(super) fn push(&mut self, message: &Message, arguments: &FieldTable) {
        let headers = PropertiesRef::unchecked(message.properties()).headers();
        let not_this = headers
            .map(|h| h.to_table())
            .is_some_and(|h| h.get(NO_STORE_HEADER) == Some(&FieldValue::Bool(true)));
        if not_this {
            return;
        }
        let length = arguments
            .get("x-recent-history-length")
            .and_then(FieldValue::as_integer)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(HISTORY_DEFAULT)
            .min(HISTORY_MAX);
        self.bytes += message.resident_bytes();
        self.messages.push_back(message.clone());
        while self.messages.len() > 1
            && (self.messages.len() > length || self.bytes > HISTORY_BYTES_MAX)
        {
            let oldest = self.messages.pop_front();
            self.bytes -= oldest.map_or(0, |m| m.resident_bytes());
        }
    }

    /// All of them, oldest first.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.messages.iter().cloned().collect()
    }
}
