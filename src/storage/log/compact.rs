//! Compaction: a segment with few live copies is written anew, under its own number.
//!
//! It is done a piece at a time: checkpoints and the removal of dead segments go on meanwhile, and memory
//! does not depend on the segment's size.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{self, FrameHeader, Place, Record};
use super::frames::Frames;
use super::open::SegmentFile;
use super::segment::{Index, lsn, note_frame};
use super::{Inner, index, reclaim, settled, writer};
use crate::storage::files::{LogFile, tmp};

/// A sealed segment is rewritten when fewer than one in this many of its copies are live.
const REWRITE_BELOW_ONE_IN: u64 = 3;

/// A sealed segment with few live copies, if there is one: the next behind the one whose turn it was last,
/// so that one that cannot be read or written does not keep the others from theirs.
fn sparse(log: &Inner, last: u32) -> Option<u32> {
    let staging = log.lock();
    let all = &staging.segments.by_number;
    let mut from = all
        .range(last.saturating_add(1)..)
        .chain(all.range(..=last));
    let sparse = from.find(|(number, s)| {
        reclaim::is_over(&staging, **number, s)
            && s.live > 0
            && s.file.is_some()
            && s.live * REWRITE_BELOW_ONE_IN < s.copies
            && s.live * 2 <= s.compacted_at
    });
    sparse.map(|(number, _)| *number)
}

/// What the frames say of a segment that is rewritten was durable: all of it, or it would not be. And no more: should
/// nothing be written in this life, the next one uses the number of its segment again.
fn watermark(number: u32) -> u64 {
    lsn(number + 1, 0).0
}

/// Messages of a frame that some queue has a copy of, ascending.
fn live_in(log: &Inner, number: u32, header: &FrameHeader) -> Vec<u64> {
    let staging = log.lock();
    let Some(segment) = staging.segments.by_number.get(&number) else {
        return Vec::new();
    };
    let ids = header.first_id..header.first_id + u64::from(header.n_messages);
    ids.filter(|id| !segment.is_done(*id)).collect()
}

/// A segment being written anew, a piece at a time: memory must not depend on its size.
struct Rewritten {
    file: Arc<dyn LogFile>,
    written: u64,
    bytes: Vec<u8>,
}

impl Rewritten {
    /// Bytes collected before they are written.
    const PIECE_BYTES: usize = 1 << 20;

    fn to(file: Arc<dyn LogFile>) -> io::Result<Rewritten> {
        file.truncate(0)?;
        Ok(Rewritten {
            file,
            written: 0,
            bytes: Vec::new(),
        })
    }

    /// Where the next frame goes.
    fn len(&self) -> io::Result<u32> {
        u32::try_from(self.written + self.bytes.len() as u64)
            .map_err(|_| io::Error::other("a segment would be larger than 4 GiB"))
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.bytes, self.written)?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// A rewrite under way.
pub(super) struct Rewrite {
    number: u32,
    /// What is read, and what was opened of it.
    old: Arc<SegmentFile>,
    file: Arc<dyn LogFile>,
    frames: Frames,
    /// How far it has been read, and its length.
    at: u64,
    len: u64,
    next_id: u64,
    tmp: PathBuf,
    out: Rewritten,
    sparse: Vec<(u64, u32)>,
}

/// What a piece of a rewrite came to.
pub(super) enum Piece {
    More,
    /// All is copied: [`Rewrite::finish`].
    Copied,
    /// The segment is as it was: it is dead by now, or cannot be read.
    GivenUp,
}

impl Rewrite {
    /// Begins with a segment that is worth it, if there is one; `last` is the one whose turn it was.
    pub(super) fn begin(log: &Inner, last: &mut u32) -> io::Result<Option<Rewrite>> {
        let Some(number) = sparse(log, *last) else {
            return Ok(None);
        };
        *last = number;
        let (old, len, next_id) = {
            let staging = log.lock();
            let segment = staging.segments.by_number.get(&number);
            let found = segment.and_then(|s| Some((s.file.clone()?, u64::from(s.len), s.next_id)));
            let Some(found) = found else { return Ok(None) };
            found
        };
        let file = log.open.get(log.files.as_ref(), &old)?;
        let frames = Frames::of(number, log.salts.of(number), file.clone())?;
        let tmp = tmp(&log.segment_path(number));
        let out = log.files.open(&tmp).and_then(Rewritten::to);
        if out.is_err() {
            let _ = log.files.remove(&tmp);
        }
        Ok(Some(Rewrite {
            number,
            old,
            file,
            frames,
            at: 0,
            len,
            next_id,
            out: out?,
            tmp,
            sparse: Vec::new(),
        }))
    }

