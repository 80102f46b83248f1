//! Exchanges: what bindings lead where.
//!
//! A [`Router`] is a pure table from keys (or headers) to destinations; an [`Exchange`] is one with
//! a name and properties. Every change of its bindings bumps the exchange's version, which is what
//! cached routes are compared with.

mod choosing;
mod delayed;
mod destinations;
mod headers;
mod history;
mod router;
mod topic;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use choosing::{WEIGHT_MAX, WeightError, parse_weight};
pub use delayed::{DELAY_HEADER, DELAY_MAX_MS, delay_of, delayed_type, milliseconds};
pub use headers::{HeadersMatch, MatchArgumentError};
pub use history::{HISTORY_DEFAULT, HISTORY_MAX, NO_STORE_HEADER};
pub use router::{HashProperty, Router};

use self::history::History;
use super::arguments::DeduplicationSettings;
use super::deduplication::Window;
use super::memory::Memory;
use super::message::Message;
use super::queue::Queue;
use crate::protocol::field_table::FieldTable;
use crate::sync::Mutex;

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
    /// To one destination, by a hash; the binding keys are weights.
    ConsistentHash,
    /// To one destination, by a hash of the key modulo their number.
    ModulusHash,
    /// To one destination, any.
    Random,
    /// The same; in a cluster, to one on this node.
    LocalRandom,
    /// To all, and what came last again to those who bind later.
    RecentHistory,
    /// As another type says, after the milliseconds that a header says.
    Delayed,
    /// Everything to everyone, once.
    Deduplication,
}

/// The types by their names on the wire.
const TYPES: [(&str, ExchangeType); 11] = [
    ("direct", ExchangeType::Direct),
    ("fanout", ExchangeType::Fanout),
    ("topic", ExchangeType::Topic),
    ("headers", ExchangeType::Headers),
    ("x-consistent-hash", ExchangeType::ConsistentHash),
    ("x-modulus-hash", ExchangeType::ModulusHash),
    ("x-random", ExchangeType::Random),
    ("x-local-random", ExchangeType::LocalRandom),
    ("x-recent-history", ExchangeType::RecentHistory),
    ("x-delayed-message", ExchangeType::Delayed),
    ("x-message-deduplication", ExchangeType::Deduplication),
];

impl ExchangeType {
    /// By its name on the wire.
    pub fn parse(name: &str) -> Option<ExchangeType> {
        TYPES.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        TYPES
            .iter()
            .find(|(_, t)| *t == self)
            .map_or("", |(name, _)| name)
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

impl choosing::Place for Destination {
    fn place(&self) -> u64 {
        let kind: &[u8] = match self {
            Destination::Queue(_) => b"queue",
            Destination::Exchange(_) => b"exchange",
        };
        choosing::stable_hash(&[kind, self.name().as_bytes()])
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
    /// What the store calls it where its name may come again; zero: nothing there does.
    pub id: u64,
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
    /// The type whose rules its bindings follow: of a delayed exchange what comes after the delay.
    pub fn routes_as(&self) -> ExchangeType {
        match self.kind {
            ExchangeType::Delayed => delayed_type(&self.arguments).unwrap_or(self.kind),
            kind => kind,
        }
    }

    /// What its arguments say about de-duplication; they were checked when it was declared.
    pub fn deduplication(&self) -> Option<DeduplicationSettings> {
        let implied = self.kind == ExchangeType::Deduplication;
        DeduplicationSettings::parse(&self.arguments, implied)
            .ok()
            .flatten()
    }

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
    /// What came last, for `x-recent-history`.
    history: Mutex<History>,
    /// Where messages wait, for `x-delayed-message`.
    waiting: OnceLock<Arc<Queue>>,
    /// What came before, for de-duplication.
    window: Option<Arc<Window>>,
}

impl Exchange {
    /// Without bindings; what it remembers counts in `memory`.
    pub fn new(info: ExchangeInfo, memory: &Memory) -> Arc<Exchange> {
        let router = RwLock::new(Router::new(info.kind, &info.arguments));
        let window = info
            .deduplication()
            .map(|settings| Window::new(info.id, info.durable, settings, memory));
        Arc::new(Exchange {
            info,
            version: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            router,
            history: Mutex::new("the history of an exchange", History::default()),
            waiting: OnceLock::new(),
            window,
        })
    }

    /// De-duplication: what came before.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.window.as_ref()
    }

    /// `x-recent-history`: notes a message that came this way, unless it says that it should not be.
    pub fn remember(&self, message: &Message) {
        self.history.lock().push(message, &self.info.arguments);
    }

    /// `x-recent-history`: what came last, oldest first.
    pub fn recent(&self) -> Vec<Message> {
        self.history.lock().messages()
    }

    /// `x-delayed-message`: where messages wait for their time.
    pub fn waiting(&self) -> Option<&Arc<Queue>> {
        self.waiting.get()
    }

    /// Sets [`Self::waiting`], once, before anybody else knows the exchange.
    pub(super) fn set_waiting(&self, queue: Arc<Queue>) {
        // A second one would be a mistake of ours; the first one has the messages.
        let _ = self.waiting.set(queue);
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
