//! How large a file of the process may be (RLIMIT_FSIZE), of which a start makes sure that it is enough.

use std::io;

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// What the definitions' files may have.
const DEFINITIONS_BYTES: u64 = 16 << 20;

/// What a message takes in the log beside its body, at most.
const BESIDE_BODY_BYTES: u64 = 1 << 20;

/// Refuses to start where files cannot be as large as the configuration has them.
pub(super) fn check(config: &Config) -> io::Result<()> {
    enough(config, getrlimit(Resource::Fsize).current)
}

fn enough(config: &Config, limit: Option<u64>) -> io::Result<()> {
    let message = config.protocol.max_message_bytes.0 + BESIDE_BODY_BYTES;
    let wanted = [
        ("storage.segment_bytes", config.storage.segment_bytes.0),
        ("disk.reserve_bytes", config.disk.reserve_bytes.0),
        ("protocol.max_message_bytes and what is beside it", message),
        ("the definitions' files", DEFINITIONS_BYTES),
    ];
    let (what, bytes) = wanted.into_iter().fold(
        ("", 0),
        |most, next| {
            if next.1 > most.1 { next } else { most }
        },
    );
    match limit {
        Some(limit) if limit < bytes => Err(io::Error::other(format!(
            "a file of this process may have {limit} bytes (ulimit -f; LimitFSIZE of systemd), but files in {} \
             may come to have {bytes} ({what}): raise the limit, or lower what is configured",
            config.data_dir
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_counts() {
        let mut config = Config::default();
        let refused = |config: &Config, limit| {
            let told = enough(config, limit).err().map(|e| e.to_string());
            told.unwrap_or_default()
        };
        assert_eq!(refused(&config, None), "");
        assert_eq!(refused(&config, Some(64 << 20)), "");
        assert!(refused(&config, Some((64 << 20) - 1)).contains("storage.segment_bytes"));
        config.storage.segment_bytes.0 = 1 << 20;
        assert!(refused(&config, Some(31 << 20)).contains("disk.reserve_bytes"));
        config.disk.reserve_bytes.0 = 0;
        assert!(refused(&config, Some(16 << 20)).contains("max_message_bytes"));
        config.protocol.max_message_bytes.0 = 1 << 20;
        assert!(refused(&config, Some(15 << 20)).contains("the definitions' files"));
        assert_eq!(refused(&config, Some(16 << 20)), "");
    }
}