    /// Reads on until a piece is full.
    pub(super) fn piece(&mut self, log: &Inner) -> io::Result<Piece> {
        let number = self.number;
        if log
            .lock()
            .segments
            .by_number
            .get(&number)
            .is_none_or(|s| s.live == 0)
        {
            return Ok(Piece::GivenUp);
        }
        let began = self.at;
        while self.at < self.len {
            let header = match self.frames.frame(self.at)? {
                Some(header) => self.copy(log, &header)?.then_some(header),
                None => None,
            };
            let Some(header) = header else {
                tracing::error!(
                    "segment {number}: not all can be read at byte {}, left as it is",
                    self.at
                );
                if let Some(s) = log.lock().segments.by_number.get_mut(&number) {
                    s.compacted_at = 0;
                }
                return Ok(Piece::GivenUp);
            };
            self.at += header.size() as u64;
            if self.out.bytes.len() >= Rewritten::PIECE_BYTES {
                self.out.write()?;
                return Ok(Piece::More);
            }
            if self.at - began >= Rewritten::PIECE_BYTES as u64 {
                return Ok(Piece::More);
            }
        }
        Ok(Piece::Copied)
    }

    /// Copies what is live in a frame. False if not all of that can be read.
    fn copy(&mut self, log: &Inner, header: &FrameHeader) -> io::Result<bool> {
        let live = live_in(log, self.number, header);
        let (number, out, sparse) = (self.number, &mut self.out, &mut self.sparse);
        let watermark = watermark(self.number);
        let mut done = Ok(());
        let mut n = 0;
        format::decode(self.frames.bytes(header)?, header, |record| {
            if let Record::Publish(p) = record
                && live.binary_search(&p.id.0).is_ok()
            {
                // With all its targets: settles elsewhere name those that are done with.
                let targets: Vec<_> = p.targets().collect();
                if let Some(record) = p.rewrite(&targets) {
                    match out.len() {
                        Err(e) => done = Err(e),
                        Ok(offset) => {
                            let place = Place {
                                segment: number,
                                salt: log.salts.of(number),
                                offset,
                                watermark,
                                first_id: p.id.0,
                            };
                            note_frame(sparse, p.id.0, place.offset);
                            format::encode_one(&mut out.bytes, &record, &place);
                            n += 1;
                        }
                    }
                }
            }
        });
        done.map(|()| n == live.len())
    }

    /// Puts the new file in place of the old one.
    pub(super) fn finish(&mut self, log: &Inner) -> io::Result<()> {
        let (dir, number) = (log.options.dir.join("log"), self.number);
        let path = log.segment_path(number);
        // IMPORTANT: without it, recovery could take its end for the end of the log.
        let end = Place {
            segment: number,
            salt: log.salts.of(number),
            offset: self.out.len()?,
            watermark: watermark(number),
            first_id: self.next_id,
        };
        format::encode_seal(&mut self.out.bytes, &end);
        self.out.write()?;
        self.out.file.sync_data()?;
        let new_len = self.out.len()?;
        // The settles in it go: neither older segments nor itself must need them.
        settled::save(log, number, &[]).map_err(|(_, e)| e)?;
        writer::sync_applied(log)?;
        // IMPORTANT: an index of what was there before must not be found beside it.
        reclaim::remove_if_there(log, &index::path(&log.options.dir, number))?;
        log.files.sync_dir(&dir)?;
        // IMPORTANT: who knows where something was in it must not open the new one for that. So it is as well if
        // this fails and the new one is there all the same.
        self.old.hold(self.file.clone());
        log.files.rename(&self.tmp, &path)?;
        log.files.sync_dir(&dir)?;
        let new = SegmentFile::held(&path, self.out.file.clone());
        let mut staging = log.lock();
        if let Some(s) = staging.segments.by_number.get_mut(&number) {
            s.file = Some(new.clone());
            s.len = new_len;
            s.sparse = std::mem::take(&mut self.sparse);
            s.copies = s.live;
            s.compacted_at = s.live;
            s.index = Index::Wanted;
        }
        drop(staging);
        log.open.forget(&self.old);
        log.open.release(&new);
        Ok(())
    }

    /// Leaves the segment as it is.
    pub(super) fn give_up(&self, log: &Inner) {
        // What is left behind goes at the next start.
        let _ = log.files.remove(&self.tmp);
    }
}
