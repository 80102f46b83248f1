//! Class `tx` (90). Transactions.
//!
//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.

use bytes::BytesMut;

use super::super::wire::{Malformed, Reader};
use super::{EncodeMethod, MethodId};

/// `tx.select`: Puts the channel into transaction mode. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Select;

impl Select {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Select)
    }
}

impl EncodeMethod for Select {
    const ID: MethodId = MethodId {
        class: 90,
        method: 10,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `tx.select-ok`: It is. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SelectOk;

impl SelectOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(SelectOk)
    }
}

impl EncodeMethod for SelectOk {
    const ID: MethodId = MethodId {
        class: 90,
        method: 11,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `tx.commit`: Ends the transaction, keeping its work. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Commit;

impl Commit {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Commit)
    }
}

impl EncodeMethod for Commit {
    const ID: MethodId = MethodId {
        class: 90,
        method: 20,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `tx.commit-ok`: It is kept. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CommitOk;

impl CommitOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(CommitOk)
    }
}

impl EncodeMethod for CommitOk {
    const ID: MethodId = MethodId {
        class: 90,
        method: 21,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `tx.rollback`: Ends the transaction, undoing its work. Sent by the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rollback;

impl Rollback {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Rollback)
    }
}

impl EncodeMethod for Rollback {
    const ID: MethodId = MethodId {
        class: 90,
        method: 30,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}

/// `tx.rollback-ok`: It is undone. Sent by the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RollbackOk;

impl RollbackOk {
    pub(super) fn decode(_r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(RollbackOk)
    }
}

impl EncodeMethod for RollbackOk {
    const ID: MethodId = MethodId {
        class: 90,
        method: 31,
    };

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _buf: &mut BytesMut) {}
}
