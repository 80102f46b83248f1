//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::parse_address;

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
    pub config: Option<OsString>,
    /// Folder for all data
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen for AMQP here (repeatable)
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub amqp: Vec<SocketAddr>,
    /// Listen for AMQP over TLS here (repeatable)
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub amqps: Vec<SocketAddr>,
    /// Serve Prometheus metrics here (repeatable)
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
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
        /// The broker's AMQP listener; without it: the first one of the configuration, which may be one for TLS
        #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
        amqp: Option<SocketAddr>,
        /// Configuration file (TOML) of the broker
        #[arg(long, value_name = "FILE", env = "LEVERET_CONFIG")]
        config: Option<OsString>,
        /// Seconds to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
    },
    /// Load a broker, this one or any other that speaks AMQP 0-9-1, and measure rates and latencies
    Perf(Perf),
    /// Print the hash of a password (read from standard input), as RabbitMQ's definitions files have it
    HashPassword,
    /// Examine a data folder that no broker uses. Exit code 0: it is clean; 1: something is damaged; 2: that
    /// cannot be told
    Check {
        /// The data folder
        dir: PathBuf,
        /// The folder is a copy of the definitions in sled: try to open that
        #[arg(long, hide = true)]
        definitions_only: bool,
    },
    /// Set aside what is damaged in a data folder that no broker uses; nothing is deleted. Exit codes as of check
    Repair {
        /// The data folder
        dir: PathBuf,
    },
    /// Check a configuration file and the environment
    CheckConfig {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE", env = "LEVERET_CONFIG")]
        config: Option<OsString>,
    },
}

/// Options of `leveret perf`, named as those of `lavinmqperf` and PerfTest where they have them.
#[derive(Args, Clone, Debug)]
pub struct Perf {
    /// The broker, as amqp:// or amqps://
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2F")]
    pub uri: String,
    /// For amqps://: certificates (PEM) of the authorities that are believed; without it: the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub cacert: Option<PathBuf>,
    /// For amqps://: believe any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Producers, each with a connection
    #[arg(short = 'x', long, default_value_t = 1, value_parser = workers)]
    pub producers: usize,
    /// Consumers, each with a connection
    #[arg(short = 'y', long, default_value_t = 1, value_parser = workers)]
    pub consumers: usize,
    /// Bytes of a body; at least 8, which say when it was published
    #[arg(short, long, default_value_t = 16, value_parser = body_size)]
    pub size: usize,
    /// Wait for confirms, with at most so many messages on their way per producer; 0: no confirms
    #[arg(short, long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub confirm: u64,
    /// Acknowledge every N messages; 0: no acknowledgements
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub ack: u64,
    /// Unacknowledged messages per consumer; 0: no limit
    #[arg(short = 'P', long, value_name = "N", default_value_t = 0)]
    pub prefetch: u16,
    /// Messages a second per producer; 0: as many as possible
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub rate: u64,
    /// Seconds; 0: until the messages are through, or it is interrupted (Ctrl-C)
    #[arg(short = 'z', long, value_name = "SECONDS", default_value_t = 0)]
    pub time: u64,
    /// Stop each producer after so many messages; 0: never
    #[arg(short = 'C', long, value_name = "N", default_value_t = 0)]
    pub pmessages: u64,
    /// Stop when so many messages were consumed; 0: never
    #[arg(short = 'D', long, value_name = "N", default_value_t = 0)]
    pub cmessages: u64,
    /// Persistent messages
    #[arg(short = 'f', long)]
    pub persistent: bool,
    /// The queue; declared, and deleted at the end, unless it was there before
    #[arg(short = 'u', long, default_value = "perf-test")]
    pub queue: String,
    /// So many queues, named after it, shared out among producers and consumers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub queues: u16,
    /// classic or quorum
    #[arg(long, default_value = "classic")]
    pub queue_type: String,
    /// Publish to this exchange, which has to exist, instead of the default one
    #[arg(short, long, default_value = "")]
    pub exchange: String,
    /// Publish and bind with this routing key; without it: the queue's name
    #[arg(short = 'k', long)]
    pub routing_key: Option<String>,
    /// Leave the queues as they are at the end
    #[arg(long)]
    pub keep: bool,
    /// Print the result as one line of JSON
    #[arg(short, long)]
    pub json: bool,
    /// Tell no progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// A number of connections of `leveret perf`: each has a thread.
fn workers(text: &str) -> Result<usize, String> {
    number_to(text, 10_000)
}

/// The size of a body.
fn body_size(text: &str) -> Result<usize, String> {
    number_to(text, 512 << 20)
}

fn number_to(text: &str, max: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n <= max);
    number.ok_or_else(|| format!("is no number from 0 to {max}"))
}
