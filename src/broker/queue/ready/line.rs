//! Entries in the order of their sequence numbers, any of which may leave.

use std::collections::VecDeque;

use super::Entry;
use crate::broker::ports::MessageId;

/// Places for entries that a line keeps when it becomes short.
const KEEP_PLACES: usize = 4096;

/// See the module. What leaves from the middle leaves its place behind, empty: neither in memory nor in the log.
/// Places at both ends go at once, the others when they are more than half.
#[derive(Debug, Default)]
pub(super) struct Line {
    places: VecDeque<Entry>,
    n_empty: usize,
}

fn is_empty(place: &Entry) -> bool {
    place.message.is_none() && !place.id.is_some()
}

impl Line {
    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.n_empty
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places, the empty ones included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.places.len()
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.places.front()
    }

    pub(super) fn back(&self) -> Option<&Entry> {
        self.places.back()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.places.iter().filter(|place| !is_empty(place))
    }

    pub(super) fn push_back(&mut self, entry: Entry) {
        self.places.push_back(entry);
    }

    /// Moves all of `behind` to the end.
    pub(super) fn append(&mut self, behind: &mut Line) {
        self.n_empty += std::mem::take(&mut behind.n_empty);
        self.places.append(&mut behind.places);
        behind.places = VecDeque::new();
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.places.pop_front();
        self.tidy();
        entry
    }

    pub(super) fn pop_back(&mut self) -> Option<Entry> {
        let entry = self.places.pop_back();
        self.tidy();
        entry
    }

    fn position(&self, seq: u64) -> Option<usize> {
        let at = self.places.binary_search_by_key(&seq, |e| e.seq).ok()?;
        (!is_empty(&self.places[at])).then_some(at)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = self.position(seq)?;
        self.places.get_mut(at)
    }

    /// Takes the entry `seq` out.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        let at = self.position(seq)?;
        let place = self.places.get_mut(at)?;
        let entry = Entry {
            message: place.message.take(),
            ..place.clone()
        };
        place.id = MessageId::NONE;
        self.n_empty += 1;
        self.tidy();
        Some(entry)
    }

    fn tidy(&mut self) {
        if self.n_empty > 0 {
            while self.places.front().is_some_and(is_empty) {
                self.places.pop_front();
                self.n_empty -= 1;
            }
            while self.places.back().is_some_and(is_empty) {
                self.places.pop_back();
                self.n_empty -= 1;
            }
            if self.n_empty * 2 > self.places.len() {
                self.places.retain(|place| !is_empty(place));
                self.n_empty = 0;
            }
        }
        let room = self.places.capacity();
        if room > KEEP_PLACES && self.places.len() < room / 4 {
            if self.places.is_empty() {
                self.places = VecDeque::new();
            } else {
                self.places.shrink_to(room / 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::Memory;
    use crate::broker::message::{Message, Parts};

    #[test]
    fn a_line_that_becomes_short_gives_its_places_back() {
        let parts = Parts {
            exchange: "".into(),
            routing_key: "q".into(),
            properties: &[0, 0],
            flags: 0,
        };
        let entry = Entry::outside(&Message::new(&Memory::new(), &parts, b"m"), 0);
        let mut line = Line::default();
        for seq in 0..100_000 {
            let entry = entry.clone();
            line.push_back(Entry { seq, ..entry });
        }
        let most = 4 * KEEP_PLACES;
        while line.len() > 10 {
            line.pop_front();
        }
        assert!(line.places.capacity() <= most, "{}", line.places.capacity());
    }
}
