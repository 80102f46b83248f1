//! Every key of the configuration, with its default.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::address;
use super::size::Size;

/// What "durable" means, in the file's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Confirms wait for fdatasync.
    #[default]
    Fsync,
    /// Confirms wait for write.
    Write,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; what they show must be valid.
    Optional,
    /// They must.
    Required,
}

/// Where the user's name stands in a client's certificate, for the mechanism EXTERNAL.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginFrom {
    /// The whole subject, as RFC 2253 writes it: `CN=client,O=Example`.
    #[default]
    DistinguishedName,
    /// The subject's common name.
    CommonName,
    /// The first DNS name of the subject's alternative names.
    SubjectAlternativeName,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind),* }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default),* }
            }
        }
    };
}

section! {
    /// Everything.
    Config {
        /// Folder for all data; empty: see [`Config::data_dir`].
        data_dir: String = String::new(),
        /// A definitions file in RabbitMQ's format, applied at each start; empty: none.
        load_definitions: String = String::new(),
        /// Whether the start ends when something in that file does not do, with nothing of it applied;
        /// otherwise the entry is left out and reported.
        strict_definitions: bool = false,
        /// Threads that serve connections; zero: one per core.
        worker_threads: usize = 0,
        /// Where to listen.
        listeners: Listeners = Listeners::default(),
        /// What a new broker starts with.
        defaults: Defaults = Defaults::default(),
        /// Certificates.
        tls: Tls = Tls::default(),
        /// What clients are told and held to.
        protocol: Protocol = Protocol::default(),
        /// Buffers of one connection, and of the log.
        limits: Limits = Limits::default(),
        /// Memory.
        memory: Memory = Memory::default(),
        /// Disk.
        disk: Disk = Disk::default(),
        /// The message log.
        storage: Storage = Storage::default(),
        /// Log lines.
        log: Log = Log::default(),
    }
}

section! {
    /// `[listeners]`
    Listeners {
        #[serde(deserialize_with = "address::addresses")]
        /// Plain AMQP. Loopback, so that nothing is exposed by accident.
        amqp: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 5672))],
        #[serde(deserialize_with = "address::addresses")]
        /// AMQP over TLS; needs `[tls]`.
        amqps: Vec<SocketAddr> = Vec::new(),
        #[serde(deserialize_with = "address::addresses")]
        /// Prometheus metrics.
        prometheus: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 15692))],
    }
}

section! {
    /// `[defaults]`
    Defaults {
        /// The user of an empty broker.
        user: String = "guest".into(),
        /// Its password.
        pass: String = "guest".into(),
        /// The vhost of an empty broker.
        vhost: String = "/".into(),
        /// Users that may log in from this machine only.
        loopback_users: Vec<String> = vec!["guest".into()],
        /// The user that the mechanism ANONYMOUS logs in as; `none`: it is not offered.
        anonymous_login_user: String = "guest".into(),
        /// The password it logs in with.
        anonymous_login_pass: String = "guest".into(),
    }
}

section! {
    /// `[tls]`
    Tls {
        /// Certificate chain, PEM; empty: no TLS.
        cert: String = String::new(),
        /// Private key, PEM.
        key: String = String::new(),
        /// Authorities that client certificates are checked against, PEM.
        client_ca: String = String::new(),
        /// Whether clients show certificates.
        client_auth: ClientAuth = ClientAuth::None,
        /// Where a certificate names its user; who shows one may log in by it, with EXTERNAL.
        login_from: LoginFrom = LoginFrom::DistinguishedName,
    }
}

