//! From an accepted socket to a connection: limits, socket options, TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Refusal;
use super::shared::Shared;
use super::tls::TlsReloader;
use super::{certificate, connection};
use crate::clock;

/// Idle time before TCP keepalive asks, and between its questions.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Takes a connection, or refuses it.
pub(super) fn accepted_one(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    tls: Option<&Arc<TlsReloader>>,
    stop: &CancellationToken,
) {
    let p = &shared.config.protocol;
    // Who comes too late is told when it opens its vhost; this is for who does not get that far.
    let most = p
        .max_connections
        .saturating_add(p.max_unauthenticated_connections);
    let limited = p.max_connections != 0 && p.max_unauthenticated_connections != 0;
    if limited && shared.inboxes.lock().len() >= most {
        return shared.admission.refuse(Refusal::Connections, peer);
    }
    let (most, per_address) = (
        p.max_unauthenticated_connections,
        p.max_unauthenticated_connections_per_address,
    );
    let half_open = match shared.admission.let_in(peer, most, per_address) {
        Ok(half_open) => half_open,
        Err(why) => return shared.admission.refuse(why, peer),
    };
    let socket = socket2::SockRef::from(&stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    if let Err(e) = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%peer, "socket options: {e}");
    }
    let mut ends = connection::Ends {
        peer,
        local: stream.local_addr().ok(),
        certified: None,
        accepted_at: clock::now(),
        half_open,
    };
    let slowed = shared
        .admission
        .slow(&shared.failed_logins, peer, ends.accepted_at);
    let (shared, stop) = (shared.clone(), stop.clone());
    let Some(tls) = tls else {
        tasks.spawn(async move {
            if waited(slowed, &mut ends, &stop).await {
                connection::serve(stream, ends, shared).await;
            }
        });
        return;
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.current());
    tasks.spawn(async move {
        if !waited(slowed, &mut ends, &stop).await {
            return;
        }
        let timeout = Duration::from_millis(shared.config.protocol.handshake_timeout_ms);
        let shaken = tokio::select! {
            () = stop.cancelled() => return,
            shaken = tokio::time::timeout(timeout, acceptor.accept(stream)) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates();
                let from = shared.config.tls.login_from;
                ends.certified = shown
                    .and_then(|chain| chain.first())
                    .and_then(|c| certificate::user_name(c, from));
                connection::serve(stream, ends, shared).await;
            }
            Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    });
}

/// Waits before anything is read from a peer; its time limit begins afterwards. False: the broker stops.
async fn waited(
    delay: Option<Duration>,
    ends: &mut connection::Ends,
    stop: &CancellationToken,
) -> bool {
    let Some(delay) = delay else {
        return true;
    };
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(delay) => {
            ends.accepted_at = clock::now();
            true
        }
    }
}
