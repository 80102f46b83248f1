//! The queues whose messages are followed, and the ways to them.

use leveret::protocol::field_table::FieldTable;

use crate::random::Random;

/// Where dead letters go.
pub const DEAD: usize = 7;

/// The queue with priorities.
pub const PRIORITIES: usize = 2;

/// Queues of a round, [`DEAD`] among them.
pub const QUEUES: usize = 8;

/// Whether a queue hands out its messages in the order of their publication.
pub fn is_ordered(queue: usize) -> bool {
    queue != PRIORITIES && queue != DEAD
}

/// Whether what is lost to a queue goes to [`DEAD`].
pub fn has_dead_letters(queue: usize) -> bool {
    [3, 4, 6].contains(&queue)
}

/// The names of one round: what was deleted in another must not be there again.
pub struct Names {
    pub round: u64,
}

impl Names {
    pub fn queue(&self, index: usize) -> String {
        format!("kept-{}-{index}", self.round)
    }

    /// Which queue this is.
    pub fn index(&self, name: &[u8]) -> Option<usize> {
        (0..QUEUES).find(|i| self.queue(*i).as_bytes() == name)
    }

    pub fn exchange(&self, what: &str) -> String {
        format!("kept-{}-{what}", self.round)
    }

    /// Arguments of a queue.
    pub fn arguments(&self, index: usize, random: &mut Random) -> FieldTable {
        let mut t = FieldTable::new();
        match index {
            1 => {
                t.insert("x-queue-type", "quorum");
                t.insert("x-delivery-limit", -1i64);
            }
            PRIORITIES => t.insert("x-max-priority", 5i64),
            3 => t.insert("x-message-ttl", random.pick(&[0i64, 1, 20, 200])),
            4 => t.insert("x-max-length", 5i64),
            5 => t.insert("x-single-active-consumer", true),
            6 => {
                t.insert("x-queue-type", "quorum");
                t.insert("x-delivery-limit", 2i64);
            }
            _ => {}
        }
        if has_dead_letters(index) {
            t.insert("x-dead-letter-exchange", self.exchange("dead").as_str());
        }
        t
    }
}

/// Exchanges, with their types.
pub const EXCHANGES: &[(&str, &str)] = &[
    ("all", "fanout"),
    ("some", "topic"),
    ("later", "x-delayed-message"),
    ("dead", "fanout"),
];

/// Exchange, key, queue.
pub const BINDINGS: &[(&str, &str, usize)] = &[
    ("all", "", 0),
    ("all", "", 1),
    ("all", "", 3),
    ("some", "a.#", 0),
    ("some", "*.b", 1),
    ("some", "#.c.#", 2),
    ("later", "", 0),
    ("later", "", 5),
    ("dead", "", DEAD),
];

/// A way to publish: exchange, key, and the queues it leads to.
pub struct Way {
    pub exchange: &'static str,
    pub key: &'static str,
    pub to: &'static [usize],
}

/// Ways through exchanges; the default exchange leads to each queue by its name.
pub const WAYS: &[Way] = &[
    Way {
        exchange: "all",
        key: "any",
        to: &[0, 1, 3],
    },
    Way {
        exchange: "some",
        key: "a.b",
        to: &[0, 1],
    },
    Way {
        exchange: "some",
        key: "a.b.c",
        to: &[0, 2],
    },
    Way {
        exchange: "some",
        key: "x.b",
        to: &[1],
    },
    Way {
        exchange: "some",
        key: "c",
        to: &[2],
    },
    Way {
        exchange: "some",
        key: "none",
        to: &[],
    },
    Way {
        exchange: "later",
        key: "",
        to: &[0, 5],
    },
];
