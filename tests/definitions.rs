//! Tests of definitions files. The exports are shaped as RabbitMQ 4.3.6 writes them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use leveret::broker::access::Permission;
use leveret::broker::arguments::QueueType;
use leveret::broker::vhost::{QueueDeclare, TopologyError, Vhost};
use leveret::broker::{Broker, ConnectionId};
use leveret::definitions_file::load;
use leveret::password;
use leveret::protocol::field_table::FieldTable;
use leveret::storage::memory::MemoryLog;
use serde_json::{Value, json};

fn empty() -> Broker {
    Broker::new(MemoryLog::new(), &[]).0
}

fn load_into(broker: &Broker, file: &Value) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("definitions.json");
    std::fs::write(&path, file.to_string()).expect("written");
    load(broker, &path, "/", None).expect("not strict")
}

/// What is left out of a file with a vhost, a user, and this entry.
fn left_out(section: &str, entry: &Value) -> Vec<String> {
    let broker = empty();
    let mut file = json!({"vhosts": [{"name": "/"}], "users": [{"name": "ann"}]});
    let list = file.as_object_mut().expect("an object");
    let list = list.entry(section).or_insert_with(|| json!([]));
    let list = list.as_array_mut().expect("a list");
    list.push(entry.clone());
    // Whatever is wrong with one, the next is applied.
    let after = match section {
        "vhosts" | "users" => json!({"name": "after"}),
        _ => json!({"name": "after", "vhost": "/", "type": "direct", "durable": true}),
    };
    if matches!(section, "vhosts" | "users" | "exchanges") {
        list.push(after);
    }
    let problems = load_into(&broker, &file);
    match section {
        "vhosts" => assert!(broker.vhost("after").is_some()),
        "users" => assert!(broker.access().user("after").is_some()),
        "exchanges" => {
            let v = broker.vhost("/").expect("made");
            assert!(v.exchange("after").is_some());
        }
        _ => {}
    }
    problems
}

#[test]
fn an_entry_that_does_not_do_is_left_out_and_told() {
    let long = "n".repeat(256);
    let e_acute = "é".repeat(200);
    let mut deep = json!(1);
    for _ in 0..70 {
        deep = json!({ "a": deep });
    }
    for (section, entry, told) in [
        (
            "exchanges",
            json!({"name": "amq.rabbitmq.log", "vhost": "/", "type": "topic", "durable": true}),
            "amq.rabbitmq.log",
        ),
        (
            "exchanges",
            json!({"name": "x", "vhost": "/", "type": "x-lvc", "durable": true}),
            "unknown exchange type 'x-lvc'",
        ),
        (
            "exchanges",
            json!({"name": long, "vhost": "/", "type": "direct"}),
            "256 octets",
        ),
        (
            "exchanges",
            json!({"name": "x", "vhost": "/", "type": "direct", "arguments": {"alternate-exchange": long}}),
            "alternate-exchange",
        ),
        (
            "exchanges",
            json!({"name": "x", "vhost": "/", "type": "direct", "durabel": true}),
            "durabel",
        ),
        (
            "queues",
            json!({"name": "s", "vhost": "/", "durable": true, "arguments": {"x-queue-type": "stream"}}),
            "stream",
        ),
        (
            "queues",
            json!({"name": "s", "vhost": "/", "durable": true, "type": "stream", "arguments": {}}),
            "stream",
        ),
        (
            "queues",
            json!({"name": long, "vhost": "/", "durable": true}),
            "256 octets",
        ),
        (
            "queues",
            json!({"name": "q", "vhost": "/", "durable": true, "arguments": {e_acute: 1}}),
            "400 octets",
        ),
        (
            "queues",
            json!({"name": "q", "vhost": "/", "durable": true, "arguments": {"t": {long.clone(): 1}}}),
            "256 octets",
        ),
        (
            "queues",
            json!({"name": "q", "vhost": "/", "durable": true, "arguments": deep}),
            "too deep",
        ),
        (
            "queues",
            json!({"name": "q", "vhost": "/", "arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": long}}),
            "x-dead-letter-routing-key",
        ),
        (
            "queues",
            json!({"name": "q", "vhost": "nowhere", "durable": true}),
            "vhost 'nowhere' is not defined",
        ),
        (
            "bindings",
            json!({"source": "amq.direct", "vhost": "/", "destination": "gone", "destination_type": "queue"}),
            "destination is not defined",
        ),
        (
            "bindings",
            json!({"source": "gone", "vhost": "/", "destination": "amq.direct", "destination_type": "exchange"}),
            "source is not defined",
        ),
        ("users", json!({"name": 7}), "users"),
        (
            "users",
            json!({"name": "u", "password_hash": "no hash"}),
            "password_hash",
        ),
        (
            "users",
            json!({"name": "u", "password_hash": "AAAA"}),
            "password_hash",
        ),
        ("users", json!({"name": "u", "password": ""}), "empty"),
        (
            "permissions",
            json!({"user": "bob", "vhost": "/", "configure": "", "write": "", "read": ""}),
            "user 'bob' is not defined",
        ),
        (
            "permissions",
            json!({"user": "ann", "vhost": "x", "configure": "", "write": "", "read": ""}),
            "vhost 'x' is not defined",
        ),
        (
            "permissions",
            json!({"user": "ann", "vhost": "/", "configure": "(", "write": "", "read": ""}),
            "ann",
        ),
        (
            "vhosts",
            json!({"name": "v", "metadata": {"default_queue_type": "stream"}}),
            "default_queue_type 'stream'",
        ),
        (
            "parameters",
            json!({"vhost": "/", "component": "shovel", "name": "s", "value": {}}),
            "shovel",
        ),
        ("policies", json!({"vhost": "/", "name": "p"}), "policies"),
        (
            "permissions",
            json!({"user": "ann", "vhost": "/", "configure": "", "write": "\\K", "read": ""}),
            "'\\K' is not supported",
        ),
        (
            "queues",
            json!({"name": "q", "vhost": "/", "arguments": {"x-overflow": "drop"}}),
            "invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow",
        ),
        (
            "exchanges",
            json!({"name": "", "vhost": "/", "type": "direct"}),
            "operation not permitted on the default exchange",
        ),
        (
            "bindings",
            json!({"source": "amq.headers", "vhost": "/", "destination": "amq.direct",
                "destination_type": "exchange", "arguments": {"x-match": "some"}}),
            "Invalid x-match field value <<\"some\">>",
        ),
        (
            "parameters",
            json!({"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-fun": 1}}),
            "there is no limit 'max-fun'",
        ),
        (
            "parameters",
            json!({"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {}, "valeu": 1}),
            "valeu",
        ),
    ] {
        let problems = left_out(section, &entry);
        assert!(
            problems.len() == 1 && problems[0].contains(told),
            "{entry}: {problems:?}"
        );
        // Words, not Rust's own.
        let debug = ["Some(", "None", "LongStr", "Error {"];
        assert!(
            !debug.iter().any(|word| problems[0].contains(word)),
            "{problems:?}"
        );
    }
}

