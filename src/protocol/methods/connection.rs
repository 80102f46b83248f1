//! Class `connection` (10). Setting up and closing a connection.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::field_table::TableRef;
use super::super::wire::{Malformed, Reader, Writer};
use super::{EncodeMethod, MethodId};

/// `connection.start`: Offers authentication mechanisms and locales. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Start<'a> {
    /// `version-major`, octet.
    pub version_major: u8,
    /// `version-minor`, octet.
    pub version_minor: u8,
    /// `server-properties`, table.
    pub server_properties: TableRef<'a>,
    /// `mechanisms`, longstr.
    pub mechanisms: &'a [u8],
    /// `locales`, longstr.
    pub locales: &'a [u8],
}

impl<'a> Start<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let version_major = r.octet()?;
        let version_minor = r.octet()?;
        let server_properties = r.table()?;
        let mechanisms = r.long_str()?;
        let locales = r.long_str()?;
        Ok(Start {
            version_major,
            version_minor,
            server_properties,
            mechanisms,
            locales,
        })
    }
}

impl EncodeMethod for Start<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        14 + self.server_properties.as_bytes().len() + self.mechanisms.len() + self.locales.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(self.version_major);
        w.octet(self.version_minor);
        w.long_str(self.server_properties.as_bytes());
        w.long_str(self.mechanisms);
        w.long_str(self.locales);
    }
}

/// `connection.start-ok`: Chooses a mechanism and answers it. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StartOk<'a> {
    /// `client-properties`, table.
    pub client_properties: TableRef<'a>,
    /// `mechanism`, shortstr.
    pub mechanism: &'a str,
    /// `response`, longstr.
    pub response: &'a [u8],
    /// `locale`, shortstr.
    pub locale: &'a str,
}

impl<'a> StartOk<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let client_properties = r.table()?;
        let mechanism = r.short_str()?;
        let response = r.long_str()?;
        let locale = r.short_str()?;
        Ok(StartOk {
            client_properties,
            mechanism,
            response,
            locale,
        })
    }
}

impl EncodeMethod for StartOk<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        10 + self.client_properties.as_bytes().len()
            + self.mechanism.len()
            + self.response.len()
            + self.locale.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long_str(self.client_properties.as_bytes());
        w.short_str(self.mechanism);
        w.long_str(self.response);
        w.short_str(self.locale);
    }
}

/// `connection.secure`: A further challenge of the mechanism. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Secure<'a> {
    /// `challenge`, longstr.
    pub challenge: &'a [u8],
}

impl<'a> Secure<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let challenge = r.long_str()?;
        Ok(Secure { challenge })
    }
}

impl EncodeMethod for Secure<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 20,
    };

    fn encoded_len(&self) -> usize {
        4 + self.challenge.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long_str(self.challenge);
    }
}

/// `connection.secure-ok`: The answer to a challenge. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SecureOk<'a> {
    /// `response`, longstr.
    pub response: &'a [u8],
}

impl<'a> SecureOk<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let response = r.long_str()?;
        Ok(SecureOk { response })
    }
}

impl EncodeMethod for SecureOk<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 21,
    };

    fn encoded_len(&self) -> usize {
        4 + self.response.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long_str(self.response);
    }
}

/// `connection.tune`: Proposes limits; heartbeat in seconds. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tune {
    /// `channel-max`, short.
    pub channel_max: u16,
    /// `frame-max`, long.
    pub frame_max: u32,
    /// `heartbeat`, short.
    pub heartbeat: u16,
}

impl Tune {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let channel_max = r.short()?;
        let frame_max = r.long()?;
        let heartbeat = r.short()?;
        Ok(Tune {
            channel_max,
            frame_max,
            heartbeat,
        })
    }
}

impl EncodeMethod for Tune {
    const ID: MethodId = MethodId {
        class: 10,
        method: 30,
    };

    fn encoded_len(&self) -> usize {
        8
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(self.channel_max);
        w.long(self.frame_max);
        w.short(self.heartbeat);
    }
}

