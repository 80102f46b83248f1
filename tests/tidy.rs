//! Rules of the source that a compiler does not check.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

/// Lines that a file may have.
const LINES_MAX: usize = 800;

fn files_in(dir: &Path, into: &mut Vec<PathBuf>) {
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
fn sources() -> Vec<(String, String)> {
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
    ("config", &["protocol"]),
    ("cli", &["config"]),
    ("logging", &["config"]),
    ("perf", &["cli", "protocol"]),
    ("protocol", &[]),
    ("broker", &["protocol", "sync"]),
    ("amqp", &["protocol", "broker", "sync"]),
    ("storage", &["broker", "sync"]),
    ("definitions_file", &["broker", "protocol", "password"]),
];

#[test]
fn modules_use_what_lies_below_them_only() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in line.split("crate::").skip(1) {
                let end = used.find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &used[..end.unwrap_or(used.len())];
                if used != module && !used.is_empty() && !may_use.contains(&used) {
                    wrong.push(format!("src/{file}:{}: {module} uses {used}", number + 1));
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
        "std::fs::",
    ];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if !["protocol", "broker", "amqp"]
            .iter()
            .any(|m| file.starts_with(m))
        {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("src/{file}:{}: {}", number + 1, line.trim()));
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

#[test]
fn what_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "interop/README.md",
        "fuzz/README.md",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let dir = root.join(file).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            if !link.is_empty() && !link.contains("://") {
                assert!(dir.join(link).exists(), "{file} links to {link}");
            }
        }
    }
}
