//! Tests of routing. What RabbitMQ does was tried on 4.3.6.

use proptest::prelude::*;

use super::*;
use crate::broker::queue::DeleteIf;
use crate::broker::queue::effects::Effects;
use crate::broker::vhost::tests::{
    EXCHANGES, KEYS, apply, bind, delete, exchange, fresh, ops, queue, table, unbind,
};
use crate::protocol::field_table::FieldValue;
use crate::protocol::properties::Properties;

fn names(found: &Route) -> Vec<String> {
    let queues = &found.queues;
    let mut names: Vec<_> = queues.iter().map(|q| q.info().name.to_string()).collect();
    names.sort();
    names
}

fn with_headers(fields: &[(&str, FieldValue)]) -> Vec<u8> {
    let properties = Properties {
        headers: Some(table(fields)),
        ..Properties::default()
    };
    properties.encode()
}

/// Routes without properties.
fn route(
    cache: &mut RouteCache,
    v: &Vhost,
    exchange: &str,
    key: &str,
) -> Result<Vec<String>, RouteError> {
    let properties = with_headers(&[]);
    cache
        .route(
            v,
            exchange,
            key.as_bytes(),
            PropertiesRef::unchecked(&properties),
        )
        .map(names)
}

#[test]
fn a_remembered_route_follows_its_bindings() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    let mut to = |exchange, key| route(&mut cache, &v, exchange, key);
    queue(&v, "q1", "");
    queue(&v, "q2", "");
    assert_eq!(to("amq.direct", "k").unwrap(), [""; 0]);
    bind(&v, "amq.direct", "q1", "k", &[]).unwrap();
    assert_eq!(to("amq.direct", "k").unwrap(), ["q1"]);
    assert_eq!(to("amq.direct", "other").unwrap(), [""; 0]);
    bind(&v, "amq.direct", "q2", "k", &[]).unwrap();
    assert_eq!(to("amq.direct", "k").unwrap(), ["q1", "q2"]);
    delete(&v, "q1");
    assert_eq!(to("amq.direct", "k").unwrap(), ["q2"]);
    unbind(&v, "amq.direct", "q2", "k", &[]);
    assert_eq!(to("amq.direct", "k").unwrap(), [""; 0]);
}

#[test]
fn the_default_exchange_leads_to_the_queue_of_that_name_while_it_is_there() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    let mut to = || route(&mut cache, &v, "", "q").unwrap();
    assert_eq!(to(), [""; 0]);
    let q = queue(&v, "q", "");
    assert_eq!(to(), ["q"]);
    // Marked, and not unlinked yet.
    q.mark_deleted(DeleteIf::default(), &mut Effects::default())
        .unwrap();
    assert_eq!(to(), [""; 0]);
    queue(&v, "q", "");
    assert_eq!(to(), ["q"]);
}

#[test]
fn a_route_through_the_default_exchange_is_remembered() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    queue(&v, "q", "");
    route(&mut cache, &v, "", "q").unwrap();
    assert_eq!(cache.routes.len(), 1);
    assert!(cache.routes[0].is_valid());
}

#[test]
fn a_deleted_exchange_is_missed_and_one_declared_anew_is_another() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    let mut to = || route(&mut cache, &v, "x", "k");
    assert_eq!(to(), Err(RouteError::NoExchange));
    exchange(&v, "x", "fanout", "", &[]).unwrap();
    queue(&v, "q", "");
    bind(&v, "x", "q", "", &[]).unwrap();
    assert_eq!(to().unwrap(), ["q"]);
    v.delete_exchange("x", false).unwrap();
    assert_eq!(to(), Err(RouteError::NoExchange));
    exchange(&v, "x", "fanout", "", &[]).unwrap();
    assert_eq!(to().unwrap(), [""; 0]);
    exchange(&v, "i", "fanout", "i", &[]).unwrap();
    assert_eq!(route(&mut cache, &v, "i", "k"), Err(RouteError::Internal));
}

/// A publisher that looked the exchange up just before it was deleted must not remember that it
/// leads nowhere: to that publisher it would never come to be missing.
#[test]
fn a_route_found_while_its_exchange_goes_is_not_remembered() {
    let (_, v) = fresh();
    exchange(&v, "x", "fanout", "", &[]).unwrap();
    let x = v.exchange("x").unwrap();
    v.delete_exchange("x", false).unwrap();
    let properties = with_headers(&[]);
    let mut found = Finder::default();
    assert!(!found.run(&v, &x, &[b"k"], PropertiesRef::unchecked(&properties)));
    assert!(!found.cacheable);
}

