//! The channels of a connection, by number.

use std::collections::HashMap;

use super::channel::Channel;

/// Numbers below are looked up by index. Clients count from one, so that is all of them but for those
/// who choose numbers of their own: RabbitMQ limits how many channels there are, not what they are
/// called.
const LOW: u16 = 2048;

/// See the module.
#[derive(Default)]
pub(super) struct Channels {
    low: Vec<Option<Box<Channel>>>,
    high: HashMap<u16, Box<Channel>>,
    n: usize,
}

impl Channels {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.n
    }

    pub(super) fn get(&self, number: u16) -> Option<&Channel> {
        if number < LOW {
            return self.low.get(usize::from(number))?.as_deref();
        }
        self.high.get(&number).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Channel> {
        if number < LOW {
            return self.low.get_mut(usize::from(number))?.as_deref_mut();
        }
        self.high.get_mut(&number).map(Box::as_mut)
    }

    /// Adds a channel; there is none of its number.
    pub(super) fn insert(&mut self, channel: Channel) {
        let at = usize::from(channel.number);
        self.n += 1;
        if channel.number >= LOW {
            self.high.insert(channel.number, Box::new(channel));
            return;
        }
        if self.low.len() <= at {
            self.low.resize_with(at + 1, || None);
        }
        self.low[at] = Some(Box::new(channel));
    }

    /// Removes a channel; says whether there was one.
    pub(super) fn remove(&mut self, number: u16) -> bool {
        let found = if number < LOW {
            let slot = self.low.get_mut(usize::from(number));
            let found = slot.and_then(Option::take).is_some();
            while matches!(self.low.last(), Some(None)) {
                self.low.pop();
            }
            found
        } else {
            self.high.remove(&number).is_some()
        };
        self.n -= usize::from(found);
        found
    }

    /// The number of some channel.
    pub(super) fn any(&self) -> Option<u16> {
        // There is no gap at the end.
        let low = self.low.last().and_then(Option::as_ref);
        low.map(|c| c.number)
            .or_else(|| self.high.keys().copied().next())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        let low = self.low.iter_mut().flatten();
        low.chain(self.high.values_mut()).map(Box::as_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_will_do() {
        let mut channels = Channels::default();
        let numbers = [1, LOW - 1, LOW, u16::MAX];
        for (n, number) in numbers.into_iter().enumerate() {
            assert!(channels.get(number).is_none() && !channels.remove(number));
            channels.insert(Channel::new(number));
            assert_eq!(channels.len(), n + 1);
            assert_eq!(channels.get(number).map(|c| c.number), Some(number));
            assert_eq!(channels.get_mut(number).map(|c| c.number), Some(number));
        }
        assert_eq!(channels.iter_mut().count(), numbers.len());
        while let Some(number) = channels.any() {
            assert!(numbers.contains(&number) && channels.remove(number));
        }
        assert_eq!((channels.len(), channels.iter_mut().count()), (0, 0));
    }
}
