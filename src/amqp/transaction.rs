//! What the transaction of a channel holds until its commit.

use super::errors::Exception;
use super::unacked::Unacked;
use crate::broker::memory::{Charge, Memory, Use};
use crate::broker::message::Message;
use crate::broker::queue::Settle;
use crate::broker::route::Route;
use crate::protocol::reply_code::SoftCode;

/// What a publish or a settlement takes beside the message, in bytes.
const PUBLISH_BYTES: usize = size_of::<TxPublish>();
const SETTLE_BYTES: usize = size_of::<(Unacked, Settle)>();

/// A publish that waits for the commit.
pub(super) struct TxPublish {
    pub(super) message: Message,
    pub(super) found: Route,
    /// De-duplication windows look at it with the commit, and say where it goes.
    pub(super) once: Option<Once>,
    pub(super) expiration: Option<u64>,
    pub(super) priority: Option<u8>,
    pub(super) mandatory: bool,
}

/// What a channel's transaction holds.
pub(super) struct Tx {
    /// What it may hold, see [`super::settings::SessionSettings::tx_bytes_max`].
    max: u64,
    pub(super) publishes: Vec<TxPublish>,
    pub(super) settles: Vec<(Unacked, Settle)>,
    memory: Memory,
    /// What its messages take, and everything beside them.
    messages: Charge,
    beside: Charge,
}

impl Tx {
    pub(super) fn new(max: u64, memory: Memory) -> Tx {
        Tx {
            max,
            publishes: Vec::new(),
            settles: Vec::new(),
            messages: memory.charge(Use::Transactions),
            beside: memory.charge(Use::Assembly),
            memory,
        }
    }

    /// Takes what it holds; the next transaction begins.
    pub(super) fn take_all(&mut self) -> Tx {
        let next = Tx::new(self.max, self.memory.clone());
        std::mem::replace(self, next)
    }

    /// Notes a publish.
    ///
    /// # Errors
    /// The transaction is too large: 406.
    pub(super) fn publish(&mut self, publish: TxPublish) -> Result<(), Exception> {
        let message = publish.message.resident_bytes() as u64;
        self.messages.set(self.messages.bytes() + message);
        self.take(PUBLISH_BYTES + size_of_val(&*publish.found.queues));
        if self.messages.bytes() + self.beside.bytes() > self.max {
            let text = format!("transaction is larger than {} bytes", self.max);
            return Err(failed(&text));
        }
        self.publishes.push(publish);
        Ok(())
    }

    fn take(&mut self, bytes: usize) {
        self.beside.set(self.beside.bytes() + bytes as u64);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.settles.is_empty()
    }

    /// Notes a settlement.
    pub(super) fn settle(&mut self, delivery: Unacked, how: Settle) {
        self.take(SETTLE_BYTES);
        self.settles.push((delivery, how));
    }
}

/// Where a publish was sent: it is routed again when it has the turn.
pub(super) struct Once {
    pub(super) exchange: String,
    pub(super) keys: Vec<Vec<u8>>,
}

pub(super) fn failed(text: &str) -> Exception {
    Exception::soft(SoftCode::PRECONDITION_FAILED, text)
}
