//! Tests of arguments.

use super::*;
use crate::protocol::field_table::{FieldTable, FieldValue};

fn one(key: &str, value: impl Into<FieldValue>) -> FieldTable {
    let mut t = FieldTable::new();
    t.insert(key, value);
    t
}

fn problem(key: &str, value: impl Into<FieldValue>) -> Problem {
    QueueSettings::parse(&one(key, value))
        .expect_err("refused")
        .problem
}

#[test]
fn good_arguments_are_understood() {
    let mut t = one("x-message-ttl", FieldValue::I32(60_000));
    t.insert("x-max-length", 10i64);
    t.insert("x-overflow", "reject-publish");
    t.insert("x-dead-letter-exchange", "");
    t.insert("x-dead-letter-routing-key", "dead");
    t.insert("x-max-priority", FieldValue::U8(9));
    t.insert("x-unheard-of", FieldValue::Void);
    let s = QueueSettings::parse(&t).expect("fine");
    assert_eq!(
        (s.message_ttl, s.max_length, s.max_priority),
        (Some(60_000), Some(10), Some(9))
    );
    assert_eq!(s.overflow, Overflow::RejectPublish);
    let dead = DeadLetterTarget {
        exchange: b""[..].into(),
        routing_key: Some(b"dead"[..].into()),
    };
    assert_eq!(s.dead_letter, Some(dead));
}

#[test]
fn bad_arguments_are_named() {
    assert_eq!(problem("x-message-ttl", -1i64), Problem::ValueNegative(-1));
    assert_eq!(
        problem("x-message-ttl", "1"),
        Problem::ExpectedInteger("longstr")
    );
    assert_eq!(
        problem("x-message-ttl", MILLIS_MAX + 1),
        Problem::ValueTooLarge(MILLIS_MAX + 1)
    );
    assert_eq!(problem("x-expires", 0i64), Problem::ValueZero);
    assert_eq!(
        problem("x-max-priority", 256i64),
        Problem::MaxValueExceeded(256)
    );
    assert_eq!(
        problem("x-overflow", "no"),
        Problem::InvalidOverflow("no".into())
    );
    assert_eq!(
        problem("x-dead-letter-routing-key", "k"),
        Problem::RoutingKeyWithoutExchange
    );
    assert_eq!(
        problem("x-queue-type", "stream"),
        Problem::UnsupportedQueueType("stream".into())
    );
    assert_eq!(
        problem("x-delivery-limit", 3i64),
        Problem::NotForThisType(QueueType::Classic)
    );
    assert_eq!(problem("x-cache-size", 0i64), Problem::ValueZero);
    for (octets, does) in [(255, true), (256, false)] {
        let mut t = one("x-dead-letter-exchange", "e".repeat(octets));
        assert_eq!(QueueSettings::parse(&t).is_ok(), does);
        t.insert("x-dead-letter-exchange", "");
        t.insert("x-dead-letter-routing-key", "k".repeat(octets));
        assert_eq!(QueueSettings::parse(&t).is_ok(), does);
    }
    assert_eq!(
        problem("x-dead-letter-exchange", "é".repeat(128)),
        Problem::TooLong(256)
    );
}

/// Tried on RabbitMQ 4.3.6, one argument less each time.
#[test]
fn of_several_bad_arguments_the_first_in_rabbitmqs_order_is_named() {
    let mut t = one("x-delivery-limit", 1i64);
    t.insert("x-queue-leader-locator", "foo");
    t.insert("x-single-active-consumer", 1i64);
    t.insert("x-queue-version", 1i64);
    t.insert("x-overflow", "foo");
    t.insert("x-max-priority", -1i64);
    t.insert("x-max-length-bytes", -1i64);
    t.insert("x-max-length", -1i64);
    t.insert("x-dead-letter-routing-key", 1i64);
    t.insert("x-message-ttl", -1i64);
    t.insert("x-expires", 0i64);
    t.insert("x-queue-type", "foo");
    t.insert("x-dead-letter-exchange", 1i64);
    let mut named = vec![];
    while let Err(e) = QueueSettings::parse(&t) {
        t.remove(e.argument);
        named.push(e.argument);
    }
    let want = [
        "x-dead-letter-exchange",
        "x-queue-type",
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-version",
        "x-single-active-consumer",
        "x-queue-leader-locator",
        "x-delivery-limit",
    ];
    assert_eq!(named, want);
}

#[test]
fn arguments_without_effect_are_taken_and_compared() {
    let odd = one("x-queue-mode", 1i64);
    assert!(QueueSettings::parse(&odd).is_ok());
    assert!(queue_equivalence(&odd, &FieldTable::new()).is_err());
    let balanced = one("x-queue-leader-locator", "balanced");
    assert!(QueueSettings::parse(&balanced).is_ok());
    assert!(queue_equivalence(&FieldTable::new(), &balanced).is_err());
    let old = one("x-queue-master-locator", "min-masters");
    assert!(QueueSettings::parse(&old).is_ok());
    assert_eq!(queue_equivalence(&FieldTable::new(), &old), Ok(()));
}

#[test]
fn only_known_arguments_are_compared_and_integers_by_number() {
    let a = one("x-message-ttl", FieldValue::I32(5));
    assert_eq!(queue_equivalence(&a, &one("x-message-ttl", 5i64)), Ok(()));
    assert!(queue_equivalence(&a, &one("x-message-ttl", "5")).is_err());
    assert!(queue_equivalence(&a, &FieldTable::new()).is_err());
    assert_eq!(
        queue_equivalence(&FieldTable::new(), &one("x-nonsense", 1i64)),
        Ok(())
    );
    assert_eq!(
        queue_equivalence(&FieldTable::new(), &one("x-queue-type", "classic")),
        Ok(())
    );
}

#[test]
fn expirations() {
    assert_eq!(parse_expiration("1000"), Ok(1000));
    assert_eq!(parse_expiration("abc"), Err(ExpirationError::NoInteger));
    assert_eq!(
        parse_expiration("10x"),
        Err(ExpirationError::LeftoverString("x".into()))
    );
    assert_eq!(
        parse_expiration("-1"),
        Err(ExpirationError::ValueNegative(-1))
    );
    assert_eq!(
        parse_expiration("315360000001"),
        Err(ExpirationError::ValueTooLarge(315_360_000_001))
    );
    assert_eq!(
        (parse_expiration("+5"), parse_expiration("-0")),
        (Ok(5), Ok(0))
    );
    assert_eq!(parse_expiration(""), Err(ExpirationError::NoInteger));
    assert_eq!(parse_expiration(" 5"), Err(ExpirationError::NoInteger));
    assert!(matches!(
        parse_expiration("99999999999999999999"),
        Err(ExpirationError::ValueTooLarge(_))
    ));
    assert!(matches!(
        parse_expiration("-99999999999999999999"),
        Err(ExpirationError::ValueNegative(_))
    ));
}
