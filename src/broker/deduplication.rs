//! De-duplication: a message whose `x-deduplication-header` came before goes no further.
//!
//! An exchange or a queue that was declared with `x-message-deduplication` has a window: the latest
//! `x-cache-size` different values of the header, each for `x-cache-ttl` milliseconds (or what the
//! message's own `x-cache-ttl` header says). A publish with a value in the window is a duplicate. It is
//! confirmed, once the first one is as safe as it will be; it is neither routed on nor returned. A
//! message without the header passes. What clients publish is looked at, once; a dead letter, or a
//! delayed message whose time has come, is not looked at again.
//!
//! The windows of durable exchanges and queues survive a restart: an entry is a definition, in the
//! same record of the log as the message it came with.
//!
//! All publishes that windows look at take turns, from the look to the append: when a duplicate is
//! found, the first one is in the log, and its confirm waits for what is.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::arguments::{DeduplicationSettings, millis};
use super::codec::{self, DefinitionError};
use super::memory::{Charge, Memory, Use};
use super::ports::{DefinitionChange, DefinitionKind};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::PropertiesRef;
use crate::sync::Mutex;

const KIND: DefinitionKind = DefinitionKind::Deduplication;

/// Stands for a value of the header: 128 bits of its SHA-256, which nobody can make collide.
type Fingerprint = [u8; 16];

/// What is to be known of a value.
fn fingerprint(value: &FieldValue) -> Fingerprint {
    let mut field = FieldTable::new();
    field.insert("", value.clone());
    let hash = Sha256::digest(field.to_bytes());
    let mut out = Fingerprint::default();
    out.copy_from_slice(&hash[..16]);
    out
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Values are numbered as they come; the place is the number modulo the size.
    number: u64,
    value: Fingerprint,
    /// Unix milliseconds; zero: never.
    expires_at: u64,
}

#[derive(Debug, Default)]
struct Slots {
    ring: Vec<Option<Slot>>,
    by_value: HashMap<Fingerprint, usize>,
    next: u64,
    charge: Charge,
}

impl Slots {
    /// Counts what it takes.
    fn count(&mut self) {
        const PLACE: usize = size_of::<Option<Slot>>();
        // A map has a byte beside each of its entries, and room for an eighth more.
        const ENTRY: usize = size_of::<(Fingerprint, usize)>() + 1;
        let entries = self.by_value.capacity() + self.by_value.capacity() / 7;
        let bytes = self.ring.capacity() * PLACE + entries * ENTRY;
        self.charge.set(bytes as u64);
    }
}

/// The values that came last. See the module.
#[derive(Debug)]
pub struct Window {
    /// Its name in the store.
    id: u64,
    durable: bool,
    settings: DeduplicationSettings,
    slots: Mutex<Slots>,
}

impl Window {
    /// An empty window, which counts in `memory`; `id` names it in the store if it is durable.
    pub fn new(
        id: u64,
        durable: bool,
        settings: DeduplicationSettings,
        memory: &Memory,
    ) -> Arc<Window> {
        let slots = Slots {
            charge: memory.charge(Use::Deduplication),
            ..Slots::default()
        };
        Arc::new(Window {
            id,
            durable,
            settings,
            slots: Mutex::new("a de-duplication window", slots),
        })
    }

    /// Its name in the store.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Notes a message with these headers, if it is the first of its kind. `now` is unix milliseconds.
    fn admit(&self, headers: &FieldTable, now: u64) -> Verdict {
        let Some(value) = headers.get(&self.settings.header) else {
            return Verdict::NotAsked;
        };
        let own = headers.get("x-cache-ttl").and_then(|v| millis(v).ok());
        let expires_at = own
            .or(self.settings.ttl)
            .map_or(0, |ttl| now.saturating_add(ttl).max(1));
        let value = fingerprint(value);
        let mut slots = self.slots.lock();
        let known = slots.by_value.get(&value).and_then(|at| slots.ring[*at]);
        if known.is_some_and(|s| s.expires_at == 0 || now < s.expires_at) {
            return Verdict::Duplicate;
        }
        let slot = Slot {
            number: slots.next,
            value,
            expires_at,
        };
        self.put(&mut slots, slot);
        Verdict::First(slot)
    }

    /// What the store has to know of an entry.
    fn change(&self, slot: &Slot) -> Option<DefinitionChange> {
        let mut t = FieldTable::new();
        t.insert("number", slot.number as i64);
        t.insert("value", FieldValue::Bytes(slot.value.to_vec()));
        t.insert("expires_at", slot.expires_at as i64);
        let key = self.key(self.place(slot));
        self.durable
            .then(|| codec::put(KIND, &[&key.0, &key.1], &t))
    }

    /// Forgets an entry that is not in the store yet.
    fn take_back(&self, slot: &Slot) {
        let mut slots = self.slots.lock();
        let place = self.place(slot);
        if slots.ring[place].is_some_and(|s| s.number == slot.number) {
            slots.ring[place] = None;
            slots.by_value.remove(&slot.value);
        }
    }

