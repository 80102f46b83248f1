//! Reading and writing the primitive types: integers, short and long strings, tables.

use std::fmt;

use super::method_id::MethodId;
use super::short::ShortBytes;
use bytes::{BufMut, BytesMut};

/// Why arguments did not decode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// They end early, or a field has no known type.
    Syntax,
    /// A short string is not UTF-8.
    Utf8,
}

impl Malformed {
    /// The error for the frame with this payload.
    pub fn of(self, payload: &[u8]) -> DecodeError {
        match self {
            Malformed::Syntax => DecodeError::Malformed(Octets::arguments(payload)),
            Malformed::Utf8 => DecodeError::MalformedUtf8,
        }
    }
}

/// A frame whose payload cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// No such method; RabbitMQ answers 503 `unimplemented method`.
    UnknownMethod(MethodId),
    /// The arguments do not decode; RabbitMQ answers 501.
    Malformed(Octets),
    /// A short string is not UTF-8; RabbitMQ answers 501.
    MalformedUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::UnknownMethod(_) => f.write_str("unimplemented method"),
            DecodeError::Malformed(octets) => write!(f, "cannot decode {octets}"),
            DecodeError::MalformedUtf8 => f.write_str("Malformed UTF-8 in shortstr"),
        }
    }
}

/// Octets of something at fault, shown as RabbitMQ shows them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Octets {
    shown: Vec<u8>,
    /// Printable ones are shown as text (Erlang's `~p`, not `~w`).
    as_text: bool,
}

impl Octets {
    /// Octets of a frame's payload shown at most.
    pub const SHOWN: usize = 16;

    /// Octets of arguments shown at most; a reply text has no room for more.
    const ARGUMENTS_SHOWN: usize = 255;

    /// The first of a frame's payload: `<<1,2,3>>`, or `<<"text">>`.
    pub fn of(payload: &[u8]) -> Octets {
        Octets {
            shown: payload.iter().take(Self::SHOWN).copied().collect(),
            as_text: true,
        }
    }

    /// The arguments in a method's payload, behind class and method: `<<1,2,3>>`.
    fn arguments(payload: &[u8]) -> Octets {
        let arguments = payload.iter().skip(4).take(Self::ARGUMENTS_SHOWN);
        Octets {
            shown: arguments.copied().collect(),
            as_text: false,
        }
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = |b: &u8| matches!(b, b' '..=b'~' | b'\n' | b'\r' | b'\t');
        if self.as_text && !self.shown.is_empty() && self.shown.iter().all(printable) {
            let text = self.shown.escape_ascii().to_string();
            // Erlang does not escape the apostrophe.
            return write!(f, "<<\"{}\">>", text.replace("\\'", "'"));
        }
        f.write_str("<<")?;
        for (i, octet) in self.shown.iter().enumerate() {
            write!(f, "{}{octet}", if i == 0 { "" } else { "," })?;
        }
        f.write_str(">>")
    }
}

/// Reads primitives from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next octets, as many as the array has. (Combinators that go through them one by one cost several
    /// times as much, and a long table is nothing but lengths.)
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (octets, rest) = self.rest.split_first_chunk().ok_or(Malformed::Syntax)?;
        self.rest = rest;
        Ok(*octets)
    }

    /// An unsigned octet.
    #[inline]
    pub fn octet(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// An unsigned 16-bit integer.
    #[inline]
    pub fn short(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// An unsigned 32-bit integer.
    #[inline]
    pub fn long(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// An unsigned 64-bit integer.
    #[inline]
    pub fn longlong(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// So many octets.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (octets, rest) = self.rest.split_at_checked(n).ok_or(Malformed::Syntax)?;
        self.rest = rest;
        Ok(octets)
    }

    /// A string of at most 255 octets.
    #[inline]
    pub fn short_bytes(&mut self) -> Result<ShortBytes<'a>, Malformed> {
        let len = self.octet()?;
        let bytes = self.bytes(usize::from(len))?;
        Ok(ShortBytes::cut(bytes))
    }

    /// A string of at most 255 octets, UTF-8.
    #[inline]
    pub fn short_str(&mut self) -> Result<&'a str, Malformed> {
        self.short_bytes()?.to_str().ok_or(Malformed::Utf8)
    }

    /// A string of octets with a 32-bit length.
    #[inline]
    pub fn long_str(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.long()?;
        self.bytes(len as usize)
    }

    /// Class and method id.
    pub fn method_id(&mut self) -> Result<MethodId, Malformed> {
        Ok(MethodId {
            class: self.short()?,
            method: self.short()?,
        })
    }
}

/// Appends primitives to a buffer.
pub struct Writer<'a>(pub &'a mut BytesMut);

impl Writer<'_> {
    /// An unsigned octet.
    pub fn octet(&mut self, v: u8) {
        self.0.put_u8(v);
    }

    /// An unsigned 16-bit integer.
    pub fn short(&mut self, v: u16) {
        self.0.put_u16(v);
    }

    /// An unsigned 32-bit integer.
    pub fn long(&mut self, v: u32) {
        self.0.put_u32(v);
    }

    /// An unsigned 64-bit integer.
    pub fn longlong(&mut self, v: u64) {
        self.0.put_u64(v);
    }

    /// A short string of octets.
    pub fn short_bytes(&mut self, v: ShortBytes<'_>) {
        self.0.put_u8(v.len_octet());
        self.0.put_slice(v.as_bytes());
    }

    /// A short string; what does not fit in 255 octets is cut at a character.
    pub fn short_str(&mut self, v: &str) {
        let mut end = v.len().min(255);
        while !v.is_char_boundary(end) {
            end -= 1;
        }
        self.0.put_u8(end as u8);
        self.0
            .put_slice(v.as_bytes().get(..end).unwrap_or_default());
    }

    /// A long string or an encoded table.
    pub fn long_str(&mut self, v: &[u8]) {
        self.0.put_u32(v.len() as u32);
        self.0.put_slice(v);
    }
}
