//! Tests of the topology. What RabbitMQ answers was tried on 4.3.6.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex as StdMutex;

use proptest::prelude::*;

use super::*;
use crate::broker::Broker;
use crate::broker::arguments::Problem;
use crate::broker::ports::LogFailed;
use crate::broker::ports::{Appended, Bell, Definition, Found, MessageId};

/// Values by kind and key.
type Kept = BTreeMap<(DefinitionKind, Vec<u8>), Vec<u8>>;

/// A log that keeps definitions as the store does: the last value of each key.
#[derive(Default)]
pub(in crate::broker) struct Store {
    kept: StdMutex<Kept>,
    lsn: AtomicU64,
}

impl Store {
    pub(in crate::broker) fn definitions(&self) -> Vec<Definition> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .map(|((kind, key), value)| (*kind, key.clone(), value.clone()))
            .collect()
    }

    fn count(&self, kind: DefinitionKind) -> usize {
        self.definitions().iter().filter(|d| d.0 == kind).count()
    }
}

impl MessageLog for Store {
    fn append(&self, records: &mut Records) -> Result<Appended, LogFailed> {
        let mut kept = self.kept.lock().unwrap();
        for change in records.definitions.drain(..) {
            let key = (change.kind, change.key);
            match change.value {
                Some(value) => {
                    kept.insert(key, value);
                }
                None => assert!(kept.remove(&key).is_some(), "it was stored: {key:?}"),
            }
        }
        records.clear();
        Ok(Appended {
            first_id: MessageId(1),
            lsn: Lsn(self.lsn.fetch_add(1, Ordering::Relaxed) + 1),
        })
    }

    fn durable(&self) -> Lsn {
        Lsn(self.lsn.load(Ordering::Relaxed))
    }

    fn staged(&self) -> Lsn {
        self.durable()
    }

    fn failed(&self) -> bool {
        false
    }

    fn ring_at(&self, _: Lsn, bell: &Arc<dyn Bell>) {
        bell.ring();
    }

    fn read(&self, _: &[MessageId], _: &mut Vec<Found>) -> io::Result<()> {
        Ok(())
    }

    fn backlog_bytes(&self) -> u64 {
        0
    }

    fn close(&self, _: &[(QueueId, MessageId)]) -> io::Result<()> {
        Ok(())
    }
}

pub(in crate::broker) const ME: ConnectionId = ConnectionId(1);
const OTHER: ConnectionId = ConnectionId(2);

/// A broker with one vhost, and its store.
pub(in crate::broker) fn fresh() -> (Arc<Store>, Arc<Vhost>) {
    let store = Arc::new(Store::default());
    let vhost = reopened(&store);
    (store, vhost)
}

/// The vhost as a broker finds it that starts on this store.
fn reopened(store: &Arc<Store>) -> Arc<Vhost> {
    let (broker, skipped) = Broker::new(store.clone(), &store.definitions());
    assert!(skipped.is_empty(), "{skipped:?}");
    broker.add_vhost("/").unwrap();
    broker.vhost("/").unwrap()
}

pub(in crate::broker) fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
    let mut t = FieldTable::new();
    for (name, value) in fields {
        t.insert(*name, value.clone());
    }
    t
}

/// Flags of a declaration, as letters: durable, exclusive, auto-delete, internal.
fn has(flags: &str, flag: char) -> bool {
    flags.contains(flag)
}

pub(in crate::broker) fn exchange(
    v: &Vhost,
    name: &str,
    kind: &str,
    flags: &str,
    arguments: &[(&str, FieldValue)],
) -> Result<Lsn, TopologyError> {
    v.declare_exchange(&ExchangeDeclare {
        name,
        kind,
        durable: has(flags, 'd'),
        auto_delete: has(flags, 'a'),
        internal: has(flags, 'i'),
        arguments: &table(arguments),
    })
}

fn declare(
    v: &Vhost,
    name: &str,
    flags: &str,
    arguments: &[(&str, FieldValue)],
    connection: ConnectionId,
) -> Result<(Arc<Queue>, Lsn, bool), TopologyError> {
    let generated = generated_name("amq.gen-");
    v.declare_queue(&QueueDeclare {
        name: if name.is_empty() { &generated } else { name },
        server_named: name.is_empty(),
        durable: has(flags, 'd'),
        exclusive: has(flags, 'e'),
        auto_delete: has(flags, 'a'),
        arguments: &table(arguments),
        connection,
    })
}

