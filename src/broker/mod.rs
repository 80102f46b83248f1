//! The domain: synchronous, in memory. No tokio, no sockets, no files, no reply codes.

pub mod message;
pub mod ports;
