//! A small blocking AMQP client and a broker process, for tests that need real sockets.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "test support; not every test uses all of it"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::frame::{self, FrameKind, Parsed};
use leveret::protocol::methods::{basic, channel, confirm, connection, exchange, queue};
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method, MethodId};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A frame, owned.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn method(&self) -> Method<'_> {
        assert_eq!(self.kind, FrameKind::Method, "a method frame");
        Method::decode(&self.payload).unwrap()
    }
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    pub tag: u64,
    pub redelivered: bool,
    pub body: Vec<u8>,
}

pub struct Client {
    pub socket: TcpStream,
    input: Vec<u8>,
    pub out: BytesMut,
}

impl Client {
    /// A socket, without a handshake.
    pub fn raw(address: SocketAddr) -> std::io::Result<Client> {
        Client::over(TcpStream::connect(address)?)
    }

    /// The same over a socket that is connected.
    pub fn over(socket: TcpStream) -> std::io::Result<Client> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Client {
            socket,
            input: Vec::new(),
            out: BytesMut::new(),
        })
    }

    /// A socket that comes from one of this machine's addresses, without a handshake.
    pub fn raw_from(source: [u8; 4], address: SocketAddr) -> std::io::Result<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&address.into())?;
        Client::over(socket.into())
    }

    /// Logged in as guest, with channel 1 open.
    pub fn connect(address: SocketAddr) -> std::io::Result<Client> {
        Client::raw(address)?.opened()
    }

    /// The same from one of this machine's addresses.
    pub fn connect_from(source: [u8; 4], address: SocketAddr) -> std::io::Result<Client> {
        Client::raw_from(source, address)?.opened()
    }

    fn opened(self) -> std::io::Result<Client> {
        let mut c = self;
        c.login(131_072)?;
        c.send(1, &channel::Open)?;
        c.expect(channel::OpenOk::ID)?;
        Ok(c)
    }

    pub fn login(&mut self, frame_max: u32) -> std::io::Result<()> {
        self.login_with(frame_max, 0)
    }

    /// `heartbeat` in seconds.
    pub fn login_with(&mut self, frame_max: u32, heartbeat: u16) -> std::io::Result<()> {
        self.shake_hands("guest", "guest", frame_max, heartbeat)
    }

    /// As this user.
    pub fn log_in_as(&mut self, user: &str, password: &str) -> std::io::Result<()> {
        self.shake_hands(user, password, 131_072, 0)
    }

    fn shake_hands(
        &mut self,
        user: &str,
        password: &str,
        frame_max: u32,
        heartbeat: u16,
    ) -> std::io::Result<()> {
        self.socket.write_all(&frame::PROTOCOL_HEADER)?;
        self.expect(connection::Start::ID)?;
        let mut properties = FieldTable::new();
        let mut capabilities = FieldTable::new();
        for name in [
            "authentication_failure_close",
            "connection.blocked",
            "consumer_cancel_notify",
        ] {
            capabilities.insert(name, true);
        }
        properties.insert("capabilities", capabilities);
        let properties = properties.to_bytes();
        self.send(
            0,
            &connection::StartOk {
                client_properties: TableRef::unchecked(&properties),
                mechanism: "PLAIN",
                response: format!("\0{user}\0{password}").as_bytes(),
                locale: "en_US",
            },
        )?;
        let answer = self.next()?;
        if answer.method().id() == connection::Close::ID {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        assert_eq!(answer.method().id(), connection::Tune::ID);
        self.send(
            0,
            &connection::TuneOk {
                channel_max: 2047,
                frame_max,
                heartbeat,
            },
        )?;
        self.send(0, &connection::Open { virtual_host: "/" })?;
        self.expect(connection::OpenOk::ID)?;
        Ok(())
    }

    pub fn send<M: EncodeMethod>(&mut self, channel: u16, m: &M) -> std::io::Result<()> {
        encode::method(&mut self.out, channel, m);
        self.flush()
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        self.socket.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next frame that is no heartbeat.
    pub fn next(&mut self) -> std::io::Result<Frame> {
        loop {
            let frame = self.any()?;
            if frame.kind != FrameKind::Heartbeat {
                return Ok(frame);
            }
        }
    }

    /// The next frame.
    pub fn any(&mut self) -> std::io::Result<Frame> {
        loop {
            match frame::parse(&self.input, 0).expect("the broker sends good frames") {
                Parsed::Frame { frame, size } => {
                    let owned = Frame {
                        kind: frame.kind,
                        channel: frame.channel,
                        payload: frame.payload.to_vec(),
                    };
                    self.input.drain(..size);
                    return Ok(owned);
                }
                Parsed::Incomplete { .. } => {
                    let mut buf = [0; 65536];
                    match self.socket.read(&mut buf)? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        n => self.input.extend_from_slice(&buf[..n]),
                    }
                }
            }
        }
    }

    /// The next method, which has to be this one.
    pub fn expect(&mut self, id: MethodId) -> std::io::Result<Frame> {
        let f = self.next()?;
        let got = f.method().id();
        assert_eq!(got, id, "expected {id}, got {:?}", f.method());
        Ok(f)
    }

    pub fn declare(
        &mut self,
        name: &str,
        durable: bool,
        arguments: &FieldTable,
    ) -> std::io::Result<u32> {
        let arguments = arguments.to_bytes();
        let declare = queue::Declare {
            queue: name,
            passive: false,
            durable,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: TableRef::unchecked(&arguments),
        };
        self.send(1, &declare)?;
        let f = self.expect(queue::DeclareOk::ID)?;
        let Method::QueueDeclareOk(ok) = f.method() else {
            unreachable!()
        };
        Ok(ok.message_count)
    }

    /// A durable exchange.
    pub fn declare_exchange(
        &mut self,
        name: &str,
        type_: &str,
        arguments: &FieldTable,
    ) -> std::io::Result<()> {
        let arguments = arguments.to_bytes();
        let declare = exchange::Declare {
            exchange: name,
            type_,
            durable: true,
            arguments: TableRef::unchecked(&arguments),
            ..exchange::Declare::default()
        };
        self.send(1, &declare)?;
        self.expect(exchange::DeclareOk::ID).map(drop)
    }

    pub fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str) -> std::io::Result<()> {
        let bind = queue::Bind {
            queue,
            exchange,
            routing_key,
            nowait: false,
            arguments: TableRef::default(),
        };
        self.send(1, &bind)?;
        self.expect(queue::BindOk::ID).map(drop)
    }

    /// Ready messages and consumers of a queue.
    pub fn counts(&mut self, name: &str) -> std::io::Result<(u32, u32)> {
        let declare = queue::Declare {
            queue: name,
            passive: true,
            durable: false,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: TableRef::default(),
        };
        self.send(1, &declare)?;
        let f = self.expect(queue::DeclareOk::ID)?;
        let Method::QueueDeclareOk(ok) = f.method() else {
            unreachable!()
        };
        Ok((ok.message_count, ok.consumer_count))
    }

    pub fn confirm_select(&mut self) -> std::io::Result<()> {
        self.send(1, &confirm::Select { nowait: false })?;
        self.expect(confirm::SelectOk::ID).map(drop)
    }

    /// Appends a publish to the default exchange to `out`, without sending it.
    pub fn stage_publish(&mut self, queue: &str, body: &[u8], properties: &Properties) {
        self.stage_publish_to("", queue, body, properties);
    }

    /// The same, to an exchange.
    pub fn stage_publish_to(
        &mut self,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        properties: &Properties,
    ) {
        let publish = basic::Publish {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            mandatory: false,
            immediate: false,
        };
        encode::method(&mut self.out, 1, &publish);
        let properties = properties.encode();
        encode::content(
            &mut self.out,
            1,
            &Content {
                properties: &properties,
                body,
            },
            131_072,
        );
    }

    /// Publishes persistently.
    pub fn publish(&mut self, queue: &str, body: &[u8]) -> std::io::Result<()> {
        self.stage_publish(queue, body, &persistent());
        self.flush()
    }

    pub fn consume(&mut self, queue: &str, no_ack: bool) -> std::io::Result<()> {
        let consume = basic::Consume {
            queue,
            consumer_tag: "c",
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: TableRef::default(),
        };
        self.send(1, &consume)?;
        self.expect(basic::ConsumeOk::ID).map(drop)
    }

    pub fn qos(&mut self, prefetch_count: u16) -> std::io::Result<()> {
        self.send(
            1,
            &basic::Qos {
                prefetch_size: 0,
                prefetch_count,
                global: false,
            },
        )?;
        self.expect(basic::QosOk::ID).map(drop)
    }

    /// The next delivery.
    pub fn delivery(&mut self) -> std::io::Result<Arrived> {
        let f = self.expect(basic::Deliver::ID)?;
        let Method::BasicDeliver(d) = f.method() else {
            unreachable!()
        };
        let (tag, redelivered) = (d.delivery_tag, d.redelivered);
        Ok(Arrived {
            tag,
            redelivered,
            body: self.body()?,
        })
    }

    /// `basic.get`; `None` if the queue is empty.
    pub fn get(&mut self, queue: &str, no_ack: bool) -> std::io::Result<Option<Arrived>> {
        self.send(1, &basic::Get { queue, no_ack })?;
        let f = self.next()?;
        match f.method() {
            Method::BasicGetEmpty(_) => Ok(None),
            Method::BasicGetOk(ok) => {
                let (tag, redelivered) = (ok.delivery_tag, ok.redelivered);
                Ok(Some(Arrived {
                    tag,
                    redelivered,
                    body: self.body()?,
                }))
            }
            other => panic!("expected get-ok or get-empty, got {other:?}"),
        }
    }

    /// The content of a delivery, for who read its method.
    pub fn content(&mut self) -> std::io::Result<Vec<u8>> {
        self.body()
    }

    fn body(&mut self) -> std::io::Result<Vec<u8>> {
        let header = self.next()?;
        assert_eq!(header.kind, FrameKind::Header);
        let size = leveret::protocol::properties::parse_content_header(&header.payload)
            .unwrap()
            .body_size as usize;
        let mut body = Vec::new();
        while body.len() < size {
            body.extend(self.next()?.payload);
        }
        Ok(body)
    }

    pub fn ack(&mut self, delivery_tag: u64, multiple: bool) -> std::io::Result<()> {
        self.send(
            1,
            &basic::Ack {
                delivery_tag,
                multiple,
            },
        )
    }
}

