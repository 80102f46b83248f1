//! The shell: listeners, tasks, signals. tokio lives here.

mod admission;
mod auth;
mod certificate;
mod connection;
mod descriptors;
mod failed_logins;
mod file_size;
mod gate;
mod http;
mod inbox;
mod machine;
mod metrics;
mod patience;
mod punctual;
mod signals;
mod timekeeping;
pub mod tls;
mod workers;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admission::{Admission, Refusal, bind};
use self::descriptors::Descriptors;
use self::failed_logins::FailedLogins;
use self::inbox::Inbox;
pub use self::signals::Signals;
use self::timekeeping::{NOTE_INTERVAL, Timekeeper};
use self::tls::TlsReloader;
use crate::amqp;
use crate::amqp::settings::{AnonymousLogin, SessionSettings, SharedAuthenticator};
use crate::broker::Broker;
use crate::broker::access::User;
use crate::broker::limits::Account;
use crate::broker::ports::{Bell, MessageLog};
use crate::clock;
use crate::config::{Config, Durability, Protocol};
use crate::definitions_file;
use crate::password;
use crate::storage::memory::MemoryLog;
use crate::storage::{self, LogOptions, SegmentedLog};
use crate::sync::Mutex;

/// How often memory and disk are looked at. Peers together can send some hundred megabytes a second, so
/// that an alarm is later than its limit by a tenth of that.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// An alarm ends, and certificate files are looked at, once in so many times: who is near the limit is told
/// at most once a second that it is over.
const SLOW_ONE_IN: u64 = 10;

/// A wall clock that is off by more than this was set; less is how clocks run.
const CLOCK_SET_MS: u64 = 10_000;

/// How long connections may take to close when the server stops. Service managers and container runtimes
/// kill after ten seconds, and the log needs its time, too.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the log may take to be closed. systemd kills after ninety seconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Idle time before TCP keepalive asks, and between its questions.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) broker: Arc<Broker>,
    pub(crate) session: Arc<SessionSettings>,
    pub(crate) authenticator: SharedAuthenticator,
    logins: Arc<auth::Logins>,
    failed_logins: Arc<FailedLogins>,
    inboxes: Mutex<HashMap<u64, Arc<Inbox>>>,
    next_key: AtomicU64,
    admission: Arc<Admission>,
    descriptors: Descriptors,
    alarm: Mutex<Option<String>>,
    alarm_version: AtomicU64,
    closing: Mutex<Option<String>>,
    /// How often a connection waited for consumers.
    waits_for_consumers: AtomicU64,
    /// What was last told of the wall clock, milliseconds.
    clock_ahead: AtomicI64,
}

impl Shared {
    fn register(&self, inbox: &Arc<Inbox>) -> u64 {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        self.inboxes.lock().insert(key, inbox.clone());
        // It has to hear of an alarm that holds already.
        inbox.ring();
        key
    }

    fn unregister(&self, key: u64) {
        self.inboxes.lock().remove(&key);
    }

    fn ring_all(&self) {
        for inbox in self.inboxes.lock().values() {
            inbox.ring();
        }
    }

    fn alarm(&self) -> Option<String> {
        self.alarm.lock().clone()
    }

    fn alarm_version(&self) -> u64 {
        self.alarm_version.load(Ordering::Acquire)
    }

    /// Raises the alarm, or ends it. `state` is what it was made of.
    fn set_alarm(&self, reason: Option<String>, state: &workers::Resources) {
        let mut alarm = self.alarm.lock();
        if *alarm == reason {
            return;
        }
        match &reason {
            Some(reason) => tracing::warn!(
                memory = state.memory,
                memory_limit = state.memory_limit,
                disk_free = state.disk_free,
                disk_free_limit = state.disk_free_limit,
                log_out_of_space = state.log_out_of_space,
                "resource alarm: {reason}; publishers are held back"
            ),
            None => tracing::info!("resource alarm is over"),
        }
        self.broker.memory().set_alarm(reason.is_some());
        *alarm = reason;
        self.alarm_version.fetch_add(1, Ordering::AcqRel);
        drop(alarm);
        self.ring_all();
    }

