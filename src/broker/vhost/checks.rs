//! Whether a declaration or a binding is one that can be, and the same as the one that is there.

use super::*;

/// Whether a queue of this type can have these properties.
pub(super) fn fits(
    d: &QueueDeclare<'_>,
    name: &str,
    queue_type: QueueType,
) -> Result<(), TopologyError> {
    if queue_type == QueueType::Classic {
        return Ok(());
    }
    if d.name.is_empty() {
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
        ExchangeType::Direct | ExchangeType::Fanout => Ok(()),
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
    let alternate = "alternate-exchange";
    equivalent(
        alternate,
        info.arguments.get(alternate),
        d.arguments.get(alternate),
    )
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