/// Delivery mode 2.
pub fn persistent() -> Properties {
    Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    }
}

/// What a process said so far.
#[derive(Default)]
pub struct Said {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Said {
    /// Waits for a line with this text, and returns it.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_one_of(&[text])
    }

    /// Waits for a line with one of these texts, and returns it.
    pub fn wait_for_one_of(&self, texts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            let fits = |line: &&String| texts.iter().any(|text| line.contains(text));
            if let Some(line) = lines.iter().find(fits) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not said: {texts:?}; but {lines:#?}");
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All of it.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn say(&self, line: String) {
        // Shown with a test that fails.
        eprintln!("{line}");
        self.lines.lock().unwrap().push(line);
        self.more.notify_all();
    }
}

/// A broker process with its own data folder.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
    pub said: Arc<Said>,
}

impl Broker {
    /// Starts a broker on this folder and a port of its choice, and waits until it is ready.
    pub fn start(data: &Path, more: &[(&str, &str)]) -> Broker {
        let mut environment = vec![("LEVERET_LISTENERS_PROMETHEUS", "")];
        environment.extend(more);
        Broker::start_with(data, &[], &environment)
    }

    /// The same with arguments, and nothing in the environment but this.
    pub fn start_with(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Broker {
        let mut command = Command::new(program());
        command.args(serving(data)).args(arguments);
        Broker::spawn(command, environment)
    }

    /// The same after a line of shell, which may set limits of the process.
    pub fn start_after(shell: &str, data: &Path, environment: &[(&str, &str)]) -> Broker {
        Broker::spawn(start_command(shell, data), environment)
    }

    fn spawn(command: Command, environment: &[(&str, &str)]) -> Broker {
        let (child, said) = launch(command, environment);
        said.wait_for("Server startup complete");
        Broker {
            address: listens(&said, "amqp"),
            child,
            said,
        }
    }

    /// Where it listens for a protocol.
    pub fn listens(&self, protocol: &str) -> SocketAddr {
        listens(&self.said, protocol)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sets how large its files may be, bytes; returns what that was.
    pub fn limit_files(&self, most: Option<u64>) -> Option<u64> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let fsize = rustix::process::Resource::Fsize;
        let maximum = None;
        let limit = rustix::process::Rlimit {
            current: most,
            maximum,
        };
        rustix::process::prlimit(Some(pid), fsize, limit)
            .unwrap()
            .current
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns whether it ended well.
    pub fn stop(mut self) -> bool {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Waits for its end; whether that was a good one.
    pub fn ended(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        let open = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(open).unwrap().count()
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever was, bytes.
    pub fn most_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with(which)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

/// What [`Broker::start_after`] runs, for a broker that does not come up.
pub fn start_command(shell: &str, data: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("{shell}; exec \"$@\""), "sh"])
        .arg(program())
        .args(serving(data));
    command
}

/// The broker that is tested: the one that was built with the test, or `LEVERET_BIN`, for what takes long.
fn program() -> std::ffi::OsString {
    std::env::var_os("LEVERET_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_leveret").into())
}

fn serving(data: &Path) -> [&str; 4] {
    let data = data.to_str().unwrap();
    ["--data-dir", data, "--amqp", "127.0.0.1:0"]
}

/// Starts a process with nothing in its environment but this, and hears what it says.
pub fn launch(mut command: Command, environment: &[(&str, &str)]) -> (Child, Arc<Said>) {
    command
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = Arc::new(Said::default());
    let hears = said.clone();
    // To the end, so that it never waits for a reader.
    std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| hears.say(line));
    });
    (child, said)
}

