//! What the frames on the disk say, and so what it costs when a bit of one flips.

use std::path::{Path, PathBuf};

use super::super::*;
use super::disk::{SALT, SimDisk};
use super::model::Cost;
use crate::storage::octets::Salt;

/// A frame that checks.
pub(super) struct Said {
    pub(super) path: PathBuf,
    pub(super) segment: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    watermark: u64,
    /// Frames of the same append that follow.
    followed_by: u32,
    pub(super) cost: Cost,
}

/// A place that was damaged.
pub(super) struct Hit {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    /// A start can know that it had been durable.
    pub(super) proven: bool,
    pub(super) cost: Cost,
}

/// What the frames have.
fn salt() -> Salt {
    let [a, b, c, d, e, f, g, h] = SALT;
    Salt {
        mark: u32::from_be_bytes([a, b, c, d]),
        crc: u32::from_be_bytes([e, f, g, h]),
    }
}

pub(super) fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut all = disk.paths();
    all.retain(|path| has_extension(path, "segment"));
    all
}

/// The frames of a segment that check.
pub(super) fn frames(disk: &SimDisk, path: &Path) -> Vec<Said> {
    let bytes = disk.bytes(path);
    let segment = super::super::super::damage::number_of(path).unwrap_or(0);
    let salt = salt();
    let (mut at, mut all) = (0, Vec::new());
    while let Some(header) = format::FrameHeader::read(&bytes[at..]) {
        let here = header.is_at(segment, salt, at as u32);
        if header.len == 0 || !here || !header.checks(&bytes[at..], salt) {
            at += 1;
            if bytes[at..].iter().all(|b| *b == 0) {
                break;
            }
            continue;
        }
        let end = at + header.size();
        let mut cost = Cost::default();
        format::decode(&bytes[at..end], &header, |record| match record {
            format::Record::Publish(p) => {
                cost.lost.insert(p.id.0);
            }
            format::Record::Settle(queue, id) => {
                cost.back.insert((queue.0, id.0));
            }
            format::Record::SettledRange(queue, first, last) => {
                cost.back.extend((first.0..=last.0).map(|id| (queue.0, id)));
            }
            format::Record::Definition(change) => {
                cost.keys.insert((change.kind, change.key));
            }
            _ => {}
        });
        all.push(Said {
            path: path.to_path_buf(),
            segment,
            start: at,
            end,
            watermark: header.watermark,
            followed_by: format::followed_by(&bytes[at..end]),
            cost,
        });
        at = end;
    }
    all
}

/// Copies that stand in a segment.
fn copies(disk: &SimDisk, path: &Path) -> BTreeSet<(u64, u64)> {
    let bytes = disk.bytes(path);
    let mut all = BTreeSet::new();
    for said in frames(disk, path) {
        let frame = &bytes[said.start..said.end];
        if let Some(header) = format::FrameHeader::read(frame) {
            format::decode(frame, &header, |record| {
                if let format::Record::Publish(p) = record {
                    all.extend(p.targets().map(|t| (t.queue.0, p.id.0)));
                }
            });
        }
    }
    all
}

impl Cost {
    pub(super) fn add(&mut self, other: &Cost) {
        self.lost.extend(&other.lost);
        self.back.extend(&other.back);
        self.keys.extend(other.keys.iter().cloned());
        self.harmed |= other.harmed;
    }
}

/// What it costs when these notes cannot be read: what is settled in the segment beside them.
pub(super) fn of_notes(disk: &SimDisk, path: &Path) -> Cost {
    Cost {
        back: copies(disk, &path.with_extension("segment")),
        ..Cost::default()
    }
}

/// What it costs when all of a segment is gone.
pub(super) fn of_segment(disk: &SimDisk, path: &Path) -> Cost {
    let mut cost = Cost::default();
    frames(disk, path).iter().for_each(|f| cost.add(&f.cost));
    cost
}

/// Flips a bit in one of the frames, mostly in a header.
pub(super) fn flip_frame(disk: &SimDisk, seed: &mut u64) -> Option<Hit> {
    let paths = segments(disk);
    let all: Vec<Said> = paths.iter().flat_map(|p| frames(disk, p)).collect();
    if all.is_empty() {
        return None;
    }
    // Mostly in one of the newest, where most is to be lost.
    let n = all.len();
    let last = all[n - 1].segment;
    let newest = all.iter().position(|f| f.segment + 1 >= last).unwrap_or(0);
    let at = match random(seed) % 4 {
        0 => random(seed) as usize % n,
        _ => newest + random(seed) as usize % (n - newest),
    };
    let hit = &all[at];
    let within = match random(seed) % 3 {
        0 => hit.end - hit.start,
        _ => format::FRAME_HEADER.min(hit.end - hit.start),
    };
    let byte = hit.start + random(seed) as usize % within;
    disk.flip(&hit.path, byte, (random(seed) % 8) as u8);
    let place = lsn(hit.segment, hit.start as u32).0;
    let proven = all
        .iter()
        .filter(|f| f.segment == last || f.segment == hit.segment)
        .filter(|f| (f.segment, f.start) > (hit.segment, hit.start))
        .any(|f| f.watermark > place);
    let mut cost = hit.cost.clone();
    if !proven {
        // It looks like the end of the log, and like that of an append of several frames.
        let is_more = |i: &usize| all[i - 1].followed_by > 0 && all[i - 1].segment == hit.segment;
        let first = (1..=at).rev().find(|i| !is_more(i)).unwrap_or(0);
        all[first..].iter().for_each(|f| cost.add(&f.cost));
    }
    Some(Hit {
        path: hit.path.clone(),
        offset: hit.start as u64,
        proven,
        cost,
    })
}
