//! Retries with a delay: a job that fails is rejected, waits in a queue without consumers until its time to live is over,
//! and comes back. Its `x-death` header counts the rounds; after three it is parked for somebody to look at.

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Result};

const JOBS: &str = "example.jobs";
const DELAY: &str = "example.jobs.delay";
const PARKED: &str = "example.jobs.parked";
const DELAY_MS: i32 = 100;
const TRIES_MAX: i64 = 3;

async fn declare(channel: &Channel, name: &str, arguments: FieldTable) -> Result<()> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.into(), options, arguments)
        .await
        .map(drop)
}

/// Arguments of a queue whose dead letters go to another queue, by way of the default exchange.
fn dead_letters_to(queue: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments
}

/// How often a job was rejected from the queue of jobs, as the broker counted.
fn rejections(job: &Delivery) -> i64 {
    let Some(headers) = job.properties.headers() else {
        return 0;
    };
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        return 0;
    };
    let in_jobs = deaths.as_slice().iter().find_map(|death| match death {
        AMQPValue::FieldTable(death) => {
            let queue = death.inner().get("queue");
            let queue = queue.and_then(AMQPValue::as_long_string);
            (queue?.as_bytes() == JOBS.as_bytes()).then(|| death.inner().get("count"))?
        }
        _ => None,
    });
    match in_jobs {
        Some(AMQPValue::LongLongInt(count)) => *count,
        _ => 0,
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let connection = leveret_examples::connect().await?;
    let channel = connection.create_channel().await?;
    declare(&channel, JOBS, dead_letters_to(DELAY)).await?;
    let mut waiting = dead_letters_to(JOBS);
    waiting.insert("x-message-ttl".into(), AMQPValue::LongInt(DELAY_MS));
    declare(&channel, DELAY, waiting).await?;
    declare(&channel, PARKED, FieldTable::default()).await?;

    for job in ["works at the second try", "never works"] {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), JOBS.into(), options, job.as_bytes(), persistent)
            .await?;
    }
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut jobs = channel
        .basic_consume(JOBS.into(), "worker".into(), options, none)
        .await?;
    let mut left = 2;
    while left > 0 {
        let Some(job) = jobs.next().await else { break };
        let job = job?;
        let tries = rejections(&job) + 1;
        let text = String::from_utf8_lossy(&job.data);
        if text != "never works" && tries == 2 {
            println!("{text}: done");
            job.ack(BasicAckOptions::default()).await?;
            left -= 1;
        } else if tries < TRIES_MAX {
            println!("{text}: try {tries} failed");
            job.reject(BasicRejectOptions { requeue: false }).await?;
        } else {
            println!("{text}: parked after {tries} tries");
            let options = BasicPublishOptions::default();
            let properties = job.properties.clone();
            channel
                .basic_publish("".into(), PARKED.into(), options, &job.data, properties)
                .await?;
            job.ack(BasicAckOptions::default()).await?;
            left -= 1;
        }
    }
    for queue in [JOBS, DELAY, PARKED] {
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await?;
    }
    connection.close(200, "done".into()).await
}
