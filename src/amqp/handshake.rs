//! From the protocol header to `connection.open-ok`.

use super::connection::{Connection, Phase};
use super::credentials::{Credentials, amqplain, mechanisms, plain};
use super::errors::Exception;
use super::settings::{Login, Refused};
use crate::protocol::field_table::{FieldTable, FieldValue, TableRef};
use crate::protocol::frame::{FRAME_MIN_SIZE, PROTOCOL_HEADER, ProtocolHeader};
use crate::protocol::methods::{Method, MethodId, connection};
use crate::protocol::reply_code::{HardCode, SoftCode, reply_text};

/// Leveret's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a refused client without `authentication_failure_close` is kept waiting, milliseconds:
/// it slows down guessing, as in RabbitMQ.
const SILENT_CLOSE_DELAY_MS: u64 = 3_000;

/// What we tell every client we can do.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl Connection {
    /// Takes the protocol header; returns how many bytes it had.
    pub(super) fn protocol_header(&mut self, header: ProtocolHeader) -> usize {
        if header == ProtocolHeader::Other {
            self.output.octets().extend_from_slice(&PROTOCOL_HEADER);
            self.phase = Phase::Over;
            return 0;
        }
        let properties = self.server_properties().to_bytes();
        let anonymous = self.settings.anonymous.is_some();
        let mechanisms = mechanisms(anonymous, self.certified.is_some());
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: TableRef::unchecked(&properties),
            mechanisms: mechanisms.as_bytes(),
            locales: b"en_US",
        };
        self.send(0, &start);
        self.phase = Phase::Starting;
        PROTOCOL_HEADER.len()
    }

    fn server_properties(&self) -> FieldTable {
        let mut capabilities = FieldTable::new();
        for name in CAPABILITIES {
            capabilities.insert(name, true);
        }
        let mut t = FieldTable::new();
        t.insert("capabilities", capabilities);
        t.insert("cluster_name", self.settings.cluster_name.as_str());
        t.insert("copyright", "Copyright the Leveret authors");
        t.insert("information", "Licensed under the Apache License 2.0");
        t.insert("platform", "Rust");
        t.insert("product", self.settings.product.as_str());
        t.insert("version", self.settings.version.as_str());
        t.insert("leveret_version", VERSION);
        t
    }

    pub(super) fn handshake_method(&mut self, method: &Method<'_>) -> Result<(), Exception> {
        match (self.phase, method) {
            (Phase::Starting, Method::ConnectionStartOk(m)) => self.start_ok(m),
            (Phase::Tuning, Method::ConnectionTuneOk(m)) => self.tune_ok(*m),
            (Phase::Opening, Method::ConnectionOpen(m)) => self.open(m.virtual_host),
            (_, Method::ConnectionClose(_)) => {
                self.send(0, &connection::CloseOk);
                self.phase = Phase::Over;
                Ok(())
            }
            (phase, _) => {
                let state = match phase {
                    Phase::Starting => "starting",
                    Phase::Tuning => "tuning",
                    _ => "opening",
                };
                let text = format!("unexpected method in connection state {state}");
                Err(Exception::hard(HardCode::CHANNEL_ERROR, text))
            }
        }
    }

    fn start_ok(&mut self, m: &connection::StartOk<'_>) -> Result<(), Exception> {
        let properties = m.client_properties.to_table();
        if let Some(FieldValue::Table(t)) = properties.get("capabilities") {
            let can = |name| t.get(name) == Some(&FieldValue::Bool(true));
            self.capabilities.authentication_failure_close = can("authentication_failure_close");
            self.capabilities.consumer_cancel_notify = can("consumer_cancel_notify");
            self.capabilities.connection_blocked = can("connection.blocked");
        }
        if let Some(name) = properties
            .get("connection_name")
            .and_then(FieldValue::as_str)
        {
            self.peer.name = name.to_string();
        }
        let Credentials { user, password } =
            match (m.mechanism, &self.settings.anonymous, &self.certified) {
                ("PLAIN", ..) => plain(m.response)?,
                ("AMQPLAIN", ..) => amqplain(m.response)?,
                // Whatever the client says of itself.
                ("ANONYMOUS", Some(login), _) => Credentials {
                    user: login.user.clone().into_bytes(),
                    password: Some(login.password.clone().into_bytes()),
                },
                ("EXTERNAL", _, Some(user)) => Credentials {
                    user: user.clone().into_bytes(),
                    password: None,
                },
                (other, ..) => {
                    let text = format!("unknown authentication mechanism '{other}'");
                    return Err(Exception::hard(HardCode::COMMAND_INVALID, text));
                }
            };
        let checked = match std::str::from_utf8(&user) {
            Ok(user) => self.authenticator.authenticate(&Login {
                user,
                password: password.as_deref(),
                peer: self.peer.address,
            }),
            Err(_) => Err(Refused("no user's name is other than UTF-8".into())),
        };
        let user = String::from_utf8_lossy(&user).into_owned();
        if let Err(refused) = checked {
            let peer = self.peer.shown();
            tracing::warn!(user, %peer, mechanism = m.mechanism, reason = refused.0, "login refused");
            self.refuse_login(m.mechanism);
            return Ok(());
        }
        self.peer.user = user;
        let (channel_max, frame_max, heartbeat) = (
            self.settings.channel_max,
            self.settings.frame_max,
            self.settings.heartbeat,
        );
        self.send(
            0,
            &connection::Tune {
                channel_max,
                frame_max,
                heartbeat,
            },
        );
        self.phase = Phase::Tuning;
        Ok(())
    }

    fn refuse_login(&mut self, mechanism: &str) {
        if !self.capabilities.authentication_failure_close {
            self.phase = Phase::Silent {
                until: self.now + SILENT_CLOSE_DELAY_MS,
            };
            return;
        }
        let text = format!(
            "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
        );
        let code = SoftCode::ACCESS_REFUSED;
        self.close(
            code.number(),
            &reply_text(code.name(), &text),
            MethodId::NONE,
        );
    }

    fn tune_ok(&mut self, m: connection::TuneOk) -> Result<(), Exception> {
        let not_allowed = |text: String| Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        if m.frame_max != 0 && m.frame_max < FRAME_MIN_SIZE {
            return not_allowed(format!(
                "negotiated frame_max = {} is lower than the minimum allowed value ({FRAME_MIN_SIZE})",
                m.frame_max
            ));
        }
        let beyond = |name: &str, got: u64, max: u64| {
            let shown = if got == 0 {
                "0 (no limit)".to_string()
            } else {
                got.to_string()
            };
            (max != 0 && (got == 0 || got > max)).then(|| {
                format!(
                    "negotiated {name} = {shown} is higher than the maximum allowed value ({max})"
                )
            })
        };
        if let Some(text) = beyond(
            "frame_max",
            m.frame_max.into(),
            self.settings.frame_max.into(),
        ) {
            return not_allowed(text);
        }
        if let Some(text) = beyond(
            "channel_max",
            m.channel_max.into(),
            self.settings.channel_max.into(),
        ) {
            return not_allowed(text);
        }
        self.frame_max = m.frame_max;
        self.channel_max = m.channel_max;
        self.heartbeat = m.heartbeat;
        self.phase = Phase::Opening;
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<(), Exception> {
        let Some(vhost) = self.broker.vhost(name) else {
            return Err(Exception::hard(
                HardCode::NOT_ALLOWED,
                format!("vhost {name} not found"),
            ));
        };
        let user = self.peer.user.clone();
        let accounts = [
            self.broker.node_account().clone(),
            self.broker.vhost_account(name),
            self.broker.user_account(&user),
        ];
        for (n, account) in accounts.iter().enumerate() {
            let Err(max) = account.connections.take() else {
                continue;
            };
            accounts[..n]
                .iter()
                .for_each(|a| a.connections.give_back(1));
            let text = match n {
                0 => format!("connection refused: node connection limit ({max}) is reached"),
                1 => format!(
                    "access to vhost '{name}' refused for user '{user}': connection limit ({max}) is reached"
                ),
                _ => format!(
                    "connection refused for user '{user}': user connection limit ({max}) is reached"
                ),
            };
            return Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        }
        if self
            .broker
            .access()
            .permissions(&self.peer.user, name)
            .is_none()
        {
            accounts.iter().for_each(|a| a.connections.give_back(1));
            let text = format!("access to vhost '{name}' refused for user '{user}'");
            return Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        }
        self.accounts = Some(accounts);
        self.vhost = Some(vhost);
        self.phase = Phase::Running;
        let peer = self.peer.shown();
        tracing::info!(user, vhost = name, %peer, name = self.peer.name, "connection accepted");
        self.counted.connections_opened += 1;
        self.send(0, &connection::OpenOk);
        Ok(())
    }

    /// `connection.update-secret`: any is taken, as by RabbitMQ's internal users. A secret with a lifetime,
    /// which this is for, does not exist here.
    pub(super) fn update_secret(&mut self) {
        self.send(0, &connection::UpdateSecretOk);
    }
}
