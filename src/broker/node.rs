//! The broker: its vhosts, users and limits, and what all of them share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use super::access::{Access, Permissions, User};
use super::arguments::QueueType;
use super::backlog::{Backlog, STAGED_MAX};
use super::codec::{self, DefinitionError};
use super::ids::ConnectionId;
use super::kept::Kept;
use super::limits::{Account, Accounts};
use super::memory::{Memory, Use};
use super::ports::{Definition, DefinitionKind, LogFailed, Lsn, MessageLog, Records};
use super::queue::Queue;
use super::queue::scheduler::Scheduler;
use super::redelivery::Returned;
use super::replies::Replies;
use super::totals::Totals;
use super::vhost::Vhost;
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::sync::Mutex;

/// The component, in RabbitMQ's words, of the limits of users.
pub const USER_LIMITS: &str = "user-limits";

/// The component of the limits of vhosts.
pub const VHOST_LIMITS: &str = "vhost-limits";

/// The field of a vhost's definition with the type of queues that are declared without one.
pub(super) const DEFAULT_QUEUE_TYPE: &str = "default_queue_type";

const UNPOISONED: &str = "a panic aborts the process";

/// A user as it is stored.
fn stored_user(user: &User) -> FieldTable {
    let mut t = FieldTable::new();
    t.insert("password_hash", user.password_hash.as_str());
    t.insert("hashing_algorithm", user.hashing_algorithm.as_str());
    let tags = user.tags.iter();
    let tags = tags.map(|tag| FieldValue::from(tag.as_str())).collect();
    t.insert("tags", FieldValue::Array(tags));
    t
}

/// A node: everything that it has.
pub struct Broker {
    vhosts: RwLock<HashMap<Box<str>, Arc<Vhost>>>,
    pub(super) access: Access,
    pub(super) log: Arc<dyn MessageLog>,
    memory: Memory,
    backlog: Backlog,
    scheduler: OnceLock<Arc<dyn Scheduler>>,
    pub(super) next_queue_id: Arc<AtomicU64>,
    next_connection_id: AtomicU64,
    replies: Arc<Replies>,
    turn: Mutex<()>,
    returned: Returned,
    user_accounts: Accounts,
    vhost_accounts: Accounts,
    node_account: Arc<Account>,
    pub(super) kept: Mutex<Kept>,
    /// How far the wall clock is ahead of the time that the broker is told, milliseconds.
    wall_ahead: AtomicI64,
    /// Counters of all sessions.
    pub totals: Totals,
}

/// A definition that cannot be read or served as it is written, with the reason.
pub type Skipped = (String, DefinitionError);

impl Broker {
    /// A broker with what the store has. Whatever of it cannot be read, or not be served as it is
    /// written, is returned: a broker that starts without it, and says so, serves better than one that
    /// does not start.
    pub fn new(log: Arc<dyn MessageLog>, stored: &[Definition]) -> (Broker, Vec<Skipped>) {
        let memory = Memory::new();
        let returned = Returned::new(&memory);
        log.count_definitions(memory.charge(Use::Definitions));
        let broker = Broker {
            vhosts: RwLock::default(),
            access: Access::default(),
            log,
            backlog: Backlog::new(&memory),
            memory,
            scheduler: OnceLock::new(),
            next_queue_id: Arc::new(AtomicU64::new(1)),
            next_connection_id: AtomicU64::new(1),
            replies: Arc::default(),
            turn: Mutex::new("the turn of de-duplication", ()),
            returned,
            user_accounts: Accounts::default(),
            vhost_accounts: Accounts::default(),
            node_account: Arc::default(),
            kept: Mutex::new("queues whose messages are kept", Kept::default()),
            wall_ahead: AtomicI64::new(0),
            totals: Totals::default(),
        };
        let skipped = broker.restore_all(stored);
        (broker, skipped)
    }

