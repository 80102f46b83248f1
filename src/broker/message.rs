//! A message: what a publisher handed over, immutable, shared by every queue it was routed to.
//!
//! One allocation holds everything that deliveries and the log need, so that routing a message to ten
//! queues copies ten pointers:
//!
//! ```text
//! +----------+-------------+------------+------------+--------+
//! | exchange | routing_key | properties |    body    | unused |
//! +----------+-------------+------------+------------+--------+
//!  ≤ 255 B     ≤ 255 B       raw: flags and list as received
//! ```
//!
//! Small messages live inside the reference-counted block itself, rounded up to a size class; larger
//! ones carry one boxed slice. Dropping the last reference gives the bytes back to the [`Memory`] they
//! were counted in, which is how "a body shared by ten queues counts once" is exact.

use std::sync::Arc;

use super::memory::{Memory, MemoryId, Use};
use crate::protocol::raw::Splice;
use crate::protocol::short::ShortBytes;

/// Bytes that a message costs beside its contents: reference counts, header, allocator slack.
/// Counted so that a flood of tiny messages has a true price; what a queue needs to point at it is
/// counted there.
pub const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// The largest contents kept inside the reference-counted block. Above it a second allocation is
/// cheaper than moving the block through the stack.
const INLINE_MAX_BYTES: usize = 1152;

/// The block behind a [`Message`].
#[derive(Debug)]
struct Stored<B: ?Sized> {
    body_len: u32,
    properties_len: u32,
    exchange_len: u8,
    routing_key_len: u8,
    flags: u8,
    /// Where it is counted.
    memory: MemoryId,
    /// The contents when they are larger than [`INLINE_MAX_BYTES`]; empty otherwise.
    large: Box<[u8]>,
    inline: B,
}

impl<B: ?Sized> Stored<B> {
    fn contents_len(&self) -> usize {
        usize::from(self.exchange_len)
            + usize::from(self.routing_key_len)
            + self.properties_len as usize
            + self.body_len as usize
    }
}

impl<B: ?Sized> Drop for Stored<B> {
    fn drop(&mut self) {
        let bytes = self.contents_len() + MESSAGE_OVERHEAD_BYTES;
        self.memory.add(Use::Messages, -(bytes as i64));
    }
}

/// A published message. Cloning it copies a pointer.
#[derive(Clone, Debug)]
pub struct Message(Arc<Stored<[u8]>>);

/// The parts a [`Message`] is built from.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Exchange it was published to.
    pub exchange: ShortBytes<'a>,
    /// Routing key it was published with.
    pub routing_key: ShortBytes<'a>,
    /// Raw property flags and list of the content header.
    pub properties: &'a [u8],
    /// Sum of the `FLAG_` constants that hold.
    pub flags: u8,
}

/// As much of it as a length of 32 bits counts. The frame of a content header has no more, and the session
/// refuses larger bodies: nothing is ever cut, and nothing can end the process.
fn counted(octets: &[u8]) -> (&[u8], u32) {
    let len = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    (&octets[..len as usize], len)
}

impl<'a> Parts<'a> {
    fn in_order(&self) -> [&'a [u8]; 3] {
        [
            self.exchange.as_bytes(),
            self.routing_key.as_bytes(),
            counted(self.properties).0,
        ]
    }

    /// Bytes of them all: where the body starts in the contents of a message.
    pub fn prefix_len(&self) -> usize {
        self.in_order().iter().map(|part| part.len()).sum()
    }

    /// Writes them as they stand before the body in the contents of a message.
    pub fn put(&self, out: &mut Vec<u8>) {
        for part in self.in_order() {
            out.extend_from_slice(part);
        }
    }
}

/// `delivery_mode` is 2.
pub const FLAG_PERSISTENT: u8 = 1;

/// We dead-lettered it: its `x-death` header is ours, not something a client made up.
pub const FLAG_DEAD_LETTERED: u8 = 2;

/// It was dead-lettered with a routing key of its own: its `CC` header is no routing key any more.
pub const FLAG_KEYED: u8 = 4;

/// Its `BCC` header holds routing keys that nobody is shown.
pub const FLAG_BCC: u8 = 8;

macro_rules! in_class {
    ($len:expr, $head:expr, $($class:literal)+) => {
        match $len {
            $( n if n <= $class => Arc::new($head.with([0u8; $class])) as Arc<Stored<[u8]>>, )+
            _ => unreachable!("larger contents have a block of their own"),
        }
    };
}

