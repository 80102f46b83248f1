//! Patterns of permissions: Perl's regular expressions over octets, as RabbitMQ has them.
//!
//! A pattern is read as PCRE reads it and written anew in what `regex` understands, as the two take some
//! of the same characters for something else (`[a&&b]`, `\<`, a `{` that is none of a repetition). What only
//! backtracking can do (looking around, back-references, atomic groups) goes to `fancy-regex`. What neither
//! can do is refused by name.

mod class;

use regex::bytes::{Regex, RegexBuilder};

/// Steps back that a match may take; a pattern that needs more of them does not match.
const BACKTRACK_MAX: usize = 100_000;

/// Bytes of a compiled pattern.
const PROGRAM_MAX: usize = 10 << 20;

/// Largest count of a repetition.
const REPEAT_MAX: u32 = 65_535;

/// Why a pattern is none, or none that this version has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PatternError(String);

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Matches everything, without asking.
    All,
    Linear(Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Pattern, PatternError> {
        match text {
            ".*" | "^.*" => return Ok(Pattern::All),
            "" => return Pattern::new("^$"),
            _ => {}
        }
        let refused = |why: String| PatternError(format!("pattern '{text}': {why}"));
        let mut perl = Perl::new(text);
        perl.translate().map_err(&refused)?;
        // The engines show the pattern that they were given, over several lines.
        let last_line = |e: String| {
            let line = e.lines().next_back().unwrap_or_default();
            refused(line.trim().trim_start_matches("error: ").to_string())
        };
        if !perl.backtracks {
            let regex = RegexBuilder::new(&perl.out)
                .unicode(false)
                .size_limit(PROGRAM_MAX)
                .build();
            return regex
                .map(Pattern::Linear)
                .map_err(|e| last_line(e.to_string()));
        }
        let regex = fancy_regex::RegexBuilder::new(&perl.out)
            .bytes_mode(fancy_regex::BytesMode::Ascii)
            .backtrack_limit(BACKTRACK_MAX)
            .delegate_size_limit(PROGRAM_MAX)
            .build();
        let regex = regex.map_err(|e| last_line(e.to_string()))?;
        Ok(Pattern::Backtracking(Box::new(regex)))
    }

    pub(super) fn is_match(&self, name: &[u8]) -> bool {
        match self {
            Pattern::All => true,
            Pattern::Linear(regex) => regex.is_match(name),
            // As in RabbitMQ, what cannot be decided within the limit is no match.
            Pattern::Backtracking(regex) => regex.is_match(name).unwrap_or(false),
        }
    }
}

/// What the options in force mean for the reading of the pattern.
#[derive(Clone, Copy, Default)]
struct Options {
    /// `m`: `$` is the end of a line.
    lines: bool,
    /// `x`: white space and comments are left out.
    spaced: bool,
}

/// Reads a pattern of Perl's and writes it anew.
struct Perl<'a> {
    rest: &'a [u8],
    out: String,
    options: Options,
    /// The options outside of each group that is open.
    outside: Vec<Options>,
    captures: u32,
    /// What was read last can be repeated.
    repeatable: bool,
    backtracks: bool,
}

type Step = Result<(), String>;

