//! The entries of a definitions file, as they are written.

use serde::Deserialize;
use serde_json::Value;

pub(super) type Object = serde_json::Map<String, Value>;

#[derive(Debug, Deserialize)]
pub(super) struct Vhost {
    pub(super) name: String,
    /// The firehose, as in `PUT /api/vhosts/{name}`.
    pub(super) tracing: Option<bool>,
    #[serde(default)]
    pub(super) metadata: Object,
    pub(super) default_queue_type: Option<String>,
    #[serde(default)]
    pub(super) limits: Value,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Tags {
    List(Vec<String>),
    Text(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) name: String,
    #[serde(default)]
    pub(super) password_hash: String,
    pub(super) password: Option<String>,
    pub(super) hashing_algorithm: Option<String>,
    pub(super) tags: Option<Tags>,
    /// `max-connections`, `max-channels`
    #[serde(default)]
    pub(super) limits: Value,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parameter {
    pub(super) vhost: String,
    pub(super) component: String,
    pub(super) name: String,
    pub(super) value: Value,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Permission {
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) configure: String,
    pub(super) write: String,
    pub(super) read: String,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct TopicPermission {
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) exchange: String,
    pub(super) write: String,
    pub(super) read: String,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) vhost: String,
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) durable: bool,
    #[serde(default)]
    pub(super) auto_delete: bool,
    #[serde(default)]
    pub(super) internal: bool,
    #[serde(default)]
    pub(super) arguments: Object,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) vhost: String,
    /// `x-queue-type` once more, in exports of RabbitMQ 4.
    pub(super) r#type: Option<String>,
    #[serde(default)]
    pub(super) durable: bool,
    #[serde(default)]
    pub(super) auto_delete: bool,
    #[serde(default)]
    pub(super) arguments: Object,
    #[serde(flatten)]
    pub(super) rest: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Binding {
    pub(super) source: String,
    pub(super) vhost: String,
    pub(super) destination: String,
    pub(super) destination_type: String,
    #[serde(default)]
    pub(super) routing_key: String,
    #[serde(default)]
    pub(super) arguments: Object,
    #[serde(flatten)]
    pub(super) rest: Object,
}
