//! Users and what they may do.
//!
//! Permissions are three regular expressions per user and vhost. They are searched, not anchored,
//! as in RabbitMQ; an empty one matches only the empty name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use regex::Regex;

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

#[derive(Clone, Debug)]
struct Pattern {
    regex: Regex,
    /// Matches everything, without asking.
    all: bool,
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern, regex::Error> {
        let regex = Regex::new(if text.is_empty() { "^$" } else { text })?;
        Ok(Pattern {
            regex,
            all: matches!(text, ".*" | "^.*$" | "^.*"),
        })
    }
}

impl Permissions {
    /// Compiles the three patterns: configure, write, read.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Permissions, regex::Error> {
        Ok(Permissions {
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }

    /// Whether `what` is allowed on a resource. The default exchange counts as `amq.default`.
    pub fn allows(&self, what: Permission, name: &str) -> bool {
        let pattern = match what {
            Permission::Configure => &self.configure,
            Permission::Write => &self.write,
            Permission::Read => &self.read,
        };
        pattern.all || pattern.regex.is_match(name)
    }
}

/// All users and permissions.
#[derive(Debug, Default)]
pub struct Access {
    users: RwLock<HashMap<String, Arc<User>>>,
    permissions: RwLock<HashMap<(String, String), Arc<Permissions>>>,
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
            p.allows(Permission::Configure, "q-1") && !p.allows(Permission::Configure, "my-q-1")
        );
        assert!(p.allows(Permission::Write, "my-q-1"));
        assert!(!p.allows(Permission::Read, "q-1") && p.allows(Permission::Read, ""));
        assert!(Permissions::new("(", "", "").is_err());
    }
}
