//! Leveret: a RabbitMQ-compatible AMQP 0-9-1 message broker.

pub mod protocol;
