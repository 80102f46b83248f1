//! A round: a broker with settings of the seed, clients that do what they like, and the account at the end.

use std::path::{Path, PathBuf};
use std::time::Instant;

use leveret::protocol::field_table::TableRef;
use leveret::protocol::methods::{exchange, queue};
use leveret::protocol::{EncodeMethod, Method};

use crate::random::{Random, mix};
use crate::support::{self, Broker, PATIENCE};
use crate::topology::{BINDINGS, EXCHANGES, Names, QUEUES};
use crate::world::{CONNECTIONS, End, World};

/// Operations of a round.
pub const OPERATIONS: u64 = 4000;

/// A kill or a stop comes once in so many operations.
const RESTART_ONE_IN: usize = 900;

/// What the process may hold when all is deleted, octets.
const RESIDENT_MAX: u64 = 192 << 20;

/// What the log may hold when all is deleted, octets; its segments are small here.
const LOG_MAX: u64 = 24 << 20;

#[derive(Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub messages: u64,
    pub received: u64,
    pub kills: u64,
    pub stops: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.operations += other.operations;
        self.messages += other.messages;
        self.received += other.received;
        self.kills += other.kills;
        self.stops += other.stops;
    }
}

pub struct Round {
    data: PathBuf,
    settings: Vec<(&'static str, &'static str)>,
    broker: Option<Broker>,
    world: World,
    counts: Counts,
    operations_max: u64,
}

impl Round {
    pub fn new(seed: u64, dir: &Path, more: &[(&'static str, &'static str)]) -> Round {
        let mut random = Random::new(seed);
        let mut settings = vec![
            ("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0"),
            (
                "LEVERET_STORAGE_SEGMENT_BYTES",
                random.pick(&["1MiB", "1MiB", "4MiB"]),
            ),
            (
                "LEVERET_MEMORY_BODY_BUDGET_BYTES",
                random.pick(&["64KiB", "1MiB", "64MiB"]),
            ),
            (
                "LEVERET_LIMITS_INBOX_DELIVERIES",
                random.pick(&["1", "16", "512"]),
            ),
            ("LEVERET_DISK_RESERVE_BYTES", random.pick(&["0", "1MiB"])),
        ];
        settings.extend(more);
        let data = dir.join("data");
        let broker = Broker::start(&data, &settings);
        let names = Names {
            round: mix(seed) >> 40,
        };
        Round {
            world: World::new(broker.address, random, names),
            data,
            settings,
            broker: Some(broker),
            counts: Counts::default(),
            operations_max: OPERATIONS,
        }
    }

    /// The same with fewer operations.
    pub fn of(self, operations_max: u64) -> Round {
        Round {
            operations_max,
            ..self
        }
    }

    pub fn run(mut self) -> Counts {
        self.declare()
            .unwrap_or_else(|end| self.world.fail(&format!("declaring: {end:?}")));
        for _ in 0..self.operations_max {
            self.world.operation();
            if self.world.random.one_in(RESTART_ONE_IN) {
                self.restart();
            }
        }
        self.account();
        self.tidy_up();
        self.counts.operations = self.world.operations;
        self.counts.messages = self.world.messages.len() as u64;
        self.counts.received = self.world.received;
        self.counts
    }

    fn declare(&mut self) -> Result<(), End> {
        let w = &mut self.world;
        w.ensure(0, 1)?;
        for (name, type_) in EXCHANGES {
            let mut arguments = leveret::protocol::field_table::FieldTable::new();
            if *type_ == "x-delayed-message" {
                arguments.insert("x-delayed-type", "fanout");
            }
            let arguments = arguments.to_bytes();
            let declare = exchange::Declare {
                exchange: &w.names.exchange(name),
                type_,
                durable: true,
                arguments: TableRef::unchecked(&arguments),
                ..exchange::Declare::default()
            };
            w.call(0, 1, &declare, exchange::DeclareOk::ID)?;
        }
        for index in 0..QUEUES {
            let arguments = w.names.arguments(index, &mut w.random).to_bytes();
            let declare = queue::Declare {
                queue: &w.names.queue(index),
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments: TableRef::unchecked(&arguments),
            };
            let frame = w.call(0, 1, &declare, queue::DeclareOk::ID)?;
            let Method::QueueDeclareOk(ok) = frame.method() else {
                unreachable!("it was asked for")
            };
            assert_eq!(ok.message_count, 0, "a queue of this name was deleted");
        }
        for (source, routing_key, index) in BINDINGS {
            let bind = queue::Bind {
                queue: &w.names.queue(*index),
                exchange: &w.names.exchange(source),
                routing_key,
                nowait: false,
                arguments: TableRef::default(),
            };
            w.call(0, 1, &bind, queue::BindOk::ID)?;
        }
        Ok(())
    }

