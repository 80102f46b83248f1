//! Connections and channels as a client sees them, and the book that is kept of what they are told.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

use leveret::protocol::frame::FrameKind;
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::properties::parse_content_header;
use leveret::protocol::{EncodeMethod, Method, MethodId, encode};

use crate::body;
use crate::history::{CopyId, Delivery, History};
use crate::link::{Link, NoFrame};
use crate::random::Random;
use crate::support::Frame;
use crate::topology::{self, Names};

/// Connections at once.
pub const CONNECTIONS: usize = 4;

/// Channels of each.
pub const CHANNELS: u16 = 3;

/// What ended instead of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Channel,
    Connection,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    #[default]
    Plain,
    Confirm,
    Transactions,
}

/// Where deliveries come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The queue, if it is one that is followed.
    pub queue: Option<usize>,
    pub no_ack: bool,
    /// Unlike all others: what comes from one source is in order.
    pub id: u64,
}

/// A message of which more is to come.
struct Incoming {
    /// `None` for what came back.
    from: Option<(Source, u64, bool)>,
    died_in: Option<usize>,
    size: usize,
    body: Vec<u8>,
}

/// A publish that is on its way: its copies, and how many were settled before it.
pub struct OnItsWay {
    pub copies: Vec<CopyId>,
    pub settled: u64,
}

#[derive(Default)]
pub struct Channel {
    pub open: bool,
    /// A close of ours is on its way.
    pub closing: bool,
    /// Unlike all others, also of other connections.
    pub id: u64,
    pub mode: Mode,
    pub published: u64,
    pub sequence: u64,
    pub on_their_way: BTreeMap<u64, OnItsWay>,
    pub unacked: BTreeMap<u64, Option<CopyId>>,
    pub settling: Vec<CopyId>,
    /// In an open transaction.
    pub to_settle: Vec<(u64, Option<CopyId>)>,
    pub consumers: HashMap<String, Source>,
    pub asked: Option<Source>,
    incoming: Option<Incoming>,
}

impl Channel {
    /// What goes back when it ends.
    pub fn held(&self) -> impl Iterator<Item = CopyId> {
        let to_settle = self.to_settle.iter().map(|(_, copy)| copy);
        self.unacked.values().chain(to_settle).flatten().copied()
    }

    /// In the middle of a message.
    pub fn is_receiving(&self) -> bool {
        self.incoming.is_some()
    }
}

pub struct Connection {
    pub link: Link,
    /// Channels whose close crossed one of the broker's: an answer to it may come or not.
    pub crossed: BTreeSet<u16>,
    pub channels: Vec<Channel>,
}

/// Who published a message, and as which one of the channel, if there is an order.
pub struct Origin {
    pub publisher: u64,
    pub sequence: Option<u64>,
}

pub struct World {
    pub address: SocketAddr,
    pub random: Random,
    pub names: Names,
    pub history: History,
    pub connections: Vec<Option<Connection>>,
    pub messages: HashMap<u64, Origin>,
    pub next_message: u64,
    pub operations: u64,
    pub received: u64,
    /// Queues and exchanges that nobody follows, to be deleted at the end.
    pub wild_queues: BTreeSet<String>,
    pub wild_exchanges: BTreeSet<String>,
    ids: u64,
    /// Operation, and what it did.
    trace: VecDeque<(u64, String)>,
}

/// Operations that are shown when something is wrong.
const TRACE_MAX: usize = 4000;

impl World {
    pub fn new(address: SocketAddr, random: Random, names: Names) -> World {
        let next_message = names.round << 32;
        World {
            address,
            random,
            names,
            history: History::default(),
            connections: (0..CONNECTIONS).map(|_| None).collect(),
            messages: HashMap::new(),
            next_message,
            operations: 0,
            received: 0,
            wild_queues: BTreeSet::new(),
            wild_exchanges: BTreeSet::new(),
            ids: 0,
            trace: VecDeque::new(),
        }
    }

