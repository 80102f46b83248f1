//! Content headers and the properties of a message.
//!
//! A broker hands properties through: they are kept as the publisher sent them, flags and list, and
//! read only where their meaning matters.

use super::field_table::{self, FieldTable, TableRef};
use super::raw::Splice;
use super::short::{ShortBuf, ShortBytes};
use super::wire::{DecodeError, Malformed, Reader};

/// Class that messages belong to.
pub const CLASS_BASIC: u16 = 60;

/// Flag bits, in list order.
mod flag {
    pub const CONTENT_TYPE: u16 = 1 << 15;
    pub const CONTENT_ENCODING: u16 = 1 << 14;
    pub const HEADERS: u16 = 1 << 13;
    pub const DELIVERY_MODE: u16 = 1 << 12;
    pub const PRIORITY: u16 = 1 << 11;
    pub const CORRELATION_ID: u16 = 1 << 10;
    pub const REPLY_TO: u16 = 1 << 9;
    pub const EXPIRATION: u16 = 1 << 8;
    pub const MESSAGE_ID: u16 = 1 << 7;
    pub const TIMESTAMP: u16 = 1 << 6;
    pub const TYPE: u16 = 1 << 5;
    pub const USER_ID: u16 = 1 << 4;
    pub const APP_ID: u16 = 1 << 3;
    pub const CLUSTER_ID: u16 = 1 << 2;
    /// Another word of flags follows; no class has that many properties.
    pub const MORE: u16 = 1;
}

/// A content header frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ContentHeader<'a> {
    /// Class of the method it belongs to.
    pub class_id: u16,
    /// Octets of the body that follows.
    pub body_size: u64,
    /// The properties.
    pub properties: PropertiesRef<'a>,
    /// Always zero, says the specification.
    pub weight: u16,
    /// Some header has a type that is read and not written: encode the properties anew.
    pub odd_types: bool,
}

/// Decodes the payload of a content header frame, and checks its properties.
///
/// # Errors
/// [`DecodeError`] if they do not decode.
pub fn parse_content_header(payload: &[u8]) -> Result<ContentHeader<'_>, DecodeError> {
    let checked = content_header(payload).and_then(|mut header| {
        header.odd_types = header.properties.check()?;
        Ok(header)
    });
    checked.map_err(|e| e.of(payload))
}

/// The same for a content that nobody wants, whose properties nobody looks at.
///
/// # Errors
/// [`DecodeError`] if it is too short.
pub fn parse_unwanted_header(payload: &[u8]) -> Result<ContentHeader<'_>, DecodeError> {
    content_header(payload).map_err(|e| e.of(payload))
}

fn content_header(payload: &[u8]) -> Result<ContentHeader<'_>, Malformed> {
    let mut r = Reader::new(payload);
    Ok(ContentHeader {
        class_id: r.short()?,
        weight: r.short()?,
        body_size: r.longlong()?,
        properties: PropertiesRef(r.rest()),
        odd_types: false,
    })
}

/// The value, if nothing is left to read.
fn ended<T>(r: &Reader<'_>, value: T) -> Result<T, Malformed> {
    if r.rest().is_empty() {
        Ok(value)
    } else {
        Err(Malformed::Syntax)
    }
}

/// The properties as they stand in a content header: flags and list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PropertiesRef<'a>(&'a [u8]);

impl<'a> PropertiesRef<'a> {
    /// Properties that were checked, or that we encoded.
    pub fn unchecked(bytes: &'a [u8]) -> PropertiesRef<'a> {
        PropertiesRef(bytes)
    }

    /// Flags and list.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    fn flags(&self) -> u16 {
        Reader::new(self.0).short().unwrap_or(0)
    }

    /// True if some header has a type that is read and not written.
    fn check(&self) -> Result<bool, Malformed> {
        let mut r = Reader::new(self.0);
        let flags = r.short()?;
        if flags & flag::MORE != 0 {
            return Err(Malformed::Syntax);
        }
        if flags & !flag::DELIVERY_MODE == 0 {
            // The two common cases: nothing, or the delivery mode alone.
            if flags != 0 {
                r.octet()?;
            }
            return ended(&r, false);
        }
        let mut left = flags;
        let mut odd = false;
        while left != 0 {
            let next = 1 << (15 - left.leading_zeros());
            left &= !next;
            match next {
                flag::HEADERS => odd = field_table::check(r.long_str()?)?,
                _ => skip(&mut r, next)?,
            }
        }
        ended(&r, odd)
    }

