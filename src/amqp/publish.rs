//! `basic.publish`: the hot path in.
//!
//! Method, header and body frames of a publish are put together in an [`Assembly`] of the channel; a
//! body that comes in one frame goes from the read buffer straight into the message.

use super::assembly::{Assembly, Stage, expected};
use super::connection::{Connection, not_open};
use super::errors::{self, Exception};
use super::reply_address::REPLY_TO;
use super::transaction::{Once, TxPublish};
use crate::broker::access::Permission;
use crate::broker::arguments::parse_expiration;
use crate::broker::message::{FLAG_BCC, FLAG_PERSISTENT, Message, Parts};
use crate::broker::routing::{RouteError, route_keys};
use crate::broker::routing_keys::octets_array;
use crate::protocol::frame::{FrameKind, FrameRef};
use crate::protocol::properties::{
    CLASS_BASIC, Properties, PropertiesRef, parse_content_header, parse_unwanted_header,
};
use crate::protocol::reply_code::{HardCode, SoftCode};
use crate::protocol::short::shown;

/// No body is larger than this, whatever is configured: lengths are kept in 32 bits, and RabbitMQ
/// draws the same line.
pub const BODY_HARD_MAX: u64 = 512 << 20;

/// The body of a publish.
enum Body<'a> {
    /// It came in one frame, or is empty.
    Whole(&'a [u8]),
    /// It came in several, and stands at the end of the message's contents.
    Gathered(Vec<u8>),
}

impl Connection {
    /// A content header or body frame. As from RabbitMQ, frames have to come in their order on a channel that
    /// is closed, too: who goes on to publish there, not having heard of it, keeps that order.
    pub(super) fn content(&mut self, number: u16, frame: FrameRef<'_>) -> Result<(), Exception> {
        let ch = self.channels.get_mut(number).ok_or_else(not_open)?;
        let open = ch.phase == super::channel::Phase::Open;
        let a = &mut ch.assembly;
        match (a.stage, frame.kind) {
            (Stage::Header, FrameKind::Header) => {
                let header = if open {
                    parse_content_header(frame.payload)
                } else {
                    parse_unwanted_header(frame.payload)
                };
                let header = header.map_err(|e| errors::decode(&e))?;
                if header.weight != 0 {
                    return Err(expected(Stage::Header));
                }
                if header.class_id != CLASS_BASIC {
                    let text = format!(
                        "expected content header for class {CLASS_BASIC}, got one for class {} instead",
                        header.class_id
                    );
                    return Err(Exception::hard(HardCode::UNEXPECTED_FRAME, text));
                }
                if header.body_size > BODY_HARD_MAX {
                    let text = format!(
                        "content body size {} exceeds maximum allowed size {BODY_HARD_MAX}",
                        header.body_size
                    );
                    return Err(Exception::hard(HardCode::FRAME_ERROR, text));
                }
                if !open {
                    (a.body_size, a.skipped) = (header.body_size, 0);
                    a.pass(0);
                    self.note_publisher();
                    return Ok(());
                }
                if header.odd_types {
                    let rewritten = Properties::from(header.properties).encode();
                    a.begin(self.broker.memory(), &rewritten, header.body_size);
                } else {
                    a.begin(
                        self.broker.memory(),
                        header.properties.as_bytes(),
                        header.body_size,
                    );
                }
                if header.body_size > 0 {
                    a.stage = Stage::Body;
                    a.count(&mut self.unfinished);
                    // Here, as in RabbitMQ: an alarm has to stop a body that never ends, too.
                    self.note_publisher();
                    return self.check_unfinished();
                }
                self.note_publisher();
                self.publish(number, Body::Whole(&[]))
            }
            (Stage::Body, FrameKind::Body) => {
                let size = a.skipped + a.gathered + frame.payload.len() as u64;
                if size > a.body_size {
                    let text = "content body frame exceeds remaining content size";
                    return Err(Exception::hard(HardCode::FRAME_ERROR, text));
                }
                if !open {
                    a.pass(frame.payload.len());
                    return Ok(());
                }
                if size == a.body_size && a.gathered + a.skipped == 0 {
                    return self.publish(number, Body::Whole(frame.payload));
                }
                if a.body_size > self.settings.max_message_bytes {
                    // It will be refused; only its length is needed until it has gone by.
                    a.skipped += frame.payload.len() as u64;
                    if a.skipped < a.body_size {
                        return Ok(());
                    }
                    return self.publish(number, Body::Whole(&[]));
                }
                a.gather(frame.payload, &mut self.unfinished);
                if a.gathered == a.body_size {
                    let contents = std::mem::take(&mut a.contents);
                    return self.publish(number, Body::Gathered(contents));
                }
                self.check_unfinished()
            }
            (stage, _) => Err(expected(stage)),
        }
    }