    fn closing_reason(&self) -> Option<String> {
        self.closing.lock().clone()
    }
}

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

fn told(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// The page cache should hold one in so many bytes of the machine's memory of a log that grows.
const PAGE_CACHE_ONE_IN: u64 = 4;

/// A transaction may hold one in so many bytes of what the memory watermark allows. Its commit puts a copy
/// into the log's buffers, and it should not be one publisher that raises the alarm.
const TX_ONE_IN: u64 = 4;

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

/// Looks at memory and disk.
#[derive(Clone)]
struct Watch {
    shared: Arc<Shared>,
    log: Arc<SegmentedLog>,
}

impl Watch {
    /// Looks once; an alarm ends only if it `may_end` now.
    fn once(&self, may_end: bool) {
        let ahead = clock::ahead();
        self.shared.broker.set_wall_ahead(ahead);
        tell_set_clock(&self.shared.clock_ahead, ahead);
        let config = &self.shared.config;
        let state = workers::Resources {
            memory: machine::resident_bytes(),
            memory_limit: machine::memory_limit(config),
            disk_free: machine::disk_free(&config.data_dir()),
            disk_free_limit: config.disk.free_limit_bytes.0,
            log_out_of_space: self.log.out_of_space(),
        };
        let alarm = state.alarm();
        if alarm.is_some() || may_end {
            self.shared.set_alarm(alarm, &state);
        }
    }
}

/// Looks at something on a thread that may wait, again and again; told which time it is.
async fn again_and_again(
    interval: Duration,
    stop: CancellationToken,
    look: impl Fn(u64) + Clone + Send + 'static,
) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let look = look.clone();
        if tokio::task::spawn_blocking(move || look(n)).await.is_err() {
            return;
        }
    }
}

/// What one transaction may hold.
fn tx_bytes_max(config: &Config) -> u64 {
    let bytes = match config.limits.transaction_bytes.0 {
        0 => machine::memory_limit(config) / TX_ONE_IN,
        bytes => bytes,
    };
    bytes.min(amqp::TX_BYTES_HARD_MAX)
}

/// Tells that the wall clock was set, once for each time. Returns whether it did.
fn tell_set_clock(told: &AtomicI64, ahead: i64) -> bool {
    let before = told.load(Ordering::Relaxed);
    let set = ahead.abs_diff(before) > CLOCK_SET_MS;
    if set {
        told.store(ahead, Ordering::Relaxed);
        tracing::warn!(
            milliseconds_ahead = ahead,
            "the wall clock was set: expirations and delays go on by the time that passes"
        );
    }
    set
}

/// Sets the limits of all users and vhosts together.
fn limit(account: &Account, protocol: &Protocol) {
    let limits = [
        (&account.connections, protocol.max_connections as u64),
        (&account.channels, protocol.max_channels),
        (&account.queues, protocol.max_queues),
        (&account.exchanges, protocol.max_exchanges),
    ];
    for (quota, max) in limits.into_iter().filter(|(_, max)| *max != 0) {
        quota.limit(i64::try_from(max).unwrap_or(i64::MAX));
    }
}