    /// The turn of one publish, or one transaction, that de-duplication windows look at: held from the
    /// look until it is in the log. Taken before any other lock.
    pub fn take_turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock()
    }

    pub(super) fn returned(&self) -> &Returned {
        &self.returned
    }

    /// Whether so much waits for the disk that whoever works off dead letters should wait for it, too.
    pub fn dead_letters_wait_for_disk(&self) -> bool {
        self.log.backlog_bytes() > STAGED_MAX
    }

    /// Whether dead letters that wait take so much that no more should be read from the log.
    pub fn dead_letters_are_many(&self) -> bool {
        self.memory.dead_letters_are_many()
    }

    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Says how far the wall clock is ahead of the time that is told elsewhere, milliseconds.
    pub fn set_wall_ahead(&self, milliseconds: i64) {
        self.wall_ahead.store(milliseconds, Ordering::Relaxed);
    }

    /// What the wall clock says at this time.
    pub(super) fn wall(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.wall_ahead.load(Ordering::Relaxed))
    }

    /// Where messages and definitions become durable.
    pub fn log(&self) -> &Arc<dyn MessageLog> {
        &self.log
    }

    /// What grows with traffic.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Who does what queues ask for; set once, when the server starts.
    pub fn set_scheduler(&self, scheduler: Arc<dyn Scheduler>) {
        // A second scheduler would be a mistake of the shell; the first one stays.
        let _ = self.scheduler.set(scheduler);
    }

    /// See [`Self::set_scheduler`].
    pub fn scheduler(&self) -> Option<&Arc<dyn Scheduler>> {
        self.scheduler.get()
    }

    /// Users and permissions.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A new connection's id.
    pub fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Consumers of direct replies.
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// A vhost by name.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.read().expect(UNPOISONED).get(name).cloned()
    }

    /// All vhosts.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        self.vhosts
            .read()
            .expect(UNPOISONED)
            .values()
            .cloned()
            .collect()
    }

    /// All queues of all vhosts, those in which delayed messages wait included.
    pub fn all_queues(&self) -> Vec<Arc<Queue>> {
        let vhosts = self.vhosts();
        let of = |v: &Arc<Vhost>| [v.queues(), v.waiting_queues()];
        vhosts.iter().flat_map(of).flatten().collect()
    }

    pub(super) fn insert_vhost(&self, name: &str) {
        let accounts = [self.vhost_account(name), self.node_account.clone()];
        let mut vhosts = self.vhosts.write().expect(UNPOISONED);
        vhosts.entry(name.into()).or_insert_with(|| {
            let (log, next_queue_id) = (self.log.clone(), self.next_queue_id.clone());
            Vhost::new(
                name,
                log,
                self.memory.clone(),
                next_queue_id,
                accounts,
                self.replies.clone(),
            )
        });
    }

    fn put(
        &self,
        kind: DefinitionKind,
        parts: &[&str],
        table: &FieldTable,
    ) -> Result<Lsn, LogFailed> {
        let parts: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
        let mut records = Records::default();
        records.definitions.push(codec::put(kind, &parts, table));
        Ok(self.log.append(&mut records)?.lsn)
    }

    /// The account of a user.
    pub fn user_account(&self, user: &str) -> Arc<Account> {
        self.user_accounts.of(user)
    }

    /// The account of a vhost.
    pub fn vhost_account(&self, vhost: &str) -> Arc<Account> {
        self.vhost_accounts.of(vhost)
    }

    /// The account of all users and vhosts together.
    pub fn node_account(&self) -> &Arc<Account> {
        &self.node_account
    }

    pub(super) fn account(&self, component: &str, name: &str) -> Option<Arc<Account>> {
        match component {
            USER_LIMITS => Some(self.user_account(name)),
            VHOST_LIMITS => Some(self.vhost_account(name)),
            _ => None,
        }
    }

    /// Sets the limits of a user ([`USER_LIMITS`]) or of a vhost ([`VHOST_LIMITS`]), by their names in RabbitMQ;
    /// below zero, and those that are not named: none.
    ///
    /// # Errors
    /// The log failed, or nothing has a limit of this name: then they stay as they were.
    pub fn put_limits(
        &self,
        component: &str,
        name: &str,
        limits: &[(String, i64)],
    ) -> Result<(), String> {
        let account = self
            .account(component, name)
            .ok_or_else(|| format!("no component '{component}' has limits"))?;
        if let Some((limit, _)) = limits.iter().find(|(limit, _)| !account.has(limit)) {
            return Err(format!("there is no limit '{limit}'"));
        }
        let mut t = FieldTable::new();
        for (limit, max) in limits {
            t.insert(limit.as_str(), *max);
        }
        let kind = DefinitionKind::Parameter;
        let mut records = Records::default();
        let parts = [component.as_bytes(), name.as_bytes()];
        records.definitions.push(match limits.is_empty() {
            true => codec::remove(kind, &parts),
            false => codec::put(kind, &parts, &t),
        });
        self.log.append(&mut records).map_err(|e| e.to_string())?;
        account.unlimit();
        for (limit, max) in limits {
            account.set(limit, *max);
        }
        Ok(())
    }

    /// The users, or the vhosts, that have limits.
    pub fn limited(&self, component: &str) -> Vec<String> {
        match component {
            USER_LIMITS => self.user_accounts.limited(),
            VHOST_LIMITS => self.vhost_accounts.limited(),
            _ => Vec::new(),
        }
    }

    /// Sets the type of the queues of a vhost that are declared without one.
    ///
    /// # Errors
    /// [`LogFailed`]
    pub fn put_default_queue_type(
        &self,
        vhost: &Vhost,
        queue_type: QueueType,
    ) -> Result<(), LogFailed> {
        if vhost.default_queue_type() != queue_type {
            let mut t = FieldTable::new();
            t.insert(DEFAULT_QUEUE_TYPE, queue_type.as_str());
            self.put(DefinitionKind::Vhost, &[&vhost.name], &t)?;
            vhost.set_default_queue_type(queue_type);
        }
        Ok(())
    }

    /// Adds a vhost; nothing happens if it is there.
    ///
    /// # Errors
    /// [`LogFailed`]
    pub fn add_vhost(&self, name: &str) -> Result<Lsn, LogFailed> {
        if self.vhost(name).is_some() {
            return Ok(Lsn::default());
        }
        let lsn = self.put(DefinitionKind::Vhost, &[name], &FieldTable::new())?;
        self.insert_vhost(name);
        Ok(lsn)
    }

    /// Adds the first vhost, and the first user, who may do everything in all vhosts there are: in one
    /// record of the log, so that there is no user without a vhost to enter.
    ///
    /// # Errors
    /// [`LogFailed`]
    pub fn bootstrap(&self, vhost: Option<&str>, user: Option<User>) -> Result<Lsn, LogFailed> {
        let mut records = Records::default();
        let mut put = |kind, parts: &[&str], t: &FieldTable| {
            let parts: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
            records.definitions.push(codec::put(kind, &parts, t));
        };
        let mut vhosts: Vec<String> = self.vhosts().iter().map(|v| v.name.to_string()).collect();
        if let Some(name) = vhost {
            put(DefinitionKind::Vhost, &[name], &FieldTable::new());
            vhosts.push(name.to_string());
        }
        if let Some(user) = &user {
            put(DefinitionKind::User, &[&user.name], &stored_user(user));
            for vhost in &vhosts {
                let mut t = FieldTable::new();
                for what in ["configure", "write", "read"] {
                    t.insert(what, ".*");
                }
                put(DefinitionKind::Permission, &[&user.name, vhost], &t);
            }
        }
        let lsn = self.log.append(&mut records)?.lsn;
        if let Some(name) = vhost {
            self.insert_vhost(name);
        }
        if let Some(user) = user {
            for vhost in &vhosts {
                if let Ok(all) = Permissions::new(".*", ".*", ".*") {
                    self.access.put_permissions(&user.name, vhost, all);
                }
            }
            self.access.put_user(user);
        }
        Ok(lsn)
    }

    /// Adds or replaces a user.
    ///
    /// # Errors
    /// [`LogFailed`]
    pub fn put_user(&self, user: User) -> Result<Lsn, LogFailed> {
        let lsn = self.put(DefinitionKind::User, &[&user.name], &stored_user(&user))?;
        self.access.put_user(user);
        Ok(lsn)
    }

    /// Sets what a user may do in a vhost; the patterns are configure, write, read.
    ///
    /// # Errors
    /// [`LogFailed`], or a text that says which pattern is no regular expression.
    pub fn put_permissions(
        &self,
        user: &str,
        vhost: &str,
        patterns: [&str; 3],
    ) -> Result<Lsn, String> {
        let [configure, write, read] = patterns;
        let permissions = Permissions::new(configure, write, read).map_err(|e| e.to_string())?;
        let mut t = FieldTable::new();
        t.insert("configure", configure);
        t.insert("write", write);
        t.insert("read", read);
        let lsn = self
            .put(DefinitionKind::Permission, &[user, vhost], &t)
            .map_err(|e| e.to_string())?;
        self.access.put_permissions(user, vhost, permissions);
        Ok(lsn)
    }

    /// Sets what a user may do on a topic exchange: `place` is user, vhost, exchange; the patterns are
    /// write, read.
    ///
    /// # Errors
    /// [`LogFailed`], or a text that says which pattern is no regular expression.
    pub fn put_topic_permissions(
        &self,
        place: [&str; 3],
        patterns: [&str; 2],
    ) -> Result<Lsn, String> {
        self.access
            .put_topic_permissions(place, patterns)
            .map_err(|e| e.to_string())?;
        let mut t = FieldTable::new();
        t.insert("write", patterns[0]);
        t.insert("read", patterns[1]);
        self.put(DefinitionKind::TopicPermission, &place, &t)
            .map_err(|e| e.to_string())
    }
}
