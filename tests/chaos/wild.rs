//! What no good client does: any method with any argument, on queues that nobody follows; and octets that are
//! no AMQP at all.

use bytes::BytesMut;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::TableRef;
use leveret::protocol::frame::{self, FrameKind, Parsed};
use leveret::protocol::methods::{basic, channel, confirm, connection, exchange, queue, tx};
use leveret::protocol::properties::Properties;
use leveret::protocol::short::ShortBuf;
use leveret::protocol::{EncodeMethod, Method};

use crate::body::WILD;
use crate::link::Link;
use crate::random::{self, Random};
use crate::world::{Channel, End, Mode, OnItsWay, Source, World};

impl World {
    pub fn wild(&mut self, i: usize, number: u16) -> Result<(), End> {
        match self.random.below(100) {
            0..20 => self.declares_anything(i, number),
            20..35 => self.binds_anything(i, number),
            35..42 => self.deletes_anything(i, number),
            42..65 => self.publishes_anything(i, number),
            65..75 => {
                let name = random::queue_name(&mut self.random);
                self.get_from(i, number, &name, None, true).map(drop)
            }
            75..82 => self.consumes_anything(i, number),
            82..90 => self.says_nonsense(i, number),
            _ => self.hostile(),
        }
    }

    /// Sends, and waits for whatever comes.
    fn ask<M: EncodeMethod + std::fmt::Debug>(
        &mut self,
        i: usize,
        number: u16,
        m: &M,
        nowait: bool,
    ) -> Result<(), End> {
        let shown: String = format!("{m:?}").chars().take(300).collect();
        self.note(format!("{i}.{number}: {shown}"));
        self.send(i, number, m)?;
        match nowait {
            true => self.nobody_asks(i, number),
            false => self.answer(i, number).map(drop),
        }
    }

    fn arguments(&mut self) -> Vec<u8> {
        match self.random.one_in(3) {
            true => random::table(&mut self.random, 2).to_bytes(),
            false => random::sensible(&mut self.random).to_bytes(),
        }
    }

    fn declares_anything(&mut self, i: usize, number: u16) -> Result<(), End> {
        let arguments = self.arguments();
        let arguments = TableRef::unchecked(&arguments);
        let r = &mut self.random;
        let (passive, nowait) = (r.one_in(8), r.one_in(6));
        let (durable, auto_delete) = (!r.one_in(3), r.one_in(5));
        if r.one_in(3) {
            let name = random::exchange_name(r);
            let types = [
                "direct",
                "fanout",
                "topic",
                "headers",
                "x-delayed-message",
                "x-none",
                "",
            ];
            let known = if r.one_in(8) { types.len() } else { 4 };
            let type_ = r.pick(&types[..known]);
            let internal = r.one_in(9);
            self.wild_exchanges.insert(name.clone());
            let declare = exchange::Declare {
                exchange: &name,
                type_,
                passive,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments,
            };
            return self.ask(i, number, &declare, nowait);
        }
        let name = random::name(r);
        // A queue that is named by the broker ends with its connection, or nobody could delete it.
        let exclusive = name.is_empty() || r.one_in(6);
        self.wild_queues.insert(name.clone());
        let declare = queue::Declare {
            queue: &name,
            passive,
            durable,
            exclusive,
            auto_delete,
            nowait,
            arguments,
        };
        self.ask(i, number, &declare, nowait)
    }