fn accepted_one(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    tls: Option<&Arc<TlsReloader>>,
    stop: &CancellationToken,
) {
    let p = &shared.config.protocol;
    // Who comes too late is told when it opens its vhost; this is for who does not get that far.
    let most = p
        .max_connections
        .saturating_add(p.max_unauthenticated_connections);
    let limited = p.max_connections != 0 && p.max_unauthenticated_connections != 0;
    if limited && shared.inboxes.lock().len() >= most {
        return shared.admission.refuse(Refusal::Connections, peer);
    }
    let (most, per_address) = (
        p.max_unauthenticated_connections,
        p.max_unauthenticated_connections_per_address,
    );
    let half_open = match shared.admission.let_in(peer, most, per_address) {
        Ok(half_open) => half_open,
        Err(why) => return shared.admission.refuse(why, peer),
    };
    let socket = socket2::SockRef::from(&stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    if let Err(e) = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%peer, "socket options: {e}");
    }
    let mut ends = connection::Ends {
        peer,
        local: stream.local_addr().ok(),
        certified: None,
        accepted_at: clock::now(),
        half_open,
    };
    let slowed = shared
        .admission
        .slow(&shared.failed_logins, peer, ends.accepted_at);
    let (shared, stop) = (shared.clone(), stop.clone());
    let Some(tls) = tls else {
        tasks.spawn(async move {
            if waited(slowed, &mut ends, &stop).await {
                connection::serve(stream, ends, shared).await;
            }
        });
        return;
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.current());
    tasks.spawn(async move {
        if !waited(slowed, &mut ends, &stop).await {
            return;
        }
        let timeout = Duration::from_millis(shared.config.protocol.handshake_timeout_ms);
        let shaken = tokio::select! {
            () = stop.cancelled() => return,
            shaken = tokio::time::timeout(timeout, acceptor.accept(stream)) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates();
                let from = shared.config.tls.login_from;
                ends.certified = shown
                    .and_then(|chain| chain.first())
                    .and_then(|c| certificate::user_name(c, from));
                connection::serve(stream, ends, shared).await;
            }
            Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    });
}

/// Waits before anything is read from a peer; its time limit begins afterwards. False: the broker stops.
async fn waited(
    delay: Option<Duration>,
    ends: &mut connection::Ends,
    stop: &CancellationToken,
) -> bool {
    let Some(delay) = delay else {
        return true;
    };
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(delay) => {
            ends.accepted_at = clock::now();
            true
        }
    }
}

fn enters_nowhere(broker: &Broker, user: &User) -> bool {
    let vhosts = broker.vhosts();
    let permissions = |v: &Arc<crate::broker::vhost::Vhost>| {
        let access = broker.access();
        access.permissions(&user.name, &v.name).is_some()
    };
    !vhosts.iter().any(permissions)
}

/// Applies the definitions file.
fn load_definitions(broker: &Broker, config: &Config) -> io::Result<()> {
    let empty = Broker::new(MemoryLog::new(), &[]).0;
    let strict = config.strict_definitions.then_some(&empty);
    let path = config.load_definitions.as_ref();
    definitions_file::load(broker, path, &config.defaults.vhost, strict).map(drop)
}

/// An empty broker gets its first vhost and user. Where a definitions file made users, or vhosts, there
/// are none beside them; a first user enters whatever there is.
fn bootstrap(broker: &Broker, config: &Config) -> io::Result<()> {
    let d = &config.defaults;
    let new_vhost = broker.vhosts().is_empty().then_some(d.vhost.as_str());
    let user = match broker.access().user(&d.user) {
        _ if broker.access().is_empty() => Some(User {
            name: d.user.clone(),
            password_hash: password::hash(d.pass.as_bytes()),
            hashing_algorithm: password::SHA256.into(),
            tags: vec!["administrator".into()],
        }),
        // Earlier versions wrote user and permissions one after the other, and may have ended in between.
        Some(user) if config.load_definitions.is_empty() && enters_nowhere(broker, &user) => {
            Some(User::clone(&user))
        }
        _ => None,
    };
    if new_vhost.is_none() && user.is_none() {
        return Ok(());
    }
    broker
        .bootstrap(new_vhost, user)
        .map(drop)
        .map_err(io::Error::other)
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

    #[test]
    fn a_clock_that_was_set_is_told_once() {
        let told = AtomicI64::new(0);
        let tell = |ahead| tell_set_clock(&told, ahead);
        assert!(!tell(9_000) && !tell(-9_000));
        assert!(tell(3_600_000) && !tell(3_600_500));
        assert!(tell(0) && tell(i64::MIN));
    }
}
