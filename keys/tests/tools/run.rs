//! Runs programs of others with a deadline.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program if it is installed; otherwise a message that says what to install.
pub fn tool(program: &str, package: &str) -> Option<Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if found {
        Some(Command::new(program))
    } else {
        eprintln!("skipped: `{program}` is not installed (package {package})");
        None
    }
}

/// The file if it exists; otherwise a message.
pub fn file(path: &'static str, package: &str) -> Option<&'static Path> {
    let path = Path::new(path);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: there is no {} (package {package})", path.display());
    None
}

/// A process that is killed when it is dropped.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Whether it ended by itself in time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that ends within a minute.
pub fn output(command: &mut Command) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&err).unwrap());
    let mut process = Process::start(command);
    assert!(process.ends_within(Duration::from_secs(60)), "{command:?} did not end");
    Output {
        status: process.0.wait().unwrap(),
        stdout: std::fs::read(out).unwrap(),
        stderr: std::fs::read(err).unwrap(),
    }
}

/// Runs a command that must succeed and gives what it printed.
pub fn stdout(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a command succeeds.
pub fn succeeds(command: &mut Command) -> bool {
    output(command).status.success()
}