#[test]
fn what_exists_stays_as_it_is() {
    let broker = empty();
    let file = |max: i64, kind: &str| {
        json!({"vhosts": [{"name": "/"}],
            "exchanges": [{"name": "x", "vhost": "/", "type": kind, "durable": true}],
            "queues": [{"name": "q", "vhost": "/", "durable": true, "arguments": {"x-max-length": max}}]})
    };
    assert_eq!(load_into(&broker, &file(5, "direct")), Vec::<String>::new());
    assert_eq!(load_into(&broker, &file(6, "fanout")), Vec::<String>::new());
    let v = broker.vhost("/").expect("made");
    let queue = v.queue("q").expect("made");
    assert_eq!(queue.info().settings.max_length, Some(5));
    assert_eq!(v.exchange("x").expect("made").info.kind.as_str(), "direct");
}

#[test]
fn limits_that_the_file_no_longer_has_are_taken_away() {
    let broker = empty();
    let ann = broker.user_account("ann");
    let (a, b) = (broker.vhost_account("a"), broker.vhost_account("b"));
    let limits = || {
        let of_a = [a.queues.max(), a.connections.max()];
        (of_a, b.queues.max(), ann.channels.max())
    };
    let none = u64::MAX;
    let parameter = json!({"vhost": "b", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 3}});
    let all = json!({
        "vhosts": [{"name": "a", "limits": {"max-queues": 1, "max-connections": 2}}, {"name": "b"}],
        "users": [{"name": "ann", "limits": {"max-channels": 4}}], "parameters": [parameter],
    });
    assert_eq!(load_into(&broker, &all), Vec::<String>::new());
    assert_eq!(limits(), ([1, 2], 3, 4));
    // Sections that a file does not have say nothing, nor does an export of one vhost say anything of another.
    assert_eq!(
        load_into(&broker, &json!({"queues": []})),
        Vec::<String>::new()
    );
    let of_b = json!({"original_vhost_name": "b", "limits": {}});
    assert_eq!(load_into(&broker, &of_b), Vec::<String>::new());
    assert_eq!(limits(), ([1, 2], none, 4));
    // What cannot be read takes nothing away.
    let faulty = json!({"vhosts": [{"name": "a", "limits": {"max-queues": "many"}}]});
    assert_eq!(load_into(&broker, &faulty).len(), 1);
    assert_eq!(limits(), ([1, 2], none, 4));
    let less = json!({"vhosts": [{"name": "a", "limits": {"max-connections": 5}}], "users": []});
    assert_eq!(load_into(&broker, &less), Vec::<String>::new());
    assert_eq!(limits(), ([none, 5], none, none));
    assert_eq!(
        load_into(&broker, &json!({"vhosts": []})),
        Vec::<String>::new()
    );
    assert_eq!(limits(), ([none, none], none, none));
    assert!(broker.vhost("a").is_some() && broker.access().user("ann").is_some());
}

