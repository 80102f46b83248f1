//! What the store has, read back when the broker starts.
//!
//! Nothing that is stored keeps the broker from starting. What this version cannot read stays in the
//! store as it is, is reported, and is not written over; the messages of a queue that cannot be read are
//! kept, and no queue is given its number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::access::{Permissions, User};
use super::arguments::QueueType;
use super::codec::{DefinitionError, fields, key_parts};
use super::definitions::{self, StoredBinding, StoredQueue};
use super::node::{Broker, DEFAULT_QUEUE_TYPE, Skipped};
use super::ports::{Definition, DefinitionChange, DefinitionKind, QueueId, Records};
use super::vhost::Vhost;
use super::{deduplication, routing_keys};
use crate::protocol::field_table::{FieldTable, FieldValue};

/// What to do about a queue or exchange that cannot be read.
const WAY_OUT: &str = "it stays in the store; a version of Leveret that can read it serves it again, \
                       deleting it gives it up";

/// Numbers of queues that are passed over when one cannot be read that says how far they were used.
const NUMBERS_PASSED_OVER: u64 = 1 << 32;

/// A definition as it is shown: kind and name.
fn shown(kind: DefinitionKind, key: &[u8]) -> String {
    let name = match key_parts(key) {
        // The rest of a binding's key is its arguments.
        Ok(parts) => parts.into_iter().take(5).collect::<Vec<_>>().join(" "),
        Err(_) => format!("with the key {}", key.escape_ascii()),
    };
    format!("{kind:?} {name}")
}

fn text(t: &FieldTable, name: &str) -> String {
    let value = t.get(name).and_then(FieldValue::as_str);
    value.unwrap_or("").to_string()
}

fn missing(what: &str) -> DefinitionError {
    DefinitionError(format!("its {what} is not defined"))
}

impl Broker {
    /// Takes what the store has; returns what cannot be read or served as it is written.
    pub(super) fn restore_all(&self, stored: &[Definition]) -> Vec<Skipped> {
        let mut skipped = Vec::new();
        // In this order, whatever refers to something comes after it.
        let order = [
            DefinitionKind::Meta,
            DefinitionKind::Vhost,
            DefinitionKind::User,
            DefinitionKind::Permission,
            DefinitionKind::TopicPermission,
            DefinitionKind::Exchange,
            DefinitionKind::Queue,
            DefinitionKind::Binding,
            DefinitionKind::Parameter,
        ];
        for kind in order {
            for (_, key, value) in stored.iter().filter(|(k, ..)| *k == kind) {
                if let Err(error) = self.restore(kind, key, value, &mut skipped) {
                    skipped.push((shown(kind, key), error));
                }
            }
        }
        let mut others: BTreeMap<u8, usize> = BTreeMap::new();
        for (kind, ..) in stored {
            if let DefinitionKind::Other(number) = kind {
                *others.entry(*number).or_default() += 1;
            }
        }
        // A later version may have counted there.
        self.kept.lock().uncounted |= !others.is_empty();
        for (number, n) in others {
            let why =
                format!("{n} of a kind that this version does not know; they stay as they are");
            skipped.push((
                format!("definitions of kind {number}"),
                DefinitionError(why),
            ));
        }
        if self.kept.lock().uncounted {
            self.next_queue_id
                .fetch_add(NUMBERS_PASSED_OVER, Ordering::Relaxed);
        }
        self.restore_windows(stored, &mut skipped);
        let returned = stored
            .iter()
            .filter(|(k, ..)| *k == DefinitionKind::Returned);
        self.returned().read(
            returned.map(|(_, key, value)| (key.as_slice(), value.as_slice())),
            |error| skipped.push(("what is known of returned copies".into(), error)),
        );
        skipped
    }

