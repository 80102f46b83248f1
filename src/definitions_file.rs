//! Definitions in RabbitMQ's JSON format, of a whole broker or of one vhost, applied at start.
//!
//! Queues, exchanges and bindings that exist stay as they are. Users, permissions, limits and a vhost's
//! default queue type are set to what the file says; limits that it no longer has are taken away. As with
//! RabbitMQ's import, nothing else is ever deleted because the file does not have it. An entry that
//! does not do is left out and reported, whatever is wrong with it, and the rest is applied; a strict file
//! (`strict_definitions`) is tried on an empty broker first, and ends the start instead.

mod entries;
mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use self::entries::{Object, Tags};
use self::json::Parts;
use crate::amqp::errors::{self, Exception};
use crate::broker::access::User;
use crate::broker::arguments::QueueType;
use crate::broker::exchange::Destination;
use crate::broker::vhost::{BindingSpec, ExchangeDeclare, QueueDeclare, TopologyError, Vhost};
use crate::broker::{Broker, USER_LIMITS, VHOST_LIMITS};
use crate::password;
use crate::protocol::field_table::{FieldTable, FieldValue};

/// Octets of a name: it goes into short strings.
const NAME_MAX: usize = 255;

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
    "description",
    "metadata",
    "limits",
    "default_queue_type",
];

/// Loads a file and applies it. What was left out is reported; it is returned, too. A broker without any
/// vhost gets `default_vhost` where the file brings none, so that the rest of it has a place.
///
/// # Errors
/// The file cannot be read or is no JSON object. If it is `strict`: whatever is wrong with it.
pub fn load(
    broker: &Broker,
    path: &Path,
    default_vhost: &str,
    strict: Option<&Broker>,
) -> io::Result<Vec<String>> {
    let told = |e: String| io::Error::other(format!("{}: {e}", path.display()));
    let text = json::text(path).map_err(told)?;
    let file = Parts::of(&text).map_err(|e| told(e.to_string()))?;
    if let Some(empty) = strict {
        // Nothing is applied of a file that would be applied in part.
        let problems = apply(empty, &file, default_vhost);
        if !problems.is_empty() {
            return Err(told(problems.join("; ")));
        }
    }
    let problems = apply(broker, &file, default_vhost);
    for problem in &problems {
        tracing::warn!("{}: {problem}", path.display());
    }
    tracing::info!("definitions loaded from {}", path.display());
    Ok(problems)
}

/// Applies definitions; returns what was left out.
fn apply(broker: &Broker, file: &Parts<'_>, default_vhost: &str) -> Vec<String> {
    let of_one_vhost = file.text("original_vhost_name");
    let mut loader = Loader {
        broker,
        // An export of one vhost does not say in each entry which one.
        vhost: of_one_vhost.as_deref().unwrap_or("/"),
        problems: Vec::new(),
        limits: BTreeMap::new(),
        nameless: BTreeSet::new(),
    };
    loader.twice("the file", &file.twice);
    if of_one_vhost.is_none() && file.get("original_vhost_name").is_some() {
        let problem = "original_vhost_name is no text: it is taken for an export of a whole broker";
        loader.problems.push(problem.into());
    }
    loader.apply(file, of_one_vhost.as_deref(), default_vhost);
    loader.problems
}

struct Loader<'a> {
    broker: &'a Broker,
    vhost: &'a str,
    problems: Vec<String>,
    /// Limits that the file has, by component and name.
    limits: BTreeMap<(&'static str, String), BTreeMap<String, i64>>,
    /// Components of which something was left out that does not say whose it is.
    nameless: BTreeSet<&'static str>,
}

type Done = Result<(), String>;

