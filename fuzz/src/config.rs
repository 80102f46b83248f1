//! The configuration: a file and variables of the environment. It is refused with a reason, or what it means is
//! within what the broker can work with, and says the same when it is written down and read again.
//!
//! In the input the file ends at the first NUL; each piece behind it is a variable, up to its first `=` its name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use leveret::config::Config;

use super::within;

/// Defaults, names and the filter of the log lines, of which each may have patterns.
const AT_REST: u64 = 32 << 20;
const FOR_AN_OCTET: u64 = 4096;

/// Octets of an input at most: a file of more is refused nowhere, and takes the longer.
const INPUT_MAX: usize = 1 << 16;

/// See the module.
pub fn run(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_MAX)];
    let mut pieces = input.split(|octet| *octet == 0);
    let text = pieces.next().unwrap_or_default();
    let environment = pieces.map(|piece| {
        let mut parts = piece.splitn(2, |octet| *octet == b'=');
        let mut next = || OsString::from_vec(parts.next().unwrap_or_default().to_vec());
        (next(), next())
    });
    let environment: Vec<_> = environment.collect();
    if asks_the_network(text, &environment) {
        return;
    }
    let path = super::file(text);
    within(AT_REST, FOR_AN_OCTET, input.len(), || {
        let loaded = Config::load(Some(&path), environment.into_iter());
        match loaded {
            Ok(loaded) => check(&loaded.config),
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    });
}

/// Whether an address has a name of a host, perhaps: it would be looked up.
fn asks_the_network(text: &[u8], environment: &[(OsString, OsString)]) -> bool {
    let numbers = |text: &str| {
        let hex = |c: char| c.is_ascii_hexdigit() || " \t\r\n.:[]%,".contains(c);
        text.chars().all(hex)
            && text
                .chars()
                .filter(|c| "ghijklmnopqrstuvwxyz".contains(*c))
                .count()
                == 0
    };
    let of_variables = environment.iter().any(|(name, value)| {
        let name = name.to_string_lossy();
        name.starts_with("LEVERET_LISTENERS_") && !looks_fine(&value.to_string_lossy(), numbers)
    });
    let Ok(table) = String::from_utf8_lossy(text).parse::<toml::Table>() else {
        return of_variables;
    };
    let listeners = table.get("listeners").and_then(toml::Value::as_table);
    let lists = listeners.into_iter().flat_map(|l| l.values());
    let texts = lists.filter_map(toml::Value::as_array).flatten();
    let mut texts = texts.filter_map(toml::Value::as_str);
    of_variables || texts.any(|text| !looks_fine(text, numbers))
}

fn looks_fine(text: &str, numbers: impl Fn(&str) -> bool) -> bool {
    // A word of hexadecimal digits before the port could be a name.
    numbers(text)
        && !text
            .split(',')
            .any(|a| a.trim().starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn check(config: &Config) {
    let checked = config.check();
    let written = toml::to_string(config).expect("settings can be written");
    let path = super::file(written.as_bytes());
    let again = Config::load(Some(&path), std::iter::empty());
    let again = again.unwrap_or_else(|e| panic!("{e}: in what was written: {written}"));
    assert!(again.strange.is_empty());
    let (mut again, mut config) = (again.config, config.clone());
    // It is not equal to itself, and refused.
    if config.memory.high_watermark_relative.is_nan() {
        assert!(checked.is_err());
        (
            config.memory.high_watermark_relative,
            again.memory.high_watermark_relative,
        ) = (0.0, 0.0);
    }
    assert_eq!(again, config);
    match checked {
        Ok(()) => works(&config),
        Err(e) => assert!(e.to_string().contains("expected"), "{e}"),
    }
}

/// What the broker takes for granted of a configuration that was checked.
fn works(config: &Config) {
    let (p, l, m) = (&config.protocol, &config.limits, &config.memory);
    assert!(config.worker_threads <= 1024);
    assert!(!config.listeners.amqp.is_empty() || !config.listeners.amqps.is_empty());
    assert!(
        config.listeners.amqps.is_empty()
            || !config.tls.cert.is_empty() && !config.tls.key.is_empty()
    );
    for name in [&config.defaults.user, &config.defaults.vhost] {
        assert!((1..=255).contains(&name.len()));
    }
    assert!(p.frame_max == 0 || p.frame_max >= 4096);
    assert!((100..=3_600_000).contains(&p.handshake_timeout_ms));
    assert!((100..=3_600_000).contains(&p.write_timeout_ms));
    assert!((1..=512 << 20).contains(&p.max_message_bytes.0));
    assert!(l.unfinished_bytes.0 >= p.max_message_bytes.0);
    assert!((1..=1 << 20).contains(&l.inbox_deliveries));
    for size in [l.inbox_bytes, l.output_bytes_max, l.log_backlog_bytes] {
        assert!((4096..=1 << 40).contains(&size.0));
    }
    assert!(m.high_watermark_relative > 0.0 && m.high_watermark_relative <= 1.0);
    for size in [
        m.body_budget_bytes,
        m.history_bytes,
        m.high_watermark_bytes,
        config.disk.reserve_bytes,
    ] {
        assert!(i64::try_from(size.0).is_ok());
    }
    assert!((1 << 20..=1u64 << 31).contains(&config.storage.segment_bytes.0));
    for text in [&p.product, &p.version, &p.cluster_name] {
        assert!(text.len() <= 255);
    }
}
