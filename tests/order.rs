//! Answers on a channel come in the order of its questions, whatever the first of them waits for.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::{basic, queue};
use leveret::protocol::{EncodeMethod, Method, encode};
use support::{Broker, Client};

/// A message that has to be read from the log first, and a purge behind it in the same packet, which does not count it.
#[test]
fn a_purge_waits_for_a_get_that_reads_the_disk() {
    const MESSAGES: u32 = 30;
    let dir = tempfile::tempdir().unwrap();
    let budget = [("LEVERET_MEMORY_BODY_BUDGET_BYTES", "65536")];
    let broker = Broker::start(&dir.path().join("data"), &budget);
    let mut c = Client::connect(broker.address).unwrap();
    c.declare("q", true, &FieldTable::new()).unwrap();
    c.confirm_select().unwrap();
    let mut confirmed = 0;
    for round in 0..20u8 {
        for _ in 0..MESSAGES {
            c.publish("q", &[round; 20_000]).unwrap();
        }
        while confirmed < u64::from(MESSAGES) * (u64::from(round) + 1) {
            let f = c.expect(basic::Ack::ID).unwrap();
            let Method::BasicAck(ack) = f.method() else {
                unreachable!()
            };
            confirmed = ack.delivery_tag;
        }
        let get = basic::Get {
            queue: "q",
            no_ack: true,
        };
        for _ in 0..10 {
            encode::method(&mut c.out, 1, &get);
        }
        let purge = queue::Purge {
            queue: "q",
            nowait: false,
        };
        encode::method(&mut c.out, 1, &purge);
        c.flush().unwrap();
        for _ in 0..10 {
            c.expect(basic::GetOk::ID).unwrap();
            assert_eq!(c.content().unwrap(), [round; 20_000]);
        }
        let f = c.expect(queue::PurgeOk::ID).unwrap();
        assert!(
            matches!(f.method(), Method::QueuePurgeOk(ok) if ok.message_count == MESSAGES - 10),
            "{:?}",
            f.method()
        );
    }
}