pub(in crate::broker) fn queue(v: &Vhost, name: &str, flags: &str) -> Arc<Queue> {
    declare(v, name, flags, &[], ME).unwrap().0
}

/// A destination by name: `q…` is a queue, anything else an exchange.
fn destination(v: &Vhost, name: &str) -> Option<Destination> {
    if name.starts_with('q') {
        v.queue(name).map(Destination::Queue)
    } else {
        v.exchange(name).map(Destination::Exchange)
    }
}

pub(in crate::broker) fn bind(
    v: &Vhost,
    source: &str,
    to: &str,
    routing_key: &str,
    arguments: &[(&str, FieldValue)],
) -> Result<Lsn, TopologyError> {
    v.bind(&BindingSpec {
        source,
        destination: &destination(v, to).unwrap(),
        routing_key,
        arguments: &table(arguments),
    })
    .map(|(lsn, _)| lsn)
}

pub(in crate::broker) fn unbind(
    v: &Vhost,
    source: &str,
    to: &str,
    routing_key: &str,
    arguments: &[(&str, FieldValue)],
) {
    v.unbind(&BindingSpec {
        source,
        destination: &destination(v, to).unwrap(),
        routing_key,
        arguments: &table(arguments),
    })
    .unwrap();
}

pub(in crate::broker) fn delete(v: &Vhost, name: &str) {
    let queue = v.queue(name).unwrap();
    v.delete_queue(&queue, DeleteIf::default(), &mut Effects::default())
        .unwrap();
}

fn names(v: &Vhost) -> Vec<String> {
    let mut names: Vec<_> = v
        .exchanges()
        .iter()
        .map(|x| x.info.name.to_string())
        .collect();
    names.retain(|n| !n.is_empty() && !n.starts_with("amq."));
    names.sort();
    names
}

#[test]
fn a_vhost_starts_with_the_predeclared_exchanges() {
    let (store, v) = fresh();
    for (name, kind, internal) in PREDECLARED {
        let info = v.exchange(name).unwrap().info.clone();
        assert_eq!(
            (info.kind, info.internal, info.durable),
            (kind, internal, true)
        );
    }
    assert_eq!(store.count(DefinitionKind::Exchange), 0);
}

