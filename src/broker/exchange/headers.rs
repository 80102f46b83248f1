//! Matching by headers.
//!
//! `x-match` is `all` (default), `any`, `all-with-x` or `any-with-x`. Headers that start with `x-`
//! take part only in the `-with-x` modes. A void value in the binding asks for the header to be
//! there; anything else has to be equal in kind and value, as RabbitMQ 4.3 sees it: integers and
//! floats of any width, and text and binary, are of one kind each; within arrays and tables the types
//! have to be the same.

use std::collections::HashMap;
use std::hash::Hash;

use super::destinations::Destinations;
use crate::broker::death::X_DEATH;
use crate::protocol::field_table::{FieldTable, FieldValue, TableRef};
use crate::protocol::short::ShortBytes;

/// The four modes of `x-match`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadersMatch {
    /// All of the binding's headers match.
    All,
    /// At least one does.
    Any,
    /// All, with those that start with `x-`.
    AllWithX,
    /// At least one, with those that start with `x-`.
    AnyWithX,
}

/// What is wrong with a binding's `x-match`.
#[derive(Clone, Debug, PartialEq)]
pub enum MatchArgumentError {
    /// None of the four modes.
    Value(Vec<u8>),
    /// Not a long string.
    Type(FieldValue),
}

impl HeadersMatch {
    /// Reads the mode from a binding's arguments.
    ///
    /// # Errors
    /// [`MatchArgumentError`] for anything but the four modes.
    pub fn of(arguments: &FieldTable) -> Result<HeadersMatch, MatchArgumentError> {
        match arguments.get("x-match") {
            None => Ok(HeadersMatch::All),
            Some(FieldValue::LongStr(mode)) => match mode.as_slice() {
                b"all" => Ok(HeadersMatch::All),
                b"any" => Ok(HeadersMatch::Any),
                b"all-with-x" => Ok(HeadersMatch::AllWithX),
                b"any-with-x" => Ok(HeadersMatch::AnyWithX),
                other => Err(MatchArgumentError::Value(other.to_vec())),
            },
            Some(other) => Err(MatchArgumentError::Type(other.clone())),
        }
    }

    fn matches(self, wanted: &FieldTable, headers: &Headers<'_>) -> bool {
        let with_x = matches!(self, HeadersMatch::AllWithX | HeadersMatch::AnyWithX);
        let mut relevant = wanted
            .iter()
            .filter(|(name, _)| *name != "x-match" && (with_x || !name.starts_with(b"x-")));
        let fits = |(name, value): (ShortBytes<'_>, &FieldValue)| match headers.get(name) {
            None => false,
            Some(_) if *value == FieldValue::Void => true,
            Some(have) => same(have, value),
        };
        match self {
            HeadersMatch::All | HeadersMatch::AllWithX => relevant.all(fits),
            HeadersMatch::Any | HeadersMatch::AnyWithX => relevant.any(fits),
        }
    }
}

fn same(a: &FieldValue, b: &FieldValue) -> bool {
    use FieldValue::{Bytes, F32, F64, LongStr};
    let float = |v: &FieldValue| match v {
        F32(v) => Some(f64::from(*v).to_bits()),
        F64(v) => Some(v.to_bits()),
        _ => None,
    };
    match (a, b) {
        (LongStr(a) | Bytes(a), LongStr(b) | Bytes(b)) => a == b,
        _ => match (a.as_integer(), b.as_integer()) {
            (Some(a), Some(b)) => a == b,
            _ => float(a).map_or_else(|| a == b, |a| float(b) == Some(a)),
        },
    }
}

/// Headers up to this many are searched one after the other; more are put in a map first, so that a
/// message with thousands of them costs no more than its bytes.
const SEARCHED_MAX: usize = 16;

/// The headers of a message, to be looked up by name.
enum Headers<'a> {
    Few(&'a FieldTable),
    Many(HashMap<ShortBytes<'a>, &'a FieldValue>),
}

impl<'a> Headers<'a> {
    fn new(table: &'a FieldTable) -> Headers<'a> {
        if table.len() <= SEARCHED_MAX {
            return Headers::Few(table);
        }
        let mut map = HashMap::with_capacity(table.len());
        for (name, value) in table.iter() {
            // Of two with one name the first counts, as in a search.
            map.entry(name).or_insert(value);
        }
        Headers::Many(map)
    }

    fn get(&self, name: ShortBytes<'_>) -> Option<&FieldValue> {
        match self {
            Headers::Few(table) => table.get_octets(name.as_bytes()),
            Headers::Many(map) => map.get(&name).copied(),
        }
    }
}

/// All bindings with the same arguments: they match the same messages.
#[derive(Debug)]
struct Matcher<D> {
    mode: HeadersMatch,
    wanted: FieldTable,
    destinations: Destinations<D>,
}

/// The bindings of a headers exchange, by the identity of their arguments.
#[derive(Debug)]
pub(super) struct HeadersTable<D> {
    matchers: HashMap<Box<[u8]>, Matcher<D>>,
}

impl<D> Default for HeadersTable<D> {
    fn default() -> Self {
        HeadersTable {
            matchers: HashMap::new(),
        }
    }
}

impl<D: Clone + Eq + Hash> HeadersTable<D> {
    pub(super) fn insert(&mut self, identity: &[u8], arguments: &FieldTable, destination: &D) {
        let matcher = self
            .matchers
            .entry(identity.into())
            .or_insert_with(|| Matcher {
                // Refused at the bind if it is not valid; an old definition is read as `all`.
                mode: HeadersMatch::of(arguments).unwrap_or(HeadersMatch::All),
                wanted: arguments.clone(),
                destinations: Destinations::default(),
            });
        matcher.destinations.add(destination);
    }

