//! `exchange.*` and `queue.*`: from methods to the topology.

use super::connection::Connection;
use super::errors::{self, Exception};
use super::reply_address::REPLY_TO;
use crate::broker::access::Permission;
use crate::broker::arguments::QueueType;
use crate::broker::exchange::{Destination, ExchangeType};
use crate::broker::ports::Lsn;
use crate::broker::queue::DeleteIf;
use crate::broker::routing::route_to;
use crate::broker::vhost::{
    BindingSpec, ExchangeDeclare, QueueDeclare, TopologyError, Vhost, clean_name, generated_name,
};
use crate::protocol::EncodeMethod;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::methods::{exchange, queue};
use crate::protocol::properties::PropertiesRef;

/// What may wait for the disk while definitions are staged whose client wants no answer; above that they wait
/// for it as if it did.
const UNANSWERED_BYTES_MAX: u64 = 1 << 20;

impl Connection {
    /// Sends a reply when what it says is durable, unless none is wanted.
    fn answer<M: EncodeMethod>(&mut self, number: u16, nowait: bool, reply: &M, lsn: Lsn) {
        self.flush();
        if !nowait {
            self.send_durable(number, reply, lsn);
        } else if self.broker.log().backlog_bytes() > UNANSWERED_BYTES_MAX {
            self.wait_durable(number, lsn);
        }
    }

    fn refused(&self, e: &TopologyError) -> Exception {
        errors::topology(e, self.vhost.as_ref().map_or("", |v| &v.name))
    }

    pub(super) fn exchange_declare(
        &mut self,
        number: u16,
        m: &exchange::Declare<'_>,
    ) -> Result<(), Exception> {
        let vhost = self.the_vhost()?;
        let name = clean_name(m.exchange);
        if m.passive {
            if name.is_empty() {
                return Err(self.refused(&TopologyError::DefaultExchange));
            }
            self.allow_any(true, &name)?;
            vhost.lookup_exchange(&name).map_err(|e| self.refused(&e))?;
            self.answer(number, m.nowait, &exchange::DeclareOk, Lsn::default());
            return Ok(());
        }
        let arguments = m.arguments.to_table();
        // An unknown type and the default exchange are refused before anybody's permissions.
        if ExchangeType::parse(m.type_).is_none() {
            return Err(self.refused(&TopologyError::UnknownType(m.type_.into())));
        }
        if name.is_empty() {
            return Err(self.refused(&TopologyError::DefaultExchange));
        }
        self.allow(Permission::Configure, true, &name)?;
        if let Some(FieldValue::LongStr(alternate)) = arguments.get("alternate-exchange") {
            self.allow(Permission::Read, true, &name)?;
            self.allow(Permission::Write, true, &String::from_utf8_lossy(alternate))?;
        }
        let declare = ExchangeDeclare {
            name: &name,
            kind: m.type_,
            durable: m.durable,
            auto_delete: m.auto_delete,
            internal: m.internal,
            arguments: &arguments,
        };
        let lsn = vhost
            .declare_exchange(&declare)
            .map_err(|e| self.refused(&e))?;
        self.answer(number, m.nowait, &exchange::DeclareOk, lsn);
        Ok(())
    }

    pub(super) fn exchange_delete(
        &mut self,
        number: u16,
        m: &exchange::Delete<'_>,
    ) -> Result<(), Exception> {
        let vhost = self.the_vhost()?;
        let name = clean_name(m.exchange);
        if !name.is_empty() {
            self.allow(Permission::Configure, true, &name)?;
        }
        let lsn = vhost
            .delete_exchange(&name, m.if_unused)
            .map_err(|e| self.refused(&e))?;
        self.answer(number, m.nowait, &exchange::DeleteOk, lsn);
        Ok(())
    }

    pub(super) fn exchange_bind(
        &mut self,
        number: u16,
        m: &exchange::Bind<'_>,
    ) -> Result<(), Exception> {
        let arguments = m.arguments.to_table();
        let lsn = self.bind_exchanges(m.source, m.destination, m.routing_key, &arguments, true)?;
        self.answer(number, m.nowait, &exchange::BindOk, lsn);
        Ok(())
    }

    pub(super) fn exchange_unbind(
        &mut self,
        number: u16,
        m: &exchange::Unbind<'_>,
    ) -> Result<(), Exception> {
        let arguments = m.arguments.to_table();
        let lsn = self.bind_exchanges(m.source, m.destination, m.routing_key, &arguments, false)?;
        self.answer(number, m.nowait, &exchange::UnbindOk, lsn);
        Ok(())
    }

