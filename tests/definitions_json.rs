//! What JSON can say in a definitions file, and what is no JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io;

use leveret::broker::Broker;
use leveret::definitions_file::load;
use leveret::storage::memory::MemoryLog;
use proptest::prelude::*;
use serde_json::Value;

fn loaded(octets: &[u8]) -> (Broker, io::Result<Vec<String>>) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("definitions.json");
    std::fs::write(&path, octets).expect("written");
    let broker = Broker::new(MemoryLog::new(), &[]).0;
    let told = load(&broker, &path, "/", None);
    let empty = Broker::new(MemoryLog::new(), &[]).0;
    // A strict file is refused for whatever is told of others.
    let strict = load(&broker, &path, "/", Some(&empty));
    let fine = told.as_ref().is_ok_and(Vec::is_empty);
    assert_eq!(strict.is_ok(), fine, "{told:?} {strict:?}");
    (broker, told)
}

fn nested(levels: usize) -> String {
    let (open, close) = ("{\"a\":[".repeat(levels / 2), "]}".repeat(levels / 2));
    format!("{open}1{close}")
}

/// Loads queues `before` and `after`, and this one between them.
fn between(queue: &str) -> Vec<String> {
    let good = |name| format!(r#"{{"name":"{name}","vhost":"/","durable":true}}"#);
    let text = format!(
        r#"{{"vhosts":[{{"name":"/"}}],"queues":[{},{queue},{}]}}"#,
        good("before"),
        good("after")
    );
    let (broker, told) = loaded(text.as_bytes());
    let v = broker.vhost("/").expect("made");
    assert!(v.queue("before").is_some() && v.queue("after").is_some());
    told.expect("not strict")
}

#[test]
fn one_value_costs_one_entry() {
    let with = |argument: &str| {
        format!(r#"{{"name":"q","vhost":"/","durable":true,"arguments":{{"x-a":{argument}}}}}"#)
    };
    for (queue, why) in [
        (with(&nested(70)), "too deep"),
        (with(&nested(200)), "too deep"),
        (with(&nested(1_000_000)), "too deep"),
        (with(r#""\ud800""#), "surrogate"),
        (with(r#""\udc00\ud800""#), "surrogate"),
        (with(r#"{"\ud800":1}"#), "surrogate"),
        (with("1e400"), "number out of range"),
        (with("-1e400"), "number out of range"),
        (
            with("9223372036854775808"),
            "9223372036854775808 in its arguments is more than 63 bits",
        ),
        (with("18446744073709551615"), "63 bits"),
        (
            with(r#"1,"x-a":2"#),
            "'x-a' is there more than once; the last one counts",
        ),
        (
            r#"{"name":"q","vhost":"/","durable":7}"#.into(),
            "invalid type",
        ),
        (r#"{"name":"q","vhost":["/"]}"#.into(), "invalid type"),
        (
            r#"{"name":"q","vhost":"/","arguments":"x"}"#.into(),
            "invalid type",
        ),
        (r#"{"name":"q","vhost":null}"#.into(), "invalid type"),
        (r#"{"name":"q","vhost":"/","\ud800":1}"#.into(), "surrogate"),
    ] {
        let told = between(&queue);
        let shown = queue.get(..200).unwrap_or(&queue);
        assert!(
            told.len() == 1 && told[0].contains(why),
            "{shown}: {told:?}"
        );
        assert!(told[0].contains("name 'q'"), "{told:?}");
    }
    for queue in [
        "7",
        "null",
        "[[]]",
        r#""q""#,
        r#"{"name":"\ud800"}"#,
        &nested(300),
    ] {
        let told = between(queue);
        assert!(
            told.len() == 1 && told[0].contains("an entry without a name"),
            "{told:?}"
        );
    }
    // A float and the largest and least integers are values; a name may have a NUL, as on the wire.
    for argument in [
        "1e300",
        "9223372036854775807",
        "-9223372036854775808",
        r#""\u0000""#,
    ] {
        assert_eq!(between(&with(argument)), Vec::<String>::new(), "{argument}");
    }
}

#[test]
fn a_section_that_does_not_do_costs_that_section() {
    let good = r#""vhosts":[{"name":"v"}]"#;
    for (section, why) in [
        (r#""queues":7"#.into(), "section 'queues' is no list"),
        (
            format!(r#""queues":{}"#, nested(500)),
            "section 'queues' is no list",
        ),
        (
            format!(r#""other":[{}]"#, nested(500)),
            "section 'other' is not supported",
        ),
        (
            r#""users":{"name":"u"}"#.into(),
            "section 'users' is no list",
        ),
        (r#""\ud800":1"#.into(), "is not supported"),
        (
            r#""original_vhost_name":7"#.into(),
            "original_vhost_name is no text",
        ),
        (
            r#""users":[],"users":[]"#.into(),
            "the file: 'users' is there more than once; the last one counts",
        ),
    ] {
        for text in [
            format!("{{{good},{section}}}"),
            format!("{{{section},{good}}}"),
        ] {
            let (broker, told) = loaded(text.as_bytes());
            let told = told.expect("not strict");
            assert!(told.len() == 1 && told[0].contains(why), "{why}: {told:?}");
            assert!(broker.vhost("v").is_some());
        }
    }
    // An export of one vhost has its own in the file itself.
    for (own, why) in [
        (
            format!(r#""limits":{}"#, nested(500)),
            "limits was left out: it nests too deep",
        ),
        (
            format!(r#""metadata":{}"#, nested(500)),
            "metadata was left out",
        ),
        (
            r#""default_queue_type":"\ud800""#.into(),
            "default_queue_type was left out",
        ),
    ] {
        let text = format!(r#"{{"original_vhost_name":"v",{own},"queues":[{{"name":"q"}}]}}"#);
        let (broker, told) = loaded(text.as_bytes());
        let told = told.expect("not strict");
        assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
        assert!(broker.vhost("v").is_some_and(|v| v.queue("q").is_some()));
    }
}

#[test]
fn what_is_left_out_keeps_its_limits() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("definitions.json");
    let broker = Broker::new(MemoryLog::new(), &[]).0;
    let (ann, v) = (broker.user_account("ann"), broker.vhost_account("v"));
    for (users, vhosts) in [
        (
            r#"{"name":"ann","limits":{"max-channels":4}}"#,
            r#"{"name":"v","limits":{"max-queues":3}}"#,
        ),
        (
            r#"{"name":"ann","tags":7}"#,
            r#"{"name":"v","metadata":"\ud800"}"#,
        ),
        (r#"{"nam":"ann"}"#, "7"),
    ] {
        let text = format!(r#"{{"users":[{users}],"vhosts":[{vhosts}]}}"#);
        std::fs::write(&path, text).expect("written");
        load(&broker, &path, "/", None).expect("not strict");
        assert_eq!((ann.channels.max(), v.queues.max()), (4, 3), "{users}");
    }
}

#[test]
fn what_is_no_json_says_where() {
    let utf16 = |text: &str, mark: &[u8]| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        mark.iter().copied().chain(units).collect::<Vec<u8>>()
    };
    for (octets, why) in [
        (b"".to_vec(), "EOF while parsing a value at line 1 column 0"),
        (
            b"{\n  \"users\": [\n".to_vec(),
            "EOF while parsing a list at line 3 column 0",
        ),
        (
            b"{\"users\": [{\"name\": \"u".to_vec(),
            "at line 1 column 22",
        ),
        (b"{}\n}".to_vec(), "trailing characters at line 2 column 1"),
        (b"[]".to_vec(), "expected an object at line 1"),
        (b"{\"a\":\0}".to_vec(), "at line 1 column 6"),
        (b"{\"a\":\"\0\"}".to_vec(), "at line 1 column"),
        (vec![0; 100], "at line 1 column 1"),
        (
            b"{\n\"a\":\"\xe9\"}".to_vec(),
            "it is no UTF-8 at line 2 column 6",
        ),
        (
            utf16("{}", b"\xff\xfe"),
            "it is no UTF-8, but UTF-16, at line 1 column 1",
        ),
        (utf16("{}", b""), "at line 1 column 2"),
        (b"users:\n- name: u\n".to_vec(), "at line 1 column 1"),
        (nested(1_000_000)[..2_000_000].into(), "at line 1 column"),
    ] {
        let told = loaded(&octets).1.expect_err("no JSON").to_string();
        assert!(told.contains(why), "{why}: {told}");
        assert!(told.contains("definitions.json: "), "{told}");
    }
    // The mark that editors put before a text is none of it.
    let (_, told) = loaded(b"\xef\xbb\xbf{\"users\": []}");
    assert_eq!(told.expect("JSON"), Vec::<String>::new());
}

/// JSON of any kind, as text; values that RabbitMQ's exports have among them.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-1",
            "1e400",
            "-0.0",
            "18446744073709551615",
            "1e-999",
            "99999999999999999999999",
            r#""""#,
            r#""/""#,
            r#""ann""#,
            r#""\ud800""#,
            r#""\u0000""#,
            r#""quorum""#,
            r#""undefined""#,
            r#""direct""#,
            r#""queue""#,
            r#"".*""#,
        ])
        .prop_map(str::to_string),
        (0..300usize).prop_map(nested),
        "[ -~]{0,300}".prop_map(|text| Value::from(text).to_string()),
        any::<f64>().prop_map(|n| Value::from(n).to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
    ];
    let name = prop::sample::select(vec![
        "name",
        "vhost",
        "user",
        "durable",
        "arguments",
        "type",
        "limits",
        "tags",
        "metadata",
        "source",
        "destination",
        "destination_type",
        "routing_key",
        "configure",
        "write",
        "read",
        "password",
        "password_hash",
        "component",
        "value",
        "x-max-length",
        "max-queues",
        "a",
        r"\ud800",
        "default_queue_type",
        "exchange",
        "tracing",
        "hashing_algorithm",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let fields = prop::collection::vec((name.clone(), inner.clone()), 0..8);
        let fields = fields.prop_map(|fields| {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        });
        let list = prop::collection::vec(inner, 0..4);
        prop_oneof![3 => fields, 1 => list.prop_map(|all| format!("[{}]", all.join(",")))]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever JSON a file is, what is good in it is applied. Whatever else it is, it says where.
    #[test]
    fn no_json_keeps_the_broker_from_starting(
        sections in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "users", "vhosts", "permissions", "topic_permissions", "parameters", "queues", "bindings",
                    "policies", "limits", "metadata", "default_queue_type", "original_vhost_name", "other",
                ]),
                prop_oneof![json(), prop::collection::vec(json(), 0..4).prop_map(|all| format!("[{}]", all.join(",")))],
            ),
            0..5,
        ),
        harm in prop::option::of((any::<prop::sample::Index>(), any::<u8>(), 0..3u8)),
    ) {
        let sections = sections.iter().map(|(name, value)| format!("\"{name}\":{value},"));
        let text = format!(
            r#"{{{}"exchanges":[{{"name":"after","vhost":"/","type":"direct"}}],"vhosts":[{{"name":"/"}}]}}"#,
            sections.collect::<String>()
        );
        let mut octets = text.into_bytes();
        if let Some((at, octet, what)) = harm {
            let at = at.index(octets.len());
            match what {
                0 => octets.truncate(at),
                1 => octets[at] = octet,
                _ => octets.insert(at, octet),
            }
        }
        let mut made = None;
        let used = allocation_counter::measure(|| made = Some(loaded(&octets)));
        // A broker, its vhost, and patterns that are larger when they are read.
        let most = (4 << 20) + 4096 * octets.len() as u64;
        prop_assert!(used.bytes_max <= most, "{} octets of memory for {}", used.bytes_max, octets.len());
        let (broker, told) = made.expect("loaded");
        match told {
            Ok(_) if harm.is_none() => {
                let v = broker.vhost("/").expect("made");
                prop_assert!(v.exchange("after").is_some());
            }
            Ok(_) => {}
            Err(e) => {
                let e = e.to_string();
                prop_assert!(harm.is_some() && e.contains(" at line ") && e.contains(" column "), "{}", e);
            }
        }
    }
}

/// Which of two wrong limits is told does not change from start to start, nor does the order that they are stored in.
#[test]
fn limits_are_told_and_stored_in_order() {
    let limits = (0..12).map(|n| format!(r#""unknown-{n:02}":1"#));
    let limits = limits.collect::<Vec<_>>().join(",");
    let file = format!(r#"{{"vhosts":[{{"name":"/","limits":{{{limits}}}}}]}}"#);
    for _ in 0..4 {
        let (_, told) = loaded(file.as_bytes());
        let told = told.expect("applied");
        assert!(told.iter().any(|p| p.contains("'unknown-00'")), "{told:?}");
    }
}
