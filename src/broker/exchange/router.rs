//! The bindings of one exchange.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::choosing::{Dice, Place, Row, Weighted, stable_hash};
use super::destinations::Destinations;
use super::headers::HeadersTable;
use super::topic::TopicTrie;
use super::{ExchangeType, delayed_type};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::properties::{Properties, PropertiesRef};

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
    Direct(HashMap<Box<[u8]>, Destinations<D>>),
    /// What is bound is all there is to know.
    Fanout,
    Topic(TopicTrie<D>),
    Headers(HeadersTable<D>),
    Hash(HashOn, Weighted<D>),
    Modulus(Row<D>),
    Random(Dice, Row<D>),
}

/// What an `x-consistent-hash` exchange hashes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashOn {
    /// The routing key.
    Key,
    /// `hash-header`: the value of this header.
    Header(Box<[u8]>),
    /// `hash-property`: this property.
    Property(HashProperty),
}

/// Properties that `hash-property` can name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "AMQP's own names")]
pub enum HashProperty {
    CorrelationId,
    MessageId,
    Timestamp,
}

impl HashProperty {
    /// By the name that RabbitMQ gives it.
    pub fn parse(name: &str) -> Option<HashProperty> {
        match name {
            "correlation_id" => Some(HashProperty::CorrelationId),
            "message_id" => Some(HashProperty::MessageId),
            "timestamp" => Some(HashProperty::Timestamp),
            _ => None,
        }
    }
}

impl HashOn {
    /// What the arguments of an exchange say; they were checked when it was declared.
    pub fn of(arguments: &FieldTable) -> HashOn {
        let header = arguments.get("hash-header");
        if let Some(name) = header.and_then(FieldValue::as_octets) {
            return HashOn::Header(name.into());
        }
        let property = arguments.get("hash-property");
        property
            .and_then(FieldValue::as_str)
            .and_then(HashProperty::parse)
            .map_or(HashOn::Key, HashOn::Property)
    }

    /// The number of a message; all that lack what is hashed have the same.
    fn number(&self, key: &[u8], properties: PropertiesRef<'_>) -> u64 {
        match self {
            HashOn::Key => stable_hash(&[key]),
            HashOn::Header(name) => {
                let mut field = FieldTable::new();
                if let Some(value) = properties.headers().and_then(|h| h.get_octets(name)) {
                    field.insert("", value);
                }
                stable_hash(&[&field.to_bytes()])
            }
            HashOn::Property(property) => {
                let p = Properties::from(properties);
                let timestamp = p.timestamp.map(u64::to_be_bytes);
                let octets = match property {
                    HashProperty::CorrelationId => p.correlation_id.as_deref(),
                    HashProperty::MessageId => p.message_id.as_deref(),
                    HashProperty::Timestamp => timestamp.as_ref().map(<[u8; 8]>::as_slice),
                };
                stable_hash(&[octets.unwrap_or_default()])
            }
        }
    }
}

impl<D: Clone + Eq + Hash + Place> Index<D> {
    fn add(&mut self, bound: &Bound, destination: &D) {
        match self {
            Index::Direct(map) => {
                let set = map.entry(bound.key.as_bytes().into()).or_default();
                set.add(destination);
            }
            Index::Fanout => {}
            Index::Topic(trie) => trie.insert(bound.key.as_bytes(), destination),
            Index::Headers(table) => {
                table.insert(&bound.identity, &bound.arguments, destination);
            }
            Index::Hash(_, ring) => ring.insert(&bound.key, destination),
            Index::Modulus(row) | Index::Random(_, row) => row.insert(destination),
        }
    }

    fn remove(&mut self, bound: &Bound, destination: &D) {
        match self {
            Index::Direct(map) => {
                if let Some(set) = map.get_mut(bound.key.as_bytes()) {
                    set.remove(destination);
                    if set.is_empty() {
                        map.remove(bound.key.as_bytes());
                    }
                }
            }
            Index::Fanout => {}
            Index::Topic(trie) => trie.remove(bound.key.as_bytes(), destination),
            Index::Headers(table) => table.remove(&bound.identity, destination),
            Index::Hash(_, ring) => ring.remove(&bound.key, destination),
            Index::Modulus(row) | Index::Random(_, row) => row.remove(destination),
        }
    }
}

