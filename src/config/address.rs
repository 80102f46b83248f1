//! Addresses as people write them.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Deserializer};

/// Reads `127.0.0.1:5672`, `[::1]:5672`, `localhost:5672`, and `5672`, which is a port of this machine.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let right = "expected an address and a port, such as 127.0.0.1:5672, [::1]:5672 or localhost:5672, or a port";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let port = text.parse::<u16>();
        let port = port.map_err(|_| format!("'{text}': a port is at most 65535"))?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("'{text}': {right}"));
    };
    if host.is_empty() || host.contains([':', '/', '[', ']']) || port.parse::<u16>().is_err() {
        return Err(format!("'{text}': {right}"));
    }
    let found = text
        .to_socket_addrs()
        .map_err(|e| format!("'{text}': no address of this name was found ({e})"))?;
    let found: Vec<_> = found.collect();
    // Names mostly have both, and machines without IPv6 are more than those without IPv4.
    let first = found.iter().find(|a| a.is_ipv4()).or(found.first());
    first
        .copied()
        .ok_or_else(|| format!("'{text}': no address of this name was found"))
}

/// A list of them; a port may be a number.
pub(super) fn addresses<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Port(i64),
        Text(String),
    }
    let list = Vec::<Raw>::deserialize(d).map_err(|_| {
        serde::de::Error::custom("expected a list of addresses, such as [\"127.0.0.1:5672\"]")
    })?;
    list.into_iter()
        .map(|raw| match raw {
            Raw::Port(port) => parse_address(&port.to_string()),
            Raw::Text(text) => parse_address(&text),
        })
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| parse_address(text).map(|a| a.to_string());
        for (text, address) in [
            ("127.0.0.1:5672", "127.0.0.1:5672"),
            (" [::]:1 ", "[::]:1"),
            ("localhost:5672", "127.0.0.1:5672"),
            ("5672", "127.0.0.1:5672"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(address));
        }
        for text in [
            "",
            "here",
            ":5672",
            "localhost",
            "localhost:",
            "localhost:x",
            "::1:5672x",
            "1.2.3.4",
            "127.0.0.1:70000",
            "70000",
            "-1",
            "amqp://localhost:5672",
            "[::1]",
        ] {
            let why = read(text).expect_err(text);
            assert!(why.contains(text), "{why}");
        }
        assert!(read("no.such.name.invalid:1").is_err_and(|e| e.contains("no address")));
    }
}
