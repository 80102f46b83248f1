//! Who is refused.

use super::*;

impl World {
    /// Asks for room for one more, and says whether it is there.
    pub(super) fn reserve(&mut self) -> bool {
        let takes = self.takers.iter().map(|t| self.credit(t));
        let takes = takes.fold(0, usize::saturating_add);
        let (waiting, most) = (self.ready.len(), self.settings().max_length);
        let most = most.unwrap_or(u64::MAX) as usize;
        let taken = self.q.reserve(8);
        if self.settings().queue_type == QueueType::Quorum {
            // The one that goes over is taken, then none until four fifths are left.
            let over = |n: usize| n > most.saturating_add(takes);
            self.refuses = match self.refuses {
                true => waiting * 5 > most * 4,
                false => over(waiting),
            };
            assert_eq!(taken, !self.refuses, "{waiting} of {most}, {takes} go out");
            self.refuses |= over(waiting + 1);
        } else if taken {
            let room = most.saturating_add(takes);
            assert!(waiting < room, "taken with {waiting} of {most}");
        } else {
            assert!(waiting >= most, "refused with {waiting} of {most}");
        }
        taken
    }
}
