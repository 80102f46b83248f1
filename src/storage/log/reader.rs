//! Reading messages back.
//!
//! What is asked for is here, settled, lost, or not to be had now, and only what was read and found
//! damaged is lost: a bad frame costs what it held, and reading goes on at the next good one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::format::{self, Record};
use super::frames::{Frames, Next};
use super::open::SegmentFile;
use super::segment::lsn;
use super::{Inner, Staging, damage};
use crate::broker::ports::{Bell, Found, Lsn, MessageId};
use crate::storage::files::LogFile;
use crate::storage::octets::Salt;

/// What is not written yet is waited for so long: longer than a disk needs that works. One that
/// does not must not keep those who want to read something else.
const WRITTEN_WITHIN: Duration = Duration::from_millis(20);

/// A message that is asked for: its id, and where the answer goes.
type Wanted = (u64, usize);

/// Where to look for the messages of a segment.
struct Place {
    segment: u32,
    salt: Salt,
    file: Arc<SegmentFile>,
    offset: u32,
    /// So far it is written.
    end: u32,
    /// So far it goes.
    len: u32,
}

/// Where the first of `wanted` is, and how many of them are in the same segment. Answers those that
/// need not be read.
fn find(log: &Inner, wanted: &[Wanted], into: &mut [Found]) -> (usize, Option<Place>) {
    let (id, at) = wanted[0];
    let until = Instant::now() + WRITTEN_WITHIN;
    let mut staging = log.lock();
    loop {
        let Some((number, segment)) = staging.segments.of(MessageId(id)) else {
            // It went with its segment: no copy in there was left.
            into[at] = Found::Settled;
            return (1, None);
        };
        let here = wanted.partition_point(|(id, _)| *id < segment.next_id);
        let (mut first, mut last) = (None, id);
        for (id, at) in &wanted[..here] {
            if segment.is_done(*id) {
                into[*at] = Found::Settled;
            } else {
                first = first.or(Some(*id));
                last = *id;
            }
        }
        let Some(first) = first else {
            return (here, None);
        };
        let place = segment.file.as_ref().map(|file| Place {
            segment: number,
            salt: log.salts.of(number),
            file: file.clone(),
            offset: segment.seek(first),
            end: segment.len,
            len: segment.len,
        });
        let written = Lsn(log.written.load(Ordering::Acquire));
        let needed = lsn(number, segment.reach(last));
        let patient = Instant::now() < until && log.stalled.load(Ordering::Relaxed) != written.0;
        match place {
            Some(place) if written >= lsn(number, place.len) => return (here, Some(place)),
            Some(place) if written >= needed || !patient => {
                let end = written.0.saturating_sub(lsn(number, 0).0) as u32;
                return (here, (end > place.offset).then_some(Place { end, ..place }));
            }
            None if !patient || log.failed.load(Ordering::Acquire) => return (here, None),
            _ => staging = wait_for_write(log, staging, until),
        }
        if Instant::now() >= until {
            // Nobody waits again before it has moved.
            log.stalled.store(written.0, Ordering::Relaxed);
        }
    }
}

/// Asks for a write, as if for a sync, and waits for one.
fn wait_for_write<'a>(
    log: &'a Inner,
    mut staging: std::sync::MutexGuard<'a, Staging>,
    until: Instant,
) -> std::sync::MutexGuard<'a, Staging> {
    if staging.waiters.is_empty() {
        let all = lsn(staging.segment, staging.offset);
        staging.waiters.push((all, Arc::new(Silent)));
    }
    staging.n_watching += 1;
    staging.asleep = false;
    log.work.notify_one();
    let left = until.saturating_duration_since(Instant::now());
    let (mut staging, _) = log
        .progress
        .wait_timeout(staging, left)
        .expect(super::UNPOISONED);
    staging.n_watching -= 1;
    staging
}

/// A bell that nobody hears: it only asks for progress.
struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

