//! The history of deaths in a message's headers, in octets.
//!
//! A message may die in thousands of queues, one after the other, and its history grows by an entry in
//! each. So a death builds nothing of what was there: entries are passed over by their lengths, the new
//! one is written in front, and everything else is copied, once.

#[cfg(test)]
use std::cell::Cell;

use crate::broker::death::{DeathReason, X_DEATH};
use crate::broker::message::{FLAG_BCC, Message};
use crate::protocol::field_table::TableRef;
use crate::protocol::properties::{PropertiesRef, Split};
use crate::protocol::raw::{Items, Run, Splice, ValueRef};
use crate::protocol::short::ShortBytes;
use crate::protocol::wire::Reader;

#[cfg(test)]
thread_local! {
    /// Entries of histories that this thread has looked at.
    pub(super) static VISITED: Cell<usize> = const { Cell::new(0) };
}

/// Headers about the first and the last death, in the order of the values that go with them.
const FIRST: [&str; 3] = [
    "x-first-death-reason",
    "x-first-death-queue",
    "x-first-death-exchange",
];
const LAST: [&str; 3] = [
    "x-last-death-reason",
    "x-last-death-queue",
    "x-last-death-exchange",
];

/// A death.
pub(super) struct Death<'a> {
    /// Where.
    pub(super) queue: &'a str,
    /// Why.
    pub(super) reason: DeathReason,
    /// The keys that are shown of the message.
    pub(super) routing_keys: &'a [Vec<u8>],
    /// Unix milliseconds.
    pub(super) now: u64,
    /// The queue gives its dead letters a routing key of their own: what was hidden is over.
    pub(super) rekeyed: bool,
}

/// The properties of a message that died: the newest death is the first of its history, and it does not
/// expire any more.
pub(super) fn bury<'a>(message: &'a Message, death: &Death<'_>) -> Splice<'a> {
    let properties = PropertiesRef::unchecked(message.properties());
    let split = properties.split();
    let expiration = properties.expiration();
    split.with_headers(false, |out| write(out, &split, expiration, message, death))
}

fn write<'a>(
    out: &mut Splice<'a>,
    split: &Split<'a>,
    expiration: Option<ShortBytes<'_>>,
    message: &'a Message,
    death: &Death<'_>,
) {
    let ours = message.is_dead_lettered();
    let values = [
        death.reason.as_str().as_bytes(),
        death.queue.as_bytes(),
        message.exchange().as_bytes(),
    ];
    let mut hidden = death.rekeyed && message.flags() & FLAG_BCC != 0;
    let (mut first_due, mut last_due) = ([!ours; 3], [true; 3]);
    let mut history = None;
    let mut run = Run::of(split.headers);
    for field in split.headers.fields() {
        let n = field.octets.len();
        let is = |name: &&str| field.name == *name;
        if field.name == X_DEATH {
            // If there are several, the first one is it.
            run.end(out, n);
            history = history.or(Some(field.value.as_array().unwrap_or_default()));
        } else if hidden && field.name == "BCC" {
            run.end(out, n);
            hidden = false;
        } else if let Some(at) = FIRST.iter().position(is)
            && std::mem::take(&mut first_due[at])
        {
            run.end(out, n);
            out.text(FIRST[at], values[at]);
        } else if let Some(at) = LAST.iter().position(is)
            && std::mem::take(&mut last_due[at])
        {
            run.end(out, n);
            out.text(LAST[at], values[at]);
        } else {
            run.go_on(n);
        }
    }
    run.end(out, 0);
    out.name(X_DEATH, b'A');
    let array = out.open();
    // What a client made up is no history.
    let history = history.filter(|_| ours).unwrap_or_default();
    match Place::of(history, death) {
        Some(place) => {
            again(out, place.death);
            out.keep(place.before);
            out.keep(place.after);
        }
        None => {
            new(out, expiration, message, death);
            out.keep(history.octets());
        }
    }
    out.close(&array);
    for at in 0..values.len() {
        if first_due[at] {
            out.text(FIRST[at], values[at]);
        }
        if last_due[at] {
            out.text(LAST[at], values[at]);
        }
    }
}

/// Where a history has a death.
struct Place<'a> {
    before: &'a [u8],
    death: TableRef<'a>,
    after: &'a [u8],
}

