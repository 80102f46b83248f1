//! Data folders of other versions of the format: earlier ones are read, unknown ones refused.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::methods::{exchange, queue};
use leveret::protocol::properties::Properties;
use support::{Broker, Client};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// Opens a copy of a folder, twice; `more` looks at what not all of them have.
fn open_twice(format: &str, more: impl Fn(&mut Client)) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    copy(&fixtures.join(format), &data);
    for life in 0..2 {
        let broker = Broker::start(&data, &[]);
        let mut c = Client::connect(broker.address).unwrap();
        assert_eq!(c.counts("kept").unwrap().0, 5 + life);
        assert_eq!(c.counts("empty").unwrap().0, 0);
        for n in 1..6 {
            let got = c.get("kept", false).unwrap().unwrap();
            assert_eq!(got.body, format!("message {n}").as_bytes());
            // Only the first of them had been delivered; in the second life all were.
            assert_eq!(got.redelivered, n == 1 || life == 1, "{n}");
        }
        if life == 0 {
            // The binding is there.
            c.stage_publish_to("old", "a.c", b"new", &support::persistent());
            c.flush().unwrap();
            let unbind = queue::Unbind {
                queue: "kept",
                exchange: "old",
                routing_key: "a.#",
                ..Default::default()
            };
            c.send(1, &unbind).unwrap();
            c.expect(queue::UnbindOk::ID).unwrap();
        } else {
            assert_eq!(c.get("kept", false).unwrap().unwrap().body, b"new");
        }
        more(&mut c);
        drop(c);
        let said = broker.said.clone();
        assert!(broker.stop());
        assert_eq!(fs::read_to_string(data.join("version")).unwrap(), "3\n");
        let lines = said.lines();
        assert!(
            !lines.iter().any(|line| line.contains("ERROR")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_folder_of_the_first_format_is_opened_with_all_that_is_in_it() {
    open_twice("format-1", |_| {});
}

#[test]
fn a_folder_of_the_third_format_is_opened_with_all_that_is_in_it() {
    open_twice("format-3", |c| {
        let got = c.get("returned", false).unwrap().unwrap();
        assert_eq!((got.body, got.redelivered), (b"came back".to_vec(), true));
        // The window knows the value.
        let mut headers = FieldTable::new();
        headers.insert("x-deduplication-header", "first");
        let known = Properties {
            headers: Some(headers),
            ..support::persistent()
        };
        c.stage_publish_to("once", "k", b"again", &known);
        c.flush().unwrap();
        assert_eq!(c.counts("empty").unwrap().0, 0);
        // So it is a delayed exchange, as it was declared.
        let mut arguments = FieldTable::new();
        arguments.insert("x-delayed-type", "direct");
        let arguments = arguments.to_bytes();
        let later = exchange::Declare {
            exchange: "later",
            type_: "x-delayed-message",
            durable: true,
            arguments: TableRef::unchecked(&arguments),
            ..Default::default()
        };
        c.send(1, &later).unwrap();
        c.expect(exchange::DeclareOk::ID).unwrap();
    });
}

#[test]
fn an_unknown_format_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("version"), "4\n").unwrap();
    let mut broker = Command::new(env!("CARGO_BIN_EXE_leveret"));
    let amqp = ["--amqp", "127.0.0.1:0", "--data-dir"];
    let done = broker.args(amqp).arg(dir.path()).output().unwrap();
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert!(!done.status.success());
    let why = "says that the data folder has format version \"4\"; this Leveret reads versions 1 to 3, and writes 3";
    assert!(said.contains(why), "{said}");
    assert_eq!(
        fs::read_to_string(dir.path().join("version")).unwrap(),
        "4\n"
    );
    assert!(!dir.path().join("log").join("salt").exists());
}
