//! What stands in the data folder and is not as the broker left it: told by name, and passed over.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use support::{Broker, Client, launch, metric, scrape, start_command};

const SMALL: (&str, &str) = ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB");

/// Confirmed messages; each takes most of a segment.
fn publish(broker: &Broker, n: usize) {
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    for _ in 0..n {
        c.publish("q", &[1; 600_000]).unwrap();
        c.expect(basic::Ack::ID).unwrap();
    }
}

fn drained(broker: &Broker) -> usize {
    let mut c = Client::connect(broker.address).unwrap();
    let mut n = 0;
    while c.get("q", true).unwrap().is_some() {
        n += 1;
    }
    n
}

#[test]
fn a_folder_in_place_of_the_reserve_holds_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("reserve")).unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    broker
        .said
        .wait_for("/reserve: room for when the disk is full");
    publish(&broker, 1);
    fs::remove_dir(dir.path().join("reserve")).unwrap();
    broker.said.wait_for("/reserve: can be made again");
    assert!(broker.stop());
}

#[test]
fn a_folder_named_like_a_segment_behind_the_end_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    publish(&broker, 2);
    broker.kill();
    let folder = dir.path().join("log/0000000099.segment");
    fs::create_dir_all(folder.join("x")).unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    broker.said.wait_for("0000000099.segment.unreadable");
    assert!(!folder.exists());
    publish(&broker, 1);
    assert_eq!(drained(&broker), 3);
    assert!(broker.stop());
}

/// Root writes whatever the mode says, unless it may not.
fn unprivileged() -> String {
    let shell = match rustix::process::geteuid().is_root() {
        true => "set -- setpriv --bounding-set=-dac_override \"$@\"",
        false => ":",
    };
    shell.to_string()
}

#[test]
fn a_sealed_segment_that_can_only_be_read_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    publish(&broker, 4);
    broker.kill();
    let first = dir.path().join("log/0000000001.segment");
    fs::set_permissions(&first, fs::Permissions::from_mode(0o400)).unwrap();
    let broker = Broker::start_after(&unprivileged(), dir.path(), &[SMALL]);
    assert_eq!(drained(&broker), 4);
    assert!(broker.stop());
}

#[test]
fn files_that_were_made_long_take_neither_memory_nor_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[SMALL]);
    publish(&broker, 3);
    broker.kill();
    for name in [
        "definitions.journal",
        "definitions/db",
        "log/0000000001.segment",
        "log/0000000001.index",
        "log/0000000001.settled",
        "log/0000000003.segment",
    ] {
        let mut options = fs::File::options();
        let file = options.write(true).create(true).open(dir.path().join(name));
        file.unwrap().set_len(1 << 40).unwrap();
    }
    let (code, said) = offline("check", dir.path());
    assert!(code == 1 && said.contains("0000000001.index"), "{said}");
    assert!(said.contains("definitions: damaged"), "{said}");
    let broker = Broker::start(dir.path(), &[SMALL]);
    let most = broker.most_resident();
    assert!(most < 200 << 20, "{most}");
    assert_eq!(drained(&broker), 3);
    assert!(broker.stop());
}

/// A folder with what a clean stop leaves: one message in each of two segments.
fn filled(data: &Path) {
    let broker = Broker::start(data, &[SMALL]);
    publish(&broker, 2);
    assert!(broker.stop());
}

fn copied(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.unwrap().success());
}

/// Puts something else in the place of what is there.
fn replace(path: &Path, kind: &str) {
    let _ = fs::rename(path, format!("{}.before", path.display()));
    match kind {
        "a folder" => fs::create_dir_all(path.join("x")).unwrap(),
        "a FIFO" => {
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o600.into(), 0).unwrap();
        }
        "a file" => fs::write(path, "x").unwrap(),
        "a device" => symlink("/dev/zero", path).unwrap(),
        _ => symlink("nowhere", path).unwrap(),
    }
}

/// Exit code of a command about a folder, and what it says. It has to come to an end.
fn offline(command: &str, data: &Path) -> (i32, String) {
    let mut run = Command::new("timeout");
    let run = run.args(["30", env!("CARGO_BIN_EXE_leveret"), command]);
    let done = run.arg(data).output().unwrap();
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code().unwrap_or(-1), said)
}

