//! A connection with one channel, and what it does is written down.

use std::{future::Future, sync::Arc, time::Duration};

use futures_lite::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm, Result,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
        BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::{
    body,
    book::{Before, Book, QUEUES},
    history::CopyId,
    random::Random,
};

/// An answer that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client looks whether there is something for it.
const MOMENT: Duration = Duration::from_millis(3);

/// A message that this client has.
pub struct Held {
    pub copy: CopyId,
    tag: u64,
}

pub struct Client {
    pub channel: Channel,
    pub book: Arc<Book>,
    pub random: Random,
    publisher: u64,
    sequence: u64,
    pending: Vec<(PublisherConfirm, u64, Vec<CopyId>, Before)>,
    settling: Vec<CopyId>,
    /// Its connection ends with it.
    _connection: Connection,
}

/// Waits for an answer.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(PATIENCE, what).await;
    answer.expect("an answer in time")
}

pub fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut result = FieldTable::default();
    for (key, value) in entries {
        result.insert(key.into(), value);
    }
    result
}

pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Delivery mode 2.
pub fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

impl Client {
    pub async fn connect(address: &str, book: &Arc<Book>, random: Random) -> Result<Client> {
        let url = format!("amqp://guest:guest@{address}/%2F");
        let properties = ConnectionProperties::default();
        let connection = soon(Connection::connect(&url, properties)).await?;
        let channel = soon(connection.create_channel()).await?;
        let publisher = book.open().id();
        Ok(Client {
            channel,
            book: book.clone(),
            random,
            publisher,
            sequence: 0,
            pending: Vec::new(),
            settling: Vec::new(),
            _connection: connection,
        })
    }

