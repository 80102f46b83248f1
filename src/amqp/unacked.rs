//! Deliveries that a channel has to settle.

use std::sync::Arc;

use crate::broker::queue::{DeliveryRef, Queue};

/// A delivery that the client has not settled.
#[derive(Clone, Debug)]
pub(super) struct Unacked {
    pub(super) tag: u64,
    pub(super) queue: Arc<Queue>,
    pub(super) delivery: DeliveryRef,
    /// Counts against the channel's own limit.
    pub(super) credited: bool,
}
