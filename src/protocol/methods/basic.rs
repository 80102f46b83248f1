//! Class `basic` (60). Publishing, delivering and settling messages.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::field_table::TableRef;
use super::super::short::ShortBytes;
use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `basic.qos`: Limits unacknowledged messages. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Qos {
    /// `prefetch-size`, long.
    pub prefetch_size: u32,
    /// `prefetch-count`, short.
    pub prefetch_count: u16,
    /// `global`, bit.
    pub global: bool,
}

impl Qos {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let prefetch_size = r.long()?;
        let prefetch_count = r.short()?;
        let bits = r.octet()?;
        let global = bits & 0x01 != 0;
        Ok(Qos {
            prefetch_size,
            prefetch_count,
            global,
        })
    }
}

impl EncodeMethod for Qos {
    const ID: MethodId = MethodId {
        class: 60,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        7
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long(self.prefetch_size);
        w.short(self.prefetch_count);
        w.octet(u8::from(self.global));
    }
}

/// `basic.qos-ok`: The limit holds. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QosOk;

impl QosOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(QosOk)
    }
}

impl EncodeMethod for QosOk {
    const ID: MethodId = MethodId {
        class: 60,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `basic.consume`: Starts a consumer. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Consume<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `consumer-tag`, shortstr.
    pub consumer_tag: &'a str,
    /// `no-local`, bit.
    pub no_local: bool,
    /// `no-ack`, bit.
    pub no_ack: bool,
    /// `exclusive`, bit.
    pub exclusive: bool,
    /// `nowait`, bit.
    pub nowait: bool,
    /// `arguments`, table.
    pub arguments: TableRef<'a>,
}

impl<'a> Consume<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let consumer_tag = r.short_str()?;
        let bits = r.octet()?;
        let no_local = bits & 0x01 != 0;
        let no_ack = bits & 0x02 != 0;
        let exclusive = bits & 0x04 != 0;
        let nowait = bits & 0x08 != 0;
        let arguments = r.table()?;
        Ok(Consume {
            queue,
            consumer_tag,
            no_local,
            no_ack,
            exclusive,
            nowait,
            arguments,
        })
    }
}

impl EncodeMethod for Consume<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 20,
    };

    fn encoded_len(&self) -> usize {
        9 + self.queue.len() + self.consumer_tag.len() + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.short_str(self.consumer_tag);
        w.octet(
            u8::from(self.no_local)
                | u8::from(self.no_ack) << 1
                | u8::from(self.exclusive) << 2
                | u8::from(self.nowait) << 3,
        );
        w.long_str(self.arguments.as_bytes());
    }
}

/// `basic.consume-ok`: The consumer is there. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConsumeOk<'a> {
    /// `consumer-tag`, shortstr.
    pub consumer_tag: &'a str,
}

impl<'a> ConsumeOk<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let consumer_tag = r.short_str()?;
        Ok(ConsumeOk { consumer_tag })
    }
}

impl EncodeMethod for ConsumeOk<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 21,
    };

    fn encoded_len(&self) -> usize {
        1 + self.consumer_tag.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.consumer_tag);
    }
}

/// `basic.cancel`: Ends a consumer; from the server: its queue is gone (RabbitMQ extension). Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cancel<'a> {
    /// `consumer-tag`, shortstr.
    pub consumer_tag: &'a str,
    /// `nowait`, bit.
    pub nowait: bool,
}

impl<'a> Cancel<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let consumer_tag = r.short_str()?;
        let bits = r.octet()?;
        let nowait = bits & 0x01 != 0;
        Ok(Cancel {
            consumer_tag,
            nowait,
        })
    }
}

impl EncodeMethod for Cancel<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 30,
    };

    fn encoded_len(&self) -> usize {
        2 + self.consumer_tag.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.consumer_tag);
        w.octet(u8::from(self.nowait));
    }
}

/// `basic.cancel-ok`: The consumer is gone. Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CancelOk<'a> {
    /// `consumer-tag`, shortstr.
    pub consumer_tag: &'a str,
}

impl<'a> CancelOk<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let consumer_tag = r.short_str()?;
        Ok(CancelOk { consumer_tag })
    }
}

impl EncodeMethod for CancelOk<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 31,
    };

    fn encoded_len(&self) -> usize {
        1 + self.consumer_tag.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.consumer_tag);
    }
}

