//! Publishes that de-duplication windows look at: one after the other, see [`deduplication`].
//!
//! [`deduplication`]: crate::broker::deduplication

use super::connection::Connection;
use super::errors::Exception;
use super::tx::TxPublish;
use crate::broker::deduplication::Admission;
use crate::broker::detour::{self, Found};
use crate::broker::routing::route_once;
use crate::protocol::properties::PropertiesRef;

/// Where a publish was sent: it is routed again when it has the turn.
pub(super) struct Once {
    pub(super) exchange: String,
    pub(super) keys: Vec<String>,
}

impl Connection {
    /// Publishes, unless it is a duplicate.
    pub(super) fn publish_once(
        &mut self,
        number: u16,
        publish: &TxPublish,
    ) -> Result<(), Exception> {
        // What came before takes no turn.
        self.flush();
        let broker = self.broker.clone();
        let _turn = broker.take_turn();
        let (found, admission) = self.look_once(publish)?;
        let (message, now) = (&publish.message, self.now);
        let (expiration, priority) = (publish.expiration, publish.priority);
        let (at, mut durable) =
            self.batch
                .publish(message, &found.queues, expiration, priority, now);
        self.settle_once(at, admission);
        durable |= detour::follow(&mut self.batch, &found.detours, message, now);
        let seqno = self.channel_mut(number)?.confirms.as_mut();
        let seqno = seqno.map(super::confirms::Confirms::next);
        if found.queues.is_empty() && !found.is_delayed() && !found.duplicate {
            self.unroutable(number, publish.mandatory, message);
        } else {
            self.counted.routed += 1;
        }
        if let Some(seqno) = seqno {
            self.counted.received_confirm += 1;
            self.expect_confirm(number, seqno, at, durable | found.duplicate);
        }
        self.flush();
        Ok(())
    }

    /// Where a publish goes now. The caller has the turn, and keeps it until the batch is flushed.
    pub(super) fn look_once(
        &mut self,
        publish: &TxPublish,
    ) -> Result<(Found, Admission), Exception> {
        let Some(once) = &publish.once else {
            return Ok(Default::default());
        };
        let vhost = self.the_vhost()?;
        let properties = PropertiesRef::unchecked(publish.message.properties());
        let admission = Admission::of(properties, self.now);
        let keys: Vec<&str> = once.keys.iter().map(String::as_str).collect();
        let looked = route_once(&vhost, &once.exchange, &keys, admission, properties);
        if looked.0.duplicate {
            self.batch.wait_behind_all();
        }
        Ok(looked)
    }

    /// The publish has this number in the batch: what windows noted of it goes with it, or is taken
    /// back if a queue refused it.
    pub(super) fn settle_once(&mut self, number: u32, admission: Admission) {
        if self.batch.refused().last() == Some(&number) {
            admission.take_back();
        } else {
            self.batch.define(admission.changes());
        }
    }
}
