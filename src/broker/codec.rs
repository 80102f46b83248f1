//! How definitions are written to the store.
//!
//! A key is a list of parts, each behind its length ("/" is a vhost name, so there is no safe
//! separator). A value is a version octet and an AMQP field table, which names its fields: a field
//! that a later version adds is unknown to an earlier one and skipped.

use std::fmt;

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
    fn a_later_version_is_refused() {
        assert!(
            fields(&[VALUE_VERSION + 1])
                .expect_err("refused")
                .0
                .contains("version 2")
        );
    }
}