    fn binds_anything(&mut self, i: usize, number: u16) -> Result<(), End> {
        let arguments = self.arguments();
        let arguments = TableRef::unchecked(&arguments);
        let r = &mut self.random;
        let nowait = r.one_in(5);
        let (exchange, key) = (random::exchange_name(r), random::name(r));
        let (queue, other) = (random::queue_name(r), random::exchange_name(r));
        let (exchange, routing_key) = (exchange.as_str(), key.as_str());
        match r.below(8) {
            0 => {
                let unbind = queue::Unbind {
                    queue: &queue,
                    exchange,
                    routing_key,
                    arguments,
                };
                self.ask(i, number, &unbind, false)
            }
            1 => {
                let (destination, source) = (other.as_str(), exchange);
                let unbind = exchange::Unbind {
                    destination,
                    source,
                    routing_key,
                    nowait,
                    arguments,
                };
                self.ask(i, number, &unbind, nowait)
            }
            2 => {
                let (destination, source) = (other.as_str(), exchange);
                let bind = exchange::Bind {
                    destination,
                    source,
                    routing_key,
                    nowait,
                    arguments,
                };
                self.ask(i, number, &bind, nowait)
            }
            _ => {
                let bind = queue::Bind {
                    queue: &queue,
                    exchange,
                    routing_key,
                    nowait,
                    arguments,
                };
                self.ask(i, number, &bind, nowait)
            }
        }
    }

    fn deletes_anything(&mut self, i: usize, number: u16) -> Result<(), End> {
        let r = &mut self.random;
        let nowait = r.one_in(4);
        let if_unused = r.one_in(3);
        let (queue, exchange) = (random::queue_name(r), random::exchange_name(r));
        match r.below(4) {
            0 => {
                let exchange = exchange.as_str();
                self.ask(
                    i,
                    number,
                    &exchange::Delete {
                        exchange,
                        if_unused,
                        nowait,
                    },
                    nowait,
                )
            }
            1 => self.ask(
                i,
                number,
                &queue::Purge {
                    queue: &queue,
                    nowait,
                },
                nowait,
            ),
            _ => {
                let if_empty = r.one_in(3);
                let delete = queue::Delete {
                    queue: &queue,
                    if_unused,
                    if_empty,
                    nowait,
                };
                self.ask(i, number, &delete, nowait)
            }
        }
    }

    fn publishes_anything(&mut self, i: usize, number: u16) -> Result<(), End> {
        let r = &mut self.random;
        let (exchange, key) = match r.one_in(2) {
            true => (String::new(), random::queue_name(r)),
            false => (random::exchange_name(r), random::name(r)),
        };
        let publish = basic::Publish {
            exchange: exchange.as_str().into(),
            routing_key: key.as_str().into(),
            mandatory: r.one_in(3),
            immediate: r.one_in(40),
        };
        let mut body = WILD.to_vec();
        body.resize(4 + r.pick(&[0, 0, 1, 100, 131_064, 200_000]), 7);
        let properties = any_properties(r).encode();
        self.note(format!("{i}.{number}: {publish:?}"));
        let out = &mut self.connection(i).link.out;
        encode::method(out, number, &publish);
        let content = Content {
            properties: &properties,
            body: &body,
        };
        encode::content(out, number, &content, 131_072);
        let c = self.channel(i, number);
        c.published += 1;
        let tag = c.published;
        let nothing = OnItsWay {
            copies: Vec::new(),
            settled: 0,
        };
        c.on_their_way.insert(tag, nothing);
        self.flush(i)?;
        self.nobody_asks(i, number)
    }

    /// What was sent has no answer, and may have ended the channel or the connection: what they held may be with
    /// others before that is known here. Or it is asked for at once; as it has to be where consumers are, because
    /// what is on its way to them may be with others before it is read here.
    fn nobody_asks(&mut self, i: usize, number: u16) -> Result<(), End> {
        let channels = &self.connection(i).channels;
        let mut consumers = channels.iter().flat_map(|c| c.consumers.values());
        let hears = consumers.any(|source| source.queue.is_some());
        if self.random.one_in(2) || hears {
            return self.count(i, number);
        }
        let held = self.connection(i).channels.iter().flat_map(Channel::held);
        let held: Vec<_> = held.collect();
        for copy in held {
            self.history.returned(copy);
        }
        Ok(())
    }

