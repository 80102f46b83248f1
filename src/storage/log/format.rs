//! What a segment looks like, byte by byte.
//!
//! A segment is a sequence of frames; one append is one frame, all or nothing. A large one is several
//! frames, one behind the other in one segment, of which each but the last begins by saying how many
//! follow: they count when all of them are there.
//!
//! ```text
//!  0      4      8         12       16          24         32           36
//! +------+------+---------+--------+-----------+----------+------------+---------+
//! | len  | crc  | segment | offset | watermark | first_id | n_messages | records |
//! +------+------+---------+--------+-----------+----------+------------+---------+
//! ```
//!
//! All integers are big-endian. `len` counts the records' bytes; `crc` (CRC-32) covers everything behind
//! it. Segment number and offset tell a frame from one that an earlier use of the file left behind; number
//! and checksum have the log's salt in them (`salt.rs`), which tells a frame from what a client has made up.
//! The first frame of a segment begins with the salt itself.
//! `watermark` is what was durable when the frame was staged: a bad frame below the watermark of any
//! later frame was once good, so it is corruption; otherwise it was never finished, a torn tail. The
//! last frame of a segment that another one follows says so: a segment whose end did not reach the
//! disk is told from one that is whole.
//!
//! Messages have consecutive ids from `first_id`.

use std::ops::Range;

use bytes::BufMut;

use crate::broker::message::{Message, Parts};
use crate::broker::ports::{
    DefinitionChange, DefinitionKind, LoggedPublish, MessageId, QueueId, Records, Target,
};
use crate::protocol::short::ShortBytes;
use crate::storage::octets::{Octets, Salt};

/// Bytes of a frame before its records.
pub(super) const FRAME_HEADER: usize = 36;

const SETTLES: u8 = 1;
const SETTLED_RANGES: u8 = 2;
const DEFINITION: u8 = 3;
const PUBLISH: u8 = 4;
const CLEAN_STOP: u8 = 5;
const SEAL: u8 = 6;
const FOLLOWED: u8 = 7;
const SALT: u8 = 8;

/// See [`super::LogOptions::frame_bytes`].
pub(super) const FRAME_BYTES: usize = 1 << 20;

/// Bytes that an append takes at most in one segment, where offsets have 32 bits. A larger one is several
/// appends.
pub(super) const APPEND_BYTES_MAX: usize = 2 << 30;

/// Bytes of the record that says how many frames follow.
const FOLLOWED_LEN: usize = 5;

/// Bytes of the record that says what salt a segment has.
pub(super) const SALT_LEN: usize = 9;

/// Bytes of a message's record at least.
pub(super) const PUBLISH_BYTES_MIN: u64 = 17;

/// Messages that a segment can hold.
pub(super) const SEGMENT_IDS_MAX: u64 = u32::MAX as u64 / PUBLISH_BYTES_MIN;

/// No log comes near this id.
pub(super) const ID_MAX: u64 = 1 << 62;

/// Bytes of a target in a message's record.
pub(super) const TARGET_BYTES: u64 = TARGET_LEN as u64;
const TARGET_LEN: usize = 19;

/// Bytes of the frame that ends a segment.
pub(super) const SEAL_LEN: usize = FRAME_HEADER + 1;

/// The header of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FrameHeader {
    pub(super) len: u32,
    pub(super) crc: u32,
    /// The segment's number with its salt.
    pub(super) mark: u32,
    pub(super) offset: u32,
    pub(super) watermark: u64,
    pub(super) first_id: u64,
    pub(super) n_messages: u32,
}

impl FrameHeader {
    /// Reads a header; `None` if `bytes` is too short.
    pub(super) fn read(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.get(..FRAME_HEADER)?;
        let u32_at = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        Some(FrameHeader {
            len: u32_at(0),
            crc: u32_at(4),
            mark: u32_at(8),
            offset: u32_at(12),
            watermark: u64_at(16),
            first_id: u64_at(24),
            n_messages: u32_at(32),
        })
    }

    /// Whether a log may hold such a frame, at its place or elsewhere.
    pub(super) fn is_possible(&self) -> bool {
        let end = u64::from(self.offset) + FRAME_HEADER as u64 + u64::from(self.len);
        let n = u64::from(self.n_messages);
        self.len > 0
            && end <= u64::from(u32::MAX)
            && n * PUBLISH_BYTES_MIN <= u64::from(self.len)
            && (1..=ID_MAX).contains(&self.first_id)
    }

    /// Bytes of the whole frame.
    pub(super) fn size(&self) -> usize {
        FRAME_HEADER + self.len as usize
    }

    /// Whether the frame at the start of `bytes` is whole and right.
    pub(super) fn checks(&self, bytes: &[u8], salt: Salt) -> bool {
        bytes
            .get(8..self.size())
            .is_some_and(|covered| salt.hash(covered) == self.crc)
    }