impl Loader<'_> {
    fn apply(&mut self, file: &Parts<'_>, of_one_vhost: Option<&str>, default_vhost: &str) {
        if let Some(name) = of_one_vhost {
            let mut vhost = Object::new();
            vhost.insert("name".into(), name.into());
            for key in ["limits", "metadata", "default_queue_type"] {
                let Some(raw) = file.get(key) else { continue };
                let mut twice = Vec::new();
                match json::value(raw, &mut twice) {
                    Ok(value) => drop(vhost.insert(key.into(), value)),
                    Err(why) => {
                        let limits = self.limits.entry((VHOST_LIMITS, name.into()));
                        limits.or_default();
                        self.problems.push(format!("{key} was left out: {why}"));
                    }
                }
                self.twice(key, &twice);
            }
            self.entry("vhosts", Value::Object(vhost), &Self::vhost);
        }
        self.section(file, "vhosts", Self::vhost);
        if self.broker.vhosts().is_empty()
            && self.broker.bootstrap(Some(default_vhost), None).is_err()
        {
            self.problems.push(format!(
                "vhost '{default_vhost}': the message log has failed"
            ));
        }
        self.section(file, "users", Self::user);
        self.section(file, "parameters", Self::parameter);
        self.take_limits_away(file, of_one_vhost);
        self.section(file, "permissions", |l, p| l.permission(&p));
        self.section(file, "topic_permissions", |l, p| l.topic_permission(&p));
        self.section(file, "exchanges", Self::exchange);
        self.section(file, "queues", Self::queue);
        self.section(file, "bindings", Self::binding);
        let known = [
            "vhosts",
            "users",
            "permissions",
            "topic_permissions",
            "exchanges",
            "queues",
            "bindings",
            "parameters",
        ];
        for (name, value) in file.iter() {
            if known.contains(&name) || INFORMATIVE.contains(&name) {
                continue;
            }
            let entries = json::list(value);
            let entries = entries.map(|l| l.iter().map(|v| parts(v)).collect::<Vec<_>>());
            let shown = entries.map(|entries| {
                // What every RabbitMQ has says nothing.
                let told = |e: &&Parts<'_>| e.text("name").as_deref() != Some("cluster_tags");
                let shown = entries.iter().filter(told);
                let shown = shown.map(|e| shown_by_name(|field| e.text(field)));
                shown.collect::<Vec<_>>().join("; ")
            });
            if shown.as_deref() != Some("") {
                let shown = shown.map(|names| format!(": {names}")).unwrap_or_default();
                self.problems.push(format!(
                    "section '{name}' is not supported by this version and was left out{shown}"
                ));
            }
        }
    }

    fn section<T: DeserializeOwned>(
        &mut self,
        file: &Parts<'_>,
        name: &str,
        each: impl Fn(&mut Self, T) -> Done,
    ) {
        let Some(section) = file.get(name) else {
            return;
        };
        let Some(entries) = json::list(section) else {
            self.problems.push(format!("section '{name}' is no list"));
            return;
        };
        for raw in entries {
            let mut twice = Vec::new();
            match json::value(raw, &mut twice) {
                Ok(entry) => {
                    self.twice(&shown(name, |field| text(&entry, field)), &twice);
                    self.entry(name, entry, &each);
                }
                Err(why) => {
                    let parts = parts(raw);
                    self.left_out(name, |field| parts.text(field), &why);
                }
            }
        }
    }

    fn entry<T: DeserializeOwned>(
        &mut self,
        section: &str,
        mut entry: Value,
        each: &impl Fn(&mut Self, T) -> Done,
    ) {
        if let Value::Object(fields) = &mut entry
            && !matches!(section, "vhosts" | "users")
        {
            let vhost = fields.entry("vhost");
            vhost.or_insert_with(|| self.vhost.into());
        }
        let done = T::deserialize(&entry)
            .map_err(|e| e.to_string())
            .and_then(|entry| each(self, entry));
        if let Err(why) = done {
            self.left_out(section, |field| text(&entry, field), &why);
        }
    }

    /// An entry does not do. What there is of it in the broker stays.
    fn left_out(&mut self, section: &str, field: impl Fn(&str) -> Option<String>, why: &str) {
        let whose = match section {
            "users" => Some((USER_LIMITS, field("name"))),
            "vhosts" => Some((VHOST_LIMITS, field("name"))),
            "parameters" => Some((VHOST_LIMITS, field("vhost"))),
            _ => None,
        };
        match whose {
            Some((component, Some(name))) => {
                self.limits.entry((component, name)).or_default();
            }
            Some((component, None)) => drop(self.nameless.insert(component)),
            None => {}
        }
        let shown = shown(section, field);
        self.problems.push(format!("{shown} was left out: {why}"));
    }

    /// Names that are there more than once: most likely another one was meant.
    fn twice(&mut self, what: &str, names: &[String]) {
        for name in names {
            self.problems.push(format!(
                "{what}: '{name}' is there more than once; the last one counts"
            ));
        }
    }

    /// Fields that have no meaning here: most likely another word was meant.
    fn unknown(&mut self, what: &str, rest: &Object) {
        for field in rest.keys() {
            self.problems
                .push(format!("{what}: there is no field '{field}'"));
        }
    }

    fn the_vhost(&self, name: &str) -> Result<std::sync::Arc<Vhost>, String> {
        let vhost = self.broker.vhost(name);
        vhost.ok_or_else(|| format!("vhost '{name}' is not defined"))
    }

    fn vhost(&mut self, mut v: entries::Vhost) -> Done {
        check_name("name", &v.name)?;
        if v.name.is_empty() {
            return Err("it has no name".into());
        }
        self.broker.add_vhost(&v.name).map_err(|e| e.to_string())?;
        let what = format!("vhost '{}'", v.name);
        for said in ["description", "tags"] {
            v.rest.remove(said);
        }
        self.unknown(&what, &v.rest);
        let in_metadata = v.metadata.get("default_queue_type");
        let in_metadata = in_metadata.and_then(Value::as_str).map(str::to_string);
        let kind = v.default_queue_type.or(in_metadata).unwrap_or_default();
        let default = match kind.as_str() {
            "undefined" | "" => Some(QueueType::default()),
            kind => QueueType::named(kind),
        };
        if default.is_none() {
            self.problems.push(format!(
                "{what}: default_queue_type '{kind}' is not supported: queues without x-queue-type are classic"
            ));
        }
        let vhost = self.the_vhost(&v.name)?;
        self.broker
            .put_default_queue_type(&vhost, default.unwrap_or_default())
            .map_err(|e| e.to_string())?;
        if let Some(on) = v.tracing {
            vhost.set_traced(on);
        }
        self.limits(VHOST_LIMITS, &v.name, v.limits)
    }

    fn user(&mut self, u: entries::User) -> Done {
        check_name("name", &u.name)?;
        let what = format!("user '{}'", u.name);
        self.unknown(&what, &u.rest);
        let mut hash = u.password_hash;
        let mut algorithm = u
            .hashing_algorithm
            .unwrap_or_else(|| password::SHA256.into());
        match u.password.as_deref() {
            Some("") => return Err("its password is empty, which nobody may log in with".into()),
            Some(password) => {
                let known = self.broker.access().user(&u.name).filter(|known| {
                    password::verify(
                        password.as_bytes(),
                        &known.password_hash,
                        &known.hashing_algorithm,
                    )
                });
                (hash, algorithm) = match known {
                    Some(known) => (known.password_hash.clone(), known.hashing_algorithm.clone()),
                    None => (password::hash(password.as_bytes()), password::SHA256.into()),
                };
            }
            None => {}
        }
        if !hash.is_empty() && !password::is_supported(&algorithm) {
            return Err(format!(
                "hashing algorithm '{algorithm}' is not supported; there are {}",
                password::ALGORITHMS.join(", ")
            ));
        }
        if !hash.is_empty() && !password::is_hash(&hash, &algorithm) {
            return Err(format!("its password_hash is no hash of {algorithm}"));
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
        let name = u.name.clone();
        let user = User {
            name: u.name,
            password_hash: hash,
            hashing_algorithm: algorithm,
            tags,
        };
        self.broker.put_user(user).map_err(|e| e.to_string())?;
        self.limits(USER_LIMITS, &name, u.limits)
    }

    fn who_and_where(&self, user: &str, vhost: &str) -> Done {
        if self.broker.access().user(user).is_none() {
            return Err(format!("user '{user}' is not defined"));
        }
        self.the_vhost(vhost).map(drop)
    }

    fn permission(&mut self, p: &entries::Permission) -> Done {
        self.who_and_where(&p.user, &p.vhost)?;
        self.unknown("permissions", &p.rest);
        let patterns = [p.configure.as_str(), p.write.as_str(), p.read.as_str()];
        let put = self.broker.put_permissions(&p.user, &p.vhost, patterns);
        put.map(drop)
    }

    fn topic_permission(&mut self, p: &entries::TopicPermission) -> Done {
        self.who_and_where(&p.user, &p.vhost)?;
        self.unknown("topic_permissions", &p.rest);
        let place = [p.user.as_str(), p.vhost.as_str(), p.exchange.as_str()];
        let put = self
            .broker
            .put_topic_permissions(place, [&p.write, &p.read]);
        put.map(drop)
    }

    fn exchange(&mut self, mut x: entries::Exchange) -> Done {
        check_name("name", &x.name)?;
        let vhost = self.the_vhost(&x.vhost)?;
        let what = format!("exchange '{}' in vhost '{}'", x.name, x.vhost);
        x.rest.remove("policy");
        self.unknown(&what, &x.rest);
        let arguments = table(&x.arguments)?;
        let declare = ExchangeDeclare {
            name: &x.name,
            kind: &x.r#type,
            durable: x.durable,
            auto_delete: x.auto_delete,
            internal: x.internal,
            arguments: &arguments,
        };
        match vhost.declare_exchange(&declare) {
            Ok(_) => Ok(()),
            Err(TopologyError::ExchangeDiffers(..)) => {
                self.kept(&what);
                Ok(())
            }
            Err(e) => Err(refusal(&e, &x.vhost)),
        }
    }

    /// Something is there already, and is not what the file says.
    fn kept(&self, what: &str) {
        tracing::warn!("{what} is there with other properties or arguments and stays as it is");
    }

    fn queue(&mut self, mut q: entries::Queue) -> Done {
        check_name("name", &q.name)?;
        if q.name.is_empty() {
            return Err("it has no name".into());
        }
        let vhost = self.the_vhost(&q.vhost)?;
        let what = format!("queue '{}' in vhost '{}'", q.name, q.vhost);
        q.rest.remove("policy");
        self.unknown(&what, &q.rest);
        let mut arguments = table(&q.arguments)?;
        if let Some(kind) = q.r#type.filter(|kind| kind != "classic")
            && arguments.get("x-queue-type").is_none()
        {
            arguments.insert("x-queue-type", kind);
        }
        let declare = QueueDeclare {
            // A name that a server gave is one that may be given back.
            server_named: q.name.starts_with("amq.gen-"),
            durable: q.durable,
            auto_delete: q.auto_delete,
            ..QueueDeclare::named(&q.name, &arguments)
        };
        match vhost.declare_queue(&declare) {
            Ok(_) => Ok(()),
            Err(TopologyError::QueueDiffers(..) | TopologyError::Locked(_)) => {
                self.kept(&what);
                Ok(())
            }
            Err(e) => Err(refusal(&e, &q.vhost)),
        }
    }

    fn binding(&mut self, mut b: entries::Binding) -> Done {
        check_name("routing_key", &b.routing_key)?;
        let vhost = self.the_vhost(&b.vhost)?;
        b.rest.remove("properties_key");
        self.unknown("bindings", &b.rest);
        let destination = match b.destination_type.as_str() {
            "queue" => vhost.queue(&b.destination).map(Destination::Queue),
            "exchange" => vhost.exchange(&b.destination).map(Destination::Exchange),
            other => {
                return Err(format!(
                    "destination_type '{other}' is neither queue nor exchange"
                ));
            }
        };
        let destination = destination.ok_or("its destination is not defined")?;
        let arguments = table(&b.arguments)?;
        let spec = BindingSpec {
            source: &b.source,
            destination: &destination,
            routing_key: &b.routing_key,
            arguments: &arguments,
        };
        let bound = vhost.bind(&spec);
        bound.map(drop).map_err(|e| refusal(&e, &b.vhost))
    }

    fn parameter(&mut self, p: entries::Parameter) -> Done {
        self.unknown("parameters", &p.rest);
        if p.component != VHOST_LIMITS {
            return Err(format!("component '{}' is not supported", p.component));
        }
        self.the_vhost(&p.vhost)?;
        self.limits(VHOST_LIMITS, &p.vhost, p.value)
            .map_err(|e| format!("{}: {e}", p.name))
    }

    /// Sets limits, by their names in RabbitMQ; none may be written as an empty list.
    fn limits(&mut self, component: &'static str, name: &str, limits: Value) -> Done {
        let none = match &limits {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(all) => all.is_empty(),
            _ => false,
        };
        if none {
            return Ok(());
        }
        // Whatever is wrong with them: those that were there are not taken away.
        let all = self.limits.entry((component, name.to_string()));
        let all = all.or_default();
        let limits: BTreeMap<String, i64> =
            serde_json::from_value(limits).map_err(|e| format!("its limits: {e}"))?;
        all.extend(limits);
        let all: Vec<_> = all.clone().into_iter().collect();
        let put = self.broker.put_limits(component, name, &all);
        put.map_err(|e| format!("its limits: {e}"))
    }

    /// Takes limits away that the file no longer has, if it has the sections that they would be in.
    fn take_limits_away(&mut self, file: &Parts<'_>, of_one_vhost: Option<&str>) {
        let has = |section: &str| file.get(section).is_some_and(|s| s.get().starts_with('['));
        let mut names = Vec::new();
        if has("users") && of_one_vhost.is_none() {
            let users = self.broker.limited(USER_LIMITS);
            names.extend(users.into_iter().map(|name| (USER_LIMITS, name)));
        }
        if has("vhosts") || of_one_vhost.is_some() {
            let vhosts = self.broker.limited(VHOST_LIMITS).into_iter();
            let mine = vhosts.filter(|name| of_one_vhost.is_none_or(|one| name == one));
            names.extend(mine.map(|name| (VHOST_LIMITS, name)));
        }
        names.retain(|name| !self.limits.contains_key(name) && !self.nameless.contains(name.0));
        for (component, name) in names {
            tracing::info!("{component} of '{name}' are no longer in the file and were taken away");
            if let Err(e) = self.broker.put_limits(component, &name, &[]) {
                self.problems
                    .push(format!("{component} of '{name}' stay: {e}"));
            }
        }
    }
}

