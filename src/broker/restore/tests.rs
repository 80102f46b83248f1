//! What was accepted is there again, and nothing that is stored keeps the broker from starting.

use proptest::prelude::*;

use super::*;
use crate::broker::arguments::QueueSettings;
use crate::broker::codec;
use crate::broker::exchange::Destination;
use crate::broker::ports::MessageLog;
use crate::broker::queue::DeleteIf;
use crate::broker::vhost::tests::{ME, Store, delete, exchange, fresh, queue};
use crate::broker::vhost::{BindingSpec, ExchangeDeclare, QueueDeclare, TopologyError};
use crate::protocol::field_table::{NESTING_MAX, TableRef};
use crate::protocol::wire::Reader;

fn declare<'a>(name: &'a str, arguments: &'a FieldTable) -> QueueDeclare<'a> {
    QueueDeclare {
        durable: true,
        ..QueueDeclare::named(name, arguments)
    }
}

fn reopened(store: &Arc<Store>) -> (Broker, Vec<Skipped>) {
    Broker::new(store.clone(), &store.definitions())
}

/// Changes the definitions of a kind, and opens a broker with them.
fn opened_with(
    store: &Arc<Store>,
    kind: DefinitionKind,
    change: impl Fn(&mut Definition),
) -> (Broker, Vec<Skipped>) {
    let mut all = store.definitions();
    all.iter_mut().filter(|d| d.0 == kind).for_each(change);
    Broker::new(store.clone(), &all)
}

/// Whether the messages of the queue with this number are kept.
fn keeps(broker: &Broker, id: QueueId) -> bool {
    let mut kept = false;
    broker.recover_messages(|known, _| kept = known(id), 0);
    kept
}

/// Whatever the octets of a table are that passes at the wire.
fn taken_by_the_wire(octets: &[u8]) -> Option<FieldTable> {
    let mut framed = (octets.len() as u32).to_be_bytes().to_vec();
    framed.extend(octets);
    let table: TableRef<'_> = Reader::new(&framed).table().ok()?;
    Some(table.to_table())
}

/// Octets of tables of all types, nested to just before and just behind the border, with names and
/// values of any octets and of the lengths at the border.
fn tables() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        "[a-z-]{0,9}".prop_map(String::into_bytes),
        Just("é".repeat(127).into_bytes()),
        Just(vec![b'n'; 255]),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    let blob = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        Just(vec![0xff; 255]),
        Just(vec![b'k'; 256]),
        Just(vec![b'k'; 70_000]),
    ];
    let with_length = |kind: u8, bytes: &[u8]| {
        let mut out = vec![kind];
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
        out
    };
    let fixed = (
        prop::sample::select(b"tbBsuIilLfdDTV".to_vec()),
        any::<[u8; 8]>(),
    );
    let fixed = fixed.prop_map(|(kind, octets)| {
        let n = match kind {
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'V' => 0,
            _ => 8,
        };
        [&[kind], &octets[..n]].concat()
    });
    let long = (prop::sample::select(b"Sx".to_vec()), blob)
        .prop_map(move |(kind, bytes)| with_length(kind, &bytes));
    let leaf = prop_oneof![3 => fixed, 1 => long].boxed();
    let nested = (leaf.clone(), 0..NESTING_MAX + 4, any::<u64>());
    let nested = nested.prop_map(move |(mut value, depth, shape)| {
        for level in 0..depth {
            value = match shape >> (level % 64) & 1 {
                0 => with_length(b'A', &value),
                _ => with_length(b'F', &[&[1, b'k'], value.as_slice()].concat()),
            };
        }
        value
    });
    let field = (name, prop_oneof![leaf, nested.boxed()]);
    prop::collection::vec(field, 0..5).prop_map(|fields| {
        let mut out = Vec::new();
        for (name, value) in fields {
            out.push(name.len() as u8);
            out.extend(name);
            out.extend(value);
        }
        out
    })
}

proptest! {
    #[test]
    fn what_the_wire_takes_is_read_back(octets in tables(), name in "[aé\u{0}/]{127}[a-z]?") {
        let Some(arguments) = taken_by_the_wire(&octets) else { return Ok(()) };
        let (store, v) = fresh();
        let declared = v.declare_queue(&declare(&name, &arguments)).is_ok();
        let x = ExchangeDeclare {
            name: &name,
            kind: "fanout",
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: &arguments,
        };
        let x_declared = v.declare_exchange(&x).is_ok();
        let plain = queue(&v, "plain", "d");
        let destination = Destination::Queue(plain);
        let spec = BindingSpec {
            source: "amq.direct",
            destination: &destination,
            routing_key: &name,
            arguments: &arguments,
        };
        v.bind(&spec).unwrap();

        let (broker, skipped) = reopened(&store);
        prop_assert_eq!(skipped, vec![]);
        let again = broker.vhost("/").unwrap();
        // As octets: a table with NaN is not equal to itself.
        let octets = arguments.to_bytes();
        if declared {
            let queue = again.queue(&name).unwrap();
            prop_assert_eq!(queue.info().arguments.to_bytes(), octets.clone());
            prop_assert_eq!(&queue.info().settings, &QueueSettings::parse(&arguments).unwrap());
        }
        if x_declared {
            prop_assert_eq!(again.exchange(&name).unwrap().info.arguments.to_bytes(), octets);
        }
        let x = again.exchange("amq.direct").unwrap();
        let bound: Vec<_> = x.router().iter().map(|(d, k, a)| (d.clone(), k.to_string(), a.to_bytes())).collect();
        let destination = Destination::Queue(again.queue("plain").unwrap());
        prop_assert_eq!(bound.len(), 1);
        prop_assert!(bound[0] == (destination, name, arguments.to_bytes()));
    }
}