#[test]
fn exchanges_are_refused_as_rabbitmq_refuses_them() {
    use TopologyError as E;
    let (_, v) = fresh();
    let ae = "alternate-exchange";
    let text = |s: &str| FieldValue::from(s);
    exchange(&v, "x", "direct", "", &[(ae, text("ae"))]).unwrap();
    exchange(&v, "plain", "direct", "", &[]).unwrap();
    let differs = |name: &str, argument, received, current| {
        Err(E::ExchangeDiffers(
            name.into(),
            Inequivalent {
                argument,
                received,
                current,
            },
        ))
    };
    let flag = |on| Some(FieldValue::Bool(on));
    let reserved = |name: &str| {
        Err(E::ReservedName {
            queue: false,
            name: name.into(),
        })
    };

    type Row<'a> = (
        &'a str,
        &'a str,
        &'a str,
        Vec<(&'a str, FieldValue)>,
        Result<Lsn, E>,
    );
    let rows: Vec<Row<'_>> = vec![
        (
            "x",
            "direct",
            "",
            vec![(ae, text("ae")), ("other", text("?"))],
            Ok(Lsn(0)),
        ),
        ("amq.direct", "direct", "d", vec![], Ok(Lsn(0))),
        (
            "long",
            "direct",
            "",
            vec![(ae, text(&"e".repeat(256)))],
            Err(E::ExchangeArgument(
                "long".into(),
                ArgumentError {
                    argument: ae,
                    problem: Problem::TooLong(256),
                },
            )),
        ),
        ("", "nope", "", vec![], Err(E::UnknownType("nope".into()))),
        ("x", "nope", "", vec![], Err(E::UnknownType("nope".into()))),
        ("", "direct", "d", vec![], Err(E::DefaultExchange)),
        ("amq.new", "direct", "", vec![], reserved("amq.new")),
        (
            "amq.direct",
            "fanout",
            "",
            vec![],
            differs(
                "amq.direct",
                "type",
                Some(text("fanout")),
                Some(text("direct")),
            ),
        ),
        (
            "x",
            "direct",
            "dai",
            vec![],
            differs("x", "durable", flag(true), flag(false)),
        ),
        (
            "x",
            "direct",
            "ai",
            vec![],
            differs("x", "auto_delete", flag(true), flag(false)),
        ),
        (
            "x",
            "direct",
            "i",
            vec![],
            differs("x", "internal", flag(true), flag(false)),
        ),
        (
            "x",
            "direct",
            "",
            vec![],
            differs("x", ae, None, Some(text("ae"))),
        ),
        (
            "x",
            "direct",
            "",
            vec![(ae, text("b"))],
            differs("x", ae, Some(text("b")), Some(text("ae"))),
        ),
        (
            "plain",
            "direct",
            "",
            vec![(ae, FieldValue::I32(1))],
            differs("plain", ae, Some(FieldValue::I32(1)), None),
        ),
        (
            "new",
            "direct",
            "",
            vec![(ae, FieldValue::I32(1))],
            Err(E::ExchangeArgumentType(
                "new".into(),
                "alternate-exchange",
                "signedint",
            )),
        ),
    ];
    for (name, kind, flags, arguments, want) in rows {
        assert_eq!(
            exchange(&v, name, kind, flags, &arguments),
            want,
            "{name} {kind} {flags}"
        );
    }
    let system = |name: &str| Err(E::SystemExchange(name.into()));
    assert_eq!(v.delete_exchange("", false), Err(E::DefaultExchange));
    assert_eq!(v.delete_exchange("amq.direct", false), system("amq.direct"));
    assert_eq!(
        v.delete_exchange("amq.missing", false),
        system("amq.missing")
    );
    assert_eq!(v.delete_exchange("missing", true), Ok(Lsn(0)));
    bind(&v, "amq.direct", "x", "", &[]).unwrap();
    assert_eq!(
        v.delete_exchange("x", true),
        Ok(Lsn(0)),
        "a binding to it is no use of it"
    );
    queue(&v, "q", "");
    bind(&v, "plain", "q", "", &[]).unwrap();
    let in_use = Err(E::ExchangeInUse("plain".into()));
    assert_eq!(v.delete_exchange("plain", true), in_use);
    assert_eq!(v.delete_exchange("plain", false), Ok(Lsn(0)));
    assert!(names(&v).is_empty());
}

#[test]
fn queues_are_refused_as_rabbitmq_refuses_them() {
    use TopologyError as E;
    let (_, v) = fresh();
    let ttl = |n| vec![("x-message-ttl", FieldValue::I32(n))];
    declare(&v, "d", "d", &ttl(5), ME).unwrap();
    declare(&v, "e", "de", &[], ME).unwrap();
    let locked = |name: &str| Some(E::Locked(name.into()));
    let differs = |name: &str, argument, received, current| {
        Some(E::QueueDiffers(
            name.into(),
            Inequivalent {
                argument,
                received,
                current,
            },
        ))
    };
    let flag = |on| Some(FieldValue::Bool(on));
    let reserved = |name: &str| {
        Some(E::ReservedName {
            queue: true,
            name: name.into(),
        })
    };
    let generated = queue(&v, "", "").info().name.to_string();
    assert!(generated.starts_with("amq.gen-") && generated.len() == 30);

    type Row<'a> = (
        &'a str,
        &'a str,
        Vec<(&'a str, FieldValue)>,
        ConnectionId,
        Option<E>,
    );
    let rows: Vec<Row<'_>> = vec![
        (
            "d",
            "d",
            vec![
                ("x-message-ttl", FieldValue::I64(5)),
                ("x-none", FieldValue::Void),
            ],
            OTHER,
            None,
        ),
        ("e", "e", vec![], ME, None),
        ("e", "de", vec![], ME, None),
        (
            "e",
            "ea",
            vec![],
            ME,
            differs("e", "auto_delete", flag(true), flag(false)),
        ),
        ("e", "e", vec![], OTHER, locked("e")),
        ("e", "", vec![], OTHER, locked("e")),
        ("e", "d", vec![], ME, locked("e")),
        ("d", "de", vec![], ME, locked("d")),
        (
            "d",
            "a",
            vec![],
            ME,
            differs("d", "durable", flag(false), flag(true)),
        ),
        (
            "d",
            "da",
            vec![],
            ME,
            differs("d", "auto_delete", flag(true), flag(false)),
        ),
        (
            "d",
            "d",
            ttl(6),
            ME,
            differs(
                "d",
                "x-message-ttl",
                Some(FieldValue::I32(6)),
                Some(FieldValue::I32(5)),
            ),
        ),
        (
            "d",
            "d",
            ttl(-1),
            ME,
            differs(
                "d",
                "x-message-ttl",
                Some(FieldValue::I32(-1)),
                Some(FieldValue::I32(5)),
            ),
        ),
        ("amq.mine", "", vec![], ME, reserved("amq.mine")),
        (&generated, "", vec![], ME, reserved(&generated)),
    ];
    for (name, flags, arguments, connection, want) in rows {
        let got = declare(&v, name, flags, &arguments, connection).err();
        assert_eq!(got, want, "{name} {flags}");
    }
    assert!(matches!(
        declare(&v, "n", "", &ttl(-1), ME).err(),
        Some(E::Argument(..))
    ));
    assert_eq!(v.lookup_queue("e", OTHER).err(), locked("e"));
    assert_eq!(v.lookup_queue("n", ME).err(), Some(E::NoQueue("n".into())));
    delete(&v, "e");
    assert!(v.take_exclusive_queues(ME).is_empty());
}

