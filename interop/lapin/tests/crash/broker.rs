//! The process.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// What has not come by then does not come.
const START_MAX: Duration = Duration::from_secs(30);

/// A folder that goes when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        let name = format!("leveret-crash-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a failure left is looked at.
        if !thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A process that may not be ready.
pub struct Broker {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Broker {
    pub fn spawn(binary: &OsStr, folder: &Folder, settings: &[(&str, &str)]) -> Broker {
        let mut child = Command::new(binary)
            .arg("--data-dir")
            .arg(folder.0.join("data"))
            .args(["--amqp", "127.0.0.1:0"])
            .env_clear()
            .env("LEVERET_LISTENERS_PROMETHEUS", "")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in said.map_while(Result::ok) {
                if line.contains("ERROR") || line.contains("panicked") {
                    eprintln!("{line}");
                }
                // Nobody may listen any more.
                let _ = tell.send(line);
            }
        });
        Broker { child, lines }
    }

    /// Waits until it serves; its address.
    pub fn ready(&self) -> String {
        let mut address = None;
        loop {
            let line = self.lines.recv_timeout(START_MAX);
            let line = line.expect("it starts in time");
            if let Some((_, rest)) = line.split_once("listening for amqp address=") {
                address = Some(rest.trim().to_string());
            }
            if line.contains("Server startup complete") {
                return address.expect("it listens");
            }
        }
    }

    /// Whether it is still there.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("its end");
    }

    /// SIGTERM, and a good end.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").arg(&pid).status();
        assert!(told.is_ok_and(|s| s.success()), "a signal");
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
