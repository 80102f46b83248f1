//! Implementations of the core's ports on a disk, and in memory for tests. The only module that writes
//! files.
//!
//! ```text
//! <data-dir>/
//!   version        format of the folder
//!   lock           locked while a broker runs
//!   clock          how late it was, and since when
//!   definitions.journal  what the log's definition changes add up to
//!   definitions/   the same in sled
//!   log/           segments of the message log
//! ```

mod definitions;
mod examine;
pub mod files;
mod folder;
mod kinds;
mod last_time;
pub mod log;
pub mod memory;
mod octets;

pub use examine::{Examined, Fault, Progress, examine, probe};
pub use folder::{FORMAT_VERSION, Folder};
pub use last_time::LastTime;
pub use log::{Durability, Job, LogOptions, SegmentedLog};
