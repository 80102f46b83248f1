//! Field tables: read as a second reader, which knows nothing but their types, reads them; looked up, copied,
//! changed and written without loss; taken for arguments of queues and consumers without harm.
//!
//! The first octet says how many tables or arrays are put around what the input has, which is how it comes to the
//! limit of nesting.

use leveret::broker::arguments::{ConsumerSettings, QueueSettings};
use leveret::protocol::Method;
use leveret::protocol::field_table::{FieldTable, FieldValue, TableRef};
use leveret::protocol::short::ShortBytes;

use super::within;

/// How deep tables and arrays may nest. Not the constant of the code: that would be right whatever it is.
pub(super) const NESTING_MAX: usize = 64;

/// A value of one octet takes a place of 32 in a vector that has doubled, and there are a few copies of it.
const FOR_AN_OCTET: u64 = 1024;
const AT_REST: u64 = 256 << 10;

/// How deep the deepest value of a table stands in it; none: it is no table. Those of a plain one stand at 0.
pub(super) fn depth(mut table: &[u8]) -> Option<usize> {
    let mut deepest = 0;
    while let Some((length, rest)) = table.split_first() {
        table = rest.get(usize::from(*length)..)?;
        deepest = deepest.max(value(&mut table)?);
    }
    Some(deepest)
}

/// Takes a value away from the front. Nothing here recurses but as deep as the input is nested, which `run` bounds.
fn value(rest: &mut &[u8]) -> Option<usize> {
    let (kind, after) = rest.split_first()?;
    *rest = after;
    let n = match kind {
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'V' => 0,
        b'S' | b'x' | b'F' | b'A' => {
            let (length, after) = rest.split_first_chunk::<4>()?;
            *rest = after;
            u32::from_be_bytes(*length) as usize
        }
        _ => return None,
    };
    let (mut inner, after) = rest.split_at_checked(n)?;
    *rest = after;
    match kind {
        b'F' | b'A' if inner.is_empty() => Some(0),
        b'F' => Some(1 + depth(inner)?),
        b'A' => {
            let mut deepest = 0;
            while !inner.is_empty() {
                deepest = deepest.max(value(&mut inner)?);
            }
            Some(1 + deepest)
        }
        _ => Some(0),
    }
}

/// See the module.
pub fn run(input: &[u8]) {
    let Some((around, table)) = input.split_first() else {
        return;
    };
    let mut table = table.to_vec();
    for n in 0..around % 80 {
        let (kind, length) = ([b'F', b'A'][usize::from(n % 2)], table.len() as u32);
        // In an array stands a value, which has no name.
        let named: Vec<u8> = match kind {
            b'A' => [&[b'F'][..], &length.to_be_bytes(), &table].concat(),
            _ => table,
        };
        let length = named.len() as u32;
        table = [&[1, b'n', kind][..], &length.to_be_bytes(), &named].concat();
    }
    within(AT_REST, FOR_AN_OCTET, table.len(), || check(&table));
}

fn check(octets: &[u8]) {
    let depth = depth(octets);
    let fits = depth.is_some_and(|d| d <= NESTING_MAX);
    // As it comes from a client.
    let mut declare = b"\0\x32\0\x0a\0\0\0\0".to_vec();
    declare.extend((octets.len() as u32).to_be_bytes());
    declare.extend(octets);
    let arguments = match Method::decode(&declare) {
        Ok(Method::QueueDeclare(m)) => Some(m.arguments),
        _ => None,
    };
    let parsed = FieldTable::parse(octets);
    assert_eq!(fits, arguments.is_some(), "nested {depth:?}");
    assert_eq!(fits, parsed.is_ok(), "nested {depth:?}");
    let ours = FieldTable::parse_ours(octets);
    assert!(ours.is_ok() || !fits);
    // What nobody has checked is read as far as it goes.
    let unchecked = TableRef::unchecked(octets);
    for field in unchecked.fields() {
        let _ = (
            field.value.read(),
            field.value.as_table(),
            field.value.as_octets(),
        );
        let _ = field.value.as_array().map(Iterator::count);
    }
    let _ = (unchecked.get("x-queue-type"), unchecked.to_table());
    if let (Some(arguments), Ok(table)) = (arguments, parsed) {
        assert_eq!(arguments.as_bytes(), octets);
        agree(arguments, &table);
        settings(&table);
    }
}

/// Values without a comparison of floats.
fn shown(value: Option<&FieldValue>) -> String {
    format!("{value:?}")
}

/// All that can be asked of a table is the same where it is octets, and where it was built.
fn agree(octets: TableRef<'_>, table: &FieldTable) {
    let bytes = table.to_bytes();
    let again = FieldTable::parse(&bytes).expect("what was encoded is read");
    assert_eq!(again.to_bytes(), bytes);
    assert_eq!(table.clone().to_bytes(), bytes);
    assert_eq!(octets.to_table().to_bytes(), bytes);
    assert_eq!(octets.to_table_of(|_| true).to_bytes(), bytes);
    assert_eq!(
        (table.iter().count(), table.is_empty()),
        (table.len(), bytes.is_empty())
    );
    let mut encoded = Vec::new();
    table.encode_into(&mut encoded);
    assert_eq!(
        encoded,
        [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
    );
    let names: Vec<_> = octets.fields().map(|f| f.name).collect();
    assert_eq!(
        names,
        table.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    let fields = octets.fields().flat_map(|f| f.octets.to_vec());
    assert_eq!(fields.collect::<Vec<_>>(), octets.as_bytes());
    // A few are enough: each look-up goes through all before it.
    for name in names
        .iter()
        .take(8)
        .chain(&[ShortBytes::cut(b"none of these")])
    {
        let wanted = table.get_octets(name.as_bytes());
        assert_eq!(
            shown(octets.get_octets(name.as_bytes()).as_ref()),
            shown(wanted)
        );
        let first = octets.fields().find(|f| f.name == *name);
        let read = first.and_then(|f| f.value.read());
        assert_eq!(shown(read.as_ref()), shown(wanted));
        let only = octets.to_table_of(|n| n == *name);
        assert!(only.iter().all(|(n, _)| n == *name));
        assert_eq!(shown(only.get_octets(name.as_bytes())), shown(wanted));
        let mut changed = table.clone();
        changed.insert(*name, 7i64);
        assert_eq!(
            changed.get_octets(name.as_bytes()),
            Some(&FieldValue::I64(7))
        );
        assert_eq!(changed.len(), table.len() + usize::from(wanted.is_none()));
        if let Ok(text) = std::str::from_utf8(name.as_bytes()) {
            let removed = changed.remove(text);
            assert_eq!(removed, Some(FieldValue::I64(7)));
        }
    }
}

/// Whatever the arguments are, they mean something or are refused; a queue that was declared with them comes back.
fn settings(table: &FieldTable) {
    if let Ok(settings) = QueueSettings::parse(table) {
        let restored = QueueSettings::restore(table, |e| panic!("refused after a start: {e:?}"));
        assert_eq!(restored.ok().as_ref(), Some(&settings));
    } else {
        let _ = QueueSettings::restore(table, |_| {});
    }
    let _ = ConsumerSettings::parse(table, Default::default());
}
