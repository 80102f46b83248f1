//! Definitions in RabbitMQ's JSON format, applied at start.
//!
//! What exists stays as it is; what does not is created. Sections that Leveret does not know yet are
//! reported, not guessed at.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::broker::access::User;
use crate::broker::exchange::Destination;
use crate::broker::vhost::{BindingSpec, ExchangeDeclare, QueueDeclare};
use crate::broker::{Broker, ConnectionId, USER_LIMITS, VHOST_LIMITS};
use crate::password;
use crate::protocol::field_table::{FieldTable, FieldValue};

type Arguments = serde_json::Map<String, Value>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    vhosts: Vec<Vhost>,
    users: Vec<UserEntry>,
    permissions: Vec<PermissionEntry>,
    topic_permissions: Vec<TopicPermissionEntry>,
    exchanges: Vec<ExchangeEntry>,
    queues: Vec<QueueEntry>,
    bindings: Vec<BindingEntry>,
    parameters: Vec<ParameterEntry>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Vhost {
    name: String,
    /// The firehose, as in `PUT /api/vhosts/{name}`.
    tracing: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tags {
    List(Vec<String>),
    Text(String),
}

#[derive(Debug, Deserialize)]
struct UserEntry {
    name: String,
    #[serde(default)]
    password_hash: String,
    #[serde(default)]
    hashing_algorithm: Option<String>,
    #[serde(default)]
    tags: Option<Tags>,
    /// `max-connections`, `max-channels`
    #[serde(default = "no_limits")]
    limits: Value,
}

fn no_limits() -> Value {
    Value::Array(Vec::new())
}

#[derive(Debug, Deserialize)]
struct ParameterEntry {
    vhost: String,
    component: String,
    name: String,
    value: Value,
}

#[derive(Debug, Deserialize)]
struct PermissionEntry {
    user: String,
    vhost: String,
    configure: String,
    write: String,
    read: String,
}

#[derive(Debug, Deserialize)]
struct TopicPermissionEntry {
    user: String,
    vhost: String,
    exchange: String,
    write: String,
    read: String,
}

#[derive(Debug, Deserialize)]
struct ExchangeEntry {
    name: String,
    vhost: String,
    r#type: String,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Debug, Deserialize)]
struct QueueEntry {
    name: String,
    vhost: String,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Debug, Deserialize)]
struct BindingEntry {
    source: String,
    vhost: String,
    destination: String,
    destination_type: String,
    #[serde(default)]
    routing_key: String,
    #[serde(default)]
    arguments: Arguments,
}

/// Sections that say something about the file, not about the broker.
const INFORMATIVE: &[&str] = &[
    "rabbit_version",
    "rabbitmq_version",
    "product_name",
    "product_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    "original_vhost_name",
    "explanation",
    "metadata",
];

/// Loads a file and applies it.
///
/// # Errors
/// The file cannot be read or understood, or an entry is refused; the message names it.
pub fn load(broker: &Broker, path: &Path) -> io::Result<()> {
    let told = |e: String| io::Error::other(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| told(e.to_string()))?;
    let unsupported = apply(broker, &text).map_err(told)?;
    for section in unsupported {
        tracing::warn!(
            "{}: section '{section}' is not supported by this version and was left out",
            path.display()
        );
    }
    tracing::info!("definitions loaded from {}", path.display());
    Ok(())
}

/// Applies definitions; returns the sections that were left out.
fn apply(broker: &Broker, text: &str) -> Result<Vec<String>, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    for v in &file.vhosts {
        broker.add_vhost(&v.name).map_err(|e| e.to_string())?;
        if let (Some(on), Some(vhost)) = (v.tracing, broker.vhost(&v.name)) {
            vhost.set_traced(on);
        }
    }
    for u in file.users {
        let hashing_algorithm = u
            .hashing_algorithm
            .unwrap_or_else(|| password::SHA256.into());
        if !u.password_hash.is_empty() && !password::is_supported(&hashing_algorithm) {
            return Err(format!(
                "user '{}': hashing algorithm '{hashing_algorithm}' is not supported; there are {}",
                u.name,
                password::ALGORITHMS.join(", ")
            ));
        }
        let tags = match u.tags {
            None => Vec::new(),
            Some(Tags::List(tags)) => tags,
            Some(Tags::Text(text)) => text
                .split(',')
                .map(|t| t.trim().to_string())
                .filter(|t| !t.is_empty())
                .collect(),
        };
        put_limits(broker, USER_LIMITS, &u.name, u.limits)?;
        let user = User {
            name: u.name,
            password_hash: u.password_hash,
            hashing_algorithm,
            tags,
        };
        broker.put_user(user).map_err(|e| e.to_string())?;
    }
    for p in &file.permissions {
        let patterns = [p.configure.as_str(), p.write.as_str(), p.read.as_str()];
        broker
            .put_permissions(&p.user, &p.vhost, patterns)
            .map_err(|e| {
                format!(
                    "permissions of user '{}' in vhost '{}': {e}",
                    p.user, p.vhost
                )
            })?;
    }
    for p in &file.topic_permissions {
        let place = [p.user.as_str(), p.vhost.as_str(), p.exchange.as_str()];
        broker
            .put_topic_permissions(place, [&p.write, &p.read])
            .map_err(|e| {
                format!(
                    "topic permissions of user '{}' on exchange '{}' in vhost '{}': {e}",
                    p.user, p.exchange, p.vhost
                )
            })?;
    }
    let vhost = |name: &str| {
        broker
            .vhost(name)
            .ok_or_else(|| format!("vhost '{name}' is not defined"))
    };
    for x in &file.exchanges {
        let arguments = table(&x.arguments);
        let declare = ExchangeDeclare {
            name: &x.name,
            kind: &x.r#type,
            durable: x.durable,
            auto_delete: x.auto_delete,
            internal: x.internal,
            arguments: &arguments,
        };
        let done = vhost(&x.vhost)?.declare_exchange(&declare);
        done.map_err(|e| format!("exchange '{}' in vhost '{}': {e:?}", x.name, x.vhost))?;
    }
    for q in &file.queues {
        if q.name.is_empty() {
            return Err(format!("a queue without a name in vhost '{}'", q.vhost));
        }
        let arguments = table(&q.arguments);
        let declare = QueueDeclare {
            server_named: false,
            name: &q.name,
            durable: q.durable,
            exclusive: false,
            auto_delete: q.auto_delete,
            arguments: &arguments,
            connection: ConnectionId(0),
        };
        let done = vhost(&q.vhost)?.declare_queue(&declare);
        done.map_err(|e| format!("queue '{}' in vhost '{}': {e:?}", q.name, q.vhost))?;
    }
    for b in &file.bindings {
        let vhost = vhost(&b.vhost)?;
        let destination = match b.destination_type.as_str() {
            "queue" => vhost.queue(&b.destination).map(Destination::Queue),
            _ => vhost.exchange(&b.destination).map(Destination::Exchange),
        };
        let told = |e: String| {
            format!(
                "binding from '{}' to '{}' in vhost '{}': {e}",
                b.source, b.destination, b.vhost
            )
        };
        let destination =
            destination.ok_or_else(|| told("its destination is not defined".into()))?;
        let arguments = table(&b.arguments);
        let spec = BindingSpec {
            source: &b.source,
            destination: &destination,
            routing_key: &b.routing_key,
            arguments: &arguments,
        };
        vhost.bind(&spec).map_err(|e| told(format!("{e:?}")))?;
    }
    let mut left = Vec::new();
    for p in file.parameters {
        if p.component == VHOST_LIMITS {
            put_limits(broker, VHOST_LIMITS, &p.vhost, p.value)?;
        } else {
            left.push(format!("parameters: {} {}", p.component, p.name));
        }
    }
    let left_out = file
        .rest
        .iter()
        .filter(|(name, v)| !INFORMATIVE.contains(&name.as_str()) && !is_empty_list(v));
    left.extend(left_out.map(|(name, _)| name.clone()));
    Ok(left)
}

