//! `leveret check` and `leveret repair` on folders with damage of every kind.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use support::{Broker, Client, PATIENCE};

const SETTINGS: [(&str, &str); 2] = [
    ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB"),
    ("LEVERET_DISK_RESERVE_BYTES", "0"),
];

/// Octets of a body; some ten make a segment.
const BODY: usize = 100_000;

fn publish(c: &mut Client, queue: &str, numbers: std::ops::Range<u8>) {
    for n in numbers {
        c.publish(queue, &[n; BODY]).unwrap();
        c.expect(basic::Ack::ID).unwrap();
    }
}

fn has(data: &Path, name: &str) -> bool {
    data.join("log").join(name).exists()
}

/// A folder in which queue a has 0 to 29, with an index, notes of what is settled, and both copies of definitions.
fn filled(data: &Path) {
    let broker = Broker::start(data, &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    for queue in ["a", "b"] {
        c.declare(queue, true, &FieldTable::new()).unwrap();
    }
    c.confirm_select().unwrap();
    publish(&mut c, "a", 0..5);
    publish(&mut c, "b", 0..15);
    publish(&mut c, "a", 5..30);
    for _ in 0..15 {
        let got = c.get("b", false).unwrap().unwrap();
        c.ack(got.tag, false).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while !has(data, "0000000001.settled") || !has(data, "0000000003.index") {
        assert!(Instant::now() < deadline, "no notes");
        std::thread::yield_now();
    }
    drop(c);
    assert!(broker.stop());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// All files with what is in them.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

/// Exit code and what was said.
fn run(command: &str, data: &Path) -> (i32, String) {
    let mut run = Command::new(env!("CARGO_BIN_EXE_leveret"));
    let done = run.arg(command).arg(data).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (done.status.code().unwrap_or(-1), said)
}

/// What a broker finds in queue a.
fn found(data: &Path) -> (Vec<u8>, Vec<String>) {
    let broker = Broker::start(data, &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    let mut numbers = Vec::new();
    while let Some(got) = c.get("a", false).unwrap() {
        assert!(got.body.len() == BODY && got.body.iter().all(|b| *b == got.body[0]));
        numbers.push(got.body[0]);
    }
    assert_eq!(c.counts("b").unwrap().0, 0);
    drop(c);
    let errors = broker.said.lines();
    let errors = errors.into_iter().filter(|line| line.contains("ERROR"));
    let errors = errors.collect();
    assert!(broker.stop());
    (numbers, errors)
}

/// Where a body of this number begins.
fn body_of(path: &Path, n: u8) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.chunks(500).position(|c| c == [n; 500]).unwrap() * 500
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 16;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_damaged_is_found_told_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let clean = dir.path().join("clean");
    filled(&clean);
    let before = contents(&clean);
    let (code, said) = run("check", &clean);
    assert!(
        code == 0 && said.contains(": clean; ") && said.contains(" 30 messages"),
        "{said}"
    );
    let (code, said) = run("repair", &clean);
    assert!(code == 0 && said.contains("nothing to do"), "{said}");
    assert!(contents(&clean) == before, "a check changes nothing");
    let segment = |n: u32| format!("log/{n:010}.segment");
    let number = |n: u8| {
        let has = |s: &u32| {
            let bytes = fs::read(clean.join(segment(*s))).unwrap_or_default();
            bytes.chunks(500).any(|c| c == [n; 500])
        };
        (1..9).find(has).unwrap()
    };
    let last = number(29);
    let indexed = (0..30).find(|n| number(*n) == 3).unwrap();
    let all: Vec<u8> = (0..30).collect();
    let without = |n: u8| all.iter().copied().filter(|m| *m != n).collect::<Vec<u8>>();
    type Break<'a> = Box<dyn Fn(&Path) + 'a>;
    let bit = |n: u8| -> Break { Box::new(move |p: &Path| flip(p, body_of(p, n) + 500)) };
    let at = |at: usize| -> Break { Box::new(move |p: &Path| flip(p, at)) };
    let garbage: Break = Box::new(|p: &Path| {
        let len = fs::metadata(p).unwrap().len() as usize;
        fs::write(p, vec![0x5a; len]).unwrap();
    });
    let cases: [(String, Break, &str, Option<Vec<u8>>); 8] = [
        // One that a start does not read: the index says what was in it.
        (
            segment(3),
            bit(indexed),
            "queue \"a\" of vhost \"/\": 1 messages",
            Some(without(indexed)),
        ),
        (
            segment(last),
            bit(29),
            "1 messages lost at most",
            Some(without(29)),
        ),
        (
            segment(3),
            Box::new(|p| fs::write(p, [7; 5000]).unwrap()),
            "what was in it is lost",
            None,
        ),
        (
            "log/0000000003.index".into(),
            at(40),
            "nothing is lost",
            Some(all.clone()),
        ),
        (
            "log/0000000001.settled".into(),
            at(9),
            "may come back",
            Some(all.clone()),
        ),
        (
            "log/salt".into(),
            at(6),
            "nothing is lost",
            Some(all.clone()),
        ),
        (
            "definitions.journal".into(),
            at(30),
            "other copy",
            Some(all.clone()),
        ),
        (
            "definitions/db".into(),
            garbage,
            "other copy",
            Some(all.clone()),
        ),
    ];
    std::thread::scope(|s| {
        for (n, (file, damage, says, left)) in cases.iter().enumerate() {
            let (data, clean) = (dir.path().join(format!("data-{n}")), &clean);
            copy(clean, &data);
            damage(&data.join(file));
            s.spawn(move || {
                let damaged = contents(&data);
                let (code, said) = run("check", &data);
                assert!(code == 1 && said.contains(says), "{file}: {code} {said}");
                let named = file.strip_suffix("/db").unwrap_or(file);
                assert!(said.starts_with(&format!("{named}: ")), "{said}");
                assert!(
                    contents(&data) == damaged,
                    "{file}: a check changes nothing"
                );
                let (code, said) = run("repair", &data);
                assert!(
                    code == 0 && said.contains("what is left is clean"),
                    "{file}: {said}"
                );
                let name = file.rsplit('/').next().unwrap();
                let aside = data.join("damaged-1");
                let kept = match file.starts_with("definitions/") {
                    true => aside.join(file),
                    false => aside.join(name),
                };
                assert!(
                    fs::read(kept).unwrap() == damaged[&data.join(file)],
                    "{file}"
                );
                assert_eq!(run("check", &data).0, 0, "{file}");
                let (numbers, errors) = found(&data);
                assert_eq!(errors, [""; 0], "{file}");
                match left {
                    Some(left) => assert_eq!(&numbers, left, "{file}"),
                    None => assert!(
                        numbers.len() < 30 && numbers.len() > 15 && numbers[..5] == [0, 1, 2, 3, 4]
                    ),
                }
            });
        }
    });
}

#[test]
fn what_cannot_be_told_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for command in ["check", "repair"] {
        let (code, said) = run(command, &data);
        assert!(code == 2 && said.contains("is no data folder"), "{said}");
    }
    let broker = Broker::start(&data, &SETTINGS);
    for command in ["check", "repair"] {
        let (code, said) = run(command, &data);
        assert!(code == 2 && said.contains("another broker uses"), "{said}");
    }
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("a", true, &FieldTable::new()).unwrap();
    drop(c);
    // Both copies of the definitions have them.
    let journal = data.join("definitions.journal");
    assert!(broker.stop());
    let broker = Broker::start(&data, &SETTINGS);
    let mut c = Client::connect(broker.address).unwrap();
    c.confirm_select().unwrap();
    publish(&mut c, "a", 0..3);
    broker.kill();
    let (code, said) = run("check", &data);
    assert!(
        code == 0 && said.contains(" 3 messages"),
        "a crash is no damage: {said}"
    );
    fs::write(data.join("version"), "4\n").unwrap();
    for command in ["check", "repair"] {
        let (code, said) = run(command, &data);
        assert!(
            code == 2 && said.contains("format version \"4\"; this Leveret reads versions 1 to 3"),
            "{said}"
        );
    }
    fs::write(data.join("version"), "3\n").unwrap();
    assert_eq!(run("check", &data).0, 0);
    // Neither copy of the definitions.
    flip(&journal, 20);
    fs::write(data.join("definitions").join("db"), [1; 9000]).unwrap();
    for command in ["check", "repair"] {
        let (code, said) = run(command, &data);
        assert!(
            code == 2 && said.contains("can be read neither from"),
            "{said}"
        );
    }
}
