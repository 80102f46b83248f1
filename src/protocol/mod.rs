//! The wire: bytes in, borrowed values out, and back. Pure; knows nothing of a broker.
//!
//! Everything after the protocol header is a sequence of frames:
//!
//! ```text
//! 0        1         3             7                  7+size    8+size
//! +--------+---------+-------------+------------------+----------+
//! |  kind  | channel |    size     |     payload      |   0xCE   |
//! +--------+---------+-------------+------------------+----------+
//!   octet     short       long         size octets       octet
//! ```
//!
//! A method frame may be followed by a content header and body frames of the same channel; body
//! frames are no larger than the negotiated `frame_max`.

#![deny(clippy::indexing_slicing)]

pub mod encode;
pub mod field_table;
pub mod frame;
pub mod method_id;
#[allow(missing_docs, reason = "generated modules document themselves")]
pub mod methods;
pub mod properties;
pub mod raw;
pub mod reply_code;
pub mod short;
pub mod wire;

pub use method_id::MethodId;
pub use methods::{EncodeMethod, Method};
pub use wire::DecodeError;
