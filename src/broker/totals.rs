//! Counters over all sessions, for metrics. Sessions add to them once per batch.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters over all sessions.
        #[derive(Debug, Default)]
        pub struct Totals { $($(#[$doc])* pub $name: AtomicU64),* }

        /// What one session counted since it last told.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Counted { $($(#[$doc])* pub $name: u64),* }

        impl Totals {
            /// Adds what a session counted, and starts it over.
            pub fn add(&self, counted: &mut Counted) {
                $(if counted.$name != 0 {
                    self.$name.fetch_add(counted.$name, Ordering::Relaxed);
                })*
                *counted = Counted::default();
            }
        }
    };
}

totals! {
    /// Connections opened.
    connections_opened,
    /// Connections closed.
    connections_closed,
    /// Channels opened.
    channels_opened,
    /// Channels closed.
    channels_closed,
    /// Queues declared, new or not.
    queues_declared,
    /// Queues created.
    queues_created,
    /// Queues deleted.
    queues_deleted,
    /// Messages published.
    received,
    /// Messages published on channels in confirm mode.
    received_confirm,
    /// Publishes confirmed.
    confirmed,
    /// Messages routed to at least one queue.
    routed,
    /// Unroutable messages dropped.
    unroutable_dropped,
    /// Unroutable messages returned.
    unroutable_returned,
    /// Messages delivered to consumers without acknowledgement.
    delivered_auto_ack,
    /// Messages delivered to consumers with acknowledgement.
    delivered_manual_ack,
    /// Messages got without acknowledgement.
    get_auto_ack,
    /// Messages got with acknowledgement.
    get_manual_ack,
    /// `basic.get` on empty queues.
    get_empty,
    /// Deliveries marked as redelivered.
    redelivered,
    /// Messages acknowledged.
    acknowledged,
    /// Messages of queues that were given up because the log is damaged where they were.
    log_lost_messages,
    /// Reads of the log that the disk refused, each tried again.
    log_read_errors,
}
