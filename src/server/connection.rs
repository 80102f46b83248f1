//! The connection task: read, feed the machine, write.
//!
//! One task owns the socket and everything of the connection. Reads and writes are polled together;
//! a full output stops reading, never the other way round.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::admission::HalfOpen;
use super::gate::{Gate, Published, Reason, View};
use super::inbox::{Contents, Inbox};
use super::punctual::Punctual;
use super::shared::Shared;
use crate::amqp::connection::{Connection, Parts, WORK_PER_TURN};
use crate::amqp::output::Output;
use crate::broker::by_queue::ByQueue;
use crate::broker::memory::{Charge, Use};
use crate::broker::ports::{Bell, Lsn};
use crate::broker::queue::outlet::Outlet;
use crate::broker::queue::{ConsumerIndex, Queue};
use crate::clock;

/// The read buffer of a connection that has little to say.
const READ_BYTES_MIN: usize = 4 * 1024;

/// The read buffer of a connection under load. A frame that is larger makes it grow as the frame
/// arrives.
const READ_BYTES_MAX: usize = 256 * 1024;

/// A read of this many octets is part of a stream. No larger than a TLS record.
const STREAM_BYTES: usize = 16 * 1024;

/// Output that is written before more deliveries are taken from the inbox.
const WRITE_AT_BYTES: usize = 256 * 1024;

/// An output buffer larger than this is given back once it is empty.
const KEEP_OUTPUT_BYTES: usize = 512 * 1024;

/// Pieces of output that one system call takes.
const SLICES: usize = 64;

/// How long a deadline lies ahead when there is none.
const FAR: Duration = Duration::from_secs(3600);

/// How long the last bytes may take to leave.
const LINGER: Duration = Duration::from_secs(3);

struct Task<S> {
    machine: Connection,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    input: BytesMut,
    /// Bytes of input needed before the machine can go on.
    needed: usize,
    read_bytes: usize,
    contents: Contents,
    /// Unix milliseconds since which output waits without progress.
    stuck_since: Option<u64>,
    alarm_version: u64,
    /// While it has not logged in.
    half_open: Option<HalfOpen>,
    closing_for: bool,
    gate: Gate,
    /// The log rings when it has come this far.
    rung_for: Lsn,
    punctual: Punctual,
    /// The last read brought a lot: more is on its way.
    streaming: bool,
    /// The machine has had its turn, and there is more for it.
    more: bool,
    /// Work that was done since others had their turn.
    worked: u32,
    /// What waits for the rest of a frame, as it was counted last.
    charge: Charge,
}

/// Why a connection ended.
enum End {
    /// The peer closed, or the machine is done.
    Over,
    /// The socket failed.
    Io(io::Error),
    /// The peer does not read.
    WriteTimeout,
    /// The peer has said nothing for too long.
    Silent,
}

/// A socket, plain or with TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the end of the connection a reset: what the peer still writes fails.
    fn reset_at_close(&self);
}

impl Socket for TcpStream {
    fn reset_at_close(&self) {
        if let Err(e) = SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!("socket options: {e}");
        }
    }
}

impl Socket for TlsStream<TcpStream> {
    fn reset_at_close(&self) {
        self.get_ref().0.reset_at_close();
    }
}

/// The two ends of a socket, and what is known of them.
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    /// The user whom the peer's certificate names.
    pub(super) certified: Option<String>,
    /// Unix milliseconds; the time limit of the handshakes, TLS and AMQP together, counts from then.
    pub(super) accepted_at: u64,
    /// Its place among those that have not logged in.
    pub(super) half_open: HalfOpen,
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(stream: S, ends: Ends, shared: Arc<Shared>)
where
    S: Socket,
{
    let limits = &shared.config.limits;
    let inbox = Inbox::new(limits.inbox_deliveries, limits.inbox_bytes.0);
    let outlet: Arc<dyn Outlet> = inbox.clone();
    let bell: Arc<dyn Bell> = inbox.clone();
    let parts = Parts {
        broker: shared.broker.clone(),
        settings: shared.session.clone(),
        authenticator: shared.authenticator.clone(),
        outlet,
        bell,
        address: Some(ends.peer),
        local: ends.local,
        certified: ends.certified,
    };
    let machine = Connection::new(parts, ends.accepted_at);
    let key = shared.register(&inbox);
    let (reader, writer) = tokio::io::split(stream);
    let mut task = Task {
        machine,
        inbox,
        reader,
        writer,
        input: BytesMut::new(),
        needed: 1,
        read_bytes: READ_BYTES_MIN,
        contents: Contents::default(),
        stuck_since: None,
        alarm_version: 0,
        half_open: Some(ends.half_open),
        closing_for: false,
        gate: Gate::new(),
        rung_for: Lsn::default(),
        punctual: Punctual::default(),
        streaming: false,
        more: false,
        worked: 0,
        charge: shared.broker.memory().charge(Use::Assembly),
        shared: shared.clone(),
    };
    let end = task.run().await;
    shared.unregister(key);
    task.finish(end).await;
}

