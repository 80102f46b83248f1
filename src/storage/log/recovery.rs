//! Reading the log at start: what is live, what the definitions are, what is broken.
//!
//! Segments are read in order. A frame that does not check is *corrupt* if something later says it
//! had been durable: it is reported and passed over. Otherwise the log ends there: that is the torn
//! tail of the last writes before a crash. It is cut off, and so are the segments behind it, of which
//! the disk may have got more: what comes back is always what was appended first.
//!
//! Every segment that stays ends with a seal afterwards, so that the next recovery, which may know
//! less of what had been durable, does not take its end for the end of the log.

use std::io;
use std::path::PathBuf;

use super::LogOptions;
use super::format::{self, FRAME_HEADER, FrameHeader, Place, PublishRecord, Record};
use super::reclaim;
use super::segment::{Segment, Segments, lsn};
use crate::broker::ports::{Definition, DefinitionChange, Lsn, MessageId, QueueId, RecoveredRun};
use crate::storage::definitions::{Stored, apply, list};
use crate::storage::files::{FileLayer, LogFile};

/// What recovery found.
pub(super) struct Found {
    pub(super) segments: Segments,
    pub(super) last_segment: u32,
    pub(super) next_id: u64,
    pub(super) definitions: Vec<Definition>,
    /// Definition changes that the store does not have yet.
    pub(super) replayed: Vec<(Lsn, DefinitionChange)>,
    pub(super) copies: Copies,
}

/// Copies that were published, by run; which of them are live is known once all segments are read.
#[derive(Default)]
pub(super) struct Copies {
    runs: Vec<RecoveredRun>,
    /// After a clean stop: the only copies that had been delivered.
    redelivered: Option<Vec<(QueueId, MessageId)>>,
}

impl Copies {
    fn add(&mut self, p: &PublishRecord<'_>) {
        let n = p.n_targets();
        for target in p.targets() {
            // The same target of the message before, if this is one more of the same.
            let at = self.runs.len().checked_sub(n);
            if let Some(run) = at.and_then(|at| self.runs.get_mut(at))
                && run.target == target
                && run.first_id.0 + u64::from(run.count) == p.id.0
                && run.body_len == p.body_len
            {
                run.count += 1;
                self.runs.rotate_to_back(at.unwrap_or(0));
                continue;
            }
            let (body_len, first_id) = (p.body_len, p.id);
            self.runs.push(RecoveredRun {
                target,
                first_id,
                count: 1,
                body_len,
                redelivered: false,
            });
        }
    }

    /// Whether there are any, and the last life ended in order.
    pub(super) fn follow_a_clean_stop(&self) -> bool {
        self.redelivered.is_some() && !self.runs.is_empty()
    }

    pub(super) fn visit(
        mut self,
        staging: &mut super::Staging,
        known: &dyn Fn(QueueId) -> bool,
        each: &mut dyn FnMut(RecoveredRun),
    ) {
        let crashed = self.redelivered.is_none();
        let mut redelivered = self.redelivered.take().unwrap_or_default();
        redelivered.sort_unstable();
        self.runs.sort_by_key(|run| run.first_id);
        for run in self.runs {
            let queue = run.target.queue;
            let known = known(queue);
            let mut pending: Option<RecoveredRun> = None;
            for id in run.first_id.0..run.first_id.0 + u64::from(run.count) {
                let of = staging.segments.of(MessageId(id));
                let is_live = of.is_some_and(|(_, s)| !s.is_settled(queue, id));
                if is_live && !known {
                    staging
                        .segments
                        .settle(queue, MessageId(id), Lsn::default());
                }
                if !is_live || !known {
                    if let Some(run) = pending.take() {
                        each(run);
                    }
                    continue;
                }
                let again = crashed || redelivered.binary_search(&(queue, MessageId(id))).is_ok();
                match &mut pending {
                    Some(p) if p.redelivered == again => p.count += 1,
                    _ => {
                        let next = RecoveredRun {
                            first_id: MessageId(id),
                            count: 1,
                            redelivered: again,
                            ..run
                        };
                        if let Some(run) = pending.replace(next) {
                            each(run);
                        }
                    }
                }
            }
            if let Some(run) = pending {
                each(run);
            }
        }
    }
}

trait RotateToBack {
    fn rotate_to_back(&mut self, at: usize);
}

impl RotateToBack for Vec<RecoveredRun> {
    /// Moves one run to the end, so that the runs of one message's targets stay together, in order.
    fn rotate_to_back(&mut self, at: usize) {
        if at + 1 < self.len() {
            self[at..].rotate_left(1);
        }
    }
}

