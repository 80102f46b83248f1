//! The frames of a segment's file, one after the other.

use std::io;
use std::sync::Arc;

use super::format::{FRAME_HEADER, FrameHeader};
use super::reader::Blocks;
use super::segment::lsn;
use crate::broker::ports::Lsn;
use crate::storage::files::LogFile;

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
    blocks: Blocks,
    /// Length of the file, which may have been prepared for more than was written.
    pub(super) end: u64,
}

impl Frames {
    /// Bytes looked at together behind the last good frame.
    const STEP_BYTES: usize = 64 * 1024;

    pub(super) fn of(number: u32, file: Arc<dyn LogFile>) -> io::Result<Frames> {
        Ok(Frames {
            number,
            end: file.len()?,
            blocks: Blocks::of(file),
        })
    }

    /// The header at `at`, if it belongs there.
    fn header(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let header = FrameHeader::read(self.blocks.at(at, FRAME_HEADER)?);
        Ok(header.filter(|header| {
            header.segment == self.number
                && u64::from(header.offset) == at
                && header.len > 0
                && at + header.size() as u64 <= self.end
        }))
    }

    /// The frame at `at`, if it is whole and belongs there.
    pub(super) fn frame(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let Some(header) = self.header(at)? else {
            return Ok(None);
        };
        let checks = header.checks(self.blocks.at(at, header.size())?);
        Ok(checks.then_some(header))
    }

    /// What the last good frame says was durable.
    pub(super) fn last_watermark(&mut self) -> io::Result<Option<Lsn>> {
        let mut starts = Vec::new();
        let mut at = 0;
        while let Some(header) = self.header(at)? {
            starts.push(at);
            at += header.size() as u64;
        }
        for at in starts.into_iter().rev() {
            if let Some(header) = self.frame(at)? {
                return Ok(Some(Lsn(header.watermark)));
            }
        }
        Ok(None)
    }

    /// The bytes of a frame that [`Self::frame`] or [`Self::next`] found.
    pub(super) fn bytes(&mut self, header: &FrameHeader) -> io::Result<&[u8]> {
        self.blocks.at(u64::from(header.offset), header.size())
    }

    /// The next good frame at or behind `at`. Everything before `proved` was durable.
    pub(super) fn next(&mut self, at: u64, proved: Lsn) -> io::Result<Next> {
        if let Some(header) = self.frame(at)? {
            return Ok(Next::Frame { header, skipped: 0 });
        }
        if !self.has_bytes_behind(at)? {
            return Ok(Next::End { rest: false });
        }
        let bad = lsn(self.number, at as u32);
        let mark = self.number.to_be_bytes();
        let mut from = at + 1;
        while from + FRAME_HEADER as u64 <= self.end {
            let step = self.blocks.at(from, Self::STEP_BYTES + FRAME_HEADER)?;
            if step.iter().all(|b| *b == 0) {
                // Prepared and never written.
                from += Self::STEP_BYTES as u64;
                continue;
            }
            let candidates = step.len().saturating_sub(FRAME_HEADER - 4 - 8);
            let marks = step.get(8..candidates).unwrap_or_default().windows(4);
            match marks.enumerate().find(|(_, found)| *found == mark) {
                None => from += Self::STEP_BYTES as u64,
                Some((n, _)) => {
                    from += n as u64;
                    if let Some(header) = self.frame(from)? {
                        let was_durable = proved > bad || Lsn(header.watermark) > bad;
                        return Ok(match was_durable {
                            true => Next::Frame {
                                header,
                                skipped: from - at,
                            },
                            false => Next::End { rest: true },
                        });
                    }
                    from += 1;
                }
            }
        }
        Ok(Next::End { rest: true })
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
            at += step.len() as u64;
        }
        Ok(false)
    }
}
