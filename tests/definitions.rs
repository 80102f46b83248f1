//! Tests of definitions files. The exports are shaped as RabbitMQ 4.3.6 writes them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use leveret::broker::Broker;
use leveret::definitions_file::load;
use leveret::password;
use leveret::storage::memory::MemoryLog;
use serde_json::{Value, json};

fn empty() -> Broker {
    Broker::new(MemoryLog::new(), &[]).0
}

fn load_into(broker: &Broker, file: &Value) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("definitions.json");
    std::fs::write(&path, file.to_string()).expect("written");
    load(broker, &path, None).expect("not strict")
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
            json!({"name": "v", "metadata": {"default_queue_type": "quorum"}}),
            "default_queue_type 'quorum'",
        ),
        (
            "parameters",
            json!({"vhost": "/", "component": "shovel", "name": "s", "value": {}}),
            "shovel",
        ),
        ("policies", json!({"vhost": "/", "name": "p"}), "policies"),
    ] {
        let problems = left_out(section, &entry);
        assert!(
            problems.len() == 1 && problems[0].contains(told),
            "{entry}: {problems:?}"
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
    let why = load(&broker, &path, Some(&empty())).expect_err("strict");
    assert!(why.to_string().contains("it has no name"));
    assert!(broker.vhost("a").is_none());
    assert_eq!(load(&broker, &path, None).expect("not strict").len(), 1);
    assert!(broker.vhost("a").is_some());
    write("[]".into());
    assert!(load(&broker, &path, None).is_err());
}
