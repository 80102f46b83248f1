//! What the examples share.

use lapin::{Connection, ConnectionProperties, Result};

/// Connects to the broker at `AMQP_URL`, or to the one that `./start` starts.
pub async fn connect() -> Result<Connection> {
    let local = || "amqp://guest:guest@127.0.0.1:5672/%2F".to_string();
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| local());
    Connection::connect(&url, ConnectionProperties::default()).await
}
