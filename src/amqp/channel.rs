//! The state of one channel.

use std::collections::VecDeque;
use std::sync::Arc;

use super::assembly::Assembly;
use super::confirms::Confirms;
use super::transaction::Tx;
use super::unacked::Unacked;
use crate::broker::queue::outlet::ChannelCredit;

/// Where a channel stands.
///
/// ```text
///            channel.open              error
///  (nothing) ------------> Open ------------------> Closing
///      ^                    | channel.close            | channel.close-ok,
///      +--------------------+--------------------------+ or channel.close
/// ```
///
/// While closing, everything on the number is ignored but the two methods that end it, and what cannot be right
/// on any channel: `channel.open`, and frames of content out of order. A channel that its
/// client closed is [`Phase::Left`] for the rest of what was read with that: as in RabbitMQ, what the client
/// had sent right behind is ignored, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Open,
    Closing,
    Left,
}

/// A channel.
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) phase: Phase,
    pub(super) assembly: Assembly,
    pub(super) confirms: Option<Confirms>,
    /// Since `tx.select`.
    pub(super) tx: Option<Tx>,
    /// In the order of their tags.
    pub(super) unacked: VecDeque<Unacked>,
    pub(super) next_tag: u64,
    /// Name of the queue that was declared last.
    pub(super) last_queue: String,
    /// For consumers to come: `basic.qos global=false`.
    pub(super) prefetch_count: u16,
    /// `basic.qos global=true`, once it was used.
    pub(super) credit: Option<Arc<ChannelCredit>>,
    /// Slots of its consumers in the connection's table.
    pub(super) consumers: Vec<u32>,
    /// The direct reply-to consumer: its slot and generated name.
    pub(super) reply_consumer: Option<(u32, String)>,
}

impl Channel {
    pub(super) fn new(number: u16) -> Channel {
        Channel {
            number,
            phase: Phase::Open,
            assembly: Assembly::default(),
            confirms: None,
            tx: None,
            unacked: VecDeque::new(),
            next_tag: 1,
            last_queue: String::new(),
            prefetch_count: 0,
            credit: None,
            consumers: Vec::new(),
            reply_consumer: None,
        }
    }

    /// Whether something is left of it that has to go back or be given back.
    pub(super) fn holds(&self) -> bool {
        !self.unacked.is_empty()
            || !self.consumers.is_empty()
            || self.reply_consumer.is_some()
            || self.tx.as_ref().is_some_and(|tx| !tx.is_empty())
            || self.assembly.holds()
    }

    /// The next delivery tag.
    pub(super) fn tag(&mut self) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        tag
    }

    /// Takes what a settlement names: one delivery, or all up to it; tag zero with `multiple` is
    /// all. Returns how many; `None`: no such delivery.
    pub(super) fn take_unacked(
        &mut self,
        tag: u64,
        multiple: bool,
        each: impl FnMut(Unacked),
    ) -> Option<usize> {
        if tag == 0 && multiple {
            let n = self.unacked.len();
            self.unacked.drain(..).for_each(each);
            return Some(n);
        }
        let at = self.unacked.binary_search_by_key(&tag, |u| u.tag).ok()?;
        if multiple {
            self.unacked.drain(..=at).for_each(each);
            return Some(at + 1);
        }
        self.unacked.remove(at).into_iter().for_each(each);
        Some(1)
    }
}
