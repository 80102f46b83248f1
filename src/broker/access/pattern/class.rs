//! Sets of octets in a pattern, and the escapes that stand for one or for one of several.

use std::fmt;

use super::Perl;

/// Some of the 256 octets.
#[derive(Clone, Copy)]
pub(super) struct Set {
    holds: [bool; 256],
    /// Whatever is not in it. Kept apart, as an option may make its letters stand for both cases.
    negated: bool,
}

impl Set {
    fn of(is_in: impl Fn(u8) -> bool) -> Set {
        let mut holds = [false; 256];
        for octet in 0..=u8::MAX {
            holds[usize::from(octet)] = is_in(octet);
        }
        Set {
            holds,
            negated: false,
        }
    }

    fn add(&mut self, other: &Set) {
        for (mine, theirs) in self.holds.iter_mut().zip(other.holds) {
            *mine |= theirs;
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = !self.holds.contains(&true);
        // An empty class cannot be written, but the opposite of all can.
        match (none, self.negated) {
            (true, false) => return f.write_str(r"[^\x00-\xff]"),
            (true, true) => return f.write_str(r"[\x00-\xff]"),
            (false, _) => {}
        }
        f.write_str(if self.negated { "[^" } else { "[" })?;
        let mut from = 0;
        while let Some(start) = (from..256).find(|n| self.holds[*n]) {
            let end = (start..256).find(|n| !self.holds[*n]).unwrap_or(256);
            write!(f, "\\x{start:02x}-\\x{:02x}", end - 1)?;
            from = end;
        }
        f.write_str("]")
    }
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | 0x09..=0x0d)
}

fn is_blank(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | 0xa0)
}

fn is_vertical(c: u8) -> bool {
    matches!(c, 0x0a..=0x0d | 0x85)
}

/// The set that `\` and this stand for, if it is one.
pub(super) fn escaped(perl: &mut Perl<'_>, c: u8) -> Result<Option<Set>, String> {
    Ok(Some(match c {
        b'd' => Set::of(|c| c.is_ascii_digit()),
        b'D' => Set::of(|c| !c.is_ascii_digit()),
        b'w' => Set::of(is_word),
        b'W' => Set::of(|c| !is_word(c)),
        b's' => Set::of(is_space),
        b'S' => Set::of(|c| !is_space(c)),
        b'h' => Set::of(is_blank),
        b'H' => Set::of(|c| !is_blank(c)),
        b'v' => Set::of(is_vertical),
        b'V' => Set::of(|c| !is_vertical(c)),
        b'N' if perl.rest.first() != Some(&b'{') => Set::of(|c| c != b'\n'),
        b'p' | b'P' => property(perl, c == b'P')?,
        _ => return Ok(None),
    }))
}

/// The octets whose characters have a property: in RabbitMQ an octet is the character of its number.
fn property(perl: &mut Perl<'_>, mut negated: bool) -> Result<Set, String> {
    const NO_NAME: &str = "'\\p' names no property";
    let mut name = match perl.next().ok_or(NO_NAME)? {
        b'{' => perl.up_to("}").ok_or(NO_NAME)?,
        _ => return Err("write '\\p{L}' for '\\pL'".into()),
    };
    if let Some(rest) = name.strip_prefix(b"^") {
        (name, negated) = (rest, !negated);
    }
    let name = std::str::from_utf8(name).unwrap_or_default();
    let proper = !name.is_empty() && name.bytes().all(is_word);
    let regex = match proper {
        true => regex::Regex::new(&format!("\\p{{{name}}}")).ok(),
        false => None,
    };
    let regex = regex.ok_or_else(|| format!("there is no property '{name}'"))?;
    let has = |c: u8| regex.is_match(char::from(c).encode_utf8(&mut [0; 4]));
    Ok(Set::of(|c| has(c) != negated))
}

