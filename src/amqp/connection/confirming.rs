//! Flushing what was collected, and telling publishers what became of it.

use super::Connection;
use crate::amqp::channel::{Channel, Phase as ChannelPhase};
use crate::amqp::confirms::Verdict;
use crate::amqp::output::Output;
use crate::broker::message::Message;
use crate::broker::ports::Lsn;
use crate::broker::routing_keys::stripped_properties;
use crate::protocol::encode;
use crate::protocol::methods::basic;
use crate::protocol::reply_code::SoftCode;

/// A mandatory message of this batch that nobody took, on a channel that confirms.
pub(super) struct Returned {
    channel: u16,
    seqno: u64,
    message: Message,
}

/// A publish of this batch that wants a confirm.
pub(super) struct Unconfirmed {
    channel: u16,
    seqno: u64,
    number: u32,
    durable: bool,
}

impl Connection {
    /// Notes that a publish, by its number in the batch, has to be confirmed, if its channel asked for
    /// that; returns its number there.
    pub(in crate::amqp) fn expect_confirm(
        &mut self,
        channel: u16,
        number: u32,
        durable: bool,
    ) -> Option<u64> {
        let ch = self.channels.get_mut(channel);
        let seqno = ch.and_then(|c| c.confirms.as_mut())?.next();
        self.counted.received_confirm += 1;
        self.unconfirmed.push(Unconfirmed {
            channel,
            seqno,
            number,
            durable,
        });
        Some(seqno)
    }

    /// Tells the publisher of a mandatory message that nobody took it; where publishes are confirmed, in
    /// its turn: after the confirms of those before it, as far as they can be told, before its own.
    pub(in crate::amqp) fn return_message(
        &mut self,
        channel: u16,
        seqno: Option<u64>,
        message: &Message,
    ) {
        match seqno {
            None => write_return(&mut self.output, channel, message, self.frame_max),
            Some(seqno) => self.returns.push(Returned {
                channel,
                seqno,
                message: message.clone(),
            }),
        }
    }

    /// Logs and applies what was collected, and notes where the publishes are.
    pub(in crate::amqp) fn flush(&mut self) {
        if self.batch.is_empty() && self.unconfirmed.is_empty() {
            return;
        }
        let flushed = self.flush_batch();
        let (lsn, failed) = match flushed {
            Ok(lsn) => (lsn, false),
            Err(_) => (Lsn::default(), true),
        };
        let durable = self.broker.log().durable();
        let mut refused = self.batch.refused().iter().peekable();
        let mut returns = self.returns.drain(..).peekable();
        let mut touched: Option<u16> = None;
        for u in self.unconfirmed.drain(..) {
            while refused.peek().is_some_and(|r| **r < u.number) {
                refused.next();
            }
            let refused = refused.peek() == Some(&&u.number) || (failed && u.durable);
            let Some(ch) = self.channels.get_mut(u.channel) else {
                continue;
            };
            if let Some(r) = returns.next_if(|r| r.channel == u.channel && r.seqno == u.seqno) {
                self.counted.confirmed += tell(ch, durable, &mut self.verdicts, &mut self.output);
                write_return(&mut self.output, u.channel, &r.message, self.frame_max);
                if let Some(confirms) = &mut ch.confirms {
                    confirms.returned(u.seqno);
                }
            }
            let Some(confirms) = &mut ch.confirms else {
                continue;
            };
            confirms.flushed(
                u.seqno,
                if u.durable { lsn } else { Lsn::default() },
                refused,
            );
            touched = Some(u.channel);
        }
        drop(returns);
        self.batch.clear_refused();
        if touched.is_some() {
            self.confirm();
        }
    }

    pub(in crate::amqp) fn flush_batch(&mut self) -> Result<Lsn, crate::broker::ports::LogFailed> {
        let broker = self.broker.clone();
        self.batch.flush(&broker, self.now)
    }

    /// Tells what is durable, and asks to be rung for what is not yet.
    pub(super) fn confirm(&mut self) {
        let durable = self.broker.log().durable();
        let mut waits_for = Lsn::default();
        for ch in self.channels.iter_mut() {
            if ch.phase != ChannelPhase::Open {
                continue;
            }
            self.counted.confirmed += tell(ch, durable, &mut self.verdicts, &mut self.output);
            if let Some(at) = ch.confirms.as_ref().and_then(|c| c.waits_for()) {
                waits_for = waits_for.max(at);
            }
        }
        if waits_for > self.rung_for {
            self.rung_for = waits_for;
            self.broker.log().ring_at(waits_for, &self.bell);
        }
    }
}

/// Writes the confirms of a channel that can be told, and says of how many publishes.
fn tell(ch: &mut Channel, durable: Lsn, verdicts: &mut Vec<Verdict>, output: &mut Output) -> u64 {
    let Some(confirms) = &mut ch.confirms else {
        return 0;
    };
    let n = confirms.settle(durable, verdicts);
    for verdict in verdicts.drain(..) {
        match verdict {
            Verdict::Ack { upto, multiple } => {
                let ack = basic::Ack {
                    delivery_tag: upto,
                    multiple,
                };
                encode::method(output.octets(), ch.number, &ack);
            }
            Verdict::Nack(delivery_tag) => {
                let nack = basic::Nack {
                    delivery_tag,
                    multiple: false,
                    requeue: false,
                };
                encode::method(output.octets(), ch.number, &nack);
            }
        }
    }
    n
}

fn write_return(output: &mut Output, channel: u16, message: &Message, frame_max: u32) {
    let return_ = basic::Return {
        reply_code: SoftCode::NO_ROUTE.number(),
        reply_text: SoftCode::NO_ROUTE.name(),
        exchange: message.exchange(),
        routing_key: message.routing_key(),
    };
    encode::method(output.octets(), channel, &return_);
    let shown = stripped_properties(message);
    let properties = shown.as_deref().unwrap_or(message.properties());
    output.content(channel, properties, message, frame_max);
}
