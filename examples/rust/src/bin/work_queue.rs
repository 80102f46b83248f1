//! A work queue: tasks survive a restart of the broker, two workers share them, and a task is removed when a worker
//! has acknowledged it.

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Result};
use tokio::sync::mpsc::{self, Sender};

const QUEUE: &str = "example.tasks";
const TASKS: usize = 6;

/// Takes one task at a time, and says what was done.
async fn work(channel: &Channel, name: &'static str, done: Sender<String>) -> Result<()> {
    // Not more than one unacknowledged task, so that a slow worker leaves the others to the next one.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut tasks = channel
        .basic_consume(QUEUE.into(), name.into(), options, FieldTable::default())
        .await?;
    while let Some(delivery) = tasks.next().await {
        let delivery = delivery?;
        let task = String::from_utf8_lossy(&delivery.data).into_owned();
        // Work comes here. Were the worker to die now, the task would go to the other one.
        delivery.ack(BasicAckOptions::default()).await?;
        if done.send(task).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let connection = leveret_examples::connect().await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(QUEUE.into(), options, FieldTable::default())
        .await?;
    for number in 1..=TASKS {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let task = format!("task {number}");
        let confirm = channel
            .basic_publish(
                "".into(),
                QUEUE.into(),
                options,
                task.as_bytes(),
                persistent,
            )
            .await?
            .await?;
        // The task is on the disk now.
        assert!(confirm.is_ack());
    }

    let (done, mut results) = mpsc::channel(TASKS);
    let channels = [
        connection.create_channel().await?,
        connection.create_channel().await?,
    ];
    let first = work(&channels[0], "first worker", done.clone());
    let second = work(&channels[1], "second worker", done);
    let all = async {
        for _ in 0..TASKS {
            println!("done: {}", results.recv().await.unwrap_or_default());
        }
    };
    // The workers go on for ever; the tasks end.
    tokio::select! {
        ended = first => ended?,
        ended = second => ended?,
        () = all => {}
    }
    channel
        .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
        .await?;
    connection.close(200, "done".into()).await
}
