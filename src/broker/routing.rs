//! From an exchange and a routing key to queues.
//!
//! Each connection remembers the routes it used. A remembered route holds the exchanges it went
//! through with their versions; while those are unchanged and no queue of it is deleted, it is
//! used without a lock, a reference count or an allocation.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::deduplication::{Admission, Window};
use super::exchange::{Destination, Exchange, ExchangeType, delay_of};
use super::memory::{Charge, Memory, Use};
use super::queue::Queue;
use super::replies::{REPLY_TO, is_address};
use super::route::{Route, SpecialTarget};
use super::vhost::Vhost;
use crate::protocol::properties::PropertiesRef;

/// Routes that one connection remembers at most; a publisher with random keys starts over.
pub const CACHED_ROUTES_MAX: usize = 1024;

/// What these take at most, keys, queues and all; so that a thousand keys that each lead to ten thousand
/// queues do not fill the memory.
pub const CACHED_BYTES_MAX: usize = 512 * 1024;

/// What all connections of a broker remember before each of them remembers [`CACHED_ROUTES_FEW`] only.
pub const CACHED_BYTES_IN_ALL: u64 = 32 << 20;

/// See [`CACHED_BYTES_IN_ALL`].
pub const CACHED_ROUTES_FEW: usize = 64;

/// Up to this many queues of a route are searched one after the other for one that comes again.
const SEARCHED_MAX: usize = 16;

/// Why a message cannot be routed at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RouteError {
    /// No such exchange.
    NoExchange,
    /// Clients cannot publish to it.
    Internal,
}

#[derive(Debug, Default)]
struct CachedRoute {
    exchange: Box<str>,
    key: Box<[u8]>,
    found: Route,
    through: Vec<(Arc<Exchange>, u64)>,
}

impl CachedRoute {
    /// What it takes in the cache.
    fn bytes(&self) -> usize {
        let found = size_of_val(&*self.found.queues) + size_of_val(&*self.found.special);
        let names = self.exchange.len() + self.key.len();
        ROUTE_BYTES + names + found + size_of_val(&*self.through)
    }

    fn is_for(&self, exchange: &str, key: &[u8]) -> bool {
        same(&self.key, key) && same(self.exchange.as_bytes(), exchange.as_bytes())
    }

    fn is_valid(&self) -> bool {
        self.through
            .iter()
            .all(|(x, version)| x.version() == *version)
            && !self.found.queues.iter().any(|q| q.is_deleted())
    }
}

/// Compares two names. An empty boxed string points nowhere, and where `memcmp` uses masked loads
/// (glibc on AVX-512), comparing no bytes there costs 130 ns: the processor looks into the fault that
/// the mask suppresses. The default exchange has the empty name.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// What a route takes by itself: its place, that in the index, and what an allocator rounds up.
const ROUTE_BYTES: usize = size_of::<CachedRoute>() + 2 * size_of::<(u64, usize)>() + 3 * 16;

/// What looking for a route is, beside the comparisons, in their unit.
const ROUTE_WORK: usize = 4;

/// Passes on what is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The routes a connection remembers.
#[derive(Debug, Default)]
pub struct RouteCache {
    routes: Vec<CachedRoute>,
    /// By the hash of exchange and key; of two with the same one the later stands here.
    index: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    /// Nobody can choose keys that have the same hash.
    hasher: RandomState,
    last: usize,
    /// Of all routes.
    bytes: usize,
    memory: Option<Memory>,
    charge: Charge,
    /// Where the latest message went whose route cannot be remembered.
    once: Route,
    /// See [`Self::take_work`].
    work: usize,
}

impl RouteCache {
    /// A cache that is counted there.
    pub fn new(memory: &Memory) -> RouteCache {
        RouteCache {
            memory: Some(memory.clone()),
            charge: memory.charge(Use::Routes),
            ..RouteCache::default()
        }
    }

    /// Where a message goes.
    ///
    /// # Errors
    /// [`RouteError`]
    pub fn route(
        &mut self,
        vhost: &Vhost,
        exchange: &str,
        key: &[u8],
        properties: PropertiesRef<'_>,
    ) -> Result<&Route, RouteError> {
        let hit = match self.routes.get(self.last) {
            Some(route) if route.is_for(exchange, key) => Some(self.last),
            _ => {
                let at = self.index.get(&self.hash(exchange, key)).copied();
                at.filter(|at| self.routes[*at].is_for(exchange, key))
            }
        };
        if let Some(at) = hit
            && self.routes[at].is_valid()
        {
            self.last = at;
            return Ok(&self.routes[at].found);
        }
        let mut once = std::mem::take(&mut self.once);
        once.clear();
        let mut found = Finder {
            found: once,
            ..Finder::default()
        };
        if exchange.is_empty() {
            found.by_queue_name(vhost, &[key]);
        } else {
            let start = vhost.exchange(exchange).ok_or(RouteError::NoExchange)?;
            if start.info.internal {
                return Err(RouteError::Internal);
            }
            if !found.run(vhost, &start, &[key], properties) {
                return Err(RouteError::NoExchange);
            }
        }
        self.work += found.compared + ROUTE_WORK;
        if found.cacheable {
            let route = CachedRoute {
                exchange: exchange.into(),
                key: key.into(),
                found: found.found,
                through: found.through,
            };
            let at = self.remember(hit, route);
            Ok(&self.routes[at].found)
        } else {
            self.once = found.found;
            Ok(&self.once)
        }
    }