    fn bind_exchanges(
        &mut self,
        source: &str,
        destination: &str,
        routing_key: &str,
        arguments: &FieldTable,
        add: bool,
    ) -> Result<Lsn, Exception> {
        let vhost = self.the_vhost()?;
        let (source, destination) = (clean_name(source), clean_name(destination));
        if source.is_empty() || destination.is_empty() {
            return Err(self.refused(&TopologyError::DefaultExchange));
        }
        self.allow(Permission::Write, true, &destination)?;
        self.allow(Permission::Read, true, &source)?;
        self.allow_topic(Permission::Read, &source, routing_key.as_bytes())?;
        let found = vhost
            .lookup_exchange(&source)
            .and_then(|_| vhost.lookup_exchange(&destination));
        let destination = match found {
            Ok(x) => Destination::Exchange(x),
            // There is nothing to unbind.
            Err(_) if !add => return Ok(Lsn::default()),
            Err(e) => return Err(self.refused(&e)),
        };
        let spec = BindingSpec {
            source: &source,
            destination: &destination,
            routing_key,
            arguments,
        };
        self.change_binding(&vhost, &spec, add)
    }

    /// Adds or removes a binding. Who binds to an `x-recent-history` exchange gets what came last.
    fn change_binding(
        &mut self,
        vhost: &Vhost,
        spec: &BindingSpec<'_>,
        add: bool,
    ) -> Result<Lsn, Exception> {
        if !add {
            return vhost.unbind(spec).map_err(|e| self.refused(&e));
        }
        let (lsn, new) = vhost.bind(spec).map_err(|e| self.refused(&e))?;
        let source = vhost.exchange(spec.source).filter(|_| new);
        for message in source.map(|s| s.recent()).unwrap_or_default() {
            let raw = PropertiesRef::unchecked(message.properties());
            let found = route_to(vhost, spec.destination, &message.routing_key(), raw);
            self.batch.publish_again(&found, &message, self.now);
        }
        Ok(lsn)
    }

    pub(super) fn queue_declare(
        &mut self,
        number: u16,
        m: &queue::Declare<'_>,
    ) -> Result<(), Exception> {
        let vhost = self.the_vhost()?;
        self.counted.queues_declared += 1;
        let mut name = clean_name(m.queue);
        if name.starts_with(REPLY_TO) {
            return self.declare_reply_queue(number, m, &name);
        }
        if m.passive {
            self.allow_any(false, &name)?;
            // Here no name does not stand for the last queue.
            let queue = vhost
                .lookup_queue(&name, self.id)
                .map_err(|e| self.refused(&e))?;
            queue.touch(self.now, &mut self.batch.fx);
            return self.declared(number, m.nowait, &queue, Lsn::default());
        }
        let arguments = m.arguments.to_table();
        if name.starts_with("amq.") {
            return Err(self.refused(&TopologyError::ReservedName { queue: true, name }));
        }
        let server_named = name.is_empty();
        if server_named {
            // It has its name before anybody's permissions are looked at.
            name = generated_name("amq.gen-");
        }
        self.allow(Permission::Configure, false, &name)?;
        if let Some(FieldValue::LongStr(dlx)) = arguments.get("x-dead-letter-exchange") {
            self.allow(Permission::Read, false, &name)?;
            self.allow(Permission::Write, true, &String::from_utf8_lossy(dlx))?;
        }
        let declare = QueueDeclare {
            name: &name,
            server_named,
            durable: m.durable,
            exclusive: m.exclusive,
            auto_delete: m.auto_delete,
            arguments: &arguments,
            connection: self.id,
        };
        let (queue, lsn, new) = vhost
            .declare_queue(&declare)
            .map_err(|e| self.refused(&e))?;
        self.counted.queues_created += u64::from(new);
        queue.touch(self.now, &mut self.batch.fx);
        self.declared(number, m.nowait, &queue, lsn)
    }

    fn declared(
        &mut self,
        number: u16,
        nowait: bool,
        queue: &crate::broker::queue::Queue,
        lsn: Lsn,
    ) -> Result<(), Exception> {
        let counts = queue.counts();
        let name = queue.info().name.clone();
        self.channel_mut(number)?.last_queue = name.to_string();
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let ok = queue::DeclareOk {
            queue: &name,
            message_count: clamp(counts.ready),
            consumer_count: clamp(counts.consumers),
        };
        self.answer(number, nowait, &ok, lsn);
        Ok(())
    }

    /// Declaring the name of a direct reply-to consumer tells whether it is still there.
    fn declare_reply_queue(
        &mut self,
        number: u16,
        m: &queue::Declare<'_>,
        name: &str,
    ) -> Result<(), Exception> {
        let there = name == REPLY_TO || self.broker.replies().find(name).is_some();
        if !there {
            return Err(self.refused(&TopologyError::NoQueue(name.into())));
        }
        let ok = queue::DeclareOk {
            queue: name,
            message_count: 0,
            consumer_count: 1,
        };
        self.answer(number, m.nowait, &ok, Lsn::default());
        Ok(())
    }

