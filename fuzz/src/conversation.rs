//! Several connections to one broker. The input is a list of things that clients do, with names and arguments from short
//! lists, so that they meet. What each is told is in order, all that the broker counts is what they hold, and when all
//! is gone nothing is left of it.

use std::sync::Arc;

use leveret::amqp::settings::SessionSettings;
use leveret::broker::Broker;
use leveret::broker::memory::Use;
use leveret::broker::queue::DeleteIf;
use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::frame::FrameKind;
use leveret::protocol::methods::{basic, channel, exchange, queue, tx};
use leveret::protocol::properties::Properties;
use leveret::storage::memory::MemoryLog;

use super::octets::Octets;
use super::peer::Peer;
use super::work::Work;
use super::{session, within};

/// A broker, three connections with their buffers.
const AT_REST: u64 = 16 << 20;

/// A publish takes 8 octets here, and may go to all queues, with a body of 40,000.
const FOR_AN_OCTET: u64 = 64 << 10;

/// What stays of all that was made: caches of the threads.
const LEFT_MAX: i64 = 64 << 10;

/// Octets of an input at most.
const INPUT_MAX: usize = 4096;

const QUEUES: [&str; 5] = ["q0", "q1", "q2", "q3", "amq.none"];
const EXCHANGES: [&str; 7] = [
    "x0",
    "x1",
    "x2",
    "x3",
    "",
    "amq.topic",
    "amq.rabbitmq.trace",
];
const TYPES: [&str; 9] = [
    "fanout",
    "direct",
    "topic",
    "headers",
    "x-delayed-message",
    "x-recent-history",
    "x-consistent-hash",
    "x-random",
    "x-local-random",
];
const KEYS: [&str; 8] = ["q0", "q1", "q2", "q3", "a.b", "a.*", "#", ""];

/// See the module.
pub fn run(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_MAX)];
    let left = allocation_counter::measure(|| {
        within(AT_REST, FOR_AN_OCTET, input.len(), || {
            World::new().live(Octets::new(input))
        });
    });
    assert!(
        left.bytes_current < LEFT_MAX,
        "{} octets are left",
        left.bytes_current
    );
}

struct World {
    log: Arc<MemoryLog>,
    broker: Arc<Broker>,
    work: Arc<Work>,
    peers: Vec<Peer>,
    now: u64,
    /// A queue may have gone with what was delivered of it.
    gone: bool,
}

impl World {
    fn new() -> World {
        let log = MemoryLog::new();
        let broker = session::broker_on(log.clone());
        let work = Arc::new(Work::default());
        broker.set_scheduler(work.clone());
        let now = 1_700_000_000_000;
        let peers = (0..3).map(|_| World::peer(&broker, now)).collect();
        World {
            log,
            broker,
            work,
            peers,
            now,
            gone: false,
        }
    }

    fn peer(broker: &Arc<Broker>, now: u64) -> Peer {
        Peer::new(
            broker,
            SessionSettings {
                consumer_timeout_ms: 60_000,
                ..SessionSettings::default()
            },
            now,
        )
    }

    fn live(mut self, mut input: Octets<'_>) {
        while !input.is_empty() {
            self.step(&mut input);
            self.turn();
        }
        self.log.hold(false);
        for _ in 0..4 {
            self.turn();
        }
        self.counts_agree();
        for peer in &mut self.peers {
            peer.lose(self.now);
        }
        for _ in 0..4 {
            self.turn();
        }
        self.all_is_got();
        self.nothing_is_left();
    }

    /// All that has been said is heard, all that is to be done is done.
    fn turn(&mut self) {
        for peer in &mut self.peers {
            peer.turn(self.now);
        }
        self.work.turn(&self.broker, self.now);
        for peer in &mut self.peers {
            peer.turn(self.now);
        }
    }

