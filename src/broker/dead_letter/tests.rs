//! The definition: a death written into headers that are taken apart and put together again.

#![allow(clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::history::{self, Death, VISITED, bury};
use super::*;
use crate::broker::arguments::QueueSettings;
use crate::broker::death::DeathReason;
use crate::broker::memory::Memory;
use crate::broker::message::Parts;
use crate::broker::ports::QueueId;
use crate::broker::queue::QueueInfo;
use crate::broker::routing_keys::shown_properties;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::Properties;
use crate::protocol::short::ShortBuf;

/// Writes the death into the headers: the newest one is the first of the history.
fn bury_taken_apart(
    properties: &mut Properties,
    message: &Message,
    queue: &str,
    reason: DeathReason,
    routing_keys: &[Vec<u8>],
    now: u64,
) {
    let mut headers = properties.headers.take().unwrap_or_default();
    let mut deaths = match headers.remove("x-death") {
        Some(FieldValue::Array(items)) if message.is_dead_lettered() => items,
        _ => Vec::new(),
    };
    while headers.remove("x-death").is_some() {}
    let same = |death: &FieldValue| {
        says(death, "queue") == Some(queue) && says(death, "reason") == Some(reason.as_str())
    };
    let death = match deaths.iter().position(same) {
        Some(at) => {
            let mut death = deaths.remove(at);
            if let FieldValue::Table(death) = &mut death {
                let count = death.get("count").and_then(FieldValue::as_integer);
                death.insert("count", count.unwrap_or(0).saturating_add(1));
            }
            death
        }
        None => {
            let keys = routing_keys.iter();
            let keys = keys.map(|k| FieldValue::from(k.as_slice())).collect();
            let mut death = FieldTable::new();
            if let Some(expiration) = &properties.expiration {
                death.insert("original-expiration", expiration.as_short());
            }
            death.insert("count", 1i64);
            death.insert("reason", reason.as_str());
            death.insert("queue", queue);
            death.insert("time", FieldValue::Timestamp(now / 1000));
            death.insert("exchange", message.exchange());
            death.insert("routing-keys", FieldValue::Array(keys));
            FieldValue::Table(death)
        }
    };
    deaths.insert(0, death);
    headers.insert("x-death", FieldValue::Array(deaths));
    let first = [
        "x-first-death-reason",
        "x-first-death-queue",
        "x-first-death-exchange",
    ];
    let last = [
        "x-last-death-reason",
        "x-last-death-queue",
        "x-last-death-exchange",
    ];
    let values = [reason.as_str().into(), queue.into(), message.exchange()];
    for ((first, last), value) in first.into_iter().zip(last).zip(values) {
        if !message.is_dead_lettered() {
            headers.insert(first, value);
        }
        headers.insert(last, value);
    }
    properties.headers = Some(headers);
    properties.expiration = None;
}

/// A text in one entry of the history.
fn says<'a>(death: &'a FieldValue, name: &str) -> Option<&'a str> {
    match death {
        FieldValue::Table(t) => t.get(name).and_then(FieldValue::as_str),
        _ => None,
    }
}

/// Whether delivering to `queue` would close a loop.
fn is_cycle(properties: &Properties, queue: &str) -> bool {
    let headers = properties.headers.as_ref();
    let Some(FieldValue::Array(deaths)) = headers.and_then(|h| h.get("x-death")) else {
        return false;
    };
    for death in deaths {
        if says(death, "reason") == Some(DeathReason::Rejected.as_str()) {
            return false;
        }
        if says(death, "queue") == Some(queue) {
            return true;
        }
    }
    false
}

const QUEUES: [&str; 4] = ["a", "b", "cc", "d\u{e4}"];

fn message(properties: &[u8], flags: u8) -> Message {
    let parts = Parts {
        exchange: "ex".into(),
        routing_key: "key".into(),
        properties,
        flags,
    };
    Message::uncounted(&parts, b"body")
}

/// What it is after the death, both ways; the octets are the same.
fn after(message: &Message, death: &Death<'_>) -> (Message, Properties) {
    let mut expected = match death.rekeyed {
        true => shown_properties(message),
        false => Properties::from(PropertiesRef::unchecked(message.properties())),
    };
    bury_taken_apart(
        &mut expected,
        message,
        death.queue,
        death.reason,
        death.routing_keys,
        death.now,
    );
    let mut flags = message.flags() | FLAG_DEAD_LETTERED;
    if death.rekeyed {
        flags &= !FLAG_BCC;
    }
    let written = bury(message, death);
    let reborn = message.with_written("dlx".into(), "k".into(), &written, flags);
    assert_eq!(reborn.properties().len(), written.len());
    assert_eq!(reborn.properties(), expected.encode());
    assert_eq!(
        (reborn.body(), &*reborn.exchange(), &*reborn.routing_key()),
        (&b"body"[..], &b"dlx"[..], &b"k"[..])
    );
    (reborn, expected)
}

/// Queues to route to.
fn queues(memory: &Memory, names: impl IntoIterator<Item = String>) -> Vec<Arc<Queue>> {
    let queue = |name: String| {
        let info = QueueInfo {
            id: QueueId(1),
            vhost: "/".into(),
            name: name.into(),
            durable: true,
            auto_delete: false,
            exclusive_owner: None,
            arguments: FieldTable::new(),
            settings: QueueSettings::default(),
            delays: None,
        };
        Queue::new(info, memory)
    };
    names.into_iter().map(queue).collect()
}