    /// kill -9, or SIGTERM, and up again.
    fn restart(&mut self) {
        for i in 0..CONNECTIONS {
            self.world.connection_lost(i);
        }
        let broker = self.broker.take().expect("it runs");
        if self.world.random.one_in(4) {
            self.world.note("SIGTERM".into());
            assert!(broker.stop(), "a clean stop");
            self.counts.stops += 1;
        } else {
            self.world.note("kill -9".into());
            broker.kill();
            self.counts.kills += 1;
        }
        self.world.history.killed();
        let broker = Broker::start(&self.data, &self.settings);
        self.world.address = broker.address;
        self.broker = Some(broker);
    }

    /// All clients leave; what must be there is there, once, and what was settled is not.
    fn account(&mut self) {
        let w = &mut self.world;
        for i in 0..CONNECTIONS {
            if w.connections[i].is_some() {
                // It may have ended otherwise meanwhile.
                let _ = w.close_connection(i);
            }
        }
        w.note("account".into());
        let since = Instant::now();
        loop {
            for index in 0..QUEUES {
                let drained = Round::drain(w, index);
                drained.unwrap_or_else(|end| w.fail(&format!("draining: {end:?}")));
            }
            let missing: Vec<_> = w.history.missing().collect();
            if missing.is_empty() {
                return;
            }
            if since.elapsed() > PATIENCE {
                let some: Vec<_> = missing
                    .iter()
                    .take(5)
                    .map(|c| w.history.describe(*c))
                    .collect();
                w.fail(&format!("{} are lost, of them {some:#?}", missing.len()));
            }
        }
    }

    /// Takes everything out of a queue: as many as the broker says are there.
    fn drain(w: &mut World, index: usize) -> Result<(), End> {
        w.ensure(0, 1)?;
        let name = w.names.queue(index);
        let since = Instant::now();
        // Some are still on their way, or expire: the two must agree in the end.
        loop {
            while w.get_from(0, 1, &name, Some(index), true)? {}
            let left = w.ready(0, 1, index)?;
            if left == 0 {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                w.fail(&format!("{name}: {left} are counted that cannot be got"));
            }
        }
    }

    /// Deletes everything: the broker is as it was.
    fn tidy_up(&mut self) {
        let deleted = Round::delete(&mut self.world);
        deleted.unwrap_or_else(|end| self.world.fail(&format!("deleting: {end:?}")));
        // It may have ended otherwise meanwhile.
        let _ = self.world.close_connection(0);
        let broker = self.broker.take().expect("it runs");
        let metrics = broker.listens("prometheus");
        let since = Instant::now();
        let none = [
            "rabbitmq_queues",
            "rabbitmq_consumers",
            "rabbitmq_channels",
            "rabbitmq_queue_messages",
        ];
        loop {
            let page = support::scrape(metrics);
            let mut left: Vec<(&str, f64)> = none
                .iter()
                .map(|m| (*m, support::metric(&page, m)))
                .collect();
            left.retain(|(_, n)| *n != 0.0);
            let log = support::metric(&page, "leveret_log_bytes");
            let resident = broker.resident();
            if left.is_empty() && log < LOG_MAX as f64 && resident < RESIDENT_MAX {
                break;
            }
            if since.elapsed() > PATIENCE {
                let left = format!("{left:?}, log {log}, resident {resident}");
                self.world
                    .fail(&format!("all is deleted, and there is {left}"));
            }
        }
        assert!(broker.stop(), "a clean stop");
    }

    fn delete(w: &mut World) -> Result<(), End> {
        w.ensure(0, 1)?;
        w.delete_the_wild(0, 1)?;
        for index in 0..QUEUES {
            let delete = queue::Delete {
                queue: &w.names.queue(index),
                if_unused: false,
                if_empty: false,
                nowait: false,
            };
            w.call(0, 1, &delete, queue::DeleteOk::ID)?;
        }
        for (name, _) in EXCHANGES {
            let delete = exchange::Delete {
                exchange: &w.names.exchange(name),
                if_unused: false,
                nowait: false,
            };
            w.call(0, 1, &delete, exchange::DeleteOk::ID)?;
        }
        Ok(())
    }
}
