//! Whether a declaration or a binding is one that can be, and the same as the one that is there.

use super::*;
use crate::broker::arguments::{DEDUPLICATION_ARGUMENTS, DeduplicationSettings, short};

/// Whether a queue of this type can have these properties.
pub(super) fn fits(
    d: &QueueDeclare<'_>,
    name: &str,
    queue_type: QueueType,
) -> Result<(), TopologyError> {
    if queue_type == QueueType::Classic {
        return Ok(());
    }
    if d.server_named {
        return Err(TopologyError::ServerNamed(queue_type));
    }
    let wrong = [
        (d.auto_delete, "auto-delete"),
        (d.exclusive, "exclusive-owner"),
        (!d.durable, "non-durable"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, property)) => Err(TopologyError::QueueProperty(name.into(), property)),
        None => Ok(()),
    }
}

/// Whether an exchange of this type takes such a binding.
pub(super) fn validate_binding(
    kind: ExchangeType,
    b: &BindingSpec<'_>,
) -> Result<(), TopologyError> {
    match kind {
        ExchangeType::Headers => HeadersMatch::of(b.arguments)
            .map(|_| ())
            .map_err(TopologyError::Match),
        ExchangeType::Topic => {
            let hashes = b.routing_key.split('.').filter(|word| *word == "#").count();
            if hashes <= TOPIC_HASHES_MAX {
                return Ok(());
            }
            Err(TopologyError::TopicHashes(b.routing_key.into(), hashes))
        }
        ExchangeType::ConsistentHash => parse_weight(b.routing_key)
            .map(|_| ())
            .map_err(|e| TopologyError::Weight(b.routing_key.into(), e)),
        ExchangeType::LocalRandom if !b.routing_key.is_empty() => {
            Err(TopologyError::BindingKeyNotEmpty(b.routing_key.into()))
        }
        ExchangeType::Direct
        | ExchangeType::Fanout
        | ExchangeType::ModulusHash
        | ExchangeType::Random
        | ExchangeType::LocalRandom
        | ExchangeType::RecentHistory
        | ExchangeType::Delayed
        | ExchangeType::Deduplication => Ok(()),
    }
}

/// Whether an exchange of this type can be declared with these arguments.
pub(super) fn check_exchange(
    kind: ExchangeType,
    d: &ExchangeDeclare<'_>,
) -> Result<(), TopologyError> {
    let mut strings = vec!["alternate-exchange"];
    if kind == ExchangeType::ConsistentHash {
        strings.extend(["hash-header", "hash-property"]);
    }
    for argument in strings {
        let Some(value) = d.arguments.get(argument) else {
            continue;
        };
        let name = d.name.to_string();
        let Some(octets) = value.as_octets() else {
            let got = value.type_name();
            return Err(TopologyError::ExchangeArgumentType(name, argument, got));
        };
        if argument == "alternate-exchange"
            && let Err(problem) = short(octets)
        {
            let e = ArgumentError { argument, problem };
            return Err(TopologyError::ExchangeArgument(name, e));
        }
    }
    if kind == ExchangeType::Deduplication
        && d.arguments
            .get("x-cache-size")
            .and_then(FieldValue::as_integer)
            .is_none_or(|n| n <= 0)
    {
        return Err(TopologyError::CacheSize);
    }
    DeduplicationSettings::parse(d.arguments, false)
        .map_err(|e| TopologyError::ExchangeArgument(d.name.into(), e))?;
    match kind {
        ExchangeType::ConsistentHash => {
            let property = d
                .arguments
                .get("hash-property")
                .and_then(FieldValue::as_octets)
                .map(crate::protocol::short::shown);
            match property.as_deref() {
                Some(_) if d.arguments.get("hash-header").is_some() => {
                    Err(TopologyError::HashHeaderAndProperty)
                }
                Some(name) if HashProperty::parse(name).is_none() => {
                    Err(TopologyError::HashProperty(name.into()))
                }
                _ => Ok(()),
            }
        }
        ExchangeType::RecentHistory => match d.arguments.get("x-recent-history-length") {
            Some(length) if length.as_integer().is_none_or(|n| n <= 0) => {
                Err(TopologyError::HistoryLength(length.clone()))
            }
            _ => Ok(()),
        },
        ExchangeType::Delayed => match delayed_type(d.arguments) {
            Some(_) => Ok(()),
            None => Err(TopologyError::DelayedType),
        },
        _ => Ok(()),
    }
}

pub(super) fn exchange_equivalence(
    info: &ExchangeInfo,
    kind: ExchangeType,
    d: &ExchangeDeclare<'_>,
) -> Result<(), Inequivalent> {
    let text = |kind: ExchangeType| FieldValue::from(kind.as_str());
    equivalent("type", Some(&text(info.kind)), Some(&text(kind)))?;
    flag("durable", info.durable, d.durable)?;
    flag("auto_delete", info.auto_delete, d.auto_delete)?;
    flag("internal", info.internal, d.internal)?;
    let mut compared = vec!["alternate-exchange"];
    if kind == ExchangeType::Delayed {
        compared.push("x-delayed-type");
    }
    compared.extend(DEDUPLICATION_ARGUMENTS);
    for argument in compared {
        equivalent(
            argument,
            info.arguments.get(argument),
            d.arguments.get(argument),
        )?;
    }
    Ok(())
}

pub(super) fn flag(
    argument: &'static str,
    current: bool,
    received: bool,
) -> Result<(), Inequivalent> {
    equivalent(
        argument,
        Some(&FieldValue::Bool(current)),
        Some(&FieldValue::Bool(received)),
    )
}

/// Whether a declaration fits the queue that is there: owner, durable, auto_delete, arguments, in
/// RabbitMQ's order.
pub(super) fn redeclare(
    info: &QueueInfo,
    d: &QueueDeclare<'_>,
    durable: bool,
) -> Result<(), TopologyError> {
    let owner = d.exclusive.then_some(d.connection);
    if info.exclusive_owner != owner {
        return Err(TopologyError::Locked(info.name.to_string()));
    }
    flag("durable", info.durable, durable)
        .and_then(|()| flag("auto_delete", info.auto_delete, d.auto_delete))
        .and_then(|()| queue_equivalence(&info.arguments, d.arguments))
        .map_err(|e| TopologyError::QueueDiffers(info.name.to_string(), e))
}
