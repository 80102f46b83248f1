//! The socket of a client, with or without TLS: one thread may read while another one writes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

/// Octets that are read from a socket at a time, encrypted.
const RECORDS_BYTES: usize = 64 * 1024;

const UNPOISONED: &str = "a panic aborts the process";

/// What both halves of a TLS connection share.
struct Session {
    /// Held while records are made and written, so that they are written in their order.
    order: Mutex<()>,
    /// Never held while a socket is waited for.
    tls: Mutex<ClientConnection>,
}

/// See the module.
pub struct Socket {
    plain: TcpStream,
    session: Option<Arc<Session>>,
    /// What TLS has brought and nobody has read yet.
    received: BytesMut,
}

impl Socket {
    /// Connects to `host:port`; with `tls` the certificate has to be that host's.
    ///
    /// # Errors
    /// The socket's, or the host's name is none for TLS.
    pub fn connect(host: &str, tls: Option<&Arc<ClientConfig>>) -> io::Result<Socket> {
        let plain = TcpStream::connect(host)?;
        plain.set_nodelay(true)?;
        let session = tls.map(|config| -> io::Result<_> {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
            let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
            Ok(Arc::new(Session {
                order: Mutex::default(),
                tls: Mutex::new(tls),
            }))
        });
        let session = session.transpose()?;
        Ok(Socket {
            plain,
            session,
            received: BytesMut::new(),
        })
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_clone(&self) -> io::Result<Socket> {
        Ok(Socket {
            plain: self.plain.try_clone()?,
            session: self.session.clone(),
            received: BytesMut::new(),
        })
    }

    /// How long a read may take.
    ///
    /// # Errors
    /// The socket's.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.plain.set_read_timeout(timeout)
    }

    /// Ends what another thread reads or writes.
    pub fn hang_up(&self) {
        // It may have ended already.
        let _ = self.plain.shutdown(Shutdown::Both);
    }

    /// Reads what is there, at least one octet; none at the end.
    ///
    /// # Errors
    /// The socket's, or that of TLS.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &self.session else {
            return self.plain.read(into);
        };
        while self.received.is_empty() {
            // The handshake, and answers to what TLS itself asks; who writes meanwhile takes them along.
            if let Ok(_order) = session.order.try_lock() {
                session.write(&mut &self.plain)?;
            }
            let mut records = vec![0; RECORDS_BYTES];
            let n = self.plain.read(&mut records)?;
            if n == 0 {
                return Ok(0);
            }
            let mut rest = &records[..n];
            let mut tls = session.tls.lock().expect(UNPOISONED);
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                match tls.process_new_packets() {
                    Ok(state) => {
                        let had = self.received.len();
                        self.received
                            .resize(had + state.plaintext_bytes_to_read(), 0);
                        tls.reader().read_exact(&mut self.received[had..])?;
                    }
                    Err(e) => {
                        drop(tls);
                        // The peer is told what is wrong with it.
                        let _ = session.write(&mut &self.plain);
                        return Err(io::Error::new(io::ErrorKind::InvalidData, e));
                    }
                }
            }
        }
        let n = self.received.len().min(into.len());
        self.received.split_to(n).copy_to_slice(&mut into[..n]);
        Ok(n)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The socket's, or that of TLS.
    pub fn write_all(&mut self, mut octets: &[u8]) -> io::Result<()> {
        let Some(session) = &self.session else {
            return self.plain.write_all(octets);
        };
        let _order = session.order.lock().expect(UNPOISONED);
        while !octets.is_empty() {
            let mut tls = session.tls.lock().expect(UNPOISONED);
            let n = tls.writer().write(octets)?;
            drop(tls);
            octets = &octets[n..];
            session.write(&mut &self.plain)?;
        }
        Ok(())
    }
}

impl Session {
    /// Writes the records that are to be written; the caller holds [`Self::order`], or has nobody beside it.
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut records = Vec::new();
        let mut tls = self.tls.lock().expect(UNPOISONED);
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        drop(tls);
        to.write_all(&records)
    }
}
