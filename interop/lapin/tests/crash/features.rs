//! What each client does, until it is gone.

use lapin::{
    ExchangeKind, Result,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    book::{
        DELAYED, DELIVERY_LIMIT, LETTERS, LETTERS_DEAD, ONCE, Once, PURGES, QUEUES, RETURNS,
        RETURNS_DEAD, TX, Transaction,
    },
    client::{Client, Held, persistent, soon, table, text},
    history::CopyId,
};

/// Messages that a consumer may hold.
const PREFETCH: u16 = 40;

/// Values of the de-duplication header that are tried again, the latest ones; no window is smaller.
const REPEATED: usize = 300;

#[derive(Clone, Copy, Debug)]
pub enum Feature {
    Letters,
    Delayed,
    Transactions,
    Returns,
    Once,
    Purges,
}

pub const FEATURES: [Feature; 6] = [
    Feature::Letters,
    Feature::Delayed,
    Feature::Transactions,
    Feature::Returns,
    Feature::Once,
    Feature::Purges,
];

/// Declares everything.
pub async fn declare(c: &Client) -> Result<()> {
    let window = || {
        table([
            ("x-message-deduplication", AMQPValue::Boolean(true)),
            ("x-cache-size", AMQPValue::LongInt(1000)),
        ])
    };
    for (queue, name) in QUEUES.iter().enumerate() {
        let arguments = match queue {
            LETTERS => table([
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(QUEUES[LETTERS_DEAD])),
            ]),
            RETURNS => table([
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(QUEUES[RETURNS_DEAD])),
            ]),
            queue if queue == ONCE[1] => window(),
            _ => FieldTable::default(),
        };
        c.declare(name, arguments).await?;
    }
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let once = ExchangeKind::Fanout;
    let later = ExchangeKind::Custom("x-delayed-message".into());
    let delayed = table([("x-delayed-type", text("fanout"))]);
    for (name, kind, arguments, queue) in [
        ("later", later, delayed, DELAYED),
        ("once", once, window(), ONCE[0]),
    ] {
        let declared = c
            .channel
            .exchange_declare(name.into(), kind, durable, arguments);
        soon(declared).await?;
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound =
            c.channel
                .queue_bind(QUEUES[queue].into(), name.into(), "".into(), options, none);
        soon(bound).await?;
    }
    Ok(())
}

pub async fn run(feature: Feature, c: &mut Client) -> Result<()> {
    match feature {
        Feature::Letters => letters(c).await,
        Feature::Delayed => delayed(c).await,
        Feature::Transactions => transactions(c).await,
        Feature::Returns => returns(c).await,
        Feature::Once => once(c).await,
        Feature::Purges => purges(c).await,
    }
}

