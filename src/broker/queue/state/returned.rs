//! What came back and is not ready yet: messages of a quorum queue that are tried again later, and dead
//! letters that nobody took.

use super::*;
use crate::broker::ports::MessageId;
use crate::broker::redelivery::{Known, ReturnedCopy};

/// How long a dead letter that nobody took waits until it is routed again, milliseconds.
const DEAD_LETTER_RETRY_MS: u64 = 1_000;

/// Dead letters that are routed again at a time.
const DEAD_LETTER_RETRIES: usize = 4096;

/// What is not ready.
#[derive(Default)]
pub(super) struct Away {
    /// By the time at which they are ready again (or expired), unix milliseconds, and their numbers.
    delayed: BTreeMap<(u64, u64), Entry>,
    /// Dead letters (`x-dead-letter-strategy: at-least-once`), without their bodies.
    dead: VecDeque<(Entry, DeathReason)>,
    /// When dead letters are routed again.
    dead_at: Option<u64>,
}

impl Away {
    pub(super) fn len(&self) -> u64 {
        (self.delayed.len() + self.dead.len()) as u64
    }

    /// Dead letters count against the queue's length limit, or there would be none for them.
    pub(super) fn n_dead(&self) -> u64 {
        self.dead.len() as u64
    }

    /// When something is due, unix milliseconds.
    pub(super) fn next(&self) -> Option<u64> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        delayed.into_iter().chain(self.dead_at).min()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let dead = self.dead.iter().map(|(entry, _)| entry);
        self.delayed.values().chain(dead)
    }

    /// Moves bodies out of memory that the log has; returns how many.
    pub(super) fn evict(&mut self, count: usize) -> usize {
        let held = self.delayed.values_mut().filter(|e| e.message.is_some());
        held.filter(|e| e.id.is_some())
            .take(count)
            .map(|e| e.message = None)
            .count()
    }
}

impl QueueState {
    /// A delivery failed, or was handed back: the message returns to its place, waits to be tried again,
    /// or has been tried too often.
    pub(super) fn come_back(&mut self, mut entry: Entry, how: Settle, cx: &mut Cx<'_>) {
        entry.redelivered = true;
        let settings = &cx.queue.info.settings;
        let failed = how == Settle::Fail;
        if failed {
            entry.count_failure();
        }
        if settings.queue_type != QueueType::Quorum {
            return self.requeue(entry, cx);
        }
        entry.acquired_count = entry.acquired_count.saturating_add(1);
        if failed
            && let Some(limit) = settings.delivery_limit
            && entry.delivery_count > limit
        {
            return self.die(entry, DeathReason::DeliveryLimit, cx);
        }
        if entry.is_over(cx.now) {
            return self.die(entry, DeathReason::Expired, cx);
        }
        let delay = settings.delayed_retry.delay(failed, entry.delivery_count);
        let retry_at = if delay > 0 { cx.now + delay } else { 0 };
        note(&entry, retry_at, None, cx);
        self.ready_at(entry, retry_at, cx);
    }

    /// The message is ready at this time, or expires if its own comes first.
    fn ready_at(&mut self, entry: Entry, retry_at: u64, cx: &mut Cx<'_>) {
        let at = match entry.expires_at {
            0 => retry_at,
            expires_at => retry_at.min(expires_at),
        };
        if at > cx.now {
            self.away.delayed.insert((at, entry.seq), entry);
        } else {
            self.requeue(entry, cx);
        }
    }

    /// Nobody took a dead letter: it waits until somebody does.
    pub(in crate::broker::queue) fn keep_dead(
        &mut self,
        mut entry: Entry,
        reason: DeathReason,
        cx: &mut Cx<'_>,
    ) {
        if entry.id.is_some() {
            entry.message = None;
        }
        note(&entry, 0, Some(reason), cx);
        self.away.dead.push_back((entry, reason));
        let at = cx.now + DEAD_LETTER_RETRY_MS;
        self.away.dead_at.get_or_insert(at);
        self.arm(cx);
    }

    /// Brings back what is due, without handing it out; false if nothing is.
    pub(super) fn bring_back(&mut self, cx: &mut Cx<'_>) -> bool {
        let mut some = false;
        while let Some(first) = self.away.delayed.first_entry()
            && first.key().0 <= cx.now
        {
            let entry = first.remove();
            self.requeue(entry, cx);
            some = true;
        }
        if self.away.dead_at.is_some_and(|at| at <= cx.now) {
            self.away.dead_at = None;
            let n = self.away.dead.len().min(DEAD_LETTER_RETRIES);
            let due: Vec<_> = self.away.dead.drain(..n).collect();
            for (entry, reason) in due {
                self.die(entry, reason, cx);
            }
            if !self.away.dead.is_empty() {
                self.away.dead_at = Some(cx.now + DEAD_LETTER_RETRY_MS);
            }
        }
        some
    }

    /// Takes copies that recovery found and that had come back before.
    pub(in crate::broker::queue) fn recover_returned(
        &mut self,
        run: &RecoveredRun,
        known: Known,
        cx: &mut Cx<'_>,
    ) {
        if known.dead.is_none() && known.retry_at <= cx.now {
            return self.recover_ready(run, ColdRun::returned(self.next_seq, run, known));
        }
        for n in 0..u64::from(run.count) {
            let entry = Entry {
                seq: self.next_seq,
                id: MessageId(run.first_id.0 + n),
                message: None,
                expires_at: run.target.expires_at,
                body_len: run.body_len,
                delivery_count: known.delivery_count,
                acquired_count: known.acquired_count,
                priority: run.target.priority.min(self.max_priority()),
                redelivered: true,
            };
            self.next_seq += 1;
            if let Some(reason) = known.dead {
                self.away.dead.push_back((entry, reason));
                self.away.dead_at = Some(cx.now);
            } else {
                self.ready_at(entry, known.retry_at, cx);
            }
        }
    }

    /// Takes everything away; the log copies are in `cx.fx`.
    pub(super) fn purge_away(&mut self, cx: &mut Cx<'_>) -> u64 {
        let away = std::mem::take(&mut self.away);
        let copies = away.entries().filter(|e| e.id.is_some());
        cx.fx
            .settles
            .extend(copies.map(|e| (cx.queue.info.id, e.id)));
        away.len()
    }
}

/// Notes what has to be known of a copy after a crash.
fn note(entry: &Entry, retry_at: u64, dead: Option<DeathReason>, cx: &mut Cx<'_>) {
    if entry.id.is_some() {
        cx.fx.returned.push(ReturnedCopy {
            queue: cx.queue.info.id,
            id: entry.id,
            known: Known {
                delivery_count: entry.delivery_count,
                acquired_count: entry.acquired_count,
                retry_at,
                dead,
            },
        });
    }
}
