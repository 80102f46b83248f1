//! Conversations with the pure machines: no socket, no disk, no clock, no sleep.
//!
//! A file in `tests/transcripts/` is a conversation. The lines of the clients are played; the broker's
//! answers are written between them and the whole has to be equal to the file.
//! `UPDATE=1 cargo test --test transcripts` writes the files anew, to be read before they are committed.
//!
//! ```text
//! A connects                       a connection, through its handshake (A> lines do it by hand)
//! A> 1 queue.declare queue=q       on channel 1
//! A> 1 publish "body" key=q        a publish with its content
//! A> 1 content header 4            a frame of a content alone: for a body of 4 octets
//! A> 1 content body "part"         another one
//! A> header "AMQP..."              raw octets
//! A< 1 queue.declare-ok queue=q    the broker's answer
//! A> 1 publish "" key=amq.rabbitmq.reply-to.RANDOM     to the address that was told last
//! A hangs up                       the socket is gone
//! +1500ms                          time passes
//! log holds / log moves            what is staged does not become durable / does
//! log fails                        a write failed
//! limits max-queues=1              of all users and vhosts together
//! guest may ^a ^b ^c               configure, write, read; guest's topics on x ^a ^b: write, read
//! crash                            what was durable is recovered, connections are gone
//! # a remark
//! ```

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/text.rs"]
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use leveret::amqp::connection::{Connection, Parts};
use leveret::amqp::settings::{Authenticator, Login, Refused, SessionSettings};
use leveret::broker::Broker;
use leveret::broker::access::User;
use leveret::broker::batch::Batch;
use leveret::broker::ports::Bell;
use leveret::broker::queue::Queue;
use leveret::broker::queue::outlet::{ConsumerKey, Delivery, Notice, Outlet, Room};
use leveret::broker::queue::scheduler::Scheduler;
use leveret::protocol::frame::{self, FrameKind, Parsed};
use leveret::storage::memory::MemoryLog;
use text::Spec;

/// Where time begins, unix milliseconds.
const BEGIN: u64 = 1_700_000_000_000;

/// A connection's inbox.
#[derive(Default)]
struct Inbox {
    deliveries: Mutex<Vec<Delivery>>,
    notices: Mutex<Vec<Notice>>,
    rung: AtomicBool,
}

impl Bell for Inbox {
    fn ring(&self) {
        self.rung.store(true, Ordering::Relaxed);
    }
}

impl Outlet for Inbox {
    fn room(&self, _: &Arc<Queue>, _: u32) -> Option<Room> {
        Some(Room {
            deliveries: 100,
            bytes: 1 << 20,
        })
    }

    fn push(&self, deliveries: &mut Vec<Delivery>) -> bool {
        self.deliveries.lock().unwrap().append(deliveries);
        true
    }

    fn waiting(&self, consumer: ConsumerKey) -> usize {
        let all = self.deliveries.lock().unwrap();
        all.iter().filter(|d| d.consumer == consumer).count()
    }

    fn withdraw(&self, consumer: ConsumerKey) -> Vec<Delivery> {
        let mut all = self.deliveries.lock().unwrap();
        all.extract_if(.., |d| d.consumer == consumer).collect()
    }

    fn notify(&self, notice: Notice) -> bool {
        self.notices.lock().unwrap().push(notice);
        true
    }
}

/// What queues asked for.
#[derive(Default)]
struct Work {
    armed: Mutex<Vec<(Weak<Queue>, u64)>>,
    page_ins: Mutex<Vec<Arc<Queue>>>,
    dead_letters: AtomicBool,
}

impl Scheduler for Work {
    fn arm(&self, queue: &Arc<Queue>, at: u64) {
        // One timer a queue, set anew for an earlier time.
        let queue = Arc::downgrade(queue);
        let mut armed = self.armed.lock().unwrap();
        armed.retain(|(q, _)| !q.ptr_eq(&queue));
        armed.push((queue, at));
    }

    fn work_off(&self) {
        self.dead_letters.store(true, Ordering::Relaxed);
    }

    fn page_in(&self, queue: &Arc<Queue>) {
        self.page_ins.lock().unwrap().push(queue.clone());
    }
}

struct Guest;

impl Authenticator for Guest {
    fn authenticate(&self, login: &Login<'_>) -> Result<(), Refused> {
        match (login.user, login.password) {
            ("guest", Some(b"guest")) => Ok(()),
            _ => Err(Refused("unknown".into())),
        }
    }
}

