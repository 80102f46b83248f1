//! What the log cannot do at the moment and tries again, for its reports, the metrics and the alarms.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::UNPOISONED;

/// What the log needs a disk for that may be done later.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Job {
    /// Brings the definitions' store up to date.
    Checkpoint,
    /// Makes the second copy of the definitions anew.
    Definitions,
    /// Removes segments without a live message.
    Removal,
    /// Rewrites segments with few.
    Compaction,
    /// Writes the indexes that make a start fast.
    Index,
    /// Makes the next segment; what is accepted meanwhile waits in memory.
    Segment,
}

impl Job {
    /// All of them.
    pub const ALL: [Job; 6] = [
        Job::Checkpoint,
        Job::Definitions,
        Job::Removal,
        Job::Compaction,
        Job::Index,
        Job::Segment,
    ];

    /// Whether it gives room back, and may have some for that.
    pub(super) fn gives_room(self) -> bool {
        matches!(self, Job::Checkpoint | Job::Removal | Job::Compaction)
    }

    /// What it is called in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Job::Checkpoint => "checkpoint",
            Job::Definitions => "definitions",
            Job::Removal => "removal",
            Job::Compaction => "compaction",
            Job::Index => "index",
            Job::Segment => "segment",
        }
    }
}

/// What each job failed with when it was last tried.
#[derive(Default)]
pub(super) struct Troubles {
    failed: Mutex<[Option<String>; Job::ALL.len()]>,
    /// The disk had no room for one of them.
    no_room: AtomicBool,
}

/// Whether there is no room on the disk, or not for this user, or not in a file of this process.
pub(super) fn is_no_room(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// What is wrong, and what to do where the error itself does not say it.
pub(super) fn why(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::FileTooLarge => {
            format!(
                "{e}: a limit of the process (ulimit -f; LimitFSIZE of systemd), or of the file system"
            )
        }
        _ => e.to_string(),
    }
}

/// Whether what is short may be there in a while: room on the disk, file descriptors.
pub(super) fn may_pass(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    is_no_room(e) || e.raw_os_error().is_some_and(|code| short.contains(&code))
}

impl Troubles {
    /// Notes how a job went; reports what is new.
    pub(super) fn note(&self, job: Job, failed: Option<&io::Error>) {
        let mut all = self.failed.lock().expect(UNPOISONED);
        let known = &mut all[job as usize];
        let why = failed.map(why);
        if *known == why {
            return;
        }
        match &why {
            Some(why) => tracing::warn!(
                "the log's {} job failed, it will be tried again: {why}",
                job.name()
            ),
            None => tracing::info!("the log's {} job works again", job.name()),
        }
        *known = why;
        self.no_room.store(
            failed.is_some_and(is_no_room) || (self.no_room() && all.iter().any(Option::is_some)),
            Ordering::Relaxed,
        );
    }

    pub(super) fn no_room(&self) -> bool {
        self.no_room.load(Ordering::Relaxed)
    }

    pub(super) fn list(&self) -> Vec<(Job, String)> {
        let all = self.failed.lock().expect(UNPOISONED);
        let failed = Job::ALL.into_iter().zip(all.iter());
        failed
            .filter_map(|(job, why)| Some((job, why.clone()?)))
            .collect()
    }
}
