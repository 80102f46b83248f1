//! Checking logins against the broker's users.

use std::sync::Arc;

use crate::amqp::settings::{Authenticator, Login, Refused};
use crate::broker::Broker;
use crate::password;

/// The internal users.
pub(super) struct InternalUsers {
    pub(super) broker: Arc<Broker>,
    pub(super) loopback_users: Vec<String>,
}

impl Authenticator for InternalUsers {
    fn authenticate(&self, login: &Login<'_>) -> Result<(), Refused> {
        let user = self.broker.access().user(login.user);
        let user = user.ok_or_else(|| Refused(format!("user '{}' does not exist", login.user)))?;
        if let Some(password) = login.password
            && !password::verify(password, &user.password_hash, &user.hashing_algorithm)
        {
            return Err(Refused(format!("wrong password for user '{}'", login.user)));
        }
        let local = login
            .peer
            .is_none_or(|peer| peer.ip().to_canonical().is_loopback());
        if !local && self.loopback_users.iter().any(|u| u == login.user) {
            return Err(Refused(format!(
                "user '{}' can only connect via localhost",
                login.user
            )));
        }
        Ok(())
    }
}
