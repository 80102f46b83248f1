//! `leveret perf`: loads an AMQP broker and measures, as `lavinmqperf` and PerfTest do.
//!
//! It speaks to any broker. Each producer and consumer has a connection and a thread of its own; latency is
//! measured by the time that each body carries, so that all of them run in this process.

mod client;
mod load;
mod signals;
mod socket;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use self::client::{Address, Client};
use self::load::{Shared, Window};
use crate::cli::Perf;
use crate::protocol::field_table::{FieldTable, TableRef};
use crate::protocol::methods::{Method, queue};
use crate::trust::Trust;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// How long consumers may make no progress, once nothing is published any more.
const DRAIN: Duration = Duration::from_secs(2);

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_millis(20);

/// Percentiles of a latency, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them are below.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        let us = |nanos: u64| (nanos as f64 / 100.0).round() / 10.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Latency {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max()),
        }
    }
}

/// What was measured. Rates are messages a second.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seconds.
    pub seconds: f64,
    /// Messages published.
    pub published: u64,
    /// Messages consumed.
    pub consumed: u64,
    /// Messages confirmed.
    pub confirmed: u64,
    /// Messages that the broker refused (`basic.nack`).
    pub refused: u64,
    /// Publish rate.
    pub publish_rate: f64,
    /// Consume rate.
    pub consume_rate: f64,
    /// From publish to delivery, microseconds.
    pub latency_us: Option<Latency>,
    /// From publish to confirm, microseconds.
    pub confirm_latency_us: Option<Latency>,
}

type Worker = JoinHandle<()>;

struct Crew {
    shared: Arc<Shared>,
    producers: Vec<Worker>,
    /// Consumers, and readers of confirms: they end with their connections.
    readers: Vec<Worker>,
    connections: Vec<Client>,
    /// The first error of anybody.
    error: Arc<Mutex<Option<io::Error>>>,
    /// Nobody publishes before all are connected: the time starts then.
    start: Arc<Barrier>,
    ending: Arc<AtomicBool>,
}

/// Runs the load to its end, telling progress on standard error and the report on standard output. Queues
/// that were not there before are deleted, however it ends.
///
/// # Errors
/// No connection, or what the broker says against it.
pub fn run(options: &Perf) -> io::Result<()> {
    let trust = match &options.cacert {
        _ if options.insecure => Trust::Anybody,
        Some(file) => Trust::Authorities(file.clone()),
        None => Trust::System,
    };
    let address = Address::parse(&options.uri, &trust).map_err(io::Error::other)?;
    let shared = Arc::new(Shared::new());
    signals::heed(&shared)?;
    let mut made = Vec::new();
    let result = measure(options, &address, &shared, &mut made);
    if !options.keep && !made.is_empty() {
        let mut client = Client::connect(&address)?;
        for name in &made {
            delete(&mut client, name)?;
        }
    }
    tell(&result?, options)
}

