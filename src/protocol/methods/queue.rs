//! Class `queue` (50). Queues and their bindings.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::field_table::TableRef;
use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `queue.declare`: Creates a queue, or checks one. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Declare<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `passive`, bit.
    pub passive: bool,
    /// `durable`, bit.
    pub durable: bool,
    /// `exclusive`, bit.
    pub exclusive: bool,
    /// `auto-delete`, bit.
    pub auto_delete: bool,
    /// `nowait`, bit.
    pub nowait: bool,
    /// `arguments`, table.
    pub arguments: TableRef<'a>,
}

impl<'a> Declare<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let bits = r.octet()?;
        let passive = bits & 0x01 != 0;
        let durable = bits & 0x02 != 0;
        let exclusive = bits & 0x04 != 0;
        let auto_delete = bits & 0x08 != 0;
        let nowait = bits & 0x10 != 0;
        let arguments = r.table()?;
        Ok(Declare {
            queue,
            passive,
            durable,
            exclusive,
            auto_delete,
            nowait,
            arguments,
        })
    }
}

impl EncodeMethod for Declare<'_> {
    const ID: MethodId = MethodId {
        class: 50,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        8 + self.queue.len() + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.octet(
            u8::from(self.passive)
                | u8::from(self.durable) << 1
                | u8::from(self.exclusive) << 2
                | u8::from(self.auto_delete) << 3
                | u8::from(self.nowait) << 4,
        );
        w.long_str(self.arguments.as_bytes());
    }
}

/// `queue.declare-ok`: The queue is there, with its ready messages and consumers. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeclareOk<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `message-count`, long.
    pub message_count: u32,
    /// `consumer-count`, long.
    pub consumer_count: u32,
}

impl<'a> DeclareOk<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let queue = r.short_str()?;
        let message_count = r.long()?;
        let consumer_count = r.long()?;
        Ok(DeclareOk {
            queue,
            message_count,
            consumer_count,
        })
    }
}

impl EncodeMethod for DeclareOk<'_> {
    const ID: MethodId = MethodId {
        class: 50,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        9 + self.queue.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.queue);
        w.long(self.message_count);
        w.long(self.consumer_count);
    }
}

/// `queue.bind`: Binds a queue to an exchange. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bind<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `exchange`, shortstr.
    pub exchange: &'a str,
    /// `routing-key`, shortstr.
    pub routing_key: &'a str,
    /// `nowait`, bit.
    pub nowait: bool,
    /// `arguments`, table.
    pub arguments: TableRef<'a>,
}

impl<'a> Bind<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let exchange = r.short_str()?;
        let routing_key = r.short_str()?;
        let bits = r.octet()?;
        let nowait = bits & 0x01 != 0;
        let arguments = r.table()?;
        Ok(Bind {
            queue,
            exchange,
            routing_key,
            nowait,
            arguments,
        })
    }
}

impl EncodeMethod for Bind<'_> {
    const ID: MethodId = MethodId {
        class: 50,
        method: 20,
    };

    fn encoded_len(&self) -> usize {
        10 + self.queue.len()
            + self.exchange.len()
            + self.routing_key.len()
            + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.short_str(self.exchange);
        w.short_str(self.routing_key);
        w.octet(u8::from(self.nowait));
        w.long_str(self.arguments.as_bytes());
    }
}

/// `queue.bind-ok`: The binding is there. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BindOk;

impl BindOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(BindOk)
    }
}

impl EncodeMethod for BindOk {
    const ID: MethodId = MethodId {
        class: 50,
        method: 21,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `queue.purge`: Removes all ready messages. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Purge<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `nowait`, bit.
    pub nowait: bool,
}

impl<'a> Purge<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let bits = r.octet()?;
        let nowait = bits & 0x01 != 0;
        Ok(Purge { queue, nowait })
    }
}

impl EncodeMethod for Purge<'_> {
    const ID: MethodId = MethodId {
        class: 50,
        method: 30,
    };

    fn encoded_len(&self) -> usize {
        4 + self.queue.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.octet(u8::from(self.nowait));
    }
}

/// `queue.purge-ok`: How many were removed. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PurgeOk {
    /// `message-count`, long.
    pub message_count: u32,
}

impl PurgeOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let message_count = r.long()?;
        Ok(PurgeOk { message_count })
    }
}

impl EncodeMethod for PurgeOk {
    const ID: MethodId = MethodId {
        class: 50,
        method: 31,
    };

    fn encoded_len(&self) -> usize {
        4
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long(self.message_count);
    }
}

/// `queue.delete`: Deletes a queue. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delete<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `if-unused`, bit.
    pub if_unused: bool,
    /// `if-empty`, bit.
    pub if_empty: bool,
    /// `nowait`, bit.
    pub nowait: bool,
}

impl<'a> Delete<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let bits = r.octet()?;
        let if_unused = bits & 0x01 != 0;
        let if_empty = bits & 0x02 != 0;
        let nowait = bits & 0x04 != 0;
        Ok(Delete {
            queue,
            if_unused,
            if_empty,
            nowait,
        })
    }
}

impl EncodeMethod for Delete<'_> {
    const ID: MethodId = MethodId {
        class: 50,
        method: 40,
    };

    fn encoded_len(&self) -> usize {
        4 + self.queue.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.octet(
            u8::from(self.if_unused) | u8::from(self.if_empty) << 1 | u8::from(self.nowait) << 2,
        );
    }
}

/// `queue.delete-ok`: How many ready messages went with it. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeleteOk {
    /// `message-count`, long.
    pub message_count: u32,
}

impl DeleteOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let message_count = r.long()?;
        Ok(DeleteOk { message_count })
    }
}

impl EncodeMethod for DeleteOk {
    const ID: MethodId = MethodId {
        class: 50,
        method: 41,
    };

    fn encoded_len(&self) -> usize {
        4
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long(self.message_count);
    }
}

/// `queue.unbind`: Removes a binding. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unbind<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `exchange`, shortstr.
    pub exchange: &'a str,
    /// `routing-key`, shortstr.
    pub routing_key: &'a str,
    /// `arguments`, table.
    pub arguments: TableRef<'a>,
}

impl<'a> Unbind<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let exchange = r.short_str()?;
        let routing_key = r.short_str()?;
        let arguments = r.table()?;
        Ok(Unbind {
            queue,
            exchange,
            routing_key,
            arguments,
        })
    }
}

impl EncodeMethod for Unbind<'_> {
    const ID: MethodId = MethodId {
        class: 50,
        method: 50,
    };

    fn encoded_len(&self) -> usize {
        9 + self.queue.len()
            + self.exchange.len()
            + self.routing_key.len()
            + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.short_str(self.exchange);
        w.short_str(self.routing_key);
        w.long_str(self.arguments.as_bytes());
    }
}

/// `queue.unbind-ok`: The binding is gone. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UnbindOk;

impl UnbindOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(UnbindOk)
    }
}

impl EncodeMethod for UnbindOk {
    const ID: MethodId = MethodId {
        class: 50,
        method: 51,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}
