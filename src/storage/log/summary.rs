//! What recovery has to know of a segment: who got which messages, and what is settled in it.
//!
//! It is made by reading the segment, or comes from the index beside it, and weighs next to nothing:
//! messages that one queue got one after the other are one run.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::{self, FrameHeader, PublishRecord, Record};
use super::open::SegmentFile;
use super::segment::{Segment, lsn};
use crate::broker::ports::{DefinitionChange, Lsn, MessageId, QueueId, RecoveredRun, Target};

/// Copies that a queue is done with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) queue: QueueId,
    /// Ids, both inclusive.
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The contents of a segment, without the messages.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) number: u32,
    /// Ids of its messages are in `first_id..next_id`; those in no run have no copy.
    pub(super) first_id: u64,
    pub(super) next_id: u64,
    /// Bytes in use.
    pub(super) len: u32,
    /// Where its last frame starts.
    pub(super) last_frame: u32,
    /// Position of its latest definition change; the changes themselves are not in here.
    pub(super) definitions_to: Lsn,
    /// Its last frame says that it ends there.
    pub(super) ended: bool,
    /// What had been delivered, if its last frame is the end of a life in order.
    pub(super) clean_stop: Option<Vec<(QueueId, MessageId)>>,
    /// As [`Segment::sparse`].
    pub(super) sparse: Vec<(u64, u32)>,
    /// Copies as they were published. The runs of one message's targets stand together, in order.
    pub(super) runs: Vec<RecoveredRun>,
    /// In no particular order; of this segment's messages and of older ones.
    pub(super) settled: Vec<Settled>,
    latest: Latest,
    /// Runs that were moved to make room for others, for a test.
    #[cfg(test)]
    n_moved: usize,
}

/// Where each queue's latest range stands: settles mostly go on where the queue's last one ended.
#[derive(Debug, Default)]
struct Latest {
    by_queue: HashMap<QueueId, usize>,
    last: Option<(QueueId, usize)>,
}

impl Summary {
    /// Of a segment of which nothing was read yet.
    pub(super) fn of(number: u32) -> Summary {
        Summary {
            number,
            ..Summary::default()
        }
    }

    /// Adds the next frame; `definition` gets the definition changes. False if
    /// there are records in it that cannot be understood.
    pub(super) fn add(
        &mut self,
        frame: &[u8],
        header: &FrameHeader,
        mut definition: impl FnMut(Lsn, DefinitionChange),
    ) -> bool {
        if self.len == 0 {
            (self.first_id, self.next_id) = (header.first_id, header.first_id);
        }
        self.last_frame = header.offset;
        self.len = header.offset + header.size() as u32;
        let end_id = header.first_id + u64::from(header.n_messages);
        if header.first_id < self.next_id || end_id - self.first_id > format::SEGMENT_IDS_MAX {
            return false; // Ids rise, and a segment has so many at most.
        }
        self.next_id = end_id;
        super::segment::note_frame(&mut self.sparse, header.first_id, header.offset);
        self.ended = false;
        self.clean_stop = None;
        let position = lsn(self.number, self.len);
        format::decode(frame, header, |record| match record {
            Record::Publish(p) if p.transient => {}
            Record::Publish(p) => self.published(&p),
            Record::Settle(queue, id) => self.settle(queue, id, id),
            Record::SettledRange(queue, first, last) => self.settle(queue, first, last),
            Record::Definition(change) => {
                self.definitions_to = position;
                definition(position, change);
            }
            Record::CleanStop(copies) => {
                self.ended = true;
                self.clean_stop = Some(copies);
            }
            Record::Seal => self.ended = true,
        })
    }

    fn published(&mut self, p: &PublishRecord<'_>) {
        // The runs of the message before, if it had as many targets.
        let latest = self.runs.len().saturating_sub(p.n_targets());
        let goes_on = |run: &RecoveredRun, target: &Target| {
            run.target == *target
                && run.first_id.0 + u64::from(run.count) == p.id.0
                && run.body_len == p.body_len
        };
        let one_more = |run: &mut RecoveredRun| run.count += 1;
        let mut latest_and_targets = self.runs[latest..].iter().zip(p.targets());
        if self.runs.len() >= p.n_targets()
            && latest_and_targets.all(|(run, target)| goes_on(run, &target))
        {
            self.runs[latest..].iter_mut().for_each(one_more);
            return;
        }
        #[cfg(test)]
        {
            self.n_moved += self.runs.len() - latest;
        }
        // Those that do not go on stay where they are; the message's own stand together behind them.
        let mut before = self.runs.split_off(latest).into_iter();
        let mut own = Vec::with_capacity(p.n_targets());
        for target in p.targets() {
            match before.next() {
                Some(mut run) if goes_on(&run, &target) => {
                    one_more(&mut run);
                    own.push(run);
                }
                other => {
                    self.runs.extend(other);
                    own.push(RecoveredRun {
                        target,
                        first_id: p.id,
                        count: 1,
                        body_len: p.body_len,
                        redelivered: false,
                    });
                }
            }
        }
        self.runs.append(&mut own);
    }

