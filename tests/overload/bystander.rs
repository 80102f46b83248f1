//! Who does nothing wrong, beside those who do: publishes and waits for the confirm, gets, consumes, logs in, again
//! and again, and notes how long each answer took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use leveret::protocol::EncodeMethod;
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::methods::{basic, channel, connection};
use leveret::protocol::properties::Properties;

use crate::support::{Client, PATIENCE};

/// Where it comes from: nobody else does.
pub const SOURCE: [u8; 4] = [127, 0, 0, 9];

/// What it waits for.
pub const ASKED: [&str; 4] = ["confirm", "get", "deliver", "login"];

/// It is no load itself.
const PAUSE: Duration = Duration::from_millis(2);

/// Microseconds, of each of [`ASKED`].
pub type Latencies = [Histogram<u64>; ASKED.len()];

pub struct Bystander {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Latencies>>,
}

/// What one of its threads has.
struct Asker {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Latencies>>,
}

impl Asker {
    fn again(&self) -> bool {
        crate::support::pause(PAUSE);
        !self.stop.load(Ordering::Relaxed)
    }

    /// Notes how long it took, unless it failed, which is the end of the test.
    fn timed<T>(&self, what: usize, ask: impl FnOnce() -> std::io::Result<T>) -> T {
        let since = Instant::now();
        let answer = ask().unwrap_or_else(|e| panic!("a bystander's {}: {e}", ASKED[what]));
        let took = since.elapsed().as_micros() as u64;
        self.seen.lock().unwrap()[what].record(took).unwrap();
        answer
    }

    fn client(&self) -> Client {
        Client::connect_from(SOURCE, self.address).unwrap()
    }

    /// A durable message, its confirm, and the message.
    fn publishes_and_gets(&self) {
        let mut c = self.client();
        c.declare("bystander", true, &FieldTable::new()).unwrap();
        c.confirm_select().unwrap();
        while self.again() {
            self.timed(0, || {
                c.publish("bystander", b"durable")?;
                c.expect(basic::Ack::ID)
            });
            let got = self.timed(1, || c.get("bystander", false)).unwrap();
            assert_eq!(got.body, b"durable");
            c.ack(got.tag, false).unwrap();
        }
    }

    /// A transient message from one connection to another.
    fn is_delivered_to(&self) {
        let (mut from, mut to) = (self.client(), self.client());
        to.declare("passing", false, &FieldTable::new()).unwrap();
        to.consume("passing", false).unwrap();
        while self.again() {
            let arrived = self.timed(2, || {
                from.stage_publish("passing", b"passing", &Properties::default());
                from.flush()?;
                to.delivery()
            });
            to.ack(arrived.tag, false).unwrap();
        }
    }

    fn logs_in(&self) {
        while self.again() {
            let mut c = self.timed(3, || Client::connect_from(SOURCE, self.address));
            c.send(1, &channel::Close::default()).unwrap();
            c.expect(channel::CloseOk::ID).unwrap();
            c.send(0, &connection::Close::default()).unwrap();
            c.expect(connection::CloseOk::ID).unwrap();
        }
    }
}

fn none() -> Latencies {
    std::array::from_fn(|_| Histogram::new(3).unwrap())
}

impl Bystander {
    pub fn start(address: SocketAddr) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(none()));
        let works: [fn(&Asker); 3] = [
            Asker::publishes_and_gets,
            Asker::is_delivered_to,
            Asker::logs_in,
        ];
        let threads = works.map(|work| {
            let (stop, seen) = (stop.clone(), seen.clone());
            std::thread::spawn(move || {
                work(&Asker {
                    address,
                    stop,
                    seen,
                });
            })
        });
        let threads = threads.into_iter().collect();
        Bystander {
            threads,
            stop,
            seen,
        }
    }

    /// What it sees from now on, for so long and until each of its questions has been answered so many times.
    pub fn watch(&self, long: Duration, answers: u64) -> Latencies {
        *self.seen.lock().unwrap() = none();
        let since = Instant::now();
        loop {
            crate::support::pause(PAUSE);
            assert!(
                self.threads.iter().all(|t| !t.is_finished()),
                "a bystander was not answered"
            );
            let enough = {
                let seen = self.seen.lock().unwrap();
                seen.iter().all(|h| h.len() >= answers)
            };
            if enough && since.elapsed() >= long {
                return std::mem::replace(&mut *self.seen.lock().unwrap(), none());
            }
            assert!(
                since.elapsed() < long + 2 * PATIENCE,
                "a bystander was not answered {answers} times"
            );
        }
    }

    /// Ends it; its connections are gone, or on their way.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a bystander");
        }
    }
}
