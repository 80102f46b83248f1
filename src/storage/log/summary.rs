//! What recovery has to know of a segment: who got which messages, and what is settled in it.
//!
//! It is made by reading the segment, or comes from the index beside it, and weighs next to nothing:
//! messages that one queue got one after the other are one run.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::{self, FrameHeader, PublishRecord, Record};
use super::segment::{Segment, lsn};
use crate::broker::ports::{DefinitionChange, Lsn, MessageId, QueueId, RecoveredRun};
use crate::storage::files::LogFile;

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
        let n = p.n_targets();
        for target in p.targets() {
            // The same target of the message before, if this is one more of the same.
            let at = self.runs.len().checked_sub(n);
            if let Some(at) = at
                && let Some(run) = self.runs.get_mut(at)
                && run.target == target
                && run.first_id.0 + u64::from(run.count) == p.id.0
                && run.body_len == p.body_len
            {
                run.count += 1;
                // The runs of one message's targets stay together, in order.
                self.runs[at..].rotate_left(1);
                continue;
            }
            let (body_len, first_id) = (p.body_len, p.id);
            self.runs.push(RecoveredRun {
                target,
                first_id,
                count: 1,
                body_len,
                redelivered: false,
            });
        }
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
    pub(super) fn segment(&mut self, file: Arc<dyn LogFile>) -> Segment {
        let mut segment = Segment::new(Some(file), self.first_id);
        segment.len = self.len;
        segment.sparse = std::mem::take(&mut self.sparse);
        segment.note_runs(self.next_id, &self.runs);
        segment
    }
}
