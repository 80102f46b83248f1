//! Work that queues ask for and that is done elsewhere.

use std::sync::Arc;

use super::Queue;

/// Work that queues ask for and that is done elsewhere: later, or where waiting for a disk is
/// allowed.
pub trait Scheduler: Send + Sync {
    /// Calls [`Queue::tick`] at `at`, unix milliseconds, and no more at any time that was asked for
    /// before.
    fn arm(&self, queue: &Arc<Queue>, at: u64);

    /// Reads [`Queue::wanted`] from the log and hands it to [`Queue::arrived`].
    fn page_in(&self, queue: &Arc<Queue>);

    /// Calls [`crate::broker::Broker::work_off`] until nothing is left, on a thread that nobody waits for.
    fn work_off(&self);
}
