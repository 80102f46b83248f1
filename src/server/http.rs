//! HTTP connections that cannot be held open: the time a request may take, and how many there are.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

use super::admission::{Admission, Refusal};

/// A request has to be there within this time, from the connection or its first octet on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was answered waits so long for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A peer has to take some of its answer within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at once, all listeners together. Scrapers need one each.
const CONNECTIONS_MAX: usize = 64;

/// What who is too slow is told.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A listener for axum whose connections have limits.
pub(super) struct Limited {
    listener: TcpListener,
    admission: Arc<Admission>,
    open: Arc<AtomicUsize>,
}

impl Limited {
    /// `open` counts the connections of all that share it.
    pub(super) fn new(
        listener: TcpListener,
        admission: Arc<Admission>,
        open: Arc<AtomicUsize>,
    ) -> Limited {
        Limited {
            listener,
            admission,
            open,
        }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            let (stream, peer) = self.admission.accept(&self.listener).await;
            if self.open.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX {
                return (Timed::new(stream, self.open.clone()), peer);
            }
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.admission.refuse(Refusal::Metrics, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wait {
    /// The rest of a request, or its first octet on a new connection.
    Request,
    /// Another request, or none.
    Next,
    /// The broker.
    Answer,
}

/// A connection that ends when its peer is too slow.
pub(super) struct Timed {
    stream: TcpStream,
    wait: Wait,
    timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    open: Arc<AtomicUsize>,
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Timed {
    fn new(stream: TcpStream, open: Arc<AtomicUsize>) -> Timed {
        Timed {
            stream,
            wait: Wait::Request,
            timer: Box::pin(tokio::time::sleep(REQUEST_TIMEOUT)),
            write_timer: None,
            open,
        }
    }

    fn wait_for(&mut self, what: Wait, within: Duration) {
        self.wait = what;
        self.timer.as_mut().reset(Instant::now() + within);
    }

    /// Notes what a write came to.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_timer = None;
            // Its timer starts when the next read waits.
            self.wait = Wait::Answer;
            return written;
        }
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.wait == Wait::Answer {
            self.wait_for(Wait::Next, IDLE_TIMEOUT);
        }
        if let Poll::Ready(done) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if buf.filled().len() > before && self.wait == Wait::Next {
                self.wait_for(Wait::Request, REQUEST_TIMEOUT);
            }
            return Poll::Ready(done);
        }
        ready!(self.timer.as_mut().poll(cx));
        if self.wait == Wait::Request {
            // As much as goes at once: it is not worth waiting for.
            let _ = self.stream.try_write(TOO_SLOW);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
