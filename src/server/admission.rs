//! Who may have a connection: accepting, refusing, and counting those who have not logged in.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::descriptors::Descriptors;
use super::failed_logins::FailedLogins;
use crate::sync::Mutex;

/// How long to wait before accepting again when the system is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1024;

/// Octets of an IPv6 address that name a site; what follows, anybody there may choose.
const IPV6_SITE_OCTETS: usize = 8;

/// Why a connection was refused before anything was read from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// File descriptors are short.
    Descriptors,
    /// `protocol.max_connections`.
    Connections,
    /// `protocol.max_unauthenticated_connections`.
    Unauthenticated,
    /// `protocol.max_unauthenticated_connections_per_address`.
    Address,
    /// Too many ask for metrics at once.
    Metrics,
}

impl Refusal {
    /// All of them.
    pub(super) const ALL: [Refusal; 5] = [
        Refusal::Descriptors,
        Refusal::Connections,
        Refusal::Unauthenticated,
        Refusal::Address,
        Refusal::Metrics,
    ];

    /// The label of the metric.
    pub(super) fn label(self) -> &'static str {
        match self {
            Refusal::Descriptors => "file_descriptors",
            Refusal::Connections => "max_connections",
            Refusal::Unauthenticated => "max_unauthenticated_connections",
            Refusal::Address => "max_unauthenticated_connections_per_address",
            Refusal::Metrics => "metrics_connections",
        }
    }
}

/// What the listeners share.
pub(super) struct Admission {
    descriptors: Descriptors,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Connections that were kept waiting because of failed logins.
    slowed: AtomicU64,
    half_open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that has not logged in yet. Counted until it is dropped.
pub(super) struct HalfOpen {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.admission.half_open.fetch_sub(1, Ordering::Relaxed);
        let mut all = self.admission.by_address.lock();
        if let Some(n) = all.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// The address that is counted: that of the site where a peer may choose among many.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(a) if !a.is_loopback() => {
            let mut octets = a.octets();
            octets[IPV6_SITE_OCTETS..].fill(0);
            Ipv6Addr::from(octets).into()
        }
        other => other,
    }
}

impl Admission {
    pub(super) fn new(descriptors: Descriptors) -> Arc<Admission> {
        Arc::new(Admission {
            descriptors,
            refused: Default::default(),
            slowed: AtomicU64::new(0),
            half_open: AtomicUsize::new(0),
            by_address: Mutex::new("half-open connections", HashMap::new()),
        })
    }

    /// The next connection that there are descriptors for. Whatever goes wrong, it goes on.
    pub(super) async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) if self.descriptors.too_many(&stream) => {
                    self.refuse(Refusal::Descriptors, peer);
                }
                Ok(accepted) => return accepted,
                Err(e) if concerns_one_connection(&e) => {
                    tracing::debug!(error = %e, "a connection was gone before it was accepted");
                }
                Err(e) => {
                    tracing::warn!(error = %e, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Counts a refused connection, and tells.
    pub(super) fn refuse(&self, why: Refusal, peer: SocketAddr) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%peer, reason = why.label(), "connection refused");
    }

    /// Connections refused so far.
    pub(super) fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    /// How long a connection from there waits before anything is read; counts it, and tells.
    pub(super) fn slow(
        &self,
        failed: &FailedLogins,
        peer: SocketAddr,
        now: u64,
    ) -> Option<Duration> {
        let milliseconds = failed.delay_ms(counted(peer.ip()), now);
        if milliseconds == 0 {
            return None;
        }
        self.slowed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%peer, milliseconds, "connection slowed: logins from its address have failed");
        Some(Duration::from_millis(milliseconds))
    }

    /// Connections that were kept waiting so far.
    pub(super) fn slowed(&self) -> u64 {
        self.slowed.load(Ordering::Relaxed)
    }

    /// Connections that have not logged in yet.
    pub(super) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed)
    }

    /// Lets somebody try to log in, if not too many do already, in all and from there; zero: any number. Nor may
    /// one address have more than are still free: so many addresses have to join in before others find none.
    pub(super) fn let_in(
        self: &Arc<Self>,
        peer: SocketAddr,
        most: usize,
        most_per_address: usize,
    ) -> Result<HalfOpen, Refusal> {
        let address = counted(peer.ip());
        let mut all = self.by_address.lock();
        let reached = |n: usize, most: usize| most != 0 && n >= most;
        let half_open = self.half_open.load(Ordering::Relaxed);
        if reached(half_open, most) {
            return Err(Refusal::Unauthenticated);
        }
        let share = match most {
            0 => most_per_address,
            _ => most_per_address.min(most - half_open),
        };
        if reached(all.get(&address).copied().unwrap_or(0), share) {
            return Err(Refusal::Address);
        }
        *all.entry(address).or_insert(0) += 1;
        self.half_open.fetch_add(1, Ordering::Relaxed);
        Ok(HalfOpen {
            admission: self.clone(),
            address,
        })
    }
}

