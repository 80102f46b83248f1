//! From frames to what handles them.

use super::{Connection, HANG_UP_TIMEOUT_MS, Phase};
use crate::amqp::assembly::{Stage, expected};
use crate::amqp::channel::Phase as ChannelPhase;
use crate::amqp::errors::{self, Exception};
use crate::broker::queue::Settle;
use crate::protocol::frame::{self, FrameKind, FrameRef};
use crate::protocol::methods::{Method, MethodId, basic, channel, connection};
use crate::protocol::reply_code::HardCode;
use crate::protocol::wire::Octets;
use crate::protocol::{DecodeError, EncodeMethod};

/// Octets of a content header before its properties.
const CONTENT_HEADER_MIN: usize = 12;

impl Connection {
    pub(super) fn frame(&mut self, frame: FrameRef<'_>) -> Result<(), (u16, MethodId, Exception)> {
        let number = frame.channel;
        match frame.kind {
            FrameKind::Heartbeat if number == 0 => Ok(()),
            FrameKind::Heartbeat => Err((0, MethodId::NONE, unexpected(&frame))),
            FrameKind::Method => {
                if self.phase == Phase::Closing {
                    self.closing_method(frame.payload);
                    return Ok(());
                }
                let assembling = self
                    .channel(number)
                    .filter(|ch| ch.assembly.stage != Stage::Method);
                if let Some(ch) = assembling {
                    let error = expected(ch.assembly.stage);
                    return Err((number, basic::Publish::ID, error));
                }
                let method = match Method::decode(frame.payload) {
                    Ok(method) => method,
                    Err(_) if frame.payload.len() < 4 => {
                        return Err((0, MethodId::NONE, unknown(&frame)));
                    }
                    Err(e) => {
                        let id = match (&e, frame.payload) {
                            (DecodeError::Malformed(_), [a, b, c, d, ..]) => MethodId {
                                class: u16::from_be_bytes([*a, *b]),
                                method: u16::from_be_bytes([*c, *d]),
                            },
                            _ => MethodId::NONE,
                        };
                        return Err((0, id, errors::decode(&e)));
                    }
                };
                let result = if number == 0 {
                    self.connection_method(&method)
                } else {
                    self.channel_method(number, &method)
                };
                result.map_err(|e| {
                    let blamed = match (&method, &e) {
                        // Nor does RabbitMQ blame the method for the limit.
                        (Method::ChannelOpen(_), Exception::Connection(code, _))
                            if *code == HardCode::NOT_ALLOWED =>
                        {
                            MethodId::NONE
                        }
                        _ => method.id(),
                    };
                    (number, blamed, e)
                })
            }
            _ if self.phase == Phase::Closing => Ok(()),
            FrameKind::Header | FrameKind::Body => {
                if frame.kind == FrameKind::Header && frame.payload.len() < CONTENT_HEADER_MIN {
                    return Err((0, MethodId::NONE, unknown(&frame)));
                }
                if number == 0 {
                    return Err((0, MethodId::NONE, unexpected(&frame)));
                }
                let stage = self.channel(number).map(|ch| ch.assembly.stage);
                let id = match stage {
                    // No publish is going on that could be blamed.
                    None | Some(Stage::Method) => MethodId::NONE,
                    Some(_) => basic::Publish::ID,
                };
                if stage.is_none() {
                    return Err((0, id, expected(Stage::Method)));
                }
                self.content(number, frame).map_err(|e| (number, id, e))
            }
        }
    }

    pub(super) fn closing_method(&mut self, payload: &[u8]) {
        match Method::decode(payload) {
            Ok(Method::ConnectionCloseOk(_)) => self.phase = Phase::Over,
            Ok(Method::ConnectionClose(_)) => {
                // Both sides close at once.
                self.send(0, &connection::CloseOk);
            }
            _ => {}
        }
    }

    pub(super) fn connection_method(&mut self, method: &Method<'_>) -> Result<(), Exception> {
        if self.phase != Phase::Running {
            return self.handshake_method(method);
        }
        match method {
            Method::ConnectionClose(_) => {
                self.leave();
                self.send(0, &connection::CloseOk);
                let until = self.now + HANG_UP_TIMEOUT_MS;
                self.phase = Phase::Closed { until };
                Ok(())
            }
            Method::ConnectionUpdateSecret(_) => {
                self.update_secret();
                Ok(())
            }
            _ => Err(Exception::hard(
                HardCode::CHANNEL_ERROR,
                "unexpected method in connection state running",
            )),
        }
    }

