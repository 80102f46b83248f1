//! Something for each of some queues: what one read, or one channel, has for many of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::queue::Queue;

/// See the module. In the order in which the queues were named first.
pub struct ByQueue<T> {
    all: Vec<(Arc<Queue>, T)>,
    places: HashMap<u64, usize>,
}

impl<T> Default for ByQueue<T> {
    fn default() -> Self {
        ByQueue {
            all: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl<T: Default> ByQueue<T> {
    /// What there is for a queue. Finding it does not depend on how many there are.
    pub fn of(&mut self, queue: &Arc<Queue>) -> &mut T {
        let n = self.all.len();
        let at = match self.all.last() {
            Some((last, _)) if Arc::ptr_eq(last, queue) => n - 1,
            _ => *self.places.entry(queue.id().0).or_insert(n),
        };
        if at == n {
            self.all.push((queue.clone(), T::default()));
        }
        &mut self.all[at].1
    }

    /// All of it.
    pub fn take(self) -> Vec<(Arc<Queue>, T)> {
        self.all
    }
}
