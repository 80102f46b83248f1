//! Exchanges, queues and bindings as the store has them.

use std::sync::Arc;

use super::codec::{DefinitionError, bool_of, fields, key, key_parts, put, table_of, value};
use super::exchange::{ExchangeInfo, ExchangeType};
use super::ports::{DefinitionChange, DefinitionKind};
use crate::protocol::field_table::{FieldTable, FieldValue};

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

/// Key of the definition that keeps queue ids from being used twice.
pub(super) const NEXT_QUEUE_ID: &str = "next_queue_id";

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
mod golden;

#[cfg(test)]
mod tests {
    use super::*;

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
}
