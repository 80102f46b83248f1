//! The bindings of one exchange.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::ExchangeType;
use super::destinations::Destinations;
use super::headers::HeadersTable;
use super::topic::TopicTrie;
use crate::protocol::field_table::FieldTable;

/// Key and arguments of a binding: what identifies it beside its two ends.
///
/// The order of the arguments does not matter: clients that keep them in a hash map send them in
/// another order each time. RabbitMQ sorts them, too.
#[derive(Clone, Debug)]
struct Bound {
    key: Box<str>,
    /// As they were sent.
    arguments: FieldTable,
    /// Encoded in the order of their names. Compared instead of the values, of which one (not a
    /// number) does not even equal itself.
    identity: Box<[u8]>,
}

impl Bound {
    fn new(key: &str, arguments: &FieldTable) -> Bound {
        let mut fields: Vec<_> = arguments.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let mut identity = Vec::new();
        for (name, value) in fields {
            let mut field = FieldTable::new();
            field.insert(name, value.clone());
            field.encode_into(&mut identity);
        }
        Bound {
            key: key.into(),
            arguments: arguments.clone(),
            identity: identity.into(),
        }
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.identity == other.identity
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        self.identity.hash(state);
    }
}

/// The bindings of one exchange, indexed for its type.
#[derive(Debug)]
pub struct Router<D> {
    /// Every binding, by destination.
    bindings: HashMap<D, HashSet<Bound>>,
    index: Index<D>,
}

#[derive(Debug)]
enum Index<D> {
    Direct(HashMap<Box<str>, Destinations<D>>),
    /// What is bound is all there is to know.
    Fanout,
    Topic(TopicTrie<D>),
    Headers(HeadersTable<D>),
}

impl<D: Clone + Eq + Hash> Index<D> {
    fn add(&mut self, bound: &Bound, destination: &D) {
        match self {
            Index::Direct(map) => map.entry(bound.key.clone()).or_default().add(destination),
            Index::Fanout => {}
            Index::Topic(trie) => trie.insert(&bound.key, destination),
            Index::Headers(table) => {
                table.insert(&bound.identity, &bound.arguments, destination);
            }
        }
    }

    fn remove(&mut self, bound: &Bound, destination: &D) {
        match self {
            Index::Direct(map) => {
                if let Some(set) = map.get_mut(&bound.key) {
                    set.remove(destination);
                    if set.is_empty() {
                        map.remove(&bound.key);
                    }
                }
            }
            Index::Fanout => {}
            Index::Topic(trie) => trie.remove(&bound.key, destination),
            Index::Headers(table) => table.remove(&bound.identity, destination),
        }
    }
}

impl<D: Clone + Eq + Hash> Router<D> {
    /// Without bindings.
    pub fn new(kind: ExchangeType) -> Router<D> {
        let index = match kind {
            ExchangeType::Direct => Index::Direct(HashMap::new()),
            ExchangeType::Fanout => Index::Fanout,
            ExchangeType::Topic => Index::Topic(TopicTrie::default()),
            ExchangeType::Headers => Index::Headers(HeadersTable::default()),
        };
        Router {
            bindings: HashMap::new(),
            index,
        }
    }

