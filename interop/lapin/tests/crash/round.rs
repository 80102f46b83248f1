//! A round: a broker with settings of the seed, clients, some kills, and the account.

use std::{
    ffi::OsStr,
    sync::Arc,
    time::{Duration, Instant},
};

use lapin::{Result, types::FieldTable};

use crate::{
    book::{Book, PURGES, QUEUES},
    broker::{Broker, Folder},
    client::Client,
    features::{self, FEATURES},
    random::{Random, mix},
};

/// What must be there is there by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// By then no expiration is left.
const LONGEST: Duration = Duration::from_millis(400);

/// A message whose time has come is there by then.
const LATE_MAX: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub struct Counts {
    pub kills: u64,
    /// Of them before the broker was ready.
    pub kills_of_starts: u64,
    pub stops: u64,
    pub published: u64,
    pub received: u64,
    pub transactions: u64,
    pub duplicates: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.kills += other.kills;
        self.kills_of_starts += other.kills_of_starts;
        self.stops += other.stops;
        self.published += other.published;
        self.received += other.received;
        self.transactions += other.transactions;
        self.duplicates += other.duplicates;
    }
}

pub async fn run(seed: u64, binary: &OsStr, folder: &Folder) -> Counts {
    let mut random = Random::new(seed);
    let mut counts = Counts::default();
    let settings = [
        (
            "LEVERET_STORAGE_SEGMENT_BYTES",
            random.pick(&["1MiB", "4MiB"]),
        ),
        (
            "LEVERET_MEMORY_BODY_BUDGET_BYTES",
            random.pick(&["64KiB", "1MiB", "64MiB"]),
        ),
        ("LEVERET_DISK_RESERVE_BYTES", "0"),
    ];
    // What another round left is known by its number.
    let first = mix(seed) >> 32 << 24;
    let book = Arc::new(Book::new(first));
    for life in 0..1 + random.below(5) {
        while random.one_in(4) {
            let broker = Broker::spawn(binary, folder, &settings);
            let moment = Duration::from_micros(random.below(60_000) as u64);
            tokio::time::sleep(moment).await;
            broker.kill();
            counts.kills += 1;
            counts.kills_of_starts += 1;
        }
        let mut broker = Broker::spawn(binary, folder, &settings);
        let address = broker.ready();
        if life == 0 {
            let c = Client::connect(&address, &book, random.clone()).await;
            let declared = features::declare(&c.expect("a connection")).await;
            declared.expect("declared");
        }
        let mut clients = Vec::new();
        for feature in FEATURES {
            let (address, book) = (address.clone(), book.clone());
            let random = Random::new(random.next());
            clients.push(tokio::spawn(async move {
                let mut c = Client::connect(&address, &book, random).await?;
                features::run(feature, &mut c).await
            }));
        }
        // Counted in messages, so that a slow machine has some of them, too.
        if !random.one_in(6) {
            let (done, since) = (
                book.open().moved() + random.below(1000) as u64,
                Instant::now(),
            );
            while book.open().moved() < done {
                assert!(since.elapsed() < PATIENCE, "it goes on");
                tokio::time::sleep(Duration::from_millis(1)).await;
                if clients.iter().any(|c| c.is_finished()) {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_micros(random.below(20_000) as u64)).await;
        // Nobody may have ended before.
        for (client, feature) in clients.iter_mut().zip(FEATURES) {
            if client.is_finished() {
                panic!("{feature:?}: {:?}", client.await);
            }
        }
        assert!(broker.lives(), "it ended by itself");
        if random.one_in(5) {
            broker.stop();
            counts.stops += 1;
        } else {
            broker.kill();
            counts.kills += 1;
        }
        for client in clients {
            client.abort();
            if let Err(end) = client.await
                && end.is_panic()
            {
                std::panic::resume_unwind(end.into_panic());
            }
        }
        book.open().killed();
    }
    let broker = Broker::spawn(binary, folder, &settings);
    let address = broker.ready();
    if let Err(error) = account(&address, &book, random).await {
        book.open().fail(&format!("the account: {error}"));
    }
    broker.stop();
    let book = book.open();
    counts.published = book.next - first;
    counts.received = book.received;
    counts.transactions = book.transactions.len() as u64;
    let repeated = book.once.iter().map(|o| o.numbers.len() as u64 - 1);
    counts.duplicates = repeated.sum();
    counts
}

/// Takes everything out: what must be there is there, and nothing else.
async fn account(address: &str, book: &Arc<Book>, random: Random) -> Result<()> {
    let mut c = Client::connect(address, book, random).await?;
    let (since, id) = (Instant::now(), book.open().id());
    book.open().note("account".into());
    // It may have been deleted, and not be there again.
    c.declare(QUEUES[PURGES], FieldTable::default()).await?;
    loop {
        let delayed_until = book.open().delayed_until;
        let late = since.elapsed() > LONGEST && delayed_until < Some(Instant::now() - LATE_MAX);
        let mut found = 0;
        for queue in 0..QUEUES.len() {
            while c.get(queue, true, id).await?.is_some() {
                found += 1;
            }
        }
        let pages = book.open();
        let missing: Vec<_> = pages.history.missing().collect();
        if missing.is_empty() && found == 0 && late {
            pages.account();
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            let some = missing.iter().take(5).map(|m| pages.history.describe(*m));
            let some: Vec<_> = some.collect();
            pages.fail(&format!("{} are lost, of them {some:#?}", missing.len()));
        }
    }
}
