//! What a connection has to say: octets, and large bodies between them that are not copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BytesMut};

use crate::broker::message::Message;
use crate::protocol::encode::{self, CHAIN_THRESHOLD, Content, DeliverHead};
use crate::protocol::frame::{FRAME_END, FrameKind};

/// Octets for the peer, in order. Frames of large bodies are not copied in here: the socket takes them
/// from the message, which lives until it has.
#[derive(Debug, Default)]
pub struct Output {
    /// Everything but the pieces.
    octets: BytesMut,
    pieces: VecDeque<Piece>,
    /// Octets in all pieces.
    pieces_len: usize,
    /// Octets of `octets` that stand before the last piece.
    before_pieces: usize,
}

/// What one frame has of a body.
#[derive(Debug)]
struct Piece {
    /// Octets of [`Output::octets`] between the piece before and this one.
    before: usize,
    message: Message,
    /// The part of the body that is left to write.
    from: usize,
    to: usize,
}

impl Piece {
    fn len(&self) -> usize {
        self.to - self.from
    }

    fn octets(&self) -> &[u8] {
        self.message.body().get(self.from..self.to).unwrap_or(&[])
    }
}

impl Output {
    /// For everything that is copied: goes behind what is there.
    pub(super) fn octets(&mut self) -> &mut BytesMut {
        &mut self.octets
    }

    /// Appends a delivery of this message. The properties may be others than the message's own.
    pub(super) fn deliver(
        &mut self,
        head: &DeliverHead<'_>,
        properties: &[u8],
        message: &Message,
        frame_max: u32,
    ) {
        let body = message.body();
        if body.len() < CHAIN_THRESHOLD {
            let content = Content { properties, body };
            encode::deliver(&mut self.octets, head, &content, frame_max);
        } else {
            encode::deliver_head(&mut self.octets, head, properties, body.len());
            self.body(head.channel, message, frame_max);
        }
    }

    /// Appends what follows a method that carries this message.
    pub(super) fn content(
        &mut self,
        channel: u16,
        properties: &[u8],
        message: &Message,
        frame_max: u32,
    ) {
        let body = message.body();
        if body.len() < CHAIN_THRESHOLD {
            let content = Content { properties, body };
            encode::content(&mut self.octets, channel, &content, frame_max);
        } else {
            encode::content_header(&mut self.octets, channel, properties, body.len());
            self.body(channel, message, frame_max);
        }
    }

    fn body(&mut self, channel: u16, message: &Message, frame_max: u32) {
        let len = message.body().len();
        let most = encode::body_max(frame_max);
        let mut from = 0;
        while from < len {
            let to = len.min(from + most);
            encode::frame_head(&mut self.octets, FrameKind::Body, channel, to - from);
            if to - from < CHAIN_THRESHOLD {
                // A small last piece, or a small frame_max: not worth a place of its own.
                self.octets
                    .extend_from_slice(message.body().get(from..to).unwrap_or(&[]));
            } else {
                let before = self.octets.len() - self.before_pieces;
                self.before_pieces = self.octets.len();
                self.pieces_len += to - from;
                self.pieces.push_back(Piece {
                    before,
                    message: message.clone(),
                    from,
                    to,
                });
            }
            self.octets.extend_from_slice(&[FRAME_END]);
            from = to;
        }
    }

    /// Octets that wait.
    pub fn len(&self) -> usize {
        self.octets.len() + self.pieces_len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty() && self.pieces.is_empty()
    }

    /// Octets that it has room for without asking for more, beside those of messages.
    pub fn capacity(&self) -> usize {
        self.octets.capacity()
    }

