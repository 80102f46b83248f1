//! Class `access` (30). Realms, a leftover of AMQP 0-8 that RabbitMQ still answers.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `access.request`: Asks for a ticket. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Request<'a> {
    /// `realm`, shortstr.
    pub realm: &'a str,
    /// `exclusive`, bit.
    pub exclusive: bool,
    /// `passive`, bit.
    pub passive: bool,
    /// `active`, bit.
    pub active: bool,
    /// `write`, bit.
    pub write: bool,
    /// `read`, bit.
    pub read: bool,
}

impl<'a> Request<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let realm = r.short_str()?;
        let bits = r.octet()?;
        let exclusive = bits & 0x01 != 0;
        let passive = bits & 0x02 != 0;
        let active = bits & 0x04 != 0;
        let write = bits & 0x08 != 0;
        let read = bits & 0x10 != 0;
        Ok(Request {
            realm,
            exclusive,
            passive,
            active,
            write,
            read,
        })
    }
}

impl EncodeMethod for Request<'_> {
    const ID: MethodId = MethodId {
        class: 30,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        2 + self.realm.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.realm);
        w.octet(
            u8::from(self.exclusive)
                | u8::from(self.passive) << 1
                | u8::from(self.active) << 2
                | u8::from(self.write) << 3
                | u8::from(self.read) << 4,
        );
    }
}

/// `access.request-ok`: The ticket, which means nothing. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RequestOk {
    /// `ticket`, short.
    pub ticket: u16,
}

impl RequestOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let ticket = r.short()?;
        Ok(RequestOk { ticket })
    }
}

impl EncodeMethod for RequestOk {
    const ID: MethodId = MethodId {
        class: 30,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        2
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(self.ticket);
    }
}
