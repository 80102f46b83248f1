//! The domain: vhosts, exchanges, queues, messages.
//!
//! Synchronous and in memory. No tokio, no sockets, no files, no reply codes: what the core needs
//! from outside is in [`ports`], what it asks of its caller in [`queue::effects`]. From top to bottom, a module
//! uses those above it.

pub mod death;
pub mod ids;
pub mod memory;
pub mod message;
pub mod ports;

pub mod access;
pub mod arguments;
pub mod codec;
pub mod limits;
pub mod routing_keys;

pub mod deduplication;
pub mod redelivery;

pub mod queue;

pub mod by_queue;
pub mod exchange;
pub mod replies;
pub mod totals;

pub mod definitions;
pub mod route;

pub mod vhost;

mod backlog;
mod kept;
pub mod routing;

mod node;

pub mod dead_letter;

pub mod batch;

mod recovery;
mod restore;

pub use self::ids::ConnectionId;
pub use self::node::{Broker, Skipped, USER_LIMITS, VHOST_LIMITS};
