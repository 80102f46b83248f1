//! Where one binding key leads.

use std::collections::HashMap;
use std::hash::Hash;

/// Destinations kept in a plain list; more go into a map. Most keys lead to one or two queues, and a
/// key that leads to thousands must not be searched from end to end at every bind.
const LISTED_MAX: usize = 16;

/// A set of destinations, each with the number of bindings that lead there.
#[derive(Debug)]
pub(super) enum Destinations<D> {
    Few(Vec<(D, u32)>),
    Many(HashMap<D, u32>),
}

impl<D> Default for Destinations<D> {
    fn default() -> Self {
        Destinations::Few(Vec::new())
    }
}

impl<D: Clone + Eq + Hash> Destinations<D> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Destinations::Few(list) => list.is_empty(),
            Destinations::Many(map) => map.is_empty(),
        }
    }

    /// Counts one more binding to `destination`.
    pub(super) fn add(&mut self, destination: &D) {
        match self {
            Destinations::Few(list) => {
                if let Some((_, n)) = list.iter_mut().find(|(d, _)| d == destination) {
                    *n += 1;
                } else if list.len() < LISTED_MAX {
                    list.push((destination.clone(), 1));
                } else {
                    let mut map: HashMap<D, u32> = list.drain(..).collect();
                    map.insert(destination.clone(), 1);
                    *self = Destinations::Many(map);
                }
            }
            Destinations::Many(map) => *map.entry(destination.clone()).or_default() += 1,
        }
    }

    /// Counts one binding less; the last one takes the destination out.
    pub(super) fn remove(&mut self, destination: &D) {
        match self {
            Destinations::Few(list) => {
                if let Some(at) = list.iter().position(|(d, _)| d == destination) {
                    list[at].1 -= 1;
                    if list[at].1 == 0 {
                        list.swap_remove(at);
                    }
                }
            }
            Destinations::Many(map) => {
                if let Some(n) = map.get_mut(destination) {
                    *n -= 1;
                    if *n == 0 {
                        map.remove(destination);
                    }
                }
            }
        }
    }

    /// Appends every destination once.
    pub(super) fn append_to(&self, out: &mut Vec<D>) {
        match self {
            Destinations::Few(list) => out.extend(list.iter().map(|(d, _)| d.clone())),
            Destinations::Many(map) => out.extend(map.keys().cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_stays_until_its_last_binding_goes_in_a_list_and_in_a_map() {
        for n in [3, LISTED_MAX + 3] {
            let mut set = Destinations::default();
            for d in 0..n {
                set.add(&d);
                set.add(&d);
            }
            for d in 0..n {
                set.remove(&d);
            }
            let mut out = vec![];
            set.append_to(&mut out);
            out.sort_unstable();
            assert_eq!(out, (0..n).collect::<Vec<_>>());
            for d in 0..n {
                set.remove(&d);
            }
            assert!(set.is_empty());
            set.remove(&0);
        }
    }
}
