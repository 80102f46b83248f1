//! Finding the edges of frames.

use std::fmt;

use nom::IResult;
use nom::Parser;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::wire::Octets;

/// The last octet of every frame.
pub const FRAME_END: u8 = 0xCE;

/// Octets of a frame beside its payload.
pub const FRAME_OVERHEAD: usize = 8;

/// Octets before the payload.
const HEADER_LEN: usize = 7;

/// The smallest `frame_max` a peer may ask for. RabbitMQ 4 wants 8192; older clients propose the
/// 4096 of the specification, and nothing is gained by refusing them.
pub const FRAME_MIN_SIZE: u32 = 4096;

/// The largest frame taken where `frame_max` was negotiated away (zero): as large as the largest
/// body.
pub const FRAME_HARD_MAX: u32 = 512 << 20;

/// What a client sends first.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";

/// Also accepted: the header of AMQP 0-9 clients.
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// The kinds of frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameKind {
    /// A method.
    Method,
    /// A content header.
    Header,
    /// A part of a content body.
    Body,
    /// A heartbeat.
    Heartbeat,
}

impl FrameKind {
    /// Its octet on the wire.
    pub fn octet(self) -> u8 {
        match self {
            FrameKind::Method => 1,
            FrameKind::Header => 2,
            FrameKind::Body => 3,
            FrameKind::Heartbeat => 8,
        }
    }
}

/// A frame, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameRef<'a> {
    /// Its kind.
    pub kind: FrameKind,
    /// The channel it belongs to.
    pub channel: u16,
    /// What is in it.
    pub payload: &'a [u8],
}

/// What [`parse`] finds at the start of its input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed<'a> {
    /// A whole frame, and its size in octets with everything.
    Frame {
        /// The frame.
        frame: FrameRef<'a>,
        /// Octets it takes.
        size: usize,
    },
    /// Part of a frame.
    Incomplete {
        /// Octets, from the start of the input, that are needed before it is worth asking again.
        needed: usize,
    },
}

/// A frame that ends the connection: FRAME_ERROR, 501.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FrameError {
    /// Larger than `frame_max`.
    TooLarge {
        /// Kind octet.
        kind: u8,
        /// Octets of its payload. It is not read, so there is none to show.
        size: u32,
        /// The largest payload allowed.
        max: u32,
    },
    /// The last octet is not [`FRAME_END`].
    BadEnd {
        /// Kind octet.
        kind: u8,
        /// How many octets the payload has.
        len: usize,
        /// The payload.
        octets: Octets,
        /// What stood there instead.
        marker: u8,
    },
    /// No such kind of frame.
    UnknownType {
        /// Kind octet.
        kind: u8,
        /// How many octets the payload has.
        len: usize,
        /// The payload.
        octets: Octets,
    },
}

/// Describes a frame as RabbitMQ does: `type 3, all octets = <<1,2>>`.
pub fn describe(kind: u8, payload: &[u8]) -> String {
    describe_octets(kind, payload.len(), &Octets::of(payload))
}

fn describe_octets(kind: u8, len: usize, octets: &Octets) -> String {
    let shown = if len > Octets::SHOWN {
        "first 16"
    } else {
        "all"
    };
    format!("type {kind}, {shown} octets = {octets}")
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLarge { kind, size, max } => {
                let frame = describe(*kind, &[]);
                write!(f, "{frame}: {{frame_too_large,{size},{max}}}")
            }
            FrameError::BadEnd {
                kind,
                len,
                octets,
                marker,
            } => {
                let frame = describe_octets(*kind, *len, octets);
                write!(f, "{frame}: {{invalid_frame_end_marker,{marker}}}")
            }
            FrameError::UnknownType { kind, len, octets } => {
                write!(f, "{}: unknown_frame", describe_octets(*kind, *len, octets))
            }
        }
    }
}

fn header(input: &[u8]) -> IResult<&[u8], (u8, u16, u32), ()> {
    (be_u8, be_u16, be_u32).parse(input)
}

