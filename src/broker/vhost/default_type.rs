//! The type of queues that are declared without one.

use super::*;

impl Vhost {
    /// The type of queues that are declared without `x-queue-type`.
    pub fn default_queue_type(&self) -> QueueType {
        match self.quorum_by_default.load(Ordering::Acquire) {
            true => QueueType::Quorum,
            false => QueueType::Classic,
        }
    }

    /// Sets it; queues that are there stay what they are.
    pub(in crate::broker) fn set_default_queue_type(&self, queue_type: QueueType) {
        let quorum = queue_type == QueueType::Quorum;
        self.quorum_by_default.store(quorum, Ordering::Release);
    }

    /// The arguments of a declaration, where the default adds to them. As in RabbitMQ it does not to a queue
    /// that cannot be of that type, and one that is there is compared with what it adds.
    pub(super) fn with_default_type(&self, d: &QueueDeclare<'_>) -> Option<FieldTable> {
        let given = d
            .arguments
            .get("x-queue-type")
            .is_some_and(|t| t.as_str() != Some(""));
        let fits = d.durable && !d.exclusive && !d.auto_delete;
        if given || !fits || self.default_queue_type() == QueueType::Classic {
            return None;
        }
        let mut arguments = d.arguments.clone();
        arguments.insert("x-queue-type", self.default_queue_type().as_str());
        Some(arguments)
    }
}
