//! How definitions are written to the store.
//!
//! A key is a list of parts, each behind its length ("/" is a vhost name, so there is no safe
//! separator). A value is a version octet and an AMQP field table, which names its fields: a field
//! that a later version adds is unknown to an earlier one and skipped.

use std::fmt;
use std::sync::Arc;

use super::exchange::{ExchangeInfo, ExchangeType};
use super::ports::{DefinitionChange, DefinitionKind};
use crate::protocol::field_table::{FieldTable, FieldValue};

/// Version of the values. What has a higher one is set aside at start: a later Leveret wrote it.
pub const VALUE_VERSION: u8 = 1;

/// A definition that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DefinitionError(pub String);

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DefinitionError {}

/// Builds a key of its parts.
pub fn key(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend((part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Takes a key apart.
///
/// # Errors
/// A key that was not built by [`key`].
pub fn key_parts(mut key: &[u8]) -> Result<Vec<String>, DefinitionError> {
    let bad = || DefinitionError("malformed definition key".into());
    let mut parts = Vec::new();
    while let Some((len, rest)) = key.split_first_chunk::<4>() {
        let part = rest
            .get(..u32::from_be_bytes(*len) as usize)
            .ok_or_else(bad)?;
        parts.push(String::from_utf8_lossy(part).into_owned());
        key = &rest[part.len()..];
    }
    if key.is_empty() {
        Ok(parts)
    } else {
        Err(bad())
    }
}

/// A value of these fields.
pub fn value(fields: &FieldTable) -> Vec<u8> {
    let mut out = vec![VALUE_VERSION];
    out.extend(fields.to_bytes());
    out
}

/// The fields of a value.
///
/// # Errors
/// A version we do not know, or bytes that are no table.
pub fn fields(value: &[u8]) -> Result<FieldTable, DefinitionError> {
    match value.split_first() {
        Some((&VALUE_VERSION, table)) => FieldTable::parse_ours(table)
            .map_err(|_| DefinitionError("malformed definition".into())),
        Some((version, _)) => Err(DefinitionError(format!(
            "a definition has version {version}; this Leveret reads version {VALUE_VERSION}"
        ))),
        None => Err(DefinitionError("empty definition".into())),
    }
}

/// The change that puts a definition.
pub fn put(kind: DefinitionKind, parts: &[&[u8]], table: &FieldTable) -> DefinitionChange {
    DefinitionChange {
        kind,
        key: key(parts),
        value: Some(value(table)),
    }
}

/// The change that removes a definition.
pub fn remove(kind: DefinitionKind, parts: &[&[u8]]) -> DefinitionChange {
    DefinitionChange {
        kind,
        key: key(parts),
        value: None,
    }
}

/// A binding as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBinding {
    /// Exchange it starts from.
    pub source: String,
    /// Whether it leads to a queue, or to an exchange.
    pub to_queue: bool,
    /// Its name.
    pub destination: String,
    /// Binding key.
    pub routing_key: String,
    /// Arguments.
    pub arguments: FieldTable,
}

impl StoredBinding {
    /// The parts of its key: all that identifies it.
    fn change(&self, vhost: &str, table: Option<&FieldTable>) -> DefinitionChange {
        let arguments = self.arguments.to_bytes();
        let parts: [&[u8]; 6] = [
            vhost.as_bytes(),
            self.source.as_bytes(),
            if self.to_queue { b"queue" } else { b"exchange" },
            self.destination.as_bytes(),
            self.routing_key.as_bytes(),
            &arguments,
        ];
        DefinitionChange {
            kind: DefinitionKind::Binding,
            key: key(&parts),
            value: table.map(value),
        }
    }

    /// Puts it.
    pub fn put(&self, vhost: &str) -> DefinitionChange {
        let mut t = FieldTable::new();
        t.insert("arguments", self.arguments.clone());
        self.change(vhost, Some(&t))
    }

    /// Removes it.
    pub fn remove(&self, vhost: &str) -> DefinitionChange {
        self.change(vhost, None)
    }

    /// Reads it back with its vhost.
    ///
    /// # Errors
    /// [`DefinitionError`]
    pub fn read(
        stored_key: &[u8],
        stored: &[u8],
    ) -> Result<(String, StoredBinding), DefinitionError> {
        let parts = key_parts(stored_key)?;
        let [vhost, source, kind, destination, routing_key, _] = <[String; 6]>::try_from(parts)
            .map_err(|_| DefinitionError("a binding's key has six parts".into()))?;
        let arguments = table_of(&fields(stored)?, "arguments");
        let binding = StoredBinding {
            source,
            to_queue: kind == "queue",
            destination,
            routing_key,
            arguments,
        };
        Ok((vhost, binding))
    }
}

/// A table within a table; empty if it is not there.
pub fn table_of(t: &FieldTable, name: &str) -> FieldTable {
    match t.get(name) {
        Some(FieldValue::Table(v)) => v.clone(),
        _ => FieldTable::new(),
    }
}

/// A boolean within a table; false if it is not there.
pub fn bool_of(t: &FieldTable, name: &str) -> bool {
    t.get(name) == Some(&FieldValue::Bool(true))
}

/// Puts an exchange.
pub fn put_exchange(vhost: &str, info: &ExchangeInfo) -> DefinitionChange {
    let mut t = FieldTable::new();
    t.insert("type", info.kind.as_str());
    if info.id != 0 {
        t.insert("id", info.id as i64);
    }
    t.insert("auto_delete", info.auto_delete);
    t.insert("internal", info.internal);
    t.insert("arguments", info.arguments.clone());
    put(
        DefinitionKind::Exchange,
        &[vhost.as_bytes(), info.name.as_bytes()],
        &t,
    )
}

/// Reads an exchange back with its vhost.
///
/// # Errors
/// [`DefinitionError`]
pub fn read_exchange(
    stored_key: &[u8],
    stored: &[u8],
) -> Result<(String, ExchangeInfo), DefinitionError> {
    let [vhost, name] = <[String; 2]>::try_from(key_parts(stored_key)?)
        .map_err(|_| DefinitionError("an exchange's key has two parts".into()))?;
    let t = fields(stored)?;
    let kind = t
        .get("type")
        .and_then(FieldValue::as_str)
        .and_then(ExchangeType::parse);
    let kind =
        kind.ok_or_else(|| DefinitionError(format!("exchange '{name}' has no known type")))?;
    let info = ExchangeInfo {
        id: t
            .get("id")
            .and_then(FieldValue::as_integer)
            .and_then(|id| u64::try_from(id).ok())
            .unwrap_or(0),
        name: Arc::from(name),
        kind,
        durable: true,
        auto_delete: bool_of(&t, "auto_delete"),
        internal: bool_of(&t, "internal"),
        arguments: table_of(&t, "arguments"),
    };
    Ok((vhost, info))
}

/// A durable queue as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredQueue {
    /// Its name in the log.
    pub id: u64,
    /// Queue name.
    pub name: String,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments as declared.
    pub arguments: FieldTable,
    /// The exchange whose delayed messages wait in it.
    pub delays: Option<String>,
}

impl StoredQueue {
    /// Puts it.
    pub fn put(&self, vhost: &str) -> DefinitionChange {
        let mut t = FieldTable::new();
        t.insert("id", self.id as i64);
        t.insert("auto_delete", self.auto_delete);
        t.insert("arguments", self.arguments.clone());
        if let Some(exchange) = &self.delays {
            t.insert("delays", exchange.as_str());
        }
        put(
            DefinitionKind::Queue,
            &[vhost.as_bytes(), self.name.as_bytes()],
            &t,
        )
    }

    /// Reads it back with its vhost.
    ///
    /// # Errors
    /// [`DefinitionError`]
    pub fn read(
        stored_key: &[u8],
        stored: &[u8],
    ) -> Result<(String, StoredQueue), DefinitionError> {
        let [vhost, name] = <[String; 2]>::try_from(key_parts(stored_key)?)
            .map_err(|_| DefinitionError("a queue's key has two parts".into()))?;
        let t = fields(stored)?;
        let id = t.get("id").and_then(FieldValue::as_integer).unwrap_or(0);
        let id = u64::try_from(id).unwrap_or(0);
        if id == 0 {
            return Err(DefinitionError(format!("queue '{name}' has no id")));
        }
        let auto_delete = bool_of(&t, "auto_delete");
        let delays = t.get("delays").and_then(FieldValue::as_str);
        Ok((
            vhost,
            StoredQueue {
                id,
                name,
                auto_delete,
                arguments: table_of(&t, "arguments"),
                delays: delays.map(str::to_string),
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_any_text_come_back() {
        let parts = ["/", "", "a/b", "é\0"];
        let bytes: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
        assert_eq!(key_parts(&key(&bytes)).expect("valid"), parts);
        assert!(key_parts(&[0, 0, 0, 9, 1]).is_err());
    }

    #[test]
    fn definitions_come_back() {
        let mut arguments = FieldTable::new();
        arguments.insert("x-match", "any");
        let b = StoredBinding {
            source: "x".into(),
            to_queue: true,
            destination: "q".into(),
            routing_key: "k".into(),
            arguments: arguments.clone(),
        };
        let change = b.put("/");
        let stored = change.value.expect("a value");
        assert_eq!(
            StoredBinding::read(&change.key, &stored),
            Ok(("/".into(), b.clone()))
        );
        assert_eq!(b.remove("/").key, change.key);

        let q = StoredQueue {
            id: 7,
            name: "q".into(),
            auto_delete: true,
            arguments,
            delays: Some("x".into()),
        };
        let change = q.put("v");
        assert_eq!(
            StoredQueue::read(&change.key, &change.value.expect("a value")),
            Ok(("v".into(), q))
        );
    }

    #[test]
    fn a_later_version_is_refused() {
        assert!(
            fields(&[VALUE_VERSION + 1])
                .expect_err("refused")
                .0
                .contains("version 2")
        );
    }
}