    fn place(&self, slot: &Slot) -> usize {
        (slot.number % self.settings.size as u64) as usize
    }

    fn put(&self, slots: &mut Slots, slot: Slot) {
        let place = self.place(&slot);
        if slots.ring.len() <= place {
            slots.ring.resize(place + 1, None);
        }
        if let Some(old) = slots.ring[place].replace(slot)
            && slots.by_value.get(&old.value) == Some(&place)
        {
            slots.by_value.remove(&old.value);
        }
        // The latest of a value counts: the store tells them in any order.
        let known = slots
            .by_value
            .get(&slot.value)
            .and_then(|at| slots.ring[*at]);
        if known.is_none_or(|s| s.number <= slot.number) {
            slots.by_value.insert(slot.value, place);
        }
        slots.next = slots.next.max(slot.number + 1);
        slots.count();
    }

    fn key(&self, place: usize) -> (Vec<u8>, Vec<u8>) {
        (
            self.id.to_string().into_bytes(),
            place.to_string().into_bytes(),
        )
    }

    /// The changes that take it out of the store.
    pub fn forget(&self, changes: &mut Vec<DefinitionChange>) {
        if !self.durable {
            return;
        }
        let slots = self.slots.lock();
        let used = (0..slots.ring.len()).filter(|at| slots.ring[*at].is_some());
        changes.extend(used.map(|at| {
            let key = self.key(at);
            codec::remove(KIND, &[&key.0, &key.1])
        }));
    }

    /// Takes an entry from the store.
    ///
    /// # Errors
    /// [`DefinitionError`]
    pub fn restore(&self, stored: &[u8]) -> Result<(), DefinitionError> {
        let t = codec::fields(stored)?;
        let number = |name| t.get(name).and_then(FieldValue::as_integer).unwrap_or(0) as u64;
        let value = match t.get("value") {
            Some(FieldValue::Bytes(v)) => Fingerprint::try_from(v.as_slice()).ok(),
            _ => None,
        };
        let value =
            value.ok_or_else(|| DefinitionError("an entry of a window has no value".into()))?;
        let slot = Slot {
            number: number("number"),
            value,
            expires_at: number("expires_at"),
        };
        self.put(&mut self.slots.lock(), slot);
        Ok(())
    }
}

/// The id of the window that an entry in the store belongs to.
///
/// # Errors
/// A key that was not made here.
pub fn owner(stored_key: &[u8]) -> Result<u64, DefinitionError> {
    let parts = codec::key_parts(stored_key)?;
    let id = parts.first().and_then(|id| id.parse().ok());
    id.ok_or_else(|| DefinitionError("an entry of no window".into()))
}

/// What a window says of a message.
enum Verdict {
    /// It does not have the header.
    NotAsked,
    First(Slot),
    Duplicate,
}

/// One publish that windows look at.
#[derive(Debug, Default)]
pub struct Admission {
    headers: FieldTable,
    now: u64,
    noted: Vec<(Arc<Window>, Slot)>,
}

impl Admission {
    /// Of a message with these properties; `now` is unix milliseconds.
    pub fn of(properties: PropertiesRef<'_>, now: u64) -> Admission {
        Admission {
            headers: properties
                .headers()
                .map(|h| h.to_table())
                .unwrap_or_default(),
            now,
            noted: Vec::new(),
        }
    }

    /// Whether it may pass.
    pub fn passes(&mut self, window: &Arc<Window>) -> bool {
        match window.admit(&self.headers, self.now) {
            Verdict::NotAsked => true,
            Verdict::First(slot) => {
                self.noted.push((window.clone(), slot));
                true
            }
            Verdict::Duplicate => false,
        }
    }

    /// What the store has to know, in the same record as the message.
    pub fn changes(&self) -> Vec<DefinitionChange> {
        self.noted.iter().filter_map(|(w, s)| w.change(s)).collect()
    }

