//! Remote procedure calls: requests go through a queue, replies come straight to the channel that asked
//! (`amq.rabbitmq.reply-to`), without a queue for them.

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer, Result};

const QUEUE: &str = "example.squares";
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Answers each request with the square of the number in it.
async fn serve(channel: &Channel, mut requests: Consumer) -> Result<()> {
    while let Some(request) = requests.next().await {
        let request = request?;
        let number: i64 = String::from_utf8_lossy(&request.data).parse().unwrap_or(0);
        if let Some(reply_to) = request.properties.reply_to() {
            let mut properties = BasicProperties::default();
            if let Some(id) = request.properties.correlation_id() {
                properties = properties.with_correlation_id(id.clone());
            }
            let options = BasicPublishOptions::default();
            let body = (number * number).to_string();
            channel
                .basic_publish(
                    "".into(),
                    reply_to.clone(),
                    options,
                    body.as_bytes(),
                    properties,
                )
                .await?;
        }
        request.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// Asks, and waits for each answer.
async fn ask(channel: &Channel) -> Result<()> {
    let options = BasicConsumeOptions {
        no_ack: true, // Direct reply-to demands it.
        ..BasicConsumeOptions::default()
    };
    let mut replies = channel
        .basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default())
        .await?;
    for number in 2..=4 {
        let properties = BasicProperties::default()
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(number.to_string().into());
        let options = BasicPublishOptions::default();
        let body = number.to_string();
        channel
            .basic_publish(
                "".into(),
                QUEUE.into(),
                options,
                body.as_bytes(),
                properties,
            )
            .await?;
        let Some(reply) = replies.next().await else {
            break;
        };
        let reply = reply?;
        let id = reply.properties.correlation_id();
        assert_eq!(id.as_ref().map(|id| id.as_str()), Some(body.as_str()));
        println!(
            "{number} squared is {}",
            String::from_utf8_lossy(&reply.data)
        );
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let connection = leveret_examples::connect().await?;
    let server = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    server
        .queue_declare(QUEUE.into(), options, FieldTable::default())
        .await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let requests = server
        .basic_consume(QUEUE.into(), "server".into(), options, none)
        .await?;
    let client = connection.create_channel().await?;
    tokio::select! {
        ended = serve(&server, requests) => ended?,
        ended = ask(&client) => ended?,
    }
    connection.close(200, "done".into()).await
}
