//! The routing keys of a message: the one it was published with, those of its `CC` header, which all may
//! see, and those of its `BCC` header, which nobody is shown. Dead letters and delayed messages are routed
//! by all of them again, until one is dead-lettered with a key of its own.

use super::message::{FLAG_BCC, FLAG_KEYED, Message};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::{Properties, PropertiesRef};

/// See the module.
#[derive(Debug, Eq, PartialEq)]
pub struct RoutingKeys {
    keys: Vec<Vec<u8>>,
    n_shown: usize,
}

impl RoutingKeys {
    /// Those of a message.
    pub fn of(message: &Message) -> RoutingKeys {
        let mut keys = vec![message.routing_key().to_vec()];
        let flags = message.flags();
        if flags & FLAG_KEYED != 0 {
            return RoutingKeys { keys, n_shown: 1 };
        }
        let headers = PropertiesRef::unchecked(message.properties()).headers();
        // Not all of them are built: a history of deaths can be long.
        let header = |name| headers.and_then(|h| h.get(name));
        keys.extend(octets(header("CC").as_ref()));
        let n_shown = keys.len();
        if flags & FLAG_BCC != 0 {
            keys.extend(octets(header("BCC").as_ref()));
        }
        RoutingKeys { keys, n_shown }
    }

    /// All of them.
    pub fn all(&self) -> Vec<&[u8]> {
        self.keys.iter().map(Vec::as_slice).collect()
    }

    /// Those that everybody may see.
    pub fn shown(&self) -> &[Vec<u8>] {
        self.keys.get(..self.n_shown).unwrap_or(&self.keys)
    }
}

/// The long strings of an array header.
pub fn octets_array(headers: Option<&FieldTable>, name: &str) -> Vec<Vec<u8>> {
    octets(headers.and_then(|h| h.get(name)))
}

fn octets(array: Option<&FieldValue>) -> Vec<Vec<u8>> {
    match array {
        Some(FieldValue::Array(items)) => {
            let octets = items.iter().filter_map(FieldValue::as_octets);
            octets.map(<[u8]>::to_vec).collect()
        }
        _ => Vec::new(),
    }
}

/// Those of them that are UTF-8.
pub fn string_array(headers: Option<&FieldTable>, name: &str) -> Vec<String> {
    let octets = octets_array(headers, name).into_iter();
    octets.filter_map(|o| String::from_utf8(o).ok()).collect()
}

/// The properties of a message, as far as everybody may see them.
pub fn shown_properties(message: &Message) -> Properties {
    let mut properties = Properties::from(PropertiesRef::unchecked(message.properties()));
    if message.flags() & FLAG_BCC != 0
        && let Some(headers) = &mut properties.headers
    {
        headers.remove("BCC");
    }
    properties
}

/// The same, encoded; `None` if they are the message's own.
pub fn stripped_properties(message: &Message) -> Option<Vec<u8>> {
    (message.flags() & FLAG_BCC != 0).then(|| shown_properties(message).encode())
}
