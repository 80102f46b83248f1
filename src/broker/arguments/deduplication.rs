//! Arguments of queues and exchanges that do not take a message twice.

use super::value::{ArgumentError, Problem, count, millis, text};
use crate::protocol::field_table::{FieldTable, FieldValue};

/// Values in a window without `x-cache-size`.
pub const DEDUPLICATION_SIZE_DEFAULT: usize = 128;

/// No window holds more: an entry takes 70 to 140 bytes of memory, which count towards the broker's, and a
/// definition in the store.
pub const DEDUPLICATION_SIZE_MAX: usize = 100_000;

/// The header, unless `x-deduplication-header` of the exchange or queue names another.
pub const DEDUPLICATION_HEADER: &str = "x-deduplication-header";

/// The arguments that make a window.
pub const DEDUPLICATION_ARGUMENTS: [&str; 4] = [
    "x-message-deduplication",
    "x-cache-size",
    "x-cache-ttl",
    DEDUPLICATION_HEADER,
];

/// What the arguments of an exchange or a queue say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeduplicationSettings {
    /// `x-deduplication-header`
    pub header: Box<str>,
    /// `x-cache-size`
    pub size: usize,
    /// `x-cache-ttl`, milliseconds; none: as long as the window has room.
    pub ttl: Option<u64>,
}

impl DeduplicationSettings {
    /// Parses the arguments; `None` if they ask for no window, and nothing else does (`implied`).
    ///
    /// # Errors
    /// The first argument that does not do.
    pub fn parse(
        arguments: &FieldTable,
        implied: bool,
    ) -> Result<Option<DeduplicationSettings>, ArgumentError> {
        let mut settings = DeduplicationSettings {
            header: DEDUPLICATION_HEADER.into(),
            size: DEDUPLICATION_SIZE_DEFAULT,
            ttl: None,
        };
        let mut on = implied;
        for argument in DEDUPLICATION_ARGUMENTS {
            let Some(value) = arguments.get(argument) else {
                continue;
            };
            settings
                .set(argument, value, &mut on)
                .map_err(|problem| ArgumentError { argument, problem })?;
        }
        Ok(on.then_some(settings))
    }

    fn set(&mut self, argument: &str, value: &FieldValue, on: &mut bool) -> Result<(), Problem> {
        match argument {
            "x-message-deduplication" => match value {
                FieldValue::Bool(v) => *on |= *v,
                other => return Err(Problem::UnacceptableType(other.type_name())),
            },
            "x-cache-size" => match count(value)? {
                0 => return Err(Problem::ValueZero),
                n if n > DEDUPLICATION_SIZE_MAX as u64 => {
                    return Err(Problem::MaxValueExceeded(n as i64));
                }
                n => self.size = n as usize,
            },
            "x-cache-ttl" => match millis(value)? {
                0 => return Err(Problem::ValueZero),
                ttl => self.ttl = Some(ttl),
            },
            _ => self.header = text(value)?.into(),
        }
        Ok(())
    }
}
