//! The frames of a segment's file, one after the other, and what is damaged between them.

use std::io;
use std::sync::Arc;

use super::format::{self, FRAME_HEADER, FrameHeader};
use super::segment::lsn;
use crate::broker::ports::Lsn;
use crate::storage::files::LogFile;
use crate::storage::octets::Salt;

/// Bytes read from a file at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// A frame that is larger is checked piece by piece before it is read as a whole: what only looks
/// like the header of a large one takes no memory.
const WHOLE_BYTES: usize = 16 << 20;

/// A segment's file, read in blocks.
struct Blocks {
    file: Arc<dyn LogFile>,
    start: u64,
    bytes: Vec<u8>,
    /// So many of them are the file's.
    n: usize,
}

impl Blocks {
    fn of(file: Arc<dyn LogFile>) -> Blocks {
        Blocks {
            file,
            start: 0,
            bytes: Vec::new(),
            n: 0,
        }
    }

    /// `len` bytes at `offset`, or fewer at the end of the file.
    fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let have = self.start..self.start + self.n as u64;
        if !(have.contains(&offset) && offset + len as u64 <= have.end) {
            // What is in there is nobody's until it was read.
            (self.start, self.n) = (offset, 0);
            let want = len.max(BLOCK_BYTES);
            if self.bytes.len() < want {
                self.bytes = vec![0; want];
            }
            self.n = self.file.read_at(&mut self.bytes[..want], offset)?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..(from + len).min(self.n)])
    }

    /// Where to go on behind zeros that end at `from`: holes are not read.
    fn behind_zeros(&self, from: u64) -> u64 {
        let data = self.file.data_from(from).unwrap_or(u64::MAX);
        // A header may begin with zeros.
        from.max(data.saturating_sub(FRAME_HEADER as u64))
    }
}

/// What comes next.
pub(super) enum Next {
    /// A good frame, and how many bytes stand before it that were good once.
    Frame { header: FrameHeader, skipped: u64 },
    /// None; whether there are bytes all the same.
    End { rest: bool },
}

/// The frames of a segment, read a block at a time: memory must not depend on its size.
pub(super) struct Frames {
    number: u32,
    salt: Salt,
    blocks: Blocks,
    /// Length of the file, which may have been prepared for more than was written.
    pub(super) end: u64,
    /// The highest watermark from some frame on, once that was looked for.
    highest: Option<Lsn>,
}

impl Frames {
    /// Bytes looked at together behind the last good frame.
    const STEP_BYTES: usize = 64 * 1024;

    /// All of a file. Segments are below 4 GiB: what is behind that is none of ours.
    pub(super) fn of(number: u32, salt: Salt, file: Arc<dyn LogFile>) -> io::Result<Frames> {
        Frames::until(number, salt, file, u32::MAX)
    }

    /// Those that end at or before `end`.
    pub(super) fn until(
        number: u32,
        salt: Salt,
        file: Arc<dyn LogFile>,
        end: u32,
    ) -> io::Result<Frames> {
        Ok(Frames {
            number,
            salt,
            end: file.len()?.min(end.into()),
            blocks: Blocks::of(file),
            highest: None,
        })
    }

    /// The header at `at`, if it belongs there.
    fn header(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let header = FrameHeader::read(self.blocks.at(at, FRAME_HEADER)?);
        Ok(header.filter(|header| {
            u32::try_from(at).is_ok_and(|at| header.is_at(self.number, self.salt, at))
                && header.is_possible()
                && at + header.size() as u64 <= self.end
        }))
    }

    /// The frame at `at`, if it is whole and belongs there.
    pub(super) fn frame(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let Some(header) = self.header(at)? else {
            return Ok(None);
        };
        let checks = match header.size() {
            ..=WHOLE_BYTES => header.checks(self.blocks.at(at, header.size())?, self.salt),
            _ => self.checks_by_pieces(at, &header)?,
        };
        Ok(checks.then_some(header))
    }

