//! Arguments in all the wire types that lapin can write.

use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, DecimalValue, FieldTable},
};

use crate::support::{confirming, connect, queue, ready, refused, soon, table, unique};

async fn declare(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    channel
        .queue_declare(name.into(), QueueDeclareOptions::exclusive(), arguments)
        .await
        .map(|_| ())
}

async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.expect("a channel")
}

#[tokio::test]
async fn integers_of_every_width_are_the_same_argument() {
    let connection = connect().await;
    let channel = channel(&connection).await;
    let name = unique("widths");
    for value in [
        AMQPValue::LongInt(100),
        AMQPValue::ShortShortInt(100),
        AMQPValue::ShortShortUInt(100),
        AMQPValue::ShortInt(100),
        AMQPValue::ShortUInt(100),
        AMQPValue::LongUInt(100),
        AMQPValue::LongLongInt(100),
    ] {
        declare(&channel, &name, table([("x-max-length", value.clone())]))
            .await
            .unwrap_or_else(|error| panic!("{value:?}: {error}"));
    }
}

#[tokio::test]
async fn the_type_of_an_argument_is_named_in_the_refusal() {
    let connection = connect().await;
    let name = unique("types");
    declare(&channel(&connection).await, &name, FieldTable::default())
        .await
        .expect("declare");
    for (value, shown, kind) in [
        (AMQPValue::LongInt(7), "7", "signedint"),
        (AMQPValue::LongLongInt(7), "7", "long"),
        (AMQPValue::ShortInt(7), "7", "short"),
        (AMQPValue::ShortShortInt(7), "7", "byte"),
        (AMQPValue::ShortShortUInt(7), "7", "unsignedbyte"),
        (AMQPValue::ShortUInt(7), "7", "unsignedshort"),
        (AMQPValue::LongUInt(7), "7", "unsignedint"),
        (AMQPValue::Boolean(true), "true", "bool"),
        (AMQPValue::LongString("x".into()), "x", "longstr"),
        (AMQPValue::Timestamp(7), "7", "timestamp"),
    ] {
        let result = declare(
            &channel(&connection).await,
            &name,
            table([("x-message-ttl", value)]),
        )
        .await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{name}' in vhost \
             '/': received the value '{shown}' of type '{kind}' but current is none"
        );
        assert_eq!(refused(result), (406, text));
    }
}

#[tokio::test]
async fn an_argument_of_the_wrong_type_is_406() {
    let connection = connect().await;
    for (value, kind) in [
        (AMQPValue::LongString("5".into()), "longstr"),
        (AMQPValue::Boolean(true), "bool"),
        (AMQPValue::Double(5.0), "double"),
        (AMQPValue::Float(5.0), "float"),
        (AMQPValue::Timestamp(5), "timestamp"),
        (AMQPValue::Void, "void"),
    ] {
        let name = unique("wrong");
        let result = declare(
            &channel(&connection).await,
            &name,
            table([("x-max-length", value)]),
        )
        .await;
        let text = format!(
            "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue '{name}' in vhost '/': \
             \"expected integer, got {kind}\""
        );
        assert_eq!(refused(result), (406, text));
    }
}

/// Binds with one header and publishes with another; whether the message arrives.
async fn matches(wanted: AMQPValue, sent: AMQPValue) -> bool {
    let connection = connect().await;
    let channel = confirming(&connection).await;
    let (exchange, name) = (unique("headers"), queue(&channel).await);
    let options = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Headers,
            options,
            FieldTable::default(),
        )
        .await
        .expect("declare");
    channel
        .queue_bind(
            name.as_str().into(),
            exchange.as_str().into(),
            "".into(),
            Default::default(),
            table([("h", wanted)]),
        )
        .await
        .expect("bind");
    let confirm = channel
        .basic_publish(
            exchange.as_str().into(),
            "".into(),
            BasicPublishOptions::default(),
            b"",
            BasicProperties::default().with_headers(table([("h", sent)])),
        )
        .await
        .expect("publish");
    soon(confirm).await.expect("confirm");
    ready(&channel, &name).await == 1
}

/// Timestamps are left out: RabbitMQ 4.3 multiplies that of the message by 1000 before it compares.
#[tokio::test]
async fn the_headers_exchange_compares_values_of_every_type() {
    let same = [
        AMQPValue::Double(1.5),
        AMQPValue::Float(1.5),
        AMQPValue::LongLongInt(-1),
        AMQPValue::DecimalValue(DecimalValue {
            scale: 2,
            value: 314,
        }),
        AMQPValue::ByteArray(vec![0, 255].into()),
        AMQPValue::FieldTable(table([("inner", AMQPValue::Boolean(true))])),
        AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), AMQPValue::Void].into()),
    ];
    for value in same {
        assert!(matches(value.clone(), value.clone()).await, "{value:?}");
    }
}

#[tokio::test]
async fn the_headers_exchange_does_not_convert() {
    let text = || AMQPValue::LongString("1".into());
    for (wanted, sent) in [
        (AMQPValue::LongInt(1), text()),
        (AMQPValue::LongInt(1), AMQPValue::Boolean(true)),
        (AMQPValue::LongInt(1), AMQPValue::LongInt(2)),
        (AMQPValue::Double(1.0), AMQPValue::LongInt(1)),
        (
            AMQPValue::LongString("a".into()),
            AMQPValue::LongString("A".into()),
        ),
    ] {
        assert!(
            !matches(wanted.clone(), sent.clone()).await,
            "{wanted:?} {sent:?}"
        );
    }
}

#[tokio::test]
async fn the_headers_exchange_knows_numbers_of_other_widths() {
    for sent in [
        AMQPValue::ShortShortInt(1),
        AMQPValue::ShortInt(1),
        AMQPValue::LongUInt(1),
        AMQPValue::LongLongInt(1),
    ] {
        assert!(
            matches(AMQPValue::LongInt(1), sent.clone()).await,
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn the_headers_exchange_knows_floats_and_text_in_both_their_types() {
    let text = AMQPValue::LongString("text".into());
    let bytes = AMQPValue::ByteArray(b"text".to_vec().into());
    let (float, double) = (AMQPValue::Float(1.5), AMQPValue::Double(1.5));
    for (wanted, sent) in [(&text, &bytes), (&bytes, &text), (&float, &double)] {
        assert!(
            matches(wanted.clone(), sent.clone()).await,
            "{wanted:?} {sent:?}"
        );
    }
}
