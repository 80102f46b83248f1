//! The thread that works off dead letters that wait, and how it waits for the disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::broker::batch::Batch;
use crate::broker::ports::Bell;
use crate::clock;

/// Calls whoever works off dead letters.
pub(super) struct Call(pub(super) Sender<()>);

impl Bell for Call {
    fn ring(&self) {
        let _ = self.0.send(());
    }
}

/// Works off dead letters when it is called to, a turn at a time. What is left when the server stops is in
/// the log, where it was. While the disk is behind, `bell` calls for the next turn when it has caught
/// up with the last one.
pub(super) fn run(
    broker: &Broker,
    calls: &Receiver<()>,
    bell: &Arc<dyn Bell>,
    stop: &CancellationToken,
) {
    let mut batch = Batch::default();
    while calls.recv().is_ok() {
        while !stop.is_cancelled() {
            match broker.work_off(&mut batch, clock::now()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return,
            }
            if broker.dead_letters_wait_for_disk() {
                let log = broker.log();
                log.ring_at(log.staged(), bell);
                break;
            }
        }
        broker.memory().report();
    }
}

#[cfg(test)]
mod tests;
