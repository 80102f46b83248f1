//! A publish whose content is arriving, and what it takes until it is complete.
//!
//! A peer may begin a message on each of its channels and finish none. So what an assembly holds is never
//! much more than what has come of it, counts as resident memory, and has a limit for all channels
//! of a connection together.

use super::errors::Exception;
use crate::broker::memory::{Charge, Memory, Use};
use crate::broker::message::Parts;
use crate::protocol::methods::basic;
use crate::protocol::reply_code::HardCode;
use crate::protocol::short::ShortBuf;

/// Room that is made for a body when its first frame has come, and is not all of it. A larger one gets
/// more as it arrives, never much more than has. A body of 1 MiB fits, with what stands before it.
const GATHER_BYTES: usize = (1 << 20) + (64 << 10);

/// Octets that a connection's assemblies may hold for such room to be made: a few large bodies at a time
/// are moved less, and many that never end get no more room than they fill.
const AHEAD_BYTES_MAX: u64 = 16 << 20;

/// Properties up to this size leave their room for the next publish of the channel, and are not counted.
const SCRATCH_BYTES: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) stage: Stage,
    pub(super) exchange: ShortBuf,
    pub(super) routing_key: ShortBuf,
    pub(super) mandatory: bool,
    pub(super) immediate: bool,
    pub(super) properties: Vec<u8>,
    /// What has come of a body of several frames, behind the other contents of the message to be.
    pub(super) contents: Vec<u8>,
    /// Octets of the body in it.
    pub(super) gathered: u64,
    pub(super) body_size: u64,
    /// Octets of an oversized body that went by.
    pub(super) skipped: u64,
    /// What of it was counted last, here and in the connection's sum.
    counted: u64,
    charge: Charge,
}

/// What the next frame of the channel has to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Stage {
    /// A method.
    #[default]
    Method,
    /// The content header of a publish.
    Header,
    /// More of its body.
    Body,
}

impl Assembly {
    /// A publish begins.
    pub(super) fn start(&mut self, m: &basic::Publish<'_>) {
        self.stage = Stage::Header;
        self.exchange.set(m.exchange);
        self.routing_key.set(m.routing_key);
        self.mandatory = m.mandatory;
        self.immediate = m.immediate;
    }

    /// Its content header has come.
    pub(super) fn begin(&mut self, memory: &Memory, properties: &[u8], body_size: u64) {
        if self.counted == 0 {
            self.charge = memory.charge(Use::Assembly);
        }
        self.properties.clear();
        self.properties.extend_from_slice(properties);
        self.body_size = body_size;
        self.gathered = 0;
        self.skipped = 0;
    }

    /// A part of the body has come. It goes where it stands in the message, if nobody rewrites its
    /// properties.
    pub(super) fn gather(&mut self, part: &[u8], sum: &mut u64) {
        if part.is_empty() {
            return;
        }
        let parts = Parts {
            exchange: self.exchange.as_short(),
            routing_key: self.routing_key.as_short(),
            properties: &self.properties,
            flags: 0,
        };
        let whole = parts.prefix_len() + self.body_size as usize;
        if self.contents.is_empty() {
            let ahead = whole.min(GATHER_BYTES);
            let come = parts.prefix_len() + part.len();
            let fits = *sum + ahead as u64 <= AHEAD_BYTES_MAX;
            self.contents.reserve_exact(if fits { ahead } else { come });
            parts.put(&mut self.contents);
        }
        let have = self.contents.capacity();
        let wanted = self.contents.len() + part.len();
        if wanted > have {
            let room = whole.min((have * 2).max(wanted));
            self.contents.reserve_exact(room - self.contents.len());
        }
        self.contents.extend_from_slice(part);
        self.gathered += part.len() as u64;
        self.count(sum);
    }

    /// Counts what it holds now, and corrects the connection's sum.
    pub(super) fn count(&mut self, sum: &mut u64) {
        let properties = match self.properties.capacity() {
            0..=SCRATCH_BYTES => 0,
            large => large,
        };
        let now = (properties + self.contents.capacity()) as u64;
        if now != self.counted {
            *sum = *sum - self.counted + now;
            self.charge.set(now);
            self.counted = now;
        }
    }

