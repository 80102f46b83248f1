//! Files of a data folder, made of an input by the document of their format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use leveret::broker::message::Message;

use super::octets::Octets;

/// A file may be made so long, without anything in it.
const HOLE_OCTETS: u64 = 1 << 40;

const SALT: (u32, u32) = (0x1234_5678, 0x9ABC_DEF0);
const KEY: (u32, u32) = (0x0F1E_2D3C, 0x4B5A_6978);

/// Segments, and messages in one frame, at most.
const SEGMENTS_MAX: usize = 8;

fn crc(begin: u32, octets: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(begin);
    hasher.update(octets);
    hasher.finalize()
}

fn long(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u32).to_be_bytes()[..], octets].concat()
}

/// A copy of a message.
#[derive(Clone, Copy)]
struct Published {
    id: u64,
    queue: u64,
    body_len: u32,
    transient: bool,
}

#[derive(Default)]
struct Segment {
    octets: Vec<u8>,
    last_frame: u32,
    first_id: u64,
    next_id: u64,
    published: Vec<Published>,
    settles: Vec<(u64, u64)>,
    definitions_to: u64,
    sealed: bool,
}

/// See the module.
pub(super) struct Files {
    salted: bool,
    segments: Vec<Segment>,
    /// Others by their names.
    others: BTreeMap<String, Vec<u8>>,
    /// How long files are made.
    lengths: Vec<(String, u64)>,
    watermark: u64,
    next_id: u64,
    settled: BTreeSet<(u64, u64)>,
    /// What definitions there are, by kind and key.
    pub(super) definitions: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    changed: bool,
    /// A frame checks and has anything in it.
    made_up: bool,
}

impl Files {
    pub(super) fn of(input: &mut Octets<'_>) -> Files {
        let mode = input.octet();
        let mut files = Files {
            salted: mode & 1 == 0,
            segments: vec![Segment {
                first_id: 1,
                next_id: 1,
                ..Segment::default()
            }],
            others: BTreeMap::new(),
            lengths: Vec::new(),
            watermark: 0,
            next_id: 1,
            settled: BTreeSet::new(),
            definitions: BTreeMap::new(),
            changed: false,
            made_up: false,
        };
        files.others.insert(
            "version".into(),
            match mode >> 1 & 3 {
                // Without salt it is of the first version.
                0 | 3 if files.salted => b"3\n".to_vec(),
                1 if files.salted => b"2\n".to_vec(),
                _ => b"1\n".to_vec(),
            },
        );
        if files.salted && mode & 8 == 0 {
            let mut salt = vec![1];
            salt.extend([SALT.0, SALT.1, 1].into_iter().flat_map(u32::to_be_bytes));
            files.put("log/salt", &salt);
        }
        if mode & 16 == 0 {
            files.journal(input);
        }
        while !input.is_empty() {
            files.step(input);
        }
        files
    }