    fn consumes_anything(&mut self, i: usize, number: u16) -> Result<(), End> {
        let arguments = self.arguments();
        let r = &mut self.random;
        let (queue, exclusive, no_ack) = (random::queue_name(r), r.one_in(6), r.one_in(2));
        let source = Source {
            queue: None,
            no_ack,
            id: self.new_id(),
        };
        let tag = format!("w{}", source.id);
        self.channel(i, number)
            .consumers
            .insert(tag.clone(), source);
        let consume = basic::Consume {
            queue: &queue,
            consumer_tag: &tag,
            no_local: false,
            no_ack,
            exclusive,
            nowait: false,
            arguments: TableRef::unchecked(&arguments),
        };
        self.ask(i, number, &consume, false)
    }

    /// Methods that are wrong here, and what the broker says to each.
    fn says_nonsense(&mut self, i: usize, number: u16) -> Result<(), End> {
        match self.random.below(12) {
            0 => self.ask(
                i,
                number,
                &basic::Ack {
                    delivery_tag: u64::MAX,
                    multiple: false,
                },
                false,
            ),
            1 => self.ask(
                i,
                number,
                &basic::Nack {
                    delivery_tag: 1 << 63,
                    multiple: false,
                    requeue: true,
                },
                false,
            ),
            2 => self.ask(
                i,
                number,
                &basic::Reject {
                    delivery_tag: u64::MAX,
                    requeue: false,
                },
                false,
            ),
            3 => self.ask(
                i,
                number,
                &basic::Qos {
                    prefetch_size: 1,
                    prefetch_count: 0,
                    global: true,
                },
                false,
            ),
            4 => self.ask(i, number, &basic::Recover { requeue: false }, false),
            5 => self.ask(i, number, &channel::Flow { active: false }, false),
            6 if self.channel(i, number).mode != Mode::Transactions => {
                self.ask(i, number, &tx::Commit, false)
            }
            7 => self.ask(i, number, &basic::GetEmpty, false),
            8 => self.ask(i, number, &channel::Open, false),
            9 => {
                let nobody = basic::Cancel {
                    consumer_tag: "nobody",
                    nowait: false,
                };
                self.ask(i, number, &nobody, false)
            }
            10 => self.ask(
                i,
                number,
                &connection::Open {
                    virtual_host: "none",
                },
                false,
            ),
            _ => self.ask(
                i,
                number,
                &queue::DeclareOk {
                    queue: "",
                    message_count: 1,
                    consumer_count: 1,
                },
                false,
            ),
        }
    }

    /// A connection of its own that says something that was good, and is not any more.
    fn hostile(&mut self) -> Result<(), End> {
        self.note("somebody sends rubbish".into());
        let link = Link::connect(self.address);
        let mut link = link.unwrap_or_else(|e| self.fail(&format!("no login: {e}")));
        let mut out = BytesMut::new();
        encode::method(&mut out, 1, &channel::Open);
        for _ in 0..1 + self.random.below(6) {
            let mut said = BytesMut::new();
            anything(&mut self.random, &mut said);
            for _ in 0..self.random.below(4) {
                let at = self.random.below(said.len());
                said[at] = match self.random.below(4) {
                    0 => 0,
                    1 => 0xFF,
                    2 => said[at].wrapping_add(1),
                    _ => self.random.next() as u8,
                };
            }
            if self.random.one_in(5) {
                said.truncate(self.random.below(said.len()));
            }
            out.extend_from_slice(&said);
        }
        self.remember_declared(&out);
        link.out = out;
        match link.flush() {
            Ok(()) => Ok(()),
            Err(_) => self.fail("rubbish is not even read"),
        }
    }

    /// Flipped octets may declare a queue of any name, that is not exclusive any more.
    fn remember_declared(&mut self, mut said: &[u8]) {
        while let Ok(Parsed::Frame { frame, size }) = frame::parse(said, 0) {
            said = &said[size..];
            if frame.kind != FrameKind::Method {
                continue;
            }
            if let Ok(Method::QueueDeclare(declare)) = Method::decode(frame.payload) {
                self.wild_queues.insert(declare.queue.to_string());
            }
        }
    }

