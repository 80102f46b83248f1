//! A blocking AMQP client: as much as measuring takes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;

use super::socket::Socket;
use crate::protocol::field_table::{FieldTable, TableRef};
use crate::protocol::frame::{self, FrameKind, FrameRef, PROTOCOL_HEADER, Parsed};
use crate::protocol::methods::{Method, channel, connection};
use crate::protocol::{EncodeMethod, encode};
use crate::trust::{Trust, tls};

/// What is read from a socket at a time.
const READ_BYTES: usize = 128 * 1024;

/// How long a broker may take to answer a method.
const PATIENCE: Duration = Duration::from_secs(30);

/// An address as `amqp://user:password@host:port/vhost`, or `amqps://`.
#[derive(Clone, Debug)]
pub struct Address {
    /// `host:port`
    pub host: String,
    user: String,
    password: String,
    vhost: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// Takes an address apart. What is missing is `guest`, 5672 (5671 with TLS) and `/`; `%2F` is decoded.
    ///
    /// # Errors
    /// A scheme other than `amqp` and `amqps`, an escape that is none, or see [`tls`].
    pub fn parse(uri: &str, trust: &Trust) -> Result<Address, String> {
        let scheme = uri.split_once("://");
        let (rest, tls, port) = match scheme {
            Some(("amqp", rest)) => (rest, None, 5672),
            Some(("amqps", rest)) => {
                let tls = tls(trust).map_err(|e| e.to_string())?;
                (rest, Some(tls), 5671)
            }
            _ => return Err(format!("'{uri}' does not begin with amqp:// or amqps://")),
        };
        let (place, vhost) = rest
            .split_once('/')
            .map_or((rest, None), |(p, v)| (p, Some(v)));
        let (login, host) = place
            .rsplit_once('@')
            .map_or((None, place), |(l, h)| (Some(l), h));
        let (user, password) = login
            .map(|l| l.split_once(':').unwrap_or((l, "")))
            .unwrap_or(("guest", "guest"));
        let vhost = vhost.map(|v| v.split('?').next().unwrap_or(v));
        let has_port = host.rsplit(']').next().is_some_and(|h| h.contains(':'));
        Ok(Address {
            host: if has_port {
                host.to_string()
            } else {
                format!("{host}:{port}")
            },
            user: unescape(user)?,
            password: unescape(password)?,
            vhost: unescape(vhost.filter(|v| !v.is_empty()).unwrap_or("/"))?,
            tls,
        })
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let bad = || format!("'{text}' is not escaped well");
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).map_err(|_| bad())
}

/// A connection with channel 1 open.
pub struct Client {
    socket: Socket,
    input: BytesMut,
    /// Frames to write with [`Self::flush`].
    pub output: BytesMut,
    /// As negotiated.
    pub frame_max: u32,
}

impl Client {
    /// Connects, logs in, opens channel 1.
    ///
    /// # Errors
    /// The socket's, or what the broker says against it.
    pub fn connect(address: &Address) -> io::Result<Client> {
        let socket = Socket::connect(&address.host, address.tls.as_ref())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client {
            socket,
            input: BytesMut::with_capacity(READ_BYTES),
            output: BytesMut::new(),
            frame_max: 0,
        };
        client.output.extend_from_slice(&PROTOCOL_HEADER);
        client.answer(|m| matches!(m, Method::ConnectionStart(_)).then_some(()))?;
        let mut properties = FieldTable::new();
        let mut capabilities = FieldTable::new();
        capabilities.insert("authentication_failure_close", true);
        properties.insert("capabilities", capabilities);
        properties.insert("connection_name", "leveret perf");
        let response = format!("\0{}\0{}", address.user, address.password);
        let properties = properties.to_bytes();
        let start_ok = connection::StartOk {
            client_properties: TableRef::unchecked(&properties),
            mechanism: "PLAIN",
            response: response.as_bytes(),
            locale: "en_US",
        };
        encode::method(&mut client.output, 0, &start_ok);
        let tune = client.answer(|m| match m {
            Method::ConnectionTune(tune) => Some(*tune),
            _ => None,
        })?;
        let tune_ok = connection::TuneOk {
            channel_max: tune.channel_max,
            frame_max: tune.frame_max,
            // The load is heartbeat enough; a pause of it should not end the measurement.
            heartbeat: 0,
        };
        encode::method(&mut client.output, 0, &tune_ok);
        let open = connection::Open {
            virtual_host: &address.vhost,
        };
        encode::method(&mut client.output, 0, &open);
        client.answer(|m| matches!(m, Method::ConnectionOpenOk(_)).then_some(()))?;
        client.frame_max = tune.frame_max;
        encode::method(&mut client.output, 1, &channel::Open);
        client.answer(|m| matches!(m, Method::ChannelOpenOk(_)).then_some(()))?;
        Ok(client)
    }