    /// Fills the de-duplication windows. Entries whose exchange or queue was deleted while they were on
    /// their way to the log are removed.
    fn restore_windows(&self, stored: &[Definition], skipped: &mut Vec<Skipped>) {
        let mut windows = HashMap::new();
        for vhost in self.vhosts() {
            let exchanges = vhost.exchanges();
            let queues = vhost.queues();
            let all = exchanges
                .iter()
                .filter_map(|x| x.window())
                .chain(queues.iter().filter_map(|q| q.window()));
            windows.extend(all.map(|w| (w.id(), w.clone())));
        }
        let mut records = Records::default();
        let entries = stored.iter();
        for (kind, key, value) in entries.filter(|(k, ..)| *k == DefinitionKind::Deduplication) {
            let restored = deduplication::owner(key).and_then(|id| match windows.get(&id) {
                Some(window) => window.restore(value),
                None if self.kept.lock().keeps(QueueId(id)) => Ok(()),
                None => {
                    records.definitions.push(DefinitionChange {
                        kind: *kind,
                        key: key.clone(),
                        value: None,
                    });
                    Ok(())
                }
            });
            if let Err(error) = restored {
                skipped.push(("an entry of a de-duplication window".into(), error));
            }
        }
        if !records.is_empty() {
            // If the log fails now, the first publish will say so.
            let _ = self.log.append(&mut records);
        }
    }

    fn restore(
        &self,
        kind: DefinitionKind,
        key: &[u8],
        value: &[u8],
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), DefinitionError> {
        match kind {
            DefinitionKind::Meta => {
                let next = fields(value).and_then(|t| {
                    let next = t.get("next").and_then(FieldValue::as_integer);
                    let next = next.and_then(|n| u64::try_from(n).ok());
                    next.ok_or_else(|| DefinitionError("it has no number".into()))
                });
                self.kept.lock().uncounted |= next.is_err();
                self.next_queue_id.fetch_max(next?, Ordering::Relaxed);
            }
            DefinitionKind::Vhost => {
                let name = key_parts(key)?.concat();
                self.insert_vhost(&name);
                // What a later version wrote beside it is not missed.
                let t = fields(value)?;
                if let (Some(vhost), Some(kind)) = (self.vhost(&name), t.get(DEFAULT_QUEUE_TYPE)) {
                    let kind = kind.as_str().and_then(QueueType::named);
                    let kind = kind.ok_or_else(|| missing(DEFAULT_QUEUE_TYPE))?;
                    vhost.set_default_queue_type(kind);
                }
            }
            DefinitionKind::User => {
                let t = fields(value)?;
                self.access.put_user(User {
                    name: key_parts(key)?.concat(),
                    password_hash: text(&t, "password_hash"),
                    hashing_algorithm: text(&t, "hashing_algorithm"),
                    tags: routing_keys::string_array(Some(&t), "tags"),
                });
            }
            DefinitionKind::Permission => {
                let [user, vhost] =
                    <[String; 2]>::try_from(key_parts(key)?).map_err(|_| missing("key"))?;
                let t = fields(value)?;
                let permissions = Permissions::new(
                    &text(&t, "configure"),
                    &text(&t, "write"),
                    &text(&t, "read"),
                )
                .map_err(|e| DefinitionError(e.to_string()))?;
                self.access.put_permissions(&user, &vhost, permissions);
            }
            DefinitionKind::TopicPermission => {
                let [user, vhost, exchange] =
                    <[String; 3]>::try_from(key_parts(key)?).map_err(|_| missing("key"))?;
                let t = fields(value)?;
                self.access
                    .put_topic_permissions(
                        [&user, &vhost, &exchange],
                        [&text(&t, "write"), &text(&t, "read")],
                    )
                    .map_err(|e| DefinitionError(e.to_string()))?;
            }
            DefinitionKind::Exchange => self.restore_exchange(key, value, skipped)?,
            DefinitionKind::Queue => self.restore_queue(key, value, skipped)?,
            DefinitionKind::Binding => {
                let (vhost, stored) = StoredBinding::read(key, value)?;
                let vhost = self.vhost(&vhost).ok_or_else(|| missing("vhost"))?;
                if !vhost.restore_binding(&stored) && !vhost.set_binding_aside(&stored, key) {
                    return Err(missing("source or destination"));
                }
            }
            DefinitionKind::Parameter => {
                let [component, name] =
                    <[String; 2]>::try_from(key_parts(key)?).map_err(|_| missing("key"))?;
                let account = self.account(&component, &name);
                let account = account.ok_or_else(|| missing("component"))?;
                for (limit, max) in fields(value)?.iter() {
                    account.set(
                        limit.to_str().unwrap_or_default(),
                        max.as_integer().unwrap_or(-1),
                    );
                }
            }
            // The first two are read with what they belong to.
            DefinitionKind::Deduplication | DefinitionKind::Returned | DefinitionKind::Other(_) => {
            }
        }
        Ok(())
    }

