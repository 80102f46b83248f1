//! The `expiration` of a message.

use super::value::MILLIS_MAX;

/// Why a message's `expiration` does not do; the texts are RabbitMQ's.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "RabbitMQ's own terms")]
pub enum ExpirationError {
    NoInteger,
    LeftoverString(String),
    ValueNegative(i64),
    ValueTooLarge(i64),
}

/// Reads a message's `expiration`: milliseconds in decimal.
///
/// # Errors
/// [`ExpirationError`]
pub fn parse_expiration(text: &str) -> Result<u64, ExpirationError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    if end == 0 {
        return Err(ExpirationError::NoInteger);
    }
    let at = text.len() - digits.len() + end;
    if at < text.len() {
        return Err(ExpirationError::LeftoverString(text[at..].to_string()));
    }
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(ExpirationError::ValueNegative(n)),
        Ok(n) if n > MILLIS_MAX => Err(ExpirationError::ValueTooLarge(n)),
        Ok(n) => Ok(n.unsigned_abs()),
        // Digits that no integer of 64 bits holds.
        Err(_) if text.starts_with('-') => Err(ExpirationError::ValueNegative(i64::MIN)),
        Err(_) => Err(ExpirationError::ValueTooLarge(i64::MAX)),
    }
}
