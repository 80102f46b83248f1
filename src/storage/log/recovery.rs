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
//!
//! No file keeps the log from starting: whatever is in one is checked before it is believed, and one
//! that the disk does not give is set aside, under another name, with what beside it says what is
//! settled in it. Its number and its ids are not used again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::damage::{self, Damage, Hole};
use super::format::{self, Place};
use super::frames::{Frames, Next};
use super::open::SegmentFile;
use super::pending::Durable;
use super::progress::{Progress, TOLD_EVERY, Watched};
use super::salt::{self, Salts};
use super::segment::{Index, Segment, Segments, lsn};
use super::summary::{Settled, Summary};
use super::{LogOptions, index, settled};
use crate::broker::ports::{Definition, DefinitionChange, Lsn, MessageId, QueueId, RecoveredRun};
use crate::storage::definitions::{Stored, apply, list};
use crate::storage::files::{FileLayer, LogFile};
use crate::storage::kinds::is_no_file;
use crate::storage::octets::Salt;

/// What recovery found.
pub(super) struct Recovered {
    pub(super) segments: Segments,
    pub(super) last_segment: u32,
    pub(super) next_id: u64,
    /// More than what was read says: segments were set aside.
    pub(super) ids_passed_over: bool,
    pub(super) definitions: Vec<Definition>,
    /// Definition changes that the store does not have yet.
    pub(super) replayed: Vec<(Lsn, DefinitionChange)>,
    pub(super) copies: Copies,
    pub(super) damage: Damage,
    /// The log's salt.
    pub(super) salts: Salts,
    pub(super) salt_from: salt::Source,
    /// The segment in which the log ends, where that was not finished, and how far it goes.
    pub(super) torn_at: Option<(u32, u64)>,
    /// Files of segments behind that.
    pub(super) behind: Vec<PathBuf>,
}

/// Copies that were published, by run; which of them are live is known once all segments are read.
#[derive(Default)]
pub(super) struct Copies {
    runs: Vec<RecoveredRun>,
    /// After a clean stop: the only copies that had been delivered.
    redelivered: Option<Vec<(QueueId, MessageId)>>,
    /// A queue that nobody knows may be in a segment that was set aside.
    keep_unknown: bool,
}

impl Copies {
    /// Whether there are any, and the last life ended in order.
    pub(super) fn follow_a_clean_stop(&self) -> bool {
        self.redelivered.is_some() && !self.runs.is_empty()
    }

    /// As they were published.
    pub(super) fn runs(&self) -> &[RecoveredRun] {
        &self.runs
    }