    /// Another handle of the same connection, to read or write at the same time.
    ///
    /// # Errors
    /// The socket's.
    pub fn other_half(&self) -> io::Result<Client> {
        Ok(Client {
            socket: self.socket.try_clone()?,
            input: BytesMut::new(),
            output: BytesMut::new(),
            frame_max: self.frame_max,
        })
    }

    /// From now on a read may take as long as it takes.
    ///
    /// # Errors
    /// The socket's.
    pub fn wait_for_ever(&self) -> io::Result<()> {
        self.socket.set_read_timeout(None)
    }

    /// Sends a method on channel 1 and waits for the answer that `wanted` takes.
    ///
    /// # Errors
    /// The socket's, or what the broker says against it.
    pub fn call<M: EncodeMethod, T>(
        &mut self,
        method: &M,
        wanted: impl FnMut(&Method<'_>) -> Option<T>,
    ) -> io::Result<T> {
        encode::method(&mut self.output, 1, method);
        self.answer(wanted)
    }

    /// Opens channel 1 again: the broker has closed it, saying what it has against a method.
    ///
    /// # Errors
    /// The socket's, or what the broker says against it.
    pub fn open_again(&mut self) -> io::Result<()> {
        encode::method(&mut self.output, 1, &channel::CloseOk);
        self.call(&channel::Open, |m| {
            matches!(m, Method::ChannelOpenOk(_)).then_some(())
        })
    }

    fn answer<T>(&mut self, mut wanted: impl FnMut(&Method<'_>) -> Option<T>) -> io::Result<T> {
        self.flush()?;
        loop {
            let mut found = None;
            // One frame at a time: what is behind it is for whoever reads next.
            let one = self.take_frame(|frame, _| {
                if frame.kind == FrameKind::Method {
                    found = wanted(&method(frame.payload)?);
                }
                Ok(())
            })?;
            match found {
                Some(answer) => return Ok(answer),
                None if one => {}
                None => self.fill()?,
            }
        }
    }

    /// Writes what is in the output.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Reads once from the socket.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::UnexpectedEof`] at its end.
    pub fn fill(&mut self) -> io::Result<()> {
        let had = self.input.len();
        self.input.resize(had + READ_BYTES, 0);
        let read = self.socket.read(&mut self.input[had..]);
        self.input.truncate(had + read.as_ref().map_or(0, |n| *n));
        match read? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the broker has closed the connection",
            )),
            _ => Ok(()),
        }
    }

    /// Hands over one whole frame that was read; false if there is none.
    ///
    /// # Errors
    /// What is no frame, and what `each` says.
    pub fn take_frame(
        &mut self,
        each: impl FnOnce(&FrameRef<'_>, &mut BytesMut) -> io::Result<()>,
    ) -> io::Result<bool> {
        match frame::parse(&self.input, self.frame_max)
            .map_err(|e| io::Error::other(format!("{e:?}")))?
        {
            Parsed::Frame { frame, size } => {
                let done = each(&frame, &mut self.output);
                self.input.advance(size);
                done.map(|()| true)
            }
            Parsed::Incomplete { .. } => Ok(false),
        }
    }

    /// Ends what another thread reads or writes.
    pub fn hang_up(&self) {
        self.socket.hang_up();
    }
}

/// Decodes a method.
///
/// # Errors
/// What is no method, and what the broker says against it: the reply text of `connection.close`,
/// `channel.close` or `basic.cancel`.
pub fn method(payload: &[u8]) -> io::Result<Method<'_>> {
    let method = Method::decode(payload).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let text = match &method {
        Method::ConnectionClose(close) => close.reply_text,
        Method::ChannelClose(close) => close.reply_text,
        Method::BasicCancel(_) => "the queue was deleted",
        _ => return Ok(method),
    };
    Err(io::Error::other(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parse = |uri| Address::parse(uri, &Trust::Anybody);
        let parts = |uri| parse(uri).map(|a| [a.host, a.user, a.password, a.vhost].join(" "));
        let same = |uri, expected: &str| assert_eq!(parts(uri).as_deref(), Ok(expected));
        same("amqp://localhost", "localhost:5672 guest guest /");
        same("amqp://u:p%40ss@h:1/%2F", "h:1 u p@ss /");
        same("amqp://u:p@[::1]/v?heartbeat=5", "[::1]:5672 u p v");
        same("amqp://u@[::1]:7/", "[::1]:7 u  /");
        same("amqps://h", "h:5671 guest guest /");
        let has_tls = |uri| parse(uri).is_ok_and(|a| a.tls.is_some());
        assert!(has_tls("amqps://h:5672") && !has_tls("amqp://h:5671"));
        for wrong in ["amqp://h/%2", "http://h", "h"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}
