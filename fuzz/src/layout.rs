//! A second reader of methods, by the table of the specification and nothing else.

use std::sync::OnceLock;

use super::tables;

const SPEC: &str = include_str!("../../amqp-spec/amqp0-9-1.toml");

/// A method: class, id, and the fields with their domains. Names of reserved ones begin with `_`.
pub(super) struct Layout {
    pub(super) class: u16,
    pub(super) id: u16,
    fields: Vec<(String, String)>,
}

/// Why a payload is none of a method.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Wrong {
    Unknown,
    Syntax,
    Utf8,
}

pub(super) fn all() -> &'static [Layout] {
    static ALL: OnceLock<Vec<Layout>> = OnceLock::new();
    ALL.get_or_init(|| {
        let (mut all, mut class, mut methods) = (Vec::new(), 0, false);
        for line in SPEC.lines() {
            if let Some(id) = line.strip_prefix("id = ") {
                class = id.parse().expect("a number");
            }
            methods = line.starts_with("methods = [") || methods && line != "]";
            let quoted = line.trim().trim_start_matches('"');
            let (true, Some((text, _))) = (methods, quoted.split_once(" |")) else {
                continue;
            };
            let mut words = text.split_whitespace();
            let id = words.next().expect("an id").parse().expect("a number");
            let fields = words.skip(2).map(|f| {
                let (name, domain) = f.split_once(':').expect("name:domain");
                (name.to_string(), domain.to_string())
            });
            let fields = fields.collect();
            all.push(Layout { class, id, fields });
        }
        all
    })
}

/// What the payload of a method frame says, as it is written by who has read it: reserved fields empty.
pub(super) fn canonical(payload: &[u8]) -> Result<Vec<u8>, Wrong> {
    let (ids, mut rest) = payload.split_at_checked(4).ok_or(Wrong::Syntax)?;
    let (class, id) = (
        u16::from_be_bytes([ids[0], ids[1]]),
        u16::from_be_bytes([ids[2], ids[3]]),
    );
    let layout = all().iter().find(|l| (l.class, l.id) == (class, id));
    let layout = layout.ok_or(Wrong::Unknown)?;
    let mut out = ids.to_vec();
    let mut bits = None::<(u8, u32)>;
    for (name, domain) in &layout.fields {
        let reserved = name.starts_with('_');
        if domain == "bit" {
            let (octet, at) = match bits {
                Some((octet, at)) if at < 8 => (octet, at),
                _ => {
                    out.push(0);
                    (take(&mut rest, 1)?[0], 0)
                }
            };
            if octet >> at & 1 == 1 && !reserved {
                *out.last_mut().expect("pushed") |= 1 << at;
            }
            bits = Some((octet, at + 1));
            continue;
        }
        bits = None;
        let length = match domain.as_str() {
            "shortstr" | "shortbytes" => 1,
            "longstr" | "table" => 4,
            _ => 0,
        };
        let prefix = take(&mut rest, length)?;
        let n = match domain.as_str() {
            "octet" => 1,
            "short" => 2,
            "long" => 4,
            "longlong" => 8,
            _ => prefix
                .iter()
                .fold(0, |n, octet| n << 8 | usize::from(*octet)),
        };
        let value = take(&mut rest, n)?;
        if domain == "shortstr" && std::str::from_utf8(value).is_err() {
            return Err(Wrong::Utf8);
        }
        if domain == "table" && tables::depth(value).is_none_or(|d| d > tables::NESTING_MAX) {
            return Err(Wrong::Syntax);
        }
        match reserved {
            false => out.extend([prefix, value].concat()),
            true if length > 0 => out.extend(std::iter::repeat_n(0, length)),
            true => out.extend(std::iter::repeat_n(0, n)),
        }
    }
    match rest.is_empty() {
        true => Ok(out),
        false => Err(Wrong::Syntax),
    }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], Wrong> {
    let (taken, left) = rest.split_at_checked(n).ok_or(Wrong::Syntax)?;
    *rest = left;
    Ok(taken)
}