/// Errors of `accept` that say something of a connection, not of the system: the next one may be fine.
/// Linux passes on what is wrong with a new socket, too (`accept(2)`).
fn concerns_one_connection(e: &io::Error) -> bool {
    use rustix::io::Errno;
    e.raw_os_error().is_some_and(|code| {
        [
            Errno::CONNABORTED,
            Errno::CONNRESET,
            Errno::INTR,
            Errno::PROTO,
            Errno::NOPROTOOPT,
            Errno::PERM,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NONET,
            Errno::OPNOTSUPP,
            Errno::TIMEDOUT,
        ]
        .iter()
        .any(|e| e.raw_os_error() == code)
    })
}

/// Listens there.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        if address.is_ipv6() {
            // `[::]` beside `0.0.0.0` on the same port, as one expects from what is written there.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 1)
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let a = Admission::new(Descriptors::raise());
        let enter = |text| a.let_in(peer(text), 3, 2).map_err(Some);
        let first = enter("192.0.2.1").ok();
        let second = enter("::ffff:192.0.2.1").ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(enter("192.0.2.1").err(), Some(Some(Refusal::Address)));
        let other = enter("192.0.2.2").ok();
        assert!(other.is_some());
        assert_eq!(
            enter("192.0.2.3").err(),
            Some(Some(Refusal::Unauthenticated))
        );
        drop(first);
        drop(other);
        assert_eq!(a.half_open(), 1);
        assert!(enter("192.0.2.1").is_ok());
        drop(second);
        assert!(a.by_address.lock().is_empty());
        // Zero: any number.
        let many: Vec<_> = (0..10).map(|_| a.let_in(peer("::1"), 0, 0)).collect();
        assert!(many.iter().all(Result::is_ok));
    }

    /// With any number for each, one address gets half of all, the next half of what is left, and so on.
    #[test]
    fn who_comes_late_finds_room() {
        let a = Admission::new(Descriptors::raise());
        let mut all = Vec::new();
        let mut taken = Vec::new();
        for n in 1..=20 {
            let from = peer(&format!("192.0.2.{n}"));
            let before = all.len();
            while let Ok(one) = a.let_in(from, 1024, 900) {
                all.push(one);
            }
            taken.push(all.len() - before);
        }
        assert_eq!(taken[..10], [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]);
        assert_eq!(all.len(), 1024);
    }

    #[test]
    fn a_site_is_one_address() {
        let of = |text: &str| counted(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:0:1::5"), of("2001:db8:0:1:ffff::6"));
        assert_ne!(of("2001:db8:0:1::5"), of("2001:db8:0:2::5"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::1"), of("::2"));
    }

    #[test]
    fn errors_of_accept_are_told_apart() {
        let of = |e: rustix::io::Errno| concerns_one_connection(&e.into());
        assert!(of(rustix::io::Errno::CONNABORTED) && of(rustix::io::Errno::PROTO));
        assert!(!of(rustix::io::Errno::MFILE) && !of(rustix::io::Errno::NFILE));
        assert!(!of(rustix::io::Errno::NOMEM));
    }
}
