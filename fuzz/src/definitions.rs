//! Definitions files. What is taken of one is what a restart finds, what the same file does not change when it is
//! loaded again, and what a file that says all of it, or a file for each vhost, brings to an empty broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use leveret::broker::Broker;
use leveret::broker::codec::{fields, key_parts, table_of};
use leveret::broker::definitions::{StoredBinding, StoredQueue, read_exchange};
use leveret::broker::ports::{Definition, DefinitionKind};
use leveret::definitions_file;
use leveret::protocol::field_table::{FieldTable, FieldValue};
use leveret::storage::memory::MemoryLog;
use serde_json::{Map, Value, json};

use super::within;

/// A few brokers with nothing in them.
const AT_REST: u64 = 24 << 20;

/// A pattern of a permission may be much larger when it is read than written; its own limit is tested elsewhere.
const FOR_AN_OCTET: u64 = 16 << 10;

/// Octets of an input at most: what is checked takes several times as long as what it is of.
const INPUT_MAX: usize = 1 << 16;

/// See the module.
pub fn run(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_MAX)];
    within(AT_REST, FOR_AN_OCTET, input.len(), || check(input));
}

/// A broker with what the log of another one had, and with its own log.
fn broker(stored: &[Definition]) -> (Broker, Arc<MemoryLog>) {
    let log = MemoryLog::new();
    let (broker, skipped) = Broker::new(log.clone(), stored);
    let skipped: Vec<_> = skipped
        .iter()
        .map(|(what, why)| format!("{what}: {}", why.0))
        .collect();
    assert!(
        skipped.is_empty(),
        "taken from a file, not from the store: {skipped:?}"
    );
    (broker, log)
}

fn load(broker: &Broker, text: &[u8]) -> Option<Vec<String>> {
    definitions_file::load(broker, &super::file(text), "/", None).ok()
}

fn check(input: &[u8]) {
    let (first, log) = broker(&[]);
    let Some(problems) = load(&first, input) else {
        // Nothing of it was applied.
        assert!(log.definitions().is_empty());
        return;
    };
    let stored = log.definitions();
    let all = comparable(&stored);
    // The same once more, and after a restart.
    let again = load(&first, input).expect("it was read before");
    assert_eq!(again, problems);
    same(&comparable(&log.definitions()), &all, "loaded again");
    let (restarted, log) = broker(&stored);
    load(&restarted, input).expect("it was read before");
    let mut then = all.clone();
    then.extend(comparable(&log.definitions()));
    same(&then, &all, "loaded after a restart");
    // A strict load takes it whole or leaves it.
    let ((strict, log), (empty, _)) = (broker(&[]), broker(&[]));
    let taken = definitions_file::load(&strict, &super::file(input), "/", Some(&empty));
    assert_eq!(taken.is_ok(), problems.is_empty());
    assert!(taken.is_ok() || log.definitions().is_empty());
    let Some(file) = Export::of(&stored) else {
        return;
    };
    let (other, log) = broker(&[]);
    let text = file.whole().to_string();
    let problems = load(&other, text.as_bytes()).expect("JSON");
    assert!(problems.is_empty(), "{problems:?} of {text}");
    same(&comparable(&log.definitions()), &all, &text);
    // Users are not in exports of one vhost.
    let (other, log) = broker(&[]);
    for vhost in file.vhosts.keys() {
        let text = file.of_vhost(vhost).to_string();
        let problems = load(&other, text.as_bytes()).expect("JSON");
        assert!(problems.is_empty(), "{problems:?} of {text}");
    }
    let mut of_vhosts = all;
    of_vhosts.retain(|(kind, key), _| match kind {
        DefinitionKind::User | DefinitionKind::Permission | DefinitionKind::TopicPermission => {
            false
        }
        DefinitionKind::Parameter => key_parts(key).expect("a key")[0] == "vhost-limits",
        _ => true,
    });
    if !file.vhosts.is_empty() {
        same(&comparable(&log.definitions()), &of_vhosts, "of each vhost");
    }
}

type Comparable = BTreeMap<(DefinitionKind, Vec<u8>), Vec<u8>>;

