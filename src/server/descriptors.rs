//! File descriptors: as many as the system gives, and a few that connections cannot have.

use std::os::fd::{AsRawFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections leave to the message log, the definitions and everything else that
/// opens files. A log that cannot open its next segment accepts nothing more.
const RESERVED: u64 = 64;

/// With fewer than these it is said at the start that they are few.
const FEW: u64 = 4096;

/// How many descriptors this process may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    most: u64,
}

impl Descriptors {
    /// Raises the soft limit to the hard one: shells, service managers and distributions leave it at
    /// 1,024, for the sake of programs that use `select`.
    pub(super) fn raise() -> Descriptors {
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            };
            if let Err(e) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(error = %e, "the limit of file descriptors cannot be raised");
            }
        }
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if most < FEW {
            tracing::warn!(
                limit = most,
                "few file descriptors: a connection needs one each; raise the hard limit (ulimit -Hn, LimitNOFILE)"
            );
        }
        Descriptors { most }
    }

    /// The limit.
    pub(super) fn most(self) -> u64 {
        self.most
    }

    /// Descriptors that connections may have.
    fn for_connections(self) -> u64 {
        // Of very few, half.
        self.most - RESERVED.min(self.most / 2)
    }

    /// Whether a connection that was just accepted is one too many. A new descriptor has the lowest
    /// number that is free, so its number says how many are in use, and asking costs nothing.
    pub(super) fn too_many(self, accepted: &impl AsRawFd) -> bool {
        self.is_reserved(accepted.as_raw_fd())
    }

    fn is_reserved(self, number: RawFd) -> bool {
        u64::try_from(number).is_ok_and(|n| n >= self.for_connections())
    }

    /// Descriptors in use.
    pub(super) fn in_use() -> u64 {
        // One of them reads the folder.
        std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count().saturating_sub(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_not_for_connections() {
        let of = |most| Descriptors { most };
        assert!(!of(1024).is_reserved(959) && of(1024).is_reserved(960));
        assert!(!of(60).is_reserved(29) && of(60).is_reserved(30));
        assert!(!of(u64::MAX).is_reserved(RawFd::MAX));
    }
}
