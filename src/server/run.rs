//! A server: started, running, stopped.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::accepted_one;
use super::admission::{Admission, bind};
use super::bootstrap::{bootstrap, limit, load_definitions, tx_bytes_max};
use super::descriptors::Descriptors;
use super::failed_logins::FailedLogins;
use super::shared::{ENDINGS_AT_ONCE, Shared};
use super::signals::Signals;
use super::timekeeping::{NOTE_INTERVAL, Timekeeper};
use super::tls::TlsReloader;
use super::watch::{Watch, again_and_again};
use super::{auth, file_size, http, machine, metrics, workers};
use crate::amqp;
use crate::amqp::settings::{AnonymousLogin, SessionSettings};
use crate::broker::Broker;
use crate::broker::ports::MessageLog;
use crate::clock;
use crate::config::{Config, Durability};
use crate::storage::memory::MemoryLog;
use crate::storage::{self, LogOptions, SegmentedLog};
use crate::sync::Mutex;

/// How often memory and disk are looked at. Peers together can send some hundred megabytes a second, so
/// that an alarm is later than its limit by a tenth of that.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// An alarm ends, and certificate files are looked at, once in so many times: who is near the limit is told
/// at most once a second that it is over.
const SLOW_ONE_IN: u64 = 10;

/// How long connections may take to close when the server stops. Service managers and container runtimes
/// kill after ten seconds, and the log needs its time, too.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the log may take to be closed. systemd kills after ninety seconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The page cache should hold one in so many bytes of the machine's memory of a log that grows.
const PAGE_CACHE_ONE_IN: u64 = 4;

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    log: Arc<SegmentedLog>,
    timekeeper: Arc<Timekeeper>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Where it listens for AMQP.
    pub amqp: Vec<SocketAddr>,
    /// Where it listens for AMQP over TLS.
    pub amqps: Vec<SocketAddr>,
    /// Where it serves metrics.
    pub prometheus: Vec<SocketAddr>,
    tls: Option<Arc<TlsReloader>>,
}

impl Server {
    /// Looks at the files that a start would read: certificates and definitions.
    ///
    /// # Errors
    /// What a start would fail with.
    pub fn check(config: &Config) -> io::Result<()> {
        if !config.tls.cert.is_empty() {
            TlsReloader::new(&config.tls)?;
        }
        if !config.load_definitions.is_empty() {
            let (broker, _) = Broker::new(MemoryLog::new(), &[]);
            load_definitions(&broker, config)?;
        }
        Ok(())
    }

