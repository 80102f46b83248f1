//! What a broker does to its log, and what that adds up to.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;

/// A message, and what is known of one copy of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Copy {
    pub(super) number: u64,
    pub(super) len: u32,
    pub(super) expires_at: u64,
    pub(super) priority: u8,
    pub(super) delivery_count: u16,
}

pub(super) type Key = (DefinitionKind, Vec<u8>);

/// What records add up to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Truth {
    /// By queue and id.
    pub(super) copies: BTreeMap<(u64, u64), Copy>,
    pub(super) definitions: BTreeMap<Key, Vec<u8>>,
}

/// What one append says.
#[derive(Clone, Debug, Default)]
pub(super) struct Act {
    pub(super) at: Lsn,
    pub(super) settled: Vec<(u64, u64)>,
    pub(super) published: Vec<(u64, u64, Copy)>,
    pub(super) definitions: Vec<(Key, Option<Vec<u8>>)>,
}

impl Truth {
    pub(super) fn apply(&mut self, act: &Act) {
        for copy in &act.settled {
            self.copies.remove(copy);
        }
        for (queue, id, copy) in &act.published {
            self.copies.insert((*queue, *id), *copy);
        }
        for (key, value) in &act.definitions {
            match value {
                Some(value) => drop(self.definitions.insert(key.clone(), value.clone())),
                None => drop(self.definitions.remove(key)),
            }
        }
    }

    pub(super) fn queues(&self) -> Vec<u64> {
        let keys = self.definitions.keys();
        let queues = keys.filter(|(kind, _)| *kind == DefinitionKind::Queue);
        queues.map(|(_, key)| number(key)).collect()
    }
}

fn number(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |n| u64::from_be_bytes(*n))
}

/// Records that are being collected, and what they say.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) records: Records,
    pub(super) settled: Vec<(u64, u64)>,
    published: Vec<(Vec<u64>, Copy, bool)>,
    definitions: Vec<(Key, Option<Vec<u8>>)>,
    pub(super) told: Vec<&'static str>,
}

/// What was appended since the last start.
pub(super) struct Model {
    /// What was there then.
    pub(super) base: Truth,
    pub(super) acts: Vec<Act>,
    /// What is there when all of that is.
    pub(super) now: Truth,
    /// Copies in this life that no other will see.
    pub(super) transient: BTreeMap<(u64, u64), Copy>,
    /// Every message that was ever appended, by id: for what comes back.
    pub(super) by_id: BTreeMap<u64, Copy>,
    next_number: u64,
    next_queue: u64,
    /// Ids below this are never given out again.
    pub(super) used_ids: u64,
    /// The longest body.
    pub(super) body: u64,
    /// Copies of a message differ in more than the queue.
    pub(super) varied: bool,
}

impl Model {
    pub(super) fn new(body: u64, varied: bool) -> Model {
        Model {
            base: Truth::default(),
            acts: Vec::new(),
            now: Truth::default(),
            transient: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next_number: 1,
            next_queue: 1,
            used_ids: 1,
            body,
            varied,
        }
    }

    fn copy(&mut self, seed: &mut u64) -> Copy {
        let number = self.next_number;
        self.next_number += 1;
        let varied = u64::from(self.varied) * (random(seed) % 4);
        Copy {
            number,
            len: (random(seed) % (self.body + 1)) as u32,
            expires_at: varied * 1_000_000_007,
            priority: varied as u8,
            delivery_count: 0,
        }
    }

    /// Copies in a queue that are neither settled nor about to be.
    fn ready(&self, queue: u64, draft: &Draft) -> Vec<(u64, Copy)> {
        let all = self.now.copies.range((queue, 0)..=(queue, u64::MAX));
        let ready = all.filter(|(copy, _)| !draft.settled.contains(copy));
        ready.map(|((_, id), copy)| (*id, *copy)).collect()
    }

