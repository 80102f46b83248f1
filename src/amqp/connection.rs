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

mod confirming;
mod dispatch;
mod ending;
mod liveness;
mod permissions;
mod waiting;

use std::net::SocketAddr;
use std::sync::Arc;

use self::confirming::{Returned, Unconfirmed};
use self::waiting::Wait;
use super::channel::Channel;
use super::channels::Channels;
use super::confirms::Verdict;
use super::consumers::Consumers;
use super::errors::{self, Exception};
use super::output::Output;
use super::settings::{NODE_NAME, SessionSettings, SharedAuthenticator};
use crate::broker::access::{Permissions, TopicPermissions};
use crate::broker::batch::Batch;
use crate::broker::limits::Account;
use crate::broker::ports::{Bell, Lsn};
use crate::broker::queue::outlet::{Delivery, Notice, Outlet};
use crate::broker::queue::{ConsumerIndex, Queue};
use crate::broker::routing::RouteCache;
use crate::broker::totals::Counted;
use crate::broker::vhost::Vhost;
use crate::broker::{Broker, ConnectionId};
use crate::protocol::frame::{self, FrameKind, Parsed};
use crate::protocol::methods::{MethodId, channel};
use crate::protocol::reply_code::HardCode;
use crate::protocol::{EncodeMethod, encode};

/// How long a peer that closed its connection may take to hang up, milliseconds. Some clients take an end
/// of the stream right behind `close-ok` for a loss of the connection; others wait for it. RabbitMQ keeps
/// the latter waiting for 30 s.
const HANG_UP_TIMEOUT_MS: u64 = 100;

/// Frames before the limits are negotiated: enough for client properties, not for a flood.
const FRAME_MAX_BEFORE_TUNE: u32 = 8192;

/// `connection.close-ok`, as a frame.
const CLOSE_OK_FRAME: &[u8] = b"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce";

/// Work of one turn: a frame is one, and so are 32 octets of one that may hold a table, a copy of a message, a settlement,
/// a binding that is looked at; what else a method is, `dispatch` says. A millisecond or two, so that who sends
/// without end does not keep others waiting.
pub const WORK_PER_TURN: u32 = 16_384;

fn work_of_octets(kind: FrameKind, octets: usize) -> u32 {
    // A body is copied, and not looked at.
    let shift = if kind == FrameKind::Body { 9 } else { 5 };
    1 + u32::try_from(octets >> shift).unwrap_or(u32::MAX >> 1)
}

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

/// Why a session takes no input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// A reply waits for the log.
    Reply,
    /// The peer does not read what it is told.
    Output,
    /// It publishes, and there is an alarm.
    Alarm,
    /// Nothing more is processed.
    Over,
}

/// What [`Connection::receive`] says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Bytes that were used; the rest is to be handed in again, with more behind it.
    pub consumed: usize,
    /// Bytes needed, in all from the first unused one, before it is worth calling again.
    pub needed: usize,
    /// How much work that was, in the unit of [`WORK_PER_TURN`].
    pub work: u32,
    /// The turn is over: others should have theirs before the rest is handed in.
    pub more: bool,
}

/// What came of what a connection published.
#[derive(Debug)]
pub struct Published {
    /// Transient messages went to the log, as memory has no room for them: it should be read more slowly.
    pub spilled: bool,
    /// A queue whose consumers are behind, if this connection can wait for them: one that consumes itself
    /// might wait for its own acknowledgements.
    pub behind: Option<Arc<Queue>>,
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
    routes: RouteCache,
    /// What queues said while a reply waits for the log: it comes after the reply.
    held_notices: Vec<Notice>,
    pub(super) consumers: Consumers,
    pub(super) batch: Batch,
    unconfirmed: Vec<Unconfirmed>,
    /// Told in their turn among the confirms.
    returns: Vec<Returned>,
    verdicts: Vec<Verdict>,
    wait: Option<Wait>,
    /// Channels that their client closed in this read; the numbers are free again at its end.
    left: Vec<u16>,
    pub(super) now: u64,
    /// Unix milliseconds of the first byte, and of the latest in and out.
    pub(super) opened_at: u64,
    received_at: u64,
    sent_at: u64,
    /// Until when `close-ok` is waited for.
    closing_until: u64,
    /// The peer is gone without a word: the socket is reset.
    reset: bool,
    /// Reading was stopped by us: the peer is not missed meanwhile.
    paused: bool,
    /// Octets of messages that have begun on some channel and are not complete: the sum of what their
    /// assemblies have counted.
    pub(super) unfinished: u64,
    published: bool,
    /// Something was published since the last [`Connection::take_published`].
    pub(super) publishing: bool,
    /// See [`Connection::logs`].
    pub(super) logs: bool,
    blocked: bool,
    alarm: Option<String>,
    pub(super) counted: Counted,
    /// What was done in this turn.
    work: u32,
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
            routes: RouteCache::new(parts.broker.memory()),
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
            returns: Vec::new(),
            verdicts: Vec::new(),
            wait: None,
            left: Vec::new(),
            now,
            opened_at: now,
            received_at: now,
            sent_at: now,
            closing_until: 0,
            reset: false,
            paused: false,
            unfinished: 0,
            published: false,
            publishing: false,
            logs: false,
            blocked: false,
            alarm: None,
            counted: Counted::default(),
            work: 0,
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

