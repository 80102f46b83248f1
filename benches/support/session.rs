//! A broker in memory, and a connection to it without a socket: for benchmarks and fuzzing.

use std::sync::Arc;

use leveret::amqp::connection::{Connection, Parts};
use leveret::amqp::settings::{Authenticator, Login, Refused, SessionSettings};
use leveret::broker::Broker;
use leveret::broker::access::User;
use leveret::broker::ports::MessageLog;
use leveret::storage::memory::MemoryLog;

use super::inbox::Inbox;

struct Anybody;

impl Authenticator for Anybody {
    fn authenticate(&self, _: &Login<'_>) -> Result<(), Refused> {
        Ok(())
    }
}

/// A handshake as `guest`, and channel 1; frames have 65,536 octets at most.
pub const HANDSHAKE: &[u8] = b"AMQP\0\0\x09\x01\
    \x01\0\0\0\0\0\x24\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US\xce\
    \x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x40\0\x01\0\0\0\x0a\xce\
    \x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce\
    \x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce";

/// A broker with one vhost and one user, who may do everything.
pub fn broker() -> Arc<Broker> {
    broker_on(MemoryLog::new())
}

/// The same on an empty log.
pub fn broker_on(log: Arc<dyn MessageLog>) -> Arc<Broker> {
    let (broker, _) = Broker::new(log, &[]);
    broker.add_vhost("/").expect("accepted");
    let guest = User {
        name: "guest".into(),
        password_hash: String::new(),
        hashing_algorithm: String::new(),
        tags: Vec::new(),
    };
    broker.put_user(guest).expect("accepted");
    let all = broker.put_permissions("guest", "/", [".*"; 3]);
    all.expect("accepted");
    Arc::new(broker)
}

/// A connection that nothing has been said on.
pub fn connection(
    broker: &Arc<Broker>,
    inbox: &Arc<Inbox>,
    settings: SessionSettings,
    now: u64,
) -> Connection {
    let parts = Parts {
        broker: broker.clone(),
        settings: Arc::new(settings),
        authenticator: Arc::new(Anybody),
        outlet: inbox.clone(),
        bell: inbox.clone(),
        address: None,
        local: None,
        certified: None,
    };
    Connection::new(parts, now)
}