/// Sets limits, by their names in RabbitMQ; none may be written as an empty list.
fn put_limits(broker: &Broker, component: &str, name: &str, limits: Value) -> Result<(), String> {
    if is_empty_list(&limits) {
        return Ok(());
    }
    let limits = serde_json::from_value::<HashMap<String, i64>>(limits).map_err(|e| e.to_string());
    let limits = limits.map(|limits| limits.into_iter().collect::<Vec<_>>());
    let put = limits.and_then(|limits| broker.put_limits(component, name, &limits));
    put.map_err(|e| format!("{component} of '{name}': {e}"))
}

fn is_empty_list(v: &Value) -> bool {
    v.as_array().is_some_and(Vec::is_empty)
}

fn table(arguments: &Arguments) -> FieldTable {
    let mut t = FieldTable::new();
    for (name, v) in arguments {
        t.insert(name.as_str(), value(v));
    }
    t
}

fn value(v: &Value) -> FieldValue {
    match v {
        Value::Null => FieldValue::Void,
        Value::Bool(b) => FieldValue::Bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(
            || FieldValue::F64(n.as_f64().unwrap_or(0.0)),
            FieldValue::I64,
        ),
        Value::String(s) => FieldValue::from(s.as_str()),
        Value::Array(items) => FieldValue::Array(items.iter().map(value).collect()),
        Value::Object(inner) => FieldValue::Table(table(inner)),
    }
}
