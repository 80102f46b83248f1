//! Exchanges: what bindings lead where.
//!
//! A [`Router`] is a pure table from keys (or headers) to destinations; an [`Exchange`] is one with
//! a name and properties. Every change of its bindings bumps the exchange's version, which is what
//! cached routes are compared with.

mod destinations;
mod headers;
mod router;
mod topic;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use headers::{HeadersMatch, MatchArgumentError};
pub use router::Router;

use super::queue::Queue;
use crate::protocol::field_table::FieldTable;

/// How often `#` may occur in the binding key of a topic exchange; RabbitMQ 4.3 draws the same line.
/// It keeps the work of matching one key proportional to its words.
pub const TOPIC_HASHES_MAX: usize = 2;

/// The exchange types.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ExchangeType {
    /// Exact match of the routing key.
    Direct,
    /// Everything to everyone.
    Fanout,
    /// Patterns of words.
    Topic,
    /// By headers.
    Headers,
}

impl ExchangeType {
    /// By its name on the wire.
    pub fn parse(name: &str) -> Option<ExchangeType> {
        match name {
            "direct" => Some(ExchangeType::Direct),
            "fanout" => Some(ExchangeType::Fanout),
            "topic" => Some(ExchangeType::Topic),
            "headers" => Some(ExchangeType::Headers),
            _ => None,
        }
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ExchangeType::Direct => "direct",
            ExchangeType::Fanout => "fanout",
            ExchangeType::Topic => "topic",
            ExchangeType::Headers => "headers",
        }
    }
}

/// Where a binding leads.
#[derive(Clone, Debug)]
pub enum Destination {
    /// To a queue.
    Queue(Arc<Queue>),
    /// To another exchange.
    Exchange(Arc<Exchange>),
}

impl Destination {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Destination::Queue(q) => &q.info().name,
            Destination::Exchange(x) => &x.info.name,
        }
    }

    /// Whether it survives a restart.
    pub fn durable(&self) -> bool {
        match self {
            Destination::Queue(q) => q.info().durable,
            Destination::Exchange(x) => x.info.durable,
        }
    }

    fn address(&self) -> usize {
        match self {
            Destination::Queue(q) => Arc::as_ptr(q) as usize,
            Destination::Exchange(x) => Arc::as_ptr(x) as usize,
        }
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

/// What an exchange is, fixed at its declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeInfo {
    /// Name; empty for the default exchange.
    pub name: Arc<str>,
    /// Type.
    pub kind: ExchangeType,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last binding.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
    /// The arguments as declared.
    pub arguments: FieldTable,
}

impl ExchangeInfo {
    /// `alternate-exchange`: where messages go that find no queue.
    pub fn alternate(&self) -> Option<&str> {
        self.arguments.get("alternate-exchange")?.as_str()
    }
}

/// An exchange.
#[derive(Debug)]
pub struct Exchange {
    /// What it is.
    pub info: ExchangeInfo,
    version: AtomicU64,
    deleted: AtomicBool,
    router: RwLock<Router<Destination>>,
}

impl Exchange {
    /// Without bindings.
    pub fn new(info: ExchangeInfo) -> Arc<Exchange> {
        let router = RwLock::new(Router::new(info.kind));
        Arc::new(Exchange {
            info,
            version: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            router,
        })
    }

    /// Counts the changes of its bindings.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Marks it as deleted. The mark is set before the version moves: who remembers a route with
    /// the new version has seen the mark, who saw no mark remembers a version that is stale.
    pub(super) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.changed();
    }

    /// Makes cached routes through this exchange stale.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Its bindings.
    pub fn router(&self) -> RwLockReadGuard<'_, Router<Destination>> {
        self.router.read().expect("a panic aborts the process")
    }

    /// Its bindings, to be changed under the topology's lock.
    pub(super) fn router_mut(&self) -> RwLockWriteGuard<'_, Router<Destination>> {
        self.router.write().expect("a panic aborts the process")
    }
}
