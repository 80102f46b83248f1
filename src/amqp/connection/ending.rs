//! How channels and connections end. Whatever ends them, all that they held goes back or away, once.

use super::{Connection, Phase};
use crate::amqp::channel::Phase as ChannelPhase;
use crate::amqp::errors::Exception;
use crate::broker::queue::DeleteIf;
use crate::broker::queue::outlet::Delivery;
use crate::protocol::methods::{MethodId, channel, connection};
use crate::protocol::reply_code::{HardCode, reply_text};

/// How long a peer may take to answer `connection.close`, milliseconds; its heartbeat, if that is less. As
/// in RabbitMQ, whatever it says meanwhile.
const CLOSE_TIMEOUT_MS: u64 = 30_000;

/// The same when the server or an operator closes it, or before it was open.
const FORCED_CLOSE_TIMEOUT_MS: u64 = 5_000;

impl Connection {
    /// Ends what a channel has going on: its consumers, its unacknowledged deliveries, what it waits for.
    pub(super) fn leave_channel(&mut self, number: u16) {
        self.flush();
        if self.wait.as_ref().is_some_and(|w| w.channel == number) {
            self.wait = None;
            // What was held behind the reply is told now.
            self.bell.ring();
        }
        let Some(ch) = self.channels.get_mut(number) else {
            return;
        };
        ch.assembly.abandon(&mut self.unfinished);
        ch.roll_back();
        let consumers = std::mem::take(&mut ch.consumers);
        let unacked = std::mem::take(&mut ch.unacked);
        let reply = ch.reply_consumer.take();
        self.leave_queues(consumers, unacked);
        if let Some((slot, name)) = reply {
            self.broker.replies().remove(&name);
            self.consumers.remove(slot);
        }
        self.flush();
    }

    /// Ends all channels and deletes the exclusive queues.
    pub(super) fn leave(&mut self) {
        self.flush();
        while let Some(number) = self.channels.any() {
            self.leave_channel(number);
            self.forget_channel(number);
        }
        if let Some(accounts) = self.accounts.take() {
            accounts.iter().for_each(|a| a.connections.give_back(1));
        }
        if let Some(vhost) = self.vhost.clone() {
            for queue in vhost.take_exclusive_queues(self.id) {
                if vhost
                    .delete_queue(&queue, DeleteIf::default(), &mut self.batch.fx)
                    .is_ok()
                {
                    self.counted.queues_deleted += 1;
                }
            }
        }
        self.flush();
    }

    /// The connection is gone: everything it had goes back or away. Deliveries that were pushed and
    /// not handed to [`Self::deliver`] are returned to their queues.
    pub fn lost(&mut self, undelivered: Vec<Delivery>, now: u64) {
        self.now = now;
        self.wait = None;
        self.return_unsent(undelivered);
        self.leave();
        if self.vhost.take().is_some() {
            self.counted.connections_closed += 1;
        }
        self.broker.totals.add(&mut self.counted);
    }

    pub(in crate::amqp) fn raise(&mut self, number: u16, method: MethodId, exception: Exception) {
        // What came before it counts.
        self.flush();
        match exception {
            Exception::Channel(code, text) if number != 0 && self.phase == Phase::Running => {
                let text = reply_text(code.name(), &text);
                let (user, peer) = (self.peer.user.as_str(), self.peer.shown());
                tracing::warn!(user, %peer, channel = number, reason = text, "channel closed");
                self.leave_channel(number);
                if let Some(ch) = self.channels.get_mut(number) {
                    ch.phase = ChannelPhase::Closing;
                }
                let (class_id, method_id) = (method.class, method.method);
                let close = channel::Close {
                    reply_code: code.number(),
                    reply_text: &text,
                    class_id,
                    method_id,
                };
                self.send(number, &close);
            }
            Exception::Channel(code, text) => {
                self.close(code.number(), &reply_text(code.name(), &text), method)
            }
            Exception::Connection(code, text) => {
                self.close(code.number(), &reply_text(code.name(), &text), method)
            }
        }
    }

    /// Ends the connection with `connection.close`.
    pub(in crate::amqp) fn close(&mut self, reply_code: u16, text: &str, method: MethodId) {
        self.why = Some(text.to_string());
        let running = self.phase == Phase::Running;
        if running {
            self.leave();
        }
        let (class_id, method_id) = (method.class, method.method);
        self.send(
            0,
            &connection::Close {
                reply_code,
                reply_text: text,
                class_id,
                method_id,
            },
        );
        self.phase = Phase::Closing;
        let timeout = match self.heartbeat {
            _ if !running => FORCED_CLOSE_TIMEOUT_MS,
            0 => CLOSE_TIMEOUT_MS,
            seconds => CLOSE_TIMEOUT_MS.min(u64::from(seconds) * 1000),
        };
        self.closing_until = self.now + timeout;
        self.wait = None;
    }

    /// Closes the connection because the server or an operator says so: 320.
    pub fn force_close(&mut self, reason: &str, now: u64) {
        self.now = now;
        if matches!(self.phase, Phase::Running) {
            let code = HardCode::CONNECTION_FORCED;
            self.close(
                code.number(),
                &reply_text(code.name(), reason),
                MethodId::NONE,
            );
            self.closing_until = self.closing_until.min(now + FORCED_CLOSE_TIMEOUT_MS);
        } else if self.phase != Phase::Closing {
            self.phase = Phase::Over;
        }
    }
}
