//! A client of a conversation, and what it makes of what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use leveret::amqp::connection::Connection;
use leveret::amqp::settings::SessionSettings;
use leveret::broker::Broker;
use leveret::protocol::frame::{self, FRAME_END, FrameKind, Parsed};
use leveret::protocol::methods::{Method, basic, channel, confirm, tx};
use leveret::protocol::properties::parse_content_header;
use leveret::protocol::{EncodeMethod, encode};

use super::inbox::Inbox;
use super::session;

/// Octets that the server may say in one turn: what it was sent, to every consumer there is.
const SAID_MAX: usize = 64 << 20;

#[derive(Default)]
struct Channel {
    /// It exists, as far as we were told: nothing comes on one that does not.
    told: bool,
    /// We have asked for its end, or for itself.
    asked: bool,
    confirms: bool,
    published: u64,
    unconfirmed: BTreeSet<u64>,
    next_tag: u64,
    unacked: BTreeSet<u64>,
    transacted: bool,
    /// Body octets that are still to come, and whether it is their header that comes next.
    content: Option<Option<u64>>,
    /// Of gets that wait for an answer: whether to acknowledge.
    gets: Vec<bool>,
}

/// See the module.
pub(super) struct Peer {
    machine: Connection,
    inbox: Arc<Inbox>,
    pending: BytesMut,
    channels: BTreeMap<u16, Channel>,
    /// Tags of consumers that do not acknowledge; others do.
    automatic: BTreeSet<(u16, String)>,
    /// What it said was not all understood by us.
    wild: bool,
    lost: bool,
    closed: bool,
    got: u64,
}

impl Peer {
    pub(super) fn new(broker: &Arc<Broker>, settings: SessionSettings, now: u64) -> Peer {
        let inbox = Inbox::new(8, 1 << 16);
        let machine = session::connection(broker, &inbox, settings, now);
        let mut peer = Peer {
            machine,
            inbox,
            pending: session::HANDSHAKE.into(),
            channels: BTreeMap::new(),
            automatic: BTreeSet::new(),
            wild: false,
            lost: false,
            closed: false,
            got: 0,
        };
        for number in [1, 2] {
            peer.channels.insert(
                number,
                Channel {
                    asked: true,
                    ..Channel::default()
                },
            );
        }
        encode::method(&mut peer.pending, 2, &channel::Open);
        peer.turn(now);
        peer
    }

    pub(super) fn say<M: EncodeMethod>(&mut self, number: u16, method: &M) {
        encode::method(&mut self.pending, number, method);
    }

    pub(super) fn frame(&mut self, kind: FrameKind, number: u16, payload: &[u8]) {
        encode::frame_head(&mut self.pending, kind, number, payload.len());
        self.pending.extend_from_slice(payload);
        self.pending.extend_from_slice(&[FRAME_END]);
    }

    pub(super) fn octets(&mut self, octets: &[u8]) {
        self.wild |= !octets.is_empty();
        self.pending.extend_from_slice(octets);
    }

    /// From now on what it holds is not known.
    pub(super) fn wild(&mut self) {
        self.wild = true;
    }

    fn channel(&mut self, number: u16) -> &mut Channel {
        self.channels.entry(number).or_default()
    }

    pub(super) fn open(&mut self, number: u16) {
        // A second time is an error of the whole connection.
        if !self.channel(number).told && !self.channel(number).asked {
            self.channel(number).asked = true;
            self.say(number, &channel::Open);
        }
    }

    pub(super) fn close(&mut self, number: u16) {
        if self.channel(number).told && !self.channel(number).asked {
            self.channel(number).asked = true;
            self.say(number, &channel::Close::default());
        }
    }

    pub(super) fn select(&mut self, number: u16, transactions: bool) {
        match transactions {
            true => {
                self.channel(number).transacted = true;
                self.say(number, &tx::Select);
            }
            false => self.say(number, &confirm::Select { nowait: false }),
        }
    }

    pub(super) fn recover(&mut self, number: u16) {
        // What it has comes back with other tags, once the server has heard of it: until then it is not known.
        self.wild = true;
        self.say(number, &basic::Recover { requeue: true });
    }

    pub(super) fn get(&mut self, number: u16, queue: &str, no_ack: bool) {
        self.channel(number).gets.push(!no_ack);
        self.say(number, &basic::Get { queue, no_ack });
    }

