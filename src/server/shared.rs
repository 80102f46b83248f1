//! What all connections share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::admission::Admission;
use super::auth::Logins;
use super::descriptors::Descriptors;
use super::failed_logins::FailedLogins;
use super::inbox::Inbox;
use super::workers::Resources;
use crate::amqp::settings::{SessionSettings, SharedAuthenticator};
use crate::broker::Broker;
use crate::broker::ports::Bell;
use crate::config::Config;
use crate::sync::Mutex;

/// Connections that give back at the same time what they had.
pub(super) const ENDINGS_AT_ONCE: usize = 2;

/// What all connections share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) broker: Arc<Broker>,
    pub(super) session: Arc<SessionSettings>,
    pub(super) authenticator: SharedAuthenticator,
    pub(super) logins: Arc<Logins>,
    pub(super) failed_logins: Arc<FailedLogins>,
    pub(super) inboxes: Mutex<HashMap<u64, Arc<Inbox>>>,
    pub(super) endings: Semaphore,
    pub(super) next_key: AtomicU64,
    pub(super) admission: Arc<Admission>,
    pub(super) descriptors: Descriptors,
    pub(super) alarm: Mutex<Option<String>>,
    pub(super) alarm_version: AtomicU64,
    pub(super) closing: Mutex<Option<String>>,
    /// How often a connection waited for consumers.
    pub(super) waits_for_consumers: AtomicU64,
    /// What was last told of the wall clock, milliseconds.
    pub(super) clock_ahead: AtomicI64,
}

impl Shared {
    pub(super) fn register(&self, inbox: &Arc<Inbox>) -> u64 {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        self.inboxes.lock().insert(key, inbox.clone());
        // It has to hear of an alarm that holds already.
        inbox.ring();
        key
    }

    pub(super) fn unregister(&self, key: u64) {
        self.inboxes.lock().remove(&key);
    }

    pub(super) fn ring_all(&self) {
        for inbox in self.inboxes.lock().values() {
            inbox.ring();
        }
    }

    pub(super) fn alarm(&self) -> Option<String> {
        self.alarm.lock().clone()
    }

    pub(super) fn alarm_version(&self) -> u64 {
        self.alarm_version.load(Ordering::Acquire)
    }

    /// Raises the alarm, or ends it. `state` is what it was made of.
    pub(super) fn set_alarm(&self, reason: Option<String>, state: &Resources) {
        let mut alarm = self.alarm.lock();
        if *alarm == reason {
            return;
        }
        match &reason {
            Some(reason) => tracing::warn!(
                memory = state.memory,
                memory_limit = state.memory_limit,
                disk_free = state.disk_free,
                disk_free_limit = state.disk_free_limit,
                log_out_of_space = state.log_out_of_space,
                "resource alarm: {reason}; publishers are held back"
            ),
            None => tracing::info!("resource alarm is over"),
        }
        self.broker.memory().set_alarm(reason.is_some());
        *alarm = reason;
        self.alarm_version.fetch_add(1, Ordering::AcqRel);
        drop(alarm);
        self.ring_all();
    }

    pub(super) fn closing_reason(&self) -> Option<String> {
        self.closing.lock().clone()
    }
}
