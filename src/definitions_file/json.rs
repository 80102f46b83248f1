//! Reads JSON so that what is wrong with one value costs that value alone.
//!
//! serde_json gives a whole text up for a string with half of a surrogate pair, a number that no f64 has, or
//! 128 levels of nesting. So a file is taken apart first, which looks at nothing but its grammar, and needs no
//! stack for what is nested; then each entry is read by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Octets of a definitions file: an export of a hundred thousand queues has some twenty million.
const FILE_MAX: u64 = 512 << 20;

/// The text of a file; without the mark that some editors put before it.
///
/// # Errors
/// It cannot be read, is too large or is no UTF-8.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    text_of(file, FILE_MAX)
}

fn text_of(file: impl Read, max: u64) -> Result<String, String> {
    let mut octets = Vec::new();
    let read = file.take(max + 1).read_to_end(&mut octets);
    read.map_err(|e: io::Error| e.to_string())?;
    if octets.len() as u64 > max {
        return Err(format!("it has more than {max} octets"));
    }
    if octets.starts_with(b"\xff\xfe") || octets.starts_with(b"\xfe\xff") {
        return Err("it is no UTF-8, but UTF-16, at line 1 column 1".into());
    }
    if octets.starts_with(b"\xef\xbb\xbf") {
        octets.drain(..3);
    }
    String::from_utf8(octets).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|b| **b != b'\n').count();
        format!("it is no UTF-8 at line {line} column {column}")
    })
}

/// An object taken apart. Its values are JSON, and not more is known of them.
#[derive(Default)]
pub(super) struct Parts<'a> {
    all: BTreeMap<String, &'a RawValue>,
    /// Names that were there before; what came last counts, as in RabbitMQ.
    pub(super) twice: Vec<String>,
}

impl<'a> Parts<'a> {
    /// # Errors
    /// It is no object.
    pub(super) fn of(text: &'a str) -> serde_json::Result<Parts<'a>> {
        serde_json::from_str(text)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.all.get(name).copied()
    }

    /// A text; none, if it is not there or something else.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.all.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts<'de>, A::Error> {
                let mut parts = Parts::default();
                while let Some(Name(name)) = map.next_key()? {
                    let value = map.next_value()?;
                    if parts.all.insert(name.clone(), value).is_some() {
                        parts.twice.push(name);
                    }
                }
                Ok(parts)
            }
        }

        from.deserialize_map(Object)
    }
}

/// A name, whatever its escapes say.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Octets;

        impl Visitor<'_> for Octets {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E>(self, octets: &[u8]) -> Result<Name, E> {
                Ok(Name(String::from_utf8_lossy(octets).into_owned()))
            }
        }

        from.deserialize_bytes(Octets)
    }
}

/// The values of a list, if it is one.
pub(super) fn list(list: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(list.get()).ok()
}

/// A value; `twice` gets the names that are in one object more than once.
///
/// # Errors
/// A text that says what is wrong with it.
pub(super) fn value(of: &RawValue, twice: &mut Vec<String>) -> Result<Value, String> {
    let mut from = serde_json::Deserializer::from_str(of.get());
    Any(twice).deserialize(&mut from).map_err(|e| {
        let e = e.to_string();
        match e.split_once(" at line ") {
            // The line would be that of the entry.
            Some(("recursion limit exceeded", _)) => "it nests too deep".into(),
            Some((what, _))
                if what.ends_with("in hex escape") || what.ends_with("of hex escape") =>
            {
                "a text in it has one half of a surrogate pair".into()
            }
            Some((what, _)) => what.into(),
            None => e,
        }
    })
}

struct Any<'a>(&'a mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = seq.next_element_seed(Any(&mut *self.0))? {
            all.push(value);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = serde_json::Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Any(&mut *self.0))?;
            if all.insert(name.clone(), value).is_some() {
                self.0.push(name);
            }
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_not_read_to_its_end() {
        let told = text_of(io::repeat(b' '), 1000);
        assert_eq!(told, Err("it has more than 1000 octets".into()));
        assert_eq!(text_of(&[b' '; 1000][..], 1000), Ok(" ".repeat(1000)));
    }
}