    fn step(&mut self, input: &mut Octets<'_>) {
        let what = input.octet();
        let who = usize::from(input.octet());
        let (peer, number) = (who % self.peers.len(), 1 + (who >> 4) as u16 % 2);
        match what % 40 {
            0..=2 => self.declare_queue(peer, number, input),
            3 => self.declare_exchange(peer, number, input),
            4 | 5 => self.bind(peer, number, input),
            6..=13 => self.publish(peer, number, input),
            14 | 15 => {
                let (queue, no_ack) = (input.one(&QUEUES), input.octet() & 1 == 1);
                self.peers[peer].get(number, queue, no_ack);
            }
            16 | 17 => self.consume(peer, number, input),
            18 => {
                let (consumer_tag, nowait) =
                    (input.one(&["c0", "c1", "c2", ""]), input.octet() & 1 == 1);
                self.peers[peer].say(
                    number,
                    &basic::Cancel {
                        consumer_tag,
                        nowait,
                    },
                );
            }
            19..=22 => {
                let (how, tag) = (input.octet(), input.octet());
                self.peers[peer].settle(number, how, tag);
            }
            23 => {
                let (prefetch_count, global) =
                    (u16::from(input.octet_below(4)), input.octet() & 1 == 1);
                self.peers[peer].say(
                    number,
                    &basic::Qos {
                        prefetch_size: 0,
                        prefetch_count,
                        global,
                    },
                );
            }
            24 => self.peers[peer].select(number, false),
            25 => self.peers[peer].select(number, true),
            26 => self.peers[peer].say(number, &tx::Commit),
            27 => self.peers[peer].say(number, &tx::Rollback),
            28 => self.peers[peer].recover(number),
            29 => {
                let purge = queue::Purge {
                    queue: input.one(&QUEUES),
                    nowait: input.octet() & 1 == 1,
                };
                self.peers[peer].say(number, &purge);
            }
            30 => {
                self.gone = true;
                let flags = input.octet();
                let delete = queue::Delete {
                    queue: input.one(&QUEUES),
                    if_unused: flags & 1 == 1,
                    if_empty: flags & 2 == 2,
                    nowait: flags & 4 == 4,
                };
                self.peers[peer].say(number, &delete);
            }
            31 => {
                self.gone = true;
                let flags = input.octet();
                let delete = exchange::Delete {
                    exchange: input.one(&EXCHANGES),
                    if_unused: flags & 1 == 1,
                    nowait: flags & 4 == 4,
                };
                self.peers[peer].say(number, &delete);
            }
            32 => self.peers[peer].open(number),
            33 => self.peers[peer].close(number),
            34 => {
                self.peers[peer].lose(self.now);
                self.gone = true;
                self.peers[peer] = World::peer(&self.broker, self.now);
            }
            35 => {
                self.now += [1, 10, 1000, 70_000][usize::from(input.octet_below(4))];
                self.gone = true;
            }
            36 => self.log.hold(input.octet() & 1 == 1),
            37 => self.part_of_a_publish(peer, number, input),
            38 => {
                let flow = channel::Flow {
                    active: input.octet() & 1 == 1,
                };
                self.peers[peer].say(number, &flow);
            }
            _ => {
                // What is no frame, perhaps.
                let n = usize::from(input.octet_below(32));
                self.peers[peer].octets(input.take(n));
            }
        }
    }

    fn declare_queue(&mut self, peer: usize, number: u16, input: &mut Octets<'_>) {
        let (queue, flags, which) = (input.one(&QUEUES), input.octet(), input.octet());
        let mut t = FieldTable::new();
        if which & 1 == 1 {
            t.insert("x-max-length", i64::from(which >> 6));
        }
        if which & 2 == 2 {
            t.insert("x-dead-letter-exchange", input.one(&EXCHANGES));
        }
        if which & 4 == 4 {
            t.insert(
                "x-message-ttl",
                [0i64, 1, 1000, 100_000][usize::from(which >> 6)],
            );
        }
        match which >> 3 & 7 {
            0 => t.insert("x-queue-type", "quorum"),
            1 => {
                t.insert("x-queue-type", "quorum");
                t.insert("x-delivery-limit", 1i64);
            }
            2 => t.insert("x-max-priority", 3i64),
            3 => t.insert("x-single-active-consumer", true),
            4 => t.insert("x-overflow", "reject-publish"),
            5 => {
                t.insert("x-message-deduplication", true);
            }
            6 => t.insert("x-expires", 500i64),
            _ => {}
        }
        self.gone |= flags & 0b110 != 0;
        let arguments = t.to_bytes();
        let declare = queue::Declare {
            queue,
            passive: flags & 0b11_1000 == 0b11_1000,
            durable: flags & 1 == 0,
            exclusive: flags & 0b110 == 0b110,
            auto_delete: flags & 0b110 == 0b100,
            nowait: flags & 0x40 == 0x40,
            arguments: TableRef::unchecked(&arguments),
        };
        self.peers[peer].say(number, &declare);
    }

