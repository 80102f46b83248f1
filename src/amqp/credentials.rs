//! What a client says to log in, by mechanism.

use super::errors::Exception;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::reply_code::HardCode;
use crate::protocol::short::shown;
use crate::protocol::wire::{Octets, Reader};

/// Mechanisms in RabbitMQ's order, without those that this connection cannot use.
pub(super) fn mechanisms(anonymous: bool, certified: bool) -> String {
    let offered = [
        (anonymous, "ANONYMOUS"),
        (true, "PLAIN"),
        (true, "AMQPLAIN"),
        (certified, "EXTERNAL"),
    ];
    let names: Vec<&str> = offered.iter().filter(|m| m.0).map(|m| m.1).collect();
    names.join(" ")
}

/// A user name, as octets, and a password; no password where a certificate proved the user.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Credentials {
    pub(super) user: Vec<u8>,
    pub(super) password: Option<Vec<u8>>,
}

/// `NUL user NUL password`. Another identity to act as cannot be asked for, and a password holds no NUL.
pub(super) fn plain(response: &[u8]) -> Result<Credentials, Exception> {
    let mut parts = response.split(|b| *b == 0);
    if let (Some([]), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    {
        return Ok(Credentials {
            user: user.to_vec(),
            password: Some(password.to_vec()),
        });
    }
    let text = format!("response {} invalid", Octets::of(response));
    Err(Exception::hard(HardCode::SYNTAX_ERROR, text))
}

/// A field table without its length, with LOGIN and PASSWORD.
pub(super) fn amqplain(response: &[u8]) -> Result<Credentials, Exception> {
    // Some clients send the length, too.
    let table = FieldTable::parse(response).ok().or_else(|| {
        Reader::new(response)
            .long_str()
            .ok()
            .and_then(|inner| FieldTable::parse(inner).ok())
    });
    let table = table.unwrap_or_default();
    let octets = |name| match table.get(name) {
        Some(FieldValue::LongStr(v) | FieldValue::Bytes(v)) => Some(v.clone()),
        _ => None,
    };
    if let (Some(user), password @ Some(_)) = (octets("LOGIN"), octets("PASSWORD")) {
        return Ok(Credentials { user, password });
    }
    let fields = table.iter().map(|(name, _)| shown(name.as_bytes()));
    let fields: Vec<_> = fields.collect();
    let text = format!(
        "AMQPLAIN auth info [{}] is missing LOGIN or PASSWORD field",
        fields.join(",")
    );
    Err(Exception::hard(HardCode::SYNTAX_ERROR, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_takes_a_user_and_a_password_and_nothing_else() {
        let taken = plain(b"\0us\xffer\0pass");
        let want = Credentials {
            user: b"us\xffer".to_vec(),
            password: Some(b"pass".to_vec()),
        };
        assert_eq!(taken, Ok(want));
        for refused in [
            &b""[..],
            b"\0",
            b"\0user",
            b"admin\0guest\0guest",
            b"guest\0guest\0guest",
            b"\0user\0pass\0word",
        ] {
            assert!(plain(refused).is_err(), "{}", refused.escape_ascii());
        }
    }

    #[test]
    fn offers_what_can_be_used() {
        assert_eq!(mechanisms(true, false), "ANONYMOUS PLAIN AMQPLAIN");
        assert_eq!(mechanisms(false, true), "PLAIN AMQPLAIN EXTERNAL");
    }
}