    /// Deletes what nobody followed.
    pub fn delete_the_wild(&mut self, i: usize, number: u16) -> Result<(), End> {
        let queues = std::mem::take(&mut self.wild_queues);
        for name in queues
            .iter()
            .filter(|n| !n.is_empty() && !n.starts_with("amq."))
        {
            let delete = queue::Delete {
                queue: name,
                if_unused: false,
                if_empty: false,
                nowait: false,
            };
            self.ask(i, number, &delete, false)?;
        }
        let exchanges = std::mem::take(&mut self.wild_exchanges);
        for name in exchanges.iter().filter(|n| !n.starts_with("amq.")) {
            let delete = exchange::Delete {
                exchange: name,
                if_unused: false,
                nowait: false,
            };
            self.ask(i, number, &delete, false)?;
        }
        Ok(())
    }
}

fn any_properties(random: &mut Random) -> Properties {
    let mut short = |from: &[&[u8]]| {
        let octets = random.pick(from);
        random
            .one_in(3)
            .then(|| ShortBuf::from(leveret::protocol::short::ShortBytes::cut(octets)))
    };
    let odd: &[&[u8]] = &[b"", b"text", &[0xFF, 0xFE, 0], &[b'x'; 255]];
    let content_type = short(odd);
    let correlation_id = short(odd);
    let expiration = short(&[
        b"0",
        b"1",
        b"50",
        b"-1",
        b"99999999999999999999",
        b"1.5",
        b"x",
    ]);
    let reply_to = short(&[b"amq.rabbitmq.reply-to", b"wild-1", &[0xFF]]);
    let user_id = short(&[b"guest", b"guest", b"nobody"]);
    Properties {
        content_type,
        correlation_id,
        expiration,
        reply_to,
        user_id: user_id.filter(|_| random.one_in(4)),
        delivery_mode: random.pick(&[None, Some(0), Some(1), Some(2), Some(255)]),
        priority: random.pick(&[None, Some(0), Some(9), Some(255)]),
        timestamp: random.pick(&[None, Some(u64::MAX)]),
        headers: random.one_in(2).then(|| random::table(random, 2)),
        ..Properties::default()
    }
}

/// A good frame, or several.
fn anything(random: &mut Random, out: &mut BytesMut) {
    let (name, key) = (random::queue_name(random), random::name(random));
    let exchange = random::exchange_name(random);
    let arguments = random::table(random, 2).to_bytes();
    let arguments = TableRef::unchecked(&arguments);
    let number = random.pick(&[1, 1, 1, 1, 0, 2, 65535]);
    match random.below(10) {
        0 => encode::method(
            out,
            number,
            &queue::Declare {
                queue: &name,
                passive: false,
                durable: false,
                exclusive: true,
                auto_delete: true,
                nowait: false,
                arguments,
            },
        ),
        1 => encode::method(
            out,
            number,
            &queue::Bind {
                queue: &name,
                exchange: &exchange,
                routing_key: &key,
                nowait: false,
                arguments,
            },
        ),
        2 => encode::method(
            out,
            number,
            &basic::Get {
                queue: &name,
                no_ack: true,
            },
        ),
        3 => encode::method(out, number, &tx::Select),
        4 => encode::method(out, number, &confirm::Select { nowait: true }),
        5 => encode::method(
            out,
            number,
            &basic::Ack {
                delivery_tag: random.next(),
                multiple: true,
            },
        ),
        6 => encode::heartbeat(out),
        7 => encode::method(
            out,
            number,
            &basic::Consume {
                queue: &name,
                consumer_tag: &key,
                no_local: true,
                no_ack: false,
                exclusive: false,
                nowait: true,
                arguments,
            },
        ),
        _ => {
            let publish = basic::Publish {
                exchange: "".into(),
                routing_key: name.as_str().into(),
                mandatory: true,
                immediate: false,
            };
            encode::method(out, number, &publish);
            let properties = any_properties(random).encode();
            let content = Content {
                properties: &properties,
                body: WILD,
            };
            encode::content(out, number, &content, 131_072);
        }
    }
}
