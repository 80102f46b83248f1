//! Who publishes and who consumes, each in a thread of its own.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hdrhistogram::Histogram;

use super::client::{Client, method};
use crate::cli::Perf;
use crate::protocol::encode::{self, Content};
use crate::protocol::frame::FrameKind;
use crate::protocol::methods::{Method, basic, confirm};
use crate::protocol::properties::Properties;

/// Frames are written when so much has been put together.
const WRITE_BYTES: usize = 64 * 1024;

/// How finely a rate is kept.
const PACE: Duration = Duration::from_millis(1);

/// Octets of a body that say when it was published.
pub const STAMP_BYTES: usize = 8;

const UNPOISONED: &str = "a panic aborts the process";

/// What everybody counts in.
pub struct Shared {
    /// Time of publishing is counted from here, nanoseconds.
    pub began: Instant,
    /// Messages published.
    pub published: AtomicU64,
    /// Messages confirmed.
    pub confirmed: AtomicU64,
    /// Messages that the broker refused.
    pub refused: AtomicU64,
    /// Messages consumed.
    pub consumed: AtomicU64,
    /// From publish to delivery, nanoseconds.
    pub latency: Mutex<Histogram<u64>>,
    /// From publish to confirm, nanoseconds.
    pub confirm_latency: Mutex<Histogram<u64>>,
    /// Nothing more is published.
    enough: AtomicBool,
    /// Rung when something ends.
    bell: (Mutex<()>, Condvar),
}

/// A histogram with three digits, from a nanosecond to an hour.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds that fit")
}

impl Shared {
    /// Nothing was published yet.
    pub fn new() -> Shared {
        Shared {
            began: Instant::now(),
            published: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            latency: Mutex::new(histogram()),
            confirm_latency: Mutex::new(histogram()),
            enough: AtomicBool::new(false),
            bell: (Mutex::default(), Condvar::new()),
        }
    }