    /// One thing that a broker does.
    pub(super) fn act(&mut self, seed: &mut u64, draft: &mut Draft) {
        let gone = |draft: &Draft, queue: &u64| {
            let key = key_of(DefinitionKind::Queue, *queue);
            draft
                .definitions
                .iter()
                .any(|(k, v)| *k == key && v.is_none())
        };
        let mut queues = self.now.queues();
        queues.retain(|queue| !gone(draft, queue));
        if queues.len() < 2 {
            return self.declare(draft);
        }
        let queue = queues[random(seed) as usize % queues.len()];
        let other = queues[random(seed) as usize % queues.len()];
        let ready = self.ready(queue, draft);
        match random(seed) % 16 {
            0..4 => {
                draft.told.push("publish");
                for _ in 0..=random(seed) % 4 {
                    let copy = self.copy(seed);
                    draft.publish(vec![queue], copy);
                }
            }
            4 | 5 => {
                draft.told.push("fan out");
                let mut to = queues.clone();
                to.retain(|_| !random(seed).is_multiple_of(3));
                let copy = self.copy(seed);
                draft.publish(if to.is_empty() { queues } else { to }, copy);
            }
            6 | 7 => {
                draft.told.push("acknowledge");
                let n = random(seed) as usize % (ready.len() + 1);
                ready
                    .iter()
                    .take(n)
                    .for_each(|(id, _)| draft.settle(queue, *id));
            }
            8 => {
                draft.told.push("acknowledge out of order");
                for (id, _) in &ready {
                    if random(seed).is_multiple_of(3) {
                        draft.settle(queue, *id);
                    }
                }
            }
            9 | 10 => {
                draft.told.push("dead-letter");
                for (id, copy) in ready.iter().take(1 + random(seed) as usize % 3) {
                    draft.settle(queue, *id);
                    let delivery_count = copy.delivery_count.saturating_add(1);
                    draft.publish(
                        vec![other],
                        Copy {
                            delivery_count,
                            ..*copy
                        },
                    );
                }
            }
            11 => {
                draft.told.push("release what was delayed");
                if let Some((id, copy)) = ready.first() {
                    draft.settle(queue, *id);
                    let mut to = queues.clone();
                    to.retain(|_| random(seed).is_multiple_of(2));
                    to.push(other);
                    to.sort_unstable();
                    to.dedup();
                    draft.publish(to, *copy);
                }
            }
            12 => self.purge(queue, draft),
            13 => {
                draft.told.push("bind, count, forget");
                let kinds = [
                    DefinitionKind::Binding,
                    DefinitionKind::Returned,
                    DefinitionKind::Deduplication,
                    DefinitionKind::Exchange,
                ];
                for _ in 0..=random(seed) % 3 {
                    let kind = kinds[random(seed) as usize % kinds.len()];
                    let value = (!random(seed).is_multiple_of(3))
                        .then(|| vec![random(seed) as u8; random(seed) as usize % 40]);
                    draft.define(key_of(kind, queue), value);
                }
            }
            14 if queues.len() < 6 => self.declare(draft),
            14 => self.delete(queue, draft),
            _ => {
                draft.told.push("page out what is transient");
                let copy = self.copy(seed);
                let gone: Vec<_> = self.transient.keys().copied().collect();
                for (queue, id) in gone {
                    if !draft.settled.contains(&(queue, id)) {
                        draft.settle(queue, id);
                    }
                }
                draft.published.push((vec![queue], copy, true));
            }
        }
    }

    fn purge(&mut self, queue: u64, draft: &mut Draft) {
        draft.told.push("purge");
        // A range says that the queue has a copy of each id in it.
        let mut ready = self
            .ready(queue, draft)
            .into_iter()
            .map(|(id, _)| id)
            .peekable();
        while let Some(first) = ready.next() {
            let mut last = first;
            while ready.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            let ids = (QueueId(queue), MessageId(first), MessageId(last));
            draft.records.settled_ranges.push(ids);
            draft.settled.extend((first..=last).map(|id| (queue, id)));
        }
    }

    fn declare(&mut self, draft: &mut Draft) {
        draft.told.push("declare");
        let queue = self.next_queue;
        self.next_queue += 1;
        draft.define(key_of(DefinitionKind::Queue, queue), Some(vec![1; 20]));
        draft.define(key_of(DefinitionKind::Binding, queue), Some(vec![2; 30]));
    }

