//! Names of what lives only while the broker runs.

/// Names a connection while the broker runs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConnectionId(pub u64);