#[test]
fn queues_without_a_type_are_of_the_vhosts() {
    let log = MemoryLog::new();
    let broker = Broker::new(log.clone(), &[]).0;
    let file = json!({
        "vhosts": [{"name": "v", "metadata": {"default_queue_type": "quorum"}}, {"name": "w"}],
        "queues": [
            {"name": "q", "vhost": "v", "durable": true},
            {"name": "empty", "vhost": "v", "durable": true, "arguments": {"x-queue-type": ""}},
            {"name": "classic", "vhost": "v", "durable": true, "arguments": {"x-queue-type": "classic"}},
            {"name": "transient", "vhost": "v"},
            {"name": "auto", "vhost": "v", "durable": true, "auto_delete": true},
            {"name": "q", "vhost": "w", "durable": true},
        ],
    });
    assert_eq!(load_into(&broker, &file), Vec::<String>::new());
    let v = broker.vhost("v").expect("made");
    let kind = |vhost: &str, queue: &str| {
        let v = broker.vhost(vhost).expect("made");
        let q = v.queue(queue).expect("made");
        q.info().settings.queue_type.as_str()
    };
    for (vhost, queue, expected) in [
        ("v", "q", "quorum"),
        ("v", "empty", "quorum"),
        ("v", "classic", "classic"),
        ("v", "transient", "classic"),
        ("v", "auto", "classic"),
        ("w", "q", "classic"),
    ] {
        assert_eq!(kind(vhost, queue), expected, "{vhost} {queue}");
    }
    // What is there is compared with the default, and the default is kept.
    let declare = |v: &Vhost, name, exclusive| {
        let declare = QueueDeclare {
            name,
            server_named: false,
            durable: true,
            exclusive,
            auto_delete: false,
            arguments: &FieldTable::new(),
            connection: ConnectionId(1),
        };
        v.declare_queue(&declare)
            .map(|(q, ..)| q.info().settings.queue_type)
    };
    assert_eq!(declare(&v, "q", false), Ok(QueueType::Quorum));
    assert_eq!(declare(&v, "mine", true), Ok(QueueType::Classic));
    assert!(matches!(
        declare(&v, "classic", false),
        Err(TopologyError::QueueDiffers(..))
    ));
    let after = Broker::new(log.clone(), &log.definitions()).0;
    let v = after.vhost("v").expect("stored");
    assert_eq!(v.default_queue_type(), QueueType::Quorum);
    assert_eq!(declare(&v, "new", false), Ok(QueueType::Quorum));
    // A file that no longer says so takes it back; the queues stay what they are.
    assert_eq!(
        load_into(&after, &json!({"vhosts": [{"name": "v"}]})),
        Vec::<String>::new()
    );
    assert_eq!(declare(&v, "newer", false), Ok(QueueType::Classic));
    assert!(matches!(
        declare(&v, "new", false),
        Err(TopologyError::QueueDiffers(..))
    ));
}

