//! Bodies that say which message they belong to, all of it.

use crate::random::mix;

/// What messages start with that nobody follows.
pub const WILD: &[u8] = b"wild";

/// The body of a message: its number, and octets that follow from it.
pub fn body(number: u64) -> Vec<u8> {
    let h = mix(number);
    let length = match h % 200 {
        0 => 140_000,
        1..=8 => 5_000,
        9..=30 => 400,
        n => n as usize / 4,
    };
    let mut octets = b"kept".to_vec();
    octets.extend(number.to_be_bytes());
    octets.extend((0..length).map(|i| (h >> (i % 57)) as u8));
    octets
}

/// The number of the message with this body.
pub fn number(octets: &[u8]) -> Result<Option<u64>, String> {
    if octets.starts_with(WILD) {
        return Ok(None);
    }
    let number = octets.strip_prefix(b"kept").and_then(|r| r.first_chunk());
    match number.map(|n| u64::from_be_bytes(*n)) {
        Some(n) if body(n) == octets => Ok(Some(n)),
        n => Err(format!(
            "a body of {} octets was changed, number {n:?}",
            octets.len()
        )),
    }
}
