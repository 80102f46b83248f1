//! Why an operation on the topology is refused.

use crate::broker::arguments::{ArgumentError, Inequivalent, QueueType};
use crate::broker::exchange::{MatchArgumentError, WeightError};
use crate::broker::ports::LogFailed;
use crate::protocol::field_table::FieldValue;

/// Why an operation on the topology was refused.
#[derive(Clone, Debug, PartialEq)]
pub enum TopologyError {
    /// There are as many queues as there may be: the name, the limit, and whether it is that of all vhosts
    /// together.
    QueueLimit(String, u64, bool),
    /// There are as many exchanges as there may be: the name, and the limit.
    ExchangeLimit(String, u64),
    /// The store has one of this name that this version cannot serve: see [`super::Vhost::give_up`].
    SetAside {
        /// A queue, or an exchange.
        queue: bool,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such exchange.
    NoExchange(String),
    /// No such queue.
    NoQueue(String),
    /// The exchange type is unknown.
    UnknownType(String),
    /// The name is reserved for the broker: `amq.`.
    ReservedName {
        /// A queue, or an exchange.
        queue: bool,
        /// The name.
        name: String,
    },
    /// The default exchange cannot be declared, deleted or bound.
    DefaultExchange,
    /// Predeclared exchanges stay.
    SystemExchange(String),
    /// The exchange is there with another property or argument.
    ExchangeDiffers(String, Inequivalent),
    /// The queue is there with another property or argument.
    QueueDiffers(String, Inequivalent),
    /// The queue belongs to another connection, or is exclusive and was not declared so.
    Locked(String),
    /// An argument of a queue.
    Argument(String, ArgumentError),
    /// A queue of this type needs a name.
    ServerNamed(QueueType),
    /// A queue of this name and type cannot have this property.
    QueueProperty(String, &'static str),
    /// A quorum queue is deleted whatever is in it, or not at all: this flag is not for it.
    ConditionalDelete(String, &'static str),
    /// An argument of an exchange is no string: exchange, argument, its type.
    ExchangeArgumentType(String, &'static str, &'static str),
    /// `x-consistent-hash` cannot hash a header and a property.
    HashHeaderAndProperty,
    /// `hash-property` names something else than the three properties it can.
    HashProperty(String),
    /// `x-recent-history-length` is not a positive integer.
    HistoryLength(FieldValue),
    /// `x-delayed-type` is missing, or no exchange type.
    DelayedType,
    /// An argument of an exchange.
    ExchangeArgument(String, ArgumentError),
    /// `x-cache-size` of an `x-message-deduplication` exchange is missing, or no positive integer.
    CacheSize,
    /// The binding key of an `x-consistent-hash` exchange is no weight.
    Weight(String, WeightError),
    /// `x-local-random` takes no binding keys.
    BindingKeyNotEmpty(String),
    /// `x-match` of a binding.
    Match(MatchArgumentError),
    /// More than [`crate::broker::exchange::TOPIC_HASHES_MAX`] `#` in a topic binding key: the key, and how many.
    TopicHashes(String, usize),
    /// A queue has consumers.
    QueueInUse(String),
    /// A queue has messages.
    QueueNotEmpty(String),
    /// An exchange has bindings.
    ExchangeInUse(String),
    /// The log has failed.
    LogFailed,
}

impl From<LogFailed> for TopologyError {
    fn from(_: LogFailed) -> Self {
        TopologyError::LogFailed
    }
}
