//! From the domain's refusals to RabbitMQ's reply codes and texts, in one place.
//!
//! Clients match on these texts; they are RabbitMQ's, to the letter.

use crate::broker::access::Permission;
use crate::broker::arguments::{ArgumentError, ExpirationError, Inequivalent, Problem};
use crate::broker::exchange::{MatchArgumentError, TOPIC_HASHES_MAX, WEIGHT_MAX, WeightError};
use crate::broker::queue::ConsumeRefused;
use crate::broker::vhost::TopologyError;
use crate::protocol::field_table::FieldValue;
use crate::protocol::frame::FrameError;
use crate::protocol::reply_code::{HardCode, SoftCode};
use crate::protocol::short::{self, ShortBytes};
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

/// A value as RabbitMQ prints it between quotes: text as it is, the rest as Erlang writes it.
fn shown(value: &FieldValue) -> String {
    match value {
        FieldValue::LongStr(v) | FieldValue::Bytes(v) => short::shown(v).into_owned(),
        other => term(other),
    }
}

/// A value as Erlang writes it.
fn term(value: &FieldValue) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    match value {
        FieldValue::Bool(v) => v.to_string(),
        FieldValue::LongStr(v) | FieldValue::Bytes(v) => binary(v),
        FieldValue::F32(v) => float((*v).into()),
        FieldValue::F64(v) => float(*v),
        FieldValue::Decimal { scale, value } => format!("{{{scale},{value}}}"),
        FieldValue::Timestamp(v) => v.to_string(),
        FieldValue::Void => "undefined".into(),
        FieldValue::Array(v) => {
            let items = v.iter();
            list(
                items
                    .map(|v| format!("{{{},{}}}", v.type_name(), term(v)))
                    .collect(),
            )
        }
        FieldValue::Table(t) => {
            let field = |(name, v): (ShortBytes<'_>, &FieldValue)| {
                format!("{{{},{},{}}}", binary(&name), v.type_name(), term(v))
            };
            list(t.iter().map(field).collect())
        }
        integer => integer.as_integer().unwrap_or_default().to_string(),
    }
}

/// Erlang writes a point into every float.
fn float(v: f64) -> String {
    let text = format!("{v:?}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    }
}

/// A binary: as text if it is printable, in UTF-8 or else in Latin-1, else its octets.
fn binary(v: &[u8]) -> String {
    if v.is_empty() {
        return "<<>>".into();
    }
    let text = short::shown(v);
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        let octets: Vec<String> = v.iter().map(u8::to_string).collect();
        return format!("<<{}>>", octets.join(","));
    }
    let utf8 = match std::str::from_utf8(v) {
        Ok(text) if !text.is_ascii() => "/utf8",
        _ => "",
    };
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c => escaped.push(c),
        }
    }
    format!("<<\"{escaped}\"{utf8}>>")
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
    argument_of(e, &queue_name(queue, vhost))
}

