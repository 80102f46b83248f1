//! Replies that wait for the log, and messages that are read from it. One at a time: while something is
//! awaited, no further frame is processed.

use bytes::BytesMut;

use super::{Connection, Phase};
use crate::amqp::errors;
use crate::broker::ports::Lsn;
use crate::protocol::methods::{MethodId, basic};
use crate::protocol::{EncodeMethod, encode};

/// What processing waits for, on behalf of one channel. It ends with its channel, see
/// [`Connection::leave_channel`].
pub(super) struct Wait {
    pub(super) channel: u16,
    what: Awaited,
}

/// See [`Wait`].
enum Awaited {
    /// A reply that may be sent once the log has come this far.
    Durable(Lsn, BytesMut),
    /// `basic.get`: a message that is read from the log.
    Get { queue: String, no_ack: bool },
}

impl Connection {
    /// Sends a reply once the log has come to `lsn`.
    pub(in crate::amqp) fn send_durable<M: EncodeMethod>(
        &mut self,
        channel: u16,
        method: &M,
        lsn: Lsn,
    ) {
        if lsn <= self.broker.log().durable() {
            self.send(channel, method);
            return;
        }
        let mut reply = BytesMut::new();
        encode::method(&mut reply, channel, method);
        self.wait_for_log(channel, lsn, reply);
    }

    /// Processes nothing more until the log has come to `lsn`.
    pub(in crate::amqp) fn wait_durable(&mut self, channel: u16, lsn: Lsn) {
        if lsn > self.broker.log().durable() {
            self.wait_for_log(channel, lsn, BytesMut::new());
        }
    }

    fn wait_for_log(&mut self, channel: u16, lsn: Lsn, reply: BytesMut) {
        self.broker.log().ring_at(lsn, &self.bell);
        let what = Awaited::Durable(lsn, reply);
        self.wait = Some(Wait { channel, what });
    }

    /// A `basic.get` goes on when its message has been read.
    pub(in crate::amqp) fn get_later(&mut self, channel: u16, queue: String, no_ack: bool) {
        let what = Awaited::Get { queue, no_ack };
        self.wait = Some(Wait { channel, what });
    }

    /// The log's watermark moved, or a message was read: sends what waited for it. The shell calls
    /// [`Self::receive`] again afterwards, with the input that is left.
    pub fn progress(&mut self, now: u64) {
        self.now = now;
        if self.phase == Phase::Running {
            self.confirm();
        }
        if self.broker.log().failed() && matches!(self.phase, Phase::Running) {
            self.raise(0, MethodId::NONE, errors::log_failed());
        }
        if let Some(Wait { channel, what }) = self.wait.take() {
            match what {
                Awaited::Durable(lsn, reply) if self.broker.log().durable() >= lsn => {
                    self.output.octets().extend_from_slice(&reply);
                }
                Awaited::Get { queue, no_ack } => {
                    if let Err(e) = self.get(channel, &queue, no_ack) {
                        self.raise(channel, basic::Get::ID, e);
                    }
                    self.flush();
                }
                what => self.wait = Some(Wait { channel, what }),
            }
        }
        if !self.held_notices.is_empty() && !self.waits_for_log() {
            for notice in std::mem::take(&mut self.held_notices) {
                self.notice(notice, now);
            }
        }
        self.broker.totals.add(&mut self.counted);
    }

    /// Whether a reply waits for the log.
    pub(super) fn waits_for_log(&self) -> bool {
        matches!(
            &self.wait,
            Some(Wait {
                what: Awaited::Durable(..),
                ..
            })
        )
    }
}
