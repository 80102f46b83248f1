//! What users of lapin do, against the broker at `AMQP_URL`. Prints a line per scenario.

use futures_util::StreamExt as _;
use lapin::options::*;
use lapin::Confirmation;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind};

type Checked = Result<(), Box<dyn std::error::Error>>;

fn check(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.into()) }
}

async fn exclusive_queue(ch: &Channel, arguments: FieldTable) -> lapin::Result<String> {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    Ok(ch.queue_declare("".into(), options, arguments).await?.name().to_string())
}

/// Confirms, consumption with prefetch and acknowledgements, in order.
async fn publish_and_consume(connection: &Connection) -> Checked {
    let ch = connection.create_channel().await?;
    let queue = exclusive_queue(&ch, FieldTable::default()).await?;
    ch.confirm_select(Default::default()).await?;
    ch.basic_qos(10, Default::default()).await?;
    let mut consumer =
        ch.basic_consume(queue.as_str().into(), "".into(), Default::default(), Default::default()).await?;
    for i in 0..100u32 {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirm = ch
            .basic_publish("".into(), queue.as_str().into(), Default::default(), &i.to_be_bytes(), properties)
            .await?
            .await?;
        check(matches!(confirm, Confirmation::Ack(None)), "an ack for each publish")?;
    }
    for i in 0..100u32 {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        check(delivery.data == i.to_be_bytes(), "in order")?;
        delivery.ack(Default::default()).await?;
    }
    Ok(())
}

/// A mandatory message that nobody takes comes back with its confirm.
async fn mandatory(connection: &Connection) -> Checked {
    let ch = connection.create_channel().await?;
    ch.confirm_select(Default::default()).await?;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirm = ch
        .basic_publish("".into(), "no-such-queue".into(), options, b"x", BasicProperties::default())
        .await?
        .await?;
    let Confirmation::Ack(Some(returned)) = confirm else { return Err("returned, then acknowledged".into()) };
    check(returned.reply_code == 312 && returned.reply_text.as_str() == "NO_ROUTE", "312 NO_ROUTE")
}

/// A full queue with reject-publish nacks.
async fn reject_publish(connection: &Connection) -> Checked {
    let ch = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let queue = exclusive_queue(&ch, arguments).await?;
    ch.confirm_select(Default::default()).await?;
    for wanted in [true, false] {
        let confirm = ch
            .basic_publish("".into(), queue.as_str().into(), Default::default(), b"x", BasicProperties::default())
            .await?
            .await?;
        check(confirm.is_ack() == wanted, "one fits, the next is refused")?;
    }
    Ok(())
}

/// An error costs the channel, not the connection.
async fn channel_error(connection: &Connection) -> Checked {
    let ch = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let error = ch.queue_declare("no-such-queue".into(), options, Default::default()).await.expect_err("404");
    let text = match error.kind() {
        ErrorKind::ProtocolError(e) => e.to_string(),
        other => format!("{other:?}"),
    };
    check(text.contains("no queue 'no-such-queue' in vhost '/'"), &text)?;
    let ch = connection.create_channel().await?;
    exclusive_queue(&ch, FieldTable::default()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Checked {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2F".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let mut failed = 0;
    let results = [
        ("publish and consume", publish_and_consume(&connection).await),
        ("mandatory", mandatory(&connection).await),
        ("reject-publish", reject_publish(&connection).await),
        ("channel error", channel_error(&connection).await),
    ];
    for (name, result) in &results {
        match result {
            Ok(()) => println!("lapin: {name}: ok"),
            Err(e) => {
                failed += 1;
                println!("lapin: {name}: FAILED: {e}");
            }
        }
    }
    // Dropped channels close themselves; a close that crosses theirs is refused by lapin, not by the broker.
    drop(connection);
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed > 0 { Err("some scenarios failed".into()) } else { Ok(()) }
}
