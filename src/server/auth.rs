//! Who gets in: logins against the broker's users, and what an operator should know about them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::admission::counted;
use super::failed_logins::FailedLogins;
use crate::amqp::settings::{Authenticator, Login, Refused};
use crate::broker::Broker;
use crate::clock;
use crate::config::{Config, Defaults};
use crate::password;

/// How many logins there were.
#[derive(Default)]
pub(super) struct Logins {
    pub(super) good: AtomicU64,
    pub(super) bad: AtomicU64,
}

/// The internal users.
pub(super) struct InternalUsers {
    pub(super) broker: Arc<Broker>,
    pub(super) loopback_users: Vec<String>,
    pub(super) logins: Arc<Logins>,
    pub(super) failed: Arc<FailedLogins>,
}

impl Authenticator for InternalUsers {
    fn authenticate(&self, login: &Login<'_>) -> Result<(), Refused> {
        let checked = self.check(login);
        let count = match checked {
            Ok(()) => &self.logins.good,
            Err(_) => &self.logins.bad,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let (Err(_), Some(peer)) = (&checked, login.peer) {
            self.failed.note(counted(peer.ip()), clock::now());
        }
        checked
    }
}

impl InternalUsers {
    fn check(&self, login: &Login<'_>) -> Result<(), Refused> {
        let user = self.broker.access().user(login.user);
        let user = user.ok_or_else(|| Refused("there is no such user".into()))?;
        if let Some(password) = login.password {
            // Whatever is stored: who forgot to set a password has not meant everybody.
            if password.is_empty() {
                return Err(Refused("an empty password never logs in".into()));
            }
            if !password::verify(password, &user.password_hash, &user.hashing_algorithm) {
                return Err(Refused("wrong password".into()));
            }
        }
        if !is_local(login.peer) && self.loopback_users.iter().any(|u| u == login.user) {
            return Err(Refused("can only connect via localhost".into()));
        }
        Ok(())
    }
}

/// Whether a peer is on this machine. One without an address is in this process.
fn is_local(peer: Option<SocketAddr>) -> bool {
    peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback())
}

/// Tells what the configuration says of the first user and vhost and is not so, because they are for an
/// empty broker only: in a container, variables that were added later.
pub(super) fn tell_differences(broker: &Broker, config: &Config) {
    let (d, unchanged) = (&config.defaults, Defaults::default());
    let no_effect = "the default user and vhost are made by an empty broker only; \
                     use a definitions file (load_definitions) to change them";
    match broker.access().user(&d.user) {
        None if d.user != unchanged.user => {
            tracing::warn!(user = d.user, "the default user is not there: {no_effect}");
        }
        Some(user)
            if d.pass != unchanged.pass
                && !password::verify(
                    d.pass.as_bytes(),
                    &user.password_hash,
                    &user.hashing_algorithm,
                ) =>
        {
            tracing::warn!(
                user = d.user,
                "the default user has another password than configured: {no_effect}"
            );
        }
        _ => {}
    }
    if d.vhost != unchanged.vhost && broker.vhost(&d.vhost).is_none() {
        tracing::warn!(
            vhost = d.vhost,
            "the default vhost is not there: {no_effect}"
        );
    }
    let listeners = config.listeners.amqp.iter().chain(&config.listeners.amqps);
    let reachable = { listeners }.any(|a| !a.ip().to_canonical().is_loopback());
    if reachable && d.loopback_users.contains(&d.user) {
        tracing::warn!(
            user = d.user,
            "the default user can only connect via localhost (defaults.loopback_users)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::User;
    use crate::storage::memory::MemoryLog;

    #[test]
    fn who_gets_in_has_a_password_and_comes_from_where_the_user_may() {
        let (broker, _) = Broker::new(MemoryLog::new(), &[]);
        for (name, password) in [("guest", "secret"), ("empty", "")] {
            let user = User {
                name: name.into(),
                password_hash: password::hash(password.as_bytes()),
                hashing_algorithm: password::SHA256.into(),
                tags: Vec::new(),
            };
            broker.put_user(user).expect("written");
        }
        let users = InternalUsers {
            broker: Arc::new(broker),
            loopback_users: vec!["guest".into()],
            logins: Arc::default(),
            failed: Arc::new(FailedLogins::new(&Config::default().protocol)),
        };
        let login = |user, password: Option<&[u8]>, address: [u8; 4]| {
            let peer = Some(SocketAddr::from((address, 1)));
            let login = Login {
                user,
                password,
                peer,
            };
            users.authenticate(&login).is_ok()
        };
        let (here, there) = ([127, 0, 0, 1], [192, 0, 2, 1]);
        assert!(login("guest", Some(b"secret"), here));
        assert!(login("guest", None, here), "by a certificate");
        assert!(!login("guest", Some(b"secret"), there));
        assert!(!login("guest", None, there));
        assert!(!login("guest", Some(b"wrong"), here));
        assert!(!login("nobody", None, here));
        assert!(login("empty", None, there));
        assert!(
            !login("empty", Some(b""), here),
            "an empty one never logs in"
        );
    }
}
