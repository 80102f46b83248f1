//! What the scenarios share: connections, waits with a deadline, and the shape of a refusal.

use std::{
    env,
    fmt::Debug,
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_lite::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, Error, ErrorKind,
    message::Delivery,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};

/// What has not come by then does not come.
const DEADLINE: Duration = Duration::from_secs(15);

/// Address of the broker under test.
pub fn url() -> String {
    env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2F".into())
}

/// Waits for `what`, and fails when it does not come in time.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("what was waited for came in time")
}

pub async fn connect() -> Connection {
    soon(Connection::connect(&url(), ConnectionProperties::default()))
        .await
        .expect("the broker accepts guest")
}

/// A channel in confirm mode: an awaited publish is in its queues.
pub async fn confirming(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    channel
}

/// A name that nobody else uses.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("interop.lapin.{}.{number}.{word}", std::process::id())
}

/// Declares an exclusive, server-named queue and returns its name.
pub async fn queue(channel: &Channel) -> String {
    queue_with(channel, FieldTable::default()).await
}

/// The same with arguments.
pub async fn queue_with(channel: &Channel, arguments: FieldTable) -> String {
    channel
        .queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments)
        .await
        .expect("declare")
        .name()
        .to_string()
}

/// How many messages of the queue are ready.
pub async fn ready(channel: &Channel, queue: &str) -> u32 {
    channel
        .queue_declare(
            queue.into(),
            QueueDeclareOptions::default().passive(),
            FieldTable::default(),
        )
        .await
        .expect("the queue is there")
        .message_count()
}

/// Publishes through the default exchange and waits for the confirm, if the channel has confirms.
pub async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    publish_with(channel, queue, body, BasicProperties::default()).await;
}

/// The same with properties.
pub async fn publish_with(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) {
    let confirm = channel
        .basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body,
            properties,
        )
        .await
        .expect("publish");
    assert!(!soon(confirm).await.expect("confirm").is_nack());
}

/// Consumes under a tag that the server chooses.
pub async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("consume")
}

/// The next delivery.
pub async fn next(consumer: &mut Consumer) -> Delivery {
    soon(consumer.next())
        .await
        .expect("the consumer goes on")
        .expect("a delivery")
}

/// The bodies of the next `count` deliveries, unacknowledged.
pub async fn bodies(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut result = Vec::new();
    for _ in 0..count {
        result.push(String::from_utf8(next(consumer).await.data).expect("text"));
    }
    result
}

/// Reply code and text of an error that the broker sent.
pub fn refusal(error: &Error) -> (u16, String) {
    match error.kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("not the broker's error: {other:?}"),
    }
}

/// The refusal of an operation that has to fail.
pub fn refused<T: Debug>(result: Result<T, Error>) -> (u16, String) {
    refusal(&result.expect_err("the operation is refused"))
}

/// A table of the given entries.
pub fn table<const N: usize>(entries: [(&str, lapin::types::AMQPValue); N]) -> FieldTable {
    let mut result = FieldTable::default();
    for (key, value) in entries {
        result.insert(key.into(), value);
    }
    result
}