fn same(found: &Comparable, wanted: &Comparable, what: &str) {
    let differs = |a: &Comparable, b: &Comparable| {
        let differs = a.iter().filter(|(key, value)| b.get(*key) != Some(value));
        let shown = differs.map(|((kind, key), value)| {
            format!("{kind:?} {}: {}", key.escape_ascii(), value.escape_ascii())
        });
        shown.collect::<Vec<_>>().join("\n")
    };
    if found != wanted {
        let (more, missing) = (differs(found, wanted), differs(wanted, found));
        panic!("{what}\nis there:\n{more}\nshould be there:\n{missing}");
    }
}

/// A table by its names: neither limits nor arguments have an order.
fn ordered(table: &FieldTable) -> FieldTable {
    let mut fields: Vec<_> = table.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    let mut out = FieldTable::new();
    for (name, value) in fields {
        match value {
            FieldValue::Table(inner) => out.insert(name, ordered(inner)),
            other => out.insert(name, other.clone()),
        }
    }
    out
}

/// Definitions without the numbers that the log gives.
fn comparable(stored: &[Definition]) -> Comparable {
    let kept = stored
        .iter()
        .filter(|(kind, ..)| *kind != DefinitionKind::Meta);
    let kept = kept.map(|(kind, key, value)| {
        let mut table = fields(value).expect("what the broker wrote");
        table.remove("id");
        ((*kind, key.clone()), ordered(&table).to_bytes())
    });
    kept.collect()
}

/// What a broker has, as entries of a definitions file; those of a vhost do not say which.
#[derive(Default)]
struct Export {
    users: Vec<Value>,
    permissions: Vec<Value>,
    topic_permissions: Vec<Value>,
    vhosts: BTreeMap<String, VhostExport>,
}

#[derive(Default)]
struct VhostExport {
    default_queue_type: Option<String>,
    limits: Option<Value>,
    exchanges: Vec<Value>,
    queues: Vec<Value>,
    bindings: Vec<Value>,
}

impl Export {
    /// None: a number in it is not the same when it is written and read.
    fn of(stored: &[Definition]) -> Option<Export> {
        let mut all = Export::default();
        for (kind, key, value) in stored {
            let table = fields(value).expect("what the broker wrote");
            let parts = || key_parts(key).expect("a key");
            let text = |name: &str| {
                table
                    .get(name)
                    .and_then(FieldValue::as_str)
                    .unwrap_or_default()
            };
            match kind {
                DefinitionKind::Vhost => {
                    let vhost = all.vhosts.entry(parts().concat()).or_default();
                    let name = table.get("default_queue_type").and_then(FieldValue::as_str);
                    vhost.default_queue_type = name.map(str::to_string);
                }
                DefinitionKind::User => all.users.push(json!({
                    "name": parts().concat(),
                    "password_hash": text("password_hash"),
                    "hashing_algorithm": text("hashing_algorithm"),
                    "tags": table.get("tags").map(json_of)??,
                })),
                DefinitionKind::Permission => {
                    let [configure, write, read] = ["configure", "write", "read"].map(text);
                    let [user, vhost] = &parts()[..] else {
                        panic!("a key of two parts")
                    };
                    all.permissions.push(json!({
                        "user": user, "vhost": vhost, "configure": configure, "write": write, "read": read,
                    }));
                }
                DefinitionKind::TopicPermission => {
                    let [user, vhost, exchange] = &parts()[..] else {
                        panic!("a key of three parts")
                    };
                    all.topic_permissions.push(json!({
                        "user": user, "vhost": vhost, "exchange": exchange,
                        "write": text("write"), "read": text("read"),
                    }));
                }
                DefinitionKind::Exchange => {
                    let (vhost, x) = read_exchange(key, value).expect("an exchange");
                    all.vhosts.entry(vhost).or_default().exchanges.push(json!({
                        "name": &*x.name, "type": x.kind.as_str(), "durable": true,
                        "auto_delete": x.auto_delete, "internal": x.internal,
                        "arguments": json_of_table(&x.arguments)?,
                    }));
                }
                DefinitionKind::Queue => {
                    let (vhost, q) = StoredQueue::read(key, value).expect("a queue");
                    if q.delays.is_none() {
                        all.vhosts.entry(vhost).or_default().queues.push(json!({
                            "name": q.name, "durable": true, "auto_delete": q.auto_delete,
                            "arguments": json_of_table(&q.arguments)?,
                        }));
                    }
                }
                DefinitionKind::Binding => {
                    // The arguments in its key are octets.
                    let (vhost, b) = StoredBinding::read(key, value).expect("a binding");
                    all.vhosts.entry(vhost).or_default().bindings.push(json!({
                        "source": b.source, "destination": b.destination, "routing_key": b.routing_key,
                        "destination_type": if b.to_queue { "queue" } else { "exchange" },
                        "arguments": json_of_table(&table_of(&table, "arguments"))?,
                    }));
                }
                DefinitionKind::Parameter => {
                    let [component, name] = &parts()[..] else {
                        panic!("a key of two parts")
                    };
                    let limits = json_of_table(&table)?;
                    match component.as_str() {
                        "vhost-limits" => {
                            all.vhosts.entry(name.clone()).or_default().limits = Some(limits)
                        }
                        _ => {
                            let mut users = all.users.iter_mut();
                            let user = users
                                .find(|u| u["name"] == name.as_str())
                                .expect("whose limits");
                            user["limits"] = limits;
                        }
                    }
                }
                DefinitionKind::Meta => {}
                other => panic!("{other:?} from a file"),
            }
        }
        Some(all)
    }

