//! The types of queues.

/// The type of a queue, `x-queue-type`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum QueueType {
    /// `classic`
    #[default]
    Classic,
    /// `quorum`: durable whatever the publisher says, with a delivery limit and 32 priorities.
    Quorum,
}

impl QueueType {
    /// As `x-queue-type` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            QueueType::Classic => "classic",
            QueueType::Quorum => "quorum",
        }
    }

    /// The type that `x-queue-type` names.
    pub fn named(name: &str) -> Option<QueueType> {
        let all = [QueueType::Classic, QueueType::Quorum];
        all.into_iter().find(|t| t.as_str() == name)
    }
}
