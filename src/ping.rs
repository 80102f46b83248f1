//! Asking a broker whether it answers, for `leveret ping` and the health checks that call it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{AlertDescription, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::config::Config;
use crate::protocol::frame::PROTOCOL_HEADER;
use crate::trust::{self, Trust};

/// Octets of `connection.start` that say what it is: a frame's head, a class and a method.
const START_OCTETS: usize = 11;

/// Where a broker with this configuration is reached from this machine, and whether over TLS.
pub fn listener(config: &Config) -> Option<(SocketAddr, bool)> {
    let l = &config.listeners;
    let plain = l.amqp.iter().map(|a| (*a, false));
    let mut all = plain.chain(l.amqps.iter().map(|a| (*a, true)));
    all.next().map(|(mut address, tls)| {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        (address, tls)
    })
}

/// Sends the protocol header and waits for `connection.start`.
///
/// # Errors
/// Nobody is there, nobody answers in time, or what answers is no broker.
pub fn ping(address: SocketAddr, tls: bool, timeout: Duration) -> io::Result<()> {
    let late = |e: io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::new(
            e.kind(),
            format!("no answer within {} s", timeout.as_secs()),
        ),
        ErrorKind::UnexpectedEof => io::Error::new(e.kind(), "it hung up without an answer"),
        _ => e,
    };
    let socket = TcpStream::connect_timeout(&address, timeout).map_err(late)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let answered = if tls { over_tls(socket) } else { greet(socket) };
    answered.map_err(late)
}

fn greet(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(&PROTOCOL_HEADER)?;
    let mut start = [0; START_OCTETS];
    stream.read_exact(&mut start)?;
    // A method frame on channel 0 with connection.start.
    if start[0] == 1 && start[7..] == [0, 10, 0, 10] {
        return Ok(());
    }
    Err(io::Error::other("it answers, but not with AMQP 0-9-1"))
}

fn over_tls(socket: TcpStream) -> io::Result<()> {
    // It is asked whether a broker lives, nothing is told to it.
    let config = trust::tls(&Trust::Anybody)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let client = ClientConnection::new(config, name).map_err(io::Error::other)?;
    match greet(StreamOwned::new(client, socket)) {
        // It lives, and lets nobody in without a certificate.
        Err(e) if wants_certificate(&e) => Ok(()),
        answered => answered,
    }
}

fn wants_certificate(e: &io::Error) -> bool {
    let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer says, whatever it is told.
    struct Says(&'static [u8]);

    impl Read for Says {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(into)
        }
    }

    impl Write for Says {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_broker_answers_with_connection_start() {
        assert!(greet(Says(b"\x01\0\0\0\0\0\x10\0\x0a\0\x0a")).is_ok());
        for other in [
            &b"HTTP/1.1 400 Bad Request"[..],
            b"AMQP\0\0\x09\x01",
            b"\x01\0\0\0\0\0\x10\0\x0a\0\x32",
            b"\x08\0\0\0\0\0\x10\0\x0a\0\x0a",
        ] {
            assert!(greet(Says(other)).is_err(), "{other:?}");
        }
    }

    #[test]
    fn the_configured_listener_is_asked() {
        let mut config = Config::default();
        assert_eq!(
            listener(&config),
            Some(([127, 0, 0, 1], 5672).into()).map(|a| (a, false))
        );
        config.listeners.amqp = vec![([0, 0, 0, 0], 5673).into()];
        assert_eq!(
            listener(&config),
            Some((([127, 0, 0, 1], 5673).into(), false))
        );
        config.listeners.amqp.clear();
        config.listeners.amqps = vec!["[::]:5671".parse().expect("an address")];
        let local = "[::1]:5671".parse().expect("an address");
        assert_eq!(listener(&config), Some((local, true)));
    }
}
