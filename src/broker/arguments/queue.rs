//! Arguments of queues.
//!
//! One table names every argument that RabbitMQ honours for a queue, how it is read, and whether a
//! redeclaration compares it.

use super::deduplication::{DEDUPLICATION_ARGUMENTS, DeduplicationSettings};
use super::equivalence::{Inequivalent, equivalent};
use super::queue_type::QueueType;
use super::value::{ArgumentError, MILLIS_MAX, Problem, count, integer, millis, short, text};
use crate::protocol::field_table::{FieldTable, FieldValue};

/// What happens to messages beyond a queue's length limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Overflow {
    /// The oldest is dropped or dead-lettered.
    #[default]
    DropHead,
    /// The new one is refused.
    RejectPublish,
    /// The new one is refused and dead-lettered.
    RejectPublishDlx,
}

/// Where dead messages go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeadLetterTarget {
    /// Exchange; empty for the default exchange.
    pub exchange: Box<[u8]>,
    /// Routing key instead of the message's own.
    pub routing_key: Option<Box<[u8]>>,
}

/// The type that the arguments ask for.
fn queue_type_of(arguments: &FieldTable) -> Result<QueueType, Problem> {
    let asked = arguments.get("x-queue-type").map(text).transpose()?;
    match asked.as_deref() {
        // RabbitMQ takes an empty type for the default.
        None | Some("" | "classic") => Ok(QueueType::Classic),
        Some("quorum") => Ok(QueueType::Quorum),
        Some(other) => Err(Problem::UnsupportedQueueType(other.to_string())),
    }
}

/// Returns after which a quorum queue gives a message up, unless it is told otherwise.
pub const DELIVERY_LIMIT: u16 = 20;

/// The highest priority in a quorum queue, and the one of messages without.
const QUORUM_PRIORITY_MAX: u8 = 31;
const QUORUM_PRIORITY_DEFAULT: u8 = 4;

