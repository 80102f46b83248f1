//! What came last, for `x-recent-history`. Kept in memory: like RabbitMQ's, it starts anew with the
//! broker.

use std::collections::VecDeque;

use crate::broker::memory::{Charge, Use};
use crate::broker::message::Message;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::PropertiesRef;

/// How many messages are kept without `x-recent-history-length`.
pub const HISTORY_DEFAULT: usize = 20;

/// No exchange keeps more than this, whatever its argument: each message stays in memory.
pub const HISTORY_MAX: usize = 10_000;

/// Nor more bytes of messages than this, but always the latest one.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;

/// While the histories of a broker take more than they may together, no exchange that remembers another
/// message keeps more than this.
pub const HISTORY_BYTES_FEW: usize = 1 << 20;

/// A message with this header true is not kept.
pub const NO_STORE_HEADER: &str = "x-recent-history-no-store";

/// The latest messages.
#[derive(Debug, Default)]
pub(super) struct History {
    messages: VecDeque<Message>,
    bytes: usize,
    charge: Charge,
}

impl History {
    /// Adds one; the oldest goes when there are too many.
    pub(super) fn push(&mut self, message: &Message, arguments: &FieldTable) {
        let headers = PropertiesRef::unchecked(message.properties()).headers();
        let not_this =
            headers.is_some_and(|h| h.get(NO_STORE_HEADER) == Some(FieldValue::Bool(true)));
        if not_this {
            return;
        }
        let length = arguments
            .get("x-recent-history-length")
            .and_then(FieldValue::as_integer)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(HISTORY_DEFAULT)
            .min(HISTORY_MAX);
        if self.messages.is_empty() {
            self.charge = message.memory().charge(Use::History);
        }
        self.bytes += message.resident_bytes();
        self.messages.push_back(message.clone());
        let bytes_max = match message.memory().histories_are_large() {
            true => HISTORY_BYTES_FEW,
            false => HISTORY_BYTES_MAX,
        };
        while self.messages.len() > 1 && (self.messages.len() > length || self.bytes > bytes_max) {
            let oldest = self.messages.pop_front();
            self.bytes -= oldest.map_or(0, |m| m.resident_bytes());
        }
        self.charge.set(self.bytes as u64);
    }

    /// All of them, oldest first.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.messages.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::Memory;
    use crate::broker::message::Parts;
    use crate::protocol::short::ShortBytes;

    const PARTS: Parts<'_> = Parts {
        exchange: ShortBytes::EMPTY,
        routing_key: ShortBytes::EMPTY,
        properties: &[0, 0],
        flags: 0,
    };

    #[test]
    fn a_history_has_a_length_whatever_was_asked_for() {
        let (memory, mut history) = (Memory::new(), History::default());
        let mut arguments = FieldTable::new();
        for (length, kept) in [(None, 20), (Some(50_000i64), HISTORY_MAX), (Some(2), 2)] {
            if let Some(length) = length {
                arguments.insert("x-recent-history-length", length);
            }
            for _ in 0..=HISTORY_MAX {
                history.push(&Message::new(&memory, &PARTS, b""), &arguments);
            }
            assert_eq!(history.messages().len(), kept, "{length:?}");
        }
    }

    #[test]
    fn histories_leave_memory_to_everybody_else() {
        const MIB: u64 = 1 << 20;
        let memory = Memory::new();
        memory.set_budget(8 * MIB);
        memory.set_history_max(20 * MIB);
        let mut arguments = FieldTable::new();
        arguments.insert("x-recent-history-length", 1000i64);
        let mut all: Vec<_> = (0..6).map(|_| History::default()).collect();
        for history in &mut all {
            for _ in 0..200 {
                let message = Message::new(&memory, &PARTS, &[0; 128 * 1024]);
                history.push(&message, &arguments);
            }
        }
        let used = memory.used(Use::History);
        assert!((16 * MIB..26 * MIB).contains(&used), "{} MiB", used / MIB);
        assert_eq!(memory.used(Use::Messages), used);
        assert!(!memory.is_short());
        all.clear();
        assert_eq!(memory.used(Use::History), 0);
    }
}