    /// Whether it says that it stands there.
    pub(super) fn is_at(&self, segment: u32, salt: Salt, offset: u32) -> bool {
        self.mark == segment ^ salt.mark && self.offset == offset
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) salt: Salt,
    pub(super) offset: u32,
    pub(super) watermark: u64,
    pub(super) first_id: u64,
}

/// The part of some records that one frame has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Part {
    settles: Range<usize>,
    ranges: Range<usize>,
    definitions: Range<usize>,
    pub(super) publishes: Range<usize>,
    /// Bytes that its frame takes at most.
    pub(super) len: usize,
}

fn settle_len(_: &(QueueId, MessageId)) -> usize {
    16
}

fn range_len(_: &(QueueId, MessageId, MessageId)) -> usize {
    24
}

fn definition_len(d: &DefinitionChange) -> usize {
    11 + d.key.len() + d.value.as_ref().map_or(0, Vec::len)
}

fn publish_len(p: &LoggedPublish) -> usize {
    17 + p.message.contents().len() + p.n_targets as usize * TARGET_LEN
}

/// Bytes of a frame beside its records.
const AROUND: usize = FRAME_HEADER + SALT_LEN + FOLLOWED_LEN + 2 * 5;

impl Part {
    /// All of it.
    pub(super) fn all(records: &Records) -> Part {
        let definitions: usize = records.definitions.iter().map(definition_len).sum();
        let publishes: usize = records.publishes.iter().map(publish_len).sum();
        let settles = records.settles.len() * 16 + records.settled_ranges.len() * 24;
        Part {
            settles: 0..records.settles.len(),
            ranges: 0..records.settled_ranges.len(),
            definitions: 0..records.definitions.len(),
            publishes: 0..records.publishes.len(),
            len: AROUND + settles + definitions + publishes,
        }
    }

    /// A part with what comes after this one, and nothing yet.
    fn after(&self) -> Part {
        Part {
            settles: self.settles.end..self.settles.end,
            ranges: self.ranges.end..self.ranges.end,
            definitions: self.definitions.end..self.definitions.end,
            publishes: self.publishes.end..self.publishes.end,
            len: AROUND,
        }
    }
}

/// Takes items into `part` while it is small, and goes on with new ones in `parts`.
fn take<T>(
    items: &[T],
    len: fn(&T) -> usize,
    range: fn(&mut Part) -> &mut Range<usize>,
    to: &mut Split,
) {
    let Split { part, parts, most } = to;
    for item in items {
        let more = len(item);
        if part.len > AROUND && part.len + more > *most {
            let next = part.after();
            parts.push(std::mem::replace(part, next));
        }
        part.len += more;
        range(part).end += 1;
    }
}

/// The frames that some records are to be.
struct Split {
    parts: Vec<Part>,
    /// The one after them, which is not full.
    part: Part,
    most: usize,
}

/// Records in as many frames as they should have: each as large as this at most, or with one record.
pub(super) fn parts(records: &Records, most: usize) -> Vec<Part> {
    let mut to = Split {
        parts: Vec::new(),
        part: Part::default().after(),
        most,
    };
    let to_all = &mut to;
    take(&records.settles, settle_len, |p| &mut p.settles, to_all);
    take(
        &records.settled_ranges,
        range_len,
        |p| &mut p.ranges,
        to_all,
    );
    take(
        &records.definitions,
        definition_len,
        |p| &mut p.definitions,
        to_all,
    );
    take(
        &records.publishes,
        publish_len,
        |p| &mut p.publishes,
        to_all,
    );
    to.parts.push(to.part);
    to.parts
}

/// Starts a frame; returns where it starts in `out`.
fn begin(out: &mut Vec<u8>, place: &Place, n_messages: u32) -> usize {
    let start = out.len();
    out.put_u64(0);
    out.put_u32(place.segment ^ place.salt.mark);
    out.put_u32(place.offset);
    out.put_u64(place.watermark);
    out.put_u64(place.first_id);
    out.put_u32(n_messages);
    if place.offset == 0 && place.salt != Salt::NONE {
        out.put_u8(SALT);
        out.put_u32(place.salt.mark);
        out.put_u32(place.salt.crc);
    }
    start
}