    /// What looking for routes took since the last call: bindings that messages were compared with, and some for each
    /// route that was not remembered.
    pub fn take_work(&mut self) -> u32 {
        u32::try_from(std::mem::take(&mut self.work)).unwrap_or(u32::MAX)
    }

    fn hash(&self, exchange: &str, key: &[u8]) -> u64 {
        self.hasher.hash_one((exchange, key))
    }

    /// How many routes it may remember.
    fn most(&self) -> usize {
        match &self.memory {
            Some(memory) if memory.used(Use::Routes) > CACHED_BYTES_IN_ALL => CACHED_ROUTES_FEW,
            _ => CACHED_ROUTES_MAX,
        }
    }

    /// Puts a route where it was found stale, or adds it.
    fn remember(&mut self, stale: Option<usize>, mut route: CachedRoute) -> usize {
        route.found.queues.shrink_to_fit();
        route.through.shrink_to_fit();
        let before = stale.map_or(0, |at| self.routes[at].bytes());
        self.bytes = self.bytes - before + route.bytes();
        let full = stale.is_none() && self.routes.len() >= self.most();
        let at = if full || self.bytes > CACHED_BYTES_MAX {
            (self.routes, self.index) = Default::default();
            self.bytes = route.bytes();
            None
        } else {
            stale
        };
        self.charge.set(self.bytes as u64);
        self.last = match at {
            Some(at) => {
                self.routes[at] = route;
                at
            }
            None => {
                let at = self.routes.len();
                self.index
                    .insert(self.hash(&route.exchange, &route.key), at);
                self.routes.push(route);
                at
            }
        };
        self.last
    }
}

/// Routes a message with several keys, its own and those in its `CC` and `BCC` headers, without
/// remembering. Each queue comes once, and an alternate exchange is asked only if none of the keys
/// leads anywhere. `None`: there is no such exchange.
pub fn route_keys(
    vhost: &Vhost,
    exchange: &[u8],
    keys: &[&[u8]],
    properties: PropertiesRef<'_>,
) -> Option<Route> {
    let mut found = Finder::default();
    let start = vhost.exchange(std::str::from_utf8(exchange).ok()?)?;
    found
        .run(vhost, &start, keys, properties)
        .then_some(found.found)
}

/// Where a message goes that reaches a destination by itself: what an `x-recent-history` exchange
/// tells those who bind later.
pub fn route_to(
    vhost: &Vhost,
    destination: &Destination,
    key: &[u8],
    properties: PropertiesRef<'_>,
) -> Route {
    let mut found = Finder::default();
    match destination {
        Destination::Queue(queue) => found.add(queue.clone()),
        Destination::Exchange(x) => {
            found.run(vhost, x, &[key], properties);
        }
    }
    found.found
}

/// Where a message goes that de-duplication windows look at; they have noted it. The caller holds the
/// turn, see [`super::Broker::take_turn`].
pub fn route_once(
    vhost: &Vhost,
    exchange: &str,
    keys: &[&[u8]],
    admission: Admission,
    properties: PropertiesRef<'_>,
) -> (Route, Admission) {
    let mut found = Finder {
        admission: Some(admission),
        ..Finder::default()
    };
    if let Some(start) = vhost.exchange(exchange) {
        found.run(vhost, &start, keys, properties);
    }
    (found.found, found.admission.unwrap_or_default())
}

/// The way of one message through exchanges to queues.
struct Finder {
    found: Route,
    /// Set when de-duplication windows are to decide.
    admission: Option<Admission>,
    /// Addresses of its queues, when they are too many to be searched.
    seen: HashSet<usize>,
    through: Vec<(Arc<Exchange>, u64)>,
    cacheable: bool,
    /// Bindings that the message was compared with.
    compared: usize,
}

impl Default for Finder {
    fn default() -> Self {
        Finder {
            found: Route::default(),
            admission: None,
            seen: HashSet::new(),
            through: Vec::new(),
            cacheable: true,
            compared: 0,
        }
    }
}

