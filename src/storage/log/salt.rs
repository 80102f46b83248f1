//! What makes the frames of a log its own.
//!
//! Behind a damaged frame the next one is looked for, and what is found there may be what a client has sent: a
//! message may have octets in it that look like a frame. So the mark and the checksum of a frame depend on
//! 64 random bits that nobody outside knows. They stand in a file of the log, `salt`, and in the first frame
//! of each segment, where only the log writes: either is enough. Segments of the format's first version have
//! none, and are read all the same.
//!
//! ```text
//! | crc | version | mark | crc's | first segment that has it |
//! ```

use std::io;
use std::path::{Path, PathBuf};

use bytes::BufMut;

use super::damage::{self, is_of_the_process};
use super::format;
use super::frames::Frames;
use crate::storage::files::{FileLayer, replace};
use crate::storage::kinds::is_no_file;
use crate::storage::octets::{Octets, Salt};

/// Of the file's layout.
const VERSION: u8 = 1;

/// Bytes of the file.
const LEN: usize = 17;

/// The salt of a log, and which segments have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Salts {
    pub(super) salt: Salt,
    /// Numbers below have none.
    pub(super) from: u32,
}

impl Salts {
    /// Of a log that has none.
    pub(super) const NONE: Salts = Salts {
        salt: Salt::NONE,
        from: u32::MAX,
    };

    /// What the frames of a segment have.
    pub(super) fn of(&self, segment: u32) -> Salt {
        match segment >= self.from {
            true => self.salt,
            false => Salt::NONE,
        }
    }
}

/// Where it is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    File,
    /// The file is to be made anew.
    Segments,
    /// The same, and nothing has it yet.
    New,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("log").join("salt")
}

pub(super) fn encode(salts: &Salts) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.put_u8(VERSION);
    out.put_u32(salts.salt.mark);
    out.put_u32(salts.salt.crc);
    out.put_u32(salts.from);
    let crc = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Salts> {
    let mut r = Octets(bytes);
    if r.u32()? != crc32fast::hash(r.0) || r.u8()? != VERSION {
        return None;
    }
    let salt = r.salt()?;
    let from = r.u32()?;
    r.0.is_empty().then_some(Salts { salt, from })
}

/// What a log has. `segments`: its segments, ascending. Where there is
/// neither the file nor a segment that says it, what does not begin as in the first version cannot be told
/// from what a client has sent: that gets a salt which nothing has.
pub(super) fn find(
    files: &dyn FileLayer,
    dir: &Path,
    segments: &[(u32, PathBuf)],
) -> io::Result<(Salts, Source)> {
    let path = path(dir);
    let mut missing = false;
    match read(files, &path) {
        Ok(Some(salts)) => return Ok((salts, Source::File)),
        Ok(None) => tracing::error!("{}: damaged, it is made anew", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => missing = true,
        Err(e) if is_of_the_process(&e) => return Err(e),
        Err(e) => {
            tracing::error!("{}: cannot be read: {e}", path.display());
            if is_no_file(&e) {
                damage::out_of_the_way(files, &path);
            }
        }
    }
    let (mut said, mut from) = (None, 1);
    for (number, path) in segments {
        match first(files, *number, path) {
            Ok(Some(Salt::NONE)) => from = number.saturating_add(1),
            Ok(Some(salt)) => {
                said = Some(salt);
                break;
            }
            Err(e) if is_of_the_process(&e) => return Err(e),
            Ok(None) | Err(_) => {}
        }
    }
    let source = said.map_or(Source::New, |_| Source::Segments);
    if missing && said.is_some() {
        tracing::warn!(
            "{}: it is not there, and made anew of the segments",
            path.display()
        );
    }
    let salts = said
        .or_else(|| Salt::random(files).ok())
        .map(|salt| Salts { salt, from });
    Ok((salts.unwrap_or(Salts::NONE), source))
}

fn read(files: &dyn FileLayer, path: &Path) -> io::Result<Option<Salts>> {
    let mut bytes = [0; LEN + 1];
    let n = files.open_existing(path)?.read_at(&mut bytes, 0)?;
    Ok(decode(&bytes[..n]))
}

/// The salt that the first frame of a segment has, if it is one.
fn first(files: &dyn FileLayer, number: u32, path: &Path) -> io::Result<Option<Salt>> {
    let file = files.open_existing(path)?;
    let mut start = [0; format::FRAME_HEADER + format::SALT_LEN];
    let n = file.read_at(&mut start, 0)?;
    let salt = format::salt_in(&start[..n]).unwrap_or(Salt::NONE);
    let found = Frames::of(number, salt, file)?.frame(0)?;
    Ok(found.map(|_| salt))
}

/// Puts it in its file, for good.
pub(super) fn save(files: &dyn FileLayer, dir: &Path, salts: &Salts) -> io::Result<()> {
    replace(files, &path(dir), &encode(salts), true)?;
    files.sync_dir(&dir.join("log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_is_what_was_saved_or_nothing() {
        let salt = Salt::random(&crate::storage::files::Disk).expect("random octets");
        let salts = Salts { salt, from: 7 };
        let mut bytes = encode(&salts);
        assert_eq!((bytes.len(), decode(&bytes)), (LEN, Some(salts)));
        assert_eq!((salts.of(6), salts.of(7)), (Salt::NONE, salts.salt));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes.push(0);
        assert_eq!(decode(&bytes), None);
    }
}
