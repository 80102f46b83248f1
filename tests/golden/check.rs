//! Holds what is written to the disk against the octets in the files beside this one.
//!
//! A file has sections: `[name]`, then lines with octets in hexadecimal, and behind a `|` what they mean. A line that
//! begins with `#` is a remark. What is in a section never changes: another layout is another version of the format,
//! which gets a section of its own and has to read the old one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

fn sections(text: &str) -> BTreeMap<String, Vec<u8>> {
    let mut sections = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            name = section.trim_end_matches(']').to_string();
            let before = sections.insert(name.clone(), Vec::new());
            assert!(before.is_none(), "[{name}] is there twice");
        }
        let hex = match line.starts_with('[') {
            true => "",
            false => line.split('|').next().expect("one part at least"),
        };
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        let octets = digits.chunks_exact(2).map(|d| (d[0] << 4 | d[1]) as u8);
        sections.entry(name.clone()).or_default().extend(octets);
    }
    sections.remove("");
    sections
}

fn hex(octets: &[u8]) -> String {
    let mut out = String::new();
    for (at, octet) in octets.iter().enumerate() {
        let between = match at % 32 {
            0 => "\n",
            n if n % 4 == 0 => " ",
            _ => "",
        };
        let _ = write!(out, "{between}{octet:02x}");
    }
    out
}

/// Each of these is a section of `file`, and the file has no others.
pub(crate) fn check(file: &str, made: &[(&str, Vec<u8>)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = std::fs::read_to_string(path.join(file)).expect("a file of octets");
    let golden = sections(&text);
    let mut wrong = String::new();
    for (name, made) in made {
        let golden = golden.get(*name).map_or(&[][..], Vec::as_slice);
        if golden != made {
            let (golden, made) = (hex(golden), hex(made));
            let _ = write!(
                wrong,
                "\n[{name}] is there as{golden}\nand written as{made}\n"
            );
        }
    }
    assert!(wrong.is_empty(), "tests/golden/{file}:\n{wrong}");
    let made: Vec<_> = made.iter().map(|(name, _)| name.to_string()).collect();
    let others: Vec<_> = golden.keys().filter(|name| !made.contains(name)).collect();
    assert!(others.is_empty(), "nothing is held against {others:?}");
}
