use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::broker::codec;
use crate::broker::ports::Target;
use crate::protocol::field_table::FieldTable;

fn known(acquired_count: u16) -> Known {
    Known {
        acquired_count,
        ..Known::default()
    }
}

fn copy(queue: u64, id: u64, acquired_count: u16) -> ReturnedCopy {
    ReturnedCopy {
        queue: QueueId(queue),
        id: MessageId(id),
        known: known(acquired_count),
    }
}

/// The store, and who writes to it.
struct World {
    memory: Memory,
    returned: Returned,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn fresh() -> (Memory, Returned) {
    let memory = Memory::new();
    let returned = Returned::new(&memory);
    (memory, returned)
}

impl World {
    fn new() -> World {
        let (memory, returned) = fresh();
        let store = BTreeMap::new();
        World {
            memory,
            returned,
            store,
        }
    }

    fn apply(&mut self, changes: Vec<DefinitionChange>) {
        for change in changes {
            match change.value {
                Some(value) => drop(self.store.insert(change.key, value)),
                None => drop(self.store.remove(&change.key)),
            }
        }
    }

    /// Returns how many definitions changed.
    fn note(&mut self, mut copies: Vec<ReturnedCopy>, mut records: Records) -> usize {
        drop(self.returned.note(&mut copies, &mut records));
        let n = records.definitions.len();
        self.apply(records.definitions);
        n
    }

    fn settle(&mut self, queue: u64, ids: impl IntoIterator<Item = u64>) -> usize {
        let ids = ids.into_iter().map(|id| (QueueId(queue), MessageId(id)));
        let settles = ids.collect();
        self.note(
            Vec::new(),
            Records {
                settles,
                ..Records::default()
            },
        )
    }

    fn used(&self) -> u64 {
        self.memory.used(Use::Returned)
    }