/// `connection.tune-ok`: The limits that hold. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TuneOk {
    /// `channel-max`, short.
    pub channel_max: u16,
    /// `frame-max`, long.
    pub frame_max: u32,
    /// `heartbeat`, short.
    pub heartbeat: u16,
}

impl TuneOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let channel_max = r.short()?;
        let frame_max = r.long()?;
        let heartbeat = r.short()?;
        Ok(TuneOk {
            channel_max,
            frame_max,
            heartbeat,
        })
    }
}

impl EncodeMethod for TuneOk {
    const ID: MethodId = MethodId {
        class: 10,
        method: 31,
    };

    fn encoded_len(&self) -> usize {
        8
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short(self.channel_max);
        w.long(self.frame_max);
        w.short(self.heartbeat);
    }
}

/// `connection.open`: Enters a vhost. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Open<'a> {
    /// `virtual-host`, shortstr.
    pub virtual_host: &'a str,
}

impl<'a> Open<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let virtual_host = r.short_str()?;
        r.short_str()?;
        r.octet()?;
        Ok(Open { virtual_host })
    }
}

impl EncodeMethod for Open<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 40,
    };

    fn encoded_len(&self) -> usize {
        3 + self.virtual_host.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.virtual_host);
        w.octet(0);
        w.octet(0);
    }
}

/// `connection.open-ok`: The vhost is open. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OpenOk;

impl OpenOk {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.short_str()?;
        Ok(OpenOk)
    }
}

impl EncodeMethod for OpenOk {
    const ID: MethodId = MethodId {
        class: 10,
        method: 41,
    };

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.octet(0);
    }
}

/// `connection.close`: Ends the connection, with the method at fault if there is one. Sent by either side.
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
        class: 10,
        method: 50,
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

/// `connection.close-ok`: Confirms the end. Sent by either side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CloseOk;

impl CloseOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(CloseOk)
    }
}

impl EncodeMethod for CloseOk {
    const ID: MethodId = MethodId {
        class: 10,
        method: 51,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `connection.blocked`: Publishing is suspended (RabbitMQ extension). Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Blocked<'a> {
    /// `reason`, shortstr.
    pub reason: &'a str,
}

impl<'a> Blocked<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let reason = r.short_str()?;
        Ok(Blocked { reason })
    }
}

impl EncodeMethod for Blocked<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 60,
    };

    fn encoded_len(&self) -> usize {
        1 + self.reason.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.short_str(self.reason);
    }
}

/// `connection.unblocked`: Publishing may go on (RabbitMQ extension). Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unblocked;

impl Unblocked {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Unblocked)
    }
}

impl EncodeMethod for Unblocked {
    const ID: MethodId = MethodId {
        class: 10,
        method: 61,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `connection.update-secret`: Replaces the credentials (RabbitMQ extension). Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpdateSecret<'a> {
    /// `new-secret`, longstr.
    pub new_secret: &'a [u8],
    /// `reason`, shortstr.
    pub reason: &'a str,
}

impl<'a> UpdateSecret<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let new_secret = r.long_str()?;
        let reason = r.short_str()?;
        Ok(UpdateSecret { new_secret, reason })
    }
}

impl EncodeMethod for UpdateSecret<'_> {
    const ID: MethodId = MethodId {
        class: 10,
        method: 70,
    };

    fn encoded_len(&self) -> usize {
        5 + self.new_secret.len() + self.reason.len()
    }

    fn encode(&self, buf: &mut BytesMut) {
        let mut w = Writer(buf);
        w.long_str(self.new_secret);
        w.short_str(self.reason);
    }
}

/// `connection.update-secret-ok`: The new credentials hold (RabbitMQ extension). Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpdateSecretOk;

impl UpdateSecretOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(UpdateSecretOk)
    }
}

impl EncodeMethod for UpdateSecretOk {
    const ID: MethodId = MethodId {
        class: 10,
        method: 71,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}
