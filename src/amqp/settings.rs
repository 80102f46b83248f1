//! What a session is told by the server.

use std::net::SocketAddr;
use std::sync::Arc;

/// The name of this node, in RabbitMQ's form; metrics and the firehose tell it.
pub const NODE_NAME: &str = "rabbit@localhost";

/// No transaction is larger than this many bytes, whatever is configured: what it logs with its commit is one
/// frame of the log, whose length has 32 bits.
pub const TX_BYTES_HARD_MAX: u64 = 2 << 30;

/// Limits and identity, from the configuration.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Proposed `channel_max`; zero: no limit.
    pub channel_max: u16,
    /// Proposed `frame_max`; zero: no limit.
    pub frame_max: u32,
    /// Proposed heartbeat in seconds; zero: none.
    pub heartbeat: u16,
    /// A handshake that takes longer ends the connection, milliseconds.
    pub handshake_timeout_ms: u64,
    /// Largest body, bytes.
    pub max_message_bytes: u64,
    /// Octets of messages that have begun and are not complete, on all channels of a connection.
    pub unfinished_bytes: u64,
    /// What one transaction may hold in memory, in bytes.
    pub tx_bytes_max: u64,
    /// Consumers per channel; zero: no limit.
    pub consumers_per_channel: u32,
    /// How long consumers of quorum queues may keep a delivery, unless they or their queue say
    /// otherwise, milliseconds; zero: for ever.
    pub consumer_timeout_ms: u64,
    /// Output waiting to be written above which frames of this connection are not processed, bytes.
    pub output_bytes_max: usize,
    /// The user that the mechanism ANONYMOUS logs in as; none: it is not offered.
    pub anonymous: Option<AnonymousLogin>,
    /// `product` in the server properties.
    pub product: String,
    /// `version` in the server properties.
    pub version: String,
    /// `cluster_name` in the server properties.
    pub cluster_name: String,
}

impl Default for SessionSettings {
    fn default() -> Self {
        SessionSettings {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
            handshake_timeout_ms: 10_000,
            max_message_bytes: 16 << 20,
            unfinished_bytes: 256 << 20,
            tx_bytes_max: TX_BYTES_HARD_MAX,
            consumers_per_channel: 0,
            consumer_timeout_ms: 0,
            output_bytes_max: 4 << 20,
            anonymous: AnonymousLogin::of("guest", "guest"),
            product: "RabbitMQ".into(),
            version: "4.3.0".into(),
            cluster_name: "leveret".into(),
        }
    }
}

/// What a message may have beside its body: its properties in one frame, room to grow.
const BESIDE_BODY_BYTES: u64 = 1 << 20;

impl SessionSettings {
    /// The limit of messages that are not complete; one of the largest size always fits.
    pub fn unfinished_bytes_max(&self) -> u64 {
        let one = self.max_message_bytes + BESIDE_BODY_BYTES;
        self.unfinished_bytes.max(one)
    }
}

/// With what a client logs in that says nothing of itself. The password has to be the user's: whoever
/// changes it has closed this door, too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnonymousLogin {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl AnonymousLogin {
    /// None for the user `none`, which is how RabbitMQ switches it off, and for no user.
    pub fn of(user: &str, password: &str) -> Option<AnonymousLogin> {
        let given = !matches!(user, "" | "none");
        given.then(|| AnonymousLogin {
            user: user.into(),
            password: password.into(),
        })
    }
}

/// Who wants to log in, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// User name.
    pub user: &'a str,
    /// Password; `None` where a certificate proved the name.
    pub password: Option<&'a [u8]>,
    /// The peer's address, if there is one.
    pub peer: Option<SocketAddr>,
}

/// Why a login was refused, for the server's own log; the client is not told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused(pub String);

/// Checks logins. Hashing and policy are the server's business.
pub trait Authenticator: Send + Sync {
    /// Checks a login.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    fn authenticate(&self, login: &Login<'_>) -> Result<(), Refused>;
}

/// A shared authenticator.
pub type SharedAuthenticator = Arc<dyn Authenticator>;
