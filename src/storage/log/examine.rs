//! Looking at the files of a log that no broker uses: what recovery would say of them if it read everything, and
//! what is wrong with what is beside them. And setting aside what is damaged, so that a start finds nothing wrong.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, FrameHeader, Place};
use super::frames::{Frames, Next};
use super::segment::lsn;
use super::{LogOptions, damage, index, recovery, salt, settled};
use crate::broker::ports::{Lsn, QueueId, RecoveredRun};
use crate::storage::definitions::Stored;
use crate::storage::examine::{Fault, ReadOnly};
use crate::storage::files::{FileLayer, LogFile};
use crate::storage::kinds;
use crate::storage::octets::Salt;

/// What is in a log's folder.
pub(in crate::storage) struct Examined {
    pub(in crate::storage) segments: usize,
    /// Copies that are not done with, in the queues that there are.
    pub(in crate::storage) messages: u64,
    pub(in crate::storage) faults: Vec<Fault>,
    repair: Repair,
}

/// What a repair has to know.
struct Repair {
    salts: salt::Salts,
    /// Where the log ends, if that is not where its last segment ends.
    torn: Option<(u32, u64)>,
    behind: Vec<PathBuf>,
    /// First and next id of the segments that can be read.
    ids: BTreeMap<u32, u64>,
    next_id: u64,
}

/// How the name of what a fault is of ends.
fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

/// Copies by queue, of messages whose ids are in this range.
fn by_queue(runs: &[RecoveredRun], ids: std::ops::Range<u64>) -> HashMap<QueueId, u64> {
    let mut all = HashMap::new();
    for run in runs.iter().filter(|run| ids.contains(&run.first_id.0)) {
        *all.entry(run.target.queue).or_default() += u64::from(run.count);
    }
    all
}

/// Reads the whole log, and says what is wrong with it. `known`: the queues that are defined.
///
/// # Errors
/// The folder cannot be read, or the process has run out of something.
pub(in crate::storage) fn examine(
    dir: &Path,
    files: &ReadOnly,
    stored: Stored,
    known: &dyn Fn(QueueId) -> bool,
) -> io::Result<Examined> {
    let log_dir = dir.join("log");
    // An index would keep its segment from being read.
    let whole = files.without("index");
    let found = recovery::run(&LogOptions::new(dir), &whole, stored)?;
    let mut faults = Vec::new();
    let mut names = files.list(&log_dir)?;
    names.sort();
    let runs = found.copies.runs();
    for hole in &found.damage.holes {
        let Some(number) = damage::number_of(&hole.path) else {
            continue; // Of a file beside a segment: see below.
        };
        let mut fault = Fault::new(&hole.path, "damaged");
        (fault.offset, fault.len) = (Some(hole.offset), Some(hole.len));
        fault.messages = hole.messages;
        let salt = found.salts.of(number);
        let first = faults.iter().all(|f: &Fault| f.path != hole.path);
        let file = files.open_existing(&hole.path)?;
        // What the index says was in the segment, and was not found there.
        if first && let Ok(Some(said)) = index::load(files, dir, number, salt, file.as_ref()) {
            let there = by_queue(runs, said.first_id..said.next_id);
            let mut lost: Vec<_> = by_queue(&said.runs, said.first_id..said.next_id)
                .into_iter()
                .map(|(queue, n)| (queue, n - n.min(there.get(&queue).copied().unwrap_or(0))))
                .filter(|(_, n)| *n > 0)
                .collect();
            lost.sort_unstable();
            fault.by_queue = lost;
        }
        faults.push(fault);
    }
    if found.damage.holes.iter().any(|hole| hole.path == log_dir) {
        let what =
            "empty, although definitions are noted up to a place in it: its messages are lost";
        faults.push(Fault::new(&log_dir, what));
    }
    for aside in &found.damage.set_aside {
        let (path, what) = match names.contains(aside) {
            true => (aside.clone(), "was set aside by a start"),
            false => (
                aside.with_extension(""),
                "cannot be read, or nothing in it checks",
            ),
        };
        if faults.iter().all(|f| f.path != path) {
            faults.push(Fault::new(&path, what));
        }
    }
    for path in &names {
        let number = damage::number_of(&path.with_extension("segment")).unwrap_or(0);
        let segment = files.open_existing(&path.with_extension("segment"));
        let whole = faults
            .iter()
            .all(|f| f.path != path.with_extension("segment"));
        let what = if has_extension(path, "index") && whole {
            let loaded = segment.and_then(|segment| {
                index::load(files, dir, number, found.salts.of(number), segment.as_ref())
            });
            match loaded {
                Ok(Some(_)) => None,
                // One of another version is none; it is told all the same.
                _ => Some("damaged; nothing is lost: the segment says the same"),
            }
        } else if has_extension(path, "settled") && !settled::checks(files, path).unwrap_or(false) {
            Some("damaged: acknowledged messages of this segment may come back")
        } else if has_extension(path, "tmp") && kinds::in_the_way(path).is_some() {
            Some("is no file; nothing is lost")
        } else if *path == salt::path(dir) && found.salt_from != salt::Source::File {
            Some("damaged; nothing is lost: the segments say the same")
        } else {
            None
        };
        if let Some(what) = what
            && faults.iter().all(|f| f.path != *path)
        {
            faults.push(Fault::new(path, what));
        }
    }
    let all = found.segments.by_number.iter();
    let ids = all.map(|(number, s)| (*number, s.next_id)).collect();
    let repair = Repair {
        salts: found.salts,
        torn: found.torn_at,
        behind: found.behind,
        ids,
        next_id: found.next_id,
    };
    let (mut segments, mut messages) = (found.segments, 0);
    found.copies.visit(&mut segments, known, &mut |run| {
        messages += u64::from(run.count);
    });
    Ok(Examined {
        segments: segments.by_number.len(),
        messages,
        faults,
        repair,
    })
}

