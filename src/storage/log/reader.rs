//! Reading messages back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use super::format::{self, FRAME_HEADER, FrameHeader, Record};
use super::segment::lsn;
use crate::broker::message::Message;
use crate::broker::ports::MessageId;
use crate::storage::files::LogFile;

/// Bytes read from a file at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// A segment's file, read in blocks.
pub(super) struct Blocks {
    file: Arc<dyn LogFile>,
    start: u64,
    bytes: Vec<u8>,
}

impl Blocks {
    pub(super) fn of(file: Arc<dyn LogFile>) -> Blocks {
        Blocks {
            file,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `len` bytes at `offset`, or fewer at the end of the file.
    pub(super) fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let have = self.start..self.start + self.bytes.len() as u64;
        if !(have.contains(&offset) && offset + len as u64 <= have.end) {
            self.bytes.resize(len.max(BLOCK_BYTES), 0);
            let n = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(n);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..(from + len).min(self.bytes.len())])
    }
}

/// Where to look for a message.
struct Found {
    segment: u32,
    file: Arc<dyn LogFile>,
    offset: u32,
    end: u32,
    next_id: u64,
}

fn find(log: &Inner, id: MessageId) -> Option<Found> {
    let mut staging = log.lock();
    loop {
        if log.failed.load(Ordering::Acquire) {
            return None;
        }
        let (number, segment) = staging.segments.of(id)?;
        if segment.is_done(id.0) {
            return None;
        }
        let offset = segment.seek(id.0)?;
        let end = lsn(number, segment.len);
        // The whole segment as it is now has to be written; it mostly is.
        if log.written.load(Ordering::Acquire) >= end.0
            && let Some(file) = &segment.file
        {
            let (file, end, next_id) = (file.clone(), segment.len, segment.next_id);
            return Some(Found {
                segment: number,
                file,
                offset,
                end,
                next_id,
            });
        }
        // Ask for a write, as if for a sync, and wait for it.
        staging.waiters.push((end, Arc::new(Silent)));
        staging = log.watch(staging);
    }
}

/// A bell that nobody hears: it only asks for progress.
struct Silent;

impl crate::broker::ports::Bell for Silent {
    fn ring(&self) {}
}

pub(super) fn read(
    log: &Inner,
    ids: &[MessageId],
    into: &mut Vec<Option<Message>>,
) -> io::Result<()> {
    let base = into.len();
    into.resize_with(base + ids.len(), || None);
    let mut order: Vec<(u64, usize)> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| (id.0, base + i))
        .collect();
    order.sort_unstable();
    let mut wanted = order.as_slice();
    while let Some(&(id, _)) = wanted.first() {
        let Some(found) = find(log, MessageId(id)) else {
            wanted = &wanted[1..];
            continue;
        };
        let here = wanted.partition_point(|(id, _)| *id < found.next_id);
        read_segment(&found, &wanted[..here], into)?;
        wanted = &wanted[here..];
    }
    Ok(())
}

/// Reads on from a place, frame by frame, until all that is wanted was passed.
fn read_segment(
    found: &Found,
    mut wanted: &[(u64, usize)],
    into: &mut [Option<Message>],
) -> io::Result<()> {
    let mut blocks = Blocks::of(found.file.clone());
    let mut offset = u64::from(found.offset);
    while offset < u64::from(found.end) {
        let Some(&(next, _)) = wanted.first() else {
            return Ok(());
        };
        let Some(header) = FrameHeader::read(blocks.at(offset, FRAME_HEADER)?) else {
            break;
        };
        if header.segment != found.segment || u64::from(header.offset) != offset {
            break;
        }
        let end_id = header.first_id + u64::from(header.n_messages);
        if next < end_id {
            let frame = blocks.at(offset, header.size())?;
            if !header.checks(frame) {
                tracing::error!(
                    "segment {}: checksum mismatch at byte {offset}, its messages are lost",
                    found.segment
                );
            } else {
                format::decode(frame, &header, |record| {
                    if let Record::Publish(p) = record {
                        while let Some((id, at)) = wanted.first()
                            && *id <= p.id.0
                        {
                            if *id == p.id.0 {
                                into[*at] = p.message();
                            }
                            wanted = &wanted[1..];
                        }
                    }
                });
            }
            while wanted.first().is_some_and(|(id, _)| *id < end_id) {
                wanted = &wanted[1..];
            }
        }
        offset += header.size() as u64;
    }
    Ok(())
}