struct Recovery<'a> {
    options: &'a LogOptions,
    files: &'a dyn FileLayer,
    stored: Stored,
    found: Found,
    changes: Vec<(Lsn, DefinitionChange)>,
    /// Everything before this was durable.
    proved: Lsn,
    /// The log ended in this segment: those behind it go, and then it is sealed.
    torn: Option<Torn>,
    /// Files of segments behind the end.
    behind: Vec<PathBuf>,
}

/// The segment in which the log ended.
struct Torn {
    number: u32,
    path: PathBuf,
}

/// The number of a segment by its file's name.
fn number_of(path: &std::path::Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".segment")?.parse().ok()
}

pub(super) fn run(
    options: &LogOptions,
    files: &dyn FileLayer,
    stored: Stored,
) -> io::Result<Found> {
    let dir = options.dir.join("log");
    let mut paths: Vec<(u32, PathBuf)> = Vec::new();
    for path in files.list(&dir)? {
        match number_of(&path) {
            Some(number) => paths.push((number, path)),
            None if path.extension().is_some_and(|e| e == "tmp") => files.remove(&path)?,
            None => {}
        }
    }
    paths.sort_unstable();
    for path in files.list(&dir)? {
        // Notes about a segment that is gone.
        let segment = path.with_extension("segment");
        if path.extension().is_some_and(|e| e == "settled")
            && !paths.iter().any(|(_, p)| *p == segment)
        {
            files.remove(&path)?;
        }
    }
    let found = Found {
        segments: Segments::default(),
        last_segment: (stored.applied.0 >> 32) as u32,
        next_id: stored.next_id.max(1),
        definitions: Vec::new(),
        replayed: Vec::new(),
        copies: Copies::default(),
    };
    let mut recovery = Recovery {
        options,
        files,
        proved: stored.applied,
        stored,
        found,
        changes: Vec::new(),
        torn: None,
        behind: Vec::new(),
    };
    for (number, path) in paths.iter().rev() {
        let bytes = read_file(files, path)?;
        if let Some(watermark) = last_watermark(&bytes, *number) {
            recovery.proved = recovery.proved.max(watermark);
            break;
        }
    }
    for (number, path) in &paths {
        recovery.segment(*number, path)?;
    }
    recovery.finish()
}

impl Recovery<'_> {
    fn segment(&mut self, number: u32, path: &std::path::Path) -> io::Result<()> {
        if self.torn.is_some() {
            tracing::warn!(
                "{}: dropped: the last writes before it were not finished",
                path.display()
            );
            self.found.last_segment = self.found.last_segment.max(number);
            self.behind.push(path.to_path_buf());
            return Ok(());
        }
        let file = self.files.open(path)?;
        let bytes = read_file(self.files, path)?;
        let mut segment: Option<Segment> = None;
        let mut at = 0;
        let mut ended = false;
        while let Some((header, skipped)) = next_frame(&bytes, at, number, self.proved) {
            if skipped > 0 {
                tracing::error!(
                    "{}: checksum mismatch at byte {at}, passing over {skipped} bytes; what was in them is lost",
                    path.display()
                );
                at += skipped;
            }
            let frame = &bytes[at..at + header.size()];
            self.found.copies.redelivered = None;
            ended = false;
            let segment =
                segment.get_or_insert_with(|| Segment::new(Some(file.clone()), header.first_id));
            let mut settles = Vec::new();
            segment.note_frame(header.first_id, at as u32);
            let position = lsn(number, (at + header.size()) as u32);
            let understood = format::decode(frame, &header, |record| match record {
                Record::Publish(p) if p.transient => segment.note_message(p.id.0, 0),
                Record::Publish(p) => {
                    segment.note_message(p.id.0, p.n_targets() as u32);
                    self.found.copies.add(&p);
                }
                Record::Settle(queue, id) => settles.push((queue, id, id)),
                Record::SettledRange(queue, first, last) => settles.push((queue, first, last)),
                Record::Definition(change) => {
                    segment.definitions_to = position;
                    self.changes.push((position, change));
                }
                Record::CleanStop(copies) => {
                    ended = true;
                    self.found.copies.redelivered = Some(copies);
                }
                Record::Seal => ended = true,
            });
            if !understood {
                tracing::error!(
                    "{}: records at byte {at} that this version does not know",
                    path.display()
                );
            }
            self.found.next_id = self
                .found
                .next_id
                .max(header.first_id + u64::from(header.n_messages));
            at += header.size();
            segment.len = at as u32;
            segment.skip_to(header.first_id);
            for (queue, first, last) in settles {
                for id in first.0..=last.0 {
                    if id >= segment.first_id && id < segment.next_id {
                        segment.settle(queue, id);
                    } else {
                        self.found
                            .segments
                            .settle(queue, MessageId(id), Lsn::default());
                    }
                }
            }
        }
        self.found.last_segment = self.found.last_segment.max(number);
        let position = lsn(number, at as u32);
        let torn = !ended && position >= self.proved;
        let rest = bytes[at..].iter().any(|b| *b != 0);
        if rest && torn {
            tracing::warn!(
                "{}: cut at byte {at}: the last write was not finished",
                path.display()
            );
        } else if rest {
            tracing::error!(
                "{}: checksum mismatch at byte {at}, up to the end; what was in it is lost",
                path.display()
            );
        }
        if torn {
            self.torn = Some(Torn {
                number,
                path: path.to_path_buf(),
            });
        }
        let Some(mut segment) = segment else {
            // Prepared and never used, or nothing of it survived.
            return if torn {
                Ok(())
            } else {
                self.files.remove(path)
            };
        };
        if at < bytes.len() {
            file.truncate(at as u64)?;
        }
        if !ended && !torn {
            // Its end was damaged.
            segment.len = seal(file.as_ref(), number, segment.len, segment.next_id)?;
        }
        if position >= self.proved || !ended {
            // What was read may be in the page cache only; from now on it counts as durable.
            file.sync_data()?;
        }
        segment.sealed = true;
        reclaim::load_settled(self.files, &self.options.dir, number, &mut segment)?;
        self.found.segments.insert(number, segment);
        Ok(())
    }

    /// Makes the end of the log where it was torn the end for good. The order matters: until the
    /// segments behind it are gone for certain, its missing seal is what keeps them from being read.
    fn cut(&mut self) -> io::Result<()> {
        let Some(torn) = self.torn.take() else {
            return Ok(());
        };
        let dir = self.options.dir.join("log");
        for path in std::mem::take(&mut self.behind) {
            self.files.remove(&path)?;
        }
        self.files.sync_dir(&dir)?;
        let Some(segment) = self.found.segments.by_number.get_mut(&torn.number) else {
            // Nothing of it survived.
            self.files.remove(&torn.path)?;
            return self.files.sync_dir(&dir);
        };
        let file = self.files.open(&torn.path)?;
        segment.len = seal(file.as_ref(), torn.number, segment.len, segment.next_id)?;
        file.sync_data()
    }

    fn finish(mut self) -> io::Result<Found> {
        self.cut()?;
        for (position, change) in self.changes {
            if position > self.stored.applied {
                self.found.replayed.push((position, change.clone()));
                apply(&mut self.stored, change);
            }
        }
        self.found.definitions = list(&self.stored);
        Ok(self.found)
    }
}