    /// Recovers what the data folder has, and starts to listen.
    ///
    /// # Errors
    /// The folder is in use, an address is taken, a certificate or the definitions file does not do.
    pub async fn start(config: Config) -> io::Result<Server> {
        config.check().map_err(io::Error::other)?;
        let descriptors = Descriptors::raise();
        tracing::info!(
            version = amqp::VERSION,
            data = %config.data_dir().display(),
            memory_limit = machine::memory_limit(&config),
            disk_free_limit = config.disk.free_limit_bytes.0,
            file_descriptors = descriptors.most(),
            max_connections = config.protocol.max_connections,
            "starting"
        );
        file_size::check(&config)?;
        let mut options = LogOptions::new(&config.data_dir());
        options.segment_bytes = u32::try_from(config.storage.segment_bytes.0)
            .ok()
            .filter(|n| (1 << 20..=1 << 31).contains(n))
            .ok_or_else(|| io::Error::other("storage.segment_bytes: expected 1 MiB to 2 GiB"))?;
        options.reserve_bytes = config.disk.reserve_bytes.0;
        options.durability = match config.storage.durability {
            Durability::Fsync => storage::Durability::Fsync,
            Durability::Write => storage::Durability::Write,
        };
        if let Some(bytes) = machine::memory_total() {
            options.cached_bytes = bytes / PAGE_CACHE_ONE_IN;
        }
        let (log, stored) = SegmentedLog::open(options, Arc::new(storage::files::Disk))?;
        let timekeeper = Arc::new(Timekeeper::carry_on(&config.data_dir()));
        let log = Arc::new(log);
        let port: Arc<dyn MessageLog> = log.clone();
        let (broker, skipped) = Broker::new(port, &stored);
        for (what, why) in skipped {
            let store = config.data_dir().join("definitions");
            tracing::error!("{}: {what}: {why}", store.display());
        }
        let broker = Arc::new(broker);
        broker.set_wall_ahead(clock::ahead());
        let memory = broker.memory();
        memory.set_budget(config.memory.body_budget_bytes.0);
        memory.set_history_max(config.memory.history_bytes.0);
        let (most, free) = (
            machine::memory_limit(&config),
            machine::disk_free(&config.data_dir()),
        );
        for what in machine::no_alarms(machine::resident_bytes(), most, free) {
            tracing::warn!(
                "the system does not say how much {what} there is: there is no alarm for it"
            );
        }
        if !config.load_definitions.is_empty() {
            load_definitions(&broker, &config)?;
        }
        bootstrap(&broker, &config)?;
        auth::tell_differences(&broker, &config);
        // After what is there: limits are for what clients add.
        limit(broker.node_account(), &config.protocol);
        let stop = CancellationToken::new();
        workers::start(&broker, &stop)?;
        broker.recover_messages(|known, each| log.recover(known, each), clock::now());
        let tls = match config.tls.cert.is_empty() {
            true => None,
            false => Some(Arc::new(TlsReloader::new(&config.tls)?)),
        };
        let p = &config.protocol;
        let session = Arc::new(SessionSettings {
            channel_max: p.channel_max,
            frame_max: p.frame_max,
            heartbeat: p.heartbeat_s,
            handshake_timeout_ms: p.handshake_timeout_ms,
            max_message_bytes: p.max_message_bytes.0,
            unfinished_bytes: config.limits.unfinished_bytes.0,
            tx_bytes_max: tx_bytes_max(&config),
            consumers_per_channel: p.consumers_per_channel,
            consumer_timeout_ms: p.consumer_timeout_ms,
            output_bytes_max: config.limits.output_bytes_max.0 as usize,
            anonymous: AnonymousLogin::of(
                &config.defaults.anonymous_login_user,
                &config.defaults.anonymous_login_pass,
            ),
            product: p.product.clone(),
            version: p.version.clone(),
            cluster_name: p.cluster_name.clone(),
        });
        let logins = Arc::<auth::Logins>::default();
        let failed_logins = Arc::new(FailedLogins::new(p));
        let authenticator = Arc::new(auth::InternalUsers {
            broker: broker.clone(),
            loopback_users: config.defaults.loopback_users.clone(),
            logins: logins.clone(),
            failed: failed_logins.clone(),
        });
        let shared = Arc::new(Shared {
            config,
            broker,
            session,
            authenticator,
            logins,
            failed_logins,
            inboxes: Mutex::new("the list of connections", HashMap::new()),
            endings: Semaphore::new(ENDINGS_AT_ONCE),
            next_key: AtomicU64::new(0),
            admission: Admission::new(descriptors),
            descriptors,
            alarm: Mutex::new("the alarm", None),
            alarm_version: AtomicU64::new(0),
            closing: Mutex::new("the reason to close", None),
            waits_for_consumers: AtomicU64::new(0),
            clock_ahead: AtomicI64::new(0),
        });
        let mut server = Server {
            shared,
            log,
            timekeeper,
            tasks: TaskTracker::new(),
            stop,
            amqp: Vec::new(),
            amqps: Vec::new(),
            prometheus: Vec::new(),
            tls,
        };
        server.listen().await?;
        Ok(server)
    }

    async fn listen(&mut self) -> io::Result<()> {
        let listeners = self.shared.config.listeners.clone();
        self.watch().once(true);
        for address in &listeners.amqp {
            let listener = bind(*address)?;
            self.amqp.push(listener.local_addr()?);
            self.accept(listener, None);
        }
        for address in &listeners.amqps {
            let listener = bind(*address)?;
            self.amqps.push(listener.local_addr()?);
            self.accept(listener, self.tls.clone());
        }
        if !listeners.prometheus.is_empty() {
            let metrics = Arc::new(
                metrics::Metrics::new(self.shared.clone(), self.log.clone())
                    .map_err(io::Error::other)?,
            );
            let open = Arc::new(AtomicUsize::new(0));
            for address in &listeners.prometheus {
                let listener = bind(*address)?;
                self.prometheus.push(listener.local_addr()?);
                let admission = self.shared.admission.clone();
                let listener = http::Limited::new(listener, admission, open.clone());
                let stop = self.stop.clone();
                let metrics = metrics.clone();
                self.tasks.spawn(async move {
                    if let Err(e) = metrics::serve(listener, metrics, stop).await {
                        tracing::error!("the metrics listener failed: {e}");
                    }
                });
            }
        }
        Ok(())
    }