fn end(out: &mut [u8], start: usize, place: &Place) {
    let len = count(out.len() - start - FRAME_HEADER);
    let crc = place.salt.hash(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
}

/// Where the records of a frame begin, behind the salt that the first one of a segment says.
pub(super) fn records_at(frame: &[u8]) -> usize {
    FRAME_HEADER + salt_in(frame).map_or(0, |_| SALT_LEN)
}

/// Appends a frame with the records of another one.
pub(super) fn encode_records(out: &mut Vec<u8>, records: &[u8], n_messages: u32, place: &Place) {
    let start = begin(out, place, n_messages);
    out.put_slice(records);
    end(out, start, place);
}

fn put_pairs(out: &mut Vec<u8>, kind: u8, pairs: &[(QueueId, MessageId)]) {
    out.put_u8(kind);
    out.put_u32(count(pairs.len()));
    for (queue, id) in pairs {
        out.put_u64(queue.0);
        out.put_u64(id.0);
    }
}

/// Appends the frame of a part of these records, which so many frames follow.
pub(super) fn encode(
    out: &mut Vec<u8>,
    records: &Records,
    part: &Part,
    followed_by: usize,
    place: &Place,
) {
    let start = begin(out, place, count(part.publishes.len()));
    if followed_by > 0 {
        out.put_u8(FOLLOWED);
        out.put_u32(count(followed_by));
    }
    if !part.settles.is_empty() {
        put_pairs(out, SETTLES, &records.settles[part.settles.clone()]);
    }
    if !part.ranges.is_empty() {
        out.put_u8(SETTLED_RANGES);
        out.put_u32(count(part.ranges.len()));
        for (queue, first, last) in &records.settled_ranges[part.ranges.clone()] {
            out.put_u64(queue.0);
            out.put_u64(first.0);
            out.put_u64(last.0);
        }
    }
    for change in &records.definitions[part.definitions.clone()] {
        out.put_u8(DEFINITION);
        out.put_u8(change.kind.number());
        out.put_u32(count(change.key.len()));
        out.put_slice(&change.key);
        out.put_u8(u8::from(change.value.is_some()));
        if let Some(value) = &change.value {
            out.put_u32(count(value.len()));
            out.put_slice(value);
        }
    }
    for p in &records.publishes[part.publishes.clone()] {
        let first = p.first_target as usize;
        let targets = &records.targets[first..first + p.n_targets as usize];
        put_publish(out, &p.message, p.transient, targets);
    }
    end(out, start, place);
}

/// Lengths and counts have 32 bits here. No append is as large as 4 GiB, and nothing in one has more
/// items than bytes.
fn count(n: usize) -> u32 {
    debug_assert!(u32::try_from(n).is_ok(), "{n}");
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Appends a target.
pub(super) fn put_target(out: &mut Vec<u8>, t: &Target) {
    out.put_u64(t.queue.0);
    out.put_u64(t.expires_at);
    out.put_u8(t.priority);
    out.put_u16(t.delivery_count);
}

fn put_publish(out: &mut Vec<u8>, m: &Message, transient: bool, targets: &[Target]) {
    out.put_u8(PUBLISH);
    out.put_u8(u8::from(transient));
    out.put_u32(count(targets.len()));
    for t in targets {
        put_target(out, t);
    }
    out.put_u8(m.flags());
    out.put_u8(m.exchange().len_octet());
    out.put_u8(m.routing_key().len_octet());
    out.put_u32(count(m.properties().len()));
    out.put_u32(m.body_len());
    out.put_slice(m.contents());
}

/// Appends a frame with one message, as compaction writes it.
pub(super) fn encode_one(out: &mut Vec<u8>, message: &[u8], place: &Place) {
    let start = begin(out, place, 1);
    out.put_slice(message);
    end(out, start, place);
}

/// Appends a frame that says the log was closed in order, with the copies that were delivered.
pub(super) fn encode_clean_stop(
    out: &mut Vec<u8>,
    redelivered: &[(QueueId, MessageId)],
    place: &Place,
) {
    let start = begin(out, place, 0);
    put_pairs(out, CLEAN_STOP, redelivered);
    end(out, start, place);
}

/// Appends a frame that says nothing but that it is there.
pub(super) fn encode_mark(out: &mut Vec<u8>, place: &Place) {
    let start = begin(out, place, 0);
    put_pairs(out, SETTLES, &[]);
    end(out, start, place);
}

/// Appends the frame that ends a segment that another one follows.
pub(super) fn encode_seal(out: &mut Vec<u8>, place: &Place) {
    let start = begin(out, place, 0);
    out.put_u8(SEAL);
    end(out, start, place);
}

/// One record of a frame.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Settle(QueueId, MessageId),
    SettledRange(QueueId, MessageId, MessageId),
    Definition(DefinitionChange),
    Publish(PublishRecord<'a>),
    CleanStop(Vec<(QueueId, MessageId)>),
    Seal,
}

/// A message in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublishRecord<'a> {
    pub(super) id: MessageId,
    pub(super) transient: bool,
    targets: &'a [u8],
    pub(super) body_len: u32,
    flags: u8,
    exchange_len: u8,
    routing_key_len: u8,
    properties_len: u32,
    contents: &'a [u8],
}

impl PublishRecord<'_> {
    pub(super) fn n_targets(&self) -> usize {
        self.targets.len() / TARGET_LEN
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        self.targets.chunks_exact(TARGET_LEN).map(|t| {
            let mut r = Octets(t);
            Target {
                queue: QueueId(r.u64().unwrap_or(0)),
                expires_at: r.u64().unwrap_or(0),
                priority: r.u8().unwrap_or(0),
                delivery_count: r.u16().unwrap_or(0),
            }
        })
    }

    /// The message itself.
    pub(super) fn message(&self) -> Option<Message> {
        let (exchange, rest) = self.contents.split_at_checked(self.exchange_len.into())?;
        let (routing_key, rest) = rest.split_at_checked(self.routing_key_len.into())?;
        let (properties, body) = rest.split_at_checked(self.properties_len as usize)?;
        let parts = Parts {
            exchange: ShortBytes::cut(exchange),
            routing_key: ShortBytes::cut(routing_key),
            properties,
            flags: self.flags,
        };
        Some(Message::uncounted(&parts, body))
    }

    /// The record again, with these targets only.
    pub(super) fn rewrite(&self, targets: &[Target]) -> Option<Vec<u8>> {
        let message = self.message()?;
        let mut out = Vec::new();
        put_publish(&mut out, &message, self.transient, targets);
        Some(out)
    }
}

