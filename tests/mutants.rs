//! The faults that `tests/mutants/run` puts back one at a time can still be put back: each patch finds the lines
//! that it changes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

/// Where in the lines of a file these stand, if it is one place.
fn place(lines: &[&str], wanted: &[&str]) -> Option<usize> {
    let mut places = lines.windows(wanted.len()).enumerate();
    let found = places.find(|(_, window)| *window == wanted);
    let again = places.any(|(_, window)| window == wanted);
    found.filter(|_| !again).map(|(at, _)| at)
}

#[test]
fn each_can_still_be_put_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut patches = 0;
    for entry in std::fs::read_dir(root.join("tests/mutants")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "patch") {
            continue;
        }
        let shown = path.display();
        let text = std::fs::read_to_string(&path).unwrap();
        let says = text.lines().nth(1).and_then(|l| l.strip_prefix("Test: "));
        assert!(says.is_some(), "{shown} names no test");
        let mut hunks = 0;
        for of_file in text.split("\n--- ").skip(1) {
            let name = of_file.lines().find_map(|l| l.strip_prefix("+++ b/"));
            let source = std::fs::read_to_string(root.join(name.unwrap())).unwrap();
            let lines: Vec<&str> = source.lines().collect();
            let end = of_file.find("\ndiff ").unwrap_or(of_file.len());
            for hunk in of_file[..end].split("\n@@ ").skip(1) {
                let (mut before, mut changes) = (Vec::new(), false);
                for line in hunk.lines().skip(1) {
                    match line.split_at_checked(1) {
                        Some((" " | "-", line)) => before.push(line),
                        None => before.push(""),
                        _ => {}
                    }
                    changes |= line.starts_with(['-', '+']);
                }
                assert!(
                    changes && place(&lines, &before).is_some(),
                    "{shown}: @@ {hunk}"
                );
                hunks += 1;
            }
        }
        assert!(hunks > 0, "{shown} changes nothing");
        patches += 1;
    }
    assert!(patches > 10, "{patches}");
}
