//! The modules of each layer use those below them, and never lean on each other in a circle.
//!
//! A module is a file or a folder right below a folder of `src`; what is in a folder may be entangled there.
//! What one uses is read from the paths in its text, test code left out. A `mod.rs` is a table of contents: what
//! it hands on counts as the module that it is from.

#![allow(clippy::unwrap_used, reason = "tests")]

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{expand, paths, sources};

/// Layers that are still entangled, to be taken apart.
const ENTANGLED: &[&str] = &["offline", "storage"];

/// The parts of a module's path: `["broker", "queue", "state"]`.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_string)
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The text without its tests.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {");
    let text = &text[..end.unwrap_or(text.len())];
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // What it stands before, which is one line in all of the source but for functions.
            lines.next();
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Modules that are there for tests only.
fn test_modules(files: &[(String, String)]) -> BTreeSet<Vec<String>> {
    let mut out = BTreeSet::new();
    for (file, text) in files {
        for after in text.split("#[cfg(test)]\n").skip(1) {
            let line = after.lines().next().unwrap();
            let name = line
                .split_once("mod ")
                .and_then(|(_, name)| name.strip_suffix(';'));
            if let Some(name) = name {
                let mut module = module_of(file);
                module.push(name.to_string());
                out.insert(module);
            }
        }
    }
    out
}

/// A path as it is from the top, if it is one of ours.
fn from_the_top(module: &[String], path: &str) -> Option<Vec<String>> {
    let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base = match *parts.first()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    parts.remove(0);
    while parts.first() == Some(&"super") {
        base.pop()?;
        parts.remove(0);
    }
    let name = |part: &&str| part.split(" as ").next().unwrap().to_string();
    base.extend(parts.iter().map(name));
    Some(base)
}

/// The paths that a line names.
fn named(line: &str) -> Vec<String> {
    let line = line
        .trim_start_matches("pub ")
        .trim_start_matches("use ")
        .trim();
    let mut out = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        let mut from = 0;
        while let Some(at) = line[from..].find(start) {
            let at = from + at;
            from = at + start.len();
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let end = line[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = &line[at..end.map_or(line.len(), |end| at + end)];
            out.push(path.trim_end_matches(':').to_string());
        }
    }
    out
}

/// Who uses whom in a layer; the layer itself is the module with its name.
fn uses(layer: &str, files: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let tests = test_modules(files);
    let mine: Vec<_> = files
        .iter()
        .map(|(file, text)| (module_of(file), text))
        .filter(|(module, _)| module[0] == layer)
        .filter(|(module, _)| !(1..=module.len()).any(|n| tests.contains(&module[..n])))
        .filter(|(module, _)| !module.iter().any(|part| part == "tests"))
        .collect();
    let names: BTreeSet<&str> = mine
        .iter()
        .filter_map(|(module, _)| module.get(1).map(String::as_str))
        .collect();
    // What the table of contents hands on: name -> module.
    let mut handed_on = BTreeMap::new();
    for (module, text) in &mine {
        if module.len() != 1 {
            continue;
        }
        for statement in text.split("pub use ").skip(1) {
            let statement = statement.split(';').next().unwrap();
            let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
            for path in expand(&statement) {
                let path = path.trim_start_matches("self::");
                if let Some((from, name)) = path.split_once("::") {
                    let name = name.rsplit("::").next().unwrap().to_string();
                    handed_on.insert(name, from.to_string());
                }
            }
        }
    }
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &mine {
        let user = module.get(1).map_or(layer, String::as_str);
        let used = out.entry(user.to_string()).or_default();
        for (_, line) in paths(&without_tests(text)) {
            if module.len() == 1 && line.starts_with("pub use") {
                continue;
            }
            for path in named(&line) {
                let Some(path) = from_the_top(module, &path) else {
                    continue;
                };
                let [top, name, ..] = path.as_slice() else {
                    continue;
                };
                if top != layer {
                    continue;
                }
                let target = match handed_on.get(name) {
                    _ if names.contains(name.as_str()) => name.as_str(),
                    Some(from) => from.as_str(),
                    None => layer,
                };
                if target != user {
                    used.insert(target.to_string());
                }
            }
        }
    }
    out
}

/// A circle in it, if there is one: each uses the next, and the last the first.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        at: &'a str,
        uses: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(n) = way.iter().position(|m| *m == at) {
            return Some(way[n..].iter().map(|m| m.to_string()).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = uses
            .get(at)
            .into_iter()
            .flatten()
            .find_map(|next| visit(next, uses, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    uses.keys()
        .find_map(|module| visit(module, uses, &mut Vec::new(), &mut done))
}

#[test]
fn modules_do_not_lean_on_each_other_in_a_circle() {
    let files = sources();
    let layers: BTreeSet<String> = files
        .iter()
        .map(|(file, _)| module_of(file).swap_remove(0))
        .collect();
    assert!(layers.contains("broker") && layers.contains("server"));
    let found: BTreeMap<_, _> = layers
        .iter()
        .filter_map(|layer| Some((layer.as_str(), circle(&uses(layer, &files))?)))
        .collect();
    let entangled: Vec<_> = found.keys().copied().collect();
    assert_eq!(entangled, ENTANGLED, "{found:#?}");
}

#[test]
fn a_circle_is_seen() {
    let file = |name: &str, text: &str| (name.to_string(), text.to_string());
    let contents = file("a/mod.rs", "mod x;\nmod y;\npub use self::y::Y;\n");
    let x = file("a/x.rs", "use super::{Y, z};\n");
    for (y, in_a_circle) in [
        ("use crate::b::B;\nfn y() { super::x::f() }\n", true),
        ("use crate::{\n    a::x::{self, f},\n};\n", true),
        ("use crate::b::B;\n", false),
        ("// use super::x;\n#[cfg(test)]\nuse super::x;\n", false),
        (
            "#[cfg(test)]\nmod tests {\n    use super::super::x;\n}\n",
            false,
        ),
    ] {
        let files = [contents.clone(), x.clone(), file("a/y/mod.rs", y)];
        let found = circle(&uses("a", &files));
        assert_eq!(found.is_some(), in_a_circle, "{y}: {found:?}");
    }
}
