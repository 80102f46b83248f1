//! Ctrl-C ends the load in order: with the report, and without the queues that were made for it.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

use super::load::Shared;

/// What a shell says of a process that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// From now on SIGINT and SIGTERM stop the load. The second one ends the process.
///
/// # Errors
/// There is no thread, or no signal to wait for.
pub fn heed(shared: &Arc<Shared>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        (signal(SignalKind::interrupt())?, terminate)
    };
    let shared = shared.clone();
    thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            for second in [false, true] {
                select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if second {
                    std::process::exit(INTERRUPTED);
                }
                shared.stop();
            }
        });
    })?;
    Ok(())
}