    /// Whether there are no bindings.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// All bindings, each with the arguments as they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&D, &str, &FieldTable)> {
        self.bindings
            .iter()
            .flat_map(|(d, set)| set.iter().map(move |b| (d, b.key.as_ref(), &b.arguments)))
    }

    /// Whether there is such a binding.
    pub fn contains(&self, key: &str, arguments: &FieldTable, destination: &D) -> bool {
        self.bindings
            .get(destination)
            .is_some_and(|set| set.contains(&Bound::new(key, arguments)))
    }

    /// Whether any binding leads there.
    pub fn leads_to(&self, destination: &D) -> bool {
        self.bindings.contains_key(destination)
    }

    /// Adds a binding; false if it is there already.
    pub fn bind(&mut self, key: &str, arguments: &FieldTable, destination: &D) -> bool {
        let bound = Bound::new(key, arguments);
        let set = self.bindings.entry(destination.clone()).or_default();
        if set.contains(&bound) {
            return false;
        }
        self.index.add(&bound, destination);
        set.insert(bound);
        true
    }

    /// Removes a binding and returns its arguments as they were bound; `None` if there is no such
    /// binding.
    pub fn unbind(
        &mut self,
        key: &str,
        arguments: &FieldTable,
        destination: &D,
    ) -> Option<FieldTable> {
        let set = self.bindings.get_mut(destination)?;
        let bound = set.take(&Bound::new(key, arguments))?;
        if set.is_empty() {
            self.bindings.remove(destination);
        }
        self.index.remove(&bound, destination);
        Some(bound.arguments)
    }

    /// Removes all bindings to a destination and returns their keys and arguments.
    pub fn unbind_all(&mut self, destination: &D) -> Vec<(Box<str>, FieldTable)> {
        let gone = self.bindings.remove(destination).unwrap_or_default();
        for bound in &gone {
            self.index.remove(bound, destination);
        }
        gone.into_iter().map(|b| (b.key, b.arguments)).collect()
    }

    /// Whether routes depend on the headers, not on the key.
    pub fn by_headers(&self) -> bool {
        matches!(self.index, Index::Headers(_))
    }

    /// Appends the destinations of a message; one may come more than once.
    pub fn route(&self, key: &str, headers: impl FnOnce() -> FieldTable, out: &mut Vec<D>) {
        match &self.index {
            Index::Direct(map) => {
                if let Some(set) = map.get(key) {
                    set.append_to(out);
                }
            }
            Index::Fanout => out.extend(self.bindings.keys().cloned()),
            Index::Topic(trie) => trie.route(key, out),
            Index::Headers(table) => table.route(&headers(), out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::exchange::HeadersMatch;
    use crate::protocol::field_table::FieldValue;

    fn route(r: &Router<u32>, key: &str) -> Vec<u32> {
        let mut out = vec![];
        r.route(key, FieldTable::new, &mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn a_direct_exchange_matches_the_whole_key() {
        let mut r = Router::new(ExchangeType::Direct);
        assert!(r.bind("a", &FieldTable::new(), &1));
        assert!(!r.bind("a", &FieldTable::new(), &1));
        assert!(r.bind("a", &FieldTable::new(), &2));
        assert_eq!(route(&r, "a"), [1, 2]);
        assert!(route(&r, "b").is_empty());
        assert!(r.unbind("a", &FieldTable::new(), &1).is_some());
        assert!(r.unbind("a", &FieldTable::new(), &1).is_none());
        assert_eq!(route(&r, "a"), [2]);
    }

    #[test]
    fn bindings_that_differ_in_arguments_are_two() {
        let mut r = Router::new(ExchangeType::Topic);
        let mut args = FieldTable::new();
        args.insert("x", 1i64);
        assert!(r.bind("a.*", &FieldTable::new(), &1));
        assert!(r.bind("a.*", &args, &1));
        assert_eq!(route(&r, "a.b"), [1]);
        assert!(r.unbind("a.*", &args, &1).is_some());
        assert_eq!(route(&r, "a.b"), [1]);
        assert_eq!(r.unbind_all(&1).len(), 1);
        assert!(r.is_empty());
        assert!(route(&r, "a.b").is_empty());
    }

    #[test]
    fn a_fanout_exchange_ignores_the_key() {
        let mut r = Router::new(ExchangeType::Fanout);
        r.bind("a", &FieldTable::new(), &1);
        r.bind("b", &FieldTable::new(), &1);
        r.bind("", &FieldTable::new(), &2);
        assert_eq!(route(&r, "zzz"), [1, 2]);
    }

    /// A binding of the model: key, which arguments, destination.
    type Simple = (String, u8, u8);

    /// Argument tables to choose from: the same twice, in two orders.
    fn arguments(which: u8) -> FieldTable {
        let mut t = FieldTable::new();
        let (a, b) = (("a", 1), ("b", 2));
        let choice: [&[_]; 4] = [&[], &[a], &[a, b], &[b, a]];
        for &(name, value) in choice[usize::from(which)] {
            t.insert(name, FieldValue::I32(value));
        }
        if which == 1 {
            t.insert("x-match", "any");
        }
        t
    }

    /// Whether a binding matches, by the definition of its type.
    fn matches(kind: ExchangeType, (bound, which, _): &Simple, key: &str, headers: u8) -> bool {
        match kind {
            ExchangeType::Direct => bound == key,
            ExchangeType::Fanout => true,
            ExchangeType::Topic => {
                let words = |s: &str| -> Vec<String> {
                    let all = s.split('.').map(str::to_string).collect();
                    if s.is_empty() { vec![] } else { all }
                };
                topic(&words(bound), &words(key))
            }
            ExchangeType::Headers => {
                let (wanted, have) = (arguments(*which), arguments(headers));
                let mut hits = wanted
                    .iter()
                    .filter(|(name, _)| *name != "x-match")
                    .map(|(name, value)| have.get(name) == Some(value));
                match HeadersMatch::of(&wanted) {
                    Ok(HeadersMatch::Any) => hits.any(|hit| hit),
                    _ => hits.all(|hit| hit),
                }
            }
        }
    }

    fn topic(pattern: &[String], words: &[String]) -> bool {
        match pattern.split_first() {
            None => words.is_empty(),
            Some((first, rest)) if first == "#" => {
                (0..=words.len()).any(|n| topic(rest, &words[n..]))
            }
            Some((first, rest)) => words
                .split_first()
                .is_some_and(|(word, more)| (first == "*" || first == word) && topic(rest, more)),
        }
    }

    proptest! {
        #[test]
        fn every_type_agrees_with_a_list_of_bindings(
            kind in prop::sample::select(vec![
                ExchangeType::Direct,
                ExchangeType::Fanout,
                ExchangeType::Topic,
                ExchangeType::Headers,
            ]),
            steps in prop::collection::vec(
                (0..8u8, "([ab*#](\\.[ab*#]){0,3})?", 0..4u8, 0..20u8),
                1..80,
            ),
            keys in prop::collection::vec(("([ab](\\.[abc]){0,3})?", 0..4u8), 1..8),
        ) {
            let mut router = Router::new(kind);
            let mut model: Vec<Simple> = vec![];
            for (what, key, which, to) in steps {
                // The last two tables differ in order only.
                let one = (key.clone(), which.min(2), to);
                let at = model.iter().position(|b| *b == one);
                match what {
                    0 => {
                        let gone = router.unbind_all(&to);
                        prop_assert_eq!(gone.len(), model.iter().filter(|b| b.2 == to).count());
                        model.retain(|b| b.2 != to);
                    }
                    1 | 2 => {
                        let gone = router.unbind(&key, &arguments(which), &to);
                        prop_assert_eq!(gone.is_some(), at.is_some());
                        at.map(|at| model.remove(at));
                    }
                    _ => {
                        prop_assert_eq!(router.bind(&key, &arguments(which), &to), at.is_none());
                        prop_assert!(router.contains(&key, &arguments(which), &to));
                        if at.is_none() {
                            model.push(one);
                        }
                    }
                }
                prop_assert_eq!(router.leads_to(&to), model.iter().any(|b| b.2 == to));
                prop_assert_eq!(router.is_empty(), model.is_empty());
                prop_assert_eq!(router.iter().count(), model.len());
            }
            for (key, headers) in keys {
                let mut found = vec![];
                router.route(&key, || arguments(headers), &mut found);
                found.sort_unstable();
                found.dedup();
                let mut want: Vec<u8> = model
                    .iter()
                    .filter(|b| matches(kind, b, &key, headers))
                    .map(|b| b.2)
                    .collect();
                want.sort_unstable();
                want.dedup();
                prop_assert_eq!(found, want, "{:?} {:?}", kind, key);
            }
        }
    }
}
