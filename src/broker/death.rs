//! Why messages die, and the header that tells.

/// The header with the history of a message's deaths.
pub const X_DEATH: &str = "x-death";

/// Why a message left a queue other than by being consumed; the `reason` of `x-death`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DeathReason {
    /// A consumer rejected it without requeue.
    Rejected,
    /// Its time to live passed.
    Expired,
    /// The queue was over its length limit.
    Maxlen,
    /// It was returned more often than the queue allows.
    DeliveryLimit,
}

impl DeathReason {
    /// All reasons.
    pub const ALL: [DeathReason; 4] = [
        DeathReason::Rejected,
        DeathReason::Expired,
        DeathReason::Maxlen,
        DeathReason::DeliveryLimit,
    ];

    /// The reason that `x-death` calls so.
    pub fn of(name: &str) -> Option<DeathReason> {
        DeathReason::ALL.into_iter().find(|r| r.as_str() == name)
    }

    /// As it stands in `x-death`.
    pub fn as_str(self) -> &'static str {
        match self {
            DeathReason::Rejected => "rejected",
            DeathReason::Expired => "expired",
            DeathReason::Maxlen => "maxlen",
            DeathReason::DeliveryLimit => "delivery_limit",
        }
    }
}
