//! Publishes that de-duplication windows look at: one after the other, see [`deduplication`].
//!
//! [`deduplication`]: crate::broker::deduplication

use super::connection::Connection;
use super::errors::Exception;
use super::transaction::{Once, TxPublish};
use crate::broker::deduplication::Admission;
use crate::broker::message::Message;
use crate::broker::route::Route;
use crate::broker::routing::route_once;
use crate::broker::vhost::Vhost;
use crate::protocol::properties::PropertiesRef;

impl Connection {
    /// Publishes, unless it is a duplicate.
    pub(super) fn publish_once(
        &mut self,
        number: u16,
        mut publish: TxPublish,
    ) -> Result<(), Exception> {
        // What came before takes no turn.
        self.flush();
        let broker = self.broker.clone();
        let _turn = broker.take_turn();
        let vhost = self.the_vhost()?;
        let (at, durable) = self.send_once(&vhost, &mut publish);
        let unroutable = publish.found.is_unroutable().then_some(&publish.message);
        let seqno = self.expect_confirm(number, at, durable);
        self.published(number, publish.mandatory, unroutable, seqno);
        self.flush();
        Ok(())
    }

    /// Adds a publish to the batch, for where it goes now if windows look at it. The caller then has
    /// the turn, and keeps it until the batch is flushed. Returns what [`crate::broker::batch::Batch::publish_to`] does.
    pub(super) fn send_once(&mut self, vhost: &Vhost, publish: &mut TxPublish) -> (u32, bool) {
        let mut admission = Admission::default();
        if let Some(once) = &publish.once {
            (publish.found, admission) = self.look_once(vhost, &publish.message, once);
        }
        let TxPublish {
            message,
            found,
            expiration,
            priority,
            ..
        } = publish;
        let (at, durable) =
            self.batch
                .publish_to(found, message.clone(), *expiration, *priority, self.now);
        // What windows noted goes with the message, or is taken back if a queue refused that.
        if self.batch.refused().last() == Some(&at) {
            admission.take_back();
        } else {
            self.batch.define(admission.changes());
        }
        self.logs |= durable;
        (at, durable | found.duplicate)
    }

    fn look_once(&mut self, vhost: &Vhost, message: &Message, once: &Once) -> (Route, Admission) {
        let properties = PropertiesRef::unchecked(message.properties());
        let admission = Admission::of(properties, self.now);
        let keys: Vec<&[u8]> = once.keys.iter().map(Vec::as_slice).collect();
        let looked = route_once(vhost, &once.exchange, &keys, admission, properties);
        if looked.0.duplicate {
            self.batch.wait_behind_all();
        }
        looked
    }
}