/// The salt that the start of a frame says, which is a segment's first.
pub(super) fn salt_in(frame: &[u8]) -> Option<Salt> {
    let mut r = Octets(frame.get(FRAME_HEADER..)?);
    let said = r.u8()? == SALT;
    let salt = r.salt()?;
    said.then_some(salt)
}

/// How many frames of the same append follow a frame.
pub(super) fn followed_by(frame: &[u8]) -> u32 {
    let mut r = Octets(frame.get(records_at(frame)..).unwrap_or_default());
    match r.u8() {
        Some(FOLLOWED) => r.u32().unwrap_or(0),
        _ => 0,
    }
}

/// Visits the records of a frame that checked. False if they cannot be understood all the same.
pub(super) fn decode<'a>(
    frame: &'a [u8],
    header: &FrameHeader,
    mut each: impl FnMut(Record<'a>),
) -> bool {
    let Some(records) = frame.get(FRAME_HEADER..header.size()) else {
        return false;
    };
    let mut r = Octets(records);
    let mut next_id = header.first_id;
    let end_id = header.first_id + u64::from(header.n_messages);
    while !r.0.is_empty() {
        if decode_one(&mut r, &mut next_id, end_id, &mut each).is_none() {
            return false;
        }
    }
    next_id == end_id
}

fn decode_one<'a>(
    r: &mut Octets<'a>,
    next_id: &mut u64,
    end_id: u64,
    each: &mut impl FnMut(Record<'a>),
) -> Option<()> {
    match r.u8()? {
        SETTLES => {
            for _ in 0..r.u32()? {
                each(Record::Settle(QueueId(r.u64()?), MessageId(r.u64()?)));
            }
        }
        SETTLED_RANGES => {
            for _ in 0..r.u32()? {
                each(Record::SettledRange(
                    QueueId(r.u64()?),
                    MessageId(r.u64()?),
                    MessageId(r.u64()?),
                ));
            }
        }
        DEFINITION => {
            let kind = DefinitionKind::of(r.u8()?);
            let n = r.u32()? as usize;
            let key = r.take(n)?.to_vec();
            let value = match r.u8()? {
                0 => None,
                _ => {
                    let n = r.u32()? as usize;
                    Some(r.take(n)?.to_vec())
                }
            };
            each(Record::Definition(DefinitionChange { kind, key, value }));
        }
        PUBLISH if *next_id < end_id => {
            let transient = r.u8()? != 0;
            let n = r.u32()? as usize;
            let targets = r.take(n.checked_mul(TARGET_LEN)?)?;
            let (flags, exchange_len, routing_key_len) = (r.u8()?, r.u8()?, r.u8()?);
            let (properties_len, body_len) = (r.u32()?, r.u32()?);
            let n = usize::from(exchange_len) + usize::from(routing_key_len);
            let contents = r.take(n + properties_len as usize + body_len as usize)?;
            each(Record::Publish(PublishRecord {
                id: MessageId(*next_id),
                transient,
                targets,
                body_len,
                flags,
                exchange_len,
                routing_key_len,
                properties_len,
                contents,
            }));
            *next_id += 1;
        }
        CLEAN_STOP => {
            let n = r.u32()?;
            let mut pairs = Vec::new();
            for _ in 0..n {
                pairs.push((QueueId(r.u64()?), MessageId(r.u64()?)));
            }
            each(Record::CleanStop(pairs));
        }
        SEAL => each(Record::Seal),
        FOLLOWED => drop(r.u32()?),
        SALT => drop(r.u64()?),
        _ => return None,
    }
    Some(())
}
