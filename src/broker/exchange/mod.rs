//! Exchanges: what bindings lead where.
//!
//! A [`Router`] is a pure table from keys (or headers) to destinations; an [`Exchange`] is one with
//! a name and properties. Every change of its bindings bumps the exchange's version, which is what
//! cached routes are compared with.

mod headers;
mod topic;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use headers::{HeadersMatch, MatchArgumentError};

use self::headers::HeadersTable;
use self::topic::TopicTrie;
use super::queue::Queue;
use crate::protocol::field_table::FieldTable;

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

/// A binding from an exchange: identified by all three together.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding<D> {
    /// Binding key.
    pub key: Box<str>,
    /// Arguments.
    pub arguments: FieldTable,
    /// Where it leads.
    pub destination: D,
}

/// The bindings of one exchange, indexed for its type.
#[derive(Debug)]
pub struct Router<D> {
    /// Every binding, by destination.
    bindings: HashMap<D, Vec<(Box<str>, FieldTable)>>,
    index: Index<D>,
}

#[derive(Debug)]
enum Index<D> {
    Direct(HashMap<Box<str>, Vec<D>>),
    Fanout,
    Topic(TopicTrie<D>),
    Headers(HeadersTable<D>),
}

impl<D: Clone + Eq + Hash> Router<D> {
    /// Without bindings.
    pub fn new(kind: ExchangeType) -> Router<D> {
        let index = match kind {
            ExchangeType::Direct => Index::Direct(HashMap::new()),
            ExchangeType::Fanout => Index::Fanout,
            ExchangeType::Topic => Index::Topic(TopicTrie::default()),
            ExchangeType::Headers => Index::Headers(HeadersTable::default()),
        };
        Router {
            bindings: HashMap::new(),
            index,
        }
    }

    /// Whether there are no bindings.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// All bindings.
    pub fn iter(&self) -> impl Iterator<Item = (&D, &str, &FieldTable)> {
        self.bindings
            .iter()
            .flat_map(|(d, list)| list.iter().map(move |(key, args)| (d, key.as_ref(), args)))
    }

    /// Whether a binding is there.
    pub fn contains(&self, key: &str, arguments: &FieldTable, destination: &D) -> bool {
        let list = self.bindings.get(destination);
        list.is_some_and(|list| {
            list.iter()
                .any(|(k, a)| k.as_ref() == key && a == arguments)
        })
    }

    /// Adds a binding; false if it is there already.
    pub fn bind(&mut self, key: &str, arguments: &FieldTable, destination: &D) -> bool {
        let list = self.bindings.entry(destination.clone()).or_default();
        if list
            .iter()
            .any(|(k, a)| k.as_ref() == key && a == arguments)
        {
            return false;
        }
        let same_key = list.iter().any(|(k, _)| k.as_ref() == key);
        list.push((key.into(), arguments.clone()));
        match &mut self.index {
            Index::Direct(map) if !same_key => {
                map.entry(key.into()).or_default().push(destination.clone());
            }
            Index::Topic(trie) if !same_key => trie.insert(key, destination.clone()),
            Index::Headers(table) => table.insert(arguments, destination.clone()),
            _ => {}
        }
        true
    }

    /// Removes a binding; false if there is none.
    pub fn unbind(&mut self, key: &str, arguments: &FieldTable, destination: &D) -> bool {
        let Some(list) = self.bindings.get_mut(destination) else {
            return false;
        };
        let Some(at) = list
            .iter()
            .position(|(k, a)| k.as_ref() == key && a == arguments)
        else {
            return false;
        };
        list.remove(at);
        let same_key = list.iter().any(|(k, _)| k.as_ref() == key);
        if list.is_empty() {
            self.bindings.remove(destination);
        }
        self.unindex(key, arguments, destination, same_key);
        true
    }

    fn unindex(&mut self, key: &str, arguments: &FieldTable, destination: &D, same_key_left: bool) {
        match &mut self.index {
            Index::Direct(map) if !same_key_left => {
                if let Some(list) = map.get_mut(key) {
                    list.retain(|d| d != destination);
                    if list.is_empty() {
                        map.remove(key);
                    }
                }
            }
            Index::Topic(trie) if !same_key_left => trie.remove(key, destination),
            Index::Headers(table) => table.remove(arguments, destination),
            _ => {}
        }
    }

    /// Removes all bindings to a destination and returns their keys and arguments.
    pub fn unbind_all(&mut self, destination: &D) -> Vec<(Box<str>, FieldTable)> {
        let gone = self.bindings.remove(destination).unwrap_or_default();
        for (i, (key, arguments)) in gone.iter().enumerate() {
            let again = gone[..i].iter().any(|(k, _)| k == key);
            self.unindex(key, arguments, destination, again);
        }
        gone
    }

    /// Whether routes depend on the headers, not on the key.
    pub fn by_headers(&self) -> bool {
        matches!(self.index, Index::Headers(_))
    }

    /// Appends the destinations of a message; one may come more than once.
    pub fn route(&self, key: &str, headers: impl FnOnce() -> FieldTable, out: &mut Vec<D>) {
        match &self.index {
            Index::Direct(map) => out.extend(map.get(key).into_iter().flatten().cloned()),
            Index::Fanout => out.extend(self.bindings.keys().cloned()),
            Index::Topic(trie) => trie.route(key, out),
            Index::Headers(table) => table.route(&headers(), out),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn route(r: &Router<u32>, key: &str) -> Vec<u32> {
        let mut out = vec![];
        r.route(key, FieldTable::new, &mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn a_direct_exchange_matches_the_whole_key() {
        let mut r = Router::new(ExchangeType::Direct);
        assert!(r.bind("a", &FieldTable::new(), &1));
        assert!(!r.bind("a", &FieldTable::new(), &1));
        assert!(r.bind("a", &FieldTable::new(), &2));
        assert_eq!(route(&r, "a"), [1, 2]);
        assert!(route(&r, "b").is_empty());
        assert!(r.unbind("a", &FieldTable::new(), &1));
        assert!(!r.unbind("a", &FieldTable::new(), &1));
        assert_eq!(route(&r, "a"), [2]);
    }

    #[test]
    fn bindings_that_differ_in_arguments_are_two() {
        let mut r = Router::new(ExchangeType::Topic);
        let mut args = FieldTable::new();
        args.insert("x", 1i64);
        assert!(r.bind("a.*", &FieldTable::new(), &1));
        assert!(r.bind("a.*", &args, &1));
        assert_eq!(route(&r, "a.b"), [1]);
        assert!(r.unbind("a.*", &args, &1));
        assert_eq!(route(&r, "a.b"), [1]);
        assert_eq!(r.unbind_all(&1).len(), 1);
        assert!(r.is_empty());
        assert!(route(&r, "a.b").is_empty());
    }

    #[test]
    fn a_fanout_exchange_ignores_the_key() {
        let mut r = Router::new(ExchangeType::Fanout);
        r.bind("a", &FieldTable::new(), &1);
        r.bind("b", &FieldTable::new(), &1);
        r.bind("", &FieldTable::new(), &2);
        assert_eq!(route(&r, "zzz"), [1, 2]);
    }
}
