//! Who gets in, from this machine and from elsewhere.
//!
//! An address that is not loopback needs a network of its own: the tests run themselves again in a
//! namespace (`unshare`), where the loopback device has one more address.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::SocketAddr;

use support::{Broker, Client};

/// An address of the namespace: reserved for documentation, and not loopback.
const OUTSIDE: &str = "192.0.2.2";

/// Runs a test in a network namespace of its own. False: this is not in one, and all is done.
fn in_namespace(test: &str) -> bool {
    let setup = format!("ip link set lo up && ip address add {OUTSIDE}/32 dev lo");
    support::goes_on_apart(test, "--net", &setup)
}

/// Starts a broker that listens on all addresses.
fn start(dir: &std::path::Path, environment: &[(&str, &str)]) -> Broker {
    let everywhere = ["--amqp", "0.0.0.0:0"];
    let quiet = [("LEVERET_LISTENERS_PROMETHEUS", "")];
    let environment = [&quiet, environment].concat();
    Broker::start_with(&dir.join("data"), &everywhere, &environment)
}

/// Whether these are let in: from this machine, and from elsewhere.
fn gets_in(broker: &Broker, user: &str, password: &str) -> [bool; 2] {
    ["127.0.0.1", OUTSIDE].map(|address| {
        let port = broker.said.wait_for("address=0.0.0.0:");
        let port = port.rsplit_once(':').unwrap().1.parse().unwrap();
        let mut c = Client::raw(SocketAddr::new(address.parse().unwrap(), port)).unwrap();
        let came_from = c.socket.local_addr().unwrap().ip().to_string();
        assert_eq!(came_from, address);
        c.log_in_as(user, password).is_ok()
    })
}

#[test]
fn guest_is_let_in_from_this_machine_only() {
    if !in_namespace("guest_is_let_in_from_this_machine_only") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]);
    assert_eq!(gets_in(&broker, "guest", "guest"), [true, false]);
    assert!(broker.stop());

    // What one adds to a container that refused guest: it neither makes a user nor opens guest.
    let added = [
        ("RABBITMQ_DEFAULT_USER", "app"),
        ("RABBITMQ_DEFAULT_PASS", "secret"),
        ("RABBITMQ_DEFAULT_VHOST", "shop"),
    ];
    let broker = start(dir.path(), &added);
    broker.said.wait_for("the default user is not there");
    broker.said.wait_for("the default vhost is not there");
    assert_eq!(gets_in(&broker, "guest", "guest"), [true, false]);
    assert_eq!(gets_in(&broker, "app", "secret"), [false, false]);
    assert!(broker.stop());

    let other_password = [("RABBITMQ_DEFAULT_PASS", "secret")];
    let broker = start(dir.path(), &other_password);
    broker.said.wait_for("has another password");
    broker.said.wait_for("can only connect via localhost");
    assert_eq!(gets_in(&broker, "guest", "guest"), [true, false]);
    assert_eq!(gets_in(&broker, "guest", "secret"), [false, false]);
    assert!(broker.stop());

    // Who means it, says it.
    let meant = [("LEVERET_DEFAULTS_LOOPBACK_USERS", "")];
    let broker = start(dir.path(), &meant);
    assert_eq!(gets_in(&broker, "guest", "guest"), [true, true]);
}

#[test]
fn the_first_user_of_a_container_is_let_in_from_everywhere() {
    if !in_namespace("the_first_user_of_a_container_is_let_in_from_everywhere") {
        return;
    }
    let first = [
        ("RABBITMQ_DEFAULT_USER", "app"),
        ("RABBITMQ_DEFAULT_PASS", "secret"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &first);
    assert_eq!(gets_in(&broker, "app", "secret"), [true, true]);
    assert_eq!(gets_in(&broker, "guest", "guest"), [false, false]);

    // A list that names it wins.
    let dir = tempfile::tempdir().unwrap();
    let named = [&first[..], &[("LEVERET_DEFAULTS_LOOPBACK_USERS", "app,x")]].concat();
    let broker = start(dir.path(), &named);
    assert_eq!(gets_in(&broker, "app", "secret"), [true, false]);

    // And guest stays on this machine, under any password.
    let dir = tempfile::tempdir().unwrap();
    let guest = [
        ("RABBITMQ_DEFAULT_USER", "guest"),
        ("RABBITMQ_DEFAULT_PASS", "secret"),
    ];
    let broker = start(dir.path(), &guest);
    assert_eq!(gets_in(&broker, "guest", "secret"), [true, false]);
}

#[test]
fn an_empty_password_never_logs_in() {
    let dir = tempfile::tempdir().unwrap();
    let definitions = dir.path().join("definitions.json");
    // The second has the hash of an empty password, the third none.
    let hash = leveret::password::hash(b"");
    let users = serde_json::json!({"users": [
        {"name": "ann", "password_hash": leveret::password::hash(b"x"), "tags": []},
        {"name": "bob", "password_hash": hash, "tags": []},
        {"name": "cy", "password_hash": "", "tags": []}], "permissions": [
        {"user": "ann", "vhost": "/", "configure": "", "write": "", "read": ""},
        {"user": "bob", "vhost": "/", "configure": "", "write": "", "read": ""},
        {"user": "cy", "vhost": "/", "configure": "", "write": "", "read": ""}]});
    std::fs::write(&definitions, users.to_string()).unwrap();
    let file = [("LEVERET_LOAD_DEFINITIONS", definitions.to_str().unwrap())];
    let broker = Broker::start(&dir.path().join("data"), &file);
    let enters = |user, password| {
        let mut c = Client::raw(broker.address).unwrap();
        c.log_in_as(user, password).is_ok()
    };
    assert!(enters("ann", "x"));
    assert_eq!(["ann", "bob", "cy"].map(|u| enters(u, "")), [false; 3]);
    broker.said.wait_for("an empty password never logs in");
}
