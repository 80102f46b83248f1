//! What a client can do to others, each as fast as it goes, from several connections at once.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use leveret::protocol::EncodeMethod;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::{FieldTable, FieldValue, TableRef};
use leveret::protocol::frame::{FRAME_END, FrameKind};
use leveret::protocol::methods::{basic, channel, connection, exchange, queue};
use leveret::protocol::properties::Properties;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{Client, PATIENCE, persistent};

/// How long a hostile client waits before it looks whether it is told to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Octets that are sent at once.
const PART: usize = 256 * 1024;

/// Hostile clients run at this nice value: they stand for other machines, whose CPU is not the broker's.
const NICE: i32 = 10;

/// One way to be hostile.
pub struct Kind {
    pub name: &'static str,
    pub clients: usize,
    pub run: fn(&Place) -> std::io::Result<()>,
}

/// Where one hostile client stands.
pub struct Place {
    pub address: SocketAddr,
    pub number: usize,
    stop: Arc<AtomicBool>,
}

/// Clients of one kind, or of several.
pub struct Hostile {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Hostile {
    pub fn start<'a>(address: SocketAddr, kinds: impl IntoIterator<Item = &'a Kind>) -> Hostile {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for kind in kinds {
            for number in 0..kind.clients {
                let run = kind.run;
                let place = Place {
                    address,
                    number,
                    stop: stop.clone(),
                };
                threads.push(std::thread::spawn(move || {
                    // Of this thread alone.
                    rustix::process::setpriority_process(None, NICE).unwrap();
                    // An error is the broker's answer; then it begins again.
                    while place.goes_on() {
                        let _ = run(&place);
                    }
                }));
            }
        }
        Hostile { threads, stop }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a hostile client");
        }
    }
}

impl Place {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Holds what it has until it is told to stop.
    fn hold(&self) {
        while self.goes_on() {
            crate::support::pause(LOOK);
        }
    }

    /// No two kinds of clients come from one address.
    fn source(&self) -> [u8; 4] {
        [127, 0, 1, 1 + self.number as u8 % 200]
    }

    fn client(&self) -> std::io::Result<Client> {
        let c = Client::connect_from(self.source(), self.address)?;
        c.socket.set_read_timeout(Some(LOOK))?;
        c.socket.set_write_timeout(Some(LOOK))?;
        Ok(c)
    }

    /// Sends this again and again, reading what is answered.
    fn again(&self, c: &mut Client, octets: &[u8]) -> std::io::Result<()> {
        while self.goes_on() {
            self.send(c, octets)?;
        }
        Ok(())
    }