section! {
    /// `[protocol]`
    Protocol {
        /// Proposed heartbeat in seconds; zero: none.
        heartbeat_s: u16 = 60,
        /// Largest frame in bytes; zero: no limit.
        frame_max: u32 = 131_072,
        /// Channels per connection; zero: no limit.
        channel_max: u16 = 2047,
        /// Milliseconds for TLS and AMQP handshake together.
        handshake_timeout_ms: u64 = 10_000,
        /// Milliseconds a write may make no progress before the connection is given up.
        write_timeout_ms: u64 = 30_000,
        /// Largest message body.
        max_message_bytes: Size = Size(16 << 20),
        /// Connections that have not logged in yet; more are refused. Zero: no limit.
        max_unauthenticated_connections: usize = 1024,
        /// The same for one address (IPv6: one /64), so that one cannot lock the others out. Zero: no limit.
        max_unauthenticated_connections_per_address: usize = 512,
        /// Failed logins from one address that slow nobody down.
        failed_logins_free: u32 = 10,
        /// Milliseconds that connections from an address with more of them wait at most; zero: none waits.
        failed_login_delay_ms: u64 = 2_000,
        /// Connections in all; zero: no limit but the system's.
        max_connections: usize = 0,
        /// Channels in all; zero: no limit.
        max_channels: u64 = 0,
        /// Queues in all vhosts together; zero: no limit.
        max_queues: u64 = 0,
        /// Exchanges in all vhosts together, with those that are always there; zero: no limit.
        max_exchanges: u64 = 0,
        /// Consumers per channel; zero: no limit.
        consumers_per_channel: u32 = 0,
        /// Milliseconds that consumers of quorum queues may keep a delivery; zero: for ever.
        consumer_timeout_ms: u64 = 0,
        /// `product` that clients are told; some clients behave by it.
        product: String = "RabbitMQ".into(),
        /// `version` that clients are told.
        version: String = "4.3.0".into(),
        /// `cluster_name` that clients are told.
        cluster_name: String = "leveret".into(),
    }
}

section! {
    /// `[limits]`
    Limits {
        /// Deliveries that wait to be written, per connection.
        inbox_deliveries: u32 = 512,
        /// Their bodies.
        inbox_bytes: Size = Size(1 << 20),
        /// Bytes of messages that have begun and are not complete, in all channels of a connection.
        unfinished_bytes: Size = Size(256 << 20),
        /// What one transaction may hold in memory; zero: a quarter of what the memory watermark allows.
        transaction_bytes: Size = Size(0),
        /// Bytes waiting to be written to a peer above which nothing more is read from it.
        output_bytes_max: Size = Size(4 << 20),
        /// Bytes waiting for the disk above which those are not read from whose publishes go there.
        log_backlog_bytes: Size = Size(8 << 20),
    }
}

section! {
    /// `[memory]`
    Memory {
        /// What grows with traffic and can move to the disk: message bodies and their places in queues. What cannot
        /// (unsettled deliveries, open transactions, histories) is taken from it, down to half.
        body_budget_bytes: Size = Size(64 << 20),
        /// What all `x-recent-history` exchanges remember together before each of them forgets down to 1 MiB.
        history_bytes: Size = Size(64 << 20),
        /// Part of the memory (the machine's, or its control group's limit) above which publishers are held back.
        high_watermark_relative: f64 = 0.6,
        /// The same in bytes; wins if it is not zero.
        high_watermark_bytes: Size = Size(0),
    }
}

section! {
    /// `[disk]`
    Disk {
        /// Free space below which publishers are held back.
        free_limit_bytes: Size = Size(50_000_000),
        /// Kept for those who make room when the disk is full; 0: nothing.
        reserve_bytes: Size = Size(32 << 20),
    }
}

section! {
    /// `[storage]`
    Storage {
        /// Size of a segment of the log.
        segment_bytes: Size = Size(64 << 20),
        /// What a confirm means.
        durability: Durability = Durability::Fsync,
    }
}

section! {
    /// `[log]`
    Log {
        /// `error`, `warn`, `info`, `debug`, or a filter as tracing-subscriber takes it.
        level: String = "info".into(),
        /// `human` or `json`.
        format: LogFormat = LogFormat::Human,
    }
}

impl Config {
    /// The folder for all data: as configured, or one of its own for this user.
    pub fn data_dir(&self) -> PathBuf {
        if !self.data_dir.is_empty() {
            return PathBuf::from(&self.data_dir);
        }
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/leveret");
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
        state.or_else(home).unwrap_or_default().join("leveret")
    }
}