    /// Whether the socket is to be reset instead of closed: its peer has been silent for too long, and what
    /// it still writes should fail.
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// Why the connection was closed by us, if it was.
    pub fn reason(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Why nothing is to be read from the peer; `None`: read.
    pub fn held(&self) -> Option<Held> {
        if matches!(self.phase, Phase::Over | Phase::Silent { .. }) {
            Some(Held::Over)
        } else if self.wait.is_some() {
            Some(Held::Reply)
        } else if self.output.len() >= self.settings.output_bytes_max {
            Some(Held::Output)
        } else if self.blocked && self.published {
            Some(Held::Alarm)
        } else {
            None
        }
    }

    /// Whether to read from the peer.
    pub fn wants_input(&self) -> bool {
        self.held().is_none()
    }

    /// Whether its publishes go to the log: it adds to what waits for the disk.
    pub fn logs(&self) -> bool {
        self.logs
    }

    /// Whether anything was published since the last call, and what came of it. Dead letters of what it
    /// settled are not its publishes.
    pub fn take_published(&mut self) -> Option<Published> {
        let (spilled, behind) = (self.batch.take_spilled(), self.batch.take_behind());
        if !std::mem::take(&mut self.publishing) {
            return None;
        }
        self.logs |= spilled;
        let behind = behind.filter(|_| self.consumers.is_empty());
        Some(Published { spilled, behind })
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

    /// Processes frames until the input is used up, something has to be awaited, or its turn is over.
    pub fn receive(&mut self, input: &[u8], now: u64) -> Received {
        self.now = now;
        self.received_at = now;
        let mut at = 0;
        let mut needed = 1;
        self.work = 0;
        while self.may_process() && self.work < WORK_PER_TURN {
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
            match self.parse(rest) {
                Ok(Parsed::Frame { frame, size }) => {
                    at += size;
                    self.work = self.work.saturating_add(work_of_octets(frame.kind, size));
                    if let Err((number, method, exception)) = self.frame(frame) {
                        self.raise(number, method, exception);
                    }
                    let (copies, routes) = (self.batch.take_work(), self.routes.take_work());
                    self.work = self.work.saturating_add(copies).saturating_add(routes);
                    if self.batch.is_full() {
                        self.flush();
                    }
                }
                Ok(Parsed::Incomplete { needed: n }) => {
                    needed = n;
                    break;
                }
                Err(exception) => {
                    at = input.len();
                    if self.phase != Phase::Closing {
                        self.raise(0, MethodId::NONE, exception);
                    } else if input.ends_with(CLOSE_OK_FRAME) {
                        // Where frames begin is unknown by now, but this is how the last one ends.
                        self.phase = Phase::Over;
                    }
                }
            }
        }
        self.flush();
        self.forget_left();
        self.broker.totals.add(&mut self.counted);
        let done = matches!(self.phase, Phase::Closed { .. } | Phase::Over);
        let consumed = if done { input.len() } else { at };
        Received {
            consumed,
            needed,
            work: self.work,
            more: self.work >= WORK_PER_TURN && consumed < input.len(),
        }
    }

    fn parse<'a>(&self, input: &'a [u8]) -> Result<Parsed<'a>, Exception> {
        let parsed = frame::parse(input, self.frame_max).map_err(|e| errors::frame(&e))?;
        if let Parsed::Incomplete { needed } = parsed {
            self.check_room(needed)?;
        }
        Ok(parsed)
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
    ) -> Result<(&Vhost, &mut Batch, &mut RouteCache, &mut Channel), Exception> {
        let ch = self.channels.get_mut(number).ok_or_else(not_open)?;
        let vhost = self.vhost.as_deref().ok_or_else(no_vhost)?;
        Ok((vhost, &mut self.batch, &mut self.routes, ch))
    }

    fn open_channel(&mut self, number: u16) -> Result<(), Exception> {
        self.forget_left();
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

    fn forget_left(&mut self) {
        while let Some(number) = self.left.pop() {
            self.forget_channel(number);
        }
    }

    /// Frees the number of a channel that was left.
    fn forget_channel(&mut self, number: u16) {
        let holds = self.channels.get(number).is_some_and(Channel::holds);
        debug_assert!(!holds, "channel {number} was not left");
        if self.channels.remove(number) {
            if let Some([node, _, user]) = &self.accounts {
                node.channels.give_back(1);
                user.channels.give_back(1);
            }
            self.counted.channels_closed += 1;
        }
    }

    // ----- out --------------------------------------------------------------------------------

    pub(super) fn send<M: EncodeMethod>(&mut self, channel: u16, method: &M) {
        encode::method(self.output.octets(), channel, method);
    }

    // ----- the batch --------------------------------------------------------------------------

    /// This connection publishes: from now on an alarm holds it back.
    pub(super) fn note_publisher(&mut self) {
        self.published = true;
        self.apply_alarm();
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
        if self.waits_for_log() {
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
