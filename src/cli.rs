//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A RabbitMQ-compatible AMQP 0-9-1 message broker.
#[derive(Debug, Parser)]
#[command(
    name = "leveret",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; without a command: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// Options of the server.
#[derive(Args, Clone, Debug, Default)]
pub struct Serve {
    /// Configuration file (TOML); see config/leveret.toml for all settings
    #[arg(long, value_name = "FILE", env = "LEVERET_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for all data
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen for AMQP here (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    pub amqp: Vec<SocketAddr>,
    /// Listen for AMQP over TLS here (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    pub amqps: Vec<SocketAddr>,
    /// Serve Prometheus metrics here (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    pub prometheus: Vec<SocketAddr>,
    /// error, warn, info, debug, or a filter
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Other things to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask a broker whether it answers; exit code 0 if it does
    Ping {
        /// The broker's AMQP listener
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5672")]
        amqp: SocketAddr,
        /// Seconds to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        timeout: u64,
    },
    /// Print the hash of a password (read from standard input), as RabbitMQ's definitions files have it
    HashPassword,
    /// Check a configuration file and the environment
    CheckConfig {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE", env = "LEVERET_CONFIG")]
        config: Option<PathBuf>,
    },
}
