//! What a broker has before anybody connects: definitions of a file, the first user, limits.

use std::io;
use std::sync::Arc;

use super::machine;
use crate::amqp;
use crate::broker::Broker;
use crate::broker::access::User;
use crate::broker::limits::Account;
use crate::config::{Config, Protocol};
use crate::definitions_file;
use crate::password;
use crate::storage::memory::MemoryLog;

/// A transaction may hold one in so many bytes of what the memory watermark allows. Its commit puts a copy
/// into the log's buffers, and it should not be one publisher that raises the alarm.
const TX_ONE_IN: u64 = 4;

/// What one transaction may hold.
pub(super) fn tx_bytes_max(config: &Config) -> u64 {
    let bytes = match config.limits.transaction_bytes.0 {
        0 => machine::memory_limit(config) / TX_ONE_IN,
        bytes => bytes,
    };
    bytes.min(amqp::TX_BYTES_HARD_MAX)
}

/// Sets the limits of all users and vhosts together.
pub(super) fn limit(account: &Account, protocol: &Protocol) {
    let limits = [
        (&account.connections, protocol.max_connections as u64),
        (&account.channels, protocol.max_channels),
        (&account.queues, protocol.max_queues),
        (&account.exchanges, protocol.max_exchanges),
    ];
    for (quota, max) in limits.into_iter().filter(|(_, max)| *max != 0) {
        quota.limit(i64::try_from(max).unwrap_or(i64::MAX));
    }
}

fn enters_nowhere(broker: &Broker, user: &User) -> bool {
    let vhosts = broker.vhosts();
    let permissions = |v: &Arc<crate::broker::vhost::Vhost>| {
        let access = broker.access();
        access.permissions(&user.name, &v.name).is_some()
    };
    !vhosts.iter().any(permissions)
}

/// Applies the definitions file.
pub(super) fn load_definitions(broker: &Broker, config: &Config) -> io::Result<()> {
    let empty = Broker::new(MemoryLog::new(), &[]).0;
    let strict = config.strict_definitions.then_some(&empty);
    let path = config.load_definitions.as_ref();
    definitions_file::load(broker, path, &config.defaults.vhost, strict).map(drop)
}

/// An empty broker gets its first vhost and user. Where a definitions file made users, or vhosts, there
/// are none beside them; a first user enters whatever there is.
pub(super) fn bootstrap(broker: &Broker, config: &Config) -> io::Result<()> {
    let d = &config.defaults;
    let new_vhost = broker.vhosts().is_empty().then_some(d.vhost.as_str());
    let user = match broker.access().user(&d.user) {
        _ if broker.access().is_empty() => Some(User {
            name: d.user.clone(),
            password_hash: password::hash(d.pass.as_bytes()),
            hashing_algorithm: password::SHA256.into(),
            tags: vec!["administrator".into()],
        }),
        // Earlier versions wrote user and permissions one after the other, and may have ended in between.
        Some(user) if config.load_definitions.is_empty() && enters_nowhere(broker, &user) => {
            Some(User::clone(&user))
        }
        _ => None,
    };
    if new_vhost.is_none() && user.is_none() {
        return Ok(());
    }
    broker
        .bootstrap(new_vhost, user)
        .map(drop)
        .map_err(io::Error::other)
}
