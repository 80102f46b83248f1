//! Exchanges that choose one of their destinations: `x-consistent-hash`, `x-modulus-hash`, `x-random`.
//!
//! What is hashed goes through SHA-256 first, and so do the names of destinations, so that every choice
//! is the same after a restart and whatever the order of the bindings.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

/// The largest weight of a binding of `x-consistent-hash`; RabbitMQ's.
pub const WEIGHT_MAX: u32 = 10_000;

/// Why a binding key is no weight; the texts are RabbitMQ's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WeightError {
    /// Not a decimal integer.
    NotInteger,
    /// Zero or less.
    TooSmall,
    /// More than [`WEIGHT_MAX`].
    TooLarge,
}

/// Reads the binding key of an `x-consistent-hash` exchange.
///
/// # Errors
/// [`WeightError`]
pub fn parse_weight(key: &str) -> Result<u32, WeightError> {
    let digits = key.strip_prefix(['-', '+']).unwrap_or(key);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WeightError::NotInteger);
    }
    if key.starts_with('-') || digits.bytes().all(|b| b == b'0') {
        return Err(WeightError::TooSmall);
    }
    // Digits that do not fit are far too large, too.
    digits
        .parse()
        .ok()
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or(WeightError::TooLarge)
}

/// A destination that has the same place among others in every run of the broker.
pub trait Place {
    /// Hash of what names it.
    fn place(&self) -> u64;
}

/// Numbers stand for destinations in tests and benchmarks.
impl Place for u32 {
    fn place(&self) -> u64 {
        stable_hash(&[&self.to_be_bytes()])
    }
}

/// A number that `bytes` always give.
pub fn stable_hash(bytes: &[&[u8]]) -> u64 {
    let mut hasher = Sha256::new();
    for part in bytes {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    u64::from_be_bytes(hash[..8].try_into().expect("SHA-256 has 32 bytes"))
}

/// Spreads the bits of a number over all of them (the last step of SplitMix64).
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Weighted rendezvous: the destination with the best score for a key gets it. One that comes or goes
/// moves only its own share of the keys.
#[derive(Debug)]
pub(super) struct Weighted<D>(HashMap<D, Weights>);

#[derive(Debug)]
struct Weights {
    place: u64,
    /// Of each binding, in the order they came: the first counts, as in RabbitMQ.
    bindings: Vec<u32>,
}

impl<D> Default for Weighted<D> {
    fn default() -> Self {
        Weighted(HashMap::new())
    }
}

impl<D: Clone + Eq + Hash + Place> Weighted<D> {
    /// Adds a binding. A key that is no weight, which the broker refuses, weighs one.
    pub(super) fn insert(&mut self, key: &str, destination: &D) {
        let weights = self
            .0
            .entry(destination.clone())
            .or_insert_with(|| Weights {
                place: destination.place(),
                bindings: Vec::new(),
            });
        weights.bindings.push(parse_weight(key).unwrap_or(1));
    }

    /// Removes a binding.
    pub(super) fn remove(&mut self, key: &str, destination: &D) {
        let weight = parse_weight(key).unwrap_or(1);
        if let Some(weights) = self.0.get_mut(destination) {
            if let Some(at) = weights.bindings.iter().position(|w| *w == weight) {
                weights.bindings.remove(at);
            }
            if weights.bindings.is_empty() {
                self.0.remove(destination);
            }
        }
    }

    /// The destination of a key.
    pub(super) fn choose(&self, key: u64) -> Option<&D> {
        let score = |w: &Weights| {
            // A number above 0 and up to 1; its logarithm over the weight is the score.
            let unit = ((mixed(key ^ w.place) >> 11) + 1) as f64 / (1u64 << 53) as f64;
            unit.ln() / f64::from(w.bindings.first().copied().unwrap_or(1))
        };
        self.0
            .iter()
            .map(|(destination, w)| (score(w), w.place, destination))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .map(|(_, _, destination)| destination)
    }
}

/// All bindings in one row, ordered by their destinations' places: one with two bindings gets twice as
/// much.
#[derive(Debug)]
pub(super) struct Row<D>(Vec<(u64, D)>);

impl<D> Default for Row<D> {
    fn default() -> Self {
        Row(Vec::new())
    }
}

impl<D: Clone + Eq + Place> Row<D> {
    /// Adds a binding.
    pub(super) fn insert(&mut self, destination: &D) {
        let place = destination.place();
        let at = self.0.partition_point(|(p, _)| *p <= place);
        self.0.insert(at, (place, destination.clone()));
    }

    /// Removes a binding.
    pub(super) fn remove(&mut self, destination: &D) {
        if let Some(at) = self.0.iter().position(|(_, d)| d == destination) {
            self.0.remove(at);
        }
    }

    /// The destination of a number.
    pub(super) fn choose(&self, number: u64) -> Option<&D> {
        let at = number.checked_rem(self.0.len() as u64)?;
        self.0.get(at as usize).map(|(_, d)| d)
    }
}

/// Numbers without a pattern, good enough to spread load; SplitMix64 from a random start.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Default for Dice {
    fn default() -> Self {
        let seed = getrandom::u64().unwrap_or_default();
        Dice(AtomicU64::new(seed))
    }
}

