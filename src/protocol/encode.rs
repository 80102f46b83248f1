//! Writing frames: methods, deliveries with their content, heartbeats.

use bytes::{BufMut, BytesMut};

use super::frame::{FRAME_END, FRAME_HARD_MAX, FRAME_OVERHEAD, FrameKind};
use super::methods::{EncodeMethod, basic};
use super::properties::CLASS_BASIC;
use super::short::ShortBytes;

/// Bodies of at least this many octets are worth handing to the socket as they are, instead of
/// copying them behind their headers.
pub const CHAIN_THRESHOLD: usize = 16 * 1024;

/// What follows a method that carries content.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Property flags and list, as the publisher sent them.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// Appends a method frame.
pub fn method<M: EncodeMethod>(buf: &mut BytesMut, channel: u16, m: &M) {
    buf.reserve(m.encoded_len() + 4 + FRAME_OVERHEAD);
    buf.put_u8(FrameKind::Method.octet());
    buf.put_u16(channel);
    let at = buf.len();
    buf.put_u32(0);
    buf.put_u16(M::ID.class);
    buf.put_u16(M::ID.method);
    m.encode(buf);
    let len = (buf.len() - at - 4) as u32;
    if let Some(place) = buf.get_mut(at..at + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
    buf.put_u8(FRAME_END);
}

/// Appends a heartbeat frame.
pub fn heartbeat(buf: &mut BytesMut) {
    frame_head(buf, FrameKind::Heartbeat, 0, 0);
    buf.put_u8(FRAME_END);
}

/// Appends the seven octets before a payload of `len` octets.
pub fn frame_head(buf: &mut BytesMut, kind: FrameKind, channel: u16, len: usize) {
    buf.put_u8(kind.octet());
    buf.put_u16(channel);
    buf.put_u32(len as u32);
}

/// Octets of body that fit into one frame.
pub fn body_max(frame_max: u32) -> usize {
    let max = if frame_max == 0 {
        FRAME_HARD_MAX
    } else {
        frame_max
    };
    max as usize - FRAME_OVERHEAD
}

/// Octets that the frames of a body take.
fn body_frames_len(body: usize, frame_max: u32) -> usize {
    body + body.div_ceil(body_max(frame_max)) * FRAME_OVERHEAD
}

/// Appends the content header frame.
pub fn content_header(buf: &mut BytesMut, channel: u16, properties: &[u8], body_len: usize) {
    frame_head(buf, FrameKind::Header, channel, 12 + properties.len());
    buf.put_u16(CLASS_BASIC);
    buf.put_u16(0);
    buf.put_u64(body_len as u64);
    buf.put_slice(properties);
    buf.put_u8(FRAME_END);
}

/// Appends the content: header frame and body frames.
pub fn content(buf: &mut BytesMut, channel: u16, content: &Content<'_>, frame_max: u32) {
    buf.reserve(
        12 + content.properties.len()
            + FRAME_OVERHEAD
            + body_frames_len(content.body.len(), frame_max),
    );
    content_header(buf, channel, content.properties, content.body.len());
    for part in content.body.chunks(body_max(frame_max)) {
        frame_head(buf, FrameKind::Body, channel, part.len());
        buf.put_slice(part);
        buf.put_u8(FRAME_END);
    }
}

/// What a delivery says about its message.
#[derive(Clone, Copy, Debug)]
pub struct DeliverHead<'a> {
    /// Channel.
    pub channel: u16,
    /// Consumer tag.
    pub consumer_tag: &'a str,
    /// Delivery tag.
    pub delivery_tag: u64,
    /// Delivered before.
    pub redelivered: bool,
    /// Exchange it was published to.
    pub exchange: ShortBytes<'a>,
    /// Routing key it was published with.
    pub routing_key: ShortBytes<'a>,
}

/// Appends `basic.deliver`, and reserves for what follows: `more` octets.
fn deliver_method(buf: &mut BytesMut, h: &DeliverHead<'_>, more: usize) {
    let len = 4 + 1 + h.consumer_tag.len() + 8 + 1 + 1 + h.exchange.len() + 1 + h.routing_key.len();
    buf.reserve(len + FRAME_OVERHEAD + more);
    method(
        buf,
        h.channel,
        &basic::Deliver {
            consumer_tag: h.consumer_tag,
            delivery_tag: h.delivery_tag,
            redelivered: h.redelivered,
            exchange: h.exchange,
            routing_key: h.routing_key,
        },
    );
}

/// Appends a whole delivery. The hot path out: one reservation, one copy.
pub fn deliver(buf: &mut BytesMut, head: &DeliverHead<'_>, c: &Content<'_>, frame_max: u32) {
    let more = 12 + c.properties.len() + FRAME_OVERHEAD + body_frames_len(c.body.len(), frame_max);
    deliver_method(buf, head, more);
    content(buf, head.channel, c, frame_max);
}

/// Appends a delivery without its body frames, for a body that is handed to the socket as it is.
pub fn deliver_head(
    buf: &mut BytesMut,
    head: &DeliverHead<'_>,
    properties: &[u8],
    body_len: usize,
) {
    deliver_method(buf, head, 12 + properties.len() + FRAME_OVERHEAD);
    content_header(buf, head.channel, properties, body_len);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::super::frame::{Parsed, parse};
    use super::super::methods::Method;
    use super::*;

    #[test]
    fn a_delivery_is_split_by_frame_max_and_joined_again() {
        for len in [0usize, 1, 4087, 4088, 4089, 20_000] {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let head = DeliverHead {
                channel: 3,
                consumer_tag: "ct",
                delivery_tag: 9,
                redelivered: true,
                exchange: "x".into(),
                routing_key: ShortBytes::cut(b"r\xffk"),
            };
            let mut buf = BytesMut::new();
            deliver(
                &mut buf,
                &head,
                &Content {
                    properties: &[0, 0],
                    body: &body,
                },
                4096,
            );
            let mut at = 0;
            let mut frames = vec![];
            while at < buf.len() {
                let Parsed::Frame { frame, size } = parse(&buf[at..], 4096).expect("valid") else {
                    panic!()
                };
                frames.push(frame);
                at += size;
            }
            let Ok(Method::BasicDeliver(d)) = Method::decode(frames[0].payload) else {
                panic!()
            };
            assert_eq!(
                (d.consumer_tag, d.delivery_tag, d.redelivered),
                ("ct", 9, true)
            );
            assert_eq!(
                (d.exchange, d.routing_key),
                (head.exchange, head.routing_key)
            );
            let joined: Vec<u8> = frames[2..]
                .iter()
                .flat_map(|f| f.payload.to_vec())
                .collect();
            assert_eq!(joined, body);
            assert_eq!(frames.len(), 2 + len.div_ceil(4088));
        }
    }
}