    pub(super) fn queue_bind(&mut self, number: u16, m: &queue::Bind<'_>) -> Result<(), Exception> {
        let arguments = m.arguments.to_table();
        let lsn = self.bind_queue(number, m.queue, m.exchange, m.routing_key, &arguments, true)?;
        self.answer(number, m.nowait, &queue::BindOk, lsn);
        Ok(())
    }

    pub(super) fn queue_unbind(
        &mut self,
        number: u16,
        m: &queue::Unbind<'_>,
    ) -> Result<(), Exception> {
        let arguments = m.arguments.to_table();
        let lsn = self.bind_queue(
            number,
            m.queue,
            m.exchange,
            m.routing_key,
            &arguments,
            false,
        )?;
        self.answer(number, false, &queue::UnbindOk, lsn);
        Ok(())
    }

    fn bind_queue(
        &mut self,
        number: u16,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: &FieldTable,
        add: bool,
    ) -> Result<Lsn, Exception> {
        let vhost = self.the_vhost()?;
        let name = self.queue_or_last(number, queue)?;
        let exchange = clean_name(exchange);
        if exchange.is_empty() {
            return Err(self.refused(&TopologyError::DefaultExchange));
        }
        // With neither a queue nor a key, the queue's name is the key, too.
        let routing_key = if queue.is_empty() && routing_key.is_empty() {
            &name
        } else {
            routing_key
        };
        self.allow(Permission::Write, false, &name)?;
        self.allow(Permission::Read, true, &exchange)?;
        self.allow_topic(Permission::Read, &exchange, routing_key.as_bytes())?;
        if !add {
            // What is not bound is not looked at closer, not even whose queue it is.
            let Some(queue) = vhost.queue(&name) else {
                return Ok(Lsn::default());
            };
            let destination = Destination::Queue(queue);
            let spec = BindingSpec {
                source: &exchange,
                destination: &destination,
                routing_key,
                arguments,
            };
            if !vhost.is_bound(&spec) {
                return Ok(Lsn::default());
            }
        }
        let queue = vhost
            .lookup_exchange(&exchange)
            .and_then(|_| vhost.lookup_queue(&name, self.id))
            .map_err(|e| self.refused(&e))?;
        let destination = Destination::Queue(queue);
        let spec = BindingSpec {
            source: &exchange,
            destination: &destination,
            routing_key,
            arguments,
        };
        self.change_binding(&vhost, &spec, add)
    }

    pub(super) fn queue_purge(
        &mut self,
        number: u16,
        m: &queue::Purge<'_>,
    ) -> Result<(), Exception> {
        let vhost = self.the_vhost()?;
        let name = self.queue_or_last(number, m.queue)?;
        self.allow(Permission::Read, false, &name)?;
        let queue = vhost
            .lookup_queue(&name, self.id)
            .map_err(|e| self.refused(&e))?;
        let n = queue.purge(self.now, &mut self.batch.fx);
        let message_count = u32::try_from(n).unwrap_or(u32::MAX);
        // Answered when what was purged cannot come back.
        let lsn = self.flush_batch().map_err(|_| errors::log_failed())?;
        self.answer(number, m.nowait, &queue::PurgeOk { message_count }, lsn);
        Ok(())
    }

    pub(super) fn queue_delete(
        &mut self,
        number: u16,
        m: &queue::Delete<'_>,
    ) -> Result<(), Exception> {
        let vhost = self.the_vhost()?;
        let name = self.queue_or_last(number, m.queue)?;
        self.allow(Permission::Configure, false, &name)?;
        let queue = match vhost.lookup_queue(&name, self.id) {
            Ok(queue) => queue,
            Err(TopologyError::NoQueue(_)) => {
                self.answer(
                    number,
                    m.nowait,
                    &queue::DeleteOk { message_count: 0 },
                    Lsn::default(),
                );
                return Ok(());
            }
            // Whether it is empty nobody knows.
            Err(TopologyError::SetAside { .. }) if !m.if_empty => {
                let lsn = vhost.give_up(true, &name).map_err(|e| self.refused(&e))?;
                self.answer(number, m.nowait, &queue::DeleteOk { message_count: 0 }, lsn);
                return Ok(());
            }
            Err(e) => return Err(self.refused(&e)),
        };
        if queue.info().settings.queue_type == QueueType::Quorum {
            let flags = [(m.if_unused, "if-unused"), (m.if_empty, "if-empty")];
            if let Some((_, flag)) = flags.into_iter().find(|(given, _)| *given) {
                return Err(self.refused(&TopologyError::ConditionalDelete(name, flag)));
            }
        }
        let condition = DeleteIf {
            unused: m.if_unused,
            empty: m.if_empty,
        };
        let (n, lsn) = vhost
            .delete_queue(&queue, condition, &mut self.batch.fx)
            .map_err(|e| self.refused(&e))?;
        self.counted.queues_deleted += 1;
        let message_count = u32::try_from(n).unwrap_or(u32::MAX);
        self.answer(number, m.nowait, &queue::DeleteOk { message_count }, lsn);
        Ok(())
    }
}
