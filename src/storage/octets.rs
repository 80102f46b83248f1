//! What the log's files and the definitions' journal have in common in octets: how they are read, and the salt
//! that makes records their own. All integers are big-endian.

use std::io;

use super::files::FileLayer;

/// Reads octets from the front; `None` where there are too few.
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl<'a> Octets<'a> {
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// As many as 32 bits before them say.
    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()?;
        self.take(n as usize)
    }

    /// A salt, as it is written: mark, checksum's beginning.
    pub(super) fn salt(&mut self) -> Option<Salt> {
        Some(Salt {
            mark: self.u32()?,
            crc: self.u32()?,
        })
    }
}

/// 64 random bits that nobody outside knows. What a client has sent may have octets in it that look like a record of
/// ours, and may be what is found behind a damaged one; but not with the salt of the file it is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Salt {
    /// In what begins a record, by exclusive or.
    pub(super) mark: u32,
    /// What checksums begin with.
    pub(super) crc: u32,
}

impl Salt {
    /// That of files of earlier formats, which have none.
    pub(super) const NONE: Salt = Salt { mark: 0, crc: 0 };

    /// One that nothing has.
    ///
    /// # Errors
    /// The system has no random octets.
    pub(super) fn random(files: &dyn FileLayer) -> io::Result<Salt> {
        let mut octets = [0; 8];
        files.random(&mut octets)?;
        let [a, b, c, d, e, f, g, h] = octets;
        Ok(Salt {
            mark: u32::from_be_bytes([a, b, c, d]),
            crc: u32::from_be_bytes([e, f, g, h]),
        })
    }

    pub(super) fn hash(self, covered: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(covered);
        hasher.finalize()
    }

    /// Makes a checksum.
    pub(super) fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.crc)
    }
}