    pub(super) fn visit(
        mut self,
        segments: &mut Segments,
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
                if self.keep_unknown {
                    continue;
                }
                let first = run.first_id.0;
                let gone = Settled { queue, first, last };
                segments.apply(&Durable::recovered(gone));
                continue;
            }
            let Some((_, segment)) = segments.of(run.first_id) else {
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
    found: Recovered,
    changes: Vec<(Lsn, DefinitionChange)>,
    /// Everything before this was durable.
    proved: Lsn,
    /// The log ended in this segment: those behind it go, and then it is sealed.
    torn: Option<Torn>,
    /// Octets of the segments before each, and how far it is through all of them.
    before: BTreeMap<u32, u64>,
    progress: Arc<Progress>,
    /// Indexes, and notes of what is settled.
    hints: BTreeSet<PathBuf>,
    /// Notes that do not check.
    damaged_notes: Vec<Hole>,
    /// The next id after all that was read.
    expected: Option<u64>,
    /// The end of the segment before is missing, and with it what the last hole says nothing of.
    open_end: bool,
}

/// How often a segment is read that the disk does not give, and how long it is left alone between.
const READ_TRIES: u32 = 3;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A segment as it was read, before anything is done about it.
struct Scanned {
    summary: Summary,
    /// Behind the last good frame.
    at: u64,
    /// What the file has.
    end: u64,
    /// There is something behind it.
    rest: bool,
    /// The log ends here.
    torn: bool,
}

/// How a segment was read.
enum Read {
    Index(Summary),
    Whole(Scanned),
}

/// The segment in which the log ended.
struct Torn {
    number: u32,
    path: PathBuf,
}

pub(super) fn run(
    options: &LogOptions,
    files: &dyn FileLayer,
    stored: Stored,
) -> io::Result<Recovered> {
    let dir = options.dir.join("log");
    let mut paths: Vec<(u32, PathBuf)> = Vec::new();
    let mut aside = Vec::new();
    let mut hints = BTreeSet::new();
    let (mut has_salt, mut in_the_way) = (false, Vec::new());
    let listed = files.list(&dir);
    for path in listed.map_err(damage::of("cannot list", &dir))? {
        match path.extension().and_then(|e| e.to_str()) {
            Some("segment") => match damage::number_of(&path) {
                Some(number) => paths.push((number, path)),
                None => tracing::warn!("{}: not a segment's name, left alone", path.display()),
            },
            Some("settled" | "index") => drop(hints.insert(path)),
            Some("tmp") => match files.remove(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
                    in_the_way.extend(damage::out_of_the_way(files, &path));
                }
                Err(e) => tracing::warn!("{}: cannot be removed: {e}", path.display()),
            },
            Some(damage::ASIDE) => aside.push(path),
            None => has_salt |= path == salt::path(&options.dir),
            _ => {}
        }
    }
    paths.sort_unstable();
    let segments = paths.iter().map(|(_, path)| path.clone());
    let segments: BTreeSet<PathBuf> = segments
        .chain(aside.iter().map(|path| path.with_extension("")))
        .collect();
    let has_segment = |hint: &PathBuf| segments.contains(&hint.with_extension("segment"));
    if !hints.iter().all(has_segment) {
        // Left behind when their segments went, which must be for good first.
        let synced = files.sync_dir(&dir);
        synced.map_err(damage::of("cannot sync", &dir))?;
        hints.retain(|hint| has_segment(hint) || files.remove(hint).is_err());
    }
    let (salts, salt_from) = salt::find(files, &options.dir, &paths)?;
    let found = Recovered {
        segments: Segments::default(),
        last_segment: (stored.applied.0 >> 32) as u32,
        next_id: stored.next_id.max(1),
        ids_passed_over: false,
        definitions: Vec::new(),
        replayed: Vec::new(),
        copies: Copies::default(),
        damage: Damage::default(),
        salts,
        salt_from,
        torn_at: None,
        behind: Vec::new(),
    };
    let (mut before, mut total) = (BTreeMap::new(), 0);
    for (number, path) in &paths {
        before.insert(*number, total);
        let len = files.open_existing(path).and_then(|file| file.len());
        total += len.map_or(0, |len| len.min(u32::MAX.into()));
    }
    let mut recovery = Recovery {
        options,
        files,
        proved: stored.applied,
        // Ids start with one, and what the store has never seen is all there.
        expected: (stored.applied == Lsn::default()).then_some(1),
        stored,
        found,
        changes: Vec::new(),
        torn: None,
        before,
        progress: Progress::new(total, TOLD_EVERY),
        hints,
        damaged_notes: Vec::new(),
        open_end: false,
    };
    recovery.prove(&paths);
    for (number, path) in &paths {
        recovery.segment(*number, path)?;
    }
    for path in aside {
        damage::still_aside(&path);
        recovery.leave_out(&path);
    }
    recovery.found.damage.set_aside.extend(in_the_way);
    if paths.is_empty() && !has_salt && recovery.stored.applied > Lsn::default() {
        recovery.nothing_there(&dir);
    }
    recovery.finish()
}

