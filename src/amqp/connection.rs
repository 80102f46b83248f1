//! A connection: states, demultiplexing, closing.
//!
//! The shell drives it with four kinds of calls, in any order:
//!
//! - [`Connection::receive`] with bytes from the peer,
//! - [`Connection::deliver`] and [`Connection::notice`] with what queues pushed,
//! - [`Connection::progress`] when the log's watermark moved or something it waits for may be there,
//! - [`Connection::tick`] at [`Connection::next_deadline`].
//!
//! After each, what is in [`Connection::output`] is to be written, and [`Connection::is_over`] says
//! whether to hang up once it is. [`Connection::lost`] is called exactly once, at the end.

mod dispatch;
mod liveness;
mod permissions;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;

use super::channel::{Channel, Phase as ChannelPhase};
use super::channels::Channels;
use super::confirms::Verdict;
use super::consume::Consumers;
use super::errors::{self, Exception};
use super::output::Output;
use super::settings::{NODE_NAME, SessionSettings, SharedAuthenticator};
use crate::broker::access::{Permissions, TopicPermissions};
use crate::broker::batch::{Batch, PUBLISHES_MAX};
use crate::broker::limits::Account;
use crate::broker::outlet::{Delivery, Notice, Outlet};
use crate::broker::ports::{Bell, Lsn};
use crate::broker::queue::{ConsumerIndex, DeleteIf, Queue};
use crate::broker::totals::Counted;
use crate::broker::vhost::Vhost;
use crate::broker::{Broker, ConnectionId};
use crate::protocol::frame::{self, Parsed};
use crate::protocol::methods::{MethodId, basic, channel, connection};
use crate::protocol::reply_code::{HardCode, reply_text};
use crate::protocol::{EncodeMethod, encode};

/// How long a peer may take to answer `connection.close`, milliseconds.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// How long a peer that closed its connection may take to hang up, milliseconds. Some clients take an end
/// of the stream right behind `close-ok` for a loss of the connection; others wait for it. RabbitMQ keeps
/// the latter waiting for 30 s.
const HANG_UP_TIMEOUT_MS: u64 = 100;

/// Frames before the limits are negotiated: enough for client properties, not for a flood.
const FRAME_MAX_BEFORE_TUNE: u32 = 8192;

/// `connection.close-ok`, as a frame.
const CLOSE_OK_FRAME: &[u8] = b"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce";

/// A connection's way through its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Waits for the protocol header.
    Header,
    /// Sent `start`, waits for `start-ok`.
    Starting,
    /// Sent `tune`, waits for `tune-ok`.
    Tuning,
    /// Waits for `open`.
    Opening,
    /// Open.
    Running,
    /// Sent `close`, waits for `close-ok`; everything else is ignored.
    Closing,
    /// Hangs up at this time without a word.
    Silent {
        /// Unix milliseconds.
        until: u64,
    },
    /// The peer has closed and hangs up next; what it still sends is ignored.
    Closed {
        /// Unix milliseconds.
        until: u64,
    },
    /// Nothing more is read; what is in the output is written, then it is over.
    Over,
}

impl Phase {
    fn takes_frames(self) -> bool {
        !matches!(
            self,
            Phase::Closed { .. } | Phase::Over | Phase::Silent { .. }
        )
    }
}

/// What [`Connection::receive`] says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Bytes that were used; the rest is to be handed in again, with more behind it.
    pub consumed: usize,
    /// Bytes needed, in all from the first unused one, before it is worth calling again.
    pub needed: usize,
}

/// What processing waits for.
pub(super) enum Wait {
    /// A reply that may be sent once the log has come this far.
    Durable(Lsn, BytesMut),
    /// `basic.get`: a message that is read from the log.
    Get {
        channel: u16,
        queue: String,
        no_ack: bool,
    },
}

/// A publish of this batch that wants a confirm.
struct Unconfirmed {
    channel: u16,
    seqno: u64,
    number: u32,
    durable: bool,
}

/// Who is at the other end, for logs.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address, if it has one.
    pub address: Option<SocketAddr>,
    /// The address it connected to, if that has one.
    pub local: Option<SocketAddr>,
    /// User name, once it logged in.
    pub user: String,
    /// `connection_name` of the client properties.
    pub name: String,
}

