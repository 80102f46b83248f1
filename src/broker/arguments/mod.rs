//! Arguments of queues, consumers and messages: parsed once into settings, never read again.
//!
//! Arguments that RabbitMQ does not know are accepted and ignored, as RabbitMQ does; arguments it honours and
//! we do not yet are refused.

mod consumer;
mod deduplication;
mod equivalence;
mod expiration;
mod queue;
mod queue_type;
mod value;

pub use consumer::ConsumerSettings;
pub use deduplication::{
    DEDUPLICATION_ARGUMENTS, DEDUPLICATION_HEADER, DEDUPLICATION_SIZE_DEFAULT,
    DEDUPLICATION_SIZE_MAX, DeduplicationSettings,
};
pub use equivalence::{Inequivalent, equivalent};
pub use expiration::{ExpirationError, parse_expiration};
pub use queue::{
    DELIVERY_LIMIT, DeadLetterTarget, DelayedRetry, Overflow, QueueSettings, queue_equivalence,
};
pub use queue_type::QueueType;
pub use value::{ArgumentError, MILLIS_MAX, Problem};
pub(super) use value::{millis, short};

#[cfg(test)]
mod tests;
