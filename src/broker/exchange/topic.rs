//! Topic patterns as a trie of words, which are octets.
//!
//! Words are split by `.`; `*` stands for exactly one word (also an empty one), `#` for any number
//! of words, also none. A key is matched as an automaton reads its input: word by word, with the set
//! of nodes that the words so far can have led to. No node is in that set twice, so that hostile
//! patterns and keys cannot make the work explode.

use std::collections::HashMap;
use std::hash::Hash;

use super::destinations::Destinations;

#[derive(Debug)]
struct Node<D> {
    words: HashMap<Box<[u8]>, usize>,
    star: Option<usize>,
    hash: Option<usize>,
    /// Reached by `#`: takes any further word and stays.
    repeats: bool,
    here: Destinations<D>,
}

impl<D> Default for Node<D> {
    fn default() -> Self {
        Node {
            words: HashMap::new(),
            star: None,
            hash: None,
            repeats: false,
            here: Destinations::default(),
        }
    }
}

impl<D: Clone + Eq + Hash> Node<D> {
    fn leads_nowhere(&self) -> bool {
        self.here.is_empty() && self.words.is_empty() && self.star.is_none() && self.hash.is_none()
    }
}

/// The trie. Nodes are kept in a vector; removed ones are reused.
#[derive(Debug)]
pub(super) struct TopicTrie<D> {
    nodes: Vec<Node<D>>,
    free: Vec<usize>,
}

impl<D> Default for TopicTrie<D> {
    fn default() -> Self {
        TopicTrie {
            nodes: vec![Node::default()],
            free: Vec::new(),
        }
    }
}

const ROOT: usize = 0;

impl<D: Clone + Eq + Hash> TopicTrie<D> {
    fn child(&self, at: usize, word: &[u8]) -> Option<usize> {
        let node = &self.nodes[at];
        match word {
            b"*" => node.star,
            b"#" => node.hash,
            word => node.words.get(word).copied(),
        }
    }

    fn words(pattern: &[u8]) -> impl Iterator<Item = &[u8]> {
        // An empty key has no words; "a." has two, the last one empty.
        let none = pattern.is_empty();
        pattern.split(|b| *b == b'.').filter(move |_| !none)
    }

    pub(super) fn insert(&mut self, pattern: &[u8], destination: &D) {
        let mut at = ROOT;
        for word in Self::words(pattern) {
            at = match self.child(at, word) {
                Some(next) => next,
                None => {
                    let new = self.free.pop().unwrap_or_else(|| {
                        self.nodes.push(Node::default());
                        self.nodes.len() - 1
                    });
                    let node = &mut self.nodes[at];
                    match word {
                        b"*" => node.star = Some(new),
                        b"#" => {
                            node.hash = Some(new);
                            self.nodes[new].repeats = true;
                        }
                        word => drop(node.words.insert(word.into(), new)),
                    }
                    new
                }
            };
        }
        self.nodes[at].here.add(destination);
    }

    pub(super) fn remove(&mut self, pattern: &[u8], destination: &D) {
        let mut path = vec![];
        let mut at = ROOT;
        for word in Self::words(pattern) {
            let Some(next) = self.child(at, word) else {
                return;
            };
            path.push((at, word));
            at = next;
        }
        self.nodes[at].here.remove(destination);
        // Take away what leads nowhere any more.
        for (parent, word) in path.into_iter().rev() {
            if !self.nodes[at].leads_nowhere() {
                return;
            }
            self.nodes[at] = Node::default();
            self.free.push(at);
            let parent_node = &mut self.nodes[parent];
            match word {
                b"*" => parent_node.star = None,
                b"#" => parent_node.hash = None,
                word => drop(parent_node.words.remove(word)),
            }
            at = parent;
        }
    }

    /// Appends the destinations of a key; one that several patterns lead to comes several times.
    pub(super) fn route(&self, key: &[u8], out: &mut Vec<D>) {
        let (mut active, mut next) = (Vec::new(), Vec::new());
        self.enter(ROOT, &mut active);
        for word in Self::words(key) {
            let mut repeated = false;
            for &at in &active {
                let node = &self.nodes[at];
                if node.repeats {
                    // The nodes behind a further `#` are in the set already, and stay likewise.
                    next.push(at);
                    repeated = true;
                }
                for child in node.words.get(word).copied().into_iter().chain(node.star) {
                    self.enter(child, &mut next);
                }
            }
            if repeated {
                // A node behind `#` may have been entered through its parent as well.
                next.sort_unstable();
                next.dedup();
            }
            std::mem::swap(&mut active, &mut next);
            next.clear();
        }
        for at in active {
            self.nodes[at].here.append_to(out);
        }
    }

    /// Adds a node that the words so far lead to, with what `#` for no word leads to from there.
    fn enter(&self, at: usize, active: &mut Vec<usize>) {
        let mut at = Some(at);
        while let Some(node) = at {
            active.push(node);
            at = self.nodes[node].hash;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn matches(pattern: &[&[u8]], words: &[&[u8]]) -> bool {
        match pattern.split_first() {
            None => words.is_empty(),
            Some((&b"#", rest)) => (0..=words.len()).any(|n| matches(rest, &words[n..])),
            Some((first, rest)) => words.split_first().is_some_and(|(word, more)| {
                (*first == b"*" || first == word) && matches(rest, more)
            }),
        }
    }

    fn split(s: &[u8]) -> Vec<&[u8]> {
        TopicTrie::<u32>::words(s).collect()
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_the_definition(
            patterns in prop::collection::vec(
                prop::collection::vec(prop::sample::select(b"ab*#.\xff".to_vec()), 0..8),
                1..12,
            ),
            keys in prop::collection::vec(
                prop::collection::vec(prop::sample::select(b"ab.\xff\0".to_vec()), 0..10),
                1..12,
            ),
            removed in any::<u16>(),
        ) {
            let mut trie = TopicTrie::default();
            for (i, p) in patterns.iter().enumerate() {
                trie.insert(p, &i);
            }
            let gone = |i: usize| removed & (1 << i) != 0;
            for (i, p) in patterns.iter().enumerate().filter(|(i, _)| gone(*i)) {
                trie.remove(p, &i);
            }
            for key in &keys {
                let mut found = vec![];
                trie.route(key, &mut found);
                found.sort_unstable();
                let want: Vec<usize> = (0..patterns.len())
                    .filter(|i| !gone(*i) && matches(&split(&patterns[*i]), &split(key)))
                    .collect();
                prop_assert_eq!(found, want);
            }
        }
    }
}