#[test]
fn an_alternate_exchange_takes_what_leads_nowhere() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    let ae = |name: &str| [("alternate-exchange", FieldValue::from(name))];
    exchange(&v, "x", "direct", "", &ae("y")).unwrap();
    let mut to = |exchange, key| route(&mut cache, &v, exchange, key).unwrap();
    assert_eq!(to("x", "k"), [""; 0], "it need not exist");
    exchange(&v, "y", "direct", "", &ae("z")).unwrap();
    exchange(&v, "z", "fanout", "i", &ae("x")).unwrap();
    queue(&v, "q1", "");
    queue(&v, "q2", "");
    bind(&v, "z", "q2", "", &[]).unwrap();
    assert_eq!(to("x", "k"), ["q2"], "through two, the last internal");
    bind(&v, "y", "q1", "k", &[]).unwrap();
    assert_eq!(to("x", "k"), ["q1"]);
    delete(&v, "q2");
    assert_eq!(to("x", "none"), [""; 0], "they form a circle");
    v.delete_exchange("y", false).unwrap();
    assert_eq!(to("x", "k"), [""; 0]);
    // A binding to another exchange leads somewhere, even if it leads to no queue from there.
    exchange(&v, "empty", "fanout", "", &[]).unwrap();
    exchange(&v, "w", "direct", "", &ae("z")).unwrap();
    bind(&v, "z", "q1", "", &[]).unwrap();
    assert_eq!(to("w", "k"), ["q1"]);
    bind(&v, "w", "empty", "k", &[]).unwrap();
    assert_eq!(to("w", "k"), [""; 0]);
    // The default exchange is nobody's alternate.
    exchange(&v, "u", "direct", "", &ae("")).unwrap();
    assert_eq!(to("u", "q1"), [""; 0]);
}

#[test]
fn a_route_through_an_alternate_exchange_is_remembered() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    let ae = ("alternate-exchange", FieldValue::from("amq.fanout"));
    exchange(&v, "x", "direct", "", &[ae]).unwrap();
    route(&mut cache, &v, "x", "k").unwrap();
    assert_eq!(cache.routes.len(), 1);
}

#[test]
fn a_queue_that_several_ways_lead_to_comes_once_even_in_circles() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    for name in ["a", "b", "c"] {
        exchange(&v, name, "fanout", "", &[]).unwrap();
    }
    for (source, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "c"), ("a", "a")] {
        bind(&v, source, to, "", &[]).unwrap();
    }
    for n in 0..3 * SEARCHED_MAX {
        let name = format!("q{n:02}");
        queue(&v, &name, "");
        for source in ["a", "b", "c"] {
            bind(&v, source, &name, "", &[]).unwrap();
        }
    }
    assert_eq!(
        route(&mut cache, &v, "b", "k").unwrap().len(),
        3 * SEARCHED_MAX
    );
}

#[test]
fn routes_by_headers_are_asked_for_each_message() {
    let (_, v) = fresh();
    let mut cache = RouteCache::default();
    queue(&v, "q1", "");
    queue(&v, "q2", "");
    exchange(&v, "x", "fanout", "", &[]).unwrap();
    bind(&v, "x", "amq.headers", "", &[]).unwrap();
    for (name, n) in [("q1", 1), ("q2", 2)] {
        bind(&v, "amq.headers", name, "", &[("n", FieldValue::I32(n))]).unwrap();
    }
    for (n, want) in [(1, "q1"), (2, "q2"), (1, "q1")] {
        let properties = with_headers(&[("n", FieldValue::I64(n))]);
        for source in ["x", "amq.headers"] {
            let found = cache.route(&v, source, b"k", PropertiesRef::unchecked(&properties));
            assert_eq!(names(found.unwrap()), [want]);
        }
    }
    assert!(cache.routes.is_empty());
}