    fn checks_by_pieces(&mut self, at: u64, header: &FrameHeader) -> io::Result<bool> {
        let mut crc = self.salt.hasher();
        let (mut from, end) = (at + 8, at + header.size() as u64);
        while from < end {
            let piece = self
                .blocks
                .at(from, BLOCK_BYTES.min((end - from) as usize))?;
            if piece.is_empty() {
                return Ok(false);
            }
            crc.update(piece);
            from += piece.len() as u64;
        }
        Ok(crc.finalize() == header.crc)
    }

    /// Whether all frames of the same append follow a good frame.
    pub(super) fn is_followed(&mut self, header: &FrameHeader) -> io::Result<bool> {
        let mut left = format::followed_by(self.bytes(header)?);
        let mut at = u64::from(header.offset) + header.size() as u64;
        while left > 0 {
            let Some(next) = self.frame(at)? else {
                return Ok(false);
            };
            left -= 1;
            if format::followed_by(self.bytes(&next)?) != left {
                return Ok(false);
            }
            at += next.size() as u64;
        }
        Ok(true)
    }

    /// The bytes of a frame that [`Self::frame`] or [`Self::next`] found.
    pub(super) fn bytes(&mut self, header: &FrameHeader) -> io::Result<&[u8]> {
        self.blocks.at(u64::from(header.offset), header.size())
    }

    /// The most that any good frame at or behind `at` says was durable: frames that were staged
    /// together say the same, whatever is damaged between them.
    pub(super) fn highest_watermark(&mut self, at: u64) -> io::Result<Option<Lsn>> {
        if self.highest.is_none() {
            let mut at = at;
            while let Some(header) = self.good_frame(at)? {
                self.highest = self.highest.max(Some(Lsn(header.watermark)));
                at = u64::from(header.offset) + header.size() as u64;
            }
        }
        Ok(self.highest)
    }

    /// The next good frame at or behind `at`. Everything before `proved` was durable.
    pub(super) fn next(&mut self, at: u64, proved: Lsn) -> io::Result<Next> {
        if let Some(header) = self.frame(at)? {
            return Ok(Next::Frame { header, skipped: 0 });
        }
        if !self.has_bytes_behind(at)? {
            return Ok(Next::End { rest: false });
        }
        let Some(header) = self.good_frame(at + 1)? else {
            return Ok(Next::End { rest: true });
        };
        let bad = lsn(self.number, at as u32);
        let found = u64::from(header.offset);
        if proved > bad || self.highest_watermark(found)? > Some(bad) {
            let skipped = found - at;
            return Ok(Next::Frame { header, skipped });
        }
        Ok(Next::End { rest: true })
    }

    /// The first good frame at or behind `at`.
    fn good_frame(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        if let Some(header) = self.frame(at)? {
            return Ok(Some(header));
        }
        let mark = (self.number ^ self.salt.mark).to_be_bytes();
        let mut from = at + 1;
        while from + FRAME_HEADER as u64 <= self.end {
            let step = self.blocks.at(from, Self::STEP_BYTES + FRAME_HEADER)?;
            if step.len() < FRAME_HEADER {
                break; // The file is shorter than it was.
            }
            if step.iter().all(|b| *b == 0) {
                // Prepared and never written.
                from = self.blocks.behind_zeros(from + Self::STEP_BYTES as u64);
                continue;
            }
            let candidates = step.len().saturating_sub(FRAME_HEADER - 4 - 8);
            let marks = step.get(8..candidates).unwrap_or_default().windows(4);
            match marks.enumerate().find(|(_, found)| *found == mark) {
                None => from += Self::STEP_BYTES as u64,
                Some((n, _)) => {
                    from += n as u64;
                    if let Some(header) = self.frame(from)? {
                        return Ok(Some(header));
                    }
                    from += 1;
                }
            }
        }
        Ok(None)
    }

    /// Whether anything was written behind `at`.
    fn has_bytes_behind(&mut self, at: u64) -> io::Result<bool> {
        let mut at = at;
        while at < self.end {
            let step = self.blocks.at(at, Self::STEP_BYTES)?;
            if step.is_empty() {
                break;
            }
            if step.iter().any(|b| *b != 0) {
                return Ok(true);
            }
            let zeros = step.len() as u64;
            at = self.blocks.behind_zeros(at + zeros);
        }
        Ok(false)
    }
}
