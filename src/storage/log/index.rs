//! The index beside a sealed segment: its [`Summary`], so that a start need not read the messages.
//!
//! It is a hint. It is written, without a sync, some time after everything in the segment is durable;
//! one that is not there, does not check or does not fit makes recovery read the segment itself. What
//! was settled later is in later segments, or in the `.settled` file.
//!
//! ```text
//! | crc | version | segment | len | last_frame | first_id | next_id | definitions_to | ended |
//! | n, sparse: (id, offset) | n, runs | n, settled: (queue, first, last) | clean stop? n, (queue, id) |
//! ```

use std::io;
use std::path::{Path, PathBuf};

use bytes::BufMut;

use super::format::{self, FrameHeader, ID_MAX, SEGMENT_IDS_MAX};
use super::frames::Frames;
use super::summary::{Settled, Summary};
use super::{Inner, writer};
use crate::broker::ports::{Lsn, MessageId, QueueId, RecoveredRun, Target};
use crate::storage::files::{FileLayer, LogFile, replace, whole};
use crate::storage::octets::{Octets, Salt};

/// Of this layout; an index of another version is not used.
const VERSION: u8 = 1;

/// No index is kept that is larger than this part of its segment: messages of many queues, sizes or
/// expirations that make no runs are read from the segment as fast.
const AT_MOST_ONE_IN: usize = 8;

/// An index of so many bytes is read whatever the size of its segment.
const READ_ANYWAY_BYTES: u64 = 1 << 20;

/// Bytes of a run in an index.
const RUN_BYTES: usize = 35;

/// What an index of this segment is called.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join("log").join(format!("{number:010}.index"))
}

pub(super) fn encode(summary: &Summary) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.put_u8(VERSION);
    out.put_u32(summary.number);
    out.put_u32(summary.len);
    out.put_u32(summary.last_frame);
    out.put_u64(summary.first_id);
    out.put_u64(summary.next_id);
    out.put_u64(summary.definitions_to.0);
    out.put_u8(u8::from(summary.ended));
    out.put_u32(summary.sparse.len() as u32);
    for (id, offset) in &summary.sparse {
        out.put_u64(*id);
        out.put_u32(*offset);
    }
    out.put_u32(summary.runs.len() as u32);
    for run in &summary.runs {
        format::put_target(&mut out, &run.target);
        out.put_u64(run.first_id.0);
        out.put_u32(run.count);
        out.put_u32(run.body_len);
    }
    out.put_u32(summary.settled.len() as u32);
    for settled in &summary.settled {
        out.put_u64(settled.queue.0);
        out.put_u64(settled.first);
        out.put_u64(settled.last);
    }
    if let Some(copies) = &summary.clean_stop {
        out.put_u32(copies.len() as u32);
        for (queue, id) in copies {
            out.put_u64(queue.0);
            out.put_u64(id.0);
        }
    }
    let crc = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Summary> {
    let mut r = Octets(bytes);
    if r.u32()? != crc32fast::hash(r.0) || r.u8()? != VERSION {
        return None;
    }
    let mut summary = Summary::of(r.u32()?);
    (summary.len, summary.last_frame) = (r.u32()?, r.u32()?);
    (summary.first_id, summary.next_id) = (r.u64()?, r.u64()?);
    summary.definitions_to = Lsn(r.u64()?);
    summary.ended = r.u8()? != 0;
    for _ in 0..r.u32()? {
        summary.sparse.push((r.u64()?, r.u32()?));
    }
    for _ in 0..r.u32()? {
        summary.runs.push(RecoveredRun {
            target: Target {
                queue: QueueId(r.u64()?),
                expires_at: r.u64()?,
                priority: r.u8()?,
                delivery_count: r.u16()?,
            },
            first_id: MessageId(r.u64()?),
            count: r.u32()?,
            body_len: r.u32()?,
            redelivered: false,
        });
    }
    for _ in 0..r.u32()? {
        summary.settled.push(Settled {
            queue: QueueId(r.u64()?),
            first: r.u64()?,
            last: r.u64()?,
        });
    }
    if !r.0.is_empty() {
        let mut copies = Vec::new();
        for _ in 0..r.u32()? {
            copies.push((QueueId(r.u64()?), MessageId(r.u64()?)));
        }
        summary.clean_stop = Some(copies);
    }
    is_possible(&summary).then_some(summary)
}

