//! The octets of every kind of definition: what `docs/format.md` says, and what folders out there have.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::access::User;
use crate::broker::arguments::QueueType;
use crate::broker::ports::{Definition, DefinitionKind};
use crate::broker::vhost::tests::{Store, bind, exchange, queue};
use crate::golden;
use crate::protocol::field_table::FieldValue;

/// Kind, key and value as the journal has them.
fn octets((kind, key, value): &Definition) -> Vec<u8> {
    let mut out = vec![kind.number()];
    for part in [key, value] {
        out.extend((part.len() as u32).to_be_bytes());
        out.extend(part);
    }
    out
}

#[test]
fn the_octets_of_definitions_are_those_of_their_format() {
    let store = Arc::new(Store::default());
    let (broker, _) = Broker::new(store.clone(), &[]);
    broker.add_vhost("v").expect("stored");
    let v = broker.vhost("v").expect("added");
    let default = broker.put_default_queue_type(&v, QueueType::Quorum);
    default.expect("stored");
    let user = User {
        name: "me".into(),
        password_hash: "aGFzaA==".into(),
        hashing_algorithm: "rabbit_password_hashing_sha256".into(),
        tags: vec!["monitoring".into()],
    };
    broker.put_user(user).expect("stored");
    let patterns = ["a", "b", "c"];
    broker.put_permissions("me", "v", patterns).expect("stored");
    let topic = broker.put_topic_permissions(["me", "v", "amq.topic"], ["w", "r"]);
    topic.expect("stored");
    let limit = ("max-queues".to_string(), 10);
    let limits = broker.put_limits("vhost-limits", "v", &[limit]);
    limits.expect("stored");
    let alternate = ("alternate-exchange", FieldValue::from("other"));
    exchange(&v, "x", "topic", "dai", &[alternate]).expect("declared");
    exchange(
        &v,
        "later",
        "x-delayed-message",
        "d",
        &[("x-delayed-type", "direct".into())],
    )
    .expect("declared");
    queue(&v, "q", "da");
    bind(&v, "x", "q", "a.#", &[("n", FieldValue::I32(5))]).expect("bound");
    bind(&v, "x", "later", "", &[]).expect("bound");
    let stored = store.definitions();
    let made: Vec<(String, Vec<u8>)> = stored
        .iter()
        .map(|definition| {
            let (kind, key, _) = definition;
            let last = match kind {
                DefinitionKind::Exchange | DefinitionKind::Queue => {
                    let parts = super::key_parts(key).expect("a key");
                    format!(" {}", parts.last().expect("a name"))
                }
                DefinitionKind::Binding => match key.windows(5).any(|w| w == b"queue") {
                    true => " to a queue".into(),
                    false => " to an exchange".into(),
                },
                _ => String::new(),
            };
            (format!("{kind:?}{last}"), octets(definition))
        })
        .collect();
    let made: Vec<_> = made.iter().map(|(n, o)| (n.as_str(), o.clone())).collect();
    golden::check("definitions.txt", &made);
}
