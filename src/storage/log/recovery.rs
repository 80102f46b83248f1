//! Reading the log at start: what is live, what the definitions are, what is broken.
//!
//! Segments are read in order. A frame that does not check is *corrupt* if something later says it
//! had been durable: it is reported and passed over. Otherwise the log ends there: that is the torn
//! tail of the last writes before a crash. It is cut off, and so are the segments behind it, of which
//! the disk may have got more: what comes back is always what was appended first.
//!
//! Every segment that stays ends with a seal afterwards, so that the next recovery, which may know
//! less of what had been durable, does not take its end for the end of the log.
//!
//! A sealed segment that has an index is not read at all: what is corrupt in it is found, and reported,
//! when it is needed.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, Place};
use super::frames::{Frames, Next};
use super::pending::Durable;
use super::segment::{Index, Segments, lsn};
use super::summary::{Settled, Summary};
use super::{LogOptions, index, settled};
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
            let last = run.first_id.0 + u64::from(run.count) - 1;
            if !known(queue) {
                let first = run.first_id.0;
                let gone = Settled { queue, first, last };
                staging.segments.apply(&Durable::recovered(gone));
                continue;
            }
            let Some((_, segment)) = staging.segments.of(run.first_id) else {
                continue;
            };
            let mut pending: Option<RecoveredRun> = None;
            for id in run.first_id.0..=last {
                if segment.is_settled(queue, id) {
                    pending.take().into_iter().for_each(&mut *each);
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
                        pending.replace(next).into_iter().for_each(&mut *each);
                    }
                }
            }
            pending.into_iter().for_each(&mut *each);
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
    /// Indexes, and notes of what is settled.
    hints: HashSet<PathBuf>,
}

/// The segment in which the log ended.
struct Torn {
    number: u32,
    path: PathBuf,
}

/// The number of a segment by its file's name.
fn number_of(path: &Path) -> Option<u32> {
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
    let mut hints = HashSet::new();
    for path in files.list(&dir)? {
        match path.extension().and_then(|e| e.to_str()) {
            Some("segment") => paths.extend(number_of(&path).map(|number| (number, path))),
            Some("settled" | "index") => drop(hints.insert(path)),
            Some("tmp") => files.remove(&path)?,
            _ => {}
        }
    }
    paths.sort_unstable();
    let segments: HashSet<&PathBuf> = paths.iter().map(|(_, path)| path).collect();
    hints.retain(|hint| {
        // One that is left behind when its segment goes.
        segments.contains(&hint.with_extension("segment")) || files.remove(hint).is_err()
    });
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
        hints,
    };
    recovery.prove(&paths)?;
    for (number, path) in &paths {
        recovery.segment(*number, path)?;
    }
    recovery.finish()
}

impl Recovery<'_> {
    /// Finds out what had been durable: what the last frame that checks says, and everything that has
    /// an index.
    fn prove(&mut self, paths: &[(u32, PathBuf)]) -> io::Result<()> {
        let mut said = false;
        for (number, path) in paths.iter().rev() {
            let file = self.files.open(path)?;
            if let Some(summary) = self.index(*number, file.as_ref())? {
                self.proved = self.proved.max(lsn(*number, summary.len));
                return Ok(());
            }
            if !said {
                let watermark = Frames::of(*number, file)?.highest_watermark(0)?;
                said = watermark.is_some();
                self.proved = self.proved.max(watermark.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn has(&self, hint: &Path) -> bool {
        self.hints.contains(hint)
    }

    fn index(&self, number: u32, file: &dyn LogFile) -> io::Result<Option<Summary>> {
        let dir = &self.options.dir;
        if !self.has(&index::path(dir, number)) {
            return Ok(None);
        }
        index::load(self.files, dir, number, file)
    }

    fn segment(&mut self, number: u32, path: &Path) -> io::Result<()> {
        self.found.last_segment = self.found.last_segment.max(number);
        if self.torn.is_some() {
            tracing::warn!(
                "{}: dropped: the last writes before it were not finished",
                path.display()
            );
            self.behind.push(path.to_path_buf());
            return Ok(());
        }
        let file = self.files.open(path)?;
        let index = self.index(number, file.as_ref())?;
        // The changes of definitions themselves are in the segment only.
        let index = index.filter(|s| s.definitions_to <= self.stored.applied);
        let has_index = index.is_some();
        let summary = match index {
            Some(summary) => summary,
            None => match self.scan(number, path, &file)? {
                Some(summary) => summary,
                None => return Ok(()),
            },
        };
        self.add(summary, file, has_index)
    }

    /// Reads a segment. `None` if there is nothing in it.
    fn scan(
        &mut self,
        number: u32,
        path: &Path,
        file: &Arc<dyn LogFile>,
    ) -> io::Result<Option<Summary>> {
        let mut frames = Frames::of(number, file.clone())?;
        let mut summary = Summary::of(number);
        let mut at = 0;
        let rest = loop {
            let (header, skipped) = match frames.next(at, self.proved)? {
                Next::Frame { header, skipped } => (header, skipped),
                Next::End { rest } => break rest,
            };
            if skipped > 0 {
                tracing::error!(
                    "{}: checksum mismatch at byte {at}, passing over {skipped} bytes; what was in them is lost",
                    path.display()
                );
                at += skipped;
            }
            let understood = summary.add(frames.bytes(&header)?, &header, |position, change| {
                self.changes.push((position, change));
            });
            if !understood {
                tracing::error!(
                    "{}: records at byte {at} that this version does not know",
                    path.display()
                );
            }
            at += header.size() as u64;
        };
        let position = lsn(number, at as u32);
        let torn = !summary.ended && position >= self.proved;
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
        if summary.len == 0 {
            // Prepared and never used, or nothing of it survived.
            if !torn {
                self.files.remove(path)?;
            }
            return Ok(None);
        }
        if at < frames.end {
            file.truncate(at)?;
        }
        if !summary.ended && !torn {
            // Its end was damaged.
            summary.len = seal(file.as_ref(), number, summary.len, summary.next_id)?;
        }
        if position >= self.proved || !summary.ended {
            // What was read may be in the page cache only; from now on it counts as durable.
            file.sync_data()?;
        }
        Ok(Some(summary))
    }

    fn add(
        &mut self,
        mut summary: Summary,
        file: Arc<dyn LogFile>,
        has_index: bool,
    ) -> io::Result<()> {
        let number = summary.number;
        let mut segment = summary.segment(file);
        segment.sealed = true;
        if has_index {
            segment.index = Index::Settled;
        }
        if self.has(&settled::path(&self.options.dir, number)) {
            settled::load(self.files, &self.options.dir, number, &mut segment)?;
        }
        self.found.next_id = self.found.next_id.max(summary.next_id);
        self.found.segments.insert(number, segment);
        for settled in &summary.settled {
            self.found.segments.apply(&Durable::recovered(*settled));
        }
        self.found.copies.redelivered = summary.clean_stop;
        self.found.copies.runs.append(&mut summary.runs);
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