#[test]
fn what_is_of_another_kind_is_not_waited_for_and_goes_aside() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    filled(&whole);
    let cases = [
        ("definitions.journal", "a FIFO", 2),
        ("definitions.journal", "a folder", 2),
        ("definitions", "a file", 2),
        ("definitions/db", "a FIFO", 2),
        ("definitions/conf", "a FIFO", 2),
        ("definitions.opening", "a FIFO", 2),
        ("definitions.journal.tmp", "a folder", 2),
        ("log/salt", "a FIFO", 2),
        ("log/0000000001.segment", "a FIFO", 1),
        ("log/0000000001.segment", "a device", 1),
        ("log/0000000001.index", "a folder", 2),
    ];
    std::thread::scope(|s| {
        for (n, (name, kind, left)) in cases.into_iter().enumerate() {
            let (data, whole) = (dir.path().join(format!("{n}")), &whole);
            s.spawn(move || {
                copied(whole, &data);
                replace(&data.join(name), kind);
                let named = name.split("/db").next().unwrap();
                let named = named.split("/conf").next().unwrap();
                let (code, said) = offline("check", &data);
                assert!(code == 1 && said.contains(named), "{name}: {said}");
                let broker = Broker::start(&data, &[SMALL]);
                let aside = broker.said.wait_for(" aside as ");
                assert!(aside.contains(named), "{name}: {aside}");
                assert_eq!(drained(&broker), left, "{name}");
                publish(&broker, 1);
                assert!(broker.stop(), "{name}");
                // So it is when it is repaired.
                fs::remove_dir_all(&data).unwrap();
                copied(whole, &data);
                replace(&data.join(name), kind);
                let (code, said) = offline("repair", &data);
                assert!(code == 0 && said.contains("clean"), "{name}: {said}");
            });
        }
    });
}

#[test]
fn what_nothing_can_be_done_without_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    filled(&whole);
    for (name, kind, says) in [
        (
            "lock",
            "a folder",
            "it is a folder, not a file; move it away",
        ),
        (
            "lock",
            "a device",
            "it is a device, not a file; move it away",
        ),
        (
            "version",
            "a FIFO",
            "it is a FIFO, not a file; move it away",
        ),
        (
            "version",
            "a link",
            "leads nowhere, not a file; move it away",
        ),
        (
            "log",
            "a file",
            "what stands there is no folder; move it away",
        ),
        (
            "log",
            "a link",
            "what stands there is no folder; move it away",
        ),
    ] {
        let data = dir.path().join(format!("{name} {kind}"));
        copied(&whole, &data);
        replace(&data.join(name), kind);
        assert_eq!(offline("check", &data).0, 2, "{name}");
        let (mut child, said) = launch(start_command(":", &data), &[SMALL]);
        let told = said.wait_for(says);
        assert!(told.contains(&format!("/{name}: ")), "{told}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
    // Without both copies of the definitions there is no start either, however often it is tried.
    let data = dir.path().join("neither");
    copied(&whole, &data);
    replace(&data.join("definitions"), "a file");
    replace(&data.join("definitions.journal"), "a FIFO");
    for _ in 0..2 {
        let (mut child, said) = launch(start_command(":", &data), &[SMALL]);
        said.wait_for("can be read neither from");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn nothing_is_said_to_be_aside_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let log = dir.path().join("log");
    replace(&log.join("0000000001.segment"), "a FIFO");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o500)).unwrap();
    let (mut child, said) = launch(start_command(&unprivileged(), dir.path()), &[SMALL]);
    let told = said.wait_for("nor set it aside; to start without it, move it away");
    assert!(told.contains("0000000001.segment (it is a FIFO"), "{told}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let lines = said.lines();
    assert!(
        !lines.iter().any(|l| l.contains(" aside as ")),
        "{lines:#?}"
    );
    fs::set_permissions(&log, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_log_that_was_taken_away_is_told_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    let metrics = [SMALL, ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0")];
    let broker = Broker::start_with(dir.path(), &[], &metrics);
    broker
        .said
        .wait_for("/log: empty, although definitions are");
    let page = scrape(broker.listens("prometheus"));
    assert!(
        metric(&page, "leveret_log_damaged_places_total") >= 1.0,
        "{page}"
    );
    assert!(broker.stop());
}