    /// The content is complete.
    fn publish(&mut self, number: u16, body: Body<'_>) -> Result<(), Exception> {
        let mut a = std::mem::take(&mut self.channel_mut(number)?.assembly);
        a.stage = Stage::Method;
        let result = self.publish_assembled(number, &a, body);
        a.end(&mut self.unfinished);
        if let Some(ch) = self.channels.get_mut(number) {
            ch.assembly = a;
        }
        result
    }

    /// Where no `frame_max` limits a frame, this does: as long as it is not complete it is one more thing that
    /// has begun. Said when its header is there, before anything is made ready for it.
    pub(super) fn check_room(&self, needed: usize) -> Result<(), Exception> {
        if self.frame_max != 0 {
            return Ok(());
        }
        self.check_begun(self.unfinished + needed as u64)
    }

    /// What has begun on all channels together has a limit.
    fn check_unfinished(&self) -> Result<(), Exception> {
        self.check_begun(self.unfinished)
    }

    fn check_begun(&self, bytes: u64) -> Result<(), Exception> {
        let max = self.settings.unfinished_bytes_max();
        if bytes <= max {
            return Ok(());
        }
        let text = format!("messages that are not complete take more than {max} bytes");
        Err(Exception::hard(HardCode::RESOURCE_ERROR, text))
    }

    fn publish_assembled(
        &mut self,
        number: u16,
        a: &Assembly,
        body: Body<'_>,
    ) -> Result<(), Exception> {
        self.publishing = true;
        if a.immediate {
            return Err(Exception::hard(HardCode::NOT_IMPLEMENTED, "immediate=true"));
        }
        self.check_size(a.body_size)?;
        let Some(exchange) = a.exchange.as_short().to_str() else {
            // No exchange has such a name.
            return Err(self.no_such_exchange(&a.exchange));
        };
        let routing_key = a.routing_key.as_short();
        self.allow(Permission::Write, true, exchange)?;
        let properties = PropertiesRef::unchecked(&a.properties);
        let mut flags = 0;
        if properties.is_persistent() {
            flags |= FLAG_PERSISTENT;
        }
        self.counted.received += 1;
        let now = self.now;
        let special = properties.needs_attention();
        // Exchange and its kind come first, as in RabbitMQ.
        if special {
            let (vhost, _, routes, _) = self.channel_in_vhost(number)?;
            routes
                .route(vhost, exchange, &routing_key, properties)
                .map_err(|e| route_error(&e, exchange, &vhost.name))?;
        }
        let closer = if special {
            Some(self.look_closer(number, properties)?)
        } else {
            None
        };
        self.allow_topic(Permission::Write, exchange, &routing_key)?;
        for key in closer.iter().flat_map(|c| &c.keys) {
            self.allow_topic(Permission::Write, exchange, key)?;
        }
        flags |= closer.as_ref().map_or(0, |c| c.flags);
        let raw = closer
            .as_ref()
            .and_then(|c| c.rewritten.as_deref())
            .unwrap_or(&a.properties);
        let parts = Parts {
            exchange: a.exchange.as_short(),
            routing_key,
            properties: raw,
            flags,
        };
        let memory = self.broker.memory();
        let message = match body {
            Body::Whole(body) => Message::new(memory, &parts, body),
            Body::Gathered(contents) if raw == a.properties => {
                Message::of_contents(memory, &parts, contents)
            }
            Body::Gathered(contents) => {
                let body = contents.len() - a.body_size as usize;
                Message::new(memory, &parts, &contents[body..])
            }
        };
        let (expiration, priority) = closer
            .as_ref()
            .map_or((None, None), |c| (c.expiration, c.priority));

        let copies = closer.map(|c| c.keys).unwrap_or_default();
        let keys = || -> Vec<&[u8]> {
            let copies = copies.iter().map(Vec::as_slice);
            std::iter::once(routing_key.as_bytes())
                .chain(copies)
                .collect()
        };
        let mut rare = None;
        if !copies.is_empty() {
            // All keys at once: an alternate exchange is for what none of them routes.
            let (vhost, ..) = self.channel_in_vhost(number)?;
            rare = route_keys(vhost, &a.exchange, &keys(), properties);
        }
        if let Some(vhost) = self.traced() {
            let found = match rare.take() {
                Some(found) => found,
                None => {
                    let (_, _, routes, _) = self.channel_in_vhost(number)?;
                    let found = routes.route(&vhost, exchange, &routing_key, properties);
                    found
                        .map_err(|e| route_error(&e, exchange, &vhost.name))?
                        .clone()
                }
            };
            self.trace_publish(&vhost, number, &message, &keys(), &found.queues);
            rare = Some(found);
        }
        let (vhost, batch, routes, ch) = self.channel_in_vhost(number)?;
        let found = match &rare {
            Some(found) => found,
            None => routes
                .route(vhost, exchange, &routing_key, properties)
                .map_err(|e| route_error(&e, exchange, &vhost.name))?,
        };
        if found.guarded || ch.tx.is_some() {
            let once = || Once {
                exchange: exchange.to_string(),
                keys: keys().into_iter().map(<[u8]>::to_vec).collect(),
            };
            let publish = TxPublish {
                message,
                once: found.guarded.then(once),
                found: found.clone(),
                expiration,
                priority,
                mandatory: a.mandatory,
            };
            return match &mut ch.tx {
                Some(tx) => tx.publish(publish),
                None => self.publish_once(number, publish),
            };
        }
        let unroutable = found.is_unroutable().then(|| message.clone());
        let (at, durable) = batch.publish_to(found, message, expiration, priority, now);
        self.logs |= durable;
        let seqno = self.expect_confirm(number, at, durable);
        self.published(number, a.mandatory, unroutable.as_ref(), seqno);
        Ok(())
    }

