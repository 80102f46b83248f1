//! Direct reply-to: consumers that have no queue. Their generated names are routing keys of the default
//! exchange, wherever those come from: a publish, its `CC` and `BCC`, a dead letter.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::Message;
use super::ports::MessageId;
use super::queue::Entry;
use super::queue::effects::Effects;
use super::queue::outlet::{ConsumerKey, Delivery, NO_SLOT, Outlet};

/// Pseudo-queue of direct reply-to; the names of its consumers begin with it.
pub const REPLY_TO: &str = "amq.rabbitmq.reply-to";

const UNPOISONED: &str = "a panic aborts the process";

/// Whether a name has the parts of an address of a consumer of direct replies, if one that is gone: the base64
/// of a process identifier in Erlang's external term format, a point, and anything. What is sent there is
/// routed, and dropped, as in RabbitMQ.
pub fn is_address(name: &str) -> bool {
    let parts = name
        .strip_prefix(REPLY_TO)
        .and_then(|n| n.strip_prefix('.'));
    let pid = parts.and_then(|parts| parts.split_once('.'));
    let pid = pid.and_then(|(pid, _)| STANDARD.decode(pid).ok());
    pid.is_some_and(|pid| pid.starts_with(&[131, 88]) || pid.starts_with(&[131, 103]))
}

/// Where answers to a direct reply-to consumer go.
pub struct ReplyTarget {
    /// The connection of the consumer.
    pub outlet: Arc<dyn Outlet>,
    /// The consumer.
    pub consumer: ConsumerKey,
}

impl fmt::Debug for ReplyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyTarget").field(&self.consumer).finish()
    }
}

/// Direct replies that wait for a requester that does not read, and bytes of what waits for it in all, above
/// which more of them are dropped, as for one that is gone: no queue holds them back, so nothing else would.
const REPLIES_MAX: usize = 64 * 1024;
const REPLY_BYTES_MAX: u64 = 64 << 20;

impl ReplyTarget {
    /// Sends an answer, straight to the consumer's connection.
    pub fn send(&self, message: &Message, fx: &mut Effects) {
        let (replies, bytes) = self.outlet.load();
        if replies >= REPLIES_MAX || bytes >= REPLY_BYTES_MAX {
            return;
        }
        let entry = Entry {
            seq: 0,
            id: MessageId::NONE,
            body_len: message.body_len(),
            message: Some(message.clone()),
            expires_at: 0,
            delivery_count: 0,
            acquired_count: 0,
            priority: 0,
            redelivered: false,
        };
        let delivery = Delivery {
            consumer: self.consumer,
            slot: NO_SLOT,
            entry,
        };
        if self.outlet.push(&mut vec![delivery]) {
            fx.ring(&self.outlet);
        }
    }
}

/// All consumers of direct replies, by name.
#[derive(Debug, Default)]
pub struct Replies(RwLock<HashMap<Box<str>, Arc<ReplyTarget>>>);

impl Replies {
    /// Adds a consumer under its generated name.
    pub fn add(&self, name: &str, target: ReplyTarget) {
        let mut targets = self.0.write().expect(UNPOISONED);
        targets.insert(name.into(), Arc::new(target));
    }

    /// Removes it.
    pub fn remove(&self, name: &str) {
        self.0.write().expect(UNPOISONED).remove(name);
    }

    /// Finds it.
    pub fn find(&self, name: &str) -> Option<Arc<ReplyTarget>> {
        self.0.read().expect(UNPOISONED).get(name).cloned()
    }
}