struct Peer {
    machine: Connection,
    inbox: Arc<Inbox>,
    input: Vec<u8>,
    over: bool,
    /// A content's method and header that wait for the body: text, bytes left, body.
    content: Option<(String, u64, Vec<u8>)>,
}

struct World {
    spec: Spec,
    now: u64,
    log: Arc<MemoryLog>,
    broker: Arc<Broker>,
    work: Arc<Work>,
    peers: BTreeMap<char, Peer>,
    /// The latest address of a direct reply-to consumer that somebody was told.
    address: String,
}

/// As an address is written in a conversation.
const ADDRESS: &str = "amq.rabbitmq.reply-to.RANDOM";

impl World {
    fn new(log: Arc<MemoryLog>, now: u64) -> World {
        let fresh = log.definitions().is_empty();
        let (broker, skipped) = Broker::new(log.clone(), &log.definitions());
        assert!(skipped.is_empty(), "{skipped:?}");
        let broker = Arc::new(broker);
        if fresh {
            broker.add_vhost("/").unwrap();
            let guest = User {
                name: "guest".into(),
                password_hash: String::new(),
                hashing_algorithm: String::new(),
                tags: Vec::new(),
            };
            broker.put_user(guest).unwrap();
            broker.put_permissions("guest", "/", [".*"; 3]).unwrap();
        }
        let work = Arc::new(Work::default());
        broker.set_scheduler(work.clone());
        broker.recover_messages(|known, each| log.recover(known, each), now);
        World {
            spec: Spec::read(),
            now,
            log,
            broker,
            work,
            peers: BTreeMap::new(),
            address: ADDRESS.into(),
        }
    }

    fn accept(&mut self, name: char) {
        let inbox = Arc::new(Inbox::default());
        let parts = Parts {
            broker: self.broker.clone(),
            settings: Arc::new(SessionSettings::default()),
            authenticator: Arc::new(Guest),
            outlet: inbox.clone(),
            bell: inbox.clone(),
            address: None,
            local: None,
            certified: None,
        };
        let peer = Peer {
            machine: Connection::new(parts, self.now),
            inbox,
            input: Vec::new(),
            over: false,
            content: None,
        };
        self.peers.insert(name, peer);
    }

    fn send(&mut self, name: char, channel: u16, kind: u8, payload: &[u8]) {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(frame::FRAME_END);
        self.peers.get_mut(&name).unwrap().input.extend(bytes);
    }

