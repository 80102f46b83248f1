//! Users and what they may do.
//!
//! Permissions are three of Perl's regular expressions per user and vhost. They are searched, not anchored,
//! as in RabbitMQ, and match octets: `\w` and `\d` are ASCII. An empty one matches only the empty name.

mod pattern;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use self::pattern::Pattern;
pub use self::pattern::PatternError;

/// A user. The password hash is opaque here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Base64 of salt and hash; empty: no password works.
    pub password_hash: String,
    /// RabbitMQ's name of the algorithm.
    pub hashing_algorithm: String,
    /// `administrator`, `monitoring`, …
    pub tags: Vec<String>,
}

/// What an operation needs on a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permission {
    /// Create and delete.
    Configure,
    /// Put messages or bindings in.
    Write,
    /// Take messages or bindings out.
    Read,
}

impl Permission {
    /// As in reply texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Configure => "configure",
            Permission::Write => "write",
            Permission::Read => "read",
        }
    }
}

/// The permissions of a user in a vhost.
#[derive(Clone, Debug)]
pub struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

impl Permissions {
    /// Compiles the three patterns: configure, write, read.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Permissions, PatternError> {
        Ok(Permissions {
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }

    /// Whether `what` is allowed on a resource. The default exchange counts as `amq.default`.
    pub fn allows(&self, what: Permission, name: &[u8]) -> bool {
        let pattern = match what {
            Permission::Configure => &self.configure,
            Permission::Write => &self.write,
            Permission::Read => &self.read,
        };
        pattern.is_match(name)
    }
}

/// What a user may do on topic exchanges of a vhost, by routing key. On an exchange that is not
/// named here, everything that the [`Permissions`] allow.
#[derive(Clone, Debug, Default)]
pub struct TopicPermissions(HashMap<String, Permissions>);

impl TopicPermissions {
    /// Whether a routing key may be written to an exchange, or read from it by a binding.
    pub fn allows(&self, what: Permission, exchange: &str, routing_key: &[u8]) -> bool {
        let rule = self.0.get(exchange);
        rule.is_none_or(|p| p.allows(what, routing_key))
    }
}

type ByUserAndVhost<T> = RwLock<HashMap<(String, String), Arc<T>>>;

/// All users and permissions.
#[derive(Debug, Default)]
pub struct Access {
    users: RwLock<HashMap<String, Arc<User>>>,
    permissions: ByUserAndVhost<Permissions>,
    topics: ByUserAndVhost<TopicPermissions>,
    version: AtomicU64,
}

impl Access {
    /// Counts the changes; sessions compare it before they trust what they remember.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// A user by name.
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users
            .read()
            .expect("a panic aborts the process")
            .get(name)
            .cloned()
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.users
            .read()
            .expect("a panic aborts the process")
            .is_empty()
    }

    /// Adds or replaces a user.
    pub(super) fn put_user(&self, user: User) {
        let name = user.name.clone();
        self.users
            .write()
            .expect("a panic aborts the process")
            .insert(name, Arc::new(user));
        self.changed();
    }

    /// What a user may do in a vhost; `None`: not even enter it.
    pub fn permissions(&self, user: &str, vhost: &str) -> Option<Arc<Permissions>> {
        let all = self.permissions.read().expect("a panic aborts the process");
        all.get(&(user.to_string(), vhost.to_string())).cloned()
    }

    /// What a user may do on topic exchanges of a vhost; `None`: there are no such rules.
    pub fn topic_permissions(&self, user: &str, vhost: &str) -> Option<Arc<TopicPermissions>> {
        let all = self.topics.read().expect("a panic aborts the process");
        all.get(&(user.to_string(), vhost.to_string())).cloned()
    }

    /// Sets what a user may do on one topic exchange. `{username}` and `{vhost}` in a pattern stand
    /// for the names, as they are.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub(super) fn put_topic_permissions(
        &self,
        [user, vhost, exchange]: [&str; 3],
        [write, read]: [&str; 2],
    ) -> Result<(), PatternError> {
        let filled = |pattern: &str| {
            pattern
                .replace("{username}", user)
                .replace("{vhost}", vhost)
        };
        let rule = Permissions::new("", &filled(write), &filled(read))?;
        let mut all = self.topics.write().expect("a panic aborts the process");
        let rules = all.entry((user.to_string(), vhost.to_string()));
        Arc::make_mut(rules.or_default())
            .0
            .insert(exchange.to_string(), rule);
        drop(all);
        self.changed();
        Ok(())
    }

    /// Sets what a user may do in a vhost.
    pub(super) fn put_permissions(&self, user: &str, vhost: &str, permissions: Permissions) {
        let mut all = self
            .permissions
            .write()
            .expect("a panic aborts the process");
        all.insert((user.to_string(), vhost.to_string()), Arc::new(permissions));
        drop(all);
        self.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_searched_and_the_empty_one_matches_nothing() {
        let p = Permissions::new("^q-", "q", "").expect("valid");
        assert!(
            p.allows(Permission::Configure, b"q-1") && !p.allows(Permission::Configure, b"my-q-1")
        );
        assert!(p.allows(Permission::Write, b"my-q-1"));
        assert!(!p.allows(Permission::Read, b"q-1") && p.allows(Permission::Read, b""));
        assert!(Permissions::new("(", "", "").is_err());
    }

    #[test]
    fn patterns_match_octets() {
        let fits = |pattern: &str, name: &[u8]| {
            let p = Permissions::new("", pattern, "").expect("valid");
            p.allows(Permission::Write, name)
        };
        assert!(fits("^a.b$", b"a\xffb") && !fits("^a.b$", "aéb".as_bytes()));
        assert!(
            fits(r"^\\é$", "\\é".as_bytes()) && fits("^é?$", b"\xc3") && fits("^[é]$", b"\xa9")
        );
        assert!(fits("^(?=a)a.b$", b"a\xffb") && !fits("^(?=a)a.b$", "aéb".as_bytes()));
        assert!(fits("^(?=[é])[^a]$", b"\xa9") && !fits(r"(?=\w)", "é".as_bytes()));
    }

    #[test]
    fn topics_are_free_where_there_is_no_rule() {
        let access = Access::default();
        assert!(access.topic_permissions("u", "v").is_none());
        let put = |write| access.put_topic_permissions(["u", "v", "x"], [write, "^{vhost}$"]);
        assert!(put("(").is_err());
        put("^{username}\\.").expect("valid");
        let rules = access.topic_permissions("u", "v").expect("just put");
        assert!(rules.allows(Permission::Write, "x", b"u.a"));
        assert!(!rules.allows(Permission::Write, "x", b"a.u.a"));
        assert!(rules.allows(Permission::Read, "x", b"v"));
        assert!(rules.allows(Permission::Write, "y", b"a"));
        assert!(access.topic_permissions("u", "w").is_none());
    }
}