/// At the border itself, which random depths may miss.
#[test]
fn arguments_as_deep_as_the_wire_takes_are_read_back() {
    for depth in NESTING_MAX - 2..NESTING_MAX + 3 {
        let mut value = vec![b'V'];
        for _ in 0..depth {
            let inner = [&[1, b'a'], value.as_slice()].concat();
            value = [&[b'F'][..], &(inner.len() as u32).to_be_bytes(), &inner].concat();
        }
        let taken = taken_by_the_wire(&[&[1, b'a'], value.as_slice()].concat());
        assert_eq!(taken.is_some(), depth <= NESTING_MAX);
        let Some(arguments) = taken else { continue };
        let (store, v) = fresh();
        v.declare_queue(&declare("q", &arguments)).unwrap();
        let (broker, skipped) = reopened(&store);
        assert_eq!(skipped, vec![]);
        let queue = broker.vhost("/").unwrap().queue("q").unwrap();
        assert_eq!(queue.info().arguments, arguments);
    }
}

#[test]
fn a_queue_that_cannot_be_read_is_set_aside_with_its_messages() {
    let (store, v) = fresh();
    let id = queue(&v, "q", "d").id();
    exchange(&v, "x", "fanout", "d", &[]).unwrap();
    let kinds = [DefinitionKind::Queue, DefinitionKind::Exchange];
    for (kind, name) in kinds.into_iter().zip(["q", "x"]) {
        // Of a later version; with nothing in it; cut; no table; without a number or a type.
        let changes: [fn(&mut Definition); 5] = [
            |d| d.2[0] = 2,
            |d| d.2.clear(),
            |d| d.2.truncate(7),
            |d| d.2.push(9),
            |d| d.2 = codec::value(&FieldTable::new()),
        ];
        for change in changes {
            let (broker, skipped) = opened_with(&store, kind, change);
            assert_eq!(skipped.len(), 1, "{skipped:?}");
            assert_eq!(skipped[0].0, format!("{kind:?} / {name}"));
            let v = broker.vhost("/").unwrap();
            let (refused, found) = match kind {
                DefinitionKind::Queue => (
                    v.declare_queue(&declare(name, &FieldTable::new())).err(),
                    v.lookup_queue(name, ME).err(),
                ),
                _ => (
                    exchange(&v, name, "fanout", "d", &[]).err(),
                    v.lookup_exchange(name).err(),
                ),
            };
            assert!(matches!(refused, Some(TopologyError::SetAside { .. })));
            assert_eq!(found, refused);
            assert!(keeps(&broker, id));
            let other = queue(&v, "other", "d");
            assert!(other.id() > id);
            delete(&v, "other");
        }
    }
}

#[test]
fn what_was_set_aside_is_given_up_by_deleting_it() {
    let (store, v) = fresh();
    queue(&v, "q", "d");
    exchange(&v, "x", "fanout", "d", &[]).unwrap();
    let destination = Destination::Queue(v.queue("q").unwrap());
    let arguments = FieldTable::new();
    let spec = BindingSpec {
        source: "x",
        destination: &destination,
        routing_key: "k",
        arguments: &arguments,
    };
    v.bind(&spec).unwrap();
    let (broker, skipped) = opened_with(&store, DefinitionKind::Queue, |d| d.2[0] = 2);
    assert_eq!(skipped.len(), 1, "its binding is kept with it: {skipped:?}");
    let v = broker.vhost("/").unwrap();
    v.give_up(true, "q").unwrap();
    queue(&v, "q", "d");
    let (broker, skipped) = reopened(&store);
    assert_eq!(skipped, vec![]);
    let v = broker.vhost("/").unwrap();
    assert!(v.exchange("x").unwrap().router().is_empty());
    v.delete_exchange("x", false).unwrap();
}