/// The fields of an entry; none, if it is no object.
fn parts(entry: &RawValue) -> Parts<'_> {
    Parts::of(entry.get()).unwrap_or_default()
}

fn text(entry: &Value, field: &str) -> Option<String> {
    entry.get(field)?.as_str().map(str::to_string)
}

/// How an entry is called in a report.
fn shown(section: &str, field: impl Fn(&str) -> Option<String>) -> String {
    format!("{section}: {}", shown_by_name(field))
}

fn shown_by_name(field: impl Fn(&str) -> Option<String>) -> String {
    let fields = ["name", "user", "source", "destination", "vhost", "exchange"];
    let named = fields
        .iter()
        .filter_map(|name| Some(format!("{name} '{}'", field(name)?)));
    let named: Vec<_> = named.collect();
    match named.is_empty() {
        true => "an entry without a name".into(),
        false => named.join(", "),
    }
}

/// A refusal of the topology, in the words that a client would be told.
fn refusal(e: &TopologyError, vhost: &str) -> String {
    match e {
        TopologyError::ReservedName { .. } => "its name is reserved for the broker".into(),
        TopologyError::NoExchange(_) => "its source is not defined".into(),
        other => match errors::topology(other, vhost) {
            Exception::Channel(_, text) | Exception::Connection(_, text) => text,
        },
    }
}