/// `basic.publish`: A message follows. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Publish<'a> {
    /// `exchange`, shortbytes.
    pub exchange: ShortBytes<'a>,
    /// `routing-key`, shortbytes.
    pub routing_key: ShortBytes<'a>,
    /// `mandatory`, bit.
    pub mandatory: bool,
    /// `immediate`, bit.
    pub immediate: bool,
}

impl<'a> Publish<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let exchange = r.short_bytes()?;
        let routing_key = r.short_bytes()?;
        let bits = r.octet()?;
        let mandatory = bits & 0x01 != 0;
        let immediate = bits & 0x02 != 0;
        Ok(Publish {
            exchange,
            routing_key,
            mandatory,
            immediate,
        })
    }
}

impl EncodeMethod for Publish<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 40,
    };

    fn encoded_len(&self) -> usize {
        5 + self.exchange.len() + self.routing_key.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_bytes(self.exchange);
        w.short_bytes(self.routing_key);
        w.octet(u8::from(self.mandatory) | u8::from(self.immediate) << 1);
    }
}

/// `basic.return`: A mandatory message that no queue took follows. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Return<'a> {
    /// `reply-code`, short.
    pub reply_code: u16,
    /// `reply-text`, shortstr.
    pub reply_text: &'a str,
    /// `exchange`, shortbytes.
    pub exchange: ShortBytes<'a>,
    /// `routing-key`, shortbytes.
    pub routing_key: ShortBytes<'a>,
}

impl<'a> Return<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let reply_code = r.short()?;
        let reply_text = r.short_str()?;
        let exchange = r.short_bytes()?;
        let routing_key = r.short_bytes()?;
        Ok(Return {
            reply_code,
            reply_text,
            exchange,
            routing_key,
        })
    }
}

impl EncodeMethod for Return<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 50,
    };

    fn encoded_len(&self) -> usize {
        5 + self.reply_text.len() + self.exchange.len() + self.routing_key.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(self.reply_code);
        w.short_str(self.reply_text);
        w.short_bytes(self.exchange);
        w.short_bytes(self.routing_key);
    }
}

/// `basic.deliver`: A message for a consumer follows. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deliver<'a> {
    /// `consumer-tag`, shortstr.
    pub consumer_tag: &'a str,
    /// `delivery-tag`, longlong.
    pub delivery_tag: u64,
    /// `redelivered`, bit.
    pub redelivered: bool,
    /// `exchange`, shortbytes.
    pub exchange: ShortBytes<'a>,
    /// `routing-key`, shortbytes.
    pub routing_key: ShortBytes<'a>,
}

impl<'a> Deliver<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let consumer_tag = r.short_str()?;
        let delivery_tag = r.longlong()?;
        let bits = r.octet()?;
        let redelivered = bits & 0x01 != 0;
        let exchange = r.short_bytes()?;
        let routing_key = r.short_bytes()?;
        Ok(Deliver {
            consumer_tag,
            delivery_tag,
            redelivered,
            exchange,
            routing_key,
        })
    }
}

impl EncodeMethod for Deliver<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 60,
    };

    fn encoded_len(&self) -> usize {
        12 + self.consumer_tag.len() + self.exchange.len() + self.routing_key.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.consumer_tag);
        w.longlong(self.delivery_tag);
        w.octet(u8::from(self.redelivered));
        w.short_bytes(self.exchange);
        w.short_bytes(self.routing_key);
    }
}

/// `basic.get`: Asks for one message. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Get<'a> {
    /// `queue`, shortstr.
    pub queue: &'a str,
    /// `no-ack`, bit.
    pub no_ack: bool,
}

impl<'a> Get<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let queue = r.short_str()?;
        let bits = r.octet()?;
        let no_ack = bits & 0x01 != 0;
        Ok(Get { queue, no_ack })
    }
}

impl EncodeMethod for Get<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 70,
    };

    fn encoded_len(&self) -> usize {
        4 + self.queue.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.queue);
        w.octet(u8::from(self.no_ack));
    }
}

/// `basic.get-ok`: It follows; so many are ready after it. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GetOk<'a> {
    /// `delivery-tag`, longlong.
    pub delivery_tag: u64,
    /// `redelivered`, bit.
    pub redelivered: bool,
    /// `exchange`, shortbytes.
    pub exchange: ShortBytes<'a>,
    /// `routing-key`, shortbytes.
    pub routing_key: ShortBytes<'a>,
    /// `message-count`, long.
    pub message_count: u32,
}

