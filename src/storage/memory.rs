//! A message log in memory, for tests, benchmarks and fuzzing.
//!
//! It is an engine as good as the other one but for the disk: positions, a watermark that can be held
//! back, failure, and a crash that loses what was not durable. Nothing is ever given back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::broker::message::Message;
use crate::broker::ports::{
    Appended, Bell, Definition, DefinitionChange, DefinitionKind, Found, LogFailed, Lsn, MessageId,
    MessageLog, QueueId, Records, RecoveredRun, Target,
};

/// One record, with what recovery needs of it.
#[derive(Clone)]
enum Record {
    Publish {
        message: Message,
        targets: Vec<Target>,
        transient: bool,
    },
    Settle(QueueId, MessageId, MessageId),
    Definition(DefinitionChange),
}

#[derive(Default)]
struct State {
    /// In the order they were appended, with the position after each append.
    records: Vec<(Lsn, Record)>,
    messages: Vec<Message>,
    staged: u64,
    durable: u64,
    /// Octets of messages that were appended while it is held.
    backlog: u64,
    held: bool,
    failed: bool,
    /// What a read says of messages that it does not give.
    answers: HashMap<MessageId, Found>,
    waiters: Vec<(Lsn, Arc<dyn Bell>)>,
}

/// See the module.
#[derive(Default)]
pub struct MemoryLog {
    state: Mutex<State>,
}

impl MemoryLog {
    /// An empty log. Everything is durable at once until [`Self::hold`].
    pub fn new() -> Arc<MemoryLog> {
        Arc::new(MemoryLog::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic aborts the process")
    }

    /// Stops the watermark, or lets it go on.
    pub fn hold(&self, held: bool) {
        self.lock().held = held;
        if !held {
            self.sync();
        }
    }

    /// Makes everything staged durable, and rings.
    pub fn sync(&self) {
        let mut state = self.lock();
        state.durable = state.staged;
        state.backlog = 0;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(|(_, bell)| bell.ring());
    }

    /// A write has failed: nothing is accepted any more.
    pub fn fail(&self) {
        let mut state = self.lock();
        state.failed = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(|(_, bell)| bell.ring());
    }

    /// What reads say of a message from now on; `None`: what it is. [`Found::Later`] makes them fail.
    pub fn answer(&self, id: MessageId, with: Option<Found>) {
        let answers = &mut self.lock().answers;
        match with {
            Some(found) => drop(answers.insert(id, found)),
            None => drop(answers.remove(&id)),
        }
    }

    /// The log that is found after a crash: what was durable, and nothing else.
    pub fn after_crash(&self) -> Arc<MemoryLog> {
        let state = self.lock();
        let durable = Lsn(state.durable);
        let survives = state.records.iter().take_while(|(at, _)| *at <= durable);
        Arc::new(MemoryLog {
            state: Mutex::new(State {
                records: survives.cloned().collect(),
                messages: state.messages.clone(),
                staged: state.durable,
                durable: state.durable,
                ..State::default()
            }),
        })
    }

    /// The definitions, as the last change left each.
    pub fn definitions(&self) -> Vec<Definition> {
        let mut kept: BTreeMap<(DefinitionKind, Vec<u8>), Vec<u8>> = BTreeMap::new();
        for (_, record) in &self.lock().records {
            if let Record::Definition(change) = record {
                let key = (change.kind, change.key.clone());
                match &change.value {
                    Some(value) => drop(kept.insert(key, value.clone())),
                    None => drop(kept.remove(&key)),
                }
            }
        }
        kept.into_iter()
            .map(|((kind, key), value)| (kind, key, value))
            .collect()
    }

    /// Visits the copies that are not done with, each as a run of its own, marked as redelivered.
    pub fn recover(&self, known: &dyn Fn(QueueId) -> bool, each: &mut dyn FnMut(RecoveredRun)) {
        let state = self.lock();
        let mut done = HashSet::new();
        for (_, record) in &state.records {
            if let Record::Settle(queue, first, last) = record {
                done.extend((first.0..=last.0).map(|id| (*queue, id)));
            }
        }
        let mut id = 0;
        for (_, record) in &state.records {
            let Record::Publish {
                message,
                targets,
                transient,
            } = record
            else {
                continue;
            };
            id += 1;
            for target in targets.iter().filter(|_| !transient) {
                if known(target.queue) && !done.contains(&(target.queue, id)) {
                    each(RecoveredRun {
                        target: *target,
                        first_id: MessageId(id),
                        count: 1,
                        body_len: message.body_len(),
                        redelivered: true,
                    });
                }
            }
        }
    }
}

impl MessageLog for MemoryLog {
    fn append(&self, records: &mut Records) -> Result<Appended, LogFailed> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.failed {
            return Err(LogFailed);
        }
        state.staged += 1;
        let at = Lsn(state.staged);
        let first_id = MessageId(state.messages.len() as u64 + 1);
        let settles = records.settles.iter().map(|(queue, id)| (*queue, *id, *id));
        let ranges = records.settled_ranges.iter().copied();
        for (queue, first, last) in settles.chain(ranges) {
            let record = Record::Settle(queue, first, last);
            state.records.push((at, record));
        }
        for change in records.definitions.drain(..) {
            state.records.push((at, Record::Definition(change)));
        }
        for p in records.publishes.drain(..) {
            let from = p.first_target as usize;
            let targets = records.targets[from..from + p.n_targets as usize].to_vec();
            if state.held {
                state.backlog += p.message.resident_bytes() as u64;
            }
            state.messages.push(p.message.clone());
            let record = Record::Publish {
                message: p.message,
                targets,
                transient: p.transient,
            };
            state.records.push((at, record));
        }
        if !state.held {
            state.durable = state.staged;
        }
        drop(guard);
        records.clear();
        Ok(Appended { first_id, lsn: at })
    }