impl Peer {
    /// Its address, for log lines.
    pub fn shown(&self) -> String {
        self.address.map_or_else(String::new, |a| a.to_string())
    }
}

/// A connection. See the module.
pub struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) settings: Arc<SessionSettings>,
    pub(super) authenticator: SharedAuthenticator,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) bell: Arc<dyn Bell>,
    pub(super) id: ConnectionId,
    /// Who is at the other end.
    pub peer: Peer,
    pub(super) certified: Option<String>,
    /// Octets for the peer.
    pub output: Output,
    pub(super) phase: Phase,
    pub(super) vhost: Option<Arc<Vhost>>,
    /// Of the node, the vhost, and the user, in which this connection is counted.
    pub(super) accounts: Option<[Arc<Account>; 3]>,
    permissions: Option<(u64, Arc<Permissions>)>,
    /// What its user may do on topic exchanges, if there are such rules; as of the same version.
    topics: Option<Arc<TopicPermissions>>,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) heartbeat: u16,
    pub(super) capabilities: Capabilities,
    pub(super) channels: Channels,
    /// What queues said while a reply waits for the log: it comes after the reply.
    held_notices: Vec<Notice>,
    pub(super) consumers: Consumers,
    pub(super) batch: Batch,
    unconfirmed: Vec<Unconfirmed>,
    verdicts: Vec<Verdict>,
    pub(super) wait: Option<Wait>,
    pub(super) now: u64,
    /// Unix milliseconds of the first byte, and of the latest in and out.
    pub(super) opened_at: u64,
    received_at: u64,
    sent_at: u64,
    closing_at: u64,
    /// Reading was stopped by us: the peer is not missed meanwhile.
    paused: bool,
    /// Octets of messages that have begun on some channel and are not complete: the sum of what their
    /// assemblies have counted.
    pub(super) unfinished: u64,
    published: bool,
    /// Something was published since the last [`Connection::take_publishing`].
    pub(super) publishing: bool,
    blocked: bool,
    alarm: Option<String>,
    pub(super) counted: Counted,
    /// The position of the latest ring that was asked for.
    rung_for: Lsn,
    why: Option<String>,
}

/// What the client said it can.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Capabilities {
    pub(super) authentication_failure_close: bool,
    pub(super) consumer_cancel_notify: bool,
    pub(super) connection_blocked: bool,
}

/// What a connection is made of.
pub struct Parts {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Limits and identity.
    pub settings: Arc<SessionSettings>,
    /// Checks logins.
    pub authenticator: SharedAuthenticator,
    /// Where queues push deliveries for this connection.
    pub outlet: Arc<dyn Outlet>,
    /// Wakes this connection.
    pub bell: Arc<dyn Bell>,
    /// The peer's address.
    pub address: Option<SocketAddr>,
    /// The address it connected to.
    pub local: Option<SocketAddr>,
    /// The user whom its certificate names: it may log in with EXTERNAL.
    pub certified: Option<String>,
}

impl Connection {
    /// A connection that was just accepted, at `now` in unix milliseconds.
    pub fn new(parts: Parts, now: u64) -> Connection {
        Connection {
            id: parts.broker.next_connection_id(),
            broker: parts.broker,
            settings: parts.settings,
            authenticator: parts.authenticator,
            outlet: parts.outlet,
            bell: parts.bell,
            certified: parts.certified,
            peer: Peer {
                address: parts.address,
                local: parts.local,
                ..Peer::default()
            },
            output: Output::default(),
            phase: Phase::Header,
            vhost: None,
            accounts: None,
            permissions: None,
            topics: None,
            frame_max: FRAME_MAX_BEFORE_TUNE,
            channel_max: 0,
            heartbeat: 0,
            capabilities: Capabilities::default(),
            channels: Channels::default(),
            held_notices: Vec::new(),
            consumers: Consumers::default(),
            batch: Batch::default(),
            unconfirmed: Vec::new(),
            verdicts: Vec::new(),
            wait: None,
            now,
            opened_at: now,
            received_at: now,
            sent_at: now,
            closing_at: 0,
            paused: false,
            unfinished: 0,
            published: false,
            publishing: false,
            blocked: false,
            alarm: None,
            counted: Counted::default(),
            rung_for: Lsn::default(),
            why: None,
        }
    }

