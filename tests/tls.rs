//! TLS from outside: versions, client certificates, new certificates without a restart.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::PROTOCOL_HEADER;
use leveret::protocol::methods::connection;
use leveret::protocol::properties::Properties;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};
use support::{Broker, PATIENCE};

/// A certificate authority and what it signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Certificate and key, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    config: PathBuf,
}

fn files(dir: &Path, authority: &Authority, more: &str) -> Files {
    let (cert, key) = authority.sign("first");
    let files = Files {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        config: dir.join("leveret.toml"),
    };
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key).unwrap();
    std::fs::write(dir.join("ca.pem"), &authority.pem).unwrap();
    let config = format!(
        "[tls]\ncert = {:?}\nkey = {:?}\n{}",
        files.cert,
        files.key,
        more.replace("CA", dir.join("ca.pem").to_str().unwrap())
    );
    std::fs::write(&files.config, config).unwrap();
    files
}

fn start(dir: &Path, files: &Files) -> Broker {
    let arguments = [
        "--config",
        files.config.to_str().unwrap(),
        "--amqps",
        "127.0.0.1:0",
    ];
    Broker::start_with(
        &dir.join("data"),
        &arguments,
        &[("LEVERET_LISTENERS_PROMETHEUS", "")],
    )
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Shakes hands and waits for `connection.start`.
fn connect(
    address: SocketAddr,
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    identity: Option<&(String, String)>,
) -> std::io::Result<Stream> {
    greeted(address, authority, version, identity).map(|(stream, _)| stream)
}

/// The payload of the next frame.
fn frame(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes(*head.last_chunk().unwrap()) as usize;
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload)?;
    assert_eq!(payload.pop(), Some(0xCE));
    Ok(payload)
}

/// The same, with `connection.start`.
fn greeted(
    address: SocketAddr,
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    identity: Option<&(String, String)>,
) -> std::io::Result<(Stream, Vec<u8>)> {
    greeted_over(TcpStream::connect(address)?, authority, version, identity)
}

/// The same over a socket that is connected.
fn greeted_over(
    socket: TcpStream,
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    identity: Option<&(String, String)>,
) -> std::io::Result<(Stream, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(client, socket);
    stream.write_all(&PROTOCOL_HEADER)?;
    let start = frame(&mut stream)?;
    assert_eq!(start[..4], [0, 10, 0, 10], "connection.start");
    Ok((stream, start))
}

/// Logs in with EXTERNAL; the class and method of the answer.
fn log_in(stream: &mut Stream) -> [u8; 4] {
    let mut payload = vec![0, 10, 0, 11];
    let capabilities = b"\x0ccapabilitiesF\0\0\0\x1f\x1cauthentication_failure_closet\x01";
    payload.extend((capabilities.len() as u32).to_be_bytes());
    payload.extend(capabilities);
    payload.extend(b"\x08EXTERNAL\0\0\0\0\x05en_US");
    let mut bytes = vec![1, 0, 0];
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    stream.write_all(&bytes).unwrap();
    *frame(stream).unwrap().first_chunk().unwrap()
}

/// The certificate that the broker shows.
fn shown(stream: &Stream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn both_versions_are_spoken_and_a_plain_peer_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let files = files(dir.path(), &authority, "");
    let broker = start(dir.path(), &files);
    let address = broker.listens("amqps");
    for (version, number) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let stream = connect(address, &authority, version, None).unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(number));
    }
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(&PROTOCOL_HEADER).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"AMQP"), "nothing in the clear");
    connect(address, &authority, &rustls::version::TLS13, None).unwrap();
}

#[test]
fn client_certificates_are_asked_for_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let more = "client_ca = \"CA\"\nclient_auth = \"required\"\n";
    let files = files(dir.path(), &authority, more);
    let broker = start(dir.path(), &files);
    let address = broker.listens("amqps");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let known = authority.sign("client");
        connect(address, &authority, version, Some(&known)).unwrap();
        assert!(connect(address, &authority, version, None).is_err(), "none");
        let other = stranger.sign("client");
        assert!(
            connect(address, &authority, version, Some(&other)).is_err(),
            "another authority's"
        );
    }

    let optional = std::fs::read_to_string(&files.config)
        .unwrap()
        .replace("required", "optional");
    std::fs::write(&files.config, optional).unwrap();
    assert!(broker.stop());
    let broker = start(dir.path(), &files);
    let address = broker.listens("amqps");
    let version = &rustls::version::TLS13;
    connect(address, &authority, version, None).unwrap();
    connect(
        address,
        &authority,
        version,
        Some(&authority.sign("client")),
    )
    .unwrap();
    let other = stranger.sign("client");
    assert!(connect(address, &authority, version, Some(&other)).is_err());
}

