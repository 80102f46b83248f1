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

/// The longest delay, 49 days and 17 hours: Erlang's timers go no further, so RabbitMQ's plugin draws the
/// same line. A longer one is none: the message is routed at once.
pub const DELAY_MAX_MS: i64 = u32::MAX as i64;

/// `x-delayed-type`: what the exchange is apart from the delay; `None` if that is not a type, or is the
/// delayed one itself.
pub fn delayed_type(arguments: &FieldTable) -> Option<ExchangeType> {
    let name = arguments.get("x-delayed-type")?.as_str()?;
    ExchangeType::parse(name).filter(|t| *t != ExchangeType::Delayed)
}

/// The number of milliseconds that a header says, as the plugin reads it: an integer, its digits, or a
/// number with a fraction, which is cut off.
pub fn milliseconds(value: &FieldValue) -> Option<i64> {
    let whole = |float: f64| float.is_finite().then_some(float as i64);
    match value {
        FieldValue::LongStr(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        FieldValue::F32(float) => whole((*float).into()),
        FieldValue::F64(float) => whole(*float),
        FieldValue::Decimal { scale, value } => {
            let unit = 10i64.checked_pow((*scale).into());
            Some(unit.map_or(0, |unit| i64::from(*value) / unit))
        }
        other => other.as_integer(),
    }
}

/// How long a message has to wait, in milliseconds: 1 to [`DELAY_MAX_MS`]; `None` for not at all.
pub fn delay_of(properties: PropertiesRef<'_>) -> Option<u64> {
    let header = properties.headers()?.get(DELAY_HEADER);
    let delay = header.as_ref().and_then(milliseconds)?;
    (1..=DELAY_MAX_MS).contains(&delay).then_some(delay as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::properties::Properties;

    fn delay(value: impl Into<FieldValue>) -> Option<u64> {
        let mut headers = FieldTable::new();
        headers.insert(DELAY_HEADER, value);
        let properties = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        delay_of(PropertiesRef::unchecked(&properties.encode()))
    }

    #[test]
    fn whatever_says_a_number_is_a_delay() {
        let max = DELAY_MAX_MS as u64;
        assert_eq!(delay(1i64), Some(1));
        assert_eq!(delay(FieldValue::U8(200)), Some(200));
        assert_eq!(delay("1500"), Some(1500));
        assert_eq!(delay("+7"), Some(7));
        assert_eq!(delay(FieldValue::F64(1500.9)), Some(1500));
        assert_eq!(delay(FieldValue::F32(2.5)), Some(2));
        let decimal = |scale, value| delay(FieldValue::Decimal { scale, value });
        assert_eq!((decimal(2, 12_345), decimal(255, 5)), (Some(123), None));
        assert_eq!(delay(DELAY_MAX_MS), Some(max));
        assert_eq!(delay(max.to_string().as_str()), Some(max));
    }

    #[test]
    fn the_rest_is_none() {
        for text in [
            "",
            " 5",
            "5 ",
            "5ms",
            "1e3",
            "-5",
            "0",
            "99999999999999999999",
        ] {
            assert_eq!(delay(text), None, "{text}");
        }
        for float in [f64::NAN, f64::INFINITY, -1.5, 0.9, 1e300] {
            assert_eq!(delay(FieldValue::F64(float)), None, "{float}");
        }
        for integer in [0, -1, i64::MIN, i64::MAX, DELAY_MAX_MS + 1] {
            assert_eq!(delay(integer), None, "{integer}");
        }
        assert_eq!(delay(FieldValue::Bool(true)), None);
        assert_eq!(delay(FieldValue::LongStr(vec![0xff])), None);
        assert_eq!(delay(FieldValue::Timestamp(1)), None);
    }
}