#[test]
fn a_queue_marked_as_deleted_is_gone_for_everybody_and_can_be_declared_anew() {
    let (store, v) = fresh();
    let old = queue(&v, "q", "d");
    bind(&v, "amq.direct", "q", "k", &[]).unwrap();
    old.mark_deleted(DeleteIf::default(), &mut Effects::default())
        .unwrap();
    assert!(matches!(
        v.lookup_queue("q", ME),
        Err(TopologyError::NoQueue(_))
    ));
    let spec = bind(&v, "amq.direct", "q", "other", &[]);
    assert_eq!(spec, Err(TopologyError::NoQueue("q".into())));

    let (new, _, is_new) = declare(&v, "q", "d", &[], ME).unwrap();
    assert!(is_new && new.id() != old.id());
    assert!(v.exchange("amq.direct").unwrap().router().is_empty());
    assert_eq!(store.count(DefinitionKind::Binding), 0);
    // Whoever marked the old one arrives late.
    v.delete_queue(&old, DeleteIf::default(), &mut Effects::default())
        .unwrap();
    assert!(Arc::ptr_eq(&v.queue("q").unwrap(), &new));
}

/// Go keeps tables in a map and sends their fields in another order each time.
#[test]
fn the_order_of_a_bindings_arguments_does_not_matter() {
    let (store, v) = fresh();
    queue(&v, "q", "d");
    let (a, b) = (("a", FieldValue::I32(1)), ("b", FieldValue::F64(f64::NAN)));
    bind(&v, "amq.headers", "q", "", &[a.clone(), b.clone()]).unwrap();
    bind(&v, "amq.headers", "q", "", &[b.clone(), a.clone()]).unwrap();
    assert_eq!(store.count(DefinitionKind::Binding), 1);
    unbind(&v, "amq.headers", "q", "", &[b, a]);
    assert_eq!(store.count(DefinitionKind::Binding), 0);
    assert!(v.exchange("amq.headers").unwrap().router().is_empty());
}

