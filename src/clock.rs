//! The time, in unix milliseconds, that never goes back.
//!
//! It begins with the wall clock, or where the life before is now ([`carry_on`]), and is carried on by what the
//! system has been up since, suspended or not (`CLOCK_BOOTTIME`). So a machine whose clock is set back neither revives
//! expired messages nor freezes a queue, one whose clock is set forward does not expire everything at once, and what
//! expires while a machine is suspended has expired when it wakes; a restart of the process changes none of that.
//! After a restart of the machine only the wall clock knows how long that took: what it says counts, unless that was
//! over before. [`ahead`] says by how much the wall clock differs; the server tells it.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// What the clocks said when one of them was first read.
struct Start {
    now_ms: u64,
    up_ms: u64,
    awake_ms: u64,
}

static START: OnceLock<Start> = OnceLock::new();

fn start() -> &'static Start {
    start_after(None)
}

fn start_after(before: Option<&Note>) -> &'static Start {
    START.get_or_init(|| {
        let up_ms = read(ClockId::Boottime);
        let machine = before.and_then(|_| machine());
        Start {
            now_ms: begin(before, machine.as_deref(), up_ms, wall_ms()),
            up_ms,
            awake_ms: read(ClockId::Monotonic),
        }
    })
}

/// No time is later: the end of the year 9999.
const LATEST_MS: u64 = 253_402_300_799_999;

/// What one life leaves to the next: that it was so late when the machine had been up for so long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// Names the machine from its start to its end; unknown: none.
    pub machine: Option<String>,
    /// Milliseconds since it was started.
    pub up_ms: u64,
    /// Unix milliseconds, as of [`now`].
    pub now_ms: u64,
}

impl Note {
    /// One line; of the same length for the same machine.
    pub fn line(&self) -> String {
        let machine = self.machine.as_deref().unwrap_or("-");
        let said = format!("{:015} {:020} {machine}", self.now_ms, self.up_ms);
        let sum = crc32fast::hash(said.as_bytes());
        format!("{said} {sum:08x}\n")
    }

    /// Reads a line; `None` if that is none.
    pub fn read(line: &str) -> Option<Note> {
        let (said, sum) = line.lines().next()?.rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(said.as_bytes()) {
            return None;
        }
        let mut words = said.split(' ');
        let mut word = || words.next();
        let (now_ms, up_ms) = (word()?.parse().ok()?, word()?.parse().ok()?);
        let machine = word().filter(|m| *m != "-").map(str::to_string);
        (now_ms <= LATEST_MS).then_some(Note {
            machine,
            up_ms,
            now_ms,
        })
    }
}

/// What [`now`] begins with.
fn begin(before: Option<&Note>, machine: Option<&str>, up_ms: u64, wall_ms: u64) -> u64 {
    let wall_ms = wall_ms.min(LATEST_MS);
    let Some(before) = before else {
        return wall_ms;
    };
    let same = machine.is_some() && before.machine.as_deref() == machine;
    match up_ms.checked_sub(before.up_ms) {
        Some(since) if same => before.now_ms.saturating_add(since).min(LATEST_MS),
        _ => wall_ms.max(before.now_ms),
    }
}

/// Names this machine, from its start to its end: its boot, and whose clock it is that says how long it is up.
fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let clock = std::fs::read_link("/proc/self/ns/time");
    let clock = clock.ok().and_then(|c| c.to_str().map(str::to_string));
    let name = format!("{}/{}", boot.trim(), clock.unwrap_or_default());
    let plain = name.len() < 128 && name.bytes().all(|c| c.is_ascii_graphic());
    plain.then_some(name)
}

/// Begins where the life before is now. Without effect once somebody has asked for the time.
pub fn carry_on(before: Option<&Note>) {
    start_after(before);
}

