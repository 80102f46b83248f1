//! Field tables: typed key-value pairs in arguments and headers.
//!
//! The types are RabbitMQ's, not the specification's: see `amqp-spec/NOTES.md`.

use super::short::{ShortBuf, ShortBytes};
use super::wire::{Malformed, Reader};

/// How deep tables and arrays may nest. The wire sets no limit; a hostile peer must not be able to
/// exhaust the stack.
pub const NESTING_MAX: usize = 64;

/// Values in one table, with those of tables and arrays in it. A value may be one octet on the wire and takes
/// 32 in memory; a frame of the usual size (131,072 octets) never has so many.
pub const VALUES_MAX: usize = 1 << 18;

/// How deep those may nest that we encode ourselves: they hold what came from the wire, and the store
/// and the firehose put tables of their own around it.
pub const NESTING_OURS: usize = NESTING_MAX + 8;

/// A value with its wire type.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`; `L` is read as the same.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: the value is `value / 10^scale`.
    Decimal {
        /// Decimal places.
        scale: u8,
        /// Digits.
        value: u32,
    },
    /// `S`
    LongStr(Vec<u8>),
    /// `A`
    Array(Vec<FieldValue>),
    /// `T`, seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(FieldTable),
    /// `V`
    Void,
    /// `x`
    Bytes(Vec<u8>),
}

impl FieldValue {
    /// RabbitMQ's name of the type, as its error texts use it.
    pub fn type_name(&self) -> &'static str {
        match self {
            FieldValue::Bool(_) => "bool",
            FieldValue::I8(_) => "byte",
            FieldValue::U8(_) => "unsignedbyte",
            FieldValue::I16(_) => "short",
            FieldValue::U16(_) => "unsignedshort",
            FieldValue::I32(_) => "signedint",
            FieldValue::U32(_) => "unsignedint",
            FieldValue::I64(_) => "long",
            FieldValue::F32(_) => "float",
            FieldValue::F64(_) => "double",
            FieldValue::Decimal { .. } => "decimal",
            FieldValue::LongStr(_) => "longstr",
            FieldValue::Array(_) => "array",
            FieldValue::Timestamp(_) => "timestamp",
            FieldValue::Table(_) => "table",
            FieldValue::Void => "void",
            FieldValue::Bytes(_) => "binary",
        }
    }

    /// The number, whatever the width of the integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            FieldValue::I8(v) => Some((*v).into()),
            FieldValue::U8(v) => Some((*v).into()),
            FieldValue::I16(v) => Some((*v).into()),
            FieldValue::U16(v) => Some((*v).into()),
            FieldValue::I32(v) => Some((*v).into()),
            FieldValue::U32(v) => Some((*v).into()),
            FieldValue::I64(v) => Some(*v),
            _ => None,
        }
    }

    /// The octets of a long string.
    pub fn as_octets(&self) -> Option<&[u8]> {
        match self {
            FieldValue::LongStr(v) => Some(v),
            _ => None,
        }
    }

    /// The text of a long string, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            FieldValue::LongStr(v) => std::str::from_utf8(v).ok(),
            _ => None,
        }
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            FieldValue::Bool(v) => out.extend([b't', u8::from(*v)]),
            FieldValue::I8(v) => out.extend([b'b', v.to_be_bytes()[0]]),
            FieldValue::U8(v) => out.extend([b'B', *v]),
            FieldValue::I16(v) => put(out, b's', &v.to_be_bytes()),
            FieldValue::U16(v) => put(out, b'u', &v.to_be_bytes()),
            FieldValue::I32(v) => put(out, b'I', &v.to_be_bytes()),
            FieldValue::U32(v) => put(out, b'i', &v.to_be_bytes()),
            FieldValue::I64(v) => put(out, b'l', &v.to_be_bytes()),
            FieldValue::F32(v) => put(out, b'f', &v.to_be_bytes()),
            FieldValue::F64(v) => put(out, b'd', &v.to_be_bytes()),
            FieldValue::Decimal { scale, value } => {
                out.extend([b'D', *scale]);
                out.extend(value.to_be_bytes());
            }
            FieldValue::LongStr(v) => put_long(out, b'S', v),
            FieldValue::Bytes(v) => put_long(out, b'x', v),
            FieldValue::Timestamp(v) => put(out, b'T', &v.to_be_bytes()),
            FieldValue::Void => out.push(b'V'),
            FieldValue::Table(v) => {
                out.push(b'F');
                v.encode_into(out);
            }
            FieldValue::Array(v) => {
                out.push(b'A');
                with_length(out, |out| v.iter().for_each(|item| item.encode_into(out)));
            }
        }
    }

    pub(super) fn read(
        r: &mut Reader<'_>,
        depth: usize,
        max: usize,
    ) -> Result<FieldValue, Malformed> {
        if depth > max {
            return Err(Malformed::Syntax);
        }
        Ok(match r.octet()? {
            b't' => FieldValue::Bool(r.octet()? != 0),
            b'b' => FieldValue::I8(r.octet()? as i8),
            b'B' => FieldValue::U8(r.octet()?),
            b's' => FieldValue::I16(r.short()? as i16),
            b'u' => FieldValue::U16(r.short()?),
            b'I' => FieldValue::I32(r.long()? as i32),
            b'i' => FieldValue::U32(r.long()?),
            b'l' | b'L' => FieldValue::I64(r.longlong()? as i64),
            b'f' => FieldValue::F32(f32::from_bits(r.long()?)),
            b'd' => FieldValue::F64(f64::from_bits(r.longlong()?)),
            b'D' => FieldValue::Decimal {
                scale: r.octet()?,
                value: r.long()?,
            },
            b'S' => FieldValue::LongStr(r.long_str()?.to_vec()),
            b'x' => FieldValue::Bytes(r.long_str()?.to_vec()),
            b'T' => FieldValue::Timestamp(r.longlong()?),
            b'V' => FieldValue::Void,
            b'F' => FieldValue::Table(FieldTable::read(r.long_str()?, depth + 1, max)?),
            b'A' => {
                let mut items = Reader::new(r.long_str()?);
                let mut array = Vec::new();
                while !items.rest().is_empty() {
                    array.push(FieldValue::read(&mut items, depth + 1, max)?);
                }
                FieldValue::Array(array)
            }
            _ => return Err(Malformed::Syntax),
        })
    }
}

