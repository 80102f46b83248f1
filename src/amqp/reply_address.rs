//! Addresses of direct reply-to consumers.
//!
//! They are a secret: who knows one may answer. Clients and libraries take RabbitMQ's apart, so ours are
//! made the same way: `amq.rabbitmq.reply-to.`, the base64 of a process identifier in Erlang's external
//! term format, a point, and the base64 of 16 random octets, which ends in `==`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(super) use crate::broker::replies::REPLY_TO;

/// The node in the identifier. With 13 octets the first part has no padding, as RabbitMQ's mostly has not.
const NODE: &[u8; 13] = b"reply@1000000";

/// A fresh address for a consumer of this connection.
pub(super) fn fresh(connection: u64, consumer: u32) -> String {
    // A version, then NEW_PID_EXT with its node as ATOM_UTF8_EXT, id, serial and creation.
    let mut pid = vec![131, 88, 118, 0, NODE.len() as u8];
    pid.extend(NODE);
    pid.extend((connection as u32).to_be_bytes());
    pid.extend(consumer.to_be_bytes());
    pid.extend(1u32.to_be_bytes());
    let mut key = [0u8; 16];
    crate::broker::vhost::random(&mut key);
    let (pid, key) = (STANDARD.encode(pid), STANDARD.encode(key));
    format!("{REPLY_TO}.{pid}.{key}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_address_has_rabbitmqs_parts() {
        let address = fresh(0x01_0203_0405, 7);
        let parts = address.strip_prefix("amq.rabbitmq.reply-to.");
        let (pid, key) = parts.and_then(|p| p.split_once('.')).expect("two parts");
        assert!(key.ends_with("=="));
        assert_eq!(STANDARD.decode(key).map(|key| key.len()), Ok(16));
        let pid = STANDARD.decode(pid).expect("base64");
        assert_eq!(pid[..5], [131, 88, 118, 0, 13]);
        assert_eq!(pid[5..18], *NODE);
        assert_eq!(pid[18..], [2, 3, 4, 5, 0, 0, 0, 7, 0, 0, 0, 1]);
        assert!(address.len() < 256);
    }

    #[test]
    fn no_address_comes_twice() {
        let all: HashSet<String> = (0..100).map(|_| fresh(1, 1)).collect();
        assert_eq!(all.len(), 100);
    }
}