pub(super) fn read(log: &Inner, ids: &[MessageId], into: &mut Vec<Found>) -> io::Result<()> {
    let base = into.len();
    into.resize(base + ids.len(), Found::Later);
    let places = ids.iter().enumerate().map(|(i, id)| (id.0, base + i));
    let mut order: Vec<Wanted> = places.collect();
    order.sort_unstable();
    let mut wanted = order.as_slice();
    let mut result = Ok(());
    while !wanted.is_empty() {
        let (mut n, mut place) = find(log, wanted, into);
        let mut opened = open(log, place.as_ref());
        if matches!(&opened, Some(Err(e)) if e.kind() == io::ErrorKind::NotFound) {
            // It may have gone, or another file have taken its place, since it was found.
            (n, place) = find(log, wanted, into);
            opened = open(log, place.as_ref());
        }
        let (here, rest) = wanted.split_at(n);
        // Other segments may be on another part of the disk.
        let read = match (&place, opened) {
            (Some(place), Some(Ok(file))) => {
                let damaged = |from, to| log.note_damage(place.segment, from, to);
                read_segment(place, file, here, into, damaged)
            }
            (Some(place), Some(Err(e))) if is_missing(log, place.segment, &e) => {
                log.note_missing(place.segment);
                lose(&mut open_of(here, into).as_slice(), u64::MAX, into);
                Ok(())
            }
            (_, Some(Err(e))) => Err(e),
            _ => Ok(()),
        };
        result = result.and(read);
        wanted = rest;
    }
    result
}

fn open(log: &Inner, place: Option<&Place>) -> Option<io::Result<Arc<dyn LogFile>>> {
    place.map(|place| log.open.get(log.files.as_ref(), &place.file))
}

/// Whether a segment that cannot be opened is not in its folder any more, while others are.
fn is_missing(log: &Inner, number: u32, why: &io::Error) -> bool {
    if why.kind() != io::ErrorKind::NotFound {
        return false;
    }
    let own = log.segment_path(number);
    let there = log.files.list(&log.options.dir.join("log"));
    there.is_ok_and(|there| {
        let is_segment = |path: &PathBuf| damage::number_of(path).is_some();
        !there.contains(&own) && there.iter().any(is_segment)
    })
}

/// What is not known to be settled.
fn open_of(wanted: &[Wanted], into: &[Found]) -> Vec<Wanted> {
    let open = wanted.iter();
    let open = open.filter(|(_, at)| !matches!(into[*at], Found::Settled));
    open.copied().collect()
}

/// Reads on from a place, frame by frame, until all that is wanted was passed. `damaged` is told of
/// what should have been there, from byte to byte.
fn read_segment(
    place: &Place,
    file: Arc<dyn LogFile>,
    wanted: &[Wanted],
    into: &mut [Found],
    mut damaged: impl FnMut(u32, u32),
) -> io::Result<()> {
    let open = open_of(wanted, into);
    let mut wanted = open.as_slice();
    let mut frames = Frames::until(place.segment, place.salt, file, place.end)?;
    let mut offset = place.offset;
    // What is written was whole when it was.
    let proved = Lsn(u64::MAX);
    while !wanted.is_empty()
        && let Next::Frame { header, skipped } = frames.next(offset.into(), proved)?
    {
        if skipped > 0 {
            damaged(offset, header.offset);
        }
        offset = header.offset + header.size() as u32;
        // Ids rise: they would have come before it.
        lose(&mut wanted, header.first_id, into);
        let end_id = header.first_id + u64::from(header.n_messages);
        if wanted.first().is_some_and(|(id, _)| *id < end_id) {
            format::decode(frames.bytes(&header)?, &header, |record| {
                if let Record::Publish(p) = record {
                    lose(&mut wanted, p.id.0, into);
                    while let Some((id, at)) = wanted.first()
                        && *id == p.id.0
                    {
                        into[*at] = p.message().map_or(Found::Lost, Found::Here);
                        wanted = &wanted[1..];
                    }
                }
            });
            if lose(&mut wanted, end_id, into) {
                damaged(header.offset, offset);
            }
        }
    }
    if place.end == place.len && lose(&mut wanted, u64::MAX, into) {
        damaged(offset, place.len);
    }
    Ok(())
}

/// What is wanted below this id was not where it should have been. False if that is nothing.
fn lose(wanted: &mut &[Wanted], below: u64, into: &mut [Found]) -> bool {
    let lost = wanted.partition_point(|(id, _)| *id < below);
    let (lost, rest) = wanted.split_at(lost);
    for (_, at) in lost {
        into[*at] = Found::Lost;
    }
    *wanted = rest;
    !lost.is_empty()
}
