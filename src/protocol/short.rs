//! Short strings: at most 255 octets, of any value.
//!
//! What is written with a length of one octet has one of these types, so that nothing longer can get
//! there. Names in methods are text, see [`super::wire::Reader::short_str`]; routing keys, properties and
//! the names of fields are octets that are passed on as they came.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// Octets of a short string at most.
pub const SHORT_MAX: usize = u8::MAX as usize;

/// A short string, borrowed.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShortBytes<'a>(&'a [u8]);

impl<'a> ShortBytes<'a> {
    /// None.
    pub const EMPTY: ShortBytes<'static> = ShortBytes(&[]);

    /// These octets, if they are not too many.
    pub fn new(octets: &'a [u8]) -> Option<ShortBytes<'a>> {
        (octets.len() <= SHORT_MAX).then_some(ShortBytes(octets))
    }

    /// As many of them as fit.
    pub fn cut(octets: &'a [u8]) -> ShortBytes<'a> {
        ShortBytes(octets.get(..SHORT_MAX).unwrap_or(octets))
    }

    /// The octets.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The length as it is written.
    pub fn len_octet(self) -> u8 {
        self.0.len() as u8
    }

    /// The text, if it is UTF-8.
    pub fn to_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}

impl Deref for ShortBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for ShortBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// As many octets of it as fit.
impl<'a> From<&'a str> for ShortBytes<'a> {
    fn from(text: &'a str) -> Self {
        ShortBytes::cut(text.as_bytes())
    }
}

impl PartialEq<&str> for ShortBytes<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// A short string of one's own.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShortBuf(Vec<u8>);

impl ShortBuf {
    /// Takes these octets instead, in the room that is there.
    pub fn set(&mut self, octets: ShortBytes<'_>) {
        self.0.clear();
        self.0.extend_from_slice(octets.as_bytes());
    }

    /// Borrows it.
    pub fn as_short(&self) -> ShortBytes<'_> {
        ShortBytes(&self.0)
    }
}

impl Deref for ShortBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ShortBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_short().fmt(f)
    }
}

impl From<ShortBytes<'_>> for ShortBuf {
    fn from(octets: ShortBytes<'_>) -> Self {
        ShortBuf(octets.as_bytes().to_vec())
    }
}

/// As many octets of it as fit.
impl From<&str> for ShortBuf {
    fn from(text: &str) -> Self {
        ShortBytes::from(text).into()
    }
}

/// As many octets of it as fit.
impl From<String> for ShortBuf {
    fn from(text: String) -> Self {
        ShortBytes::from(text.as_str()).into()
    }
}

/// Octets as RabbitMQ shows them in a text: what is not UTF-8 is taken for Latin-1.
pub fn shown(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) => text.into(),
        Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn no_short_string_is_longer_than_its_length_octet_says() {
        let octets: Vec<u8> = (0..=u8::MAX).collect();
        let fits = ShortBytes::new(&octets[..255]).expect("255 octets");
        assert_eq!((fits.len_octet(), fits.as_bytes()), (255, &octets[..255]));
        assert_eq!(ShortBytes::new(&octets), None);
        assert_eq!(ShortBytes::cut(&octets), fits);
        assert_eq!(ShortBuf::from("é".repeat(200)).len(), 255);
    }

    #[test]
    fn what_is_not_utf_8_is_shown_as_latin_1() {
        assert_eq!(shown("é".as_bytes()), "é");
        assert_eq!(shown(b"\xc3\xa9\xff"), "Ã©ÿ");
    }
}
