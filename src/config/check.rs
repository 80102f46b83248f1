//! What nobody can use is refused, with what would be right.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::error::ConfigError;
use super::settings::{ClientAuth, Config};
use crate::protocol::frame::FRAME_MIN_SIZE;

/// Octets of a name: vhosts and users are short strings where they are told to clients.
const NAME_OCTETS_MAX: usize = 255;

/// Longest limit of a handshake or a write, milliseconds: an hour.
const TIMEOUT_MS: RangeInclusive<u64> = 100..=3_600_000;

/// Longest time that a consumer may be given, milliseconds: ten years, as for times to live.
const CONSUMER_TIMEOUT_MS_MAX: u64 = 10 * 365 * 86_400_000;

/// Longest time that who has failed to log in is kept waiting, milliseconds.
const LOGIN_DELAY_MS: RangeInclusive<u64> = 0..=60_000;

/// Threads that a machine may be asked for.
const WORKER_THREADS_MAX: usize = 1024;

/// Sizes of a segment: its positions are 32 bits, and a message has to fit.
const SEGMENT_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 31;

/// Largest limit of bodies: the session takes none that is larger, nor does RabbitMQ.
const MESSAGE_BYTES: RangeInclusive<u64> = 1..=512 << 20;

/// Buffers that a connection can work with.
const BUFFER_BYTES: RangeInclusive<u64> = 4096..=1 << 40;

/// Budgets and marks in bytes: they are counted with a sign.
const BYTES_MAX: u64 = i64::MAX as u64;

fn wrong(key: &str, got: impl Display, right: &str) -> ConfigError {
    ConfigError(format!("{key} = {got}: expected {right}"))
}

fn within<T: PartialOrd + Display>(
    key: &str,
    got: T,
    range: &RangeInclusive<T>,
    unit: &str,
) -> Result<(), ConfigError> {
    if range.contains(&got) {
        return Ok(());
    }
    let right = format!("{} to {} {unit}", range.start(), range.end());
    Err(wrong(key, got, right.trim_end()))
}

