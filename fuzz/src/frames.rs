//! The codec: whatever arrives, in whatever pieces, is decoded or refused; what was decoded is encoded
//! and decoded again to the same.

use bytes::BytesMut;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::frame::{self, FRAME_OVERHEAD, FrameKind, Parsed};
use leveret::protocol::properties::{Properties, parse_content_header};

use super::methods;

/// What [`frame::parse`] finds must not depend on how much is there yet.
fn grows_into(input: &[u8], whole: &Parsed<'_>, frame_max: u32) {
    let Parsed::Frame { size, .. } = whole else {
        return;
    };
    for len in [0, 1, 6, 7, size / 2, size - 1] {
        match frame::parse(&input[..len.min(size - 1)], frame_max) {
            Ok(Parsed::Incomplete { needed }) => assert!(needed <= *size),
            other => panic!("half of a good frame is {other:?}"),
        }
    }
}

fn header(payload: &[u8]) {
    let Ok(header) = parse_content_header(payload) else {
        return;
    };
    let properties = Properties::from(header.properties);
    let raw = properties.encode();
    // Values in headers may be written in another way than they came.
    if properties.headers.is_none() {
        assert_eq!(raw, header.properties.as_bytes());
    }
    let mut out = BytesMut::new();
    let content = Content {
        properties: &raw,
        body: b"",
    };
    encode::content(&mut out, 1, &content, 131_072.max((raw.len() + 64) as u32));
    let again = out.to_vec();
    let Ok(Parsed::Frame { frame, .. }) = frame::parse(&again, 0) else {
        panic!("an encoded header is no frame");
    };
    let decoded = parse_content_header(frame.payload).expect("what was encoded decodes");
    assert_eq!(Properties::from(decoded.properties).encode(), raw);
}

/// See the module.
pub fn run(input: &[u8]) {
    methods::check(input);
    header(input);
    let frame_max = 131_072;
    let mut rest = input;
    while let Ok(parsed) = frame::parse(rest, frame_max) {
        grows_into(rest, &parsed, frame_max);
        let Parsed::Frame { frame, size } = parsed else {
            break;
        };
        assert_eq!(frame.payload.len() + FRAME_OVERHEAD, size);
        match frame.kind {
            FrameKind::Method => methods::check(frame.payload),
            FrameKind::Header => header(frame.payload),
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        rest = &rest[size..];
    }
}
