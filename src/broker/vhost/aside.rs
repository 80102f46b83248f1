//! Queues and exchanges of the store that this version cannot serve.
//!
//! They stay in the store as they are, a queue with its messages, for a version that can. Until then
//! nobody can declare the name anew, which would write over them; deleting it gives them up.

use super::*;
use crate::broker::ports::DefinitionChange;

/// What there is of one.
#[derive(Debug, Default)]
struct Aside {
    why: String,
    /// Its definition, and those that refer to it.
    definitions: Vec<(DefinitionKind, Vec<u8>)>,
}

/// By name: queues, and exchanges.
pub(super) struct SetAside(Mutex<HashMap<(bool, Box<str>), Aside>>);

impl Default for SetAside {
    fn default() -> SetAside {
        SetAside(Mutex::new("what was set aside", HashMap::new()))
    }
}

impl Vhost {
    /// Sets a queue or an exchange aside.
    pub(in crate::broker) fn set_aside(
        &self,
        queue: bool,
        name: &str,
        why: &str,
        kind: DefinitionKind,
        key: &[u8],
    ) {
        let mut all = self.aside.0.lock();
        let aside = all.entry((queue, name.into())).or_default();
        if aside.why.is_empty() {
            aside.why = why.to_string();
        }
        aside.definitions.push((kind, key.to_vec()));
    }

    /// Keeps a binding with what was set aside; false if neither of its ends was.
    pub(in crate::broker) fn set_binding_aside(&self, stored: &StoredBinding, key: &[u8]) -> bool {
        let mut all = self.aside.0.lock();
        let mut found = false;
        for end in [
            (false, stored.source.as_str().into()),
            (stored.to_queue, stored.destination.as_str().into()),
        ] {
            if let Some(aside) = all.get_mut(&end) {
                let name = (DefinitionKind::Binding, key.to_vec());
                aside.definitions.push(name);
                found = true;
            }
        }
        found
    }

    /// Whether nothing of this name was set aside.
    pub(super) fn not_aside(&self, queue: bool, name: &str) -> Result<(), TopologyError> {
        match self.aside.0.lock().get(&(queue, name.into())) {
            Some(aside) => Err(TopologyError::SetAside {
                queue,
                name: name.into(),
                why: aside.why.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Deletes what was set aside under this name from the store. Its messages go at the next start.
    ///
    /// # Errors
    /// `LogFailed`
    pub fn give_up(&self, queue: bool, name: &str) -> Result<Lsn, TopologyError> {
        self.give_up_under(&mut self.links.lock(), queue, name)
    }

    pub(super) fn give_up_under(
        &self,
        links: &mut Links,
        queue: bool,
        name: &str,
    ) -> Result<Lsn, TopologyError> {
        let Some(aside) = self.aside.0.lock().remove(&(queue, name.into())) else {
            return Ok(Lsn::default());
        };
        let mut records = Records::default();
        let removed = aside.definitions.into_iter().map(|(kind, key)| {
            let value = None;
            DefinitionChange { kind, key, value }
        });
        records.definitions.extend(removed);
        self.append(links, &mut records)
    }
}