#[test]
fn an_alternate_exchange_is_not_asked_if_one_of_several_keys_leads_somewhere() {
    let (_, v) = fresh();
    let ae = ("alternate-exchange", FieldValue::from("amq.fanout"));
    exchange(&v, "x", "direct", "", &[ae]).unwrap();
    queue(&v, "q1", "");
    queue(&v, "q2", "");
    bind(&v, "x", "q1", "cc", &[]).unwrap();
    bind(&v, "amq.fanout", "q2", "", &[]).unwrap();
    let properties = with_headers(&[]);
    let to = |exchange: &str, keys: &[&str]| {
        let exchange = exchange.as_bytes();
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        route_keys(&v, exchange, &keys, PropertiesRef::unchecked(&properties)).map(|q| names(&q))
    };
    assert_eq!(to("x", &["none", "cc"]).unwrap(), ["q1"]);
    assert_eq!(to("x", &["none", "nothing"]).unwrap(), ["q2"]);
    assert_eq!(to("", &["q1", "none", "q2", "q1"]).unwrap(), ["q1", "q2"]);
    assert_eq!(to("missing", &["k"]), None);
}

#[test]
fn a_cache_stays_within_its_limits() {
    let (_, v) = fresh();
    let memory = Memory::new();
    let mut cache = RouteCache::new(&memory);
    for n in 0..3 * CACHED_ROUTES_MAX {
        route(&mut cache, &v, "amq.direct", &n.to_string()).unwrap();
        assert!(cache.routes.len() <= CACHED_ROUTES_MAX);
    }
    // What it says that it takes is what it takes, about.
    let name = "k".repeat(30);
    let mut filled = None;
    let taken = allocation_counter::measure(|| {
        let mut cache = RouteCache::new(&memory);
        for n in 0..CACHED_ROUTES_MAX {
            route(&mut cache, &v, "amq.direct", &format!("{name}{n}")).unwrap();
        }
        filled = Some(cache);
    });
    let bytes = filled.as_ref().map_or(0, |c| c.bytes) as i64;
    let taken = taken.bytes_current;
    assert!(taken < 300 << 10, "{taken}");
    assert!(
        bytes * 2 > taken && bytes < taken * 2,
        "{bytes} for {taken}"
    );
    assert!(memory.used(Use::Routes) >= bytes as u64);
    drop(filled);
    // 100 queues behind a fanout: each key remembers all of them.
    for n in 0..100 {
        let name = format!("q{n}");
        queue(&v, &name, "");
        bind(&v, "amq.fanout", &name, "", &[]).unwrap();
    }
    for n in 0..CACHED_ROUTES_MAX {
        // Some are found stale and replaced.
        if n % 100 == 0 {
            bind(&v, "amq.fanout", "q0", &n.to_string(), &[]).unwrap();
        }
        for n in [n, n / 2] {
            assert_eq!(
                route(&mut cache, &v, "amq.fanout", &n.to_string())
                    .unwrap()
                    .len(),
                100
            );
            let held: usize = cache.routes.iter().map(CachedRoute::bytes).sum();
            assert_eq!((held, memory.used(Use::Routes)), (cache.bytes, held as u64));
            assert!(held <= CACHED_BYTES_MAX);
        }
    }
    drop(cache);
    assert_eq!(memory.used(Use::Routes), 0);
}

#[test]
fn caches_are_small_when_there_are_many() {
    let (_, v) = fresh();
    let memory = Memory::new();
    let mut others = memory.charge(Use::Routes);
    let mut cache = RouteCache::new(&memory);
    for all in [CACHED_BYTES_IN_ALL + 1, 0] {
        others.set(all);
        for n in 0..CACHED_ROUTES_MAX / 2 {
            route(&mut cache, &v, "amq.direct", &n.to_string()).unwrap();
            assert!(all == 0 || cache.routes.len() <= CACHED_ROUTES_FEW);
        }
    }
    assert!(cache.routes.len() > CACHED_ROUTES_FEW);
}

proptest! {
    #[test]
    fn a_remembered_route_is_never_another_than_a_fresh_one(ops in ops()) {
        let (_, v) = fresh();
        let mut cache = RouteCache::default();
        for op in &ops {
            apply(&v, op);
            for exchange in EXCHANGES.into_iter().chain([""]) {
                for key in KEYS.into_iter().chain(["q0"]) {
                    let fresh = route(&mut RouteCache::default(), &v, exchange, key);
                    prop_assert_eq!(route(&mut cache, &v, exchange, key), fresh);
                }
            }
        }
    }
}