/// Finds the frame at the start of `input`. `frame_max` is the negotiated limit for a whole frame,
/// zero for none. As in RabbitMQ the payload alone may be as large as that.
///
/// # Errors
/// [`FrameError`]. An oversized frame is refused as soon as its header is there.
pub fn parse(input: &[u8], frame_max: u32) -> Result<Parsed<'_>, FrameError> {
    let Ok((rest, (kind, channel, size))) = header(input) else {
        return Ok(Parsed::Incomplete { needed: HEADER_LEN });
    };
    let max = match frame_max {
        0 => FRAME_HARD_MAX,
        n => n,
    };
    if size > max {
        return Err(FrameError::TooLarge {
            kind,
            size,
            max: max - FRAME_OVERHEAD as u32,
        });
    }
    let len = size as usize;
    let (Some(payload), Some(&marker)) = (rest.get(..len), rest.get(len)) else {
        return Ok(Parsed::Incomplete {
            needed: len + FRAME_OVERHEAD,
        });
    };
    if marker != FRAME_END {
        return Err(FrameError::BadEnd {
            kind,
            len,
            octets: Octets::of(payload),
            marker,
        });
    }
    let kind = match kind {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 if len == 0 => FrameKind::Heartbeat,
        kind => {
            return Err(FrameError::UnknownType {
                kind,
                len,
                octets: Octets::of(payload),
            });
        }
    };
    Ok(Parsed::Frame {
        frame: FrameRef {
            kind,
            channel,
            payload,
        },
        size: len + FRAME_OVERHEAD,
    })
}

/// What a client opened with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProtocolHeader {
    /// AMQP 0-9-1 (or 0-9, which is served the same way).
    Amqp091,
    /// Something else: it is answered with [`PROTOCOL_HEADER`] and closed.
    Other,
}

/// Reads the protocol header; `None` while it is not decided yet.
pub fn parse_protocol_header(input: &[u8]) -> Option<ProtocolHeader> {
    let headers = [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9];
    match input.get(..8) {
        Some(first) if headers.iter().any(|h| h == first) => Some(ProtocolHeader::Amqp091),
        Some(_) => Some(ProtocolHeader::Other),
        None if headers.iter().any(|h| h.starts_with(input)) => None,
        None => Some(ProtocolHeader::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
        let mut f = vec![kind];
        f.extend(channel.to_be_bytes());
        f.extend((payload.len() as u32).to_be_bytes());
        f.extend(payload);
        f.push(end);
        f
    }

    #[test]
    fn a_frame_is_found_once_it_is_whole() {
        let f = frame(3, 7, b"hello", FRAME_END);
        for n in 0..f.len() {
            let needed = if n < 7 { 7 } else { f.len() };
            assert_eq!(parse(&f[..n], 4096), Ok(Parsed::Incomplete { needed }));
        }
        let found = FrameRef {
            kind: FrameKind::Body,
            channel: 7,
            payload: b"hello",
        };
        assert_eq!(
            parse(&f, 4096),
            Ok(Parsed::Frame {
                frame: found,
                size: 13
            })
        );
    }

    #[test]
    fn a_payload_of_exactly_frame_max_passes_and_one_octet_more_does_not() {
        let f = frame(3, 1, &[0; 4096], FRAME_END);
        assert!(matches!(parse(&f, 4096), Ok(Parsed::Frame { .. })));
        let f = frame(3, 1, &[0; 4097], FRAME_END);
        let error = parse(&f[..7], 4096).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "type 3, all octets = <<>>: {frame_too_large,4097,4088}"
        );
    }

    #[test]
    fn a_wrong_end_and_an_unknown_kind_are_told() {
        let error = parse(&frame(1, 0, &[1, 2], 0), 4096).expect_err("bad end");
        assert_eq!(
            error.to_string(),
            "type 1, all octets = <<1,2>>: {invalid_frame_end_marker,0}"
        );
        let error = parse(&frame(9, 0, &[5], FRAME_END), 4096).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "type 9, all octets = <<5>>: unknown_frame"
        );
    }

    #[test]
    fn a_foreign_protocol_is_told_at_its_first_octet() {
        assert_eq!(parse_protocol_header(b"GE"), Some(ProtocolHeader::Other));
        assert_eq!(parse_protocol_header(b"AMQ"), None);
        assert_eq!(
            parse_protocol_header(b"AMQP\x00\x00\x09\x01"),
            Some(ProtocolHeader::Amqp091)
        );
        assert_eq!(
            parse_protocol_header(b"AMQP\x03\x01\x00\x00"),
            Some(ProtocolHeader::Other)
        );
    }
}
