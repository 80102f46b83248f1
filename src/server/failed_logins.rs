//! Who has failed to log in lately: whoever connects from there next is kept waiting before anything is read.
//!
//! A right password waits as a wrong one does: who guesses would else not wait for the answer. How long depends
//! on what failed within the last minutes and has a limit, so one client with an old password costs those
//! behind the same address time, and never their login.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::Protocol;
use crate::sync::Mutex;

/// One failure is forgotten in this time, milliseconds.
const FORGET_MS: u64 = 6_000;

/// What the first failure that counts costs, milliseconds; each further one costs twice as much.
const FIRST_DELAY_MS: u64 = 100;

/// Failures that are remembered above those that cost nothing. More cost no more, and all are forgotten within a minute.
const COUNTED_MAX: u64 = 10;

/// Addresses that are remembered. Where there are more, those that failed least are not: who comes from
/// ever new ones takes no place from him who does not.
const ADDRESSES_MAX: usize = 4096;

/// See the module.
pub(super) struct FailedLogins {
    /// `protocol.failed_logins_free`.
    free: u64,
    /// `protocol.failed_login_delay_ms`.
    delay_ms_max: u64,
    /// When the last failure from there will be forgotten, unix milliseconds. It says how many there are, too.
    forgotten_at: Mutex<HashMap<IpAddr, u64>>,
}

impl FailedLogins {
    pub(super) fn new(protocol: &Protocol) -> FailedLogins {
        FailedLogins {
            free: protocol.failed_logins_free.into(),
            delay_ms_max: protocol.failed_login_delay_ms,
            forgotten_at: Mutex::new("failed logins", HashMap::new()),
        }
    }

    /// A login from there failed. The address is that of a site, see `admission`.
    pub(super) fn note(&self, address: IpAddr, now: u64) {
        if self.delay_ms_max == 0 {
            return;
        }
        let mut all = self.forgotten_at.lock();
        if let Some(at) = all.get_mut(&address) {
            let most = now + (self.free + COUNTED_MAX) * FORGET_MS;
            *at = ((*at).max(now) + FORGET_MS).min(most);
            return;
        }
        let at = now + FORGET_MS;
        if all.len() >= ADDRESSES_MAX {
            all.retain(|_, at| *at > now);
        }
        if all.len() >= ADDRESSES_MAX {
            let least = all.iter().min_by_key(|(_, at)| **at);
            match least.map(|(address, at)| (*address, *at)) {
                Some((least, failed_at)) if failed_at <= at => all.remove(&least),
                _ => return,
            };
        }
        all.insert(address, at);
    }

    /// Milliseconds that a connection from there waits.
    pub(super) fn delay_ms(&self, address: IpAddr, now: u64) -> u64 {
        let at = self.forgotten_at.lock().get(&address).copied();
        let failures = at.unwrap_or(0).saturating_sub(now).div_ceil(FORGET_MS);
        match failures.checked_sub(self.free) {
            None | Some(0) => 0,
            Some(counted) => (FIRST_DELAY_MS << (counted - 1)).min(self.delay_ms_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn configured(free: u32, delay_ms: u64) -> FailedLogins {
        FailedLogins::new(&Protocol {
            failed_logins_free: free,
            failed_login_delay_ms: delay_ms,
            ..Protocol::default()
        })
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn each_failure_above_what_is_free_costs_twice_as_much() {
        let (f, one) = (configured(3, 1000), address(1));
        let mut delays = Vec::new();
        for _ in 0..8 {
            f.note(one, NOW);
            delays.push(f.delay_ms(one, NOW));
        }
        assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1000]);
        assert_eq!(f.delay_ms(address(2), NOW), 0);
    }

    /// However often it failed: a minute later, and what is free, all of it is forgotten.
    #[test]
    fn failures_are_forgotten() {
        let (f, one) = (configured(3, 1000), address(1));
        (0..100_000).for_each(|_| f.note(one, NOW));
        let longest = COUNTED_MAX * FORGET_MS;
        assert_eq!(f.delay_ms(one, NOW + longest - 1), 100);
        assert_eq!(f.delay_ms(one, NOW + longest), 0);
        // One at a time is never too often.
        for n in 0..100 {
            let now = NOW + longest + 3 * FORGET_MS + n * FORGET_MS;
            f.note(one, now);
            assert_eq!(f.delay_ms(one, now), 0);
        }
    }

    #[test]
    fn none_is_slowed_where_it_is_switched_off() {
        let (f, one) = (configured(0, 0), address(1));
        f.note(one, NOW);
        assert_eq!((f.delay_ms(one, NOW), f.forgotten_at.lock().len()), (0, 0));
    }

    #[test]
    fn addresses_that_come_and_go_push_nobody_out() {
        let (f, one) = (configured(1, 1000), address(0));
        (0..5).for_each(|_| f.note(one, NOW));
        for n in 1..20_000 {
            f.note(address(n), NOW);
        }
        assert_eq!(f.delay_ms(one, NOW), 800);
        assert_eq!(f.forgotten_at.lock().len(), ADDRESSES_MAX);
        // Those that failed least, and first, made room.
        let late = address(30_000);
        f.note(late, NOW + 1);
        f.note(late, NOW + 1);
        assert_eq!(f.delay_ms(late, NOW + 1), 100);
        // What all of them have failed more often than, is not remembered; what is over makes room.
        let f = configured(1, 1000);
        for n in 0..2 * ADDRESSES_MAX as u32 {
            f.note(address(n % ADDRESSES_MAX as u32), NOW);
        }
        f.note(late, NOW);
        assert!(!f.forgotten_at.lock().contains_key(&late));
        f.note(late, NOW + 2 * FORGET_MS);
        assert_eq!(f.forgotten_at.lock().len(), 1);
    }
}
