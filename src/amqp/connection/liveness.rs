//! Alarms, heartbeats, time-outs.

use super::{Connection, Phase};
use crate::protocol::encode;
use crate::protocol::methods::connection;

impl Connection {
    /// A resource alarm holds (with its reason) or is over: publishers are held back, and told if
    /// they asked to be.
    pub fn set_alarm(&mut self, alarm: Option<&str>) {
        self.alarm = alarm.map(str::to_string);
        self.apply_alarm();
    }

    /// Called with each publish too: only connections that publish are held back.
    pub(in crate::amqp) fn apply_alarm(&mut self) {
        let wanted = self.alarm.is_some() && self.published && self.phase == Phase::Running;
        if wanted == self.blocked {
            return;
        }
        self.blocked = wanted;
        if !self.capabilities.connection_blocked {
            return;
        }
        match self.alarm.clone().filter(|_| wanted) {
            Some(reason) => self.send(0, &connection::Blocked { reason: &reason }),
            None => self.send(0, &connection::Unblocked),
        }
    }

    // ===== time -------------------------------------------------------------------------------

    /// Whether the shell stopped reading: heartbeats of the peer are not missed meanwhile.
    pub fn set_paused(&mut self, paused: bool, now: u64) {
        if self.paused && !paused {
            self.received_at = now;
        }
        self.paused = paused;
    }

    /// Something has come from the peer, if only a part of a frame: it is there.
    pub fn heard(&mut self, now: u64) {
        self.received_at = now;
    }

    /// Notes that output was handed to the socket.
    pub fn wrote(&mut self, n: usize, now: u64) {
        self.output.advance(n);
        self.sent_at = now;
    }

    /// When [`Self::tick`] has to be called, unix milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Header | Phase::Starting | Phase::Tuning | Phase::Opening => {
                Some(self.opened_at + self.settings.handshake_timeout_ms)
            }
            Phase::Silent { until } | Phase::Closed { until } => Some(until),
            Phase::Closing => Some(self.closing_until),
            Phase::Running if self.heartbeat > 0 => {
                let interval = u64::from(self.heartbeat) * 1000;
                let send = self.sent_at + interval / 2;
                let missed = self.received_at + 2 * interval;
                Some(if self.paused { send } else { send.min(missed) })
            }
            Phase::Running | Phase::Over => None,
        }
    }

    /// Time has passed: heartbeats, time-outs.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        let due = self.next_deadline().is_some_and(|at| at <= now);
        if !due {
            return;
        }
        if matches!(self.phase, Phase::Closed { .. }) {
            self.phase = Phase::Over;
            return;
        }
        if self.phase != Phase::Running {
            self.reset = self.phase == Phase::Closing;
            self.why
                .get_or_insert_with(|| format!("timed out in {:?}", self.phase));
            self.phase = Phase::Over;
            return;
        }
        let interval = u64::from(self.heartbeat) * 1000;
        if !self.paused && self.received_at + 2 * interval <= now {
            // RabbitMQ hangs up without a word: nobody is there to hear one.
            self.why = Some(format!(
                "missed heartbeats from client, timeout: {}s",
                self.heartbeat
            ));
            self.reset = true;
            self.phase = Phase::Over;
            return;
        }
        if self.sent_at + interval / 2 <= now {
            encode::heartbeat(self.output.octets());
            self.sent_at = now;
        }
    }
}