    pub async fn confirms(&self) -> Result<()> {
        soon(self.channel.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// Declares a durable queue; how many messages are ready in it.
    pub async fn declare(&self, queue: &str, arguments: FieldTable) -> Result<u32> {
        let options = QueueDeclareOptions::durable();
        let declared = self.channel.queue_declare(queue.into(), options, arguments);
        Ok(soon(declared).await?.message_count())
    }

    /// Publishes a new message that goes to these queues; its number.
    pub async fn publish(
        &mut self,
        exchange: &str,
        key: &str,
        to: &[usize],
        properties: BasicProperties,
        delay: Option<u64>,
    ) -> Result<u64> {
        let (number, ready) = self.prepare(exchange, to, delay);
        self.send(exchange, key, number, ready, properties).await?;
        Ok(number)
    }

    /// A new message, not published yet.
    pub fn prepare(
        &mut self,
        exchange: &str,
        to: &[usize],
        delay: Option<u64>,
    ) -> (u64, (Vec<CopyId>, Before)) {
        self.sequence += 1;
        let sequence = delay.is_none().then_some(self.sequence);
        let delay = Duration::from_millis(delay.unwrap_or(0));
        let mut book = self.book.open();
        let (number, copies, before) = book.published(self.publisher, sequence, to, delay);
        book.note(format!("publish {number} to {exchange:?} {to:?}"));
        (number, (copies, before))
    }

    /// Publishes it.
    pub async fn send(
        &mut self,
        exchange: &str,
        key: &str,
        number: u64,
        (copies, before): (Vec<CopyId>, Before),
        properties: BasicProperties,
    ) -> Result<()> {
        let octets = body::body(number);
        let options = BasicPublishOptions::default();
        let publish =
            self.channel
                .basic_publish(exchange.into(), key.into(), options, &octets, properties);
        let confirm = soon(publish).await?;
        self.pending.push((confirm, number, copies, before));
        Ok(())
    }

    /// What was published since a commit, and is not answered.
    pub fn take_pending(&mut self) -> Vec<(u64, Vec<CopyId>, Before)> {
        let pending = self.pending.drain(..);
        pending
            .map(|(_, number, copies, before)| (number, copies, before))
            .collect()
    }

    /// Waits for all confirms.
    pub async fn confirmed(&mut self) -> Result<()> {
        for (confirm, number, copies, before) in self.pending.drain(..) {
            let refused = soon(confirm).await?.is_nack();
            let mut book = self.book.open();
            if refused {
                book.fail(&format!("message {number} was refused"));
            }
            book.confirmed(number, &copies, before);
        }
        Ok(())
    }

    /// Consumes a queue; an identity for the order.
    pub async fn consume(&mut self, queue: usize, prefetch: u16) -> Result<(Consumer, usize, u64)> {
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        soon(qos).await?;
        let options = BasicConsumeOptions::default();
        let (name, none) = (QUEUES[queue].into(), FieldTable::default());
        let consume = self.channel.basic_consume(name, "".into(), options, none);
        let consumer = soon(consume).await?;
        let id = self.book.open().id();
        Ok((consumer, queue, id))
    }

    /// What has come for a consumer, at most so many.
    pub async fn take(
        &mut self,
        (consumer, queue, id): &mut (Consumer, usize, u64),
        most: usize,
        into: &mut Vec<Held>,
    ) -> Result<()> {
        for _ in 0..most {
            let Ok(next) = tokio::time::timeout(MOMENT, consumer.next()).await else {
                break;
            };
            let Some(delivery) = next.transpose()? else {
                self.book.open().fail("a consumer was cancelled");
            };
            let counts = counts_of(&delivery.properties);
            let copy = self.book.open().delivered(
                *queue,
                &delivery.data,
                delivery.redelivered,
                counts,
                *id,
            );
            let tag = delivery.delivery_tag;
            into.push(Held { copy, tag });
        }
        Ok(())
    }

    /// Gets one message; `no_ack` ones are done with.
    pub async fn get(&mut self, queue: usize, no_ack: bool, id: u64) -> Result<Option<Held>> {
        let options = BasicGetOptions { no_ack };
        let get = self.channel.basic_get(QUEUES[queue].into(), options);
        let Some(got) = soon(get).await? else {
            return Ok(None);
        };
        let counts = counts_of(&got.delivery.properties);
        let mut book = self.book.open();
        let copy = book.delivered(
            queue,
            &got.delivery.data,
            got.delivery.redelivered,
            counts,
            id,
        );
        if no_ack {
            let taken = book.history.taken(copy);
            book.must(taken);
        }
        let tag = got.delivery.delivery_tag;
        Ok(Some(Held { copy, tag }))
    }

    /// Acknowledges.
    pub async fn ack(&mut self, held: Held) -> Result<()> {
        self.book.open().history.settling(held.copy);
        self.settling.push(held.copy);
        self.ack_later(&held).await
    }

    /// Acknowledges in a transaction: it counts when that does.
    pub async fn ack_later(&self, held: &Held) -> Result<()> {
        let options = BasicAckOptions::default();
        soon(self.channel.basic_ack(held.tag, options)).await
    }

    /// Puts it back.
    pub async fn nack(&mut self, held: Held) -> Result<()> {
        self.book.open().history.returned(held.copy);
        let options = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        soon(self.channel.basic_nack(held.tag, options)).await
    }

    /// Puts it back as what failed.
    pub async fn failed(&mut self, held: Held) -> Result<()> {
        self.book.open().history.returned(held.copy);
        let options = BasicRejectOptions { requeue: true };
        soon(self.channel.basic_reject(held.tag, options)).await
    }

    /// Lets it die, in a queue that has a dead-letter exchange.
    pub async fn reject(&mut self, held: Held) -> Result<()> {
        self.book.open().history.returned(held.copy);
        let options = BasicRejectOptions { requeue: false };
        soon(self.channel.basic_reject(held.tag, options)).await
    }

    /// Asks for something; the answer shows that all acknowledgements before it have arrived.
    pub async fn heard(&mut self, queue: usize) -> Result<()> {
        let options = QueueDeclareOptions::default().passive();
        let (name, none) = (QUEUES[queue].into(), FieldTable::default());
        soon(self.channel.queue_declare(name, options, none)).await?;
        let mut book = self.book.open();
        for copy in self.settling.drain(..) {
            let gone = book.history.gone(copy);
            book.must(gone);
        }
        Ok(())
    }
}

/// How often a quorum queue gave it out, and how often that failed.
fn counts_of(properties: &BasicProperties) -> [i64; 2] {
    let count = |name| {
        let headers = properties.headers().as_ref()?;
        headers.inner().get(name)?.as_long_long_int()
    };
    ["x-acquired-count", "x-delivery-count"].map(|name| count(name).unwrap_or(0))
}
