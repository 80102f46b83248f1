//! Class `confirm` (85). Publisher confirms (RabbitMQ extension).
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `confirm.select`: Puts the channel into confirm mode. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Select {
    /// `nowait`, bit.
    pub nowait: bool,
}

impl Select {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = r.octet()?;
        let nowait = bits & 0x01 != 0;
        Ok(Select { nowait })
    }
}

impl EncodeMethod for Select {
    const ID: MethodId = MethodId {
        class: 85,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(u8::from(self.nowait));
    }
}

/// `confirm.select-ok`: It is. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SelectOk;

impl SelectOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(SelectOk)
    }
}

impl EncodeMethod for SelectOk {
    const ID: MethodId = MethodId {
        class: 85,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}
