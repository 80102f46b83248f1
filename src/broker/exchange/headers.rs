//! Matching by headers.
//!
//! `x-match` is `all` (default), `any`, `all-with-x` or `any-with-x`. Headers that start with `x-`
//! take part only in the `-with-x` modes. A void value in the binding asks for the header to be
//! there; anything else has to be equal, type and value.

use crate::protocol::field_table::{FieldTable, FieldValue};

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
    Value(String),
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
                other => Err(MatchArgumentError::Value(
                    String::from_utf8_lossy(other).into_owned(),
                )),
            },
            Some(other) => Err(MatchArgumentError::Type(other.clone())),
        }
    }

    fn matches(self, wanted: &FieldTable, headers: &FieldTable) -> bool {
        let with_x = matches!(self, HeadersMatch::AllWithX | HeadersMatch::AnyWithX);
        let mut relevant = wanted
            .iter()
            .filter(|(name, _)| *name != "x-match" && (with_x || !name.starts_with("x-")));
        let fits = |(name, value): (&str, &FieldValue)| match headers.get(name) {
            None => false,
            Some(_) if *value == FieldValue::Void => true,
            Some(have) => have == value,
        };
        match self {
            HeadersMatch::All | HeadersMatch::AllWithX => relevant.all(fits),
            HeadersMatch::Any | HeadersMatch::AnyWithX => relevant.any(fits),
        }
    }
}

#[derive(Debug)]
pub(super) struct HeadersTable<D> {
    bindings: Vec<(HeadersMatch, FieldTable, D)>,
}

impl<D> Default for HeadersTable<D> {
    fn default() -> Self {
        HeadersTable {
            bindings: Vec::new(),
        }
    }
}

impl<D: Clone + Eq> HeadersTable<D> {
    pub(super) fn insert(&mut self, arguments: &FieldTable, destination: D) {
        // Refused at the bind if it is not valid; an old definition is read as `all`.
        let mode = HeadersMatch::of(arguments).unwrap_or(HeadersMatch::All);
        self.bindings.push((mode, arguments.clone(), destination));
    }

    pub(super) fn remove(&mut self, arguments: &FieldTable, destination: &D) {
        let at = self
            .bindings
            .iter()
            .position(|(_, a, d)| a == arguments && d == destination);
        if let Some(at) = at {
            self.bindings.remove(at);
        }
    }

    pub(super) fn route(&self, headers: &FieldTable, out: &mut Vec<D>) {
        let found = self
            .bindings
            .iter()
            .filter(|(mode, wanted, _)| mode.matches(wanted, headers));
        out.extend(found.map(|(_, _, d)| d.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
        let mut t = FieldTable::new();
        for (name, value) in fields {
            t.insert(name, value.clone());
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
            .matches(&wanted, &table(headers))
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

    #[test]
    fn values_are_compared_with_their_type_and_void_asks_for_presence() {
        let one = || ("a", FieldValue::from(1i64));
        assert!(!hit("", &[one()], &[("a", FieldValue::from("1"))]));
        assert!(!hit("", &[one()], &[("a", FieldValue::I32(1))]));
        assert!(hit("", &[("a", FieldValue::Void)], &[one()]));
        assert!(!hit("", &[("a", FieldValue::Void)], &[]));
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
