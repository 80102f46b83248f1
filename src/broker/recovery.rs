//! The messages of the log, handed to their queues when the broker starts; and dead letters worked off since.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Batch;
use super::node::Broker;
use super::ports::{LogFailed, QueueId, RecoveredRun};
use super::queue::Queue;

impl Broker {
    /// Hands the copies that recovery found to their queues; `recover` calls back with each run.
    pub fn recover_messages(
        &self,
        recover: impl FnOnce(&dyn Fn(QueueId) -> bool, &mut dyn FnMut(RecoveredRun)),
        now: u64,
    ) {
        let queues: HashMap<QueueId, Arc<Queue>> =
            self.all_queues().into_iter().map(|q| (q.id(), q)).collect();
        let mut batch = Batch::default();
        let mut returned = self.returned().take_found();
        let kept = std::mem::take(&mut *self.kept.lock());
        let known = |id| queues.contains_key(&id) || kept.keeps(id);
        recover(&known, &mut |run| {
            if let Some(queue) = queues.get(&run.target.queue) {
                returned.split(&run, |run, known| match known {
                    Some(known) => queue.recover_returned(run, known, now, &mut batch.fx),
                    None => queue.recover(run, now, &mut batch.fx),
                });
            }
        });
        batch.define(
            self.returned()
                .put_found(returned, |queue| kept.keeps(queue)),
        );
        for queue in queues.values() {
            queue.recovered(now, &mut batch.fx);
        }
        // The log was just opened: if it fails now, the first publish will say so.
        let _ = batch.flush(self, now);
    }

    /// Works off some of the dead letters that wait, and whoever asked for it through
    /// [`super::queue::scheduler::Scheduler::work_off`] goes on until it is false: nothing is left.
    ///
    /// # Errors
    /// [`LogFailed`]
    pub fn work_off(&self, batch: &mut Batch, now: u64) -> Result<bool, LogFailed> {
        let turn = self.backlog().take_turn();
        let (flow, n) = (turn.flow, turn.dead.len());
        let result = batch.flush_dead(self, turn, now);
        let more = self.backlog().end_turn(flow, n);
        result.map(|()| more)
    }
}
