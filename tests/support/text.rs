//! Methods and content as text, by the protocol specification in `amqp-spec/`: what a transcript shows
//! is decoded by other code than the one under test.

use std::collections::BTreeMap;

use leveret::protocol::field_table::{FieldTable, FieldValue};
use leveret::protocol::properties::{Properties, parse_content_header};
use leveret::protocol::short::{ShortBuf, ShortBytes};

#[derive(serde::Deserialize)]
struct File {
    class: Vec<ClassLine>,
}

#[derive(serde::Deserialize)]
struct ClassLine {
    id: u16,
    name: String,
    methods: Vec<String>,
}

/// A method: its ids and its fields with their domains, in order.
struct Method {
    ids: (u16, u16),
    name: String,
    fields: Vec<(String, String)>,
}

/// All methods.
pub struct Spec(Vec<Method>);

impl Spec {
    pub fn read() -> Spec {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/amqp-spec/amqp0-9-1.toml");
        let file: File = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut methods = Vec::new();
        for class in &file.class {
            for line in &class.methods {
                let head = line.split('|').next().unwrap();
                let mut words = head.split_whitespace();
                let id: u16 = words.next().unwrap().parse().unwrap();
                let name = words
                    .next()
                    .unwrap()
                    .trim_end_matches('_')
                    .replace('_', "-");
                let fields = words.skip(1).map(|w| {
                    let (name, domain) = w.split_once(':').unwrap();
                    (name.trim_end_matches('_').to_owned(), domain.to_owned())
                });
                methods.push(Method {
                    ids: (class.id, id),
                    name: format!("{}.{name}", class.name),
                    fields: fields.collect(),
                });
            }
        }
        Spec(methods)
    }

    /// The payload of a method frame from `queue.declare queue=q durable arguments={x-max-length=3}`.
    pub fn encode(&self, text: &str) -> Vec<u8> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let method = self.0.iter().find(|m| m.name == name);
        let method = method.unwrap_or_else(|| panic!("no method {name:?}"));
        let mut given = pairs(&mut rest.chars().peekable(), None);
        let mut out = method.ids.0.to_be_bytes().to_vec();
        out.extend(method.ids.1.to_be_bytes());
        let mut bits: Option<(u8, u8)> = None;
        for (field, domain) in &method.fields {
            let value = given.remove(field);
            if domain == "bit" {
                let (octet, n) = bits.get_or_insert((0, 0));
                *octet |= u8::from(value.is_some_and(|v| v != Value::Bool(false))) << *n;
                *n += 1;
                continue;
            }
            if let Some((octet, _)) = bits.take() {
                out.push(octet);
            }
            put(&mut out, domain, value);
        }
        if let Some((octet, _)) = bits {
            out.push(octet);
        }
        assert!(given.is_empty(), "{name} has no {:?}", given.keys());
        out
    }

    /// The text of a method frame's payload; what is zero, false or empty is left out.
    pub fn decode(&self, payload: &[u8]) -> String {
        let mut r = Bytes(payload);
        let ids = (r.n(2) as u16, r.n(2) as u16);
        let method = self
            .0
            .iter()
            .find(|m| m.ids == ids)
            .expect("a method of the protocol");
        let mut text = method.name.clone();
        let mut bit = 8;
        let mut octet = 0;
        for (field, domain) in &method.fields {
            if domain == "bit" {
                if bit == 8 {
                    (octet, bit) = (r.n(1), 0);
                }
                if octet & (1 << bit) != 0 {
                    text += &format!(" {field}");
                }
                bit += 1;
                continue;
            }
            bit = 8;
            let shown = match domain.as_str() {
                "octet" => number(r.n(1)),
                "short" => number(r.n(2)),
                "long" => number(r.n(4)),
                "longlong" => number(r.n(8)),
                "shortstr" | "shortbytes" => {
                    let n = r.n(1) as usize;
                    string(r.take(n))
                }
                "longstr" => {
                    let n = r.n(4) as usize;
                    string(r.take(n))
                }
                "table" => {
                    let n = r.n(4) as usize;
                    table(&FieldTable::parse(r.take(n)).unwrap())
                }
                other => panic!("no domain {other}"),
            };
            if !matches!(shown.as_str(), "0" | "" | "{}") && !field.starts_with('_') {
                text += &format!(" {field}={shown}");
            }
        }
        assert!(r.0.is_empty(), "{text}: {} octets are left", r.0.len());
        text
    }
}

fn number(n: u64) -> String {
    n.to_string()
}