    /// The publish is done with; small scratch is kept for the next one.
    pub(super) fn end(&mut self, sum: &mut u64) {
        self.stage = Stage::Method;
        if self.properties.capacity() > SCRATCH_BYTES {
            self.properties = Vec::new();
        }
        if self.counted != 0 {
            self.contents = Vec::new();
            self.count(sum);
        }
    }

    /// Whether anything of it is counted.
    pub(super) fn holds(&self) -> bool {
        self.counted != 0
    }

    /// Nothing comes of what has begun. Its frames go on to come, and to go by: see [`Self::pass`].
    pub(super) fn abandon(&mut self, sum: &mut u64) {
        let (stage, body_size) = (self.stage, self.body_size);
        let skipped = self.skipped + self.gathered;
        self.end(sum);
        *self = Assembly {
            stage,
            body_size,
            skipped,
            ..Assembly::default()
        };
    }

    /// So many octets of a publish that nobody wants go by; zero of them with its header.
    pub(super) fn pass(&mut self, octets: usize) {
        self.skipped += octets as u64;
        self.stage = if self.skipped < self.body_size {
            Stage::Body
        } else {
            Stage::Method
        };
    }
}

/// Something else came than what has to come next.
pub(super) fn expected(stage: Stage) -> Exception {
    let text = match stage {
        Stage::Method => "expected method frame, got non method frame instead",
        Stage::Header => {
            "expected content header for class 60, got non content header frame instead"
        }
        Stage::Body => "expected content body, got non content body frame instead",
    };
    Exception::hard(HardCode::UNEXPECTED_FRAME, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(properties: &[u8], body_size: u64) -> Assembly {
        let mut a = Assembly::default();
        a.start(&basic::Publish {
            exchange: "".into(),
            routing_key: "e".into(),
            mandatory: false,
            immediate: false,
        });
        a.begin(&Memory::new(), properties, body_size);
        a
    }

    #[test]
    fn parts_of_any_length_make_the_same_contents() {
        for parts in [
            vec!["", "hel", "lo"],
            vec!["hel", "", "", "lo", ""],
            vec!["", "", "hello"],
            vec!["h", "e", "l", "l", "o"],
        ] {
            let (mut a, mut sum) = (begun(&[0, 0], 5), 0);
            parts.iter().for_each(|p| a.gather(p.as_bytes(), &mut sum));
            assert_eq!(a.contents, b"e\0\0hello", "{parts:?}");
            assert_eq!((a.gathered, sum), (5, a.contents.capacity() as u64));
            a.end(&mut sum);
            assert_eq!(sum, 0);
        }
    }

    #[test]
    fn only_little_is_kept_for_the_next_publish() {
        for (octets, kept) in [(SCRATCH_BYTES, true), (SCRATCH_BYTES + 1, false)] {
            let (mut a, mut sum) = (begun(&vec![0; octets], 0), 0);
            a.end(&mut sum);
            assert_eq!(a.properties.capacity() > 0, kept, "{octets}");
        }
    }

    /// However a body is cut up, and however many are begun: they take what has come, twice at most
    /// as a buffer doubles, and what may be taken ahead.
    #[test]
    fn what_is_held_follows_what_has_come() {
        let (headers, mut sum, mut come) = (vec![0; 90_000], 0, 0);
        let mut all: Vec<Assembly> = (0..300).map(|_| begun(&headers, 16 << 20)).collect();
        for round in 0..100 {
            for a in &mut all {
                let part: &[u8] = match round % 3 {
                    0 => &[],
                    1 => b"x",
                    _ => &[1; 3000],
                };
                a.gather(part, &mut sum);
                come += part.len() as u64;
            }
        }
        // Properties stand in the contents, too.
        come += 2 * 90_000 * 300;
        let held: usize = all.iter().map(|a| a.contents.capacity()).sum();
        assert_eq!(sum, (held + 90_000 * 300) as u64);
        assert!(sum <= 2 * come + AHEAD_BYTES_MAX, "{sum} for {come}");
        all.iter_mut().for_each(|a| a.abandon(&mut sum));
        assert_eq!(sum, 0);
    }
}
