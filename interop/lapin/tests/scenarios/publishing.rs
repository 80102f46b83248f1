//! Confirms, routing and load.

use lapin::{
    BasicProperties, Confirmation, ExchangeKind,
    options::{
        BasicAckOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    bodies, confirming, connect, consume, next, queue, queue_with, ready, soon, table, unique,
};

#[tokio::test]
async fn a_thousand_pipelined_publishes_are_all_confirmed() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("it may be repeated");
    let name = queue(&channel).await;
    let mut confirms = Vec::new();
    for number in 0..1000 {
        let body = number.to_string();
        let confirm = channel.basic_publish(
            "".into(),
            name.as_str().into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default().with_delivery_mode(2),
        );
        confirms.push(confirm.await.expect("publish"));
    }
    for confirm in confirms {
        assert_eq!(
            soon(confirm).await.expect("confirm"),
            Confirmation::Ack(None)
        );
    }
    assert_eq!(ready(&channel, &name).await, 1000);
    let mut consumer = consume(&channel, &name).await;
    let expected: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&mut consumer, 1000).await, expected);
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_nack() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue_with(
        &channel,
        table([
            ("x-max-length", AMQPValue::LongInt(1)),
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ]),
    )
    .await;
    for accepted in [true, false, false] {
        let confirm = channel
            .basic_publish(
                "".into(),
                name.as_str().into(),
                BasicPublishOptions::default(),
                b"x",
                BasicProperties::default(),
            )
            .await
            .expect("publish");
        assert_eq!(soon(confirm).await.expect("confirm").is_ack(), accepted);
    }
    assert_eq!(ready(&channel, &name).await, 1);
}

#[tokio::test]
async fn messages_pass_through_exchange_bindings_once() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let exchanges = [unique("topic"), unique("fanout")];
    let kinds = [ExchangeKind::Topic, ExchangeKind::Fanout];
    let options = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    for (exchange, kind) in exchanges.iter().zip(kinds) {
        channel
            .exchange_declare(
                exchange.as_str().into(),
                kind,
                options,
                FieldTable::default(),
            )
            .await
            .expect("declare");
    }
    let [topic, fanout] = exchanges.each_ref().map(String::as_str);
    for (destination, source, key) in [(fanout, topic, "a.#"), (topic, fanout, "")] {
        channel
            .exchange_bind(
                destination.into(),
                source.into(),
                key.into(),
                ExchangeBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("bind");
    }
    let name = queue(&channel).await;
    for (exchange, key) in [(topic, "a.*"), (topic, "#.b"), (fanout, "")] {
        channel
            .queue_bind(
                name.as_str().into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("bind");
    }
    for (exchange, key, arrives) in [(topic, "a.b", 1), (topic, "c.d", 0), (fanout, "c.d", 1)] {
        let before = ready(&channel, &name).await;
        let confirm = channel
            .basic_publish(
                exchange.into(),
                key.into(),
                BasicPublishOptions::default(),
                b"x",
                BasicProperties::default(),
            )
            .await
            .expect("publish");
        soon(confirm).await.expect("confirm");
        assert_eq!(
            ready(&channel, &name).await,
            before + arrives,
            "{exchange} {key}"
        );
    }
    for exchange in [topic, fanout] {
        channel
            .exchange_delete(exchange.into(), Default::default())
            .await
            .expect("delete");
    }
}

/// Eight publishers and four consumers at once: every message arrives once, in the order of its publisher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_and_consumers_work_at_once() {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 500;
    let connection = connect().await;
    let setup = confirming(&connection).await;
    let name = queue(&setup).await;

    let mut publishing = Vec::new();
    for publisher in 0..PUBLISHERS {
        let channel = confirming(&connection).await;
        let name = name.clone();
        publishing.push(tokio::spawn(async move {
            let mut confirms = Vec::new();
            for number in 0..EACH {
                let body = format!("{publisher} {number}");
                let confirm = channel.basic_publish(
                    "".into(),
                    name.as_str().into(),
                    BasicPublishOptions::default(),
                    body.as_bytes(),
                    BasicProperties::default(),
                );
                confirms.push(confirm.await.expect("publish"));
            }
            for confirm in confirms {
                assert!(soon(confirm).await.expect("confirm").is_ack());
            }
        }));
    }

    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    for consumer in 0..4 {
        let channel = connection.create_channel().await.expect("a channel");
        channel
            .basic_qos(10, BasicQosOptions::default())
            .await
            .expect("qos");
        let (mut deliveries, sender) = (consume(&channel, &name).await, sender.clone());
        tokio::spawn(async move {
            loop {
                let delivery = next(&mut deliveries).await;
                let body = String::from_utf8(delivery.data).expect("text");
                delivery
                    .acker
                    .ack(BasicAckOptions::default())
                    .await
                    .expect("ack");
                if sender.send((consumer, body)).is_err() {
                    return;
                }
            }
        });
    }

    let mut last = vec![vec![None; PUBLISHERS]; 4];
    let mut counts = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * EACH {
        let (consumer, body) = soon(seen.recv()).await.expect("a message");
        let (publisher, number) = body.split_once(' ').expect("two numbers");
        let (publisher, number): (usize, usize) = (
            publisher.parse().expect("a number"),
            number.parse().expect("a number"),
        );
        let previous = last[consumer][publisher].replace(number);
        assert!(
            previous.is_none_or(|before| before < number),
            "out of order"
        );
        counts[publisher] += 1;
    }
    for task in publishing {
        task.await.expect("the publisher ended well");
    }
    assert_eq!(counts, [EACH; PUBLISHERS]);
    assert_eq!(ready(&setup, &name).await, 0);
}