    pub(super) fn remove(&mut self, identity: &[u8], destination: &D) {
        if let Some(matcher) = self.matchers.get_mut(identity) {
            matcher.destinations.remove(destination);
            if matcher.destinations.is_empty() {
                self.matchers.remove(identity);
            }
        }
    }

    /// How many matchers a message is compared with.
    pub(super) fn len(&self) -> usize {
        self.matchers.len()
    }

    /// Whether a binding names this header.
    fn names(&self, header: &str) -> bool {
        let mut matchers = self.matchers.values();
        matchers.any(|m| m.wanted.get(header).is_some())
    }

    pub(super) fn route(&self, headers: TableRef<'_>, out: &mut Vec<D>) {
        // A history of deaths can be long, and is seldom what anybody wants to see.
        let headers = headers.to_table_of(|name| name != X_DEATH || self.names(X_DEATH));
        let headers = Headers::new(&headers);
        for matcher in self.matchers.values() {
            if matcher.mode.matches(&matcher.wanted, &headers) {
                matcher.destinations.append_to(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
        let mut t = FieldTable::new();
        for (name, value) in fields {
            t.insert(*name, value.clone());
        }
        t
    }

    fn hit(mode: &str, wanted: &[(&str, FieldValue)], headers: &[(&str, FieldValue)]) -> bool {
        let mut wanted = table(wanted);
        if !mode.is_empty() {
            wanted.insert("x-match", mode);
        }
        HeadersMatch::of(&wanted)
            .expect("valid")
            .matches(&wanted, &Headers::new(&table(headers)))
    }

    #[test]
    fn the_four_modes() {
        let a = || ("a", FieldValue::from(1i64));
        let b = || ("b", FieldValue::from("two"));
        let x = || ("x-c", FieldValue::from(3i64));
        assert!(hit("", &[a(), b()], &[b(), a(), x()]));
        assert!(!hit("all", &[a(), b()], &[a()]));
        assert!(hit("any", &[a(), b()], &[a()]));
        assert!(!hit("any", &[x()], &[x()]), "x- headers do not count");
        assert!(hit("any-with-x", &[x()], &[x()]));
        assert!(!hit("all-with-x", &[a(), x()], &[a()]));
        assert!(hit("all", &[a(), x()], &[a()]));
        assert!(hit("", &[], &[]) && !hit("any", &[], &[a()]));
    }

    /// Each row was tried on RabbitMQ 4.3.6.
    #[test]
    fn values_are_compared_by_kind_and_void_asks_for_presence() {
        use FieldValue::{Array, Bool, Bytes, Decimal, F32, F64, I16, I32, I64, LongStr, U8, Void};
        let text = |s: &str| LongStr(s.into());
        let decimal = |scale, value| Decimal { scale, value };
        let rows = [
            (I32(1), I32(1), true),
            (I32(1), I64(1), true),
            (I16(1), I32(1), true),
            (U8(1), I32(1), true),
            (I32(1), F64(1.0), false),
            (I32(1), text("1"), false),
            (I32(1), Bool(true), false),
            (text("true"), Bool(true), false),
            (Bool(false), Bool(false), true),
            (F32(1.5), F64(1.5), true),
            (F64(0.0), F64(-0.0), false),
            (text("x"), Bytes(b"x".to_vec()), true),
            (decimal(1, 15), decimal(1, 15), true),
            (decimal(2, 150), decimal(1, 15), false),
            (Array(vec![I32(1)]), Array(vec![I32(1)]), true),
            (Array(vec![I32(1)]), Array(vec![I64(1)]), false),
            (Void, I32(5), true),
            (Void, Void, true),
            (I32(5), Void, false),
        ];
        for (wanted, have, matches) in rows {
            let shown = format!("{wanted:?} {have:?}");
            assert_eq!(
                hit("", &[("a", wanted)], &[("a", have)]),
                matches,
                "{shown}"
            );
        }
        assert!(!hit("", &[("a", Void)], &[]));
        assert!(
            hit("all-with-x", &[], &[("x-a", I32(1))]),
            "x-match is no header"
        );
    }

    #[test]
    fn a_wrong_mode_is_told() {
        let t = table(&[("x-match", FieldValue::from("some"))]);
        assert_eq!(
            HeadersMatch::of(&t),
            Err(MatchArgumentError::Value("some".into()))
        );
        let t = table(&[("x-match", FieldValue::I32(1))]);
        assert!(matches!(
            HeadersMatch::of(&t),
            Err(MatchArgumentError::Type(_))
        ));
    }
}
