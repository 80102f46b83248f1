//! `tx.select`, `commit`, `rollback`: publishes and settlements that count together, or not at all.
//!
//! As in RabbitMQ, a publish is checked and routed when it arrives and enters its queues with the
//! commit; a settlement takes its deliveries out of the channel's list at once, so that an unknown tag
//! is told at once, and reaches the queues with the commit. A commit of several queues is one append
//! to the log, and is answered when that is durable.

use super::channel::Channel;
use super::connection::Connection;
use super::errors::Exception;
use super::transaction::{Tx, failed};
use crate::broker::queue::Settle;
use crate::protocol::methods::tx;

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

fn not_transactional() -> Exception {
    failed("channel is not transactional")
}