#[derive(Clone, Copy)]
struct Head {
    body_len: u32,
    properties_len: u32,
    exchange_len: u8,
    routing_key_len: u8,
    flags: u8,
    memory: MemoryId,
}

impl Head {
    /// Counts the message whose head it is.
    fn of(memory: MemoryId, parts: &Parts<'_>, body_len: u32) -> Head {
        let bytes = parts.prefix_len() + body_len as usize + MESSAGE_OVERHEAD_BYTES;
        memory.add(Use::Messages, bytes as i64);
        Head {
            body_len,
            properties_len: counted(parts.properties).1,
            exchange_len: parts.exchange.len_octet(),
            routing_key_len: parts.routing_key.len_octet(),
            flags: parts.flags,
            memory,
        }
    }

    fn with<const N: usize>(self, inline: [u8; N]) -> Stored<[u8; N]> {
        Stored {
            body_len: self.body_len,
            properties_len: self.properties_len,
            exchange_len: self.exchange_len,
            routing_key_len: self.routing_key_len,
            flags: self.flags,
            memory: self.memory,
            large: Box::default(),
            inline,
        }
    }

    fn with_large(self, large: Vec<u8>) -> Arc<Stored<[u8]>> {
        let mut stored = self.with([]);
        stored.large = large.into_boxed_slice();
        Arc::new(stored)
    }
}

impl Message {
    /// Builds a message, copying `parts` and `body` once. It counts in `memory` for as long as it lives.
    pub fn new(memory: &Memory, parts: &Parts<'_>, body: &[u8]) -> Message {
        Self::build(memory.id(), parts, body)
    }

    /// Builds a message that counts nowhere: one from the log, before [`Self::counted`].
    pub fn uncounted(parts: &Parts<'_>, body: &[u8]) -> Message {
        Self::build(MemoryId::default(), parts, body)
    }

    /// The same body with other parts, counted where this one is.
    pub fn with_parts(&self, parts: &Parts<'_>) -> Message {
        Self::build(self.0.memory, parts, self.body())
    }

    /// The same body with other parts; the properties are put together in their place.
    pub fn with_written(
        &self,
        exchange: ShortBytes<'_>,
        routing_key: ShortBytes<'_>,
        properties: &Splice<'_>,
        flags: u8,
    ) -> Message {
        let before = exchange.len() + routing_key.len();
        let mut contents = Vec::with_capacity(before + properties.len() + self.body().len());
        contents.extend_from_slice(&exchange);
        contents.extend_from_slice(&routing_key);
        properties.put(&mut contents);
        let prefix_len = before + counted(&contents[before..]).1 as usize;
        contents.truncate(prefix_len);
        let parts = Parts {
            exchange,
            routing_key,
            properties: &contents[before..],
            flags,
        };
        if prefix_len + self.body().len() <= INLINE_MAX_BYTES {
            return self.with_parts(&parts);
        }
        let head = Head::of(self.0.memory, &parts, self.body_len());
        contents.extend_from_slice(self.body());
        Message(head.with_large(contents))
    }

    fn build(memory: MemoryId, parts: &Parts<'_>, body: &[u8]) -> Message {
        let (body, body_len) = counted(body);
        let len = parts.prefix_len() + body.len();
        let head = Head::of(memory, parts, body_len);
        if len > INLINE_MAX_BYTES {
            let mut large = Vec::with_capacity(len);
            parts.put(&mut large);
            large.extend_from_slice(body);
            return Message(head.with_large(large));
        }
        let mut shared = in_class!(len, head, 48 96 160 256 384 576 832 1152);
        let stored = Arc::get_mut(&mut shared).expect("nobody else has seen it yet");
        let mut rest: &mut [u8] = &mut stored.inline;
        for part in parts.in_order() {
            rest = put(rest, part);
        }
        put(rest, body);
        Message(shared)
    }

    /// Builds a message of contents that were put together as they came, without copying them:
    /// what [`Parts::put`] wrote, and the body behind it.
    pub fn of_contents(memory: &Memory, parts: &Parts<'_>, mut contents: Vec<u8>) -> Message {
        let prefix_len = parts.prefix_len();
        if contents.len() <= INLINE_MAX_BYTES {
            return Self::new(memory, parts, &contents[prefix_len..]);
        }
        let body_len = counted(&contents[prefix_len..]).1;
        contents.truncate(prefix_len + body_len as usize);
        Message(Head::of(memory.id(), parts, body_len).with_large(contents))
    }

