//! The octets of everything in the folder `log`: what `docs/format.md` says, and what folders out there have.

use super::super::format::{
    encode, encode_clean_stop, encode_mark, encode_one, encode_seal, parts,
};
use super::super::summary::{Settled, Summary};
use super::super::{index, salt, segment};
use super::*;
use crate::broker::memory::Memory;
use crate::golden;
use crate::protocol::short::ShortBytes;
use crate::storage::octets::Salt;

const SALT: Salt = Salt {
    mark: 0x0102_0304,
    crc: 0x0506_0708,
};

fn place(offset: u32) -> format::Place {
    format::Place {
        segment: 7,
        salt: SALT,
        offset,
        watermark: segment::lsn(6, 0x40).0,
        first_id: 0x1234,
    }
}

/// All kinds of records that an append can have.
fn records() -> Records {
    let properties = [0x10, 0, 2];
    let parts = Parts {
        exchange: ShortBytes::cut(b"x"),
        routing_key: ShortBytes::cut(b"key"),
        properties: &properties,
        flags: FLAG_PERSISTENT,
    };
    let target = |queue, expires_at, priority, delivery_count| Target {
        queue: QueueId(queue),
        expires_at,
        priority,
        delivery_count,
    };
    let mut records = Records {
        settles: vec![(QueueId(1), MessageId(2)), (QueueId(3), MessageId(4))],
        settled_ranges: vec![(QueueId(5), MessageId(6), MessageId(7))],
        ..Records::default()
    };
    records.definitions.push(DefinitionChange {
        kind: DefinitionKind::Queue,
        key: b"put".to_vec(),
        value: Some(b"value".to_vec()),
    });
    records.definitions.push(DefinitionChange {
        kind: DefinitionKind::Binding,
        key: b"removed".to_vec(),
        value: None,
    });
    records.targets = vec![target(8, 0, 0, 0), target(9, 1_700_000_000_123, 5, 300)];
    records.publishes.push(LoggedPublish {
        message: Message::new(&Memory::new(), &parts, b"body"),
        first_target: 0,
        n_targets: 2,
        transient: false,
    });
    records
}

fn made(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn summary() -> Summary {
    let mut summary = Summary::of(7);
    (summary.first_id, summary.next_id) = (0x1234, 0x1237);
    (summary.len, summary.last_frame) = (0x300, 0x200);
    summary.definitions_to = segment::lsn(7, 0x100);
    summary.ended = true;
    summary.clean_stop = Some(vec![(QueueId(8), MessageId(0x1235))]);
    summary.sparse.push((0x1234, 0));
    summary.runs.push(RecoveredRun {
        target: records().targets[1],
        first_id: MessageId(0x1234),
        count: 2,
        body_len: 4,
        redelivered: false,
    });
    summary.settled.push(Settled {
        queue: QueueId(9),
        first: 6,
        last: 7,
    });
    summary
}

#[test]
fn the_octets_of_the_log_are_those_of_its_format() {
    let records = records();
    let small = parts(&records, 1);
    let one = small.last().expect("a message");
    let first = small.first().expect("a settlement");
    let all = format::Part::all(&records);
    let message = made(|out| encode(out, &records, one, 0, &place(0x80)));
    let message = &message[format::FRAME_HEADER..];
    let old = format::Place {
        salt: Salt::NONE,
        ..place(0)
    };
    let mut noted = segment::Segment::new(None, 0x1234);
    (0x1234..0x1237).for_each(|id| noted.note_message(id, 2));
    noted.settle_all(0x1235);
    noted.settle(QueueId(9), 0x1236);
    golden::check(
        "log.txt",
        &[
            (
                "first frame, all records",
                made(|out| encode(out, &records, &all, 0, &place(0))),
            ),
            (
                "followed by three",
                made(|out| encode(out, &records, first, 3, &place(0x80))),
            ),
            (
                "one message",
                made(|out| encode_one(out, message, &place(0x80))),
            ),
            ("mark", made(|out| encode_mark(out, &place(0x80)))),
            ("seal", made(|out| encode_seal(out, &place(0x80)))),
            (
                "clean stop",
                made(|out| encode_clean_stop(out, &records.settles, &place(0x80))),
            ),
            ("without salt", made(|out| encode_seal(out, &old))),
            (
                "salt",
                salt::encode(&salt::Salts {
                    salt: SALT,
                    from: 3,
                }),
            ),
            ("index", index::encode(&summary())),
            (
                "settled, behind its checksum",
                made(|out| noted.encode_settled(out)),
            ),
        ],
    );
}