/// Whether there may be such a segment: what is believed later is checked here.
fn is_possible(s: &Summary) -> bool {
    let first_to_next = s.first_id..=s.next_id;
    let ids = s.next_id.checked_sub(s.first_id);
    let places = s.sparse.iter();
    let in_runs = s.runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
    ids.is_some_and(|n| n <= SEGMENT_IDS_MAX)
        && (1..=ID_MAX).contains(&s.first_id)
        && places.clone().all(|(id, at)| first_to_next.contains(id) && *at < s.len)
        && places.is_sorted()
        // Each copy has its target in the segment.
        && in_runs <= u64::from(s.len) / format::TARGET_BYTES
        && s.runs.iter().all(|run| {
            run.count > 0
                && (s.first_id..s.next_id).contains(&run.first_id.0)
                && run.first_id.0 + u64::from(run.count) <= s.next_id
        })
}

/// The summary of a segment from its index, if there is one that fits the segment's file.
pub(super) fn load(
    files: &dyn FileLayer,
    dir: &Path,
    number: u32,
    salt: Salt,
    segment: &dyn LogFile,
) -> io::Result<Option<Summary>> {
    let file = files.open_existing(&path(dir, number))?;
    let most = segment.len()?.min(u32::MAX.into()) / AT_MOST_ONE_IN as u64;
    let most = most.max(READ_ANYWAY_BYTES);
    let bytes = whole(file.as_ref(), most)?;
    let Some(summary) = bytes.and_then(|bytes| decode(&bytes)) else {
        tracing::warn!("segment {number}: its index does not check; reading the segment itself");
        return Ok(None);
    };
    let fits = summary.number == number && ends_with(segment, salt, &summary)?;
    if !fits {
        tracing::warn!(
            "segment {number}: its index is of another file; reading the segment itself"
        );
    }
    Ok(fits.then_some(summary))
}

/// Whether the segment's last frame is where its summary says.
fn ends_with(segment: &dyn LogFile, salt: Salt, summary: &Summary) -> io::Result<bool> {
    let Some(size) = summary.len.checked_sub(summary.last_frame) else {
        return Ok(false);
    };
    if u64::from(summary.len) > segment.len()? {
        return Ok(false);
    }
    let mut frame = vec![0; size as usize];
    let n = segment.read_at(&mut frame, u64::from(summary.last_frame))?;
    frame.truncate(n);
    Ok(FrameHeader::read(&frame).is_some_and(|header| {
        header.is_at(summary.number, salt, summary.last_frame)
            && header.size() == size as usize
            && header.checks(&frame, salt)
    }))
}

/// Reads a segment of which everything is durable, and writes its index, if it is worth one.
pub(super) fn write(log: &Inner, number: u32) -> io::Result<()> {
    let found = {
        let staging = log.lock();
        let segment = staging.segments.by_number.get(&number);
        segment.and_then(|s| Some((s.file.clone()?, s.len)))
    };
    let Some((file, len)) = found else {
        return Ok(());
    };
    let file = log.open.get(log.files.as_ref(), &file)?;
    let most = len as usize / AT_MOST_ONE_IN;
    let mut summary = Summary::of(number);
    let mut frames = Frames::of(number, log.salts.of(number), file)?;
    while summary.len < len {
        let Some(header) = frames.frame(u64::from(summary.len))? else {
            return Ok(()); // Corruption, of which recovery or a reader has more to say.
        };
        let understood = summary.add(frames.bytes(&header)?, &header, |_, _| {});
        if !understood || summary.runs.len() * RUN_BYTES > most {
            return Ok(());
        }
    }
    let bytes = encode(&summary);
    if !summary.ended || bytes.len() > most {
        return Ok(());
    }
    // IMPORTANT: an index says that the segment is whole, whatever happens.
    writer::sync_applied(log)?;
    replace(
        log.files.as_ref(),
        &path(&log.options.dir, number),
        &bytes,
        false,
    )
}
