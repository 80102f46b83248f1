//! Leveret: a RabbitMQ-compatible AMQP 0-9-1 message broker.

pub mod broker;
pub mod protocol;
pub mod storage;
pub mod sync;