    /// The reader at the property `wanted`, if it is present.
    fn find(&self, wanted: u16) -> Option<Reader<'a>> {
        let mut r = Reader::new(self.0);
        let flags = r.short().ok()?;
        if flags & wanted == 0 {
            return None;
        }
        // Those before it in the list have higher bits.
        let mut before = flags & !(wanted | (wanted - 1));
        while before != 0 {
            let next = 1 << (15 - before.leading_zeros());
            before &= !next;
            skip(&mut r, next).ok()?;
        }
        Some(r)
    }

    fn text(&self, wanted: u16) -> Option<ShortBytes<'a>> {
        self.find(wanted)?.short_bytes().ok()
    }

    /// 1: transient, 2: persistent.
    pub fn delivery_mode(&self) -> Option<u8> {
        self.find(flag::DELIVERY_MODE)?.octet().ok()
    }

    /// Whether the delivery mode is 2.
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode() == Some(2)
    }

    /// Priority.
    pub fn priority(&self) -> Option<u8> {
        self.find(flag::PRIORITY)?.octet().ok()
    }

    /// Milliseconds, in decimal.
    pub fn expiration(&self) -> Option<ShortBytes<'a>> {
        self.text(flag::EXPIRATION)
    }

    /// Headers.
    pub fn headers(&self) -> Option<TableRef<'a>> {
        let bytes = self.find(flag::HEADERS)?.long_str().ok()?;
        Some(TableRef::unchecked(bytes))
    }

    /// Taken apart at the headers and the expiration.
    pub fn split(&self) -> Split<'a> {
        let mut r = Reader::new(self.0);
        let flags = r.short().unwrap_or(0);
        let before = pass(&mut r, flags & !(flag::HEADERS | (flag::HEADERS - 1)));
        let headers = match flags & flag::HEADERS {
            0 => &[],
            _ => r.long_str().unwrap_or_default(),
        };
        let behind = flags & (flag::HEADERS - 1);
        let between = pass(
            &mut r,
            behind & !(flag::EXPIRATION | (flag::EXPIRATION - 1)),
        );
        let expiration = pass(&mut r, flags & flag::EXPIRATION);
        Split {
            flags,
            before,
            headers: TableRef::unchecked(headers),
            between,
            expiration,
            after: r.rest(),
        }
    }

    /// Where to send an answer.
    pub fn reply_to(&self) -> Option<ShortBytes<'a>> {
        self.text(flag::REPLY_TO)
    }

    /// The user who claims to have published it.
    pub fn user_id(&self) -> Option<ShortBytes<'a>> {
        self.text(flag::USER_ID)
    }

    /// Whether anything but a content type, encoding, delivery mode, id, timestamp or type is there,
    /// that is, whether publishing has to look closer.
    pub fn needs_attention(&self) -> bool {
        const ATTENTION: u16 =
            flag::HEADERS | flag::REPLY_TO | flag::EXPIRATION | flag::USER_ID | flag::PRIORITY;
        self.flags() & ATTENTION != 0
    }
}

/// Properties as they stand in a content header, taken apart at the headers and the expiration.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    flags: u16,
    before: &'a [u8],
    /// The headers; empty if there are none.
    pub headers: TableRef<'a>,
    between: &'a [u8],
    expiration: &'a [u8],
    after: &'a [u8],
}

impl<'a> Split<'a> {
    /// The same properties with the headers that `fill` writes. With `expiration` false they have none.
    pub fn with_headers(&self, expiration: bool, fill: impl FnOnce(&mut Splice<'a>)) -> Splice<'a> {
        let mut out = Splice::new();
        let mut flags = self.flags | flag::HEADERS;
        if !expiration {
            flags &= !flag::EXPIRATION;
        }
        out.octets(&flags.to_be_bytes());
        out.keep(self.before);
        let headers = out.open();
        fill(&mut out);
        out.close(&headers);
        out.keep(self.between);
        if expiration {
            out.keep(self.expiration);
        }
        out.keep(self.after);
        out
    }
}

/// Passes over these properties, which come next, and returns their octets.
fn pass<'a>(r: &mut Reader<'a>, mut properties: u16) -> &'a [u8] {
    let from = r.rest();
    while properties != 0 {
        let next = 1 << (15 - properties.leading_zeros());
        properties &= !next;
        if skip(r, next).is_err() {
            break;
        }
    }
    from.get(..from.len() - r.rest().len()).unwrap_or_default()
}

fn skip(r: &mut Reader<'_>, property: u16) -> Result<(), Malformed> {
    match property {
        flag::DELIVERY_MODE | flag::PRIORITY => r.octet().map(drop),
        flag::TIMESTAMP => r.longlong().map(drop),
        flag::HEADERS => r.long_str().map(drop),
        flag::CONTENT_TYPE
        | flag::CONTENT_ENCODING
        | flag::CORRELATION_ID
        | flag::REPLY_TO
        | flag::EXPIRATION
        | flag::MESSAGE_ID
        | flag::TYPE
        | flag::USER_ID
        | flag::APP_ID
        | flag::CLUSTER_ID => r.short_bytes().map(drop),
        _ => Err(Malformed::Syntax),
    }
}