    /// Writes down what is done.
    pub fn note(&mut self, what: String) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back((self.operations, what));
    }

    pub fn fail(&self, what: &str) -> ! {
        for (operation, what) in &self.trace {
            eprintln!("{operation:>6} {what}");
        }
        panic!("operation {}: {what}", self.operations);
    }

    pub fn must<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|what| self.fail(&what))
    }

    pub fn new_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub fn connection(&mut self, i: usize) -> &mut Connection {
        self.connections[i].as_mut().expect("it is there")
    }

    pub fn channel(&mut self, i: usize, number: u16) -> &mut Channel {
        &mut self.connection(i).channels[usize::from(number) - 1]
    }

    /// Connects again if it has to, and opens the channel.
    pub fn ensure(&mut self, i: usize, number: u16) -> Result<(), End> {
        if self.connections[i].is_none() {
            let link = Link::connect(self.address);
            let link = link.unwrap_or_else(|e| self.fail(&format!("no login: {e}")));
            let channels = (0..CHANNELS).map(|_| Channel::default()).collect();
            self.connections[i] = Some(Connection {
                link,
                channels,
                crossed: BTreeSet::new(),
            });
        }
        if !self.channel(i, number).open {
            let id = self.new_id();
            *self.channel(i, number) = Channel {
                id,
                open: true,
                ..Channel::default()
            };
            self.call(i, number, &channel::Open, channel::OpenOk::ID)?;
            self.connection(i).crossed.remove(&number);
        }
        Ok(())
    }

    /// Sends without waiting.
    pub fn send<M: EncodeMethod>(&mut self, i: usize, number: u16, m: &M) -> Result<(), End> {
        encode::method(&mut self.connection(i).link.out, number, m);
        self.flush(i)
    }

    pub fn flush(&mut self, i: usize) -> Result<(), End> {
        match self.connection(i).link.flush() {
            Ok(()) => Ok(()),
            Err(NoFrame::Over) => self.is_over(i),
            Err(NoFrame::Silent) => self.fail(&format!("connection {i}: nothing is taken")),
        }
    }

    fn is_over<T>(&mut self, i: usize) -> Result<T, End> {
        self.connection_lost(i);
        Err(End::Connection)
    }

    /// Sends, and waits for this answer. All that was sent before on this channel has been heard then.
    pub fn call<M: EncodeMethod>(
        &mut self,
        i: usize,
        number: u16,
        m: &M,
        answer: MethodId,
    ) -> Result<Frame, End> {
        self.send(i, number, m)?;
        let frame = self.answer(i, number)?;
        if frame.method().id() != answer {
            self.fail(&format!(
                "connection {i}: expected {answer}, got {:?}",
                frame.method()
            ));
        }
        Ok(frame)
    }

    /// The next answer on this channel, whatever it is.
    pub fn answer(&mut self, i: usize, number: u16) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.next_frame(i)? {
                if frame.channel != number {
                    self.fail(&format!(
                        "connection {i}: {:?} without a question",
                        frame.method()
                    ));
                }
                self.heard(i, number);
                return Ok(frame);
            }
            if !self.channel(i, number).open {
                return Err(End::Channel);
            }
        }
    }

    /// Waits for a frame; returned if it is an answer.
    pub fn next_frame(&mut self, i: usize) -> Result<Option<Frame>, End> {
        match self.connection(i).link.next() {
            Ok(frame) => self.dispatch(i, frame),
            Err(NoFrame::Over) => self.is_over(i),
            Err(NoFrame::Silent) => self.fail(&format!("connection {i}: nothing comes")),
        }
    }

    /// Takes what has arrived.
    pub fn pump(&mut self, i: usize) -> Result<(), End> {
        while let Some(frame) = self.connection(i).link.poll() {
            if let Some(frame) = self.dispatch(i, frame)? {
                self.fail(&format!(
                    "connection {i}: {:?} without a question",
                    frame.method()
                ));
            }
        }
        match self.connection(i).link.is_over() {
            true => self.is_over(i),
            false => Ok(()),
        }
    }

    /// Everything on this channel has arrived.
    fn heard(&mut self, i: usize, number: u16) {
        let c = self.channel(i, number);
        let settled = std::mem::take(&mut c.settling);
        let kept = match c.mode {
            Mode::Plain => std::mem::take(&mut c.on_their_way),
            _ => BTreeMap::new(),
        };
        for copy in settled {
            let gone = self.history.gone(copy);
            self.must(gone);
        }
        for copy in kept.into_values().flat_map(|p| p.copies) {
            self.history.kept(copy, false, 0);
        }
    }

    /// Returns what is an answer.
    fn dispatch(&mut self, i: usize, frame: Frame) -> Result<Option<Frame>, End> {
        match frame.kind {
            FrameKind::Method => {}
            FrameKind::Header => {
                let header = parse_content_header(&frame.payload).expect("a good header");
                let died_in = header
                    .properties
                    .headers()
                    .and_then(|t| t.get("x-first-death-queue"));
                let died_in = died_in.as_ref().and_then(|v| v.as_octets());
                let died_in = died_in.and_then(|name| self.names.index(name));
                let c = self.channel(i, frame.channel);
                let Some(incoming) = &mut c.incoming else {
                    self.fail("a header without a method");
                };
                incoming.size = header.body_size as usize;
                incoming.died_in = died_in;
                self.arrived(i, frame.channel);
                return Ok(None);
            }
            FrameKind::Body => {
                let c = self.channel(i, frame.channel);
                let Some(incoming) = &mut c.incoming else {
                    self.fail("a body without a method");
                };
                incoming.body.extend(frame.payload);
                self.arrived(i, frame.channel);
                return Ok(None);
            }
            FrameKind::Heartbeat => return Ok(None),
        }
        let incoming = |from| Incoming {
            from,
            died_in: None,
            size: 0,
            body: Vec::new(),
        };
        match frame.method() {
            Method::BasicDeliver(d) => {
                let c = self.channel(i, frame.channel);
                let Some(source) = c.consumers.get(d.consumer_tag).cloned() else {
                    self.fail(&format!("a delivery to nobody: {d:?}"));
                };
                c.incoming = Some(incoming(Some((source, d.delivery_tag, d.redelivered))));
            }
            Method::BasicGetOk(d) => {
                let c = self.channel(i, frame.channel);
                let Some(source) = c.asked.take() else {
                    self.fail("a message that nobody asked for");
                };
                c.incoming = Some(incoming(Some((source, d.delivery_tag, d.redelivered))));
                // The message is the answer: see `arrived`.
                self.heard(i, frame.channel);
            }
            Method::BasicReturn(_) => {
                self.channel(i, frame.channel).incoming = Some(incoming(None));
            }
            Method::BasicAck(ack) => {
                self.confirmed(i, frame.channel, ack.delivery_tag, ack.multiple)
            }
            Method::BasicNack(nack) => {
                self.nacked(i, frame.channel, nack.delivery_tag, nack.multiple)
            }
            Method::BasicCancel(cancel) => {
                let tag = cancel.consumer_tag.to_string();
                self.channel(i, frame.channel).consumers.remove(&tag);
            }
            Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_) => {}
            Method::ChannelClose(close) => {
                let (code, text) = (close.reply_code, close.reply_text.to_string());
                self.note(format!("{i}.{}: closed, {code} {text}", frame.channel));
                if self.channel(i, frame.channel).closing {
                    self.connection(i).crossed.insert(frame.channel);
                }
                self.channel_lost(i, frame.channel);
                self.send(i, frame.channel, &channel::CloseOk)?;
            }
            Method::ConnectionClose(close) => {
                let (code, text) = (close.reply_code, close.reply_text.to_string());
                self.note(format!("{i}: closed, {code} {text}"));
                self.send(i, 0, &connection::CloseOk)?;
                return self.is_over(i);
            }
            Method::ChannelCloseOk(_) if self.connection(i).crossed.remove(&frame.channel) => {}
            _ => return Ok(Some(frame)),
        }
        Ok(None)
    }

    /// A part of a message has arrived.
    fn arrived(&mut self, i: usize, number: u16) {
        let c = self.channel(i, number);
        let Some(m) = c.incoming.take_if(|m| m.body.len() >= m.size) else {
            return;
        };
        let Some((source, tag, redelivered)) = m.from else {
            return;
        };
        self.received += 1;
        let read = match source.queue {
            // Rubbish may have got there.
            None => Ok(body::number(&m.body).unwrap_or(None)),
            Some(_) => body::number(&m.body),
        };
        let read = self.must(read);
        let (queue, died_in) = (source.queue, m.died_in);
        let again = if redelivered { " again" } else { "" };
        self.note(format!(
            "{i}.{number}: got {read:?} of {queue:?} {died_in:?}{again}, tag {tag}"
        ));
        let copy = match (read, source.queue) {
            (Some(message), Some(queue)) => {
                let dead = queue == topology::DEAD;
                let first = if dead { m.died_in } else { Some(queue) };
                let Some(first) = first else {
                    self.fail(&format!("message {message} is a dead letter of nothing"));
                };
                let copy = CopyId {
                    message,
                    queue: first,
                };
                let Some(origin) = self.messages.get(&message) else {
                    self.fail(&format!("message {message} was never published"));
                };
                let delivery = Delivery {
                    copy,
                    dead,
                    redelivered,
                    consumer: source.id,
                    publisher: origin.publisher,
                    sequence: origin.sequence.filter(|_| topology::is_ordered(queue)),
                };
                let result = self.history.delivered(&delivery);
                self.must(result);
                Some(copy)
            }
            (None, None) => None,
            (read, queue) => self.fail(&format!("message {read:?} came from {queue:?}")),
        };
        if !source.no_ack {
            self.channel(i, number).unacked.insert(tag, copy);
        } else if let Some(copy) = copy {
            let taken = self.history.taken(copy);
            self.must(taken);
        }
    }

    fn confirmed(&mut self, i: usize, number: u16, tag: u64, multiple: bool) {
        let c = self.channel(i, number);
        let told: Vec<OnItsWay> = match multiple {
            true => {
                let rest = c.on_their_way.split_off(&(tag + 1));
                std::mem::replace(&mut c.on_their_way, rest)
                    .into_values()
                    .collect()
            }
            false => c.on_their_way.remove(&tag).into_iter().collect(),
        };
        if tag > c.published || (told.is_empty() && c.mode != Mode::Confirm) {
            self.fail(&format!(
                "{i}.{number}: a confirm of {tag} without a reason"
            ));
        }
        for p in told {
            for copy in p.copies {
                self.history.kept(copy, true, p.settled);
            }
        }
    }

    /// Refused: only queues that nobody follows refuse.
    fn nacked(&mut self, i: usize, number: u16, tag: u64, multiple: bool) {
        let c = self.channel(i, number);
        let first = if multiple { 0 } else { tag };
        let refused: Vec<u64> = c.on_their_way.range(first..=tag).map(|(t, _)| *t).collect();
        for tag in refused {
            let refused = self.channel(i, number).on_their_way.remove(&tag);
            if refused.is_some_and(|p| !p.copies.is_empty()) {
                self.fail(&format!("{i}.{number}: publish {tag} was refused"));
            }
        }
    }

    /// What a channel held goes back; what was not answered is in doubt.
    pub fn channel_lost(&mut self, i: usize, number: u16) {
        let c = std::mem::take(self.channel(i, number));
        for copy in c.held() {
            self.history.returned(copy);
        }
        for copy in c.settling {
            self.history.unsettled(copy);
        }
        for source in c.consumers.values().chain(&c.asked).filter(|s| s.no_ack) {
            if let Some(queue) = source.queue {
                self.shaken(queue);
            }
        }
        if c.mode == Mode::Transactions {
            // Never committed, or nobody knows.
            for copy in c.on_their_way.into_values().flat_map(|p| p.copies) {
                match c.open {
                    true => self.history.undone(copy),
                    false => self.history.doubtful(copy),
                }
            }
        }
    }

    /// What waits in a queue may be gone.
    pub fn shaken(&mut self, queue: usize) {
        match queue {
            topology::DEAD => self.history.shaken(topology::has_dead_letters),
            _ => self.history.shaken(|q| q == queue),
        }
    }

    pub fn connection_lost(&mut self, i: usize) {
        if self.connections[i].is_none() {
            return;
        }
        for number in 1..=CHANNELS {
            self.channel_lost(i, number);
        }
        self.connections[i] = None;
    }

    /// Copies of a new message.
    pub fn new_message(
        &mut self,
        origin: Origin,
        to: &[usize],
        persistent: bool,
    ) -> (u64, Vec<CopyId>) {
        let message = self.next_message;
        self.next_message += 1;
        self.messages.insert(message, origin);
        let copies: Vec<_> = to
            .iter()
            .map(|queue| CopyId {
                message,
                queue: *queue,
            })
            .collect();
        for copy in &copies {
            self.history.published(*copy, persistent);
        }
        (message, copies)
    }

    pub fn cancel(&mut self, i: usize, number: u16, tag: &str) -> Result<(), End> {
        let cancel = basic::Cancel {
            consumer_tag: tag,
            nowait: false,
        };
        self.call(i, number, &cancel, basic::CancelOk::ID)?;
        self.channel(i, number).consumers.remove(tag);
        Ok(())
    }
}
