//! What runs out does not end the broker: file descriptors, and who holds them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::basic;
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client, PATIENCE, launch, metric, scrape, start_command};

const METRICS: (&str, &str) = ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0");

/// Confirmed publishes that need several segments.
fn publish(c: &mut Client, tags: std::ops::RangeInclusive<u64>) {
    for tag in tags {
        c.publish("q", &[0; 400_000]).unwrap();
        let f = c.expect(basic::Ack::ID).unwrap();
        assert!(matches!(f.method(), Method::BasicAck(ack) if ack.delivery_tag == tag));
    }
}

#[test]
fn connections_leave_descriptors_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [METRICS, ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB")];
    let broker = Broker::start_after("ulimit -n 256", &dir.path().join("data"), &settings);
    broker.said.wait_for("few file descriptors");
    let metrics = broker.listens("prometheus");
    let mut publisher = Client::connect(broker.address).unwrap();
    publisher.declare("q", true, &FieldTable::new()).unwrap();
    publisher.confirm_select().unwrap();
    // With these, what HTTP may have still fits.
    let mut honest: Vec<_> = (0..80)
        .map(|_| Client::connect(broker.address).unwrap())
        .collect();
    let mut idle: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(metrics).unwrap())
        .collect();
    // All of them have been looked at when the last one is refused, before others take what is left.
    let mut last = idle.pop().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(last.read(&mut [0; 1]), Ok(0) | Err(_)));
    idle.extend((0..300).map(|_| TcpStream::connect(broker.address).unwrap()));
    broker.said.wait_for("reason=\"file_descriptors\"");
    publish(&mut publisher, 1..=10);
    publisher
        .declare("another", true, &FieldTable::new())
        .unwrap();
    honest[0]
        .declare("third", true, &FieldTable::new())
        .unwrap();

    drop(idle);
    let deadline = Instant::now() + PATIENCE;
    while Client::connect(broker.address).is_err() {
        assert!(Instant::now() < deadline, "no room again");
    }
    let page = scrape(metrics);
    let refused = |why| {
        let name = format!("leveret_connections_refused_total{{reason=\"{why}\"}}");
        metric(&page, &name)
    };
    assert!(refused("file_descriptors") > 0.0 && refused("metrics_connections") > 0.0);
    assert_eq!(metric(&page, "rabbitmq_process_max_fds"), 256.0);
    publish(&mut publisher, 11..=12);
    assert!(broker.stop());
}

#[test]
fn a_backlog_of_more_segments_than_descriptors_is_kept_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [METRICS, ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB")];
    let (limit, data) = ("ulimit -n 120", dir.path().join("data"));
    let broker = Broker::start_after(limit, &data, &settings);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    let n = 150;
    for tag in 1..=n {
        c.publish("q", &[tag as u8; 600_000]).unwrap();
        c.expect(basic::Ack::ID).unwrap();
    }
    broker.kill();
    // What is read now is in the log only.
    let broker = Broker::start_after(limit, &data, &settings);
    let mut c = Client::connect(broker.address).unwrap();
    c.qos(5).unwrap();
    c.consume("q", false).unwrap();
    for tag in 1..=n {
        let m = c.delivery().unwrap();
        assert_eq!((m.body.len(), m.body[0]), (600_000, tag as u8));
        c.ack(m.tag, false).unwrap();
        if tag % 50 == 0 {
            let page = scrape(broker.listens("prometheus"));
            assert!(metric(&page, "rabbitmq_process_open_fds") < 80.0, "{page}");
            assert_eq!(metric(&page, "leveret_log_damaged_places_total"), 0.0);
        }
    }
    assert!(broker.stop());
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "ulimit -Sn 200; ulimit -Hn 5000";
    let broker = Broker::start_after(limits, &dir.path().join("data"), &[METRICS]);
    let page = scrape(broker.listens("prometheus"));
    assert_eq!(metric(&page, "rabbitmq_process_max_fds"), 5000.0);
    assert!(metric(&page, "rabbitmq_process_open_fds") > 5.0);
}

#[test]
fn a_limit_of_the_size_of_files_holds_publishers_back_until_it_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Blocks of 512 octets.
    let (mut child, said) = launch(start_command("ulimit -f 40000", &data), &[]);
    said.wait_for("storage.segment_bytes");
    assert_eq!(child.wait().unwrap().code(), Some(1));

    let settings = [METRICS, ("LEVERET_STORAGE_SEGMENT_BYTES", "1MiB")];
    let broker = Broker::start(&data, &settings);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    publish(&mut c, 1..=4);
    let most = broker.limit_files(Some(500_000));
    c.publish("q", &[0; 400_000]).unwrap();
    c.publish("q", &[0; 900_000]).unwrap();
    broker
        .said
        .wait_for("File too large (os error 27): a limit of the process (ulimit -f");
    broker.said.wait_for("log_out_of_space=true");
    broker.limit_files(most);
    // The connection was told of the alarm, and is told of its end.
    loop {
        let f = c.next().unwrap();
        if matches!(f.method(), Method::BasicAck(ack) if ack.delivery_tag == 6) {
            break;
        }
    }
    broker.kill();
    let broker = Broker::start(&data, &settings);
    let mut c = Client::connect(broker.address).unwrap();
    for len in [400_000; 5].into_iter().chain([900_000]) {
        assert_eq!(c.get("q", true).unwrap().unwrap().body.len(), len);
    }
    assert!(broker.stop());
}

/// Sends this, then an octet now and then; what was answered, and how long until the end.
fn dribble(address: SocketAddr, first: &[u8], then: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut socket = TcpStream::connect(address).unwrap();
    let pause = Some(Duration::from_millis(300));
    socket.set_read_timeout(pause).unwrap();
    socket.write_all(first).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut some = [0; 4096];
        match socket.read(&mut some) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&some[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                // It may be gone meanwhile.
                let _ = socket.write_all(then);
                assert!(began.elapsed() < PATIENCE, "it is held for ever");
            }
            Err(_) => break,
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer, began.elapsed())
}

#[test]
fn half_a_request_for_metrics_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[METRICS]);
    let address = broker.listens("prometheus");
    std::thread::scope(|s| {
        for (first, then) in [
            (&b""[..], &b""[..]),
            (b"GET /metr", b""),
            (b"GET /metrics HTTP/1.1\r\nx: ", b"x"),
        ] {
            s.spawn(move || {
                let (answer, took) = dribble(address, first, then);
                assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
                let right = Duration::from_secs(4)..Duration::from_secs(9);
                assert!(right.contains(&took), "{took:?}");
            });
        }
    });
    // A connection that was answered stays for the next request.
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..2 {
        socket
            .write_all(b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = [0; 4096];
        let n = socket.read(&mut answer).unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 404 "));
    }
}