fn names(queues: &[Arc<Queue>]) -> Vec<String> {
    queues.iter().map(|q| q.info().name.to_string()).collect()
}

fn value() -> impl Strategy<Value = FieldValue> {
    const TEXTS: [&str; 6] = ["a", "b", "cc", "rejected", "expired", ""];
    let leaf = prop_oneof![
        any::<i64>().prop_map(FieldValue::from),
        any::<u16>().prop_map(FieldValue::U16),
        any::<bool>().prop_map(FieldValue::from),
        Just(FieldValue::Void),
        prop::sample::select(&TEXTS[..]).prop_map(FieldValue::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let name = prop::sample::select(&["queue", "reason", "count", "other"][..]);
        let fields = prop::collection::vec((name, inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(FieldValue::Array),
            fields.prop_map(|fields| FieldValue::Table(table(fields))),
        ]
    })
}

/// Names may come twice.
fn table(fields: Vec<(&str, FieldValue)>) -> FieldTable {
    let mut octets = Vec::new();
    for (name, value) in fields {
        let mut one = FieldTable::new();
        one.insert(name, value);
        octets.extend(one.to_bytes());
    }
    FieldTable::parse_ours(&octets).unwrap()
}

fn properties() -> impl Strategy<Value = Properties> {
    const NAMES: [&str; 7] = [
        "x-death",
        "x-first-death-queue",
        "x-last-death-reason",
        "x-last-death-exchange",
        "BCC",
        "CC",
        "mine",
    ];
    let fields = prop::collection::vec((prop::sample::select(&NAMES[..]), value()), 0..8);
    let short = || prop::option::of("[a-z]{0,9}".prop_map(ShortBuf::from));
    let headers = prop::option::of(fields.prop_map(table));
    let texts = (short(), short(), short(), short());
    (
        headers,
        texts,
        any::<Option<u8>>(),
        any::<Option<u8>>(),
        any::<Option<u64>>(),
    )
        .prop_map(
            |(headers, texts, delivery_mode, priority, timestamp)| Properties {
                headers,
                content_encoding: texts.0,
                reply_to: texts.1,
                expiration: texts.2,
                app_id: texts.3,
                delivery_mode,
                priority,
                timestamp,
                ..Properties::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever is in the headers, and whoever put it there.
    #[test]
    fn a_death_is_written_as_if_all_was_taken_apart(
        properties in properties(),
        flags in 0u8..16,
        deaths in prop::collection::vec((0usize..4, 0usize..4, any::<bool>(), 0usize..3), 1..12),
    ) {
        let memory = Memory::new();
        let mut message = message(&properties.encode(), flags);
        for (n, (queue, reason, rekeyed, keys)) in deaths.into_iter().enumerate() {
            let routing_keys = vec![b"k\xff".to_vec(); keys];
            let (reborn, expected) = after(&message, &Death {
                queue: QUEUES[queue],
                reason: DeathReason::ALL[reason],
                routing_keys: &routing_keys,
                now: 1000 * n as u64 + 7,
                rekeyed,
            });
            for extra in [0, 7] {
                let others = (0..extra).map(|n| format!("other-{n}"));
                let mut found = queues(&memory, QUEUES.map(String::from).into_iter().chain(others));
                let mut right = names(&found);
                right.retain(|q| !is_cycle(&expected, q));
                leave_out_cycles(&mut found, &reborn);
                prop_assert_eq!(names(&found), right);
            }
            message = reborn;
        }
    }
}

/// A history is looked at twice, however long it is and to however many queues the message goes; nothing of
/// it is built.
#[test]
fn a_death_looks_at_its_history_twice() {
    const DEATHS: usize = 500;
    let memory = Memory::new();
    let mut message = message(&[0, 0], 0);
    let mut allocations = Vec::new();
    for n in 0..DEATHS {
        let mut found = queues(&memory, (0..100).map(|n| format!("to-{n}")));
        VISITED.set(0);
        let counted = allocation_counter::measure(|| {
            let death = Death {
                queue: &format!("queue-{n}"),
                reason: DeathReason::Maxlen,
                routing_keys: &[b"key".to_vec()],
                now: 1,
                rekeyed: true,
            };
            let written = bury(&message, &death);
            let flags = FLAG_DEAD_LETTERED;
            message = message.with_written("".into(), "key".into(), &written, flags);
        });
        allocations.push(counted.count_total);
        leave_out_cycles(&mut found, &message);
        let visited = VISITED.get();
        assert!(visited <= 2 * n + 1, "{visited} entries of {n}");
        assert_eq!(found.len(), 100);
        let mut one = found.split_off(99);
        VISITED.set(0);
        leave_out_cycles(&mut one, &message);
        assert_eq!(VISITED.get(), n + 1);
    }
    assert_eq!(history::of(&message).uninterrupted().count(), DEATHS);
    let (first, last) = (allocations[20], allocations[DEATHS - 1]);
    assert!(last <= first, "{first} allocations, and {last} at the end");
}
