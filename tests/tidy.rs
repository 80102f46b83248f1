//! Rules of the source that a compiler does not check.

#![allow(clippy::unwrap_used, reason = "tests")]

mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{files_in, paths, sources};

/// Lines that a file may have.
const LINES_MAX: usize = 800;

#[test]
fn files_are_small_enough_to_hold_in_ones_head() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(name, text)| (text.lines().count(), name))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:?}");
}

/// The layers of ARCHITECTURE.md: what each module may use beside itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("clock", &[]),
    ("password", &[]),
    // Of tests only.
    ("golden", &[]),
    ("config", &["protocol"]),
    ("cli", &["config"]),
    ("logging", &["config"]),
    ("trust", &[]),
    ("perf", &["cli", "protocol", "trust"]),
    ("ping", &["config", "protocol", "trust"]),
    ("offline", &["storage"]),
    ("protocol", &[]),
    ("broker", &["golden", "protocol", "sync"]),
    ("amqp", &["protocol", "broker", "sync"]),
    ("storage", &["broker", "golden", "protocol", "sync"]),
    (
        "definitions_file",
        &["amqp", "broker", "protocol", "password"],
    ),
    (
        "server",
        &[
            "amqp",
            "broker",
            "clock",
            "config",
            "definitions_file",
            "password",
            "protocol",
            "storage",
            "sync",
        ],
    ),
];

