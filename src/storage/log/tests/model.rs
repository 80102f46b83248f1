//! Random lives of the log against a model, one step after the other and without threads, so that a seed
//! makes the same life again: appends of everything at once, rounds, reclaiming, calls that fail, power
//! that goes during any call.
//!
//! What comes back must be what some first part of the records says that were appended, and that part
//! has all that were durable. `LEVERET_LOG_SEEDS=100000 cargo test --release --lib log::tests::model`
//! tries more.

use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What records add up to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Truth {
    /// By queue: ids, and the numbers of their messages.
    queues: BTreeMap<u64, BTreeMap<u64, u64>>,
    definitions: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Truth {
    fn settle(&mut self, queue: u64, id: u64) {
        let gone = self.queues.get_mut(&queue).and_then(|q| q.remove(&id));
        assert!(gone.is_some(), "settled once");
    }

    /// As [`recovered`] says it.
    fn copies(&self) -> BTreeMap<u64, Vec<u64>> {
        let some = self.queues.iter().filter(|(_, copies)| !copies.is_empty());
        some.map(|(queue, copies)| (*queue, copies.values().copied().collect()))
            .collect()
    }
}

struct Life {
    seed: u64,
    dir: tempfile::TempDir,
    disk: FaultyDisk,
    log: Option<SegmentedLog>,
    writer: writer::Writer,
    reclaim: reclaim::Reclaim,
    /// What was there after each append since the start, the first one before any.
    truths: Vec<(Lsn, Truth)>,
    number: u64,
    /// The power went during a call.
    off: Arc<AtomicBool>,
}

fn open_still(dir: &Path, disk: &FaultyDisk) -> Opened {
    let options = LogOptions {
        segment_bytes: 4 * 1024,
        ..idle(dir)
    };
    open_by(|| SegmentedLog::open_still(options.clone(), Arc::new(disk.clone())))
}

impl Life {
    fn new(seed: u64) -> Life {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::default();
        let (log, _) = open_still(dir.path(), &disk);
        log.recover(&|_| true, &mut |_| {});
        Life {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            dir,
            disk,
            log: Some(log),
            writer: writer::Writer::default(),
            reclaim: reclaim::Reclaim::default(),
            truths: vec![(Lsn::default(), Truth::default())],
            number: 0,
            off: Arc::default(),
        }
    }

    fn log(&self) -> &SegmentedLog {
        self.log.as_ref().expect("open between two crashes")
    }

    fn random(&mut self, n: u64) -> u64 {
        random(&mut self.seed) % n
    }

    /// Settles, a range, dead letters, definitions and messages in one record.
    fn append(&mut self) {
        let mut truth = self.truths.last().expect("one").1.clone();
        let mut records = Records::default();
        let mut dead = Vec::new();
        let often = 1 + self.random(4);
        for queue in 1..=3 {
            let copies = truth.queues.get(&queue).cloned().unwrap_or_default();
            if self.random(9) == 0 && copies.len() > 2 {
                // A range says that the queue has a copy of each id in it.
                let (first, _) = copies.first_key_value().expect("some");
                let last = (*first..).take_while(|id| copies.contains_key(id)).last();
                let last = last.unwrap_or(*first);
                records
                    .settled_ranges
                    .push((QueueId(queue), MessageId(*first), MessageId(last)));
                (*first..=last).for_each(|id| truth.settle(queue, id));
                continue;
            }
            for (id, number) in copies {
                if self.random(8) < often {
                    records.settles.push((QueueId(queue), MessageId(id)));
                    truth.settle(queue, id);
                    if self.random(3) == 0 {
                        dead.push((queue % 3 + 1, number));
                    }
                } else if self.random(4) == 0 {
                    break;
                }
            }
        }
        let mut published = Vec::new();
        for (queue, number) in dead {
            published.push((vec![queue], number));
        }
        for _ in 0..self.random(6) {
            let queues = (1..=3).filter(|_| self.random(2) == 0).collect::<Vec<_>>();
            if !queues.is_empty() {
                published.push((queues, self.number));
                self.number += 1;
            }
        }
        for (queues, number) in &published {
            let len = self.random(700) as usize;
            stage(&mut records, message(*number, len), queues);
        }
        for _ in 0..self.random(3) {
            let key = vec![self.random(6) as u8];
            let value = (self.random(3) > 0).then(|| self.number.to_be_bytes().to_vec());
            match &value {
                Some(value) => drop(truth.definitions.insert(key.clone(), value.clone())),
                None => drop(truth.definitions.remove(&key)),
            }
            records.definitions.push(DefinitionChange {
                kind: DefinitionKind::Queue,
                key,
                value,
            });
        }
        if records.is_empty() {
            return;
        }
        let Ok(appended) = self.log().append(&mut records) else {
            return;
        };
        for (id, (queues, number)) in (appended.first_id.0..).zip(published) {
            for queue in queues {
                truth.queues.entry(queue).or_default().insert(id, number);
            }
        }
        self.truths.push((appended.lsn, truth));
    }

    /// One of the next calls fails, or the power goes with it.
    fn arm(&mut self) {
        let mut left = self.random(25);
        let how = self.random(6);
        let (off, power) = (self.off.clone(), self.disk.power.clone());
        self.disk.faults.set(move |call, path| {
            if off.load(Ordering::Relaxed) {
                return Some(EIO);
            }
            // A write or sync of a segment that fails ends the log: others are more telling.
            let ends = matches!(call, Call::Write | Call::Sync) && has_extension(path, "segment");
            if left > 0 || (ends && how > 1) {
                left = left.saturating_sub(1);
                return None;
            }
            left = u64::MAX;
            match how {
                0 | 2 => {
                    off.store(true, Ordering::Relaxed);
                    power.0.write().expect("a lock").0 = true;
                    Some(EIO)
                }
                3 if !has_extension(path, "segment") => Some(ENOSPC),
                _ => Some(EIO),
            }
        });
    }

    fn step(&mut self) {
        match self.random(20) {
            0..9 => self.append(),
            9..13 => {
                let log = self.log().inner.clone();
                self.writer.round(&log);
            }
            13..15 => {
                let log = self.log().inner.clone();
                self.reclaim.pass(&log);
            }
            15..18 => {
                let log = self.log().inner.clone();
                self.reclaim.step(&log);
            }
            18 => self.arm(),
            _ if self.random(5) == 0 => self.crash(),
            _ => {}
        }
        if self.off.load(Ordering::Relaxed) || self.log().failed() {
            self.crash();
        }
    }

    /// The power goes, and comes back.
    fn crash(&mut self) {
        let durable = self.log().durable();
        self.disk.faults.clear();
        self.off.store(false, Ordering::Relaxed);
        let mut seed = self.random(u64::MAX) | 1;
        let after = self.disk.after_power_cut(&mut seed);
        // The definitions' store has one owner at a time.
        self.log = None;
        let (log, definitions) = open_still(self.dir.path(), &after);
        let found = recovered(&log);
        let definitions: BTreeMap<_, _> = definitions
            .into_iter()
            .map(|(_, key, value)| (key, value))
            .collect();
        let before = self.truths.iter().rposition(|(at, _)| *at <= durable);
        let candidates = &self.truths[before.unwrap_or(0)..];
        let Some((_, truth)) = candidates
            .iter()
            .find(|(_, truth)| truth.copies() == found && truth.definitions == definitions)
        else {
            panic!("durable {durable:?}: {found:?} {definitions:?} is none of {candidates:#?}");
        };
        self.truths = vec![(Lsn::default(), truth.clone())];
        (self.log, self.disk) = (Some(log), after);
        self.writer = writer::Writer::default();
        self.reclaim = reclaim::Reclaim::default();
    }
}

#[test]
fn whatever_happens_what_comes_back_was_there_and_is_no_older_than_what_was_durable() {
    let n = std::env::var("LEVERET_LOG_SEEDS").map_or(40, |n| n.parse().expect("a number"));
    for seed in 1..=n {
        println!("seed {seed}");
        let mut life = Life::new(seed);
        for _ in 0..200 {
            life.step();
        }
        life.crash();
    }
}