    /// Starts again with these copies live; returns what is known of them.
    fn restart(&mut self, live: &BTreeSet<(u64, u64)>, kept: &[u64]) -> BTreeMap<(u64, u64), u16> {
        let mut errors = Vec::new();
        (self.memory, self.returned) = fresh();
        let stored = self.store.iter();
        let stored = stored.map(|(key, value)| (key.as_slice(), value.as_slice()));
        self.returned.read(stored, |e| errors.push(e));
        assert_eq!(errors, []);
        let mut found = self.returned.take_found();
        let mut seen = BTreeMap::new();
        let mut next = None;
        for (queue, id) in live.iter().filter(|(queue, _)| !kept.contains(queue)) {
            // In runs of whatever length.
            if next.is_some_and(|next| (*queue, *id) < next) {
                continue;
            }
            let run = (*id..id + 1 + id % 7).take_while(|id| live.contains(&(*queue, *id)));
            let count = run.count() as u32;
            next = Some((*queue, id + u64::from(count)));
            let run = RecoveredRun {
                target: Target {
                    queue: QueueId(*queue),
                    expires_at: 0,
                    priority: 0,
                    delivery_count: 0,
                },
                first_id: MessageId(*id),
                count,
                body_len: 1,
                redelivered: true,
            };
            let mut at = *id;
            found.split(&run, |part, known| {
                assert_eq!(part.first_id.0, at);
                at += u64::from(part.count);
                let ids = part.first_id.0..at;
                let count = known.map(|known| known.acquired_count);
                seen.extend(ids.filter_map(|id| Some(((*queue, id), count?))));
            });
            assert_eq!(at, id + u64::from(count));
        }
        let changes = self
            .returned
            .put_found(found, |queue| kept.contains(&queue.0));
        self.apply(changes);
        seen
    }
}

#[test]
fn a_run_is_one_definition_however_long() {
    let mut w = World::new();
    let lost = |n| (1..=100_000).map(|id| copy(1, id, n)).collect();
    let all = (1..=100_000).map(|id| (1, id)).collect();
    for n in 1..=6 {
        assert_eq!(w.note(lost(n), Records::default()), 1);
        assert_eq!(w.store.len(), 1);
        assert!(w.used() < 1024, "{}", w.used());
    }
    let seen = w.restart(&all, &[]);
    assert!(seen.len() == 100_000 && seen.values().all(|n| *n == 6));
    // It is not written again until the last copy is gone.
    assert_eq!(w.settle(1, (2..=100_000).rev()), 0);
    assert_eq!(w.restart(&BTreeSet::from([(1, 1)]), &[]).len(), 1);
    assert_eq!(w.settle(1, [1]), 1);
    assert_eq!((w.store.len(), w.used()), (0, 0));
}

#[test]
fn copies_between_those_of_other_queues_share_definitions() {
    let mut w = World::new();
    let copies = (1..=1280u64).flat_map(|n| [copy(1, 2 * n, 1), copy(2, 2 * n + 1, 1)]);
    assert_eq!(w.note(copies.collect(), Records::default()), 20);
    let octets: usize = w.store.iter().map(|(k, v)| k.len() + v.len()).sum();
    assert!(octets < 20 * 512, "{octets}");
}

#[test]
fn what_comes_back_over_and_over_takes_the_same_names() {
    let mut w = World::new();
    // One by one, so that each is a group, and always the same: the store is told of no other names.
    let mut names = BTreeSet::new();
    for n in 1..=50 {
        for id in 1..=20 {
            assert_eq!(w.note(vec![copy(1, id, n)], Records::default()), 1);
            names.extend(w.store.keys().cloned());
        }
    }
    assert_eq!((w.store.len(), names.len()), (20, 20));
    // New ones take the names of those that are done with.
    for id in 21..=100 {
        assert_eq!(w.settle(1, [id - 20]), 1);
        w.note(vec![copy(1, id, 1)], Records::default());
        names.extend(w.store.keys().cloned());
    }
    assert_eq!((w.store.len(), names.len()), (20, 20));
}

#[test]
fn returned_and_settled_in_one_batch_leaves_nothing() {
    let mut w = World::new();
    let settles = vec![(QueueId(1), MessageId(3))];
    let records = Records {
        settles,
        ..Records::default()
    };
    w.note(vec![copy(1, 3, 1)], records);
    assert_eq!((w.store.len(), w.used()), (0, 0));
}

#[test]
fn the_later_of_two_returns_counts() {
    let mut w = World::new();
    // In one batch the last one: it died where it was ready again.
    let mut dead = copy(1, 1, 1);
    dead.known.dead = Some(DeathReason::Expired);
    w.note(vec![copy(1, 1, 1), dead], Records::default());
    assert_eq!(w.store.len(), 1);
    let group = *w
        .returned
        .groups
        .lock()
        .by_number
        .values()
        .next()
        .expect("one");
    assert_eq!(group.known, dead.known);
    // Of two connections, the one that had it later, even if it was faster.
    w.note(vec![copy(1, 1, 3)], Records::default());
    assert_eq!(w.note(vec![copy(1, 1, 2)], Records::default()), 0);
    let live = BTreeSet::from([(1, 1)]);
    assert_eq!(w.restart(&live, &[])[&(1, 1)], 3);
}

#[test]
fn single_copies_of_before_are_read_and_replaced() {
    let mut w = World::new();
    for id in [4u64, 5, 9] {
        let mut t = FieldTable::new();
        t.insert("acquired_count", 7i64);
        let key = codec::key(&[&1u64.to_be_bytes(), &id.to_be_bytes()]);
        w.store.insert(key, codec::value(&t));
    }
    let live = BTreeSet::from([(1, 4), (1, 5), (1, 6)]);
    let seen = w.restart(&live, &[]);
    assert_eq!(seen, BTreeMap::from([((1, 4), 7), ((1, 5), 7)]));
    // The one whose copy is gone went.
    assert_eq!(w.store.len(), 2);
    w.note(vec![copy(1, 4, 8), copy(1, 5, 8)], Records::default());
    assert_eq!(w.store.len(), 1);
    // What a crash left of both: the group counts.
    let mut t = FieldTable::new();
    t.insert("acquired_count", 7i64);
    let key = codec::key(&[&1u64.to_be_bytes(), &4u64.to_be_bytes()]);
    w.store.insert(key, codec::value(&t));
    let seen = w.restart(&live, &[]);
    assert_eq!(seen, BTreeMap::from([((1, 4), 8), ((1, 5), 8)]));
    assert_eq!(w.store.len(), 1);
}

#[test]
fn what_cannot_be_read_keeps_its_number() {
    let mut w = World::new();
    w.note(vec![copy(1, 1, 1)], Records::default());
    let (key, good) = w.store.pop_first().expect("one");
    for bad in [vec![], vec![9], good[..good.len() - 1].to_vec()] {
        let (memory, returned) = fresh();
        let mut errors = 0;
        returned.read([(&key[..], &bad[..])].into_iter(), |_| errors += 1);
        let found = returned.take_found();
        assert_eq!(returned.put_found(found, |_| false), []);
        assert_eq!((errors, memory.used(Use::Returned)), (1, 0));
        let mut records = Records::default();
        for id in 1..=3 {
            drop(returned.note(&mut vec![copy(1, id, 1)], &mut records));
            assert_eq!(w_settled(&returned, id).len(), 1);
        }
        assert!(records.definitions.iter().all(|d| d.key != key));
    }
}

fn w_settled(returned: &Returned, id: u64) -> Vec<DefinitionChange> {
    let mut records = Records::default();
    records.settles.push((QueueId(1), MessageId(id)));
    drop(returned.note(&mut Vec::new(), &mut records));
    records.definitions
}

#[test]
fn what_was_large_gives_its_memory_back() {
    let mut w = World::new();
    for id in 1..=5_000 {
        w.note(vec![copy(1, 2 * id, 1)], Records::default());
    }
    let most = w.used();
    assert!(most > 5_000 * RUN_BYTES as u64, "{most}");
    w.settle(1, (2..=5_000).map(|id| 2 * id));
    assert!(w.used() < most / 4, "{} of {most}", w.used());
    w.settle(1, [2]);
    assert!(w.used() < 100 * 1024, "{}", w.used());
}

proptest! {
    /// Whatever comes back, is settled, and crashes: of each live copy the latest is known, of others
    /// nothing is in the store for long.
    #[test]
    fn the_latest_is_known_of_each_live_copy(
        steps in prop::collection::vec(
            (0..7u8, 1..4u64, 1..60u64, 0..20u64, 1..4usize, any::<bool>()),
            1..80,
        ),
    ) {
        let mut w = World::new();
        let mut live: BTreeSet<(u64, u64)> =
            (1..4).flat_map(|queue| (1..80).map(move |id| (queue, id))).collect();
        let mut expected: BTreeMap<(u64, u64), u16> = BTreeMap::new();
        for (what, queue, first, more, step, mixed) in steps {
            let ids = (first..=first + more).step_by(step);
            let ids: Vec<_> = ids.filter(|id| live.contains(&(queue, *id))).collect();
            match what {
                0..3 => {
                    let mut copies = Vec::new();
                    for id in ids {
                        let n = expected.entry((queue, id)).or_default();
                        *n += 1 + u16::from(mixed && id % 3 == 0);
                        copies.push(copy(queue, id, *n));
                    }
                    if mixed {
                        copies.reverse();
                    }
                    w.note(copies, Records::default());
                }
                3 | 4 => {
                    live.retain(|(of, id)| *of != queue || !ids.contains(id));
                    w.settle(queue, ids);
                }
                5 => {
                    // A purged run: all of it is live.
                    let last = (first..=first + more).take_while(|id| live.contains(&(queue, *id))).last();
                    if let Some(last) = last {
                        let range = (QueueId(queue), MessageId(first), MessageId(last));
                        let settled_ranges = vec![range];
                        w.note(Vec::new(), Records { settled_ranges, ..Records::default() });
                        live.retain(|(of, id)| *of != queue || !(first..=last).contains(id));
                    }
                }
                _ => {
                    let kept: &[u64] = if mixed { &[3] } else { &[] };
                    let mut seen = expected.clone();
                    seen.retain(|(queue, _), _| !kept.contains(queue));
                    prop_assert_eq!(w.restart(&live, kept), seen);
                }
            }
            expected.retain(|copy, _| live.contains(copy));
            // Each definition has a copy of its own.
            prop_assert!(w.store.len() <= expected.len());
            if expected.is_empty() {
                prop_assert_eq!(w.used(), 0);
            }
        }
        prop_assert_eq!(w.restart(&live, &[]), expected);
    }
}