    /// Whether the peer has logged in and opened its vhost.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether to hang up once the output is written.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Why the connection was closed by us, if it was.
    pub fn reason(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Whether to read from the peer: not while something is awaited, an alarm holds a publisher
    /// back, or the output is full.
    pub fn wants_input(&self) -> bool {
        self.wait.is_none()
            && !(self.blocked && self.published)
            && self.output.len() < self.settings.output_bytes_max
            && !matches!(self.phase, Phase::Over | Phase::Silent { .. })
    }

    /// Whether this connection published transient messages that memory has no room for, since the
    /// last call: it should be read more slowly.
    pub fn take_spilled(&mut self) -> bool {
        self.batch.take_spilled()
    }

    /// A queue that was published to since the last call and whose consumers are behind, if this
    /// connection can wait for them: one that consumes itself might wait for its own acknowledgements.
    pub fn take_behind(&mut self) -> Option<Arc<Queue>> {
        let queue = self.batch.take_behind()?;
        self.consumers.is_empty().then_some(queue)
    }

    /// Whether anything was published since the last call.
    pub fn take_publishing(&mut self) -> bool {
        std::mem::take(&mut self.publishing)
    }

    /// The negotiated heartbeat in seconds; zero: none.
    pub fn heartbeat_s(&self) -> u16 {
        self.heartbeat
    }

    /// Whether the next frame may be processed. An alarm holds back what has been read already, too.
    fn may_process(&self) -> bool {
        self.wait.is_none() && !(self.blocked && self.published) && self.phase.takes_frames()
    }

    // ----- bytes in ---------------------------------------------------------------------------

    /// Processes frames until the input is used up or something has to be awaited.
    pub fn receive(&mut self, input: &[u8], now: u64) -> Received {
        self.now = now;
        self.received_at = now;
        let mut at = 0;
        let mut needed = 1;
        while self.may_process() {
            let rest = &input[at..];
            if self.phase == Phase::Header {
                match frame::parse_protocol_header(rest) {
                    None => {
                        needed = rest.len() + 1;
                        break;
                    }
                    Some(header) => at += self.protocol_header(header),
                }
                continue;
            }
            match frame::parse(rest, self.frame_max) {
                Ok(Parsed::Frame { frame, size }) => {
                    at += size;
                    if let Err((number, method, exception)) = self.frame(frame) {
                        self.raise(number, method, exception);
                    }
                    if self.batch.n_publishes() >= PUBLISHES_MAX {
                        self.flush();
                    }
                }
                Ok(Parsed::Incomplete { needed: n }) => {
                    needed = n;
                    break;
                }
                Err(error) => {
                    at = input.len();
                    if self.phase != Phase::Closing {
                        self.raise(0, MethodId::NONE, errors::frame(&error));
                    } else if input.ends_with(CLOSE_OK_FRAME) {
                        // Where frames begin is unknown by now, but this is how the last one ends.
                        self.phase = Phase::Over;
                    }
                }
            }
        }
        self.flush();
        self.broker.totals.add(&mut self.counted);
        let done = matches!(self.phase, Phase::Closed { .. } | Phase::Over);
        let consumed = if done { input.len() } else { at };
        Received { consumed, needed }
    }

    // ----- channels ---------------------------------------------------------------------------

    pub(super) fn channel(&self, number: u16) -> Option<&Channel> {
        self.channels.get(number)
    }

    pub(super) fn channel_mut(&mut self, number: u16) -> Result<&mut Channel, Exception> {
        self.channels_entry(number).map(|(_, ch)| ch)
    }

    /// A channel beside the batch, to work on both.
    pub(super) fn channels_entry(
        &mut self,
        number: u16,
    ) -> Result<(&mut Batch, &mut Channel), Exception> {
        let ch = self.channels.get_mut(number).ok_or_else(not_open)?;
        Ok((&mut self.batch, ch))
    }

    /// The same with the vhost. Every connection counts references to it in the same place, so a message
    /// that only looks at it does better without one.
    pub(super) fn channel_in_vhost(
        &mut self,
        number: u16,
    ) -> Result<(&Vhost, &mut Batch, &mut Channel), Exception> {
        let ch = self.channels.get_mut(number).ok_or_else(not_open)?;
        let vhost = self.vhost.as_deref().ok_or_else(no_vhost)?;
        Ok((vhost, &mut self.batch, ch))
    }

    fn open_channel(&mut self, number: u16) -> Result<(), Exception> {
        // As in RabbitMQ, the number itself may be any.
        let (n, max) = (self.channels.len(), self.channel_max);
        if max != 0 && n >= usize::from(max) {
            let text = format!(
                "number of channels opened ({n}) has reached the negotiated channel_max ({max})"
            );
            return Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        }
        if let Err(text) = self.take_channel() {
            // RabbitMQ names no method.
            self.raise(
                0,
                MethodId::NONE,
                Exception::hard(HardCode::NOT_ALLOWED, text),
            );
            return Ok(());
        }
        self.channels.insert(Channel::new(number));
        self.counted.channels_opened += 1;
        self.send(number, &channel::OpenOk);
        Ok(())
    }

    /// Counts a channel, or says which limit is reached.
    fn take_channel(&self) -> Result<(), String> {
        let Some([node, _, user]) = &self.accounts else {
            return Ok(());
        };
        user.channels.take().map_err(|max| {
            format!(
                "number of channels opened for user '{}' has reached the maximum allowed user limit of {max}",
                self.peer.user
            )
        })?;
        node.channels.take().map_err(|max| {
            user.channels.give_back(1);
            format!(
                "number of channels opened on node '{NODE_NAME}' has reached the maximum allowed limit of {max}"
            )
        })
    }

    fn forget_channel(&mut self, number: u16) {
        if self.channels.remove(number) {
            if let Some([node, _, user]) = &self.accounts {
                node.channels.give_back(1);
                user.channels.give_back(1);
            }
            self.counted.channels_closed += 1;
        }
    }

    /// Ends what a channel has going on: its consumers, its unacknowledged deliveries.
    fn leave_channel(&mut self, number: u16) {
        self.flush();
        let Some(ch) = self.channels.get_mut(number) else {
            return;
        };
        ch.assembly.clear(&mut self.unfinished);
        ch.roll_back();
        let consumers = std::mem::take(&mut ch.consumers);
        let unacked = std::mem::take(&mut ch.unacked);
        let reply = ch.reply_consumer.take();
        self.leave_queues(consumers, unacked);
        if let Some((slot, name)) = reply {
            self.broker.replies().remove(&name);
            self.consumers.remove(slot);
        }
        self.flush();
    }

    /// Ends all channels and deletes the exclusive queues.
    fn leave(&mut self) {
        self.flush();
        while let Some(number) = self.channels.any() {
            self.leave_channel(number);
            self.forget_channel(number);
        }
        if let Some(accounts) = self.accounts.take() {
            accounts.iter().for_each(|a| a.connections.give_back(1));
        }
        if let Some(vhost) = self.vhost.clone() {
            for queue in vhost.exclusive_queues(self.id) {
                if vhost
                    .delete_queue(&queue, DeleteIf::default(), &mut self.batch.fx)
                    .is_ok()
                {
                    self.counted.queues_deleted += 1;
                }
            }
        }
        self.flush();
    }

    /// The connection is gone: everything it had goes back or away. Deliveries that were pushed and
    /// not handed to [`Self::deliver`] are returned to their queues.
    pub fn lost(&mut self, undelivered: Vec<Delivery>, now: u64) {
        self.now = now;
        self.wait = None;
        self.return_unsent(undelivered);
        self.leave();
        if self.vhost.take().is_some() {
            self.counted.connections_closed += 1;
        }
        self.broker.totals.add(&mut self.counted);
    }

    // ----- errors -----------------------------------------------------------------------------

    pub(super) fn raise(&mut self, number: u16, method: MethodId, exception: Exception) {
        // What came before it counts.
        self.flush();
        match exception {
            Exception::Channel(code, text) if number != 0 && self.phase == Phase::Running => {
                let text = reply_text(code.name(), &text);
                let (user, peer) = (self.peer.user.as_str(), self.peer.shown());
                tracing::warn!(user, %peer, channel = number, reason = text, "channel closed");
                self.leave_channel(number);
                if let Some(ch) = self.channels.get_mut(number) {
                    ch.phase = ChannelPhase::Closing;
                }
                let (class_id, method_id) = (method.class, method.method);
                let close = channel::Close {
                    reply_code: code.number(),
                    reply_text: &text,
                    class_id,
                    method_id,
                };
                self.send(number, &close);
            }
            Exception::Channel(code, text) => {
                self.close(code.number(), &reply_text(code.name(), &text), method)
            }
            Exception::Connection(code, text) => {
                self.close(code.number(), &reply_text(code.name(), &text), method)
            }
        }
    }

    /// Ends the connection with `connection.close`.
    pub(super) fn close(&mut self, reply_code: u16, text: &str, method: MethodId) {
        self.why = Some(text.to_string());
        if self.phase == Phase::Running {
            self.leave();
        }
        let (class_id, method_id) = (method.class, method.method);
        self.send(
            0,
            &connection::Close {
                reply_code,
                reply_text: text,
                class_id,
                method_id,
            },
        );
        self.phase = Phase::Closing;
        self.closing_at = self.now;
        self.wait = None;
    }

    /// Closes the connection because the server or an operator says so: 320.
    pub fn force_close(&mut self, reason: &str, now: u64) {
        self.now = now;
        if matches!(self.phase, Phase::Running) {
            let code = HardCode::CONNECTION_FORCED;
            self.close(
                code.number(),
                &reply_text(code.name(), reason),
                MethodId::NONE,
            );
        } else if self.phase != Phase::Closing {
            self.phase = Phase::Over;
        }
    }

    // ----- out --------------------------------------------------------------------------------

    pub(super) fn send<M: EncodeMethod>(&mut self, channel: u16, method: &M) {
        encode::method(self.output.octets(), channel, method);
    }

    /// Sends a reply once the log has come to `lsn`.
    pub(super) fn send_durable<M: EncodeMethod>(&mut self, channel: u16, method: &M, lsn: Lsn) {
        if lsn <= self.broker.log().durable() {
            self.send(channel, method);
            return;
        }
        let mut reply = BytesMut::new();
        encode::method(&mut reply, channel, method);
        self.broker.log().ring_at(lsn, &self.bell);
        self.wait = Some(Wait::Durable(lsn, reply));
    }

    // ----- the batch --------------------------------------------------------------------------

    /// Notes that a publish, by its number in the batch, has to be confirmed, if its channel asked for
    /// that.
    pub(super) fn expect_confirm(&mut self, channel: u16, number: u32, durable: bool) {
        let ch = self.channels.get_mut(channel);
        let Some(confirms) = ch.and_then(|c| c.confirms.as_mut()) else {
            return;
        };
        let seqno = confirms.next();
        self.counted.received_confirm += 1;
        self.unconfirmed.push(Unconfirmed {
            channel,
            seqno,
            number,
            durable,
        });
    }

    /// This connection publishes: from now on an alarm holds it back.
    pub(super) fn note_publisher(&mut self) {
        self.published = true;
        self.apply_alarm();
    }

    /// Logs and applies what was collected, and notes where the publishes are.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() && self.unconfirmed.is_empty() {
            return;
        }
        let flushed = self.flush_batch();
        let (lsn, failed) = match flushed {
            Ok(lsn) => (lsn, false),
            Err(_) => (Lsn::default(), true),
        };
        let mut refused = self.batch.refused().iter().peekable();
        let mut touched: Option<u16> = None;
        for u in self.unconfirmed.drain(..) {
            while refused.peek().is_some_and(|r| **r < u.number) {
                refused.next();
            }
            let refused = refused.peek() == Some(&&u.number) || (failed && u.durable);
            let Some(ch) = self.channels.get_mut(u.channel) else {
                continue;
            };
            let Some(confirms) = &mut ch.confirms else {
                continue;
            };
            confirms.flushed(
                u.seqno,
                if u.durable { lsn } else { Lsn::default() },
                refused,
            );
            touched = Some(u.channel);
        }
        self.batch.clear_refused();
        if touched.is_some() {
            self.confirm();
        }
    }

    pub(super) fn flush_batch(&mut self) -> Result<Lsn, crate::broker::ports::LogFailed> {
        let broker = self.broker.clone();
        self.batch.flush(&broker, self.now)
    }

    /// Tells what is durable, and asks to be rung for what is not yet.
    fn confirm(&mut self) {
        let durable = self.broker.log().durable();
        let mut waits_for = Lsn::default();
        for ch in self.channels.iter_mut() {
            let Some(confirms) = &mut ch.confirms else {
                continue;
            };
            if ch.phase != ChannelPhase::Open {
                continue;
            }
            self.counted.confirmed += confirms.settle(durable, &mut self.verdicts);
            for verdict in self.verdicts.drain(..) {
                match verdict {
                    Verdict::Ack { upto, multiple } => {
                        let ack = basic::Ack {
                            delivery_tag: upto,
                            multiple,
                        };
                        encode::method(self.output.octets(), ch.number, &ack);
                    }
                    Verdict::Nack(delivery_tag) => {
                        let nack = basic::Nack {
                            delivery_tag,
                            multiple: false,
                            requeue: false,
                        };
                        encode::method(self.output.octets(), ch.number, &nack);
                    }
                }
            }
            if let Some(at) = confirms.waits_for() {
                waits_for = waits_for.max(at);
            }
        }
        if waits_for > self.rung_for {
            self.rung_for = waits_for;
            self.broker.log().ring_at(waits_for, &self.bell);
        }
    }

    /// The log's watermark moved, or a message was read: sends what waited for it. The shell calls
    /// [`Self::receive`] again afterwards, with the input that is left.
    pub fn progress(&mut self, now: u64) {
        self.now = now;
        if self.phase == Phase::Running {
            self.confirm();
        }
        if self.broker.log().failed() && matches!(self.phase, Phase::Running) {
            self.raise(0, MethodId::NONE, errors::log_failed());
        }
        match self.wait.take() {
            Some(Wait::Durable(lsn, reply)) if self.broker.log().durable() >= lsn => {
                self.output.octets().extend_from_slice(&reply);
                for notice in std::mem::take(&mut self.held_notices) {
                    self.notice(notice, now);
                }
            }
            Some(Wait::Get {
                channel,
                queue,
                no_ack,
            }) => {
                if let Err(e) = self.get(channel, &queue, no_ack) {
                    self.raise(channel, basic::Get::ID, e);
                }
                self.flush();
            }
            other => self.wait = other,
        }
        self.broker.totals.add(&mut self.counted);
    }

    // ----- what queues pushed -----------------------------------------------------------------

    /// Writes deliveries, leaving the vector empty.
    pub fn deliver(&mut self, deliveries: &mut Vec<Delivery>, now: u64) {
        self.now = now;
        if self.phase == Phase::Running {
            if let Some(vhost) = self.traced() {
                self.trace_deliveries(&vhost, deliveries);
            }
            self.write_deliveries(deliveries);
        } else {
            let back = std::mem::take(deliveries);
            self.return_unsent(back);
        }
        self.flush();
        self.broker.totals.add(&mut self.counted);
    }

    /// The inbox has room again for these consumers of this connection.
    pub fn resume(&mut self, queue: &Arc<Queue>, consumers: &[ConsumerIndex], now: u64) {
        self.now = now;
        queue.resume(consumers, now, &mut self.batch.fx);
        self.flush();
    }

    /// Tells the client what a queue said.
    pub fn notice(&mut self, notice: Notice, now: u64) {
        self.now = now;
        if matches!(self.wait, Some(Wait::Durable(..))) {
            // Who deletes its own consumer's queue hears `delete-ok` first, as from RabbitMQ.
            self.held_notices.push(notice);
            return;
        }
        match notice {
            Notice::Cancelled(key) => self.cancelled_by_server(key),
            Notice::TimedOut(key, timeout) => self.timed_out(key, timeout),
        }
        self.flush();
    }

    /// The vhost; every channel method runs in one.
    pub(super) fn the_vhost(&self) -> Result<Arc<Vhost>, Exception> {
        self.vhost.clone().ok_or_else(no_vhost)
    }
}

pub(super) fn not_open() -> Exception {
    Exception::hard(HardCode::CHANNEL_ERROR, "expected 'channel.open'")
}

fn no_vhost() -> Exception {
    Exception::hard(HardCode::INTERNAL_ERROR, "no vhost")
}