    fn declare_exchange(&mut self, peer: usize, number: u16, input: &mut Octets<'_>) {
        let (name, type_, flags) = (input.one(&EXCHANGES), input.one(&TYPES), input.octet());
        let mut t = FieldTable::new();
        if type_ == "x-delayed-message" {
            t.insert("x-delayed-type", "fanout");
        }
        if flags & 8 == 8 {
            t.insert("alternate-exchange", input.one(&EXCHANGES));
        }
        let arguments = t.to_bytes();
        let declare = exchange::Declare {
            exchange: name,
            type_,
            durable: flags & 1 == 0,
            auto_delete: flags & 2 == 2,
            internal: flags & 0x30 == 0x30,
            arguments: TableRef::unchecked(&arguments),
            ..Default::default()
        };
        self.peers[peer].say(number, &declare);
    }

    fn bind(&mut self, peer: usize, number: u16, input: &mut Octets<'_>) {
        let (source, routing_key, flags) = (input.one(&EXCHANGES), input.one(&KEYS), input.octet());
        let mut t = FieldTable::new();
        if flags & 1 == 1 {
            t.insert("x-match", "any");
            t.insert("h", 1i64);
        }
        let arguments = t.to_bytes();
        let arguments = TableRef::unchecked(&arguments);
        let (queue, destination) = (input.one(&QUEUES), input.one(&EXCHANGES));
        let peer = &mut self.peers[peer];
        match flags >> 1 & 7 {
            0 => peer.say(
                number,
                &exchange::Bind {
                    destination,
                    source,
                    routing_key,
                    nowait: false,
                    arguments,
                },
            ),
            1 => peer.say(
                number,
                &exchange::Unbind {
                    destination,
                    source,
                    routing_key,
                    nowait: false,
                    arguments,
                },
            ),
            2 => peer.say(
                number,
                &queue::Unbind {
                    queue,
                    exchange: source,
                    routing_key,
                    arguments,
                },
            ),
            n => peer.say(
                number,
                &queue::Bind {
                    queue,
                    exchange: source,
                    routing_key,
                    nowait: n == 3,
                    arguments,
                },
            ),
        }
    }

    fn properties(input: &mut Octets<'_>) -> Vec<u8> {
        let mut p = Properties::default();
        let flags = input.octet();
        if flags & 1 == 1 {
            p.delivery_mode = Some(2);
        }
        if flags & 2 == 2 {
            p.expiration = Some(input.one(&["0", "1", "1000", "x"]).into());
        }
        if flags & 4 == 4 {
            p.priority = Some(input.octet());
        }
        if flags & 8 == 8 {
            let mut t = FieldTable::new();
            t.insert(
                input.one(&[
                    "h",
                    "x-delay",
                    "x-deduplication-header",
                    "CC",
                    "x-delivery-count",
                ]),
                i64::from(input.octet()),
            );
            p.headers = Some(t);
        }
        if flags & 16 == 16 {
            p.message_id = Some(input.one(&["m0", "m1"]).into());
        }
        if flags & 32 == 32 {
            p.reply_to = Some(input.one(&["amq.rabbitmq.reply-to", "q0"]).into());
        }
        p.encode()
    }

    fn publish(&mut self, peer: usize, number: u16, input: &mut Octets<'_>) {
        let (name, key) = (input.one(&EXCHANGES), input.one(&KEYS));
        let body = vec![7; [0, 1, 100, 40_000][usize::from(input.octet_below(4))]];
        let mandatory = input.octet() & 1 == 1;
        let properties = World::properties(input);
        self.peers[peer].publish(number, (name, key, mandatory), &properties, &body);
    }

