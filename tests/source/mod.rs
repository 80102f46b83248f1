//! The source as text, for tests of what a compiler does not check.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};

/// Adds the Rust files of a folder, and of those in it.
pub fn files_in(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_in(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The files under `src`, by their path there, with their text.
pub fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    files_in(&root, &mut files);
    assert!(files.len() > 50);
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The lines of a file that are no comments, with their numbers; a `use` of several lines is one, and its
/// braces are taken apart: `use std::{fs, io};` is `std::fs` and `std::io`.
pub fn paths(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let (before, used) = line.split_at(line.find("use ").unwrap_or(line.len()));
        let is_use = ["", "pub "].contains(&before) || before.starts_with("pub(");
        if !is_use || used.is_empty() {
            out.push((number + 1, line.to_string()));
            continue;
        }
        let mut statement = used.to_string();
        while !statement.contains(';') {
            let Some((_, more)) = lines.next() else { break };
            statement += more.trim();
        }
        let tree = statement["use ".len()..].trim_end_matches(';').to_string();
        out.extend(expand(&tree).into_iter().map(|path| (number + 1, path)));
    }
    out
}

/// The paths of a tree of `use`.
pub fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.trim().to_string()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    let ends = inner.char_indices().chain([(inner.len(), ',')]);
    for (at, c) in ends {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..at].trim();
                if !part.is_empty() {
                    out.extend(expand(&format!("{}{part}", prefix.trim())));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    out
}