impl<D: Clone + Eq + Hash + Place> Router<D> {
    /// Without bindings, for an exchange of this type with these arguments.
    pub fn new(kind: ExchangeType, arguments: &FieldTable) -> Router<D> {
        let index = match kind {
            ExchangeType::Direct => Index::Direct(HashMap::new()),
            ExchangeType::Fanout | ExchangeType::RecentHistory | ExchangeType::Deduplication => {
                Index::Fanout
            }
            ExchangeType::Topic => Index::Topic(TopicTrie::default()),
            ExchangeType::Headers => Index::Headers(HeadersTable::default()),
            ExchangeType::ConsistentHash => Index::Hash(HashOn::of(arguments), Weighted::default()),
            ExchangeType::ModulusHash => Index::Modulus(Row::default()),
            ExchangeType::Random | ExchangeType::LocalRandom => {
                Index::Random(Dice::default(), Row::default())
            }
            ExchangeType::Delayed => {
                // What it delays it routes as one of another type, which is never `Delayed`.
                let then = delayed_type(arguments).unwrap_or(ExchangeType::Direct);
                return Router::new(then, arguments);
            }
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

    /// Whether a message goes where its key says, and every message with that key.
    pub fn by_key(&self) -> bool {
        match &self.index {
            Index::Direct(_) | Index::Fanout | Index::Topic(_) | Index::Modulus(_) => true,
            Index::Hash(on, _) => *on == HashOn::Key,
            Index::Headers(_) | Index::Random(..) => false,
        }
    }

    /// How many bindings, or places, each message is compared with.
    pub fn compared(&self) -> usize {
        match &self.index {
            Index::Direct(_) | Index::Fanout | Index::Topic(_) => 0,
            Index::Headers(table) => table.len(),
            Index::Hash(..) | Index::Modulus(_) | Index::Random(..) => self.bindings.len(),
        }
    }

    /// Appends the destinations of a message with these keys, of which there is at least one; a
    /// destination may come more than once. Exchanges that choose one destination do so by the first.
    pub fn route(&self, keys: &[&[u8]], properties: PropertiesRef<'_>, out: &mut Vec<D>) {
        let first = keys.first().copied().unwrap_or_default();
        match &self.index {
            Index::Direct(map) => {
                for key in keys {
                    if let Some(set) = map.get(*key) {
                        set.append_to(out);
                    }
                }
            }
            Index::Fanout => out.extend(self.bindings.keys().cloned()),
            Index::Topic(trie) => keys.iter().for_each(|key| trie.route(key, out)),
            Index::Headers(table) => {
                table.route(properties.headers().unwrap_or_default(), out);
            }
            Index::Hash(on, ring) => out.extend(ring.choose(on.number(first, properties)).cloned()),
            Index::Modulus(row) => out.extend(row.choose(stable_hash(&[first])).cloned()),
            Index::Random(dice, row) => out.extend(row.choose(dice.roll()).cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::exchange::HeadersMatch;
    use crate::protocol::field_table::FieldValue;

    fn new<D: Clone + Eq + Hash + Place>(kind: ExchangeType) -> Router<D> {
        Router::new(kind, &FieldTable::new())
    }

    fn with_headers(headers: FieldTable) -> Vec<u8> {
        let headers = Some(headers);
        Properties {
            headers,
            ..Properties::default()
        }
        .encode()
    }

    fn route(r: &Router<u32>, key: &str) -> Vec<u32> {
        let mut out = vec![];
        r.route(
            &[key.as_bytes()],
            PropertiesRef::unchecked(&[0, 0]),
            &mut out,
        );
        out.sort_unstable();
        out
    }

    #[test]
    fn a_direct_exchange_matches_the_whole_key() {
        let mut r = new(ExchangeType::Direct);
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
        let mut r = new(ExchangeType::Topic);
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
        let mut r = new(ExchangeType::Fanout);
        r.bind("a", &FieldTable::new(), &1);
        r.bind("b", &FieldTable::new(), &1);
        r.bind("", &FieldTable::new(), &2);
        assert_eq!(route(&r, "zzz"), [1, 2]);
    }

    #[test]
    fn a_hash_exchange_hashes_what_its_arguments_say() {
        let header = |value: i32| {
            let mut t = FieldTable::new();
            t.insert("account", FieldValue::I32(value));
            with_headers(t)
        };
        let message_id = |id: String| {
            Properties {
                message_id: Some(id.into()),
                ..Properties::default()
            }
            .encode()
        };
        let cases = [
            ("hash-header", "account", header(1), header(2)),
            (
                "hash-property",
                "message_id",
                message_id("a".into()),
                message_id("b".into()),
            ),
        ];
        for (argument, value, one, other) in cases {
            let mut arguments = FieldTable::new();
            arguments.insert(argument, value);
            let mut router: Router<u32> = Router::new(ExchangeType::ConsistentHash, &arguments);
            assert!(!router.by_key());
            for destination in 0..64 {
                router.bind("1", &FieldTable::new(), &destination);
            }
            let to = |key: &str, properties: &[u8]| {
                let mut out = vec![];
                router.route(
                    &[key.as_bytes()],
                    PropertiesRef::unchecked(properties),
                    &mut out,
                );
                assert_eq!(out.len(), 1);
                out[0]
            };
            assert_eq!(to("a", &one), to("b", &one));
            assert_ne!(to("a", &one), to("a", &other), "{argument}");
            // Without it, all go the same way.
            assert_eq!(to("a", &[0, 0]), to("b", &[0, 0]));
        }
    }

    #[test]
    fn random_and_modulus_exchanges_choose_one() {
        for kind in [ExchangeType::Random, ExchangeType::ModulusHash] {
            let mut r = new(kind);
            assert!(route(&r, "a").is_empty());
            for destination in 1..=3u32 {
                r.bind("", &FieldTable::new(), &destination);
            }
            let chosen: HashSet<u32> = (0..200)
                .map(|i| {
                    let to = route(&r, &i.to_string());
                    assert_eq!(to.len(), 1);
                    to[0]
                })
                .collect();
            assert_eq!(chosen.len(), 3, "{kind:?}");
            r.unbind_all(&2);
            assert!((0..200).all(|i| route(&r, &i.to_string()) != [2]));
        }
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
                    .map(|(name, value)| have.get_octets(&name) == Some(value));
                match HeadersMatch::of(&wanted) {
                    Ok(HeadersMatch::Any) => hits.any(|hit| hit),
                    _ => hits.all(|hit| hit),
                }
            }
            other => unreachable!("{other:?} has no such definition"),
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
            let mut router = new(kind);
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
                let properties = with_headers(arguments(headers));
                router.route(&[key.as_bytes()], PropertiesRef::unchecked(&properties), &mut found);
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