    /// The message was refused after all (its queue is full): it may come again.
    pub fn take_back(self) {
        for (window, slot) in &self.noted {
            window.take_back(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::arguments::{DEDUPLICATION_HEADER, Problem};

    fn window(size: usize, ttl: Option<u64>) -> Arc<Window> {
        let header = DEDUPLICATION_HEADER.into();
        let settings = DeduplicationSettings { header, size, ttl };
        Window::new(7, true, settings, &Memory::new())
    }

    fn message(value: impl Into<FieldValue>) -> FieldTable {
        let mut headers = FieldTable::new();
        headers.insert(DEDUPLICATION_HEADER, value);
        headers
    }

    /// Whether the message passes, and what the store is told.
    fn admit(w: &Arc<Window>, headers: FieldTable, now: u64) -> (bool, Vec<DefinitionChange>) {
        let mut admission = Admission {
            headers,
            now,
            noted: Vec::new(),
        };
        (admission.passes(w), admission.changes())
    }

    #[test]
    fn the_octets_of_an_entry_are_those_of_its_format() {
        let (_, changes) = admit(&window(5, Some(100)), message("value"), 1_700_000_000_123);
        let change = &changes[0];
        let made = [
            ("key", change.key.clone()),
            ("value", change.value.clone().expect("put")),
        ];
        crate::golden::check("deduplication.txt", &made);
    }

    #[test]
    fn a_window_holds_the_latest_values() {
        let w = window(2, None);
        let mut changes = 0;
        let mut number = |v: i64| {
            let (passes, told) = admit(&w, message(v), 0);
            changes += told.len();
            passes
        };
        assert_eq!(
            [1, 1, 2, 1, 2].map(&mut number),
            [true, false, true, false, false]
        );
        // The third pushes the first out.
        assert_eq!([3, 2, 1].map(&mut number), [true, false, true]);
        assert_eq!(changes, 4);
        assert!(admit(&w, FieldTable::new(), 0).0, "nothing to compare");
        assert!(admit(&w, message("1"), 0).0, "text is no number");
    }

    #[test]
    fn a_window_counts_what_it_takes() {
        let memory = Memory::new();
        let settings = DeduplicationSettings {
            header: DEDUPLICATION_HEADER.into(),
            size: 1000,
            ttl: None,
        };
        let w = Window::new(7, true, settings, &memory);
        for n in 1..=3000i64 {
            assert!(admit(&w, message(n), 0).0);
            let used = memory.used(Use::Deduplication);
            let entries = n.min(1000) as u64;
            let range = 70 * entries..=140 * entries;
            assert!(n < 100 || range.contains(&used), "{used} of {entries}");
        }
        drop(w);
        assert_eq!(memory.used(Use::Deduplication), 0);
    }

    #[test]
    fn values_are_forgotten_in_time() {
        let w = window(10, Some(100));
        let at = |v: i64, now| admit(&w, message(v), now).0;
        assert!(at(1, 1000) && !at(1, 1099) && at(1, 1100));
        let mut own = message(2i64);
        own.insert("x-cache-ttl", 10i64);
        let at = |now| admit(&w, own.clone(), now).0;
        assert!(at(0) && !at(9) && at(10));
    }

    #[test]
    fn what_was_refused_may_come_again() {
        let w = window(2, None);
        let mut admission = Admission {
            headers: message(1i64),
            ..Admission::default()
        };
        assert!(admission.passes(&w));
        admission.take_back();
        assert!(admit(&w, message(1i64), 0).0);
        assert!(!admit(&w, message(1i64), 0).0);
    }

    #[test]
    fn what_the_store_has_is_the_window() {
        let w = window(3, None);
        let mut stored = HashMap::new();
        for v in 0..5i64 {
            for change in admit(&w, message(v), 0).1 {
                assert_eq!(owner(&change.key), Ok(7));
                stored.insert(change.key, change.value.expect("put"));
            }
        }
        let again = window(3, None);
        for value in stored.values() {
            again.restore(value).expect("readable");
        }
        for known in 2..5i64 {
            assert!(!admit(&again, message(known), 0).0);
        }
        assert!(admit(&again, message(9i64), 0).0);
        assert!(admit(&again, message(2i64), 0).0, "the oldest went");
        let mut removed = Vec::new();
        w.forget(&mut removed);
        assert!(removed.iter().all(|c| c.value.is_none()));
        let mut keys: Vec<_> = removed.iter().map(|c| &c.key).collect();
        let mut all: Vec<_> = stored.keys().collect();
        keys.sort();
        all.sort();
        assert_eq!(keys, all);
    }

    #[test]
    fn the_latest_entry_of_a_value_counts_whatever_the_order_of_the_store() {
        let w = window(3, Some(100));
        let mut stored = Vec::new();
        for now in [0, 100] {
            stored.extend(admit(&w, message(1i64), now).1);
        }
        for order in [[0, 1], [1, 0]] {
            let again = window(3, Some(100));
            for at in order {
                let value = stored[at].value.as_ref().expect("put");
                again.restore(value).expect("readable");
            }
            assert!(!admit(&again, message(1i64), 150).0, "{order:?}");
        }
    }

    #[test]
    fn arguments() {
        let parse = |name: &str, v: FieldValue| {
            let mut t = FieldTable::new();
            t.insert("x-message-deduplication", true);
            t.insert(name, v);
            DeduplicationSettings::parse(&t, false).map_err(|e| e.problem)
        };
        assert_eq!(
            DeduplicationSettings::parse(&FieldTable::new(), false),
            Ok(None)
        );
        assert_eq!(parse("x-message-deduplication", false.into()), Ok(None));
        assert_eq!(
            parse("x-cache-size", 5i64.into()).map(|s| s.map(|s| s.size)),
            Ok(Some(5))
        );
        assert_eq!(parse("x-cache-size", 0i64.into()), Err(Problem::ValueZero));
        assert_eq!(
            parse("x-cache-size", 100_001i64.into()),
            Err(Problem::MaxValueExceeded(100_001))
        );
        assert_eq!(
            parse("x-cache-ttl", "5".into()),
            Err(Problem::ExpectedInteger("longstr"))
        );
    }
}