/// Writes what the socket takes of it.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, output: &Output) -> io::Result<usize> {
    poll_fn(|cx| {
        let writer = Pin::new(&mut *writer);
        if let Some(octets) = output.contiguous() {
            return writer.poll_write(cx, octets);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let n = output.slices(&mut slices);
        writer.poll_write_vectored(cx, slices.get(..n).unwrap_or(&[]))
    })
    .await
}

impl<S: Socket> Task<S> {
    async fn run(&mut self) -> End {
        let timer = tokio::time::sleep(FAR);
        tokio::pin!(timer);
        let mut armed = None;
        loop {
            self.step();
            if self.machine.is_reset() {
                return End::Silent;
            }
            if self.machine.is_over() && self.machine.output.is_empty() {
                return End::Over;
            }
            let reading = self.gate.closed().is_none();
            self.machine.set_paused(!reading, clock::now());
            let writing = !self.machine.output.is_empty();
            let deadline = self.deadline();
            if deadline != armed {
                armed = deadline;
                timer
                    .as_mut()
                    .reset(Instant::now() + deadline.map_or(FAR, clock::until));
            }
            let (reading, more) = (reading && !self.more, reading && self.more);
            if reading {
                self.make_room();
            }
            let inbox = &self.inbox;
            tokio::select! {
                biased;
                written = write(&mut self.writer, &self.machine.output), if writing => match written {
                    Ok(0) => return End::Over,
                    Ok(n) => self.wrote(n),
                    Err(e) => return End::Io(e),
                },
                read = self.reader.read_buf(&mut self.input), if reading => match read {
                    Ok(0) => return End::Over,
                    Ok(n) => {
                        // Any octet says that the peer is there, long before its frame is complete.
                        self.machine.heard(clock::now());
                        self.adapt(n);
                    }
                    Err(e) => return End::Io(e),
                },
                () = inbox.rung() => {}
                () = &mut timer => {
                    let due = armed.take();
                    let now = clock::now();
                    if !self.punctual.judges(due, now) {
                        continue;
                    }
                    let timeout = self.shared.config.protocol.write_timeout_ms;
                    if self.stuck_since.is_some_and(|since| since + timeout <= now) {
                        return End::WriteTimeout;
                    }
                    self.machine.tick(now);
                }
                () = std::future::ready(()), if more => {}
            }
            // A socket that is always ready would keep this thread for itself, and those that wait for theirs
            // to be looked at.
            if self.worked >= WORK_PER_TURN {
                self.worked = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Does what can be done without waiting.
    fn step(&mut self) {
        let now = clock::now();
        if self.inbox.take_ring() {
            self.machine.progress(now);
            let alarm = self.shared.alarm_version();
            if alarm != self.alarm_version {
                self.alarm_version = alarm;
                self.machine.set_alarm(self.shared.alarm().as_deref());
            }
            if !self.closing_for
                && let Some(reason) = self.shared.closing_reason()
            {
                self.closing_for = true;
                self.machine.force_close(&reason, now);
            }
        }
        self.look(now);
        if self.input.len() >= self.needed && self.gate.closed().is_none() {
            let received = self.machine.receive(&self.input, now);
            self.input.advance(received.consumed);
            self.needed = received.needed.max(1);
            self.more = received.more;
            self.worked = self.worked.saturating_add(received.work);
            if let Some(published) = self.machine.take_published() {
                let behind = published.behind.filter(|queue| {
                    let outlet: Arc<dyn Outlet> = self.inbox.clone();
                    self.streaming && queue.wait_for_consumers(&outlet)
                });
                if behind.is_some() {
                    self.shared
                        .waits_for_consumers
                        .fetch_add(1, Ordering::Relaxed);
                }
                let published = Published {
                    spilled: published.spilled,
                    behind,
                };
                let view = self.view(now);
                self.gate.published(published, &view);
            }
            if self.input.is_empty() && self.input.capacity() > READ_BYTES_MAX {
                self.input = BytesMut::new();
            }
            if self.half_open.is_some() && self.machine.is_running() {
                self.half_open = None;
            }
        }
        // Also of a frame whose beginning the machine has seen.
        self.count_input();
        if self.machine.output.len() < WRITE_AT_BYTES {
            self.take_inbox(now);
        }
        self.look(now);
        if self.gate.closed() == Some(Reason::Backlog) {
            self.ring_when_caught_up();
        }
        if self.machine.output.is_empty() {
            self.stuck_since = None;
        } else {
            self.stuck_since.get_or_insert(now);
        }
    }

    fn view(&self, now: u64) -> View {
        let (log, limits) = (self.shared.broker.log(), &self.shared.config.limits);
        View {
            session: self.machine.held(),
            logs: self.machine.logs(),
            full: log.is_full(),
            backlog: log.backlog_bytes() >= limits.log_backlog_bytes.0,
            memory_short: self.shared.broker.memory().is_short(),
            now,
        }
    }

    fn look(&mut self, now: u64) {
        let view = self.view(now);
        self.gate.look(&view);
    }

    /// The disk is behind: goes on when it has caught up with what is staged now.
    fn ring_when_caught_up(&mut self) {
        let log = self.shared.broker.log();
        if self.rung_for <= log.durable() {
            self.rung_for = log.staged();
            let bell: Arc<dyn Bell> = self.inbox.clone();
            log.ring_at(self.rung_for, &bell);
        }
    }

    /// What is left waits for the rest of a frame, if that is large.
    fn count_input(&mut self) {
        let waits = match self.input.len() {
            n if n >= READ_BYTES_MIN && self.needed > n => self.input.capacity(),
            _ => 0,
        };
        self.charge.set(waits as u64);
    }

    fn take_inbox(&mut self, now: u64) {
        self.inbox.take(&mut self.contents);
        if !self.contents.deliveries.is_empty() {
            let deliveries = u32::try_from(self.contents.deliveries.len()).unwrap_or(u32::MAX);
            self.worked = self.worked.saturating_add(deliveries);
            self.machine.deliver(&mut self.contents.deliveries, now);
        }
        for notice in self.contents.notices.drain(..) {
            self.machine.notice(notice, now);
        }
        let mut stalled = std::mem::take(&mut self.contents.stalled);
        self.resume(&mut stalled, now);
        self.contents.clear();
        self.contents.stalled = stalled;
    }

    /// The inbox has room again: consumers that found it full go on, those of one queue together. The queue
    /// that was first the last time is last now, or it would take all the room again.
    fn resume(&mut self, stalled: &mut Vec<(Weak<Queue>, ConsumerIndex)>, now: u64) {
        if stalled.is_empty() {
            return;
        }
        let mut by_queue = ByQueue::<Vec<ConsumerIndex>>::default();
        for (queue, consumer) in stalled.drain(..) {
            if let Some(queue) = queue.upgrade() {
                by_queue.of(&queue).push(consumer);
            }
        }
        let mut by_queue = by_queue.take();
        if !by_queue.is_empty() {
            by_queue.rotate_left(1);
        }
        for (queue, consumers) in by_queue {
            self.machine.resume(&queue, &consumers, now);
        }
    }

    fn deadline(&self) -> Option<u64> {
        let stuck = self
            .stuck_since
            .map(|since| since + self.shared.config.protocol.write_timeout_ms);
        let judged = [self.machine.next_deadline(), stuck];
        let judged = judged.into_iter().flatten().min();
        let judged = judged.map(|at| self.punctual.not_before(at));
        [judged, self.gate.until()].into_iter().flatten().min()
    }

    fn make_room(&mut self) {
        // Never on the peer's word: a large frame grows the buffer as it arrives.
        let wanted = self.read_bytes.max(self.input.len().min(READ_BYTES_MAX));
        if self.input.capacity() - self.input.len() < wanted / 2 {
            self.input.reserve(wanted);
        }
    }

    /// Doubles the read buffer while it is filled, halves it while it is not.
    fn adapt(&mut self, n: usize) {
        self.streaming = n >= STREAM_BYTES;
        if n >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if n < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
    }

    fn wrote(&mut self, n: usize) {
        let now = clock::now();
        self.machine.wrote(n, now);
        self.stuck_since = (!self.machine.output.is_empty()).then_some(now);
        if self.machine.output.is_empty() && self.machine.output.capacity() > KEEP_OUTPUT_BYTES {
            self.machine.output = Output::default();
        }
    }

    async fn finish(mut self, end: End) {
        self.half_open = None;
        // Of thousands that end at once each has work to do, and whoever else is served would be so behind them.
        let turn = self.shared.endings.acquire().await;
        let now = clock::now();
        self.inbox.take(&mut self.contents);
        self.machine
            .lost(std::mem::take(&mut self.contents.deliveries), now);
        drop(turn);
        let of = &self.machine.peer;
        let (user, name, peer) = (of.user.as_str(), of.name.as_str(), of.shown());
        match (&end, self.machine.reason()) {
            (End::WriteTimeout, _) => {
                tracing::warn!(%peer, user, name, "connection closed: the peer does not read");
            }
            (End::Io(e), _) => tracing::info!(%peer, user, name, error = %e, "connection lost"),
            (End::Over | End::Silent, Some(reason)) => {
                tracing::warn!(%peer, user, name, reason, "connection closed");
            }
            (End::Over | End::Silent, None) => {
                tracing::info!(%peer, user, name, "connection closed");
            }
        }
        match end {
            End::Io(_) => {}
            End::Silent => self.reader.unsplit(self.writer).reset_at_close(),
            End::Over | End::WriteTimeout => {
                // What the peer still sends is not waited for; what we said last should arrive.
                let _ = tokio::time::timeout(LINGER, self.writer.shutdown()).await;
            }
        }
    }
}