    /// Sends all of it, reading and forgetting what is answered.
    fn send(&self, c: &mut Client, octets: &[u8]) -> std::io::Result<()> {
        c.socket.set_nonblocking(true)?;
        let (mut rest, since) = (octets, Instant::now());
        let mut sink = [0; 65536];
        while !rest.is_empty() {
            if since.elapsed() > PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            match c.socket.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            match c.socket.read(&mut sink) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let mut on = [PollFd::new(&c.socket, PollFlags::IN | PollFlags::OUT)];
                    let _ = poll(&mut on, Some(&timespec(LOOK)));
                }
                Err(e) => return Err(e),
            }
        }
        c.socket.set_nonblocking(false)
    }

    /// Reads and forgets until it is told to stop.
    fn drain(&self, c: &mut Client) -> std::io::Result<()> {
        let mut sink = [0; 65536];
        while self.goes_on() {
            match c.socket.read(&mut sink) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends and never reads.
    fn send_blindly(&self, c: &mut Client, octets: &[u8]) -> std::io::Result<()> {
        c.socket.set_nonblocking(true)?;
        let mut rest = octets;
        while self.goes_on() {
            match c.socket.write(rest) {
                Ok(n) => rest = if n == rest.len() { octets } else { &rest[n..] },
                Err(e) if e.kind() == ErrorKind::WouldBlock => crate::support::pause(LOOK),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: d.subsec_nanos().into(),
    }
}

/// As many of these as fit into one part.
fn filled(mut each: impl FnMut(&mut BytesMut, usize)) -> BytesMut {
    let mut out = BytesMut::new();
    let mut n = 0;
    while out.len() < PART {
        each(&mut out, n);
        n += 1;
    }
    out
}

fn frame(out: &mut BytesMut, kind: FrameKind, payload: &[u8]) {
    out.put_u8(kind.octet());
    out.put_u16(1);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    out.put_u8(FRAME_END);
}

fn mandatory(out: &mut BytesMut, exchange: &str, key: &str) {
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: key.into(),
        mandatory: true,
        immediate: false,
    };
    encode::method(out, 1, &publish);
}

fn begin(out: &mut BytesMut, exchange: &str, key: &str, properties: &[u8], body_size: u64) {
    mandatory(out, exchange, key);
    let mut header = vec![0, 60, 0, 0];
    header.extend(body_size.to_be_bytes());
    header.extend(properties);
    frame(out, FrameKind::Header, &header);
}

fn publish(out: &mut BytesMut, exchange: &str, key: &str, properties: &Properties, body: &[u8]) {
    mandatory(out, exchange, key);
    let properties = properties.encode();
    let content = Content {
        properties: &properties,
        body,
    };
    encode::content(out, 1, &content, 131_072);
}

/// A queue that its connection takes with it, with these arguments.
fn own_queue(c: &mut Client, name: &str, arguments: &FieldTable) -> std::io::Result<()> {
    let arguments = arguments.to_bytes();
    let declare = queue::Declare {
        queue: name,
        exclusive: true,
        arguments: TableRef::unchecked(&arguments),
        ..queue::Declare::default()
    };
    c.send(1, &declare)?;
    c.next().map(drop)
}

/// The last `n` messages only.
fn last(n: i64) -> FieldTable {
    let mut arguments = FieldTable::new();
    arguments.insert("x-max-length", n);
    arguments
}

/// A queue with so many messages.
fn full_queue(place: &Place, c: &mut Client, name: &str, messages: usize) -> std::io::Result<()> {
    own_queue(c, name, &FieldTable::new())?;
    let mut out = BytesMut::new();
    for _ in 0..messages {
        publish(&mut out, "", name, &Properties::default(), b"x");
    }
    place.send(c, &out)
}

fn gets(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    own_queue(&mut c, "", &FieldTable::new())?;
    let get = basic::Get {
        queue: "",
        no_ack: true,
    };
    let all = filled(|out, _| encode::method(out, 1, &get));
    place.again(&mut c, &all)
}

fn channels(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let all = filled(|out, _| {
        encode::method(out, 2, &channel::Open);
        encode::method(out, 2, &channel::Close::default());
    });
    place.again(&mut c, &all)
}

fn returns_unread(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let all = filled(|out, _| publish(out, "", "nobody", &Properties::default(), &[7; 100]));
    place.send_blindly(&mut c, &all)
}

fn returns(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let all = filled(|out, _| publish(out, "", "nobody", &Properties::default(), &[7; 10]));
    place.again(&mut c, &all)
}

fn new_queues(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let all = filled(|out, n| {
        let name = format!("new-{}-{n}", place.number);
        let declare = queue::Declare {
            queue: &name,
            exclusive: true,
            ..queue::Declare::default()
        };
        encode::method(out, 1, &declare);
    });
    place.send(&mut c, &all)
}

fn durable_queues(place: &Place) -> std::io::Result<()> {
    let mut c = Client::connect_from(place.source(), place.address)?;
    while place.goes_on() {
        // What is on its way is done to its end, each when it is durable.
        for n in 0..10 {
            let name = format!("durable-{}-{n}", place.number);
            let declare = queue::Declare {
                queue: &name,
                durable: true,
                ..queue::Declare::default()
            };
            let delete = queue::Delete {
                queue: &name,
                ..queue::Delete::default()
            };
            encode::method(&mut c.out, 1, &declare);
            encode::method(&mut c.out, 1, &delete);
        }
        answered(&mut c)?;
    }
    Ok(())
}

fn bindings(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    own_queue(&mut c, "", &FieldTable::new())?;
    let all = filled(|out, n| {
        let key = format!("{}.{n}.*.#.{n}", place.number);
        let bind = queue::Bind {
            queue: "",
            exchange: "amq.topic",
            routing_key: &key,
            ..queue::Bind::default()
        };
        let unbind = queue::Unbind {
            queue: "",
            exchange: "amq.topic",
            routing_key: &key,
            ..queue::Unbind::default()
        };
        encode::method(out, 1, &bind);
        encode::method(out, 1, &unbind);
    });
    place.again(&mut c, &all)
}

/// A thousand queues get each message.
fn fan_out(place: &Place) -> std::io::Result<()> {
    let mut c = Client::connect_from(place.source(), place.address)?;
    let name = format!("fan-out-{}", place.number);
    let declare = exchange::Declare {
        exchange: &name,
        type_: "fanout",
        auto_delete: true,
        ..exchange::Declare::default()
    };
    encode::method(&mut c.out, 1, &declare);
    let queues = last(1).to_bytes();
    for n in 0..1000 {
        let queue = format!("{name}-{n}");
        let declare = queue::Declare {
            queue: &queue,
            exclusive: true,
            arguments: TableRef::unchecked(&queues),
            ..queue::Declare::default()
        };
        encode::method(&mut c.out, 1, &declare);
        let bind = queue::Bind {
            queue: &queue,
            exchange: &name,
            ..queue::Bind::default()
        };
        encode::method(&mut c.out, 1, &bind);
    }
    answered(&mut c)?;
    while place.goes_on() {
        // What is on its way is done to its end, whoever has gone: not too much of it.
        for _ in 0..100 {
            publish(&mut c.out, &name, "", &Properties::default(), b"x");
        }
        answered(&mut c)?;
    }
    Ok(())
}

/// Sends what is staged, and waits until all of it has been looked at.
fn answered(c: &mut Client) -> std::io::Result<()> {
    c.send(1, &basic::Qos::default())?;
    loop {
        let frame = c.next()?;
        if frame.kind == FrameKind::Method && frame.method().id() == basic::QosOk::ID {
            return Ok(());
        }
    }
}

/// Consumers that come and go, of a queue that has much for them.
fn consumers(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let name = format!("consumers-{}", place.number);
    full_queue(place, &mut c, &name, 10_000)?;
    let all = filled(|out, _| {
        let consume = basic::Consume {
            queue: &name,
            consumer_tag: "c",
            ..basic::Consume::default()
        };
        let cancel = basic::Cancel {
            consumer_tag: "c",
            ..basic::Cancel::default()
        };
        encode::method(out, 1, &consume);
        encode::method(out, 1, &cancel);
    });
    place.again(&mut c, &all)
}

/// Everything that was delivered goes back, again and again.
fn recovers(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let name = format!("recovers-{}", place.number);
    full_queue(place, &mut c, &name, 10_000)?;
    let consume = basic::Consume {
        queue: &name,
        ..basic::Consume::default()
    };
    let mut out = BytesMut::new();
    encode::method(&mut out, 1, &consume);
    place.send(&mut c, &out)?;
    let mut recover = BytesMut::new();
    encode::method(&mut recover, 1, &basic::Recover { requeue: true });
    place.again(&mut c, &recover)
}

/// A consumer that reads nothing, and a publisher that goes on.
fn never_reads(place: &Place) -> std::io::Result<()> {
    let name = format!("deaf-{}", place.number);
    let mut limited = last(1000);
    limited.insert("x-max-length-bytes", 8i64 << 20);
    let (mut deaf, mut c) = (place.client()?, place.client()?);
    own_queue(&mut deaf, &name, &limited)?;
    deaf.consume(&name, true)?;
    let all = filled(|out, _| publish(out, "", &name, &Properties::default(), &[1; 16_000]));
    place.again(&mut c, &all)
}

fn never_acks(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let name = format!("never-acks-{}", place.number);
    own_queue(&mut c, &name, &last(10_000))?;
    if place.number.is_multiple_of(2) {
        c.qos(10)?;
    }
    let mut out = BytesMut::new();
    let consume = basic::Consume {
        queue: &name,
        ..basic::Consume::default()
    };
    encode::method(&mut out, 1, &consume);
    place.send(&mut c, &out)?;
    let all = filled(|out, _| publish(out, "", &name, &Properties::default(), &[1; 50]));
    // Until it holds some ten thousand, which come back when it goes.
    for _ in 0..20 {
        place.send(&mut c, &all)?;
    }
    Ok(())
}

/// Who closes and does not read the answer.
fn closings(place: &Place) -> std::io::Result<()> {
    let mut held = std::collections::VecDeque::new();
    while place.goes_on() {
        let mut c = place.client()?;
        c.send(0, &connection::Close::default())?;
        held.push_back(c);
        if held.len() > 50 {
            held.pop_front();
        }
    }
    Ok(())
}

fn wrong_passwords(place: &Place) -> std::io::Result<()> {
    let mut c = Client::raw_from(place.source(), place.address)?;
    c.socket.set_read_timeout(Some(LOOK))?;
    c.log_in_as("guest", "wrong")
}

fn single_octets(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    own_queue(&mut c, "", &last(1))?;
    let mut all = BytesMut::new();
    begin(&mut all, "", "", &[0, 0], 30_000);
    for _ in 0..30_000 {
        frame(&mut all, FrameKind::Body, b"x");
    }
    place.again(&mut c, &all)
}

fn empty_frames(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    own_queue(&mut c, "", &last(1))?;
    let mut all = BytesMut::new();
    begin(&mut all, "", "", &[0, 0], 1);
    for _ in 0..30_000 {
        frame(&mut all, FrameKind::Body, b"");
    }
    frame(&mut all, FrameKind::Body, b"x");
    place.again(&mut c, &all)
}

/// Properties with this field table as headers.
fn headers(table: &[u8]) -> Vec<u8> {
    let mut out = vec![0x20, 0];
    out.extend((table.len() as u32).to_be_bytes());
    out.extend(table);
    out
}

/// Bound to a headers exchange, so that all of it is looked at.
fn bombs(place: &Place, table: &[u8]) -> std::io::Result<()> {
    let mut c = place.client()?;
    own_queue(&mut c, "", &last(1))?;
    let mut matched = FieldTable::new();
    matched.insert("absent", 1i64);
    matched.insert("x-match", FieldValue::LongStr("any".into()));
    let matched = matched.to_bytes();
    let bind = queue::Bind {
        queue: "",
        exchange: "amq.headers",
        arguments: TableRef::unchecked(&matched),
        ..queue::Bind::default()
    };
    c.send(1, &bind)?;
    c.next()?;
    let mut all = BytesMut::new();
    for exchange in ["amq.headers", ""] {
        begin(&mut all, exchange, "", &headers(table), 0);
    }
    place.again(&mut c, &all)
}

fn header_bombs(place: &Place) -> std::io::Result<()> {
    let mut table = Vec::new();
    for i in 0..18_000u32 {
        table.extend([4, b'a' + (i % 26) as u8]);
        table.extend(format!("{:03x}", i & 0xfff).as_bytes());
        table.push(b'V');
    }
    bombs(place, &table)
}

fn deep_tables(place: &Place) -> std::io::Result<()> {
    let nested = |depth: usize| {
        let mut inner = Vec::new();
        for _ in 0..depth {
            let mut outer = vec![b'A'];
            outer.extend((inner.len() as u32).to_be_bytes());
            outer.extend(inner);
            inner = outer;
        }
        [b"\x01d".as_slice(), &inner].concat()
    };
    // Many as deep as it goes, and then one that goes on.
    let table = nested(60).repeat(350);
    if place.number.is_multiple_of(2) {
        return bombs(place, &table);
    }
    bombs(place, &nested(20_000))
}

/// Sizes that nobody can mean: each costs its connection.
fn sizes(place: &Place) -> std::io::Result<()> {
    for case in 0..7 {
        let mut c = place.client()?;
        let mut out = BytesMut::new();
        match case {
            0 => begin(&mut out, "", "q", &[0, 0], 1 << 63),
            1 => begin(&mut out, "", "q", &[0, 0], u64::MAX),
            2 => out.put_slice(&[3, 0, 1, 0xff, 0xff, 0xff, 0xff]),
            3 => out.put_slice(&[1, 0, 1, 0, 2, 0, 1]),
            // Tables and strings that are longer than what they are in.
            4 => begin(&mut out, "", "q", &[0x20, 0, 0xff, 0xff, 0xff, 0xff], 1),
            5 => frame(&mut out, FrameKind::Method, &[0, 50, 0, 10, 0, 0, 255]),
            _ => begin(&mut out, "", "q", &headers(b"\x01aS\x7f\xff\xff\xff"), 1),
        }
        c.out.extend_from_slice(&out);
        c.flush()?;
        let mut sink = [0; 1024];
        let _ = c.socket.read(&mut sink);
    }
    Ok(())
}

/// Half-open handshakes, as many as one address gets.
fn half_open(place: &Place) -> std::io::Result<()> {
    let mut all = Vec::new();
    for _ in 0..100 {
        if !place.goes_on() {
            break;
        }
        let mut c = Client::raw_from(place.source(), place.address)?;
        c.socket.write_all(b"AMQP\x00\x00\x09")?;
        all.push(c);
    }
    place.hold();
    Ok(())
}

/// What is transacted and rolled back.
fn transactions(place: &Place) -> std::io::Result<()> {
    use leveret::protocol::methods::tx;
    let mut c = place.client()?;
    own_queue(&mut c, "", &last(1))?;
    let mut all = BytesMut::new();
    encode::method(&mut all, 1, &tx::Select);
    for _ in 0..2000 {
        publish(&mut all, "", "", &Properties::default(), b"x");
    }
    encode::method(&mut all, 1, &tx::Rollback);
    for _ in 0..2000 {
        publish(&mut all, "", "", &Properties::default(), b"x");
    }
    encode::method(&mut all, 1, &tx::Commit);
    place.again(&mut c, &all)
}

/// Large durable messages, as fast as the disk takes them.
fn durable_stream(place: &Place) -> std::io::Result<()> {
    let mut c = Client::connect_from(place.source(), place.address)?;
    let name = format!("stream-{}", place.number);
    c.declare(&name, true, &last(10))?;
    while place.goes_on() {
        for _ in 0..500 {
            publish(&mut c.out, "", &name, &persistent(), &[1; 4000]);
        }
        answered(&mut c)?;
    }
    let delete = queue::Delete {
        queue: &name,
        ..queue::Delete::default()
    };
    encode::method(&mut c.out, 1, &delete);
    answered(&mut c)
}

/// A queue of many messages that is filled, and goes with its connection.
fn large_queues(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    let name = format!("large-{}", place.number);
    full_queue(place, &mut c, &name, 100_000)
}

/// Consumes, and sends nothing.
fn listens(place: &Place) -> std::io::Result<()> {
    let mut c = place.client()?;
    place.drain(&mut c)
}

const fn kind(name: &'static str, clients: usize, run: fn(&Place) -> std::io::Result<()>) -> Kind {
    Kind { name, clients, run }
}

/// All of them.
pub const KINDS: [Kind; 24] = [
    kind("nobody", 1, listens),
    kind("get on an empty queue", 8, gets),
    kind("channels opened and closed", 8, channels),
    kind("returns that nobody reads", 8, returns_unread),
    kind("unroutable and mandatory", 8, returns),
    kind("new queues", 4, new_queues),
    kind("durable queues, deleted", 4, durable_queues),
    kind("bindings that come and go", 8, bindings),
    kind("fan-out to a thousand queues", 2, fan_out),
    kind("consumers that come and go", 4, consumers),
    kind("recover, again and again", 4, recovers),
    kind("consumers that never read", 4, never_reads),
    kind("consumers that never ack", 4, never_acks),
    kind("close-ok that nobody reads", 4, closings),
    kind("wrong passwords", 8, wrong_passwords),
    kind("bodies in single octets", 8, single_octets),
    kind("empty body frames", 8, empty_frames),
    kind("header bombs", 8, header_bombs),
    kind("deep tables", 8, deep_tables),
    kind("sizes of 2^63", 4, sizes),
    kind("half-open handshakes", 10, half_open),
    kind("transactions", 4, transactions),
    kind("a durable stream", 4, durable_stream),
    kind("large queues that go", 4, large_queues),
];
