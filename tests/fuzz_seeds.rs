//! The seeds of the fuzzers, through the same functions as theirs: what was found once is not there again.
//! `fuzz/run` goes on from here.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, missing_docs, reason = "a package of its own")]
mod fuzz;

use std::path::Path;

/// A folder may be named instead of the seeds': `LEVERET_FUZZ_CORPUS`.
fn corpus() -> std::path::PathBuf {
    let named = std::env::var_os("LEVERET_FUZZ_CORPUS").map(Into::into);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds"))
}

fn run(target: &str) {
    let found = fuzz::TARGETS.iter().find(|(name, _)| *name == target);
    let (_, act) = found.expect("a target");
    let folder = corpus().join(target);
    let files = std::fs::read_dir(&folder);
    let files = files.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = files.map(|f| f.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    for path in paths {
        let input = std::fs::read(&path).expect("a file");
        let done = std::panic::catch_unwind(|| act(&input));
        assert!(done.is_ok(), "{}: see above", path.display());
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn all_targets_are_here() {
            let names: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! { config connection conversation definitions frames handshake methods recovery tables }
