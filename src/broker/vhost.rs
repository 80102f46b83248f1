//! A vhost: its exchanges, queues and bindings, and the operations that change them.
//!
//! One mutex orders all changes of a vhost. A durable change is appended to the log under it and
//! then applied, so that the log's order is the order things happened in. Lookups take read locks
//! only, and publishing mostly not even that (see [`super::routing`]).

mod aside;
mod checks;
mod default_type;
mod delayed;
mod end;
mod error;
mod restore;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use base64::Engine as _;

use self::aside::SetAside;
use self::checks::{check_exchange, exchange_equivalence, fits, redeclare, validate_binding};
pub use self::error::TopologyError;
use super::arguments::{
    ArgumentError, DeadLetterTarget, Inequivalent, QueueSettings, QueueType, equivalent,
    queue_equivalence,
};
use super::codec;
use super::definitions::{self, NEXT_QUEUE_ID, StoredBinding, StoredQueue};
use super::exchange::{
    Destination, Exchange, ExchangeInfo, ExchangeType, HashProperty, HeadersMatch,
    TOPIC_HASHES_MAX, delayed_type, parse_weight,
};
use super::ids::ConnectionId;
use super::limits::Account;
use super::memory::Memory;
use super::ports::{DefinitionKind, Lsn, MessageLog, QueueId, Records, TRANSIENT_QUEUE};
use super::queue::effects::Effects;
use super::queue::{DeleteIf, DeleteRefused, Queue, QueueInfo};
use super::replies::{Replies, ReplyTarget};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::sync::Mutex;

/// Exchanges that every vhost has: name, type, internal.
pub const PREDECLARED: [(&str, ExchangeType, bool); 7] = [
    ("", ExchangeType::Direct, false),
    ("amq.direct", ExchangeType::Direct, false),
    ("amq.fanout", ExchangeType::Fanout, false),
    ("amq.topic", ExchangeType::Topic, false),
    ("amq.headers", ExchangeType::Headers, false),
    ("amq.match", ExchangeType::Headers, false),
    ("amq.rabbitmq.trace", ExchangeType::Topic, true),
];

/// `exchange.declare`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the method's own fields")]
pub struct ExchangeDeclare<'a> {
    pub name: &'a str,
    pub kind: &'a str,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: &'a FieldTable,
}

/// `queue.declare`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the method's own fields")]
pub struct QueueDeclare<'a> {
    pub name: &'a str,
    /// The client left the name to the server: it is a [`generated_name`].
    pub server_named: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: &'a FieldTable,
    pub connection: ConnectionId,
}

impl<'a> QueueDeclare<'a> {
    /// A transient queue of this name that is not exclusive; other flags are set from here.
    pub fn named(name: &'a str, arguments: &'a FieldTable) -> QueueDeclare<'a> {
        QueueDeclare {
            name,
            server_named: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments,
            connection: ConnectionId(0),
        }
    }
}

/// A binding to add or remove.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the method's own fields")]
pub struct BindingSpec<'a> {
    pub source: &'a str,
    pub destination: &'a Destination,
    pub routing_key: &'a str,
    pub arguments: &'a FieldTable,
}

/// What the mutex of a vhost protects.
#[derive(Default)]
struct Links {
    /// Exchanges that have a binding to a destination.
    sources: HashMap<Destination, Vec<Arc<Exchange>>>,
    /// Exclusive queues by owner.
    exclusive: HashMap<ConnectionId, Vec<Arc<Queue>>>,
    /// Position of the latest definition. Whoever declares what is there already waits for it: the
    /// first declaration may not be durable yet, and a reply says that it is.
    changed_at: Lsn,
}

impl Links {
    /// What a declaration waits for that finds what it asks for.
    fn settled_at(&self, durable: bool) -> Lsn {
        if durable {
            self.changed_at
        } else {
            Lsn::default()
        }
    }
}

