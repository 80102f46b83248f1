//! Values of arguments: how they are read, and what can be wrong with them.

use std::borrow::Cow;

use super::queue_type::QueueType;
use crate::protocol::field_table::FieldValue;
use crate::protocol::short::{ShortBytes, shown};

/// The largest time a queue argument takes, in milliseconds: ten years, as in RabbitMQ.
pub const MILLIS_MAX: i64 = 315_360_000_000;

/// An argument that does not do.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgumentError {
    /// The argument.
    pub argument: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    missing_docs,
    reason = "named after RabbitMQ's own terms, which the texts show"
)]
pub enum Problem {
    ExpectedInteger(&'static str),
    UnacceptableType(&'static str),
    ValueNegative(i64),
    ValueZero,
    ValueTooLarge(i64),
    MaxValueExceeded(i64),
    InvalidOverflow(String),
    RoutingKeyWithoutExchange,
    UnsupportedQueueType(String),
    UnsupportedQueueVersion(i64),
    InvalidQueueLocator,
    InvalidDlxStrategy,
    /// Octets of what ends in a short string, which has room for [`SHORT_MAX`](crate::protocol::short::SHORT_MAX). RabbitMQ takes
    /// it, and fails when the first message dies.
    TooLong(usize),
    /// A dead-letter exchange that is no string; RabbitMQ words this differently.
    InvalidType(&'static str),
    /// Known to RabbitMQ for other types of queue.
    NotForThisType(QueueType),
}

pub(super) fn integer(v: &FieldValue) -> Result<i64, Problem> {
    v.as_integer()
        .ok_or(Problem::ExpectedInteger(v.type_name()))
}

pub(in crate::broker) fn count(v: &FieldValue) -> Result<u64, Problem> {
    let n = integer(v)?;
    u64::try_from(n).map_err(|_| Problem::ValueNegative(n))
}

pub(in crate::broker) fn millis(v: &FieldValue) -> Result<u64, Problem> {
    match integer(v)? {
        n if n > MILLIS_MAX => Err(Problem::ValueTooLarge(n)),
        n => u64::try_from(n).map_err(|_| Problem::ValueNegative(n)),
    }
}

/// A long string as text: octets that are none are shown as RabbitMQ does.
pub(in crate::broker) fn text(v: &FieldValue) -> Result<Cow<'_, str>, Problem> {
    let octets = v.as_octets();
    octets
        .map(shown)
        .ok_or(Problem::UnacceptableType(v.type_name()))
}

/// Octets that have room in a short string.
pub(in crate::broker) fn short(octets: &[u8]) -> Result<&[u8], Problem> {
    match ShortBytes::new(octets) {
        Some(_) => Ok(octets),
        None => Err(Problem::TooLong(octets.len())),
    }
}
