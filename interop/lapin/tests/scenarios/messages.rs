//! What a message carries arrives as it was sent.

use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable},
};

use crate::support::{
    confirming, connect, consume, next, publish, publish_with, queue, queue_with, soon, table,
};

fn every_type() -> FieldTable {
    let mut array = FieldArray::default();
    array.push(AMQPValue::LongInt(-3));
    array.push(AMQPValue::LongString("three".into()));
    array.push(AMQPValue::FieldArray(FieldArray::default()));
    table([
        ("bool", AMQPValue::Boolean(true)),
        ("byte", AMQPValue::ShortShortInt(-8)),
        ("unsigned byte", AMQPValue::ShortShortUInt(250)),
        ("short", AMQPValue::ShortInt(-16_000)),
        ("unsigned short", AMQPValue::ShortUInt(65_000)),
        ("int", AMQPValue::LongInt(i32::MIN)),
        ("unsigned int", AMQPValue::LongUInt(u32::MAX)),
        ("long", AMQPValue::LongLongInt(i64::MIN)),
        ("float", AMQPValue::Float(0.5)),
        ("double", AMQPValue::Double(std::f64::consts::PI)),
        (
            "decimal",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 2,
                value: 314,
            }),
        ),
        ("string", AMQPValue::LongString("grüße".into())),
        (
            "not text",
            AMQPValue::LongString(vec![0xff, 0xfe, 0x00].into()),
        ),
        ("array", AMQPValue::FieldArray(array)),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        (
            "table",
            AMQPValue::FieldTable(table([("inner", AMQPValue::Void)])),
        ),
        ("bytes", AMQPValue::ByteArray(vec![0, 1, 254, 255].into())),
        ("void", AMQPValue::Void),
    ])
}

#[tokio::test]
async fn headers_of_every_type_arrive_with_their_types() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let properties = BasicProperties::default().with_headers(every_type());
    publish_with(&channel, &name, b"", properties.clone()).await;
    let mut consumer = consume(&channel, &name).await;
    assert_eq!(next(&mut consumer).await.properties, properties);
}

#[tokio::test]
async fn every_property_arrives() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_content_encoding("identity".into())
        .with_headers(every_type())
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("correlation".into())
        .with_reply_to("reply.here".into())
        .with_expiration("600000".into())
        .with_message_id("message".into())
        .with_timestamp(u64::from(u32::MAX) + 1)
        .with_type("kind".into())
        .with_user_id("guest".into())
        .with_app_id("interop".into())
        .with_cluster_id("cluster".into());
    publish_with(&channel, &name, b"all", properties.clone()).await;
    let mut consumer = consume(&channel, &name).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(
        (delivery.properties, delivery.data),
        (properties, b"all".to_vec())
    );
}

#[tokio::test]
async fn bodies_of_any_size_arrive() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let name = queue(&channel).await;
    let mut consumer = consume(&channel, &name).await;
    let frame = connection.configuration().frame_max() as usize;
    for size in [
        0,
        1,
        frame - 9,
        frame - 8,
        frame - 7,
        frame,
        3 * frame,
        5 << 20,
    ] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        publish(&channel, &name, &body).await;
        let delivery = next(&mut consumer).await;
        assert!(delivery.data == body, "{size} octets");
    }
}

#[tokio::test]
async fn a_returned_message_is_the_whole_message() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let properties = BasicProperties::default().with_headers(every_type());
    let body = vec![7; 300_000];
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            "amq.topic".into(),
            "no.such.key".into(),
            options,
            &body,
            properties.clone(),
        )
        .await
        .expect("publish");
    let confirmation = soon(confirm).await.expect("confirm");
    assert!(confirmation.is_ack(), "returned, and confirmed");
    let returned = confirmation.take_message().expect("the return came first");
    assert_eq!(
        (returned.reply_code, returned.reply_text.as_str()),
        (312, "NO_ROUTE")
    );
    assert_eq!(returned.delivery.exchange.as_str(), "amq.topic");
    assert_eq!(returned.delivery.routing_key.as_str(), "no.such.key");
    assert_eq!(returned.delivery.properties, properties);
    assert!(returned.delivery.data == body);
}

/// Clients read x-death by type: the count is a long, the time a timestamp, the rest text.
#[tokio::test]
async fn the_history_of_a_dead_letter_has_its_wire_types() {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let rest = queue(&channel).await;
    let name = queue_with(
        &channel,
        table([
            ("x-dead-letter-exchange", AMQPValue::LongString("".into())),
            (
                "x-dead-letter-routing-key",
                AMQPValue::LongString(rest.as_str().into()),
            ),
        ]),
    )
    .await;
    let properties = BasicProperties::default().with_expiration("50".into());
    publish_with(&channel, &name, b"dies", properties).await;
    let mut consumer = consume(&channel, &rest).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.properties.expiration(), &None);

    let headers = delivery.properties.headers().clone().expect("headers");
    let text = |value: &str| AMQPValue::LongString(value.into());
    for event in ["first", "last"] {
        for (what, value) in [
            ("reason", "expired"),
            ("queue", name.as_str()),
            ("exchange", ""),
        ] {
            let header = format!("x-{event}-death-{what}");
            assert_eq!(
                headers.inner().get(header.as_str()),
                Some(&text(value)),
                "{header}"
            );
        }
    }
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        panic!("x-death is an array");
    };
    let [AMQPValue::FieldTable(death)] = deaths.as_slice() else {
        panic!("of one table");
    };
    let mut death = death.inner().clone();
    assert!(
        matches!(death.remove("time"), Some(AMQPValue::Timestamp(time)) if time > 1_600_000_000)
    );
    let expected = table([
        ("count", AMQPValue::LongLongInt(1)),
        ("reason", text("expired")),
        ("queue", text(&name)),
        ("exchange", text("")),
        (
            "routing-keys",
            AMQPValue::FieldArray(vec![text(&name)].into()),
        ),
        ("original-expiration", text("50")),
    ]);
    assert_eq!(&death, expected.inner());
}