    /// Counts a message that nobody else has yet in `memory`, if it is not counted.
    pub fn counted(mut self, memory: &Memory) -> Message {
        let bytes = self.resident_bytes() as i64;
        if let Some(stored) = Arc::get_mut(&mut self.0)
            && stored.memory == MemoryId::default()
        {
            stored.memory = memory.id();
            stored.memory.add(Use::Messages, bytes);
        }
        self
    }

    /// Where it is counted.
    pub(super) fn memory(&self) -> MemoryId {
        self.0.memory
    }

    /// Exchange, routing key, properties and body, one after the other, as the log stores them.
    pub fn contents(&self) -> &[u8] {
        let len = self.0.contents_len();
        if len > INLINE_MAX_BYTES {
            &self.0.large
        } else {
            &self.0.inline[..len]
        }
    }

    /// Exchange the message was published to; empty for the default exchange.
    pub fn exchange(&self) -> ShortBytes<'_> {
        ShortBytes::cut(&self.contents()[..usize::from(self.0.exchange_len)])
    }

    /// Routing key the message was published with: octets.
    pub fn routing_key(&self) -> ShortBytes<'_> {
        let from = usize::from(self.0.exchange_len);
        ShortBytes::cut(&self.contents()[from..from + usize::from(self.0.routing_key_len)])
    }

    /// Raw property flags and property list, exactly as the publisher sent them.
    pub fn properties(&self) -> &[u8] {
        let from = usize::from(self.0.exchange_len) + usize::from(self.0.routing_key_len);
        &self.contents()[from..from + self.0.properties_len as usize]
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        let contents = self.contents();
        &contents[contents.len() - self.0.body_len as usize..]
    }

    /// Length of the body in bytes.
    pub fn body_len(&self) -> u32 {
        self.0.body_len
    }

    /// What the message costs in memory, in bytes, by our accounting.
    pub fn resident_bytes(&self) -> usize {
        self.0.contents_len() + MESSAGE_OVERHEAD_BYTES
    }

    /// Whether `delivery_mode` is 2.
    pub fn is_persistent(&self) -> bool {
        self.0.flags & FLAG_PERSISTENT != 0
    }

    /// Whether both are one and the same message, not only alike.
    pub(super) fn is_same(a: &Message, b: &Message) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }

    /// Whether it was dead-lettered here.
    pub fn is_dead_lettered(&self) -> bool {
        self.0.flags & FLAG_DEAD_LETTERED != 0
    }

    /// The flags it was built with.
    pub fn flags(&self) -> u8 {
        self.0.flags
    }
}

fn put<'a>(room: &'a mut [u8], part: &[u8]) -> &'a mut [u8] {
    let (here, after) = room.split_at_mut(part.len());
    here.copy_from_slice(part);
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(properties: &[u8]) -> Parts<'_> {
        Parts {
            exchange: "ex".into(),
            routing_key: ShortBytes::cut(b"k\xffy"),
            properties,
            flags: FLAG_PERSISTENT,
        }
    }

    #[test]
    fn what_is_longer_than_its_length_ends_nothing() {
        // Never touched: it takes no memory.
        let long = vec![0; (1 << 32) + 5];
        let (cut, len) = counted(&long);
        assert_eq!((cut.len(), len), (u32::MAX as usize, u32::MAX));
        assert_eq!(counted(b"abc"), (&b"abc"[..], 3));
    }

    #[test]
    fn every_part_comes_back_at_every_size_class() {
        for len in [0usize, 1, 40, 48, 95, 96, 97, 1000, 1140, 1153, 70_000] {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let m = Message::uncounted(&parts(&[0x10, 0, 2]), &body);
            assert_eq!(m.exchange(), "ex");
            assert_eq!(m.routing_key().as_bytes(), b"k\xffy");
            assert_eq!(m.properties(), [0x10, 0, 2]);
            assert_eq!(m.body(), body);
            assert_eq!(m.contents().len(), 8 + len);
            assert!(m.is_persistent());
        }
    }
}