#[test]
fn bindings_are_checked_by_the_type_of_their_source() {
    let (_, v) = fresh();
    queue(&v, "q", "");
    let bad = [("x-match", FieldValue::I32(1))];
    assert!(matches!(
        bind(&v, "amq.headers", "q", "", &bad),
        Err(TopologyError::Match(_))
    ));
    bind(&v, "amq.direct", "q", "", &bad).unwrap();
    bind(&v, "amq.topic", "q", "#.#", &[]).unwrap();
    bind(&v, "amq.topic", "q", "a#.##.#.#", &[]).unwrap();
    let refused = bind(&v, "amq.topic", "q", "#.a.#.b.#", &[]);
    assert_eq!(
        refused,
        Err(TopologyError::TopicHashes("#.a.#.b.#".into(), 3))
    );
    unbind(&v, "amq.topic", "q", "#.a.#.b.#", &[]);
    let missing = bind(&v, "missing", "q", "", &[]);
    assert_eq!(missing, Err(TopologyError::NoExchange("missing".into())));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding_and_takes_others_along() {
    let (store, v) = fresh();
    for name in ["a", "b", "c", "never"] {
        exchange(&v, name, "fanout", "da", &[]).unwrap();
    }
    queue(&v, "q", "d");
    bind(&v, "a", "b", "", &[]).unwrap();
    bind(&v, "b", "c", "", &[]).unwrap();
    bind(&v, "c", "q", "1", &[]).unwrap();
    bind(&v, "c", "q", "2", &[]).unwrap();
    unbind(&v, "c", "q", "1", &[]);
    assert_eq!(names(&v).len(), 4);
    delete(&v, "q");
    assert_eq!(names(&v), ["never"]);
    assert_eq!(store.count(DefinitionKind::Exchange), 1);
    assert_eq!(store.count(DefinitionKind::Binding), 0);
}

#[test]
fn exchanges_bound_in_a_circle_are_deleted_once() {
    let (_, v) = fresh();
    exchange(&v, "a", "fanout", "a", &[]).unwrap();
    exchange(&v, "b", "fanout", "a", &[]).unwrap();
    bind(&v, "a", "b", "", &[]).unwrap();
    bind(&v, "b", "a", "", &[]).unwrap();
    bind(&v, "a", "a", "", &[]).unwrap();
    v.delete_exchange("a", false).unwrap();
    assert!(names(&v).is_empty());
}

/// The first declaration may still be on its way to the disk, and the reply to the second says that
/// the queue is there to stay.
#[test]
fn who_declares_what_is_there_waits_for_it_to_be_durable() {
    let (_, v) = fresh();
    let (_, first, _) = declare(&v, "q", "d", &[], ME).unwrap();
    let (_, again, new) = declare(&v, "q", "d", &[], ME).unwrap();
    assert!(!new && again >= first && first > Lsn(0));
    let bound = bind(&v, "amq.direct", "q", "", &[]).unwrap();
    assert_eq!(bind(&v, "amq.direct", "q", "", &[]), Ok(bound));
    let (_, transient, _) = declare(&v, "t", "", &[], ME).unwrap();
    assert_eq!(transient, Lsn(0));
}

#[test]
fn an_id_of_a_deleted_queue_is_not_used_again_after_a_restart() {
    let store = Arc::new(Store::default());
    let (broker, _) = Broker::new(store.clone(), &[]);
    for name in ["/", "other"] {
        broker.add_vhost(name).unwrap();
    }
    let mut last = QueueId(0);
    for name in ["/", "other", "/"] {
        let v = broker.vhost(name).unwrap();
        last = queue(&v, "q", "d").id();
        delete(&v, "q");
    }
    assert!(queue(&reopened(&store), "q", "d").id() > last);
}

// ----- random operations ------------------------------------------------------------------

#[derive(Clone, Debug)]
pub(in crate::broker) enum Op {
    DeclareExchange(u8, u8, bool, bool),
    DeleteExchange(u8, bool),
    DeclareQueue(u8, bool),
    DeleteQueue(u8),
    Bind(u8, u8, u8),
    Unbind(u8, u8, u8),
}

pub(in crate::broker) const EXCHANGES: [&str; 4] = ["x0", "x1", "x2", "amq.topic"];
const KINDS: [&str; 4] = ["direct", "fanout", "topic", "headers"];
const DESTINATIONS: [&str; 6] = ["q0", "q1", "q2", "x0", "x1", "x2"];
pub(in crate::broker) const KEYS: [&str; 4] = ["", "a", "a.b", "#"];

pub(in crate::broker) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let n = any::<u8>;
    prop::collection::vec(
        prop_oneof![
            2 => (n(), n(), any::<bool>(), prop::bool::weighted(0.3))
                .prop_map(|(n, k, d, a)| Op::DeclareExchange(n, k, d, a)),
            1 => (n(), any::<bool>()).prop_map(|(n, u)| Op::DeleteExchange(n, u)),
            2 => (n(), any::<bool>()).prop_map(|(n, d)| Op::DeclareQueue(n, d)),
            1 => n().prop_map(Op::DeleteQueue),
            6 => (n(), n(), n()).prop_map(|(s, d, k)| Op::Bind(s, d, k)),
            2 => (n(), n(), n()).prop_map(|(s, d, k)| Op::Unbind(s, d, k)),
        ],
        1..60,
    )
}

