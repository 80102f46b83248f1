//! From the domain's refusals to RabbitMQ's reply codes and texts, in one place.
//!
//! Clients match on these texts; they are RabbitMQ's, to the letter.

use crate::broker::access::Permission;
use crate::broker::arguments::{ArgumentError, ExpirationError, Inequivalent, Problem};
use crate::broker::exchange::{MatchArgumentError, TOPIC_HASHES_MAX};
use crate::broker::queue::ConsumeRefused;
use crate::broker::vhost::TopologyError;
use crate::protocol::field_table::FieldValue;
use crate::protocol::frame::FrameError;
use crate::protocol::reply_code::{HardCode, SoftCode};
use crate::protocol::wire::DecodeError;

/// Why a channel or a connection is closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exception {
    /// Costs the channel.
    Channel(SoftCode, String),
    /// Costs the connection.
    Connection(HardCode, String),
}

impl Exception {
    /// A soft error.
    pub fn soft(code: SoftCode, text: impl Into<String>) -> Exception {
        Exception::Channel(code, text.into())
    }

    /// A hard error.
    pub fn hard(code: HardCode, text: impl Into<String>) -> Exception {
        Exception::Connection(code, text.into())
    }

    /// 404: no such queue.
    pub fn no_queue(name: &str, vhost: &str) -> Exception {
        Self::soft(
            SoftCode::NOT_FOUND,
            format!("no {}", queue_name(name, vhost)),
        )
    }

    /// 404: no such exchange.
    pub fn no_exchange(name: &str, vhost: &str) -> Exception {
        Self::soft(
            SoftCode::NOT_FOUND,
            format!("no {}", exchange_name(name, vhost)),
        )
    }
}

/// `queue 'q' in vhost '/'`
pub fn queue_name(name: &str, vhost: &str) -> String {
    format!("queue '{name}' in vhost '{vhost}'")
}

/// `exchange 'x' in vhost '/'`
pub fn exchange_name(name: &str, vhost: &str) -> String {
    format!("exchange '{name}' in vhost '{vhost}'")
}

/// A value as RabbitMQ prints it.
fn shown(value: &FieldValue) -> String {
    match value {
        FieldValue::Bool(v) => v.to_string(),
        FieldValue::LongStr(v) => String::from_utf8_lossy(v).into_owned(),
        FieldValue::F32(v) => v.to_string(),
        FieldValue::F64(v) => v.to_string(),
        FieldValue::Timestamp(v) => v.to_string(),
        other => other
            .as_integer()
            .map_or_else(|| format!("{other:?}"), |n| n.to_string()),
    }
}

fn inequivalent(e: &Inequivalent, resource: &str) -> Exception {
    let full = |v: &Option<FieldValue>| match v {
        None => "none".to_string(),
        Some(v) => format!("the value '{}' of type '{}'", shown(v), v.type_name()),
    };
    let (received, current) = match (&e.received, &e.current) {
        (Some(received), Some(current)) => (
            format!("'{}'", shown(received)),
            format!("'{}'", shown(current)),
        ),
        (received, current) => (full(received), full(current)),
    };
    let argument = e.argument;
    Exception::soft(
        SoftCode::PRECONDITION_FAILED,
        format!(
            "inequivalent arg '{argument}' for {resource}: received {received} but current is {current}"
        ),
    )
}