    pub(super) fn consume(&mut self, number: u16, consume: &basic::Consume<'_>) {
        // A tag that was used before may mean either.
        self.wild |= consume.consumer_tag.is_empty() && consume.no_ack;
        let name = (number, consume.consumer_tag.to_string());
        if consume.no_ack {
            self.automatic.insert(name);
        } else {
            self.wild |= self.automatic.contains(&name);
        }
        self.say(number, consume);
    }

    pub(super) fn publish(
        &mut self,
        number: u16,
        (name, key, mandatory): (&str, &str, bool),
        properties: &[u8],
        body: &[u8],
    ) {
        let publish = basic::Publish {
            exchange: name.into(),
            routing_key: key.into(),
            mandatory,
            immediate: false,
        };
        self.say(number, &publish);
        encode::content(
            &mut self.pending,
            number,
            &encode::Content { properties, body },
            65_536,
        );
        let channel = self.channel(number);
        if channel.confirms {
            channel.published += 1;
            channel.unconfirmed.insert(channel.published);
        }
    }

    /// Acknowledges, rejects or returns what it has; now and then what it has not.
    pub(super) fn settle(&mut self, number: u16, how: u8, tag: u8) {
        let channel = self.channel(number);
        let known: Vec<u64> = channel.unacked.iter().copied().collect();
        let delivery_tag = match tag {
            250.. => u64::from(tag),
            _ if known.is_empty() => return,
            _ => known[usize::from(tag) % known.len()],
        };
        let multiple = how & 4 == 4 && how & 3 != 2;
        if channel.unacked.contains(&delivery_tag) {
            match multiple {
                true => channel.unacked.retain(|t| *t > delivery_tag),
                false => drop(channel.unacked.remove(&delivery_tag)),
            }
        }
        let requeue = how & 8 == 8;
        match how & 3 {
            0 | 3 => self.say(
                number,
                &basic::Ack {
                    delivery_tag,
                    multiple,
                },
            ),
            1 => self.say(
                number,
                &basic::Nack {
                    delivery_tag,
                    multiple,
                    requeue,
                },
            ),
            _ => self.say(
                number,
                &basic::Reject {
                    delivery_tag,
                    requeue,
                },
            ),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.lost || self.closed || self.machine.is_over()
    }

    /// Whether what it holds is known.
    pub(super) fn is_followed(&self) -> bool {
        !self.wild && self.channels.values().all(|c| !c.transacted)
    }

    /// Deliveries that are not settled.
    pub(super) fn held(&self) -> usize {
        match self.is_over() {
            true => 0,
            false => self.channels.values().map(|c| c.unacked.len()).sum(),
        }
    }

    /// Answers to gets since the last call.
    pub(super) fn take_got(&mut self) -> u64 {
        std::mem::take(&mut self.got)
    }

    /// The connection is gone.
    pub(super) fn lose(&mut self, now: u64) {
        if !std::mem::replace(&mut self.lost, true) {
            let left = std::mem::take(&mut *self.inbox.deliveries.lock().expect("no panic"));
            self.machine.lost(left, now);
        }
    }

    /// Everything that can be done now.
    pub(super) fn turn(&mut self, now: u64) {
        if self.lost {
            return;
        }
        for _ in 0..64 {
            let before = self.pending.len();
            self.machine.progress(now);
            if self.machine.wants_input() {
                let received = self.machine.receive(&self.pending, now);
                self.pending.advance(received.consumed);
            }
            let mut deliveries =
                std::mem::take(&mut *self.inbox.deliveries.lock().expect("no panic"));
            let notices = std::mem::take(&mut *self.inbox.notices.lock().expect("no panic"));
            let idle = deliveries.is_empty() && notices.is_empty();
            self.machine.deliver(&mut deliveries, now);
            for notice in notices {
                self.machine.notice(notice, now);
            }
            let said = self.machine.output.to_vec();
            self.machine.output.clear();
            self.hear(&said);
            if said.is_empty() && idle && self.pending.len() == before {
                break;
            }
        }
        if self.machine.is_over() {
            self.lose(now);
        }
    }

    fn hear(&mut self, said: &[u8]) {
        assert!(said.len() < SAID_MAX, "{} octets", said.len());
        let mut rest = said;
        while !rest.is_empty() {
            let Ok(Parsed::Frame { frame, size }) = frame::parse(rest, 65_536) else {
                panic!("not a frame: {:?}", &rest[..rest.len().min(16)]);
            };
            assert!(
                !self.closed || frame.channel == 0,
                "something behind the end"
            );
            match frame.kind {
                FrameKind::Method => {
                    let method = Method::decode(frame.payload).expect("we can read what we write");
                    self.method(frame.channel, &method);
                }
                FrameKind::Header => {
                    let header =
                        parse_content_header(frame.payload).expect("we can read what we write");
                    let content = &mut self.channel(frame.channel).content;
                    assert_eq!(*content, Some(None), "a header out of turn");
                    *content = (header.body_size > 0).then_some(Some(header.body_size));
                }
                FrameKind::Body => {
                    let content = &mut self.channel(frame.channel).content;
                    let Some(Some(left)) = *content else {
                        panic!("a body out of turn");
                    };
                    let left = left
                        .checked_sub(frame.payload.len() as u64)
                        .expect("no more than was said");
                    *content = (left > 0).then_some(Some(left));
                }
                FrameKind::Heartbeat => {}
            }
            rest = &rest[size..];
        }
    }

    fn method(&mut self, number: u16, method: &Method<'_>) {
        if number == 0 {
            match method {
                Method::ConnectionClose(_) | Method::ConnectionCloseOk(_) => self.closed = true,
                Method::ConnectionStart(_)
                | Method::ConnectionTune(_)
                | Method::ConnectionOpenOk(_) => {}
                other => panic!("{other:?} on no channel"),
            }
            return;
        }
        let wild = self.wild;
        let automatic = match method {
            Method::BasicDeliver(m) => self
                .automatic
                .contains(&(number, m.consumer_tag.to_string())),
            _ => false,
        };
        let channel = self.channel(number);
        assert!(channel.content.is_none(), "{method:?} within a content");
        match method {
            Method::ChannelOpenOk(_) => {
                assert!(!channel.told || wild, "opened twice");
                *channel = Channel {
                    told: true,
                    ..Channel::default()
                };
                self.automatic.retain(|(n, _)| *n != number);
                return;
            }
            Method::ChannelClose(_) => {
                assert!(channel.told || wild, "closed, and not open");
                let asked = channel.asked;
                *channel = Channel {
                    asked,
                    ..Channel::default()
                };
                self.say(number, &channel::CloseOk);
                return;
            }
            Method::ChannelCloseOk(_) => {
                assert!(channel.asked || wild, "nobody asked");
                *channel = Channel::default();
                return;
            }
            _ => assert!(
                channel.told || wild,
                "{method:?} on a channel that is not open"
            ),
        }
        match method {
            Method::ConfirmSelectOk(_) => channel.confirms = true,
            Method::BasicAck(basic::Ack {
                delivery_tag,
                multiple,
            })
            | Method::BasicNack(basic::Nack {
                delivery_tag,
                multiple,
                ..
            }) => {
                let confirmed: Vec<u64> = match multiple {
                    true => channel
                        .unconfirmed
                        .range(..=delivery_tag)
                        .copied()
                        .collect(),
                    false => vec![*delivery_tag],
                };
                assert!(
                    !confirmed.is_empty() || wild,
                    "confirms nothing: {method:?}"
                );
                for tag in confirmed {
                    assert!(
                        channel.unconfirmed.remove(&tag) || wild,
                        "{tag} is confirmed, of {}",
                        channel.published
                    );
                }
            }
            Method::BasicDeliver(m) => {
                channel.delivered(m.delivery_tag, !automatic);
            }
            Method::BasicGetOk(m) => {
                let acknowledges = channel.gets.remove(0);
                channel.delivered(m.delivery_tag, acknowledges);
                self.got += 1;
            }
            Method::BasicGetEmpty(_) => drop(channel.gets.remove(0)),
            Method::BasicReturn(_) => channel.content = Some(None),
            _ => {}
        }
    }
}

impl Channel {
    fn delivered(&mut self, tag: u64, acknowledged: bool) {
        self.next_tag += 1;
        assert_eq!(tag, self.next_tag, "delivery tags have no gaps");
        self.content = Some(None);
        if acknowledged {
            self.unacked.insert(tag);
        }
    }
}