#[test]
fn who_shows_a_certificate_may_log_in_by_it() {
    const TUNE: [u8; 4] = [0, 10, 0, 30];
    const CLOSE: [u8; 4] = [0, 10, 0, 50];
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let definitions = dir.path().join("definitions.json");
    let users = r#"{"users": [{"name": "client"}], "permissions": [
        {"user": "client", "vhost": "/", "configure": "", "write": "", "read": ""}]}"#;
    std::fs::write(&definitions, users).unwrap();
    let more = "client_ca = \"CA\"\nclient_auth = \"optional\"\nlogin_from = \"common_name\"\n";
    let files = files(dir.path(), &authority, more);
    let config = std::fs::read_to_string(&files.config).unwrap();
    let config = format!("load_definitions = {definitions:?}\n{config}");
    std::fs::write(&files.config, config).unwrap();
    let broker = start(dir.path(), &files);
    let (address, version) = (broker.listens("amqps"), &rustls::version::TLS13);
    let greet = |identity| greeted(address, &authority, version, identity).unwrap();
    let offers = |start: &[u8]| start.windows(8).any(|w| w == b"EXTERNAL");

    let known = authority.sign("client");
    let (mut stream, hello) = greet(Some(&known));
    assert!(offers(&hello));
    assert_eq!(log_in(&mut stream), TUNE);

    let unknown = authority.sign("somebody else");
    assert_eq!(log_in(&mut greet(Some(&unknown)).0), CLOSE);

    let (mut stream, hello) = greet(None);
    assert!(!offers(&hello));
    assert_eq!(log_in(&mut stream), CLOSE);
}

#[test]
fn a_new_pair_is_used_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let files = files(dir.path(), &authority, "");
    let broker = start(dir.path(), &files);
    let address = broker.listens("amqps");
    let version = &rustls::version::TLS13;
    let old = connect(address, &authority, version, None).unwrap();
    let first = shown(&old);

    // A certificate whose key is not there: the old pair stays.
    let (cert, key) = authority.sign("second");
    // Written as if it had not been: the files' times tell nothing, only the signal does.
    let write = |path: &Path, text: &str| {
        let before = std::fs::metadata(path).unwrap().modified().unwrap();
        let file = std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(path);
        let mut file = file.unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(before).unwrap();
    };
    write(&files.cert, &cert);
    broker.signal(rustix::process::Signal::HUP);
    let line = broker.said.wait_for("TLS certificates not reloaded");
    assert!(line.contains("ERROR"), "{line}");
    assert_eq!(
        shown(&connect(address, &authority, version, None).unwrap()),
        first
    );

    write(&files.key, &key);
    broker.signal(rustix::process::Signal::HUP);
    broker.said.wait_for("TLS certificates reloaded");
    let second = shown(&connect(address, &authority, version, None).unwrap());
    assert_ne!(second, first);
    assert_eq!(
        second,
        CertificateDer::from_pem_slice(cert.as_bytes())
            .unwrap()
            .to_vec()
    );

    // And without a signal, when the files change.
    let (cert, key) = authority.sign("third");
    std::fs::write(&files.cert, &cert).unwrap();
    std::fs::write(&files.key, &key).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while shown(&connect(address, &authority, version, None).unwrap()) == second {
        assert!(
            std::time::Instant::now() < deadline,
            "the files are not watched"
        );
    }
    drop(old);
    assert!(broker.stop());
}

/// A file whose disk does not answer holds nobody up: neither connections nor alarms nor the signal that ends the
/// broker.
#[test]
fn a_certificate_that_is_not_read_to_its_end_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let memory = "[memory]\nhigh_watermark_bytes = \"96MiB\"\nbody_budget_bytes = \"1GiB\"\n";
    let files = files(dir.path(), &authority, memory);
    let broker = start(&dir.path().join("data"), &files);
    let address = broker.listens("amqps");
    // Opening this waits for somebody who writes to it.
    std::fs::remove_file(&files.key).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &files.key, fifo, mode, 0).unwrap();
    broker.signal(rustix::process::Signal::HUP);
    let version = &rustls::version::TLS13;
    assert!(connect(address, &authority, version, None).is_ok());
    let mut c = support::Client::connect(broker.address).unwrap();
    c.declare("full", false, &FieldTable::new()).unwrap();
    for _ in 0..96 {
        c.stage_publish("full", &[1; 1 << 20], &Properties::default());
    }
    // A broker that blocks reads no further: what it does not take ends with it.
    let (mut socket, octets) = (c.socket.try_clone().unwrap(), c.out.split());
    let writer = std::thread::spawn(move || drop(socket.write_all(&octets)));
    c.expect(connection::Blocked::ID).unwrap();
    assert!(broker.stop());
    drop(c);
    writer.join().unwrap();
}

#[test]
fn tls_and_amqp_handshake_have_one_time_limit() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let more = "[protocol]\nhandshake_timeout_ms = 2000\n";
    let files = files(dir.path(), &authority, more);
    let broker = start(dir.path(), &files);
    let address = broker.listens("amqps");
    let began = std::time::Instant::now();
    let hung_up = |socket: &mut TcpStream| {
        let read = socket.read(&mut [0; 1000]);
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        began.elapsed()
    };
    // One that says nothing, and one that is late for TLS already.
    let mut idle = TcpStream::connect(address).unwrap();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    let late = TcpStream::connect(address).unwrap();
    late.set_read_timeout(Some(std::time::Duration::from_millis(1500)))
        .unwrap();
    assert!((&late).read(&mut [0; 1]).is_err(), "the pause");
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut stream, _) = greeted_over(late, &authority, &rustls::version::TLS13, None).unwrap();
    while frame(&mut stream).is_ok() {}
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_millis(3000), "{took:?}");
    let took = hung_up(&mut idle);
    assert!(took < std::time::Duration::from_millis(4000), "{took:?}");
}
