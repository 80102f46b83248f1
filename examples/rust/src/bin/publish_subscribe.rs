//! Publish and subscribe: everybody who subscribed to a topic gets a copy of what is published to it.

use futures_lite::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind, Result};

const EXCHANGE: &str = "example.events";

/// A queue of its own for this subscriber, which goes with its connection.
async fn subscribe(channel: &Channel, topic: &str) -> Result<Consumer> {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await?;
    let name = queue.name().clone();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(name.clone(), EXCHANGE.into(), topic.into(), options, none)
        .await?;
    // What is delivered counts as acknowledged: a subscriber that is gone misses events anyway.
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(name, "".into(), options, FieldTable::default())
        .await
}

#[tokio::main]
async fn main() -> Result<()> {
    let connection = leveret_examples::connect().await?;
    let channel = connection.create_channel().await?;
    let (options, none) = (ExchangeDeclareOptions::default(), FieldTable::default());
    channel
        .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, none)
        .await?;
    let mut orders = subscribe(&channel, "order.*").await?;
    let mut all = subscribe(&channel, "#").await?;

    let events = ["order.placed", "customer.new", "order.paid"];
    for topic in events {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let body = format!("{topic} happened");
        channel
            .basic_publish(
                EXCHANGE.into(),
                topic.into(),
                options,
                body.as_bytes(),
                properties,
            )
            .await?;
    }

    let (mut left_of_orders, mut left_of_all) = (2, events.len());
    while left_of_orders + left_of_all > 0 {
        let (who, left, next) = match left_of_orders {
            0 => ("all", &mut left_of_all, all.next().await),
            _ => ("orders", &mut left_of_orders, orders.next().await),
        };
        let Some(delivery) = next else { break };
        println!("{who}: {}", String::from_utf8_lossy(&delivery?.data));
        *left -= 1;
    }
    channel
        .exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default())
        .await?;
    connection.close(200, "done".into()).await
}
