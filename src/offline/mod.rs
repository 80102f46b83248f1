//! What is done with a data folder while no broker uses it: `leveret check` and `leveret repair`.

mod check;
mod repair;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use self::check::check;
pub use self::repair::repair;
use crate::storage::{self, Examined, Fault, Progress};

/// So long may it take to open a copy of the definitions: a damaged sled may never come back.
const PROBED_WITHIN: Duration = Duration::from_secs(60);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(10);

/// A folder that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let (all, process) = (std::env::temp_dir(), std::process::id());
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        for n in 0..=u16::MAX {
            let path = all.join(format!("leveret-check-{process}-{n}"));
            match builder.create(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Scratch(path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => storage::files::copy(&entry.path(), &to)?,
        }
    }
    Ok(())
}

/// Whether the copy of sled's folder can be opened and read: asked of another process, as it may end by it.
fn probe(copy: &Path) -> io::Result<Result<(), String>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["check", "--definitions-only"])
        .arg(copy)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + PROBED_WITHIN;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(Ok(())),
            Some(_) => return Ok(Err("sled cannot open it".to_string())),
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                return Ok(Err("sled does not come to an end with it".to_string()));
            }
            None => std::thread::park_timeout(LOOKED_AT_EVERY),
        }
    }
}

/// Tells a terminal how far it is.
fn progress() -> Progress {
    let (shown, told) = (io::stderr().is_terminal(), AtomicU64::new(u64::MAX));
    Arc::new(move |read, total| {
        let percent = (read.saturating_mul(100) / total.max(1)).min(100);
        if shown && told.swap(percent, Ordering::Relaxed) != percent {
            let _ = write!(io::stderr(), "\r\x1b[Kreading the log: {percent} %");
        }
    })
}

/// Looks at all of a folder that is locked.
fn examine(dir: &Path) -> io::Result<Examined> {
    let scratch = Scratch::new()?;
    let copied = scratch.0.join("definitions");
    let folder = dir.join("definitions");
    let tree = match copy(&folder, &copied) {
        Ok(()) => probe(&copied)?.map(|()| Some(copied.as_path())),
        Err(_) if fs::symlink_metadata(&folder).is_err() => Ok(None),
        Err(e) => Err(e.to_string()),
    };
    let found = storage::examine(dir, tree, progress());
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    found
}

/// What is wrong, a line each, and what it costs.
fn tell(dir: &Path, found: &Examined) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for fault in &found.faults {
        let path = fault.path.strip_prefix(dir).unwrap_or(&fault.path);
        writeln!(out, "{}: {}", path.display(), said(fault))?;
        for (id, n) in &fault.by_queue {
            match found.queues.iter().find(|(known, ..)| known == id) {
                Some((_, vhost, name)) => {
                    writeln!(out, "    queue {name:?} of vhost {vhost:?}: {n} messages")?;
                }
                None => writeln!(out, "    a queue that is not defined: {n} messages")?,
            }
        }
    }
    Ok(())
}

fn said(fault: &Fault) -> String {
    let mut said = fault.what.clone();
    if let (Some(offset), Some(len)) = (fault.offset, fault.len) {
        said += &match len {
            0 => format!(" from byte {offset} on, where it ends"),
            len => format!(" at byte {offset}, {len} bytes"),
        };
        said += &match fault.messages {
            Some(n) => format!("; {n} messages lost at most"),
            None => "; what was in it is lost".to_string(),
        };
    }
    said
}
