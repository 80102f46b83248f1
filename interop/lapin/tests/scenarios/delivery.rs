//! Consumers, acknowledgements, and what the server names.

use futures_lite::StreamExt;
use lapin::{
    BasicProperties,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions,
        BasicNackOptions, BasicQosOptions, BasicRecoverAsyncOptions, BasicRejectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};

use crate::support::{
    bodies, confirming, connect, consume, next, publish, publish_with, queue, ready, soon, unique,
};

fn is_generated(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|random| {
        random.len() == 22
            && random
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

#[tokio::test]
async fn the_server_names_queues_and_consumers() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let name = queue(&channel).await;
    assert!(is_generated(&name, "amq.gen-"), "{name}");
    let (one, two) = (
        consume(&channel, &name).await,
        consume(&channel, &name).await,
    );
    assert!(
        is_generated(one.tag().as_str(), "amq.ctag-"),
        "{}",
        one.tag()
    );
    assert_ne!(one.tag(), two.tag());
}

#[tokio::test]
async fn prefetch_bounds_what_is_unacknowledged() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    for number in 0..6 {
        publish(&channel, &name, number.to_string().as_bytes()).await;
    }
    channel
        .basic_qos(2, BasicQosOptions::default())
        .await
        .expect("qos");
    let mut consumer = consume(&channel, &name).await;
    for round in 0..3 {
        let first = next(&mut consumer).await;
        let second = next(&mut consumer).await;
        assert_eq!(first.data, (2 * round).to_string().into_bytes());
        assert_eq!(ready(&channel, &name).await, 4 - 2 * round);
        second
            .acker
            .ack(BasicAckOptions { multiple: true })
            .await
            .expect("ack");
    }
}

#[tokio::test]
async fn what_is_requeued_returns_to_its_place() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    for number in 0..5 {
        publish(&channel, &name, number.to_string().as_bytes()).await;
    }
    let mut taken = Vec::new();
    for _ in 0..4 {
        let message = channel
            .basic_get(name.as_str().into(), BasicGetOptions::default())
            .await
            .expect("get")
            .expect("a message");
        assert_eq!(message.message_count as usize, 4 - taken.len());
        taken.push(message.delivery);
    }
    let requeue = BasicRejectOptions { requeue: true };
    for place in [2, 0, 3] {
        taken[place].acker.reject(requeue).await.expect("reject");
    }
    let nack = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    taken[1].acker.nack(nack).await.expect("nack");
    let mut consumer = consume(&channel, &name).await;
    for number in 0..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.data, number.to_string().into_bytes());
        assert_eq!(delivery.redelivered, number < 4);
    }
}

#[tokio::test]
async fn recover_async_redelivers() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let mut consumer = consume(&channel, &name).await;
    publish(&channel, &name, b"again").await;
    assert!(!next(&mut consumer).await.redelivered);
    channel
        .basic_recover_async(BasicRecoverAsyncOptions { requeue: true })
        .await
        .expect("recover");
    let again = next(&mut consumer).await;
    assert!(again.redelivered);
    assert_eq!(again.data, b"again");
}

#[tokio::test]
async fn deleting_the_queue_ends_its_consumer() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let name = queue(&channel).await;
    let mut consumer = consume(&channel, &name).await;
    let deleting = connection.create_channel().await.expect("a channel");
    deleting
        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
        .await
        .expect("delete");
    assert!(
        soon(consumer.next()).await.is_none(),
        "cancelled by the server"
    );
    assert!(channel.status().connected());
}

#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let consumer = consume(&channel, &name).await;
    channel
        .basic_cancel(consumer.tag(), BasicCancelOptions::default())
        .await
        .expect("cancel");
    publish(&channel, &name, b"stays").await;
    assert_eq!(ready(&channel, &name).await, 1);
    channel
        .basic_cancel("never-used".into(), BasicCancelOptions::default())
        .await
        .expect("an unknown tag is fine");
}

#[tokio::test]
async fn operations_may_go_unanswered() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = unique("nowait");
    let declared = QueueDeclareOptions {
        nowait: true,
        ..QueueDeclareOptions::exclusive()
    };
    channel
        .queue_declare(name.as_str().into(), declared, FieldTable::default())
        .await
        .expect("declare");
    let consumed = BasicConsumeOptions {
        nowait: true,
        ..BasicConsumeOptions::default()
    };
    let mut consumer = channel
        .basic_consume(
            name.as_str().into(),
            "mine".into(),
            consumed,
            FieldTable::default(),
        )
        .await
        .expect("consume");
    publish(&channel, &name, b"1").await;
    assert_eq!(bodies(&mut consumer, 1).await, ["1"]);
}

#[tokio::test]
async fn work_is_shared_fairly() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let mut consumers = Vec::new();
    for _ in 0..4 {
        let own = connection.create_channel().await.expect("a channel");
        consumers.push(consume(&own, &name).await);
    }
    for number in 0..40 {
        publish(&channel, &name, number.to_string().as_bytes()).await;
    }
    let mut seen = Vec::new();
    for consumer in &mut consumers {
        seen.extend(bodies(consumer, 10).await);
    }
    seen.sort_by_key(|body| body.parse::<u32>().expect("a number"));
    assert_eq!(seen, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn questions_are_answered_through_direct_reply_to() {
    const REPLY_TO: &str = "amq.rabbitmq.reply-to";
    let (asking, answering) = (connect().await, connect().await);
    let asker = confirming(&asking).await;
    let answerer = confirming(&answering).await;
    let name = queue(&answerer).await;
    let mut requests = consume(&answerer, &name).await;

    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut replies = asker
        .basic_consume(REPLY_TO.into(), "".into(), no_ack, FieldTable::default())
        .await
        .expect("consume");
    for number in 0..10 {
        let id = number.to_string();
        let properties = BasicProperties::default()
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(id.as_str().into());
        publish_with(&asker, &name, b"question", properties).await;
        let request = next(&mut requests).await;
        let address = request.properties.reply_to().clone().expect("reply_to");
        assert!(address.as_str().starts_with("amq.rabbitmq.reply-to."));
        let correlation = request.properties.correlation_id().clone().expect("id");
        let properties = BasicProperties::default().with_correlation_id(correlation);
        publish_with(&answerer, address.as_str(), b"answer", properties).await;
        let reply = next(&mut replies).await;
        assert_eq!(reply.data, b"answer");
        assert_eq!(reply.routing_key, address);
        assert_eq!(
            reply.properties.correlation_id().clone(),
            Some(id.as_str().into())
        );
    }
}