/// The octet that `\` and this stand for.
pub(super) fn character(perl: &mut Perl<'_>, c: u8) -> Result<u8, String> {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        match u32::from_str_radix(digits, radix).map(u8::try_from) {
            Ok(Ok(octet)) => Ok(octet),
            _ => Err(format!("'\\{}{digits}' is no octet", char::from(c))),
        }
    };
    let octal = |c: &u8| matches!(c, b'0'..=b'7');
    match c {
        b'a' => Ok(0x07),
        b'e' => Ok(0x1b),
        b'f' => Ok(0x0c),
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b't' => Ok(b'\t'),
        b'c' => {
            let of = perl.next().filter(|c| matches!(c, b' '..=b'~'));
            let of = of.ok_or("'\\c' names no control character")?;
            Ok(of.to_ascii_uppercase() ^ 0x40)
        }
        b'x' if perl.takes("{") => number(perl.up_to("}").unwrap_or_default(), 16),
        b'x' => match perl.digits(u8::is_ascii_hexdigit, 2) {
            [] => Ok(0),
            digits => number(digits, 16),
        },
        b'o' if perl.takes("{") => number(perl.up_to("}").unwrap_or_default(), 8),
        b'0'..=b'7' => {
            let first = u32::from(c - b'0');
            let more = perl.digits(octal, 2).iter();
            let all = more.fold(first, |n, digit| n * 8 + u32::from(digit - b'0'));
            u8::try_from(all).map_err(|_| format!("'\\{all:o}' is no octet"))
        }
        _ if c.is_ascii_alphanumeric() => Err(format!("'\\{}' is not supported", char::from(c))),
        _ => Ok(c),
    }
}

/// A set in brackets, of which the first was read.
pub(super) fn bracketed(perl: &mut Perl<'_>) -> Result<Set, String> {
    const NO_END: &str = "a ']' is missing";
    let negated = perl.takes("^");
    let mut all = Set::of(|_| false);
    // The octet before, which may begin a range; a `-` behind it; and whether all is quoted.
    let (mut before, mut dash, mut quoted) = (None, false, false);
    let mut first = true;
    loop {
        let c = perl.next().ok_or(NO_END)?;
        let begins = std::mem::take(&mut first);
        let mut item = Err(c);
        if quoted {
            if c == b'\\' && perl.takes("E") {
                quoted = false;
                continue;
            }
        } else {
            match c {
                b']' if !begins => break,
                b'[' => {
                    if let Some(set) = posix(perl)? {
                        item = Ok(set);
                    }
                }
                b'-' if before.is_some() && !dash && perl.rest.first() != Some(&b']') => {
                    dash = true;
                    continue;
                }
                b'\\' => {
                    let c = perl.next().ok_or(NO_END)?;
                    match c {
                        b'Q' => {
                            quoted = true;
                            first = begins;
                            continue;
                        }
                        b'E' => {
                            first = begins;
                            continue;
                        }
                        b'b' => item = Err(0x08),
                        b'N' => return Err("'\\N' is no part of a set".into()),
                        _ => {
                            item = match escaped(perl, c)? {
                                Some(set) => Ok(set),
                                None => Err(character(perl, c)?),
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        match (item, before, std::mem::take(&mut dash)) {
            (Ok(set), _, false) => {
                all.add(&set);
                before = None;
                if perl.rest.first() == Some(&b'-') && perl.rest.get(1) != Some(&b']') {
                    return Err("a range has no beginning".into());
                }
            }
            (Err(to), Some(from), true) if from <= to => {
                all.add(&Set::of(|c| (from..=to).contains(&c)));
                before = None;
            }
            (_, _, true) => return Err("a range is not in order".into()),
            (Err(octet), _, false) => {
                all.holds[usize::from(octet)] = true;
                before = Some(octet);
            }
        }
    }
    all.negated = negated;
    Ok(all)
}

/// A set with a name behind `[`, as in `[:alpha:]`; `None`: it is a bracket.
fn posix(perl: &mut Perl<'_>) -> Result<Option<Set>, String> {
    let rest = perl.rest;
    let name = match perl.takes(":") {
        true => perl.up_to(":]"),
        false => None,
    };
    let word = |name: &&[u8]| {
        let name = name.strip_prefix(b"^").unwrap_or(name);
        name.iter().all(u8::is_ascii_lowercase)
    };
    let Some(name) = name.filter(word) else {
        perl.rest = rest;
        return Ok(None);
    };
    let (negated, name) = match name.strip_prefix(b"^") {
        Some(name) => (true, name),
        None => (false, name),
    };
    let is_in: fn(&u8) -> bool = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"ascii" => u8::is_ascii,
        b"blank" => |c| matches!(c, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |c| matches!(c, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |c| is_space(*c),
        b"upper" => u8::is_ascii_uppercase,
        b"word" => |c| is_word(*c),
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => {
            let name = String::from_utf8_lossy(name);
            return Err(format!("there is no set '[:{name}:]'"));
        }
    };
    Ok(Some(Set::of(|c| is_in(&c) != negated)))
}