#[test]
fn exports_of_one_vhost_are_understood() {
    let broker = empty();
    let file = json!({
        "rabbit_version": "4.3.6", "rabbitmq_version": "4.3.6", "product_name": "RabbitMQ",
        "explanation": "Definitions of virtual host 'shop'", "original_vhost_name": "shop",
        "rabbitmq_definition_format": "single_virtual_host", "description": "",
        "metadata": {"description": "", "tags": [], "default_queue_type": "classic"},
        "limits": {"max-queues": 1},
        "parameters": [], "policies": [],
        "exchanges": [{"name": "x", "type": "fanout", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
        "queues": [{"name": "amq.gen-yWaNgMi3Sy0fUBNbJuxDVA", "type": "classic", "durable": true, "auto_delete": false, "arguments": {}},
            {"name": "beyond", "durable": true, "arguments": {}}],
        "bindings": [{"source": "x", "destination": "amq.gen-yWaNgMi3Sy0fUBNbJuxDVA", "destination_type": "queue", "routing_key": "", "arguments": {}}],
    });
    let problems = load_into(&broker, &file);
    assert!(
        problems.len() == 1 && problems[0].contains("beyond"),
        "its limit holds: {problems:?}"
    );
    let v = broker.vhost("shop").expect("made");
    assert!(v.queue("amq.gen-yWaNgMi3Sy0fUBNbJuxDVA").is_some());
    assert_eq!(v.exchange("x").expect("made").router().iter().count(), 1);
}

#[test]
fn a_password_is_one() {
    let broker = empty();
    let file = json!({"users": [{"name": "ann", "password": "secret", "tags": "administrator"}]});
    let hash = || {
        broker
            .access()
            .user("ann")
            .expect("made")
            .password_hash
            .clone()
    };
    assert_eq!(load_into(&broker, &file), Vec::<String>::new());
    let first = hash();
    assert!(password::verify(b"secret", &first, password::SHA256));
    assert_eq!(load_into(&broker, &file), Vec::<String>::new());
    assert_eq!(hash(), first, "it is not hashed anew at each start");
}

#[test]
fn nothing_is_applied_of_a_strict_file_with_a_fault() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("definitions.json");
    let write = |text: String| std::fs::write(&path, text).expect("written");
    let broker = empty();
    write(json!({"vhosts": [{"name": "a"}], "queues": [{"name": "", "vhost": "a"}]}).to_string());
    let why = load(&broker, &path, "/", Some(&empty())).expect_err("strict");
    assert!(why.to_string().contains("it has no name"));
    assert!(broker.vhost("a").is_none());
    assert_eq!(
        load(&broker, &path, "/", None).expect("not strict").len(),
        1
    );
    assert!(broker.vhost("a").is_some());
    write("[]".into());
    assert!(load(&broker, &path, "/", None).is_err());
}

fn at(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What RabbitMQ 4.3.6 exports, of a broker with whatever it has.
#[test]
fn exports_of_rabbitmq_are_loaded_and_what_is_left_out_is_told() {
    let broker = empty();
    let left_out = |name| load(&broker, &at(name), "/", None).expect("not strict");
    let problems = left_out("tests/exports/broker.json");
    let expected = [
        "exchanges: name 'amq.rabbitmq.log', vhost '/' was left out: its name is reserved for the broker",
        "queues: name 'q_stream', vhost 'shop' was left out: invalid arg 'x-queue-type' for queue 'q_stream' in vhost 'shop': \"unsupported queue type 'stream'\"",
        // RabbitMQ does not export internal exchanges.
        "bindings: source 'x_t', destination 'x_f', vhost 'shop' was left out: its destination is not defined",
        "parameters: name 'op', vhost 'shop' was left out: component 'operator_policy' is not supported",
        "section 'policies' is not supported by this version and was left out: name 'p1', vhost 'shop'",
        "section 'global_parameters' is not supported by this version and was left out: name 'ours'",
    ];
    for told in expected {
        assert!(problems.iter().any(|p| p == told), "{told}: {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    let shop = broker.vhost("shop").expect("made");
    assert_eq!(shop.queues().len(), 6);
    assert_eq!(shop.default_queue_type(), QueueType::Quorum);
    let may = broker.access().permissions("ann", "shop").expect("made");
    assert!(may.allows(Permission::Configure, b"orders"));
    assert!(!may.allows(Permission::Configure, b"amq.orders"));
    assert_eq!(broker.vhost_account("shop").queues.max(), 20);
    assert_eq!(broker.user_account("ann").channels.max(), 7);
    // Once more, as at the next start; and what an export of the vhost says of it is the same.
    assert_eq!(left_out("tests/exports/broker.json"), problems);
    let of_one = left_out("tests/exports/vhost.json");
    assert_eq!(of_one.len(), 4, "{of_one:#?}");
    assert_eq!(shop.queues().len(), 6);
    assert_eq!(broker.vhost_account("shop").queues.max(), 20);
}

#[test]
fn the_example_does() {
    let broker = empty();
    let path = at("config/definitions.json");
    let problems = load(&broker, &path, "/", Some(&empty())).expect("strict");
    assert_eq!(problems, Vec::<String>::new());
    let shop = broker.vhost("shop").expect("made");
    let events = shop.exchange("events").expect("made");
    assert_eq!(events.router().iter().count(), 1);
    let queue = shop.queue("orders").expect("made");
    assert_eq!(queue.info().settings.queue_type, QueueType::Quorum);
    let ann = broker.access().user("ann").expect("made");
    assert!(password::verify(
        b"change-me",
        &ann.password_hash,
        &ann.hashing_algorithm
    ));
    let may = broker.access().permissions("ann", "shop").expect("made");
    assert!(may.allows(Permission::Write, b"events"));
}