impl Recovery<'_> {
    /// Finds out what had been durable: the most that a good frame of the last segment says that has
    /// any, and everything that has an index. What cannot be read says nothing here.
    fn prove(&mut self, paths: &[(u32, PathBuf)]) {
        let mut said = false;
        for (number, path) in paths.iter().rev() {
            let Ok(file) = self.watched(*number, path) else {
                continue;
            };
            if let Some(summary) = self.index(*number, file.as_ref()) {
                self.proved = self.proved.max(lsn(*number, summary.len));
                return;
            }
            if !said {
                let frames = Frames::of(*number, self.salt(*number), file);
                let watermark = frames.and_then(|mut frames| frames.highest_watermark(0));
                let watermark = watermark.unwrap_or_default();
                said = watermark.is_some();
                self.proved = self.proved.max(watermark.unwrap_or_default());
            }
        }
    }

    /// A segment whose reads are told of when they take long.
    fn watched(&self, number: u32, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(Watched {
            file: self.files.open_existing(path)?,
            path: path.to_path_buf(),
            before: self.before.get(&number).copied().unwrap_or(0),
            progress: self.progress.clone(),
        }))
    }

    fn salt(&self, number: u32) -> Salt {
        self.found.salts.of(number)
    }

    fn has(&self, hint: &Path) -> bool {
        self.hints.contains(hint)
    }

    fn index(&mut self, number: u32, file: &dyn LogFile) -> Option<Summary> {
        let dir = &self.options.dir;
        let path = index::path(dir, number);
        if !self.has(&path) {
            return None;
        }
        match index::load(self.files, dir, number, self.salt(number), file) {
            Ok(found) => found,
            Err(e) => {
                tracing::warn!(
                    "segment {number}: its index cannot be read ({e}); reading the segment"
                );
                if is_no_file(&e) {
                    let aside = damage::out_of_the_way(self.files, &path);
                    self.found.damage.set_aside.extend(aside);
                    self.hints.remove(&path);
                }
                None
            }
        }
    }

    /// All segments are gone, and what is there whenever a log was: somebody removed it, or another folder is mounted.
    fn nothing_there(&mut self, dir: &Path) {
        tracing::error!(
            "{}: empty, although definitions are noted up to a place in it: the messages that were in it are lost; to \
             have them again, stop the broker, put the files back and start",
            dir.display()
        );
        self.found.damage.holes.push(Hole {
            path: dir.to_path_buf(),
            offset: 0,
            len: 0,
            messages: None,
        });
    }

    fn segment(&mut self, number: u32, path: &Path) -> io::Result<()> {
        self.found.last_segment = self.found.last_segment.max(number);
        if self.torn.is_some() {
            tracing::warn!(
                "{}: dropped: the last writes before it were not finished",
                path.display()
            );
            self.found.behind.push(path.to_path_buf());
            return Ok(());
        }
        let mut tries = 1;
        let (changes, holes) = (self.changes.len(), self.found.damage.holes.len());
        let (expected, open_end) = (self.expected, self.open_end);
        let (file, read) = loop {
            match self.read(number, path) {
                Ok(read) => break read,
                Err(e) if damage::is_of_the_process(&e) => {
                    return Err(damage::told(&format!("cannot read {}", path.display()), &e));
                }
                Err(e) => {
                    self.changes.truncate(changes);
                    self.found.damage.holes.truncate(holes);
                    (self.expected, self.open_end) = (expected, open_end);
                    if tries == READ_TRIES {
                        return self.set_aside(path, &e);
                    }
                }
            }
            tries += 1;
            self.files.pause(READ_AGAIN_AFTER);
        };
        match read {
            Read::Index(summary) => {
                self.goes_on_at(summary.first_id);
                self.expected = Some(summary.next_id);
                self.add(summary, path, true)
            }
            Read::Whole(scanned) => match self.mend(number, path, &file, scanned)? {
                Some(summary) => self.add(summary, path, false),
                None => Ok(()),
            },
        }
    }

    /// What is in a segment; nothing is changed on the disk.
    fn read(&mut self, number: u32, path: &Path) -> io::Result<(Arc<dyn LogFile>, Read)> {
        let file = self.watched(number, path)?;
        let index = self.index(number, file.as_ref());
        // The changes of definitions themselves are in the segment only.
        let index = index.filter(|s| s.definitions_to <= self.stored.applied);
        let read = match index {
            Some(summary) => Read::Index(summary),
            None => Read::Whole(self.scan(number, path, &file)?),
        };
        Ok((file, read))
    }

    /// A segment that the disk does not give stays where the next start does not look for it.
    fn set_aside(&mut self, path: &Path, why: &io::Error) -> io::Result<()> {
        let aside = damage::aside(path);
        let dir = self.options.dir.join("log");
        let renamed = self.files.rename(path, &aside);
        renamed
            .and_then(|()| self.files.sync_dir(&dir))
            .map_err(|e| {
                let what = format!(
                    "cannot read {} ({why}), nor set it aside; to start without it, move it away",
                    path.display()
                );
                damage::told(&what, &e)
            })?;
        tracing::error!(
            "{}: cannot be read or removed ({why}), set aside as {}: {}",
            path.display(),
            aside.display(),
            damage::WAY_OUT
        );
        self.leave_out(&aside);
        Ok(())
    }

    /// Goes on without a file.
    fn leave_out(&mut self, aside: &Path) {
        self.found.damage.set_aside.push(aside.to_path_buf());
        let segment = aside.with_extension("");
        let Some(number) = damage::number_of(&segment) else {
            return; // Not a segment.
        };
        self.found.last_segment = self.found.last_segment.max(number);
        // As many as it can have at most.
        self.found.next_id = self.found.next_id.saturating_add(format::SEGMENT_IDS_MAX);
        self.found.ids_passed_over = true;
        self.found.copies.keep_unknown = true;
        self.expected = None;
    }

    /// Something that was durable is not there any more.
    fn hole(&mut self, path: &Path, offset: u64, len: u64, next_id: Option<u64>) {
        let messages = match (self.expected, next_id) {
            (Some(expected), Some(next)) => Some(next.saturating_sub(expected)),
            _ => None,
        };
        let mut hole = Hole {
            path: path.to_path_buf(),
            offset,
            len,
            messages: None,
        };
        hole.had(messages);
        hole.tell();
        self.found.damage.holes.push(hole);
    }

    /// The next message that is there has this id.
    fn goes_on_at(&mut self, first_id: u64) {
        if std::mem::take(&mut self.open_end)
            && let Some(expected) = self.expected
            && let Some(hole) = self.found.damage.holes.last_mut()
        {
            hole.had(Some(first_id.saturating_sub(expected)));
        }
    }

    /// Reads a segment.
    fn scan(&mut self, number: u32, path: &Path, file: &Arc<dyn LogFile>) -> io::Result<Scanned> {
        let mut frames = Frames::of(number, self.salt(number), file.clone())?;
        let mut summary = Summary::of(number);
        let mut at = 0;
        let rest = loop {
            let (header, skipped) = match frames.next(at, self.proved)? {
                Next::Frame { header, skipped } => (header, skipped),
                Next::End { rest } => break rest,
            };
            // An append of several frames that was not durable must be there as a whole, or it is not.
            if lsn(number, header.offset) >= self.proved && !frames.is_followed(&header)? {
                break true;
            }
            if skipped > 0 {
                self.hole(path, at, skipped, Some(header.first_id));
                at += skipped;
            }
            self.proved = self.proved.max(Lsn(header.watermark));
            self.goes_on_at(header.first_id);
            let understood = summary.add(frames.bytes(&header)?, &header, |position, change| {
                self.changes.push((position, change));
            });
            self.expected = Some(summary.next_id);
            if !understood {
                self.hole(path, at, header.size() as u64, None);
            }
            at += header.size() as u64;
        };
        let end = frames.end;
        let position = lsn(number, at as u32);
        // What has another salt than any that is known is no end that was not finished.
        let unknown = summary.len == 0 && rest && self.found.salt_from == salt::Source::New;
        let torn = !summary.ended && position >= self.proved && !unknown;
        if rest && torn {
            tracing::warn!(
                "{}: cut at byte {at}: the last write was not finished",
                path.display()
            );
        } else if !summary.ended && !torn {
            // Its end was damaged, whatever stands there now.
            self.hole(path, at, end - at, None);
            self.open_end = true;
        }
        Ok(Scanned {
            summary,
            at,
            end,
            rest,
            torn,
        })
    }

    /// Gives a segment the end that it should have. `None` if there is nothing in it.
    fn mend(
        &mut self,
        number: u32,
        path: &Path,
        file: &Arc<dyn LogFile>,
        scanned: Scanned,
    ) -> io::Result<Option<Summary>> {
        let Scanned {
            mut summary,
            at,
            end,
            rest,
            torn,
        } = scanned;
        let position = lsn(number, at as u32);
        if torn {
            self.found.torn_at = Some((number, at));
            self.torn = Some(Torn {
                number,
                path: path.to_path_buf(),
            });
        }
        if summary.len == 0 {
            // Prepared and never used, or nothing of it survived.
            if rest && !torn {
                let why = io::Error::other("nothing in it checks");
                self.set_aside(path, &why)?;
            } else if !torn {
                let removed = self.files.remove(path);
                removed.map_err(damage::of("cannot remove", path))?;
            }
            return Ok(None);
        }
        if at < end
            && let Err(e) = file.truncate(at)
        {
            // Behind a seal nothing is read.
            match summary.ended {
                true => tracing::warn!(
                    "{}: cannot be cut, and keeps room on the disk: {e}",
                    path.display()
                ),
                false => return Err(damage::of("cannot cut", path)(e)),
            }
        }
        if !summary.ended && !torn {
            // Its end was damaged.
            let sealed = seal(
                file.as_ref(),
                number,
                self.salt(number),
                summary.len,
                summary.next_id,
            );
            summary.len = sealed.map_err(damage::of("cannot write the end of", path))?;
        }
        if position >= self.proved || !summary.ended {
            // What was read may be in the page cache only; from now on it counts as durable.
            file.sync_data().map_err(damage::of("cannot sync", path))?;
        }
        Ok(Some(summary))
    }

    fn add(&mut self, mut summary: Summary, path: &Path, has_index: bool) -> io::Result<()> {
        let number = summary.number;
        let mut segment = summary.segment(SegmentFile::closed(path));
        segment.sealed = true;
        if has_index {
            segment.index = Index::Settled;
        }
        if self.has(&settled::path(&self.options.dir, number)) {
            self.with_notes(number, &mut segment)?;
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

    /// Applies the notes of what is settled in a segment, if the disk gives them.
    fn with_notes(&mut self, number: u32, segment: &mut Segment) -> io::Result<()> {
        for tries in 1.. {
            let loaded = settled::load(self.files, &self.options.dir, number, segment);
            let e = match loaded {
                Err(e) => e,
                Ok(damaged) => {
                    let path = settled::path(&self.options.dir, number);
                    self.damaged_notes.extend(damaged.map(|len| Hole {
                        path,
                        offset: 0,
                        len,
                        messages: Some(0),
                    }));
                    break;
                }
            };
            if tries == READ_TRIES || damage::is_of_the_process(&e) {
                return self.without_notes(number, &e);
            }
            self.files.pause(READ_AGAIN_AFTER);
        }
        Ok(())
    }

    /// Goes on without them.
    fn without_notes(&mut self, number: u32, why: &io::Error) -> io::Result<()> {
        let path = settled::path(&self.options.dir, number);
        if damage::is_of_the_process(why) {
            return Err(damage::told(
                &format!("cannot read {}", path.display()),
                why,
            ));
        }
        let aside = damage::aside(&path);
        self.files.rename(&path, &aside).map_err(|e| {
            let what = format!(
                "cannot read {} ({why}), nor set it aside; to start without it, move it away: acknowledged \
                 messages may come back",
                path.display()
            );
            damage::told(&what, &e)
        })?;
        tracing::error!(
            "{}: cannot be read ({why}), set aside as {}: acknowledged messages may come back",
            path.display(),
            aside.display()
        );
        self.found.damage.set_aside.push(aside);
        Ok(())
    }

    /// Makes the end of the log where it was torn the end for good. The order matters: until the
    /// segments behind it are gone for certain, its missing seal is what keeps them from being read.
    fn cut(&mut self) -> io::Result<()> {
        let Some(torn) = self.torn.take() else {
            return Ok(());
        };
        let dir = self.options.dir.join("log");
        for path in std::mem::take(&mut self.found.behind) {
            if let Err(e) = self.files.remove(&path)
                && e.kind() != io::ErrorKind::NotFound
            {
                self.set_aside(&path, &e)?;
            }
            self.found.behind.push(path);
        }
        let synced = self.files.sync_dir(&dir);
        synced.map_err(damage::of("cannot sync", &dir))?;
        let salt = self.salt(torn.number);
        let Some(segment) = self.found.segments.by_number.get_mut(&torn.number) else {
            // Nothing of it survived.
            let removed = self.files.remove(&torn.path);
            removed.map_err(damage::of("cannot remove", &torn.path))?;
            let synced = self.files.sync_dir(&dir);
            return synced.map_err(damage::of("cannot sync", &dir));
        };
        let end = |e| damage::of("cannot write the end of", &torn.path)(e);
        let file = self.files.open_existing(&torn.path).map_err(end)?;
        segment.len = seal(
            file.as_ref(),
            torn.number,
            salt,
            segment.len,
            segment.next_id,
        )
        .map_err(end)?;
        file.sync_data().map_err(end)
    }

    fn finish(mut self) -> io::Result<Recovered> {
        self.cut()?;
        self.found.damage.holes.append(&mut self.damaged_notes);
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
fn seal(file: &dyn LogFile, number: u32, salt: Salt, len: u32, next_id: u64) -> io::Result<u32> {
    let place = Place {
        segment: number,
        salt,
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
