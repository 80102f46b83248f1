//! What the core needs from outside: a log for messages and definitions, a store for definitions, a
//! way out to consumers.
//!
//! The first two are "stage, watermark, bell": the core stages records and learns their position,
//! whoever promised something waits until the watermark has passed that position. A replicated
//! engine fits by letting the watermark be its commit index.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::memory::Charge;
use super::message::Message;

/// Position in the log: everything staged before it is durable once [`MessageLog::durable`] is at
/// least this. Monotonic, without meaning otherwise; zero is before everything.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(pub u64);

/// Names a message in the log for ever: the ordinal of its publish record, counted from one and
/// never reused. Settles, moves and recovery speak of ids, never of where a body is now.
///
/// Zero means "not in the log" where a plain `MessageId` is kept without an `Option`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The message has no copy in the log.
    pub const NONE: MessageId = MessageId(0);

    /// Whether the message has a copy in the log.
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// Names a queue in the log; never reused, not even after the queue is deleted. Counted from one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct QueueId(pub u64);

/// Ids of queues that do not survive a restart have this bit: recovery knows none of them.
pub const TRANSIENT_QUEUE: u64 = 1 << 63;

/// One queue that gets a copy of a logged message, with what recovery needs of that copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// The queue.
    pub queue: QueueId,
    /// Unix milliseconds at which the copy expires; zero: never.
    pub expires_at: u64,
    /// Priority level of the copy, zero without priorities.
    pub priority: u8,
    /// Deliveries that were attempted before (dead-lettered or returned copies); saturating.
    pub delivery_count: u16,
}

/// A message staged for the log with all queues that get a copy: written once, however many.
#[derive(Clone, Debug)]
pub struct LoggedPublish {
    /// The message.
    pub message: Message,
    /// `targets[first_target..first_target + n_targets]` of [`Records`].
    pub first_target: u32,
    /// Number of targets; at least one.
    pub n_targets: u32,
    /// The copies need not survive a restart: a transient message whose body leaves memory. Such a
    /// record is never recovered and asks for no sync.
    pub transient: bool,
}

/// A change of a definition: put or remove one value of one kind.
///
/// Values are opaque here; the broker encodes and versions them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DefinitionChange {
    /// What is changed.
    pub kind: DefinitionKind,
    /// Key within the kind; length-prefixed parts, since "/" is a vhost name.
    pub key: Vec<u8>,
    /// The new value, or `None` to remove it.
    pub value: Option<Vec<u8>>,
}

/// The kinds of definitions.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[allow(missing_docs, reason = "AMQP's and RabbitMQ's own terms")]
pub enum DefinitionKind {
    Vhost,
    User,
    Permission,
    Exchange,
    Queue,
    Binding,
    /// Limits of users and vhosts.
    Parameter,
    /// The broker's own counters, such as the next queue id.
    Meta,
    /// What a user may do on a topic exchange, by routing key.
    TopicPermission,
    /// An entry of a de-duplication window.
    Deduplication,
    /// What a quorum queue knows of messages that came back.
    Returned,
    /// One of a later version, by its number: kept as it is.
    Other(u8),
}

impl DefinitionKind {
    /// The kinds that this version knows, in the order of their numbers in log and store, from one.
    pub const ALL: [DefinitionKind; 11] = [
        DefinitionKind::Vhost,
        DefinitionKind::User,
        DefinitionKind::Permission,
        DefinitionKind::Exchange,
        DefinitionKind::Queue,
        DefinitionKind::Binding,
        DefinitionKind::Parameter,
        DefinitionKind::Meta,
        DefinitionKind::TopicPermission,
        DefinitionKind::Deduplication,
        DefinitionKind::Returned,
    ];

    /// Its number in log and store.
    pub fn number(self) -> u8 {
        if let DefinitionKind::Other(number) = self {
            return number;
        }
        let at = Self::ALL.iter().position(|k| *k == self);
        at.map_or(0, |at| at as u8 + 1)
    }

    /// The kind with this number.
    pub fn of(number: u8) -> DefinitionKind {
        let known = usize::from(number).checked_sub(1);
        let known = known.and_then(|at| Self::ALL.get(at));
        known.copied().unwrap_or(DefinitionKind::Other(number))
    }
}

/// What one flush stages: all or nothing after a crash, in this order: settles, definitions,
/// publishes.
///
/// The caller keeps one and reuses its vectors; [`MessageLog::append`] leaves it empty.
#[derive(Debug, Default)]
pub struct Records {
    /// Copies that are done with: acknowledged, expired, dropped, dead-lettered, purged. Each copy
    /// is settled at most once, and after its publish was appended.
    pub settles: Vec<(QueueId, MessageId)>,
    /// Ranges of copies that are done with, first and last id inclusive: the queue holds a live copy
    /// of every id in the range (a purged run).
    pub settled_ranges: Vec<(QueueId, MessageId, MessageId)>,
    /// Definition changes.
    pub definitions: Vec<DefinitionChange>,
    /// Messages.
    pub publishes: Vec<LoggedPublish>,
    /// The targets of `publishes`.
    pub targets: Vec<Target>,
}