impl<'a> Perl<'a> {
    fn new(text: &'a str) -> Perl<'a> {
        Perl {
            rest: text.as_bytes(),
            out: String::new(),
            options: Options::default(),
            outside: Vec::new(),
            captures: 0,
            repeatable: false,
            backtracks: false,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn takes(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix.as_bytes());
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// All up to `end`, which is taken, too.
    fn up_to(&mut self, end: &str) -> Option<&'a [u8]> {
        let rest = self.rest;
        let at = rest.windows(end.len()).position(|w| w == end.as_bytes())?;
        self.rest = &rest[at + end.len()..];
        Some(&rest[..at])
    }

    fn translate(&mut self) -> Step {
        while let Some(c) = self.next() {
            match c {
                b'\\' => self.escape()?,
                b'[' => {
                    let set = class::bracketed(self)?;
                    self.atom(&set.to_string());
                }
                b'(' => self.open()?,
                b')' => {
                    self.options = self.outside.pop().ok_or("there is a ')' too many")?;
                    self.atom(")");
                }
                b'|' => self.no_atom("|"),
                b'^' => self.no_atom("^"),
                b'$' if self.options.lines => self.no_atom("$"),
                b'$' => self.end(),
                b'.' => self.atom("."),
                b'*' | b'+' | b'?' => self.repeat(char::from(c).encode_utf8(&mut [0; 4]))?,
                b'{' => match self.counts()? {
                    Some(counts) => self.repeat(&counts)?,
                    None => self.literal(b'{'),
                },
                b'#' if self.options.spaced => {
                    self.rest = self.up_to("\n").map_or(&[], |_| self.rest);
                }
                _ if self.options.spaced && c.is_ascii_whitespace() => {}
                _ => self.literal(c),
            }
        }
        match self.outside.is_empty() {
            true => Ok(()),
            false => Err("a ')' is missing".into()),
        }
    }

    fn atom(&mut self, text: &str) {
        self.out += text;
        self.repeatable = true;
    }

    fn no_atom(&mut self, text: &str) {
        self.out += text;
        self.repeatable = false;
    }

    fn literal(&mut self, octet: u8) {
        if octet.is_ascii_alphanumeric() || octet == b'_' {
            self.atom(char::from(octet).encode_utf8(&mut [0; 4]));
        } else {
            self.atom(&format!("\\x{octet:02x}"));
        }
    }

    /// The end, or what is before a newline there.
    fn end(&mut self) {
        self.no_atom(r"(?:\x0a?\z)");
    }

    fn repeat(&mut self, how: &str) -> Step {
        if !self.repeatable {
            return Err(format!("there is nothing that '{how}' could repeat"));
        }
        self.no_atom(how);
        if self.takes("+") {
            self.out.push('+');
            self.backtracks = true;
        } else if self.takes("?") {
            self.out.push('?');
        }
        Ok(())
    }

    /// The counts behind a `{`; `None`: it is a brace.
    fn counts(&mut self) -> Result<Option<String>, String> {
        let rest = self.rest;
        let Some(inside) = self.up_to("}") else {
            return Ok(None);
        };
        let trimmed = |part: &[u8]| {
            let part = part.trim_ascii();
            let digits = part.iter().all(u8::is_ascii_digit);
            digits.then(|| String::from_utf8_lossy(part).into_owned())
        };
        let mut parts = inside.splitn(2, |c| *c == b',');
        let least = parts.next().and_then(trimmed);
        let most = parts.next().map(trimmed);
        let counts = match (least, most) {
            (Some(n), None) if !n.is_empty() => format!("{{{n}}}"),
            (Some(n), Some(Some(m))) if !(n.is_empty() && m.is_empty()) => {
                format!("{{{},{m}}}", if n.is_empty() { "0" } else { &n })
            }
            _ => {
                self.rest = rest;
                return Ok(None);
            }
        };
        let too_many = |n: &str| !n.is_empty() && n.parse::<u32>().is_ok_and(|n| n > REPEAT_MAX);
        let numbers = counts.split(['{', ',', '}']);
        match numbers.clone().any(|n| n.len() > 5 || too_many(n)) {
            true => Err(format!("'{counts}' repeats more than {REPEAT_MAX} times")),
            false => Ok(Some(counts)),
        }
    }

    fn open(&mut self) -> Step {
        if self.rest.first() == Some(&b'*') {
            return Err("verbs such as '(*UTF)' are not supported".into());
        }
        if self.takes("?#") {
            self.up_to(")").ok_or("a comment has no end")?;
            return Ok(());
        }
        for around in ["?=", "?!", "?<=", "?<!", "?>"] {
            if self.takes(around) {
                self.backtracks = true;
                self.group(&format!("({around}"));
                return Ok(());
            }
        }
        if self.takes("?P=") {
            let name = self.name(")")?;
            self.back_reference(&format!("(?P={name})"));
            return Ok(());
        }
        for (named, end) in [("?<", ">"), ("?P<", ">"), ("?'", "'")] {
            if self.takes(named) {
                let name = self.name(end)?;
                self.captures += 1;
                self.group(&format!("(?P<{name}>"));
                return Ok(());
            }
        }
        if self.takes("?") {
            return self.options();
        }
        self.captures += 1;
        self.group("(");
        Ok(())
    }

    fn group(&mut self, text: &str) {
        self.outside.push(self.options);
        self.no_atom(text);
    }

    /// `i:` and its like, behind `(?`: for a group, or from here on.
    fn options(&mut self) -> Step {
        let (mut on, mut kept) = (true, String::new());
        let mut options = self.options;
        loop {
            match self.next().ok_or("a ')' is missing")? {
                b'-' if on => {
                    on = false;
                    kept.push('-');
                }
                c @ (b'i' | b's') => kept.push(char::from(c)),
                b'm' => {
                    options.lines = on;
                    kept.push('m');
                }
                b'x' => options.spaced = on,
                c @ (b':' | b')') => {
                    let kept = kept.trim_end_matches('-');
                    if c == b':' {
                        self.group(&format!("(?{kept}:"));
                    } else if !kept.is_empty() {
                        self.no_atom(&format!("(?{kept})"));
                    }
                    self.options = options;
                    return Ok(());
                }
                c => return Err(format!("'(?{}' is not supported", char::from(c))),
            }
        }
    }

    /// The name of a group.
    fn name(&mut self, end: &str) -> Result<String, String> {
        let name = self.up_to(end).unwrap_or_default();
        let word = name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
        match word && !name.is_empty() && !name[0].is_ascii_digit() {
            true => Ok(String::from_utf8_lossy(name).into_owned()),
            false => Err("a group has no proper name".into()),
        }
    }

    fn back_reference(&mut self, text: &str) {
        self.backtracks = true;
        // A digit may follow.
        self.atom(&format!("(?:{text})"));
    }

    fn escape(&mut self) -> Step {
        let c = self.next().ok_or("there is nothing behind '\\'")?;
        if let Some(set) = class::escaped(self, c)? {
            self.atom(&set.to_string());
            return Ok(());
        }
        match c {
            b'Q' => {
                let all = self.rest;
                let quoted = self.up_to("\\E").unwrap_or_else(|| {
                    self.rest = &[];
                    all
                });
                quoted.iter().for_each(|octet| self.literal(*octet));
            }
            b'E' => {}
            b'b' => self.no_atom(r"\b"),
            b'B' => self.no_atom(r"\B"),
            b'A' => self.no_atom(r"\A"),
            b'z' => self.no_atom(r"\z"),
            b'Z' => self.end(),
            b'k' => {
                let end = match self.next() {
                    Some(b'<') => ">",
                    Some(b'\'') => "'",
                    Some(b'{') => "}",
                    _ => return Err("'\\k' names no group".into()),
                };
                let name = self.name(end)?;
                self.back_reference(&format!("(?P={name})"));
            }
            b'g' => {
                let number = match self.takes("{") {
                    true => self.up_to("}").unwrap_or_default(),
                    false => self.digits(u8::is_ascii_digit, usize::MAX),
                };
                let number = std::str::from_utf8(number).unwrap_or_default();
                let number = match number.strip_prefix('-') {
                    Some(back) => back
                        .parse()
                        .ok()
                        .and_then(|n: u32| (self.captures + 1).checked_sub(n)),
                    None => number.parse().ok(),
                };
                let number = number.ok_or("'\\g' with a name is not supported")?;
                self.numbered(number)?;
            }
            b'1'..=b'9' => {
                let all = self.rest;
                let more = self.digits(u8::is_ascii_digit, 3).iter();
                let number = more.fold(u32::from(c - b'0'), |n, d| n * 10 + u32::from(d - b'0'));
                if number < 10 || number <= self.captures {
                    return self.numbered(number);
                }
                self.rest = all;
                let octet = class::character(self, c)?;
                self.literal(octet);
            }
            _ => {
                let octet = class::character(self, c)?;
                self.literal(octet);
            }
        }
        Ok(())
    }

    fn numbered(&mut self, number: u32) -> Step {
        if !(1..=self.captures).contains(&number) {
            return Err(format!("there is no group {number} before '\\{number}'"));
        }
        self.back_reference(&format!("\\{number}"));
        Ok(())
    }

    /// Up to `most` digits.
    fn digits(&mut self, digit: fn(&u8) -> bool, most: usize) -> &'a [u8] {
        let rest = self.rest;
        let n = rest.iter().take(most).take_while(|c| digit(c)).count();
        self.rest = &rest[n..];
        &rest[..n]
    }
}

#[cfg(test)]
mod tests;