/// An argument of a queue or consumer.
pub fn argument(e: &ArgumentError, queue: &str, vhost: &str) -> Exception {
    let name = queue_name(queue, vhost);
    let arg = e.argument;
    let problem = match &e.problem {
        Problem::ExpectedInteger(got) => format!("\"expected integer, got {got}\""),
        Problem::UnacceptableType(got) => format!("{{unacceptable_type,{got}}}"),
        Problem::ValueNegative(n) => format!("{{value_negative,{n}}}"),
        Problem::ValueZero => "{value_zero,0}".into(),
        Problem::ValueTooLarge(n) => format!("{{value_too_large,{n}}}"),
        Problem::MaxValueExceeded(n) => format!("{{max_value_exceeded,{n}}}"),
        Problem::InvalidOverflow(_) => "invalid_overflow".into(),
        Problem::RoutingKeyWithoutExchange => "routing_key_but_no_dlx_defined".into(),
        Problem::UnsupportedQueueType(t) => format!("\"unsupported queue type '{t}'\""),
        Problem::UnsupportedQueueVersion(n) => format!("\"unsupported queue version '{n}'\""),
        Problem::InvalidQueueMode => "invalid_queue_mode".into(),
        Problem::InvalidType(got) => {
            let text = format!("invalid type '{got}' for arg '{arg}' in {name}");
            return Exception::soft(SoftCode::PRECONDITION_FAILED, text);
        }
        Problem::NotForThisType => {
            let text = format!("invalid arg '{arg}' for {name} of queue type rabbit_classic_queue");
            return Exception::soft(SoftCode::PRECONDITION_FAILED, text);
        }
        Problem::NotSupportedYet => "\"not supported by this version of Leveret\"".into(),
    };
    Exception::soft(
        SoftCode::PRECONDITION_FAILED,
        format!("invalid arg '{arg}' for {name}: {problem}"),
    )
}

/// A refusal of the topology.
pub fn topology(e: &TopologyError, vhost: &str) -> Exception {
    use SoftCode::{ACCESS_REFUSED, PRECONDITION_FAILED, RESOURCE_LOCKED};
    let soft = |code, text: String| Exception::soft(code, text);
    match e {
        TopologyError::NoExchange(name) => Exception::no_exchange(name, vhost),
        TopologyError::NoQueue(name) => Exception::no_queue(name, vhost),
        TopologyError::UnknownType(kind) => soft(
            PRECONDITION_FAILED,
            format!("unknown exchange type '{kind}'"),
        ),
        TopologyError::ReservedName { queue, name } => {
            let what = if *queue { "queue" } else { "exchange" };
            soft(
                ACCESS_REFUSED,
                format!("{what} name '{name}' contains reserved prefix 'amq.*'"),
            )
        }
        TopologyError::DefaultExchange => soft(
            ACCESS_REFUSED,
            "operation not permitted on the default exchange".into(),
        ),
        TopologyError::SystemExchange(name) => soft(
            ACCESS_REFUSED,
            format!(
                "deletion of system {} not allowed",
                exchange_name(name, vhost)
            ),
        ),
        TopologyError::ExchangeDiffers(name, e) => inequivalent(e, &exchange_name(name, vhost)),
        TopologyError::QueueDiffers(name, e) => inequivalent(e, &queue_name(name, vhost)),
        TopologyError::Locked(name) => soft(
            RESOURCE_LOCKED,
            format!(
                "cannot obtain exclusive access to locked {}. It could be originally declared on another connection \
                 or the exclusive property value does not match that of the original declaration.",
                queue_name(name, vhost)
            ),
        ),
        TopologyError::Argument(name, e) => argument(e, name, vhost),
        TopologyError::AlternateType(name, got) => soft(
            PRECONDITION_FAILED,
            format!(
                "invalid type '{got}' for arg 'alternate-exchange' in {}",
                exchange_name(name, vhost)
            ),
        ),
        TopologyError::Match(MatchArgumentError::Value(v)) => soft(
            PRECONDITION_FAILED,
            format!(
                "Invalid x-match field value <<\"{v}\">>; expected all, any, all-with-x, or any-with-x"
            ),
        ),
        TopologyError::Match(MatchArgumentError::Type(v)) => soft(
            PRECONDITION_FAILED,
            format!(
                "Invalid x-match field type {} (value {}); expected longstr",
                v.type_name(),
                shown(v)
            ),
        ),
        TopologyError::TopicHashes(key, n) => soft(
            PRECONDITION_FAILED,
            format!(
                "Topic binding key '{key}' uses {n} '#' wildcards, at most {TOPIC_HASHES_MAX} are allowed"
            ),
        ),
        TopologyError::QueueInUse(name) => soft(
            PRECONDITION_FAILED,
            format!("{} in use", queue_name(name, vhost)),
        ),
        TopologyError::QueueNotEmpty(name) => soft(
            PRECONDITION_FAILED,
            format!("{} not empty", queue_name(name, vhost)),
        ),
        TopologyError::ExchangeInUse(name) => soft(
            PRECONDITION_FAILED,
            format!("{} in use", exchange_name(name, vhost)),
        ),
        TopologyError::LogFailed => log_failed(),
    }
}

