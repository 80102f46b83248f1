//! What makes the records of a journal its own.
//!
//! Behind a record that does not check another one is looked for, and a client decides what is in a definition:
//! the arguments of a queue may have octets that look like a record. So the magic and the checksum of a record
//! depend on 64 random bits of the file, which stand at its start, where only the journal writes. The journal's
//! first version has none, and begins with a record.
//!
//! ```text
//! | magic | crc of the rest | version | magic's half | crc's half |
//! ```

use std::{fmt, io};

use bytes::BufMut;

use super::MAGIC;
use crate::storage::files::FileLayer;
use crate::storage::octets::{Octets, Salt};

/// Begins a file that has a key.
const START: u32 = 0x4c56_4a48;

/// Of the file's layout; whatever it is, the start is laid out so.
const VERSION: u8 = 2;

/// Octets of the start.
pub(super) const LEN: usize = 17;

/// See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key(Salt);

/// The version of a journal that a later Leveret wrote.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Unknown(pub(super) u8);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the journal has version {}; this Leveret reads versions 1 to {VERSION}, and writes {VERSION}",
            self.0
        )
    }
}

impl std::error::Error for Unknown {}

impl Key {
    /// That of files without one.
    pub(super) const NONE: Key = Key(Salt::NONE);

    pub(super) fn new(files: &dyn FileLayer) -> io::Result<Key> {
        Salt::random(files).map(Key)
    }

    #[cfg(test)]
    pub(super) fn fixed(mark: u32, crc: u32) -> Key {
        Key(Salt { mark, crc })
    }

    /// The key of a file that begins so, and where its records do.
    pub(super) fn of(file: &[u8]) -> Result<(Key, usize), Unknown> {
        Key::read(file).unwrap_or(Ok((Key::NONE, 0)))
    }

    fn read(file: &[u8]) -> Option<Result<(Key, usize), Unknown>> {
        let mut r = Octets(file.get(..LEN)?);
        if r.u32()? != START || r.u32()? != crc32fast::hash(r.0) {
            return None;
        }
        let version = r.u8()?;
        if version != VERSION {
            return Some(Err(Unknown(version)));
        }
        Some(Ok((Key(r.salt()?), LEN)))
    }

    /// The start of a file that has it.
    pub(super) fn start(self) -> [u8; LEN] {
        let mut start = [0; LEN];
        let mut out = &mut start[..];
        out.put_u32(START);
        out.put_u32(0);
        out.put_u8(VERSION);
        out.put_u32(self.0.mark);
        out.put_u32(self.0.crc);
        let crc = crc32fast::hash(&start[8..]);
        start[4..8].copy_from_slice(&crc.to_be_bytes());
        start
    }

    /// What begins a record.
    pub(super) fn magic(self) -> u32 {
        MAGIC ^ self.0.mark
    }

    pub(super) fn hash(self, payload: &[u8]) -> u32 {
        self.0.hash(payload)
    }
}
