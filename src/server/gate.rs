//! Whether a connection is read, and why not.
//!
//! The only thing that slows a peer down is that its socket is not read. There are several reasons for
//! that, and this is the one place where they meet:
//!
//! | reason | whom it holds back | it ends when |
//! | --- | --- | --- |
//! | [`Reason::Session`] | anybody | a reply has been sent that waits for the log, or the connection is over |
//! | [`Reason::Output`] | who does not read what it is told | it has read |
//! | [`Reason::Alarm`] | who publishes | the alarm is over |
//! | [`Reason::Full`] | whose publishes go to the log | the disk has room again |
//! | [`Reason::Backlog`] | whose publishes go to the log | the disk has caught up |
//! | [`Reason::Memory`] | who publishes while memory is short | some milliseconds have passed |
//! | [`Reason::Consumers`] | who streams into a queue whose consumers are behind | they have caught up, or time has passed |
//!
//! A connection that only consumes, acknowledges, declares, gets or logs in is held back by nothing but
//! its own session and output: it is what makes room for those who publish.
//!
//! [`Gate::look`] decides, once a step; [`Gate::closed`] says what was decided and changes nothing. So
//! input that stays behind has the deadline, or the bell, that goes with the reason it stayed for.

use std::sync::Arc;

use super::patience::Patience;
use crate::amqp::connection::Held;
use crate::broker::queue::Queue;

/// How long a publisher of transient messages is not read while memory is over its budget, per read:
/// its messages go to disk, and a consumer that is a little behind gets the time to catch up.
const SPILL_PAUSE_MS: u64 = 2;

/// How often a connection looks whether the disk has room again, until the alarm says so, milliseconds.
const FULL_LOOK_MS: u64 = 50;

/// Why a connection is not read. See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    Session,
    Output,
    Alarm,
    Full,
    Backlog,
    Memory,
    Consumers,
}

/// What the gate looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// What the session itself says.
    pub(super) session: Option<Held>,
    /// Its publishes go to the log.
    pub(super) logs: bool,
    /// The disk has no room. The alarm says so, too, but later: by then publishers have used up what is
    /// there for those who settle.
    pub(super) full: bool,
    /// More is staged for the disk than should be.
    pub(super) backlog: bool,
    /// Much of the budget for messages is used.
    pub(super) memory_short: bool,
    /// Unix milliseconds.
    pub(super) now: u64,
}

/// What a connection published in one read.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Transient messages went to the log, for want of memory.
    pub(super) spilled: bool,
    /// It streams into this queue, whose consumers are behind, and will be rung when they are not.
    pub(super) behind: Option<Arc<Queue>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    /// Not before this time, unix milliseconds, because memory is short.
    paused_until: u64,
    patience: Patience,
    behind: Option<Arc<Queue>>,
    closed: Option<Reason>,
    /// When it was decided.
    looked: u64,
}

impl Gate {
    pub(super) fn new() -> Gate {
        Gate {
            paused_until: 0,
            patience: Patience::new(),
            behind: None,
            closed: None,
            looked: 0,
        }
    }

    /// The connection published; called before the next [`Self::look`].
    pub(super) fn published(&mut self, published: Published, view: &View) {
        if published.spilled {
            self.paused_until = view.now + SPILL_PAUSE_MS;
        }
        if published.behind.is_some() {
            self.behind = published.behind;
        }
        if view.memory_short {
            self.patience.published_under_pressure(view.now);
        }
    }

    /// Decides whether the connection is read from now on.
    pub(super) fn look(&mut self, view: &View) {
        let now = view.now;
        if self.patience.waits(view.memory_short, now) {
            self.paused_until = self.paused_until.max(now + 1);
        }
        if self
            .behind
            .as_ref()
            .is_some_and(|q| q.behind_until() <= now)
        {
            self.behind = None;
        }
        self.looked = now;
        self.closed = match view.session {
            Some(Held::Reply | Held::Over) => Some(Reason::Session),
            Some(Held::Output) => Some(Reason::Output),
            Some(Held::Alarm) => Some(Reason::Alarm),
            None if view.logs && view.full => Some(Reason::Full),
            None if view.logs && view.backlog => Some(Reason::Backlog),
            None if self.paused_until > now => Some(Reason::Memory),
            None if self.behind.is_some() => Some(Reason::Consumers),
            None => None,
        };
    }

    /// Why the connection is not read; `None`: it is.
    pub(super) fn closed(&self) -> Option<Reason> {
        self.closed
    }