    pub(super) fn channel_method(
        &mut self,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Exception> {
        if self.phase != Phase::Running {
            return Err(Exception::hard(
                HardCode::CHANNEL_ERROR,
                "unexpected method in connection state starting",
            ));
        }
        let Some(ch) = self.channels.get_mut(number) else {
            return match method {
                Method::ChannelOpen(_) => self.open_channel(number),
                _ => Err(Exception::hard(
                    HardCode::CHANNEL_ERROR,
                    "expected 'channel.open'",
                )),
            };
        };
        if ch.phase == ChannelPhase::Left && matches!(method, Method::ChannelOpen(_)) {
            return self.open_channel(number);
        }
        if ch.phase != ChannelPhase::Open {
            match method {
                Method::ChannelCloseOk(_) if ch.phase == ChannelPhase::Closing => {
                    self.forget_channel(number);
                }
                Method::ChannelOpen(_) => return Err(second_open()),
                Method::ChannelClose(_) => self.send(number, &channel::CloseOk),
                // Its content follows, and is ignored as well.
                Method::BasicPublish(_) => ch.assembly.stage = Stage::Header,
                _ => {}
            }
            return Ok(());
        }
        // The methods that join the batch; any other observes what was done before it.
        match method {
            Method::BasicPublish(m) => {
                ch.assembly.start(m);
                return Ok(());
            }
            Method::BasicAck(m) => {
                return self.settle(number, m.delivery_tag, m.multiple, Settle::Ack);
            }
            Method::BasicNack(m) => {
                let how = if m.requeue {
                    Settle::Requeue
                } else {
                    Settle::Discard
                };
                return self.settle(number, m.delivery_tag, m.multiple, how);
            }
            Method::BasicReject(m) => {
                let how = if m.requeue {
                    Settle::Fail
                } else {
                    Settle::Reject
                };
                return self.settle(number, m.delivery_tag, false, how);
            }
            _ => self.flush(),
        }
        self.work = self.work.saturating_add(work_of(method));
        self.dispatch(number, method)
    }

    pub(super) fn dispatch(&mut self, number: u16, method: &Method<'_>) -> Result<(), Exception> {
        match method {
            Method::ChannelOpen(_) => Err(second_open()),
            Method::ChannelClose(_) => {
                self.leave_channel(number);
                if let Some(ch) = self.channels.get_mut(number) {
                    ch.phase = ChannelPhase::Left;
                    self.left.push(number);
                }
                self.send(number, &channel::CloseOk);
                Ok(())
            }
            Method::ChannelFlow(m) if m.active => {
                self.send(number, &channel::FlowOk { active: true });
                Ok(())
            }
            Method::ChannelFlow(_) => {
                Err(Exception::hard(HardCode::NOT_IMPLEMENTED, "active=false"))
            }
            // Some clients answer to our `basic.cancel` although it says that it waits for nothing.
            Method::BasicCancelOk(_) => Ok(()),
            Method::AccessRequest(_) => {
                self.send(
                    number,
                    &crate::protocol::methods::access::RequestOk { ticket: 1 },
                );
                Ok(())
            }
            Method::ExchangeDeclare(m) => self.exchange_declare(number, m),
            Method::ExchangeDelete(m) => self.exchange_delete(number, m),
            Method::ExchangeBind(m) => self.exchange_bind(number, m),
            Method::ExchangeUnbind(m) => self.exchange_unbind(number, m),
            Method::QueueDeclare(m) => self.queue_declare(number, m),
            Method::QueueBind(m) => self.queue_bind(number, m),
            Method::QueueUnbind(m) => self.queue_unbind(number, m),
            Method::QueuePurge(m) => self.queue_purge(number, m),
            Method::QueueDelete(m) => self.queue_delete(number, m),
            Method::BasicQos(m) => self.qos(number, m),
            Method::BasicConsume(m) => self.consume(number, m),
            Method::BasicCancel(m) => self.cancel(number, m),
            Method::BasicGet(m) => self.get(number, m.queue, m.no_ack),
            Method::BasicRecover(m) => self.recover(number, m.requeue, true),
            Method::BasicRecoverAsync(m) => self.recover(number, m.requeue, false),
            Method::ConfirmSelect(m) => self.confirm_select(number, m.nowait),
            Method::TxSelect(_) => self.tx_select(number),
            Method::TxCommit(_) => self.tx_commit(number),
            Method::TxRollback(_) => self.tx_rollback(number),
            other => Err(Exception::hard(
                HardCode::COMMAND_INVALID,
                DecodeError::UnknownMethod(other.id()).to_string(),
            )),
        }
    }
}

/// What a method costs that does not join the batch, in the unit of [`super::WORK_PER_TURN`].
fn work_of(method: &Method<'_>) -> u32 {
    match method {
        // As much as an inbox holds comes, or goes back.
        Method::BasicConsume(_)
        | Method::BasicCancel(_)
        | Method::BasicRecover(_)
        | Method::BasicRecoverAsync(_)
        | Method::ChannelClose(_)
        | Method::QueuePurge(_)
        | Method::TxCommit(_)
        | Method::TxRollback(_) => 256,
        // The topology has one lock.
        Method::ExchangeDeclare(_)
        | Method::ExchangeDelete(_)
        | Method::ExchangeBind(_)
        | Method::ExchangeUnbind(_)
        | Method::QueueDeclare(_)
        | Method::QueueBind(_)
        | Method::QueueUnbind(_)
        | Method::QueueDelete(_) => 32,
        _ => 8,
    }
}

fn second_open() -> Exception {
    Exception::hard(HardCode::CHANNEL_ERROR, "second 'channel.open' seen")
}

fn unexpected(frame: &FrameRef<'_>) -> Exception {
    Exception::hard(
        HardCode::UNEXPECTED_FRAME,
        frame::describe(frame.kind.octet(), frame.payload),
    )
}

/// Too short to be of its kind.
fn unknown(frame: &FrameRef<'_>) -> Exception {
    errors::frame(&frame::FrameError::UnknownType {
        kind: frame.kind.octet(),
        len: frame.payload.len(),
        octets: Octets::of(frame.payload),
    })
}