impl Dice {
    /// The next number.
    pub(super) fn roll(&self) -> u64 {
        mixed(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Place for u8 {
        fn place(&self) -> u64 {
            u32::from(*self).place()
        }
    }

    fn shares(ring: &Weighted<u32>, keys: u64) -> HashMap<u32, u64> {
        let mut shares = HashMap::new();
        for key in 0..keys {
            let to = ring.choose(stable_hash(&[&key.to_be_bytes()]));
            *shares.entry(*to.expect("a destination")).or_default() += 1;
        }
        shares
    }

    #[test]
    fn weights_are_read_as_rabbitmq_reads_them() {
        assert_eq!((parse_weight("1"), parse_weight("+3")), (Ok(1), Ok(3)));
        assert_eq!(parse_weight("10000"), Ok(10_000));
        for text in ["", "abc", "1.5", " 1", "1 ", "-", "+"] {
            assert_eq!(parse_weight(text), Err(WeightError::NotInteger), "{text:?}");
        }
        for text in ["0", "00", "-1", "-99999999999999999999999"] {
            assert_eq!(parse_weight(text), Err(WeightError::TooSmall), "{text:?}");
        }
        for text in ["10001", "99999999999999999999999"] {
            assert_eq!(parse_weight(text), Err(WeightError::TooLarge), "{text:?}");
        }
    }

    #[test]
    fn every_destination_gets_the_share_of_its_weight() {
        let mut ring = Weighted::default();
        for (weight, destination) in [("1", 1), ("2", 2), ("5", 3)] {
            ring.insert(weight, &destination);
        }
        let shares = shares(&ring, 80_000);
        for (destination, share) in [(1, 10_000), (2, 20_000), (3, 50_000)] {
            let got = shares[&destination] as i64;
            assert!((got - share).abs() < share / 20, "{destination}: {got}");
        }
    }

    #[test]
    fn a_destination_that_comes_or_goes_moves_only_its_share() {
        let mut ring = Weighted::default();
        for destination in 1..=4u32 {
            ring.insert("1", &destination);
        }
        let keys: Vec<u64> = (0..10_000u64)
            .map(|k| stable_hash(&[&k.to_be_bytes()]))
            .collect();
        let all = |ring: &Weighted<u32>| -> Vec<u32> {
            let to = |k: &u64| *ring.choose(*k).expect("a destination");
            keys.iter().map(to).collect()
        };
        let before = all(&ring);
        ring.insert("1", &5);
        let with = all(&ring);
        for (old, new) in before.iter().zip(&with) {
            assert!(old == new || *new == 5);
        }
        ring.remove("1", &5);
        assert_eq!(all(&ring), before);
    }

    #[test]
    fn the_first_binding_of_a_destination_counts() {
        let mut ring = Weighted::default();
        ring.insert("1", &1u32);
        ring.insert("9", &1);
        ring.insert("1", &2);
        let even = shares(&ring, 10_000)[&1];
        assert!((4_500..5_500).contains(&even), "{even}");
        ring.remove("1", &1);
        let most = shares(&ring, 10_000)[&1];
        assert!((8_700..9_300).contains(&most), "{most}");
        ring.remove("9", &1);
        assert_eq!(shares(&ring, 100).get(&1), None);
        ring.remove("1", &2);
        assert_eq!(ring.choose(1), None);
    }

    #[test]
    fn a_row_counts_bindings() {
        let mut row = Row::default();
        assert_eq!(row.choose(7), None);
        for destination in [1u32, 2, 1] {
            row.insert(&destination);
        }
        let picks: Vec<u32> = (0..3).filter_map(|n| row.choose(n).copied()).collect();
        assert_eq!(picks.iter().filter(|d| **d == 1).count(), 2);
        row.remove(&1);
        row.remove(&2);
        assert_eq!(row.choose(5), Some(&1));
    }

    #[test]
    fn dice_reach_every_side() {
        let dice = Dice::default();
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[(dice.roll() % 6) as usize] += 1;
        }
        assert!(seen.iter().all(|n| *n > 700), "{seen:?}");
    }
}
