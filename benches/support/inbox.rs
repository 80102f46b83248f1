//! Where queues push deliveries without a connection task: for benchmarks and fuzzing.

use std::sync::{Arc, Mutex};

use leveret::broker::ports::Bell;
use leveret::broker::queue::Queue;
use leveret::broker::queue::outlet::{ConsumerKey, Delivery, Notice, Outlet, Room};

/// See the module.
pub struct Inbox {
    room: (u32, u64),
    pub deliveries: Mutex<Vec<Delivery>>,
    pub notices: Mutex<Vec<Notice>>,
}

impl Inbox {
    /// With room, whenever a queue asks, for so many deliveries and bytes.
    pub fn new(deliveries: u32, bytes: u64) -> Arc<Inbox> {
        Arc::new(Inbox {
            room: (deliveries, bytes),
            deliveries: Mutex::default(),
            notices: Mutex::default(),
        })
    }
}

impl Bell for Inbox {
    fn ring(&self) {}
}

impl Outlet for Inbox {
    fn room(&self, _: &Arc<Queue>, _: u32) -> Option<Room> {
        let (deliveries, bytes) = self.room;
        Some(Room { deliveries, bytes })
    }

    fn push(&self, deliveries: &mut Vec<Delivery>) -> bool {
        self.deliveries.lock().expect("no panic").append(deliveries);
        true
    }

    fn waiting(&self, consumer: ConsumerKey) -> usize {
        let deliveries = self.deliveries.lock().expect("no panic");
        deliveries.iter().filter(|d| d.consumer == consumer).count()
    }

    fn withdraw(&self, consumer: ConsumerKey) -> Vec<Delivery> {
        let mut deliveries = self.deliveries.lock().expect("no panic");
        deliveries
            .extract_if(.., |d| d.consumer == consumer)
            .collect()
    }

    fn notify(&self, notice: Notice) -> bool {
        self.notices.lock().expect("no panic").push(notice);
        true
    }
}
