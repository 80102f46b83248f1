//! The signals that the process obeys.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Received from when this is made, also while nobody asks.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Of a file that is too large, which would end the process: the write that meets the limit says so itself.
    _file_size: Signal,
}

impl Signals {
    /// Receives them.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn receive() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next one that asks to stop.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the next one. True: it asks to stop, false: to read certificates again.
    pub(super) async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }
}