/// What a queue's arguments mean. Times in milliseconds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueueSettings {
    /// `x-message-ttl`
    pub message_ttl: Option<u64>,
    /// `x-expires`: an unused queue goes after this.
    pub expires: Option<u64>,
    /// `x-max-length`: ready messages.
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`: bytes of their bodies.
    pub max_length_bytes: Option<u64>,
    /// `x-overflow`
    pub overflow: Overflow,
    /// `x-dead-letter-exchange` and `x-dead-letter-routing-key`
    pub dead_letter: Option<DeadLetterTarget>,
    /// `x-max-priority`; none: one level.
    pub max_priority: Option<u8>,
    /// `x-single-active-consumer`
    pub single_active_consumer: bool,
    /// `x-queue-type`
    pub queue_type: QueueType,
    /// Priority of messages without.
    pub default_priority: u8,
    /// `x-delivery-limit`: failed deliveries that a message survives.
    pub delivery_limit: Option<u16>,
    /// `x-delayed-retry-type`, `x-delayed-retry-min`, `x-delayed-retry-max`
    pub delayed_retry: DelayedRetry,
    /// `x-dead-letter-strategy`: a dead letter that nobody takes is kept until somebody does. As in
    /// RabbitMQ only with `reject-publish` and a dead-letter exchange.
    pub at_least_once: bool,
    /// `x-consumer-timeout`, milliseconds; zero: none. Of the server if not given.
    pub consumer_timeout: Option<u64>,
    /// `x-message-deduplication` and what goes with it.
    pub deduplication: Option<DeduplicationSettings>,
}

/// How long a message that came back to a quorum queue waits before it is tried again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DelayedRetry {
    /// After a delivery that failed: rejected with requeue, or the consumer was lost.
    pub failed: bool,
    /// After any other return.
    pub returned: bool,
    /// Milliseconds for each delivery that failed.
    pub min: u64,
    /// The longest wait, milliseconds; none: `min`.
    pub max: Option<u64>,
}

impl DelayedRetry {
    /// Milliseconds to wait after `delivery_count` failures; zero: none.
    pub fn delay(&self, failed: bool, delivery_count: u16) -> u64 {
        let applies = if failed { self.failed } else { self.returned };
        if !applies {
            return 0;
        }
        let times = u64::from(delivery_count).max(1);
        (self.min * times).min(self.max.unwrap_or(self.min))
    }
}

type Parse = fn(&mut QueueSettings, &FieldValue) -> Result<(), Problem>;

struct Argument {
    key: &'static str,
    /// The only type of queue that it is for, if there is one.
    only: Option<QueueType>,
    /// RabbitMQ looks at the dead-letter exchange and at the type of the queue before the rest.
    first: bool,
    parse: Parse,
}

const fn argument(key: &'static str, parse: Parse) -> Argument {
    Argument {
        key,
        only: None,
        first: false,
        parse,
    }
}

const fn first_argument(key: &'static str, parse: Parse) -> Argument {
    Argument {
        key,
        only: None,
        first: true,
        parse,
    }
}

const fn classic(key: &'static str, parse: Parse) -> Argument {
    Argument {
        key,
        only: Some(QueueType::Classic),
        first: false,
        parse,
    }
}

const fn quorum(key: &'static str, parse: Parse) -> Argument {
    Argument {
        key,
        only: Some(QueueType::Quorum),
        first: false,
        parse,
    }
}

/// Every argument of a queue that is validated, and compared when the queue is declared
/// again, in RabbitMQ's order: of two that do not do, it names the first.
const QUEUE_ARGUMENTS: &[Argument] = &[
    argument("x-expires", |s, v| match millis(v)? {
        0 => Err(Problem::ValueZero),
        ms => set(&mut s.expires, ms),
    }),
    argument("x-message-ttl", |s, v| set(&mut s.message_ttl, millis(v)?)),
    first_argument("x-dead-letter-exchange", |s, v| {
        let Some(exchange) = v.as_octets() else {
            return Err(Problem::InvalidType(v.type_name()));
        };
        short(exchange)?;
        s.dead_letter = Some(DeadLetterTarget {
            exchange: exchange.into(),
            routing_key: None,
        });
        Ok(())
    }),
    argument("x-dead-letter-routing-key", |s, v| {
        let unacceptable = Problem::UnacceptableType(v.type_name());
        let key = short(v.as_octets().ok_or(unacceptable)?)?;
        match &mut s.dead_letter {
            Some(target) => set(&mut target.routing_key, key.into()),
            None => Err(Problem::RoutingKeyWithoutExchange),
        }
    }),
    argument("x-max-length", |s, v| set(&mut s.max_length, count(v)?)),
    argument("x-max-length-bytes", |s, v| {
        set(&mut s.max_length_bytes, count(v)?)
    }),
    classic("x-max-priority", |s, v| match integer(v)? {
        n if n < 0 => Err(Problem::ValueNegative(n)),
        n => set(
            &mut s.max_priority,
            u8::try_from(n).map_err(|_| Problem::MaxValueExceeded(n))?,
        ),
    }),
    argument("x-overflow", |s, v| {
        s.overflow = match &*text(v)? {
            "drop-head" => Overflow::DropHead,
            "reject-publish" => Overflow::RejectPublish,
            "reject-publish-dlx" => Overflow::RejectPublishDlx,
            other => return Err(Problem::InvalidOverflow(other.to_string())),
        };
        Ok(())
    }),
    // Without effect since RabbitMQ 3.12: any value is taken, and compared.
    classic("x-queue-mode", |_, _| Ok(())),
    classic("x-queue-version", |_, v| match integer(v)? {
        2 => Ok(()),
        n => Err(Problem::UnsupportedQueueVersion(n)),
    }),
    argument("x-single-active-consumer", |s, v| {
        let FieldValue::Bool(on) = v else {
            return Err(Problem::UnacceptableType(v.type_name()));
        };
        s.single_active_consumer = *on;
        Ok(())
    }),
    // Read before all others.
    first_argument("x-queue-type", |_, _| Ok(())),
    // On one node there is one choice; what RabbitMQ takes is taken.
    argument("x-queue-leader-locator", |_, v| match &*text(v)? {
        "client-local" | "balanced" | "random" | "least-leaders" | "min-masters" => Ok(()),
        _ => Err(Problem::InvalidQueueLocator),
    }),
    // RabbitMQ takes a value of any type; what is no number changes nothing.
    quorum("x-delivery-limit", |s, v| {
        if let Some(n) = v.as_integer() {
            // Below zero: no limit.
            s.delivery_limit = (n >= 0).then(|| u16::try_from(n).unwrap_or(u16::MAX));
        }
        Ok(())
    }),
    quorum("x-dead-letter-strategy", |s, v| match &*text(v)? {
        strategy @ ("at-most-once" | "at-least-once") => {
            s.at_least_once = strategy == "at-least-once";
            Ok(())
        }
        _ => Err(Problem::InvalidDlxStrategy),
    }),
    // RabbitMQ takes any value for these three; what it does not know changes nothing.
    quorum("x-delayed-retry-type", |s, v| {
        let kind = v.as_str().unwrap_or("disabled");
        s.delayed_retry.failed = matches!(kind, "all" | "failed");
        s.delayed_retry.returned = matches!(kind, "all" | "returned");
        Ok(())
    }),
    quorum("x-delayed-retry-min", |s, v| {
        s.delayed_retry.min = retry_millis(v).unwrap_or(0);
        Ok(())
    }),
    quorum("x-delayed-retry-max", |s, v| {
        s.delayed_retry.max = retry_millis(v);
        Ok(())
    }),
    // One node is the group, whatever its size was to be.
    quorum("x-quorum-initial-group-size", |_, v| match count(v)? {
        0 => Err(Problem::ValueZero),
        _ => Ok(()),
    }),
    quorum("x-consumer-timeout", |s, v| {
        set(&mut s.consumer_timeout, millis(v)?)
    }),
    // Without effect in RabbitMQ 4, too.
    quorum("x-max-in-memory-length", |_, v| count(v).map(drop)),
    quorum("x-max-in-memory-bytes", |_, v| count(v).map(drop)),
    // A consumer cannot be separated from the one node without losing its connection.
    quorum("x-consumer-disconnected-timeout", |_, v| {
        millis(v).map(drop)
    }),
];

/// Known to RabbitMQ for streams only.
const STREAM_ARGUMENTS: &[&str] = &[
    "x-initial-cluster-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
];

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Problem> {
    *place = Some(value);
    Ok(())
}

/// Milliseconds, where a number that makes no sense is none.
fn retry_millis(v: &FieldValue) -> Option<u64> {
    let n = u64::try_from(v.as_integer()?).ok()?;
    Some(n.min(MILLIS_MAX as u64))
}

impl QueueSettings {
    /// Parses the arguments of `queue.declare`.
    ///
    /// # Errors
    /// The first argument that does not do.
    pub fn parse(arguments: &FieldTable) -> Result<QueueSettings, ArgumentError> {
        let mut settings = QueueSettings::default();
        settings.read(arguments, &mut Err)?;
        Ok(settings)
    }

    /// Reads the arguments of a queue that was declared: what this version refuses is left out, and
    /// `refused` is told. A queue of an unknown type is none that this version can serve.
    ///
    /// # Errors
    /// The type of the queue.
    pub fn restore(
        arguments: &FieldTable,
        mut refused: impl FnMut(ArgumentError),
    ) -> Result<QueueSettings, ArgumentError> {
        let mut settings = QueueSettings::default();
        settings.read(arguments, &mut |e| {
            if e.argument == "x-queue-type" {
                return Err(e);
            }
            refused(e);
            Ok(())
        })?;
        Ok(settings)
    }

    /// Reads the arguments; `problem` says whether to go on without one that does not do.
    fn read(
        &mut self,
        arguments: &FieldTable,
        problem: &mut dyn FnMut(ArgumentError) -> Result<(), ArgumentError>,
    ) -> Result<(), ArgumentError> {
        // RabbitMQ looks at this before the type.
        if let Some(exchange) = arguments.get("x-dead-letter-exchange")
            && exchange.as_octets().is_none()
        {
            problem(ArgumentError {
                argument: "x-dead-letter-exchange",
                problem: Problem::InvalidType(exchange.type_name()),
            })?;
        }
        match queue_type_of(arguments) {
            Ok(queue_type) => self.queue_type = queue_type,
            Err(e) => problem(ArgumentError {
                argument: "x-queue-type",
                problem: e,
            })?,
        }
        if self.queue_type == QueueType::Quorum {
            self.max_priority = Some(QUORUM_PRIORITY_MAX);
            self.default_priority = QUORUM_PRIORITY_DEFAULT;
            self.delivery_limit = Some(DELIVERY_LIMIT);
        }
        let queue_type = self.queue_type;
        let not_for_this = |argument| ArgumentError {
            argument,
            problem: Problem::NotForThisType(queue_type),
        };
        for round in [true, false] {
            for argument in QUEUE_ARGUMENTS.iter().filter(|a| a.first == round) {
                let Some(value) = arguments.get(argument.key) else {
                    continue;
                };
                if argument.only.is_some_and(|only| only != queue_type) {
                    problem(not_for_this(argument.key))?;
                    continue;
                }
                if let Err(e) = (argument.parse)(self, value) {
                    if argument.key == "x-dead-letter-routing-key" {
                        // With another key it would go to another place.
                        self.dead_letter = None;
                    }
                    problem(ArgumentError {
                        argument: argument.key,
                        problem: e,
                    })?;
                }
            }
        }
        match DeduplicationSettings::parse(arguments, false) {
            Ok(deduplication) => self.deduplication = deduplication,
            Err(e) => problem(e)?,
        }
        let given = |list: &'static [&'static str]| {
            list.iter()
                .copied()
                .find(|key| arguments.get(key).is_some())
        };
        if let Some(argument) = given(STREAM_ARGUMENTS) {
            problem(not_for_this(argument))?;
        }
        self.at_least_once &=
            self.dead_letter.is_some() && self.overflow == Overflow::RejectPublish;
        Ok(())
    }
}

/// Compares the arguments of a redeclaration with those a queue has.
///
/// # Errors
/// The first difference that matters.
pub fn queue_equivalence(current: &FieldTable, received: &FieldTable) -> Result<(), Inequivalent> {
    let keys = QUEUE_ARGUMENTS.iter().map(|a| a.key);
    for key in keys.chain(DEDUPLICATION_ARGUMENTS) {
        let (have, got) = (current.get(key), received.get(key));
        let classic = FieldValue::from("classic");
        let (have, got) = match key {
            "x-queue-type" => {
                let named = |v: &&FieldValue| v.as_str() != Some("");
                let (have, got) = (have.filter(named), got.filter(named));
                (have.or(Some(&classic)), got.or(Some(&classic)))
            }
            _ => (have, got),
        };
        equivalent(key, have, got)?;
    }
    Ok(())
}
