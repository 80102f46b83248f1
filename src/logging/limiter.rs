//! Lines that peers can cause as often as they like are limited, each kind by itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of a kind within a window; more are counted only.
const LINES_MAX: u64 = 100;

/// The window.
const WINDOW: Duration = Duration::from_secs(60);

/// Modules whose lines a peer can cause. What the disk or the operator causes is never left out.
const OF_PEERS: [&str; 4] = [
    "leveret::amqp",
    "leveret::server::admission",
    "leveret::server::connection",
    "leveret::server::http",
];

/// One kind: a place in the source.
struct Kind {
    began: Instant,
    lines: u64,
    suppressed: u64,
    message: String,
}

/// See the module.
#[derive(Default)]
pub(super) struct Limiter {
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

impl Limiter {
    /// Whether another line of this kind is written.
    fn allows(&self, kind: Identifier, now: Instant, message: impl FnOnce() -> String) -> bool {
        let mut kinds = self.kinds.lock().expect("a panic aborts the process");
        let kind = kinds.entry(kind).or_insert_with(|| Kind {
            began: now,
            lines: 0,
            suppressed: 0,
            message: String::new(),
        });
        // What was suppressed is told first, by `due`.
        if kind.suppressed == 0 && now.duration_since(kind.began) >= WINDOW {
            (kind.began, kind.lines) = (now, 0);
        }
        if kind.lines < LINES_MAX {
            kind.lines += 1;
            return true;
        }
        if kind.suppressed == 0 {
            kind.message = message();
        }
        kind.suppressed += 1;
        false
    }

    /// The kinds whose window is over, with how many lines were suppressed.
    pub(super) fn due(&self, now: Instant) -> Vec<(String, u64)> {
        let mut kinds = self.kinds.lock().expect("a panic aborts the process");
        let over = |k: &&mut Kind| k.suppressed > 0 && now.duration_since(k.began) >= WINDOW;
        let due = kinds.values_mut().filter(over).map(|kind| {
            (kind.began, kind.lines) = (now, 0);
            let suppressed = std::mem::take(&mut kind.suppressed);
            (std::mem::take(&mut kind.message), suppressed)
        });
        due.collect()
    }
}

/// The filter of a layer.
pub(super) struct Limited(pub(super) Arc<Limiter>);

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Who asks for details gets them.
        let limited = *metadata.level() <= Level::INFO
            && OF_PEERS.iter().any(|m| metadata.target().starts_with(m));
        !limited || {
            let message = || {
                let mut message = Message(String::new());
                event.record(&mut message);
                message.0
            };
            self.0.allows(metadata.callsite(), Instant::now(), message)
        }
    }
}

/// Reads an event's message.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_told() {
        let limiter = Limiter::default();
        struct Site;
        impl tracing::callsite::Callsite for Site {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!()
            }
        }
        static SITE: Site = Site;
        let kind = || tracing::callsite::Identifier(&SITE);
        let start = Instant::now();
        let ask = |now| limiter.allows(kind(), now, || "refused".into());
        let allowed = (0..1000).filter(|_| ask(start)).count() as u64;
        assert_eq!(allowed, LINES_MAX);
        assert!(limiter.due(start).is_empty());
        let later = start + WINDOW;
        assert!(!ask(later), "not before it is told what is missing");
        assert_eq!(limiter.due(later), [("refused".to_string(), 901)]);
        assert!(ask(later) && limiter.due(later + WINDOW).is_empty());
    }
}
