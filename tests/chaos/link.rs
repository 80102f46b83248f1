//! A connection that never waits for one direction only: a broker that holds back a client that does not read
//! is right to, and must not stop the tester.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use leveret::protocol::frame::{self, FrameKind, Parsed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{Client, Frame, PATIENCE};

/// Why there is no frame.
#[derive(Debug)]
pub enum NoFrame {
    /// The connection has ended.
    Over,
    /// Nothing came in [`PATIENCE`].
    Silent,
}

pub struct Link {
    socket: TcpStream,
    input: Vec<u8>,
    read: usize,
    pub out: BytesMut,
    over: bool,
}

impl Link {
    /// Logged in, with no channel open.
    pub fn connect(address: SocketAddr) -> std::io::Result<Link> {
        let mut client = Client::raw(address)?;
        client.login(131_072)?;
        client.socket.set_nonblocking(true)?;
        Ok(Link {
            socket: client.socket,
            input: Vec::new(),
            read: 0,
            out: BytesMut::new(),
            over: false,
        })
    }

    /// Writes what is in `out`, reading meanwhile. Fails if the broker takes nothing for [`PATIENCE`].
    pub fn flush(&mut self) -> Result<(), NoFrame> {
        let mut since = Instant::now();
        while !self.out.is_empty() && !self.over {
            match self.socket.write(&self.out) {
                Ok(n) => {
                    let _ = self.out.split_to(n);
                    since = Instant::now();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.fill();
                    self.wait(PollFlags::IN | PollFlags::OUT);
                    if since.elapsed() > PATIENCE {
                        return Err(NoFrame::Silent);
                    }
                }
                Err(_) => self.over = true,
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Takes what has arrived.
    fn fill(&mut self) {
        let mut buf = [0; 65536];
        loop {
            match self.socket.read(&mut buf) {
                Ok(0) => self.over = true,
                Ok(n) => {
                    self.input.extend_from_slice(&buf[..n]);
                    if n == buf.len() {
                        continue;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.over = true,
            }
            return;
        }
    }

    fn wait(&self, flags: PollFlags) {
        let mut on = [PollFd::new(&self.socket, flags)];
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let _ = poll(&mut on, Some(&second));
    }

    /// The next frame that is no heartbeat, if it is there.
    pub fn ready(&mut self) -> Option<Frame> {
        loop {
            let parsed =
                frame::parse(&self.input[self.read..], 0).expect("the broker sends good frames");
            let Parsed::Frame { frame, size } = parsed else {
                self.input.drain(..self.read);
                self.read = 0;
                return None;
            };
            self.read += size;
            if frame.kind != FrameKind::Heartbeat {
                return Some(Frame {
                    kind: frame.kind,
                    channel: frame.channel,
                    payload: frame.payload.to_vec(),
                });
            }
        }
    }

    /// The next frame that is there now.
    pub fn poll(&mut self) -> Option<Frame> {
        self.ready().or_else(|| {
            self.fill();
            self.ready()
        })
    }

    /// The next frame, for which it waits.
    pub fn next(&mut self) -> Result<Frame, NoFrame> {
        self.flush()?;
        let since = Instant::now();
        loop {
            if let Some(frame) = self.poll() {
                return Ok(frame);
            }
            if self.over {
                return Err(NoFrame::Over);
            }
            if since.elapsed() > PATIENCE + Duration::from_secs(1) {
                return Err(NoFrame::Silent);
            }
            self.wait(PollFlags::IN);
        }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }
}