    /// The vhost of something that is stored. One that is missing is made: what was lost is its own
    /// definition, and what is in it is to be served.
    fn vhost_of(
        &self,
        key: &[u8],
        skipped: &mut Vec<Skipped>,
    ) -> Result<Arc<Vhost>, DefinitionError> {
        let name = key_parts(key)?.into_iter().next();
        let name = name.ok_or_else(|| missing("vhost"))?;
        if self.vhost(&name).is_none() {
            skipped.push((
                format!("Vhost {name}"),
                DefinitionError("its definition is lost; it is served for what is in it".into()),
            ));
            self.insert_vhost(&name);
        }
        self.vhost(&name).ok_or_else(|| missing("vhost"))
    }

    fn restore_exchange(
        &self,
        key: &[u8],
        value: &[u8],
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), DefinitionError> {
        match definitions::read_exchange(key, value) {
            Ok((_, info)) => {
                self.note_number(info.id);
                self.vhost_of(key, skipped)?.restore_exchange(info);
                Ok(())
            }
            Err(why) => {
                // Its window has a number, too.
                self.kept.lock().lose_number();
                self.set_aside(false, key, &why, skipped)
            }
        }
    }

    fn restore_queue(
        &self,
        key: &[u8],
        value: &[u8],
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), DefinitionError> {
        let stored = match StoredQueue::read(key, value) {
            Ok((_, stored)) => stored,
            Err(why) => {
                self.kept.lock().lose_number();
                return self.set_aside(true, key, &why, skipped);
            }
        };
        self.note_number(stored.id);
        let (id, vhost) = (stored.id, self.vhost_of(key, skipped)?);
        if let Some(exchange) = stored.delays.as_deref()
            && vhost.exchange(exchange).is_none()
        {
            self.kept.lock().ids.insert(id);
            let why = "the exchange whose delayed messages wait in it is not there";
            vhost.set_aside(false, exchange, why, DefinitionKind::Queue, key);
            return Err(DefinitionError(format!("{why}; {WAY_OUT}")));
        }
        let restored = vhost.restore_queue(stored, |e| {
            let why = format!(
                "{} does not do and is left out: {:?}",
                e.argument, e.problem
            );
            skipped.push((shown(DefinitionKind::Queue, key), DefinitionError(why)));
        });
        if let Err(e) = restored {
            self.kept.lock().ids.insert(id);
            let why = DefinitionError(format!("{}: {:?}", e.argument, e.problem));
            return self.set_aside(true, key, &why, skipped);
        }
        Ok(())
    }

    /// A queue or exchange has this number, so that no other one gets it.
    fn note_number(&self, id: u64) {
        self.next_queue_id
            .fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }

    fn set_aside(
        &self,
        queue: bool,
        key: &[u8],
        why: &DefinitionError,
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), DefinitionError> {
        let kind = match queue {
            true => DefinitionKind::Queue,
            false => DefinitionKind::Exchange,
        };
        if let Some(name) = key_parts(key)?.get(1) {
            let vhost = self.vhost_of(key, skipped)?;
            vhost.set_aside(queue, name, &why.0, kind, key);
        }
        Err(DefinitionError(format!("{why}; {WAY_OUT}")))
    }
}

#[cfg(test)]
mod tests;