/// Declares the queues and loads them. `made` are those that were not there.
fn measure(
    options: &Perf,
    address: &Address,
    shared: &Arc<Shared>,
    made: &mut Vec<String>,
) -> io::Result<Report> {
    let queues = queues(options);
    let mut setup = Client::connect(address)?;
    for name in &queues {
        if exists(&mut setup, name)? {
            say(
                options,
                &format!("queue '{name}' is there, and will not be deleted"),
            );
        } else {
            declare(&mut setup, options, name)?;
            made.push(name.clone());
        }
        bind(&mut setup, options, name)?;
    }
    if options.time == 0 && options.pmessages == 0 && options.cmessages == 0 {
        say(
            options,
            "this goes on until it is interrupted (Ctrl-C); see -z, -C, -D",
        );
    }
    let mut crew = Crew::start(options, address, &queues, shared.clone())?;
    let report = crew.watch(options);
    crew.end();
    let error = crew.error.lock();
    match error.expect("a panic aborts the process").take() {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

fn say(options: &Perf, text: &str) {
    if !options.quiet {
        // Nobody may listen.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn queues(options: &Perf) -> Vec<String> {
    match options.queues {
        1 => vec![options.queue.clone()],
        n => (1..=n).map(|n| format!("{}-{n}", options.queue)).collect(),
    }
}

/// Whether there is a queue of this name: then it is somebody's.
fn exists(client: &mut Client, name: &str) -> io::Result<bool> {
    let look = queue::Declare {
        queue: name,
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: TableRef::unchecked(&[]),
    };
    let found = client.call(&look, |m| {
        matches!(m, Method::QueueDeclareOk(_)).then_some(())
    });
    match found {
        Ok(()) => Ok(true),
        Err(e) if e.to_string().starts_with("NOT_FOUND") => {
            client.open_again()?;
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn declare(client: &mut Client, options: &Perf, name: &str) -> io::Result<()> {
    let mut arguments = FieldTable::new();
    arguments.insert("x-queue-type", options.queue_type.as_str());
    let arguments = arguments.to_bytes();
    let declare = queue::Declare {
        queue: name,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: TableRef::unchecked(&arguments),
    };
    client.call(&declare, |m| {
        matches!(m, Method::QueueDeclareOk(_)).then_some(())
    })
}

fn bind(client: &mut Client, options: &Perf, name: &str) -> io::Result<()> {
    if options.exchange.is_empty() {
        return Ok(());
    }
    let bind = queue::Bind {
        queue: name,
        exchange: &options.exchange,
        routing_key: options.routing_key.as_deref().unwrap_or(name),
        nowait: false,
        arguments: TableRef::unchecked(&[]),
    };
    client.call(&bind, |m| matches!(m, Method::QueueBindOk(_)).then_some(()))
}

fn delete(client: &mut Client, name: &str) -> io::Result<()> {
    let delete = queue::Delete {
        queue: name,
        if_unused: false,
        if_empty: false,
        nowait: false,
    };
    client.call(&delete, |m| {
        matches!(m, Method::QueueDeleteOk(_)).then_some(())
    })
}

impl Crew {
    fn start(
        options: &Perf,
        address: &Address,
        queues: &[String],
        shared: Arc<Shared>,
    ) -> io::Result<Crew> {
        let mut crew = Crew {
            shared,
            producers: Vec::new(),
            readers: Vec::new(),
            connections: Vec::new(),
            error: Arc::default(),
            start: Arc::new(Barrier::new(options.producers + 1)),
            ending: Arc::default(),
        };
        for n in 0..options.consumers {
            let mut client = Client::connect(address)?;
            load::subscribe(&mut client, options, &queues[n % queues.len()])?;
            let mine = client.other_half()?;
            crew.connections.push(mine);
            client.wait_for_ever()?;
            let (options, shared) = (options.clone(), crew.shared.clone());
            let consumer = crew.spawn(move || load::consume(client, &options, &shared));
            crew.readers.push(consumer?);
        }
        for n in 0..options.producers {
            let mut client = Client::connect(address)?;
            let queue = queues[n % queues.len()].clone();
            let mut window = None;
            if options.confirm > 0 {
                load::select_confirms(&mut client)?;
                window = Some(Arc::new(Window::new(options.confirm)));
            }
            crew.connections.push(client.other_half()?);
            let reader = client.other_half()?;
            reader.wait_for_ever()?;
            let shared = crew.shared.clone();
            // Without confirms only to hear of an error.
            let of_reader = window.clone().unwrap_or_else(|| Arc::new(Window::new(1)));
            let confirms = crew.spawn(move || load::read_confirms(reader, &shared, &of_reader));
            crew.readers.push(confirms?);
            let (options, shared) = (options.clone(), crew.shared.clone());
            let start = crew.start.clone();
            let producer = crew.spawn(move || {
                start.wait();
                load::produce(client, &options, &queue, &shared, window.as_deref()).map(drop)
            });
            crew.producers.push(producer?);
        }
        Ok(crew)
    }

    /// A thread whose error ends everything, unless all is ending anyway.
    fn spawn(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Worker> {
        let (shared, error, ending) =
            (self.shared.clone(), self.error.clone(), self.ending.clone());
        std::thread::Builder::new().spawn(move || {
            let done = work();
            if let Err(e) = done
                && !ending.load(Ordering::Acquire)
            {
                error
                    .lock()
                    .expect("a panic aborts the process")
                    .get_or_insert(e);
                shared.stop();
            }
            shared.ring();
        })
    }

    fn failed(&self) -> bool {
        let error = self.error.lock().expect("a panic aborts the process");
        error.is_some()
    }

    /// Waits for the end, telling progress.
    fn watch(&mut self, options: &Perf) -> Report {
        let shared = self.shared.clone();
        self.start.wait();
        let began = Instant::now();
        let limit = (options.time > 0).then(|| Duration::from_secs(options.time));
        let (mut told_at, mut told, mut moved_at, mut last) = (began, (0, 0), began, 0);
        let mut waited = false;
        loop {
            shared.rest(LOOK);
            let now = Instant::now();
            let published = shared.published.load(Ordering::Relaxed);
            let consumed = shared.consumed.load(Ordering::Relaxed);
            let settled =
                shared.confirmed.load(Ordering::Relaxed) + shared.refused.load(Ordering::Relaxed);
            if limit.is_some_and(|limit| now - began >= limit)
                || (options.cmessages > 0 && consumed >= options.cmessages)
            {
                shared.stop();
            }
            if published + consumed + settled != last {
                (last, moved_at) = (published + consumed + settled, now);
            }
            if now - told_at >= PROGRESS && !options.quiet {
                let seconds = (now - told_at).as_secs_f64();
                let rate = |n: u64, before: u64| ((n - before) as f64 / seconds).round();
                // Nobody may listen.
                let _ = writeln!(
                    io::stderr(),
                    "published {}/s, consumed {}/s",
                    rate(published, told.0),
                    rate(consumed, told.1)
                );
                (told_at, told) = (now, (published, consumed));
            }
            if self.failed() {
                break;
            }
            let still = now - moved_at >= DRAIN;
            // An alarm can hold a producer for as long as it likes.
            if shared.is_enough() && still {
                waited = true;
                break;
            }
            if self.producers.iter().all(JoinHandle::is_finished) {
                let waits = (options.consumers > 0 && consumed < published)
                    || (options.confirm > 0 && settled < published);
                let stopped = shared.is_enough() && options.producers == 0;
                let counts = options.producers > 0 || stopped;
                if counts && (!waits || still) {
                    waited = waits;
                    break;
                }
            }
        }
        // What was waited for in vain is nobody's rate.
        let elapsed = match waited {
            true => moved_at - began,
            false => began.elapsed(),
        };
        self.report(elapsed.max(LOOK))
    }

    fn report(&self, elapsed: Duration) -> Report {
        let s = &self.shared;
        let seconds = elapsed.as_secs_f64();
        let of = |h: &Mutex<Histogram<u64>>| {
            let h = h.lock().expect("a panic aborts the process");
            (!h.is_empty()).then(|| Latency::of(&h))
        };
        let (published, consumed) = (
            s.published.load(Ordering::Relaxed),
            s.consumed.load(Ordering::Relaxed),
        );
        Report {
            seconds: (seconds * 1000.0).round() / 1000.0,
            published,
            consumed,
            confirmed: s.confirmed.load(Ordering::Relaxed),
            refused: s.refused.load(Ordering::Relaxed),
            publish_rate: (published as f64 / seconds).round(),
            consume_rate: (consumed as f64 / seconds).round(),
            // Who consumes what another process has published knows nothing of its clock.
            latency_us: of(&s.latency).filter(|_| !self.producers.is_empty()),
            confirm_latency_us: of(&s.confirm_latency),
        }
    }

    fn end(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.shared.stop();
        self.connections.iter().for_each(Client::hang_up);
        for worker in self.producers.drain(..).chain(self.readers.drain(..)) {
            // Errors were noted; a panic aborts the process.
            let _ = worker.join();
        }
    }
}

fn tell(report: &Report, options: &Perf) -> io::Result<()> {
    let mut out = io::stdout();
    if options.json {
        return writeln!(out, "{}", serde_json::to_string(report)?);
    }
    writeln!(
        out,
        "published {} in {} s: {}/s",
        report.published, report.seconds, report.publish_rate
    )?;
    if options.confirm > 0 {
        writeln!(
            out,
            "confirmed {}, refused {}",
            report.confirmed, report.refused
        )?;
    }
    if options.consumers > 0 {
        writeln!(
            out,
            "consumed  {}: {}/s",
            report.consumed, report.consume_rate
        )?;
    }
    let latencies = [
        ("latency", report.latency_us),
        ("confirm latency", report.confirm_latency_us),
    ];
    for (what, latency) in latencies {
        if let Some(l) = latency {
            writeln!(
                out,
                "{what}, microseconds: p50 {} p95 {} p99 {} p99.9 {} max {}",
                l.p50, l.p95, l.p99, l.p999, l.max
            )?;
        }
    }
    Ok(())
}
