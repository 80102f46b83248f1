//! `basic.ack`, `nack`, `reject`, `recover`: settling deliveries, batched per queue.

use super::connection::Connection;
use super::errors::Exception;
use crate::broker::queue::Settle;
use crate::broker::totals::QueueKind;
use crate::protocol::methods::basic;
use crate::protocol::reply_code::{HardCode, SoftCode};

impl Connection {
    /// Settles one delivery, or all up to it.
    pub(super) fn settle(
        &mut self,
        number: u16,
        tag: u64,
        multiple: bool,
        how: Settle,
    ) -> Result<(), Exception> {
        let (batch, ch) = self.channels_entry(number)?;
        let mut credited = 0u32;
        if let Some(mut tx) = ch.tx.take() {
            let settled = ch.take_unacked(tag, multiple, |u| tx.settle(u, how));
            ch.tx = Some(tx);
            return settled.map(drop).ok_or_else(|| unknown(tag));
        }
        let mut by_kind = [0; QueueKind::ALL.len()];
        let settled = ch.take_unacked(tag, multiple, |u| {
            credited += u32::from(u.credited);
            batch.settle(&u.queue, u.delivery, how);
            by_kind[QueueKind::of(&u.queue) as usize] += 1;
        });
        if settled.is_none() {
            return Err(unknown(tag));
        }
        if how == Settle::Ack {
            for (counted, n) in self.counted.queues.iter_mut().zip(by_kind) {
                counted.acknowledged += n;
            }
        }
        if credited > 0 {
            self.return_credit(number, credited);
        }
        Ok(())
    }

    /// Gives credit back to the channel's own limit, and lets waiting queues go on.
    pub(super) fn return_credit(&mut self, number: u16, n: u32) {
        let Ok(ch) = self.channel_mut(number) else {
            return;
        };
        let Some(credit) = ch.credit.clone() else {
            return;
        };
        // The queues have to know of the settlements first.
        self.flush();
        credit.give_back(n);
        for queue in credit.take_waiting() {
            queue.resume_all(self.now, &mut self.batch.fx);
        }
    }

    /// `basic.recover`: everything unacknowledged goes back.
    pub(super) fn recover(
        &mut self,
        number: u16,
        requeue: bool,
        answer: bool,
    ) -> Result<(), Exception> {
        if !requeue {
            return Err(Exception::hard(HardCode::NOT_IMPLEMENTED, "requeue=false"));
        }
        // What a transaction has settled already is not given back.
        let tx = self.channel_mut(number)?.tx.take();
        let settled = self.settle(number, 0, true, Settle::Requeue);
        self.channel_mut(number)?.tx = tx;
        settled?;
        if answer {
            self.send(number, &basic::RecoverOk);
        }
        self.flush();
        Ok(())
    }
}

fn unknown(tag: u64) -> Exception {
    let text = format!("unknown delivery tag {tag}");
    Exception::soft(SoftCode::PRECONDITION_FAILED, text)
}