/// The log has failed: 541.
pub fn log_failed() -> Exception {
    Exception::hard(HardCode::INTERNAL_ERROR, "the message log has failed")
}

/// A refused consumer.
pub fn consume(e: ConsumeRefused, queue: &str, vhost: &str) -> Exception {
    match e {
        ConsumeRefused::ExclusiveUse => Exception::soft(
            SoftCode::ACCESS_REFUSED,
            format!("{} in exclusive use", queue_name(queue, vhost)),
        ),
        ConsumeRefused::Gone => Exception::no_queue(queue, vhost),
    }
}

/// A message's `expiration`.
pub fn expiration(e: &ExpirationError, text: &str) -> Exception {
    let problem = match e {
        ExpirationError::NoInteger => "no_integer".to_string(),
        ExpirationError::LeftoverString(rest) => format!("{{leftover_string,\"{rest}\"}}"),
        ExpirationError::ValueNegative(n) => format!("{{value_negative,{n}}}"),
        ExpirationError::ValueTooLarge(n) => format!("{{value_too_large,{n}}}"),
    };
    Exception::soft(
        SoftCode::PRECONDITION_FAILED,
        format!("invalid expiration '{text}': {problem}"),
    )
}

/// A missing permission on a queue or an exchange.
pub fn refused(what: Permission, exchange: bool, name: &str, vhost: &str, user: &str) -> Exception {
    let resource = match (exchange, name) {
        (true, "") => exchange_name("amq.default", vhost),
        (true, name) => exchange_name(name, vhost),
        (false, name) => queue_name(name, vhost),
    };
    let text = format!(
        "{} access to {resource} refused for user '{user}'",
        what.as_str()
    );
    Exception::soft(SoftCode::ACCESS_REFUSED, text)
}

/// A frame that cannot be found or understood.
pub fn frame(e: &FrameError) -> Exception {
    Exception::hard(HardCode::FRAME_ERROR, e.to_string())
}

/// A payload that cannot be understood.
pub fn decode(e: &DecodeError) -> Exception {
    match e {
        DecodeError::UnknownMethod(_) => Exception::hard(HardCode::COMMAND_INVALID, e.to_string()),
        DecodeError::Malformed(_) | DecodeError::MalformedUtf8 => {
            Exception::hard(HardCode::FRAME_ERROR, e.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(e: Exception) -> (u16, String) {
        match e {
            Exception::Channel(code, text) => (code.number(), text),
            Exception::Connection(code, text) => (code.number(), text),
        }
    }

    #[test]
    fn inequivalent_arguments_show_both_sides() {
        let e = Inequivalent {
            argument: "x-message-ttl",
            received: Some(FieldValue::I32(20_000)),
            current: Some(FieldValue::I32(10_000)),
        };
        let error = topology(&TopologyError::QueueDiffers("q".into(), e.clone()), "/");
        let want = "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '20000' but current is '10000'";
        assert_eq!(text(error), (406, want.into()));
        let e = Inequivalent {
            received: None,
            ..e
        };
        let error = topology(&TopologyError::QueueDiffers("q".into(), e), "/");
        assert!(
            text(error)
                .1
                .ends_with("received none but current is the value '10000' of type 'signedint'")
        );
    }

    #[test]
    fn refusals_name_the_default_exchange() {
        let error = refused(Permission::Write, true, "", "v", "u");
        let want = "write access to exchange 'amq.default' in vhost 'v' refused for user 'u'";
        assert_eq!(text(error), (403, want.into()));
    }

    #[test]
    fn arguments_are_worded_as_rabbitmq_does() {
        let e = |argument, problem| {
            text(super::argument(
                &ArgumentError { argument, problem },
                "q",
                "/",
            ))
        };
        let got = e("x-message-ttl", Problem::ExpectedInteger("longstr"));
        assert_eq!(
            got.1,
            "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got longstr\""
        );
        let got = e("x-dead-letter-exchange", Problem::InvalidType("signedint"));
        assert_eq!(
            got.1,
            "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"
        );
    }
}
