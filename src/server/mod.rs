//! The shell: listeners, tasks, signals. tokio lives here.

mod accept;
mod admission;
mod auth;
mod bootstrap;
mod certificate;
mod connection;
mod descriptors;
mod failed_logins;
mod file_size;
mod gate;
mod http;
mod inbox;
mod machine;
mod metrics;
mod patience;
mod punctual;
mod run;
mod shared;
mod signals;
mod timekeeping;
pub mod tls;
mod watch;
mod workers;

pub use self::run::Server;
pub use self::signals::Signals;