    /// Whether anything was done that the format does not provide for.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    pub(super) fn has_journal(&self) -> bool {
        self.others.contains_key("definitions.journal")
    }

    pub(super) fn has_index(&self) -> bool {
        self.others.keys().any(|name| name.ends_with(".index"))
    }

    /// Whether a frame checks that no log would have written.
    pub(super) fn made_up(&self) -> bool {
        self.made_up
    }

    /// Whether a message is one that these files are made of, whatever was done to them.
    pub(super) fn may_hold(&self, message: &Message) -> bool {
        let ours = message.routing_key().as_bytes() == b"ours";
        let made = message.exchange().as_bytes() == b"x"
            && message.routing_key().as_bytes() == b"rk"
            && message.body().iter().all(|octet| *octet == b'b');
        self.made_up || ours || made
    }

    /// Copies that a start finds.
    pub(super) fn copies(&self) -> BTreeSet<(u64, u64)> {
        let all = self.segments.iter().flat_map(|s| &s.published);
        let kept = all.filter(|p| !p.transient).map(|p| (p.queue, p.id));
        kept.filter(|copy| !self.settled.contains(copy)).collect()
    }

    pub(super) fn write(&self, dir: &Path) {
        fs::create_dir(dir.join("log")).expect("a folder");
        for (n, segment) in self.segments.iter().enumerate() {
            fs::write(dir.join(name(n, "segment")), &segment.octets).expect("a file");
        }
        for (name, octets) in &self.others {
            fs::write(dir.join(name), octets).expect("a file");
        }
        for (name, len) in &self.lengths {
            let file = fs::OpenOptions::new().write(true).open(dir.join(name));
            if let Ok(file) = file {
                file.set_len(*len).expect("a hole");
            }
        }
    }

    /// A file that begins with the checksum of the rest.
    fn put(&mut self, name: &str, rest: &[u8]) {
        let octets = [&crc(0, rest).to_be_bytes()[..], rest].concat();
        self.others.insert(name.into(), octets);
    }

    fn position(&self) -> u64 {
        let last = self.segments.last().expect("one at least");
        (self.segments.len() as u64) << 32 | last.octets.len() as u64
    }

    fn current(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("one at least")
    }

    fn step(&mut self, input: &mut Octets<'_>) {
        match input.octet() % 20 {
            0 | 1 => {
                let n = 1 + usize::from(input.octet_below(6));
                self.messages(input, n, 0);
            }
            2 => self.settles(input, false),
            3 => self.settles(input, true),
            4 => self.definition(input),
            5 => self.seal(),
            6 => {
                // All before it was durable.
                self.watermark = self.position();
                self.frame(&[1, 0, 0, 0, 0], 0);
            }
            7 => self.clean_stop(input),
            8 => self.several(input),
            9 => self.note(input),
            10 => self.index(input, false),
            _ if self.segments.len() == 1 && self.current().octets.is_empty() => {}
            change => {
                self.changed = true;
                self.change(change, input);
            }
        }
    }

    /// Appends a frame with these records.
    fn frame(&mut self, records: &[u8], n_messages: u32) {
        let (number, salted, watermark) = (self.segments.len() as u32, self.salted, self.watermark);
        let first_id = self.next_id;
        self.next_id += u64::from(n_messages);
        let next_id = self.next_id;
        let segment = self.current();
        if segment.octets.is_empty() {
            segment.first_id = first_id;
        }
        segment.next_id = next_id;
        let offset = segment.octets.len() as u32;
        let frame = frame(
            number,
            salted,
            offset,
            (watermark, first_id, n_messages),
            records,
        );
        segment.last_frame = offset;
        segment.octets.extend(frame);
    }

    fn messages(&mut self, input: &mut Octets<'_>, n: usize, followed_by: u32) {
        let mut records = Vec::new();
        if followed_by > 0 {
            records.push(7);
            records.extend(followed_by.to_be_bytes());
        }
        for i in 0..n {
            let id = self.next_id + i as u64;
            let transient = input.octet_below(16) == 15;
            let mut queues: BTreeSet<u64> = BTreeSet::new();
            for _ in 0..=input.octet_below(3) {
                queues.insert(1 + u64::from(input.octet_below(4)));
            }
            let body_len = u32::from(input.octet());
            records.extend([4, u8::from(transient)]);
            records.extend((queues.len() as u32).to_be_bytes());
            for queue in queues {
                records.extend(queue.to_be_bytes());
                records.extend(0u64.to_be_bytes());
                records.extend([0, 0, 0]);
                let copy = Published {
                    id,
                    queue,
                    body_len,
                    transient,
                };
                self.current().published.push(copy);
            }
            records.extend([0, 1, 2, 0, 0, 0, 2]);
            records.extend(body_len.to_be_bytes());
            records.extend(b"xrk\0\0");
            records.extend(vec![b'b'; body_len as usize]);
        }
        self.frame(&records, n as u32);
    }

    /// Some copy that was published before and is not done with.
    fn some_copy(&self, input: &mut Octets<'_>) -> Option<(u64, u64)> {
        let copies: Vec<_> = self.copies().into_iter().collect();
        copies
            .get(usize::from(input.short()) % copies.len().max(1))
            .copied()
    }

    fn settles(&mut self, input: &mut Octets<'_>, ranges: bool) {
        let mut list = Vec::new();
        for _ in 0..=input.octet_below(5) {
            let Some((queue, id)) = self.some_copy(input) else {
                break;
            };
            self.settled.insert((queue, id));
            self.current().settles.push((queue, id));
            list.extend([queue, id].into_iter().flat_map(u64::to_be_bytes));
            if ranges {
                list.extend(id.to_be_bytes());
            }
        }
        let n = list.len() / if ranges { 24 } else { 16 };
        let mut records = vec![1 + u8::from(ranges)];
        records.extend((n as u32).to_be_bytes());
        records.extend(list);
        self.frame(&records, 0);
    }

    /// A change of a definition, and its octets.
    fn change_of_definition(&mut self, input: &mut Octets<'_>) -> Vec<u8> {
        let (kind, key) = (1 + input.octet_below(13), vec![input.octet_below(4)]);
        let mut octets = vec![kind];
        octets.extend(long(&key));
        match input.octet() {
            0 => {
                octets.push(0);
                self.definitions.remove(&(kind, key));
            }
            n => {
                let value = vec![n; usize::from(n) % 40];
                octets.push(1);
                octets.extend(long(&value));
                self.definitions.insert((kind, key), value);
            }
        }
        octets
    }

    fn definition(&mut self, input: &mut Octets<'_>) {
        let records = [vec![3], self.change_of_definition(input)].concat();
        self.frame(&records, 0);
        let position = self.position();
        self.current().definitions_to = position;
    }

    fn seal(&mut self) {
        if self.segments.len() == SEGMENTS_MAX || self.current().octets.is_empty() {
            return;
        }
        self.frame(&[6], 0);
        self.current().sealed = true;
        // Another one is begun when all of it is durable.
        self.watermark = self.position();
        let (first_id, next_id) = (self.next_id, self.next_id);
        self.segments.push(Segment {
            first_id,
            next_id,
            ..Segment::default()
        });
    }

    fn clean_stop(&mut self, input: &mut Octets<'_>) {
        let copy = self.some_copy(input);
        let mut records = vec![5];
        records.extend(u32::from(copy.is_some()).to_be_bytes());
        if let Some((queue, id)) = copy {
            records.extend([queue, id].into_iter().flat_map(u64::to_be_bytes));
        }
        self.frame(&records, 0);
        // The next life begins a segment.
        self.seal();
    }

    /// An append of several frames.
    fn several(&mut self, input: &mut Octets<'_>) {
        let n = 1 + u32::from(input.octet_below(3));
        for left in (0..=n).rev() {
            self.messages(input, 1, left);
        }
    }

    /// Notes of what is settled in a segment.
    fn note(&mut self, input: &mut Octets<'_>) {
        let n = usize::from(input.octet()) % self.segments.len();
        if self.others.contains_key(&name(n, "settled")) {
            // Another one would have to say that, too.
            return;
        }
        let segment = &self.segments[n];
        let ids = (segment.next_id - segment.first_id) as usize;
        let mut out = segment.first_id.to_be_bytes().to_vec();
        let words: Vec<u64> = (0..ids.div_ceil(64))
            // Of those that there are.
            .map(|word| {
                u64::from(input.long()) & u64::MAX >> 64usize.saturating_sub(ids - word * 64)
            })
            .collect();
        out.extend((words.len() as u32).to_be_bytes());
        out.extend(words.iter().copied().flat_map(u64::to_be_bytes));
        let mut settled = Vec::new();
        for copy in &segment.published {
            let at = copy.id - segment.first_id;
            if words[at as usize / 64] >> (at % 64) & 1 == 1 {
                settled.push((copy.queue, copy.id));
            }
        }
        let shared = segment.published.get(usize::from(input.octet()));
        if let Some(copy) = shared {
            out.extend(
                [copy.queue, copy.id, 1]
                    .into_iter()
                    .flat_map(u64::to_be_bytes),
            );
            settled.push((copy.queue, copy.id));
        }
        self.settled.extend(settled);
        self.put(&name(n, "settled"), &out);
    }

    /// The index of a sealed segment; `wrong` in one octet, which its checksum does not tell.
    fn index(&mut self, input: &mut Octets<'_>, wrong: bool) {
        let n = usize::from(input.octet()) % self.segments.len();
        let s = &self.segments[n];
        if !s.sealed {
            return;
        }
        let mut out = vec![1];
        let numbers = [n as u32 + 1, s.octets.len() as u32, s.last_frame];
        out.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
        let positions = [s.first_id, s.next_id, s.definitions_to];
        out.extend(positions.into_iter().flat_map(u64::to_be_bytes));
        out.push(1);
        out.extend(0u32.to_be_bytes());
        let mut copies: Vec<_> = s.published.iter().filter(|p| !p.transient).collect();
        copies.sort_by_key(|p| (p.id, p.queue));
        out.extend((copies.len() as u32).to_be_bytes());
        for p in copies {
            out.extend(p.queue.to_be_bytes());
            out.extend([0; 11]);
            out.extend(p.id.to_be_bytes());
            out.extend([1, p.body_len].into_iter().flat_map(u32::to_be_bytes));
        }
        out.extend((s.settles.len() as u32).to_be_bytes());
        for (queue, id) in &s.settles {
            out.extend([*queue, *id, *id].into_iter().flat_map(u64::to_be_bytes));
        }
        if wrong {
            let at = usize::from(input.short()) % out.len();
            out[at] ^= input.octet();
        }
        self.put(&name(n, "index"), &out);
    }

    /// A journal, which is there before the log is written.
    fn journal(&mut self, input: &mut Octets<'_>) {
        let mut rest = vec![2];
        rest.extend([KEY.0, KEY.1].into_iter().flat_map(u32::to_be_bytes));
        let mut out = 0x4c56_4a48u32.to_be_bytes().to_vec();
        out.extend(crc(0, &rest).to_be_bytes());
        out.extend(rest);
        for _ in 0..=input.octet_below(3) {
            let mut payload = [0u64, 1]
                .into_iter()
                .flat_map(u64::to_be_bytes)
                .collect::<Vec<_>>();
            for _ in 0..input.octet_below(4) {
                payload.extend(self.change_of_definition(input));
            }
            out.extend((0x4c56_4a52u32 ^ KEY.0).to_be_bytes());
            out.extend(crc(KEY.1, &payload).to_be_bytes());
            out.extend(long(&payload));
        }
        self.others.insert("definitions.journal".into(), out);
    }

    /// What nobody who keeps to the format does.
    fn change(&mut self, what: u8, input: &mut Octets<'_>) {
        match what {
            // A frame that checks, with anything in it.
            11 | 12 => {
                self.made_up = true;
                let (number, salted) = (self.segments.len() as u32, self.salted);
                let first_id = match input.octet() {
                    0..=199 => self.next_id,
                    // No log comes near this.
                    255 => u64::MAX - u64::from(input.short()),
                    n => (self.next_id + (u64::from(n) << 10)).wrapping_sub(input.short().into()),
                };
                let watermark = self.watermark.wrapping_add(u64::from(input.short()) << 24);
                let n_messages = u32::from(input.octet_below(4));
                let n = usize::from(input.octet());
                let records = [&[1 + input.octet_below(9)], input.take(n)].concat();
                let segment = self.current();
                let offset = segment.octets.len() as u32;
                let head = (watermark, first_id, n_messages);
                segment
                    .octets
                    .extend(frame(number, salted, offset, head, &records));
            }
            13 => self.index(input, true),
            14 => {
                let (n, len) = (
                    usize::from(input.octet()) % self.segments.len(),
                    input.octet(),
                );
                let octets = input.take(usize::from(len)).to_vec();
                let kind = input.one(&["settled", "index"]);
                self.put(&name(n, kind), &octets);
            }
            15 => {
                let n = usize::from(input.octet());
                let octets = input.take(n).to_vec();
                let which = input.one(&[
                    "definitions.journal",
                    "version",
                    "log/salt",
                    "log/0000000003.segment.tmp",
                    "reserve",
                    "log/2147483647.segment",
                ]);
                self.others.insert(which.into(), octets);
            }
            16 => {
                let which = self.some_name(input);
                let len = u64::from(input.long()) << (input.octet() & 15);
                self.lengths.push((which, len.min(HOLE_OCTETS)));
            }
            // Octets of any file.
            17 => {
                let n = usize::from(input.octet()) % self.segments.len();
                let at = usize::from(input.short());
                let octets = &mut self.segments[n].octets;
                octets.truncate(at % (octets.len() + 1));
            }
            _ => {
                let which = self.some_name(input);
                let (at, flipped) = (usize::from(input.short()), input.octet());
                let others = self
                    .others
                    .iter_mut()
                    .map(|(name, octets)| (name.clone(), octets));
                let segments = self.segments.iter_mut().enumerate();
                let segments = segments.map(|(n, s)| (name(n, "segment"), &mut s.octets));
                let mut all = others.chain(segments);
                if let Some((_, octets)) = all.find(|(name, o)| *name == which && !o.is_empty()) {
                    let at = at % octets.len();
                    octets[at] ^= flipped;
                }
            }
        }
    }

    fn some_name(&self, input: &mut Octets<'_>) -> String {
        let segments = (0..self.segments.len()).map(|n| name(n, "segment"));
        let all: Vec<_> = self.others.keys().cloned().chain(segments).collect();
        all[usize::from(input.octet()) % all.len()].clone()
    }
}

fn name(n: usize, kind: &str) -> String {
    format!("log/{:010}.{kind}", n + 1)
}

/// A frame as the document says: `head` is watermark, first id, number of messages.
fn frame(number: u32, salted: bool, offset: u32, head: (u64, u64, u32), records: &[u8]) -> Vec<u8> {
    let (mark, begin) = if salted { SALT } else { (0, 0) };
    let mut all = Vec::new();
    if salted && offset == 0 {
        all.push(8);
        all.extend([mark, begin].into_iter().flat_map(u32::to_be_bytes));
    }
    all.extend(records);
    let mut covered = Vec::new();
    covered.extend((number ^ mark).to_be_bytes());
    covered.extend(offset.to_be_bytes());
    covered.extend(head.0.to_be_bytes());
    covered.extend(head.1.to_be_bytes());
    covered.extend(head.2.to_be_bytes());
    covered.extend(&all);
    let mut out = (all.len() as u32).to_be_bytes().to_vec();
    out.extend(crc(begin, &covered).to_be_bytes());
    out.extend(covered);
    out
}
