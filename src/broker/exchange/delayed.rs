//! `x-delayed-message`: messages that are routed later.
//!
//! A message with a positive `x-delay` waits in a queue of the exchange that no client sees, with the
//! delay for its TTL, and is routed when it expires there: so it is durable, leaves memory under
//! pressure, and costs what any waiting message costs, however many wait.

use super::ExchangeType;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::PropertiesRef;

/// Header with the delay, milliseconds. Its sign is turned when the message begins to wait, as
/// RabbitMQ's plugin does: another delayed exchange on its way does not delay it again, and a consumer
/// can see how long it waited.
pub const DELAY_HEADER: &str = "x-delay";

/// The longest delay, 49 days; RabbitMQ's plugin draws the same line. A longer one is none.
pub const DELAY_MAX_MS: i64 = u32::MAX as i64;

/// `x-delayed-type`: what the exchange is apart from the delay; `None` if that is not a type, or is the
/// delayed one itself.
pub fn delayed_type(arguments: &FieldTable) -> Option<ExchangeType> {
    let name = arguments.get("x-delayed-type")?.as_str()?;
    ExchangeType::parse(name).filter(|t| *t != ExchangeType::Delayed)
}

/// How long a message has to wait, in milliseconds: 1 to [`DELAY_MAX_MS`]; `None` for not at all.
pub fn delay_of(properties: PropertiesRef<'_>) -> Option<u64> {
    let headers = properties.headers()?.to_table();
    let delay = headers.get(DELAY_HEADER).and_then(FieldValue::as_integer)?;
    (1..=DELAY_MAX_MS).contains(&delay).then_some(delay as u64)
}
