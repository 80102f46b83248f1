//! The configuration: typed, parsed once.
//!
//! Later sources win: defaults, the TOML file, `LEVERET_<SECTION>_<KEY>` in the environment, the command
//! line. What is unknown or does not fit is refused, with the place and what would be right.

mod address;
mod check;
mod environment;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use address::parse_address;

/// A size in bytes: a number, or text such as `"64MiB"` or `"50MB"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub u64);

impl Size {
    /// Reads `"64MiB"`, `"50MB"`, `"1234"`.
    pub fn parse(text: &str) -> Option<Size> {
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..end].parse().ok()?;
        let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit).map(Size)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u64),
            Text(String),
        }
        let right = "a size in bytes, such as 1048576, \"64MiB\" or \"50MB\"";
        match Raw::deserialize(d)
            .map_err(|_| serde::de::Error::custom(format!("expected {right}")))?
        {
            Raw::Number(n) => Ok(Size(n)),
            Raw::Text(t) => Size::parse(&t)
                .ok_or_else(|| serde::de::Error::custom(format!("'{t}': expected {right}"))),
        }
    }
}

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

/// Why the configuration does not do.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Variables of the environment that begin as ours and are no settings: perhaps misspelt.
    pub strange: Vec<String>,
}

impl Config {
    /// Reads the file, if one is given, and the environment. What comes of it is not checked yet
    /// ([`Config::check`]): the command line may change it.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and line, or the variable.
    pub fn load(
        file: Option<&std::path::Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let shown = path.display();
            let text =
                std::fs::read_to_string(path).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
            // Checked here for the sake of the line numbers.
            toml::from_str::<Config>(&text).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
            table = toml::from_str(&text).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
        }
        let strange = environment::apply(&mut table, environment)?;
        let config = table.try_into();
        let config = config.map_err(|e: toml::de::Error| ConfigError(e.message().to_string()))?;
        Ok(Loaded { config, strange })
    }

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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let environment = environment.iter().map(|(a, b)| (a.into(), b.into()));
        let loaded = Config::load(Some(file.path()), environment)?;
        loaded.config.check().map(|()| loaded.config)
    }

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let shipped = include_str!("../config/leveret.toml");
        // Every setting is there, commented out with its default.
        let uncommented: String = shipped
            .lines()
            .filter_map(|l| {
                l.strip_prefix('#')
                    .map(|l| if l.starts_with(' ') { "" } else { l })
                    .or(Some(l))
            })
            .map(|l| format!("{l}\n"))
            .collect();
        let config: Config = toml::from_str(&uncommented).expect("valid");
        assert_eq!(config, Config::default());
        let defaults = toml::Table::try_from(Config::default()).expect("a table");
        for (path, _) in environment::leaves(&defaults) {
            let key = path.last().expect("a key");
            assert!(
                uncommented.contains(&format!("\n{key} = ")),
                "{key} is missing in config/leveret.toml"
            );
        }
    }

    #[test]
    fn later_sources_win() {
        let c = load(
            "[protocol]\nheartbeat_s = 5\n[memory]\nbody_budget_bytes = \"1MiB\"\n",
            &[],
        )
        .expect("fine");
        assert_eq!(
            (c.protocol.heartbeat_s, c.memory.body_budget_bytes),
            (5, Size(1 << 20))
        );
        let env = [
            ("LEVERET_PROTOCOL_HEARTBEAT_S", "7"),
            ("LEVERET_LISTENERS_AMQP", "0.0.0.0:1, [::]:2"),
        ];
        let c = load("[protocol]\nheartbeat_s = 5\n", &env).expect("fine");
        assert_eq!((c.protocol.heartbeat_s, c.listeners.amqp.len()), (7, 2));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let e = load("[protocol]\nhartbeat = 5\n", &[])
            .expect_err("unknown")
            .to_string();
        assert!(
            e.contains("line 2") && e.contains("hartbeat") && e.contains("heartbeat_s"),
            "{e}"
        );
        let e = load("[memory]\nbody_budget_bytes = \"lots\"\n", &[])
            .expect_err("no size")
            .to_string();
        assert!(e.contains("line 2") && e.contains("64MiB"), "{e}");
        let e = load("", &[("LEVERET_PROTOCOL_FRAME_MAX", "big")])
            .expect_err("no number")
            .to_string();
        assert!(
            e.contains("LEVERET_PROTOCOL_FRAME_MAX: 'big' is not integer"),
            "{e}"
        );
    }

    /// Every key with what nobody can use, and a word of what is said then.
    const BAD: &[(&str, &[&str], &str)] = &[
        ("strict_definitions", &["1"], "boolean"),
        ("worker_threads", &["-1", "100000", "\"x\""], ""),
        (
            "listeners.amqp",
            &[
                "[]",
                "[\"here\"]",
                "[\"127.0.0.1\"]",
                "[70000]",
                "\"127.0.0.1:1\"",
                "[\"127.0.0.1:15692\"]",
            ],
            "",
        ),
        (
            "listeners.amqps",
            &["[\"127.0.0.1:5671\"]", "[\"x:y\"]"],
            "",
        ),
        (
            "listeners.prometheus",
            &["[\"127.0.0.1:99999\"]", "[1.5]"],
            "",
        ),
        ("defaults.user", &["\"\"", "LONG"], "1 to 255"),
        ("defaults.pass", &["\"\""], "never logs in"),
        ("defaults.vhost", &["\"\"", "LONG"], "1 to 255"),
        ("defaults.loopback_users", &["\"guest\"", "[1]"], ""),
        ("tls.cert", &["\"c.pem\""], "tls.key"),
        ("tls.key", &["\"k.pem\""], "tls.cert"),
        ("tls.client_ca", &["\"ca.pem\""], "tls.client_auth"),
        (
            "tls.client_auth",
            &["\"optional\"", "\"required\"", "\"maybe\""],
            "",
        ),
        ("tls.login_from", &["\"cn\""], "common_name"),
        ("protocol.heartbeat_s", &["-1", "70000"], ""),
        (
            "protocol.frame_max",
            &["100", "4095", "-1", "5000000000"],
            "",
        ),
        ("protocol.channel_max", &["70000", "-1"], ""),
        (
            "protocol.handshake_timeout_ms",
            &["0", "99", "9223372036854775807"],
            "100 to 3600000 milliseconds",
        ),
        (
            "protocol.write_timeout_ms",
            &["0", "99", "9223372036854775807"],
            "100 to 3600000 milliseconds",
        ),
        (
            "protocol.max_message_bytes",
            &["0", "\"513MiB\"", "\"1000GiB\""],
            "1 to 536870912 bytes",
        ),
        ("protocol.max_unauthenticated_connections", &["-1"], ""),
        (
            "protocol.max_unauthenticated_connections_per_address",
            &["-1"],
            "",
        ),
        ("protocol.failed_logins_free", &["-1", "5000000000"], ""),
        (
            "protocol.failed_login_delay_ms",
            &["60001", "9223372036854775807"],
            "0 to 60000 milliseconds",
        ),
        ("protocol.max_connections", &["-1"], ""),
        ("protocol.max_channels", &["-1"], ""),
        ("protocol.max_queues", &["-1"], ""),
        ("protocol.max_exchanges", &["-1"], ""),
        ("protocol.consumers_per_channel", &["-1"], ""),
        (
            "protocol.consumer_timeout_ms",
            &["-1", "9223372036854775807"],
            "",
        ),
        ("protocol.product", &["LONG"], "255 octets"),
        ("protocol.version", &["LONG"], "255 octets"),
        ("protocol.cluster_name", &["LONG"], "255 octets"),
        ("limits.inbox_deliveries", &["0", "4294967295"], "1 to"),
        ("limits.inbox_bytes", &["0", "-1"], ""),
        ("limits.unfinished_bytes", &["0", "\"1MiB\""], ""),
        ("limits.transaction_bytes", &["1", "-1"], ""),
        ("limits.output_bytes_max", &["0", "1"], "4096 to"),
        ("limits.log_backlog_bytes", &["0", "1"], "4096 to"),
        (
            "memory.body_budget_bytes",
            &["\"18446744073709551615\"", "\"lots\"", "-1"],
            "bytes",
        ),
        (
            "memory.high_watermark_relative",
            &["nan", "-1.0", "0.0", "60", "60.0", "inf"],
            "",
        ),
        (
            "memory.history_bytes",
            &["\"18446744073709551615\""],
            "bytes",
        ),
        ("defaults.anonymous_login_user", &["LONG"], "none"),
        (
            "limits.transaction_bytes",
            &["\"18446744073709551615\""],
            "bytes",
        ),
        ("defaults.anonymous_login_pass", &["\"\""], "never logs in"),
        (
            "memory.high_watermark_bytes",
            &["\"18446744073709551615\""],
            "bytes",
        ),
        (
            "disk.reserve_bytes",
            &["\"18446744073709551615\"", "\"5 %\""],
            "bytes",
        ),
        (
            "disk.free_limit_bytes",
            &["\"18446744073709551615\"", "\"5 %\""],
            "bytes",
        ),
        (
            "storage.segment_bytes",
            &["0", "1000", "\"4GiB\""],
            "1048576 to 2147483648 bytes",
        ),
        ("storage.durability", &["\"maybe\""], "fsync"),
        (
            "log.level",
            &[
                "\"\"",
                "\"debgu\"",
                "\"info,debgu\"",
                "\"a=b=c\"",
                "\"x=loud\"",
            ],
            "info,leveret",
        ),
        ("log.format", &["\"xml\""], "json"),
    ];

    #[test]
    fn every_key_refuses_what_nobody_can_use() {
        let defaults = toml::Table::try_from(Config::default()).expect("a table");
        // Any text is a path.
        let any = ["data_dir", "load_definitions"];
        for (path, _) in environment::leaves(&defaults) {
            let key = path.join(".");
            assert!(
                any.contains(&&*key) || BAD.iter().any(|(k, ..)| *k == key),
                "{key}"
            );
        }
        let long = format!("\"{}\"", "x".repeat(256));
        for (key, values, word) in BAD {
            for value in *values {
                let value = if *value == "LONG" { &long } else { *value };
                let why = load(&format!("{key} = {value}\n"), &[]);
                let why = why.expect_err(&format!("{key} = {value}")).to_string();
                let last = key.rsplit('.').next().expect("a key");
                assert!(
                    why.contains(word) && why.contains(last),
                    "{key} = {value}: {why}"
                );
            }
        }
    }

    #[test]
    fn what_somebody_can_use_is_taken() {
        for text in [
            "listeners.amqp = [5673, \"localhost:5672\", \"0.0.0.0:1\", \"[::]:1\"]",
            "listeners.amqp = []\nlisteners.amqps = [5671]\ntls = {cert = \"c\", key = \"k\"}",
            "protocol.frame_max = 0",
            "protocol.frame_max = 4096",
            "protocol.max_unauthenticated_connections = 0",
            "protocol.max_message_bytes = \"512MiB\"\nlimits.unfinished_bytes = \"2GiB\"",
            "memory.high_watermark_relative = 1.0",
            "memory.body_budget_bytes = 0",
            "storage.segment_bytes = \"2GiB\"",
            "log.level = \"leveret::storage\"",
            "log.level = \"Warn,sled=off\"",
        ] {
            assert!(load(text, &[]).is_ok(), "{text}: {:?}", load(text, &[]));
        }
    }
}
