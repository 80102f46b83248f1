//! Refusals: their codes, their texts, and what they cost.

use futures_lite::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ChannelFlowOptions,
        ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};

use crate::support::{
    confirming, connect, consume, publish, queue, ready, refusal, refused, soon, unique, url,
};

#[tokio::test]
async fn a_wrong_password_is_refused_with_403() {
    let wrong = url().replacen("guest:guest@", "guest:wrong@", 1);
    let result = soon(Connection::connect(&wrong, ConnectionProperties::default())).await;
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
                For details see the broker logfile.";
    assert_eq!(refused(result), (403, text.into()));
}

#[tokio::test]
async fn a_missing_vhost_is_refused_with_530() {
    let address = url();
    let (base, _) = address.rsplit_once('/').expect("the URL names a vhost");
    let result = soon(Connection::connect(
        &format!("{base}/no-such-vhost"),
        ConnectionProperties::default(),
    ))
    .await;
    let text = "NOT_ALLOWED - vhost no-such-vhost not found";
    assert_eq!(refused(result), (530, text.into()));
}

#[tokio::test]
async fn a_missing_queue_costs_only_the_channel() {
    let connection = connect().await;
    for _ in 0..5 {
        let channel = connection.create_channel().await.expect("a channel");
        let result = channel
            .queue_declare(
                "no-such-queue".into(),
                QueueDeclareOptions::default().passive(),
                FieldTable::default(),
            )
            .await;
        let text = "NOT_FOUND - no queue 'no-such-queue' in vhost '/'";
        assert_eq!(refused(result), (404, text.into()));
        assert!(!channel.status().connected());
        assert!(connection.status().connected());
    }
    let channel = connection.create_channel().await.expect("a channel");
    queue(&channel).await;
}

#[tokio::test]
async fn publishing_to_a_missing_exchange_fails_the_confirm() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let confirm = channel
        .basic_publish(
            "no-such-exchange".into(),
            "key".into(),
            BasicPublishOptions::default(),
            b"lost",
            BasicProperties::default(),
        )
        .await
        .expect("sent");
    let text = "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'";
    assert_eq!(refused(soon(confirm).await), (404, text.into()));
}

#[tokio::test]
async fn a_used_consumer_tag_costs_the_connection() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let name = queue(&channel).await;
    let first = channel
        .basic_consume(
            name.as_str().into(),
            "twice".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await;
    assert!(first.is_ok());
    let second = channel
        .basic_consume(
            name.as_str().into(),
            "twice".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await;
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 'twice'";
    assert_eq!(refused(second), (530, text.into()));
    assert!(!connection.status().connected());
}

#[tokio::test]
async fn immediate_is_not_implemented_and_costs_the_connection() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let options = BasicPublishOptions {
        immediate: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            "".into(),
            name.as_str().into(),
            options,
            b"now",
            BasicProperties::default(),
        )
        .await
        .expect("sent");
    let expected = (540, "NOT_IMPLEMENTED - immediate=true".into());
    assert_eq!(refused(soon(confirm).await), expected);
    assert!(!connection.status().connected());
}

#[tokio::test]
async fn stopping_the_flow_is_not_implemented_and_costs_the_connection() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let flowing = channel.channel_flow(ChannelFlowOptions { active: true });
    assert!(soon(flowing).await.expect("flow-ok"));
    let stopped = channel.channel_flow(ChannelFlowOptions { active: false });
    let expected = (540, "NOT_IMPLEMENTED - active=false".into());
    assert_eq!(refused(soon(stopped).await), expected);
}

#[tokio::test]
async fn an_exclusive_queue_is_locked_for_other_connections() {
    let owner = connect().await;
    let name = queue(&owner.create_channel().await.expect("a channel")).await;
    let stranger = connect().await;
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. \
         It could be originally declared on another connection or the exclusive property value \
         does not match that of the original declaration."
    );
    let channel = stranger.create_channel().await.expect("a channel");
    let purged = channel
        .queue_purge(name.as_str().into(), QueuePurgeOptions::default())
        .await;
    assert_eq!(refused(purged), (405, text.clone()));
    let channel = stranger.create_channel().await.expect("a channel");
    let deleted = channel
        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
        .await;
    assert_eq!(refused(deleted), (405, text));
}

#[tokio::test]
async fn an_unknown_delivery_tag_ends_the_consumers_of_the_channel() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let name = queue(&channel).await;
    let mut consumer = consume(&channel, &name).await;
    let acked = channel.basic_ack(82, BasicAckOptions::default()).await;
    assert!(acked.is_ok(), "sent, the refusal comes later");
    let error = soon(consumer.next())
        .await
        .expect("the error reaches the consumer")
        .expect_err("an error");
    let text = "PRECONDITION_FAILED - unknown delivery tag 82";
    assert_eq!(refusal(&error), (406, text.into()));
}

#[tokio::test]
async fn declaring_an_exchange_differently_is_406() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let name = unique("exchange");
    let passing = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    for kind in [ExchangeKind::Direct, ExchangeKind::Direct] {
        channel
            .exchange_declare(name.as_str().into(), kind, passing, FieldTable::default())
            .await
            .expect("declare, twice");
    }
    let other = connection.create_channel().await.expect("a channel");
    let result = other
        .exchange_declare(
            name.as_str().into(),
            ExchangeKind::Fanout,
            passing,
            FieldTable::default(),
        )
        .await;
    let text = format!(
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in vhost '/': \
         received 'fanout' but current is 'direct'"
    );
    assert_eq!(refused(result), (406, text));
    channel
        .exchange_delete(name.as_str().into(), Default::default())
        .await
        .expect("delete");
}

#[tokio::test]
async fn an_exchange_type_that_nobody_knows_is_406() {
    let connection = connect().await;
    let channel = connection.create_channel().await.expect("a channel");
    let result = channel
        .exchange_declare(
            unique("odd").as_str().into(),
            ExchangeKind::Custom("x-no-such-type".into()),
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await;
    let text = "PRECONDITION_FAILED - unknown exchange type 'x-no-such-type'";
    assert_eq!(refused(result), (406, text.into()));
}

/// RabbitMQ 4.3 itself is late about once in 200 times, hence the few that are allowed.
#[tokio::test]
async fn closing_a_connection_frees_its_exclusive_queue() {
    let name = unique("exclusive");
    let mut locked = 0;
    for _ in 0..30 {
        let connection = connect().await;
        let channel = confirming(&connection).await;
        let declared = channel
            .queue_declare(
                name.as_str().into(),
                QueueDeclareOptions::exclusive(),
                FieldTable::default(),
            )
            .await;
        match declared {
            Ok(_) => {
                publish(&channel, &name, b"x").await;
                assert_eq!(ready(&channel, &name).await, 1);
            }
            Err(error) => {
                assert_eq!(refusal(&error).0, 405);
                locked += 1;
            }
        }
        connection.close(200, "".into()).await.expect("close");
    }
    assert!(locked <= 4, "{locked} of 30 were locked");
}
