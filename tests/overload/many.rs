//! Many connections that do nothing, and many queues.

use std::time::{Duration, Instant};

use leveret::protocol::EncodeMethod;
use leveret::protocol::encode;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::{basic, channel, queue};

use crate::Ground;
use crate::bystander::Bystander;
use crate::support::{self, Broker, Client};

/// In the long form, or in the short one.
fn n(long: usize, short: usize) -> usize {
    if crate::seconds().is_some() {
        long
    } else {
        short
    }
}

/// Seconds.
const HEARTBEAT: u16 = 30;

/// What an idle connection with a channel and a consumer may take, with its queue's part of it.
const OCTETS_EACH: u64 = 48 << 10;

fn idle(address: std::net::SocketAddr, number: usize) -> Client {
    // One address has some 28,000 ports.
    let source = [127, 0, 2, 1 + (number / 5000) as u8];
    let mut c = Client::raw_from(source, address).unwrap();
    c.login_with(131_072, HEARTBEAT).unwrap();
    c.send(1, &channel::Open).unwrap();
    c.expect(channel::OpenOk::ID).unwrap();
    c.consume("passing-by", true).unwrap();
    c
}

/// Twice: the second time takes nothing more.
#[test]
fn thousands_of_idle_connections_cost_little_and_go_at_once() {
    let n = n(10_000, 300).min(crate::raise_descriptors() - 200);
    let ground = Ground::new(&[]);
    let address = ground.broker.address;
    let mut c = Client::connect(address).unwrap();
    c.declare("passing-by", false, &FieldTable::new()).unwrap();
    let bystander = Bystander::start(address);
    bystander.watch(Duration::from_millis(100), 3);
    // The bystander's and ours.
    let (before, descriptors) = ([5.0, 5.0, 3.0, 1.0], ground.broker.descriptors() + 16);
    let mut kept = Vec::new();
    for round in 0..2 {
        let (resident, began) = (ground.broker.resident(), Instant::now());
        let mut all: Vec<_> = (0..n).map(|number| idle(address, number)).collect();
        let took = began.elapsed();
        let seen = bystander.watch(Duration::from_millis(200), 3);
        let each = ground.broker.resident().saturating_sub(resident) / n as u64;
        crate::told(
            &format!("{n} idle connections, {each} octets each, opened in {took:.1?}"),
            &seen,
            ground.broker.resident(),
        );
        if round == 0 {
            assert!(each < OCTETS_EACH, "{each} octets each");
        }
        // All of them are served.
        for c in &mut all {
            c.send(1, &basic::Qos::default()).unwrap();
        }
        for c in &mut all {
            c.expect(basic::QosOk::ID).unwrap();
        }
        let began = Instant::now();
        drop(all);
        let seen = bystander.watch(Duration::from_millis(100), 3);
        ground.comes_back_to(&before, descriptors);
        let name = format!("{n} connections closed at once: {:.1?}", began.elapsed());
        crate::told(&name, &seen, ground.broker.resident());
        kept.push(ground.broker.resident());
    }
    assert!(kept[1] < kept[0] + (32 << 20), "{kept:?}");
    bystander.stop();
}

/// Declares so many queues, every other one durable, each with a binding, every tenth with a message.
fn declare(c: &mut Client, n: usize) {
    for number in 0..n {
        let name = format!("many-{number}");
        let declare = queue::Declare {
            queue: &name,
            durable: number % 2 == 0,
            nowait: true,
            ..queue::Declare::default()
        };
        encode::method(&mut c.out, 1, &declare);
        let bind = queue::Bind {
            queue: &name,
            exchange: "amq.topic",
            routing_key: &name,
            nowait: true,
            ..queue::Bind::default()
        };
        encode::method(&mut c.out, 1, &bind);
        if number % 10 == 0 {
            c.stage_publish_to("amq.topic", &name, b"kept", &support::persistent());
        }
        if c.out.len() > 1 << 16 {
            c.flush().unwrap();
        }
    }
    asked(c);
}

/// Everything before was done; what is durable, is.
fn asked(c: &mut Client) {
    c.send(1, &basic::Qos::default()).unwrap();
    c.expect(basic::QosOk::ID).unwrap();
    c.declare("last", true, &FieldTable::new()).unwrap();
}

#[test]
fn many_queues_survive_a_kill_and_are_gone_when_deleted() {
    let n = n(100_000, 1000);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let before = broker.resident();
    let mut c = Client::connect(broker.address).unwrap();
    let bystander = Bystander::start(broker.address);
    let began = Instant::now();
    declare(&mut c, n);
    let declared = began.elapsed();
    let seen = bystander.watch(Duration::from_millis(100), 3);
    let each = broker.resident().saturating_sub(before) / n as u64;
    let name = format!("{n} queues, {each} octets each, declared in {declared:.1?}");
    crate::told(&name, &seen, broker.resident());
    bystander.stop();
    broker.kill();

    let began = Instant::now();
    let broker = Broker::start(&data, &[]);
    support::tell(&format!("started again in {:.1?}", began.elapsed()));
    let mut c = Client::connect(broker.address).unwrap();
    for number in (0..n).step_by(n / 50) {
        let name = format!("many-{number}");
        let kept = u32::from(number % 10 == 0);
        assert_eq!(c.counts(&name).unwrap(), (kept, 0), "{name}");
    }
    // Those that were not durable may be declared as if they had never been.
    declare(&mut c, n);
    let bystander = Bystander::start(broker.address);
    let began = Instant::now();
    for number in 0..n {
        let name = format!("many-{number}");
        let delete = queue::Delete {
            queue: &name,
            nowait: true,
            ..queue::Delete::default()
        };
        encode::method(&mut c.out, 1, &delete);
    }
    c.flush().unwrap();
    asked(&mut c);
    let deleted = began.elapsed();
    let seen = bystander.watch(Duration::from_millis(100), 3);
    crate::told(
        &format!("deleted in {deleted:.1?}"),
        &seen,
        broker.resident(),
    );
    bystander.stop();
    broker.kill();

    let broker = Broker::start(&data, &[("LEVERET_LISTENERS_PROMETHEUS", "127.0.0.1:0")]);
    let page = support::scrape(broker.listens("prometheus"));
    // The bystander's, and the last.
    assert_eq!(support::metric(&page, "rabbitmq_queues"), 2.0);
    let kept = broker.resident();
    // The start reads what sled and the journal have of queues that came and went.
    let most = before + (16 << 20) + 1024 * n as u64;
    assert!(kept < most, "{} MiB", kept >> 20);
    assert!(broker.stop());
}