/// Properties taken apart, to be changed and put together again. All text is octets.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "AMQP's own names")]
pub struct Properties {
    pub content_type: Option<ShortBuf>,
    pub content_encoding: Option<ShortBuf>,
    pub headers: Option<FieldTable>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<ShortBuf>,
    pub reply_to: Option<ShortBuf>,
    pub expiration: Option<ShortBuf>,
    pub message_id: Option<ShortBuf>,
    pub timestamp: Option<u64>,
    pub type_: Option<ShortBuf>,
    pub user_id: Option<ShortBuf>,
    pub app_id: Option<ShortBuf>,
    pub cluster_id: Option<ShortBuf>,
}

impl From<PropertiesRef<'_>> for Properties {
    fn from(p: PropertiesRef<'_>) -> Properties {
        let text = |wanted| p.text(wanted).map(ShortBuf::from);
        Properties {
            content_type: text(flag::CONTENT_TYPE),
            content_encoding: text(flag::CONTENT_ENCODING),
            headers: p.headers().map(|h| h.to_table()),
            delivery_mode: p.delivery_mode(),
            priority: p.priority(),
            correlation_id: text(flag::CORRELATION_ID),
            reply_to: text(flag::REPLY_TO),
            expiration: text(flag::EXPIRATION),
            message_id: text(flag::MESSAGE_ID),
            timestamp: p.find(flag::TIMESTAMP).and_then(|mut r| r.longlong().ok()),
            type_: text(flag::TYPE),
            user_id: text(flag::USER_ID),
            app_id: text(flag::APP_ID),
            cluster_id: text(flag::CLUSTER_ID),
        }
    }
}

impl Properties {
    /// Flags and list.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = 0u16;
        let mut list = Vec::new();
        let mut text = |flag: u16, value: &Option<ShortBuf>, list: &mut Vec<u8>| {
            if let Some(value) = value {
                flags |= flag;
                list.push(value.as_short().len_octet());
                list.extend_from_slice(value);
            }
        };
        text(flag::CONTENT_TYPE, &self.content_type, &mut list);
        text(flag::CONTENT_ENCODING, &self.content_encoding, &mut list);
        let mut rest = Vec::new();
        text(flag::CORRELATION_ID, &self.correlation_id, &mut rest);
        text(flag::REPLY_TO, &self.reply_to, &mut rest);
        text(flag::EXPIRATION, &self.expiration, &mut rest);
        text(flag::MESSAGE_ID, &self.message_id, &mut rest);
        let mut tail = Vec::new();
        text(flag::TYPE, &self.type_, &mut tail);
        text(flag::USER_ID, &self.user_id, &mut tail);
        text(flag::APP_ID, &self.app_id, &mut tail);
        text(flag::CLUSTER_ID, &self.cluster_id, &mut tail);
        if let Some(headers) = &self.headers {
            flags |= flag::HEADERS;
            headers.encode_into(&mut list);
        }
        if let Some(mode) = self.delivery_mode {
            flags |= flag::DELIVERY_MODE;
            list.push(mode);
        }
        if let Some(priority) = self.priority {
            flags |= flag::PRIORITY;
            list.push(priority);
        }
        list.append(&mut rest);
        if let Some(timestamp) = self.timestamp {
            flags |= flag::TIMESTAMP;
            list.extend(timestamp.to_be_bytes());
        }
        list.append(&mut tail);
        let mut out = flags.to_be_bytes().to_vec();
        out.append(&mut list);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Option<ShortBuf>> {
        let octets = prop::collection::vec(any::<u8>(), 0..=255);
        prop::option::of(octets.prop_map(|o| ShortBytes::cut(&o).into()))
    }

    proptest! {
        #[test]
        fn properties_come_back(
            texts in prop::array::uniform10(text()),
            mode in any::<Option<u8>>(), priority in any::<Option<u8>>(),
            timestamp in any::<Option<u64>>(), header in any::<Option<i64>>(),
        ) {
            let [content_type, content_encoding, correlation_id, reply_to, expiration, message_id, type_, user_id, app_id, cluster_id] = texts;
            let headers = header.map(|v| { let mut t = FieldTable::new(); t.insert("h", v); t });
            let p = Properties {
                content_type, content_encoding, headers, delivery_mode: mode, priority, correlation_id, reply_to,
                expiration, message_id, timestamp, type_, user_id, app_id, cluster_id,
            };
            let bytes = p.encode();
            let r = PropertiesRef(&bytes);
            prop_assert!(r.check().is_ok());
            prop_assert_eq!(&Properties::from(r).encode(), &bytes);
            prop_assert_eq!(Properties::from(r), p);
        }

        #[test]
        fn any_bytes_are_refused_or_understood(bytes in any::<Vec<u8>>()) {
            if let Ok(h) = parse_content_header(&bytes) {
                let _ = Properties::from(h.properties);
            }
        }
    }
}
