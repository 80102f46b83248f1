//! Log lines: nobody waits for their reader, nobody forges them, nobody fills the disk with them, and
//! they hold what an operator looks for.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::TableRef;
use leveret::protocol::methods::{channel as channels, queue};
use support::{Broker, Client, PATIENCE};

#[test]
fn lines_that_nobody_reads_hold_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    command
        .args(["--data-dir", data, "--amqp", "127.0.0.1:0"])
        .env_clear()
        .envs([
            ("LEVERET_LISTENERS_PROMETHEUS", ""),
            ("LEVERET_LOG_LEVEL", "debug"),
            ("LEVERET_PROTOCOL_FAILED_LOGIN_DELAY_MS", "0"),
        ])
        .stdin(Stdio::null())
        .stderr(writer.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut lines = BufReader::new(reader);
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0);
        if let Some((_, address)) = line.split_once("listening for amqp address=") {
            break address.trim().parse().unwrap();
        }
    };
    // Full, from here to the end: this waits until the reader is gone.
    let filler = std::thread::spawn(move || writer.write_all(&[b'\n'; 1 << 20]).is_err());
    // Each of these is a line that has no room there.
    for _ in 0..20 {
        let refused = Client::raw(address).unwrap().log_in_as("guest", "wrong");
        let why = refused.unwrap_err().kind();
        assert_eq!(why, std::io::ErrorKind::PermissionDenied);
    }
    Client::connect(address).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(child.wait().unwrap()));
    let status = told.recv_timeout(PATIENCE);
    if status.is_err() {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    drop(lines);
    assert!(filler.join().unwrap());
    assert!(status.unwrap().success());
}

#[test]
fn what_peers_call_themselves_stays_in_its_line() {
    let forged = "2026-01-01T00:00:00.000000Z  INFO forged";
    for format in ["human", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let settings = [
            ("LEVERET_LOG_LEVEL", "debug"),
            ("LEVERET_LOG_FORMAT", format),
            ("LEVERET_LISTENERS_PROMETHEUS", ""),
        ];
        let broker = Broker::start(&dir.path().join("data"), &settings);
        let user = format!("x\n{forged}\r\x1b[2J\u{85}");
        let mut c = Client::raw(broker.address).unwrap();
        assert!(c.log_in_as(&user, "y").is_err());
        let mut c = Client::raw(broker.address).unwrap();
        assert!(c.log_in_as("last", "y").is_err());
        broker.said.wait_for("last");
        let lines = broker.said.lines();
        let with: Vec<_> = lines.iter().filter(|l| l.contains("forged")).collect();
        assert!(!with.is_empty());
        for line in with {
            assert!(
                line.contains("login refused") || line.contains("connection closed"),
                "{line}"
            );
            assert!(!line.contains(['\r', '\x1b', '\u{85}']), "{line:?}");
        }
        if format == "json" {
            for line in &lines {
                let line: serde_json::Value = serde_json::from_str(line).expect(line);
                let target = line["target"].as_str().unwrap();
                assert!(target.starts_with("leveret"), "nobody asked for {target}'s");
            }
        }
    }
}

#[test]
fn what_peers_cause_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let at_once = [("LEVERET_PROTOCOL_FAILED_LOGIN_DELAY_MS", "0")];
    let broker = Broker::start(&dir.path().join("data"), &at_once);
    for _ in 0..150 {
        let mut c = Client::raw(broker.address).unwrap();
        assert!(c.log_in_as("guest", "wrong").is_err());
    }
    // What peers do not cause is written all the same.
    let said = broker.said.clone();
    assert!(broker.stop());
    said.wait_for("stopped");
    let refused = said
        .lines()
        .iter()
        .filter(|l| l.contains("login refused"))
        .count();
    assert_eq!(refused, 100);
}

#[test]
fn an_operator_finds_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let line = broker.said.wait_for("starting");
    for what in [
        data.to_str().unwrap(),
        env!("CARGO_PKG_VERSION"),
        "memory_limit=",
    ] {
        assert!(line.contains(what), "{line}");
    }
    let mut c = Client::connect(broker.address).unwrap();
    let peer = c.socket.local_addr().unwrap().to_string();
    let line = broker.said.wait_for("connection accepted");
    assert!(
        line.contains(&peer) && line.contains("user=\"guest\"") && line.contains("vhost=\"/\"")
    );
    let passive = queue::Declare {
        queue: "nowhere",
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: TableRef::default(),
    };
    c.send(1, &passive).unwrap();
    c.expect(channels::Close::ID).unwrap();
    let line = broker.said.wait_for("channel closed");
    assert!(
        line.contains("no queue 'nowhere' in vhost '/'") && line.contains(&peer),
        "{line}"
    );
    drop(c);
    let line = broker.said.wait_for("connection closed");
    assert!(line.contains(&peer), "{line}");
}