/// A vhost. See the module.
pub struct Vhost {
    /// Its name.
    pub name: Arc<str>,
    log: Arc<dyn MessageLog>,
    memory: Memory,
    next_queue_id: Arc<AtomicU64>,
    /// Its own, and that of all vhosts.
    accounts: [Arc<Account>; 2],
    replies: Arc<Replies>,
    exchanges: RwLock<HashMap<Box<str>, Arc<Exchange>>>,
    queues: RwLock<HashMap<Box<str>, Arc<Queue>>>,
    links: Mutex<Links>,
    traced: AtomicBool,
    quorum_by_default: AtomicBool,
    aside: SetAside,
}

const UNPOISONED: &str = "a panic aborts the process";

/// A name without the line ends that RabbitMQ strips.
pub fn clean_name(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

/// A fresh name: `prefix` and 22 characters of base64url.
pub fn generated_name(prefix: &str) -> String {
    let mut octets = [0u8; 16];
    random(&mut octets);
    format!(
        "{prefix}{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(octets)
    )
}

/// Fills what makes a name one that nobody can guess.
pub(crate) fn random(octets: &mut [u8]) {
    getrandom::fill(octets).expect("the system has randomness");
}

impl Vhost {
    /// A vhost with its predeclared exchanges.
    pub fn new(
        name: &str,
        log: Arc<dyn MessageLog>,
        memory: Memory,
        next_queue_id: Arc<AtomicU64>,
        accounts: [Arc<Account>; 2],
        replies: Arc<Replies>,
    ) -> Arc<Vhost> {
        for account in &accounts {
            PREDECLARED.iter().for_each(|_| account.exchanges.add());
        }
        let predeclared = PREDECLARED.map(|(name, kind, internal)| {
            let info = ExchangeInfo {
                id: 0,
                name: name.into(),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: FieldTable::new(),
            };
            (Box::from(name), Exchange::new(info, &memory))
        });
        Arc::new(Vhost {
            name: name.into(),
            log,
            memory,
            next_queue_id,
            accounts,
            replies,
            exchanges: RwLock::new(HashMap::from(predeclared)),
            queues: RwLock::default(),
            links: Mutex::new("the topology of a vhost", Links::default()),
            traced: AtomicBool::new(false),
            quorum_by_default: AtomicBool::new(false),
            aside: SetAside::default(),
        })
    }

    /// Whether the firehose is on.
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    /// Turns the firehose on or off. As in RabbitMQ, that is not kept.
    pub fn set_traced(&self, on: bool) {
        self.traced.store(on, Ordering::Relaxed);
    }

    /// An exchange by name.
    pub fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchanges.read().expect(UNPOISONED).get(name).cloned()
    }

    /// A queue by name. It may be marked as deleted: whoever did that is about to unlink it.
    pub fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.read().expect(UNPOISONED).get(name).cloned()
    }

    /// A consumer of direct replies by name; it may be of another vhost.
    pub fn reply_target(&self, name: &str) -> Option<Arc<ReplyTarget>> {
        self.replies.find(name)
    }

    /// All queues.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues
            .read()
            .expect(UNPOISONED)
            .values()
            .cloned()
            .collect()
    }

    /// All exchanges.
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.exchanges
            .read()
            .expect(UNPOISONED)
            .values()
            .cloned()
            .collect()
    }

    /// A queue that this connection may use.
    ///
    /// # Errors
    /// `NoQueue`, `SetAside`, or `Locked` for an exclusive queue of another connection.
    pub fn lookup_queue(
        &self,
        name: &str,
        connection: ConnectionId,
    ) -> Result<Arc<Queue>, TopologyError> {
        let queue = self
            .queue(name)
            .filter(|q| !q.is_deleted())
            .ok_or_else(|| {
                let aside = self.not_aside(true, name).err();
                aside.unwrap_or_else(|| TopologyError::NoQueue(name.into()))
            })?;
        match queue.info().exclusive_owner {
            Some(owner) if owner != connection => Err(TopologyError::Locked(name.into())),
            _ => Ok(queue),
        }
    }

    /// An exchange, or why not.
    ///
    /// # Errors
    /// `NoExchange`, `SetAside`
    pub fn lookup_exchange(&self, name: &str) -> Result<Arc<Exchange>, TopologyError> {
        self.exchange(name).ok_or_else(|| {
            let aside = self.not_aside(false, name).err();
            aside.unwrap_or_else(|| TopologyError::NoExchange(name.into()))
        })
    }

    fn append(&self, links: &mut Links, records: &mut Records) -> Result<Lsn, TopologyError> {
        if records.is_empty() {
            return Ok(Lsn::default());
        }
        links.changed_at = self.log.append(records)?.lsn;
        Ok(links.changed_at)
    }

    /// `exchange.declare`, not passive.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn declare_exchange(&self, d: &ExchangeDeclare<'_>) -> Result<Lsn, TopologyError> {
        let kind =
            ExchangeType::parse(d.kind).ok_or_else(|| TopologyError::UnknownType(d.kind.into()))?;
        if d.name.is_empty() {
            return Err(TopologyError::DefaultExchange);
        }
        let mut links = self.links.lock();
        if let Some(existing) = self.exchange(d.name) {
            return exchange_equivalence(&existing.info, kind, d)
                .map(|()| links.settled_at(existing.info.durable))
                .map_err(|e| TopologyError::ExchangeDiffers(d.name.into(), e));
        }
        if d.name.starts_with("amq.") {
            return Err(TopologyError::ReservedName {
                queue: false,
                name: d.name.into(),
            });
        }
        self.not_aside(false, d.name)?;
        let reached = self.accounts.iter().find_map(|a| a.exchanges.reached());
        if let Some(max) = reached {
            return Err(TopologyError::ExchangeLimit(d.name.into(), max));
        }
        check_exchange(kind, d)?;
        let mut info = ExchangeInfo {
            id: 0,
            name: d.name.into(),
            kind,
            durable: d.durable,
            auto_delete: d.auto_delete,
            internal: d.internal,
            arguments: d.arguments.clone(),
        };
        let mut records = Records::default();
        if info.deduplication().is_some() {
            info.id = self.next_queue_id.fetch_add(1, Ordering::Relaxed);
            let change = self.next_queue_id_change(info.id + 1);
            records.definitions.extend(info.durable.then_some(change));
        }
        if info.durable {
            records
                .definitions
                .push(definitions::put_exchange(&self.name, &info));
        }
        let exchange = Exchange::new(info, &self.memory);
        if kind == ExchangeType::Delayed {
            exchange.set_waiting(self.waiting_queue(&exchange.info, &mut records));
        }
        let lsn = self.append(&mut links, &mut records)?;
        self.exchanges
            .write()
            .expect(UNPOISONED)
            .insert(d.name.into(), exchange);
        self.accounts.iter().for_each(|a| a.exchanges.add());
        Ok(lsn)
    }

    /// `exchange.delete`. Deleting what is not there succeeds.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<Lsn, TopologyError> {
        if name.is_empty() {
            return Err(TopologyError::DefaultExchange);
        }
        if name.starts_with("amq.") {
            return Err(TopologyError::SystemExchange(name.into()));
        }
        let mut links = self.links.lock();
        let Some(exchange) = self.exchange(name) else {
            return self.give_up_under(&mut links, false, name);
        };
        if if_unused && !exchange.router().is_empty() {
            return Err(TopologyError::ExchangeInUse(name.into()));
        }
        let mut records = Records::default();
        self.unlink_exchange(&mut links, &exchange, &mut records);
        self.append(&mut links, &mut records)
    }

    /// Takes an exchange out, with its bindings on both sides and the exchanges that go with them.
    fn unlink_exchange(&self, links: &mut Links, exchange: &Arc<Exchange>, records: &mut Records) {
        let mut gone = vec![exchange.clone()];
        while let Some(exchange) = gone.pop() {
            self.exchanges
                .write()
                .expect(UNPOISONED)
                .remove(&exchange.info.name[..]);
            self.accounts.iter().for_each(|a| a.exchanges.give_back(1));
            if exchange.info.durable {
                let parts = [self.name.as_bytes(), exchange.info.name.as_bytes()];
                records
                    .definitions
                    .push(codec::remove(DefinitionKind::Exchange, &parts));
            }
            let outgoing: Vec<_> = {
                let mut router = exchange.router_mut();
                let all: Vec<_> = router
                    .iter()
                    .map(|(d, k, a)| (d.clone(), k.to_string(), a.clone()))
                    .collect();
                for (destination, ..) in &all {
                    router.unbind_all(destination);
                }
                all
            };
            for (destination, key, arguments) in &outgoing {
                self.forget_source(links, destination, &exchange);
                self.remove_stored(&exchange, destination, key, arguments, records);
            }
            // Last, so that no route found in between is remembered.
            exchange.mark_deleted();
            self.delete_waiting(&exchange, records);
            if let Some(window) = exchange.window() {
                window.forget(&mut records.definitions);
            }
            gone.extend(self.unbind_destination(links, &Destination::Exchange(exchange), records));
        }
    }

    /// Removes all bindings to a destination; returns the auto-delete exchanges this leaves without
    /// any.
    fn unbind_destination(
        &self,
        links: &mut Links,
        destination: &Destination,
        records: &mut Records,
    ) -> Vec<Arc<Exchange>> {
        let mut unused = Vec::new();
        for source in links.sources.remove(destination).unwrap_or_default() {
            let (bindings, empty) = {
                let mut router = source.router_mut();
                (router.unbind_all(destination), router.is_empty())
            };
            source.changed();
            for (key, arguments) in bindings {
                self.remove_stored(&source, destination, &key, &arguments, records);
            }
            if empty && source.info.auto_delete {
                unused.push(source);
            }
        }
        unused
    }

    fn forget_source(&self, links: &mut Links, destination: &Destination, source: &Arc<Exchange>) {
        if let Some(sources) = links.sources.get_mut(destination) {
            sources.retain(|s| !Arc::ptr_eq(s, source));
            if sources.is_empty() {
                links.sources.remove(destination);
            }
        }
    }

    fn stored(
        &self,
        source: &Exchange,
        to: &Destination,
        key: &str,
        arguments: &FieldTable,
    ) -> Option<StoredBinding> {
        (source.info.durable && to.durable()).then(|| StoredBinding {
            source: source.info.name.to_string(),
            to_queue: matches!(to, Destination::Queue(_)),
            destination: to.name().to_string(),
            routing_key: key.to_string(),
            arguments: arguments.clone(),
        })
    }

    fn remove_stored(
        &self,
        source: &Exchange,
        to: &Destination,
        key: &str,
        arguments: &FieldTable,
        records: &mut Records,
    ) {
        if let Some(stored) = self.stored(source, to, key, arguments) {
            records.definitions.push(stored.remove(&self.name));
        }
    }

    /// `queue.declare`, not passive. The flag is true if the queue is new.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn declare_queue(
        &self,
        d: &QueueDeclare<'_>,
    ) -> Result<(Arc<Queue>, Lsn, bool), TopologyError> {
        let arguments = self.with_default_type(d);
        let arguments = arguments.as_ref().unwrap_or(d.arguments);
        let d = &QueueDeclare { arguments, ..*d };
        let name = d.name;
        if name.starts_with("amq.") && !d.server_named {
            return Err(TopologyError::ReservedName {
                queue: true,
                name: name.into(),
            });
        }
        let durable = d.durable && !d.exclusive;
        loop {
            let mut links = self.links.lock();
            if let Some(queue) = self.queue(name) {
                if queue.is_deleted() {
                    // Its deletion waits for this lock.
                    drop(links);
                    self.finish_deletion(&queue)?;
                    continue;
                }
                redeclare(queue.info(), d, durable)?;
                return Ok((queue, links.settled_at(durable), false));
            }
            self.not_aside(true, name)?;
            for (account, all) in self.accounts.iter().zip([false, true]) {
                if let Some(max) = account.queues.reached() {
                    return Err(TopologyError::QueueLimit(name.into(), max, all));
                }
            }
            let settings = QueueSettings::parse(d.arguments)
                .map_err(|e| TopologyError::Argument(name.into(), e))?;
            fits(d, name, settings.queue_type)?;
            let number = self.next_queue_id.fetch_add(1, Ordering::Relaxed);
            let id = if durable {
                number
            } else {
                number | TRANSIENT_QUEUE
            };
            let mut records = Records::default();
            if durable {
                let stored = StoredQueue {
                    id,
                    name: name.to_string(),
                    auto_delete: d.auto_delete,
                    arguments: d.arguments.clone(),
                    delays: None,
                };
                records.definitions.push(stored.put(&self.name));
                records
                    .definitions
                    .push(self.next_queue_id_change(number + 1));
            }
            let lsn = self.append(&mut links, &mut records)?;
            let info = QueueInfo {
                id: QueueId(id),
                vhost: self.name.clone(),
                name: name.into(),
                durable,
                auto_delete: d.auto_delete,
                exclusive_owner: d.exclusive.then_some(d.connection),
                arguments: d.arguments.clone(),
                settings,
                delays: None,
            };
            let queue = Queue::new(info, &self.memory);
            self.queues
                .write()
                .expect(UNPOISONED)
                .insert(name.into(), queue.clone());
            self.accounts.iter().for_each(|a| a.queues.add());
            if d.exclusive {
                links
                    .exclusive
                    .entry(d.connection)
                    .or_default()
                    .push(queue.clone());
            }
            return Ok((queue, lsn, true));
        }
    }

    /// Deletes a queue; returns how many ready messages went with it.
    ///
    /// # Errors
    /// `QueueInUse`, `QueueNotEmpty`, `LogFailed`. A queue that somebody else deleted meanwhile
    /// counts as deleted, with no messages.
    pub fn delete_queue(
        &self,
        queue: &Arc<Queue>,
        condition: DeleteIf,
        fx: &mut Effects,
    ) -> Result<(u64, Lsn), TopologyError> {
        let name = || queue.info().name.to_string();
        let n = match queue.mark_deleted(condition, fx) {
            Ok(n) => n,
            Err(DeleteRefused::InUse) => return Err(TopologyError::QueueInUse(name())),
            Err(DeleteRefused::NotEmpty) => return Err(TopologyError::QueueNotEmpty(name())),
            Err(DeleteRefused::Gone) => 0,
        };
        Ok((n, self.finish_deletion(queue)?))
    }

    /// Unlinks a queue that is marked as deleted, unless that happened already.
    fn finish_deletion(&self, queue: &Arc<Queue>) -> Result<Lsn, TopologyError> {
        let info = queue.info();
        let mut links = self.links.lock();
        {
            let mut queues = self.queues.write().expect(UNPOISONED);
            if !queues
                .get(&info.name[..])
                .is_some_and(|q| Arc::ptr_eq(q, queue))
            {
                return Ok(links.settled_at(info.durable));
            }
            queues.remove(&info.name[..]);
        }
        self.accounts.iter().for_each(|a| a.queues.give_back(1));
        let mut records = Records::default();
        if info.durable {
            let parts = [self.name.as_bytes(), info.name.as_bytes()];
            records
                .definitions
                .push(codec::remove(DefinitionKind::Queue, &parts));
        }
        if let Some(window) = queue.window() {
            window.forget(&mut records.definitions);
        }
        if let Some(owner) = info.exclusive_owner
            && let Some(list) = links.exclusive.get_mut(&owner)
        {
            list.retain(|q| !Arc::ptr_eq(q, queue));
            if list.is_empty() {
                links.exclusive.remove(&owner);
            }
        }
        for unused in
            self.unbind_destination(&mut links, &Destination::Queue(queue.clone()), &mut records)
        {
            self.unlink_exchange(&mut links, &unused, &mut records);
        }
        let lsn = self.append(&mut links, &mut records)?;
        // Nobody waits for the end of a queue that did not survive anyway.
        Ok(if info.durable { lsn } else { Lsn::default() })
    }

    /// The exclusive queues of a connection, which is about to delete all of them: they are its no longer.
    pub fn take_exclusive_queues(&self, connection: ConnectionId) -> Vec<Arc<Queue>> {
        let mut links = self.links.lock();
        links.exclusive.remove(&connection).unwrap_or_default()
    }

    /// Whether a binding is there.
    pub fn is_bound(&self, b: &BindingSpec<'_>) -> bool {
        let Some(source) = self.exchange(b.source) else {
            return false;
        };
        source
            .router()
            .contains(b.routing_key, b.arguments, b.destination)
    }

    /// Adds a binding; nothing happens if it is there. The flag is true if it is new.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn bind(&self, b: &BindingSpec<'_>) -> Result<(Lsn, bool), TopologyError> {
        let mut links = self.links.lock();
        let source = self.lookup_exchange(b.source)?;
        let gone = match b.destination {
            Destination::Queue(q) => q
                .is_deleted()
                .then(|| TopologyError::NoQueue(q.info().name.to_string())),
            Destination::Exchange(x) => x
                .is_deleted()
                .then(|| TopologyError::NoExchange(x.info.name.to_string())),
        };
        if let Some(error) = gone {
            return Err(error);
        }
        validate_binding(source.info.routes_as(), b)?;
        if self.is_bound(b) {
            let durable = source.info.durable && b.destination.durable();
            return Ok((links.settled_at(durable), false));
        }
        let mut records = Records::default();
        if let Some(stored) = self.stored(&source, b.destination, b.routing_key, b.arguments) {
            records.definitions.push(stored.put(&self.name));
        }
        let lsn = self.append(&mut links, &mut records)?;
        source
            .router_mut()
            .bind(b.routing_key, b.arguments, b.destination);
        let sources = links.sources.entry(b.destination.clone()).or_default();
        if !sources.iter().any(|s| Arc::ptr_eq(s, &source)) {
            sources.push(source.clone());
        }
        source.changed();
        Ok((lsn, true))
    }

    /// Removes a binding; nothing happens if it is not there.
    ///
    /// # Errors
    /// `LogFailed`
    pub fn unbind(&self, b: &BindingSpec<'_>) -> Result<Lsn, TopologyError> {
        let mut links = self.links.lock();
        let Some(source) = self.exchange(b.source) else {
            return Ok(Lsn::default());
        };
        let (bound, empty, still) = {
            let mut router = source.router_mut();
            let bound = router.unbind(b.routing_key, b.arguments, b.destination);
            (bound, router.is_empty(), router.leads_to(b.destination))
        };
        let Some(arguments) = bound else {
            return Ok(Lsn::default());
        };
        source.changed();
        if !still {
            self.forget_source(&mut links, b.destination, &source);
        }
        let mut records = Records::default();
        self.remove_stored(
            &source,
            b.destination,
            b.routing_key,
            &arguments,
            &mut records,
        );
        if empty && source.info.auto_delete {
            self.unlink_exchange(&mut links, &source, &mut records);
        }
        self.append(&mut links, &mut records)
    }

    /// The change that notes the next id of a queue: ids are never used twice. The counter is shared,
    /// so each vhost notes it under a key of its own, in the order of its own changes; the highest
    /// counts. Under one key an earlier number of one vhost could replace a later one of another.
    fn next_queue_id_change(&self, next: u64) -> super::ports::DefinitionChange {
        let mut t = FieldTable::new();
        t.insert("next", next as i64);
        let key = [NEXT_QUEUE_ID.as_bytes(), self.name.as_bytes()];
        codec::put(DefinitionKind::Meta, &key, &t)
    }
}

#[cfg(test)]
pub(super) mod tests;
