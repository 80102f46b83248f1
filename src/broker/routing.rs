//! From an exchange and a routing key to queues.
//!
//! Each channel remembers the routes it used. A remembered route holds the exchanges it went
//! through with their versions; while those are unchanged and no queue of it is deleted, it is
//! used without a lock, a reference count or an allocation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::deduplication::{Admission, Window};
use super::detour::{Detour, Found};
use super::exchange::{Destination, Exchange, ExchangeType, delay_of};
use super::queue::Queue;
use super::replies::REPLY_TO;
use super::vhost::Vhost;
use crate::protocol::properties::PropertiesRef;

/// Routes that one channel remembers at most; a publisher with random keys starts over.
pub const CACHED_ROUTES_MAX: usize = 1024;

/// Queues in all routes that one channel remembers at most, 128 KiB of pointers; so that a thousand
/// keys that each lead to ten thousand queues do not fill the memory.
pub const CACHED_QUEUES_MAX: usize = 16 * 1024;

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
struct Route {
    exchange: Box<str>,
    key: Box<[u8]>,
    found: Found,
    through: Vec<(Arc<Exchange>, u64)>,
}

impl Route {
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

/// The routes a channel remembers.
#[derive(Debug, Default)]
pub struct RouteCache {
    routes: Vec<Route>,
    /// By exchange and key, see [`index_key`].
    index: HashMap<Box<[u8]>, usize>,
    /// Where the keys of lookups are put together.
    scratch: Vec<u8>,
    last: usize,
    /// Queues in all routes.
    n_queues: usize,
    /// Where the latest message went whose route cannot be remembered.
    once: Found,
}

impl RouteCache {
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
    ) -> Result<&Found, RouteError> {
        let hit = match self.routes.get(self.last) {
            Some(route) if route.is_for(exchange, key) => Some(self.last),
            _ => {
                index_key(exchange, key, &mut self.scratch);
                self.index.get(self.scratch.as_slice()).copied()
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
        if found.cacheable {
            let route = Route {
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

    /// Puts a route where it was found stale, or adds it.
    fn remember(&mut self, stale: Option<usize>, route: Route) -> usize {
        let before = stale.map_or(0, |at| self.routes[at].found.queues.len());
        let n_queues = self.n_queues - before + route.found.queues.len();
        let full = stale.is_none() && self.routes.len() >= CACHED_ROUTES_MAX;
        let at = if full || n_queues > CACHED_QUEUES_MAX {
            self.routes.clear();
            self.index.clear();
            self.n_queues = 0;
            None
        } else {
            stale
        };
        self.n_queues += route.found.queues.len();
        self.last = match at {
            Some(at) => {
                self.n_queues -= before;
                self.routes[at] = route;
                at
            }
            None => {
                let at = self.routes.len();
                index_key(&route.exchange, &route.key, &mut self.scratch);
                self.index.insert(self.scratch.as_slice().into(), at);
                self.routes.push(route);
                at
            }
        };
        self.last
    }
}

/// Exchange and key in one, never empty (see [`same`]): the length of the first, then both.
fn index_key(exchange: &str, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend((exchange.len() as u32).to_le_bytes());
    out.extend_from_slice(exchange.as_bytes());
    out.extend_from_slice(key);
}

/// Routes a message with several keys, its own and those in its `CC` and `BCC` headers, without
/// remembering. Each queue comes once, and an alternate exchange is asked only if none of the keys
/// leads anywhere. `None`: there is no such exchange.
pub fn route_keys(
    vhost: &Vhost,
    exchange: &[u8],
    keys: &[&[u8]],
    properties: PropertiesRef<'_>,
) -> Option<Found> {
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
) -> Found {
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
) -> (Found, Admission) {
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
    found: Found,
    /// Set when de-duplication windows are to decide.
    admission: Option<Admission>,
    /// Addresses of its queues, when they are too many to be searched.
    seen: HashSet<usize>,
    through: Vec<(Arc<Exchange>, u64)>,
    cacheable: bool,
}

impl Default for Finder {
    fn default() -> Self {
        Finder {
            found: Found::default(),
            admission: None,
            seen: HashSet::new(),
            through: Vec::new(),
            cacheable: true,
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
            return;
        };
        let same = |d: &Detour| matches!(d, Detour::Reply(t) if Arc::ptr_eq(t, &target));
        if !self.found.detours.iter().any(same) {
            self.found.detours.push(Detour::Reply(target));
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
                self.found.detours.push(Detour::Remember(exchange.clone()));
            }
            ExchangeType::Delayed => {
                self.cacheable = false;
                if let Some(delay) = delay_of(properties) {
                    let detour = Detour::Delay(exchange.clone(), delay);
                    self.found.detours.push(detour);
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