    /// Nothing more is to be published.
    pub fn stop(&self) {
        self.enough.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// Something has ended.
    pub fn ring(&self) {
        drop(self.bell.0.lock().expect(UNPOISONED));
        self.bell.1.notify_all();
    }

    /// Waits until something ends, at most so long.
    pub fn rest(&self, at_most: Duration) {
        let guard = self.bell.0.lock().expect(UNPOISONED);
        drop(self.bell.1.wait_timeout(guard, at_most).expect(UNPOISONED));
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Whether publishing goes on, after `n` messages of one producer.
    fn goes_on(&self, n: u64, most: u64) -> bool {
        !self.is_enough() && (most == 0 || n < most)
    }
}

/// What a producer and the reader of its confirms share.
pub struct Window {
    /// The highest sequence number up to which all are settled.
    settled: Mutex<u64>,
    moved: Condvar,
    /// When the latest messages were published, by sequence number.
    times: Vec<AtomicU64>,
}

impl Window {
    /// At most so many messages without their confirms.
    pub fn new(most: u64) -> Window {
        Window {
            settled: Mutex::new(0),
            moved: Condvar::new(),
            times: (0..most).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn time(&self, seqno: u64) -> &AtomicU64 {
        &self.times[(seqno % self.times.len() as u64) as usize]
    }

    /// How many more may be published; waits until it is one at least, or there is nothing to wait for.
    fn room(&self, published: u64, shared: &Shared) -> u64 {
        let most = self.times.len() as u64;
        let mut settled = self.settled.lock().expect(UNPOISONED);
        while published - *settled >= most && !shared.is_enough() {
            let wait = self.moved.wait_timeout(settled, Duration::from_millis(100));
            settled = wait.expect(UNPOISONED).0;
        }
        most - (published - *settled)
    }
}

/// Publishes until it is enough; returns how many.
///
/// # Errors
/// The socket's.
pub fn produce(
    mut client: Client,
    options: &Perf,
    queue: &str,
    shared: &Shared,
    window: Option<&Window>,
) -> io::Result<u64> {
    let mut body = vec![0u8; options.size.max(STAMP_BYTES)];
    let properties = Properties {
        delivery_mode: Some(if options.persistent { 2 } else { 1 }),
        ..Properties::default()
    }
    .encode();
    let publish = basic::Publish {
        exchange: options.exchange.as_str().into(),
        routing_key: options.routing_key.as_deref().unwrap_or(queue).into(),
        mandatory: false,
        immediate: false,
    };
    let mut n = 0;
    let began = Instant::now();
    while shared.goes_on(n, options.pmessages) {
        let mut room = window.map_or(u64::MAX, |w| w.room(n, shared));
        if options.rate > 0 {
            let due = (began.elapsed().as_secs_f64() * options.rate as f64) as u64;
            if due <= n {
                shared.rest(PACE);
                continue;
            }
            room = room.min(due - n);
        }
        let first = n;
        while room > 0
            && client.output.len() < WRITE_BYTES
            && (options.pmessages == 0 || n < options.pmessages)
        {
            n += 1;
            room -= 1;
            let now = shared.now();
            if let Some(window) = window {
                window.time(n).store(now, Ordering::Relaxed);
            }
            body[..STAMP_BYTES].copy_from_slice(&now.to_be_bytes());
            encode::method(&mut client.output, 1, &publish);
            let content = Content {
                properties: &properties,
                body: &body,
            };
            encode::content(&mut client.output, 1, &content, client.frame_max);
        }
        client.flush()?;
        shared.published.fetch_add(n - first, Ordering::Relaxed);
    }
    Ok(n)
}

/// Asks for confirms.
///
/// # Errors
/// The socket's, or what the broker says against it.
pub fn select_confirms(client: &mut Client) -> io::Result<()> {
    client.call(&confirm::Select { nowait: false }, |m| {
        matches!(m, Method::ConfirmSelectOk(_)).then_some(())
    })
}

/// Reads confirms until the connection ends.
///
/// # Errors
/// The socket's, or what the broker says against it.
pub fn read_confirms(mut client: Client, shared: &Shared, window: &Window) -> io::Result<()> {
    // Settled out of order, above the highest of all.
    let mut early = std::collections::BTreeSet::new();
    let mut upto = 0u64;
    loop {
        client.fill()?;
        let now = shared.now();
        let before = upto;
        loop {
            let taken = client.take_frame(|frame, _| {
                if frame.kind != FrameKind::Method {
                    return Ok(());
                }
                let (tag, multiple, count) = match method(frame.payload)? {
                    Method::BasicAck(m) => (m.delivery_tag, m.multiple, &shared.confirmed),
                    Method::BasicNack(m) => (m.delivery_tag, m.multiple, &shared.refused),
                    _ => return Ok(()),
                };
                let mut latency = shared.confirm_latency.lock().expect(UNPOISONED);
                let from = if multiple { upto + 1 } else { tag };
                let mut settled = 0;
                for seqno in from..=tag {
                    if seqno > upto && early.insert(seqno) {
                        let time = window.time(seqno).load(Ordering::Relaxed);
                        latency.saturating_record(now.saturating_sub(time));
                        settled += 1;
                    }
                }
                count.fetch_add(settled, Ordering::Relaxed);
                while early.remove(&(upto + 1)) {
                    upto += 1;
                }
                Ok(())
            })?;
            if !taken {
                break;
            }
        }
        if upto > before {
            *window.settled.lock().expect(UNPOISONED) = upto;
            window.moved.notify_one();
        }
    }
}

/// Starts consuming.
///
/// # Errors
/// The socket's, or what the broker says against it.
pub fn subscribe(client: &mut Client, options: &Perf, queue: &str) -> io::Result<()> {
    if options.prefetch > 0 {
        let qos = basic::Qos {
            prefetch_size: 0,
            prefetch_count: options.prefetch,
            global: false,
        };
        client.call(&qos, |m| matches!(m, Method::BasicQosOk(_)).then_some(()))?;
    }
    let consume = basic::Consume {
        queue,
        consumer_tag: "",
        no_local: false,
        no_ack: options.ack == 0,
        exclusive: false,
        nowait: false,
        arguments: crate::protocol::field_table::TableRef::unchecked(&[]),
    };
    client.call(&consume, |m| {
        matches!(m, Method::BasicConsumeOk(_)).then_some(())
    })
}

/// Takes messages until the connection ends.
///
/// # Errors
/// The socket's, or what the broker says against it.
pub fn consume(mut client: Client, options: &Perf, shared: &Shared) -> io::Result<()> {
    let mut delivery = Delivery::default();
    // No prefetch limit that is smaller may wait for an acknowledgement.
    let ack_every = match options.prefetch {
        0 => options.ack,
        prefetch => options.ack.min(u64::from(prefetch)),
    };
    loop {
        let mut latencies = Vec::new();
        while client.take_frame(|frame, output| {
            if delivery.take(frame.kind, frame.payload)? {
                let now = shared.now();
                latencies.push(now.saturating_sub(delivery.published_at));
                if ack_every > 0 && delivery.tag % ack_every == 0 {
                    acknowledge(output, delivery.tag);
                }
            }
            Ok(())
        })? {}
        if !latencies.is_empty() {
            let consumed = latencies.len() as u64;
            let mut histogram = shared.latency.lock().expect(UNPOISONED);
            latencies
                .iter()
                .for_each(|l| histogram.saturating_record(*l));
            drop(histogram);
            shared.consumed.fetch_add(consumed, Ordering::Relaxed);
        }
        client.flush()?;
        client.fill()?;
    }
}

fn acknowledge(output: &mut BytesMut, delivery_tag: u64) {
    let ack = basic::Ack {
        delivery_tag,
        multiple: true,
    };
    encode::method(output, 1, &ack);
}

/// A delivery as its frames come in.
#[derive(Default)]
struct Delivery {
    tag: u64,
    /// Octets of the body that are still to come.
    left: u64,
    begun: bool,
    published_at: u64,
}

impl Delivery {
    /// Takes the next frame; whether the delivery is complete with it.
    fn take(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<bool> {
        match kind {
            FrameKind::Method => {
                if let Method::BasicDeliver(m) = method(payload)? {
                    (self.tag, self.begun, self.published_at) = (m.delivery_tag, false, 0);
                }
                Ok(false)
            }
            FrameKind::Header => {
                let size = payload.get(4..12).and_then(|b| b.first_chunk::<8>());
                self.left = size.map_or(0, |b| u64::from_be_bytes(*b));
                Ok(self.left == 0)
            }
            FrameKind::Body => {
                if !self.begun {
                    let stamp = payload.first_chunk::<STAMP_BYTES>();
                    self.published_at = stamp.map_or(0, |b| u64::from_be_bytes(*b));
                    self.begun = true;
                }
                self.left = self.left.saturating_sub(payload.len() as u64);
                Ok(self.left == 0)
            }
            FrameKind::Heartbeat => Ok(false),
        }
    }
}