    /// A header that says more than comes; the next method on the channel is one too early.
    fn part_of_a_publish(&mut self, peer: usize, number: u16, input: &mut Octets<'_>) {
        let publish = basic::Publish {
            exchange: "".into(),
            routing_key: "q0".into(),
            mandatory: false,
            immediate: false,
        };
        let peer = &mut self.peers[peer];
        peer.say(number, &publish);
        let mut header = [0, 60, 0, 0].to_vec();
        header.extend(
            [0, 1 << 10, 1 << 30, u64::MAX][usize::from(input.octet_below(4))].to_be_bytes(),
        );
        header.extend(World::properties(input));
        peer.frame(FrameKind::Header, number, &header);
        peer.frame(FrameKind::Body, number, &[1; 100]);
        peer.wild();
    }

    fn consume(&mut self, peer: usize, number: u16, input: &mut Octets<'_>) {
        let (queue, consumer_tag) = (
            input.one(&[QUEUES[0], "q1", "q2", "q3", "amq.rabbitmq.reply-to"]),
            input.one(&["c0", "c1", "c2", ""]),
        );
        let flags = input.octet();
        let mut t = FieldTable::new();
        if flags & 8 == 8 {
            t.insert("x-priority", i64::from(flags >> 4));
        }
        let arguments = t.to_bytes();
        let consume = basic::Consume {
            queue,
            consumer_tag,
            no_local: false,
            no_ack: flags & 1 == 1,
            exclusive: flags & 2 == 2,
            nowait: flags & 4 == 4,
            arguments: TableRef::unchecked(&arguments),
        };
        self.peers[peer].consume(number, &consume);
    }

    /// What queues count as delivered is what clients have.
    fn counts_agree(&self) {
        let queues = self.broker.all_queues();
        let counts: Vec<_> = queues.iter().map(|q| q.counts()).collect();
        let unacked: u64 = counts.iter().map(|c| c.unacked).sum();
        if self.gone || self.peers.iter().any(|p| !p.is_followed()) {
            return;
        }
        let held: usize = self.peers.iter().map(Peer::held).sum();
        assert_eq!(unacked, held as u64, "unacknowledged");
    }

    /// What is counted as ready is got, and no more.
    fn all_is_got(&mut self) {
        for queue in self.broker.all_queues() {
            let counts = queue.counts();
            let name = queue.info().name.clone();
            assert_eq!(
                (counts.unacked, counts.unacked_bytes, counts.consumers),
                (0, 0, 0),
                "{name}"
            );
            if queue.info().delays.is_some() {
                continue;
            }
            let mut peer = World::peer(&self.broker, self.now);
            let mut n = 0;
            loop {
                peer.get(1, &name, true);
                peer.turn(self.now);
                for _ in 0..8 {
                    self.work.turn(&self.broker, self.now);
                    peer.turn(self.now);
                }
                if peer.is_over() || peer.take_got() == 0 {
                    break;
                }
                n += 1;
                assert!(n <= counts.ready, "{name} has more than {}", counts.ready);
            }
            // Others may have come back from where they died.
            assert!(
                n == counts.ready || self.gone || queue.counts().ready == 0,
                "{name}: {n} of {}",
                counts.ready
            );
            assert_eq!(queue.counts().ready, 0, "{name}");
            peer.lose(self.now);
        }
    }

    fn nothing_is_left(mut self) {
        for vhost in self.broker.vhosts() {
            for queue in vhost.queues() {
                let mut fx = Default::default();
                vhost
                    .delete_queue(&queue, DeleteIf::default(), &mut fx)
                    .expect("nobody has it");
                self.work.flush(&self.broker, fx, self.now);
            }
            for x in vhost.exchanges() {
                let _ = vhost.delete_exchange(&x.info.name, false);
            }
        }
        for _ in 0..4 {
            self.work.turn(&self.broker, self.now);
        }
        self.peers.clear();
        // Messages are kept by the log in memory, which gives nothing back: they are looked for at the end of it all.
        let none = [
            Use::Entries,
            Use::Places,
            Use::Unacked,
            Use::Transactions,
            Use::Assembly,
            Use::Routes,
            Use::DeadLetters,
            Use::DeadMessages,
        ];
        for what in none {
            assert_eq!(self.broker.memory().used(what), 0, "{}", what.name());
        }
    }
}