impl Examined {
    /// Whether the log ends before its last segment does, as after a crash.
    #[cfg(test)]
    pub(super) fn is_torn(&self) -> bool {
        self.repair.torn.is_some()
    }

    /// Sets aside what is damaged: `keep` takes a file away, and whether it stays where it is, too, until another
    /// takes its place. Of a segment a copy of what checks takes its place.
    pub(in crate::storage) fn repair(
        &self,
        dir: &Path,
        files: &dyn FileLayer,
        keep: &mut dyn FnMut(&Path, bool) -> io::Result<()>,
    ) -> io::Result<()> {
        let log_dir = dir.join("log");
        let mut done = Vec::new();
        for fault in &self.faults {
            let path = &fault.path;
            if done.contains(&path) || *path == log_dir {
                continue; // What is not there cannot be set aside.
            }
            done.push(path);
            if has_extension(path, damage::ASIDE) {
                let segment = path.with_extension("");
                if let Some(number) = damage::number_of(&segment)
                    && !self.repair.ids.contains_key(&number)
                {
                    self.put(files, &segment, number, None)?;
                }
                keep(path, false)?;
            } else if let Some(number) = damage::number_of(path) {
                let index = index::path(dir, number);
                if files.open_existing(&index).is_ok() {
                    keep(&index, false)?;
                }
                let readable = self.repair.ids.contains_key(&number);
                let from = readable.then(|| files.open_existing(path)).transpose()?;
                keep(path, true)?;
                self.put(files, path, number, from)?;
                if self.repair.torn.is_some_and(|(torn, _)| torn == number) {
                    // It has an end now.
                    for path in &self.repair.behind {
                        keep(path, false)?;
                    }
                }
            } else {
                keep(path, false)?;
            }
            files.sync_dir(&log_dir)?;
        }
        Ok(())
    }

    /// Puts a segment in its place that has what checks of another file, or nothing.
    fn put(
        &self,
        files: &dyn FileLayer,
        path: &Path,
        number: u32,
        from: Option<Arc<dyn LogFile>>,
    ) -> io::Result<()> {
        let Repair {
            salts, torn, ids, ..
        } = &self.repair;
        let salt = salts.of(number);
        let mut tmp = path.as_os_str().to_owned();
        tmp.push(".tmp");
        let tmp = PathBuf::from(tmp);
        let out = files.open(&tmp)?;
        out.truncate(0)?;
        let (mut to, mut next_id) = (0u32, None);
        if let Some(from) = from {
            let end = match torn {
                Some((torn, at)) if *torn == number => u32::try_from(*at).unwrap_or(u32::MAX),
                _ => u32::MAX,
            };
            let mut frames = Frames::until(number, salt, from, end)?;
            let mut at = 0;
            while let Next::Frame { header, .. } = frames.next(at, Lsn(u64::MAX))? {
                at = u64::from(header.offset) + header.size() as u64;
                next_id = Some(header.first_id + u64::from(header.n_messages));
                let moved = moved(frames.bytes(&header)?, &header, number, salt, to);
                out.write_at(&moved, to.into())?;
                to += moved.len() as u32;
            }
        }
        let is_last = ids.range(number + 1..).next().is_none();
        let before = ids.range(..number).next_back().map(|(_, next)| *next);
        let first_id = match (next_id, is_last) {
            (Some(next), false) => next,
            // What was in it has had ids that must not be used again.
            (_, true) => self.repair.next_id.max(next_id.unwrap_or(0)),
            (None, false) => before.unwrap_or(1),
        };
        let place = Place {
            segment: number,
            salt,
            offset: to,
            watermark: lsn(number, to).0,
            first_id: first_id.max(1),
        };
        let mut end = Vec::new();
        format::encode_seal(&mut end, &place);
        out.write_at(&end, to.into())?;
        out.sync_data()?;
        files.rename(&tmp, path)
    }
}

/// A frame at another place.
fn moved(frame: &[u8], header: &FrameHeader, number: u32, salt: Salt, offset: u32) -> Vec<u8> {
    let place = Place {
        segment: number,
        salt,
        offset,
        watermark: header.watermark,
        first_id: header.first_id,
    };
    let records = frame.get(format::records_at(frame)..).unwrap_or_default();
    let mut out = Vec::with_capacity(frame.len() + format::SALT_LEN);
    format::encode_records(&mut out, records, header.n_messages, &place);
    out
}
