//! What the targets of the fuzzers do with their inputs. `fuzz_targets/` hands them to libFuzzer, and
//! `tests/fuzz_seeds.rs` runs the seeds through the same functions with the other tests.

pub mod config;
pub mod connection;
pub mod conversation;
pub mod definitions;
mod files;
pub mod frames;
pub mod handshake;
mod layout;
pub mod methods;
mod octets;
mod peer;
pub mod recovery;
pub mod tables;
mod work;

#[path = "../../benches/support/inbox.rs"]
mod inbox;
#[path = "../../benches/support/session.rs"]
mod session;

/// What a target does with an input: it panics if something is wrong.
pub type Target = fn(&[u8]);

/// Each target with its name, which is that of its folder in `seeds/`, too.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config::run),
    ("connection", connection::run),
    ("conversation", conversation::run),
    ("definitions", definitions::run),
    ("frames", frames::run),
    ("handshake", handshake::run),
    ("methods", methods::run),
    ("recovery", recovery::run),
    ("tables", tables::run),
];

/// What an input may take in memory at once: `at_rest` and `for_an_octet` of it.
fn within<T>(at_rest: u64, for_an_octet: u64, octets: usize, act: impl FnOnce() -> T) -> T {
    let mut done = None;
    let used = allocation_counter::measure(|| done = Some(act()));
    let most = at_rest + for_an_octet * octets as u64;
    assert!(
        used.bytes_max < most,
        "{} octets of memory for {octets}, of {most} at most",
        used.bytes_max
    );
    done.expect("it was done")
}

/// A file with this text, in memory where there is such a file system, for what reads files only. One for each
/// thread: it is written over.
fn file(text: &[u8]) -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    /// Removed with its thread.
    struct Scratch(std::path::PathBuf);
    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
    thread_local! {
        static SCRATCH: Scratch = Scratch(memory_folder().join(format!(
            "leveret-fuzz-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        )));
    }
    let path = SCRATCH.with(|scratch| scratch.0.clone());
    std::fs::write(&path, text).expect("a file");
    path
}

/// A folder in memory, if there is one.
fn memory_folder() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    }
}