    fn delete(&mut self, queue: u64, draft: &mut Draft) {
        self.purge(queue, draft);
        draft.told.push("delete");
        let keys = self.now.definitions.keys();
        let keys: Vec<Key> = keys
            .filter(|(_, key)| number(key) == queue)
            .cloned()
            .collect();
        keys.into_iter().for_each(|key| draft.define(key, None));
        // What it is about to get it does not.
        draft.published.retain(|(to, _, _)| !to.contains(&queue));
    }

    /// The records, as the log takes them.
    pub(super) fn records(&self, draft: &mut Draft) {
        let Draft {
            records,
            published,
            definitions,
            ..
        } = draft;
        for (queues, copy, transient) in published {
            let first_target = records.targets.len() as u32;
            records.targets.extend(queues.iter().map(|queue| Target {
                queue: QueueId(*queue),
                expires_at: copy.expires_at,
                priority: copy.priority,
                delivery_count: copy.delivery_count,
            }));
            records.publishes.push(LoggedPublish {
                message: message(copy.number, copy.len as usize),
                first_target,
                n_targets: queues.len() as u32,
                transient: *transient,
            });
        }
        for (key, value) in definitions {
            records.definitions.push(DefinitionChange {
                kind: key.0,
                key: key.1.clone(),
                value: value.clone(),
            });
        }
    }

    /// The log has taken them.
    pub(super) fn appended(&mut self, draft: Draft, appended: Appended) -> Result<(), String> {
        let first = appended.first_id.0;
        if !draft.published.is_empty() && first < self.used_ids {
            return Err(format!("id {first} was given out before {}", self.used_ids));
        }
        let mut act = Act {
            at: appended.lsn,
            settled: draft.settled,
            definitions: draft.definitions,
            ..Act::default()
        };
        for copy in &act.settled {
            self.transient.remove(copy);
        }
        for (id, (queues, copy, transient)) in (first..).zip(draft.published) {
            self.used_ids = id + 1;
            self.by_id.insert(id, copy);
            for queue in queues {
                match transient {
                    true => drop(self.transient.insert((queue, id), copy)),
                    false => act.published.push((queue, id, copy)),
                }
            }
        }
        self.now.apply(&act);
        self.acts.push(act);
        Ok(())
    }

    /// Another life: this is what it starts with. Ids up to there are used for good.
    pub(super) fn restart(&mut self, base: Truth, durable: Option<Lsn>) {
        let acts = self.acts.iter().filter(|act| Some(act.at) <= durable);
        let published = acts.flat_map(|act| act.published.iter().map(|p| p.1));
        let kept = base.copies.keys().map(|(_, id)| *id);
        let last = published.chain(kept).max().unwrap_or(0);
        let before = durable.map_or(0, |_| self.used_before());
        self.used_ids = (last + 1).max(before);
        self.acts.clear();
        self.transient.clear();
        self.now = base.clone();
        self.base = base;
    }

    fn used_before(&self) -> u64 {
        self.base
            .copies
            .keys()
            .map(|(_, id)| id + 1)
            .max()
            .unwrap_or(1)
    }
}

impl Draft {
    pub(super) fn settle(&mut self, queue: u64, id: u64) {
        self.records.settles.push((QueueId(queue), MessageId(id)));
        self.settled.push((queue, id));
    }

    pub(super) fn publish(&mut self, queues: Vec<u64>, copy: Copy) {
        self.published.push((queues, copy, false));
    }

    fn define(&mut self, key: Key, value: Option<Vec<u8>>) {
        // The last one counts.
        self.definitions.retain(|(k, _)| *k != key);
        self.definitions.push((key, value));
    }
}

fn key_of(kind: DefinitionKind, queue: u64) -> Key {
    (kind, queue.to_be_bytes().to_vec())
}

/// What a damaged place costs, at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    /// Messages that may be gone.
    pub(super) lost: BTreeSet<u64>,
    /// Copies that may be back.
    pub(super) back: BTreeSet<(u64, u64)>,
    /// Definitions that may be what they were before.
    pub(super) keys: BTreeSet<Key>,
    /// Something was damaged, whatever that costs.
    pub(super) harmed: bool,
}
