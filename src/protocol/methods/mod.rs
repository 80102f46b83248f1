//! All methods, decoded: one struct each, borrowing from the frame.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use std::fmt;

use bytes::BytesMut;

use super::wire::{DecodeError, Malformed, Reader};

pub mod access;
pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod exchange;
pub mod queue;
pub mod tx;

pub use super::method_id::MethodId;

/// A method that can be written to the wire.
pub trait EncodeMethod {
    /// Its class and method id.
    const ID: MethodId;

    /// Octets of the arguments.
    fn encoded_len(&self) -> usize;

    /// Appends the arguments.
    fn encode(&self, buf: &mut BytesMut);
}

/// A method as it came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method<'a> {
    /// `connection.start`
    ConnectionStart(connection::Start<'a>),
    /// `connection.start-ok`
    ConnectionStartOk(connection::StartOk<'a>),
    /// `connection.secure`
    ConnectionSecure(connection::Secure<'a>),
    /// `connection.secure-ok`
    ConnectionSecureOk(connection::SecureOk<'a>),
    /// `connection.tune`
    ConnectionTune(connection::Tune),
    /// `connection.tune-ok`
    ConnectionTuneOk(connection::TuneOk),
    /// `connection.open`
    ConnectionOpen(connection::Open<'a>),
    /// `connection.open-ok`
    ConnectionOpenOk(connection::OpenOk),
    /// `connection.close`
    ConnectionClose(connection::Close<'a>),
    /// `connection.close-ok`
    ConnectionCloseOk(connection::CloseOk),
    /// `connection.blocked`
    ConnectionBlocked(connection::Blocked<'a>),
    /// `connection.unblocked`
    ConnectionUnblocked(connection::Unblocked),
    /// `connection.update-secret`
    ConnectionUpdateSecret(connection::UpdateSecret<'a>),
    /// `connection.update-secret-ok`
    ConnectionUpdateSecretOk(connection::UpdateSecretOk),
    /// `channel.open`
    ChannelOpen(channel::Open),
    /// `channel.open-ok`
    ChannelOpenOk(channel::OpenOk),
    /// `channel.flow`
    ChannelFlow(channel::Flow),
    /// `channel.flow-ok`
    ChannelFlowOk(channel::FlowOk),
    /// `channel.close`
    ChannelClose(channel::Close<'a>),
    /// `channel.close-ok`
    ChannelCloseOk(channel::CloseOk),
    /// `access.request`
    AccessRequest(access::Request<'a>),
    /// `access.request-ok`
    AccessRequestOk(access::RequestOk),
    /// `exchange.declare`
    ExchangeDeclare(exchange::Declare<'a>),
    /// `exchange.declare-ok`
    ExchangeDeclareOk(exchange::DeclareOk),
    /// `exchange.delete`
    ExchangeDelete(exchange::Delete<'a>),
    /// `exchange.delete-ok`
    ExchangeDeleteOk(exchange::DeleteOk),
    /// `exchange.bind`
    ExchangeBind(exchange::Bind<'a>),
    /// `exchange.bind-ok`
    ExchangeBindOk(exchange::BindOk),
    /// `exchange.unbind`
    ExchangeUnbind(exchange::Unbind<'a>),
    /// `exchange.unbind-ok`
    ExchangeUnbindOk(exchange::UnbindOk),
    /// `queue.declare`
    QueueDeclare(queue::Declare<'a>),
    /// `queue.declare-ok`
    QueueDeclareOk(queue::DeclareOk<'a>),
    /// `queue.bind`
    QueueBind(queue::Bind<'a>),
    /// `queue.bind-ok`
    QueueBindOk(queue::BindOk),
    /// `queue.purge`
    QueuePurge(queue::Purge<'a>),
    /// `queue.purge-ok`
    QueuePurgeOk(queue::PurgeOk),
    /// `queue.delete`
    QueueDelete(queue::Delete<'a>),
    /// `queue.delete-ok`
    QueueDeleteOk(queue::DeleteOk),
    /// `queue.unbind`
    QueueUnbind(queue::Unbind<'a>),
    /// `queue.unbind-ok`
    QueueUnbindOk(queue::UnbindOk),
    /// `basic.qos`
    BasicQos(basic::Qos),
    /// `basic.qos-ok`
    BasicQosOk(basic::QosOk),
    /// `basic.consume`
    BasicConsume(basic::Consume<'a>),
    /// `basic.consume-ok`
    BasicConsumeOk(basic::ConsumeOk<'a>),
    /// `basic.cancel`
    BasicCancel(basic::Cancel<'a>),
    /// `basic.cancel-ok`
    BasicCancelOk(basic::CancelOk<'a>),
    /// `basic.publish`
    BasicPublish(basic::Publish<'a>),
    /// `basic.return`
    BasicReturn(basic::Return<'a>),
    /// `basic.deliver`
    BasicDeliver(basic::Deliver<'a>),
    /// `basic.get`
    BasicGet(basic::Get<'a>),
    /// `basic.get-ok`
    BasicGetOk(basic::GetOk<'a>),
    /// `basic.get-empty`
    BasicGetEmpty(basic::GetEmpty),
    /// `basic.ack`
    BasicAck(basic::Ack),
    /// `basic.reject`
    BasicReject(basic::Reject),
    /// `basic.recover-async`
    BasicRecoverAsync(basic::RecoverAsync),
    /// `basic.recover`
    BasicRecover(basic::Recover),
    /// `basic.recover-ok`
    BasicRecoverOk(basic::RecoverOk),
    /// `basic.nack`
    BasicNack(basic::Nack),
    /// `confirm.select`
    ConfirmSelect(confirm::Select),
    /// `confirm.select-ok`
    ConfirmSelectOk(confirm::SelectOk),
    /// `tx.select`
    TxSelect(tx::Select),
    /// `tx.select-ok`
    TxSelectOk(tx::SelectOk),
    /// `tx.commit`
    TxCommit(tx::Commit),
    /// `tx.commit-ok`
    TxCommitOk(tx::CommitOk),
    /// `tx.rollback`
    TxRollback(tx::Rollback),
    /// `tx.rollback-ok`
    TxRollbackOk(tx::RollbackOk),
}

impl<'a> Method<'a> {
    /// Decodes the payload of a method frame.
    ///
    /// # Errors
    /// [`DecodeError`]: an unknown method, or arguments that do not decode.
    pub fn decode(payload: &'a [u8]) -> Result<Method<'a>, DecodeError> {
        let mut r = Reader::new(payload);
        let id = r.method_id().map_err(|e| e.of(payload))?;
        let r = &mut r;
        let decoded = match (id.class, id.method) {
            (10, 10) => connection::Start::decode(r).map(Method::ConnectionStart),
            (10, 11) => connection::StartOk::decode(r).map(Method::ConnectionStartOk),
            (10, 20) => connection::Secure::decode(r).map(Method::ConnectionSecure),
            (10, 21) => connection::SecureOk::decode(r).map(Method::ConnectionSecureOk),
            (10, 30) => connection::Tune::decode(r).map(Method::ConnectionTune),
            (10, 31) => connection::TuneOk::decode(r).map(Method::ConnectionTuneOk),
            (10, 40) => connection::Open::decode(r).map(Method::ConnectionOpen),
            (10, 41) => connection::OpenOk::decode(r).map(Method::ConnectionOpenOk),
            (10, 50) => connection::Close::decode(r).map(Method::ConnectionClose),
            (10, 51) => connection::CloseOk::decode(r).map(Method::ConnectionCloseOk),
            (10, 60) => connection::Blocked::decode(r).map(Method::ConnectionBlocked),
            (10, 61) => connection::Unblocked::decode(r).map(Method::ConnectionUnblocked),
            (10, 70) => connection::UpdateSecret::decode(r).map(Method::ConnectionUpdateSecret),
            (10, 71) => connection::UpdateSecretOk::decode(r).map(Method::ConnectionUpdateSecretOk),
            (20, 10) => channel::Open::decode(r).map(Method::ChannelOpen),
            (20, 11) => channel::OpenOk::decode(r).map(Method::ChannelOpenOk),
            (20, 20) => channel::Flow::decode(r).map(Method::ChannelFlow),
            (20, 21) => channel::FlowOk::decode(r).map(Method::ChannelFlowOk),
            (20, 40) => channel::Close::decode(r).map(Method::ChannelClose),
            (20, 41) => channel::CloseOk::decode(r).map(Method::ChannelCloseOk),
            (30, 10) => access::Request::decode(r).map(Method::AccessRequest),
            (30, 11) => access::RequestOk::decode(r).map(Method::AccessRequestOk),
            (40, 10) => exchange::Declare::decode(r).map(Method::ExchangeDeclare),
            (40, 11) => exchange::DeclareOk::decode(r).map(Method::ExchangeDeclareOk),
            (40, 20) => exchange::Delete::decode(r).map(Method::ExchangeDelete),
            (40, 21) => exchange::DeleteOk::decode(r).map(Method::ExchangeDeleteOk),
            (40, 30) => exchange::Bind::decode(r).map(Method::ExchangeBind),
            (40, 31) => exchange::BindOk::decode(r).map(Method::ExchangeBindOk),
            (40, 40) => exchange::Unbind::decode(r).map(Method::ExchangeUnbind),
            (40, 51) => exchange::UnbindOk::decode(r).map(Method::ExchangeUnbindOk),
            (50, 10) => queue::Declare::decode(r).map(Method::QueueDeclare),
            (50, 11) => queue::DeclareOk::decode(r).map(Method::QueueDeclareOk),
            (50, 20) => queue::Bind::decode(r).map(Method::QueueBind),
            (50, 21) => queue::BindOk::decode(r).map(Method::QueueBindOk),
            (50, 30) => queue::Purge::decode(r).map(Method::QueuePurge),
            (50, 31) => queue::PurgeOk::decode(r).map(Method::QueuePurgeOk),
            (50, 40) => queue::Delete::decode(r).map(Method::QueueDelete),
            (50, 41) => queue::DeleteOk::decode(r).map(Method::QueueDeleteOk),
            (50, 50) => queue::Unbind::decode(r).map(Method::QueueUnbind),
            (50, 51) => queue::UnbindOk::decode(r).map(Method::QueueUnbindOk),
            (60, 10) => basic::Qos::decode(r).map(Method::BasicQos),
            (60, 11) => basic::QosOk::decode(r).map(Method::BasicQosOk),
            (60, 20) => basic::Consume::decode(r).map(Method::BasicConsume),
            (60, 21) => basic::ConsumeOk::decode(r).map(Method::BasicConsumeOk),
            (60, 30) => basic::Cancel::decode(r).map(Method::BasicCancel),
            (60, 31) => basic::CancelOk::decode(r).map(Method::BasicCancelOk),
            (60, 40) => basic::Publish::decode(r).map(Method::BasicPublish),
            (60, 50) => basic::Return::decode(r).map(Method::BasicReturn),
            (60, 60) => basic::Deliver::decode(r).map(Method::BasicDeliver),
            (60, 70) => basic::Get::decode(r).map(Method::BasicGet),
            (60, 71) => basic::GetOk::decode(r).map(Method::BasicGetOk),
            (60, 72) => basic::GetEmpty::decode(r).map(Method::BasicGetEmpty),
            (60, 80) => basic::Ack::decode(r).map(Method::BasicAck),
            (60, 90) => basic::Reject::decode(r).map(Method::BasicReject),
            (60, 100) => basic::RecoverAsync::decode(r).map(Method::BasicRecoverAsync),
            (60, 110) => basic::Recover::decode(r).map(Method::BasicRecover),
            (60, 111) => basic::RecoverOk::decode(r).map(Method::BasicRecoverOk),
            (60, 120) => basic::Nack::decode(r).map(Method::BasicNack),
            (85, 10) => confirm::Select::decode(r).map(Method::ConfirmSelect),
            (85, 11) => confirm::SelectOk::decode(r).map(Method::ConfirmSelectOk),
            (90, 10) => tx::Select::decode(r).map(Method::TxSelect),
            (90, 11) => tx::SelectOk::decode(r).map(Method::TxSelectOk),
            (90, 20) => tx::Commit::decode(r).map(Method::TxCommit),
            (90, 21) => tx::CommitOk::decode(r).map(Method::TxCommitOk),
            (90, 30) => tx::Rollback::decode(r).map(Method::TxRollback),
            (90, 31) => tx::RollbackOk::decode(r).map(Method::TxRollbackOk),
            _ => return Err(DecodeError::UnknownMethod(id)),
        };
        if decoded.is_ok() && !r.rest().is_empty() {
            // As in RabbitMQ: what is too long is as wrong as what is too short.
            return Err(Malformed::Syntax.of(payload));
        }
        decoded.map_err(|e: Malformed| e.of(payload))
    }

    /// Its class and method id.
    pub fn id(&self) -> MethodId {
        match self {
            Method::ConnectionStart(_) => connection::Start::ID,
            Method::ConnectionStartOk(_) => connection::StartOk::ID,
            Method::ConnectionSecure(_) => connection::Secure::ID,
            Method::ConnectionSecureOk(_) => connection::SecureOk::ID,
            Method::ConnectionTune(_) => connection::Tune::ID,
            Method::ConnectionTuneOk(_) => connection::TuneOk::ID,
            Method::ConnectionOpen(_) => connection::Open::ID,
            Method::ConnectionOpenOk(_) => connection::OpenOk::ID,
            Method::ConnectionClose(_) => connection::Close::ID,
            Method::ConnectionCloseOk(_) => connection::CloseOk::ID,
            Method::ConnectionBlocked(_) => connection::Blocked::ID,
            Method::ConnectionUnblocked(_) => connection::Unblocked::ID,
            Method::ConnectionUpdateSecret(_) => connection::UpdateSecret::ID,
            Method::ConnectionUpdateSecretOk(_) => connection::UpdateSecretOk::ID,
            Method::ChannelOpen(_) => channel::Open::ID,
            Method::ChannelOpenOk(_) => channel::OpenOk::ID,
            Method::ChannelFlow(_) => channel::Flow::ID,
            Method::ChannelFlowOk(_) => channel::FlowOk::ID,
            Method::ChannelClose(_) => channel::Close::ID,
            Method::ChannelCloseOk(_) => channel::CloseOk::ID,
            Method::AccessRequest(_) => access::Request::ID,
            Method::AccessRequestOk(_) => access::RequestOk::ID,
            Method::ExchangeDeclare(_) => exchange::Declare::ID,
            Method::ExchangeDeclareOk(_) => exchange::DeclareOk::ID,
            Method::ExchangeDelete(_) => exchange::Delete::ID,
            Method::ExchangeDeleteOk(_) => exchange::DeleteOk::ID,
            Method::ExchangeBind(_) => exchange::Bind::ID,
            Method::ExchangeBindOk(_) => exchange::BindOk::ID,
            Method::ExchangeUnbind(_) => exchange::Unbind::ID,
            Method::ExchangeUnbindOk(_) => exchange::UnbindOk::ID,
            Method::QueueDeclare(_) => queue::Declare::ID,
            Method::QueueDeclareOk(_) => queue::DeclareOk::ID,
            Method::QueueBind(_) => queue::Bind::ID,
            Method::QueueBindOk(_) => queue::BindOk::ID,
            Method::QueuePurge(_) => queue::Purge::ID,
            Method::QueuePurgeOk(_) => queue::PurgeOk::ID,
            Method::QueueDelete(_) => queue::Delete::ID,
            Method::QueueDeleteOk(_) => queue::DeleteOk::ID,
            Method::QueueUnbind(_) => queue::Unbind::ID,
            Method::QueueUnbindOk(_) => queue::UnbindOk::ID,
            Method::BasicQos(_) => basic::Qos::ID,
            Method::BasicQosOk(_) => basic::QosOk::ID,
            Method::BasicConsume(_) => basic::Consume::ID,
            Method::BasicConsumeOk(_) => basic::ConsumeOk::ID,
            Method::BasicCancel(_) => basic::Cancel::ID,
            Method::BasicCancelOk(_) => basic::CancelOk::ID,
            Method::BasicPublish(_) => basic::Publish::ID,
            Method::BasicReturn(_) => basic::Return::ID,
            Method::BasicDeliver(_) => basic::Deliver::ID,
            Method::BasicGet(_) => basic::Get::ID,
            Method::BasicGetOk(_) => basic::GetOk::ID,
            Method::BasicGetEmpty(_) => basic::GetEmpty::ID,
            Method::BasicAck(_) => basic::Ack::ID,
            Method::BasicReject(_) => basic::Reject::ID,
            Method::BasicRecoverAsync(_) => basic::RecoverAsync::ID,
            Method::BasicRecover(_) => basic::Recover::ID,
            Method::BasicRecoverOk(_) => basic::RecoverOk::ID,
            Method::BasicNack(_) => basic::Nack::ID,
            Method::ConfirmSelect(_) => confirm::Select::ID,
            Method::ConfirmSelectOk(_) => confirm::SelectOk::ID,
            Method::TxSelect(_) => tx::Select::ID,
            Method::TxSelectOk(_) => tx::SelectOk::ID,
            Method::TxCommit(_) => tx::Commit::ID,
            Method::TxCommitOk(_) => tx::CommitOk::ID,
            Method::TxRollback(_) => tx::Rollback::ID,
            Method::TxRollbackOk(_) => tx::RollbackOk::ID,
        }
    }
}

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.class, self.method) {
            (10, 10) => "connection.start",
            (10, 11) => "connection.start-ok",
            (10, 20) => "connection.secure",
            (10, 21) => "connection.secure-ok",
            (10, 30) => "connection.tune",
            (10, 31) => "connection.tune-ok",
            (10, 40) => "connection.open",
            (10, 41) => "connection.open-ok",
            (10, 50) => "connection.close",
            (10, 51) => "connection.close-ok",
            (10, 60) => "connection.blocked",
            (10, 61) => "connection.unblocked",
            (10, 70) => "connection.update-secret",
            (10, 71) => "connection.update-secret-ok",
            (20, 10) => "channel.open",
            (20, 11) => "channel.open-ok",
            (20, 20) => "channel.flow",
            (20, 21) => "channel.flow-ok",
            (20, 40) => "channel.close",
            (20, 41) => "channel.close-ok",
            (30, 10) => "access.request",
            (30, 11) => "access.request-ok",
            (40, 10) => "exchange.declare",
            (40, 11) => "exchange.declare-ok",
            (40, 20) => "exchange.delete",
            (40, 21) => "exchange.delete-ok",
            (40, 30) => "exchange.bind",
            (40, 31) => "exchange.bind-ok",
            (40, 40) => "exchange.unbind",
            (40, 51) => "exchange.unbind-ok",
            (50, 10) => "queue.declare",
            (50, 11) => "queue.declare-ok",
            (50, 20) => "queue.bind",
            (50, 21) => "queue.bind-ok",
            (50, 30) => "queue.purge",
            (50, 31) => "queue.purge-ok",
            (50, 40) => "queue.delete",
            (50, 41) => "queue.delete-ok",
            (50, 50) => "queue.unbind",
            (50, 51) => "queue.unbind-ok",
            (60, 10) => "basic.qos",
            (60, 11) => "basic.qos-ok",
            (60, 20) => "basic.consume",
            (60, 21) => "basic.consume-ok",
            (60, 30) => "basic.cancel",
            (60, 31) => "basic.cancel-ok",
            (60, 40) => "basic.publish",
            (60, 50) => "basic.return",
            (60, 60) => "basic.deliver",
            (60, 70) => "basic.get",
            (60, 71) => "basic.get-ok",
            (60, 72) => "basic.get-empty",
            (60, 80) => "basic.ack",
            (60, 90) => "basic.reject",
            (60, 100) => "basic.recover-async",
            (60, 110) => "basic.recover",
            (60, 111) => "basic.recover-ok",
            (60, 120) => "basic.nack",
            (85, 10) => "confirm.select",
            (85, 11) => "confirm.select-ok",
            (90, 10) => "tx.select",
            (90, 11) => "tx.select-ok",
            (90, 20) => "tx.commit",
            (90, 21) => "tx.commit-ok",
            (90, 30) => "tx.rollback",
            (90, 31) => "tx.rollback-ok",
            (class, method) => return write!(f, "{class}.{method}"),
        };
        f.write_str(name)
    }
}
