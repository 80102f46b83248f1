//! `leveret perf` leaves a broker as it was.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::Broker;

fn perf(broker: &Broker, more: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    let uri = format!("amqp://guest:guest@{}/%2F", broker.address);
    command.args(["perf", "--json", "--uri", &uri]);
    command.args(more.split(' ')).env_clear();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(broker: &Broker, more: &str) -> (Output, String) {
    let output = perf(broker, more).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn report(octets: &[u8]) -> serde_json::Value {
    serde_json::from_slice(octets).unwrap()
}

/// Whether this queue is there; it is not afterwards.
fn was_there(broker: &Broker, queue: &str) -> bool {
    let (output, said) = run(broker, &format!("-C 1 --queue {queue}"));
    assert!(output.status.success(), "{said}");
    said.contains(&format!("'{queue}' is there, and will not be deleted"))
}

#[test]
fn only_what_it_made_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    assert!(
        run(&broker, "-C 3 -y 0 --keep --queue theirs")
            .0
            .status
            .success()
    );
    assert!(was_there(&broker, "theirs"));
    assert!(was_there(&broker, "theirs"));
    assert!(!was_there(&broker, "mine"));
    assert!(!was_there(&broker, "mine"));

    // An error after the declaration.
    let (refused, said) = run(&broker, "-e nowhere -z 5 --queue mine");
    assert!(
        !refused.status.success() && said.contains("NOT_FOUND"),
        "{said}"
    );
    assert!(!was_there(&broker, "mine"));
}

#[test]
fn an_interrupted_load_is_reported_and_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    // The second one's messages have no consumer to wait for.
    for load in [
        "--queue mine",
        "--queue mine -y 0 -r 1000",
        "--queue mine -x 0",
    ] {
        let mut child = perf(&broker, load).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(
            lines
                .next()
                .unwrap()
                .unwrap()
                .contains("until it is interrupted")
        );
        // It has begun.
        assert!(lines.next().unwrap().unwrap().starts_with("published "));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let mut out = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        assert!(child.wait().unwrap().success(), "{load}");
        let published = report(&out)["published"].as_u64().unwrap();
        assert_eq!(published == 0, load.ends_with("-x 0"), "{load}");
        assert!(!was_there(&broker, "mine"), "{load}");
    }
}

#[test]
fn what_never_came_is_not_waited_for_in_the_rates() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    // The second queue has no consumer.
    let (output, said) = run(&broker, "-q -C 10 -x 2 -y 1 --queues 2");
    assert!(output.status.success(), "{said}");
    let report = report(&output.stdout);
    assert_eq!([&report["published"], &report["consumed"]], [20, 10]);
    assert!(report["seconds"].as_f64().unwrap() < 1.5, "{report}");
}

#[test]
fn numbers_beyond_all_reason_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    for number in ["-c", "-x", "-y", "-s"] {
        let (output, said) = run(&broker, &format!("{number} {}", u64::MAX));
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}

#[test]
fn it_speaks_tls_and_looks_at_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pair = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (ours, other) = (pair("localhost"), pair("localhost"));
    let cert = file("cert.pem", &ours.cert.pem());
    let key = file("key.pem", &ours.signing_key.serialize_pem());
    let other = file("other.pem", &other.cert.pem());
    let broker = Broker::start_with(
        &dir.path().join("data"),
        &["--amqps", "127.0.0.1:0"],
        &[
            ("LEVERET_LISTENERS_PROMETHEUS", ""),
            ("LEVERET_TLS_CERT", &cert),
            ("LEVERET_TLS_KEY", &key),
        ],
    );
    let port = broker.listens("amqps").port();
    let load = |host: &str, more: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        let uri = format!("amqps://guest:guest@{host}:{port}/%2F");
        // Frames of many records, both ways at once, and confirms.
        let load = format!("-C 300 -s 200000 -c 50 -f -a 10 {more}");
        command.args(["perf", "--json", "-q", "--uri", &uri]);
        let output = command.args(load.split(' ')).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(report(&output.stdout)),
            false => Err(said),
        }
    };
    for good in [format!("--cacert {cert}"), "--insecure".to_owned()] {
        let report = load("localhost", &good).unwrap();
        let counts = ["published", "consumed", "confirmed"].map(|n| &report[n]);
        assert_eq!(counts, [300, 300, 300], "{report}");
    }
    let refused = |host: &str, more: &str, why: &str| {
        let said = load(host, more).unwrap_err();
        assert!(said.contains(why), "{said}");
    };
    let ours = format!("--cacert {cert}");
    refused("127.0.0.1", &ours, "not valid for name");
    refused(
        "localhost",
        &format!("--cacert {other}"),
        "invalid peer certificate",
    );
    refused(
        "localhost",
        &format!("--cacert {key}"),
        "no certificate of an authority",
    );
    assert!(load("127.0.0.1", "--insecure").is_ok());
}
