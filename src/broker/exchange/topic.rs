//! Topic patterns as a trie of words.
//!
//! Words are split by `.`; `*` stands for exactly one word (also an empty one), `#` for any number
//! of words, also none. The match visits each (node, position) pair at most once where `#` is
//! involved, so hostile patterns cannot make it explode.

use std::collections::{HashMap, HashSet};

#[derive(Debug)]
struct Node<D> {
    words: HashMap<Box<str>, usize>,
    star: Option<usize>,
    hash: Option<usize>,
    here: Vec<D>,
}

impl<D> Default for Node<D> {
    fn default() -> Self {
        Node {
            words: HashMap::new(),
            star: None,
            hash: None,
            here: Vec::new(),
        }
    }
}

/// The trie. Nodes are kept in a vector; removed ones are reused.
#[derive(Debug)]
pub(super) struct TopicTrie<D> {
    nodes: Vec<Node<D>>,
    free: Vec<usize>,
    has_hash: bool,
}

impl<D> Default for TopicTrie<D> {
    fn default() -> Self {
        TopicTrie {
            nodes: vec![Node::default()],
            free: Vec::new(),
            has_hash: false,
        }
    }
}

const ROOT: usize = 0;

impl<D: Clone + Eq> TopicTrie<D> {
    fn child(&self, at: usize, word: &str) -> Option<usize> {
        let node = &self.nodes[at];
        match word {
            "*" => node.star,
            "#" => node.hash,
            word => node.words.get(word).copied(),
        }
    }

    fn words(pattern: &str) -> impl Iterator<Item = &str> {
        // An empty key has no words; "a." has two, the last one empty.
        let none = pattern.is_empty();
        pattern.split('.').filter(move |_| !none)
    }

    pub(super) fn insert(&mut self, pattern: &str, destination: D) {
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
                        "*" => node.star = Some(new),
                        "#" => {
                            node.hash = Some(new);
                            self.has_hash = true;
                        }
                        word => drop(node.words.insert(word.into(), new)),
                    }
                    new
                }
            };
        }
        self.nodes[at].here.push(destination);
    }

    pub(super) fn remove(&mut self, pattern: &str, destination: &D) {
        let mut path = vec![];
        let mut at = ROOT;
        for word in Self::words(pattern) {
            let Some(next) = self.child(at, word) else {
                return;
            };
            path.push((at, word));
            at = next;
        }
        self.nodes[at].here.retain(|d| d != destination);
        // Take away what leads nowhere any more.
        for (parent, word) in path.into_iter().rev() {
            let node = &self.nodes[at];
            if !(node.here.is_empty()
                && node.words.is_empty()
                && node.star.is_none()
                && node.hash.is_none())
            {
                return;
            }
            self.nodes[at] = Node::default();
            self.free.push(at);
            let parent_node = &mut self.nodes[parent];
            match word {
                "*" => parent_node.star = None,
                "#" => parent_node.hash = None,
                word => drop(parent_node.words.remove(word)),
            }
            at = parent;
        }
    }

    pub(super) fn route(&self, key: &str, out: &mut Vec<D>) {
        let words: Vec<&str> = Self::words(key).collect();
        let mut seen = HashSet::new();
        let mut stack = vec![(ROOT, 0)];
        while let Some((at, position)) = stack.pop() {
            if self.has_hash && !seen.insert((at, position)) {
                continue;
            }
            let node = &self.nodes[at];
            if let Some(hash) = node.hash {
                // No word, or any number of them.
                stack.extend((position..=words.len()).map(|p| (hash, p)));
            }
            match words.get(position) {
                None => out.extend(node.here.iter().cloned()),
                Some(word) => {
                    stack.extend(node.words.get(*word).map(|next| (*next, position + 1)));
                    stack.extend(node.star.map(|next| (next, position + 1)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn matches(pattern: &[&str], words: &[&str]) -> bool {
        match pattern.split_first() {
            None => words.is_empty(),
            Some((&"#", rest)) => (0..=words.len()).any(|n| matches(rest, &words[n..])),
            Some((first, rest)) => words.split_first().is_some_and(|(word, more)| {
                (*first == "*" || first == word) && matches(rest, more)
            }),
        }
    }

    fn split(s: &str) -> Vec<&str> {
        TopicTrie::<u32>::words(s).collect()
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_the_definition(
            patterns in prop::collection::vec("([ab*#]?(\\.[ab*#]?){0,4})", 1..12),
            keys in prop::collection::vec("([ab]?(\\.[abc]?){0,5})", 1..12),
            removed in any::<u16>(),
        ) {
            let mut trie = TopicTrie::default();
            for (i, p) in patterns.iter().enumerate() {
                trie.insert(p, i);
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
