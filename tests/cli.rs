//! The binary as its users start it: arguments, configuration, environment, data folder, definitions.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::frame::PROTOCOL_HEADER;
use leveret::protocol::methods::{channel, connection};
use leveret::protocol::{EncodeMethod, Method};
use support::{Broker, Client};

fn leveret(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leveret"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Logs in with these credentials; the reply code if that is refused.
fn login(broker: &Broker, user: &str, password: &str, vhost: &str) -> Result<(), u16> {
    login_by(broker, "PLAIN", &format!("\0{user}\0{password}"), vhost)
}

/// The same by a mechanism and what it says.
fn login_by(broker: &Broker, mechanism: &str, response: &str, vhost: &str) -> Result<(), u16> {
    let mut c = Client::raw(broker.address).unwrap();
    c.socket.write_all(&PROTOCOL_HEADER).unwrap();
    c.expect(connection::Start::ID).unwrap();
    let mut capabilities = FieldTable::new();
    capabilities.insert("authentication_failure_close", true);
    let mut properties = FieldTable::new();
    properties.insert("capabilities", capabilities);
    let properties = properties.to_bytes();
    let start_ok = connection::StartOk {
        client_properties: TableRef::unchecked(&properties),
        mechanism,
        response: response.as_bytes(),
        locale: "en_US",
    };
    c.send(0, &start_ok).unwrap();
    let f = c.next().unwrap();
    if let Method::ConnectionClose(close) = f.method() {
        return Err(close.reply_code);
    }
    let tune_ok = connection::TuneOk {
        channel_max: 100,
        frame_max: 131_072,
        heartbeat: 0,
    };
    c.send(0, &tune_ok).unwrap();
    c.send(
        0,
        &connection::Open {
            virtual_host: vhost,
        },
    )
    .unwrap();
    let f = c.next().unwrap();
    match f.method() {
        Method::ConnectionOpenOk(_) => Ok(()),
        Method::ConnectionClose(close) => Err(close.reply_code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn help_version_and_mistakes() {
    let help = leveret(&["--help"], &[]);
    assert!(help.status.success());
    for option in [
        "--config",
        "--data-dir",
        "--amqp",
        "--amqps",
        "--prometheus",
        "--log-level",
        "ping",
    ] {
        assert!(said(&help).contains(option), "{option}: {}", said(&help));
    }
    let version = leveret(&["--version"], &[]);
    assert!(version.status.success());
    assert!(said(&version).starts_with(concat!("leveret ", env!("CARGO_PKG_VERSION"))));
    let wrong = leveret(&["--no-such-option"], &[]);
    assert!(!wrong.status.success() && said(&wrong).contains("--no-such-option"));
    let address = leveret(&["--amqp", "somewhere"], &[]);
    assert!(!address.status.success() && said(&address).contains("somewhere"));
}

#[test]
fn a_configuration_that_does_not_do_is_refused_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leveret.toml");
    let path = file.to_str().unwrap();
    let cases = [
        ("[protocol]\n\nhartbeat_s = 10\n", "line 3", "heartbeat_s"),
        ("[memory]\nbody_budget_bytes = \"lots\"\n", "line 2", "lots"),
        ("[listeners]\namqp = [\"here\"]\n", "line 2", "here"),
        ("[storage]\ndurability = \"maybe\"\n", "line 2", "fsync"),
        ("[no_such_section]\n", "line 1", "no_such_section"),
        ("[log\n", "line 1", ""),
    ];
    for (text, line, what) in cases {
        std::fs::write(&file, text).unwrap();
        let refused = leveret(&["--config", path], &[]);
        let said = said(&refused);
        assert!(!refused.status.success(), "{text}");
        assert!(
            said.contains(path) && said.contains(line) && said.contains(what),
            "{text}: {said}"
        );
    }
    let refused = leveret(&["check-config"], &[("LEVERET_PROTOCOL_FRAME_MAX", "big")]);
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("LEVERET_PROTOCOL_FRAME_MAX"),
        "{}",
        said(&refused)
    );
    let unknown = leveret(&["check-config"], &[("LEVERET_PROTOCOL_FRAME_MIN", "1")]);
    assert!(!unknown.status.success());
    assert!(
        said(&unknown).contains("LEVERET_PROTOCOL_FRAME_MIN"),
        "{}",
        said(&unknown)
    );
    // What Kubernetes sets, a file that is none, and octets that are no text in others' variables.
    let services = [
        ("LEVERET_PORT", "tcp://10.0.0.1:5672"),
        ("LEVERET_SERVICE_HOST", "10.0.0.1"),
        ("LEVERET_MODEL_STEPS", "1"),
        ("LEVERET_CONFIG", ""),
    ];
    let fine = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .arg("check-config")
        .env_clear()
        .envs(services)
        .env("X", std::ffi::OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    assert!(fine.status.success(), "{}", said(&fine));
    assert!(said(&fine).contains("LEVERET_MODEL_STEPS"));
    assert!(!said(&fine).contains("LEVERET_PORT"), "{}", said(&fine));
    let missing = leveret(&["--config", "/no/such/file.toml"], &[]);
    assert!(!missing.status.success() && said(&missing).contains("/no/such/file.toml"));
}

#[test]
fn files_that_are_named_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leveret.toml");
    let bad = dir.path().join("bad");
    std::fs::write(&bad, "{").unwrap();
    let bad = bad.to_str().unwrap();
    for (text, what) in [
        ("load_definitions = \"/no/such.json\"", "/no/such.json"),
        (&format!("load_definitions = {bad:?}"), bad),
        (
            "[tls]\ncert = \"/no/cert.pem\"\nkey = \"/no/key.pem\"",
            "/no/cert.pem",
        ),
        (&format!("[tls]\ncert = {bad:?}\nkey = {bad:?}"), bad),
    ] {
        std::fs::write(&file, text).unwrap();
        let refused = leveret(&["check-config", "--config", file.to_str().unwrap()], &[]);
        assert!(!refused.status.success(), "{text}");
        assert!(said(&refused).contains(what), "{text}: {}", said(&refused));
    }
}

#[test]
fn the_configuration_we_ship_is_the_default() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/leveret.toml");
    let fine = leveret(&["check-config", "--config", shipped], &[]);
    assert!(fine.status.success(), "{}", said(&fine));
    // With every setting switched on, too.
    let text = std::fs::read_to_string(shipped).unwrap();
    let on: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .map(|line| line.to_owned() + "\n")
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.toml");
    std::fs::write(&file, on).unwrap();
    let fine = leveret(&["check-config", "--config", file.to_str().unwrap()], &[]);
    assert!(fine.status.success(), "{}", said(&fine));
}

#[test]
fn the_environment_wins_over_the_file_and_arguments_over_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leveret.toml");
    std::fs::write(
        &file,
        "[protocol]\nheartbeat_s = 11\nchannel_max = 7\n[log]\nformat = \"json\"\n",
    )
    .unwrap();
    let arguments = [
        "--config",
        file.to_str().unwrap(),
        "--prometheus",
        "127.0.0.1:0",
    ];
    let environment = [
        ("LEVERET_PROTOCOL_HEARTBEAT_S", "12"),
        ("LEVERET_LOG_FORMAT", "human"),
        // Not an address that can be bound here: the argument has to win.
        ("LEVERET_LISTENERS_PROMETHEUS", "192.0.2.1:1"),
    ];
    let broker = Broker::start_with(&dir.path().join("data"), &arguments, &environment);
    let mut c = Client::raw(broker.address).unwrap();
    c.socket.write_all(&PROTOCOL_HEADER).unwrap();
    c.expect(connection::Start::ID).unwrap();
    let start_ok = connection::StartOk {
        client_properties: TableRef::default(),
        mechanism: "PLAIN",
        response: b"\0guest\0guest",
        locale: "en_US",
    };
    c.send(0, &start_ok).unwrap();
    let f = c.expect(connection::Tune::ID).unwrap();
    let Method::ConnectionTune(tune) = f.method() else {
        unreachable!()
    };
    assert_eq!((tune.heartbeat, tune.channel_max), (12, 7));

    // Metrics under RabbitMQ's names.
    let page = support::scrape(broker.listens("prometheus"));
    for name in [
        "rabbitmq_connections",
        "rabbitmq_queues",
        "rabbitmq_queue_messages_ready",
        "rabbitmq_global_messages_received_total",
        "rabbitmq_resident_memory_limit_bytes",
    ] {
        assert!(page.contains(name), "{name}: {page}");
    }
}