/// The modules at the top that a line of a file names: by `crate::`, or by as many `super::` as lead there.
fn top_modules(file: &str, line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let name = |path: &str| {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
        path[..end.unwrap_or(path.len())].to_string()
    };
    found.extend(line.split("crate::").skip(1).map(name));
    let depth = file.split('/').count() - usize::from(file.ends_with("/mod.rs"));
    let mut rest = line;
    while let Some(at) = rest.find("super::") {
        let chain = &rest[at..];
        let mut after = chain;
        let mut supers = 0;
        while let Some(next) = after.strip_prefix("super::") {
            (after, supers) = (next, supers + 1);
        }
        // At the top, unless it is written in a module within the file: then the name tells.
        let used = name(after);
        if supers >= depth.max(2) && MAY_USE.iter().any(|(module, _)| *module == used) {
            found.push(used);
        }
        rest = after;
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn no_way_of_writing_a_path_is_missed() {
    let modules = |file, text: &str| -> Vec<String> {
        let lines = paths(text);
        let found = lines.iter().flat_map(|(_, line)| top_modules(file, line));
        let mut found: Vec<_> = found.collect();
        found.dedup();
        found
    };
    for (file, text) in [
        ("broker/queue/pace.rs", "use crate::server;"),
        (
            "broker/queue/pace.rs",
            "use crate::{\n    server::{self, x},\n};",
        ),
        (
            "broker/queue/pace.rs",
            "pub(crate) use super::super::super::server::x;",
        ),
        (
            "broker/queue/mod.rs",
            "    let x = super::super::server::x();",
        ),
        ("broker/vhost.rs", "use super::super::server;"),
    ] {
        assert_eq!(modules(file, text), ["server"], "{text}");
    }
    assert!(modules("broker/queue/pace.rs", "use super::super::vhost;").is_empty());
    assert!(modules("broker/vhost.rs", "// use crate::server;").is_empty());
    let std = paths("use std::{\n    fs,\n    io::{self, Read},\n};");
    let std: Vec<_> = std.into_iter().map(|(_, path)| path).collect();
    assert_eq!(std, ["std::fs", "std::io::self", "std::io::Read"]);
}

#[test]
fn modules_use_what_lies_below_them_only() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for (number, line) in paths(&text) {
            for used in top_modules(&file, &line) {
                if used != module && !may_use.contains(&used.as_str()) {
                    wrong.push(format!("src/{file}:{number}: {module} uses {used}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_does_not_wait_and_does_not_know_the_time() {
    let words = [
        "async fn",
        ".await",
        "tokio::",
        "SystemTime::now",
        "Instant::now",
        "std::net::Tcp",
        "std::fs",
    ];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if !["protocol", "broker", "amqp"]
            .iter()
            .any(|m| file.starts_with(m))
        {
            continue;
        }
        for (number, line) in paths(&text) {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("src/{file}:{number}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file is not found.
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("d", "bg!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("thread::sl", "eep"),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches"] {
        files_in(&root.join(dir), &mut files);
    }
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// All files and folders of the repository but those that tools make, by their path in it.
fn repository() -> BTreeSet<String> {
    fn walk(dir: &Path, root: &Path, into: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let made = ["target", "node_modules", "data", "corpus", "artifacts"];
            if name.starts_with('.') || made.contains(&name.as_str()) {
                continue;
            }
            into.insert(path.strip_prefix(root).unwrap().display().to_string());
            if path.is_dir() {
                walk(&path, root, into);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

/// The documents, with their text.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = repository();
    let documents = all.iter().filter(|file| file.ends_with(".md"));
    let documents: Vec<_> = documents
        .map(|file| {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            (file.clone(), text)
        })
        .collect();
    assert!(documents.len() > 20);
    documents
}

/// The names under which headings are linked to.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            heading.chars().filter(kept).collect::<String>()
        })
        .map(|heading| heading.replace(' ', "-"))
        .collect()
}

#[test]
fn links_of_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        let dir = root.join(&file).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1) {
            let link = link.split([')', ' ']).next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match path {
                "" => root.join(&file),
                path => dir.join(path),
            };
            if !to.exists() {
                wrong.push(format!("{file}: {link}"));
            } else if !anchor.is_empty() {
                let there = anchors(&std::fs::read_to_string(to).unwrap());
                if !there.iter().any(|a| a == anchor) {
                    wrong.push(format!("{file}: {link}, which has {there:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_that_documents_name_are_there() {
    let all = repository();
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = |c: char| c.is_alphanumeric() || "_-./".contains(c);
            // Of others than sources only the architecture's.
            let is_meant = word.ends_with(".rs") || file == "ARCHITECTURE.md" && word.contains('/');
            if !is_meant || !word.chars().all(is_path) {
                continue;
            }
            let word = word.trim_end_matches('/');
            let end = format!("/{word}");
            if !all.contains(word) && !all.iter().any(|path| path.ends_with(&end)) {
                wrong.push(format!("{file}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_the_map_of_the_architecture_names_is_there() {
    let all = repository();
    let text = documents()
        .into_iter()
        .find(|(file, _)| file == "ARCHITECTURE.md");
    let text = text.unwrap().1;
    let map = text.split("## Map").nth(1).unwrap();
    let map = map.split("```").nth(1).unwrap();
    // The folders around a line, with its indent.
    let mut around: Vec<(usize, String)> = Vec::new();
    let (mut wrong, mut n) = (Vec::new(), 0);
    for line in map.lines().skip(1) {
        let indent = line.len() - line.trim_start().len();
        around.retain(|(outer, _)| *outer < indent);
        let within = around.last().map_or("", |(_, dir)| dir).to_string();
        let mut dirs = vec![within.clone(), "src/".into(), String::new()];
        for (at, word) in line.split([' ', ',', ';', ':', '(', ')']).enumerate() {
            if !word.ends_with(".rs") && !word.ends_with('/') {
                continue;
            }
            n += 1;
            let there = |dir: &String| all.contains(format!("{dir}{word}").trim_end_matches('/'));
            if !dirs.iter().any(there) {
                wrong.push(format!("{within}: {word}"));
            }
            if at == indent && word.ends_with('/') {
                let dir = format!("{within}{word}");
                // What else the line names is in there, perhaps.
                dirs.insert(0, dir.clone());
                around.push((indent, dir));
            }
        }
    }
    assert!(n > 100, "{n}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
