//! Counters over all sessions, for metrics. Sessions add to them once per batch.

use std::sync::atomic::{AtomicU64, Ordering};

use super::arguments::QueueType;
use super::queue::Queue;

macro_rules! totals {
    ($all:ident, $mine:ident: $($(#[$doc:meta])* $name:ident),* $(; $sub:ident: $sub_all:ident, $sub_mine:ident)? $(,)?) => {
        /// Counters over all sessions.
        #[derive(Debug, Default)]
        pub struct $all {
            $($(#[$doc])* pub $name: AtomicU64,)*
            $(/// By the type of the queue.
            pub $sub: [$sub_all; QueueKind::ALL.len()],)?
        }

        /// What one session counted since it last told.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $mine {
            $($(#[$doc])* pub $name: u64,)*
            $(/// By the type of the queue.
            pub $sub: [$sub_mine; QueueKind::ALL.len()],)?
        }

        impl $all {
            /// Adds what a session counted, and starts it over.
            pub fn add(&self, counted: &mut $mine) {
                $(if counted.$name != 0 {
                    self.$name.fetch_add(counted.$name, Ordering::Relaxed);
                    counted.$name = 0;
                })*
                $(for (all, mine) in self.$sub.iter().zip(&mut counted.$sub) {
                    all.add(mine);
                })?
            }
        }
    };
}

/// What metrics tell queues apart by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueKind {
    /// A classic queue.
    Classic,
    /// A quorum queue.
    Quorum,
    /// None: a consumer of direct replies.
    Volatile,
}

impl QueueKind {
    /// All of them.
    pub const ALL: [QueueKind; 3] = [QueueKind::Classic, QueueKind::Quorum, QueueKind::Volatile];

    /// That of a queue.
    pub fn of(queue: &Queue) -> QueueKind {
        match queue.info().settings.queue_type {
            QueueType::Classic => QueueKind::Classic,
            QueueType::Quorum => QueueKind::Quorum,
        }
    }

    /// RabbitMQ's name of it.
    pub fn name(self) -> &'static str {
        match self {
            QueueKind::Classic => "rabbit_classic_queue",
            QueueKind::Quorum => "rabbit_quorum_queue",
            QueueKind::Volatile => "rabbit_volatile_queue",
        }
    }
}

impl Counted {
    /// What is counted of queues like this one.
    pub fn of(&mut self, queue: &Queue) -> &mut QueueCounted {
        &mut self.queues[QueueKind::of(queue) as usize]
    }
}

totals! { QueueTotals, QueueCounted:
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
    acknowledged
}

totals! { Totals, Counted:
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
    /// Messages of queues that were given up because the log is damaged where they were.
    log_lost_messages,
    /// Reads of the log that the disk refused, each tried again.
    log_read_errors;
    queues: QueueTotals, QueueCounted,
}
