//! From an exchange and a routing key to queues.
//!
//! Each channel remembers the routes it used. A remembered route holds the exchanges it went
//! through with their versions; while those are unchanged and no queue of it is deleted, it is
//! used without a lock, a reference count or an allocation.

use std::collections::HashMap;
use std::sync::Arc;

use super::exchange::{Destination, Exchange};
use super::queue::Queue;
use super::vhost::Vhost;
use crate::protocol::field_table::FieldTable;
use crate::protocol::properties::PropertiesRef;

/// Routes that one channel remembers at most; a publisher with random keys starts over.
pub const CACHED_ROUTES_MAX: usize = 1024;

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
    key: Box<str>,
    queues: Vec<Arc<Queue>>,
    through: Vec<(Arc<Exchange>, u64)>,
}

impl Route {
    fn is_valid(&self) -> bool {
        self.through
            .iter()
            .all(|(x, version)| x.version() == *version)
            && !self.queues.iter().any(|q| q.is_deleted())
    }
}

/// The routes a channel remembers.
#[derive(Debug, Default)]
pub struct RouteCache {
    routes: Vec<Route>,
    by_name: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    last: usize,
    /// The latest route that cannot be remembered.
    once: Route,
}

impl RouteCache {
    /// The queues that a message goes to; empty if there is none.
    ///
    /// # Errors
    /// [`RouteError`]
    pub fn route(
        &mut self,
        vhost: &Vhost,
        exchange: &str,
        key: &str,
        properties: PropertiesRef<'_>,
    ) -> Result<&[Arc<Queue>], RouteError> {
        let hit = match self.routes.get(self.last) {
            Some(route) if *route.key == *key && *route.exchange == *exchange => Some(self.last),
            _ => self
                .by_name
                .get(exchange)
                .and_then(|keys| keys.get(key))
                .copied(),
        };
        if let Some(at) = hit
            && self.routes[at].is_valid()
        {
            self.last = at;
            return Ok(&self.routes[at].queues);
        }
        let mut found = Finder::default();
        let start = vhost.exchange(exchange).ok_or(RouteError::NoExchange)?;
        if start.info.internal {
            return Err(RouteError::Internal);
        }
        found.run(vhost, &start, key, properties);
        let route = Route {
            exchange: exchange.into(),
            key: key.into(),
            queues: found.queues,
            through: found.through,
        };
        if !found.cacheable {
            self.once = route;
            return Ok(&self.once.queues);
        }
        let at = match hit {
            Some(at) => at,
            None => {
                if self.routes.len() >= CACHED_ROUTES_MAX {
                    self.routes.clear();
                    self.by_name.clear();
                }
                let at = self.routes.len();
                self.routes.push(Route::default());
                self.by_name
                    .entry(exchange.into())
                    .or_default()
                    .insert(key.into(), at);
                at
            }
        };
        self.routes[at] = route;
        self.last = at;
        Ok(&self.routes[at].queues)
    }
}

/// Routes without remembering: dead letters, and what the server publishes itself.
pub fn route_once(
    vhost: &Vhost,
    exchange: &str,
    key: &str,
    properties: PropertiesRef<'_>,
) -> Option<Vec<Arc<Queue>>> {
    let start = vhost.exchange(exchange)?;
    let mut found = Finder {
        cacheable: true,
        ..Finder::default()
    };
    found.run(vhost, &start, key, properties);
    Some(found.queues)
}

#[derive(Default)]
struct Finder {
    queues: Vec<Arc<Queue>>,
    through: Vec<(Arc<Exchange>, u64)>,
    cacheable: bool,
}

impl Finder {
    fn run(
        &mut self,
        vhost: &Vhost,
        start: &Arc<Exchange>,
        key: &str,
        properties: PropertiesRef<'_>,
    ) {
        self.cacheable = true;
        if start.info.name.is_empty() {
            self.queues.extend(vhost.queue(key));
            // A queue of that name may appear: its absence is not remembered.
            self.cacheable = !self.queues.is_empty();
            return;
        }
        let mut next = vec![start.clone()];
        let mut destinations = Vec::new();
        while let Some(exchange) = next.pop() {
            if self.through.iter().any(|(x, _)| Arc::ptr_eq(x, &exchange)) {
                continue;
            }
            if exchange.info.name.is_empty() {
                // As somebody's alternate.
                self.queues.extend(vhost.queue(key));
                continue;
            }
            // The version first: a change in between makes the route stale, not wrong for ever.
            self.through.push((exchange.clone(), exchange.version()));
            let router = exchange.router();
            self.cacheable &= !router.by_headers();
            destinations.clear();
            let headers = || {
                properties
                    .headers()
                    .map_or_else(FieldTable::new, |h| h.to_table())
            };
            router.route(key, headers, &mut destinations);
            drop(router);
            if destinations.is_empty()
                && let Some(alternate) = exchange.info.alternate()
            {
                // Whether the alternate exchange exists may change without a version.
                self.cacheable = false;
                next.extend(vhost.exchange(alternate));
            }
            for destination in destinations.drain(..) {
                match destination {
                    Destination::Exchange(x) => next.push(x),
                    Destination::Queue(q) => {
                        if !self.queues.iter().any(|have| Arc::ptr_eq(have, &q)) {
                            self.queues.push(q);
                        }
                    }
                }
            }
        }
    }
}
