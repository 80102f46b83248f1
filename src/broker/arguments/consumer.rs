//! Arguments of consumers.

use super::queue_type::QueueType;
use super::value::{ArgumentError, Problem, integer, millis};
use crate::protocol::field_table::FieldTable;

/// What a consumer's arguments mean.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConsumerSettings {
    /// `x-priority`
    pub priority: i32,
    /// `x-consumer-timeout`, milliseconds; zero: none. Of the queue if not given.
    pub timeout: Option<u64>,
}

impl ConsumerSettings {
    /// Parses the arguments of `basic.consume`.
    ///
    /// # Errors
    /// The first argument that does not do.
    pub fn parse(
        arguments: &FieldTable,
        queue_type: QueueType,
    ) -> Result<ConsumerSettings, ArgumentError> {
        let mut settings = ConsumerSettings::default();
        if let Some(value) = arguments.get("x-priority") {
            let argument = "x-priority";
            let n = integer(value).map_err(|problem| ArgumentError { argument, problem })?;
            settings.priority = n.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        }
        let mut other = vec![
            "x-stream-offset",
            "x-stream-filter",
            "x-stream-match-unfiltered",
        ];
        let argument = "x-consumer-timeout";
        if queue_type != QueueType::Quorum {
            other.push(argument);
        } else if let Some(value) = arguments.get(argument) {
            let n = millis(value).map_err(|problem| ArgumentError { argument, problem })?;
            settings.timeout = Some(n);
        }
        if let Some(argument) = other.into_iter().find(|key| arguments.get(key).is_some()) {
            return Err(ArgumentError {
                argument,
                problem: Problem::NotForThisType(queue_type),
            });
        }
        Ok(settings)
    }
}