fn pick<'a>(from: &[&'a str], n: u8) -> &'a str {
    from[usize::from(n) % from.len()]
}

/// Carries out an operation; one that makes no sense now is refused or does nothing.
pub(in crate::broker) fn apply(v: &Vhost, op: &Op) {
    match *op {
        Op::DeclareExchange(n, kind, durable, auto_delete) => {
            let flags = [("", "a"), ("d", "da")][usize::from(durable)];
            let flags = if auto_delete { flags.1 } else { flags.0 };
            let _ = exchange(v, pick(&EXCHANGES, n), pick(&KINDS, kind), flags, &[]);
        }
        Op::DeleteExchange(n, if_unused) => {
            let _ = v.delete_exchange(pick(&EXCHANGES, n), if_unused);
        }
        Op::DeclareQueue(n, durable) => {
            let _ = declare(
                v,
                pick(&DESTINATIONS[..3], n),
                if durable { "d" } else { "" },
                &[],
                ME,
            );
        }
        Op::DeleteQueue(n) => {
            if v.queue(pick(&DESTINATIONS[..3], n)).is_some() {
                delete(v, pick(&DESTINATIONS[..3], n));
            }
        }
        Op::Bind(s, d, k) => {
            if destination(v, pick(&DESTINATIONS, d)).is_some() {
                let _ = bind(
                    v,
                    pick(&EXCHANGES, s),
                    pick(&DESTINATIONS, d),
                    pick(&KEYS, k),
                    &[],
                );
            }
        }
        Op::Unbind(s, d, k) => {
            if destination(v, pick(&DESTINATIONS, d)).is_some() {
                unbind(
                    v,
                    pick(&EXCHANGES, s),
                    pick(&DESTINATIONS, d),
                    pick(&KEYS, k),
                    &[],
                );
            }
        }
    }
}

/// Everything in a vhost that survives a restart, or everything there is.
fn snapshot(v: &Vhost, only_durable: bool) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for q in v.queues() {
        if q.info().durable || !only_durable {
            all.insert(format!("queue {} {:?}", q.info().name, q.id()));
        }
    }
    for x in v.exchanges() {
        if x.info.durable || !only_durable {
            all.insert(format!("exchange {:?}", x.info));
        }
        for (to, key, arguments) in x.router().iter() {
            if (x.info.durable && to.durable()) || !only_durable {
                all.insert(format!("{} {key} {arguments:?} {}", x.info.name, to.name()));
            }
        }
    }
    all
}

proptest! {
    #[test]
    fn a_restart_brings_back_exactly_what_is_durable(ops in ops()) {
        let (store, v) = fresh();
        for op in &ops {
            apply(&v, op);
        }
        prop_assert_eq!(snapshot(&v, true), snapshot(&reopened(&store), false));
    }

    #[test]
    fn the_links_agree_with_the_routers_and_nothing_leads_to_what_is_gone(ops in ops()) {
        let (_, v) = fresh();
        for op in &ops {
            apply(&v, op);
            let links = v.links.lock();
            let mut linked = BTreeSet::new();
            for (to, sources) in &links.sources {
                prop_assert_eq!(&destination(&v, to.name()), &Some(to.clone()));
                for source in sources {
                    let known = v.exchange(&source.info.name);
                    prop_assert!(known.is_some_and(|x| Arc::ptr_eq(&x, source)));
                    linked.insert((source.info.name.to_string(), to.name().to_string()));
                }
            }
            let mut bound = BTreeSet::new();
            for x in v.exchanges() {
                for (to, ..) in x.router().iter() {
                    bound.insert((x.info.name.to_string(), to.name().to_string()));
                }
            }
            prop_assert_eq!(linked, bound);
        }
    }
}

#[test]
fn exchanges_bound_in_a_circle_go_with_their_vhost() {
    let (store, vhost) = fresh();
    exchange(&vhost, "a", "fanout", "", &[]).unwrap();
    exchange(&vhost, "b", "fanout", "", &[]).unwrap();
    bind(&vhost, "a", "b", "", &[]).unwrap();
    bind(&vhost, "b", "a", "", &[]).unwrap();
    let a = Arc::downgrade(&vhost.exchange("a").unwrap());
    drop((vhost, store));
    assert!(a.upgrade().is_none());
}