/// Acknowledges or keeps.
async fn settle(c: &mut Client, held: &mut Vec<Held>) -> Result<()> {
    for _ in 0..held.len() {
        let at = c.random.below(held.len());
        match c.random.below(10) {
            0..7 => c.ack(held.swap_remove(at)).await?,
            7 => c.nack(held.swap_remove(at)).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Messages die by rejection and by expiration.
async fn letters(c: &mut Client) -> Result<()> {
    c.confirms().await?;
    let mut alive = c.consume(LETTERS, PREFETCH).await?;
    let mut dead = c.consume(LETTERS_DEAD, PREFETCH).await?;
    let (mut held, mut found) = (Vec::new(), Vec::new());
    loop {
        for _ in 0..1 + c.random.below(12) {
            let properties = match c.random.below(3) {
                0 => {
                    let milliseconds = c.random.pick(&["0", "1", "20", "200"]);
                    persistent().with_expiration(milliseconds.into())
                }
                _ => persistent(),
            };
            c.publish("", QUEUES[LETTERS], &[LETTERS], properties, None)
                .await?;
        }
        if !c.random.one_in(3) {
            c.confirmed().await?;
        }
        c.take(&mut alive, 20, &mut held).await?;
        for _ in 0..held.len() {
            let at = c.random.below(held.len());
            match c.random.below(10) {
                0..4 => c.reject(held.swap_remove(at)).await?,
                4..7 => c.ack(held.swap_remove(at)).await?,
                7 => c.nack(held.swap_remove(at)).await?,
                _ => {}
            }
        }
        c.take(&mut dead, 20, &mut found).await?;
        settle(c, &mut found).await?;
        c.heard(LETTERS).await?;
    }
}

/// Messages that come later.
async fn delayed(c: &mut Client) -> Result<()> {
    c.confirms().await?;
    let mut consumer = c.consume(DELAYED, PREFETCH).await?;
    let mut held = Vec::new();
    loop {
        for _ in 0..1 + c.random.below(8) {
            let delay = match c.random.below(60) {
                0 => 2000u64,
                _ => c.random.pick(&[0, 1, 30, 300]),
            };
            let headers = table([("x-delay", AMQPValue::LongLongInt(delay as i64))]);
            let properties = persistent().with_headers(headers);
            c.publish("later", "", &[DELAYED], properties, Some(delay))
                .await?;
        }
        c.confirmed().await?;
        c.take(&mut consumer, 20, &mut held).await?;
        settle(c, &mut held).await?;
        c.heard(DELAYED).await?;
    }
}

/// Publishes and acknowledgements that count together or not at all.
async fn transactions(c: &mut Client) -> Result<()> {
    soon(c.channel.tx_select()).await?;
    let id = c.book.open().id();
    let mut held: Vec<Held> = Vec::new();
    loop {
        let mine = {
            let mut book = c.book.open();
            book.transactions.push(Transaction {
                copies: Vec::new(),
                sent: false,
                answered: false,
            });
            book.transactions.len() - 1
        };
        for _ in 0..c.random.below(6) {
            let (to, key) = match c.random.below(2) {
                0 => (TX[0], QUEUES[TX[0]]),
                _ => (TX[1], QUEUES[TX[1]]),
            };
            let (number, (copies, before)) = c.prepare("", &[to], None);
            c.book.open().transactions[mine].copies.extend(&copies);
            c.send("", key, number, (copies, before), persistent())
                .await?;
        }
        for _ in 0..c.random.below(6) {
            let queue = c.random.pick(&TX);
            held.extend(c.get(queue, false, id).await?);
        }
        let some = c.random.below(held.len() + 1);
        let acked: Vec<Held> = held.drain(..some).collect();
        for one in &acked {
            c.ack_later(one).await?;
        }
        let published = c.take_pending();
        if c.random.one_in(4) {
            c.book
                .open()
                .note(format!("rollback of transaction {mine}"));
            soon(c.channel.tx_rollback()).await?;
            let mut book = c.book.open();
            for (_, copies, _) in &published {
                copies.iter().for_each(|copy| book.history.undone(*copy));
            }
            held.extend(acked);
            continue;
        }
        {
            let mut book = c.book.open();
            book.note(format!("commit of transaction {mine}"));
            book.transactions[mine].sent = true;
            for one in &acked {
                book.history.settling(one.copy);
            }
        }
        soon(c.channel.tx_commit()).await?;
        let mut book = c.book.open();
        book.transactions[mine].answered = true;
        for (number, copies, before) in &published {
            book.confirmed(*number, copies, *before);
        }
        for one in &acked {
            let gone = book.history.gone(one.copy);
            book.must(gone);
        }
    }
}

/// A quorum queue gets its messages back again and again, until they are dead.
async fn returns(c: &mut Client) -> Result<()> {
    c.confirms().await?;
    let mut alive = c.consume(RETURNS, PREFETCH).await?;
    let mut dead = c.consume(RETURNS_DEAD, PREFETCH).await?;
    let (mut held, mut found) = (Vec::new(), Vec::new());
    loop {
        for _ in 0..1 + c.random.below(8) {
            c.publish("", QUEUES[RETURNS], &[RETURNS], persistent(), None)
                .await?;
        }
        c.confirmed().await?;
        c.take(&mut alive, 30, &mut held).await?;
        for _ in 0..held.len() {
            let at = c.random.below(held.len());
            match c.random.below(10) {
                0..3 => c.nack(held.swap_remove(at)).await?,
                3..6 => c.failed(held.swap_remove(at)).await?,
                6 | 7 => c.ack(held.swap_remove(at)).await?,
                8 => c.reject(held.swap_remove(at)).await?,
                _ => {}
            }
        }
        c.take(&mut dead, 20, &mut found).await?;
        settle(c, &mut found).await?;
        c.heard(RETURNS).await?;
    }
}

/// What is published again with a value that was there is not there twice.
async fn once(c: &mut Client) -> Result<()> {
    c.confirms().await?;
    let mut consumers = [
        c.consume(ONCE[0], PREFETCH).await?,
        c.consume(ONCE[1], PREFETCH).await?,
    ];
    let mut held = Vec::new();
    loop {
        for _ in 0..1 + c.random.below(10) {
            let which = c.random.below(2);
            let (exchange, key) = [("once", ""), ("", QUEUES[ONCE[1]])][which];
            let (number, ready) = c.prepare(exchange, &[ONCE[which]], None);
            let value = {
                let mut book = c.book.open();
                // Values of a queue and of the exchange are apart.
                let mut at = book.once.len();
                let back = c.random.below(REPEATED);
                let fits = |o: &Once| o.queue == ONCE[which];
                if c.random.one_in(2) && back < at && fits(&book.once[at - 1 - back]) {
                    at -= 1 + back;
                } else {
                    book.once.push(Once {
                        queue: ONCE[which],
                        ..Once::default()
                    });
                }
                book.once[at].numbers.push(number);
                book.once_of.insert(number, at);
                let value = book.once[at].numbers[0];
                book.note(format!("message {number} with value {value}"));
                value
            };
            let headers = table([("x-deduplication-header", text(&value.to_string()))]);
            let properties = persistent().with_headers(headers);
            c.send(exchange, key, number, ready, properties).await?;
        }
        if !c.random.one_in(3) {
            c.confirmed().await?;
        }
        for consumer in &mut consumers {
            c.take(consumer, 10, &mut held).await?;
        }
        settle(c, &mut held).await?;
        c.heard(ONCE[0]).await?;
    }
}

/// What was purged, or went with its queue, does not come back.
async fn purges(c: &mut Client) -> Result<()> {
    c.confirms().await?;
    let id = c.book.open().id();
    let mut held: Vec<Held> = Vec::new();
    let name = QUEUES[PURGES];
    // It may have been deleted, and not be there again.
    c.declare(name, FieldTable::default()).await?;
    loop {
        for _ in 0..c.random.below(12) {
            c.publish("", name, &[PURGES], persistent(), None).await?;
        }
        c.confirmed().await?;
        for _ in 0..c.random.below(5) {
            held.extend(c.get(PURGES, false, id).await?);
        }
        settle(c, &mut held).await?;
        c.heard(PURGES).await?;
        let how = c.random.below(10);
        if how > 3 {
            continue;
        }
        if how == 0 {
            // What is held goes with the queue, too.
            for one in held.drain(..) {
                c.book.open().history.returned(one.copy);
            }
        }
        let gone: Vec<CopyId> = {
            let mut book = c.book.open();
            let gone = book.history.waiting(PURGES);
            book.note(format!("purge or delete {name}: {how}"));
            gone.iter().for_each(|copy| book.history.settling(*copy));
            gone
        };
        if how == 0 {
            let options = QueueDeleteOptions::default();
            soon(c.channel.queue_delete(name.into(), options)).await?;
        } else {
            let options = QueuePurgeOptions::default();
            let n = soon(c.channel.queue_purge(name.into(), options)).await?;
            if n as usize > gone.len() {
                c.book
                    .open()
                    .fail(&format!("{n} were purged of {}", gone.len()));
            }
        }
        {
            let mut book = c.book.open();
            for copy in gone {
                let gone = book.history.gone(copy);
                book.must(gone);
            }
        }
        if how == 0 {
            let found = c.declare(name, FieldTable::default()).await?;
            assert_eq!(found, 0, "a new queue");
        }
    }
}