fn argument_of(e: &ArgumentError, name: &str) -> Exception {
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
        Problem::InvalidQueueLocator => "invalid_queue_locator_arg".into(),
        Problem::InvalidType(got) => {
            let text = format!("invalid type '{got}' for arg '{arg}' in {name}");
            return Exception::soft(SoftCode::PRECONDITION_FAILED, text);
        }
        Problem::TooLong(octets) => format!("{{value_too_long,{octets}}}"),
        Problem::InvalidDlxStrategy => "invalid_dlx_strategy".into(),
        Problem::NotForThisType(queue_type) => {
            let text = format!(
                "invalid arg '{arg}' for {name} of queue type rabbit_{}_queue",
                queue_type.as_str()
            );
            return Exception::soft(SoftCode::PRECONDITION_FAILED, text);
        }
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
        TopologyError::ServerNamed(queue_type) => soft(
            PRECONDITION_FAILED,
            format!(
                "Cannot declare a server-named queue for type rabbit_{}_queue",
                queue_type.as_str()
            ),
        ),
        TopologyError::QueueProperty(name, property) => soft(
            PRECONDITION_FAILED,
            format!(
                "invalid property '{property}' for {}",
                queue_name(name, vhost)
            ),
        ),
        TopologyError::ConditionalDelete(name, condition) => {
            let text = format!(
                "cannot delete {}. queue.delete operations with {condition} flag set are not supported by quorum queues",
                queue_name(name, vhost)
            );
            Exception::hard(HardCode::NOT_IMPLEMENTED, text)
        }
        TopologyError::SetAside { queue, name, why } => {
            let what = match queue {
                true => queue_name(name, vhost),
                false => exchange_name(name, vhost),
            };
            soft(
                SoftCode::NOT_FOUND,
                format!("{what} was set aside when the broker started: {why}"),
            )
        }
        TopologyError::NoQueue(name) => Exception::no_queue(name, vhost),
        TopologyError::UnknownType(kind) if kind.is_empty() => {
            soft(PRECONDITION_FAILED, "invalid exchange type ''".into())
        }
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
        TopologyError::QueueLimit(name, max, all) => {
            let place = match all {
                true => "cluster".to_string(),
                false => format!("vhost '{vhost}'"),
            };
            soft(
                PRECONDITION_FAILED,
                format!("cannot declare queue '{name}': queue limit in {place} ({max}) is reached"),
            )
        }
        TopologyError::ExchangeLimit(name, max) => soft(
            PRECONDITION_FAILED,
            format!(
                "cannot declare exchange '{name}' in vhost '{vhost}': exchange limit of {max} is reached"
            ),
        ),
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
        TopologyError::ExchangeArgumentType(name, argument, got) => soft(
            PRECONDITION_FAILED,
            format!(
                "invalid type '{got}' for arg '{argument}' in {}",
                exchange_name(name, vhost)
            ),
        ),
        TopologyError::HashHeaderAndProperty => soft(
            PRECONDITION_FAILED,
            "hash-header and hash-property are mutually exclusive".into(),
        ),
        TopologyError::HashProperty(name) => {
            soft(PRECONDITION_FAILED, format!("Unsupported property: {name}"))
        }
        TopologyError::HistoryLength(v) => soft(
            PRECONDITION_FAILED,
            format!(
                "Invalid argument {}, 'x-recent-history-length' must be a positive integer",
                term(v)
            ),
        ),
        TopologyError::ExchangeArgument(name, e) => argument_of(e, &exchange_name(name, vhost)),
        TopologyError::CacheSize => soft(
            PRECONDITION_FAILED,
            "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0".into(),
        ),
        TopologyError::DelayedType => soft(
            PRECONDITION_FAILED,
            "Invalid argument, 'x-delayed-type' must be an existing exchange type".into(),
        ),
        TopologyError::Weight(key, e) => {
            let text = match e {
                WeightError::NotInteger => {
                    format!("must be an integer: {}", binary(key.as_bytes()))
                }
                WeightError::TooSmall => "must be greater than 0".into(),
                WeightError::TooLarge => format!("must not exceed {WEIGHT_MAX}"),
            };
            soft(PRECONDITION_FAILED, format!("The binding key {text}"))
        }
        TopologyError::BindingKeyNotEmpty(key) => soft(
            PRECONDITION_FAILED,
            format!("Non empty binding '{key}' key not permitted"),
        ),
        TopologyError::Match(MatchArgumentError::Value(v)) => soft(
            PRECONDITION_FAILED,
            format!(
                "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                binary(v)
            ),
        ),
        TopologyError::Match(MatchArgumentError::Type(v)) => soft(
            PRECONDITION_FAILED,
            format!(
                "Invalid x-match field type {} (value {}); expected longstr",
                v.type_name(),
                term(v)
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

/// A routing key on a topic exchange.
pub fn refused_topic(
    what: Permission,
    routing_key: &[u8],
    exchange: &str,
    vhost: &str,
    user: &str,
) -> Exception {
    let text = format!(
        "{} access to topic '{}' in {} refused for user '{user}'",
        what.as_str(),
        short::shown(routing_key),
        exchange_name(exchange, vhost)
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
    use crate::broker::arguments::QueueType;
    use crate::protocol::field_table::FieldTable;

    fn text(e: Exception) -> (u16, String) {
        match e {
            Exception::Channel(code, text) => (code.number(), text),
            Exception::Connection(code, text) => (code.number(), text),
        }
    }

    /// Each row is what RabbitMQ 4.3.6 says.
    #[test]
    fn refusals_of_the_topology() {
        use TopologyError as E;
        let q = "queue 'q' in vhost '/'";
        let x = "exchange 'x' in vhost '/'";
        let name = String::from;
        let rows = [
            (E::NoExchange(name("x")), 404, format!("no {x}")),
            (
                E::NoExchange(name("")),
                404,
                name("no exchange '' in vhost '/'"),
            ),
            (E::NoQueue(name("q")), 404, format!("no {q}")),
            (
                E::UnknownType(name("nope")),
                406,
                name("unknown exchange type 'nope'"),
            ),
            (
                E::ReservedName {
                    queue: true,
                    name: name("amq.x"),
                },
                403,
                name("queue name 'amq.x' contains reserved prefix 'amq.*'"),
            ),
            (
                E::ReservedName {
                    queue: false,
                    name: name("amq.x"),
                },
                403,
                name("exchange name 'amq.x' contains reserved prefix 'amq.*'"),
            ),
            (
                E::DefaultExchange,
                403,
                name("operation not permitted on the default exchange"),
            ),
            (
                E::SystemExchange(name("amq.direct")),
                403,
                name("deletion of system exchange 'amq.direct' in vhost '/' not allowed"),
            ),
            (
                E::Locked(name("q")),
                405,
                format!(
                    "cannot obtain exclusive access to locked {q}. It could be originally declared on another \
                     connection or the exclusive property value does not match that of the original declaration."
                ),
            ),
            (
                E::ExchangeArgumentType(name("x"), "alternate-exchange", "signedint"),
                406,
                format!("invalid type 'signedint' for arg 'alternate-exchange' in {x}"),
            ),
            (
                E::Match(MatchArgumentError::Value(b"foo".to_vec())),
                406,
                name(
                    "Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x",
                ),
            ),
            (
                E::Match(MatchArgumentError::Type(FieldValue::I32(1))),
                406,
                name("Invalid x-match field type signedint (value 1); expected longstr"),
            ),
            (
                E::Match(MatchArgumentError::Type(FieldValue::Bytes(b"any".to_vec()))),
                406,
                name("Invalid x-match field type binary (value <<\"any\">>); expected longstr"),
            ),
            (
                E::TopicHashes(name("#.a.#.b.#"), 3),
                406,
                name("Topic binding key '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed"),
            ),
            (E::QueueInUse(name("q")), 406, format!("{q} in use")),
            (E::QueueNotEmpty(name("q")), 406, format!("{q} not empty")),
            (E::ExchangeInUse(name("x")), 406, format!("{x} in use")),
            (E::LogFailed, 541, name("the message log has failed")),
        ];
        for (error, code, want) in rows {
            assert_eq!(text(topology(&error, "/")), (code, want));
        }
    }

    /// Each row is what RabbitMQ 4.3.6 says.
    #[test]
    fn inequivalent_arguments_show_both_sides() {
        use FieldValue::{Array, Bool, Decimal, F64, I32, I64, LongStr, Table, Timestamp, Void};
        let string = |s: &str| LongStr(s.into());
        let array = Array(vec![I32(1)]);
        let mut t = FieldTable::new();
        t.insert("a", I32(1));
        let rows = [
            (
                Some(string("false")),
                Some(string("true")),
                "received 'false' but current is 'true'",
            ),
            (
                Some(Bool(true)),
                Some(I32(1)),
                "received 'true' but current is '1'",
            ),
            (
                Some(I64(20_000)),
                Some(I32(10_000)),
                "received '20000' but current is '10000'",
            ),
            (
                Some(F64(1.0)),
                Some(I32(1)),
                "received '1.0' but current is '1'",
            ),
            (
                None,
                Some(I32(1)),
                "received none but current is the value '1' of type 'signedint'",
            ),
            (
                Some(I64(1)),
                None,
                "received the value '1' of type 'long' but current is none",
            ),
            (
                Some(F64(1.5)),
                None,
                "received the value '1.5' of type 'double' but current is none",
            ),
            (
                Some(string("x")),
                None,
                "received the value 'x' of type 'longstr' but current is none",
            ),
            (
                Some(Bool(false)),
                None,
                "received the value 'false' of type 'bool' but current is none",
            ),
            (
                Some(Void),
                None,
                "received the value 'undefined' of type 'void' but current is none",
            ),
            (
                Some(Decimal {
                    scale: 1,
                    value: 15,
                }),
                None,
                "received the value '{1,15}' of type 'decimal' but current is none",
            ),
            (
                Some(Timestamp(5)),
                None,
                "received the value '5' of type 'timestamp' but current is none",
            ),
            (
                Some(array),
                None,
                "received the value '[{signedint,1}]' of type 'array' but current is none",
            ),
            (
                Some(Table(t)),
                Some(I32(1)),
                "received '[{<<\"a\">>,signedint,1}]' but current is '1'",
            ),
        ];
        for (received, current, want) in rows {
            let e = Inequivalent {
                argument: "x-arg",
                received,
                current,
            };
            let want =
                |resource| format!("inequivalent arg 'x-arg' for {resource} in vhost '/': {want}");
            let error = topology(&TopologyError::QueueDiffers("q".into(), e.clone()), "/");
            assert_eq!(text(error), (406, want("queue 'q'")));
            let error = topology(&TopologyError::ExchangeDiffers("x".into(), e), "/");
            assert_eq!(text(error), (406, want("exchange 'x'")));
        }
    }

    #[test]
    fn values_are_written_as_erlang_does() {
        assert_eq!(binary("é\"q\n".as_bytes()), "<<\"é\\\"q\\n\"/utf8>>");
        assert_eq!(binary(&[0, 255]), "<<0,255>>");
        assert_eq!(
            (float(1e20), float(-1.5e-7)),
            ("1.0e20".into(), "-1.5e-7".into())
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
        let rows = [
            (
                Problem::ExpectedInteger("longstr"),
                "\"expected integer, got longstr\"",
            ),
            (
                Problem::UnacceptableType("signedint"),
                "{unacceptable_type,signedint}",
            ),
            (Problem::ValueNegative(-1), "{value_negative,-1}"),
            (Problem::ValueZero, "{value_zero,0}"),
            (
                Problem::ValueTooLarge(315_360_000_001),
                "{value_too_large,315360000001}",
            ),
            (Problem::MaxValueExceeded(256), "{max_value_exceeded,256}"),
            (Problem::InvalidOverflow("foo".into()), "invalid_overflow"),
            (
                Problem::RoutingKeyWithoutExchange,
                "routing_key_but_no_dlx_defined",
            ),
            (
                Problem::UnsupportedQueueType("foo".into()),
                "\"unsupported queue type 'foo'\"",
            ),
            (
                Problem::UnsupportedQueueVersion(1),
                "\"unsupported queue version '1'\"",
            ),
            (Problem::InvalidQueueLocator, "invalid_queue_locator_arg"),
            (Problem::TooLong(256), "{value_too_long,256}"),
        ];
        for (problem, want) in rows {
            let want = format!("invalid arg 'x-arg' for queue 'q' in vhost '/': {want}");
            assert_eq!(e("x-arg", problem), (406, want));
        }
        let want =
            "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'";
        let got = e("x-dead-letter-exchange", Problem::InvalidType("signedint"));
        assert_eq!(got, (406, want.into()));
        let want =
            "invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue";
        assert_eq!(
            e("x-max-age", Problem::NotForThisType(QueueType::Classic)),
            (406, want.into())
        );
    }
}
