//! Random values, those at borders among them.

use leveret::protocol::field_table::{FieldTable, FieldValue};

#[path = "../support/random.rs"]
mod numbers;

pub use numbers::{Random, mix};

/// Names that nothing but hostile or careless clients use, among a few of everyday.
pub fn name(random: &mut Random) -> String {
    match random.below(12) {
        0 => String::new(),
        1 => "w".repeat(255),
        2 => "amq.reserved".into(),
        3 => "wilder #.*".into(),
        4 => "w\u{0}\u{1F407}\n".into(),
        n => format!("wild-{}", n % 6),
    }
}

/// The name of a queue: never empty, for that would be the last one declared.
pub fn queue_name(random: &mut Random) -> String {
    let name = name(random);
    if name.is_empty() {
        "wild-0".into()
    } else {
        name
    }
}

/// The name of an exchange, perhaps one of the predefined.
pub fn exchange_name(random: &mut Random) -> String {
    match random.below(4) {
        0 => random
            .pick(&[
                "amq.direct",
                "amq.fanout",
                "amq.topic",
                "amq.headers",
                "amq.match",
            ])
            .into(),
        _ => format!(
            "{}-x",
            queue_name(random).chars().take(60).collect::<String>()
        ),
    }
}

/// A value of any type, at its borders more often than not.
pub fn value(random: &mut Random, depth: usize) -> FieldValue {
    match random.below(20) {
        0 => FieldValue::Bool(random.one_in(2)),
        1 => FieldValue::I8(i8::MIN),
        2 => FieldValue::U8(u8::MAX),
        3 => FieldValue::I16(i16::MIN),
        4 => FieldValue::U16(u16::MAX),
        5 => FieldValue::I32(random.pick(&[i32::MIN, -1, 0, 1, i32::MAX])),
        6 => FieldValue::U32(u32::MAX),
        7 => FieldValue::I64(random.pick(&[i64::MIN, -1, 0, 1, 1 << 32, i64::MAX])),
        8 => FieldValue::F32(random.pick(&[f32::NAN, f32::INFINITY, -0.0])),
        9 => FieldValue::F64(random.pick(&[f64::NAN, f64::NEG_INFINITY, 1.5])),
        10 => FieldValue::Decimal {
            scale: 255,
            value: u32::MAX,
        },
        11 => FieldValue::LongStr(vec![0xFF; random.below(300)]),
        12 => FieldValue::LongStr(
            random
                .pick(&["", "lazy", "quorum", "classic", "drop-head", "all"])
                .into(),
        ),
        13 => FieldValue::Timestamp(u64::MAX),
        14 => FieldValue::Void,
        15 => FieldValue::Bytes(vec![0; random.below(50)]),
        16 if depth > 0 => {
            FieldValue::Array(vec![value(random, depth - 1), value(random, depth - 1)])
        }
        17 if depth > 0 => FieldValue::Table(table(random, depth - 1)),
        18 => nested(random.below(70)),
        _ => FieldValue::I64(random.below(1000) as i64),
    }
}

/// Tables in tables.
fn nested(depth: usize) -> FieldValue {
    (0..depth).fold(FieldValue::Void, |inner, _| {
        let mut table = FieldTable::new();
        table.insert("n", inner);
        FieldValue::Table(table)
    })
}

/// Arguments that some queue, exchange, binding, consumer or message knows.
const KNOWN: &[&str] = &[
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-priority",
    "x-queue-type",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-queue-mode",
    "x-match",
    "alternate-exchange",
    "x-delayed-type",
    "x-delay",
    "x-priority",
    "x-cache-size",
    "x-cache-ttl",
    "x-message-deduplication",
    "x-deduplication-header",
    "x-death",
    "CC",
    "BCC",
    "x-queue-version",
    "x-queue-leader-locator",
    "x-consumer-timeout",
    "x-cancel-on-ha-failover",
    "x-delivery-count",
];

/// A table of such arguments, and others.
pub fn table(random: &mut Random, depth: usize) -> FieldTable {
    let mut table = FieldTable::new();
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2, 5]) {
        let value = value(random, depth);
        match random.one_in(8) {
            true => table.insert(name(random).as_str(), value),
            false => table.insert(random.pick(KNOWN), value),
        }
    }
    table
}

/// Arguments that make sense, so that not all declarations are refused.
pub fn sensible(random: &mut Random) -> FieldTable {
    let mut table = FieldTable::new();
    match random.below(9) {
        0 => table.insert("x-message-ttl", random.below(50) as i64),
        1 => table.insert("x-expires", 1 + random.below(200) as i64),
        2 => table.insert("x-max-length", random.below(5) as i64),
        3 => table.insert("x-max-priority", random.below(11) as i64),
        4 => table.insert("x-queue-type", "quorum"),
        5 => table.insert("x-single-active-consumer", true),
        6 => table.insert("x-max-length-bytes", random.below(2000) as i64),
        _ => {}
    }
    if random.one_in(3) {
        table.insert("x-dead-letter-exchange", exchange_name(random).as_str());
    }
    table
}
