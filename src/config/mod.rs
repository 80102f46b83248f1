//! The configuration: typed, parsed once.
//!
//! Later sources win: defaults, the TOML file, `LEVERET_<SECTION>_<KEY>` in the environment, the command
//! line. What is unknown or does not fit is refused, with the place and what would be right.

mod address;
mod check;
mod environment;
mod error;
mod load;
mod settings;
mod size;

pub use address::parse_address;
pub use error::ConfigError;
pub use load::Loaded;
pub use settings::*;
pub use size::Size;

#[cfg(test)]
mod tests;