/// What a metrics listener answers.
pub fn scrape(address: SocketAddr) -> String {
    let mut http = TcpStream::connect(address).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).unwrap();
    page
}

/// The value of a metric, by its name with its labels.
pub fn metric(page: &str, name: &str) -> f64 {
    let value = page
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("{name}: {page}"))
        .parse()
        .unwrap()
}

fn listens(said: &Said, protocol: &str) -> SocketAddr {
    // For people, and as JSON.
    let ways = [" address=", "\",\"address\":\""];
    let texts = ways.map(|way| format!("listening for {protocol}{way}"));
    let line = said.wait_for_one_of(&[&texts[0], &texts[1]]);
    let found = texts.iter().find_map(|text| line.split_once(text.as_str()));
    let address = found.unwrap().1.split('"').next().unwrap();
    address.parse().unwrap()
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a test that wants a namespace of its own is.
pub enum Apart {
    /// In it: go on.
    Inside,
    /// Outside, and the test has passed inside.
    Done,
    /// This machine makes none.
    Impossible,
}

/// Set in the namespace.
const INSIDE: &str = "LEVERET_TEST_APART";

/// Runs a test again in a namespace of its own (`unshare` with this option), after a line of shell.
pub fn apart(test: &str, namespace: &str, setup: &str) -> Apart {
    if std::env::var_os(INSIDE).is_some() {
        return Apart::Inside;
    }
    // Who is not root may be root of a namespace.
    let root: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else {
        &["--map-root-user"]
    };
    let run = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(root)
            .args([namespace, "/bin/sh", "-c", command, "sh"]);
        unshare
    };
    let trial = run(setup).output();
    if !trial.is_ok_and(|o| o.status.success()) {
        return Apart::Impossible;
    }
    let done = run(&format!("{setup} && exec \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(done.unwrap().success(), "in the namespace");
    Apart::Done
}

/// Whether a test goes on, in a namespace of its own. If not it has passed there, or this machine makes none, which
/// is said.
pub fn goes_on_apart(test: &str, namespace: &str, setup: &str) -> bool {
    match apart(test, namespace, setup) {
        Apart::Inside => true,
        Apart::Done => false,
        Apart::Impossible => {
            tell(&format!(
                "{test}: NOT RUN: this machine lets nobody make what it needs (unshare {namespace}; {setup})"
            ));
            false
        }
    }
}

/// Says something that is seen although the test passes.
pub fn tell(what: &str) {
    // The macros' output is only shown when a test fails.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Lets time pass, for who sends or looks at a rate. What it is waited for shows in another way.
pub fn pause(long: Duration) {
    let end = Instant::now() + long;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}
