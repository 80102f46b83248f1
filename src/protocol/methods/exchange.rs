//! Class `exchange` (40). Exchanges and the bindings between them.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::field_table::TableRef;
use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `exchange.declare`: Creates an exchange, or checks one. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Declare<'a> {
    /// `exchange`, shortstr.
    pub exchange: &'a str,
    /// `type`, shortstr.
    pub type_: &'a str,
    /// `passive`, bit.
    pub passive: bool,
    /// `durable`, bit.
    pub durable: bool,
    /// `auto-delete`, bit.
    pub auto_delete: bool,
    /// `internal`, bit.
    pub internal: bool,
    /// `nowait`, bit.
    pub nowait: bool,
    /// `arguments`, table.
    pub arguments: TableRef<'a>,
}

impl<'a> Declare<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let exchange = r.short_str()?;
        let type_ = r.short_str()?;
        let bits = r.octet()?;
        let passive = bits & 0x01 != 0;
        let durable = bits & 0x02 != 0;
        let auto_delete = bits & 0x04 != 0;
        let internal = bits & 0x08 != 0;
        let nowait = bits & 0x10 != 0;
        let arguments = r.table()?;
        Ok(Declare {
            exchange,
            type_,
            passive,
            durable,
            auto_delete,
            internal,
            nowait,
            arguments,
        })
    }
}

impl EncodeMethod for Declare<'_> {
    const ID: MethodId = MethodId {
        class: 40,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        9 + self.exchange.len() + self.type_.len() + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.exchange);
        w.short_str(self.type_);
        w.octet(
            u8::from(self.passive)
                | u8::from(self.durable) << 1
                | u8::from(self.auto_delete) << 2
                | u8::from(self.internal) << 3
                | u8::from(self.nowait) << 4,
        );
        w.long_str(self.arguments.as_bytes());
    }
}

/// `exchange.declare-ok`: The exchange is there. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeclareOk;

impl DeclareOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(DeclareOk)
    }
}

impl EncodeMethod for DeclareOk {
    const ID: MethodId = MethodId {
        class: 40,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `exchange.delete`: Deletes an exchange. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delete<'a> {
    /// `exchange`, shortstr.
    pub exchange: &'a str,
    /// `if-unused`, bit.
    pub if_unused: bool,
    /// `nowait`, bit.
    pub nowait: bool,
}

impl<'a> Delete<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let exchange = r.short_str()?;
        let bits = r.octet()?;
        let if_unused = bits & 0x01 != 0;
        let nowait = bits & 0x02 != 0;
        Ok(Delete {
            exchange,
            if_unused,
            nowait,
        })
    }
}

impl EncodeMethod for Delete<'_> {
    const ID: MethodId = MethodId {
        class: 40,
        method: 20,
    };

    fn encoded_len(&self) -> usize {
        4 + self.exchange.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.exchange);
        w.octet(u8::from(self.if_unused) | u8::from(self.nowait) << 1);
    }
}

/// `exchange.delete-ok`: The exchange is gone. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeleteOk;

impl DeleteOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(DeleteOk)
    }
}

impl EncodeMethod for DeleteOk {
    const ID: MethodId = MethodId {
        class: 40,
        method: 21,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `exchange.bind`: Binds an exchange to an exchange (RabbitMQ extension). Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bind<'a> {
    /// `destination`, shortstr.
    pub destination: &'a str,
    /// `source`, shortstr.
    pub source: &'a str,
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
        let destination = r.short_str()?;
        let source = r.short_str()?;
        let routing_key = r.short_str()?;
        let bits = r.octet()?;
        let nowait = bits & 0x01 != 0;
        let arguments = r.table()?;
        Ok(Bind {
            destination,
            source,
            routing_key,
            nowait,
            arguments,
        })
    }
}

impl EncodeMethod for Bind<'_> {
    const ID: MethodId = MethodId {
        class: 40,
        method: 30,
    };

    fn encoded_len(&self) -> usize {
        10 + self.destination.len()
            + self.source.len()
            + self.routing_key.len()
            + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.destination);
        w.short_str(self.source);
        w.short_str(self.routing_key);
        w.octet(u8::from(self.nowait));
        w.long_str(self.arguments.as_bytes());
    }
}

/// `exchange.bind-ok`: The binding is there. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BindOk;

impl BindOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(BindOk)
    }
}

impl EncodeMethod for BindOk {
    const ID: MethodId = MethodId {
        class: 40,
        method: 31,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `exchange.unbind`: Removes such a binding (RabbitMQ extension). Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unbind<'a> {
    /// `destination`, shortstr.
    pub destination: &'a str,
    /// `source`, shortstr.
    pub source: &'a str,
    /// `routing-key`, shortstr.
    pub routing_key: &'a str,
    /// `nowait`, bit.
    pub nowait: bool,
    /// `arguments`, table.
    pub arguments: TableRef<'a>,
}

impl<'a> Unbind<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.short()?;
        let destination = r.short_str()?;
        let source = r.short_str()?;
        let routing_key = r.short_str()?;
        let bits = r.octet()?;
        let nowait = bits & 0x01 != 0;
        let arguments = r.table()?;
        Ok(Unbind {
            destination,
            source,
            routing_key,
            nowait,
            arguments,
        })
    }
}

impl EncodeMethod for Unbind<'_> {
    const ID: MethodId = MethodId {
        class: 40,
        method: 40,
    };

    fn encoded_len(&self) -> usize {
        10 + self.destination.len()
            + self.source.len()
            + self.routing_key.len()
            + self.arguments.as_bytes().len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(0);
        w.short_str(self.destination);
        w.short_str(self.source);
        w.short_str(self.routing_key);
        w.octet(u8::from(self.nowait));
        w.long_str(self.arguments.as_bytes());
    }
}

/// `exchange.unbind-ok`: The binding is gone. The id is 51, not 41. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UnbindOk;

impl UnbindOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(UnbindOk)
    }
}

impl EncodeMethod for UnbindOk {
    const ID: MethodId = MethodId {
        class: 40,
        method: 51,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}