/// What the next life should know.
pub fn note() -> Note {
    let start = start();
    let up_ms = read(ClockId::Boottime);
    Note {
        machine: machine(),
        up_ms,
        now_ms: start.now_ms + up_ms.saturating_sub(start.up_ms),
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the system"
)]
fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    wall.unwrap_or_default().as_millis() as u64
}

/// Unix milliseconds.
pub fn now() -> u64 {
    let start = start();
    start.now_ms + read(ClockId::Boottime).saturating_sub(start.up_ms)
}

/// How far the wall clock is ahead of [`now`], milliseconds: by what it was set, or was wrong.
pub fn ahead() -> i64 {
    let wall = i64::try_from(wall_ms()).unwrap_or(i64::MAX);
    wall.saturating_sub_unsigned(now())
}

/// How long the machine has been suspended since the start, milliseconds. Timers do not count that.
pub fn suspended() -> u64 {
    let start = start();
    let up = read(ClockId::Boottime).saturating_sub(start.up_ms);
    up.saturating_sub(read(ClockId::Monotonic).saturating_sub(start.awake_ms))
}

/// How long until a time of [`now`].
pub fn until(at: u64) -> Duration {
    Duration::from_millis(at.saturating_sub(now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3_600_000;
    const NOW: u64 = 1_800_000_000_000;

    fn before(machine: &str, up_ms: u64, now_ms: u64) -> Note {
        Note {
            machine: Some(machine.into()),
            up_ms,
            now_ms,
        }
    }

    #[test]
    fn a_restart_of_the_process_goes_on_whatever_the_wall_clock_says() {
        let note = before("here", 10_000, NOW);
        for wall in [0, NOW - YEAR, NOW, NOW + YEAR, u64::MAX] {
            assert_eq!(begin(Some(&note), Some("here"), 12_500, wall), NOW + 2500);
        }
    }

    #[test]
    fn a_restart_of_the_machine_goes_by_the_wall_clock_and_never_back() {
        let note = before("then", 10_000, NOW);
        for (wall, begins) in [(NOW + YEAR, NOW + YEAR), (NOW - YEAR, NOW), (0, NOW)] {
            assert_eq!(begin(Some(&note), Some("here"), 500, wall), begins);
            // Nobody knows where this is.
            assert_eq!(begin(Some(&note), None, 20_000, wall), begins);
            // It cannot be the same.
            assert_eq!(begin(Some(&note), Some("then"), 500, wall), begins);
        }
        assert_eq!(begin(None, Some("here"), 500, NOW), NOW);
        let unknown = Note {
            machine: None,
            ..note
        };
        assert_eq!(begin(Some(&unknown), None, 20_000, NOW + 5), NOW + 5);
    }

    #[test]
    fn a_note_is_read_as_it_was_written_or_not_at_all() {
        let notes = [
            note(),
            before("a/b", 0, LATEST_MS),
            Note {
                machine: None,
                ..before("", u64::MAX, 0)
            },
        ];
        for note in &notes {
            let line = note.line();
            assert_eq!(Note::read(&line).as_ref(), Some(note));
            assert_eq!(
                Note::read(&format!("{line}what was there")),
                Some(note.clone())
            );
            for end in 0..line.len() - 1 {
                assert_eq!(Note::read(&line[..end]), None);
            }
        }
        assert_eq!(Note::read(&before("a", 0, LATEST_MS + 1).line()), None);
        for nothing in ["", "\n", "\0\0\0\0", "1 2 3 00000000", " 00000000"] {
            assert_eq!(Note::read(nothing), None, "{nothing:?}");
        }
        assert_eq!(notes[0].line().len(), note().line().len());
        // Whatever has a checksum: no time is too late to be carried on.
        let late = before("here", 0, LATEST_MS);
        assert_eq!(begin(Some(&late), Some("here"), u64::MAX, 0), LATEST_MS);
    }

    #[test]
    fn nobody_sets_the_clock_here() {
        now();
        assert!(ahead().abs() < 10_000);
        assert!(suspended() < 10_000);
    }
}
