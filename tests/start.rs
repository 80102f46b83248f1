//! `./start`, with other tools than this machine has: each test makes a folder that is all of PATH.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

struct Machine(tempfile::TempDir);

impl Machine {
    /// Has what every machine has, and these scripts by name.
    fn with(scripts: &[(&str, &str)]) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        for tool in ["bash", "dirname", "sed", "sort", "head", "grep", "env"] {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|folder| folder.join(tool))
                .find(|path| path.exists());
            symlink(found.unwrap(), machine.path(tool)).unwrap();
        }
        let usual = [("cc", ""), ("uname", "echo Linux"), ("id", "echo 1000")];
        for (name, script) in usual.iter().chain(scripts) {
            let path = machine.path(name);
            fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, arguments: &[&str], environment: &[(&str, &str)], from: &Path) -> Output {
        Command::new(self.path("bash"))
            .arg(format!("{ROOT}/start"))
            .args(arguments)
            .env_clear()
            .env("PATH", self.0.path())
            .envs(environment.iter().copied())
            .current_dir(from)
            .output()
            .unwrap()
    }

    /// What it says when it cannot start.
    fn refused(&self) -> String {
        let output = self.start(&[], &[], Path::new("/"));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A distribution's cargo, without rustup, formatter or linter: what it was called with is what it says.
fn cargo(version: &str) -> String {
    format!(
        "case $1 in
  --version) echo 'cargo {version} (abc 2026-01-01)' ;;
  run) echo \"$@\"; echo \"data=${{LEVERET_DATA_DIR-none}} in=$PWD\" ;;
  *) exit 101 ;;
esac"
    )
}

#[test]
fn a_distributions_cargo_is_enough() {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    for version in [wanted, "1.95.0", "2.0.0-nightly"] {
        let machine = Machine::with(&[("cargo", &cargo(version))]);
        let output = machine.start(&["--config", "mine.toml"], &[], Path::new("/"));
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let run = format!("run --release --locked --manifest-path {ROOT}/Cargo.toml -- ");
        let expected = format!("{run}--config mine.toml\ndata={ROOT}/data in=/\n");
        assert_eq!(said, expected);
    }
}

#[test]
fn a_folder_that_somebody_names_is_not_overruled() {
    let machine = Machine::with(&[("cargo", &cargo("1.95.0"))]);
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a.toml"), "[log]\n").unwrap();
    fs::write(from.path().join("b.toml"), " data_dir = \"/srv\"\n").unwrap();
    let data = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = machine.start(arguments, environment, from.path());
        let said = String::from_utf8(output.stdout).unwrap();
        let from = said.split("data=").nth(1).unwrap();
        from.split(" in=").next().unwrap().to_string()
    };
    let default = format!("{ROOT}/data");
    assert_eq!(data(&["--config", "a.toml"], &[]), default);
    assert_eq!(data(&["--config", "b.toml"], &[]), "none");
    assert_eq!(data(&["--config=b.toml"], &[]), "none");
    assert_eq!(data(&[], &[("LEVERET_CONFIG", "b.toml")]), "none");
    assert_eq!(data(&[], &[("LEVERET_DATA_DIR", "/else")]), "/else");
}

#[test]
fn what_is_missing_is_said() {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let old = Machine::with(&[("cargo", &cargo("1.63.0"))]).refused();
    assert!(
        old.contains(&format!(
            "Rust {wanted} or later is needed; there is 1.63.0"
        )),
        "{old}"
    );
    assert!(old.contains("https://rustup.rs"), "{old}");

    let none = Machine::with(&[]).refused();
    assert!(
        none.contains("there is none") && none.contains("no apt-get"),
        "{none}"
    );
    assert!(none.contains("https://rustup.rs"), "{none}");

    let no_root = Machine::with(&[("apt-get", "exit 100")]).refused();
    assert!(no_root.contains("no sudo here"), "{no_root}");

    let no_package = [("apt-get", "exit 100"), ("id", "echo 0")];
    let no_package = Machine::with(&no_package).refused();
    assert!(
        no_package.contains("could not install: rustup"),
        "{no_package}"
    );

    let other = Machine::with(&[("uname", "echo Darwin"), ("cargo", &cargo("1.95.0"))]).refused();
    assert!(other.contains("Linux only; this is Darwin"), "{other}");
}

#[test]
fn an_old_cargo_is_replaced_by_rustups() {
    // rustup's own cargo: another one after the installation.
    let cargo = format!(
        "case $1-${{RUSTUP_TOOLCHAIN-}} in --version-) echo 'cargo 1.70.0' ;; *) {} ;; esac",
        cargo("1.95.0").replace('\n', "\n  ")
    );
    let rustup = "[ \"$*\" = 'toolchain install stable --profile minimal' ]";
    let machine = Machine::with(&[("cargo", &cargo), ("rustup", rustup)]);
    let output = machine.start(&[], &[], Path::new("/"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("there is 1.70.0"),
        "{output:?}"
    );
}