    fn durable(&self) -> Lsn {
        Lsn(self.lock().durable)
    }

    fn staged(&self) -> Lsn {
        Lsn(self.lock().staged)
    }

    fn failed(&self) -> bool {
        self.lock().failed
    }

    fn ring_at(&self, lsn: Lsn, bell: &Arc<dyn Bell>) {
        let mut state = self.lock();
        if state.durable >= lsn.0 || state.failed {
            drop(state);
            bell.ring();
        } else {
            state.waiters.push((lsn, bell.clone()));
        }
    }

    fn read(&self, ids: &[MessageId], into: &mut Vec<Found>) -> io::Result<()> {
        let state = self.lock();
        let message = |id: &MessageId| state.messages.get((id.0 as usize).checked_sub(1)?);
        let answer = |id: &MessageId| match (state.answers.get(id), message(id)) {
            (Some(answer), _) => answer.clone(),
            (None, Some(message)) => Found::Here(message.clone()),
            (None, None) => Found::Settled,
        };
        let from = into.len();
        into.extend(ids.iter().map(answer));
        match into[from..].iter().any(|f| matches!(f, Found::Later)) {
            true => Err(io::Error::other("the disk is broken")),
            false => Ok(()),
        }
    }

    fn backlog_bytes(&self) -> u64 {
        self.lock().backlog
    }

    fn close(&self, _redelivered: &[(QueueId, MessageId)]) -> io::Result<()> {
        self.sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::message::Parts;
    use crate::broker::ports::LoggedPublish;

    fn stage(log: &MemoryLog, body: &[u8], settles: &[MessageId]) -> Appended {
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q".into(),
            properties: &[0, 0],
            flags: 0,
        };
        let mut records = Records::default();
        records.targets.push(Target {
            queue: QueueId(1),
            expires_at: 0,
            priority: 0,
            delivery_count: 0,
        });
        records.publishes.push(LoggedPublish {
            message: Message::uncounted(&parts, body),
            first_target: 0,
            n_targets: 1,
            transient: false,
        });
        records
            .settles
            .extend(settles.iter().map(|id| (QueueId(1), *id)));
        log.append(&mut records).expect("accepted")
    }

    #[test]
    fn a_crash_loses_what_was_not_durable() {
        let log = MemoryLog::new();
        let first = stage(&log, b"one", &[]);
        let second = stage(&log, b"two", &[first.first_id]);
        log.hold(true);
        stage(&log, b"three", &[second.first_id]);
        assert!(log.durable() < log.staged());
        let after = log.after_crash();
        let mut found = Vec::new();
        after.recover(&|_| true, &mut |run| found.push(run.first_id));
        assert_eq!(found, [second.first_id]);
        let mut read = Vec::new();
        after.read(&found, &mut read).expect("read");
        assert!(matches!(&read[..], [Found::Here(m)] if m.body() == b"two"));
        log.fail();
        assert_eq!(log.append(&mut Records::default()), Err(LogFailed));
    }
}