    fn whole(&self) -> Value {
        let of = |entries: fn(&VhostExport) -> &[Value]| {
            let all = self.vhosts.iter();
            let all = all.flat_map(|(vhost, its)| {
                entries(its).iter().map(move |entry| {
                    let mut entry = entry.clone();
                    entry["vhost"] = vhost.as_str().into();
                    entry
                })
            });
            Value::Array(all.collect())
        };
        let vhosts = self.vhosts.iter().map(|(name, its)| {
            let mut entry = its.itself();
            entry.insert("name".into(), name.as_str().into());
            Value::Object(entry)
        });
        json!({
            "users": self.users,
            "vhosts": vhosts.collect::<Vec<_>>(),
            "permissions": self.permissions,
            "topic_permissions": self.topic_permissions,
            "exchanges": of(|v| &v.exchanges),
            "queues": of(|v| &v.queues),
            "bindings": of(|v| &v.bindings),
        })
    }

    fn of_vhost(&self, name: &str) -> Value {
        let its = &self.vhosts[name];
        let mut file = its.itself();
        file.insert("original_vhost_name".into(), name.into());
        file.insert("exchanges".into(), its.exchanges.clone().into());
        file.insert("queues".into(), its.queues.clone().into());
        file.insert("bindings".into(), its.bindings.clone().into());
        Value::Object(file)
    }
}

impl VhostExport {
    fn itself(&self) -> Map<String, Value> {
        let mut entry = Map::new();
        if let Some(kind) = &self.default_queue_type {
            entry.insert("default_queue_type".into(), kind.as_str().into());
        }
        if let Some(limits) = &self.limits {
            entry.insert("limits".into(), limits.clone());
        }
        entry
    }
}

fn json_of_table(table: &FieldTable) -> Option<Value> {
    let fields = table.iter().map(|(name, value)| {
        let name = name.to_str().expect("from a file").to_string();
        Some((name, json_of(value)?))
    });
    fields.collect::<Option<Map<_, _>>>().map(Value::Object)
}

fn json_of(value: &FieldValue) -> Option<Value> {
    Some(match value {
        FieldValue::Void => Value::Null,
        FieldValue::Bool(b) => (*b).into(),
        FieldValue::I64(n) => (*n).into(),
        FieldValue::F64(f) => {
            let same = serde_json::from_str::<f64>(&Value::from(*f).to_string()).ok() == Some(*f);
            return same.then(|| (*f).into());
        }
        FieldValue::LongStr(octets) => std::str::from_utf8(octets).expect("from a file").into(),
        FieldValue::Array(items) => Value::Array(items.iter().map(json_of).collect::<Option<_>>()?),
        FieldValue::Table(inner) => json_of_table(inner)?,
        other => panic!("{other:?} from a file"),
    })
}