    fn settle(&mut self, queue: QueueId, first: MessageId, last: MessageId) {
        let Latest { by_queue, last: at } = &mut self.latest;
        let known = match at {
            Some((latest, at)) if *latest == queue => Some(*at),
            _ => by_queue.get(&queue).copied(),
        };
        if let Some(range) = known.and_then(|at| self.settled.get_mut(at))
            && range.last.checked_add(1) == Some(first.0)
        {
            range.last = last.0;
            *at = known.map(|known| (queue, known));
            return;
        }
        let new = self.settled.len();
        by_queue.insert(queue, new);
        *at = Some((queue, new));
        self.settled.push(Settled {
            queue,
            first: first.0,
            last: last.0,
        });
    }

    /// The segment as it was before anything in it was settled.
    pub(super) fn segment(&mut self, file: Arc<SegmentFile>) -> Segment {
        let mut segment = Segment::new(Some(file), self.first_id);
        segment.len = self.len;
        segment.sparse = std::mem::take(&mut self.sparse);
        segment.note_runs(self.next_id, &self.runs);
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::message::{Message, Parts};
    use crate::broker::ports::{LoggedPublish, Records};
    use crate::storage::octets::Salt;

    fn target(queue: u64, expires_at: u64) -> Target {
        Target {
            queue: QueueId(queue),
            expires_at,
            priority: 0,
            delivery_count: 0,
        }
    }

    /// The summary of messages with these targets, one frame.
    fn summary(messages: &[Vec<Target>]) -> Summary {
        let parts = Parts {
            exchange: "".into(),
            routing_key: "".into(),
            properties: &[0, 0],
            flags: 0,
        };
        let mut records = Records::default();
        for targets in messages {
            records.publishes.push(LoggedPublish {
                message: Message::uncounted(&parts, b"x"),
                first_target: records.targets.len() as u32,
                n_targets: targets.len() as u32,
                transient: false,
            });
            records.targets.extend(targets);
        }
        let place = format::Place {
            segment: 1,
            salt: Salt::NONE,
            offset: 0,
            watermark: 0,
            first_id: 1,
        };
        let mut frame = Vec::new();
        let part = format::Part::all(&records);
        format::encode(&mut frame, &records, &part, 0, &place);
        let header = FrameHeader::read(&frame).expect("a frame");
        let mut summary = Summary::of(1);
        assert!(summary.add(&frame, &header, |_, _| {}));
        summary
    }

    #[test]
    fn a_fan_out_is_compared_where_it_is() {
        let targets: Vec<_> = (1..=500).map(|queue| target(queue, 0)).collect();
        let summary = summary(&vec![targets; 200]);
        assert_eq!(summary.runs.len(), 500);
        assert!(summary.runs.iter().all(|run| run.count == 200));
        assert_eq!(summary.n_moved, 0, "per message and queue");
    }

    #[test]
    fn runs_say_who_got_what() {
        let mut x = 5u64;
        for _ in 0..500 {
            let mut next = |n: u64| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x % n
            };
            let messages: Vec<Vec<Target>> = (0..next(20))
                .map(|_| {
                    let queues = (1..=4).filter(|_| next(3) > 0).collect::<Vec<u64>>();
                    queues.iter().map(|q| target(*q, next(2) * *q)).collect()
                })
                .collect();
            let mut expected: Vec<_> = (1u64..)
                .zip(&messages)
                .flat_map(|(id, targets)| targets.iter().map(move |t| (t.queue, id, t.expires_at)))
                .collect();
            let summary = summary(&messages);
            let mut found: Vec<_> = summary
                .runs
                .iter()
                .flat_map(|run| {
                    let ids = run.first_id.0..run.first_id.0 + u64::from(run.count);
                    ids.map(|id| (run.target.queue, id, run.target.expires_at))
                })
                .collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}