impl Config {
    /// Checks each value for itself, and those that belong together. Files are not looked at.
    ///
    /// # Errors
    /// The key, its value, and what would be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        within(
            "worker_threads",
            self.worker_threads,
            &(0..=WORKER_THREADS_MAX),
            "",
        )?;
        self.check_listeners()?;
        self.check_defaults()?;
        self.check_tls()?;
        self.check_protocol()?;
        self.check_sizes()?;
        check_level(&self.log.level)
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        let l = &self.listeners;
        if l.amqp.is_empty() && l.amqps.is_empty() {
            return Err(wrong(
                "listeners.amqp",
                "[]",
                "an address here or in listeners.amqps",
            ));
        }
        let mut all: Vec<_> = [&l.amqp, &l.amqps, &l.prometheus]
            .into_iter()
            .flatten()
            .collect();
        all.retain(|a| a.port() != 0);
        all.sort();
        if let Some(twice) = all.windows(2).find(|w| w[0] == w[1]) {
            return Err(wrong(
                "listeners (amqp, amqps, prometheus)",
                twice[0],
                "each address once",
            ));
        }
        Ok(())
    }

    fn check_defaults(&self) -> Result<(), ConfigError> {
        let d = &self.defaults;
        for (key, value) in [("defaults.user", &d.user), ("defaults.vhost", &d.vhost)] {
            if value.is_empty() || value.len() > NAME_OCTETS_MAX {
                let right = format!("a name of 1 to {NAME_OCTETS_MAX} octets");
                return Err(wrong(key, format!("{value:?}"), &right));
            }
        }
        if d.pass.is_empty() {
            let right = "a password: an empty one never logs in";
            return Err(wrong("defaults.pass", "\"\"", right));
        }
        let user = &d.anonymous_login_user;
        if user.len() > NAME_OCTETS_MAX {
            let right = format!("none, or a name of at most {NAME_OCTETS_MAX} octets");
            return Err(wrong(
                "defaults.anonymous_login_user",
                format!("{user:?}"),
                &right,
            ));
        }
        if d.anonymous_login_pass.is_empty() && !matches!(user.as_str(), "" | "none") {
            let right = "the user's password: an empty one never logs in";
            return Err(wrong("defaults.anonymous_login_pass", "\"\"", right));
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let t = &self.tls;
        let missing = |key: &str, why: &str| Err(wrong(key, "\"\"", &format!("a file: {why}")));
        let given = [&t.cert, &t.key, &t.client_ca].map(|f| !f.is_empty());
        match given {
            [false, true, _] => missing("tls.cert", "tls.key is set"),
            [true, false, _] => missing("tls.key", "tls.cert is set"),
            [false, false, _] if !self.listeners.amqps.is_empty() => {
                missing("tls.cert", "listeners.amqps needs it and tls.key")
            }
            [false, false, _] if t.client_auth != ClientAuth::None => {
                missing("tls.cert", "tls.client_auth is set")
            }
            [_, _, false] if t.client_auth != ClientAuth::None => {
                missing("tls.client_ca", "tls.client_auth is set")
            }
            [_, _, true] if t.client_auth == ClientAuth::None => Err(wrong(
                "tls.client_auth",
                "none",
                "optional or required: tls.client_ca is set, and clients are not asked for certificates",
            )),
            _ => Ok(()),
        }
    }

    fn check_protocol(&self) -> Result<(), ConfigError> {
        let p = &self.protocol;
        if p.frame_max != 0 && p.frame_max < FRAME_MIN_SIZE {
            let right = format!("0 (no limit), or at least {FRAME_MIN_SIZE}");
            return Err(wrong("protocol.frame_max", p.frame_max, &right));
        }
        let ms = "milliseconds";
        let handshake = p.handshake_timeout_ms;
        within("protocol.handshake_timeout_ms", handshake, &TIMEOUT_MS, ms)?;
        let delay = p.failed_login_delay_ms;
        within("protocol.failed_login_delay_ms", delay, &LOGIN_DELAY_MS, ms)?;
        let write = p.write_timeout_ms;
        within("protocol.write_timeout_ms", write, &TIMEOUT_MS, ms)?;
        let consumers = 0..=CONSUMER_TIMEOUT_MS_MAX;
        within(
            "protocol.consumer_timeout_ms",
            p.consumer_timeout_ms,
            &consumers,
            ms,
        )?;
        let message = p.max_message_bytes.0;
        within(
            "protocol.max_message_bytes",
            message,
            &MESSAGE_BYTES,
            "bytes",
        )?;
        for (key, text) in [
            ("protocol.product", &p.product),
            ("protocol.version", &p.version),
            ("protocol.cluster_name", &p.cluster_name),
        ] {
            if text.len() > NAME_OCTETS_MAX {
                let right = format!("at most {NAME_OCTETS_MAX} octets");
                return Err(wrong(key, format!("{text:?}"), &right));
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let l = &self.limits;
        within(
            "limits.inbox_deliveries",
            l.inbox_deliveries,
            &(1..=1 << 20),
            "",
        )?;
        for (key, size) in [
            ("limits.inbox_bytes", l.inbox_bytes),
            ("limits.unfinished_bytes", l.unfinished_bytes),
            ("limits.output_bytes_max", l.output_bytes_max),
            ("limits.log_backlog_bytes", l.log_backlog_bytes),
        ] {
            within(key, size.0, &BUFFER_BYTES, "bytes")?;
        }
        if l.transaction_bytes.0 != 0 {
            let key = "limits.transaction_bytes";
            within(key, l.transaction_bytes.0, &BUFFER_BYTES, "bytes")?;
        }
        let largest = self.protocol.max_message_bytes.0;
        if l.unfinished_bytes.0 < largest {
            let right = format!("at least protocol.max_message_bytes = {largest}");
            return Err(wrong(
                "limits.unfinished_bytes",
                l.unfinished_bytes.0,
                &right,
            ));
        }
        let m = &self.memory;
        let part = m.high_watermark_relative;
        if !(part > 0.0 && part <= 1.0) {
            let right = "a part of the memory, more than 0.0 and at most 1.0, such as 0.6";
            return Err(wrong("memory.high_watermark_relative", part, right));
        }
        for (key, size) in [
            ("limits.transaction_bytes", l.transaction_bytes),
            ("memory.body_budget_bytes", m.body_budget_bytes),
            ("memory.history_bytes", m.history_bytes),
            ("memory.high_watermark_bytes", m.high_watermark_bytes),
            ("disk.free_limit_bytes", self.disk.free_limit_bytes),
            ("disk.reserve_bytes", self.disk.reserve_bytes),
        ] {
            within(key, size.0, &(0..=BYTES_MAX), "bytes")?;
        }
        let segment = self.storage.segment_bytes.0;
        within("storage.segment_bytes", segment, &SEGMENT_BYTES, "bytes")
    }
}

/// A level, or a filter. A word that is no level would be the name of a target, and nothing would be
/// logged at all.
fn check_level(level: &str) -> Result<(), ConfigError> {
    let right =
        "error, warn, info, debug, trace, off, or a filter such as \"info,leveret::storage=debug\"";
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let directives = level.split(',').map(str::trim);
    let fits = |d: &str| {
        d.contains(['=', '['])
            || d.contains("::")
            || levels.contains(&d.to_ascii_lowercase().as_str())
    };
    if !{ directives }.all(fits) || tracing_subscriber::EnvFilter::try_new(level).is_err() {
        return Err(wrong("log.level", format!("{level:?}"), right));
    }
    Ok(())
}
