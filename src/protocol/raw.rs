//! Tables in octets: fields are passed over, not built, and what is changed is put together of what
//! was there and what is new.
//!
//! For headers that are long and passed on: to change one of them costs a copy, whatever the others hold.

use std::ops::Range;

use super::field_table::{FieldValue, NESTING_OURS, TableRef, skip};
use super::short::ShortBytes;
use super::wire::Reader;

/// A value as it stands in a table: its type and its octets.
#[derive(Clone, Copy, Debug)]
pub struct ValueRef<'a>(&'a [u8]);

impl<'a> ValueRef<'a> {
    /// What has a length of its own and this type.
    fn of_type(self, kind: u8) -> Option<&'a [u8]> {
        let mut r = Reader::new(self.0);
        (r.octet().ok()? == kind).then_some(())?;
        r.long_str().ok()
    }

    /// Builds it.
    pub fn read(self) -> Option<FieldValue> {
        FieldValue::read(&mut Reader::new(self.0), 0, NESTING_OURS).ok()
    }

    /// The octets of a long string.
    pub fn as_octets(self) -> Option<&'a [u8]> {
        self.of_type(b'S')
    }

    /// A table.
    pub fn as_table(self) -> Option<TableRef<'a>> {
        self.of_type(b'F').map(TableRef::unchecked)
    }

    /// The values of an array.
    pub fn as_array(self) -> Option<Items<'a>> {
        self.of_type(b'A').map(Items)
    }
}

/// A field as it stands in a table.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: ShortBytes<'a>,
    /// Its value.
    pub value: ValueRef<'a>,
    /// All of it.
    pub octets: &'a [u8],
}

/// The fields of a table in order, as far as they can be read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let mut r = Reader::new(self.0);
        let name = r.short_bytes().ok()?;
        let value = r.rest();
        skip(&mut r).ok()?;
        let left = r.rest();
        let value = ValueRef(value.get(..value.len() - left.len())?);
        let octets = self.0.get(..self.0.len() - left.len())?;
        self.0 = left;
        Some(Field {
            name,
            value,
            octets,
        })
    }
}

/// The values of an array in order, as far as they can be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// Those that are left, as they stand there.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<ValueRef<'a>> {
        let mut r = Reader::new(self.0);
        skip(&mut r).ok()?;
        let item = self.0.get(..self.0.len() - r.rest().len())?;
        self.0 = r.rest();
        Some(ValueRef(item))
    }
}

#[derive(Debug)]
enum Piece<'a> {
    Kept(&'a [u8]),
    /// Of [`Splice::made`].
    Made(Range<usize>),
}

/// Octets put together of what was there and what is new. They are copied once, when they are written.
#[derive(Debug, Default)]
pub struct Splice<'a> {
    pieces: Vec<Piece<'a>>,
    made: Vec<u8>,
    len: usize,
}

/// A length that is not known yet; see [`Splice::open`].
#[derive(Debug)]
#[must_use]
pub struct Open {
    at: usize,
    len: usize,
}

impl<'a> Splice<'a> {
    /// Nothing.
    pub fn new() -> Splice<'a> {
        Splice::default()
    }

    /// Octets of it all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes it.
    pub fn put(&self, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            out.extend_from_slice(match piece {
                Piece::Kept(octets) => octets,
                Piece::Made(range) => self.made.get(range.clone()).unwrap_or_default(),
            });
        }
    }

    /// Goes on with these, which were there.
    pub fn keep(&mut self, octets: &'a [u8]) {
        if !octets.is_empty() {
            self.len += octets.len();
            self.pieces.push(Piece::Kept(octets));
        }
    }

    /// Goes on with these.
    pub fn octets(&mut self, octets: &[u8]) {
        let from = self.made.len();
        self.made.extend_from_slice(octets);
        self.len += octets.len();
        match self.pieces.last_mut() {
            Some(Piece::Made(last)) if last.end == from => last.end = self.made.len(),
            _ => self.pieces.push(Piece::Made(from..self.made.len())),
        }
    }

    /// Goes on with a 32-bit length of what comes until [`Self::close`].
    pub fn open(&mut self) -> Open {
        let at = self.made.len();
        self.octets(&[0; 4]);
        Open { at, len: self.len }
    }

    /// Here ends what [`Self::open`] began.
    pub fn close(&mut self, open: &Open) {
        let len = (self.len - open.len) as u32;
        if let Some(place) = self.made.get_mut(open.at..open.at + 4) {
            place.copy_from_slice(&len.to_be_bytes());
        }
    }

    /// The name and the type of a field; its value comes next.
    pub fn name<'n>(&mut self, name: impl Into<ShortBytes<'n>>, kind: u8) {
        let name = name.into();
        self.octets(&[name.len_octet()]);
        self.octets(name.as_bytes());
        self.octets(&[kind]);
    }

    /// A field with a long string.
    pub fn text<'n>(&mut self, name: impl Into<ShortBytes<'n>>, value: &[u8]) {
        self.name(name, b'S');
        self.long(value);
    }

    /// A field with an integer of 64 bits.
    pub fn integer<'n>(&mut self, name: impl Into<ShortBytes<'n>>, value: i64) {
        self.name(name, b'l');
        self.octets(&value.to_be_bytes());
    }

    /// Octets with their 32-bit length.
    pub fn long(&mut self, octets: &[u8]) {
        self.octets(&(octets.len() as u32).to_be_bytes());
        self.octets(octets);
    }
}

/// Fields that stay as they are, up to one that changes.
#[derive(Debug)]
pub struct Run<'a> {
    octets: &'a [u8],
    len: usize,
}

impl<'a> Run<'a> {
    /// Begins with the first field of this table.
    pub fn of(table: TableRef<'a>) -> Run<'a> {
        Run {
            octets: table.as_bytes(),
            len: 0,
        }
    }

    /// The next field, of so many octets, stays as it is.
    pub fn go_on(&mut self, n: usize) {
        self.len += n;
    }

    /// Writes those that stay, and begins again behind the next field, of so many octets.
    pub fn end(&mut self, out: &mut Splice<'a>, n: usize) {
        let (run, rest) = self.octets.split_at_checked(self.len).unwrap_or_default();
        out.keep(run);
        self.octets = rest.get(n..).unwrap_or_default();
        self.len = 0;
    }
}

impl<'a> TableRef<'a> {
    /// The fields as they stand there.
    pub fn fields(&self) -> Fields<'a> {
        Fields(self.as_bytes())
    }
}
