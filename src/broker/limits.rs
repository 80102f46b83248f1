//! How much a user or a vhost may use: connections, channels, queues. RabbitMQ's `max-connections`,
//! `max-channels` and `max-queues`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// Something that is counted, and may have a limit.
#[derive(Debug)]
pub struct Quota {
    used: AtomicU64,
    max: AtomicU64,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota {
            used: AtomicU64::new(0),
            max: AtomicU64::new(u64::MAX),
        }
    }
}

impl Quota {
    /// Takes one.
    ///
    /// # Errors
    /// The limit, if it is reached.
    pub fn take(&self) -> Result<(), u64> {
        let max = self.max();
        if self.used.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(());
        }
        self.give_back(1);
        Err(max)
    }

    /// The limit, if it is reached.
    pub fn reached(&self) -> Option<u64> {
        let max = self.max();
        (self.used.load(Ordering::Relaxed) >= max).then_some(max)
    }

    /// Counts one, limit or not.
    pub fn add(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives some back.
    pub fn give_back(&self, n: u64) {
        self.used.fetch_sub(n, Ordering::Relaxed);
    }

    /// The limit; [`u64::MAX`]: none.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets the limit; below zero: none, as in RabbitMQ. What is used already may stay.
    pub fn limit(&self, max: i64) {
        let max = u64::try_from(max).unwrap_or(u64::MAX);
        self.max.store(max, Ordering::Relaxed);
    }
}

/// What one user, or one vhost, or all together use.
#[derive(Debug, Default)]
pub struct Account {
    /// Open connections.
    pub connections: Quota,
    /// Open channels; not of vhosts.
    pub channels: Quota,
    /// Queues; not of users.
    pub queues: Quota,
    /// Exchanges, with those that are always there; not of users.
    pub exchanges: Quota,
}

impl Account {
    fn of(&self, name: &str) -> Option<&Quota> {
        match name {
            "max-connections" => Some(&self.connections),
            "max-channels" => Some(&self.channels),
            "max-queues" => Some(&self.queues),
            _ => None,
        }
    }

    /// Sets the limit that RabbitMQ calls so; false if there is none of this name.
    pub fn set(&self, name: &str, max: i64) -> bool {
        let quota = self.of(name);
        quota.inspect(|quota| quota.limit(max)).is_some()
    }

    /// Whether there is a limit that RabbitMQ calls so.
    pub fn has(&self, name: &str) -> bool {
        self.of(name).is_some()
    }

    /// Takes all of these limits away.
    pub fn unlimit(&self) {
        for quota in [&self.connections, &self.channels, &self.queues] {
            quota.limit(-1);
        }
    }

    fn is_limited(&self) -> bool {
        let all = [&self.connections, &self.channels, &self.queues];
        all.iter().any(|quota| quota.max() != u64::MAX)
    }
}

/// The accounts of users, or of vhosts, by name.
#[derive(Debug, Default)]
pub struct Accounts(RwLock<HashMap<String, Arc<Account>>>);

impl Accounts {
    /// The account of this name.
    pub fn of(&self, name: &str) -> Arc<Account> {
        const UNPOISONED: &str = "a panic aborts the process";
        if let Some(account) = self.0.read().expect(UNPOISONED).get(name) {
            return account.clone();
        }
        let mut all = self.0.write().expect(UNPOISONED);
        all.entry(name.to_string()).or_default().clone()
    }

    /// The names of those that have limits.
    pub fn limited(&self) -> Vec<String> {
        let all = self.0.read().expect("a panic aborts the process");
        let limited = all.iter().filter(|(_, account)| account.is_limited());
        limited.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_refused_and_not_counted() {
        let accounts = Accounts::default();
        let account = accounts.of("u");
        assert!(account.set("max-channels", 2) && !account.set("max-fun", 2));
        let channels = &accounts.of("u").channels;
        assert_eq!(
            [(); 4].map(|()| channels.take()),
            [Ok(()), Ok(()), Err(2), Err(2)]
        );
        channels.give_back(1);
        assert_eq!([(); 2].map(|()| channels.take()), [Ok(()), Err(2)]);
        channels.limit(-1);
        assert_eq!(channels.take(), Ok(()));
        channels.limit(0);
        assert_eq!(channels.take(), Err(0));
        assert_eq!(accounts.of("v").channels.take(), Ok(()));
    }
}
