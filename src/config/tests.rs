//! Tests of the configuration.

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
    let shipped = include_str!("../../config/leveret.toml");
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
