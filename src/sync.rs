//! The one kind of lock the broker uses.
//!
//! `std::sync::Mutex` is futex-based, needs no dependency and does not collapse under contention.
//! A release build aborts on a panic (recovery from the log is the answer), so a lock is never
//! found poisoned by a thread that others outlive; in tests the poison is passed on.
//!
//! Lock order, outermost first: turn of de-duplication → topology of a vhost → queue → inbox, channel credit,
//! returned copies → log staging.
//! No code holds two queue locks.

use std::sync::{Mutex as StdMutex, MutexGuard};

/// A mutex with a name that says what it protects.
#[derive(Debug)]
pub struct Mutex<T> {
    inner: StdMutex<T>,
    purpose: &'static str,
}

impl<T> Mutex<T> {
    /// A new mutex; `purpose` names what it protects, for messages.
    pub const fn new(purpose: &'static str, value: T) -> Mutex<T> {
        Mutex {
            inner: StdMutex::new(value),
            purpose,
        }
    }

    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.inner.lock() {
            Ok(guard) => guard,
            Err(_) => panic!(
                "a thread panicked while it held the lock of {}",
                self.purpose
            ),
        }
    }
}
