//! What the user may do (behaviour as RabbitMQ's, which matches patterns anywhere in a name).

use super::Connection;
use crate::amqp::errors::{self, Exception};
use crate::broker::access::Permission;
use crate::broker::exchange::ExchangeType;

impl Connection {
    /// Permissions are kept until somebody's change.
    fn refresh_permissions(&mut self) {
        let version = self.broker.access().version();
        if self.permissions.as_ref().is_none_or(|(v, _)| *v != version) {
            let vhost = self.vhost.as_ref().map_or("", |v| &v.name);
            let access = self.broker.access();
            self.permissions = access
                .permissions(&self.peer.user, vhost)
                .map(|p| (version, p));
            self.topics = access.topic_permissions(&self.peer.user, vhost);
        }
    }

    /// Whether the user may do this to a queue or an exchange.
    pub(in crate::amqp) fn allow(
        &mut self,
        what: Permission,
        exchange: bool,
        name: &str,
    ) -> Result<(), Exception> {
        self.refresh_permissions();
        let asked = if exchange && name.is_empty() {
            "amq.default"
        } else {
            name
        };
        if self
            .permissions
            .as_ref()
            .is_some_and(|(_, p)| p.allows(what, asked.as_bytes()))
        {
            return Ok(());
        }
        let vhost = self.vhost.as_ref().map_or("", |v| &v.name);
        Err(errors::refused(
            what,
            exchange,
            name,
            vhost,
            &self.peer.user,
        ))
    }

    /// Whether the user may do anything with a queue or an exchange: what a passive declaration takes since
    /// RabbitMQ 4.3.
    pub(in crate::amqp) fn allow_any(
        &mut self,
        exchange: bool,
        name: &str,
    ) -> Result<(), Exception> {
        for what in [Permission::Write, Permission::Read] {
            if self.allow(what, exchange, name).is_ok() {
                return Ok(());
            }
        }
        self.allow(Permission::Configure, exchange, name)
    }

    /// Whether the user may do this with a routing key, if the exchange is a topic exchange. Comes
    /// after [`Self::allow`].
    pub(in crate::amqp) fn allow_topic(
        &self,
        what: Permission,
        exchange: &str,
        routing_key: &[u8],
    ) -> Result<(), Exception> {
        let (Some(topics), Some(vhost)) = (&self.topics, &self.vhost) else {
            return Ok(());
        };
        if topics.allows(what, exchange, routing_key)
            || vhost
                .exchange(exchange)
                .is_none_or(|x| x.info.kind != ExchangeType::Topic)
        {
            return Ok(());
        }
        let user = &self.peer.user;
        Err(errors::refused_topic(
            what,
            routing_key,
            exchange,
            &vhost.name,
            user,
        ))
    }
}