impl<'a> Place<'a> {
    /// The same death, if it was died before.
    fn of(history: Items<'a>, death: &Death<'_>) -> Option<Place<'a>> {
        let mut items = history;
        loop {
            let from = items;
            let entry = Entry::read(items.next()?);
            if entry.is(death.queue, death.reason) {
                let all = history.octets();
                return Some(Place {
                    before: &all[..all.len() - from.octets().len()],
                    death: entry.fields,
                    after: items.octets(),
                });
            }
        }
    }
}

/// A death once more: its count is one more.
fn again<'a>(out: &mut Splice<'a>, death: TableRef<'a>) {
    out.octets(b"F");
    let table = out.open();
    let mut counted = false;
    let mut run = Run::of(death);
    for field in death.fields() {
        if !counted && field.name == "count" {
            counted = true;
            run.end(out, field.octets.len());
            let count = death.get("count").and_then(|c| c.as_integer());
            out.integer("count", count.unwrap_or(0).saturating_add(1));
        } else {
            run.go_on(field.octets.len());
        }
    }
    run.end(out, 0);
    if !counted {
        out.integer("count", 1);
    }
    out.close(&table);
}

fn new(
    out: &mut Splice<'_>,
    expiration: Option<ShortBytes<'_>>,
    message: &Message,
    death: &Death<'_>,
) {
    out.octets(b"F");
    let table = out.open();
    if let Some(expiration) = expiration {
        out.text("original-expiration", &expiration);
    }
    out.integer("count", 1);
    out.text("reason", death.reason.as_str().as_bytes());
    out.text("queue", death.queue.as_bytes());
    out.name("time", b'T');
    out.octets(&(death.now / 1000).to_be_bytes());
    out.text("exchange", message.exchange().as_bytes());
    out.name("routing-keys", b'A');
    let keys = out.open();
    for key in death.routing_keys {
        out.octets(b"S");
        out.long(key);
    }
    out.close(&keys);
    out.close(&table);
}

/// An entry of a history, as far as it matters.
struct Entry<'a> {
    fields: TableRef<'a>,
    queue: &'a [u8],
    reason: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(value: ValueRef<'a>) -> Entry<'a> {
        #[cfg(test)]
        VISITED.with(|n| n.set(n.get() + 1));
        let fields = value.as_table().unwrap_or_default();
        Entry::ours(fields).unwrap_or_else(|| Entry::any(fields))
    }

    /// One that begins as [`new`] writes it, and does not tell an expiration: almost all do.
    fn ours(fields: TableRef<'a>) -> Option<Entry<'a>> {
        let mut r = Reader::new(fields.as_bytes().strip_prefix(b"\x05countl")?);
        r.longlong().ok()?;
        r = Reader::new(r.rest().strip_prefix(b"\x06reasonS")?);
        let reason = r.long_str().ok()?;
        r = Reader::new(r.rest().strip_prefix(b"\x05queueS")?);
        let queue = r.long_str().ok()?;
        Some(Entry {
            fields,
            queue,
            reason,
        })
    }

    fn any(fields: TableRef<'a>) -> Entry<'a> {
        let (mut queue, mut reason) = (None, None);
        for field in fields.fields() {
            if reason.is_none() && field.name == "reason" {
                reason = Some(field.value.as_octets().unwrap_or_default());
            } else if queue.is_none() && field.name == "queue" {
                queue = Some(field.value.as_octets().unwrap_or_default());
            }
            if queue.is_some() && reason.is_some() {
                break;
            }
        }
        Entry {
            fields,
            queue: queue.unwrap_or_default(),
            reason: reason.unwrap_or_default(),
        }
    }

    fn is(&self, queue: &str, reason: DeathReason) -> bool {
        self.queue == queue.as_bytes() && self.reason == reason.as_str().as_bytes()
    }
}

/// What a message has died of, newest first.
pub(super) fn of(message: &Message) -> History<'_> {
    let headers = PropertiesRef::unchecked(message.properties()).headers();
    let mut fields = headers.unwrap_or_default().fields();
    let history = fields.find(|f| f.name == X_DEATH);
    History(history.and_then(|f| f.value.as_array()).unwrap_or_default())
}

/// See [`of`].
#[derive(Clone, Copy)]
pub(super) struct History<'a>(Items<'a>);

impl<'a> History<'a> {
    /// The queues in which it died since it was last rejected, newest first: if it came to one of them
    /// again, that would close a loop that nobody interrupts.
    pub(super) fn uninterrupted(self) -> impl Iterator<Item = &'a [u8]> {
        let rejected = DeathReason::Rejected.as_str().as_bytes();
        let entries = self.0.map(Entry::read);
        entries
            .take_while(move |e| e.reason != rejected)
            .map(|e| e.queue)
    }
}