    /// All that waits, if nothing of it stands elsewhere.
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.pieces.is_empty().then_some(&self.octets)
    }

    /// Puts what waits into `slices`, as much as they have places for; returns how many it used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        let mut octets = &self.octets[..];
        let parts = self.pieces.iter().flat_map(|piece| {
            let (before, rest) = octets.split_at_checked(piece.before).unwrap_or_default();
            octets = rest;
            [before, piece.octets()]
        });
        let rest = self.octets.get(self.before_pieces..).unwrap_or(&[]);
        let parts = parts.chain([rest]).filter(|part| !part.is_empty());
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            n += 1;
        }
        n
    }

    /// Drops the first `n` octets: they were written.
    pub fn advance(&mut self, n: usize) {
        let mut left = n;
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                self.octets.advance(left);
                return;
            };
            let written = left.min(piece.before);
            self.octets.advance(written);
            piece.before -= written;
            self.before_pieces -= written;
            left -= written;
            let written = left.min(piece.len());
            piece.from += written;
            self.pieces_len -= written;
            left -= written;
            if piece.before == 0 && piece.len() == 0 {
                self.pieces.pop_front();
            }
        }
    }

    /// Drops everything, keeping its room.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.pieces.clear();
        (self.pieces_len, self.before_pieces) = (0, 0);
    }

    /// A copy of all that waits.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); self.pieces.len() * 2 + 1];
        let n = self.slices(&mut slices);
        slices
            .iter()
            .take(n)
            .flat_map(|s| s.iter().copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::message::Parts;

    fn message(len: usize, seed: u8) -> Message {
        let body: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_add(seed)).collect();
        let parts = Parts {
            exchange: "x".into(),
            routing_key: "k".into(),
            properties: &[0, 0],
            flags: 0,
        };
        Message::uncounted(&parts, &body)
    }

    fn head(delivery_tag: u64) -> DeliverHead<'static> {
        DeliverHead {
            channel: 7,
            consumer_tag: "c",
            delivery_tag,
            redelivered: false,
            exchange: "x".into(),
            routing_key: "k".into(),
        }
    }

    proptest! {
        /// However large bodies and frames are, and however little is written at a time: the same
        /// octets as if everything was copied.
        #[test]
        fn says_what_the_encoder_says(
            lens in prop::collection::vec(prop_oneof![0usize..200, 10_000..200_000usize], 1..8),
            frame_max in prop_oneof![Just(0u32), Just(4096), Just(CHAIN_THRESHOLD as u32 + 100), Just(131_072)],
            steps in prop::collection::vec(1usize..100_000, 1..20),
            n_slices in 1usize..6,
        ) {
            let (mut output, mut expected) = (Output::default(), BytesMut::new());
            let (mut written, mut steps) = (Vec::new(), steps.into_iter().cycle());
            for (tag, len) in lens.into_iter().enumerate() {
                let m = message(len, tag as u8);
                let content = Content { properties: &[0, 0], body: m.body() };
                encode::deliver(&mut expected, &head(tag as u64), &content, frame_max);
                output.deliver(&head(tag as u64), &[0, 0], &m, frame_max);
                encode::content(&mut expected, 3, &content, frame_max);
                output.content(3, &[0, 0], &m, frame_max);
                encode::heartbeat(&mut expected);
                encode::heartbeat(output.octets());
                // A part of it goes at once.
                step(&mut output, &mut written, steps.next().unwrap_or(1), n_slices);
                prop_assert_eq!(written.len() + output.len(), expected.len());
            }
            let together: Vec<u8> = written.iter().copied().chain(output.to_vec()).collect();
            prop_assert!(together == expected);
            while !output.is_empty() {
                step(&mut output, &mut written, steps.next().unwrap_or(1), n_slices);
            }
            prop_assert!(written == expected && output.is_empty());
        }
    }

    /// What a socket does that takes at most `n` octets.
    fn step(output: &mut Output, written: &mut Vec<u8>, n: usize, n_slices: usize) {
        let mut slices = vec![IoSlice::new(&[]); n_slices];
        let used = output.slices(&mut slices);
        let octets = slices[..used].iter().flat_map(|s| s.iter().copied());
        let taken: Vec<u8> = octets.take(n).collect();
        if let Some(all) = output.contiguous() {
            assert!(all.starts_with(&taken));
        }
        written.extend_from_slice(&taken);
        output.advance(taken.len());
    }
}
