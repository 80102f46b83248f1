//! Leveret: a RabbitMQ-compatible AMQP 0-9-1 message broker.
//!
//! The broker is an in-memory, synchronous data structure with a log behind it; the network and the
//! disk are adapters. See ARCHITECTURE.md.

pub mod protocol;

pub mod broker;

pub mod amqp;

pub mod storage;

pub mod server;

pub mod cli;
pub mod clock;
pub mod config;
pub mod definitions_file;
pub mod logging;
pub mod offline;
pub mod password;
pub mod perf;
pub mod ping;
pub mod sync;
pub mod trust;

#[cfg(test)]
#[path = "../tests/golden/check.rs"]
mod golden;