fn check_name(field: &str, name: &str) -> Done {
    match name.len() {
        n if n > NAME_MAX => Err(format!("its {field} has {n} octets, of {NAME_MAX} at most")),
        _ => Ok(()),
    }
}

/// Arguments, as good as if they had come over the wire.
fn table(arguments: &Object) -> Result<FieldTable, String> {
    let t = nested(arguments)?;
    match FieldTable::parse(&t.to_bytes()) {
        Ok(_) => Ok(t),
        Err(_) => Err("its arguments nest too deep".into()),
    }
}

fn nested(arguments: &Object) -> Result<FieldTable, String> {
    let mut t = FieldTable::new();
    for (name, v) in arguments {
        check_name("argument's name", name)?;
        t.insert(name.as_str(), value(v)?);
    }
    Ok(t)
}

fn value(v: &Value) -> Result<FieldValue, String> {
    Ok(match v {
        Value::Null => FieldValue::Void,
        Value::Bool(b) => FieldValue::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => FieldValue::I64(n),
            (None, Some(f)) if n.is_f64() => FieldValue::F64(f),
            _ => return Err(format!("{n} in its arguments is more than 63 bits hold")),
        },
        Value::String(s) => FieldValue::from(s.as_str()),
        Value::Array(items) => {
            FieldValue::Array(items.iter().map(value).collect::<Result<_, _>>()?)
        }
        Value::Object(inner) => FieldValue::Table(nested(inner)?),
    })
}