    /// Counts a publish, and returns a mandatory one that is `unroutable`: that nobody takes. `seqno`: what it
    /// will be confirmed as.
    pub(super) fn published(
        &mut self,
        number: u16,
        mandatory: bool,
        unroutable: Option<&Message>,
        seqno: Option<u64>,
    ) {
        match unroutable {
            None => self.counted.routed += 1,
            Some(message) if mandatory => {
                self.counted.unroutable_returned += 1;
                self.return_message(number, seqno, message);
            }
            Some(_) => self.counted.unroutable_dropped += 1,
        }
    }

    fn no_such_exchange(&self, name: &[u8]) -> Exception {
        let vhost = self.vhost.as_ref().map_or("", |v| &v.name);
        Exception::no_exchange(&shown(name), vhost)
    }

    fn check_size(&self, size: u64) -> Result<(), Exception> {
        let max = self.settings.max_message_bytes;
        if size <= max {
            return Ok(());
        }
        let text = if max == BODY_HARD_MAX {
            format!("message size {size} is larger than max size {max}")
        } else {
            format!("message size {size} is larger than configured max size {max}")
        };
        Err(Exception::soft(SoftCode::PRECONDITION_FAILED, text))
    }

    /// Properties that mean something to the broker.
    fn look_closer(
        &mut self,
        number: u16,
        properties: PropertiesRef<'_>,
    ) -> Result<Closer, Exception> {
        let mut closer = Closer {
            priority: properties.priority(),
            ..Closer::default()
        };
        if properties.reply_to().is_some_and(|to| to == REPLY_TO) {
            let ch = self.channel_mut(number)?;
            let Some((_, name)) = &ch.reply_consumer else {
                let text = "fast reply consumer does not exist";
                return Err(Exception::soft(SoftCode::PRECONDITION_FAILED, text));
            };
            let mut owned = Properties::from(properties);
            owned.reply_to = Some(name.as_str().into());
            closer.rewritten = Some(owned.encode());
        }
        if let Some(text) = properties.expiration() {
            let text = &*shown(text.as_bytes());
            closer.expiration =
                Some(parse_expiration(text).map_err(|e| errors::expiration(&e, text))?);
        }
        if let Some(headers) = properties.headers() {
            let headers = headers.to_table();
            for name in ["CC", "BCC"] {
                use crate::protocol::field_table::FieldValue;
                match headers.get(name) {
                    None => {}
                    Some(FieldValue::Array(_)) => {
                        closer.keys.extend(octets_array(Some(&headers), name))
                    }
                    Some(other) => {
                        let text = format!(
                            "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
                            other.type_name()
                        );
                        return Err(Exception::soft(SoftCode::PRECONDITION_FAILED, text));
                    }
                }
            }
            if headers.get("BCC").is_some() {
                closer.flags |= FLAG_BCC;
            }
        }
        if let Some(user) = properties.user_id()
            && *user != *self.peer.user.as_bytes()
        {
            let impersonator = self
                .broker
                .access()
                .user(&self.peer.user)
                .is_some_and(|u| u.tags.iter().any(|t| t == "impersonator"));
            if !impersonator {
                let text = format!(
                    "user_id property set to '{}' but authenticated user was '{}'",
                    shown(&user),
                    self.peer.user
                );
                return Err(Exception::soft(SoftCode::PRECONDITION_FAILED, text));
            }
        }
        Ok(closer)
    }
}

/// What looking closer at properties found.
#[derive(Default)]
struct Closer {
    expiration: Option<u64>,
    priority: Option<u8>,
    /// Further routing keys: CC and BCC.
    keys: Vec<Vec<u8>>,
    /// Flags of the message.
    flags: u8,
    /// Properties to deliver instead of the original ones.
    rewritten: Option<Vec<u8>>,
}

fn route_error(e: &RouteError, exchange: &str, vhost: &str) -> Exception {
    match e {
        RouteError::NoExchange => Exception::no_exchange(exchange, vhost),
        RouteError::Internal => Exception::soft(
            SoftCode::ACCESS_REFUSED,
            format!(
                "cannot publish to internal {}",
                errors::exchange_name(exchange, vhost)
            ),
        ),
    }
}