#[test]
fn a_queue_whose_arguments_are_refused_today_serves_without_them() {
    for (argument, value) in [
        (
            "x-dead-letter-routing-key",
            FieldValue::from("k".repeat(256)),
        ),
        ("x-max-length", FieldValue::I64(-1)),
        ("x-cache-size", FieldValue::I64(0)),
        ("x-max-age", FieldValue::from("1D")),
        ("x-overflow", FieldValue::Void),
    ] {
        let (store, v) = fresh();
        let mut arguments = FieldTable::new();
        arguments.insert("x-dead-letter-exchange", "");
        arguments.insert("x-message-ttl", 5i64);
        v.declare_queue(&declare("q", &arguments)).unwrap();
        let (broker, skipped) = opened_with(&store, DefinitionKind::Queue, |d| {
            let mut t = fields(&d.2).unwrap();
            let mut arguments = codec::table_of(&t, "arguments");
            arguments.insert(argument, value.clone());
            t.insert("arguments", arguments);
            d.2 = codec::value(&t);
        });
        assert_eq!(skipped.len(), 1, "{argument}: {skipped:?}");
        assert!(skipped[0].1.0.contains(argument), "{skipped:?}");
        let v = broker.vhost("/").unwrap();
        let queue = v.queue("q").expect("it serves");
        let settings = &queue.info().settings;
        assert_eq!(settings.message_ttl, Some(5));
        let dies = argument != "x-dead-letter-routing-key";
        assert_eq!(settings.dead_letter.is_some(), dies);
        delete(&v, "q");
    }
}

#[test]
fn a_queue_of_an_unknown_type_is_set_aside() {
    let (store, v) = fresh();
    let id = queue(&v, "q", "d").id();
    let (broker, skipped) = opened_with(&store, DefinitionKind::Queue, |d| {
        let mut t = fields(&d.2).unwrap();
        let mut arguments = FieldTable::new();
        arguments.insert("x-queue-type", "stream");
        t.insert("arguments", arguments);
        d.2 = codec::value(&t);
    });
    assert_eq!(skipped.len(), 1);
    assert!(broker.vhost("/").unwrap().lookup_queue("q", ME).is_err());
    // Its number can be read: what is kept is this one.
    let mut kept = Vec::new();
    let ids = [id, QueueId(id.0 + 1)];
    broker.recover_messages(|known, _| kept.extend(ids.map(known)), 0);
    assert_eq!(kept, [true, false]);
}

#[test]
fn the_rest_of_what_cannot_be_read_does_not_keep_the_broker_from_starting() {
    let (store, v) = fresh();
    let last = queue(&v, "q", "d").id();
    v.delete_queue(
        &v.queue("q").unwrap(),
        DeleteIf::default(),
        &mut Default::default(),
    )
    .unwrap();
    exchange(&v, "x", "fanout", "d", &[]).unwrap();
    for kind in DefinitionKind::ALL {
        let changes: [fn(&mut Definition); 4] = [
            |d| d.2[0] = 2,
            |d| d.2 = vec![],
            |d| d.1 = vec![0, 0, 0, 9, 1],
            |d| d.0 = DefinitionKind::Other(200),
        ];
        for change in changes {
            let (broker, _) = opened_with(&store, kind, change);
            // A vhost that is lost is served for what is in it.
            let v = broker.vhost("/").expect("it serves");
            assert!(queue(&v, "other", "d").id() > last, "{kind:?}");
            delete(&v, "other");
        }
    }
    let other = (
        DefinitionKind::Other(200),
        b"key".to_vec(),
        b"value".to_vec(),
    );
    let (_, skipped) = Broker::new(store.clone(), &[other]);
    assert_eq!(skipped[0].0, "definitions of kind 200");
}

#[test]
fn delayed_messages_wait_for_an_exchange_that_was_set_aside() {
    let (store, v) = fresh();
    exchange(
        &v,
        "x",
        "x-delayed-message",
        "d",
        &[("x-delayed-type", "direct".into())],
    )
    .unwrap();
    let id = v.waiting_queues()[0].id();
    let (broker, skipped) = opened_with(&store, DefinitionKind::Exchange, |d| d.2[0] = 2);
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(keeps(&broker, id));
    assert!(broker.vhost("/").unwrap().queues().is_empty());
    broker
        .vhost("/")
        .unwrap()
        .delete_exchange("x", false)
        .unwrap();
    let (_, skipped) = reopened(&store);
    assert_eq!(skipped, vec![]);
}

#[test]
fn the_first_user_and_where_it_enters_are_one_record() {
    for vhosts in [&[][..], &["shop", "other"]] {
        let store = Arc::new(Store::default());
        let (broker, _) = Broker::new(store.clone(), &[]);
        for name in vhosts {
            broker.add_vhost(name).unwrap();
        }
        let before = store.durable();
        let user = User {
            name: "first".into(),
            password_hash: "hash".into(),
            hashing_algorithm: "algorithm".into(),
            tags: vec!["administrator".into()],
        };
        let new = vhosts.is_empty().then_some("/");
        let lsn = broker.bootstrap(new, Some(user.clone())).unwrap();
        assert_eq!(lsn.0, before.0 + 1);
        let (again, skipped) = reopened(&store);
        assert_eq!(skipped, vec![]);
        for broker in [broker, again] {
            assert_eq!(broker.access().user("first").as_deref(), Some(&user));
            let all = broker.vhosts();
            assert_eq!(all.len(), vhosts.len().max(1));
            for v in all {
                assert!(broker.access().permissions("first", &v.name).is_some());
            }
        }
    }
}
