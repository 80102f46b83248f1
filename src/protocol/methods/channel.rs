//! Class `channel` (20). Channels within a connection.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `channel.open`: Opens the channel. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Open;

impl Open {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.short_str()?;
        Ok(Open)
    }
}

impl EncodeMethod for Open {
    const ID: MethodId = MethodId {
        class: 20,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(0);
    }
}

/// `channel.open-ok`: The channel is open. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OpenOk;

impl OpenOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.long_str()?;
        Ok(OpenOk)
    }
}

impl EncodeMethod for OpenOk {
    const ID: MethodId = MethodId {
        class: 20,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        4
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long(0);
    }
}

/// `channel.flow`: Asks the peer to pause or go on with content. Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow {
    /// `active`, bit.
    pub active: bool,
}

impl Flow {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = r.octet()?;
        let active = bits & 0x01 != 0;
        Ok(Flow { active })
    }
}

impl EncodeMethod for Flow {
    const ID: MethodId = MethodId {
        class: 20,
        method: 20,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(u8::from(self.active));
    }
}

/// `channel.flow-ok`: Answers flow. Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowOk {
    /// `active`, bit.
    pub active: bool,
}

impl FlowOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = r.octet()?;
        let active = bits & 0x01 != 0;
        Ok(FlowOk { active })
    }
}

impl EncodeMethod for FlowOk {
    const ID: MethodId = MethodId {
        class: 20,
        method: 21,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(u8::from(self.active));
    }
}

/// `channel.close`: Ends the channel, with the method at fault if there is one. Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Close<'a> {
    /// `reply-code`, short.
    pub reply_code: u16,
    /// `reply-text`, shortstr.
    pub reply_text: &'a str,
    /// `class-id`, short.
    pub class_id: u16,
    /// `method-id`, short.
    pub method_id: u16,
}

impl<'a> Close<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let reply_code = r.short()?;
        let reply_text = r.short_str()?;
        let class_id = r.short()?;
        let method_id = r.short()?;
        Ok(Close {
            reply_code,
            reply_text,
            class_id,
            method_id,
        })
    }
}

impl EncodeMethod for Close<'_> {
    const ID: MethodId = MethodId {
        class: 20,
        method: 40,
    };

    fn encoded_len(&self) -> usize {
        7 + self.reply_text.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(self.reply_code);
        w.short_str(self.reply_text);
        w.short(self.class_id);
        w.short(self.method_id);
    }
}

/// `channel.close-ok`: Confirms the end. Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CloseOk;

impl CloseOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(CloseOk)
    }
}

impl EncodeMethod for CloseOk {
    const ID: MethodId = MethodId {
        class: 20,
        method: 41,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}
