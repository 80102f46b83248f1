//! The session: pure state machines that join the protocol and the broker. No tokio.
//!
//! The shell reads bytes and hands them to [`connection::Connection::receive`], hands in deliveries
//! and the passing of time, and writes what stands in [`connection::Connection::output`].

mod assembly;
pub mod channel;
mod channels;
mod confirms;
pub mod connection;
mod consume;
mod consumers;
mod credentials;
mod declare;
pub mod errors;
mod firehose;
mod handshake;
pub mod output;
mod publish;
mod publish_once;
mod reply_address;
pub mod settings;
mod settle;
mod transaction;
mod tx;
mod unacked;

pub use connection::{Connection, Received};
pub use handshake::VERSION;
pub use settings::{Authenticator, Login, Refused, SessionSettings, TX_BYTES_HARD_MAX};