fn string(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("\"{}\"", bytes.escape_ascii());
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./*#$".contains(c);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

/// Octets from a text in which `\0` and `\xff` stand for one octet each.
fn octets(text: &str) -> Vec<u8> {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or("").as_bytes().to_vec();
    for part in parts {
        match (part.strip_prefix('0'), part.strip_prefix('x')) {
            (Some(rest), _) => {
                out.push(0);
                out.extend(rest.as_bytes());
            }
            (_, Some(hex)) => {
                out.push(u8::from_str_radix(&hex[..2], 16).unwrap());
                out.extend(&hex.as_bytes()[2..]);
            }
            _ => panic!("{text}: neither \\0 nor \\xff"),
        }
    }
    out
}

fn short(text: &str) -> ShortBuf {
    ShortBytes::new(&octets(text))
        .expect("a short string")
        .into()
}

/// The name of a field, which needs no quotes.
fn name(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.escape_ascii().to_string(),
    }
}

fn value(v: &FieldValue) -> String {
    match v {
        FieldValue::Bool(v) => v.to_string(),
        FieldValue::I64(v) => format!("{v}l"),
        FieldValue::LongStr(v) if v.is_empty() => "\"\"".to_owned(),
        FieldValue::LongStr(v) => string(v),
        FieldValue::Timestamp(v) => format!("{v}T"),
        FieldValue::Table(v) => table(v),
        FieldValue::Array(v) => {
            let all: Vec<_> = v.iter().map(value).collect();
            format!("[{}]", all.join(", "))
        }
        other => match other.as_integer() {
            Some(n) => n.to_string(),
            None => format!("{other:?}"),
        },
    }
}

fn table(t: &FieldTable) -> String {
    let all: Vec<_> = t
        .iter()
        .map(|(k, v)| format!("{}={}", name(&k), value(v)))
        .collect();
    format!("{{{}}}", all.join(", "))
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    fn n(&mut self, octets: usize) -> u64 {
        self.take(octets)
            .iter()
            .fold(0, |n, b| n << 8 | u64::from(*b))
    }
}

// ----- from text ---------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Table(BTreeMap<String, Value>),
    Array(Vec<Value>),
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn blanks(c: &mut Chars<'_>) {
    while c.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
}

/// `name=value name ...` up to `end`.
fn pairs(c: &mut Chars<'_>, end: Option<char>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    loop {
        blanks(c);
        if c.peek().is_none() || *c.peek().unwrap() == end.unwrap_or('\0') {
            c.next();
            return all;
        }
        let name = word(c);
        let value = match c.next_if_eq(&'=') {
            Some(_) => parse(c),
            None => Value::Bool(true),
        };
        all.insert(name, value);
    }
}

fn word(c: &mut Chars<'_>) -> String {
    let mut word = String::new();
    while let Some(next) = c.next_if(|c| !c.is_whitespace() && !"=,{}[]".contains(*c)) {
        word.push(next);
    }
    word
}

fn parse(c: &mut Chars<'_>) -> Value {
    match c.peek() {
        Some('"') => {
            c.next();
            let text: String = c.by_ref().take_while(|c| *c != '"').collect();
            Value::Text(text)
        }
        Some('{') => {
            c.next();
            Value::Table(pairs(c, Some('}')))
        }
        Some('[') => {
            c.next();
            let mut all = Vec::new();
            loop {
                blanks(c);
                if c.next_if_eq(&']').is_some() {
                    return Value::Array(all);
                }
                all.push(parse(c));
            }
        }
        _ => {
            let word = word(c);
            match (word.as_str(), word.parse()) {
                ("true", _) => Value::Bool(true),
                ("false", _) => Value::Bool(false),
                (_, Ok(n)) => Value::Int(n),
                _ => Value::Text(word),
            }
        }
    }
}

impl Value {
    fn text(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Int(n) => n.to_string(),
            other => panic!("a text, not {other:?}"),
        }
    }

    fn field(&self) -> FieldValue {
        match self {
            Value::Bool(v) => FieldValue::Bool(*v),
            Value::Int(n) => match i32::try_from(*n) {
                Ok(n) => FieldValue::I32(n),
                Err(_) => FieldValue::I64(*n),
            },
            Value::Text(text) => FieldValue::LongStr(octets(text)),
            Value::Array(all) => FieldValue::Array(all.iter().map(Value::field).collect()),
            Value::Table(all) => FieldValue::Table(fields(all)),
        }
    }
}

fn fields(all: &BTreeMap<String, Value>) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in all {
        table.insert(short(name).as_short(), value.field());
    }
    table
}

fn put(out: &mut Vec<u8>, domain: &str, value: Option<Value>) {
    let n = match &value {
        Some(Value::Int(n)) => *n as u64,
        _ => 0,
    };
    match domain {
        "octet" => out.push(n as u8),
        "short" => out.extend((n as u16).to_be_bytes()),
        "long" => out.extend((n as u32).to_be_bytes()),
        "longlong" => out.extend(n.to_be_bytes()),
        "shortstr" | "shortbytes" | "longstr" => {
            let octets = octets(&value.map_or(String::new(), |v| v.text()));
            match domain {
                "longstr" => out.extend((octets.len() as u32).to_be_bytes()),
                _ => out.push(octets.len() as u8),
            }
            out.extend(octets);
        }
        "table" => {
            let bytes = match value {
                Some(Value::Table(all)) => fields(&all).to_bytes(),
                _ => FieldTable::new().to_bytes(),
            };
            // `to_bytes` is the contents alone.
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        }
        other => panic!("no domain {other}"),
    }
}

// ----- content -----------------------------------------------------------------------------------

/// A publish: `"body" exchange=e key=k mandatory priority=3 ...`.
pub struct Publish {
    pub method: String,
    pub properties: Properties,
    pub body: Vec<u8>,
}

pub fn publish(text: &str) -> Publish {
    let mut c = text.trim().chars().peekable();
    let body = parse(&mut c).text();
    let mut given = pairs(&mut c, None);
    let mut text = |name: &str| given.remove(name).map(|v| v.text());
    let exchange = text("exchange").unwrap_or_default();
    let key = text("key").unwrap_or_default();
    let mut p = Properties {
        content_type: text("content_type").map(|t| short(&t)),
        content_encoding: text("content_encoding").map(|t| short(&t)),
        correlation_id: text("correlation_id").map(|t| short(&t)),
        reply_to: text("reply_to").map(|t| short(&t)),
        expiration: text("expiration").map(|t| short(&t)),
        message_id: text("message_id").map(|t| short(&t)),
        type_: text("type").map(|t| short(&t)),
        user_id: text("user_id").map(|t| short(&t)),
        app_id: text("app_id").map(|t| short(&t)),
        cluster_id: text("cluster_id").map(|t| short(&t)),
        delivery_mode: text("delivery_mode").map(|n| n.parse().unwrap()),
        priority: text("priority").map(|n| n.parse().unwrap()),
        timestamp: text("timestamp").map(|n| n.parse().unwrap()),
        headers: None,
    };
    if let Some(Value::Table(all)) = given.remove("headers") {
        p.headers = Some(fields(&all));
    }
    let flag = |given: &mut BTreeMap<String, Value>, name| match given.remove(name) {
        Some(_) => format!(" {name}"),
        None => String::new(),
    };
    let flags = flag(&mut given, "mandatory") + &flag(&mut given, "immediate");
    assert!(given.is_empty(), "a publish has no {:?}", given.keys());
    Publish {
        method: format!("basic.publish exchange=\"{exchange}\" routing_key=\"{key}\"{flags}"),
        properties: p,
        body: body.into_bytes(),
    }
}

/// The text of a content header: body size, and the properties that are there.
pub fn header(payload: &[u8]) -> (u64, String) {
    let header = parse_content_header(payload).unwrap();
    let p = Properties::from(header.properties);
    let mut text = String::new();
    let mut say = |name: &str, shown: Option<String>| {
        if let Some(shown) = shown {
            text += &format!(" {name}={shown}");
        }
    };
    let texts = [
        ("content_type", p.content_type),
        ("content_encoding", p.content_encoding),
        ("correlation_id", p.correlation_id),
        ("reply_to", p.reply_to),
        ("expiration", p.expiration),
        ("message_id", p.message_id),
        ("type", p.type_),
        ("user_id", p.user_id),
        ("app_id", p.app_id),
        ("cluster_id", p.cluster_id),
        (
            "delivery_mode",
            p.delivery_mode.map(|n| n.to_string().into()),
        ),
        ("priority", p.priority.map(|n| n.to_string().into())),
        ("timestamp", p.timestamp.map(|n| n.to_string().into())),
    ];
    for (name, shown) in texts {
        say(name, shown.map(|s: ShortBuf| string(&s)));
    }
    say("headers", p.headers.as_ref().map(table));
    (header.body_size, text)
}