    /// When to look again if nothing rings before, unix milliseconds.
    pub(super) fn until(&self) -> Option<u64> {
        match self.closed? {
            Reason::Full => Some(self.looked + FULL_LOOK_MS),
            Reason::Memory => Some(self.paused_until),
            Reason::Consumers => self.behind.as_ref().map(|q| q.behind_until()),
            Reason::Session | Reason::Output | Reason::Alarm | Reason::Backlog => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use crate::broker::batch::Batch;
    use crate::broker::message::{Message, Parts};
    use crate::broker::queue::ConsumerInfo;
    use crate::broker::queue::outlet::ConsumerKey;
    use crate::broker::vhost::QueueDeclare;
    use crate::protocol::field_table::FieldTable;
    use crate::server::inbox::Inbox;
    use crate::storage::memory::MemoryLog;

    const NOW: u64 = 1000;

    /// Nothing is wrong.
    const CALM: View = View {
        session: None,
        logs: true,
        full: false,
        backlog: false,
        memory_short: false,
        now: NOW,
    };

    /// Everything is, and the connection is no part of it.
    const CROWDED: View = View {
        session: None,
        logs: false,
        full: true,
        backlog: true,
        memory_short: true,
        now: NOW,
    };

    fn closed(gate: &mut Gate, view: View) -> (Option<Reason>, Option<u64>) {
        gate.look(&view);
        assert_eq!(gate.closed(), gate.closed(), "asking changes nothing");
        (gate.closed(), gate.until())
    }

    #[test]
    fn each_reason_closes_it_and_opens_it() {
        let mut gate = Gate::new();
        assert_eq!(closed(&mut gate, CALM), (None, None));
        for (session, reason) in [
            (Held::Reply, Reason::Session),
            (Held::Over, Reason::Session),
            (Held::Output, Reason::Output),
            (Held::Alarm, Reason::Alarm),
        ] {
            let session = Some(session);
            let view = View { session, ..CALM };
            assert_eq!(closed(&mut gate, view), (Some(reason), None));
            assert_eq!(closed(&mut gate, CALM), (None, None));
        }
        let full = View { full: true, ..CALM };
        let until = NOW + FULL_LOOK_MS;
        assert_eq!(closed(&mut gate, full), (Some(Reason::Full), Some(until)));
        assert_eq!(closed(&mut gate, CALM), (None, None));
        let behind = View {
            backlog: true,
            ..CALM
        };
        assert_eq!(closed(&mut gate, behind), (Some(Reason::Backlog), None));
        assert_eq!(closed(&mut gate, CALM), (None, None));

        let spilled = Published {
            spilled: true,
            behind: None,
        };
        gate.published(spilled, &CALM);
        let until = NOW + SPILL_PAUSE_MS;
        assert_eq!(closed(&mut gate, CALM), (Some(Reason::Memory), Some(until)));
        assert_eq!(closed(&mut gate, View { now: until, ..CALM }), (None, None));

        let mut gate = Gate::new();
        let short = View {
            memory_short: true,
            ..CALM
        };
        gate.published(Published::default(), &short);
        assert_eq!(
            closed(&mut gate, short),
            (Some(Reason::Memory), Some(NOW + 1))
        );
        assert_eq!(
            closed(
                &mut gate,
                View {
                    now: NOW + 1,
                    ..CALM
                }
            ),
            (None, None)
        );
    }

    /// A queue whose only consumer has taken one message of many.
    fn queue_behind() -> Arc<Queue> {
        let (broker, _) = Broker::new(MemoryLog::new(), &[]);
        broker.add_vhost("/").expect("the log works");
        let vhost = broker.vhost("/").expect("just added");
        let none = FieldTable::new();
        let declared = vhost.declare_queue(&QueueDeclare::named("q", &none));
        let queue = declared.expect("new").0;
        let consumer = ConsumerInfo {
            key: ConsumerKey {
                slot: 0,
                generation: 0,
            },
            tag: "c".into(),
            outlet: Inbox::new(100, 1 << 20),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch_count: 1,
            timeout: 0,
            channel_credit: None,
        };
        let mut batch = Batch::default();
        queue
            .consume(consumer, NOW, &mut batch.fx)
            .expect("nobody else");
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q".into(),
            properties: &[0, 0],
            flags: 0,
        };
        for _ in 0..1000 {
            let message = Message::new(broker.memory(), &parts, &[0; 1024]);
            batch.publish(message, std::slice::from_ref(&queue), None, None, NOW);
        }
        batch.flush(&broker, NOW).expect("the log works");
        queue
    }

    #[test]
    fn who_streams_waits_for_consumers_until_it_is_time() {
        let queue = queue_behind();
        let until = queue.behind_until();
        assert!(until > NOW);
        let mut gate = Gate::new();
        let published = Published {
            spilled: false,
            behind: Some(queue),
        };
        gate.published(published, &CALM);
        let waits = (Some(Reason::Consumers), Some(until));
        assert_eq!(closed(&mut gate, CALM), waits);
        let later = View { now: until, ..CALM };
        assert_eq!(closed(&mut gate, later), (None, None));
    }

    #[test]
    fn who_does_not_publish_is_held_back_by_itself_alone() {
        let mut gate = Gate::new();
        assert_eq!(closed(&mut gate, CROWDED), (None, None));
        // Nor is who publishes what no disk sees held back by the disk.
        let transient = View {
            memory_short: false,
            ..CROWDED
        };
        gate.published(Published::default(), &transient);
        assert_eq!(closed(&mut gate, transient), (None, None));
    }
}