    /// Plays one line of a client, or of the world.
    fn play(&mut self, line: &str) {
        let line = line.replace(ADDRESS, &self.address);
        let line = line.as_str();
        if let Some(ms) = line.strip_prefix('+') {
            self.now += ms.trim_end_matches("ms").parse::<u64>().unwrap();
            self.tick();
            return;
        }
        if let Some(limits) = line.strip_prefix("limits ") {
            for limit in limits.split(' ') {
                let (name, max) = limit.split_once('=').unwrap();
                let account = self.broker.node_account();
                match name {
                    "max-exchanges" => account.exchanges.limit(max.parse().unwrap()),
                    _ => assert!(account.set(name, max.parse().unwrap()), "{name}"),
                }
            }
            return;
        }
        match line {
            "log holds" => return self.log.hold(true),
            "log moves" => return self.log.hold(false),
            "log fails" => return self.log.fail(),
            "traced" => return self.broker.vhost("/").unwrap().set_traced(true),
            "crash" => {
                *self = World::new(self.log.after_crash(), self.now);
                return;
            }
            _ => {}
        }
        if let Some(patterns) = line.strip_prefix("guest may ") {
            let patterns: Vec<_> = patterns.split(' ').collect();
            let patterns = patterns.try_into().expect("configure, write, read");
            let put = self.broker.put_permissions("guest", "/", patterns);
            put.unwrap();
            return;
        }
        if let Some(rule) = line.strip_prefix("guest's topics on ") {
            let [exchange, write, read] = rule.split(' ').collect::<Vec<_>>()[..] else {
                panic!("an exchange, two patterns: {rule}");
            };
            let place = ["guest", "/", exchange];
            self.broker
                .put_topic_permissions(place, [write, read])
                .unwrap();
            return;
        }
        let name = line.chars().next().unwrap();
        match &line[1..] {
            " connects" => {
                self.accept(name);
                for step in [
                    "> header AMQP\\0\\0\\x09\\x01",
                    "> 0 connection.start-ok client_properties={capabilities={consumer_cancel_notify=true, connection.blocked=true, authentication_failure_close=true}} mechanism=PLAIN response=\"\\0guest\\0guest\" locale=en_US",
                    "> 0 connection.tune-ok channel_max=2047 frame_max=131072",
                    "> 0 connection.open virtual_host=/",
                ] {
                    self.play(&format!("{name}{step}"));
                    self.run();
                    self.said(name);
                }
                self.play(&format!("{name}> 1 channel.open"));
                self.run();
                self.said(name);
            }
            " accepted" => self.accept(name),
            " hangs up" => {
                let mut peer = self.peers.remove(&name).unwrap();
                let left = std::mem::take(&mut *peer.inbox.deliveries.lock().unwrap());
                peer.machine.lost(left, self.now);
            }
            rest => {
                let rest = rest.strip_prefix("> ").expect("a line of a client");
                if let Some(bytes) = rest.strip_prefix("header ") {
                    let bytes = bytes
                        .replace("\\0", "\0")
                        .replace("\\x09", "\x09")
                        .replace("\\x01", "\x01");
                    self.peers
                        .get_mut(&name)
                        .unwrap()
                        .input
                        .extend(bytes.bytes());
                    return;
                }
                let (channel, what) = rest.split_once(' ').unwrap();
                let channel: u16 = channel.parse().unwrap();
                if let Some(size) = what.strip_prefix("content header ") {
                    let mut header = vec![0, 60, 0, 0];
                    header.extend(size.parse::<u64>().unwrap().to_be_bytes());
                    header.extend([0, 0]);
                    return self.send(name, channel, 2, &header);
                }
                if let Some(part) = what.strip_prefix("content body ") {
                    return self.send(name, channel, 3, part.trim_matches('"').as_bytes());
                }
                match what.strip_prefix("publish ") {
                    None => {
                        let payload = self.spec.encode(what);
                        self.send(name, channel, 1, &payload);
                    }
                    Some(publish) => {
                        let p = text::publish(publish);
                        let payload = self.spec.encode(&p.method);
                        self.send(name, channel, 1, &payload);
                        let mut header = 60u16.to_be_bytes().to_vec();
                        header.extend([0, 0]);
                        header.extend((p.body.len() as u64).to_be_bytes());
                        header.extend(p.properties.encode());
                        self.send(name, channel, 2, &header);
                        for part in p.body.chunks(40) {
                            self.send(name, channel, 3, part);
                        }
                    }
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        loop {
            let mut armed = self.work.armed.lock().unwrap();
            let Some(at) = armed.iter().position(|(_, at)| *at <= now) else {
                break;
            };
            let (queue, _) = armed.remove(at);
            drop(armed);
            if let Some(queue) = queue.upgrade() {
                let mut batch = Batch::default();
                queue.tick(now, &mut batch.fx);
                let _ = batch.flush(&self.broker, now);
            }
        }
        for peer in self.peers.values_mut() {
            if peer.machine.next_deadline().is_some_and(|at| at <= now) {
                peer.machine.tick(now);
            }
        }
    }

    /// Does what there is to do until nothing is left.
    fn run(&mut self) {
        let now = self.now;
        loop {
            let mut idle = true;
            let page_ins = std::mem::take(&mut *self.work.page_ins.lock().unwrap());
            for queue in page_ins {
                idle = false;
                let wanted = queue.wanted(100, 1 << 20);
                let ids: Vec<_> = wanted.iter().map(|(_, id)| *id).collect();
                let mut read = Vec::new();
                leveret::broker::ports::MessageLog::read(&*self.log, &ids, &mut read).unwrap();
                let found = wanted
                    .into_iter()
                    .zip(read)
                    .map(|((seq, id), m)| (seq, id, m));
                let mut batch = Batch::default();
                queue.arrived(found.collect(), now, &mut batch.fx);
                let _ = batch.flush(&self.broker, now);
            }
            if self.work.dead_letters.swap(false, Ordering::Relaxed) {
                idle = false;
                let mut batch = Batch::default();
                while self.broker.work_off(&mut batch, now).unwrap() {}
            }
            for peer in self.peers.values_mut().filter(|p| !p.over) {
                if peer.inbox.rung.swap(false, Ordering::Relaxed) {
                    idle = false;
                    peer.machine.progress(now);
                }
                if !peer.input.is_empty() && peer.machine.wants_input() {
                    let received = peer.machine.receive(&peer.input, now);
                    idle &= received.consumed == 0;
                    peer.input.drain(..received.consumed);
                }
                let mut deliveries = std::mem::take(&mut *peer.inbox.deliveries.lock().unwrap());
                if !deliveries.is_empty() {
                    idle = false;
                    peer.machine.deliver(&mut deliveries, now);
                }
                let notices = std::mem::take(&mut *peer.inbox.notices.lock().unwrap());
                for notice in notices {
                    idle = false;
                    peer.machine.notice(notice, now);
                }
            }
            if idle {
                return;
            }
        }
    }

    /// What a connection has said since the last call, as lines.
    fn said(&mut self, name: char) -> Vec<String> {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&name) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        let bytes = peer.machine.output.to_vec();
        peer.machine.wrote(bytes.len(), now);
        let mut rest = &bytes[..];
        if rest.starts_with(b"AMQP") {
            lines.push(format!("{name}< header {}", rest[..8].escape_ascii()));
            rest = &rest[8..];
        }
        while !rest.is_empty() {
            let Parsed::Frame { frame, size } = frame::parse(rest, 0).unwrap() else {
                panic!("half a frame");
            };
            rest = &rest[size..];
            let at = format!("{name}< {}", frame.channel);
            match (frame.kind, &mut peer.content) {
                (FrameKind::Heartbeat, _) => lines.push(format!("{at} heartbeat")),
                (FrameKind::Method, _) => {
                    let method = self.spec.decode(frame.payload);
                    let carries = ["basic.deliver", "basic.get-ok ", "basic.return"];
                    match carries.iter().any(|c| method.starts_with(c)) {
                        true => peer.content = Some((method, 0, Vec::new())),
                        false => lines.push(format!("{at} {method}")),
                    }
                }
                (FrameKind::Header, Some((method, left, _))) => {
                    let (size, properties) = text::header(frame.payload);
                    *method = format!("{at} {method} |{properties}");
                    *left = size;
                }
                (FrameKind::Body, Some((_, left, body))) => {
                    *left -= frame.payload.len() as u64;
                    body.extend(frame.payload);
                }
                other => panic!("out of order: {other:?}"),
            }
            let begun = peer
                .content
                .as_ref()
                .is_some_and(|(m, _, _)| m.contains('|'));
            if begun && peer.content.as_ref().is_some_and(|(_, left, _)| *left == 0) {
                let (text, _, body) = peer.content.take().unwrap();
                lines.push(format!("{text} {:?}", String::from_utf8_lossy(&body)));
            }
        }
        if peer.machine.is_over() && !peer.over {
            peer.over = true;
            let left = std::mem::take(&mut *peer.inbox.deliveries.lock().unwrap());
            peer.machine.lost(left, now);
            lines.push(format!("{name} is hung up on"));
        }
        let random = regex::Regex::new(
            r"(amq\.(?:gen|ctag)-|amq\.rabbitmq\.reply-to\.)[A-Za-z0-9_-]+(\.[A-Za-z0-9_=+/-]+)?",
        )
        .unwrap();
        for found in lines.iter().flat_map(|line| random.find_iter(line)) {
            if found.as_str().starts_with("amq.rabbitmq.") {
                self.address = found.as_str().into();
            }
        }
        lines
            .into_iter()
            .map(|line| random.replace_all(&line, "${1}RANDOM").into_owned())
            .collect()
    }
}

/// The conversation in this file, as it goes.
fn conversation(wanted: &str) -> String {
    let mut world = World::new(MemoryLog::new(), BEGIN);
    let mut out = String::new();
    for line in wanted.lines() {
        let answer = line.get(1..3).is_some_and(|s| s == "< ") || line.ends_with(" is hung up on");
        if answer {
            continue;
        }
        out += line;
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        world.play(line);
        // What one connection is told may make work for another.
        let mut said: BTreeMap<char, Vec<String>> = BTreeMap::new();
        loop {
            world.run();
            let mut more = false;
            for name in world.peers.keys().copied().collect::<Vec<_>>() {
                let lines = world.said(name);
                more |= !lines.is_empty();
                said.entry(name).or_default().extend(lines);
            }
            if !more {
                break;
            }
        }
        for line in said.into_values().flatten() {
            out += &line;
            out.push('\n');
        }
    }
    out
}

#[test]
fn conversations_go_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let wanted = std::fs::read_to_string(&file).unwrap();
        let got = conversation(&wanted);
        if got == wanted {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, got).unwrap();
            continue;
        }
        let at = wanted.lines().zip(got.lines()).position(|(a, b)| a != b);
        let at = at.unwrap_or(wanted.lines().count().min(got.lines().count()));
        wrong.push(format!(
            "{}:{}\n  written: {}\n  it goes: {}",
            file.display(),
            at + 1,
            wanted.lines().nth(at).unwrap_or("(the end)"),
            got.lines().nth(at).unwrap_or("(the end)"),
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