impl From<&str> for FieldValue {
    fn from(v: &str) -> Self {
        FieldValue::LongStr(v.as_bytes().to_vec())
    }
}

impl From<&[u8]> for FieldValue {
    fn from(v: &[u8]) -> Self {
        FieldValue::LongStr(v.to_vec())
    }
}

impl From<ShortBytes<'_>> for FieldValue {
    fn from(v: ShortBytes<'_>) -> Self {
        v.as_bytes().into()
    }
}

impl From<String> for FieldValue {
    fn from(v: String) -> Self {
        FieldValue::LongStr(v.into_bytes())
    }
}

impl From<bool> for FieldValue {
    fn from(v: bool) -> Self {
        FieldValue::Bool(v)
    }
}

impl From<i64> for FieldValue {
    fn from(v: i64) -> Self {
        FieldValue::I64(v)
    }
}

impl From<FieldTable> for FieldValue {
    fn from(v: FieldTable) -> Self {
        FieldValue::Table(v)
    }
}

fn put(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

fn put_long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Writes a 32-bit length, then what `fill` writes.
fn with_length(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    fill(out);
    let len = (out.len() - at - 4) as u32;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

/// An ordered table of named values. The names are octets, as RabbitMQ has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldTable {
    fields: Vec<(ShortBuf, FieldValue)>,
}

impl FieldTable {
    /// An empty table.
    pub fn new() -> FieldTable {
        FieldTable::default()
    }

    /// Parses the fields of a table (what follows its length).
    ///
    /// # Errors
    /// [`Malformed`] if a field has no known type, or the bytes end early.
    pub fn parse(bytes: &[u8]) -> Result<FieldTable, Malformed> {
        Self::read(bytes, 0, NESTING_MAX)
    }

    /// Parses the fields of a table that we encoded: deeper than what the wire may bring.
    ///
    /// # Errors
    /// [`Malformed`] if a field has no known type, or the bytes end early.
    pub fn parse_ours(bytes: &[u8]) -> Result<FieldTable, Malformed> {
        Self::read(bytes, 0, NESTING_OURS)
    }

    fn read(bytes: &[u8], depth: usize, max: usize) -> Result<FieldTable, Malformed> {
        let mut r = Reader::new(bytes);
        let mut fields = Vec::new();
        while !r.rest().is_empty() {
            let name = r.short_bytes()?;
            fields.push((name.into(), FieldValue::read(&mut r, depth, max)?));
        }
        Ok(FieldTable { fields })
    }

    /// Appends the table with its 32-bit length.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        with_length(out, |out| {
            for (name, value) in &self.fields {
                out.push(name.as_short().len_octet());
                out.extend_from_slice(name);
                value.encode_into(out);
            }
        });
    }

    /// The encoded fields without their length, as [`TableRef`] holds them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out.drain(..4);
        out
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.get_octets(name.as_bytes())
    }

    /// The value of a field.
    pub fn get_octets(&self, name: &[u8]) -> Option<&FieldValue> {
        let mut fields = self.fields.iter();
        fields.find(|(n, _)| **n == *name).map(|(_, v)| v)
    }

    /// Sets a field: in its place, or at the end. No name is longer than a short string.
    pub fn insert<'a>(&mut self, name: impl Into<ShortBytes<'a>>, value: impl Into<FieldValue>) {
        let (name, value) = (name.into(), value.into());
        match self.fields.iter_mut().find(|(n, _)| n.as_short() == name) {
            Some((_, place)) => *place = value,
            None => self.fields.push((name.into(), value)),
        }
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let mut fields = self.fields.iter();
        let at = fields.position(|(n, _)| **n == *name.as_bytes())?;
        Some(self.fields.remove(at).1)
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (ShortBytes<'_>, &FieldValue)> {
        self.fields.iter().map(|(n, v)| (n.as_short(), v))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A table as it stands in a frame; already checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TableRef<'a>(&'a [u8]);

impl<'a> TableRef<'a> {
    /// A table that was checked, or that we encoded.
    pub fn unchecked(bytes: &'a [u8]) -> TableRef<'a> {
        TableRef(bytes)
    }

    /// The encoded fields, without their length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The first field of this name, without building the rest.
    pub fn get(&self, name: &str) -> Option<FieldValue> {
        self.get_octets(name.as_bytes())
    }

    /// The same.
    pub fn get_octets(&self, name: &[u8]) -> Option<FieldValue> {
        let mut r = Reader::new(self.0);
        while !r.rest().is_empty() {
            if r.short_bytes().ok()?.as_bytes() == name {
                return FieldValue::read(&mut r, 0, NESTING_OURS).ok();
            }
            skip(&mut r).ok()?;
        }
        None
    }

    /// Those fields whose names are asked for. The others are not built.
    pub fn to_table_of(&self, wanted: impl Fn(ShortBytes<'_>) -> bool) -> FieldTable {
        let fields = self.fields().filter(|f| wanted(f.name));
        let fields = fields.map_while(|f| Some((f.name.into(), f.value.read()?)));
        FieldTable {
            fields: fields.collect(),
        }
    }

    /// The table itself. What was checked, or encoded by us, parses; anything else is read as empty.
    pub fn to_table(&self) -> FieldTable {
        FieldTable::parse_ours(self.0).unwrap_or_default()
    }
}

/// Passes over a value, without a look into it.
#[inline]
pub(super) fn skip(r: &mut Reader<'_>) -> Result<(), Malformed> {
    match r.octet()? {
        b't' | b'b' | b'B' => r.bytes(1).map(drop),
        b's' | b'u' => r.bytes(2).map(drop),
        b'I' | b'i' | b'f' => r.bytes(4).map(drop),
        b'l' | b'L' | b'd' | b'T' => r.bytes(8).map(drop),
        b'D' => r.bytes(5).map(drop),
        b'S' | b'x' | b'F' | b'A' => r.long_str().map(drop),
        b'V' => Ok(()),
        _ => Err(Malformed::Syntax),
    }
}

/// Checks a table without building it. True if a value in it has the type `L`: py-amqp writes that for
/// a long integer, most clients cannot read it, and RabbitMQ delivers it as `l`.
pub(super) fn check(bytes: &[u8]) -> Result<bool, Malformed> {
    let mut check = Check::default();
    check.table(bytes, 0)?;
    Ok(check.odd)
}

/// What was seen of a table so far.
#[derive(Default)]
struct Check {
    /// Values, of tables and arrays within it, too.
    values: usize,
    /// One of them has the type `L`.
    odd: bool,
}

impl Check {
    fn table(&mut self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        while !r.rest().is_empty() {
            r.short_bytes()?;
            self.value(&mut r, depth)?;
        }
        Ok(())
    }

    fn value(&mut self, r: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
        self.values += 1;
        if depth > NESTING_MAX || self.values > VALUES_MAX {
            return Err(Malformed::Syntax);
        }
        match r.octet()? {
            b't' | b'b' | b'B' => r.bytes(1).map(drop),
            b's' | b'u' => r.bytes(2).map(drop),
            b'I' | b'i' | b'f' => r.bytes(4).map(drop),
            b'l' | b'd' | b'T' => r.bytes(8).map(drop),
            b'L' => {
                self.odd = true;
                r.bytes(8).map(drop)
            }
            b'D' => r.bytes(5).map(drop),
            b'S' | b'x' => r.long_str().map(drop),
            b'V' => Ok(()),
            b'F' => self.table(r.long_str()?, depth + 1),
            b'A' => {
                let mut items = Reader::new(r.long_str()?);
                while !items.rest().is_empty() {
                    self.value(&mut items, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(Malformed::Syntax),
        }
    }
}

impl<'a> Reader<'a> {
    /// A field table, checked to the last field.
    pub fn table(&mut self) -> Result<TableRef<'a>, Malformed> {
        let bytes = self.long_str()?;
        check(bytes)?;
        Ok(TableRef::unchecked(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any octets.
    fn name(max: usize) -> impl Strategy<Value = ShortBuf> {
        let octets = prop::collection::vec(any::<u8>(), 0..=max);
        octets.prop_map(|o| ShortBytes::cut(&o).into())
    }

    fn value() -> impl Strategy<Value = FieldValue> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(FieldValue::Bool),
            any::<i8>().prop_map(FieldValue::I8),
            any::<u8>().prop_map(FieldValue::U8),
            any::<i16>().prop_map(FieldValue::I16),
            any::<u16>().prop_map(FieldValue::U16),
            any::<i32>().prop_map(FieldValue::I32),
            any::<u32>().prop_map(FieldValue::U32),
            any::<i64>().prop_map(FieldValue::I64),
            (-1e9f32..1e9).prop_map(FieldValue::F32),
            (-1e9f64..1e9).prop_map(FieldValue::F64),
            (any::<u8>(), any::<u32>())
                .prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
            any::<Vec<u8>>().prop_map(FieldValue::LongStr),
            any::<Vec<u8>>().prop_map(FieldValue::Bytes),
            any::<u64>().prop_map(FieldValue::Timestamp),
            Just(FieldValue::Void),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(FieldValue::Array),
                prop::collection::vec((name(9), inner), 0..5)
                    .prop_map(|fields| FieldValue::Table(FieldTable { fields })),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_type_comes_back(fields in prop::collection::vec((name(255), value()), 0..8)) {
            let table = FieldTable { fields };
            let bytes = table.to_bytes();
            prop_assert!(check(&bytes).is_ok());
            prop_assert_eq!(FieldTable::parse(&bytes).unwrap(), table);
        }

        #[test]
        fn a_field_is_found_without_the_rest(fields in prop::collection::vec((name(2), value()), 0..8)) {
            let table = FieldTable { fields };
            let bytes = table.to_bytes();
            for name in ["", "a", "CC"] {
                prop_assert_eq!(TableRef::unchecked(&bytes).get(name), table.get(name).cloned());
            }
            for (name, _) in table.iter() {
                if let Ok(name) = std::str::from_utf8(name.as_bytes()) {
                    prop_assert_eq!(TableRef::unchecked(&bytes).get(name), table.get(name).cloned());
                }
            }
        }

        #[test]
        fn check_and_parse_agree_on_any_bytes(bytes in any::<Vec<u8>>()) {
            let mut agree = false;
            let used = allocation_counter::measure(|| {
                agree = check(&bytes).is_ok() == FieldTable::parse(&bytes).is_ok();
            });
            prop_assert!(agree);
            // A value of one octet has a place in a vector that was doubled.
            prop_assert!(used.bytes_max <= 1024 + 192 * bytes.len() as u64, "{}", used.bytes_max);
        }
    }

    #[test]
    fn the_number_of_values_has_a_limit() {
        let table = |n| FieldTable {
            fields: vec![("many".into(), FieldValue::Array(vec![FieldValue::Void; n]))],
        };
        // The array counts, too.
        assert!(check(&table(VALUES_MAX - 1).to_bytes()).is_ok());
        assert!(check(&table(VALUES_MAX).to_bytes()).is_err());
        let pair = FieldValue::Array(vec![FieldValue::Void; VALUES_MAX / 2]);
        let within = FieldTable {
            fields: vec![("a".into(), pair.clone()), ("b".into(), pair)],
        };
        assert!(check(&within.to_bytes()).is_err());
    }

    #[test]
    fn nesting_has_a_limit() {
        let mut value = FieldValue::Void;
        for _ in 0..=NESTING_MAX + 1 {
            value = FieldValue::Array(vec![value]);
        }
        let table = FieldTable {
            fields: vec![("deep".into(), value)],
        };
        assert_eq!(FieldTable::parse(&table.to_bytes()), Err(Malformed::Syntax));
    }

    #[test]
    fn what_we_put_around_what_the_wire_takes_is_read() {
        let mut value = FieldValue::Void;
        for _ in 0..NESTING_MAX {
            value = FieldValue::Array(vec![value]);
        }
        let mut table = FieldTable {
            fields: vec![("deep".into(), value)],
        };
        assert!(check(&table.to_bytes()).is_ok());
        for _ in 0..NESTING_OURS - NESTING_MAX {
            table = FieldTable {
                fields: vec![("ours".into(), FieldValue::Table(table))],
            };
            let bytes = table.to_bytes();
            assert_eq!(FieldTable::parse_ours(&bytes), Ok(table.clone()));
            assert_eq!(TableRef::unchecked(&bytes).to_table(), table);
            assert!(check(&bytes).is_err());
        }
    }

    #[test]
    fn no_name_is_longer_than_a_short_string() {
        let mut table = FieldTable::new();
        table.insert("é".repeat(200).as_str(), true);
        let read = FieldTable::parse(&table.to_bytes()).expect("valid");
        assert_eq!(read, table);
        let name = &"é".repeat(200).into_bytes()[..255];
        assert_eq!(read.get_octets(name), Some(&FieldValue::Bool(true)));
    }

    #[test]
    fn the_unsigned_looking_letter_is_signed() {
        let mut bytes = vec![1, b'k', b'L'];
        bytes.extend((-5i64).to_be_bytes());
        let table = FieldTable::parse(&bytes).expect("valid");
        assert_eq!(table.get("k"), Some(&FieldValue::I64(-5)));
    }
}