    fn accept(&self, listener: TcpListener, tls: Option<Arc<TlsReloader>>) {
        let (shared, tasks, stop) = (self.shared.clone(), self.tasks.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            loop {
                let (stream, peer) = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = shared.admission.accept(&listener) => accepted,
                };
                accepted_one(stream, peer, &shared, &tasks, tls.as_ref(), &stop);
            }
        });
    }

    /// What looks at memory and disk.
    fn watch(&self) -> Watch {
        Watch {
            shared: self.shared.clone(),
            log: self.log.clone(),
        }
    }

    /// Serves until a signal asks to stop, or the log fails. Returns whether all went well.
    ///
    /// # Errors
    /// The log could not be closed.
    pub async fn run(self, signals: &mut Signals) -> io::Result<bool> {
        // Not here: a disk that does not answer must not keep signals from being heard.
        let watch = self.watch();
        let look = move |n| watch.once(n % SLOW_ONE_IN == 0);
        tokio::spawn(again_and_again(WATCH_INTERVAL, self.stop.clone(), look));
        let timekeeper = self.timekeeper.clone();
        let note = move |_| timekeeper.note();
        tokio::spawn(again_and_again(NOTE_INTERVAL, self.stop.clone(), note));
        // By itself: a disk with certificates that does not answer must not keep alarms from being raised.
        if let Some(tls) = self.tls.clone() {
            let look = move |_| {
                if tls.changed() {
                    tls.reload();
                }
            };
            let slowly = WATCH_INTERVAL * SLOW_ONE_IN as u32;
            tokio::spawn(again_and_again(slowly, self.stop.clone(), look));
        }
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tokio::select! {
                stop = signals.next() => {
                    if stop {
                        break;
                    }
                    if let Some(tls) = self.tls.clone() {
                        tokio::task::spawn_blocking(move || tls.read_again());
                    }
                }
                _ = tick.tick() => {
                    if self.log.failed() {
                        break;
                    }
                }
            }
        }
        tokio::select! {
            done = self.stop() => done,
            () = signals.stop() => {
                tracing::warn!("stopped by a second signal, before connections were closed");
                Ok(false)
            }
        }
    }

    /// Closes all connections, makes everything durable, and ends.
    ///
    /// # Errors
    /// The log could not be closed.
    pub async fn stop(self) -> io::Result<bool> {
        tracing::info!("stopping");
        let reason = "broker forced connection closure with reason 'shutdown'";
        *self.shared.closing.lock() = Some(reason.to_string());
        self.stop.cancel();
        self.shared.ring_all();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.tasks.len(),
                "some connections did not close in time"
            );
        }
        let (log, broker) = (self.log.clone(), self.shared.broker.clone());
        let closed = tokio::task::spawn_blocking(move || {
            let mut redelivered = Vec::new();
            for queue in broker.all_queues() {
                queue.redelivered(|id| redelivered.push((queue.id(), id)));
            }
            log.close(&redelivered)
        });
        let Some(closed) = close_in_time(closed, CLOSE_TIMEOUT).await else {
            return Ok(false);
        };
        match closed {
            Ok(Ok(())) => {
                tracing::info!("stopped");
                Ok(true)
            }
            Ok(Err(e)) => {
                tracing::error!(error = %e, "closing the message log failed");
                Ok(false)
            }
            Err(e) => Err(io::Error::other(e)),
        }
    }
}

/// Waits for the log; a disk that does not answer is not waited for without end.
async fn close_in_time<T>(closed: impl Future<Output = T>, within: Duration) -> Option<T> {
    let closed = tokio::time::timeout(within, closed).await.ok();
    if closed.is_none() {
        tracing::error!(
            seconds = within.as_secs(),
            "the message log could not be closed in time: the disk does not answer; what was confirmed is kept"
        );
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_that_does_not_close_is_not_waited_for_without_end() {
        let never = std::future::pending::<()>();
        let soon = Duration::from_millis(1);
        assert!(close_in_time(never, soon).await.is_none());
        let closed = close_in_time(async { 1 }, CLOSE_TIMEOUT).await;
        assert_eq!(closed, Some(1));
    }
}