#[test]
fn anonymous_is_the_configured_user_with_the_configured_password_or_nobody() {
    let anonymous = |environment: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), environment);
        let mut c = Client::raw(broker.address).unwrap();
        c.socket.write_all(&PROTOCOL_HEADER).unwrap();
        let f = c.expect(connection::Start::ID).unwrap();
        let Method::ConnectionStart(start) = f.method() else {
            unreachable!()
        };
        let offered = String::from_utf8_lossy(start.mechanisms).contains("ANONYMOUS");
        offered.then(|| login_by(&broker, "ANONYMOUS", "", "/"))
    };
    assert_eq!(anonymous(&[]), Some(Ok(())));
    assert_eq!(
        anonymous(&[("LEVERET_DEFAULTS_PASS", "other")]),
        Some(Err(403))
    );
    let app = [
        ("LEVERET_DEFAULTS_PASS", "other"),
        ("LEVERET_DEFAULTS_ANONYMOUS_LOGIN_PASS", "other"),
    ];
    assert_eq!(anonymous(&app), Some(Ok(())));
    let off = [("LEVERET_DEFAULTS_ANONYMOUS_LOGIN_USER", "none")];
    assert_eq!(anonymous(&off), None);
}

#[test]
fn log_lines_may_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut child = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .args([
            "--data-dir",
            data.to_str().unwrap(),
            "--amqp",
            "127.0.0.1:0",
        ])
        .envs([
            ("LEVERET_LOG_FORMAT", "json"),
            ("LEVERET_LISTENERS_PROMETHEUS", ""),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut complete = false;
    for line in lines.map_while(Result::ok) {
        let value: serde_json::Value = serde_json::from_str(&line).expect(&line);
        if value["fields"]["message"] == "Server startup complete" {
            complete = true;
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(complete);
}

#[test]
fn ping_tells_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let address = broker.address.to_string();
    let pong = leveret(&["ping", "--amqp", &address], &[]);
    assert!(pong.status.success() && said(&pong).contains("pong"));
    // Without an address: where the configuration says.
    let configured = [("LEVERET_LISTENERS_AMQP", address.as_str())];
    let pong = leveret(&["ping"], &configured);
    assert!(pong.status.success(), "{}", said(&pong));
    assert!(broker.stop());
    for nobody in [
        leveret(&["ping", "--amqp", &address, "--timeout", "2"], &[]),
        leveret(&["ping"], &configured),
    ] {
        assert!(!nobody.status.success() && said(&nobody).contains(&address));
    }
    // One that says nothing, one that says something else, and no time at all.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let late = leveret(&["ping", "--amqp", &address, "--timeout", "1"], &[]);
    assert!(!late.status.success());
    assert!(
        said(&late).contains("no answer within 1 s"),
        "{}",
        said(&late)
    );
    let never = leveret(&["ping", "--timeout", "0"], &[]);
    assert!(
        !never.status.success() && said(&never).contains("1..=3600"),
        "{}",
        said(&never)
    );
}

#[test]
fn ping_asks_a_broker_that_speaks_tls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let file = |name: &std::path::Path| name.to_str().unwrap().to_owned();
    let (cert, key) = (file(&cert), file(&key));
    for client_auth in ["none", "required"] {
        let mut settings = vec![
            ("LEVERET_TLS_CERT", cert.as_str()),
            ("LEVERET_TLS_KEY", &key),
            ("LEVERET_TLS_CLIENT_AUTH", client_auth),
        ];
        if client_auth != "none" {
            settings.push(("LEVERET_TLS_CLIENT_CA", &cert));
        }
        let mut more = vec![("LEVERET_LISTENERS_PROMETHEUS", "")];
        more.extend(&settings);
        let data = dir.path().join("data");
        let broker = Broker::start_with(&data, &["--amqps", "127.0.0.1:0"], &more);
        let address = broker.listens("amqps").to_string();
        settings.extend([
            ("LEVERET_LISTENERS_AMQP", ""),
            ("LEVERET_LISTENERS_AMQPS", &address),
        ]);
        let pong = leveret(&["ping"], &settings);
        assert!(pong.status.success(), "{client_auth}: {}", said(&pong));
        assert!(broker.stop());
    }
}

#[test]
fn perf_loads_a_broker_and_counts_what_went_through() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let uri = format!("amqp://guest:guest@{}/%2F", broker.address);
    let perf = |more: &str| {
        let arguments = ["perf", "--uri", &uri, "--json", "-q"].into_iter();
        let output = leveret(&arguments.chain(more.split(' ')).collect::<Vec<_>>(), &[]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let counts = |r: &serde_json::Value| {
        ["published", "confirmed", "refused", "consumed"].map(|k| r[k].as_u64().unwrap())
    };
    // Each way to consume, bodies of many frames, several of everything.
    let r = perf("-C 2000 -c 10 -a 10 -P 25 -f -x 2 -y 3 --queues 2 --queue-type quorum");
    assert_eq!(counts(&r), [4000, 4000, 0, 4000]);
    assert!(r["latency_us"]["p50"].as_f64().unwrap() > 0.0, "{r}");
    assert!(
        r["confirm_latency_us"]["max"].as_f64().unwrap() > 0.0,
        "{r}"
    );
    let r = perf("-C 20 -s 300000");
    assert_eq!(counts(&r), [20, 0, 0, 20]);
    assert!(r["confirm_latency_us"].is_null(), "{r}");
    // Now publish, later consume.
    let r = perf("-C 500 -y 0 -r 100000 --keep");
    assert_eq!(
        (counts(&r), &r["latency_us"]),
        ([500, 0, 0, 0], &serde_json::Value::Null)
    );
    assert_eq!(counts(&perf("-x 0 -D 500")), [0, 0, 0, 500]);

    let refused = leveret(&["perf", "--uri", &uri, "-e", "nowhere", "-z", "5"], &[]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("NOT_FOUND - no exchange 'nowhere'"));
    let mistaken = leveret(&["perf", "--uri", "http://localhost"], &[]);
    assert!(!mistaken.status.success() && said(&mistaken).contains("amqp://"));
}

#[test]
fn a_data_folder_belongs_to_one_broker_of_the_right_version() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let path = data.to_str().unwrap();
    let arguments = ["--data-dir", path, "--amqp", "127.0.0.1:0"];
    let quiet = [("LEVERET_LISTENERS_PROMETHEUS", "")];
    let broker = Broker::start(&data, &[]);
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else may look");
    let second = leveret(&arguments, &quiet);
    assert!(
        !second.status.success() && said(&second).contains(path),
        "{}",
        said(&second)
    );
    assert!(broker.stop());
    let version = data.join("version");
    assert!(version.is_file(), "a file with the version");
    std::fs::write(&version, "999\n").unwrap();
    let newer = leveret(&arguments, &quiet);
    assert!(
        !newer.status.success() && said(&newer).contains("999"),
        "{}",
        said(&newer)
    );
}

#[test]
fn a_definitions_file_makes_users_vhosts_and_topology() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |password: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_leveret"))
            .arg("hash-password")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(password.as_bytes())
            .unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    // SHA-512 with a salt of four zero octets, computed here.
    let sha512 = {
        use base64::Engine;
        use sha2::Digest;
        let mut bytes = vec![0; 4];
        bytes.extend(sha2::Sha512::digest([&[0; 4][..], b"tiger"].concat()));
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let definitions = serde_json::json!({
        "rabbit_version": "4.3.0",
        "users": [
            {"name": "ann", "password_hash": hash("secret"), "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]},
            {"name": "bob", "password_hash": sha512, "hashing_algorithm": "rabbit_password_hashing_sha512", "tags": ""},
            {"name": "guest", "password_hash": hash("guest"), "tags": []},
        ],
        "vhosts": [{"name": "/", "tracing": true}, {"name": "staging"}],
        "permissions": [
            {"user": "ann", "vhost": "staging", "configure": ".*", "write": ".*", "read": ".*"},
            {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
            {"user": "bob", "vhost": "/", "configure": "^$", "write": "^$", "read": "^jobs$"},
        ],
        "topic_permissions": [{"user": "guest", "vhost": "/", "exchange": "events", "write": "^job\\.", "read": "^{username}\\."}],
        "queues": [{"name": "jobs", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-max-length": 5}},
            {"name": "trace", "vhost": "/", "durable": true}],
        "exchanges": [{"name": "events", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
        "bindings": [{"source": "events", "vhost": "/", "destination": "jobs", "destination_type": "queue", "routing_key": "job.#", "arguments": {}},
            {"source": "amq.rabbitmq.trace", "vhost": "/", "destination": "trace", "destination_type": "queue", "routing_key": "publish.events"}],
        "shovels_of_the_future": [{"name": "x"}],
    });
    let file = dir.path().join("definitions.json");
    std::fs::write(&file, definitions.to_string()).unwrap();
    let settings = [("LEVERET_LOAD_DEFINITIONS", file.to_str().unwrap())];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    broker.said.wait_for("shovels_of_the_future");
    assert_eq!(login(&broker, "ann", "secret", "staging"), Ok(()));
    assert_eq!(login(&broker, "bob", "tiger", "/"), Ok(()));
    assert_eq!(login(&broker, "bob", "wrong", "/"), Err(403));
    assert_eq!(login(&broker, "bob", "tiger", "staging"), Err(530));
    assert_eq!(login(&broker, "ann", "secret", "nowhere"), Err(530));
    let mut c = Client::connect(broker.address).unwrap();
    for _ in 0..7 {
        c.stage_publish_to("events", "job.new", b"job", &support::persistent());
    }
    c.flush().unwrap();
    assert_eq!(
        c.counts("jobs").unwrap(),
        (5, 0),
        "bound, and no longer than 5"
    );
    assert_eq!(c.counts("trace").unwrap(), (7, 0));
    c.stage_publish_to("events", "task.new", b"x", &support::persistent());
    c.flush().unwrap();
    let closed = c.expect(channel::Close::ID).unwrap();
    let Method::ChannelClose(close) = closed.method() else {
        unreachable!()
    };
    assert_eq!(
        close.reply_text,
        "ACCESS_REFUSED - write access to topic 'task.new' in exchange 'events' in vhost '/' refused for user 'guest'"
    );
    drop(c);
    assert!(broker.stop());

    std::fs::write(&file, "{\"users\": [{\"name\": 7}]}").unwrap();
    let path = dir.path().join("data");
    let arguments = [
        "--data-dir",
        path.to_str().unwrap(),
        "--amqp",
        "127.0.0.1:0",
    ];
    let refused = leveret(
        &arguments,
        &[
            settings[0],
            ("LEVERET_STRICT_DEFINITIONS", "true"),
            ("LEVERET_LISTENERS_PROMETHEUS", ""),
        ],
    );
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("definitions.json"),
        "{}",
        said(&refused)
    );
}

#[test]
fn containers_set_the_first_user() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("RABBITMQ_DEFAULT_USER", "app"),
        ("RABBITMQ_DEFAULT_PASS", "pass"),
        ("RABBITMQ_DEFAULT_VHOST", "shop"),
    ];
    let broker = Broker::start(&dir.path().join("data"), &settings);
    assert_eq!(login(&broker, "app", "pass", "shop"), Ok(()));
    assert_eq!(login(&broker, "guest", "guest", "shop"), Err(403));
}

#[test]
fn a_definitions_file_without_users_leaves_somebody_who_may_enter() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("definitions.json");
    let definitions = serde_json::json!({
        "vhosts": [{"name": "shop"}],
        "queues": [{"name": "jobs", "vhost": "shop", "durable": true, "arguments": {"x-max-length": 5}},
            {"name": "log", "vhost": "shop", "durable": true, "arguments": {"x-queue-type": "stream"}}],
    });
    std::fs::write(&file, definitions.to_string()).unwrap();
    let settings = [("LEVERET_LOAD_DEFINITIONS", file.to_str().unwrap())];
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &settings);
    assert_eq!(login(&broker, "guest", "guest", "shop"), Ok(()));
    assert_eq!(login(&broker, "guest", "guest", "/"), Err(530));
    assert!(broker.stop());
    // The way to change an argument is to edit the file: what is there stays, and the broker starts.
    let edited = definitions.to_string().replace(":5", ":6");
    std::fs::write(&file, edited).unwrap();
    let broker = Broker::start(&data, &settings);
    broker
        .said
        .wait_for("queue 'jobs' in vhost 'shop' is there");
    broker.said.wait_for("stream");
    assert_eq!(login(&broker, "guest", "guest", "shop"), Ok(()));
    assert!(broker.stop());
}
