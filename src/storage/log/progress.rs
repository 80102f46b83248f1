//! How far a start has come that reads much: a line now and then, as long as it takes long.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::UNPOISONED;
use crate::storage::files::LogFile;

/// A line is written so often at most; none in a shorter start.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Progress {
    /// Octets of all segments.
    total: u64,
    every: Duration,
    told: Mutex<Instant>,
}

impl Progress {
    pub(super) fn new(total: u64, every: Duration) -> Arc<Progress> {
        Arc::new(Progress {
            total,
            every,
            told: Mutex::new(Instant::now()),
        })
    }

    /// A segment is read up to this octet, and so many are read of those before it.
    fn at(&self, path: &Path, offset: u64, before: u64) {
        let mut told = self.told.lock().expect(UNPOISONED);
        if told.elapsed() < self.every {
            return;
        }
        *told = Instant::now();
        let read = before.saturating_add(offset).min(self.total);
        let percent = read.saturating_mul(100) / self.total.max(1);
        tracing::info!(
            "{}: read to byte {offset}; of the log's {} bytes {percent} %",
            path.display(),
            self.total
        );
    }
}

/// A segment whose reads are told of.
pub(super) struct Watched {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) path: PathBuf,
    /// Octets of the segments before it.
    pub(super) before: u64,
    pub(super) progress: Arc<Progress>,
}

impl LogFile for Watched {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = self.file.read_at(into, offset)?;
        self.progress.at(&self.path, offset + n as u64, self.before);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn data_from(&self, offset: u64) -> Option<u64> {
        self.file.data_from(offset)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn forget(&self) {
        self.file.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is said of three reads.
    fn said(every: Duration) -> String {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1000).expect("its length");
        let watched = Watched {
            file: Arc::new(file),
            path: PathBuf::from("2.segment"),
            before: 1000,
            progress: Progress::new(4000, every),
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone());
        tracing::subscriber::with_default(log.with_ansi(false).finish(), || {
            for offset in [0, 500, 900] {
                watched.read_at(&mut [0; 500], offset).expect("read");
            }
        });
        let said = lines.0.lock().expect("a lock").clone();
        String::from_utf8(said).expect("text")
    }

    #[test]
    fn a_long_start_says_how_far_it_is_and_a_short_one_nothing() {
        let all = said(Duration::ZERO);
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines.len(), 3, "{all}");
        let first = "INFO leveret::storage::log::progress: 2.segment: read to byte 500; of the log's 4000 bytes 37 %";
        assert!(lines[0].contains(first), "{all}");
        assert!(
            lines[2].contains("byte 1000; of the log's 4000 bytes 50 %"),
            "{all}"
        );
        assert_eq!(said(TOLD_EVERY), "");
    }
}