impl<'a> GetOk<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let delivery_tag = r.longlong()?;
        let bits = r.octet()?;
        let redelivered = bits & 0x01 != 0;
        let exchange = r.short_bytes()?;
        let routing_key = r.short_bytes()?;
        let message_count = r.long()?;
        Ok(GetOk {
            delivery_tag,
            redelivered,
            exchange,
            routing_key,
            message_count,
        })
    }
}

impl EncodeMethod for GetOk<'_> {
    const ID: MethodId = MethodId {
        class: 60,
        method: 71,
    };

    fn encoded_len(&self) -> usize {
        15 + self.exchange.len() + self.routing_key.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.longlong(self.delivery_tag);
        w.octet(u8::from(self.redelivered));
        w.short_bytes(self.exchange);
        w.short_bytes(self.routing_key);
        w.long(self.message_count);
    }
}

/// `basic.get-empty`: There is none. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GetEmpty;

impl GetEmpty {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.short_str()?;
        Ok(GetEmpty)
    }
}

impl EncodeMethod for GetEmpty {
    const ID: MethodId = MethodId {
        class: 60,
        method: 72,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(0);
    }
}

/// `basic.ack`: Acknowledges deliveries; from the server: confirms publishes (RabbitMQ extension). Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ack {
    /// `delivery-tag`, longlong.
    pub delivery_tag: u64,
    /// `multiple`, bit.
    pub multiple: bool,
}

impl Ack {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let delivery_tag = r.longlong()?;
        let bits = r.octet()?;
        let multiple = bits & 0x01 != 0;
        Ok(Ack {
            delivery_tag,
            multiple,
        })
    }
}

impl EncodeMethod for Ack {
    const ID: MethodId = MethodId {
        class: 60,
        method: 80,
    };

    fn encoded_len(&self) -> usize {
        9
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.longlong(self.delivery_tag);
        w.octet(u8::from(self.multiple));
    }
}

/// `basic.reject`: Rejects one delivery. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reject {
    /// `delivery-tag`, longlong.
    pub delivery_tag: u64,
    /// `requeue`, bit.
    pub requeue: bool,
}

impl Reject {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let delivery_tag = r.longlong()?;
        let bits = r.octet()?;
        let requeue = bits & 0x01 != 0;
        Ok(Reject {
            delivery_tag,
            requeue,
        })
    }
}

impl EncodeMethod for Reject {
    const ID: MethodId = MethodId {
        class: 60,
        method: 90,
    };

    fn encoded_len(&self) -> usize {
        9
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.longlong(self.delivery_tag);
        w.octet(u8::from(self.requeue));
    }
}

/// `basic.recover-async`: As recover, without an answer. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecoverAsync {
    /// `requeue`, bit.
    pub requeue: bool,
}

impl RecoverAsync {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = r.octet()?;
        let requeue = bits & 0x01 != 0;
        Ok(RecoverAsync { requeue })
    }
}

impl EncodeMethod for RecoverAsync {
    const ID: MethodId = MethodId {
        class: 60,
        method: 100,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(u8::from(self.requeue));
    }
}

/// `basic.recover`: Returns all unacknowledged messages of the channel. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recover {
    /// `requeue`, bit.
    pub requeue: bool,
}

impl Recover {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = r.octet()?;
        let requeue = bits & 0x01 != 0;
        Ok(Recover { requeue })
    }
}

impl EncodeMethod for Recover {
    const ID: MethodId = MethodId {
        class: 60,
        method: 110,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(u8::from(self.requeue));
    }
}

/// `basic.recover-ok`: They are returned. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecoverOk;

impl RecoverOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(RecoverOk)
    }
}

impl EncodeMethod for RecoverOk {
    const ID: MethodId = MethodId {
        class: 60,
        method: 111,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `basic.nack`: Rejects deliveries; from the server: a publish was refused (RabbitMQ extension). Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Nack {
    /// `delivery-tag`, longlong.
    pub delivery_tag: u64,
    /// `multiple`, bit.
    pub multiple: bool,
    /// `requeue`, bit.
    pub requeue: bool,
}

impl Nack {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let delivery_tag = r.longlong()?;
        let bits = r.octet()?;
        let multiple = bits & 0x01 != 0;
        let requeue = bits & 0x02 != 0;
        Ok(Nack {
            delivery_tag,
            multiple,
            requeue,
        })
    }
}

impl EncodeMethod for Nack {
    const ID: MethodId = MethodId {
        class: 60,
        method: 120,
    };

    fn encoded_len(&self) -> usize {
        9
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.longlong(self.delivery_tag);
        w.octet(u8::from(self.multiple) | u8::from(self.requeue) << 1);
    }
}
