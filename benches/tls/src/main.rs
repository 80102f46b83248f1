//! Which crypto provider: full handshakes and bulk encryption in memory, no sockets, ring beside
//! aws-lc-rs. `cargo run --release --manifest-path benches/tls/Cargo.toml` prints the table of
//! ARCHITECTURE.md.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(2);

/// What a busy connection writes at once.
const WRITE_BYTES: usize = 64 * 1024;

fn configs(
    provider: CryptoProvider,
    version: &'static rustls::SupportedProtocolVersion,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let certified =
        rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("a certificate");
    let cert = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).expect("a root");
    let provider = Arc::new(provider);
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every handshake is a full one.
    client.resumption = rustls::client::Resumption::disabled();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a server");
    (Arc::new(client), Arc::new(server))
}

/// Moves what one side has written to the other, and says how long the server took for its part.
fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) -> Duration {
    let mut spent = Duration::ZERO;
    let mut wire = Vec::new();
    loop {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let began = Instant::now();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets().expect("TLS");
        }
        let mut back = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut back).expect("memory");
        }
        spent += began.elapsed();
        if back.is_empty() && wire.is_empty() {
            return spent;
        }
        let mut rest = back.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("TLS");
        }
    }
}

fn pair(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> (ClientConnection, ServerConnection) {
    let name = ServerName::try_from("localhost").expect("a name");
    (
        ClientConnection::new(client.clone(), name).expect("a client"),
        ServerConnection::new(server.clone()).expect("a server"),
    )
}

fn main() {
    println!("| provider | TLS | full handshakes, server's part | bulk, encrypt and decrypt |");
    println!("| --- | --- | ---: | ---: |");
    for (version, label) in [
        (&rustls::version::TLS13, "1.3"),
        (&rustls::version::TLS12, "1.2"),
    ] {
        for (name, provider) in [
            ("ring", rustls::crypto::ring::default_provider()),
            ("aws-lc-rs", rustls::crypto::aws_lc_rs::default_provider()),
        ] {
            let (client, server) = configs(provider, version);
            let (mut n, mut spent) = (0u32, Duration::ZERO);
            let end = Instant::now() + SPAN;
            while Instant::now() < end {
                let (mut c, mut s) = pair(&client, &server);
                spent += exchange(&mut c, &mut s);
                assert!(!c.is_handshaking() && !s.is_handshaking());
                n += 1;
            }
            let (mut c, mut s) = pair(&client, &server);
            exchange(&mut c, &mut s);
            let data = vec![7; WRITE_BYTES];
            let (mut moved, mut out) = (0u64, vec![0; WRITE_BYTES]);
            let began = Instant::now();
            while began.elapsed() < SPAN {
                std::io::Write::write_all(&mut c.writer(), &data).expect("memory");
                let mut wire = Vec::with_capacity(WRITE_BYTES + 1024);
                while c.wants_write() {
                    c.write_tls(&mut wire).expect("memory");
                }
                let mut rest = wire.as_slice();
                while !rest.is_empty() {
                    s.read_tls(&mut rest).expect("memory");
                    s.process_new_packets().expect("TLS");
                    while let Ok(n) = std::io::Read::read(&mut s.reader(), &mut out) {
                        if n == 0 {
                            break;
                        }
                        moved += n as u64;
                    }
                }
            }
            let bulk = moved as f64 / began.elapsed().as_secs_f64() / 1e6;
            println!(
                "| {name} | {label} | {:.0} us | {bulk:.0} MB/s |",
                spent.as_micros() as f64 / f64::from(n)
            );
        }
    }
}