impl Finder {
    /// The default exchange: a key is the name of a queue.
    fn by_queue_name(&mut self, vhost: &Vhost, keys: &[&[u8]]) {
        for key in keys {
            // The names of queues, and of consumers of direct replies, are UTF-8.
            let Ok(name) = std::str::from_utf8(key) else {
                continue;
            };
            if name.starts_with(REPLY_TO) {
                self.cacheable = false;
                self.reply_to(vhost, name);
                continue;
            }
            match vhost.queue(name).filter(|q| !q.is_deleted()) {
                Some(queue) => self.add(queue),
                // A queue of that name may appear: its absence is not remembered.
                None => self.cacheable = false,
            }
        }
    }

    /// A key is the name of a consumer of direct replies.
    fn reply_to(&mut self, vhost: &Vhost, key: &str) {
        let Some(target) = vhost.reply_target(key) else {
            if is_address(key) {
                self.found.special.push(SpecialTarget::NoReply);
            }
            return;
        };
        let same =
            |d: &SpecialTarget| matches!(d, SpecialTarget::Reply(t) if Arc::ptr_eq(t, &target));
        if !self.found.special.iter().any(same) {
            self.found.special.push(SpecialTarget::Reply(target));
        }
    }

    /// Follows the bindings; false if the exchange was deleted meanwhile.
    fn run(
        &mut self,
        vhost: &Vhost,
        start: &Arc<Exchange>,
        keys: &[&[u8]],
        properties: PropertiesRef<'_>,
    ) -> bool {
        if start.info.name.is_empty() {
            self.by_queue_name(vhost, keys);
            return true;
        }
        let mut entered = HashSet::from([Arc::as_ptr(start) as usize]);
        let mut next = vec![start.clone()];
        let mut destinations = Vec::new();
        while let Some(exchange) = next.pop() {
            // The version before anything else: a change from here on makes the route stale.
            self.through.push((exchange.clone(), exchange.version()));
            if exchange.is_deleted() {
                self.cacheable = false;
                if Arc::ptr_eq(&exchange, start) {
                    return false;
                }
                continue;
            }
            if !self.goes_on(&exchange, properties) {
                continue;
            }
            let router = exchange.router();
            self.cacheable &= router.by_key();
            self.compared += router.compared();
            router.route(keys, properties, &mut destinations);
            drop(router);
            if destinations.is_empty()
                && let Some(name) = exchange.info.alternate()
            {
                // The default exchange is nobody's alternate: it has no bindings to ask for.
                match vhost.exchange(name).filter(|_| !name.is_empty()) {
                    Some(alternate) => destinations.push(Destination::Exchange(alternate)),
                    // It may appear: its absence is not remembered.
                    None => self.cacheable = false,
                }
            }
            for destination in destinations.drain(..) {
                match destination {
                    Destination::Queue(queue) => self.add(queue),
                    Destination::Exchange(x) => {
                        if entered.insert(Arc::as_ptr(&x) as usize) {
                            next.push(x);
                        }
                    }
                }
            }
        }
        true
    }

    /// Notes what an exchange does beside routing; false if the message goes no further now.
    fn goes_on(&mut self, exchange: &Arc<Exchange>, properties: PropertiesRef<'_>) -> bool {
        if !self.passes(exchange.window()) {
            return false;
        }
        match exchange.info.kind {
            ExchangeType::RecentHistory => {
                self.found
                    .special
                    .push(SpecialTarget::Remember(exchange.clone()));
            }
            ExchangeType::Delayed => {
                self.cacheable = false;
                if let Some(delay) = delay_of(properties) {
                    let delay = SpecialTarget::Delay(exchange.clone(), delay);
                    self.found.special.push(delay);
                    return false;
                }
            }
            _ => {}
        }
        true
    }

    /// Whether a de-duplication window lets the message pass.
    fn passes(&mut self, window: Option<&Arc<Window>>) -> bool {
        let Some(window) = window else { return true };
        self.found.guarded = true;
        let passes = self.admission.as_mut().is_none_or(|a| a.passes(window));
        self.found.duplicate |= !passes;
        passes
    }

    fn add(&mut self, queue: Arc<Queue>) {
        if self.found.queues.len() < SEARCHED_MAX {
            if !self.found.queues.iter().any(|q| Arc::ptr_eq(q, &queue))
                && self.passes(queue.window())
            {
                self.found.queues.push(queue);
            }
            return;
        }
        if self.seen.is_empty() {
            self.seen
                .extend(self.found.queues.iter().map(|q| Arc::as_ptr(q) as usize));
        }
        if self.seen.insert(Arc::as_ptr(&queue) as usize) && self.passes(queue.window()) {
            self.found.queues.push(queue);
        }
    }
}

#[cfg(test)]
mod tests;
