//! `tx.select`, `commit`, `rollback`: publishes and settlements that count together, or not at all.
//!
//! As in RabbitMQ, a publish is checked and routed when it arrives and enters its queues with the
//! commit; a settlement takes its deliveries out of the channel's list at once, so that an unknown tag
//! is told at once, and reaches the queues with the commit. A commit of several queues is one append
//! to the log, and is answered when that is durable.

use super::channel::{Channel, Unacked};
use super::connection::Connection;
use super::errors::Exception;
use super::publish_once::Once;
use crate::broker::memory::{Charge, Memory, Use};
use crate::broker::message::Message;
use crate::broker::queue::Settle;
use crate::broker::route::Route;
use crate::protocol::methods::tx;
use crate::protocol::reply_code::SoftCode;

/// No transaction is larger than this many bytes, whatever is configured: what it logs with its commit is one
/// frame of the log, whose length has 32 bits.
pub const TX_BYTES_HARD_MAX: u64 = 2 << 30;

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
    publishes: Vec<TxPublish>,
    settles: Vec<(Unacked, Settle)>,
    memory: Memory,
    /// What its messages take, and everything beside them.
    messages: Charge,
    beside: Charge,
}

impl Tx {
    fn new(max: u64, memory: Memory) -> Tx {
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
    fn take_all(&mut self) -> Tx {
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

impl Channel {
    /// Forgets what the transaction holds; its deliveries are unacknowledged as before.
    pub(super) fn roll_back(&mut self) {
        let Some(tx) = &mut self.tx else { return };
        let held = tx.take_all();
        if held.settles.is_empty() {
            return;
        }
        self.unacked
            .extend(held.settles.into_iter().map(|(u, _)| u));
        self.unacked.make_contiguous().sort_by_key(|u| u.tag);
    }
}

impl Connection {
    pub(super) fn tx_select(&mut self, number: u16) -> Result<(), Exception> {
        let (max, memory) = (self.settings.tx_bytes_max, self.broker.memory().clone());
        let ch = self.channel_mut(number)?;
        if ch.confirms.is_some() {
            return Err(failed("cannot switch from confirm to tx mode"));
        }
        ch.tx.get_or_insert_with(|| Tx::new(max, memory));
        self.send(number, &tx::SelectOk);
        Ok(())
    }

    pub(super) fn tx_commit(&mut self, number: u16) -> Result<(), Exception> {
        // From here on nothing can fail half way.
        let vhost = self.the_vhost()?;
        let ch = self.channel_mut(number)?;
        let mut held = ch.tx.as_mut().ok_or_else(not_transactional)?.take_all();
        let broker = self.broker.clone();
        let once = held.publishes.iter().any(|p| p.once.is_some());
        let _turn = once.then(|| broker.take_turn());
        let mut credited = 0;
        // Transient publishes alone wait for no disk.
        let mut waits = !held.settles.is_empty();
        for (u, how) in &held.settles {
            credited += u32::from(u.credited);
            self.counted.of(&u.queue).acknowledged += u64::from(*how == Settle::Ack);
            self.batch.settle(&u.queue, u.delivery, *how);
        }
        for p in &mut held.publishes {
            let (_, durable) = self.send_once(&vhost, p);
            waits |= durable;
        }
        for p in &held.publishes {
            let unroutable = p.found.is_unroutable().then_some(&p.message);
            self.published(number, p.mandatory, unroutable, None);
        }
        let flushed = self.flush_batch();
        let refused = !self.batch.refused().is_empty();
        self.batch.clear_refused();
        if credited > 0 {
            self.return_credit(number, credited);
        }
        match flushed {
            Ok(lsn) if !refused => {
                let lsn = if waits { lsn } else { Default::default() };
                self.send_durable(number, &tx::CommitOk, lsn);
                Ok(())
            }
            _ => Err(failed("partial tx completion")),
        }
    }

    pub(super) fn tx_rollback(&mut self, number: u16) -> Result<(), Exception> {
        let ch = self.channel_mut(number)?;
        if ch.tx.is_none() {
            return Err(not_transactional());
        }
        ch.roll_back();
        self.send(number, &tx::RollbackOk);
        Ok(())
    }

    /// `confirm.select`.
    pub(super) fn confirm_select(&mut self, number: u16, nowait: bool) -> Result<(), Exception> {
        let ch = self.channel_mut(number)?;
        if ch.tx.is_some() {
            return Err(failed("cannot switch from tx to confirm mode"));
        }
        ch.confirms.get_or_insert_default();
        if !nowait {
            self.send(number, &crate::protocol::methods::confirm::SelectOk);
        }
        Ok(())
    }
}

fn failed(text: &str) -> Exception {
    Exception::soft(SoftCode::PRECONDITION_FAILED, text)
}

fn not_transactional() -> Exception {
    failed("channel is not transactional")
}