/// Ends a segment; returns its new length.
fn seal(file: &dyn LogFile, number: u32, len: u32, next_id: u64) -> io::Result<u32> {
    let place = Place {
        segment: number,
        offset: len,
        // Everything before it was synced, or is with it.
        watermark: lsn(number, len).0,
        first_id: next_id,
    };
    let mut bytes = Vec::with_capacity(format::SEAL_LEN);
    format::encode_seal(&mut bytes, &place);
    file.write_at(&bytes, u64::from(len))?;
    Ok(len + bytes.len() as u32)
}

fn read_file(files: &dyn FileLayer, path: &std::path::Path) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// The frame at `at`, if it is whole and belongs there.
fn frame_at(bytes: &[u8], at: usize, segment: u32) -> Option<FrameHeader> {
    let header = FrameHeader::read(bytes.get(at..)?)?;
    let fits = header.segment == segment && header.offset as usize == at && header.len > 0;
    (fits && header.checks(&bytes[at..])).then_some(header)
}

/// What the last good frame of a segment says was durable.
fn last_watermark(bytes: &[u8], segment: u32) -> Option<Lsn> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..).and_then(FrameHeader::read) {
        if header.segment != segment || header.offset as usize != at || header.len == 0 {
            break;
        }
        frames.push(at);
        at += header.size();
    }
    let last = frames
        .into_iter()
        .rev()
        .find_map(|at| frame_at(bytes, at, segment));
    last.map(|header| Lsn(header.watermark))
}

/// The next good frame at or behind `at`, and how many bytes stand before it that were good once.
/// Everything before `proved` was.
fn next_frame(bytes: &[u8], at: usize, segment: u32, proved: Lsn) -> Option<(FrameHeader, usize)> {
    if let Some(header) = frame_at(bytes, at, segment) {
        return Some((header, 0));
    }
    let bad = lsn(segment, at as u32);
    let mark = segment.to_be_bytes();
    let mut from = at + 1;
    while from + FRAME_HEADER <= bytes.len() {
        let next = bytes[from + 8..].windows(4).position(|w| w == mark)?;
        from += next;
        if let Some(header) = frame_at(bytes, from, segment) {
            let was_durable = proved > bad || Lsn(header.watermark) > bad;
            return was_durable.then_some((header, from - at));
        }
        from += 1;
    }
    None
}
