//! From the protocol header to `connection.open-ok`.

use super::connection::{Connection, Phase};
use super::errors::Exception;
use super::settings::Login;
use crate::protocol::field_table::{FieldTable, FieldValue, TableRef};
use crate::protocol::frame::{FRAME_MIN_SIZE, PROTOCOL_HEADER, ProtocolHeader};
use crate::protocol::methods::{Method, MethodId, connection};
use crate::protocol::reply_code::{HardCode, SoftCode, reply_text};
use crate::protocol::wire::{Octets, Reader};

/// Leveret's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a refused client without `authentication_failure_close` is kept waiting, milliseconds:
/// it slows down guessing, as in RabbitMQ.
const SILENT_CLOSE_DELAY_MS: u64 = 3_000;

/// Mechanisms in the order we prefer them, for who has shown no certificate, and for who has.
const MECHANISMS: [&[u8]; 2] = [b"PLAIN AMQPLAIN", b"PLAIN AMQPLAIN EXTERNAL"];

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
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: TableRef::unchecked(&properties),
            mechanisms: MECHANISMS[usize::from(self.certified.is_some())],
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
        let (user, password) = match m.mechanism {
            "PLAIN" => plain(m.response)?,
            "AMQPLAIN" => amqplain(m.response)?,
            "EXTERNAL" if self.certified.is_some() => {
                (self.certified.clone().unwrap_or_default(), None)
            }
            other => {
                let text = format!("unknown authentication mechanism '{other}'");
                return Err(Exception::hard(HardCode::COMMAND_INVALID, text));
            }
        };
        let login = Login {
            user: &user,
            password: password.as_deref(),
            peer: self.peer.address,
        };
        if let Err(refused) = self.authenticator.authenticate(&login) {
            tracing::warn!(user, peer = ?self.peer.address, mechanism = m.mechanism, reason = refused.0, "login refused");
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
        self.counted.connections_opened += 1;
        self.send(0, &connection::OpenOk);
        Ok(())
    }

    /// `connection.update-secret`: the password is checked again, for the same user.
    pub(super) fn update_secret(
        &mut self,
        m: &connection::UpdateSecret<'_>,
    ) -> Result<(), Exception> {
        let user = self.peer.user.clone();
        let login = Login {
            user: &user,
            password: Some(m.new_secret),
            peer: self.peer.address,
        };
        if self.authenticator.authenticate(&login).is_err() {
            let text = "New secret was refused by one of the backends";
            return Err(Exception::hard(HardCode::NOT_ALLOWED, text));
        }
        self.send(0, &connection::UpdateSecretOk);
        Ok(())
    }
}

/// User and password; no password where a certificate proved the user.
type Credentials = (String, Option<Vec<u8>>);

/// `authzid NUL user NUL password`
fn plain(response: &[u8]) -> Result<Credentials, Exception> {
    let mut parts = response.splitn(3, |b| *b == 0);
    if let (Some(_), Some(user), Some(password)) = (parts.next(), parts.next(), parts.next())
        && let Ok(user) = std::str::from_utf8(user)
    {
        return Ok((user.to_string(), Some(password.to_vec())));
    }
    let text = format!("response {} invalid", Octets::of(response));
    Err(Exception::hard(HardCode::SYNTAX_ERROR, text))
}

/// A field table without its length, with LOGIN and PASSWORD.
fn amqplain(response: &[u8]) -> Result<Credentials, Exception> {
    // Some clients send the length, too.
    let table = FieldTable::parse(response).ok().or_else(|| {
        Reader::new(response)
            .long_str()
            .ok()
            .and_then(|inner| FieldTable::parse(inner).ok())
    });
    let table = table.unwrap_or_default();
    match (table.get("LOGIN"), table.get("PASSWORD")) {
        (Some(FieldValue::LongStr(user)), Some(FieldValue::LongStr(password))) => Ok((
            String::from_utf8_lossy(user).into_owned(),
            Some(password.clone()),
        )),
        _ => {
            let fields: Vec<&str> = table.iter().map(|(name, _)| name).collect();
            let text = format!(
                "AMQPLAIN auth info [{}] is missing LOGIN or PASSWORD field",
                fields.join(",")
            );
            Err(Exception::hard(HardCode::SYNTAX_ERROR, text))
        }
    }
}
