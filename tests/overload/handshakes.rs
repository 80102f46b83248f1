//! Handshakes that stop or crawl, at every octet, and those of others beside them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use leveret::protocol::EncodeMethod;
use leveret::protocol::frame::PROTOCOL_HEADER;
use leveret::protocol::methods::connection;
use rcgen::{CertificateParams, KeyPair};

use crate::Ground;
use crate::bystander::Bystander;
use crate::support::{Client, PATIENCE, metric, scrape};

/// All that a client says until its vhost is open.
const HANDSHAKE: &[u8] = b"AMQP\0\0\x09\x01\
    \x01\0\0\0\0\0\x24\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US\xce\
    \x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x40\0\x01\0\0\0\0\xce\
    \x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce";

/// Time for one, milliseconds.
const HANDSHAKE_MS: u64 = 700;

const SLOW: [(&str, &str); 1] = [("LEVERET_PROTOCOL_HANDSHAKE_TIMEOUT_MS", "700")];

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

/// Reads until the broker hangs up.
fn hung_up(socket: &mut TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sink = [0; 4096];
    loop {
        match socket.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) => {
                assert_ne!(e.kind(), ErrorKind::WouldBlock, "it does not hang up");
                return;
            }
        }
    }
}

/// A connection that stops after each number of octets, and one that says an octet now and then: all are hung up on.
fn stops_everywhere(address: SocketAddr, octets: &[u8], within: Duration) {
    let mut stopped: Vec<_> = (0..octets.len())
        .map(|n| {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(&octets[..n]).unwrap();
            socket
        })
        .collect();
    let mut crawls = TcpStream::connect(address).unwrap();
    // So that it would take six times as long as it may.
    let pause = 6 * within / octets.len() as u32;
    let began = Instant::now();
    let said = octets.iter().take_while(|octet| {
        crate::support::pause(pause);
        crawls.write_all(&[**octet]).is_ok()
    });
    let said = said.count();
    assert!(said < octets.len(), "it crawled to the end");
    assert!(began.elapsed() >= within, "{said} octets are no crime");
    stopped.iter_mut().for_each(hung_up);
}

fn unauthenticated(ground: &Ground) -> f64 {
    metric(
        &scrape(ground.metrics),
        "leveret_connections_unauthenticated",
    )
}

#[test]
fn handshakes_that_stop_at_any_octet_are_given_up() {
    let ground = Ground::new(&SLOW);
    let bystander = Bystander::start(ground.broker.address);
    let within = Duration::from_millis(HANDSHAKE_MS);
    stops_everywhere(ground.broker.address, HANDSHAKE, within);
    bystander.watch(Duration::ZERO, 3);
    bystander.stop();
    ground.comes_back_to(&[0.0, 0.0, 2.0, 0.0], usize::MAX);
    assert_eq!(unauthenticated(&ground), 0.0);
    // Nor is it the octets: all of them at once are a login.
    let mut all = Client::raw(ground.broker.address).unwrap();
    all.socket.write_all(HANDSHAKE).unwrap();
    for id in [
        connection::Start::ID,
        connection::Tune::ID,
        connection::OpenOk::ID,
    ] {
        all.expect(id).unwrap();
    }
}

#[test]
fn tls_handshakes_that_stop_at_any_octet_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let paths = [
        (
            dir.path().join("cert"),
            params.self_signed(&key).unwrap().pem(),
        ),
        (dir.path().join("key"), key.serialize_pem()),
    ];
    for (path, pem) in &paths {
        std::fs::write(path, pem).unwrap();
    }
    let settings = [
        SLOW[0],
        ("LEVERET_LISTENERS_AMQPS", "127.0.0.1:0"),
        ("LEVERET_TLS_CERT", paths[0].0.to_str().unwrap()),
        ("LEVERET_TLS_KEY", paths[1].0.to_str().unwrap()),
    ];
    let ground = Ground::new(&settings);
    // What a client says first.
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let bystander = Bystander::start(ground.broker.address);
    let within = Duration::from_millis(HANDSHAKE_MS);
    stops_everywhere(ground.broker.listens("amqps"), &hello, within);
    bystander.watch(Duration::ZERO, 3);
    bystander.stop();
    ground.comes_back_to(&[0.0, 0.0, 2.0, 0.0], usize::MAX);
    assert_eq!(unauthenticated(&ground), 0.0);
}

#[test]
fn requests_for_metrics_that_stop_at_any_octet_are_given_up() {
    let ground = Ground::new(&[]);
    // What the port gives a request.
    stops_everywhere(ground.metrics, REQUEST, Duration::from_secs(5));
    assert!(scrape(ground.metrics).starts_with("HTTP/1.1 200 "));
}

/// Begins handshakes from there; those that were let in.
fn begin(address: SocketAddr, source: [u8; 4], n: usize) -> Vec<Client> {
    let begun: Vec<_> = (0..n)
        .map(|_| {
            let mut c = Client::raw_from(source, address).unwrap();
            // Who is refused may be gone already.
            let _ = c.socket.write_all(&PROTOCOL_HEADER);
            c
        })
        .collect();
    begun
        .into_iter()
        .filter_map(|mut c| c.expect(connection::Start::ID).is_ok().then_some(c))
        .collect()
}

/// A thousand handshakes that nobody ends, from one address and from ten: others log in.
#[test]
fn half_open_handshakes_leave_room_for_others() {
    let limit = [("LEVERET_PROTOCOL_HANDSHAKE_TIMEOUT_MS", "600000")];
    let ground = Ground::new(&limit);
    let address = ground.broker.address;
    for sources in [1, 10] {
        let held: Vec<_> = (1..=sources)
            .flat_map(|n| begin(address, [127, 0, 3, n], 1000 / usize::from(sources)))
            .collect();
        // Nor does the tenth get more than it leaves free.
        let most = if sources == 1 { 512 } else { 962 };
        assert_eq!(held.len(), most, "from {sources} addresses");
        assert_eq!(unauthenticated(&ground), held.len() as f64);
        let bystander = Bystander::start(address);
        let seen = bystander.watch(Duration::from_millis(100), 3);
        let name = format!("{most} half-open from {sources}");
        crate::told(&name, &seen, ground.broker.resident());
        bystander.stop();
        drop(held);
        let began = Instant::now();
        while unauthenticated(&ground) > 0.0 {
            assert!(began.elapsed() < PATIENCE, "they are still counted");
        }
    }
}
