//! Log lines: to standard error, by a thread of their own.
//!
//! Nobody waits for who reads them: a line that finds the queue full is dropped, and counted. What peers
//! can cause is limited by kind (`limiter`), and what peers name cannot begin a line of its own.

mod limiter;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use self::limiter::Limiter;
use crate::config::{Log, LogFormat};

/// Lines that may wait to be written; more are dropped.
const LINES_MAX: usize = 1024;

/// Bytes of a line; the rest is cut off.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How often it is looked whether lines were dropped or suppressed.
const TICK: Duration = Duration::from_secs(1);

/// How long the end of the process waits for lines to be written.
const FINISH: Duration = Duration::from_secs(1);

/// Others' lines that nobody asks for by `log.level = "debug"`.
const QUIET: &str = "sled=warn,rustls=warn,hyper=warn,mio=warn,h2=warn";

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    writing: bool,
    dropped: u64,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic aborts the process")
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.lines.len() >= LINES_MAX {
            state.dropped += 1;
            return;
        }
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for lines, at most for a tick, and takes them.
    fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let state = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(state, TICK, |s| s.lines.is_empty());
        let mut state = waited.expect("a panic aborts the process").0;
        state.writing = !state.lines.is_empty();
        (
            std::mem::take(&mut state.lines),
            std::mem::take(&mut state.dropped),
        )
    }

    fn written(&self) {
        self.lock().writing = false;
        self.changed.notify_all();
    }

    /// Waits until all is written, at most so long.
    fn finish(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("a panic aborts the process").0;
        }
    }
}

/// Writes what is queued, for ever.
fn write_lines(queue: &Queue, limiter: &Limiter, to: &mut impl Write) {
    loop {
        let (lines, dropped) = queue.take();
        for line in &lines {
            // Nobody is left to be told that this failed.
            let _ = to.write_all(line);
        }
        queue.written();
        if dropped > 0 {
            tracing::warn!(lines = dropped, "log lines were dropped: they are not read");
        }
        for (message, lines) in limiter.due(Instant::now()) {
            tracing::warn!(message, lines, "more such lines were suppressed");
        }
    }
}

/// One event's line, on its way to the queue.
struct Line {
    queue: Arc<Queue>,
    /// Escape sequences are our own: what is logged has none left.
    coloured: bool,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(one_line(line, self.coloured));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line that ends where it should and nowhere else, whatever is in it.
fn one_line(line: &[u8], coloured: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let mut out = Vec::with_capacity(line.len() + 1);
    for c in text.trim_end_matches('\n').chars() {
        if out.len() >= LINE_BYTES_MAX {
            out.extend_from_slice("…".as_bytes());
            break;
        }
        let ours = c == '\t' || (coloured && c == '\x1b');
        if c.is_control() && !ours {
            // As JSON has it, too.
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    out.push(b'\n');
    out
}

/// Where lines go.
struct Lines {
    queue: Arc<Queue>,
    coloured: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            queue: self.queue.clone(),
            coloured: self.coloured,
        }
    }
}

/// Starts logging, once for the process.
///
/// # Errors
/// The level is none, or there is no thread or descriptor for it.
pub fn start(log: &Log) -> io::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level))
        .map_err(|e| io::Error::other(format!("log.level: {e}")))?;
    let queue = QUEUE.get_or_init(Arc::default).clone();
    let coloured = io::stderr().is_terminal();
    // A descriptor of our own: a write that waits holds no lock that others need to end.
    let mut to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let limiter = Arc::new(Limiter::default());
    let lines = Lines {
        queue: queue.clone(),
        coloured,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(coloured);
    let layer = match log.format {
        LogFormat::Human => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    let limited = layer.with_filter(limiter::Limited(limiter.clone()));
    tracing_subscriber::registry()
        .with(filter)
        .with(limited)
        .try_init()
        .map_err(io::Error::other)?;
    std::thread::Builder::new()
        .name("log-lines".into())
        .spawn(move || write_lines(&queue, &limiter, &mut to))?;
    Ok(())
}

/// Says the last words of the process, after all lines; for who does not read them, it does not wait.
pub fn finish(last_words: Option<&str>) {
    match (QUEUE.get(), last_words) {
        (Some(queue), last_words) => {
            if let Some(text) = last_words {
                queue.push(format!("{text}\n").into_bytes());
            }
            queue.finish(FINISH);
        }
        (None, Some(text)) => drop(writeln!(io::stderr(), "{text}")),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let of = |text: &str, coloured| {
            String::from_utf8(one_line(text.as_bytes(), coloured)).expect("UTF-8")
        };
        assert_eq!(
            of("a\nb\r\u{85}c\u{7f}\n", false),
            "a\\u000ab\\u000d\\u0085c\\u007f\n"
        );
        assert_eq!(of("\x1b[31mä", false), "\\u001b[31mä\n");
        assert_eq!(of("\x1b[31mä", true), "\x1b[31mä\n");
        assert!(of(&"x".repeat(1 << 20), false).len() < LINE_BYTES_MAX + 10);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let queue = Queue::default();
        (0..LINES_MAX + 7).for_each(|_| queue.push(b"x\n".to_vec()));
        queue.finish(Duration::from_millis(1));
        let (lines, dropped) = queue.take();
        assert_eq!((lines.len(), dropped), (LINES_MAX, 7));
        assert!(queue.lock().writing);
        queue.written();
        queue.finish(Duration::from_secs(3600));
    }
}