impl Records {
    /// Whether there is nothing to stage.
    pub fn is_empty(&self) -> bool {
        self.settles.is_empty()
            && self.settled_ranges.is_empty()
            && self.definitions.is_empty()
            && self.publishes.is_empty()
    }

    /// Empties every list, keeping their room.
    pub fn clear(&mut self) {
        self.settles.clear();
        self.settled_ranges.clear();
        self.definitions.clear();
        self.publishes.clear();
        self.targets.clear();
    }
}

/// What [`MessageLog::append`] answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Id of the first of `publishes`; the others follow without a gap, in their order.
    pub first_id: MessageId,
    /// Position after the records.
    pub lsn: Lsn,
}

/// The log has failed (a write or a sync did); nothing more will be accepted. Final: fsync is never
/// retried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogFailed;

impl fmt::Display for LogFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message log has failed; nothing more is accepted")
    }
}

impl std::error::Error for LogFailed {}

/// What [`MessageLog::read`] says of a message. Only the log can know that one is lost: that it could
/// not be read says nothing of that.
#[derive(Clone, Debug)]
pub enum Found {
    /// Here it is.
    Here(Message),
    /// No copy of it is left: all are settled.
    Settled,
    /// What held it is damaged, which the log has reported with file and offset.
    Lost,
    /// The disk did not give it, or does not have it yet: to be asked again, a little later.
    Later,
}

/// Something that wants to be woken when the log has moved. Ringing twice is harmless.
pub trait Bell: Send + Sync {
    /// Wakes whoever waits. Never blocks.
    fn ring(&self);
}

/// Where accepted messages and definitions become durable.
///
/// A log is an ordered sequence of records and a watermark. Everything we promise a publisher has
/// the form "the watermark has passed your record"; whether a local fdatasync or a quorum moves it
/// is the engine's business.
pub trait MessageLog: Send + Sync {
    /// Stages `records`, empties it, and says where they are. Never waits for the disk.
    ///
    /// # Errors
    /// [`LogFailed`] once a write or sync has failed; nothing was staged then.
    fn append(&self, records: &mut Records) -> Result<Appended, LogFailed>;

    /// Every record before this position survives a crash.
    fn durable(&self) -> Lsn;

    /// The position after everything staged so far.
    fn staged(&self) -> Lsn;

    /// Whether a write or sync has failed.
    fn failed(&self) -> bool;

    /// Rings `bell` once `durable() >= lsn`, or the log has failed; at once if that holds already.
    /// This is what asks for a sync: records that nobody waits for are synced within
    /// the engine's flush interval.
    fn ring_at(&self, lsn: Lsn, bell: &Arc<dyn Bell>);

    /// Reads messages that memory no longer holds, in any order of `ids` (ascending is fast), and
    /// appends them to `into` in that order. Staged but unwritten ones are found, too. Blocks: call
    /// it from a thread that may wait for a disk.
    ///
    /// # Errors
    /// An I/O error of the disk. `into` has its answers all the same: what could not be read is
    /// [`Found::Later`].
    fn read(&self, ids: &[MessageId], into: &mut Vec<Found>) -> io::Result<()>;

    /// Whether the disk has no room: those whose publishes go there are not read.
    fn is_full(&self) -> bool {
        false
    }

    /// What the log holds of definitions until its store has them counts there from now on.
    fn count_definitions(&self, _charge: Charge) {}

    /// Bytes staged but not yet written. Connections stop reading above the configured limit.
    fn backlog_bytes(&self) -> u64;

    /// Writes and syncs everything staged, checkpoints, and closes. Blocks.
    ///
    /// `redelivered` names the copies that had been delivered without being settled: after a clean
    /// stop only these are recovered as redelivered.
    ///
    /// # Errors
    /// An I/O error; what was confirmed is durable all the same.
    fn close(&self, redelivered: &[(QueueId, MessageId)]) -> io::Result<()>;
}

/// Copies that recovery found: published, durable, not settled; consecutive ids that agree in
/// everything else come as one run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecoveredRun {
    /// The queue that holds them, with what is known of each copy.
    pub target: Target,
    /// The first message; the others follow without a gap.
    pub first_id: MessageId,
    /// Number of messages, at least one.
    pub count: u32,
    /// Length of each body in bytes.
    pub body_len: u32,
    /// They may have been delivered before.
    pub redelivered: bool,
}

/// One definition as recovered: kind, key, value.
pub type Definition = (DefinitionKind, Vec<u8>, Vec<u8>);
